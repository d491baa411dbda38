"""Whatever bytes a server answers with: a skill, or a SkillSDError of one printable line; the key in neither.

``SKILLSD_FUZZ=long`` looks for minutes, and elsewhere every time.
"""

import base64
import html
import json
import os
import textwrap
import urllib.parse

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fault_server import ECHOES, GOOD, escaped
from leaks import leaks
from skillsd.config import SummarizerConfig
from skillsd.errors import SkillSDError, reason
from skillsd.skills import Skill
from skillsd.skills.summarize.openai import OpenAISummarizer
from skillsd.skills.summarize.prompting import read_skill
from skillsd.skills.summarize.store import SummaryStore
from skillsd.system.redact import Redactor
from skillsd.system.terminal import printable
from skillsd.types import SummaryRequest, Task, Trajectory, Turn

KEY = "sk-very+secret/0123456789"
LONG = os.environ.get("SKILLSD_FUZZ") == "long"


def fuzz(examples):
    return settings(
        max_examples=examples * (20 if LONG else 1), derandomize=not LONG, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


#: Names and words that mean something to the reader, among those that do not.
NAMES = st.sampled_from([
    "choices", "message", "content", "error", "code", "status", "text", "type", "usage", "total_tokens", "refusal",
    "finish_reason", "reasoning_content", "reasoning", "tool_calls", "function", "arguments", "value", "detail",
    "object", *GOOD,
])  # fmt: skip
WORDS = st.sampled_from([
    "length", "stop", "text", "thinking", "error", "rate limit", "429", json.dumps(GOOD), json.dumps(GOOD)[:60],
    "```json\n", "<think>", "</think>", "[THINK]", "<|channel|>final", "\ud800", "\x1b[2J", "\u202e", "\x9b", "\0",
    "{", "}", '"', KEY, *(form(KEY) for form in ECHOES.values()),
])  # fmt: skip
ANYTHING = st.text(st.characters(exclude_categories=[]), max_size=20)
TEXTS = st.one_of(WORDS, ANYTHING, st.lists(WORDS, max_size=6).map("".join))
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([429, 500, 10**400, -1]), st.booleans(), st.none())
TREES = st.recursive(
    st.one_of(TEXTS, NUMBERS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, TEXTS), inner, max_size=4)),
    max_leaves=12,
)
MESSAGES = st.dictionaries(NAMES, TREES, max_size=4)
COMPLETIONS = st.builds(
    lambda content, message, choice, more: {"choices": [{"message": {**message, "content": content}, **choice}]} | more,
    TREES, MESSAGES, st.dictionaries(NAMES, TREES, max_size=2), st.dictionaries(NAMES, TREES, max_size=1),
)  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=200),
    st.one_of(TREES, COMPLETIONS).map(lambda tree: json.dumps(tree).encode()),
    COMPLETIONS.map(lambda tree: json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.builds(lambda tree, cut: json.dumps(tree).encode()[:cut], COMPLETIONS, st.integers(0, 300)),
)
HEADERS = st.dictionaries(st.sampled_from(["retry-after", "location"]), TEXTS, max_size=2)


@pytest.fixture
def asked(monkeypatch):
    """A summariser, and where its server's next answers are to be put."""
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setattr("skillsd.skills.summarize.endpoint.time.sleep", lambda seconds: None)
    made = OpenAISummarizer(
        SummarizerConfig(base_url="http://127.0.0.1:9/v1", model="m", api_key_env="MY_KEY", max_retries=1),
        SummaryStore(None),
    )
    answers = []

    async def exchange(body):
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(made.endpoint, "_exchange", exchange)
    return made, answers


def request(number):
    return SummaryRequest(Trajectory("t", 1, number, "push", [1], [number], turns=[Turn("up", "x", True)]), Task("t"))


def told(call):
    """The skill that ``call`` makes, or what its SkillSDError says; any other exception is a fault."""
    try:
        return call()
    except SkillSDError as error:
        return str(error)


STATUSES = st.sampled_from([200, 200, 200, 200, 400, 429, 500, 302])


