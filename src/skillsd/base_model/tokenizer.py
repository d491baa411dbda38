"""The embedded model's tokenizer: byte-level BPE, with the rows of small rooms as tokens of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"

TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

#: Words keep their leading space; squares such as " c4" stay whole; digits and glyphs stand alone.
_PIECES = r"\n+|`+| ?[a-z][0-9](?![0-9a-z])| ?[A-Z]?[a-z]+| ?[0-9]|.|\s"


def room_rows(inner: int = 4, boxes: int = 2) -> list[str]:
    """Every row that a walled room of ``inner`` columns with at most ``boxes`` boxes can have.

    As single tokens they make a 6x6 board 6 tokens long, each at a fixed distance from the answer: what a network
    of this size can read, and four times cheaper than a token for each cell.
    """
    rows = []
    for cells in product("#_OXPTS", repeat=inner):
        row = "".join(cells)
        players, loads = sum(map(row.count, "PS")), sum(map(row.count, "XT"))
        goals = sum(map(row.count, "OTS"))
        if players <= 1 and loads <= boxes and goals <= boxes:
            rows.append(f"#{row}#\n")
    return ["#" * (inner + 2), *rows]


def parts(token: str) -> list[str]:
    """What a composite token is made of: a row its cells with their columns, a square its column and its row.

    Words have no parts. The base model starts from embeddings that are sums over parts, so that what it learns of
    one row holds for all.
    """
    if token.startswith("#") and len(token) > 3:
        return [f"{column}{glyph}" for column, glyph in enumerate(token.rstrip("\n"))]
    if len(token) == 3 and token[0] == " " and token[1].isalpha() and token[2].isdigit():
        return [f"column {token[1]}", f"row {token[2]}"]
    return []


def word_parts(token: str) -> list[str]:
    """A word or number with a space in front is that word or number and a space: what is copied is the same in both."""
    return [token.strip(), " "][: 1 + (token[0] == " ")] if re.fullmatch(r" ?[\w.]+", token) else []


def train_tokenizer(
    corpus: Iterable[str], vocab_size: int = 640, pieces: str = _PIECES, whole: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """Train on ``corpus``; any text of any language still encodes (bytes are the fallback).

    ``pieces`` is the pattern of what merges do not cross, ``whole`` are texts that become tokens of their own.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, USER, ASSISTANT, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )
    fast.add_tokens([AddedToken(row, normalized=False, special=False) for row in whole])
    fast.chat_template = TEMPLATE
    return fast
