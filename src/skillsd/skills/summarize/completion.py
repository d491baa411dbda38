"""What servers send as a chat completion: one standard, and every server's own reading of it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: More tokens than one call can have: a server that tells of more, or of a negative number, cannot count.
MAX_USAGE = 10_000_000
#: ``finish_reason`` at the limit of tokens: OpenAI's, and those that gateways hand through.
_CUT = {"length", "max_tokens", "max_output_tokens", "model_length", "max_length"}
#: Where servers put what the model thought, apart from its answer.
_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_THOUGHT = re.compile("think|thought|reason|analysis", re.IGNORECASE)
#: Where servers say what is wrong, and words that say that nothing is.
_TOLD = ("error", "message", "detail", "msg")
_NOTHING = re.compile(
    r"\s*(?:0|200|none|null|nil|undefined|false|ok(?:ay)?|success\w*|no errors?)?\s*[.!]?", re.IGNORECASE
)
#: What errors without a number say, and what number they should have had.
_WORDS = {
    429: re.compile(r"rate.?limit|too many|exhausted|throttl", re.IGNORECASE),
    503: re.compile(r"overload|busy|capacity|unavailable|time.?out|timed out|loading|try again", re.IGNORECASE),
    500: re.compile(r"internal|server.?error", re.IGNORECASE),
}


@dataclass(frozen=True)
class Answer:
    """What the model wrote; ``cut``: it ran into the limit of tokens; ``refusal``: why it was asked with less."""

    text: str
    cut: bool
    refusal: Exception | None = None


class NoCompletion(Exception):
    """What a server sent instead of an answer. ``told``: an error, with its status (0: not told) as HTTP has it.
    ``empty``: a completion, with no words in it."""

    def __init__(
        self, text: str, told: bool = False, status: int = 0, passing: bool = False, empty: bool = False
    ) -> None:
        super().__init__(text)
        self.told, self.status, self.passing, self.empty = told, status, passing, empty


def parse(text: str) -> Any:
    """The JSON in ``text``, numbers beyond reason as infinity; ``text`` itself if it is none."""
    try:
        return json.loads(text, strict=False, parse_int=_integer)
    except (ValueError, RecursionError):
        return text


def body(text: str) -> Any:
    """What a server sent: JSON, or a stream that nobody asked for, put together; ``text`` itself if it is neither."""
    tree = parse(text)
    if not isinstance(tree, str):
        return tree
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    events = [parse(line.removeprefix("data:")) for line in lines if line.startswith(("data:", "{"))]
    parts = [event for event in events if isinstance(event, dict)]
    return _joined(parts, "stop" if "data: [DONE]" in lines else "length") if parts else tree


def _joined(events: list[dict[str, Any]], reason: str) -> Any:
    """One completion of a stream's events; one that tells of an error stands for all. ``reason``: how it seems to have
    finished, if it does not say so."""
    pieces, called, usage = defaultdict[str, list[Any]](list), list[str](), None
    for event in events:
        if _says(event.get("error")):
            return event
        usage = event.get("usage") or usage
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        reason = choice.get("finish_reason") or reason
        part = choice.get("delta") or choice.get("message")
        if isinstance(part, dict):
            called.append(_called(part))
            for name in part.keys() - {"role", "tool_calls", "function_call"}:
                pieces[name] += part[name] if isinstance(part[name], list) else [part[name]]
    if not (pieces or called):
        return events[-1]
    whole = {k: "".join(v) if all(isinstance(one, str) for one in v) else v for k, v in pieces.items()}
    message = {**whole, "function_call": {"arguments": "".join(called)}}
    return {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}


def _integer(digits: str) -> float:
    return int(digits) if len(digits) < 20 else float(digits)


def decode(data: bytes) -> str:
    """Text in UTF-8 or what else JSON may come in, less its byte order mark; replacement characters for wrong bytes."""
    return data.decode(json.detect_encoding(data), "replace").removeprefix("\ufeff")


def answer(tree: Any) -> Answer:
    """The model's words in a body with status 200. Raises :class:`NoCompletion` if it holds none, or an error."""
    failed = _failure(tree)
    if failed is not None:
        raise failed
    try:
        choice = tree["choices"][0]
        message = choice["message"] if "message" in choice else {"content": choice["text"]}  # text: of old servers
        reason = str(choice.get("finish_reason") or "").lower()
        content = message.get("content")
    except (LookupError, TypeError, AttributeError):
        raise NoCompletion(f"the server's answer is no chat completion: {_quote(tree)}", empty=tree == "") from None
    if reason == "error":
        raise NoCompletion("the server broke off its answer (finish_reason error)", True, 502, passing=True)
    text, cut = mend("\n".join(filter(str.strip, (_words(content), _called(message))))), reason in _CUT
    if not text.strip() and isinstance(message.get("parsed"), dict):
        text = mend(_dump(message["parsed"]))
    if not text.strip() and not cut:
        text = _whole_object(message)
    if text.strip():
        return Answer(text, cut)
    if cut:
        raise NoCompletion("the model spent summarizer.answer_tokens, on thinking perhaps, before it answered")
    if refusal := _refusal(message):
        raise NoCompletion(f"the model refused: {refusal}")
    why = "the server's content filter" if "filter" in reason else "a refusal, or only reasoning"
    raise NoCompletion(f"the model answered nothing ({why})", empty="filter" not in reason)


