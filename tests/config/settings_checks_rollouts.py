"""Settings of tasks, rollouts and vLLM servers (see test_settings_have_effect.py)."""

import time
from types import SimpleNamespace

import pytest

from settings_lab import SKILL, FeignedVLLM, Hall, loop, request, settings, trainer, wait_until
from skillsd import SkillSDError
from skillsd.config import ModelConfig
from skillsd.distributed.processes import Processes
from skillsd.policy.engines.base import Generation
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.engines.vllm import VLLMEngine
from skillsd.policy.loading import load_policy
from skillsd.rollouts.actors import Actors
from skillsd.rollouts.rollout import Job, rollout
from skillsd.rollouts.sampling import Sampler
from skillsd.skills.summarize import make_summarizer
from skillsd.training.hints import Hint
from skillsd.training.teacher import Teacher
from skillsd.types import Task


def the_seed_reaches_every_generator(folder, tmp_path, monkeypatch):
    """Tasks, rollouts, adapters, minibatches, controls, evaluation and summaries; the same again for the same seed."""
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        config = settings(folder, f"seed={seed}", "model.lora_rank=2", "skills.shown=random_text", "eval.tasks=2")
        with loop(config, tmp_path / name) as around:
            made = around.trainer
            adapter = next(p for n, p in made.model.named_parameters() if "lora_A" in n)
            jobs = made.sampler._jobs(1, made.tasks, {})
            writer, seen = make_summarizer("policy", config, policy=made.policy), []
            monkeypatch.setattr("skillsd.rollouts.playing.play", lambda *a, s=seen, **k: s.extend(a[4]) or 1 / 0)
            with pytest.raises(ZeroDivisionError):
                around.evaluate("test", 2)
            parts = [
                [task.id for i in range(1, 9) for task in made.tasks_of(i)], [job.seed for job in jobs],
                adapter.tolist(), made.learner._order(9, 1), str(made.shown({"t": Hint(SKILL, 1)})),
                [job.seed for job in seen], writer._rng(request()).random(),
            ]  # fmt: skip
        found.append(parts)
        monkeypatch.undo()
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))


def splits_and_their_tasks(folder, tmp_path, monkeypatch):
    given = ["env.train_split=dev", "env.test_split=hard", "env.train_tasks=3", "eval.every=1"]
    with loop(settings(folder, *given), tmp_path / "run") as made:
        asked = []
        made.evaluate = lambda split, limit, **more: (
            asked.append(split) or SimpleNamespace(accuracy=0.0, completion=0.0)
        )
        made.trainer.iteration = 1
        made.evaluation_metrics()
        assert [task.id for task in made.trainer.tasks] == ["dev/0", "dev/1", "dev/2"]
        assert asked == ["hard"]
    with trainer(settings(folder), tmp_path / "other") as made:
        assert [task.id for task in made.tasks] == [f"train/{i}" for i in range(5)]


# -- rollouts ------------------------------------------------------------------------------------------------


class Sayer:
    """An engine that says three tokens, or ``words``; with or without lockstep."""

    max_length = None

    def __init__(self, lockstep, words=(40, 41, 42)):
        self.lockstep, self.words = lockstep, list(words)

    def generate(self, requests):
        return [Generation(self.words, [-1.0] * len(self.words), 0.0, False) for _ in requests]

    def release(self, episodes):
        pass


def play(folder, engine, hall, count=2, **more):
    limits = {"max_turns": 3, "max_tokens": 2000, "turn_timeout": 5.0, "episode_timeout": 5.0, "batch_size": 8}
    jobs = [Job(Task(f"t{i}"), 0, i) for i in range(count)]
    chat = load_policy(ModelConfig(path=str(folder))).chat
    return rollout(engine, chat, hall, jobs, iteration=1, **{**limits, **more})


def a_slow_call_of_any_kind_costs_its_episode(folder, tmp_path, monkeypatch):
    for lockstep in (True, False):
        for slow in ("reset", "step", "score", "close"):
            hall = Hall(slow=slow, seconds=0.3)
            batch = play(folder, Sayer(lockstep), hall, turn_timeout=0.1)
            late = [d.reason for d in batch.dropped]
            assert late == ([] if slow == "close" else ["no answer from the environment within 0.1 s"] * 2), slow
            assert not play(folder, Sayer(lockstep), Hall(slow=slow, seconds=0.3), turn_timeout=3.0).dropped
            wait_until(lambda hall=hall: hall.closed == 2)  # what was given up is closed as soon as it answers
            time.sleep(0.4 if slow == "close" else 0.0)
            assert (hall.closed, hall.inside) == (2, 0)  # and only once


