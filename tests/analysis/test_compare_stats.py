"""The statistics of a comparison, against exact enumeration and by simulation."""

import itertools
import math

import numpy as np
import pytest

from skillsd.analysis.compare.stats import (
    common_range,
    episodes_to_reach,
    holm,
    mean_curve,
    mean_height,
    mean_interval,
    paired_bootstrap,
    seed_difference,
    seed_mean,
    student_p,
    student_quantile,
)


def rows(x):
    return dict(enumerate(np.asarray(x, dtype=float)))


def enumerate_draws(x):
    """All equally likely draws of the mean, with each part of the scores inflated on its own."""
    x = np.asarray(x, dtype=float)
    s, t = x.shape
    mean = x.mean()
    by_seed, by_task = x.mean(1) - mean, x.mean(0) - mean
    rest = x - mean - by_seed[:, None] - by_task
    f, g = math.sqrt(s / (s - 1)), math.sqrt(t / (t - 1))
    return np.array(
        [
            mean
            + f * np.mean([by_seed[i] for i in seeds])
            + g * np.mean([by_task[j] for j in tasks])
            + f * g * np.mean([rest[i, j] for i in seeds for j in tasks])
            for seeds in itertools.product(range(s), repeat=s)
            for tasks in itertools.product(range(t), repeat=t)
        ]
    )


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([[1, 1], [0, 1]], [[0, 0], [1, 0]]),
        ([[1, 0], [1, 1]], [[0, 0], [0, 1]]),
        ([[0.9, 0.2], [0.4, 0.7]], [[0.3, 0.5], [0.1, 0.6]]),
        ([[1, 0, 1], [1, 1, 0], [0, 1, 1]], [[0, 0, 1], [0, 1, 0], [0, 1, 0]]),
    ],
)
def test_the_paired_bootstrap_agrees_with_all_resamples(a, b):
    exact = enumerate_draws(np.subtract(a, b))
    found = paired_bootstrap(rows(a), rows(b), resamples=200_000)
    assert found.value == pytest.approx(np.mean(a) - np.mean(b))
    p = 2 * min((exact <= 1e-9).mean(), (exact >= -1e-9).mean())
    assert found.p == pytest.approx(min(1, p), abs=0.01)
    for end, q in ((found.low, 0.025), (found.high, 0.975)):
        below, above = np.quantile(exact, [q - 0.004, q + 0.004], method="inverted_cdf").clip(-1, 1)
        assert below - 1e-9 <= end <= above + 1e-9


def test_the_interval_of_the_mean_agrees_with_all_resamples():
    x = [[0.5, 0.6], [0.4, 0.7]]
    exact = enumerate_draws(x)
    found = mean_interval(rows(x))
    assert (found.value, found.low, found.high) == pytest.approx((0.55, exact.min(), exact.max()))


def test_two_seeds_are_inflated_by_the_root_of_two():
    # No task effect: the spread is that of the seeds alone, 0.1 about the mean.
    found = mean_interval(rows([[0.4] * 6, [0.6] * 6]))
    assert (found.low, found.high) == pytest.approx((0.5 - 0.1 * math.sqrt(2), 0.5 + 0.1 * math.sqrt(2)))


def simulate(rng, seeds, tasks, difficulty=None):
    difficulty = rng.uniform(-0.3, 0.3, tasks) if difficulty is None else difficulty
    chance = 0.5 + difficulty + rng.uniform(-0.12, 0.12, (seeds, 1))
    return (rng.random((seeds, tasks)) < chance).astype(float), difficulty


