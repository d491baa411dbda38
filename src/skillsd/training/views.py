"""The two prompts of a trajectory: the student's plain one, and the teacher's with the skill in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from skillsd.config import Config
from skillsd.errors import SkillSDError
from skillsd.policy.loading import Policy
from skillsd.policy.positions import position_limit
from skillsd.skills.teacher_view import contains_skill, skill_view
from skillsd.training.scoring import Row
from skillsd.types import Hint, Hints, Trajectory


class Views:
    """Makes rows, and makes sure that the teacher sees what it should."""

    def __init__(self, config: Config, policy: Policy, warn: Callable[[str], None]) -> None:
        self.config, self.spec, self.policy, self.warn = config, config.spec, policy, warn
        #: Positions that the model has; None: no limit.
        self.room = position_limit(policy.model)
        #: Episodes that had no teacher because the model has too few positions for its view.
        self.outgrown = 0

    def row(self, trajectory: Trajectory, hint: Hint | None) -> Row:
        """The student's and the teacher's prompt of one trajectory; the completion's ids are shared.

        Raises :class:`SkillSDError` for a teacher's prompt that is too long: skills are never cut.
        """
        chat, plain = self.policy.chat, trajectory.prompt
        student = chat.prompt(plain) if self.spec.rollouts == "teacher" else trajectory.prompt_ids
        self._check_room(trajectory.task_id, len(student))
        if hint is None or self.spec.distill in ("none", "imitation"):
            return Row(trajectory, student, None)
        trajectory.teacher_skill_id = hint.id
        teacher = chat.prompt(skill_view(hint.skill, plain) if hint.skill else plain)
        if len(teacher) > self.config.teacher.max_prompt_tokens:
            raise SkillSDError(
                f"task {trajectory.task_id}: the teacher's prompt has {len(teacher)} tokens, more than "
                f"teacher.max_prompt_tokens = {self.config.teacher.max_prompt_tokens}; skills are never cut"
            )
        if self.room is not None and len(teacher) + len(trajectory.completion_ids) > self.room:
            if not self.outgrown:
                self.warn(
                    f"task {trajectory.task_id}: behind its skill an episode is longer than the model's "
                    f"{self.room} positions and has no teacher; a smaller rollout.max_tokens leaves room for skills"
                )
            self.outgrown += 1
            return Row(trajectory, student, None)
        return Row(trajectory, student, teacher)

    def _check_room(self, task_id: str, plain: int) -> None:
        """Found in the first iteration, and not when the first skill is there."""
        if self.spec.distill in ("loss", "advantage") and plain >= self.config.teacher.max_prompt_tokens:
            raise SkillSDError(
                f"task {task_id}: its prompt has {plain} tokens without any skill: teacher.max_prompt_tokens = "
                f"{self.config.teacher.max_prompt_tokens} leaves the teacher no room"
            )

    def share_with_skill(self, rows: Sequence[Row], hints: Hints) -> float:
        """Share of rows whose teacher ids hold the skill's text. Raises if a row has a skill and none holds it."""
        read = [hints.get(row.trajectory.task_id) for row in rows]  # tasks may have lost all of their episodes
        if self.spec.distill == "none" or not any(hint is not None and hint.skill for hint in read):
            return 0.0
        seen: dict[tuple[int, ...], bool] = {(): False}
        for row in rows:
            key, hint = tuple(row.teacher_prompt_ids or ()), hints.get(row.trajectory.task_id)
            if hint is not None and hint.skill is not None and key not in seen:
                seen[key] = contains_skill(key, hint.skill, self.policy.tokenizer)
        count = sum(seen[tuple(row.teacher_prompt_ids or ())] for row in rows)
        if count == 0 and not self.outgrown:
            raise SkillSDError("skills were retrieved but no teacher prompt holds one: check the chat template")
        return count / len(rows)