def an_episode_ends_in_time_whatever_is_slow(folder, tmp_path, monkeypatch):
    for lockstep in (True, False):
        for slow, seconds, turns in (
            ("make", 9, 2),
            ("reset", 9, 2),
            ("step", 9, 2),
            ("step", 0.15, 9),
            ("score", 9, 1),
        ):
            hall, started = Hall(turns, slow, seconds), time.monotonic()
            batch = play(folder, Sayer(lockstep), hall, turn_timeout=8.0, episode_timeout=0.3, max_turns=9)
            assert time.monotonic() - started < 7, slow
            assert len(batch.dropped) == 2, slow
            assert all("0.3 s" in d.reason for d in batch.dropped)
    assert not play(folder, Sayer(True), Hall(9, "step", 0.02), episode_timeout=4.0, max_turns=9).dropped
    batch = play(folder, Slow(), Hall(turns=1), episode_timeout=0.1)
    assert [d.reason for d in batch.dropped] == ["the episode took longer than 0.1 s"] * 2


class Slow(Sayer):
    def __init__(self):
        super().__init__(True)

    def generate(self, requests):
        time.sleep(0.2)
        return super().generate(requests)


def an_iteration_has_its_tasks_and_groups(folder, tmp_path, monkeypatch):
    for tasks, size in ((2, 3), (5, 2), (9, 2)):
        given = settings(folder, f"rollout.tasks_per_iteration={tasks}", f"rollout.group_size={size}")
        with trainer(given, tmp_path / f"{tasks}") as made:
            chosen = made.tasks_of(1)
            assert len(chosen) == min(tasks, 5)
            assert len(made.sampler._jobs(1, chosen, {})) == min(tasks, 5) * size


def sampled(folder, *given, turns=3):
    config = settings(folder, *given)
    policy = load_policy(config.model)
    actors = Actors(config, policy, Teacher("dynamic", policy.model), Processes(), None)
    sampler = Sampler(config, Hall(turns), actors, Processes(), lambda done, total: None)
    tasks = Hall().tasks("train")
    return sampler.batch(1, 0, tasks, {})[0].trajectories


