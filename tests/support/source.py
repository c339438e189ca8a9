"""The repository's own code, read and not run: its modules, what they import, and where their imports go round."""

from __future__ import annotations

import ast
import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {"envs": "metarl.envs", "agents": "metarl.agents", "metarl": "metarl", "experiments": "metarl.experiments"}
Graph = Mapping[str, Iterable[str]]


@functools.cache
def files(folder: str) -> tuple[Path, ...]:
    """Return all Python files below a folder of the repository, at any depth."""
    return tuple(sorted((ROOT / folder).rglob("*.py")))


def module_name(path: Path, top: Path, package: str) -> str:
    """Return what a file below ``top``, the folder of ``package``, is imported as.

    >>> module_name(Path("envs/families/ant.py"), Path("envs"), "metarl.envs")
    'metarl.envs.families.ant'
    >>> module_name(Path("envs/families/__init__.py"), Path("envs"), "metarl.envs")
    'metarl.envs.families'
    """
    parts = path.relative_to(top).with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


@functools.cache
def modules(folder: str) -> Mapping[str, Path]:
    """Return the modules of one of the four folders, those of its sub-packages too, by the names they install under."""
    return {module_name(path, ROOT / folder, PACKAGES[folder]): path for path in files(folder)}


@functools.cache
def all_modules() -> Mapping[str, Path]:
    """Return the modules of the four folders."""
    return {name: path for folder in PACKAGES for name, path in modules(folder).items()}


@functools.cache
def tree(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_names(code: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Yield the full name of everything a module imports, wherever in the file, be it in a function or for types only.

    What is imported from a module is the module's name and its own: ``from a import b`` is ``a.b``.

    >>> code = ast.parse("import a.b\\ndef f():\\n    from .c import d\\n    from .. import e")
    >>> list(imported_names(code, "m.n.o", is_package=False))
    ['a.b', 'm.n.c.d', 'm.e']
    >>> list(imported_names(code, "m.n", is_package=True))
    ['a.b', 'm.n.c.d', 'm.e']
    """
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (base if alias.name == "*" else f"{base}.{alias.name}" for alias in node.names)


def imports_of(module: str, path: Path) -> Iterator[str]:
    """Yield the full name of everything the module in a file imports."""
    return imported_names(tree(path), module, is_package=path.stem == "__init__")


def holder(name: str, known: Iterable[str]) -> str | None:
    """Return the module, among those known, that a full name is of: the longest that it begins with.

    >>> holder("metarl.agents.policies.Policy", ["metarl", "metarl.agents", "metarl.agents.policies"])
    'metarl.agents.policies'
    """
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


@functools.cache
def import_graph() -> Mapping[str, frozenset[str]]:
    """Return which modules of the four folders each of them imports.

    An import of ``metarl.agents.policies`` counts as one of that module, and not of the packages it lies in.
    """
    known = all_modules()
    graph = {}
    for module, path in known.items():
        found = (holder(name, known) for name in imports_of(module, path))
        graph[module] = frozenset(name for name in found if name is not None and name != module)
    return graph


def shortest_path(graph: Graph, start: str, end: str) -> list[str] | None:
    """Return a shortest way from one module to another along imports, ends included; None where there is none."""
    before = {start: ""}
    waiting = deque([start])
    while waiting:
        name = waiting.popleft()
        for target in sorted(graph.get(name, ())):
            if target == end:
                way = [end]
                while name:
                    way.append(name)
                    name = before[name]
                return way[::-1]
            if target not in before:
                before[target] = name
                waiting.append(target)
    return None


def circles(graph: Graph) -> list[list[str]]:
    """Return circles of imports, for each module that is in any a shortest one, each circle once.

    >>> circles({"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": []})
    [['b', 'c', 'b']]
    """
    found = {}
    for name in graph:
        way = shortest_path(graph, name, name)
        if way is not None:
            found.setdefault(frozenset(way), way)
    return list(found.values())
