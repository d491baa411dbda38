"""What of AppWorld needs no engine: reading code before it is run, reading trajectories, scenario completion."""

from __future__ import annotations

import contextlib
import importlib
import json
import random
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import skillsd.envs.appworld.guard
from skillsd.envs import make_taskset
from skillsd.envs.appworld.engine.public import names
from skillsd.envs.appworld.environment import AppWorldTasks
from skillsd.envs.appworld.guard import MODULES, Refused, check
from skillsd.envs.appworld.install import Engine, find_engine
from skillsd.envs.appworld.rules import AppWorldRules, read
from skillsd.envs.appworld.status import state
from skillsd.errors import UsageError
from skillsd.rollouts.results import summarize
from skillsd.types import SummaryRequest, Task, Trajectory, Turn

ENGINE = Path(skillsd.envs.appworld.guard.__file__).with_name("engine")

HONEST = """
import re
from collections import Counter
from datetime import datetime, timedelta
songs, page = [], 0
while found := apis.spotify.show_song_library(page_index=page, access_token=token):
    songs, page = songs + found, page + 1
best = max(songs, key=lambda song: song['play_count'])
names = sorted({artist['name'] for song in songs for artist in song['artists']})
print(f"{best['title']!r}: {best['play_count']:>6d}", type(best).__name__, "a.b.c", "it's __here__")
def total(values, _scale=1):
    return sum(value * _scale for value in values)
try:
    print(total([1, 2]), re.search(r'(\\d+)', 'a1').group(1), apis.file_system.show_file(file_path='~/a'))
except Exception as error:
    print(error)
"""


def test_honest_code_passes():
    check(HONEST)
    check("")
    for module in MODULES:
        check(f"import {module}")


@pytest.mark.parametrize(
    "code",
    [
        "import os.path", "from os import path", "from . import x", "import json, sys", "x = [os for os in ()]",
        "a.__class__", "a._private", "lambda: exec('1')", "class A:\n    x = open", "print(json.codecs)",
        "from json import codecs", "__builtins__", "f'{().__class__}'", "'{0.__class__}'.format(1)",
        "match x:\n    case A(__class__=y): pass", "vars()", "re.enum.sys", "del requester",
    ],
)  # fmt: skip
def test_ways_out_are_offences(code):
    with pytest.raises(Refused, match=r"^line [12]") as caught:
        check(code)
    assert caught.value.offence


@pytest.mark.parametrize("code", ["import pandas", "from requests import get", "import yaml as y"])
def test_what_is_not_there_is_no_offence(code):
    with pytest.raises(Refused, match="these modules are there: array, bisect") as caught:
        check(code)
    assert not caught.value.offence


@pytest.mark.parametrize("code", ["def f(:", "x = '\0'", "(" * 10_000, "x" * 10 + "\n  y", "\ud800", "!ls", "%run x"])
def test_what_is_no_python_is_a_syntax_error(code):
    with pytest.raises(SyntaxError):
        check(code)


def test_noise_never_breaks_the_readers():
    """Whatever a model writes: a verdict or a syntax error, and a skill."""
    rng = random.Random(0)
    pieces = ["apis", ".", "login", "(", ")", "\n", "x=", "'", "```", "python", "\\", "{", "é", "\0"]
    for _ in range(300):
        code = "".join(rng.choice(pieces) for _ in range(rng.randrange(30)))
        with contextlib.suppress(Refused, SyntaxError):
            check(code)
        turns = [Turn(f"```python\n{code}\n```", rng.choice(["ok", "Execution failed. ", "\0"]), True, {})]
        trajectory = Trajectory("t", 1, 0, "p", [], turns=turns)
        assert AppWorldRules().summarize(SummaryRequest(trajectory, Task("t"))).golden_workflow


