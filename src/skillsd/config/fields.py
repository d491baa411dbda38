"""What settings are made of: which numbers, names and addresses can be one."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

#: Sizes of numbers other than 0: those of fp32, timers and 32-bit counters, with room.
SMALLEST, LARGEST = 1e-30, 2**31 - 1


def of_a_size(value: Any) -> Any:
    """``value``. Raises ``ValueError`` if it is a number that something on its way would stumble over."""
    if isinstance(value, int | float) and value and not SMALLEST <= abs(value) <= LARGEST:
        raise ValueError(f"no number of such a size is computed with: 0, and {SMALLEST:g} to {LARGEST:g}, are")
    return value


def _address(value: str) -> str:
    """A server's address; what is wrong is told without it, as it may hold a key."""
    try:
        parts = urlsplit(value)
        host, port = (parts.hostname or "").encode("idna"), parts.port
    except ValueError:  # brackets, a port or a name that cannot be
        host, port = b"", 0
    else:
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("holds more than an address: a key belongs into an environment variable")
    if not (host and port != 0 and re.fullmatch(r"https?://(\[[^]\s]+\]|[^\s\[\]:/]+)(:\d+)?(/\S*)?", value)):
        raise ValueError("is not of the form http://host:port/path, with a port up to 65535")
    return value


Address = Annotated[str, AfterValidator(_address)]
#: A text that names something.
Name = Annotated[str, Field(min_length=1)]
#: Seconds that something may take: some 3 years at most, as the system's timers end somewhere.
MOST_SECONDS = 1e8
