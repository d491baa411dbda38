"""Settings of skills, summaries and the loop around the iterations (see test_settings_have_effect.py)."""

import json
import threading
import time
from types import SimpleNamespace

import pytest

from fault_server import FaultServer
from settings_lab import SKILL, loop, request, settings, trainer, wait_until
from skillsd import SkillSDError
from skillsd.config import SummarizerConfig
from skillsd.policy.engines.base import Generation
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.loading import load_policy
from skillsd.rollouts.playing import evaluate_model
from skillsd.skills import Skill, SkillBank
from skillsd.skills.summarize import make_summarizer
from skillsd.skills.summarize.endpoint import EndpointError
from skillsd.skills.summarize.intake import Intake
from skillsd.skills.summarize.openai import OpenAISummarizer
from skillsd.skills.summarize.prompting import conversation
from skillsd.skills.summarize.queue import make_queue
from skillsd.skills.summarize.store import SummaryStore
from skillsd.training.hints import Hint
from skillsd.training.loop import Loop
from skillsd.training.trainer import Trainer
from skillsd.types import Task

# -- skills and summaries ------------------------------------------------------------------------------------


def a_skill(number):
    words = " ".join(f"w{number}x{i}" for i in range(9))
    return Skill(success_analysis=words, mistake_analysis=words, golden_workflow=words)


def the_bank_is_kept_and_read_as_told(folder, tmp_path, monkeypatch):
    """By the trainer's own bank: how many there are, which is read, and what is believed of it."""
    for capacity in (2, 4):
        with trainer(settings(folder, f"skills.capacity={capacity}"), tmp_path / f"c{capacity}") as made:
            for i in range(6):
                made.bank.add("t", a_skill(i), 0.0)
            assert made.bank.stats().skills == capacity
    chosen = {}
    for exploration in (0.0, 50.0):
        with trainer(settings(folder, f"skills.exploration={exploration}"), tmp_path / f"e{exploration}") as made:
            good, bad = made.bank.add("t", a_skill(0), 1.0), made.bank.add("t", a_skill(1), 0.0)
            read = [made.bank.retrieve("t").id for _ in range(8)]
            chosen[exploration] = read.count(good), read.count(bad)
    assert chosen == {0.0: (7, 1), 50.0: (4, 4)}
    believed = {}
    for credit in ("source", "group", "separation"):
        with trainer(settings(folder, f"skills.credit={credit}"), tmp_path / credit) as made:
            number = made.bank.add("t", a_skill(0), 0.75)
            group = [request("t").trajectory for _ in range(2)]
            for played, reward in zip(group, (0.0, 1.0), strict=True):
                played.reward = reward
            rows = [SimpleNamespace(trajectory=played) for played in group]
            made.credit({"t": Hint(SKILL, number)}, rows, SimpleNamespace(favours=lambda group: [-1.0, 1.0]))
            believed[credit] = made.bank.skills()[0].mean_reward
    assert believed == {"source": 0.75, "group": 0.5, "separation": 1.0}


def the_teacher_is_shown_what_the_control_says(folder, tmp_path, monkeypatch):
    for shown in ("own", "empty", "none"):
        with trainer(settings(folder, f"skills.shown={shown}"), tmp_path / shown) as made:
            made.bank.add("train/0", SKILL, 1.0)
            skill = made.retrieve([Task("train/0")])["train/0"].skill
            empty = SKILL.model_copy(update=dict.fromkeys(Skill.model_fields, ""))
            assert skill == {"own": SKILL, "empty": empty, "none": None}[shown]


def a_task_reads_the_skills_of_its_kind_where_that_is_wanted(folder, tmp_path, monkeypatch):
    for scope, reads in (("task", {"train/0"}), ("group", {"train/0", "train/2"})):
        with trainer(settings(folder, f"skills.scope={scope}"), tmp_path / scope) as made:
            made.bank.add("train/0", SKILL, 1.0)
            assert {*made.retrieve([Task(f"train/{i}") for i in range(3)])} == reads


class Held:
    """A summariser that counts how many are with it, and answers when it may; fails where told."""

    name = "held"

    def __init__(self, fails=0):
        self.lock, self.gate, self.now, self.most, self.asked, self.fails = (
            threading.Lock(),
            threading.Event(),
            0,
            0,
            0,
            fails,
        )

    def summarize(self, request):
        with self.lock:
            self.now, self.asked = self.now + 1, self.asked + 1
            self.most = max(self.most, self.now)
        self.gate.wait(5)
        with self.lock:
            self.now -= 1
        if self.asked <= self.fails:
            raise SkillSDError("not yet")
        return a_skill(len(request.trajectory.turns))


