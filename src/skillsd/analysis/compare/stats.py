"""The numbers of a comparison: paired bootstrap over seeds and tasks, Holm's correction, sample efficiency. Pure numpy.

The bootstrap has two levels, as both the seeds and the tasks are samples of what could have been: seeds and tasks are
drawn with replacement, and a draw's mean is that of the scores where drawn seeds meet drawn tasks. The draws depend on
the numbers of seeds and tasks alone, so that all rows of a comparison meet the same ones; the difference between two
rows is then a bootstrap of the scores' differences, seed by seed and task by task.

With n values a bootstrap's variance is (n-1)/n of what it should be, which matters for a few seeds (Hesterberg 2015,
arXiv:1411.5279, section 3.2). As a draw's mean is linear in the scores, its deviation from the point estimate grows by
sqrt(n/(n-1)) when the scores are stretched by as much about their mean over seeds, and in the same way over tasks:
:func:`_stretched` does so before anything is drawn.

The percentiles are those of a bootstrap, not of Student's t: simulated with 64 tasks (0/1 scores), nominal 95 %
intervals covered the truth in 97 to 99 % of experiments with 5 seeds where seeds differed little (standard deviation
7 points), as drawing both levels counts the noise of a single score more than once; where seeds differed a lot (15
points), in 93 % with 5 seeds and in 88 % with 3.

Where there is one value a seed (learning speed), too few values are drawn for a bootstrap to be any good: intervals and
p are those of Student's t over the seeds, or over the differences of paired seeds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
#: seed -> scores [tasks] in [0, 1]; the same tasks in the same order for all seeds and rows.
Scores = Mapping[int, ArrayLike]
#: (episodes, accuracy) of one seed, in order of episodes.
Curve = Sequence[tuple[float, float]]

RESAMPLES = 10_000
LEVEL = 0.95

#: Differences smaller than this are rounding errors.
_ZERO = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference of means with its interval (None: nothing to measure it by); ``p`` for differences alone.

    ``seeds`` are those that were used; ``notes`` say in plain English where the interval covers less than it should.
    """

    value: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    tasks: int
    p: float | None = None
    notes: tuple[str, ...] = ()


