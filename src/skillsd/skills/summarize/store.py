"""Summaries that were paid for once, and what was spent: one SQLite file, safe across threads and processes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skillsd.errors import SkillSDError
from skillsd.system.files import regular

_SCHEMA = """
CREATE TABLE IF NOT EXISTS summaries (key TEXT PRIMARY KEY, skill TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (id INTEGER PRIMARY KEY CHECK (id = 0), calls INTEGER NOT NULL, tokens INTEGER NOT NULL);
INSERT OR IGNORE INTO spent VALUES (0, 0, 0);
"""  # noqa: E501


class BudgetSpent(SkillSDError):
    """No call is left."""


class SummaryStore:
    """The cache of summaries and the count of calls and tokens, which limits hold for.

    ``path`` None keeps both in memory. Several runs may share a file, and then its budget. Raises
    :class:`SkillSDError` for a file that cannot be used.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path).expanduser()
        self._lock = threading.Lock()
        with self._errors():
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self.path.exists():
                    regular(self.path)
            name = ":memory:" if self.path is None else str(self.path)
            self._db = sqlite3.connect(name, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._db.text_factory = lambda raw: raw.decode("utf-8", "replace")
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            if self._db.execute("SELECT 1 FROM spent WHERE NOT (calls >= 0 AND tokens >= 0) OR "
                                "typeof(calls) != 'integer' OR typeof(tokens) != 'integer'").fetchone():  # fmt: skip
                raise sqlite3.DataError("what was spent is no number")

    def get(self, key: str) -> str | None:
        """The skill (JSON) that was stored under ``key``; where the file came to harm it may be any text."""
        with self._errors():
            row = self._db.execute("SELECT skill FROM summaries WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def forget(self, key: str) -> None:
        """Drop what is stored under ``key``."""
        with self._errors():
            self._db.execute("DELETE FROM summaries WHERE key = ?", (key,))

    def put(self, key: str, skill: str) -> None:
        """Keep ``skill``; what another process stored first stays."""
        with self._errors():
            self._db.execute("INSERT OR IGNORE INTO summaries VALUES (?, ?)", (key, skill))

    def spend_call(self, max_calls: int, max_tokens: int) -> None:
        """Count one call. Raises :class:`BudgetSpent` if none is left (0: no limit); nothing is counted then."""
        with self._errors():
            done = self._db.execute(
                "UPDATE spent SET calls = calls + 1 WHERE (? = 0 OR calls < ?) AND (? = 0 OR tokens < ?)",
                (max_calls, max_calls, max_tokens, max_tokens),
            )
            if done.rowcount == 0:
                calls, tokens = self._db.execute("SELECT calls, tokens FROM spent").fetchone()
                raise BudgetSpent(
                    f"the budget is spent ({calls} calls, {tokens} tokens): raise summarizer.max_calls or "
                    "summarizer.max_tokens"
                )

    def spend_tokens(self, tokens: int) -> None:
        """Count the tokens of an answered call."""
        with self._errors():
            self._db.execute("UPDATE spent SET tokens = tokens + ?", (tokens,))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as error:
            raise SkillSDError(
                f"summarizer.cache: {self.path} cannot be used ({error}); if it is damaged, move it away"
            ) from None
