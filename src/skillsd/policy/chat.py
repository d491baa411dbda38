"""Messages to token ids, one piece at a time: what was once encoded is never encoded again."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from skillsd.errors import SkillSDError, one_line, reason, shown
from skillsd.policy.text import PlainText

# Unlikely in any template, and plain enough for every tokenizer.
_FIRST, _ANSWER, _NEXT = "\u2402first\u2402", "\u2402answer\u2402", "\u2402next\u2402"
_THOUGHT = f"<think>\nhm\n</think>\n\n{_ANSWER}"
#: Messages whose rendering is remembered: environments say the same things again and again.
_REMEMBERED = 4096
#: Texts in a template that are tried as marks of reasoning; and what is in none.
_MARKS = 500
_JINJA = re.compile(r"[{}][{}%]|%}|\n")


class _Frame(NamedTuple):
    """The template's own text around one message.

    ``before`` and ``after`` are ids up to, and from, the nearest control tokens; ``head`` and ``tail`` stand between
    those and the message, and are encoded with it.
    """

    before: list[int]
    head: str
    tail: str
    after: list[int]


class ChatFormat:
    """The fixed text around messages, read off the tokenizer's chat template once.

    ``ends``: further ids at which the model ends a turn (its ``generation_config.eos_token_id``). Raises
    :class:`SkillSDError` if the template cannot be used turn by turn: it has none, it has no generation prompt, it
    rewrites earlier turns, or an assistant's turn does not end with one special token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        self._lock = threading.Lock()  # a fast tokenizer may not be used by two threads at once
        if not tokenizer.chat_template:
            raise SkillSDError("the tokenizer has no chat template: set tokenizer.chat_template and save it again")
        self._opening = self._render([("user", _FIRST)], generate=True)
        plain = self._render([("user", _FIRST)], generate=False)
        if not self._opening.startswith(plain) or self._opening == plain:
            raise SkillSDError("the chat template has no generation prompt (add_generation_prompt changes nothing)")
        talk = [("user", _FIRST), ("assistant", _ANSWER), ("user", _NEXT)]
        whole = self._render(talk, generate=True)
        if not whole.startswith(self._opening + _ANSWER):
            raise SkillSDError(
                "the chat template does not preserve its prefix: what stands before an answer changes once the answer "
                "is there (thinking templates do this); use a template without it"
            )
        thought = self._check_thoughts()
        self._ends_first, self._ends_next = _around(self._opening, _FIRST), _around(whole, _NEXT)
        end, between = self._split_end(self._ends_next[0][len(self._opening) + len(_ANSWER) :])
        ends = list(ends)
        self.plain = PlainText(tokenizer, self._ids(self._opening) + self._ids(whole) + ends)
        self.end_id = self._ids(end)[0]
        bos = tokenizer.bos_token_id
        first = self._frame(*self._ends_first)
        # Templates write the BOS themselves or leave it to the tokenizer; never both, never neither.
        if isinstance(bos, int) and first.before[:1] != [bos] and tokenizer("a").input_ids[:1] == [bos]:
            first = first._replace(before=[bos, *first.before])
        self._check_long_talks(end + between, thought)
        following = self._frame(end + between, self._ends_next[1])
        self._first, self._next = first, following
        eos = tokenizer.eos_token_id
        self.stop_ids = frozenset({self.end_id, *({eos} if isinstance(eos, int) else ()), *ends})
        self._shown = lru_cache(_REMEMBERED)(self._as_shown)

    def _check_thoughts(self) -> str:
        """Templates cut answers at marks of many kinds: at every text in quotes that this one holds, at the usual one,
        and where several come together. Returns the answer with the most marks that is kept.

        Not at tokens that begin and end texts: an answer holds none.
        """
        # Whatever stands between two quotes, as no one can tell which of them open without reading all of the template.
        quoted = dict.fromkeys(text.strip() for text in re.split("['\"]", self._template()) if not _JINJA.search(text))
        special = (self.tokenizer.bos_token, self.tokenizer.eos_token, self.tokenizer.pad_token)
        marks = [text for text in quoted if 2 <= len(text) <= 40 and text not in special][:_MARKS]
        tried = [("</think>", _THOUGHT), *((mark, f"hm {mark} {_ANSWER}") for mark in marks)]
        for order in (marks, marks[::-1]):
            tried.append((" ".join(order), f"hm {' hm '.join(order)} {_ANSWER}"))
        most = _ANSWER
        for mark, thought in tried:
            try:
                kept = thought in self._render(
                    [("user", _FIRST), ("assistant", thought), ("user", _NEXT)], generate=True
                )
            except SkillSDError:  # it will not have such an answer at all
                continue
            if not kept:
                raise SkillSDError(
                    f"the chat template strips the reasoning from earlier turns (what stands around {shown(mark)}), so "
                    "that a trajectory's tokens are not what the model would see: use a template that keeps it"
                )
            most = max(most, thought, key=len)
        return most

    def _template(self) -> str:
        try:
            return str(self.tokenizer.get_chat_template())
        except ValueError:  # several, none of which is the default
            return ""

    def _check_long_talks(self, between: str, thought: str) -> None:
        """Some templates treat turns differently by their number, or drop reasoning of those that are long past."""
        head, tail = self._ends_first
        users = [f"\u2402{number}\u2402" for number in range(6)]
        for first in (_THOUGHT, thought):
            talk, whole = [("user", users[0])], head + users[0] + tail
            for answer, user in zip([first, *[_ANSWER] * 4], users[1:], strict=True):
                talk += [("assistant", answer), ("user", user)]
                whole += answer + between + user + self._ends_next[1]
            if self._render(talk, generate=True) != whole:
                raise SkillSDError(
                    "the chat template makes something else of a long conversation than of its turns one by one: use a "
                    "template that treats all turns alike"
                )

    def prompt(self, user: str) -> list[int]:
        """One user message and the generation prompt."""
        return self._fill(self._first, self._shown(user, False))

    def message(self, text: str) -> list[int]:
        """What the assistant would write to say ``text``, without the end of its turn."""
        opening = self._opening[self._cut(self._opening, last=True) :]
        before = next((index for index in reversed(self._first.after) if index in self.plain.control), None)
        lead = self.plain.encode(opening, before=before, after=None)
        ids = self.plain.encode(opening + text, before=before, after=self.end_id)
        # Where the two merge at the seam, the text stands alone: the generation prompt's ids are what they are.
        return ids[len(lead) :] if ids[: len(lead)] == lead else self.plain.encode(text, before=None, after=self.end_id)

    def followup(self, observation: str, ended: bool) -> list[int]:
        """What stands between the assistant's last token and its next turn; ``ended``: it wrote the end itself."""
        return self._fill(self._next, self._shown(observation, True))[int(ended) :]

    def decode(self, ids: list[int]) -> str:
        """For people and environments; special tokens, and those that end a turn, are left out."""
        said = [index for index in ids if index not in self.stop_ids]
        with self._lock:
            return str(self.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _fill(self, frame: _Frame, text: str) -> list[int]:
        before, after = frame.before[-1:], frame.after[:1]
        middle = self.plain.encode(
            frame.head + text + frame.tail,
            before=before[0] if before else None,
            after=after[0] if after else None,
        )
        return frame.before + middle + frame.after

    def _as_shown(self, text: str, later: bool) -> str:
        """What the template makes of a message's text (some trim it); the first one's, or a ``later`` one's.

        A template that changes what stands around it gets the text as it is: earlier turns are not rewritten.
        """
        clean = text.encode("utf-8", "replace").decode("utf-8")
        talk = [("user", _FIRST), ("assistant", _ANSWER), ("user", clean)] if later else [("user", clean)]
        head, tail = self._ends_next if later else self._ends_first
        try:
            whole = self._render(talk, generate=True)
        except SkillSDError:
            return clean
        fits = whole.startswith(head) and whole.endswith(tail) and len(whole) >= len(head) + len(tail)
        return whole[len(head) : len(whole) - len(tail)] if fits else clean

    def _frame(self, head: str, tail: str) -> _Frame:
        """Split the text before and after a message at the control tokens nearest to it."""
        left, right = self._cut(head, last=True), self._cut(tail, last=False)
        return _Frame(self._ids(head[:left]), head[left:], tail[:right], self._ids(tail[right:]))

    def _cut(self, text: str, *, last: bool) -> int:
        """Where the ``last`` control token of ``text`` ends, or its first one begins."""
        names = [str(self.tokenizer.convert_ids_to_tokens(index)) for index in self.plain.control]
        if last:
            return max((at + len(name) for name in names if (at := text.rfind(name)) >= 0), default=0)
        return min((at for name in names if (at := text.find(name)) >= 0), default=len(text))

    def _ids(self, text: str) -> list[int]:
        """Ids of the template's own text."""
        with self._lock:
            return list(self.tokenizer(text, add_special_tokens=False).input_ids) if text else []

    def _render(self, messages: list[tuple[str, str]], *, generate: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [{"role": role, "content": content} for role, content in messages],
                    tokenize=False,
                    add_generation_prompt=generate,
                )
            )
        except Exception as error:  # a template is a program of its author's and may raise anything
            raise SkillSDError(f"the chat template fails: {one_line(str(error)) or reason(error)}") from None

    def _split_end(self, text: str) -> tuple[str, str]:
        """The end-of-turn token at the start of ``text``, and the rest."""
        named = [*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()]
        for token in sorted(named, key=len, reverse=True):
            if token and text.startswith(token) and len(self._ids(token)) == 1:
                return token, text[len(token) :]
        raise SkillSDError("in the chat template an assistant's turn does not end with one special token")


def _around(text: str, mark: str) -> tuple[str, str]:
    """What stands before and after the one ``mark`` in ``text``."""
    head, found, tail = text.partition(mark)
    if not found or mark in tail:
        raise SkillSDError("the chat template does not show a user's message just once, as it was written")
    return head, tail
