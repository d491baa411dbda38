"""Files and folders that appear whole or not at all, and one process at a time in a folder.

Whoever reads, or goes on after a kill or a power loss, finds the old or the new, never half of it. Names that begin
with a dot and end in ``.tmp``, ``.old`` or ``.deleted`` are what a killed process left: :func:`tidy` makes up for them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skillsd.errors import SkillSDError, UsageError, reason

#: Bytes of a text that people write.
LARGEST_TEXT = 1_000_000


def read_text(path: str | Path, largest: int = LARGEST_TEXT) -> str:
    """The text of a file that somebody named: a regular one of at most ``largest`` bytes of UTF-8.

    Raises :class:`UsageError` for anything else; the message says what is wrong, the caller which file it is.
    """
    try:
        path = Path(path).expanduser()
        if not path.is_file():  # a device or a pipe might never end
            raise UsageError("it is no regular file" if path.exists() else "there is no such file")
        with path.open("rb") as file:
            raw = file.read(largest + 1)
    except (OSError, ValueError, RuntimeError) as error:  # no possible name, nobody's home
        raise UsageError(getattr(error, "strerror", None) or reason(error)) from None
    if len(raw) > largest:
        raise UsageError(f"it has more than {largest} bytes")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"byte {error.start} is no UTF-8; save it as UTF-8") from None


def regular(path: Path) -> Path:
    """``path``. Raises ``OSError`` unless it is, or leads to, a regular file: a pipe might never end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to; it takes ``path``'s place, and is on disk, when the block ends without an exception."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def put_in_place(folder: Path, final: Path) -> None:
    """Rename ``folder`` to ``final``, which it replaces if that is there. All of it is on disk when this returns."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
    aside = final.with_name(f".{final.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        os.replace(final, aside)
    os.replace(folder, final)
    sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def remove(path: Path) -> None:
    """Delete a folder so that it is never seen half-deleted under its own name."""
    if path.exists():
        doomed = path.with_name(f".{path.name}.deleted")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def tidy(folder: Path, *names: str) -> None:
    """Finish, or undo, what a killed process had begun with those ``names`` (patterns) in ``folder``.

    Nobody else may be writing them.
    """
    for path in (found for name in names for found in sorted(folder.glob(f".{name}.*"))):
        final = path.with_name(path.name[1:].removesuffix(".old"))
        if path.suffix == ".old" and not final.exists():
            os.replace(path, final)  # its successor did not come
        elif path.suffix in (".old", ".tmp", ".deleted"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # not every file system can do that for a folder
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(file: Path, refusal: str) -> Iterator[int]:
    """Hold ``file`` for this process; yields its descriptor, which child processes may inherit to hold it too.

    The system lets go of it however the process ends. The file, and folders that were made for it, are gone afterwards
    if nothing else was put into them. Raises :class:`UsageError` with the text ``refusal`` while somebody else holds
    it (nothing is changed then), and :class:`SkillSDError` where nothing can be written.
    """
    made = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    try:
        descriptor = _hold(file, refusal)
        try:
            yield descriptor
        finally:
            file.unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        with suppress(OSError):  # not empty, as it should be
            for folder in made:
                folder.rmdir()


def _hold(file: Path, refusal: str) -> int:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it before may have taken the file away meanwhile: then this is another file's lock.
                if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    except BlockingIOError:
        raise UsageError(refusal) from None
    except OSError as error:
        raise SkillSDError(f"{file.parent}: cannot be written ({error.strerror})") from None
