"""The tables of a skill bank's file, and how one of version 0.1 gets what it lacks."""

from __future__ import annotations

from typing import Literal

Credit = Literal["source", "group", "separation"]

APPLICATION_ID = 0x5D5D0001
VERSION = 2
#: Version 0.1 made these: they can be read as they are, and the first change upgrades them.
OLD_VERSION = 1

#: What version 0.1 had.
OLD_TABLES = (
    """CREATE TABLE skills (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id TEXT NOT NULL,
    skill TEXT NOT NULL,
    reward REAL NOT NULL,
    trajectory_id TEXT,
    iteration INTEGER,
    chosen INTEGER NOT NULL DEFAULT 0,
    credits INTEGER NOT NULL DEFAULT 0,
    credit_sum REAL NOT NULL DEFAULT 0
)""",
    "CREATE INDEX skills_by_task ON skills (task_id)",
    """CREATE TABLE tasks (
    task_id TEXT PRIMARY KEY,
    retrievals INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    evicted INTEGER NOT NULL DEFAULT 0
)""",
)

#: Rows that have to be read before their task is used: not yet checked, changed by others, or no numbers.
UNCHECKED = (
    "(checked != 1 OR typeof(chosen) != 'integer' OR chosen < 0 OR typeof(credits) != 'integer' OR credits < 0 "
    "OR typeof(credit_sum) != 'real' OR credit_sum - credit_sum IS NOT 0.0)"  # infinity less itself is NULL
)

#: A number of skills a task that needs no counting; marks for finding near-duplicates, ages of words for making marks.
#: The triggers see what other programs change, too.
UPGRADE = (
    "INSERT OR IGNORE INTO tasks (task_id) SELECT DISTINCT task_id FROM skills",
    "ALTER TABLE tasks ADD COLUMN skills INTEGER NOT NULL DEFAULT 0",
    "UPDATE tasks SET skills = (SELECT count(*) FROM skills WHERE skills.task_id = tasks.task_id)",
    "ALTER TABLE skills ADD COLUMN checked INTEGER NOT NULL DEFAULT 0",
    f"CREATE INDEX skills_unchecked ON skills (task_id) WHERE {UNCHECKED}",
    "CREATE TABLE words (age INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE)",
    "CREATE TABLE marks (skill_id INTEGER, mark INTEGER, PRIMARY KEY (skill_id, mark)) WITHOUT ROWID",
    "CREATE INDEX skills_by_mark ON marks (mark)",
    """CREATE TRIGGER skill_entered AFTER INSERT ON skills BEGIN
    INSERT OR IGNORE INTO tasks (task_id) VALUES (new.task_id);
    UPDATE tasks SET skills = skills + 1 WHERE task_id = new.task_id;
END""",
    """CREATE TRIGGER skill_left AFTER DELETE ON skills BEGIN
    UPDATE tasks SET skills = skills - 1 WHERE task_id = old.task_id;
    DELETE FROM marks WHERE skill_id = old.id;
END""",
    """CREATE TRIGGER skill_changed AFTER UPDATE OF id, task_id, skill, reward, trajectory_id, iteration ON skills BEGIN
    INSERT OR IGNORE INTO tasks (task_id) VALUES (new.task_id);
    UPDATE tasks SET skills = skills - 1 WHERE task_id = old.task_id;
    UPDATE tasks SET skills = skills + 1 WHERE task_id = new.task_id;
    UPDATE skills SET checked = 0 WHERE id = new.id;
    DELETE FROM marks WHERE skill_id IN (old.id, new.id);
END""",
)


def mean(credit: Credit) -> str:
    """The mean reward of a row of ``skills``, as SQL."""
    return "reward" if credit == "source" else "coalesce(credit_sum / credits, reward)"


def by_count(credit: Credit) -> tuple[str, str]:
    """Index of a task's skills by retrievals and, among those of equally many, in rising order of preference: by mean
    reward, or by age alone where there were none. Its name, and the expression that is its last column."""
    return f"skills_by_count_{_rule(credit)}", f"CASE WHEN chosen THEN {mean(credit)} END"


def by_mean(credit: Credit) -> tuple[str, str]:
    """Index of a task's skills by mean reward; its name, and the expression."""
    return f"skills_by_mean_{_rule(credit)}", mean(credit)


def indexes(credit: Credit) -> tuple[str, ...]:
    """Statements that make the two indexes where they are missing: a bank has them for the rules that it was used
    with."""
    (count, preference), (name, value) = by_count(credit), by_mean(credit)
    return (
        f"CREATE INDEX IF NOT EXISTS {count} ON skills (task_id, chosen, {preference})",
        f"CREATE INDEX IF NOT EXISTS {name} ON skills (task_id, {value})",
    )


def _rule(credit: Credit) -> str:
    return "source" if credit == "source" else "credits"
