"""Text that others wrote (models, servers, environments, files), made safe to show.

A terminal obeys escape sequences wherever they come from: they recolour, move the cursor, rename the window, or fill
the clipboard. Bidirectional overrides show text in another order than it has, in a terminal and in a browser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

#: Controls (C0, DEL, C1), marks that break lines or turn their direction, invisible tags, halves of characters.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str, lines: bool = True) -> str:
    r"""``text`` with whatever a terminal or a browser would obey shown as an escape such as ``\x1b``.

    Line breaks and tabs stay where ``lines``; otherwise all white space is single spaces, and the result one line.
    """
    text = text.replace("\r\n", "\n") if lines else " ".join(text.split())
    return _OBEYED.sub(lambda found: _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Screen(Console):
    """A rich console for text of any origin: no markup in it, no emoji codes, no guessed colours, nothing obeyed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """As text that is measured as it will be shown."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Segments, those of ready-made ``Text`` too, of which only rich's own control anything."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
