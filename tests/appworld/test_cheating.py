"""Agents that try to get at the answers, or to break things: each scores 0, is counted, and the next episode works."""

from __future__ import annotations

import json
import socket
import tempfile

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
    "matches format in": "match '{0._' + '_class_' + '_}':\n    case str(format=f):\n        print(f(apis))",
    "follows a name in text": "import string\nprint(string.Formatter().get_field('0.x', (json,), {}))",
    "goes by another module's modules": "import calendar as c\nprint(c.sys)",
    "asks for the frame": "import inspect\nprint(inspect.currentframe())",
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


#: Ways around the reading: what counts is what the process lets through.
AROUND = {
    "under another name": "j = json\nprint(j.codecs)",
    "in a list": "print([re][0].enum.sys)",
    "a formatter": "import string\nprint([string][0].Formatter)",
}


@pytest.mark.parametrize("how", AROUND)
def test_modules_are_not_to_be_had_by_another_way_and_that_counts(tasks, how):
    task = tasks.tasks("train")[0]
    _, steps, score = play(tasks, task, [block(AROUND[how]), *tasks.demonstrate(task)])
    assert "refused" in steps[0].info["events"], steps[0].observation
    assert "is not allowed" in steps[0].observation
    assert (score.reward, score.success) == (0.0, False)


#: What is no offence to ask for, and not to be had.
IN_VAIN = {
    "the engine by its key": ("print(apis['_requester'])", "KeyError"),
    "the engine's own app": ("print(apis.admin)", "No app named 'admin' found"),
    "another API's address": ("apis.simple_note.show_note(note_id='../../admin/x', access_token='')", "405:\nAPI not"),
    "no record": ("apis.api_docs.show_app_descriptions(track=False)", "no parameter track"),
    "another client": ("apis.api_docs.show_app_descriptions(client='x')", "no parameter client"),
    "the shell's folders": ("print(list(_dh[0].iterdir()))", "NameError"),
    "the engine's JSON": ("json.JSONEncoder.iterencode = print", "cannot be changed"),
    "a class of text": ("type(type(1))('A', (), {'__a' + '__': 1})", "TypeError"),
    "a magic word": ("env", "name 'env' is not defined"),
    "a line that looks like a prompt": ("x = '''a\n>>> b'''\nprint(len(x))", "7"),
    "a line of a file": (f"raise SyntaxError('x', ({json.__file__!r}, 1, 1, 'mine'))", "mine"),
}  # fmt: skip


@pytest.mark.parametrize("how", IN_VAIN)
def test_what_an_agent_is_given_leads_nowhere_else(tasks, how):
    code, told = IN_VAIN[how]
    _, steps, _ = play(tasks, tasks.tasks("train")[0], [block(code)])
    assert told in steps[0].observation
    assert "JSON (JavaScript Object Notation)" not in steps[0].observation


def test_built_in_functions_that_are_not_listed_are_not_there(tasks):
    world = tasks.make()
    world.reset(tasks.tasks("train")[0])
    try:
        for name in ("open", "eval", "exec", "compile", "getattr", "globals", "vars", "help", "breakpoint", "exit",
                     "get_ipython", "requester", "ApiCollection", "Requester"):  # fmt: skip
            answer = world.server.post("/run", {"code": f"f = {name}\nprint('got', f)", "limit": 500}, 20)
            assert "NameError" in answer["output"], answer
    finally:
        world.close()


ORDINARY = """
import time, uuid, collections.abc
from functools import wraps
from collections import Counter
from datetime import timedelta
@wraps(print)
def show(*given):
    print(*given)
class Box:
    def __init__(self, size):
        self.size = size
show(time.time() > 0, len(str(uuid.uuid4())), isinstance([], collections.abc.Sequence), Counter("aab").most_common(1))
day = datetime.datetime.strptime("2024-01-02", "%Y-%m-%d")
show(day + timedelta(days=1), pendulum.parse("2024-02-03").format("YYYY"))
show(json.loads(json.dumps({"a": [1]})), re.sub("a", "b", "cat"), math.floor(2.5), list(itertools.chain([1], [2])))
show(calendar.monthrange(2024, 2), deepcopy(Box(3)).size, reduce(max, [1, 5]), DateTime.now().year, "{:>3}".format(1))
try:
    json.loads("{")
except json.JSONDecodeError as problem:
    show("no JSON:", problem.msg)
print({"last": [1, 2]})
"""


