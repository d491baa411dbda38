"""``metrics.jsonl`` as it is found: every good line is kept, and what is not good is told with its place."""

from __future__ import annotations

import codecs
import json
import math
from dataclasses import dataclass, field
from typing import Any

#: Places that are named in one go.
_NAMED = 5
#: Of a number.
_LARGEST = 1e30
#: As in the trajectories' files, where an iteration is an int32.
_MOST = 2**31


@dataclass
class Record:
    """``rows``: one an iteration, in their order. A value that is no number is left out of its row."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    #: The rows as they stand in the file, without what was left out.
    lines: list[bytes] = field(default_factory=list)
    #: What was left out: "line 3 (not valid JSON)".
    faults: list[str] = field(default_factory=list)
    #: The last line has no end: whoever wrote it was killed, or is at it.
    cut: bool = False

    @property
    def damaged(self) -> bool:
        """Whether more is wrong than a last line that was being written."""
        return len(self.faults) > self.cut

    @property
    def note(self) -> str:
        """What was left out, on one line."""
        rest = len(self.faults) - _NAMED
        return f"left out: {', '.join(self.faults[:_NAMED])}{f' and {rest} more' if rest > 0 else ''}"


def read_record(data: bytes) -> Record:
    """The lines of a metrics file. Nothing is raised: the record says what could not be used, and why."""
    record, found = Record(), dict[int, tuple[dict[str, Any], bytes]]()
    lines = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        line = raw.strip().strip(b"\0")  # which is what a power loss leaves of a block that was not written
        try:
            row = _row(line)
        except ValueError as error:
            record.cut = number == len(lines)
            record.faults.append(f"line {number} ({'cut off' if record.cut else error})")
            continue
        kept = {}
        for name, value in row.items():
            if _usable(name, value):
                kept[name] = None if isinstance(value, float) and not math.isfinite(value) else value
            else:
                record.faults.append(f"{name[:40]!r} of line {number} (no number, or too large)")
        iteration = row["iteration"]
        if iteration in found:
            record.faults.append(f"the first of two lines of iteration {iteration}")
        found[iteration] = kept, line if len(kept) == len(row) else json.dumps(kept).encode()
    for _, (kept, line) in sorted(found.items()):
        record.rows.append(kept)
        record.lines.append(line)
    return record


def _row(line: bytes) -> dict[str, Any]:
    """Raises ``ValueError`` with the reason why this is not a line of metrics."""
    if not line:
        raise ValueError("empty bytes")
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except (ValueError, RecursionError):  # JSON that is too deep, or has numbers that are too long, is not ours either
        raise ValueError("not valid JSON") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    iteration = row.get("iteration")
    if type(iteration) is not int or not 1 <= iteration < _MOST:
        raise ValueError("no iteration")
    return row


def _usable(name: str, value: Any) -> bool:
    if name == "alarm":
        return value is None or isinstance(value, str)
    if isinstance(value, bool):
        return False
    # Beyond it nothing can be drawn or summed. What is not finite is a measurement that failed, and becomes None.
    return value is None or (isinstance(value, int | float) and not _LARGEST <= abs(value) < math.inf)
