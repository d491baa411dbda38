"""Classes come of class statements, and what is not the agent's stays as it is, however a name is put together."""

from __future__ import annotations

import ast
import copy
import enum
import importlib
import json
from pathlib import Path
from types import CodeType, FrameType, ModuleType

import pytest

import skillsd.envs.appworld.guard
from skillsd.envs.appworld.guard import MODULES, Refused, _no_attribute, _no_format, check

ENGINE = Path(skillsd.envs.appworld.guard.__file__).with_name("engine")


@pytest.fixture
def run(monkeypatch):
    """Run code as the engine does, once it was read; the namespace that it leaves."""
    monkeypatch.syspath_prepend(str(ENGINE))
    fence, written = importlib.import_module("fence"), importlib.import_module("written")

    def go(code, changed=written.changes):
        check(code)
        namespace = {"__name__": "__main__", "_dh": [ENGINE], "_": 1, "deepcopy": copy.deepcopy}
        fence.fence(namespace, fence.Refusals())
        exec(compile(changed(ast.parse(code)), "agent", "exec"), namespace)
        return namespace

    return go


ORDINARY = """
from collections import namedtuple
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal, getcontext
from enum import Enum, Flag, IntEnum, auto, unique
from functools import cached_property, total_ordering, wraps
from typing import Generic, NamedTuple, TypedDict, TypeVar
@unique
class Colour(Enum):
    RED = 1
    BLUE = auto()
class Level(IntEnum):
    LOW = 1
class Right(Flag):
    A = auto()
    B = auto()
class Point(NamedTuple):
    x: int
    y: int = 2
class Movie(TypedDict):
    title: str
T = TypeVar("T")
class Box(Generic[T]):
    made = 0
    def __init__(self, *given):
        self.given, self.count = list(given), 0
        Box.made += 1
    def __getattr__(self, name):
        return "no " + name
    @cached_property
    def total(self):
        self.count += 1
        return sum(self.given)
@total_ordering
@dataclass(slots=True)
class Card:
    rank: int = 1
    tags: list = field(default_factory=list)
    def __lt__(self, other):
        return self.rank < other.rank
def logged(f):
    @wraps(f)
    def inner(*given):
        inner.calls += 1
        return f(*given)
    inner.calls = 0
    return inner
told = [Colour(2), Colour["RED"].value, Level.LOW + 1, Right(3), Point(1).y, Movie(title="a")]
told += [isinstance(Level.LOW, Enum)]
Pair = namedtuple("Pair", "a, b")
box, card, double = Box(1, 2), Card(), logged(lambda n: 2 * n)
card.rank += 4
told += [Pair(1, b=2).b, box.total + box.total, box.count, box.other, Box.made, deepcopy(box).given, copy(card).rank]
told += [asdict(replace(card, rank=3)), card > Card(), double(double(1)), double.calls]
told += [type(box) is Box, type(box)(5).total, type(int) is type(Box), type(3)("4")]
getcontext().prec = 3
error = ValueError("x")
error.code = 3
for box.last in range(3):
    pass
del box.count
told += [str(Decimal(1) / 3), error.code, box.last, box.count]
"""


def test_ordinary_classes_work(run):
    namespace = run(ORDINARY)
    told = namespace["told"]
    assert told[0] is namespace["Colour"].BLUE
    assert told[3] == namespace["Right"].A | namespace["Right"].B
    assert told[1:3] + told[4:14] == [1, 2, 2, {"title": "a"}, True, 2, 6, 1, "no other", 1, [1, 2], 5]
    assert told[14:18] == [{"rank": 3, "tags": []}, True, 4, 2]
    assert told[18:] == [True, 5, True, 4, "0.333", 3, 2, "no count"]


START = """
from collections import namedtuple
from dataclasses import dataclass
from decimal import DefaultContext
from enum import Enum, IntEnum
from functools import cached_property, total_ordering, wraps
from typing import NamedTuple, TypedDict
import copy, json, re
name = "__reduce" + "_ex__"
class Text(str):
    def isidentifier(self):
        return True
    def startswith(self, what):
        return False
class Empty(Enum):
    pass
class Own:
    pass
"""
REFUSED = {
    "a class of classes": "type(type(1))('A', (), {name: print})",
    "a class of classes by another's": "type(Enum)('A', (), {name: print})",
    "a class of classes as a base": "class A(type(int)): pass",
    "an enumeration of text": "Enum('A', {name: 1})",
    "an enumeration of words": "IntEnum('A', 'a b', start=1)",
    "an enumeration of one's own": "Empty('A', {name: 1})",
    "a tuple of text": "NamedTuple('A', [(name, int)])",
    "a dictionary of text": "TypedDict('A', {name: int})",
    "a tuple with names of Python's": "namedtuple('A', [name])",
    "a tuple with text that pretends": "namedtuple('A', [Text('x y')])",
    "a tuple whose name pretends": "namedtuple(Text('A, b'), [])",
    "a module of text": "type(json)({name: print})",
    "a property's name": "p = cached_property(print)\np.attrname = name",
    "a memo": "copy.deepcopy(Own(), {})",
    "a class of Python's": "json.JSONEncoder.default = print",
    "a class of Python's in a list": "[json.JSONEncoder][0].default = print",
    "a class of Python's, less": "del json.JSONEncoder.default",
    "a class of Python's in a loop": "for json.JSONDecoder.decode in [1]: pass",
    "a function of Python's": "json.dumps.kept = 1",
    "an object that others have": "re.IGNORECASE.kept = 1",
    "a context that others have": "DefaultContext.prec = 1",
    "a dataclass of Python's": "dataclass(json.JSONEncoder)",
    "an order of Python's": "total_ordering(json.JSONEncoder)",
    "a wrapper of Python's": "wraps(Own)(json.JSONEncoder)",
    "a method that is none": "class A:\n    @property\n    def __getattr__(self): return print",
}


