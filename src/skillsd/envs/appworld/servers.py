"""Processes of the engine: a pool for the agents' worlds, and the one that judges.

The engine runs in a virtual environment of its own and is spoken to over HTTP on Unix sockets, in a folder that this
user alone may enter: no port can be taken, and an agent's process needs no network.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from skillsd.envs.appworld.install import Engine
from skillsd.errors import SkillSDError
from skillsd.system.web import certificates

#: A world leaks about 1 MiB: after so many, a server is replaced.
EPISODES = 100
#: Seconds until a new process must answer, and until a world must have been made (the first one takes some 4 s).
START = 60.0
#: Seconds that an episode waits for another one to give its server back.
_PATIENCE = 30.0
_PREFIX = "skillsd-appworld-"
_SERVE = Path(__file__).with_name("engine") / "serve.py"


class ServerLost(SkillSDError):
    """The process died, hung or answered with an error; it was killed."""


class Server:
    """One process. Its calls come from one thread at a time. Raises :class:`ServerLost` if it does not come up."""

    def __init__(self, engine: Engine, role: str, folder: Path, root: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder, self.role, self.episodes = folder, role, 0
        self.log = (folder / "log.txt").open("wb")
        temporary = folder / "tmp"
        temporary.mkdir()
        # Nothing of this process's environment: it may hold keys.
        env = {
            "APPWORLD_ROOT": str(root), "APPWORLD_CACHE": str(engine.cache), "IPYTHONDIR": str(temporary),
            "HOME": str(temporary), "TMPDIR": str(temporary), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1",
            "PATH": os.defpath,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [str(engine.python), str(_SERVE), role, str(folder / "socket")],
            stdin=subprocess.PIPE, stdout=self.log, stderr=subprocess.STDOUT, env=env, cwd=temporary,
            start_new_session=True,
        )  # fmt: skip
        address = "http://appworld"
        transport = httpx2.HTTPTransport(verify=certificates(address), uds=str(folder / "socket"))
        self.client = httpx2.Client(base_url=address, transport=transport)
        self.state = self._wait()

    def post(self, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The JSON answer within ``timeout`` seconds. Raises :class:`ServerLost` for any other end."""
        try:
            answer = self.client.post(path, json=body, timeout=timeout)
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
            reason = f"answered {answer.status_code}"
        except httpx2.TimeoutException:
            reason = f"did not answer within {timeout:g} s"
        except (httpx2.HTTPError, ValueError) as error:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)
            code = self.process.poll()
            reason = f"ended with code {code}" if code is not None else f"broke off ({type(error).__name__})"
        raise self._lost(reason)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End the process and remove its files; it may be called again."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait()
        self.client.close()
        self.log.close()
        if self.process.stdin:
            with suppress(OSError):
                self.process.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> dict[str, Any]:
        end = time.monotonic() + START
        while self.alive and time.monotonic() < end:
            with suppress(httpx2.HTTPError):
                state: dict[str, Any] = self.client.get("/state", timeout=2.0).json()
                return state
            time.sleep(0.05)
        raise self._lost("did not start" if self.alive else "ended at once")

    def _lost(self, reason: str) -> ServerLost:
        self.log.flush()
        with suppress(OSError):
            lines = (self.folder / "log.txt").read_text("utf-8", "replace").strip().splitlines()
            reason += f": {lines[-1][:200]}" if lines else ""
        self.kill()
        return ServerLost(f"appworld: the {self.role}'s server {reason}")


class Pool:
    """At most ``size`` servers, each with one world; made when they are needed, ended with this process.

    ``root`` has the data; the agents get it without the ground truth. Safe to use from many threads.
    """

    def __init__(self, engine: Engine, root: Path, size: int) -> None:
        self.engine, self.size = engine, size
        self._free: list[Server] = []
        self._count = 0
        self._names = itertools.count(1)
        self._change = threading.Condition()
        self._judging = threading.Lock()
        self._judge: Server | None = None
        self._all: set[Server] = set()
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self.agents, self.judges = self.folder / "agent", self.folder / "judge"
        without_ground_truth(root, self.agents)
        (self.agents / "experiments").mkdir()
        self.judges.mkdir()
        (self.judges / "data").symlink_to(root.resolve() / "data")
        (self.judges / "experiments").symlink_to(self.agents / "experiments")
        atexit.register(self.close)

    @contextmanager
    def lend(self) -> Iterator[Server]:
        """A server for a moment."""
        server = self.take()
        try:
            yield server
        finally:
            self.give(server)

    def take(self) -> Server:
        """A server without a world. Raises :class:`SkillSDError` if all are taken for half a minute."""
        with self._change:
            if not self._change.wait_for(lambda: self._free or self._count < self.size, _PATIENCE):
                raise SkillSDError(f"appworld: all {self.size} servers are taken: raise env.options.servers")
            if self._free:
                return self._free.pop()
            self._count += 1
        try:
            return self._start("agent", self.agents)
        except BaseException:
            self._gone()
            raise

    def give(self, server: Server) -> None:
        """Take a server back, whatever its state."""
        server.episodes += 1
        if server.alive and server.episodes < EPISODES:
            with self._change:
                self._free.append(server)
                self._change.notify()
        else:
            self._end(server)
            self._gone()

    def name(self) -> str:
        """A name that no other episode of this machine has."""
        return f"{self.folder.name}-{next(self._names)}"

    def judge(self, task_id: str, name: str, timeout: float) -> dict[str, Any]:
        """The evaluator's verdict: {"passed", "tests", "success"}. Raises :class:`ServerLost` if it fails twice."""
        with self._judging:
            for attempt in (1, 2):
                if self._judge is None or not self._judge.alive or self._judge.episodes >= EPISODES:
                    if self._judge is not None:
                        self._end(self._judge)
                    self._judge = self._start("judge", self.judges)
                self._judge.episodes += 1
                try:
                    return self._judge.post("/judge", {"task_id": task_id, "name": name}, timeout)
                except ServerLost:
                    if attempt == 2:
                        raise
        raise AssertionError("unreachable")

    def forget(self, name: str, keep: Path | None = None) -> None:
        """Remove what an episode left on disk, or move it to ``keep``."""
        left = self.agents / "experiments" / "outputs" / name
        for task in (left / "tasks").glob("*") if keep else ():
            target = keep / "tasks" / task.name  # type: ignore[operator]
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(task, target)
        shutil.rmtree(left, ignore_errors=True)

    def close(self) -> None:
        """End all processes and remove their files."""
        for server in list(self._all):
            self._end(server)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, role: str, root: Path) -> Server:
        server = Server(self.engine, role, self.folder / f"{role[0]}{next(self._names)}", root)
        self._all.add(server)
        return server

    def _end(self, server: Server) -> None:
        self._all.discard(server)
        server.kill()

    def _gone(self) -> None:
        with self._change:
            self._count -= 1
            self._change.notify()


def _sweep() -> None:
    """Remove what runs left behind that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, PermissionError):
            continue


def without_ground_truth(root: Path, target: Path) -> None:
    """A second tree of ``root``'s data, by hard links where that is possible, in which no task has its ground truth."""

    def link(source: str, copy: str) -> None:
        try:
            os.link(source, copy)
        except OSError:
            shutil.copyfile(source, copy)

    hidden = shutil.ignore_patterns("ground_truth")
    shutil.copytree(root / "data", target / "data", copy_function=link, ignore=hidden)
