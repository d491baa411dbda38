"""Rollouts by a real vLLM server: the same ids and log-probs as ours, new weights in place, and trouble."""

import os
import shlex
import signal
import socket
import subprocess
import threading

import numpy as np
import pytest
import torch

from skillsd import SkillSDError, load_config, train
from skillsd.distributed.processes import Processes
from skillsd.policy.engines.base import Request
from skillsd.policy.engines.vllm import VLLMServer
from skillsd.policy.loading import load_policy
from skillsd.policy.packing import TokenRow
from skillsd.policy.scoring import score_tokens
from skillsd.rollouts.actors import Actors
from skillsd.rollouts.rollout import Job, rollout
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir
from skillsd.training.teacher import Teacher
from skillsd.types import Score, Step, Task

TINY = [
    "env.train_tasks=3", "rollout.tasks_per_iteration=3", "rollout.group_size=3", "rollout.max_turns=6", "eval.tasks=4",
    "eval.panel_every=0", "trainer.iterations=2", "rollout.engine=vllm", "model.device=cpu",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _small():
    """For the server's environment."""
    before = {name: os.environ.get(name) for name in ("VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS")}
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def settings(python, *overrides):
    theirs = any(override.startswith("vllm.url=") for override in overrides)  # then there is nothing to start
    own = [] if theirs else [f"vllm.python={python}", 'vllm.args=["--enforce-eager", "--block-size", "32"]']
    return load_config("sokoban-smoke", [*TINY, *own, *overrides])


@pytest.fixture(scope="module")
def actors(vllm_python, tmp_path_factory):
    config = settings(vllm_python, "model.lora_rank=4")
    policy = load_policy(config.model, train=True)
    made = Actors(config, policy, Teacher("dynamic", policy.model), Processes(), tmp_path_factory.mktemp("server"))
    yield made
    made.close()


def sample(actors, version, prompt, count=6, temperature=1.0):
    with actors.engine(version, temperature) as engine:
        requests = [Request(i, prompt, np.random.default_rng(i)) for i in range(count)]
        return engine.generate(requests)


def disagreement(actors, prompt, generations):
    rows = [TokenRow(prompt, g.ids, [1] * len(g.ids)) for g in generations]
    with torch.no_grad():
        scored = score_tokens(actors.policy.model, rows, actors.config.rollout.temperature)
    return max(
        abs(ours - theirs)
        for g, row in zip(generations, scored.logps.tolist(), strict=True)
        for ours, theirs in zip(row, g.logps, strict=False)
    )


def test_log_probs_agree_with_the_trainers_also_after_new_weights(actors):
    """Also with an adapter: the server gets the weights with it added in."""
    prompt = actors.policy.chat.prompt("Where to? " * 60)
    first = sample(actors, 0, prompt)
    assert disagreement(actors, prompt, first) < 1e-4
    assert [g.ids for g in first] == [g.ids for g in sample(actors, 0, prompt)]
    assert len({tuple(g.ids) for g in first}) > 1
    limit = actors.config.rollout.max_new_tokens
    assert all(len(g.ids) == limit or g.ended for g in first)
    noise = torch.Generator().manual_seed(0)
    for parameter in actors.policy.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=noise)
    assert disagreement(actors, prompt, first) > 0.05
    process = actors.server.process.pid
    assert disagreement(actors, prompt, sample(actors, 1, prompt)) < 1e-4
    assert actors.server.process.pid == process
    greedy = sample(actors, 1, prompt, temperature=0.0)
    assert len({tuple(g.ids) for g in greedy}) == 1


def test_the_prefix_cache_is_used_across_turns_and_the_group(actors):
    def hits():
        lines = actors.server.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:prefix_cache_hits_total"))

    prompt = actors.policy.chat.prompt("A long prompt that a whole group has in common. " * 10)
    before = hits()
    turns = sample(actors, 1, prompt)
    in_group = hits()
    assert in_group - before >= 5 * 32
    longer = prompt + turns[0].ids + actors.policy.chat.followup("and then? " * 10, turns[0].ended)
    sample(actors, 1, longer, count=1)
    assert hits() - in_group >= len(prompt) // 32 * 32


class Waiting:
    """The task "slow" answers only when all the others are through."""

    name, max_turns = "waiting", 4

    def __init__(self):
        self.left, self.others_done = 5, threading.Event()
        self.lock = threading.Lock()

    def tasks(self, split):
        return [Task("slow"), *(Task(f"t{i}") for i in range(5))]

    def make(self):
        return Episode(self)


class Episode:
    def __init__(self, world):
        self.world, self.turns = world, 0

    def reset(self, task):
        self.slow = task.id == "slow"
        return "go"

    def step(self, action):
        self.turns += 1
        if self.slow and self.turns == 2:
            assert self.world.others_done.wait(60)
        return Step("on", self.turns == 4)

    def score(self):
        return Score(1.0, True, 1.0)

    def close(self):
        if not self.slow:
            with self.world.lock:
                self.world.left -= 1
                if self.world.left == 0:
                    self.world.others_done.set()


