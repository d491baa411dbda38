"""Skills: what a finished trajectory teaches, where it is kept, and which one a teacher reads.

Uses environments' tasks, and a policy where that is the summariser; it knows no game and no trainer.
"""

from skillsd.skills.bank import SkillBank, Source, StoredSkill
from skillsd.skills.retrieval import ucb_score
from skillsd.types import Skill

__all__ = ["Skill", "SkillBank", "Source", "StoredSkill", "ucb_score"]