def intake(folder, tmp_path, held, *given):
    bank = SkillBank(tmp_path / "-".join(["bank", *(g.replace(".", "-") for g in given)]))
    config = settings(folder, *(f"skills.{g}" for g in given))
    return Intake(held, bank, {"t": Task("t")}, config.skills, lambda text: None)


def summaries_are_made_waited_for_and_tried_again_as_told(folder, tmp_path, monkeypatch):
    played = [request("t", turns=i + 1).trajectory for i in range(5)]
    for visit, wanted in ((0, 5), (2, 2), (3, 3)):
        held = Held()
        held.gate.set()
        intake(folder, tmp_path, held, f"per_visit={visit}").take(played, last=False)
        assert held.asked == wanted
    for workers in (1, 3):
        held = Held()
        made = intake(folder, tmp_path, held, f"workers={workers}", "wait=false", "per_visit=0")
        started = time.monotonic()
        assert made.take(played, last=False)["skills_added"] == 0
        assert time.monotonic() - started < 8, "nobody waits"
        wait_until(lambda held=held, workers=workers: held.now == workers)
        held.gate.set()
        wait_until(lambda made=made: all(s.ready for s in made.queue._results))
        assert held.most == workers
        assert len(made.pending) == 5
        made.settings = made.settings.model_copy(update={"wait": True})
        assert made.absorb(last=False)["skills_added"] == 5
    held = Held()
    threading.Timer(0.2, held.gate.set).start()
    assert intake(folder, tmp_path, held, "wait=true").take(played, last=False)["skills_added"] == 2
    for retries, tries in ((0, 1), (1, 2), (2, 3)):
        held = Held(fails=99)
        held.gate.set()
        made = intake(folder, tmp_path, held, f"retries={retries}", "per_visit=1", "workers=1")
        made.take(played[:1], last=False)
        for _ in range(5):
            made.take([], last=False)
        assert held.asked == tries


def asked(**given):
    return OpenAISummarizer(SummarizerConfig(**{"model": "m", "max_retries": 0, **given}), SummaryStore(None))


def a_server_is_asked_as_told(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "secret-1")
    here, there = FaultServer("good"), FaultServer("good")
    asked(base_url=here.url).summarize(request())
    asked(base_url=there.url, model="n", api_key_env="A_KEY", json_schema=False, extra={"top_p": 0.5}).summarize(
        request()
    )
    (one,), (two,) = here.bodies, there.bodies
    assert (one["model"], two["model"]) == ("m", "n")
    assert ("response_format" in one, "response_format" in two) == (True, False)
    assert (one.get("top_p"), two.get("top_p")) == (None, 0.5)
    assert [server.headers[0].get("Authorization") for server in (here, there)] == [None, "Bearer secret-1"]
    here.close()
    there.close()


def both_summarisers_write_and_read_as_told(folder, tmp_path, monkeypatch):
    """``openai``, as the server sees it, and ``policy``, as the engine does."""
    (tmp_path / "own.md").write_text("Mine: $conversation")
    changed = {"prompt": str(tmp_path / "own.md"), "temperature": 0.5, "answer_tokens": 77, "conversation_chars": 400}
    server, long = FaultServer("good"), request(turns=40)
    asked(base_url=server.url).summarize(long)
    asked(base_url=server.url, **changed).summarize(long)
    plain, other = server.bodies
    server.close()
    assert (plain["max_tokens"], other["max_tokens"]) == (1024, 77)
    assert (plain.get("temperature"), other["temperature"]) == (None, 0.5)
    text = other["messages"][0]["content"]
    assert text.startswith("Mine: ")
    assert len(text) < 600 < len(plain["messages"][0]["content"])
    assert conversation(long.trajectory, 400) in text
    engines, prompts = [], []

    def generate(self, requests):
        engines.append((self.temperature, self.max_new_tokens))
        prompts.append(len(requests[0].ids))
        return [Generation([40], [-1.0], 0.0, True) for _ in requests]

    monkeypatch.setattr(TransformersEngine, "generate", generate)
    for given in (
        ["summarizer.answer_tokens=200"],
        [f"summarizer.{name}={json.dumps(value)}" for name, value in changed.items()],
    ):
        config = settings(folder, *given)
        make_summarizer("policy", config, policy=load_policy(config.model)).summarize_all([long])
    assert engines == [(0.0, 200), (0.5, 77)]
    assert prompts[1] < prompts[0]


