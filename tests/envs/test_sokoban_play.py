"""`play` over a pipe and at a real terminal (a pseudo-terminal)."""

import os
import pty
import subprocess
import sys
import termios
import time

import pytest

from skillsd.envs import make_taskset
from skillsd.envs.play import play
from skillsd.envs.sokoban.game import Board
from skillsd.envs.sokoban.solver import solve
from skillsd.errors import UsageError

KEYS = {"up": "w", "down": "s", "left": "a", "right": "d"}
ARROWS = {"up": "\x1b[A", "down": "\x1b[B", "left": "\x1b[D", "right": "\x1bOC"}
#: A game without keys or colours of its own, which answers with what rich could take for markup, emoji or a board.
PLAIN = """
from skillsd.envs import Score, Step, Task
from skillsd.envs.play import play
class Echo:
    name, max_turns = "echo", 3
    def tasks(self, split): return [Task("first")]
    def make(self): return self
    def reset(self, task): return "say [bold]hi[/bold] :smile:\\n###"
    def step(self, action): return Step(f"you said {action}", action == "hi")
    def score(self): return Score(0.5, False, 0.5)
    def close(self): print("closed")
play(Echo(), "train")
"""
CODE = "from skillsd.envs import make_taskset; from skillsd.envs.play import play; "
CODE += "play(make_taskset('sokoban', variant='one_box'), 'test')"


def solution(index=0):
    return solve(Board(make_taskset("sokoban", variant="one_box").tasks("test")[index].data["level"]))


def piped(*lines, code=CODE):
    out = subprocess.run([sys.executable, "-c", code], input="\n".join(lines), capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_a_pipe_plays_restarts_and_goes_on():
    moves = [KEYS[move] for move in solution()]
    told = piped(moves[0], "r", *moves, "n", "nonsense", "q", "w")
    assert "solved: reward 1" in told
    assert f"turn {len(moves)} of 20" in told
    assert told.count("one_box-test-000") == 2
    assert told.count("No move was made") == 1
    name = make_taskset("sokoban", variant="one_box").tasks("test")[1].id
    assert told.rstrip().endswith("turn 1 of 20")
    assert name in told


def test_undo_takes_one_turn_back_even_from_the_end():
    moves = [KEYS[move] for move in solution()]
    told = piped(*moves, "u", moves[-1])
    assert told.count("solved: reward 1") == 2
    assert told.count(f"turn {len(moves) - 1} of 20") == 2
    assert "turn 0 of 20" in piped("u")


def test_the_turn_limit_ends_the_level():
    told = piped(*["hm"] * 30)
    assert told.count("over: reward 0") == 1
    assert "turn 21" not in told


def test_an_index_outside_the_split_is_refused():
    with pytest.raises(UsageError, match="tasks 0 to 95, not 96"):
        play(make_taskset("sokoban"), "train", 96)


def test_any_environment_plays_by_the_line():
    told = piped("w", "hi", code=PLAIN).splitlines()
    assert "say [bold]hi[/bold] :smile:" in told
    assert "###" in told  # not spread like a board
    assert [line for line in told if line.startswith("you")] == ["you said w", "you said hi"]
    assert told[-2:] == ["over: reward 0.5. n: next, r: again, u: undo, q: quit", "closed"]


def test_sokoban_draws_boards_in_colour_and_leaves_text_alone():
    drawn = make_taskset("sokoban").render_text("Push X onto O.\n\n####\n#PX#\n####")
    assert drawn.plain == "Push X onto O.\n\n# # # # \n# P X # \n# # # # "
    spans = {drawn.plain[span.start : span.end].strip(): str(span.style) for span in drawn.spans}
    assert spans == {"#": "grey50", "P": "bold cyan", "X": "yellow"}


def test_a_terminal_is_read_by_the_line_where_there_are_no_keys():
    leader, follower = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", PLAIN], stdin=follower, stdout=subprocess.PIPE, text=True)
    try:
        os.write(leader, b"up\nq\n")
        told, _ = process.communicate(timeout=20)
        assert "you said up" in told
        assert told.endswith("closed\n")
    finally:
        process.kill()
        os.close(leader)
        os.close(follower)


def test_arrow_keys_solve_a_level_and_the_terminal_is_left_as_it_was():
    """Solve a level with arrow keys, quit, and find the terminal as it was."""
    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    process = subprocess.Popen([sys.executable, "-c", CODE], stdin=follower, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 20
        while termios.tcgetattr(follower)[3] & termios.ICANON and time.monotonic() < deadline:
            time.sleep(0.02)
        os.write(leader, "".join(["\x1b", "x", *(ARROWS[move] for move in solution()), "q"]).encode())
        told, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "solved: reward 1" in told
        assert termios.tcgetattr(follower) == before
    finally:
        process.kill()
        os.close(leader)
        os.close(follower)
