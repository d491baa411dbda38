"""Background summarising: order, failures, hangs; and what the rules say about real replays."""

import random
import threading
import time
from types import SimpleNamespace

import pytest

from skillsd.envs import make_taskset
from skillsd.envs.sokoban.game import DIRECTIONS, Board
from skillsd.envs.sokoban.generate import generate
from skillsd.envs.sokoban.rules import describe_solution, replay, tell
from skillsd.envs.sokoban.solver import solve
from skillsd.errors import SkillSDError, UsageError
from skillsd.skills import Skill
from skillsd.skills.summarize import make_summarizer
from skillsd.skills.summarize.queue import SummaryQueue
from skillsd.types import SummaryRequest, Task, Trajectory, Turn

SKILL = Skill(success_analysis="a", mistake_analysis="b", golden_workflow="c")


def requests(count):
    return [SummaryRequest(Trajectory(f"t{i}", 1, 0, "p", [1]), Task(f"t{i}")) for i in range(count)]


class Slow:
    """Later requests finish first; some fail; one may hang until released."""

    name = "slow"

    def __init__(self, hang=()):
        self.hang, self.release = set(hang), threading.Event()

    def summarize(self, request):
        number = int(request.task.id[1:])
        if number in self.hang:
            self.release.wait()
        time.sleep(0.02 * (5 - number % 5))
        if number % 4 == 1:
            raise ValueError("bad day")
        return SKILL


def test_results_come_in_order_of_submission_and_failures_are_told():
    queue = SummaryQueue(Slow(), workers=4)
    queue.submit(requests(10))
    found = queue.collect(wait=True)
    assert [s.trajectory.task_id for s in found] == [f"t{i}" for i in range(10)]
    assert [s.error for s in found if s.skill is None] == ["ValueError: bad day"] * 3
    assert queue.pending == []
    queue.close()


def test_a_hanging_summariser_blocks_neither_us_nor_the_results_before_it():
    summarizer = Slow(hang={2})
    queue = SummaryQueue(summarizer, workers=2)
    queue.submit(requests(6))
    started = time.monotonic()
    assert [s.trajectory.task_id for s in queue.collect(wait=True, timeout=1.0)] == ["t0", "t1"]
    assert [t.task_id for t in queue.pending] == ["t2", "t3", "t4", "t5"]
    assert queue.close(drain=True, timeout=0.2) == []
    assert time.monotonic() - started < 5
    summarizer.release.set()
    with pytest.raises(RuntimeError, match="closed"):
        queue.submit(requests(1))


def test_nothing_is_waited_for_unless_asked():
    summarizer = Slow(hang={0})
    queue = SummaryQueue(summarizer, workers=1)
    queue.submit(requests(2))
    assert queue.collect(wait=False) == []
    summarizer.release.set()
    assert len(queue.collect(wait=True)) == 2
    queue.close()


def test_an_unknown_summariser_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"oracle.*rules"):
        make_summarizer("oracle")


LEVEL = "######\n#P___#\n#_X__#\n#___O#\n#____#\n######"


def test_success_is_told_truly():
    found = replay(LEVEL, ["right", "down", "left", "down", "right", "up"])
    assert not found.end.solved
    moves = solve(Board(LEVEL))
    skill = describe_solution(LEVEL, moves)
    assert "from c3" in skill.golden_workflow
    assert "to e4" in skill.golden_workflow or "e3 down to e4" in skill.golden_workflow
    assert skill.mistake_analysis == "No move was wasted."
    assert "c3" in skill.success_analysis
    assert "e4" in skill.success_analysis


@pytest.mark.parametrize("seed", range(30))
def test_following_the_workflow_of_a_noisy_success_solves_the_level(seed):
    """Parse the workflow's text back and carry it out: walk to each stand, push as told."""
    level = generate(seed, boxes=1 + seed % 2, depth=15)
    rng, board, moves = random.Random(seed), Board(level.text), []
    while not board.solved:  # a player who errs half the time, started again when the level is lost
        path = solve(board)
        if path is None:
            board, moves = Board(level.text), []
            continue
        move = path[0] if rng.random() < 0.5 else rng.choice(DIRECTIONS)
        board.move(move)
        moves.append(move)
    found = replay(level.text, moves)
    assert found.end.solved
    follower = Board(level.text)
    for push in found.pushes:
        text = tell(found).golden_workflow
        assert f"{push.direction} to" in text or len(found.pushes) > 12
        _walk(follower, push.stand)
        for _ in range(push.count):
            assert follower.move(push.direction)
    assert follower.solved


def _walk(board, goal):
    queue, seen = [(board.player, ())], {board.player}
    while queue:
        place, path = queue.pop(0)
        if board.row_col(place) == goal:
            for move in path:
                assert board.move(move)
            return
        for move in DIRECTIONS:
            there = place + board.deltas[move]
            if there not in seen and board.cells[there] in "_OPS":
                seen.add(there)
                queue.append((there, (*path, move)))
    raise AssertionError("the workflow's next stand cannot be reached")


def test_failure_names_the_fatal_push_and_why():
    skill = tell(replay(LEVEL, ["right", "right", "down", "left", None, "left"]))
    assert (
        "In move 4 the box on c3 was pushed left to b3, against a wall with no free target." in skill.mistake_analysis
    )
    assert "1 message held no valid move" in skill.mistake_analysis
    assert "Never push the box from c3 left to b3." in skill.golden_workflow
    assert "down 1 and right 2" in skill.golden_workflow


def test_detours_and_blocked_moves_are_counted():
    found = replay(LEVEL, ["up", "right", "left", "right", "left", "left"])
    assert (found.blocked, found.detour, found.pushes) == (2, 4, [])


def test_rules_are_the_task_sets_own():
    taskset = make_taskset("sokoban")
    assert type(make_summarizer("rules", taskset=taskset)) is type(taskset.rules())
    for other in (None, SimpleNamespace(name="doors")):
        with pytest.raises(UsageError, match=r"rules.*brings no rules"):
            make_summarizer("rules", taskset=other)


def test_rules_refuse_other_environments():
    trajectory = Trajectory("t", 1, 0, "What is 2 + 2?", [1], turns=[Turn("4", "right", True)])
    with pytest.raises(SkillSDError, match="no board"):
        make_taskset("sokoban").rules().summarize(SummaryRequest(trajectory, Task("t")))


OWN = """
from skillsd.types import Skill


class Mine:
    name = "mine"

    def summarize(self, request):
        return Skill(success_analysis=request.task.id, mistake_analysis="b", golden_workflow="c")


class Nameless:
    pass


class Greedy(Mine):
    def __init__(self, key):
        self.key = key


constant = 3
"""


def test_a_users_own_summariser_is_used_and_no_other_thing(tmp_path, monkeypatch):
    (tmp_path / "own_summariser.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = make_summarizer("own_summariser:Mine").summarize(SummaryRequest(None, Task("t")))
    assert found.success_analysis == "t"
    for name, message in (
        ("own_summariser:Nameless", "made no summariser"),
        ("own_summariser:Greedy", "key"),
        ("own_summariser:constant", "not callable"),
        ("own_summariser:nothing", "cannot be imported"),
        ("no_such_module:X", "cannot be imported"),
        ("", "unknown summariser"),
    ):
        with pytest.raises(UsageError, match=message):
            make_summarizer(name)
