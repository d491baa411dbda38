"""What of AppWorld is set up here, and what confines an agent: for people to read."""

from __future__ import annotations

from typing import Any

from skillsd.envs.appworld.install import data_root, find_engine, home, run
from skillsd.envs.appworld.servers import Pool
from skillsd.errors import SkillSDError, UsageError


def state(start: bool = False) -> dict[str, Any]:
    """What is set up; with ``start`` also what confines an agent here, for which a server is started."""
    found: dict[str, Any] = {"home": str(home())}
    try:
        engine = find_engine()
        found["engine"] = (
            run([str(engine.python), "-m", "pip", "show", "appworld"], "pip").split("\n")[1].removeprefix("Version: ")
        )
    except SkillSDError as error:
        return {**found, "engine": str(error), "ok": False}
    for data in ("pack", "official"):
        try:
            names = sorted(path.stem for path in (data_root(data) / "data" / "datasets").glob("*.txt"))
            found[data] = f"there, with the splits {', '.join(names)}"
        except UsageError as error:
            found[data] = str(error) if (home() / data).is_dir() else "not there"
    found["ok"] = found["pack"].startswith("there") or found["official"].startswith("there")
    if start and found["ok"]:
        pool = Pool(engine, data_root("pack" if found["pack"].startswith("there") else "official"), 1)
        try:
            with pool.lend() as server:
                held = [name for name, there in server.state.items() if there]
            found["confined"] = f"agents' code has no access to {' or '.join(held) or 'nothing (no sandbox here)'}"
        finally:
            pool.close()
    return found
