"""UCB1 as a pure function: against exhaustive comparison, and its regret on simulated skills."""

import math
import random
from dataclasses import dataclass
from itertools import product

import pytest

from skillsd.skills.retrieval import choose, separation, ucb_score


@dataclass
class Arm:
    id: int
    mean_reward: float = 0.0
    chosen: int = 0


def test_the_score_is_the_one_by_hand():
    # 0.25 + sqrt(2) * sqrt(ln 8 / 2) = 0.25 + sqrt(3 ln 2)
    assert ucb_score(0.25, 2, 8, math.sqrt(2)) == pytest.approx(0.25 + math.sqrt(3 * math.log(2)))
    assert ucb_score(-1.0, 0, 1, 0.0) == math.inf
    assert ucb_score(0.5, 1, 1, 9.0) == 0.5  # ln 1 = 0
    assert ucb_score(0.5, 2, 10, 1.0) > ucb_score(0.5, 3, 10, 1.0) > ucb_score(0.5, 3, 9, 1.0)


@pytest.mark.parametrize("c", [0.0, 2**0.5])
def test_choice_is_the_maximum_of_every_small_bank(c):
    """All banks of three skills with counts 0..2 and rewards 0, 0.5, 1: 729 of them, in every order of listing."""
    for counts, rewards in product(product(range(3), repeat=3), product((0.0, 0.5, 1.0), repeat=3)):
        arms = [Arm(i, r, n) for i, (r, n) in enumerate(zip(rewards, counts, strict=True))]
        total = max(1, sum(counts))
        found = choose(arms, total, c)
        unseen = [arm for arm in arms if arm.chosen == 0]
        if unseen:
            assert found is unseen[-1]
            continue
        bound = [r + c * math.sqrt(math.log(total) / n) for r, n in zip(rewards, counts, strict=True)]
        assert bound[found.id] == pytest.approx(max(bound), abs=1e-12)
        assert found is choose(arms[::-1], total, c)


def test_ties_go_to_the_newest_and_nothing_comes_of_nothing():
    assert choose([Arm(3, 0.5, 2), Arm(7, 0.5, 2), Arm(5, 0.5, 2)], 6, 1.0).id == 7
    assert choose([], 1, 1.0) is None


def test_regret_grows_like_the_logarithm():
    """Auer et al. (2002), theorem 1: expected pulls of an arm that is worse by D are below 8 ln N / D^2 + 5."""
    rng, chances, rounds = random.Random(0), (0.2, 0.5, 0.9), 3000
    arms = [Arm(i) for i in range(3)]
    for total in range(rounds):
        arm = choose(arms, total, 2**0.5)
        reward = float(rng.random() < chances[arm.id])
        arm.mean_reward = (arm.mean_reward * arm.chosen + reward) / (arm.chosen + 1)
        arm.chosen += 1
    for arm in arms[:2]:
        assert 1 < arm.chosen < 8 * math.log(rounds) / (0.9 - chances[arm.id]) ** 2 + 5
    assert arms[2].chosen > 0.8 * rounds


def test_separation_is_the_share_of_pairs_told_apart():
    assert separation([0.3, 0.1, 0.2], [1.0, 0.0, 0.5]) == 1.0
    assert separation([0.1, 0.3, 0.2], [1.0, 0.0, 0.5]) == 0.0
    assert separation([0.5, 0.5, 0.1, 0.9], [1.0, 0.0, 0.0, 0.0]) == 0.5  # a tie, a pair won, a pair lost
    assert separation([0.5, 0.1], [1.0, 1.0]) is None
    assert separation([], []) is None
