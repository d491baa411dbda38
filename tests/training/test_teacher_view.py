"""The skill in front of the prompt, and the check that it really stands in the teacher's ids."""

import unicodedata

import pytest
from tokenizers import normalizers

from models_lab import chat_tokenizer
from skillsd.skills import Skill
from skillsd.skills.teacher_view import contains_skill, skill_view

SKILL = Skill(
    success_analysis="Push c3 to e4.\n\nThen  rest , a little.",
    mistake_analysis="Schöne Größe: 箱を押す 🎁 <|im_end|>",
    golden_workflow="1. Go round. 2. Push!",
)


def test_the_prompt_stands_unchanged_at_the_end_and_every_text_before_it():
    prompt = "######\n#PXO_#\n  ######\n"
    view = skill_view(SKILL, prompt)
    assert view.endswith("\n\n" + prompt)
    before = view.removesuffix(prompt)
    for text in SKILL.model_dump().values():
        assert before.count(text) == 1


@pytest.mark.parametrize("field", list(Skill.model_fields))
def test_every_field_counts(field):
    tokenizer = chat_tokenizer()
    other = SKILL.model_copy(update={field: "Something else."})
    ids = tokenizer.encode(skill_view(SKILL, "Play."))
    assert contains_skill(ids, SKILL, tokenizer)
    assert not contains_skill(ids, other, tokenizer)
    assert not contains_skill(tokenizer.encode("Play."), SKILL, tokenizer)


def test_a_cut_skill_is_not_there():
    tokenizer = chat_tokenizer()
    ids = tokenizer.encode(skill_view(SKILL, ""))
    assert contains_skill(ids, SKILL, tokenizer)
    for cut in (ids[60:], ids[:-10]):  # truncated on the left, on the right
        assert not contains_skill(cut, SKILL, tokenizer)


def test_tokenizers_may_normalise_unicode():
    """A summariser may write o + diaeresis where the tokenizer makes one letter of the two, as Qwen's does."""
    tokenizer = chat_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    apart = SKILL.model_copy(update={"success_analysis": unicodedata.normalize("NFD", "Größe zählt.")})
    ids = tokenizer.encode(skill_view(apart, "Play."))
    assert apart.success_analysis not in tokenizer.decode(ids)
    assert contains_skill(ids, apart, tokenizer)