def test_a_slow_environment_holds_up_nobody(actors):
    world = Waiting()
    jobs = [Job(task, 0, i) for i, task in enumerate(world.tasks("train"))]
    with actors.engine(1, 1.0) as engine:
        batch = rollout(
            engine, actors.policy.chat, world, jobs, iteration=1, max_turns=4, max_tokens=512, turn_timeout=90,
            episode_timeout=120, batch_size=8,
        )  # fmt: skip
    assert not batch.dropped
    assert [t.task_id for t in batch.trajectories] == [job.task.id for job in jobs]
    assert all(len(t.turns) == 4 for t in batch.trajectories)
    for t in batch.trajectories:
        assert sum(t.action_mask) == sum(value != 0.0 for value in t.logps)


def test_a_dead_server_ends_the_run_in_one_line_and_it_resumes(vllm_python, tmp_path):
    out = tmp_path / "run"

    def kill(kind, data):
        if kind == "turn" and RunDir(out).metrics.is_file() and len(RunDir(out).read_metrics()) == 1 and servers:
            os.killpg(servers.pop().process.pid, signal.SIGKILL)

    servers = []
    start = VLLMServer._start

    def watched(self, *arguments):
        servers.append(self)
        return start(self, *arguments)

    VLLMServer._start = watched
    try:
        with pytest.raises(SkillSDError, match="the server ended with exit code") as caught:
            train(settings(vllm_python), out, listen=kill)
    finally:
        VLLMServer._start = start
    assert "\n" not in str(caught.value)
    assert latest(RunDir(out)).name == "step-000001"
    longer = settings(vllm_python, "trainer.iterations=3", "trainer.asynchronous=true")
    assert train(longer, out, resume=True).iterations == 3
    rows = RunDir(out).read_metrics()
    assert [row["staleness"] for row in rows] == [0, 0, 1]
    assert all(row["dropped"] == 0 for row in rows)
    for row in rows[:2]:  # the third was played during the second's update
        assert row["sampler_gap"] < 1e-4
        assert row["sampler_gap_max"] < 1e-3
    assert not (out / "served").exists()


def test_a_server_of_ones_own_is_fed_and_survives_the_run(vllm_python, tmp_path, capfd, monkeypatch):
    """Started by the command that the run prints; it is fed, told apart from others, and survives the run."""
    monkeypatch.setenv("VLLM_API_KEY", "sesame")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = [f"vllm.url=http://127.0.0.1:{port}", f"vllm.folder={tmp_path / 'shared'}"]
    with pytest.raises(SkillSDError, match="was not up within 2 s at http://127"):
        train(settings(vllm_python, *where, "vllm.startup_timeout=2"), tmp_path / "early")
    command = next(line for line in capfd.readouterr().err.splitlines() if line.startswith("VLLM_SERVER_DEV_MODE=1 "))
    words = shlex.split(command)[3:]
    server = subprocess.Popen(
        [vllm_python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port),
         "--enforce-eager", "--block-size", "32", "--model", *words],
        env={**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}, start_new_session=True,
        stdout=(tmp_path / "log").open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        out = tmp_path / "run"
        train(settings(vllm_python, *where), out)
        assert server.poll() is None
        assert train(settings(vllm_python, *where, "trainer.iterations=3"), out, resume=True).iterations == 3
        assert all(row["sampler_gap_max"] < 1e-3 for row in RunDir(out).read_metrics())
        assert "sesame" not in (out / "config.toml").read_text()
        with pytest.raises(SkillSDError, match="has to serve a model named 'policy'"):
            train(settings(vllm_python, *where, "rollout.max_tokens=8000"), tmp_path / "longer")
        monkeypatch.setenv("VLLM_API_KEY", "wrong")
        with pytest.raises(SkillSDError, match="is VLLM_API_KEY right"):
            train(settings(vllm_python, *where), tmp_path / "stranger")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_lost_connection_is_no_lost_server(actors):
    """The server closes idle connections; one that is gone when it is used again is made anew."""
    prompt = actors.policy.chat.prompt("Where to?")
    before = sample(actors, 1, prompt, count=1)
    pool = actors.server.client._transport._pool
    for connection in pool.connections:
        connection._connection._network_stream.close()
    assert [g.ids for g in sample(actors, 1, prompt, count=1)] == [g.ids for g in before]


def test_more_tokens_than_the_model_has_positions_are_refused(vllm_python, tmp_path):
    with pytest.raises(SkillSDError, match="8192 positions"):
        train(settings(vllm_python, "rollout.max_tokens=9000"), tmp_path / "run")


def test_servers_that_do_not_come_up_are_told_in_one_line(vllm_python, tmp_path):
    for name, overrides, reason in (
        ("none", ["vllm.python=/nowhere/python"], "vllm.python"),
        ("flag", [f"vllm.python={vllm_python}", 'vllm.args=["--no-such-flag"]'], "exit code 2; see .*vllm.log"),
        ("slow", [f"vllm.python={vllm_python}", "vllm.startup_timeout=0.1"], "not up within 0.1 s"),
    ):
        with pytest.raises(SkillSDError, match=reason) as caught:
            train(load_config("sokoban-smoke", [*TINY, *overrides]), tmp_path / name)
        assert "\n" not in str(caught.value)
