"""What pyproject.toml cannot say: links of the README that lead nowhere outside the repository."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent


def readme() -> str:
    """The README as a package index shows it: links into the repository become addresses at ``project.urls.Source``;
    without one, plain text, and pictures their descriptions."""
    text = (HERE / "README.md").read_text("utf-8")
    urls = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    source = urls.get("Source")

    def replace(found: re.Match) -> str:
        mark, words, target = found.groups()
        if "://" in target or target.startswith("#"):
            return found[0]
        if source is None:
            return words
        kind = "raw" if mark else "blob"
        return f"{mark}[{words}]({source}/{kind}/main/{target})"

    return re.sub(r"(!?)\[([^]]*)\]\(([^)]+)\)", replace, text)


setup(long_description=readme(), long_description_content_type="text/markdown")
