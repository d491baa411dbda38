"""Charts as SVG elements that go into a page as they are, and as files of their own: the one way to draw.

Text stays text (selectable, in any script that the reader's fonts have), ids are the figure's own, and nothing in a
row's name is markup: matplotlib escapes it, and formulas are off.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.use("Agg")

#: Okabe and Ito's colours, told apart by colour-blind people too; without yellow, which is too light for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
GREY = "#6b7280"
_WIDTH = 9.6  # inches: at 96 pixels an inch what the page is wide, so that text has the size it says
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def svg(draw: Callable[[Figure], None], height: float, title: str, width: float = _WIDTH) -> str:
    """What ``draw`` puts on a figure of ``width`` x ``height`` inches, as an SVG element; ``title`` names it."""
    image = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph"
        )  # scripts that matplotlib's font lacks: the reader's browser has them
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(image, format="svg", metadata={"Date": None}, transparent=True)
    return _inline(image.getvalue(), title)


def standalone(element: str) -> str:
    """A figure as a file: with its namespace and its size, and on white, as a page that shows it may be dark."""
    root = ElementTree.fromstring(element)
    _, _, width, height = root.attrib["viewBox"].split()
    for key, value in (("xmlns", "http://www.w3.org/2000/svg"), ("width", f"{width}pt"), ("height", f"{height}pt")):
        root.set(key, value)
    root.insert(0, ElementTree.Element("rect", width="100%", height="100%", fill="#ffffff"))
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def label(name: str, most: int = 36) -> str:
    """A name as one short printable line."""
    text = " ".join("".join(c if c.isprintable() else " " for c in name).split()) or "(no name)"
    text = text if len(text) <= most else text[: most - 1].rstrip() + "…"
    return "\u200b" + text if text.startswith("_") else text  # matplotlib leaves names with _ out of legends


def legend(figure: Figure, axes: Axes) -> None:
    """The names of what was drawn, if anything was."""
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper")


def _inline(document: str, title: str) -> str:
    """The svg element of an SVG document, for an HTML page: no namespaces, ids of its own, named for screen readers."""
    root = ElementTree.fromstring(document.encode())
    prefix = f"f{zlib.crc32(title.encode()):x}-"
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag.endswith("}metadata")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            name = key.rpartition("}")[2]
            if name == "id":
                value = prefix + value
            elif name == "href":
                value = value.replace("#", "#" + prefix, 1)
            else:
                value = re.sub(r"url\(#", f"url(#{prefix}", value)
            element.set(name, value)
    for key in ("width", "height"):  # the view box says the shape, the page the size
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", label(title, 200))
    return ElementTree.tostring(root, encoding="unicode")
