"""The teacher's view of a task: the skill, then the plain prompt (the paper, step 3)."""

from __future__ import annotations

import unicodedata

from transformers import PreTrainedTokenizerBase

from skillsd.types import Skill


def skill_view(skill: Skill, prompt: str) -> str:
    """``prompt`` with ``skill`` in front of it. The wording is ours (a gap in the paper)."""
    return f"Advice from earlier attempts at this task:\n{skill.text()}\n\n{prompt}"


def contains_skill(teacher_ids: tuple[int, ...] | list[int], skill: Skill, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the text behind ``teacher_ids`` holds the whole skill. Decodes, for this check alone.

    Tokenizers may normalise Unicode and tidy up blanks, so neither counts.
    """
    return _bare(skill.text()) in _bare(str(tokenizer.decode(list(teacher_ids))))


def _bare(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())
