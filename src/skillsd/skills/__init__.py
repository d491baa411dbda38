"""Skills: what a finished trajectory teaches, where it is kept, and which one a teacher reads."""

from skillsd.skills.bank import SkillBank, Source, StoredSkill
from skillsd.skills.retrieval import ucb_score
from skillsd.skills.skill import Skill

__all__ = ["Skill", "SkillBank", "Source", "StoredSkill", "ucb_score"]