@pytest.mark.parametrize("how", REFUSED)
def test_no_class_comes_of_text_and_nothing_of_others_is_changed(run, how):
    run(START)
    with pytest.raises((TypeError, AttributeError)):
        run(START + REFUSED[how])
    assert json.loads(json.dumps({"a": 1})) == {"a": 1}
    assert not hasattr(json.dumps, "kept")


def test_a_mapping_that_answers_otherwise_the_second_time_is_asked_once(run):
    code = (
        "import json\nasked = []\nclass Two:\n    def __iter__(self): return iter(self.keys())\n"
        "    def __getitem__(self, key): return 1\n    def keys(self):\n        asked.append(1)\n"
        "        return ['a'] if len(asked) == 1 else ['__mine' + '__']\n"
        "told = hasattr(type(json)(Two()), '__mine' + '__')"
    )
    assert run(code)["told"] is False


def test_a_class_does_not_make_up_pythons_own_attributes(run):
    code = "asked = []\nclass A:\n    def __getattr__(self, name):\n        asked.append(name)\n        return 1\n"
    code += "import copy\ncopy.deepcopy(A()), copy.copy(A()), A().mine"
    assert run(code)["asked"] == ["mine"]


def test_a_field_that_is_renamed_while_its_class_is_made_keeps_its_name(run):
    code = (
        "from dataclasses import asdict, dataclass, field\n"
        "class Late:\n    def __hash__(self): return 1\n    def __repr__(self):\n"
        "        vars_of.name = '__trace' + 'back__'\n        return ''\n"
        "vars_of = field(default=Late())\n"
        "@dataclass\nclass Slip(Exception):\n    code: object = vars_of\n"
        "told = list(asdict(Slip(2)))"
    )
    assert run(code)["told"] == ["code"]
    assert run(code, changed=lambda tree: tree)["told"] == ["code"], "had it been let change the name"


@pytest.mark.parametrize(
    "code",
    ["x = '__reduce_ex__'", "print({'__class__': 1})", "dict(__class__=1)", "f(a, __reduce__=2)", "x = f'__class__'",
     "match x:\n    case '__code__': pass"],
)  # fmt: skip
def test_names_of_pythons_own_are_no_text_either(code):
    with pytest.raises(Refused, match="is not allowed") as caught:
        check(code)
    assert caught.value.offence


def test_text_that_only_looks_like_it_passes():
    check("print('it is __here__', '__', '____ a', '__main__', b'x', '__name__')")


def test_abstract_classes_take_nobody_in():
    with pytest.raises(Refused, match=r"other than \.register") as caught:
        check("from collections.abc import Sequence\nSequence.register(int)")
    assert not caught.value.offence


def test_nothing_of_the_shells_own_is_left(run):
    for name in ("_dh", "_"):
        with pytest.raises(NameError):
            run(f"print({name})")


def test_the_week_begins_on_monday_again(run):
    run("import calendar\ncalendar.setfirstweekday(6)")
    assert run("import calendar\nday = calendar.firstweekday()")["day"] == 0


#: Calls, which hold nothing else that may be taken.
CALLS = tuple(
    {type(kind) for kind in (print, "".join, str.join, int.__add__, (1).__add__, int.real, check, Path().exists)}
)


def test_what_can_be_reached_by_its_names_are_values_and_calls(run):
    """From every module and function that an agent has, by every attribute that it may take."""
    namespace = run("\n".join(f"import {module}" for module in sorted(MODULES - {"pendulum"})))
    waiting = [(name, value) for name, value in namespace.items() if not name.startswith("_") and name != "builtins"]
    waiting += [(name, value) for name, value in namespace["__builtins__"].items() if not name.startswith("_")]
    seen = {}
    while waiting:
        path, value = waiting.pop(0)
        if id(value) in seen or isinstance(value, CALLS):
            continue
        seen[id(value)] = value
        assert not isinstance(value, (ModuleType, FrameType, CodeType)), path
        assert not (isinstance(value, type) and issubclass(value, type)), path
        assert value is not enum.Enum, path
        assert not isinstance(value, (list, dict, set, bytearray)), f"{path} could be changed for all"
        for name in dir(value) if path.count(".") < 3 else ():
            if not (_no_attribute(name) or _no_format(name)):
                try:
                    waiting.append((f"{path}.{name}", getattr(value, name)))
                except Exception:
                    continue
    assert len(seen) > 500
