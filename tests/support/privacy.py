"""Where the repository's code uses an underscored name of another module's, found in its syntax trees."""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from source import ROOT, all_modules, files, holder, imported_names, tree

# Underscored to stay clear of a field's name, and documented as public: https://docs.python.org/3/library/collections
PUBLIC = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}
# Read from models of stable-baselines3: with what arguments a policy was made.
BORROWED = {"_get_constructor_parameters"}
# What these classes of other packages ask their subclasses to override.
HOOKS: Mapping[str, frozenset[str]] = {
    "stable_baselines3.common.callbacks.BaseCallback": frozenset(
        {"_init_callback", "_on_rollout_end", "_on_rollout_start", "_on_step", "_on_training_end", "_on_training_start"}
    ),
    "stable_baselines3.common.policies.BaseModel": frozenset({"_get_constructor_parameters"}),
    "stable_baselines3.common.policies.BasePolicy": frozenset({"_predict"}),
    "stable_baselines3.common.policies.ActorCriticPolicy": frozenset(
        {"_build", "_build_mlp_extractor", "_get_action_dist_from_latent", "_get_constructor_parameters"}
    ),
}


@dataclass(frozen=True)
class Module:
    """A file of the repository: its name, its tree, what its names stand for, and which underscored ones are its own.

    Attributes:
        name: as it is imported.
        path: of the file.
        bound: by an import anywhere in it, and the full name each stands for.
        classes: defined at its top.
        own: underscored names of functions, methods, classes, variables and attributes of ``self`` defined in it.
    """

    name: str
    path: Path
    bound: Mapping[str, str]
    classes: Mapping[str, ast.ClassDef]
    own: frozenset[str]


def private(name: str) -> bool:
    """Return whether a name begins with an underscore, and is none of Python's own.

    >>> [private(name) for name in ("_step", "step", "__init__", "_", "_replace")]
    [True, False, False, False, False]
    """
    return name.startswith("_") and name.strip("_") != "" and not name.endswith("__") and name not in PUBLIC


