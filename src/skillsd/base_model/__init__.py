"""The embedded models: small stand-ins for an instruction-tuned LLM, and the recipes that made them."""

from importlib import resources
from pathlib import Path

#: Names for ``model.path``, and the folders of their weights.
EMBEDDED = {"embedded": "weights", "embedded-appworld": "practice_weights"}


def path(name: str = "embedded") -> Path:
    """The folder of shipped weights, tokenizer and chat template. Raises :class:`KeyError` for an unknown name."""
    return Path(str(resources.files("skillsd.base_model"))) / EMBEDDED[name]
