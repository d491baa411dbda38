"""No summary at all: the attempt itself as the skill, a control for what summarising is worth."""

from __future__ import annotations

from skillsd.types import MAX_FIELD_CHARS, Skill, SummaryRequest


class RawTrajectory:
    """Every message of the attempt, in order, as the workflow (cut at its end if it is too long)."""

    name = "trajectory"

    def summarize(self, request: SummaryRequest) -> Skill:
        """The attempt in its own words."""
        trajectory = request.trajectory
        messages = " ".join(turn.action.strip().strip("`").strip() for turn in trajectory.turns).strip()
        result = "It solved it." if trajectory.success else f"It completed {trajectory.completion:.0%} of it."
        return Skill(
            success_analysis=f"An earlier attempt took {len(trajectory.turns)} turns at this task. {result}",
            mistake_analysis="Nothing is known about mistakes." if trajectory.success else "The attempt failed.",
            golden_workflow=messages[:MAX_FIELD_CHARS] or "No message was sent.",
        )
