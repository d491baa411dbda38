"""Models in single GGUF files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from skillsd.errors import SkillSDError
from skillsd.policy.pretrained import CHECKED, check_whole, reading


def read_gguf(file: Path, **options: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Weights, unpacked, and tokenizer; ``options`` go to ``from_pretrained``.

    Raises :class:`SkillSDError` where the package that reads them is missing, and for a file that is no whole model.
    """
    if find_spec("gguf") is None:
        raise SkillSDError("a GGUF file needs: pip install 'skillsd[gguf]'")
    folder, name, packed = str(file.parent), file.name, GgufConfig(dequantize=True)
    with reading("the GGUF file"):
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        found: Any = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, quantization_config=packed, **CHECKED, **options
        )
    model = found[0]
    check_whole(model, found[1], part=False)
    vars(model.config).pop("quantization_config", None)  # it would have saved weights read as packed ones
    return model, tokenizer
