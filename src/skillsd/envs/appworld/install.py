"""Where the engine and its data are, and how they get there: ``skillsd appworld setup``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from skillsd.errors import SkillSDError, UsageError
from skillsd.system.cache import cache_folder

#: Pythons that the engine's pinned libraries have wheels for.
PYTHONS = ((3, 11), (3, 12))
_HERE = Path(__file__).parent
_DONE = ".installed"


def home() -> Path:
    """The folder of everything: ``$SKILLSD_APPWORLD_HOME``, by default ``skillsd/appworld`` in the user's cache."""
    named = os.environ.get("SKILLSD_APPWORLD_HOME")
    return Path(named).expanduser().absolute() if named else cache_folder() / "appworld"


@dataclass(frozen=True)
class Engine:
    """An installed engine: its Python, and the folder that it unpacked its tests to."""

    python: Path
    cache: Path


def is_installed() -> bool:
    """Whether the engine of :func:`home` was wholly set up."""
    return (home() / "venv" / _DONE).is_file()


def find_engine() -> Engine:
    """The engine of :func:`home`. Raises :class:`UsageError` if it was not (wholly) set up."""
    if not is_installed():
        raise UsageError(f"no AppWorld engine in {home()}: run `skillsd appworld setup` (or set SKILLSD_APPWORLD_HOME)")
    return Engine(home() / "venv" / "bin" / "python", home() / "cache")


def data_root(data: str) -> Path:
    """The folder that ``data`` names: ``pack``, ``official``, or a path.

    Raises :class:`UsageError` if it is not a whole data root.
    """
    root = home() / data if data in ("pack", "official") else Path(data).expanduser().absolute()
    missing = [name for name in ("datasets", "tasks", "base_dbs", "api_docs") if not (root / "data" / name).is_dir()]
    if data == "pack" and not missing and not (root / "pack.json").is_file():
        missing = ["pack.json"]
    if missing:
        remedy = "" if root.is_dir() and data not in ("pack", "official") else "; run `skillsd appworld setup`"
        raise UsageError(f"appworld: {root} is no whole data root: it lacks {', '.join(missing)}{remedy}")
    return root


def setup(tell: Callable[[str], None], *, data: bool = True, python: str | None = None) -> None:
    """Install the engine, unpack it, build our pack and, if ``data``, try to fetch the official data; ``tell`` hears
    what is going on. What is there already is kept, what was begun and not finished is done again.

    Raises :class:`SkillSDError` (one line) for a step that fails. That the official data cannot be fetched is told,
    not raised.
    """
    folder = home()
    if not is_installed():
        _install(folder, python or _python(), tell)
    else:
        tell(f"engine: already in {folder / 'venv'}")
    build_pack(tell)
    if data:
        _fetch(folder, tell)


def require_confinement(engine: Engine) -> None:
    """Raise :class:`UsageError` where the system cannot keep an agent's code to itself."""
    lacking = [name for name, held in _confinement(engine.python).items() if not held]
    if lacking:
        raise UsageError(
            f"appworld: this system cannot keep agents' code away from {', '.join(lacking)} (that takes Linux 5.13 or "
            "newer with Landlock and seccomp): use another machine, or, in a container of its own or for a model that "
            "you trust, set env.options.allow_unconfined=true"
        )


@cache
def _confinement(python: Path) -> dict[str, bool]:
    """What would be held in a process of the engine's: one tries it on itself."""
    found = run([str(python), str(_HERE / "engine" / "confine.py")], "trying what confines an agent here")
    return dict(json.loads(found))


def build_pack(tell: Callable[[str], None]) -> None:
    """Build our task pack unless it is there as these sources make it. Raises :class:`SkillSDError`."""
    engine, script, root = find_engine(), _HERE / "pack" / "build.py", home() / "pack"
    digest = run([str(engine.python), str(script), "--digest"], "reading the pack's sources").strip()
    if (root / "pack.json").is_file() and json.loads((root / "pack.json").read_text("utf-8")).get("digest") == digest:
        tell(f"pack: already in {root}")
        return
    tell("pack: building the tasks (a minute or so)")
    run([str(engine.python), str(script), "--root", str(root)], "building the pack", cache=engine.cache)
    tell(f"pack: {len(json.loads((root / 'pack.json').read_text('utf-8'))['tasks'])} tasks in {root}")


def _python() -> str:
    if sys.version_info[:2] in PYTHONS:
        return sys.executable
    for major, minor in PYTHONS:
        if found := shutil.which(f"python{major}.{minor}"):
            return found
    raise UsageError("the AppWorld engine needs Python 3.11 or 3.12: name one with --python")


def _install(folder: Path, python: str, tell: Callable[[str], None]) -> None:
    tell(f"engine: installing it into {folder / 'venv'} (230 MB)")
    shutil.rmtree(folder / "venv", ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SkillSDError(f"{folder} cannot be made ({error.strerror})") from None
    run([python, "-m", "venv", str(folder / "venv")], "making a virtual environment")
    own = str(folder / "venv" / "bin" / "python")
    pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run([*pip, "-r", str(_HERE / "requirements.txt")], "installing the engine with pip")
    tell("engine: unpacking it")
    run([own, "-m", "appworld.cli", "install"], "unpacking the engine", cache=folder / "cache")
    (folder / "venv" / _DONE).touch()


def _fetch(folder: Path, tell: Callable[[str], None]) -> None:
    if (folder / "official" / "data" / "datasets").is_dir():
        tell(f"official data: already in {folder / 'official'}")
        return
    tell("official data: fetching it (some 200 MB)")
    own, part = folder / "venv" / "bin" / "python", folder / "official.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    command = [str(own), "-m", "appworld.cli", "download", "data", "--root", str(part)]
    try:
        run(command, "fetching", cache=folder / "cache", timeout=600)
        if not (part / "data" / "datasets").is_dir():
            raise SkillSDError("nothing usable came")
    except SkillSDError as error:
        tell(f"official data: not fetched ({error}); the pack works without it. Put it into {folder / 'official'} or "
             "name its folder with env.options.data")  # fmt: skip
    else:
        part.rename(folder / "official")
        tell(f"official data: in {folder / 'official'}")
    finally:
        shutil.rmtree(part, ignore_errors=True)


def run(command: Sequence[str], what: str, *, cache: Path | None = None, timeout: float = 1800) -> str:
    """The output of ``command``. Raises :class:`SkillSDError` with the last line of what it said."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if cache is not None:
        env["APPWORLD_CACHE"] = str(cache)  # else it writes to the home folder
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=env, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SkillSDError(f"{what} failed: {error}") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise SkillSDError(f"{what} failed: {lines[-1][:300] if lines else f'exit code {done.returncode}'}")
    return done.stdout
