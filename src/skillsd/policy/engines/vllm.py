"""Generation by a vLLM server: token ids over HTTP, weights over a folder.

The server runs in an environment of its own (its pins are not ours) and is the same for CPUs and GPUs. It knows nothing
of episodes: its prefix cache finds what turns, and the episodes of a group, have in common.
"""

from __future__ import annotations

import copy
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from skillsd.config import RolloutConfig, VLLMConfig
from skillsd.errors import SkillSDError, UsageError
from skillsd.policy.chat import ChatFormat
from skillsd.policy.engines.base import Generation, Request
from skillsd.policy.loading import Policy
from skillsd.policy.lora import as_in_files
from skillsd.policy.positions import position_limit
from skillsd.system.redact import Redactor
from skillsd.system.terminal import printable
from skillsd.system.web import certificates

#: Name of the model in the server.
MODEL = "policy"


class VLLMEngine:
    """Turns of single episodes, from any thread. ``temperature`` 0 is greedy."""

    lockstep = False
    max_length: int | None = None  # the server was started with room for all

    def __init__(self, server: VLLMClient, chat: ChatFormat, *, temperature: float, max_new_tokens: int) -> None:
        self.server, self.temperature, self.max_new_tokens = server, temperature, max_new_tokens
        self.stop_ids = chat.stop_ids

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One turn for each request. Log-probs are those of the server's own sampling distribution; its entropy is not
        told, so that the sample's surprise stands for it (the same on average).

        Raises :class:`SkillSDError` if the server does not answer as it should.
        """
        return [self._generate(request) for request in requests]

    def release(self, episodes: Sequence[Hashable]) -> None:
        """Nothing to do: the server frees what it needs the room for."""

    def _generate(self, request: Request) -> Generation:
        room = self.max_new_tokens if request.most is None else request.most - len(request.ids)
        answer = self.server.post(
            "/v1/completions",
            {
                "model": MODEL,
                "prompt": request.ids,
                "add_special_tokens": False,
                "temperature": self.temperature,
                "top_p": 1.0,
                "top_k": 0,
                "max_tokens": min(self.max_new_tokens, room),
                "stop_token_ids": sorted(self.stop_ids),
                "logprobs": 0,
                "return_token_ids": True,
                "seed": int(request.rng.integers(2**31)),
            },
        )
        try:
            choice = answer["choices"][0]
            ids = [int(token) for token in choice["token_ids"]]
            logps = [float(value) for value in choice["logprobs"]["token_logprobs"]]
            seen = choice["prompt_token_ids"]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise SkillSDError(f"vllm: the server's answer lacks {error}; vLLM 0.32 or newer is needed") from None
        if seen != request.ids or len(ids) != len(logps) or not ids:
            raise SkillSDError("vllm: the server did not read or return the very token ids")
        return Generation(ids, logps, -sum(logps), ids[-1] in self.stop_ids)


class VLLMClient:
    """HTTP to the server at ``where``, a URL or the path of a Unix socket, from any thread."""

    def __init__(self, config: VLLMConfig, where: str, connections: int) -> None:
        self.config, self.where = config, where
        # The server drops connections that were idle for 5 s; ours are given up before.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=connections, keepalive_expiry=2.0)
        url, key = (where if config.url else "http://vllm"), os.environ.get("VLLM_API_KEY")
        self.hide = Redactor(key)
        self.client = httpx2.Client(
            base_url=url,
            transport=httpx2.HTTPTransport(verify=certificates(url), uds=None if config.url else where, limits=limits),
            timeout=httpx2.Timeout(config.request_timeout, connect=10.0),
            headers={"Authorization": f"Bearer {key}"} if config.url and key else {},
        )

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON answer to ``body``, which must be safe to send twice.

        Raises :class:`SkillSDError` for any other end.
        """
        try:
            try:
                answer = self.client.post(path, json=body)
            except (httpx2.ReadError, httpx2.RemoteProtocolError):  # a connection was lost: is it the server?
                if self.fate(wait=2.0):
                    raise
                answer = self.client.post(path, json=body)
        except httpx2.TimeoutException:
            raise SkillSDError(f"vllm: no answer from {path} within {self.config.request_timeout:g} s") from None
        except httpx2.HTTPError as error:
            reason = self.fate(wait=2.0) or f"the server cannot be reached ({type(error).__name__})"
            raise SkillSDError(f"vllm: {reason}; go on with --resume") from None
        if answer.status_code != 200:
            said = printable(self.hide(answer.text), lines=False)[:200]
            raise SkillSDError(f"vllm: {path} answered {answer.status_code}: {said}")
        try:
            found = answer.json()
        except ValueError:
            raise SkillSDError(f"vllm: {path} answered with something that is not JSON") from None
        return found if isinstance(found, dict) else {}

    def fate(self, wait: float = 0.0) -> str | None:
        """How the server ended, where that is known (within ``wait`` seconds)."""
        return None

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


