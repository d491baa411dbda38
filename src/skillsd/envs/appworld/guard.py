"""What an agent's code may contain. The first line of defence, which counts attempts; the others are in ``engine/``.

The engine runs the agent's code inside its own process, and its own guard lets through what reads files and imports the
engine. So code is read here, before it is sent: it may call the APIs and compute. What it may use is listed
(``engine/public.py``), and no attribute can be taken by a name that is not in sight: not of a module, not from text.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import string
import sys
import types
from collections.abc import Iterable, Iterator
from functools import cache

from skillsd.envs.appworld.engine.public import BUILTINS, MODULES, names, reaches

#: Names of the shell that lead into the engine, and of modules that nobody imports by chance.
_NAMES = frozenset(
    "ApiCollection In Out Requester appworld builtins get_ipython importlib os pathlib requester shutil socket "
    "subprocess sys".split()
) | (frozenset(dir(builtins)) - BUILTINS)
#: Modules whose import is no mistake about what is there, but an attempt.
_REACHING = frozenset(
    "asyncio code codeop ctypes fcntl fileinput gc glob imp inspect io linecache marshal mmap multiprocessing pickle "
    "pkgutil posix pty resource runpy shelve signal site sqlite3 sysconfig tempfile threading traceback types".split()
)
#: Attributes of Python's own objects that hold their insides: frames, code, generators, functions.
_INSIDES = frozenset(
    name
    for kind in (types.FrameType, types.CodeType, types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType,
                 types.TracebackType, types.FunctionType, types.MethodType, type)
    for name in dir(kind)
    if not name.startswith("_")
) - {"send", "throw", "close", "asend", "athrow", "aclose", "clear", "replace"}  # fmt: skip
_ATTRIBUTES = _INSIDES | frozenset(
    "appworld attrgetter builtins codecs ctypes environ fork func_globals get_field importlib methodcaller modules "
    "open os pathlib popen posix requester shutil socket subprocess sys system".split()
)
#: The only attributes with underscores in front that are of use to a person.
_HARMLESS = frozenset({"__name__", "__doc__", "__main__"})
#: Names of Python's own, whatever they are used for.
_PYTHONS = re.compile(r"__\w+__")
#: Methods of a class of one's own that Python calls, and that take no part in making or copying objects and classes.
_METHODS = frozenset(
    f"__{name}__"
    for name in (
        "init post_init repr str format bytes hash bool len iter next reversed contains getitem setitem delitem "
        "missing call enter exit getattr eq ne lt le gt ge add radd iadd sub rsub isub mul rmul imul truediv rtruediv "
        "floordiv rfloordiv mod rmod pow neg pos abs round int float index and or xor invert lshift rshift"
    ).split()
)
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
        nodes = list(ast.walk(tree))
        parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested beyond all reason
        raise SyntaxError(str(error) or "too deeply nested") from None
    modules = {name: name for name in MODULES} | _aliases(nodes)
    for offence, rule in ((True, _offence), (False, _mistake)):
        for node in nodes:
            if reason := rule(node, parents.get(node), modules):
                raise Refused(f"line {getattr(node, 'lineno', 1)}: {reason}", offence)


def _aliases(nodes: list[ast.AST]) -> dict[str, str]:
    """Modules by the names that this code gives them."""
    imports = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {alias.asname: alias.name for alias in imports if alias.asname and alias.name in MODULES}


def _offence(node: ast.AST, parent: ast.AST | None, modules: dict[str, str]) -> str | None:
    """Why this part of the code reaches for what is not the agent's; None if it does not."""
    for name in _imports(node):
        root = name.partition(".")[0]
        if not root or root in _NAMES or root in _REACHING or root.startswith("_"):
            return f"{root or 'what is beside it'} may not be imported"
    for name in _bound(node):
        if name.startswith("__") and not (
            name in _METHODS and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ):
            return f"{name} is not allowed"
    if isinstance(node, ast.ImportFrom):
        taken = (alias.name for alias in node.names)
        return next((why for n in taken if (why := _no_attribute(n) or _hidden(node.module or "", n, True))), None)
    if isinstance(node, ast.Name):
        return (
            f"{node.id} is not allowed"
            if node.id in _NAMES or node.id.startswith("__")
            else _class_making(node, parent)
        )
    if isinstance(node, ast.ClassDef) and node.keywords:
        return "a class may have bases, nothing else"
    if isinstance(node, ast.Attribute):
        return _no_attribute(node.attr) or _hidden(_module_of(node, modules), node.attr, True) or _fields(node)
    if isinstance(node, ast.MatchClass):  # case object(__class__=x) reads attributes as well
        return next((why for name in node.kwd_attrs if (why := _no_attribute(name) or _no_format(name))), None)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if ".__" in node.value:
            return "text with .__ in it is not allowed: format would follow it"
        if _PYTHONS.fullmatch(node.value) and node.value not in _HARMLESS:
            return f"{node.value} is not allowed, as text either"
    return None


