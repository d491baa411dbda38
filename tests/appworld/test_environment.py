"""The environment on the real engine: what an episode sees, and what it survives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import block, play
from skillsd.config import load_config
from skillsd.envs import make_taskset
from skillsd.envs.appworld.install import data_root
from skillsd.envs.appworld.servers import _sweep
from skillsd.errors import SkillSDError, UsageError
from skillsd.training.loop import train


def named(tasks, name):
    split = next(s for s in ("train", "dev", "test") if name in {t.id for t in tasks.tasks(s)})
    return next(task for task in tasks.tasks(split) if task.id == name)


def test_a_solution_earns_everything(tasks):
    task = named(tasks, "notecount_1")
    prompt, steps, score = play(tasks, task, tasks.demonstrate(task))
    assert task.data["instruction"] in prompt
    assert "@postbird.com" in prompt
    assert [step.done for step in steps] == [False, True]
    assert steps[-1].info["completed"]
    assert (score.reward, score.success, score.completion) == (1.0, True, 1.0)
    assert tasks.reference(task).golden_workflow.count("```python") == 2


def test_part_of_it_earns_a_part(tasks):
    task = named(tasks, "notewrite_1")
    *_, nothing = play(tasks, task, [])
    *_, half = play(tasks, task, [tasks.demonstrate(task)[0], block("apis.supervisor.complete_task()")])
    assert 0 == nothing.reward < half.reward < 1
    assert not nothing.success
    assert not half.success


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("I am thinking.", "exactly one block"),
        (f"{block('x = 1')}\n{block('y = 2')}", "exactly one block"),
        ("```python\nprint(1)", "exactly one block"),
        ("```json\n{}\n```", "exactly one block"),
        (block("def f(:"), "Syntax error"),
        (block("x = '\0'"), "Syntax error"),
        (block("(" * 5000), "Syntax error"),
        (block("import pandas"), "there is no pandas; these modules are there"),
        (block("x" * 60_000), "50000 characters"),
    ],
)
def test_what_is_no_program_is_told_and_not_run(tasks, message, told):
    task = named(tasks, "notewrite_1")
    _, (step, *_), score = play(tasks, task, [message, *tasks.demonstrate(task)])
    assert told in step.observation
    assert not step.info["valid"]
    assert not step.done
    assert score.success, "a slip is no offence"


def test_output_of_every_kind_is_shown_and_errors_are_told(tasks):
    codes = [
        "print('x' * 10**8)", r"print('\ud800 \x00 \U0001f4a5')", "print(bytes(range(256)))", "print('ä' * 10)",
        "x = 7", "print(x)", "print(1/0)", "apis.simple_note.show_account()", "apis.nothing.there()",
    ]  # fmt: skip
    task = named(tasks, "notewrite_1")
    _, steps, score = play(tasks, task, [*map(block, codes), *tasks.demonstrate(task)])
    seen = [step.observation for step in steps]
    assert len(seen[0]) < 4100
    assert seen[0].endswith("more characters were cut: print less at a time]")
    assert "\U0001f4a5" in seen[1]
    assert "xff" in seen[2]
    assert "ää" in seen[3]
    assert seen[4] == "Execution successful."
    assert seen[5] == "7"
    assert "ZeroDivisionError" in seen[6]
    assert "401" in seen[7]
    assert seen[8].startswith("Execution failed.")
    assert [step.info["events"] for step in steps[6:9]] == [["error"]] * 3
    assert score.success


def test_worlds_run_side_by_side_and_do_not_mix(tasks):
    names = ["notewrite_1", "notewrite_2", "notewrite_3", "alarmset_1"]
    chosen = [named(tasks, name) for name in names]
    with ThreadPoolExecutor(2) as pool:
        scores = list(pool.map(lambda task: play(tasks, task, tasks.demonstrate(task))[2], chosen))
    assert all(score.success for score in scores)
    other = tasks.demonstrate(chosen[1])
    assert not play(tasks, chosen[0], other)[2].success


def test_a_server_that_dies_costs_its_episode_alone(tasks):
    task = named(tasks, "notewrite_1")
    world = tasks.make()
    world.reset(task)
    os.killpg(world.server.process.pid, signal.SIGKILL)
    world.server.process.wait()
    with pytest.raises(SkillSDError):
        world.step(block("print(1)"))
    world.close()
    world = tasks.make()
    world.reset(task)
    os.killpg(world.server.process.pid, signal.SIGSTOP)  # it hangs
    tasks.timeout, before = 1.0, tasks.timeout
    try:
        step = world.step(block("print(1)"))
    finally:
        tasks.timeout = before
    assert step.done
    assert step.info["events"] == ["killed"]
    assert world.score().reward == 0
    world.close()
    assert play(tasks, task, tasks.demonstrate(task))[2].success


def test_an_episode_for_which_no_server_is_free_is_refused(engine, monkeypatch):
    monkeypatch.setattr("skillsd.envs.appworld.servers._PATIENCE", 0.2)
    taskset = make_taskset("appworld", servers=1)
    first, second = taskset.make(), taskset.make()
    task = taskset.tasks("train")[0]
    first.reset(task)
    with pytest.raises(SkillSDError, match=r"all 1 servers are taken: raise env\.options\.servers"):
        second.reset(task)
    first.close()
    second.reset(task)
    second.close()
    taskset.pool.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"data": "/nowhere"}, "is no whole data root: it lacks datasets"),
        ({"servers": 0}, "servers must be a whole number"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"prompt": "/nowhere.md"}, "neither agent, short nor a readable Jinja file"),
    ],
)
def test_wrong_options_are_told_in_one_line(engine, options, told):
    with pytest.raises(UsageError, match=told) as caught:
        make_taskset("appworld", **options)
    assert "\n" not in str(caught.value)


def test_half_built_or_foreign_data_is_refused(engine, tmp_path, monkeypatch):
    home, root = tmp_path / "home", data_root("pack")
    shutil.copytree(root, home / "pack", ignore=shutil.ignore_patterns("pack.json"))
    monkeypatch.setenv("SKILLSD_APPWORLD_HOME", str(home))
    with pytest.raises(UsageError, match=r"lacks pack\.json; run `skillsd appworld setup`"):
        make_taskset("appworld")
    taskset = make_taskset("appworld", data=str(home / "pack"))
    with pytest.raises(UsageError, match="no AppWorld engine in"):
        taskset.make()
    with pytest.raises(UsageError, match="no split 'valid'; splits: dev, practice, practice_test, test, train "):
        taskset.tasks("valid")
    specs = home / "pack" / "data" / "tasks" / "notewrite_1" / "specs.json"
    specs.write_text(json.dumps({**json.loads(specs.read_text()), "db_version": "0.0.1"}))
    monkeypatch.undo()
    taskset = make_taskset("appworld", data=str(home / "pack"), servers=1)
    with pytest.raises(SkillSDError, match="database version of the task") as caught:
        taskset.make().reset(named(taskset, "notewrite_1"))
    assert "\n" not in str(caught.value)
    taskset.pool.close()
    specs.write_text("{")
    with pytest.raises(SkillSDError, match="missing or unreadable"):
        taskset.tasks("train")


@pytest.mark.parametrize("doing", ["time.sleep(60)", "run('while True: pass')", "run('sum(itertools.repeat(0))')"])
def test_no_server_outlives_a_killed_run(engine, doing):
    code = (
        "import time\nfrom skillsd.envs import make_taskset\n"
        "t = make_taskset('appworld', servers=1)\ne = t.make()\ne.reset(t.tasks('train')[0])\n"
        "run = lambda code: e.step(f'```python\\n{code}\\n```')\n"
        f"print(e.server.process.pid, flush=True)\n{doing}"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    server = int(run.stdout.readline())
    time.sleep(1.0)  # by then it is at it
    run.kill()
    run.communicate()
    left = list(Path(tempfile.gettempdir()).glob(f"skillsd-appworld-{run.pid}-*"))
    assert len(left) == 1
    _sweep()
    assert not left[0].exists()
    for _ in range(100):
        try:
            os.kill(server, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the server still runs")


def test_a_run_goes_through(engine, tmp_path):
    config = load_config("appworld-smoke", ["trainer.iterations=1", "eval.tasks=1", "rollout.max_turns=2"])
    result = train(config, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert metrics["dropped"] == 0
    assert metrics["turns"] == 2
    assert result.after.tasks == 1


def test_appworlds_own_evaluator_agrees(engine, tmp_path):
    """Of six episodes, two right, two wrong and two not begun, its report says what our scores say."""
    (tmp_path / "data").symlink_to(data_root("pack") / "data")
    kept = tmp_path / "experiments" / "outputs" / "mine"
    taskset = make_taskset("appworld", servers=1, keep=str(kept))
    chosen, ours = [t for t in taskset.tasks("dev") if t.id.startswith(("notetidy", "todocount"))], {}
    for index, task in enumerate(chosen):
        messages = {0: taskset.demonstrate(task), 1: [block("apis.supervisor.complete_task(answer=99)")], 2: []}
        ours[task.id] = play(taskset, task, messages[index % 3])[2]
    taskset.pool.close()
    code = (
        "import json\nfrom appworld.evaluator import evaluate_tasks\n"
        f"found = evaluate_tasks({[task.id for task in chosen]!r}, experiment_name='mine', save_reports=False)\n"
        "print(json.dumps(found))"
    )
    env = {"APPWORLD_ROOT": str(tmp_path), "APPWORLD_CACHE": str(engine.cache), "HOME": str(tmp_path)}
    done = subprocess.run([engine.python, "-c", code], capture_output=True, text=True, env=env, check=False)
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(chosen) == 6
    assert {name: entry["success"] for name, entry in theirs["individual"].items()} == {
        name: score.success for name, score in ours.items()
    }
    assert theirs["aggregate"]["task_goal_completion"] == pytest.approx(100 * 2 / 6, abs=0.1)