class VLLMFeeder(VLLMClient):
    """A client that gives the server its weights, through ``folder``."""

    def __init__(self, config: VLLMConfig, rollout: RolloutConfig, policy: Policy, where: str, folder: Path) -> None:
        super().__init__(config, where, rollout.batch_size)
        self.policy, self.folder, self.loads = policy, folder.absolute(), 0

    def load(self, weights: dict[str, Tensor]) -> None:
        """Serve these weights from now on, in place."""
        old, self.loads = self._served, self.loads + 1
        self._write(weights)
        self.post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(self._served)}})
        if self.post("/reset_prefix_cache", {}).get("success") is not True:
            raise SkillSDError("vllm: the prefix cache of the old weights cannot be emptied; go on with --resume")
        if old != self._first:
            shutil.rmtree(old, ignore_errors=True)

    @property
    def _served(self) -> Path:
        return self.folder / "served" / f"{self.loads:06d}"

    @property
    def _first(self) -> Path | None:
        """What a server of one's own may have to start from again."""
        return None

    def _write(self, weights: dict[str, Tensor]) -> None:
        """The policy as a plain, untied model: a reload in place forgets a head that is tied to the embedding."""
        target = self._served
        try:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            settings = copy.deepcopy(self.policy.model.config)
            for config in (settings, settings.get_text_config()):
                config.tie_word_embeddings = False
            settings.save_pretrained(target)
            files = as_in_files(self.policy.model, weights)
            save_file(files, target / "model.safetensors", metadata={"format": "pt"})
            if not self.loads:
                self.policy.tokenizer.save_pretrained(target)
        except (OSError, SafetensorError) as error:
            raise SkillSDError(f"vllm: the weights cannot be written to {target} ({error})") from None

    def _wait(self, waiting: Callable[[], None] = lambda: None) -> None:
        """Until the server is healthy; ``waiting`` is told if it is not so at once."""
        end, told = time.monotonic() + self.config.startup_timeout, False
        while True:
            with suppress(httpx2.HTTPError):
                if self.client.get("/health", timeout=5.0).status_code == 200:
                    return
            if not told:
                waiting()
                told = True
            reason = self.fate()
            if time.monotonic() > end:
                reason = f"the server was not up within {self.config.startup_timeout:g} s{self._hint}"
            if reason:
                self.close()
                raise SkillSDError(f"vllm: {reason}")
            time.sleep(0.5)

    @property
    def _hint(self) -> str:
        return f"; see {self.folder / 'vllm.log'}"


class VLLMRemote(VLLMFeeder):
    """A server that somebody else starts, on this machine or another one that sees ``vllm.folder``.

    Raises :class:`SkillSDError` (one line) if it is not there in time or does not serve what is needed.
    """

    def __init__(
        self, config: VLLMConfig, rollout: RolloutConfig, policy: Policy, weights: dict[str, Tensor], dtype: str
    ) -> None:
        needed = _positions(rollout, policy)
        super().__init__(config, rollout, policy, str(config.url), Path(str(config.folder)).expanduser())
        self._write(weights)
        command = shlex.join(["vllm", "serve", *_arguments(self._served, needed, rollout.batch_size, dtype)])
        start = f"waiting for {config.url}; to start it there:\nVLLM_SERVER_DEV_MODE=1 {command}"
        self._wait(lambda: print(start, file=sys.stderr, flush=True))
        self._check(needed)
        self.load(weights)  # it may have been up before

    def _check(self, needed: int) -> None:
        try:
            found = {m["id"]: m.get("max_model_len") or 0 for m in self.client.get("/v1/models").json()["data"]}
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            raise SkillSDError(f"vllm: {self.where} does not list its models; is VLLM_API_KEY right?") from None
        if found.get(MODEL, 0) < needed:
            raise SkillSDError(
                f"vllm: {self.where} has to serve a model named {MODEL!r} with {needed} positions; it has {found}"
            )

    @property
    def _first(self) -> Path:
        return self.folder / "served" / "000000"

    @property
    def _hint(self) -> str:
        return f" at {self.where}"