def a_call_may_take_so_long_and_is_tried_so_often(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("skillsd.skills.summarize.endpoint._FIRST_WAIT", 0.01)
    for seconds in (0.2, 0.5):
        server, started = FaultServer("silent"), time.monotonic()
        with pytest.raises(EndpointError, match=f"within {seconds} s"):
            asked(base_url=server.url, timeout=seconds).summarize(request())
        assert seconds <= time.monotonic() - started < seconds + 8
        server.close()
    patient = asked(base_url="http://localhost:1/v1", timeout=2000.0)
    assert patient.seconds_each >= 2000
    assert make_queue(patient, 1)._limit > 2000, "the queue gives up no sooner"
    for retries in (0, 2):
        server = FaultServer("broken")
        with pytest.raises(EndpointError, match="HTTP 500"):
            asked(base_url=server.url, max_retries=retries, json_schema=False).summarize(request())
        assert len(server.bodies) == 1 + retries
        server.close()


def runs_share_a_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    server = FaultServer("good")
    given = ["skills.summarizer=openai", f"summarizer.base_url={server.url}", "summarizer.model=m"]
    for cache, calls in (("~/deep/shared.sqlite", 1), (None, 3)):
        for run in ("one", "two"):
            config = settings(folder, *given, *([f"summarizer.cache={cache}"] if cache else []))
            make_summarizer("openai", config, folder=tmp_path / run).summarize(request())
        assert len(server.bodies) == calls
    assert (tmp_path / "deep" / "shared.sqlite").is_file()
    assert (tmp_path / "one" / "summaries.sqlite").is_file()
    server.close()


# -- the loop ------------------------------------------------------------------------------------------------


class Idle(Trainer):
    """Its iterations do nothing but are counted, saved and measured as any."""

    def step(self):
        self.iteration += 1
        time.sleep(0.001)
        return {"iteration": self.iteration, "accuracy": 0.5, "valid_actions": 1.0, "tokens": 1}


class Noting(Loop):
    """Notes what a real one would do."""

    def save(self):
        self.saved = self.trainer.iteration
        self.events.append(("save", self.saved))

    def evaluate(self, split, limit, *, with_reference=False, teacher=False):
        self.events.append(("panel" if teacher else "evaluate", self.trainer.iteration))
        return SimpleNamespace(accuracy=0.0, completion=0.0)


def a_run_saves_and_measures_when_told(folder, tmp_path, monkeypatch):
    for total, save, every, panel in ((5, 2, 0, 3), (4, 10, 2, 0), (3, 1, 1, 1)):
        given = [f"trainer.iterations={total}", f"trainer.checkpoint_every={save}", f"eval.every={every}"]
        config = settings(folder, *given, f"eval.panel_every={panel}")
        with loop(config, tmp_path / f"{total}", kind=Noting, trainer=Idle) as made:
            made.events = []
            made.iterate()
            assert made.trainer.iteration == total
            rounds = range(1, total + 1)
            wanted = {"save": {i for i in rounds if i % save == 0} | {total}}
            wanted["evaluate"] = {i for i in rounds if every and i % every == 0}
            wanted["panel"] = {i for i in rounds if panel and i % panel == 0}
            assert {kind: {i for k, i in made.events if k == kind} for kind in wanted} == wanted


def so_many_checkpoints_are_kept(folder, tmp_path, monkeypatch):
    for keep in (1, 2):
        with loop(settings(folder, f"trainer.keep_checkpoints={keep}"), tmp_path / f"{keep}") as made:
            for made.trainer.iteration in (1, 2, 3):
                made.save()
            there = sorted(path.name for path in made.trainer.run.checkpoints.glob("step-*"))
            assert there == [f"step-{i:06d}" for i in (1, 2, 3)][-keep:]


def so_many_tasks_are_measured(folder, tmp_path, monkeypatch):
    seen = []
    original = evaluate_model

    def watched(*arguments, **named):
        result = original(*arguments, **named)
        seen.append((named["with_reference"], result.tasks, result.dropped))
        return result

    monkeypatch.setattr("skillsd.training.loop.evaluate_model", watched)
    given = ["eval.every=1", "eval.panel_every=1", "rollout.max_new_tokens=1"]
    for tasks, panel in ((2, 3), (4, 1)):
        config = settings(folder, *given, f"eval.tasks={tasks}", f"eval.panel_tasks={panel}")
        with loop(config, tmp_path / f"{tasks}") as made:
            made.trainer.iteration = 1
            made.evaluation_metrics()
    assert seen == [(False, 2, 0), (True, 3, 0), (False, 4, 0), (True, 1, 0)]
