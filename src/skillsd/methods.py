"""The named methods: a method is a configuration, not a subclass (the paper's tables 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

#: Controls: what a teacher may be shown in place of its task's own skill (:mod:`skillsd.skills.controls`).
Shown = Literal[
    "own",
    "shuffled",
    "foreign",
    "falsified",
    "empty",
    "random_text",
    "no_success_analysis",
    "no_mistake_analysis",
    "no_golden_workflow",
    "none",
]
SHOWN: tuple[str, ...] = get_args(Shown)


@dataclass(frozen=True)
class Method:
    """One point in the space that all methods share."""

    summary: str
    #: Who samples: the student under the plain prompt, or a teacher under the skill prompt.
    rollouts: Literal["student", "teacher"] = "student"
    #: Whether the policy itself sees the skill in its rollout prompt (skill-augmented GRPO only).
    skill_in_student_prompt: bool = False
    #: What the teacher is shown in front of the task ("plain": nothing, but it teaches all the same).
    privileged: Literal["none", "plain", "bank", "reference", "hindsight"] = "bank"
    #: Whose weights score (or sample) under the teacher's view.
    teacher: Literal["none", "dynamic", "frozen", "ema"] = "dynamic"
    #: Whether the trajectory's reward enters the loss (GRPO).
    reward: bool = True
    #: How distillation enters: as the loss L_SDL, or as a per-token advantage (vanilla OPD); "imitation" is of the
    #: group's best success, without a teacher.
    distill: Literal["none", "loss", "advantage", "imitation"] = "loss"

    @property
    def uses_bank(self) -> bool:
        """Whether trajectories become skills that later iterations find."""
        return self.privileged in ("bank", "hindsight")


METHODS: dict[str, Method] = {
    "skill_sd": Method("Skill-SD: GRPO + importance-weighted reverse KL to the synchronised, skill-reading teacher"),
    "grpo": Method("vanilla GRPO: reward only", privileged="none", teacher="none", distill="none"),
    "grpo_leash": Method(
        "control: GRPO + reverse KL to the first weights, which read no skill", privileged="plain", teacher="frozen"
    ),
    "grpo_imitation": Method(
        "control: GRPO + imitation of the group's best success, which hindsight knows without any skill",
        privileged="none", teacher="none", distill="imitation",
    ),
    "opd": Method(
        "vanilla on-policy distillation: reverse KL to the frozen skill-reading teacher, no reward",
        teacher="frozen", reward=False, distill="advantage",
    ),
    "opsd": Method(
        "on-policy self-distillation: the teacher reads the task's fixed solution, no reward",
        privileged="reference", reward=False,
    ),
    "skill_augmented": Method(
        "GRPO with the skill in the rollout prompt, evaluated without it",
        skill_in_student_prompt=True, teacher="none", distill="none",
    ),
    "skill_sd_frozen": Method("ablation: the teacher keeps its first weights", teacher="frozen"),
    "skill_sd_ema": Method("variant: the teacher is an exponential moving average of the student", teacher="ema"),
    "skill_sd_hindsight": Method(
        "variant: a group's own best success teaches it, the bank's skill where there is none", privileged="hindsight"
    ),
    "teacher_frozen": Method(
        "ablation: a frozen teacher samples under the skill", rollouts="teacher", teacher="frozen"
    ),
    "teacher_dynamic": Method("ablation: a synchronised teacher samples under the skill", rollouts="teacher"),
}  # fmt: skip
