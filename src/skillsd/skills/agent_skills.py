"""Skills as folders in the Agent Skills format (agentskills.io): ``NAME/SKILL.md``, YAML front matter and a body."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import yaml

from skillsd.errors import SkillSDError
from skillsd.skills.bank import StoredSkill

#: Limits of the specification.
MAX_NAME, MAX_DESCRIPTION = 64, 1024
#: Of the description, what of the task id and of the skill is quoted.
_QUOTED = 400


def skill_name(stored: StoredSkill) -> str:
    """A name by the specification: at most 64 of a-z, 0-9 and single hyphens, none at an end.

    It ends with the skill's number; the hash keeps task ids apart that differ in other characters.
    """
    plain = unicodedata.normalize("NFKD", stored.task_id).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    tail = f"{stored.id}"
    if slug != stored.task_id:
        tail = f"{hashlib.sha256(stored.task_id.encode('utf-8', 'replace')).hexdigest()[:8]}-{tail}"
    slug = slug[: MAX_NAME - len(tail) - 1].strip("-")
    return f"{slug}-{tail}" if slug else f"task-{tail}"


def skill_markdown(stored: StoredSkill) -> str:
    """The text of ``SKILL.md``."""
    task, workflow = _line(stored.task_id), _line(stored.skill.golden_workflow)
    front = {
        "name": skill_name(stored),
        "description": f"Use for task {task[:_QUOTED]}. {workflow[:_QUOTED]}"[:MAX_DESCRIPTION],
        "metadata": {"task": task, "reward": f"{stored.reward:g}", "generator": "skillsd"},
    }
    parts = (
        ("What works", stored.skill.success_analysis),
        ("What to avoid", stored.skill.mistake_analysis),
        ("Workflow", stored.skill.golden_workflow),
    )
    body = "\n\n".join(f"# {title}\n\n{_clean(text)}" for title, text in parts)
    header = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=10_000)
    return f"---\n{header}---\n\n{body}\n"


def export_agent_skills(skills: Iterable[StoredSkill], out: Path) -> int:
    """Write one folder a skill under ``out``; how many. Raises :class:`SkillSDError` where it cannot be written."""
    count = 0
    try:
        for stored in skills:
            folder = out / skill_name(stored)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "SKILL.md").write_text(skill_markdown(stored), encoding="utf-8", newline="\n")
            count += 1
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SkillSDError(f"{out}: cannot be written ({error}); choose another folder") from None
    return count


def _clean(text: str) -> str:
    """Without lone surrogates, which UTF-8 has no place for, and control characters, which YAML has none for."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))


def _line(text: str) -> str:
    return " ".join(_clean(text).split())
