"""Exported skills against the rules of the Agent Skills specification, read back with a YAML parser."""

import re
import subprocess
import sys

import pytest
import yaml

from skillsd.errors import SkillSDError
from skillsd.skills import Skill, SkillBank
from skillsd.skills.agent_skills import export_agent_skills

HOSTILE = [
    "sokoban-test-001", "", "---", "../../etc/passwd", "a: b # c", "'\"{}[]&*!|>%@`", "Ünïcödé", "推箱子", "x" * 500,
    "-lead--double-", "UPPER", "upper", "a\nname: other\n---\n", "\u2028\u0085\u202e", "\x00\x07\x7f", "💥",
    "null", "1e3", "a/b\\c", "CON", "a" * 63 + "-b", "\ufeff", "\ud800",
]  # fmt: skip
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def stored_skills(tmp_path, texts):
    bank = SkillBank(tmp_path / "skills.sqlite")
    for i, task_id in enumerate(task for task in HOSTILE if task != "\ud800"):
        text = texts[i % len(texts)]
        bank.add(task_id, Skill(success_analysis=text, mistake_analysis="none", golden_workflow=text), 0.5)
    return bank.skills()


def parsed(file):
    text = file.read_text("utf-8")
    assert text.startswith("---\n")
    header, body = text[4:].split("\n---\n", 1)
    return yaml.safe_load(header), body


@pytest.mark.parametrize(
    "texts", [["Go up."], ["---\nname: x\n---\n# h", "a: b\n- c\n\x00", "'\" \\ \t💥 推箱子"], ["word " * 790]]
)
def test_every_folder_is_a_skill_by_the_specification(tmp_path, texts):
    skills = stored_skills(tmp_path, texts)
    out = tmp_path / "out"
    assert export_agent_skills(skills, out) == len(skills) > 20
    folders = sorted(out.iterdir())
    assert len(folders) == len(skills)
    for folder in folders:
        assert [file.name for file in folder.iterdir()] == ["SKILL.md"]
        front, body = parsed(folder / "SKILL.md")
        assert set(front) <= {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
        assert front["name"] == folder.name
        assert NAME.fullmatch(front["name"])
        assert len(front["name"]) <= 64
        assert isinstance(front["description"], str)
        assert 0 < len(front["description"].strip()) <= 1024
        assert all(isinstance(k, str) and isinstance(v, str) for k, v in front["metadata"].items())
        assert all(title in body for title in ("# What works", "# What to avoid", "# Workflow"))
    assert {path.name for path in tmp_path.iterdir()} == {"out", "skills.sqlite"}


def test_a_second_export_writes_the_same(tmp_path):
    skills = stored_skills(tmp_path, ["Go up."])
    export_agent_skills(skills, tmp_path / "a")
    export_agent_skills(skills, tmp_path / "a")
    assert len(list((tmp_path / "a").iterdir())) == len(skills)


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SkillSDError, match="cannot be written"):
        export_agent_skills(stored_skills(tmp_path, ["Go."]), tmp_path / "file")


def test_the_command_exports_both_formats_and_refuses_bad_usage(tmp_path):
    stored_skills(tmp_path, ["Go up."])

    def run(*arguments):
        command = [sys.executable, "-m", "skillsd", "skills", "export", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    done = run(tmp_path, "--format", "agent-skills", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*/SKILL.md"))) > 20
    assert run(tmp_path, tmp_path / "skills.jsonl").returncode == 0
    for arguments in ([tmp_path], [tmp_path, "--format", "yaml", "--out", "x"], [tmp_path / "no", "--out", "x"]):
        assert run(*arguments).returncode == 2
