"""AppWorld over HTTP on a Unix socket, in a process of its own: ``python serve.py agent|judge SOCKET``.

Run by the engine's Python, which has no skillsd. The ``agent`` runs the agent's code in one world at a time and has no
ground truth; the ``judge`` runs none and scores what the agent's process left on disk. Both end with their parent,
which holds the other end of stdin.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apis import view
from confine import confine
from fence import Refusals, fence
from written import changes

#: What the loader and Python read besides Python's own folders; everything else is out of an agent's reach.
_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime",
    "/dev/urandom",
)  # fmt: skip

#: Characters of one output that the engine's logs keep.
_LOGGED = 100_000


def main() -> None:
    """Serve until stdin closes."""
    role, address = sys.argv[1:]
    listener = socket.socket(socket.AF_UNIX)  # an agent's process can make none
    listener.bind(address)
    root, temporary = os.environ["APPWORLD_ROOT"], os.environ["TMPDIR"]
    _end_by_signal()
    state: dict[str, object] = {"files": False, "network": False}
    if role == "agent":
        code = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
        readable = [*_SYSTEM, *code, os.environ["APPWORLD_CACHE"], os.path.join(root, "data")]
        writable = [os.path.join(root, "experiments"), temporary, "/dev/null"]
        state = confine(readable, writable)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    app = agent(state) if role == "agent" else judge()
    import uvicorn

    uvicorn.run(app, fd=listener.fileno(), log_level="warning", lifespan="off")


def _end_by_signal() -> None:
    """Have Linux end this process when stdin closes, which nobody writes to (SIGIO): a thread has its turn only when
    the code that runs here lets Python go."""
    if sys.platform.startswith("linux"):
        stdin = sys.stdin.fileno()
        fcntl.fcntl(stdin, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(stdin, fcntl.F_SETFL, fcntl.fcntl(stdin, fcntl.F_GETFL) | os.O_ASYNC)


def _end_with_parent(end: Callable[[int], None] = os._exit) -> None:
    """``end`` is taken here: while an agent's code runs, the engine has another in its place, which does nothing."""
    while sys.stdin.buffer.read(4096):
        pass
    end(0)


def agent(state: dict[str, object]) -> Any:
    """/start, /run and /end of one world, and /state: what confines this process."""
    from appworld.common.utils import TimeoutError as OutOfTime
    from appworld.environment import AppWorld
    from appworld.requester import _get_api_name_to_doc as docs
    from fastapi import Body, FastAPI

    started = Path(os.environ["IPYTHONDIR"], "profile_default", "startup", "README")
    started.parent.mkdir(parents=True)
    started.touch()  # IPython would copy its own, permissions and all, which is refused here
    app, worlds, refusals = FastAPI(), dict[str, Any](), Refusals()

    class World(AppWorld):  # type: ignore[misc]
        """The engine's world, whose logs do not fill the disk."""

        def save_logs(self) -> None:
            """Save no more than so much of an output, and what can be written at all."""
            for exchange in self.environment_io[-1:]:
                for key, text in exchange.items():
                    exchange[key] = text[:_LOGGED].encode("utf-8", "replace").decode("utf-8")
            super().save_logs()

    @app.get("/state")
    async def show() -> dict[str, object]:
        return state

    @app.post("/start")
    async def start(task_id: str = Body(...), name: str = Body(...), timeout: int = Body(...)) -> dict[str, Any]:
        _end(worlds)
        world = World(
            task_id=task_id,
            experiment_name=name,
            load_ground_truth=False,
            timeout_seconds=timeout,
            max_interactions=10_000,
        )
        worlds["live"] = world
        _bare(world.shell)
        world.shell.user_ns["apis"] = view(world.apis, lambda app, name: docs(app, True)[name]["path"], (OutOfTime,))
        fence(world.shell.user_ns, refusals)
        task = world.task
        keys = ("first_name", "last_name", "email", "phone_number")
        return {"instruction": task.instruction, "user": {key: task.supervisor[key] for key in keys}}

    @app.post("/run")
    async def run(code: str = Body(...), limit: int = Body(...)) -> dict[str, Any]:
        world = worlds["live"]
        refusals.take()
        output = str(world.execute(code))
        head = output[:limit].encode("utf-8", "replace").decode("utf-8")
        completed = bool(world.task_completed())
        return {"output": head, "length": len(output), "completed": completed, "refused": refusals.take()}

    @app.post("/end")
    async def end() -> dict[str, bool]:
        _end(worlds)
        return {"ended": True}

    return app


def _bare(shell: Any) -> None:
    """Take from IPython what does other things than run the code that was read."""
    shell.transform_cell = lambda code: code  # no magic words, and no lines that look like a prompt are changed
    shell.transform_ast = changes
    # The engine tells errors itself. These would show a line of whatever file a SyntaxError names.
    shell.showtraceback = shell.showsyntaxerror = shell.showindentationerror = lambda *given, **named: None


def _end(worlds: dict[str, Any]) -> None:
    world = worlds.pop("live", None)
    if world is not None:
        world.close()


def judge() -> Any:
    """/judge: the official evaluator's verdict on what an episode left on disk."""
    from appworld.apps.model_lib import CachedDBHandler
    from appworld.evaluator import evaluate_task
    from fastapi import Body, FastAPI

    app = FastAPI()

    @app.get("/state")
    async def show() -> dict[str, object]:
        return {}

    @app.post("/judge")
    async def verdict(task_id: str = Body(...), name: str = Body(...)) -> dict[str, Any]:
        try:
            found = evaluate_task(task_id=task_id, experiment_name=name, suppress_errors=True, save_report=False)
            return {"passed": len(found.passes), "tests": found.num_tests, "success": bool(found.success)}
        finally:
            CachedDBHandler.reset()

    return app


if __name__ == "__main__":
    main()
