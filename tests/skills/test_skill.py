import json

import pytest

from skillsd.errors import SkillSDError
from skillsd.types import MAX_FIELD_CHARS, Skill

GOOD = {"success_analysis": "a", "mistake_analysis": "b", "golden_workflow": "c"}


def test_a_good_skill_is_read_in_both_forms():
    assert Skill.parse(GOOD) == Skill.parse(json.dumps(GOOD)) == Skill(**GOOD)
    assert Skill(**{**GOOD, "golden_workflow": "  箱 🎁 \n"}).golden_workflow == "箱 🎁"


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({k: v for k, v in GOOD.items() if k != "mistake_analysis"}, "mistake_analysis"),
        ({**GOOD, "bonus": "x"}, "bonus"),
        ({**GOOD, "golden_workflow": "   "}, "golden_workflow"),
        ({**GOOD, "golden_workflow": 3}, "golden_workflow"),
        ({**GOOD, "success_analysis": "x" * (MAX_FIELD_CHARS + 1)}, "success_analysis"),
        ({**GOOD, "success_analysis": "x" * 1_000_000}, "success_analysis"),
        ("not json", "skill"),
        ("[1, 2]", "skill"),
        ("", "skill"),
    ],
)
def test_malformed_skill_is_one_line_that_names_the_field(raw, named):
    with pytest.raises(SkillSDError, match=named) as error:
        Skill.parse(raw)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