def _mistake(node: ast.AST, parent: ast.AST | None, modules: dict[str, str]) -> str | None:
    """Why this part cannot be run, although it may be meant well."""
    for name in _imports(node):
        if name not in MODULES:
            return f"there is no {name}; these modules are there: {_list(MODULES)}"
    if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
        return "name what you import"  # the engine's own guard fails over it
    if isinstance(node, ast.ImportFrom):
        return next((why for alias in node.names if (why := _hidden(node.module or "", alias.name, False))), None)
    if isinstance(node, ast.Attribute) and (why := _hidden(_module_of(node, modules), node.attr, False)):
        return why
    if isinstance(node, ast.Attribute) and node.attr == "register":  # abstract classes have it, for all the world
        return "call it other than .register"
    if isinstance(node, ast.MatchClass) and node.patterns:
        return "case Class(...) takes attributes by their place: name them, or use if"
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):  # dataclasses take fields by their names
        return f"call it other than {name}" if (name := node.target.id) in _ATTRIBUTES or _no_format(name) else None
    if isinstance(node, ast.Name) and node.id == "type" and not _one_argument(node, parent):
        return "type is there to be called with one argument"
    if isinstance(node, ast.Attribute) and _no_format(node.attr) and not _harmless_format(node, parent):
        return f"text that is not written out cannot be told to .{node.attr} what is not: use an f-string"
    return None


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a statement gives, other than by assignment."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.arg, ast.keyword)):
        yield node.arg or ""
    elif isinstance(node, ast.alias):
        yield node.asname or ""
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        yield node.name or ""
    elif isinstance(node, ast.MatchMapping):
        yield node.rest or ""
    elif isinstance(node, (ast.Global, ast.Nonlocal)):
        yield from node.names


def _no_attribute(name: str) -> str | None:
    private = name.startswith("_") and name not in _HARMLESS
    return f".{name} is not allowed" if private or name in _ATTRIBUTES else None


def _no_format(name: str) -> str | None:
    """Attributes that follow text to others: theirs is a rule of its own where the text is in sight."""
    return f".{name} is not allowed here" if name in ("format", "format_map") else None


def _module_of(node: ast.Attribute, modules: dict[str, str]) -> str:
    """The module whose attribute it is, as far as this code shows; "" for anything else."""
    return modules.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""


def _hidden(module: str, name: str, reaching: bool) -> str | None:
    """Why ``name`` is not to be had of ``module``, although it is there: an attempt, if ``reaching``, or a mistake."""
    if module not in MODULES or name in _public(module) or f"{module}.{name}" in MODULES:
        return None
    value = getattr(_module(module), name, None)
    if value is None and _module(module) is None and name in sys.stdlib_module_names:
        value = sys
    if value is None or reaches(module, name, value) != reaching:
        return None
    return f"{module}.{name} is not allowed" + ("" if reaching else f"; of {module} there are {_list(_public(module))}")


def _list(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


_public = cache(names)


@cache
def _module(name: str) -> object:
    """A module as this Python has it; pendulum may be in the engine alone."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _class_making(node: ast.Name, parent: ast.AST | None) -> str | None:
    """``type`` with three arguments, and as a base, makes classes out of text."""
    called = isinstance(parent, ast.Call) and parent.func is node
    made = (called and not _one_argument(node, parent)) or isinstance(parent, ast.ClassDef)
    return "type makes no classes here" if node.id == "type" and made else None


def _one_argument(node: ast.AST, parent: ast.AST | None) -> bool:
    return (
        isinstance(parent, ast.Call)
        and parent.func is node
        and len(parent.args) == 1
        and not parent.keywords
        and not isinstance(parent.args[0], ast.Starred)
    )


def _fields(node: ast.Attribute) -> str | None:
    """Attributes that a written-out text's format would take, in its fields and in their own formats."""
    if _no_format(node.attr) and isinstance(node.value, ast.Constant):
        return next((why for name in _taken(node.value.value) if (why := _no_attribute(name))), None)
    return None


def _taken(text: object) -> Iterator[str]:
    try:
        parsed = list(string.Formatter().parse(text)) if isinstance(text, str) else []
    except ValueError:  # no format: it fails when it is run
        return
    for _, field, form, _ in parsed:
        yield from (field or "").replace("]", ".").replace("[", ".").split(".")[1:]
        if form:
            yield from _taken(form)


def _harmless_format(node: ast.Attribute, parent: ast.AST | None) -> bool:
    """Whether the text is written out, or all that it is given is text (as pendulum's dates are)."""
    if isinstance(node.value, ast.Constant):
        return True
    if not (isinstance(parent, ast.Call) and parent.func is node):
        return False
    given = [*parent.args, *(word.value for word in parent.keywords if word.arg)]
    return len(given) == len(parent.args) + len(parent.keywords) and all(
        isinstance(value, (ast.Constant, ast.JoinedStr)) for value in given
    )
