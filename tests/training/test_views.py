"""The two prompts of a trajectory, and the check that a skill which was found is read."""

import pytest

from runs_lab import config
from skillsd import SkillSDError
from skillsd.policy.loading import load_policy
from skillsd.skills import Skill
from skillsd.training.views import Views
from skillsd.types import Hint, Trajectory

HINT = Hint(Skill(success_analysis="Push right.", mistake_analysis="A corner.", golden_workflow="Go round."), 1)


@pytest.fixture
def views(llama_folder):
    settings = config(f"model.path={llama_folder}")
    return Views(settings, load_policy(settings.model), pytest.fail)


def row(views, task, hint=None):
    return views.row(Trajectory(task, 1, 0, "Play.", views.policy.chat.prompt("Play.")), hint)


def test_a_task_with_a_skill_whose_episodes_were_all_dropped_is_no_fault_of_the_template(views):
    assert views.share_with_skill([row(views, "b")], {"a": HINT}) == 0.0


def test_the_share_is_of_rows_whose_teacher_reads_the_skill(views):
    rows = [row(views, "a", HINT), row(views, "a", HINT), row(views, "b"), row(views, "b")]
    assert views.share_with_skill(rows, {"a": HINT, "c": HINT}) == 0.5


def test_a_skill_that_no_teacher_reads_is_told(views):
    rows = [row(views, "a", Hint(None, None)), row(views, "b")]
    with pytest.raises(SkillSDError, match="check the chat template"):
        views.share_with_skill(rows, {"a": HINT})