@fuzz(400)
@given(st.lists(st.tuples(STATUSES, HEADERS, BODIES), min_size=1, max_size=3), st.integers())
def test_any_answer_of_a_server_is_a_skill_or_one_line(asked, answers, number):
    made, queue = asked
    queue[:] = answers
    found = told(lambda: made.summarize(request(number)))
    if isinstance(found, Skill):
        assert Skill.parse(found.model_dump_json()) == found
        assert KEY not in found.text()
    else:
        assert found == printable(found, lines=False)
        assert KEY not in found


@fuzz(400)
@given(st.lists(st.one_of(TEXTS, st.dictionaries(NAMES, TREES, max_size=4).map(json.dumps)), max_size=6), st.booleans())
def test_any_text_of_a_model_is_a_skill_or_one_line(parts, cut):
    found = told(lambda: read_skill("".join(parts), "a question", cut))
    if isinstance(found, Skill):
        assert Skill.parse(found.model_dump_json()) == found
    else:
        assert found == printable(found, lines=False)


@fuzz(500)
@given(TEXTS, st.booleans())
def test_what_is_shown_obeys_nothing_and_keeps_every_other_character(text, lines):
    shown = printable(text, lines)
    assert printable(shown, lines) == shown
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in shown)
    shown.encode()
    assert lines or "\n" not in reason(ValueError(text))
    if text.isprintable():
        assert shown == (text if lines else " ".join(text.split()))


NAMES_OF_MARKS = st.sampled_from(["think", "plan", "REASONING", "antThinking", "mull", "w_1", "seed:think", "attempt"])
FORMS_OF_MARKS = st.sampled_from(["<@>", "[@]", "<|@|>", "‹@›", "｜@｜", "&lt;@&gt;", '<@ n="1">', "◁@▷"])
DRAFT = dict.fromkeys(GOOD, "not sure yet")
WRAPPINGS = st.sampled_from([
    "@", "```json\n@\n```", "<answer>@</answer>", "Here it is: @", "\n\n@\nI hope this helps.",
    "<details>\n@\n</details>",
])  # fmt: skip
THOUGHTS = st.lists(
    st.sampled_from(["Hmm. ", "@", "```json\n@\n```", "Try @, or ", "<answer>@</answer>", "{", "\n"]), max_size=4
)
PLACES = st.sampled_from(["before", "after", "never"])


@fuzz(400)
@given(NAMES_OF_MARKS, FORMS_OF_MARKS, THOUGHTS, WRAPPINGS, PLACES, st.booleans())
def test_a_draft_is_never_taken_for_the_answer_whatever_mark_it_stands_in(name, form, words, wrapping, where, cut):
    begin, end = form.replace("@", name), form.replace("@", f"/{name}").replace(' n="1"', "")
    thought = begin + "".join(words).replace("@", json.dumps(DRAFT)) + end
    answer = wrapping.replace("@", json.dumps(GOOD))
    text = {"before": f"{answer}\n{thought}", "after": f"{thought}\n{answer}", "never": thought}[where]
    found = told(lambda: read_skill(text, cut=cut))
    if where == "after" and not cut:
        assert found == Skill(**GOOD)
    else:
        assert isinstance(found, str) or (found == Skill(**GOOD) and where != "never")


CODES = [
    lambda text: json.dumps(text)[1:-1], escaped, html.escape, lambda text: "".join(f"&#{ord(c)};" for c in text),
    urllib.parse.quote, lambda text: urllib.parse.quote(text, safe=""), lambda text: text.encode().hex(),
    lambda text: base64.b64encode(text.encode()).decode(), lambda text: base64.encodebytes(text.encode()).decode(),
    lambda text: base64.urlsafe_b64encode(text.encode()).decode(), lambda text: "\n".join(textwrap.wrap(text, 11)),
    str.strip,
]  # fmt: skip
KEYS = st.text("abcXYZ0189+/=_-.~:%&<>\"'\\", min_size=20, max_size=60).filter(lambda key: len(set(key)) > 8)


@fuzz(400)
@given(KEYS, st.lists(st.sampled_from(CODES), min_size=1, max_size=3), st.sampled_from(["", "x", "Bearer ", "user:"]))
def test_no_part_of_a_key_can_be_read_after_it_went_through_any_codes(key, codes, before):
    text = before + key
    for code in codes:
        text = code(text)
    hidden = Redactor(key)(f"You sent {text}!")
    assert not leaks(key, hidden), (text, hidden)
    assert hidden.startswith("You sent ")
    assert hidden.endswith("!")