def turns_and_episodes_end_at_their_tokens(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("skillsd.policy.chat.ChatFormat.decode", lambda self, ids: str(len(ids)))
    for most in (2, 9):
        turns = [int(turn.action) for t in sampled(folder, f"rollout.max_new_tokens={most}") for turn in t.turns]
        assert max(turns) == most
    for most in (60, 90):
        ended = sampled(folder, f"rollout.max_tokens={most}", "rollout.max_new_tokens=500")
        assert max(len(t.ids) for t in ended) == most
        assert {t.status for t in ended if len(t.ids) == most} == {"token_limit"}
        assert all(sum(int(turn.action) for turn in t.turns) == t.action_tokens for t in ended)
    actors = actors_of(settings(folder, "rollout.max_new_tokens=7"), tmp_path)
    with actors.engine(0, 1.0) as one, actors.engine_apart(0, 1.0) as two:
        assert (one.max_new_tokens, two.max_new_tokens) == (7, 7)


def an_episode_has_at_most_its_turns(folder, tmp_path, monkeypatch):
    for given, turns in ((["rollout.max_turns=2"], 2), (["rollout.max_turns=5"], 5), ([], 3)):
        ended = sampled(folder, *given, turns=9)
        assert {(len(t.turns), t.status) for t in ended} == {(turns, "turn_limit")}


def no_more_episodes_are_in_flight(folder, tmp_path, monkeypatch):
    """Nor while the next iteration is played ahead and an evaluation comes due."""
    for lockstep in (True, False):
        for size in (2, 4):
            hall = Hall(slow="step", seconds=0.01)
            assert len(play(folder, Sayer(lockstep), hall, count=7, batch_size=size).trajectories) == 7
            assert hall.most == size
    rows, feed = [], TransformersEngine._feed
    monkeypatch.setattr(TransformersEngine, "_feed", lambda self, *new: rows.append(len(new[0])) or feed(self, *new))
    config = settings(folder, "rollout.batch_size=3", "trainer.asynchronous=true", "eval.every=1", "eval.tasks=5")
    with loop(config, tmp_path / "run") as around:
        made = around.trainer
        made.taskset.slow, made.taskset.seconds = "step", 0.05
        made.iteration = 1
        made.sampler.begin(2, 0, made.tasks)
        around.evaluation_metrics()
        made.sampler.wait()
        assert made.taskset.most == 3
    assert max(rows) == 3


# -- vLLM, feigned -------------------------------------------------------------------------------------------


def actors_of(config, tmp_path):
    policy = load_policy(config.model)
    return Actors(config, policy, Teacher("dynamic", policy.model), Processes(), tmp_path)


def the_server_generates_where_it_is_asked_for(folder, tmp_path, monkeypatch):
    server, place = FeignedVLLM(), tmp_path / "weights"
    given = ["rollout.engine=vllm", f"vllm.url={server.url}", f"vllm.folder={place}", "rollout.max_tokens=100"]
    actors = actors_of(settings(folder, *given), tmp_path)
    with actors.engine(0, 0.7) as engine:
        assert isinstance(engine, VLLMEngine)
        batch = play(folder, engine, Hall(turns=3), max_tokens=60)
    asked = [body for path, body in server.calls if path == "/v1/completions"]
    assert (len(asked), batch.dropped) == (sum(len(t.turns) for t in batch.trajectories), [])
    assert all(len(body["prompt"]) + body["max_tokens"] <= 60 and body["max_tokens"] <= 4 for body in asked)
    assert {body["temperature"] for body in asked} == {0.7}
    loads = [body["kwargs"]["weights_path"] for path, body in server.calls if path == "/collective_rpc"]
    assert loads == [str(place / "served" / "000001")]
    assert (place / "served" / "000001" / "model.safetensors").is_file()
    actors.close()
    server.close()
    with actors_of(settings(folder), tmp_path).engine(0, 0.7) as engine:
        assert isinstance(engine, TransformersEngine)


SERVER = """#!/bin/sh
{ echo "$CUDA_VISIBLE_DEVICES"; for word in "$@"; do echo "$word"; done; } > "$SKILLSD_TOLD"
exit 3
"""


def our_own_server_is_started_as_told(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    for name in ("one", "two"):
        (tmp_path / name).write_text(SERVER)
        (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("SKILLSD_TOLD", str(tmp_path / f"{name}.txt"))
        given = [
            "rollout.engine=vllm",
            f'vllm.python="~/{name}"',
            'vllm.args=["--flag", "x y"]',
            "rollout.batch_size=9",
        ]
        given += ["rollout.max_tokens=100"]
        given += ['vllm.cuda_visible_devices="1,2"'] if name == "two" else []
        with (
            pytest.raises(SkillSDError, match="exit code 3"),
            actors_of(settings(folder, *given), tmp_path).engine(0, 1.0),
        ):
            pass
        words = (tmp_path / f"{name}.txt").read_text().splitlines()
        assert words[0] == {"one": "5", "two": "1,2"}[name]
        assert words[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
        assert words[-2:] == ["--flag", "x y"]
        assert words[words.index("--max-num-seqs") + 1] == "9"


def a_server_is_waited_for_so_long(folder, tmp_path, monkeypatch):
    place = ["rollout.engine=vllm", f"vllm.folder={tmp_path / 'w'}", "rollout.max_tokens=100"]
    for seconds, well in ((0.2, False), (20, True)):
        server = FeignedVLLM(sick=1.0)
        actors = actors_of(
            settings(folder, *place, f"vllm.url={server.url}", f"vllm.startup_timeout={seconds}"), tmp_path
        )
        if well:
            actors.engine(0, 1.0).__enter__()
        else:
            with pytest.raises(SkillSDError, match=r"not up within 0\.2 s"), actors.engine(0, 1.0):
                pass
        actors.close()
        server.close()
    server = FeignedVLLM(seconds=0.5)
    for seconds, enough in ((0.1, False), (20, True)):
        given = [f"vllm.url={server.url}", f"vllm.request_timeout={seconds}"]
        actors = actors_of(settings(folder, *place, *given), tmp_path)
        with actors.engine(0, 1.0) as engine:
            if enough:
                assert len(play(folder, engine, Hall(turns=1), max_tokens=100).trajectories) == 2
            else:
                with pytest.raises(SkillSDError, match=r"within 0\.1 s"):
                    play(folder, engine, Hall(turns=1), max_tokens=100)
        actors.close()
    server.close()
