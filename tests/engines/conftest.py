"""Where vLLM lives: ``make test-engines`` puts it into .venv-vllm; SKILLSD_VLLM_PYTHON names another interpreter."""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from skillsd.policy.packaged import packaged


@pytest.fixture(scope="session")
def vllm_python():
    found = Path(os.environ.get("SKILLSD_VLLM_PYTHON", Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"))
    if not found.is_file():
        pytest.skip(f"vLLM is not installed: no {found} (make test-engines installs it)")
    done = subprocess.run([found, "-c", "import vllm"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"vLLM cannot be imported here: {done.stderr.strip().splitlines()[-1][:200]}")
    return str(found)


@pytest.fixture(scope="session")
def vllm_server(vllm_python, tmp_path_factory):
    """The base URL of a server that speaks for SmolLM2."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "log.txt"
    words = [
        vllm_python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(packaged("smollm2")),
        "--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port),
        "--max-model-len", "4096", "--enforce-eager",
    ]  # fmt: skip
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(words, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        end = time.monotonic() + 300
        while True:
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end, log.read_text()[-2000:]
            with suppress(httpx2.HTTPError):
                if httpx2.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
