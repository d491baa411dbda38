"""Texts of environments, skills and people as token ids: never a control token, and as the template's own would be."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase

#: Added tokens of this look steer a model, whether or not the tokenizer's file calls them special.
_MARK = re.compile(r"[<\[(◁⟨｟〈【].*[>\])▷⟩｠〉】]", re.DOTALL)


class PlainText:
    """Encodes ordinary text as it would be encoded between two control tokens of a longer text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, fixed: Iterable[int]) -> None:
        """``fixed``: ids in the template's own text; those that were added to the vocabulary are control tokens too."""
        self.tokenizer = tokenizer
        added = {int(index): token for index, token in tokenizer.added_tokens_decoder.items()}
        fixed = set(fixed)
        marks = {i for i, t in added.items() if t.special or i in fixed or _MARK.fullmatch(t.content.strip())}
        self._unspoken = marks | set(tokenizer.all_special_ids)
        # What no token stands for is "unknown" in some vocabularies: that steers nothing, unless it is an end as well.
        unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id, tokenizer.bos_token_id}
        #: Ids that no text may become.
        self.control = self._unspoken - unknown
        self._names = sorted(
            {str(tokenizer.convert_ids_to_tokens(index)) for index in self.control}, key=len, reverse=True
        )  # fmt: skip
        self._lock = threading.Lock()  # a fast tokenizer may not be used by two threads at once
        self._fences: dict[tuple[bool, bool], _Fence] = {}
        self._added = added

    def encode(self, text: str, *, before: int | None, after: int | None) -> list[int]:
        """Ids of ``text`` where the control tokens ``before`` and ``after`` it (None: it stands at an end)."""
        if not text:
            return []
        clean = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be encoded
        with self._lock:
            ids = self._encode(clean, before, after)
            if not self.control.isdisjoint(ids):  # a vocabulary that spells control tokens among its ordinary ones
                ids = self._encode(self._broken(clean), before, after)
            return [index for index in ids if index not in self.control]

    def _encode(self, text: str, before: int | None, after: int | None) -> list[int]:
        if not hasattr(self.tokenizer, "backend_tokenizer"):
            return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
        strips = (self._strips(before, "rstrip"), self._strips(after, "lstrip"))
        if strips not in self._fences:
            self._fences[strips] = _Fence(self.tokenizer, self._added, self._unspoken, *strips)
        return self._fences[strips].encode(text, before is not None, after is not None)

    def _strips(self, index: int | None, side: str) -> bool:
        return index is not None and index in self._added and bool(getattr(self._added[index], side))

    def _broken(self, text: str) -> str:
        """``text`` with a blank behind the first character of every control token's name."""
        for name in self._names:
            text = text.replace(name, f"{name[:1]} {name[1:]}")
        return text


class _Fence:
    """A tokenizer that has forgotten its control tokens, but for two that nobody can write, to stand at the ends."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, added: dict[int, AddedToken], unspoken: set[int], *strips: bool
    ) -> None:
        tree = json.loads(tokenizer.backend_tokenizer.to_str())
        kept = {token.content: index for index, token in added.items() if index not in unspoken}
        tree["added_tokens"] = [token for token in tree.get("added_tokens") or [] if token["content"] in kept]
        for name in ("post_processor", "truncation", "padding"):
            tree[name] = None
        self.raw = Tokenizer.from_str(json.dumps(tree))
        self.raw.encode_special_tokens = False
        self.first, self.last = (f"\u2402{secrets.token_hex(16)}\u2402" for _ in range(2))
        self.raw.add_special_tokens(
            [
                AddedToken(self.first, rstrip=strips[0], normalized=False, special=True),
                AddedToken(self.last, lstrip=strips[1], normalized=False, special=True),
            ]
        )
        # Without the others, those that are kept may have other numbers.
        self.numbers = {self.raw.token_to_id(content): index for content, index in kept.items()}
        self.ends = {self.raw.token_to_id(self.first), self.raw.token_to_id(self.last)}

    def encode(self, text: str, first: bool, last: bool) -> list[int]:
        whole = f"{self.first if first else ''}{text}{self.last if last else ''}"
        ids = self.raw.encode(whole, add_special_tokens=False).ids
        return [self.numbers.get(index, index) for index in ids if index not in self.ends]