def test_intervals_of_mean_and_difference_cover_the_truth():
    rng = np.random.default_rng(1)
    experiments, mean_covered, difference_covered, found_something = 400, 0, 0, 0
    p_values = []
    for _ in range(experiments):
        a, difficulty = simulate(rng, 5, 64)
        b, _ = simulate(rng, 5, 64, difficulty)
        mean = mean_interval(rows(a), resamples=800)
        difference = paired_bootstrap(rows(a), rows(b), resamples=800)
        mean_covered += mean.low <= 0.5 <= mean.high
        difference_covered += difference.low <= 0 <= difference.high
        found_something += difference.p < 0.05
        p_values.append(difference.p)
    assert 0.88 <= mean_covered / experiments <= 0.995
    assert 0.88 <= difference_covered / experiments <= 0.995
    assert found_something / experiments <= 0.12
    assert 0.4 <= np.mean(p_values) <= 0.65


def test_pairing_pays_for_correlated_rows():
    rng = np.random.default_rng(2)
    a, _ = simulate(rng, 5, 64)
    b = np.where(rng.random(a.shape) < 0.1, 1 - a, a)
    paired = paired_bootstrap(rows(a), rows(b))
    unpaired = paired_bootstrap(rows(a), {seed + 100: x for seed, x in rows(b).items()})
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.high - paired.low < 0.8 * (unpaired.high - unpaired.low)
    assert paired.notes == ()
    assert any("no common seed" in note for note in unpaired.notes)


def test_p_is_symmetric():
    rng = np.random.default_rng(3)
    a, difficulty = simulate(rng, 4, 30)
    b, _ = simulate(rng, 4, 30, difficulty)
    there, back = paired_bootstrap(rows(a), rows(b)), paired_bootstrap(rows(b), rows(a))
    assert there.p == back.p
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_seeded_and_the_order_of_seeds_is_nothing():
    a, _ = simulate(np.random.default_rng(4), 3, 20)
    forward, backward = rows(a), dict(reversed(rows(a).items()))
    assert mean_interval(forward) == mean_interval(backward) == mean_interval(forward)
    assert mean_interval(forward, seed=1) != mean_interval(forward)


def test_only_common_seeds_count():
    rng = np.random.default_rng(5)
    a, b = (dict(enumerate(simulate(rng, 5, 20)[0])) for _ in range(2))
    some = {seed: b[seed] for seed in (1, 3)}
    found = paired_bootstrap(a, some)
    both = paired_bootstrap({seed: a[seed] for seed in (1, 3)}, some)
    assert found.seeds == (1, 3)
    assert (found.value, found.low, found.high, found.p) == (both.value, both.low, both.high, both.p)
    assert any("2 common seeds" in note for note in found.notes)
    assert both.notes == ()


def test_one_seed_draws_tasks_alone_and_says_so():
    scores = np.array([1.0] * 30 + [0.0] * 20)
    found = mean_interval({7: scores})
    half = 1.96 * math.sqrt(0.6 * 0.4 / 49)
    assert (found.low, found.high) == pytest.approx((0.6 - half, 0.6 + half), abs=0.03)
    assert found.seeds == (7,)
    assert any("one seed" in note for note in found.notes)
    assert any("one seed" in n for n in paired_bootstrap({7: scores}, {7: scores[::-1]}).notes)


def test_one_task_has_an_interval_over_seeds_and_says_so():
    found = mean_interval({0: [1.0], 1: [0.0], 2: [1.0]})
    assert found.low < 2 / 3 < found.high
    assert any("one task" in note for note in found.notes)


def test_one_seed_and_one_task_claims_nothing():
    found = mean_interval({0: [1.0]})
    assert (found.value, found.low, found.high) == (1, 0, 1)
    difference = paired_bootstrap({0: [1.0]}, {0: [0.0]})
    assert (difference.value, difference.low, difference.high, difference.p) == (1, -1, 1, 1)