def test_calls_behind_the_failing_line_never_ran():
    code = "a = apis.x.one(k=1)\nb = apis.x.two(password='p')\napis.x.three()"
    failed = (
        'Execution failed. Traceback:\n  File "<python-input>", line 2, in <module>\nException: Response status code'
    )
    attempt = read([Turn("", f'{failed} is 422:\n{{"message":"k: field\\n required"}}', True, {"action": code})])
    assert [(call.name, call.error) for call in attempt.calls] == [
        ("x.one", None), ("x.two", "status 422, k: field required"),
    ]  # fmt: skip
    assert str(attempt.calls[1]) == "x.two(password=...)"


def test_it_brings_its_own_rules():
    assert isinstance(AppWorldTasks.rules(None), AppWorldRules)


def test_without_an_engine_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLSD_APPWORLD_HOME", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="run `skillsd appworld setup`"):
        find_engine()
    found = state()
    assert not found["ok"]
    assert "skillsd appworld setup" in found["engine"]


def test_a_scenario_counts_only_as_a_whole():
    tasks = [Task(f"{name}_{i}", {"scenario": name}) for name in ("a", "b") for i in range(2)]
    won = {"a_0": True, "a_1": True, "b_0": True, "b_1": False}
    trajectories = [Trajectory(task.id, 0, 0, "p", [], success=won[task.id]) for task in tasks]
    assert summarize("dev", tasks, trajectories, 1).scenario_accuracy == 0.5
    assert summarize("dev", [Task("x")], [Trajectory("x", 0, 0, "p", [])], 1).scenario_accuracy is None


# -- ways out that are closed by listing what there is, not by naming what there is not ------------------------

ORDINARY = """
import json, datetime, re, collections, math, itertools, time, uuid, random, string, operator, functools
import collections.abc as abc
from collections import Counter, defaultdict
from functools import reduce, wraps
from operator import itemgetter
numbers = [3, 1]
string = "a, b".split(", ")
time = {"start": 5}
print(time.get("start"), time.items(), string, numbers.count(3), datetime.datetime.now().date().isoformat())
copy = dict(time).copy()
print("{} of {name:>5} {0[0]} {{x}}".format("ab", name="c"), "{user.email}".format(user=apis), f"{copy!r:>{5}}")
print(now.format("YYYY-MM-DD"), json.dumps({"a": abc.Mapping is None}, indent=1), re.IGNORECASE, math.inf)
class Box:
    size: int = 3
    def __init__(self, size=2):
        self.size = size
    def __repr__(self):
        return f"Box({self.size})"
def logged(f):
    @wraps(f)
    def inner(*given, **named):
        return f(*given, **named)
    return inner
match {"kind": "song", "n": [1, 2]}:
    case {"kind": str, "n": [first, *rest], **others} if first:
        print(first, rest, others)
    case Box(size=n) | [n]:
        print(n)
try:
    print(type(Box()), isinstance(Box(), Box), sorted([Box()], key=lambda box: box.size), max(1, 2), dir(apis.phone))
except (KeyError, ValueError) as problem:
    raise Exception("no") from problem
files = [f for f in apis.file_system.show_directory(directory_path="~/") if f.endswith(".txt")]
email, calendar, token, code = apis.gmail, "x", "y", "z"
print(email.show_inbox(), calendar.upper(), code.strip(), functools.partial(int, base=2)("1"), uuid.uuid4().hex)
"""


def test_ordinary_python_passes():
    check(ORDINARY)