class VLLMServer(VLLMFeeder):
    """A server process of this run's own. It listens on a socket in a folder that this user alone may enter, because
    its control endpoints, which take the weights, ask for no key.

    Raises :class:`SkillSDError` (one line) if it does not come up; ``folder`` then has its log, ``vllm.log``.
    """

    def __init__(
        self,
        config: VLLMConfig,
        rollout: RolloutConfig,
        policy: Policy,
        weights: dict[str, Tensor],
        dtype: str,
        folder: Path,
    ) -> None:
        """``weights``: the plain ones of ``policy`` (see :func:`plain_weights`), served first, in ``dtype``."""
        _require_vllm(config.python)
        needed = _positions(rollout, policy)
        # Not in the folder of the run: a socket's path may have some hundred characters at most.
        self.private = tempfile.mkdtemp(prefix="skillsd-")
        super().__init__(config, rollout, policy, f"{self.private}/vllm", folder)
        self._write(weights)
        self.log = (self.folder / "vllm.log").open("a")
        self.process = self._start(_arguments(self._served, needed, rollout.batch_size, dtype))
        self._wait()

    def fate(self, wait: float = 0.0) -> str | None:
        """How the process ended; None while it runs. A dying one is given ``wait`` seconds."""
        try:
            self.process.wait(wait)
        except subprocess.TimeoutExpired:
            return None
        return f"the server ended with exit code {self.process.returncode}; see {self.folder / 'vllm.log'}"

    def close(self) -> None:
        """Stop the server and remove the weights that it read."""
        super().close()
        _signal(self.process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        _signal(self.process, signal.SIGKILL)  # its workers too, whatever became of itself
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder / "served", ignore_errors=True)
        shutil.rmtree(self.private, ignore_errors=True)

    def _start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        words = [
            os.path.expanduser(self.config.python), "-m", "vllm.entrypoints.openai.api_server", "--uds", self.where,
            "--model", *arguments, *self.config.args,
        ]  # fmt: skip
        env = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
        for name in ("VLLM_API_KEY", "PYTHONPATH", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            env.pop(name, None)  # of this run, not of the server
        if self.config.cuda_visible_devices is not None:
            env["CUDA_VISIBLE_DEVICES"] = self.config.cuda_visible_devices
        try:
            return subprocess.Popen(
                words, env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )  # fmt: skip
        except OSError as error:
            raise SkillSDError(f"vllm.python: {self.config.python!r} cannot be run ({error.strerror})") from None


def _require_vllm(python: str) -> None:
    """Raise :class:`SkillSDError` if that interpreter has no vLLM, before anything is written for it."""
    looks = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    with suppress(OSError):  # what cannot be run is told when the server is started
        asked = subprocess.run([os.path.expanduser(python), "-c", looks], cwd="/", capture_output=True, check=False)
        if asked.returncode == 1:
            raise SkillSDError(
                f"vllm.python: {python!r} has no vLLM: install it there (pip install vllm), or name the interpreter of "
                "an environment that has it (docs/vllm.md)"
            )


def _positions(rollout: RolloutConfig, policy: Policy) -> int:
    """What the server must have room for. Raises :class:`UsageError` if the model has not."""
    needed = rollout.max_tokens
    positions = position_limit(policy.model) or needed
    if needed > positions:
        raise UsageError(
            f"vllm: rollout.max_tokens = {needed} is more than the model's {positions} positions: lower it"
        )
    return needed


def _arguments(model: Path, positions: int, episodes: int, dtype: str) -> list[str]:
    """What any server for us is started with; the model comes first."""
    return [
        str(model), "--served-model-name", MODEL, "--dtype", dtype, "--max-model-len", str(positions),
        "--max-num-seqs", str(episodes), "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm",
        "--enable-prefix-caching",
    ]  # fmt: skip


def _die_with_parent() -> None:
    """In the child: be told to end when the parent is gone, however it went (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
