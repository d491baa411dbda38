"""Messages to token ids, one piece at a time: what was once encoded is never encoded again (TRAPS, "Tokens")."""

from __future__ import annotations

import threading

from transformers import PreTrainedTokenizerBase

from skillsd.errors import SkillSDError

# Unlikely in any template, and plain enough for every tokenizer.
_FIRST, _ANSWER, _NEXT = "\u2402first\u2402", "\u2402answer\u2402", "\u2402next\u2402"


class ChatFormat:
    """The fixed text around messages, read off the tokenizer's chat template once.

    Raises :class:`SkillSDError` if the template cannot be used turn by turn: it has none, it has no generation
    prompt, it rewrites earlier turns, or an assistant's turn does not end with one special token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._lock = threading.Lock()  # a fast tokenizer may not be used by two threads at once
        if not tokenizer.chat_template:
            raise SkillSDError("the tokenizer has no chat template: set tokenizer.chat_template and save it again")
        opening = self._render([("user", _FIRST)], generate=True)
        plain = self._render([("user", _FIRST)], generate=False)
        if not opening.startswith(plain) or opening == plain:
            raise SkillSDError("the chat template has no generation prompt (add_generation_prompt changes nothing)")
        talk = [("user", _FIRST), ("assistant", _ANSWER), ("user", _NEXT)]
        whole = self._render(talk, generate=True)
        if not whole.startswith(opening + _ANSWER):
            raise SkillSDError(
                "the chat template does not preserve its prefix: what stands before an answer changes once the answer "
                "is there (thinking templates do this); use a template without it"
            )
        thought = f"<think>\nhm\n</think>\n\n{_ANSWER}"
        thinking = self._render([talk[0], ("assistant", thought), talk[2]], generate=True)
        if thought not in thinking:
            raise SkillSDError(
                "the chat template strips the reasoning from earlier turns, so that a trajectory's tokens are not what "
                "the model would see: use a template that keeps it"
            )
        head, tail = opening.split(_FIRST)
        before, after = whole[len(opening) + len(_ANSWER) :].split(_NEXT)
        end, before = self._split_end(before)
        self._head, self._tail, self._after = (self._encode(text, special=True) for text in (head, tail, after))
        bos = tokenizer.bos_token_id
        # Templates write the BOS themselves or leave it to the tokenizer; never both, never neither.
        if isinstance(bos, int) and self._head[:1] != [bos] and tokenizer("a").input_ids[:1] == [bos]:
            self._head = [bos, *self._head]
        self._lead = {ended: self._encode(("" if ended else end) + before, special=True) for ended in (False, True)}
        self.end_id = self._encode(end, special=True)[0]
        eos = tokenizer.eos_token_id
        self.stop_ids = frozenset({self.end_id} | ({int(eos)} if isinstance(eos, int) else set()))

    def prompt(self, user: str) -> list[int]:
        """One user message and the generation prompt."""
        return self._head + self._encode(user) + self._tail

    def message(self, text: str) -> list[int]:
        """What the assistant would write to say ``text``, without the end of its turn."""
        return self._encode(text)

    def followup(self, observation: str, ended: bool) -> list[int]:
        """What stands between the assistant's last token and its next turn; ``ended``: it wrote the end itself."""
        return self._lead[ended] + self._encode(observation) + self._after

    def decode(self, ids: list[int]) -> str:
        """For people and environments; special tokens are left out."""
        with self._lock:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _encode(self, text: str, special: bool = False) -> list[int]:
        """Ids of one piece. In what a user, environment or skill wrote, control tokens are ordinary text."""
        if not text:
            return []
        clean = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be encoded
        with self._lock:
            return list(self.tokenizer(clean, add_special_tokens=False, split_special_tokens=not special).input_ids)

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
            raise SkillSDError(f"the chat template fails: {str(error).splitlines()[0][:200]}") from None

    def _split_end(self, text: str) -> tuple[str, str]:
        """The end-of-turn token at the start of ``text``, and the rest."""
        for token in sorted(self.tokenizer.all_special_tokens, key=len, reverse=True):
            if text.startswith(token) and len(self._encode(token, special=True)) == 1:
                return token, text[len(token) :]
        for token, index in self.tokenizer.get_added_vocab().items():
            if text.startswith(token) and self._encode(token, special=True) == [index]:
                return token, text[len(token) :]
        raise SkillSDError("in the chat template an assistant's turn does not end with one special token")
