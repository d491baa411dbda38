"""What the site has beyond the files in docs/: README and its neighbours, and a reference made of the docstrings."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "skillsd"
#: Pages that are files of the repository: where they are in the site, and there.
NEIGHBOURS = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
#: Run by another Python; their names are not ours to import.
APART = ("envs/appworld/pack", "envs/appworld/engine")
_LINK = re.compile(r"(!?)\[((?:[^]\[]|\[[^]]*\])*)\]\(([^)\s]+)\)")
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`~?([^`]+)`")


class Roles(griffe.Extension):
    """``:class:`Name``` of our docstrings as code, as Markdown knows no roles."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The reference is the last part of the navigation."""
    assert config.nav is not None
    config.nav.append({"Reference": [{place.split("/")[1][:-3]: place} for place in sorted(reference())]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for place, name in NEIGHBOURS.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text("utf-8")))
    for place, text in reference().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links into the repository lead to where its files are in the site; where they are not, the words stay."""
    place = page.file.src_uri
    home = "" if place in NEIGHBOURS else posixpath.join("docs", posixpath.dirname(place))

    def follow(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        path, hashed, anchor = target.partition("#")
        if "://" in target or not path or place.startswith("reference/"):
            return found[0]
        there = _in_site(posixpath.normpath(posixpath.join(home, path)))
        if there is None:
            return words
        relative = posixpath.relpath(there.partition("#")[0], posixpath.dirname(place) or ".")
        return f"{mark}[{words}]({relative}{hashed or '#' * ('#' in there)}{anchor or there.partition('#')[2]})"

    return _LINK.sub(follow, markdown)


def _in_site(path: str) -> str | None:
    """Where a file of the repository is in the site."""
    for place, name in NEIGHBOURS.items():
        if path == name:
            return place
    if path.startswith("docs/") and not path.endswith(".py"):
        return path.removeprefix("docs/")
    inside = path.removeprefix("src/skillsd/")
    if inside != path and path.endswith(".py") and not inside.startswith(APART):
        name = _module(ROOT / path)
        return f"reference/{_page(name)}.md#{name}"
    return None


def reference() -> dict[str, str]:
    """A page for each folder and each module beside them."""
    pages: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        if path.relative_to(SOURCE).as_posix().startswith(APART) or path.name == "__main__.py":
            continue
        name = _module(path)
        pages.setdefault(_page(name), []).append(name)
    return {
        f"reference/{page}.md": f"# {page}\n\n" + "\n\n".join(f"::: {name}" for name in names) + "\n"
        for page, names in pages.items()
    }


def _module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _page(module: str) -> str:
    return ".".join(module.split(".")[:2])
