"""The weights of the embedded models: small stand-ins for an instruction-tuned LLM (made by ``skillsd.base_model``)."""

from importlib import resources
from pathlib import Path

#: Names for ``model.path``, and the folders of their weights.
EMBEDDED = {"embedded": "sokoban", "embedded-office": "office", "embedded-appworld": "appworld"}


def path(name: str = "embedded") -> Path:
    """The folder of shipped weights, tokenizer and chat template. Raises :class:`KeyError` for an unknown name."""
    return Path(str(resources.files("skillsd.policy.embedded"))) / EMBEDDED[name]
