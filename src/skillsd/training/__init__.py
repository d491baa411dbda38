"""Learning: Algorithm 1 (``trainer``), the update (``learner``), and the loop around them (``loop``).

Uses rollouts to play, skills to teach, and runs to keep what lasts.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """In version 0.1 this was the module that ``train`` and ``RunResult`` were in; they load torch, so not before."""
    if name in ("train", "RunResult"):
        from skillsd.training import loop

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
