"""Drafts in a model's thoughts are never its answer, in whatever marks the thoughts stand, closed or cut off."""

import json
import time

import pytest

from skillsd.errors import SkillSDError
from skillsd.skills import Skill
from skillsd.skills.summarize.prompting import read_skill

GOOD = {"success_analysis": "It pushed up.", "mistake_analysis": "It hit a wall.", "golden_workflow": "Left, then up."}
DRAFT = dict.fromkeys(GOOD, "not sure yet")
A, D = json.dumps(GOOD), json.dumps(DRAFT)
MARKS = [
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("<THINK>", "</THINK>"),
    ("<reasoning>", "</reasoning>"), ("<reflection>", "</reflection>"), ("<scratchpad>", "</scratchpad>"),
    ("<analysis>", "</analysis>"), ('<think budget="9">', "</think>"), ("<seed:think>", "</seed:think>"),
    ("<inner_monologue>", "</inner_monologue>"), ("<chain_of_thought>", "</chain_of_thought>"),
    ("<think_fast>", "</think_fast>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|think|>", "<|/think|>"), ("<|inner_prefix|>", "<|inner_suffix|>"), ("<unused94>thought", "<unused95>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel|>commentary<|message|>", "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"),
    ("<|channel>thought\n", "<channel|>"), ("analysis<|message|>", "<|channel|>final<|message|>"),
    ("analysisWe try ", "assistantfinal"), ('<details type="reasoning">', "</details>"),
    ("<|think_start|>", "<|think_end|>"), ("<plan>", "</plan>"), ("<planning>", "</planning>"),
    ("<deliberate>", "</deliberate>"), ("<antThinking>", "</antThinking>"), ("[REASONING]", "[/REASONING]"),
    ("＜think＞", "＜/think＞"), ("‹think›", "‹/think›"), ("｜think｜", "｜/think｜"),
    ("&lt;think&gt;", "&lt;/think&gt;"),
    ("```thinking\n", "\n```\n"), ("<|im_start|>think\n", "<|im_end|>\n<|im_start|>answer\n"),
    ("<details><summary>My reasoning</summary>", "</details>"),
]  # fmt: skip


def skill(answer, **named):
    return read_skill(answer, **named).model_dump()


@pytest.mark.parametrize(("begin", "end"), MARKS)
def test_a_draft_in_a_thought_is_not_the_answer(begin, end):
    for text in (f"{begin}Try {D}{end}{A}", f"Well.\n{begin}\n{D}\n{D[:30]}\n{end}\n\n```json\n{A}\n```\nDone {{x}}.",
                 f"{begin}{end}{A}", f"{begin}{D}{end} {D} {A}", f"{A}{begin}But {D}?{end}"):  # fmt: skip
        if text.startswith(begin) or not begin.startswith("analysis"):  # that one is a mark at the very beginning alone
            assert skill(text) == GOOD, text


@pytest.mark.parametrize(("begin", "end"), MARKS)
def test_a_thought_that_never_ends_holds_no_answer(begin, end):
    for text in (f"{begin}Try {D}", f"{begin}{D}", f"{begin}{D}\n{A}", f"{'' if 'analysis' in begin else D}{begin}{A}"):
        for cut in (True, False):
            with pytest.raises(SkillSDError, match="a thought that never ends"):
                read_skill(text, cut=cut)
    with pytest.raises(SkillSDError, match="no whole JSON object"):
        read_skill(f"{begin}Try {D}{end}So much for that.")


@pytest.mark.parametrize("name", ["mull", "sketch", "w1p", "attempt_1", "notes", "xyz:abc", "hm-hm"])
@pytest.mark.parametrize("form", ["<@>", "[@]", "<|@|>", "＜@＞", "<@ n='1'>"])
def test_whatever_stands_in_a_mark_of_any_name_but_an_answers_is_a_thought(name, form):
    begin, end = form.replace("@", name), form.replace("@", f"/{name}").replace(" n='1'", "")
    for text in (f"{begin}{D}{end}{A}", f"Let me see.\n{begin} {D} {end}\n{A}", f"{A}\n{begin}not {D}{end}"):
        assert skill(text) == GOOD
    with pytest.raises(SkillSDError, match="no whole JSON object"):
        read_skill(f"{begin}{D}{end}")
    for text in (f"{begin}{D}", f"Well. {begin}{D}", f"so {begin} {D}") if form[0] == "<" else ():
        with pytest.raises(SkillSDError, match="a thought that never ends"):
            read_skill(text, cut=True)
        if text[0] != "s":  # in the middle of a sentence, of a text that is whole, it may be a word like any other
            with pytest.raises(SkillSDError, match="a thought that never ends"):
                read_skill(text)


