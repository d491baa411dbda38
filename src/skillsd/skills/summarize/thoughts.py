"""Where in a model's message the answer is: JSON objects outside of its thoughts, in whatever marks those stand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_LEFT = r"(?:[<＜‹«〈《⟨◁【\[｜]|&(?:amp;)*lt;)"
_RIGHT = r"(?:[|｜]?(?:[>＞›»〉》⟩▷】\]]|&(?:amp;)*gt;)|｜)"
#: A brace (of JSON in a string too), or a mark: ``<think>``, ``</plan>``, ``<|begin_of_thought|>``, ``[THINK]``,
#: ``◁think▷``, fences with a name, roles and channels (also without their special tokens).
_MARK = re.compile(
    rf"""(?P<brace>(?:(?<!\\)"(?=\{{(?:\s|\\+[nrt])*\\))?\{{(?=(?:\s|\\+[nrt])*(?:\\*"|\}})))
    | (?P<ends><channel\|>|assistantfinal)
    | <\|?(?P<part>channel|im_start|start_of_turn)\|?>\s*(?P<role>\w+)(?P<to>\s+to=)?
    | (?P<begins>\A(?-i:analysis(?=[A-Z]|<\|)))
    | (?:```|~~~)(?P<fence>\w*)
    | (?P<left>{_LEFT}[|｜]?)(?P<slash>/?)(?P<name>[^\W\d][\w:.▁-]*)
      (?P<more>(?:[\s=][^<>◁▷{{}}\[\]]{{0,80}})?){_RIGHT}(?P<title>\s*<summary>[^<>{{}}]{{0,80}})?
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: What names thoughts, so that they need no end to be some; what names answers, or only how text is laid out.
_THOUGHT = re.compile(
    r"think|thought|reason|reflect|analy|scratch|rational|monolog|deliberat|ponder|draft|brainstorm|inner|unused9[45]"
    r"|(?<![a-z])plan|(?<![a-z])cot(?![a-z])",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"answer|output|final|json|result|lesson|advice|insight|takeaway|response|reply|skill|solution|summary|chosen|preferred|accepted|best|improved"
    r"|corrected|assistant|model",
    re.IGNORECASE,
)
_LAYOUT = re.compile(
    r"(?:message|text|content|data|tool|python|tag|function|call|box|turn|im|header|id|sentence|document|s|bos|eos|eot|pad|unk|endoftext"
    r"|details|pre|code|div|p|span|b|i|em|strong|br|hr|[uo]l|li|table|t[rdh]|h[1-6]|a|html|body|section|article|root|xml)s?",
    re.IGNORECASE,
)
_REJECTED = re.compile(
    r"think|thought|reason|draft|scratch|reject"
    r"|(?<![a-z])(?:bad|wrong|worse|worst|poor|weak|incorrect|invalid|previous|old|before|initial|negative|counter)",
    re.IGNORECASE,
)
#: A clause that introduces what is no answer: "A bad answer would be", "First draft", "Not like this".
_NOT_THIS = re.compile(
    r"""\W*(?:(?:an?|the|my|this|that|these|here|is|are|was|would|be|for|example|instance|but|and|as|of|one|some|what
      |an?other|first|second|how)\W+)*
      (?:bad|wrong|worse|worst|poor|weak|incorrect|invalid|previous|rejected|draft|rough|counter|not|don.?t|do\ not
      |never|instead|avoid)\b""",
    re.VERBOSE | re.IGNORECASE,
)
#: All of a clause that introduces a thought.
_THINKING = re.compile(
    r"""\W*(?:(?:my|the|a|first|inner|private|internal|chain\ of|step\ \d+|initial)\W+)*
      (?:(?:thoughts?|thinking|reasoning|reflections?|scratch\W?pad|monologue)(?:\ process)?
      |let(?:'s|\ me|\ us)\ think(?:[^\w:][^:]*)?)\W*""",
    re.VERBOSE | re.IGNORECASE,
)
#: Begins a line that is headed as a thought, or as an answer.
_HEAD = re.compile(
    rf"""^[^\w\n]*(?:\w+\ ){{0,3}}(?:(?P<thought>thoughts?|think|thinking|reasoning|reflections?|analysis
      |scratch\W?pad|plan|monologue)|{_ANSWER.pattern})\b[\w\ ]{{0,20}}[^\w\n]{{0,4}}:""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
#: Behind a mark that a sentence only speaks of.
_SPOKEN_OF = re.compile(rf" (?:tag|mark|marker|token)s?\b|\s*(?:and|or|\.\.+|…|/|,)\s*[\"'`]?{_LEFT}", re.IGNORECASE)
#: What may stand around an answer without being words: fences, tags, special tokens.
_WRAPPING = re.compile(r"```\w*|<[^<>]*>")
_TRAILING = re.compile(r",\s*[}\]]")
#: Trailing commas that are taken away, at most.
_COMMAS = 20


