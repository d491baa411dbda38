"""A summariser that needs no LLM: it reads the calls of an office trajectory and what they were answered.

It knows no world: a skill holds only what the trajectory itself shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from skillsd.types import MAX_FIELD_CHARS, Skill, SummaryRequest

#: Facts of failed calls that a skill tells: more would over-constrain the reader (arXiv:2604.10674).
MAX_MISTAKES = 6
#: What the answer to a call says that has worked and is not enough.
NOT_YET = "not done before"


class OfficeRules:
    """Summarises office trajectories by rules."""

    name = "rules"

    def summarize(self, request: SummaryRequest) -> Skill:
        """Tell which calls worked, and what the tools said about the others."""
        trajectory = request.trajectory
        turns = [(str(t.info.get("action") or ""), bool(t.info.get("ok")), t.observation) for t in trajectory.turns]
        return tell(turns, trajectory.success)


def tell_solution(calls: Sequence[str]) -> Skill:
    """The skill of an episode of exactly these calls, all of them right."""
    return tell([(call, True, "") for call in calls], True)


def tell(turns: Sequence[tuple[str, bool, str]], success: bool) -> Skill:
    """Put (call, whether it worked, answer) by turn into words."""
    worked = list(dict.fromkeys(call for call, ok, _ in turns if ok))
    told = [answer for call, ok, answer in turns if call and (not ok or (NOT_YET in answer and not success))]
    facts = list(dict.fromkeys(told))[-MAX_MISTAKES:]
    silent = sum(not call for call, _, _ in turns)
    outcome = "The task was solved" if success else "The task was not solved"
    mistakes = " ".join(facts)
    if silent:
        mistakes = f"{mistakes} {silent} {'message' if silent == 1 else 'messages'} held no call.".strip()
    if success:
        success_text = f"{outcome} with {len(worked)} calls."
        workflow = " ".join(worked)
    else:
        success_text = f"{outcome}; {len(worked)} calls worked." if worked else f"{outcome}: no call worked."
        workflow = " ".join([*worked, *facts]) or "Make one call a message."
    texts = (success_text, mistakes or "No call failed.", workflow)
    success_analysis, mistake_analysis, golden_workflow = (text[:MAX_FIELD_CHARS] for text in texts)
    return Skill(success_analysis=success_analysis, mistake_analysis=mistake_analysis, golden_workflow=golden_workflow)
