"""What can befall a file, and the command line that meets it."""

import sqlite3
import sys

import pytest

from skillsd.cli import main


def edit(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def sql(statement):
    def change(path):
        with sqlite3.connect(path) as raw:
            raw.execute(statement)

    return change


def a_folder(path):
    path.unlink()
    path.mkdir()


def flipped(data):
    place = 2 * len(data) // 3
    return data[:place] + bytes([data[place] ^ 129]) + data[place + 1 :]


def command(monkeypatch, *arguments):
    """Exit code of the command line, which must never end in another exception."""
    monkeypatch.setattr(sys, "argv", ["skillsd", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code