@pytest.mark.parametrize(
    "name", ["answer", "final_answer", "output", "json", "skill", "tool_call", "div", "details", "s"]
)
def test_marks_for_answers_and_layout_hide_nothing(name):
    for text in (f"<{name}>{A}</{name}>", f"<{name}>\n{A}", f"{A}</{name}>", f"<think>{D}</think><{name}>{A}</{name}>"):
        assert skill(text) == GOOD
        assert skill(text, cut=True) == GOOD


@pytest.mark.parametrize("text", [
    json.dumps(A), json.dumps(json.dumps(A)), f"```json\n{json.dumps(A)}\n```", json.dumps({"answer": A}),
    json.dumps({"name": "skill", "arguments": A}), f"<details><summary>The skill</summary>\n\n{A}\n</details>",
    A.replace("}", ",}"), A.replace("}", ",\n}"), f"I used <think> tags. {A}", f"I used `<think>` here.\n{A}",
    f"I used <think> and </think> tags: {A}", f"I left out <think>...</think> this time. {A}",
    f"{A}\n<reasoning>I chose",
    f"{A}\n<reasoning>As it won.</reasoning>", f"{A}<|im_end|>\n<|im_start|>assistant\n", f"Press <Enter> twice. {A}",
    f"First draft: {D}\nBetter: {A.replace('}', ',}')}", f"See [my reasoning](x). {A}",
])  # fmt: skip
def test_an_answer_is_not_lost_for_how_it_is_wrapped_or_what_is_said_about_it(text):
    assert skill(text) == GOOD


@pytest.mark.parametrize("words", [
    "A bad answer would be:", "Not like this:\n```json\n", "**Bad example**\n", "Don't write", "This is a wrong one:",
    "By contrast, a poor answer looks like this:", "An example of a bad answer:", "My previous answer was",
    "Instead of",
])  # fmt: skip
def test_what_is_introduced_as_no_answer_is_none(words):
    assert skill(f"{A}\n\n{words} {D}") == GOOD
    with pytest.raises(SkillSDError, match="introduced as a draft or a bad example"):
        read_skill(f"{words} {D}")


def test_keys_tell_which_of_several_is_the_answer():
    for key in ("rejected", "bad_example", "draft", "previous", "first_draft", "badAnswer", "thoughts"):
        assert skill(json.dumps({"answer": GOOD, key: DRAFT})) == GOOD
        with pytest.raises(SkillSDError):
            read_skill(json.dumps({key: DRAFT}))
    for key in ("answer", "final", "skill", "golden"):
        assert skill(json.dumps({key: GOOD})) == GOOD
    assert skill(json.dumps({"answer": GOOD, "other": DRAFT})) == GOOD
    assert skill(f"Here is what avoids the bad moves of my previous try: {A}") == GOOD


@pytest.mark.parametrize(
    "end", ["</think>", "</thinking>", "[/THINK]", "◁/think▷", "<|end_of_thought|>", "assistantfinal"]
)
def test_an_end_without_a_beginning_ends_a_thought_that_the_template_began(end):
    assert skill(f"Try {D}. No, {D}!{end}{A}") == GOOD
    with pytest.raises(SkillSDError, match="no whole JSON object"):
        read_skill(f"Try {D}. No, {D}!{end}")


def test_only_its_own_mark_ends_a_thought():
    assert skill(f"<think><reasoning>{D}</reasoning> {D} </think>{A}") == GOOD
    with pytest.raises(SkillSDError, match="never ends"):
        read_skill(f"<think><reasoning>{D}</reasoning> {D}")
    assert skill(f"<think>{D} of </think> I say: {D}</think>{A}") == GOOD