REACHING = {
    "a formatter's field": "import string\nstring.Formatter().get_field('0.x', (json,), {})",
    "a formatter by another name": "import string as s\nF = s.Formatter",
    "a formatter imported": "from string import Formatter",
    "a module of a module": "import dataclasses\ndataclasses.inspect.linecache.getlines('/etc/shadow')",
    "a module that the shell has": "print(json.codecs)",
    "a module's module imported": "from dataclasses import inspect",
    "under another name": "import calendar as c\nc.sys",
    "the frame": "from inspect import currentframe",
    "all objects": "import gc\ngc.get_objects()",
    "types of code": "import types",
    "attributes by name": "from operator import attrgetter",
    "hints evaluated": "import typing\ntyping.get_type_hints(print)",
    "a format's field": "'{0.gi_frame}'.format(x)",
    "a format's field in a field": "'{0:{1.f_globals}}'.format(1, x)",
    "a format's attribute of an item": "'{0[a].tb_frame}'.format(x)",
    "a class out of text": "type('A', (), {'__match_args__': ('gi_frame',)})",
    "a metaclass": "class A(type): pass",
    "a metaclass by keyword": "class A(metaclass=M): pass",
    "a dangerous method": "class A:\n    def __reduce_ex__(self, n): return print, ()",
    "another object in the place of a new one": "class A:\n    def __new__(cls): return json",
    "a name through import": "import json as __builtins__",
    "a name through except": "try: pass\nexcept Exception as __x__: pass",
    "a name through an argument": "lambda __build_class__: 1",
    "help, which imports": "help('modules')",
    "the licence, which reads": "license()",
    "a generator's frame": "g.gi_frame",
    "a coroutine's": "c.cr_code",
    "a traceback's": "e.tb_next",
    "a method's function": "x.f.mro()",
    "a pattern's attribute": "match '{0._' + 'x}':\n    case str(format=f): f(json)",
    "a pattern of a class of one's own": "class S(str): pass\nmatch S(x):\n    case S(format_map=f): pass",
    "a pattern within a pattern": "match x:\n    case [{'a': str(format=f) as g} | None]: pass",
    "places given by a class": "class A:\n    __match_args__ = ('format',)",
    "places given to a class": "A.__match_args__ = ('format',)",
    "places given by annotation": "class A:\n    __match_args__: tuple = ('format',)",
    "a name at with": "with x as y.__class__: pass",
    "a name at except": "try: pass\nexcept* x.__class__: pass",
    "a decorator": "@x.__class__\ndef f(): pass",
    "a class asked for by index": "class A:\n    def __class_getitem__(cls, x): return x",
    "a class of text": "import dataclasses\ndataclasses.make_dataclass('A', ['format'])",
    "an alias of getattr": "take = getattr",
}


@pytest.mark.parametrize("how", REACHING)
def test_reaching_by_text_or_through_modules_is_refused_and_counts(how):
    with pytest.raises(Refused, match=r"^line") as caught:
        check(REACHING[how])
    assert caught.value.offence


MEANT_WELL = {
    "a part of a module": "try: pass\nexcept json.decoder.JSONDecodeError: pass",
    "an unlisted function": "import functools\nfunctools.singledispatch(print)",
    "text as a variable": "template = 'a {}'\nprint(template.format(x))",
    "format as a function": "print(list(map(str.format, ['a'])))",
    "format, partly": "import functools\nfunctools.partial(str.format, x)",
    "format as a decorator": "@x.format\ndef f(): pass",
    "format of the class above": "class S(str):\n    def go(self, x): return super().format(x)",
    "a field that is a method of text": "class S(str):\n    if True:\n        format: object",
    "a field that is a frame": "class S(A):\n    gi_frame: object",
    "types as values": "print(list(map(type, [1])))",
    "places in a class": "match x:\n    case Point(a, b): pass",
    "everything": "from json import *",
    "a module's module": "import json.decoder",
}


@pytest.mark.parametrize("how", MEANT_WELL)
def test_what_may_be_meant_well_is_refused_and_told_but_does_not_count(how):
    with pytest.raises(Refused, match=r"^line") as caught:
        check(MEANT_WELL[how])
    assert not caught.value.offence


FIELDS = """
from dataclasses import asdict, dataclass, field, fields, replace
mine = field(default=1)
@dataclass
class Slip(Exception):
    code: int = mine
mine.name = "__trace" + "back__"
for each in fields(Slip):
    each.name = "__trace" + "back__"
try:
    raise Slip()
except Slip as error:
    told = (asdict(error), replace(error, code=2).code)
"""


