"""Agents that try to get at the answers, or to break things: each scores 0, is counted, and the next episode works."""

from __future__ import annotations

import pytest

from conftest import block, play

#: What the guard reads off the code, before it is sent anywhere.
REFUSED = {
    "reads files": "print(open('/etc/passwd').read())",
    "reads by pathlib": "from pathlib import Path\nprint(Path('/etc/passwd').read_text())",
    "imports the engine": "import appworld",
    "imports part of the engine": "from appworld.task import Task",
    "reads the ground truth": "import json\nprint(json.load(open('data/tasks/notewrite_1/ground_truth/answer.json')))",
    "writes outside": "import os\nos.makedirs('/tmp/mine')",
    "opens a socket": "import socket\nsocket.create_connection(('1.1.1.1', 80))",
    "forks": "import os\nwhile True: os.fork()",
    "runs a program": "import subprocess\nprint(subprocess.check_output(['id']))",
    "asks the shell": "get_ipython().system('id')",
    "evaluates text": "eval('__imp' + 'ort__(\"os\")')",
    "imports by name": "__import__('os').system('id')",
    "walks the classes": "print([c for c in ().__class__.__base__.__subclasses__()])",
    "reads attributes by name": "getattr(apis, '_from_db_home_path')",
    "goes by a module's modules": "print(json.codecs.open('/etc/passwd').read())",
    "touches the databases": "print(requester.client)",
    "takes the engine's classes": "ApiCollection.load(to_db_home_path='x', from_db_home_path='y')",
    "formats itself in": "print('{0.__class__}'.format(apis))",
    "matches itself in": "match apis:\n    case object(__class__=c):\n        print(c)",
    "takes it from a frame": "def f():\n    yield\nprint(f().gi_frame.f_globals)",
}
#: What only running it shows.
KILLED = {
    "fills the memory": "x = []\nwhile True:\n    x.append(bytes(10**9))",
    "asks for too much at once": "x = 'x' * 10**12",
    "swallows the time limit": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"
    ),
}


@pytest.mark.parametrize("how", REFUSED)
def test_reaching_out_is_refused_and_scores_nothing(tasks, how):
    task = tasks.tasks("train")[0]
    _, steps, score = play(tasks, task, [block(REFUSED[how]), *tasks.demonstrate(task)])
    assert steps[0].info["events"] == ["refused"], steps[0].observation
    assert steps[0].observation.startswith("Execution failed. Refused, line")
    assert (score.reward, score.success, score.completion) == (0.0, False, 0.0), "although it then solved the task"


@pytest.mark.parametrize("how", KILLED)
def test_breaking_things_ends_the_episode(tasks, how):
    task = tasks.tasks("train")[0]
    tasks.timeout, before = 3.0, tasks.timeout
    try:
        _, steps, score = play(tasks, task, [block(KILLED[how])])
    finally:
        tasks.timeout = before
    assert steps[-1].done
    assert steps[-1].info["events"] == ["killed"], steps[-1].observation
    assert (score.reward, score.success) == (0.0, False)
    assert play(tasks, task, tasks.demonstrate(task))[2].success, "the next episode works"


def test_it_does_not_help_to_touch_the_apis(tasks):
    """Objects of the shell are not the world: the judge reads what the apps wrote down."""
    task = tasks.tasks("train")[0]
    codes = [
        "class Api:\n    def complete_task(self, **given):\n        return {'message': 'solved'}\n"
        "apis.supervisor = Api()\nprint(apis.supervisor.complete_task())",
        "print = lambda *given: None\njson.dumps = lambda value: '{}'",
        "apis = None",
    ]
    for code in codes:
        *_, score = play(tasks, task, [block(code), block("apis.supervisor.complete_task(answer='done')")])
        assert not score.success


def test_behind_the_guard_there_is_a_cage(tasks):
    """The same attacks, sent to the server as if the guard had missed them: no files, no network, no other process."""
    with tasks.pool.lend() as server:
        held = server.state
    if not held["files"]:
        pytest.skip("this system has no Landlock: the guard is all there is (docs/appworld.md)")
    truth = tasks.root / "data" / "tasks" / "notewrite_1" / "ground_truth" / "answer.json"
    attacks = {
        "truth": f"import pathlib\nprint('got', pathlib.Path({str(truth)!r}).read_text())",
        "solutions": f"import pathlib\nprint('got', pathlib.Path({str(tasks.root / 'solutions.json')!r}).read_text())",
        "environ": "import pathlib\nprint('got', pathlib.Path('/proc/1/environ').read_text())",
        "list": "import pathlib\nprint('got', list(pathlib.Path('/').iterdir()))",
        "write": "import pathlib, os\nprint('got', os.mkdir('/tmp/mine-skillsd'))",
        "socket": "import asyncio\nprint('got', asyncio.base_events.socket.create_connection(('127.0.0.1', 22), 1))",
        "disk": "import pathlib\nf = pathlib.io.FileIO('/etc/mine', 'w')\nprint('got', f.write(b'x'))",
    }
    world = tasks.make()
    world.reset(tasks.tasks("train")[0])
    try:
        for name, code in attacks.items():
            answer = world.server.post("/run", {"code": code, "limit": 2000}, 20)
            assert "got" not in answer["output"].partition("Error")[0].replace("print('got'", ""), (name, answer)
            assert answer["output"].startswith("Execution failed"), (name, answer)
    finally:
        world.close()