@dataclass(frozen=True)
class Found:
    """A JSON object at ``text[start:end]``; ``since`` is where the last thought before it ended; ``rejected``: the
    words before it say that it is no answer."""

    tree: dict[str, Any]
    start: int
    end: int
    since: int
    rejected: bool

    def finished(self, text: str) -> bool:
        """Whether it is no draft even if ``text`` was cut off: nothing follows it, or nothing came before it and no
        other attempt is announced after it."""
        after = text[self.end :]
        announced = after.partition("{")[0] if "{" in after else ""
        return not _wordy(after) or not (_wordy(text[self.since : self.start]) or _wordy(announced))


@dataclass(frozen=True)
class _Mark:
    """Where thoughts of a ``kind`` may begin or end. ``named``: by a word for thoughts; ``plain``: by one for answers,
    or for layout."""

    kind: str
    ends: bool
    named: bool = False
    plain: bool = False


def objects(text: str, cut: bool = False, trusting: bool = False) -> list[Found] | None:
    """The whole JSON objects outside of thoughts, in order; None where a thought never ends.

    What stands between any mark and its end is a thought, unless the mark's name is one for answers or layout. Without
    an end: behind a name for thoughts, a mark that begins a line or sentence, or any mark if the text was ``cut``. An
    end without a beginning ends a thought too: chat templates begin it in the prompt. If one is ``trusting``, only
    names for thoughts make one. In a text that was ``cut``, a line that heads a thought ("Reasoning: ...") begins one,
    up to a line that heads an answer.
    """
    found: list[Found] = []
    thought, hidden, headed, at, since, commas = "", False, False, 0, 0, _COMMAS
    closed = {mark.kind: match.start() for match in _MARK.finditer(text) if (mark := _mark(match, text)) and mark.ends}
    last = text.rfind("{")
    while match := _MARK.search(text, at):
        at = match.end()
        if match["brace"]:
            hidden = True
            if thought:
                continue
            before = max(since, found[-1].end if found else 0)
            try:
                text, tree, at, commas = _decoded(text, match, commas)
            except RecursionError:  # thousands of braces in each other: nothing that was meant as an answer
                return []
            if tree is not None:
                clause = _clause(text[before : match.start()])
                for head in _HEAD.finditer(text, before, match.start()):
                    headed = bool(head["thought"])
                rejected = bool(_NOT_THIS.match(clause) or _THINKING.fullmatch(clause)) or (cut and headed)
                found.append(Found(tree, match.start(), at, since, rejected))
        elif (mark := _mark(match, text)) is None:
            continue
        elif mark.ends:
            if thought == mark.kind:
                thought, headed, since = "", False, at
            elif not thought and not mark.plain and not (trusting and not mark.named):
                found, headed, since = [], False, at
        elif not thought and not mark.plain:
            opens = match["left"] in ("<", "<|") and (cut or _begins_a_sentence(text, match.start()))
            if mark.named or (not trusting and (closed.get(mark.kind, 0) >= at or (opens and at <= last))):
                thought, hidden = mark.kind, False
    if thought and (hidden or not found or not found[-1].finished(text)):
        return None
    return found


