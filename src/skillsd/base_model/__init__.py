"""The embedded base model: a small stand-in for an instruction-tuned LLM, and the recipe that made it."""

from importlib import resources
from pathlib import Path


def path() -> Path:
    """The folder of the shipped weights, tokenizer and chat template."""
    return Path(str(resources.files("skillsd.base_model"))) / "weights"
