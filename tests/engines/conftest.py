"""Where vLLM lives: ``make test-engines`` puts it into .venv-vllm; SKILLSD_VLLM_PYTHON names another interpreter."""

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def vllm_python():
    found = Path(os.environ.get("SKILLSD_VLLM_PYTHON", Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"))
    if not found.is_file():
        pytest.skip(f"vLLM is not installed: no {found} (make test-engines installs it)")
    done = subprocess.run([found, "-c", "import vllm"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"vLLM cannot be imported here: {done.stderr.strip().splitlines()[-1][:200]}")
    return str(found)
