"""A user's own class or function, named as ``module:attribute``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skillsd.errors import UsageError, reason, shown


def find(what: str, name: str) -> Callable[..., Any]:
    """What ``module:attribute`` names; the module is looked for in the current folder too.

    Raises :class:`UsageError` (one line that begins with ``what``) if it cannot be imported or called.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # an installed command does not look there; last, so that nothing is shadowed
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # what runs at import is the user's
        raise UsageError(f"{what} {shown(name)} cannot be imported: {reason(error)}") from None
    if not callable(found):
        raise UsageError(f"{what} {shown(name)} is not callable: name a class, or a function that makes what is wanted")
    return found  # type: ignore[no-any-return]