def mean_interval(scores: Scores, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The mean of ``scores`` over seeds and tasks, and its interval, cut to [0, 1].

    With one seed (or one task) only the other level is drawn, and the estimate says so; with one of each the interval
    is [0, 1]. Raises :class:`ValueError` for no seeds, no tasks, ragged or non-finite scores.
    """
    seeds = tuple(sorted(scores))
    x = _matrix(scores, seeds)
    if x.size == 1:
        low, high = 0.0, 1.0
    else:
        low, high = _percentiles(_draw(x, resamples, seed), level).clip(0.0, 1.0)
    return Estimate(float(x.mean()), float(low), float(high), seeds, x.shape[1], None, _notes(x))


def paired_bootstrap(
    scores: Scores, baseline: Scores, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Estimate:
    """The difference ``scores`` - ``baseline`` of the means, its interval, and its two-sided p-value.

    Seeds are paired: those that both rows have count, the others are left out (and the estimate says so). Without a
    common seed each row's seeds are drawn apart; tasks are paired all the same.
    p = 2 min(P(d* <= 0), P(d* >= 0)) over the draws d*, one added to each count, at most 1.
    Raises :class:`ValueError` as :func:`mean_interval` does, and for different numbers of tasks.
    """
    common = tuple(sorted(set(scores) & set(baseline)))
    if common or not (scores and baseline):
        a, b = _matrix(scores, common or tuple(sorted(scores))), _matrix(baseline, common or tuple(sorted(baseline)))
        _same_tasks(a, b)
        d = a - b
        draws = _draw(d, resamples, seed)
        value, size, notes = float(d.mean()), d.size, _notes(d)
        if len(common) < max(len(scores), len(baseline)):
            notes = (f"{_count(len(common), 'common seed')} only", *notes)
        seeds = common
    else:
        a, b = _matrix(scores, tuple(sorted(scores))), _matrix(baseline, tuple(sorted(baseline)))
        _same_tasks(a, b)
        draws = _draw(a, resamples, seed) - _draw(b, resamples, seed, stream=2)
        value, size = float(a.mean() - b.mean()), min(a.shape[0], b.shape[0]) * a.shape[1]
        notes = ("no common seed: seeds drawn apart", *dict.fromkeys((*_notes(a), *_notes(b))))
        seeds = tuple(sorted({*scores, *baseline}))
    if size == 1:  # nothing was drawn
        return Estimate(value, -1.0, 1.0, seeds, a.shape[1], 1.0, notes)
    low, high = _percentiles(draws, level).clip(-1.0, 1.0)
    tails = min(int((draws <= _ZERO).sum()), int((draws >= -_ZERO).sum()))
    p = min(1.0, 2 * (tails + 1) / (resamples + 1))
    return Estimate(value, float(low), float(high), seeds, a.shape[1], p, notes)


def seed_mean(values: Mapping[int, float], *, level: float = LEVEL) -> Estimate:
    """The mean of one value in [0, 1] for each seed, with Student's t interval over seeds; no interval with one seed.

    Raises :class:`ValueError` for no seeds and for non-finite values, as :func:`seed_difference` does.
    """
    return replace(_student(values, level, lowest=0.0), p=None)


def seed_difference(values: Mapping[int, float], baseline: Mapping[int, float], *, level: float = LEVEL) -> Estimate:
    """The mean of ``values`` - ``baseline`` over the seeds that both have, with the paired t interval and p-value.

    Without a common seed the difference of the means, and no interval.
    """
    common = sorted(set(values) & set(baseline))
    if not common:
        value = seed_mean(values).value - seed_mean(baseline).value
        seeds = tuple(sorted({*values, *baseline}))
        return Estimate(value, None, None, seeds, 1, None, ("no common seed: no interval",))
    found = _student({seed: values[seed] - baseline[seed] for seed in common}, level, lowest=-1.0)
    if len(common) < max(len(values), len(baseline)):
        found = replace(found, notes=(f"{_count(len(common), 'common seed')} only", *found.notes))
    return found


def _student(values: Mapping[int, float], level: float, lowest: float) -> Estimate:
    """The mean of ``values``, its interval cut to [``lowest``, 1], and the p-value against a mean of 0."""
    seeds = tuple(sorted(values))
    x = _matrix({seed: [values[seed]] for seed in seeds}, seeds)[:, 0]
    mean = float(x.mean())
    if len(x) == 1:
        return Estimate(mean, None, None, seeds, 1, None, ("one seed: no interval",))
    if np.ptp(x) < _ZERO:
        return Estimate(mean, None, None, seeds, 1, None, ("all seeds equal: no interval",))
    error, freedom = float(x.std(ddof=1)) / math.sqrt(len(x)), len(x) - 1
    half = student_quantile(level, freedom) * error
    p = student_p(mean / error, freedom)
    return Estimate(mean, max(lowest, mean - half), min(1.0, mean + half), seeds, 1, p)


def sign_flip(differences: Sequence[float]) -> float | None:
    """The two-sided p-value of paired ``differences`` with a mean of 0, exact: the share of all ways of giving them
    signs whose mean is at least as far from 0. None for more than 20, or for none.
    """
    x = np.asarray(differences, dtype=np.float64)
    if not 0 < len(x) <= 20:
        return None
    sums = np.zeros(1)
    for value in x:
        sums = np.concatenate([sums + value, sums - value])
    return float((np.abs(sums) >= abs(x.sum()) - _ZERO).mean())


def student_p(t: float, freedom: int) -> float:
    """The two-sided p-value of Student's t with ``freedom`` degrees: the chance of one at least as far from 0."""
    return max(0.0, 1 - _within(math.atan(abs(t) / math.sqrt(freedom)), freedom))


def student_quantile(level: float, freedom: int) -> float:
    """The t with a share of ``level`` (in (0, 1)) of Student's distribution between -t and t."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) tan(angle)), exact: Abramowitz and Stegun (1964), equations 26.7.3 and 26.7.4."""
    odd = freedom % 2
    term, total = math.cos(angle) ** odd, 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    inside = math.sin(angle) * total
    return 2 / math.pi * (angle + inside) if odd else inside


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the order given: the chance of one false finding among all."""
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


@dataclass(frozen=True)
class MeanCurve:
    """Accuracy over training episodes, [points] each: mean over seeds and its standard error (0 with one seed)."""

    episodes: Array
    mean: Array
    error: Array
    seeds: int


def mean_curve(curves: Mapping[int, Curve]) -> MeanCurve:
    """The mean of all seeds' curves, at every number of episodes that a seed was measured at and all seeds reached.

    Between its measurements a seed's curve is a straight line. Seeds without a point are left out; no points, no curve.
    """
    arrays = [np.asarray(curve, dtype=np.float64) for curve in curves.values() if len(curve)]
    if not arrays:
        return MeanCurve(np.empty(0), np.empty(0), np.empty(0), 0)
    first, last = max(c[0, 0] for c in arrays), min(c[-1, 0] for c in arrays)
    x = np.unique(np.concatenate([c[:, 0] for c in arrays]))
    x = x[(x >= first) & (x <= last)]
    y = np.stack([np.interp(x, c[:, 0], c[:, 1]) for c in arrays])
    error = y.std(axis=0, ddof=1) / math.sqrt(len(y)) if len(y) > 1 else np.zeros(len(x))
    return MeanCurve(x, y.mean(axis=0), error, len(y))


def common_range(curves: Collection[Curve]) -> tuple[float, float] | None:
    """The first and the last number of episodes between which all ``curves`` were measured; None: there are none."""
    if not curves or not all(curves):
        return None
    first, last = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    return (first, last) if first < last else None


def mean_height(curve: Curve, first: float, last: float) -> float:
    """The mean of ``curve`` from ``first`` to ``last`` episodes: the area under its straight lines over its length."""
    x, y = np.asarray(curve, dtype=np.float64).T
    at = np.unique(np.concatenate(([first], x[(x > first) & (x < last)], [last])))
    return float(np.trapezoid(np.interp(at, x, y), at) / (last - first))


@dataclass(frozen=True)
class Reach:
    """Training episodes until an accuracy was first reached: by the mean curve, and by each seed's own.

    None: never. ``at_first``: the mean curve starts above it, so that ``episodes`` is an upper bound.
    """

    threshold: float
    episodes: float | None
    at_first: bool
    per_seed: dict[int, float | None]


def episodes_to_reach(curves: Mapping[int, Curve], thresholds: Sequence[float]) -> list[Reach]:
    """For each threshold the episodes after which the mean over seeds first reaches it, linearly interpolated."""
    mean = mean_curve(curves)
    points = list(zip(mean.episodes.tolist(), mean.mean.tolist(), strict=True))
    return [
        Reach(
            threshold=threshold,
            episodes=_first_reach(points, threshold),
            at_first=bool(points) and points[0][1] >= threshold - _ZERO,
            per_seed={seed: _first_reach(curve, threshold) for seed, curve in curves.items() if len(curve)},
        )
        for threshold in thresholds
    ]


def _first_reach(curve: Curve, threshold: float) -> float | None:
    before: tuple[float, float] | None = None
    for x, y in curve:
        if y >= threshold - _ZERO:
            if before is None or y <= threshold:
                return float(x)
            return float(before[0] + (x - before[0]) * (threshold - before[1]) / (y - before[1]))
        before = (x, y)
    return None


def _matrix(scores: Scores, seeds: Sequence[int]) -> Array:
    """[seeds, tasks]"""
    rows = [np.asarray(scores[s], dtype=np.float64) for s in seeds]
    if not rows:
        raise ValueError("no seeds to compare")
    if any(row.ndim != 1 or row.shape != rows[0].shape for row in rows):
        raise ValueError("every seed needs one score for each of the same tasks")
    x = np.stack(rows)
    if x.shape[1] == 0:
        raise ValueError("no tasks to compare")
    if not np.isfinite(x).all():
        raise ValueError("a score is not a finite number")
    return x


def _same_tasks(a: Array, b: Array) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"rows have {a.shape[1]} and {b.shape[1]} tasks: only the same tasks can be compared")


def _stretched(x: Array) -> Array:
    """``x`` [seeds, tasks] with its deviations from the means times sqrt(n/(n-1)), over seeds and over tasks."""
    for axis in (0, 1):
        n = x.shape[axis]
        if n > 1:
            mean = x.mean(axis=axis, keepdims=True)
            x = mean + math.sqrt(n / (n - 1)) * (x - mean)
    return x


def _draw(x: Array, resamples: int, seed: int, stream: int = 0) -> Array:
    """Means [resamples] of ``x`` [seeds, tasks] over drawn seeds and tasks. ``stream`` 2 draws seeds apart."""
    seeds, tasks = x.shape
    by_seed = _weights(tasks, resamples, seed, 1) @ _stretched(x).T  # [resamples, seeds]
    draws: Array = (by_seed * _weights(seeds, resamples, seed, stream)).sum(axis=1)
    return draws


@lru_cache(maxsize=4)
def _weights(n: int, resamples: int, seed: int, stream: int) -> Array:
    """How often each of ``n`` is drawn, as a share, [resamples, n]: the same at every call."""
    generator = np.random.default_rng([seed, stream, n])
    weights: Array = generator.multinomial(n, np.full(n, 1 / n), resamples) / n
    weights.setflags(write=False)
    return weights


def _percentiles(draws: Array, level: float) -> Array:
    ends: Array = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return ends


def _notes(x: Array) -> tuple[str, ...]:
    seeds, tasks = x.shape
    notes = []
    if seeds == 1 and tasks == 1:
        notes.append("one seed, one task: nothing to draw")
    elif seeds == 1:
        notes.append("one seed: spread over tasks alone")
    elif tasks == 1:
        notes.append("one task: spread over seeds alone")
    if x.size > 1 and np.ptp(x) < _ZERO:
        notes.append("all scores equal: no spread to measure")
    return tuple(notes)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
