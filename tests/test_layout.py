"""The house: files that can be read, no circles, and a line in each folder that says what it is for."""

import ast
import graphlib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "skillsd"
#: Run by the engine's Python, which imports them by their bare names.
BARE = (SOURCE / "envs/appworld/pack", SOURCE / "envs/appworld/engine")


def files(*folders):
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_no_file_is_longer_than_400_lines(folder):
    found = {path: len(path.read_text("utf-8").splitlines()) for path in files(ROOT / folder)}
    assert {str(path): lines for path, lines in found.items() if lines > 400} == {}


def ordered(graph):
    """Raises where there is a circle, and names it."""
    return list(graphlib.TopologicalSorter(graph).static_order())


def test_no_module_imports_itself_by_way_of_others():
    graph = grimp.build_graph("skillsd", exclude_type_checking_imports=False, cache_dir=None)
    public = {"skillsd"}  # its names are looked up when they are asked for
    imports = {m: graph.find_modules_directly_imported_by(m) - public for m in graph.modules - public}
    assert len(ordered(imports)) > 100


@pytest.mark.parametrize("folder", BARE, ids=lambda path: path.name)
def test_no_module_that_the_engine_runs_imports_itself_either(folder):
    def names(path):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module

    modules = {
        ".".join(p.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): p for p in files(folder)
    }
    assert len(ordered({name: set(names(path)) & set(modules) - {name} for name, path in modules.items()})) > 3


def test_every_folder_says_in_a_few_lines_what_it_is_for_and_what_it_may_use():
    for path in files(SOURCE):
        if path.name != "__init__.py" or "pack" in path.parts or path.parent.name == "embedded":
            continue
        told = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert told, path
        assert 1 <= len(told.splitlines()) <= 4, path


def test_losses_need_torch_alone_and_environments_not_even_that():
    graph = grimp.build_graph("skillsd", include_external_packages=True, cache_dir=None)
    assert graph.find_modules_directly_imported_by("skillsd.objectives") <= {
        "__future__", "math", "torch", "dataclasses", "collections", "typing",
    }  # fmt: skip
    below = graph.find_upstream_modules("skillsd.envs", as_package=True)
    assert not {"torch", "transformers"} & below