def holders(tree: Any, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The objects with all ``fields`` in ``tree``, itself or whatever it holds, also as JSON in a string; not under a
    key for thoughts or rejected answers, and under keys for answers last."""
    todo = [tree]
    while todo:
        tree = todo.pop()
        if isinstance(tree, dict):
            if all(name in tree for name in fields):
                yield tree
            else:
                inner = sorted(tree.items(), key=lambda item: bool(_ANSWER.search(item[0])))
                todo += [value for key, value in reversed(inner) if not _REJECTED.search(key)]
        elif isinstance(tree, list):
            todo += reversed(tree)
        elif isinstance(tree, str) and tree.lstrip()[:1] in ("{", '"'):
            try:
                todo.append(json.loads(tree, strict=False))
            except (ValueError, RecursionError):
                continue


def _decoded(text: str, match: re.Match[str], commas: int) -> tuple[str, dict[str, Any] | None, int, int]:
    """The object that begins at a brace, or in a string there; with it the text without its trailing commas."""
    decoder, start = json.JSONDecoder(strict=False), match.start()
    if match["brace"].startswith('"'):
        try:
            inner, end = decoder.raw_decode(text, start)
            tree = json.loads(inner, strict=False)
            if isinstance(tree, dict):
                return text, tree, end, commas
        except ValueError:
            pass
        start += 1
    while True:
        try:
            tree, end = decoder.raw_decode(text, start)
            return text, tree, end, commas
        except json.JSONDecodeError as error:
            near = error.pos + text.startswith(",", error.pos)
            comma = text.rfind(",", max(0, near - 80), near)
            if not commas or not _TRAILING.match(text, max(0, comma)):
                return text, None, match.end(), commas
            text, commas = f"{text[:comma]} {text[comma + 1 :]}", commas - 1


def _mark(match: re.Match[str], text: str) -> _Mark | None:
    """What a mark means; None for a brace, and for what a sentence only speaks of."""
    if match["brace"]:
        return None
    if match["begins"] or match["ends"]:
        return _Mark("channel", bool(match["ends"]), True)
    if (fence := match["fence"]) is not None:
        thinks = bool(_THOUGHT.search(fence))
        return _Mark("fence", not fence, thinks, plain=not thinks)
    if role := match["role"]:
        answers = bool(match["to"] or _ANSWER.search(role)) and not _THOUGHT.search(role)  # to: a tool is called
        channel = match["part"].lower() == "channel"
        return _Mark("channel" if channel else _stem(match["part"]), answers, True, plain=answers and not channel)
    start, end = match.span()
    around = text[start - 1 : start] + text[end : end + 1]
    spoken_of = _SPOKEN_OF.match(text, end) and not _begins_a_sentence(text, start)
    if spoken_of or around in ('""', "''", "``") or around.endswith("("):
        return None
    name = match["name"]
    named = _THOUGHT.search(name)
    kind = named[0][:5].lower() if named else _stem(name)
    ends = bool(match["slash"]) or bool(re.search(r"(?:^|[_▁])(?:end|stop|suffix)(?:[_▁]|$)|^unused95$", name, re.I))
    if named or _THOUGHT.search(match["more"] + (match["title"] or "")):
        return _Mark(kind, ends, True)
    plain = _ANSWER.search(name) or any(map(_LAYOUT.fullmatch, re.split(r"[_:.▁-]", name)))
    return _Mark(kind, ends, plain=bool(plain) or (ends and not match["slash"]))


def _begins_a_sentence(text: str, at: int) -> bool:
    return text[max(0, at - 9) : at].rstrip(" \t")[-1:] in ("", *"\n.!?:>]}")


def _stem(name: str) -> str:
    """The name of a mark without what says that it begins or ends something."""
    return re.sub(r"(?:^|[_▁])(?:begin|start|prefix|end|stop|suffix|of)(?=[_▁]|$)", "", name.lower()).strip("_▁")


def _clause(text: str) -> str:
    """The words that lead over to what follows ``text``."""
    lines = [line for line in _WRAPPING.sub("\n", text).splitlines() if re.search(r"\w", line)]
    return re.split(r"[.!?;,—]\s|[{}]", lines[-1].rstrip(" :;,.!-—"))[-1] if lines else ""


def _wordy(text: str) -> bool:
    return bool(re.search(r"\w", _WRAPPING.sub("", text)))
