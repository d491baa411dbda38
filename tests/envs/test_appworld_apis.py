"""The apps as an agent is given them: names and calls, none of the engine's objects, and values that are plain."""

from __future__ import annotations

import copy
import importlib
from collections import OrderedDict
from datetime import date
from enum import IntEnum
from pathlib import Path

import pytest

import skillsd.envs.appworld.guard

ENGINE = Path(skillsd.envs.appworld.guard.__file__).with_name("engine")


class Late(Exception):
    pass


class Inner(Exception):
    def __init__(self):
        super().__init__("422: no")
        self.request = object()


class Text(str):
    def __str__(self):
        return "../admin"


class Number(IntEnum):
    one = 1


@pytest.fixture
def calls(monkeypatch):
    """(the view, what reached the engine)."""
    monkeypatch.syspath_prepend(str(ENGINE))
    sent = []

    def note(**given):
        if isinstance(given.get("fails"), str):
            raise {"late": Late, "inner": Inner, "type": TypeError, "memory": MemoryError}[given["fails"]]
        sent.append(given)
        return {"message": "kept"}

    found = {"notes": {"keep": note, "show": note}, "admin": {"pay": note}, "_requester": object()}
    paths = {"keep": "/notes", "show": "/notes/{note_id}/{part}"}
    return importlib.import_module("apis").view(found, lambda app, name: paths[name], (Late,)), sent


def test_there_are_the_names_of_apps_and_of_apis_and_nothing_else(calls):
    apis, _ = calls
    assert (list(apis), list(apis.notes), list(copy.deepcopy(apis))) == (["notes"], ["keep", "show"], ["notes"])
    assert apis.notes.keep(text="a") == apis["notes"]["keep"](text="b") == {"message": "kept"}
    for name, told in (("admin", "No app named 'admin'"), ("x", "No app named 'x' found")):
        with pytest.raises(Exception, match=told):
            getattr(apis, name)
    with pytest.raises(Exception, match="No API named 'x' found in the notes app"):
        apis.notes.x()
    made = type(apis)({"__deepcopy__": print, "_requester": 1})
    for name in ("_requester", "__deepcopy__"):
        with pytest.raises(AttributeError):
            getattr(made, name)


def test_what_an_api_is_sent_is_plain(calls):
    apis, sent = calls
    given = {"a": [Text("x"), (Number.one, 1.5, True)], "b": OrderedDict(c={2}), "d": date(2024, 1, 2), "e": None}
    apis.notes.keep(**given, **{Text("f"): b"g"})
    assert sent == [{"a": ["x", (1, 1.5, True)], "b": {"c": {2}}, "d": date(2024, 1, 2), "e": None, "f": b"g"}]
    assert {type(word) for word in (sent[0]["a"][0], list(sent[0])[-1])} == {str}
    assert (type(sent[0]["a"][1][0]), type(sent[0]["b"])) == (int, dict)
    with pytest.raises(TypeError, match="Object of type Late is not JSON serializable"):
        apis.notes.keep(a=Late())


@pytest.mark.parametrize("name", ["client", "track", "show", "raise_on_failure", "_system_datetime"])
def test_the_engines_own_parameters_are_not_passed_on(calls, name):
    apis, sent = calls
    for word in (name, Text(name)):
        with pytest.raises(TypeError, match=f"no parameter {name}"):
            apis.notes.keep(**{word: None})
    assert sent == []


@pytest.mark.parametrize(
    "value", ["../../admin/users", "..", ".", "%2e%2e", "%252e%252e", "1/share", "1?x=2", "1#", "a\\b"]
)
def test_an_address_leads_where_its_api_is(calls, value):
    apis, sent = calls
    for given in ({"note_id": value, "part": 1}, {"note_id": 1, "part": Text(value)}):
        with pytest.raises(Exception, match=r"status code is 405:\nAPI not found or some"):
            apis.notes.show(**given)
    assert sent == []
    apis.notes.keep(note_id=value)
    apis.notes.show(note_id="a b@c.de", part="100 %.txt")
    assert len(sent) == 2


def test_the_engines_errors_are_told_in_words(calls):
    apis, _ = calls
    with pytest.raises(Late):
        apis.notes.keep(fails="late")
    for fails, kind in (("inner", Exception), ("type", TypeError), ("memory", MemoryError)):
        with pytest.raises(kind) as caught:
            apis.notes.keep(fails=fails)
        assert type(caught.value) is kind
        assert (caught.value.__context__, vars(caught.value)) == (None, {})
