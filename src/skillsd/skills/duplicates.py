"""Which skills say nearly the same, and how to find them among very many without reading them all.

Two skills are near-duplicates if the Jaccard similarity of their word pairs is at least 95 %. What is so similar shares
a mark of each of two kinds, so looking marks up loses none; the few skills found are compared in full.
"""

from __future__ import annotations

import math
import re
import sqlite3
import zlib
from collections.abc import Mapping
from hashlib import blake2b
from itertools import pairwise

from skillsd.types import Skill

#: Jaccard similarity of words at which two skills of a task say the same.
DUPLICATE = 0.95
#: Skills that are read to compare them with a new one; of more, marks of both kinds have to agree.
_FEW = 16

Pair = tuple[str, str]


def words(skill: Skill) -> list[str]:
    """The words of a skill in their order, labels included."""
    return re.findall(r"\w+", skill.normalized())


def bag(skill: Skill) -> set[Pair]:
    """Pairs of neighbouring words: order matters in a workflow."""
    found = words(skill)
    return set(pairwise(found)) or {(w, "") for w in found}


def same(one: set[Pair], two: set[Pair]) -> bool:
    """Nearly the same words (digits and directions are words too, so other coordinates are another skill)."""
    return len(one & two) >= DUPLICATE * len(one | two)


def part_marks(task_id: str, pairs: set[Pair], stored: bool) -> list[int]:
    """Marks of parts, of which near-duplicates share one: the pigeonhole of PartEnum (Arasu et al., VLDB 2006).

    Of a skill with b pairs at most b / 19 are missing in, or added by, one that is 95 % the same. Split by a hash into
    more parts than that, one part at least is equal. Marks to be ``stored`` are those for the skill's own number of
    parts; to look a skill up takes those for every number that a near-duplicate could have.
    """
    size = len(pairs)
    hashes = [zlib.crc32(" ".join(pair).encode()) for pair in pairs]
    sizes = (size,) if stored else range(-(-19 * size // 20), 20 * size // 19 + 1)
    marks = []
    for parts in sorted({_parts(other) for other in sizes}):
        sums = [0] * parts
        for value in hashes:
            sums[value % parts] += value
        marks += [_mark(task_id, f"part {part} of {parts}: {total}") for part, total in enumerate(sums)]
    return marks


def rare_marks(task_id: str, pairs: set[Pair], age: Mapping[str, int]) -> list[int]:
    """Marks of the rarest pairs, of which near-duplicates share one: prefix filtering (Chaudhuri et al., ICDE 2006).

    At most a twentieth of the pairs is missing in a near-duplicate, so in any fixed order of all pairs the first
    twentieth of one, and a pair more, meets that of the other. First come those with the word that was met last
    (``age`` is its number): it is likely to be the rarest.
    """
    first = sorted(pairs, key=lambda pair: (max(age.get(pair[0], 0), age.get(pair[1], 0)), pair), reverse=True)
    return [_mark(task_id, f"pair {' '.join(pair)}") for pair in first[: len(pairs) // 20 + 1]]


class Wording:
    """What a skill of a task says, and the bank's tables of marks and words, which know what the others say.

    ``ages`` spares looking up words; it gets what is found, and must be emptied when a transaction is undone.
    """

    def __init__(self, db: sqlite3.Connection, ages: dict[str, int], task_id: str, skill: Skill) -> None:
        self._db, self._task_id, self._pairs = db, task_id, bag(skill)
        for word in words(skill):
            if word not in ages:
                ages[word] = self._age(word)
        self._rare = rare_marks(task_id, self._pairs, ages)

    def same(self, other: Skill) -> bool:
        """Does it say (nearly) the same?"""
        return same(self._pairs, bag(other))

    def store(self, identifier: int) -> None:
        """Enters its marks, under its number in the bank."""
        marks = part_marks(self._task_id, self._pairs, stored=True) + self._rare
        rows = [(identifier, mark) for mark in marks]
        self._db.executemany("INSERT OR IGNORE INTO marks (skill_id, mark) VALUES (?, ?)", rows)

    def near(self) -> set[int]:
        """Numbers of stored skills, among them all of the task that are the :meth:`same`."""
        parts = part_marks(self._task_id, self._pairs, stored=False)
        for marks in (parts, self._rare):
            found = self._marked(marks, _FEW)
            if len(found) <= _FEW:
                return found
        return self._marked(parts) & self._marked(self._rare)

    def _age(self, word: str) -> int:
        """Its number in the order in which the bank met its words; a new one gets the next."""
        if row := self._db.execute("SELECT age FROM words WHERE word = ?", (word,)).fetchone():
            return int(row[0])
        return int(self._db.execute("INSERT INTO words (word) VALUES (?)", (word,)).lastrowid or 0)

    def _marked(self, marks: list[int], enough: float = math.inf) -> set[int]:
        """Who has one of the marks; where they are more than ``enough``, some of them."""
        found: set[int] = set()
        for mark in marks:
            for (identifier,) in self._db.execute("SELECT skill_id FROM marks WHERE mark = ?", (mark,)):
                found.add(identifier)
                if len(found) > enough:
                    return found
        return found


def _parts(size: int) -> int:
    """More than ``size`` / 19, rounded up to three binary digits, so that like sizes have like numbers of parts."""
    least = size // 19 + 1
    step = 1 << max(0, least.bit_length() - 3)
    return -(-least // step) * step


def _mark(task_id: str, what: str) -> int:
    """A signed 64-bit number, as SQLite stores it. Two that collide cost a comparison, no result."""
    return int.from_bytes(blake2b(f"{what}\0{task_id}".encode(), digest_size=8).digest(), "big", signed=True)