def tokens(tree: Any) -> int | None:
    """What the server says that the call took; None where it says nothing, or nothing that can be true."""
    usage = tree.get("usage") if isinstance(tree, dict) else None
    if not isinstance(usage, dict):
        return None
    for names in (["total_tokens"], ["prompt_tokens", "completion_tokens"]):
        numbers = [usage[name] for name in names if _countable(usage.get(name))]
        if len(numbers) == len(names):
            return int(sum(numbers))
    return None


def _countable(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 <= number <= MAX_USAGE


def complaint(tree: Any) -> str:
    """What a server says is wrong, in one of the shapes that servers use."""
    if isinstance(tree, list) and tree:
        tree = tree[0]
    for name in _TOLD:
        if isinstance(tree, dict) and tree.get(name):
            tree = tree[name]
    return tree if isinstance(tree, str) else _dump(tree)


def field(tree: Any) -> str:
    """The field of the request that a server's error is about, where that is said apart; else what it says."""
    found = []
    if isinstance(tree, dict):
        details = tree.get("detail")
        found = [tree["error"].get("param")] if isinstance(tree.get("error"), dict) else []
        found += [d.get("loc") for d in details if isinstance(d, dict)] if isinstance(details, list) else []
    return " ".join(_dump(name) for name in found if name) or complaint(tree)


def mend(text: str) -> str:
    """``text`` with halves of characters put together, or replaced where the other half is missing."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _failure(tree: Any) -> NoCompletion | None:
    """The error that gateways put into a body with status 200, beside the choices or in the first of them."""
    if isinstance(tree, list) and tree and isinstance(tree[0], dict) and "choices" not in tree[0]:
        tree = tree[0]
    if not isinstance(tree, dict):
        return None
    choices = tree.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    says = _says if choices else bool  # beside an answer, some gateways always put an error: an empty one, or "ok"
    error = next(filter(says, (tree.get("error"), first.get("error"))), None)
    if error is None:
        if choices or not (tree.get("object") == "error" or {"message", "detail", "msg"} & tree.keys()):
            return None
        error = tree
    said = " ".join(complaint(error).split())
    numbers = [*_codes(error), *_codes(tree), *(n for n, words in _WORDS.items() if words.search(_dump(error)))]
    status = next(filter(None, map(_status, numbers)), 0)
    return NoCompletion(f"an error instead of an answer: {said[:200]}", True, status, may_pass(status))


def _says(error: Any) -> bool:
    """Whether an error says anything, in its status or in words; what kind it is says nothing alone."""
    if isinstance(error, dict):
        told = [error[name] for name in _TOLD if name in error] or list(error.values())
        return any(map(_status, _codes(error))) or any(map(_says, told))
    if isinstance(error, list):
        return any(map(_says, error))
    return bool(error) and not _NOTHING.fullmatch(str(error))


def may_pass(status: int) -> bool:
    """Whether a call that ended with this status is worth another try."""
    return status in (408, 409, 425, 429) or (status >= 500 and status != 501)


def _codes(tree: Any) -> list[Any]:
    return [tree.get(name) for name in ("code", "status", "status_code")] if isinstance(tree, dict) else []


def _status(code: Any) -> int:
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    return code if isinstance(code, int) and 400 <= code < 600 else 0


def _words(content: Any) -> str:
    """The text of a message's content: a string, typed parts (of which thoughts are no answer), or an object."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(_words, content))
    if not isinstance(content, dict):
        return ""
    kind = str(content.get("type", ""))
    if _THOUGHT.search(kind) or kind == "refusal":
        return ""
    inner = next((content[name] for name in ("text", "content", "value") if name in content), None)
    return _dump(content) if inner is None else _words(inner)


def _called(message: Mapping[str, Any]) -> str:
    """Structured output that a gateway makes of a tool's call."""
    calls = message.get("tool_calls")
    functions = [c.get("function", c) for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
    named = [f for f in [*functions, message.get("function_call")] if isinstance(f, dict)]
    given = [f[name] for f in named for name in ("arguments", "args", "input", "parameters") if name in f]
    return "".join(text if isinstance(text, str) else _dump(text) for text in given)


def _whole_object(message: Mapping[str, Any]) -> str:
    """A reasoning field that is a JSON object and nothing else: a server's parser took the answer for a thought."""
    for name in _REASONING:
        found = message.get(name)
        parts = found if isinstance(found, list) else [found]
        texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
        text = mend("".join(text for text in texts if isinstance(text, str))).strip()
        fenced = re.fullmatch(r"```(?:json)?\s*(\{.*\})\s*```", text, re.DOTALL)
        text = fenced[1] if fenced else text
        if text.startswith("{") and isinstance(parse(text), dict):
            return text
    return ""


def _refusal(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    parts = [message, *content] if isinstance(content, list) else [message]
    said = [part["refusal"] for part in parts if isinstance(part, dict) and isinstance(part.get("refusal"), str)]
    return " ".join(" ".join(said).split())


def _dump(tree: Any) -> str:
    try:
        return json.dumps(tree)
    except RecursionError:
        return "(deeply nested JSON)"


def _quote(tree: Any) -> str:
    """The beginning of what came."""
    return json.dumps((tree if isinstance(tree, str) else _dump(tree))[:60])
