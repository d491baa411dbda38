"""Any text at all as an action: to Sokoban, to an environment that echoes it, and at the keyboard."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import examples, texts
from skillsd.envs import boundary, make_taskset
from skillsd.envs.play import play
from skillsd.types import Score, Step, Task

MOVES = ["```up```", "```down```", "```left```", "```right```", "```Up ```", "```up``` ```down```", "u", "r", "w", "up"]
actions = st.sampled_from(MOVES) | texts | st.text() | st.lists(st.sampled_from([*MOVES, "\n", "`"])).map("".join)


@pytest.fixture(scope="module")
def sokoban():
    return make_taskset("sokoban", variant="one_box")


@examples(200)
@given(said=st.lists(actions, min_size=1, max_size=8), index=st.integers(0, 30))
def test_sokoban_answers_whatever_is_said(sokoban, said, index):
    environment = sokoban.make()
    board = boundary.reset(environment, boundary.tasks_of(sokoban, "test", 31)[index])
    for action in said:
        step = environment.step(action)
        assert boundary.step_of(step) == step  # what it says is recorded as it is
        assert type(step.info["valid"]) is bool
        assert step.info["valid"] == (step.info["action"] is not None)
        assert len(step.observation) < len(board)
        assert 0 <= boundary.score(environment).completion <= 1
    environment.close()


class Echo:
    name, max_turns = "echo", 4

    def tasks(self, split):
        return [Task("first"), Task("second")]

    def make(self):
        return self

    def reset(self, task):
        return f"say \x1b[31m {task.id}"

    def step(self, action):
        return Step(action, "`" in action, {"action": action})

    def score(self):
        return Score(0.5, False, 0.5)

    def close(self):
        pass


@examples(200)
@given(typed=st.lists(actions | st.sampled_from("nruq"), max_size=10), keys=st.booleans())
def test_play_takes_whatever_is_typed(sokoban, typed, keys):
    with pytest.MonkeyPatch.context() as patch:
        raw = "\n".join(typed).encode("utf-8", "surrogatepass")
        out = io.TextIOWrapper(io.BytesIO(), "utf-8")
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw), "utf-8"))
        patch.setattr("sys.stdout", out)
        play(sokoban if keys else Echo(), "test", 0)
        out.flush()
        assert b"quit" in out.buffer.getvalue()
