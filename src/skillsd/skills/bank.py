"""The skill bank: one SQLite file, safe across processes, the same for every process that reads it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skillsd.errors import SkillSDError, UsageError
from skillsd.skills import schema
from skillsd.skills.duplicates import DUPLICATE as DUPLICATE  # where version 0.1 had it
from skillsd.skills.duplicates import Wording
from skillsd.skills.retrieval import choose, choose_among_best
from skillsd.types import Skill

#: Of a reward: sums of them stay finite.
_LARGEST = 1e30
#: Of a task.
_COUNTS = ("retrievals", "added", "duplicates", "evicted")


@dataclass(frozen=True)
class Source:
    """Where a skill came from."""

    trajectory_id: str
    iteration: int


@dataclass(frozen=True)
class StoredSkill:
    """A skill with its record. ``mean_reward`` is what retrieval believes of it, under the bank's ``credit``."""

    id: int
    task_id: str
    skill: Skill
    reward: float
    source: Source | None
    chosen: int
    mean_reward: float


class _Candidate(NamedTuple):
    """What retrieval looks at of a skill."""

    id: int
    chosen: int
    mean_reward: float


@dataclass(frozen=True)
class TaskStats:
    """Counts for one task, or summed over all."""

    skills: int
    retrievals: int
    added: int
    duplicates: int
    evicted: int


