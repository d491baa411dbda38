"""A key that a server repeats is hidden, in whatever form, wherever text is kept or shown."""

import base64
import html
import itertools
import json
import re
import sqlite3
import threading
import time
import urllib.parse

import pyarrow.parquet
import pytest

from fault_server import ECHOES, GOOD, escaped, message, request, summarizer, text
from leaks import leaks
from skillsd import load_config, train
from skillsd.analysis.report import write_report
from skillsd.errors import SkillSDError
from skillsd.system.redact import Redactor

KEY = "sk-very+secret/0123456789"
LONG_KEY = "sk-proj-" + "Ab0_" * 39
WHOLE = json.dumps(GOOD)
body = message(WHOLE)[2]


@pytest.mark.parametrize("how", ECHOES)
def test_an_echoed_key_is_hidden_in_every_form(serve, how, monkeypatch):
    assert leaks(KEY, ECHOES[how](KEY)), "this test would see it"
    raw = json.dumps({"error": {"message": "the key is @"}}).replace("@", ECHOES[how](KEY)).encode()
    inside = json.dumps(json.dumps({**GOOD, "mistake_analysis": "It sent @ here."}))[1:-1].replace(
        "@", ECHOES[how](KEY)
    )
    answer = body.replace(json.dumps(WHOLE)[1:-1].encode(), inside.encode())
    for status in (200, 400, 401):
        with pytest.raises(SkillSDError, match="the key is") as caught:
            summarizer(serve((status, {}, raw))).summarize(request())
        assert not leaks(KEY, str(caught.value)), caught.value
    asked = summarizer(serve((200, {}, answer)))
    found = asked.summarize(request())
    assert found.mistake_analysis.startswith("It sent ")
    assert not leaks(KEY, found.model_dump_json())
    assert not leaks(KEY, str(asked.store._db.execute("SELECT * FROM summaries").fetchall()))


@pytest.mark.parametrize("at", [4, 9, 12, 20])
def test_a_key_in_pieces_is_hidden_when_they_are_put_together(serve, at):
    halves = json.dumps({**GOOD, "mistake_analysis": f"It sent {KEY}"}).partition(KEY[at:])
    server = serve(message([text(halves[0]), text(halves[1]), text(halves[2])]))
    found = summarizer(server).summarize(request()).mistake_analysis
    assert found.startswith("It sent ")
    assert "***" in found
    assert not leaks(KEY, found)


NAMED = {char: f"&{name}" for name, char in html.entities.html5.items() if name.endswith(";") and len(char) == 1}
WORN = {  # further forms of a key, some of which JSON cannot hold as they are
    "named entities": lambda key: "".join(NAMED.get(c, c) for c in key),
    "entities of entities": lambda key: html.escape(html.escape("".join(f"&#{ord(c)};" for c in key))),
    "JSON inside of HTML": lambda key: html.escape(json.dumps({"key": json.dumps(key).replace("/", "\\/")})),
    "another case": str.upper,
    "over two lines": lambda key: f"{key[:11]}\n{key[11:]}",
    "over lines, in JSON": lambda key: json.dumps("\r\n\t".join(re.findall(".{5}", key))),
    "apart": " ".join,
    "zero width": "\u200b".join,
    "its first half": lambda key: f"{key[:12]}...",
    "its end": lambda key: f"...{key[-12:]}",
    "wrapped base64": lambda key: base64.encodebytes(f"{'x' * 50}:{key}{'y' * 50}".encode()).decode(),
    "base64 of base64": lambda key: base64.b64encode(base64.b64encode(f"k={key}".encode())).decode(),
    "base64 for URLs, escaped": lambda key: urllib.parse.quote(base64.urlsafe_b64encode(f"??>{key}".encode())),
    "hexadecimal of a URL": lambda key: urllib.parse.quote(key, safe="").encode().hex(),
    "base64 of JSON": lambda key: base64.b64encode(json.dumps({"Authorization": f"Bearer {key}"}).encode()).decode(),
}  # fmt: skip


@pytest.mark.parametrize("how", WORN)
@pytest.mark.parametrize("key", [KEY, '<&"%2f\\u0041>sk.very=_secret', LONG_KEY])
def test_a_key_is_hidden_in_forms_upon_each_other_and_in_parts(how, key):
    said_ = f"The key is: {WORN[how](key)} (so much for that)."
    assert leaks(key, said_), "this test would see it"
    hidden = Redactor(key)(said_)
    assert not leaks(key, hidden)
    assert hidden.startswith("The key is: ")
    assert hidden.endswith(" (so much for that).")


def test_what_is_no_key_stays_as_it_is():
    for text_ in ("Incorrect API key provided: sk-very*****6789.",
                  "A very secret way, \\u0041 &amp; 100%25\n\n c2stdmVyeQ==",
                  "&lt;b&gt; İ", '{"a": "\\"\\n"}', "sk-very"):  # fmt: skip
        assert Redactor(KEY)(text_) == text_
    assert Redactor(KEY)(f" İ\u2003{KEY}\n {KEY} ") == " İ\u2003***\n *** "


