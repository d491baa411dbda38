"""Generation by a vLLM server: token ids over HTTP, weights over a folder.

The server runs in an environment of its own (its pins are not ours) and is the same for CPUs and GPUs. It knows nothing
of episodes: its prefix cache finds what turns, and the episodes of a group, have in common.
"""

from __future__ import annotations

import copy
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Hashable, Sequence
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

#: Name of the model in the server.
MODEL = "policy"


class VLLMEngine:
    """Turns of single episodes, from any thread. ``temperature`` 0 is greedy."""

    lockstep = False

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
        answer = self.server.post(
            "/v1/completions",
            {
                "model": MODEL,
                "prompt": request.ids,
                "add_special_tokens": False,
                "temperature": self.temperature,
                "top_p": 1.0,
                "top_k": 0,
                "max_tokens": self.max_new_tokens,
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
    """HTTP to the server behind the Unix socket ``path``, from any thread of a process on its machine."""

    def __init__(self, config: VLLMConfig, path: str, connections: int) -> None:
        self.config, self.path = config, path
        # The server drops connections that were idle for 5 s; ours are given up before.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=connections, keepalive_expiry=2.0)
        self.client = httpx2.Client(
            base_url="http://vllm",
            transport=httpx2.HTTPTransport(uds=path, limits=limits),
            timeout=httpx2.Timeout(config.request_timeout, connect=10.0),
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
            raise SkillSDError(f"vllm: {path} answered {answer.status_code}: {' '.join(answer.text.split())[:200]}")
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


class VLLMServer(VLLMClient):
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
        needed = rollout.max_tokens + rollout.max_new_tokens
        positions = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None) or needed
        if needed > positions:
            raise UsageError(
                f"vllm: rollout.max_tokens + rollout.max_new_tokens = {needed} is more than the model's {positions} "
                "positions: lower rollout.max_tokens"
            )
        # Not in the folder of the run: a socket's path may have some hundred characters at most.
        self.private = tempfile.mkdtemp(prefix="skillsd-")
        super().__init__(config, f"{self.private}/vllm", rollout.batch_size)
        self.model, self.folder, self.loads = policy.model, folder.absolute(), 0
        self._write(weights)
        policy.tokenizer.save_pretrained(self._served)
        self.log = (self.folder / "vllm.log").open("a")
        self.process = self._start(rollout, dtype)
        self._wait()

    def load(self, weights: dict[str, Tensor]) -> None:
        """Serve these weights from now on, in place."""
        old, self.loads = self._served, self.loads + 1
        self._write(weights)
        self.post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(self._served)}})
        if self.post("/reset_prefix_cache", {}).get("success") is not True:
            raise SkillSDError("vllm: the prefix cache of the old weights cannot be emptied; go on with --resume")
        shutil.rmtree(old, ignore_errors=True)

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

    @property
    def _served(self) -> Path:
        return self.folder / "served" / f"{self.loads:06d}"

    def _write(self, weights: dict[str, Tensor]) -> None:
        """The policy as a plain, untied model: a reload in place forgets a head that is tied to the embedding."""
        target = self._served
        try:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            settings = copy.deepcopy(self.model.config)
            settings.tie_word_embeddings = False
            settings.save_pretrained(target)
            save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
        except (OSError, SafetensorError) as error:
            raise SkillSDError(f"vllm: the weights cannot be written to {target} ({error})") from None

    def _start(self, rollout: RolloutConfig, dtype: str) -> subprocess.Popen[bytes]:
        python, context = self.config.python, rollout.max_tokens + rollout.max_new_tokens
        words = [
            python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self._served),
            "--served-model-name", MODEL, "--uds", self.path,
            "--dtype", dtype, "--max-model-len", str(context), "--max-num-seqs", str(rollout.batch_size),
            "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm", "--enable-prefix-caching",
            *self.config.args,
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
            raise SkillSDError(f"vllm.python: {python!r} cannot be run ({error.strerror})") from None

    def _wait(self) -> None:
        """Until the server is healthy."""
        end = time.monotonic() + self.config.startup_timeout
        while True:
            with suppress(httpx2.HTTPError):
                if self.client.get("/health", timeout=5.0).status_code == 200:
                    return
            reason = self.fate()
            if time.monotonic() > end:
                reason = (
                    f"the server was not up within {self.config.startup_timeout:g} s; see {self.folder / 'vllm.log'}"
                )
            if reason:
                self.close()
                raise SkillSDError(f"vllm: {reason}")
            time.sleep(0.5)


def _die_with_parent() -> None:
    """In the child: be told to end when the parent is gone, however it went (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
