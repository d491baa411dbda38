"""What an agent's code may not contain. The first line of defence; the second is ``engine/confine.py``.

The engine runs the agent's code inside its own process, and its own guard lets through what reads files and imports the
engine. So code is read here, before it is sent: it may call the APIs and compute, nothing else.
"""

from __future__ import annotations

import ast

#: What may be imported (and what of it may not be used, see ``_ATTRIBUTES``).
MODULES = frozenset(
    "array bisect calendar collections copy dataclasses datetime decimal difflib enum fractions functools heapq "
    "itertools json math numbers operator pendulum pprint random re statistics string textwrap time typing unicodedata "
    "uuid".split()
)
#: Names that lead out of the shell, or into its inside.
_NAMES = frozenset(
    "ApiCollection In Out Requester appworld breakpoint builtins compile delattr eval exec exit get_ipython getattr "
    "globals importlib locals memoryview open os pathlib quit requester setattr shutil socket subprocess sys "
    "vars".split()
)
#: Attributes that reach other modules, or the inside of functions and frames.
_ATTRIBUTES = frozenset(
    "appworld attrgetter builtins codecs cr_frame ctypes environ f_back f_builtins f_globals f_locals fork func_globals"
    " gi_frame importlib methodcaller modules mro open os pathlib popen posix requester shutil socket subprocess sys"
    " system tb_frame tb_next".split()
)
#: The only attributes with underscores in front that are of use to a person.
_HARMLESS = frozenset({"__name__", "__doc__"})
#: Characters of one block.
LONGEST = 50_000


class Refused(Exception):
    """Code that is not run, with the reason as the agent is told. ``offence``: it reached for what is not its own."""

    def __init__(self, reason: str, offence: bool = True) -> None:
        super().__init__(reason)
        self.offence = offence


def check(code: str) -> None:
    """Raise :class:`Refused` for code that reaches for more than the APIs, ``SyntaxError`` for what is no Python."""
    if len(code) > LONGEST:
        raise Refused(f"a block may have {LONGEST} characters", offence=False)
    try:
        tree = ast.parse(code)
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested beyond all reason
        raise SyntaxError(str(error) or "too deeply nested") from None
    for node in ast.walk(tree):
        if reason := _reason(node):
            raise Refused(f"line {getattr(node, 'lineno', 1)}: {reason}")
    for node in ast.walk(tree):
        for module in _imports(node):
            if module not in MODULES:
                known = ", ".join(sorted(MODULES))
                raise Refused(
                    f"line {getattr(node, 'lineno', 1)}: there is no {module}; these modules are there: {known}", False
                )


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    return [(node.module or "").split(".")[0]] if isinstance(node, ast.ImportFrom) else []


def _reason(node: ast.AST) -> str | None:
    for name in _imports(node):
        if name in _NAMES or not name:
            return f"{name or 'what is beside it'} may not be imported"
    if isinstance(node, ast.ImportFrom):
        return next((_no_attribute(alias.name) for alias in node.names if _no_attribute(alias.name)), None)
    if isinstance(node, ast.Name) and (node.id in _NAMES or node.id.startswith("__")):
        return f"{node.id} is not allowed"
    if isinstance(node, ast.Attribute):
        return _no_attribute(node.attr)
    if isinstance(node, ast.MatchClass):  # case object(__class__=x) reads attributes as well
        return next((_no_attribute(name) for name in node.kwd_attrs if _no_attribute(name)), None)
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and ".__" in node.value:
        return "text with .__ in it is not allowed: format would follow it"
    return None


def _no_attribute(name: str) -> str | None:
    private = name.startswith("_") and name not in _HARMLESS
    return f".{name} is not allowed" if private or name in _ATTRIBUTES else None