def test_ordinary_python_runs_as_ever(tasks):
    task = tasks.tasks("train")[0]
    _, steps, score = play(tasks, task, [block(ORDINARY), *tasks.demonstrate(task)])
    assert steps[0].info["events"] == [], steps[0].observation
    lines = steps[0].observation.splitlines()
    assert lines[0] == "True 36 True [('a', 2)]"
    assert lines[1] == "2024-01-03 00:00:00 2024"
    assert lines[2] == "{'a': [1]} cbt 2 [1, 2]"
    assert lines[3].startswith("(3, 29) 3 5 ")
    assert lines[4].startswith("no JSON: Expecting")
    assert score.success


@pytest.fixture
def confined(tasks):
    """Send code to a confined process as if all reading had missed it, with modules and built-in functions whole."""
    with tasks.pool.lend() as server:
        held = server.state
    if not all(held.values()):
        pytest.skip(f"this system cannot confine agents (docs/appworld.md): {held}")
    world = tasks.make()
    world.reset(tasks.tasks("train")[0])
    way = (
        "b = [c for c in object.__subclasses__() if c.__name__ == 'catch_warnings'][0].__init__.__globals__\n"
        "load = b['__builtins__']['__import__']\n"
        # Not by their own names, which the engine's guard looks for; and of libc, which it does not patch.
        "o, sck, io, libc = load('os'), load('socket'), load('_io'), load('ctypes').CDLL(None)\n"
    )

    def send(code):
        answer = world.server.post("/run", {"code": f"{way}{code}", "limit": 2000}, 20)
        return answer["output"]

    assert send("print('way', o.getpid() > 0)").startswith("way True")
    yield send
    world.close()


OUT = {
    "a password file": "io.FileIO('/etc/shadow').readall()",
    "the list of users": "io.FileIO('/etc/passwd').readall()",
    "the list of groups": "io.FileIO('/etc/group').readall()",
    "programs": "io.FileIO(o.path.realpath('/usr/bin/env')).readall()",
    "the root": "list(o.scandir('/'))",
    "a home": "list(o.scandir('/root'))",
    "temporary files of others": "list(o.scandir('/tmp'))",
    "environments": "io.FileIO('/proc/1/environ').readall()",
    "its own environment": "io.FileIO('/proc/self/environ').readall()",
    "a new file": "io.FileIO('/tmp/mine-skillsd', 'w').write(b'x')",
    "a socket": "sck.socket()",
    "a socket that is a file": "sck.socket(sck.AF_UNIX)",
    "datagrams to a file": "sck.socketpair(sck.AF_UNIX, sck.SOCK_DGRAM)",
    "a connection": "sck.socketpair()[0].connect('/nowhere')",
    "another program here": "o.execv('/bin/true', ['true'])",
    "a program": "libc.system(b'true') == 0 or 1 / 0",
    "a child": "libc.fork() >= 0 or 1 / 0",
    "signals": "libc.kill(o.getppid(), 0) == 0 or 1 / 0",
    "the ring": "libc.syscall(425, 1, 0) >= 0 or 1 / 0",
}


@pytest.mark.parametrize("what", OUT)
def test_behind_the_reading_there_is_a_cage(confined, what):
    answer = confined(f"print('got', {OUT[what]})")
    assert answer.startswith("Execution failed"), answer
    assert any(name in answer for name in ("PermissionError", "ZeroDivisionError")), answer


def test_a_socket_of_somebody_elses_that_is_a_file_is_out_of_reach(confined):
    """With a listener there: it hears nothing."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/s"
        listener.bind(path)
        listener.listen()
        listener.settimeout(0.3)
        answer = confined(f"s = sck.socket(sck.AF_UNIX)\ns.connect({path!r})\nprint('got')")
        assert "PermissionError" in answer
        with pytest.raises(TimeoutError):
            listener.accept()


def test_neither_the_truth_nor_solutions_can_be_read(confined, tasks):
    for path in (tasks.root / "data/tasks/notewrite_1/ground_truth/answer.json", tasks.root / "solutions.json"):
        assert path.is_file()
        assert "PermissionError" in confined(f"print('got', io.FileIO({str(path)!r}).readall())")
