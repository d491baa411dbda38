"""What of a request a server refuses, or dies of, is left out of the next try."""

import json

import pytest

from fault_server import GOOD, error, message, request, said, summarizer
from skillsd.errors import SkillSDError
from skillsd.skills import Skill

KEY = "sk-very+secret/0123456789"
SKILL, WHOLE = Skill(**GOOD), json.dumps(GOOD)


def structured(refusal):
    return lambda sent: refusal if "response_format" in sent else message(WHOLE)


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize(
    "refusal",
    [*((status, {}, b"no grammar") for status in (400, 404, 422, 500, 501, 502)),
     said(error("grammar", 500)), said({"error": "json_schema: unsupported"})],
)  # fmt: skip
def test_structured_output_that_a_server_chokes_on_is_asked_once_without(serve, refusal, retries):
    server = serve(structured(refusal))
    asked = summarizer(server, max_retries=retries)
    assert asked.summarize(request()) == SKILL
    assert ["response_format" in sent for sent in server.bodies] == [True, False]
    for number in (1, 2, 3):
        assert asked.summarize(request(number)) == SKILL
    assert sum("response_format" in sent for sent in server.bodies) <= 2, "it is clear by now"
    assert len(asked.drain()[1]) == 1


@pytest.mark.parametrize("how", ["closes", "silent", "empty", (503, {}, b"busy"), (504, {}, b"slow"), "nothing"])
def test_structured_output_that_a_server_dies_of_is_left_out_of_the_next_try(serve, how):
    how = {"empty": (200, {}, b""), "nothing": message("")}.get(how, how) if isinstance(how, str) else how
    server = serve(structured(how))
    asked = summarizer(server, timeout=0.5)
    for number in range(4):
        assert asked.summarize(request(number)) == SKILL
    assert ["response_format" in sent for sent in server.bodies[:2]] == [True, False]
    assert sum("response_format" in sent for sent in server.bodies) <= 2, "it is clear by now"


REFUSED = {
    "max_tokens": ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                   "instead.", "max_completion_tokens is sent in its place"),
    "temperature": ("temperature does not support 0.2 with this model. Only the default (1) is supported.", "left out"),
    "seed": ("Unrecognized request argument supplied: seed", "left out"),
}  # fmt: skip


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_a_server_refuses_by_its_name_is_left_out_from_then_on(serve, name, status):
    complaint, told = REFUSED[name]
    server = serve(lambda sent: said(error(complaint), status) if name in sent else message(WHOLE))
    asked = summarizer(server, max_retries=0, temperature=0.2, extra={"seed": 3})
    for number in range(3):
        assert asked.summarize(request(number)) == SKILL
    assert [name in sent for sent in server.bodies] == [True, False, False, False]
    assert all("response_format" in sent for sent in server.bodies)
    assert ("max_completion_tokens" in server.bodies[-1]) == (name == "max_tokens")
    (note,) = asked.drain()[1]
    assert f"refuses {name}" in note
    assert told in note


@pytest.mark.parametrize("refusal", [
    error(f"{'Sorry. ' * 60} It is for seed that I say no."),
    {"error": {"message": "no", "param": "seed", "type": "invalid_request_error"}},
    {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Not permitted", "input": 3}]},
])  # fmt: skip
def test_a_refused_setting_is_found_wherever_the_server_names_it(serve, refusal):
    server = serve(lambda sent: said(refusal, 400) if "seed" in sent else message(WHOLE))
    assert summarizer(server, temperature=0.2, extra={"seed": 3}).summarize(request()) == SKILL
    assert "temperature" in server.bodies[-1]


def test_a_server_that_refuses_both_names_of_a_limit_is_told_of(serve):
    server = serve(lambda sent: said(error("max_tokens, max_completion_tokens: too large"), 400))
    with pytest.raises(SkillSDError, match="HTTP 400: max_tokens, max_completion_tokens: too large"):
        summarizer(server, max_retries=0).summarize(request())


def test_one_bad_moment_does_not_end_structured_output(serve):
    server = serve("broken", "good", "good", "broken", "good", "good")
    asked = summarizer(server)
    for number in range(4):
        assert asked.summarize(request(number)) == SKILL
    assert ["response_format" in sent for sent in server.bodies] == [True, False, True, True, False, True]
    assert asked.drain()[1] == []
