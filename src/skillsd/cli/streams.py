"""Standard output and error that outlive their readers."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Lasting(io.FileIO):
    """A file whose reader may go away (``| head``, a terminal that is closed, a full disk): the text is lost then, and
    nothing else."""

    def write(self, data: Any) -> int:
        """As of any file, but nothing is raised."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Let nothing that is printed from now on end this process.

    Streams that somebody has put in place of the real ones stay as they are. A file that is opened later never gets the
    number of one that the caller has closed, as other programs' messages would end up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif type(stream) is io.TextIOWrapper and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            raw = io.BufferedWriter(_Lasting(stream.fileno(), "wb", closefd=False))
            lasting = io.TextIOWrapper(
                raw, stream.encoding, stream.errors, None, stream.line_buffering, stream.write_through
            )
            setattr(sys, name, lasting)