def test_a_cut_complaint_holds_no_part_of_the_key(serve):
    for shift in range(0, 40, 5):
        said_ = "x" * (200 - len("HTTP 400: ") - shift) + KEY
        with pytest.raises(SkillSDError) as caught:
            summarizer(serve((400, {}, said_.encode()))).summarize(request())
        assert KEY[:6] not in str(caught.value)
        with pytest.raises(SkillSDError) as caught:
            summarizer(serve((200, {}, ("y" * (60 - shift) + KEY).encode()))).summarize(request())
        assert KEY[:6] not in str(caught.value)


def test_a_placeholder_for_a_key_is_a_word_like_any_other(serve, monkeypatch):
    monkeypatch.setenv("MY_KEY", "EMPTY")
    server = serve(message(json.dumps({**GOOD, "mistake_analysis": "The list was EMPTY."})))
    assert summarizer(server).summarize(request()).mistake_analysis == "The list was EMPTY."
    assert server.headers[0]["Authorization"] == "Bearer EMPTY"


HOSTILE = {  # pieces of a body as long as a server may send
    "backslashes": lambda key: "\\",
    "escaped letters": lambda key: "\\u0041",
    "percents": lambda key: "%25",
    "entities": lambda key: "&#65;",
    "entities that are none": lambda key: "&abcdefghijk;",
    "ampersands": lambda key: "&amp;",
    "blanks": lambda key: " a",
    "letters": lambda key: "A",
    "digits": lambda key: "0",
    "escapes of several kinds": lambda key: "\\u0041%2541&amp;#43; ",
    "parts of the key": lambda key: f"{key[:13]}.",
    "half of the key again and again": lambda key: key[:-1],
    "the key in another case": str.upper,
    "the key behind a letter that is longer in lower case": lambda key: f"İ{key[:12]}",
    "the key, apart": lambda key: " ".join(key) + ".",
    "the key as escapes": escaped,
    "the key as escapes of escapes": lambda key: escaped(key, 4),
    "the key of a URL": lambda key: "".join(f"%{ord(c):02X}" for c in key),
    "the key in base64": lambda key: base64.b64encode(key[:14].encode()).decode().rstrip("=") + " ",
    "the key in base64 of base64": lambda key: base64.b64encode(base64.b64encode(key.encode())).decode() + " ",
    "the key in hexadecimal": lambda key: f"{key[:13].encode().hex()}.",
    "a long text in base64": lambda key: base64.b64encode(b"so much for that." * 500).decode().rstrip("="),
}  # fmt: skip


@pytest.mark.parametrize("how", HOSTILE)
def test_hiding_takes_little_time_whatever_the_text(how):
    key = LONG_KEY if "again" in how else KEY
    piece = HOSTILE[how](key)
    whole = piece * ((4 << 20) // len(piece))
    start = time.process_time()
    hidden = Redactor(key)(whole)
    assert time.process_time() - start < 5, "most take a second on an idle machine"
    assert ("***" in hidden) == ("key" in how)


def every_text(folder):
    """(where, text) of all that a run left behind: the bytes of every file, and what is packed inside of them."""
    for path in folder.rglob("*"):
        if path.is_dir():
            continue
        yield path, path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".parquet":
            yield path, json.dumps(pyarrow.parquet.read_table(path).to_pylist(), default=str, ensure_ascii=False)
        if path.suffix == ".sqlite":
            database = sqlite3.connect(path)
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                yield path, str(database.execute(f"SELECT * FROM {name}").fetchall())


def test_nothing_in_a_runs_folder_holds_the_key_after_a_server_echoed_it(serve, tmp_path):
    """In errors and in skills, in every form; what is told on the way too."""
    ways, lock, told = list(ECHOES.values()), threading.Lock(), []
    count = itertools.count()

    def fate(sent):
        with lock:
            number = next(count)
        form = ways[number // 2 % len(ways)]

        def made(key):
            if number % 2:
                return 401, {"WWW-Authenticate": key}, json.dumps({"error": "@"}).replace("@", form(key)).encode()
            skill = json.dumps(json.dumps({**GOOD, "success_analysis": f"way {number}: @"})).replace("@", form(key))
            return 200, {}, body.replace(json.dumps(WHOLE).encode(), skill.encode())

        return made

    server = serve(fate)
    settings = load_config("sokoban-smoke", [
        "env.train_tasks=4", "rollout.tasks_per_iteration=4", "rollout.group_size=8", "rollout.max_turns=4",
        "eval.panel_every=0", "trainer.iterations=1", "skills.summarizer=openai", "skills.per_visit=0",
        "skills.capacity=50", f"summarizer.base_url={server.url}", "summarizer.model=m",
        "summarizer.api_key_env=MY_KEY", "summarizer.max_retries=0",
    ])  # fmt: skip
    out = tmp_path / "run"
    train(settings, out, evaluate=False, listen=lambda kind, data: told.append(str(data)))
    write_report(out)
    texts = [("told", line) for line in told] + list(every_text(out))
    assert len(server.bodies) >= 2 * len(ways)
    assert any("way 2: " in found for _, found in texts)
    assert any("HTTP 401" in found for _, found in texts)
    for where, found in texts:
        weights = len(found) > 1 << 20
        assert KEY not in found if weights else not leaks(KEY, found), where