class SkillBank:
    """Skills per task, at most ``capacity`` each, retrieved by UCB with constant ``exploration``.

    ``credit`` says which reading of the paper's "mean reward of e" counts: ``group``, the mean group reward of the
    iterations whose teacher read it (before the first: the source's), or ``source``, the reward of the trajectory it
    came from; with ``separation`` what :meth:`credit` is told is no reward but how well the skill's reader told better
    trajectories from worse. Raises :class:`SkillSDError` for a file that is not such a bank or cannot be opened, and
    for one that is not there unless it is to ``create`` it; one that may only be read opens, and refuses the first
    change; one of version 0.1 opens, and its first change upgrades it. Threads may share one object.

    Times do not grow with the skills of a task: what :meth:`add` and :meth:`retrieve` need is found in indexes.
    """

    def __init__(
        self,
        path: str | Path,
        capacity: int = 8,
        exploration: float = 2**0.5,
        credit: schema.Credit = "group",
        create: bool = True,
    ) -> None:
        if capacity < 1:
            raise UsageError(f"a skill bank's capacity must be at least 1 skill a task, not {capacity}")
        self.path, self.capacity, self.exploration, self.credit_rule = Path(path), capacity, exploration, credit
        self._lock = threading.RLock()
        self._upgraded = False
        self._ages: dict[str, int] = {}  # of words, as the file has them
        if self.path.exists() and not self.path.is_file():
            raise SkillSDError(f"{self.path}: not a usable skill bank (no regular file)")
        if not create and self.path.is_file() and not self.path.stat().st_size:
            raise SkillSDError(f"{self.path}: not a usable skill bank (the file is empty); checkpoints hold copies")
        with self._errors("not a usable skill bank"):
            where = f"{self.path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
            self._db = sqlite3.connect(where, uri=True, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._db.text_factory = _text
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def add(self, task_id: str, skill: Skill, reward: float, source: Source | None = None) -> int | None:
        """Store a skill; its id, or None if the task has one that says (nearly) the same.

        When the task is full, the skill of the lowest mean reward goes, the oldest among equals: what is known to
        be bad makes room first. The new skill itself always enters, or a full bank would never learn. Raises
        :class:`SkillSDError`, here and in :meth:`credit`, for a reward that no mean could be made of.
        """
        reward = self._number("reward", reward)
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO tasks (task_id) VALUES (?)", (task_id,))
            self._check_skills(task_id)
            wording = Wording(db, self._ages, task_id, skill)
            near = (stored for number in wording.near() for stored in self._load("WHERE id = ?", number))
            if any(stored.task_id == task_id and wording.same(stored.skill) for stored in near):
                db.execute("UPDATE tasks SET duplicates = duplicates + 1 WHERE task_id = ?", (task_id,))
                return None
            evicted = self._make_room(task_id)
            db.execute(
                "UPDATE tasks SET added = added + 1, evicted = evicted + ? WHERE task_id = ?", (evicted, task_id)
            )
            cursor = db.execute(
                "INSERT INTO skills (task_id, skill, reward, trajectory_id, iteration, checked) "
                "VALUES (?, ?, ?, ?, ?, 1)",
                (
                    task_id,
                    skill.model_dump_json(),
                    reward,
                    source.trajectory_id if source else None,
                    source.iteration if source else None,
                ),
            )
            identifier = cursor.lastrowid or 0
            wording.store(identifier)
            return identifier

    def retrieve(self, task_id: str) -> StoredSkill | None:
        """The best skill for the task by UCB, and count the choice; None if the bank has nothing for it."""
        with self._transaction() as db:
            self._check_counts("WHERE task_id = ?", task_id)
            row = db.execute("SELECT retrievals FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
            total = row[0] if row else 0
            self._check_skills(task_id)
            best = choose_among_best(self._best(task_id), self._next_best(task_id), total, self.exploration)
            if best is None:
                return None
            (stored,) = self._load("WHERE id = ?", best.id)
            db.execute("UPDATE skills SET chosen = chosen + 1 WHERE id = ?", (best.id,))
            db.execute("UPDATE tasks SET retrievals = retrievals + 1 WHERE task_id = ?", (task_id,))
            return stored

    def retrieve_any(self, task_ids: Sequence[str]) -> StoredSkill | None:
        """The best skill by UCB of all that these tasks have, and count the choice; None if the bank has none."""
        with self._transaction() as db:
            found = [candidate for task_id in task_ids for candidate in self._best(task_id)]
            best = choose(found, sum(candidate.chosen for candidate in found), self.exploration)
            if best is None:
                return None
            (stored,) = self._load("WHERE id = ?", best.id)
            db.execute("UPDATE skills SET chosen = chosen + 1 WHERE id = ?", (best.id,))
            db.execute("UPDATE tasks SET retrievals = retrievals + 1 WHERE task_id = ?", (stored.task_id,))
            return stored

    def credit(self, skill_id: int, reward: float) -> None:
        """Record the mean group reward (or separation) of an iteration whose teacher read this skill; unknown ids
        (evicted meanwhile) are ignored."""
        reward = self._number("credit", reward)
        with self._transaction() as db:
            db.execute(
                "UPDATE skills SET credits = credits + 1, credit_sum = credit_sum + ? WHERE id = ?",
                (reward, skill_id),
            )

    def skills(self, task_id: str | None = None, warn: Callable[[str], None] | None = None) -> list[StoredSkill]:
        """All skills, or one task's, oldest first. With ``warn``, that is told of damaged ones, which are left out."""
        where, arguments = ("", ()) if task_id is None else ("WHERE task_id = ?", (task_id,))
        with self._lock, self._errors():
            return self._load(where, *arguments, warn=warn)

    def stats(self, task_id: str | None = None) -> TaskStats:
        """Counts for one task, or over all tasks, as of one moment."""
        where, arguments = ("", ()) if task_id is None else ("WHERE task_id = ?", (task_id,))
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in _COUNTS)
        with self._lock, self._errors():
            self._check_counts(where, *arguments)
            counts = self._db.execute(
                f"SELECT (SELECT count(*) FROM skills {where}), {sums} FROM tasks {where}", arguments * 2
            ).fetchone()
        return TaskStats(*counts)

    def backup(self, path: str | Path) -> None:
        """A consistent copy, also while other processes write (SQLite's backup)."""
        with self._lock, self._errors(f"could not be copied to {path}"):
            target = sqlite3.connect(path)
            try:
                self._db.backup(target)
            finally:
                target.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _prepare(self) -> None:
        if self._empty():
            with self._transaction(upgrade=False) as db:  # the tables appear all at once, or not at all
                if self._empty():  # still: no other process was quicker
                    for statement in schema.OLD_TABLES:
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
                    self._upgrade()
        program, version = self._pragma("application_id"), self._pragma("user_version")
        if program != schema.APPLICATION_ID or version not in (schema.OLD_VERSION, schema.VERSION):
            ours = f" (its schema is {version}, not {schema.VERSION})" if program == schema.APPLICATION_ID else ""
            raise SkillSDError(
                f"{self.path}: an SQLite file, but not a skill bank of this version{ours}; choose another path"
            )

    def _upgrade(self) -> None:
        """What version 0.1 did not have, and the indexes for this rule of credit."""
        statements = schema.indexes(self.credit_rule)
        if self._pragma("user_version") != schema.VERSION:
            statements = (*schema.UPGRADE, *statements, f"PRAGMA user_version = {schema.VERSION}")
        for statement in statements:
            self._db.execute(statement)

    def _empty(self) -> bool:
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return tables == 0 and self._pragma("application_id") == 0

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self, upgrade: bool = True) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if upgrade and not self._upgraded:
                    self._upgrade()
                yield self._db
                self._db.execute("COMMIT")
                self._upgraded |= upgrade
            except BaseException:
                self._ages.clear()
                if self._db.in_transaction:  # a full disk, for one, has rolled back already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self, what: str = "the skill bank failed") -> Iterator[None]:
        try:
            yield
        except (
            sqlite3.Error,
            UnicodeError,
            OverflowError,
        ) as error:  # of texts, numbers it lacks
            raise SkillSDError(f"{self.path}: {what} ({error})") from None

    def _number(self, name: str, value: float) -> float:
        if not abs(value) <= _LARGEST:
            raise SkillSDError(f"{self.path}: a {name} must be a number within {_LARGEST:g}, not {value:g}")
        return float(value)

    def _check_counts(self, where: str, *arguments: str) -> None:
        """Raises :class:`SkillSDError` if a task's counts are none; SQLite would take any text for a number."""
        wrong = " OR ".join(f"typeof({name}) != 'integer' OR {name} < 0" for name in _COUNTS)
        query = f"SELECT task_id FROM (SELECT * FROM tasks {where}) WHERE {wrong}"
        if row := self._db.execute(query, arguments).fetchone():
            raise self._corrupt_counts(row[0])

    def _corrupt_counts(self, task_id: object) -> SkillSDError:
        return SkillSDError(f"{self.path}: the counts of task {str(task_id)[:100]!r} are corrupt")

    def _check_skills(self, task_id: str) -> None:
        """Raises :class:`SkillSDError` if a skill of the task is damaged; reads those that nobody has checked yet."""
        for stored in self._load(f"INDEXED BY skills_unchecked WHERE task_id = ? AND {schema.UNCHECKED}", task_id):
            Wording(self._db, self._ages, task_id, stored.skill).store(stored.id)
            self._db.execute("UPDATE skills SET checked = 1 WHERE id = ?", (stored.id,))

    def _make_room(self, task_id: str) -> int:
        """Evicts what the task has too many when another one comes; how many."""
        (size,) = self._db.execute("SELECT skills FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
        if not isinstance(size, int) or size < 0:
            raise self._corrupt_counts(task_id)
        if size < self.capacity:
            return 0
        name, mean = schema.by_mean(self.credit_rule)
        surplus = self._db.execute(
            f"SELECT id FROM skills INDEXED BY {name} WHERE task_id = ? ORDER BY {mean}, id LIMIT ?",
            (task_id, size + 1 - self.capacity),
        ).fetchall()
        self._db.executemany("DELETE FROM skills WHERE id = ?", surplus)
        return len(surplus)

    def _best(self, task_id: str) -> list[_Candidate]:
        """The newest unseen skill, or, where all were retrieved, the best of each number of retrievals."""
        name, preference = schema.by_count(self.credit_rule)
        first = f"ORDER BY chosen DESC, {preference} DESC, id DESC LIMIT 1"
        columns, where = (
            f"id, chosen, {schema.mean(self.credit_rule)}",
            f"skills INDEXED BY {name} WHERE task_id = :task",
        )
        if row := self._db.execute(
            f"SELECT {columns} FROM {where} AND chosen = 0 {first}", {"task": task_id}
        ).fetchone():
            return [_Candidate(*row)]
        rows = self._db.execute(
            "WITH RECURSIVE best(id, chosen, mean) AS ("
            f"SELECT {columns} FROM skills WHERE id = (SELECT id FROM {where} {first}) UNION ALL "
            f"SELECT s.* FROM best JOIN (SELECT {columns} FROM skills) s "
            f"ON s.id = (SELECT id FROM {where} AND chosen < best.chosen {first})) SELECT * FROM best",
            {"task": task_id},
        )
        return [_Candidate(*row) for row in rows]

    def _next_best(self, task_id: str) -> Callable[[_Candidate], _Candidate | None]:
        """Gives the best skill among those with as many retrievals as the one given and a lower mean reward."""
        name, preference = schema.by_count(self.credit_rule)
        query = (
            f"SELECT id, chosen, {schema.mean(self.credit_rule)} FROM skills INDEXED BY {name} "
            f"WHERE task_id = ? AND chosen = ? AND {preference} < ? ORDER BY {preference} DESC, id DESC LIMIT 1"
        )

        def below(one: _Candidate) -> _Candidate | None:
            row = self._db.execute(query, (task_id, one.chosen, one.mean_reward)).fetchone()
            return _Candidate(*row) if row else None

        return below

    def _load(self, where: str, *arguments: str | int, warn: Callable[[str], None] | None = None) -> list[StoredSkill]:
        rows = self._db.execute(
            "SELECT id, task_id, skill, reward, trajectory_id, iteration, chosen, credits, credit_sum "
            f"FROM skills {where} ORDER BY id",
            arguments,
        )
        found, damaged = [], []
        for row in rows:
            try:
                found.append(self._stored(*row))
            except SkillSDError as error:
                if warn is None:
                    raise
                damaged.append(error)
        if warn and damaged:
            warn(f"{damaged[0]}{f', and {len(damaged) - 1} more' if damaged[1:] else ''}: left out")
        return found

    def _stored(
        self, id: int, task_id: str, skill: str, reward: float, trajectory_id: str | None, iteration: int | None,
        chosen: int, credits: int, credit_sum: float,
    ) -> StoredSkill:  # fmt: skip
        source = None if trajectory_id is None or iteration is None else Source(trajectory_id, iteration)
        try:
            row = _Row(
                task_id=task_id, skill=skill, reward=reward, trajectory_id=trajectory_id, iteration=iteration,
                chosen=chosen, credits=credits, credit_sum=credit_sum,
            )  # fmt: skip
            mean = row.credit_sum / credits if self.credit_rule != "source" and credits else row.reward
            return StoredSkill(id, task_id, Skill.parse(skill), row.reward, source, chosen, mean)
        except ValidationError as error:
            where, reason = error.errors()[0]["loc"][0], error.errors()[0]["msg"]
            raise SkillSDError(f"{self.path}: skill {id} is corrupt ({where}: {reason})") from None
        except SkillSDError as error:
            raise SkillSDError(f"{self.path}: skill {id} is corrupt ({error})") from None


class _Row(BaseModel):
    """What SQLite's columns, which take anything, have to hold."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    task_id: str
    skill: str
    reward: float
    trajectory_id: str | None
    iteration: int | None
    chosen: int = Field(ge=0)
    credits: int = Field(ge=0)
    credit_sum: float


def _text(raw: bytes) -> str | bytes:
    """What is no UTF-8 stays bytes, so that its row can be told of."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
