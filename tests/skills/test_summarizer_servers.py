"""The OpenAI-compatible summariser against what real servers and gateways send, and what the environment says."""

import codecs
import json
import os
import subprocess
import sys
import time

import pytest

from fault_server import GOOD, DripServer, error, message, request, said, summarizer, text
from skillsd.config import SummarizerConfig, VLLMConfig, load_config
from skillsd.errors import SkillSDError, UsageError
from skillsd.policy.engines.vllm import VLLMClient
from skillsd.skills import Skill
from skillsd.skills.summarize.openai import OpenAISummarizer
from skillsd.skills.summarize.store import SummaryStore

KEY = "sk-very+secret/0123456789"
SKILL, WHOLE = Skill(**GOOD), json.dumps(GOOD)
DRAFT = json.dumps(dict.fromkeys(GOOD, "not sure yet"))


thought = {"type": "thinking", "thinking": [text(DRAFT)]}
called = [{"id": "1", "type": "function", "function": {"name": "json_tool_call", "arguments": WHOLE}}]
status, headers, body = message(WHOLE)


def stream(words, called=False):
    """The answer in pieces, though nobody asked for that."""
    pieces = [words[i : i + 30] for i in range(0, len(words), 30)]
    parts = [{"tool_calls": [{"index": 0, "function": {"arguments": p}}]} if called else {"content": p} for p in pieces]
    deltas = [{"choices": [{"delta": part, "finish_reason": None}]} for part in [{"role": "assistant"}, *parts]]
    last = [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": {"total_tokens": 7}}]
    lines = [
        ": keep-alive",
        *(f"data: {json.dumps(event, ensure_ascii=False)}" for event in [*deltas, *last]),
        "data: [DONE]",
    ]
    return "\n\n".join(lines).encode()


FORMS = {
    "a text part behind a thinking part": message([thought, text(WHOLE)]),
    "a thought as a part of its own kind": message([text(DRAFT, "reasoning_text"), text(WHOLE, "output_text")]),
    "the text in two parts": message([text(WHOLE[:50]), text(WHOLE[50:])]),
    "parts that are strings": message([WHOLE[:50], WHOLE[50:]]),
    "a part with its text in a value": message([{"type": "text", "text": {"value": WHOLE, "annotations": []}}]),
    "one part that is no list": message(text(WHOLE)),
    "an object": message(GOOD),
    "a tool's call": message(None, "tool_calls", tool_calls=called),
    "a tool's call with an object": message("", tool_calls=[{"function": {"name": "x", "arguments": GOOD}}]),
    "an old function's call": message(None, function_call={"name": "x", "arguments": WHOLE}),
    "all of it in reasoning_content": message(None, reasoning_content=WHOLE),
    "all of it in reasoning, fenced": message("", reasoning=f"```json\n{WHOLE}\n```"),
    "all of it in reasoning_details": message(" \n", reasoning_details=[text(WHOLE, "reasoning.text")]),
    "a draft in reasoning_content and an answer": message(WHOLE, reasoning_content=DRAFT),
    "an empty error beside the choices": said({**json.loads(body), "error": None}),
    "a byte order mark": (200, {}, codecs.BOM_UTF8 + body),
    "a byte order mark inside": message(f"\ufeff{WHOLE}"),
    "UTF-16": (200, {}, body.decode().encode("utf-16")),
    "an error beside the choices that says nothing": said({**json.loads(body), "error": {"message": "", "code": None}}),
    "an error beside the choices that is none": said({**json.loads(body), "error": {"message": "success", "code": 0}}),
    "another status of success": (201, headers, body),
    "server-sent events": (200, {}, stream(WHOLE)),
    "server-sent events of a server that ends them otherwise": (200, {}, stream(WHOLE).rpartition(b"\n\ndata:")[0]),
    "lines of JSON": (200, {}, stream(WHOLE).replace(b"data: ", b"").replace(b"\n\n", b"\n")),
    "an event with parts": (200, {}, b"data:" + said({"choices": [{"delta": {"content": [text(WHOLE)]}}]})[2]),
    "server-sent events of a tool's call": (200, {}, stream(WHOLE, called=True)),
    "words beside a tool's call": message("I call it.", "tool_calls", tool_calls=called),
    "a thought beside a tool's call": message(f"<think>{DRAFT}</think>", "tool_calls", tool_calls=called),
    "a tool's call without a function": message(None, tool_calls=[{"name": "x", "arguments": WHOLE}]),
    "a tool's call with an input": message(None, tool_calls=[{"name": "x", "input": GOOD}]),
    "a tool's call in a channel": message(f"<|channel|>commentary to=functions.x <|constrain|>json<|message|>{WHOLE}"),
    "what the server has parsed": message(None, parsed=GOOD),
    "a text, as of old": said({"choices": [{"text": WHOLE, "finish_reason": "stop"}]}),
    "blank content beside a tool's call": message(" \n", "tool_calls", tool_calls=called),
    "a tag of its own": message(f"<lesson>\n{WHOLE}\n</lesson>"),
    "a special token": message(f"<|python_tag|>{WHOLE}"),
    "a channel": message(f"<|channel|>analysis<|message|>{DRAFT}<|end|><|channel|>final<|message|>{WHOLE}"),
    "words around it": message(f"Here is the JSON:\n\n{WHOLE}\n\nI hope that helps."),
    "white space before it": (200, {}, b"\n \n \r\n" + body),
    "a raw line break in a string": (200, {}, body.replace(b"Push the box", b"Push\nthe box").replace(b"\n", b" ")),
    "a raw tab in a string": (200, {}, body.replace(b'"assistant"', b'"assis\ttant"')),
    "text after the object at the limit": message(WHOLE + "\n \n", "length"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_is_found_in_whatever_form_it_comes(serve, form):
    server = serve(FORMS[form])
    assert summarizer(server).summarize(request()) == SKILL
    assert len(server.bodies) == 1


EMPTY = ["", " ", "none", "undefined", "No error.", False, 0, {}, [], [{"message": ""}], {"message": " ", "code": -1},
         {"code": 200, "message": "OK"}, {"message": "", "type": "invalid_request_error", "param": None, "code": None},
         {"code": "0", "msg": "SUCCESS"}]  # fmt: skip


@pytest.mark.parametrize("nothing", EMPTY, ids=range(len(EMPTY)))
def test_an_error_that_says_nothing_costs_no_answer(serve, nothing):
    server = serve(said({**json.loads(body), "error": nothing}))
    assert summarizer(server).summarize(request()) == SKILL
    assert len(server.bodies) == 1


def test_what_ends_lines_of_text_ends_no_event_of_a_stream(serve):
    odd = "Up\u2028and\x85on."
    sent = stream(json.dumps({**GOOD, "success_analysis": odd}, ensure_ascii=False))
    assert summarizer(serve((200, {}, sent))).summarize(request()).success_analysis == odd


def test_a_stream_that_breaks_off_is_no_whole_answer(serve):
    events = stream(f"First draft: {DRAFT}\nBetter: {WHOLE}").split(b"\n\n")
    server = serve((200, {}, b"\n\n".join(events[:-8])), message(WHOLE))
    assert summarizer(server).summarize(request()) == SKILL
    assert len(server.bodies) == 2


def test_a_stream_of_many_small_pieces_takes_no_time(serve):
    event = json.dumps({"choices": [{"delta": {"content": "x" * 20}}]}).encode()
    start = time.process_time()
    with pytest.raises(SkillSDError, match=r"has [0-9]+ characters"):
        summarizer(serve((200, {}, (b"data: " + event + b"\n\n") * 40_000)), json_schema=False).summarize(request())
    assert time.process_time() - start < 8, "two of them are read"


def test_a_models_own_line_of_data_is_no_stream(serve):
    assert summarizer(serve(message(f"data: what I saw\n{WHOLE}"))).summarize(request()) == SKILL


USAGE = ['{"total_tokens": NaN}', '{"total_tokens": Infinity}', '{"total_tokens": 1e400}', '{"total_tokens": -5}',
         f'{{"total_tokens": {"9" * 30}}}', f'{{"total_tokens": {"9" * 10_000}}}', '{"total_tokens": "100"}',
         '{"total_tokens": true}', '{"total_tokens": null}', '{"total_tokens": [1]}', '"many"', "[7]", "null", "{}",
         '{"prompt_tokens": -1, "completion_tokens": 3}']  # fmt: skip


@pytest.mark.parametrize("usage", USAGE, ids=range(len(USAGE)))
def test_a_server_that_cannot_count_costs_no_answer_and_no_budget(serve, usage):
    broken = body.replace(b'{"total_tokens": 100}', usage.encode())
    assert broken != body
    asked = summarizer(serve((200, {}, broken)), max_tokens=10**6)
    for number in range(2):
        assert asked.summarize(request(number)) == SKILL
    assert 200 < asked.drain()[0]["summarizer_tokens"] < 10_000  # 4 characters are about a token


def test_parts_of_the_usage_are_added_where_there_is_no_total(serve):
    usage = b'{"prompt_tokens": 30.0, "completion_tokens": 12}'
    asked = summarizer(serve((200, {}, body.replace(b'{"total_tokens": 100}', usage))))
    asked.summarize(request())
    assert asked.drain()[0]["summarizer_tokens"] == 42


PASSING = {
    "a number": said(error("Rate limit exceeded", 429)),
    "a number as text": said(error("slow down", "429")),
    "in the first choice": said({"choices": [{"message": {"content": DRAFT}, **error("x", 502)}]}),
    "a reason to finish": message(DRAFT, "error"),
    "a name": said(error("Too many requests", "rate_limit_exceeded")),
    "a string": said({"error": "model is loading, try again"}),
    "without an error's name": said({"object": "error", "message": "slow down", "code": 429}),
    "a message alone": said({"status": 503, "message": "no worker"}),
    "in a list": said([error("quota", 429)]),
    "HTTP, and a page in another alphabet": (502, {}, b"<html>\xfcberlastet</html>"),
}  # fmt: skip


@pytest.mark.parametrize("how", PASSING)
def test_an_error_in_the_body_is_tried_again_as_its_status_would_be(serve, how):
    server = serve(PASSING[how], message(WHOLE))
    assert summarizer(server).summarize(request()) == SKILL
    assert len(server.bodies) == 2


LASTING = {  # what is sent, what is said of it
    "no credit": (said(error("Insufficient credits", 402)), "an error instead of an answer: Insufficient credits", 1),
    "a page": ((200, {}, b"<html><body>\x1b[2Jlog in</body></html>"), "no chat completion.*html", 1),
    "no choice": (said({"choices": [], "usage": {}}), "no chat completion", 1),
    "null choices": (said({"choices": None}), "no chat completion", 1),
    "a choice that is a number": (said({"choices": [7]}), "no chat completion", 1),
    "a message that is a string": (said({"choices": [{"message": "hello"}]}), "no chat completion", 1),
    "a list": (said([1, 2]), "no chat completion", 1),
    "null": (said(None), "no chat completion", 1),
    "nothing": ((200, {}, b""), "no chat completion", 2),
    "a refusal": (message(None, refusal="I will\nnot."), "the model refused: I will not.", 1),
    "a refusal in a part": (message([{"type": "refusal", "refusal": "No."}]), "the model refused: No.", 1),
    "a filter": (message("", "content_filter"), "content filter", 1),
    "a thought alone": (message(None, reasoning_content=f"Perhaps {DRAFT} but"), "only reasoning", 2),
    "a thinking part alone": (message([thought]), "only reasoning", 2),
    "a thought up to the limit": (message(None, "length", reasoning_content="hm"), "summarizer.answer_tokens", 1),
    "a draft up to the limit": (message("", "max_tokens", reasoning=DRAFT), "summarizer.answer_tokens", 1),
    "a cut-off thought": (message(f"<think>Perhaps {DRAFT}", "length"), "cut off at summarizer.answer_tokens", 2),
    "a cut-off thought without marks": (message(f"Perhaps {DRAFT} but", "length"), "cut off at summarizer.answer", 2),
}


@pytest.mark.parametrize("what", LASTING)
def test_what_is_no_answer_is_told_in_one_printable_line(serve, what):
    sent, told, calls = LASTING[what]
    server = serve(sent)
    with pytest.raises(SkillSDError, match=told) as caught:
        summarizer(server).summarize(request())
    assert str(caught.value).isprintable()
    assert len(server.bodies) == calls


def test_halves_of_characters_are_put_together_or_replaced_and_cost_no_second_ask(serve):
    broken = WHOLE.replace("Push", "\\ud83d\\ude42 \\ud800 Push", 1)
    for content in (broken, broken.encode().decode("unicode_escape")):
        server = serve(message(content))
        found = summarizer(server).summarize(request())
        assert found.success_analysis.startswith("🙂 \ufffd Push")
        assert len(server.bodies) == 1


def test_a_tag_without_meaning_is_trusted_once_the_object_alone_was_asked_for(serve):
    server = serve(message(f"<Task>\n{WHOLE}\n</Task>"))
    assert summarizer(server).summarize(request()) == SKILL
    assert len(server.bodies) == 2


def test_a_draft_behind_a_label_for_thoughts_is_no_answer(serve):
    for words in (f"Thought: {DRAFT}", f"Let me think about it: {DRAFT}", f"My reasoning:\n{DRAFT}"):
        for finish in ("stop", "length"):
            with pytest.raises(SkillSDError):
                summarizer(serve(message(words, finish))).summarize(request())
        assert summarizer(serve(message(f"{words}\nFinal answer: {WHOLE}"))).summarize(request()) == SKILL


STARTED = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "nothing but a connection": (b"", b""),
    "the status": (b"HTTP/1.1 200 O", b"K"),
    "headers": (STARTED, b"X-#: y\r\n"),
    "one endless header": (STARTED + b"X-A: ", b"a"),
    "provisional answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "chunks": (STARTED + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "extensions of a chunk": (STARTED + b"Transfer-Encoding: chunked\r\n\r\n1", b";a=b"),
    "the body": (STARTED + b"Content-Length: 100000\r\n\r\n", b" "),
}


@pytest.mark.parametrize("what", DRIPS)
def test_the_deadline_holds_for_the_whole_exchange_however_it_drips(serve, what):
    server = serve(*DRIPS[what], kind=DripServer)
    start = time.monotonic()
    with pytest.raises(SkillSDError, match=r"within 0\.4 s"):
        summarizer(server, timeout=0.4, max_retries=0).summarize(request())
    assert time.monotonic() - start < 5
    assert what == "nothing but a connection" or server.lost.wait(5), "the connection is given up too"


def openai(url):
    return OpenAISummarizer(SummarizerConfig(base_url=url, model="m"), SummaryStore(None))


def vllm(url):
    return VLLMClient(VLLMConfig(url=url, folder="x") if url else VLLMConfig(), url or "/tmp/socket", 1)


LOOPBACK, FAR, FAR_PLAIN = "http://127.0.0.1:9/v1", "https://llm.example/v1", "http://llm.example/v1"
ENVIRONMENTS = [  # what the environment says, the client, its server, what is said of it
    ({"ALL_PROXY": "socks5://127.0.0.1:1080"}, openai, LOOPBACK, "made"),
    ({"all_proxy": "socks5h://u:p@h:1"}, openai, "http://localhost:9/v1", "made"),
    ({"HTTP_PROXY": "http://127.0.0.1:x"}, openai, "http://[::1]:9/v1", "made"),
    ({"ALL_PROXY": "socks5://127.0.0.1:1080"}, openai, FAR, r"ALL_PROXY\) cannot be used.*pip install 'httpx2\[socks"),
    ({"HTTPS_PROXY": "socks4://u:secret@h:1"}, openai, FAR, "HTTPS_PROXY.*correct or unset it"),
    ({"http_proxy": "http://h:port"}, openai, FAR_PLAIN, "http_proxy.*correct or unset it"),
    ({"ALL_PROXY": "socks5://h:1", "NO_PROXY": "llm.example"}, openai, FAR, "made"),
    ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, openai, LOOPBACK, "made"),
    ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, openai, FAR_PLAIN, "made"),
    ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, openai, FAR, "there is no /nowhere/ca.pem.*unset SSL_CERT_FILE"),
    ({"SSL_CERT_FILE": __file__}, openai, FAR, "cannot be read.*unset SSL_CERT_FILE"),
    ({"SSL_CERT_DIR": "/nowhere/certs"}, openai, FAR, "there is no /nowhere/certs.*unset SSL_CERT_DIR"),
    ({"REQUESTS_CA_BUNDLE": "/nowhere/ca.pem"}, openai, FAR, "made"),
    ({"ALL_PROXY": "socks5://h:1", "SSL_CERT_FILE": "/nowhere"}, vllm, LOOPBACK, "made"),
    ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, vllm, FAR, "unset SSL_CERT_FILE"),
    ({"ALL_PROXY": "socks5://h:1", "SSL_CERT_FILE": "/nowhere"}, vllm, "", "made"),
]