def test_a_dataclass_takes_no_attributes_but_those_its_class_wrote_down(monkeypatch):
    check(FIELDS)
    monkeypatch.syspath_prepend(str(ENGINE))
    namespace = {"__name__": "__main__"}
    importlib.import_module("fence").fence(namespace, None)
    exec(FIELDS, namespace)
    assert namespace["told"] == ({"code": 1}, 2)


@pytest.mark.parametrize("module", sorted(MODULES - {"pendulum"}))
def test_no_module_is_public_in_a_module(module):
    found = importlib.import_module(module)
    for name in names(module):
        assert not isinstance(getattr(found, name, None), ModuleType), name
        assert not name.startswith("_")


@pytest.mark.parametrize("module", sorted(MODULES - {"pendulum"}))
def test_every_other_module_in_a_module_is_an_attempt(module):
    for name, value in vars(importlib.import_module(module)).items():
        if isinstance(value, ModuleType) and f"{module}.{name}" not in MODULES:
            for code in (f"import {module} as m\nm.{name}", f"from {module} import {name}"):
                with pytest.raises(Refused):
                    check(code)


# -- the cage, without an engine -------------------------------------------------------------------------------

CAGED = """
import ctypes, json, os, socket, subprocess, sys, sysconfig, threading
sys.path.insert(0, sys.argv[1])
from confine import confine
libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
held = confine(["/lib", "/lib64", "/usr/lib", *libraries], [sys.argv[2]])
def tried(what):
    try:
        what()
    except OSError as error:
        return error.strerror
    return "done"
ran = threading.Thread(target=lambda: None)
print(json.dumps({"held": held, **{name: tried(what) for name, what in {
    "reads": lambda: open("/etc/passwd").read(), "lists": lambda: os.listdir("/"), "forks": os.fork,
    "connects": lambda: socket.socketpair()[0].connect(sys.argv[2] + "/s"),
    "makes": lambda: socket.socket(socket.AF_UNIX), "calls": lambda: socket.socket(),
    "datagrams": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "runs": lambda: subprocess.run(["/bin/true"]), "signals": lambda: os.kill(os.getppid(), 0),
    "writes": lambda: open(sys.argv[2] + "/x", "w").write("x"), "pairs": socket.socketpair, "threads": ran.start,
}.items()}}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
def test_a_confined_process_reads_its_libraries_writes_to_its_folder_and_reaches_nobody(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        done = subprocess.run(
            [sys.executable, "-c", CAGED, str(ENGINE), str(tmp_path)], capture_output=True, text=True, timeout=60
        )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    held = found.pop("held")
    if not all(held.values()):
        pytest.skip(f"this system has not all of it: {held}")
    good = {name for name, result in found.items() if result == "done"}
    assert good == {"writes", "pairs", "threads"}, found
    assert set(found.values()) == {"done", "Permission denied", "Operation not permitted"}


def test_a_system_that_cannot_confine_is_refused_unless_the_settings_say_otherwise(tmp_path, monkeypatch):
    for name in ("datasets", "tasks", "base_dbs", "api_docs"):
        (tmp_path / "data" / name).mkdir(parents=True)
    monkeypatch.setattr("skillsd.envs.appworld.environment.is_installed", lambda: True)
    monkeypatch.setattr("skillsd.envs.appworld.environment.find_engine", lambda: Engine(Path("python"), tmp_path))
    held = {"files": False, "network": True, "sockets": False}
    monkeypatch.setattr("skillsd.envs.appworld.install._confinement", lambda python: held)
    with pytest.raises(UsageError, match=r"away from files, sockets .*env\.options\.allow_unconfined=true") as caught:
        make_taskset("appworld", data=str(tmp_path))
    assert "\n" not in str(caught.value)
    make_taskset("appworld", data=str(tmp_path), allow_unconfined=True)
    with pytest.raises(UsageError, match="true or false"):
        make_taskset("appworld", data=str(tmp_path), allow_unconfined="perhaps")
    held.update(files=True, sockets=True)
    make_taskset("appworld", data=str(tmp_path))
