"""Other people's environments, the real packages: right, deterministic, refused in one line where they are wrong."""

import socket
import sys
import threading
import time

import pytest

from skillsd.envs import make_taskset
from skillsd.envs.check import check
from skillsd.errors import UsageError

LAKE = {
    "id": "FrozenLake-v1", "actions": ["left", "down", "right", "up"], "max_turns": 20,
    "make": {"is_slippery": False, "render_mode": "ansi"},
}  # fmt: skip


def test_frozen_lake_is_won_in_words():
    pytest.importorskip("gymnasium", reason="the extra gymnasium is not installed")
    taskset = make_taskset("gymnasium", **LAKE)
    world = taskset.make()
    prompt = world.reset(taskset.tasks("train")[0])
    assert "Answer with one of: left, down, right, up." in prompt
    assert "[S]FFF\nFHFH\nFFFH\nHFFG" in prompt
    assert not world.step("fly").info["valid"]
    for move in ("down", "`Down`", "right.", "right", "down", "RIGHT"):
        step = world.step(move)
        assert step.info["valid"]
    assert step.done
    assert (world.score().reward, world.score().success, world.score().completion) == (1.0, True, 1.0)
    world.close()


@pytest.mark.parametrize("options", [LAKE, {"id": "FrozenLake-v1"}, {"id": "Taxi-v4", "success_reward": 20}])
def test_gymnasium_passes_the_check(options):
    pytest.importorskip("gymnasium", reason="the extra gymnasium is not installed")
    assert check("gymnasium", options) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"id": "Nothing-v0"}, "cannot make 'Nothing-v0'"),
        ({"id": "CartPole-v1"}, "Box: only Text and Discrete"),
        ({"id": "FrozenLake-v1", "actions": ["up"]}, "must be 4 different names"),
        ({"id": "FrozenLake-v1", "max_turns": 0}, "max_turns must be"),
        ({"id": "FrozenLake-v1", "success_reward": 0}, "success_reward must be"),
        ({}, "options: id"),
    ],
)
def test_wrong_options_of_gymnasium_are_told_in_one_line(options, told):
    pytest.importorskip("gymnasium", reason="the extra gymnasium is not installed")
    with pytest.raises(UsageError, match=told) as caught:
        make_taskset("gymnasium", **options)
    assert "\n" not in str(caught.value)


def test_text_spaces_are_played_and_what_is_outside_is_invalid():
    gymnasium = pytest.importorskip("gymnasium", reason="the extra gymnasium is not installed")

    class Echo(gymnasium.Env):
        observation_space = gymnasium.spaces.Text(100)
        action_space = gymnasium.spaces.Text(10, charset="abc")

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return f"seed {seed}", {}

        def step(self, action):
            return action[::-1], float(action == "abc"), action == "abc", False, {}

    gymnasium.register("Echo-v0", Echo, disable_env_checker=True)
    taskset = make_taskset("gymnasium", id="Echo-v0", prompt="Say abc.")
    world = taskset.make()
    assert world.reset(taskset.tasks("test")[2]) == "Say abc.\nseed 1000002"
    assert not world.step("no").info["valid"]
    assert world.step("ab").observation == "ba"
    assert world.step(" abc ").done
    assert world.score().success


def test_a_number_of_textarena_is_guessed_by_halving_and_differs_by_task():
    pytest.importorskip("textarena", reason="the extra textarena is not installed")
    taskset = make_taskset("textarena", game="GuessTheNumber-v0")
    task = taskset.tasks("train")[0]
    world = taskset.make()
    assert "guess the number between 1 and 20" in world.reset(task)
    low, high = 1, 20
    for _ in range(6):
        middle = (low + high) // 2
        step = world.step(f"[{middle}]")
        if step.done:
            break
        if "higher" in step.observation:
            low = middle + 1
        else:
            high = middle - 1
    assert step.done
    assert (world.score().reward, world.score().success) == (1.0, True)
    hidden = {make_hidden(taskset, task) for task in taskset.tasks("train")}
    assert len(hidden) > 10
    with pytest.raises(UsageError, match="no game"):
        make_taskset("textarena", game="Nothing-v0")


def make_hidden(taskset, task):
    world = taskset.make()
    world.reset(task)
    return world.world.state.game_state["game_number"]


def test_textarena_passes_the_check():
    pytest.importorskip("textarena", reason="the extra textarena is not installed")
    assert check("textarena", {"game": "GuessTheNumber-v0"}) == []


@pytest.fixture(scope="module")
def server():
    """A real OpenEnv server on loopback: guess the number between 0 and 9."""
    pytest.importorskip("openenv", reason="the extra openenv is not installed")
    import uvicorn
    from openenv.core.env_server.http_server import create_fastapi_app
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, Observation, State

    class Guess(Action):
        message: str

    class Answer(Observation):
        text: str = ""

    class Guessing(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def reset(self, seed=None, episode_id=None, **kwargs):
            self.hidden = (seed or 0) % 10
            return Answer(text="Guess.", done=False, reward=0.0)

        def step(self, action, timeout_s=None, **kwargs):
            right = action.message.strip() == str(self.hidden)
            return Answer(text="Right." if right else "Wrong.", done=right, reward=float(right))

        @property
        def state(self):
            return State()

    app = create_fastapi_app(Guessing, Guess, Answer, max_concurrent_envs=16)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    for _ in range(200):
        if running.started:
            break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    thread.join(10)


def test_openenv_plays_two_episodes_at_once_over_a_real_server(server):
    taskset = make_taskset("openenv", url=server, observation="text", prompt="A digit.")
    world, other = taskset.make(), taskset.make()
    assert world.reset(taskset.tasks("train")[7]) == "A digit.\nGuess."
    other.reset(taskset.tasks("train")[3])
    assert world.step("3").observation == "Wrong."
    assert other.step("3").done
    assert world.step("7").done
    assert (world.score().reward, world.score().success) == (1.0, True)
    for each in (world, other):
        each.close()
    assert [f.message for f in check("openenv", {"url": server, "observation": "text"})] == []
    with pytest.raises(UsageError, match=r"no field 'words'; it has: .*text"):
        make_taskset("openenv", url=server, observation="words").make().reset(taskset.tasks("train")[0])


def test_openenv_without_a_server_is_refused():
    pytest.importorskip("openenv", reason="the extra openenv is not installed")
    for url in ("http://127.0.0.1:9", "rubbish", ""):
        with pytest.raises(UsageError, match="no OpenEnv server answers"):
            make_taskset("openenv", url=url, timeout=2.0)


@pytest.mark.parametrize("name", ["gymnasium", "textarena", "openenv"])
def test_without_the_package_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, {"openenv": "openenv.core.generic_client"}.get(name, name), None)
    monkeypatch.delitem(sys.modules, f"skillsd.envs.adapters.{name}", raising=False)
    with pytest.raises(UsageError, match=rf"pip install 'skillsd\[{name}\]'"):
        make_taskset(name)