def test_equal_scores_show_no_difference_and_say_so():
    same = rows(np.full((3, 8), 0.25))
    found = paired_bootstrap(same, same)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    mean = mean_interval(same)
    assert (mean.low, mean.high) == pytest.approx((0.25, 0.25))
    assert any("equal" in note for note in mean.notes)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "no seeds"),
        ({0: []}, "no tasks"),
        ({0: [1.0, 0.0], 1: [1.0]}, "same tasks"),
        ({0: [1.0, math.nan]}, "finite"),
    ],
)
def test_bad_input_is_told_clearly(scores, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(scores)
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(scores, scores)


def test_different_tasks_and_a_missing_side_are_refused():
    with pytest.raises(ValueError, match="2 and 3 tasks"):
        paired_bootstrap({0: [1.0, 0.0]}, {0: [1.0, 0.0, 1.0]})
    with pytest.raises(ValueError, match="2 and 3 tasks"):
        paired_bootstrap({0: [1.0, 0.0]}, {1: [1.0, 0.0, 1.0]})
    with pytest.raises(ValueError, match="no seeds"):
        paired_bootstrap({0: [1.0, 0.0]}, {})
    with pytest.raises(ValueError, match="no seeds"):
        paired_bootstrap({}, {0: [1.0, 0.0]})


def test_holm_corrects_as_by_hand():
    assert holm([]) == []
    assert holm([0.02]) == [0.02]
    # By hand: 0.01 x 4, 0.02 x 3, max(0.06, 0.025 x 2), max(0.06, 0.5).
    assert holm([0.02, 0.5, 0.01, 0.025]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_mean_curve_is_over_what_all_seeds_reached():
    curve = mean_curve({0: [(10, 0.0), (20, 0.4), (30, 0.5)], 1: [(10, 0.2), (30, 0.6)], 2: []})
    assert curve.episodes.tolist() == [10, 20, 30]
    assert curve.mean == pytest.approx([0.1, 0.4, 0.55])
    assert curve.error == pytest.approx([0.1, 0.0, 0.05])  # half the gap between two seeds
    assert curve.seeds == 2
    assert mean_curve({0: [(10, 0.0), (20, 0.4)], 1: [(15, 1.0), (40, 1.0)]}).episodes.tolist() == [15, 20]
    assert mean_curve({0: [(10, 0.3)]}).error.tolist() == [0]
    assert mean_curve({}).seeds == mean_curve({1: []}).seeds == 0


def test_episodes_to_reach_a_height_are_read_off_the_mean_and_each_seed():
    curves = {0: [(10, 0.1), (20, 0.3), (30, 0.2), (40, 0.6)], 1: [(10, 0.1), (20, 0.1), (30, 0.2), (40, 0.2)]}
    low, middle, high, never = episodes_to_reach(curves, [0.1, 0.15, 0.4, 0.7])
    assert (low.episodes, low.at_first) == (10, True)
    assert (middle.episodes, middle.at_first) == (pytest.approx(15), False)  # the mean is 0.1, 0.2, 0.2, 0.4
    assert middle.per_seed == {0: pytest.approx(12.5), 1: pytest.approx(25)}
    assert high.episodes == 40
    assert high.per_seed == {0: pytest.approx(35), 1: None}
    assert never.episodes is None
    assert episodes_to_reach({}, [0.5])[0].episodes is None


@pytest.mark.parametrize(
    ("freedom", "t95", "t99"),
    [
        (1, 12.706, 63.657),
        (2, 4.303, 9.925),
        (3, 3.182, 5.841),
        (4, 2.776, 4.604),
        (7, 2.365, 3.499),
        (30, 2.042, 2.75),
    ],
)
def test_student_agrees_with_printed_tables(freedom, t95, t99):
    assert student_quantile(0.95, freedom) == pytest.approx(t95, abs=5e-4)
    assert student_quantile(0.99, freedom) == pytest.approx(t99, abs=5e-4)
    assert student_p(t95, freedom) == pytest.approx(0.05, abs=5e-5)
    assert student_p(-t95, freedom) == student_p(t95, freedom)
    assert student_p(0.0, freedom) == 1
    assert 0 <= student_p(1e9, freedom) < 1e-8


@pytest.mark.parametrize("freedom", [1, 2, 5, 8, 61])
def test_student_agrees_with_the_integral_of_its_density(freedom):
    x = np.linspace(0, 1.7, 20_001)
    constant = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    inside = 2 * np.trapezoid(constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2), x)
    assert student_p(1.7, freedom) == pytest.approx(1 - inside, abs=1e-8)


def test_the_mean_of_seeds_has_students_interval_cut_to_zero_and_one():
    found = seed_mean({3: 0.5, 1: 0.3, 2: 0.4})  # standard deviation 0.1, two degrees of freedom
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.4 - half, 0.4 + half), abs=1e-4)
    assert (found.seeds, found.p, found.notes) == ((1, 2, 3), None, ())
    wide = seed_mean({0: 0.1, 1: 0.9})
    assert (wide.low, wide.high) == (0, 1)


