"""The skill: three short texts distilled from one finished trajectory (PAPER section 4)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from skillsd.errors import SkillSDError

#: One to five sentences fit easily; a runaway summary does not.
MAX_FIELD_CHARS = 4000

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_FIELD_CHARS)]


class Skill(BaseModel):
    """Exactly three texts, one to five sentences each; missing, extra, empty or huge fields are refused.

    ``success_analysis``: the strategy that led, or would lead, to success.
    ``mistake_analysis``: root causes of failure or waste.
    ``golden_workflow``: the ideal process from start to finish.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    success_analysis: Text
    mistake_analysis: Text
    golden_workflow: Text

    @classmethod
    def parse(cls, raw: str | dict[str, object]) -> Skill:
        """A skill from JSON text or a dict. Raises :class:`SkillSDError` with one clear line."""
        try:
            return cls.model_validate_json(raw) if isinstance(raw, str) else cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "skill"
            raise SkillSDError(f"malformed skill: {where}: {first['msg']}") from None

    def text(self) -> str:
        """The skill as people and teachers read it: three labelled paragraphs."""
        return (
            f"What works: {self.success_analysis}\n"
            f"What to avoid: {self.mistake_analysis}\n"
            f"Workflow: {self.golden_workflow}"
        )

    def normalized(self) -> str:
        """Lower-case, single-spaced text: the key for near-duplicate tests."""
        return re.sub(r"\s+", " ", self.text()).strip().lower()
