"""Where things that are fetched once are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/skillsd``, by default ``~/.cache/skillsd``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skillsd"