@pytest.mark.parametrize(("variables", "client", "url", "told"), ENVIRONMENTS, ids=range(len(ENVIRONMENTS)))
def test_a_proxy_or_a_certificate_that_is_gone_is_told_in_a_line_where_it_matters(
    variables, client, url, told, monkeypatch
):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        for spelt in (name, name.lower()):
            monkeypatch.delenv(spelt, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if told == "made":
        client(url)
    else:
        with pytest.raises(UsageError, match=told) as caught:
            client(url)
        assert str(caught.value).isprintable()
        assert "secret" not in str(caught.value)


def test_a_run_says_so_before_any_work(tmp_path):
    env = {**os.environ, "ALL_PROXY": "socks5://127.0.0.1:1080", "NO_PROXY": "", "no_proxy": ""}
    command = [sys.executable, "-m", "skillsd", "train", "sokoban-smoke", "--out", str(tmp_path / "run")]
    command += ["--set", "skills.summarizer=openai", "--set", "summarizer.model=m"]
    command += ["--set", "summarizer.base_url=https://llm.example/v1"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "httpx2[socks]" in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("extra", ["{x = nan}", "{x = [{y = 2026-01-01}]}"])
def test_what_cannot_be_sent_is_refused_at_the_start(extra):
    with pytest.raises(UsageError, match=r"summarizer\.extra: goes to a server as JSON"):
        load_config("sokoban-smoke", [f"summarizer.extra={extra}"])