def read(name: str, path: Path) -> Module:
    """Return what is known of a file."""
    code = tree(path)
    bound = {}
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                bound[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            full = imported_names(ast.Module([node], []), name, is_package=path.stem == "__init__")
            bound |= {alias.asname or alias.name: target for alias, target in zip(node.names, full, strict=True)}
    classes = {node.name: node for node in code.body if isinstance(node, ast.ClassDef)}
    return Module(name, path, bound, classes, frozenset(own_names(code)))


def own_names(code: ast.AST) -> Iterator[str]:
    """Yield the underscored names a file defines.

    >>> sorted(own_names(ast.parse("_a = 1\\nclass B:\\n    _c: int\\n    def _d(self): self._e = other._f")))
    ['_a', '_c', '_d', '_e']
    """
    for node in ast.walk(code):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names = [node.name]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names = [node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
            names = [node.attr]
        else:
            continue
        yield from filter(private, names)


def is_own(value: ast.expr) -> bool:
    """Return whether an expression is ``self``, ``cls``, ``super()`` or ``type(self)``."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id == "super" or (value.func.id == "type" and all(map(is_own, value.args)))
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


@functools.cache
def repository() -> Mapping[str, Module]:
    """Return all files of the repository's code and tests; tests' helpers by the names they are imported under."""
    paths = dict(all_modules())
    for path in files("tests"):
        below = path.relative_to(ROOT / "tests")
        name = path.stem if below.parts[0] == "support" else ".".join(("tests", *below.with_suffix("").parts))
        paths[name] = path
    return {name: read(name, path) for name, path in paths.items()}


def full_name(value: ast.expr, module: Module) -> str | None:
    """Return what a dotted expression stands for where its first name is imported; None for any other expression."""
    if isinstance(value, ast.Attribute):
        base = full_name(value.value, module)
        return None if base is None else f"{base}.{value.attr}"
    return module.bound.get(value.id) if isinstance(value, ast.Name) else None


def uses(module: Module, known: Mapping[str, Module]) -> Iterator[tuple[int, str]]:
    """Yield the lines at which a module imports or reads another one's underscored name, and what stands there."""
    tops = {name.partition(".")[0] for name in known}

    def foreign(value: ast.expr, name: str) -> bool:
        if is_own(value) or not private(name) or name in BORROWED:
            return False
        stands_for = full_name(value, module)
        if stands_for is None:
            return name not in module.own
        return stands_for.partition(".")[0] in tops and holder(stands_for, known) != module.name

    for node in ast.walk(tree(module.path)):
        if isinstance(node, ast.Attribute) and foreign(node.value, node.attr):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                target = module.bound[alias.asname or alias.name]
                if private(alias.name) and target.partition(".")[0] in tops and holder(target, known) != module.name:
                    yield node.lineno, f"import of {target}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("getattr", "setattr"):
            match node.args:
                case [value, ast.Constant(value=str(name)), *_] if foreign(value, name):
                    yield node.lineno, ast.unparse(node)
                case [ast.Constant(value=str(name)), *_] if private(name.rpartition(".")[2]):
                    yield node.lineno, ast.unparse(node)


def overridden(module: Module, known: Mapping[str, Module]) -> Iterator[tuple[int, str]]:
    """Yield the lines at which a class defines an underscored name that a base class of another module defines too."""
    for node in ast.walk(tree(module.path)):
        if isinstance(node, ast.ClassDef):
            names = {name: part.lineno for part in node.body for name in body_names(part) if private(name)}
            for base in node.bases:
                for name, holders in inherited(base, module, known).items():
                    others = [where for where in holders if where.rpartition(".")[0] != module.name]
                    if name in names and not any(name in HOOKS.get(where, ()) for where in others) and others:
                        yield names[name], f"{node.name}.{name} overrides that of {others[0]}"


def body_names(part: ast.stmt) -> list[str]:
    """Return the names that a statement of a class's body defines."""
    if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return [part.name]
    targets = part.targets if isinstance(part, ast.Assign) else [part.target] if isinstance(part, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def inherited(base: ast.expr, module: Module, known: Mapping[str, Module]) -> dict[str, list[str]]:
    """Return the underscored names of a base class and of those above it, and the full names of their classes."""
    if isinstance(base, ast.Subscript):
        base = base.value
    if isinstance(base, ast.Name) and base.id in module.classes:
        return names_of(f"{module.name}.{base.id}", known)
    found = full_name(base, module)
    return {} if found is None else names_of(found, known)


def names_of(name: str, known: Mapping[str, Module]) -> dict[str, list[str]]:
    """Return the underscored names of a class of a full name and of those above it, and their classes' full names."""
    where = holder(name, known)
    if where is None:
        return names_of_other(name)
    module, attribute = known[where], name.removeprefix(f"{where}.")
    if attribute not in module.classes:
        passed_on = module.bound.get(attribute)
        return {} if passed_on is None else names_of(passed_on, known)
    node = module.classes[attribute]
    found = {key: [name] for part in node.body for key in body_names(part) if private(key)}
    for base in node.bases:
        for key, holders in inherited(base, module, known).items():
            found.setdefault(key, []).extend(holders)
    return found


@functools.cache
def names_of_other(name: str) -> dict[str, list[str]]:
    """Return the same for a class of another package, which is imported."""
    where, _, attribute = name.rpartition(".")
    try:
        kind = getattr(importlib.import_module(where), attribute)
    except (ImportError, AttributeError):
        return {}
    found: dict[str, list[str]] = {}
    for part in getattr(kind, "__mro__", ()):
        for key in filter(private, vars(part)):
            found.setdefault(key, []).append(f"{part.__module__}.{part.__qualname__}")
    return found


def offenders() -> list[str]:
    """Return each use and each override of another module's underscored name: file, line, and what stands there."""
    known = repository()
    found = {
        f"{module.path.relative_to(ROOT)}:{line}: {text}"
        for module in known.values()
        for look in (uses, overridden)
        for line, text in look(module, known)
    }
    return sorted(found)