def test_marks_in_the_words_of_an_answer_are_words():
    odd = {**GOOD, "mistake_analysis": "It wrote <think> and never </think>, [THINK], <|channel|>analysis, or a {."}
    assert skill(json.dumps(odd)) == odd
    assert skill(f"<think>{D}</think>{json.dumps(odd)}") == odd
    opened = {**GOOD, "mistake_analysis": "It wrote <think> but did not answer."}
    assert skill(f"{json.dumps(opened)}\n") == opened


def test_of_several_drafts_in_prose_the_last_that_is_a_skill_counts():
    assert skill(f"First draft: {D}\nBetter: {A}") == GOOD
    assert skill(f"First draft: {D}\nBetter: {A}\nThe form was {{'success_analysis': ...}}") == GOOD
    empty = json.dumps(dict.fromkeys(GOOD, "..."))
    assert skill(f"{A}\nas in {empty} or {json.dumps({'success_analysis': 'x'})}") == GOOD
    assert skill(json.dumps({"draft": DRAFT, "answer": GOOD})) == GOOD
    assert skill(json.dumps({"answer": GOOD, "thoughts": DRAFT})) == GOOD
    assert skill(json.dumps([DRAFT, {"deep": [{"er": GOOD}]}])) == GOOD
    assert skill("{}" * 500 + "{a}" * 500 + A) == GOOD


def test_what_was_cut_off_after_a_draft_is_no_answer():
    for text in (f"First draft: {D}\nBetter: {A[:50]}", f"Let me see. {D} Hmm, or", f"{D}\nBetter: {A[:50]}"):
        with pytest.raises(SkillSDError, match="ends in the middle"):
            read_skill(text, cut=True)
    for text in (A, f"```json\n{A}\n```", f"Here: {A}\n\n \n", f"Here: {A}\n```", f"{A} I hope that this helps you to",
                 f"{A}\n{A[:60]}", f"<think>{D}</think>{A} and so"):  # fmt: skip
        assert skill(text, cut=True) == GOOD, text


HEADS = ["Thought:", "**Thought:**", "Reasoning:", "Let me think:", "My thoughts:", "Thought process:", "Thinking:\n",
         "### Reasoning:\n", "Internal monologue:"]  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_a_draft_under_a_head_for_thoughts_is_no_answer(head):
    for text in (f"{head} {D}", f"{head} {D}\nFinal answer: {A[:40]}"):
        for cut in (True, False):
            with pytest.raises(SkillSDError):
                read_skill(text, cut=cut)
    for text in (f"{head} it may be {D}", f"{head} the agent pushed.\nPerhaps {D} or {D}"):
        with pytest.raises(SkillSDError):
            read_skill(text, cut=True)
    for answer in (f"Final answer: {A}", f"**Answer:**\n{A}", f"Final JSON output:\n```json\n{A}\n```"):
        for text in (
            f"{head} perhaps {D}, but no.\n{answer}",
            f"{head} {D}\n{answer}",
            f"{head} it pushed.\n\n{answer}",
        ):
            assert skill(text) == skill(text, cut=True) == GOOD
    assert skill(f"{head} the agent did well.\n\n{A}") == GOOD


def test_halves_of_characters_in_the_fields_are_mended():
    found = read_skill(A.replace("pushed", r"\ud83d\ude42 \udc00", 1))
    assert found.success_analysis == "It 🙂 \ufffd up."
    assert Skill.parse(found.model_dump_json()) == found


@pytest.mark.parametrize(
    "piece",
    ['{"a":', "{", '{"a":[', "<", "<think", "<_", "[", '{"', "<|channel|>", "</think>", D[:-1], '{"a":"b",', "<think "],
)
def test_reading_takes_no_time_whatever_the_text(piece):
    start = time.process_time()
    with pytest.raises(SkillSDError):
        read_skill(piece * (100_000 // len(piece)))
    assert time.process_time() - start < 5