def test_the_difference_of_paired_seeds_has_students_interval_and_p():
    found = seed_difference({0: 0.5, 1: 0.7, 2: 0.9}, {2: 0.6, 1: 0.5, 0: 0.4})  # 0.1, 0.2, 0.3
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-4)
    assert found.p == pytest.approx(0.0742, abs=1e-4)  # t = 0.2 / (0.1 / sqrt(3)) = 3.464
    assert (found.seeds, found.notes) == ((0, 1, 2), ())
    fewer = seed_difference({0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.4, 2: 0.6, 7: 0.0})
    assert (fewer.seeds, fewer.notes) == ((0, 2), ("2 common seeds only",))
    assert fewer.p == pytest.approx(1 - 2 / math.pi * math.atan(2))  # Cauchy, t = 0.2 / (0.1414 / sqrt(2)) = 2


def test_one_seed_or_equal_seeds_give_no_interval_and_say_so():
    one = seed_difference({0: 0.5, 1: 0.7}, {1: 0.6})
    assert (one.value, one.low, one.high, one.p) == (pytest.approx(0.1), None, None, None)
    assert one.notes == ("1 common seed only", "one seed: no interval")
    apart = seed_difference({0: 0.5, 1: 0.7}, {2: 0.1})
    assert (apart.value, apart.low, apart.p) == (pytest.approx(0.5), None, None)
    assert apart.notes == ("no common seed: no interval",)
    same = seed_difference({0: 0.5, 1: 0.7}, {0: 0.5, 1: 0.7})
    assert (same.value, same.low, same.p, same.notes) == (0, None, None, ("all seeds equal: no interval",))
    for bad, message in (({}, "no seeds"), ({0: math.nan}, "finite")):
        with pytest.raises(ValueError, match=message):
            seed_mean(bad)


def test_student_covers_the_truth_with_few_seeds():
    rng = np.random.default_rng(6)
    found = [seed_mean(dict(enumerate(rng.normal(0.5, 0.02, 3)))) for _ in range(2000)]
    assert 0.94 <= np.mean([f.low <= 0.5 <= f.high for f in found]) <= 0.96


def test_mean_height_is_the_area_over_the_range_by_its_length():
    curve = [(10, 0.0), (20, 0.4), (50, 0.4), (60, 0.6)]
    assert mean_height(curve, 10, 60) == pytest.approx((10 * 0.2 + 30 * 0.4 + 10 * 0.5) / 50)
    assert mean_height(curve, 15, 55) == pytest.approx((5 * 0.3 + 30 * 0.4 + 5 * 0.45) / 40)  # ends between points
    assert mean_height(curve, 20, 50) == pytest.approx(0.4)
    assert mean_height(curve, 30, 40) == pytest.approx(0.4)


def test_the_common_range_is_what_all_curves_reach():
    assert common_range([[(10, 0.0), (40, 0.4)], [(20, 0.1), (60, 0.2)]]) == (20, 40)
    assert common_range([[(10, 0.0), (20, 0.4)], [(20, 0.1), (60, 0.2)]]) is None
    assert common_range([[(10, 0.0), (20, 0.4)], []]) is None
    assert common_range([]) is None
