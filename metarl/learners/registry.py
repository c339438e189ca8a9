"""The meta-learners by name: the table for lazy imports, the command and the documents.

A learner's module is imported on first use; until then, this module imports nothing from metarl. A package can add
learners through the entry-point group ``metarl.learners``: ``my-learner = "my_package.module:MyLearner"``.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ENTRY_POINT_GROUP = "metarl.learners"

# The NAME in learner=NAME -> module and class.
LEARNERS = {
    "maml": "metarl.learners.maml:MAML",
    "fomaml": "metarl.learners.fomaml:FOMAML",
    "e-maml": "metarl.learners.e_maml:EMAML",
    "promp": "metarl.learners.promp:ProMP",
    "reptile": "metarl.learners.reptile:Reptile",
    "meta-sgd": "metarl.learners.meta_sgd:MetaSGD",
    "anil": "metarl.learners.anil:ANIL",
    "cavia": "metarl.learners.cavia:CAVIA",
    "rl2": "metarl.learners.rl2:RL2",
    "pretrained": "metarl.learners.pretrained:Pretrained",
    "multi-task": "metarl.learners.multi_task:MultiTask",
    "task-aware": "metarl.learners.task_aware:TaskAware",
    "scratch": "metarl.learners.scratch:Scratch",
    "random": "metarl.learners.random:Random",
}


def class_places() -> dict[str, str]:
    """Return the module of each of metarl's own learners, by the name of the class."""
    return {place.partition(":")[2]: place.partition(":")[0] for place in LEARNERS.values()}


@functools.cache
def installed_learners() -> Mapping[str, str]:
    """Return the learners that installed packages add, name to ``module:Class``, except for metarl's own names."""
    found = sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name)
    return {entry.name: entry.value for entry in found if entry.name not in LEARNERS}


def find_learner(name: str) -> type[Any]:
    """Return a learner's class.

    Args:
        name: one of ``LEARNERS`` or of those that installed packages add, or ``module:Class`` for your own.

    Raises:
        ValueError: there is no learner with that name.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"the learner is {name!r}; expected its name, as in 'maml', or 'module:Class'")
    known = {**LEARNERS, **installed_learners()}
    entry = known.get(name, name)
    module, separator, attribute = entry.partition(":")
    if not separator:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown learner {name!r}; the nearest is {near!r}, expected one of {', '.join(known)}, or module:Class"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module may raise anything when it is imported
        raise ValueError(f"learner {name!r} cannot be imported: {error}") from error
    if not isinstance(found, type) or not hasattr(found, "outer_settings"):
        raise ValueError(f"learner {name!r} is no meta-learner; expected a subclass of metarl.BaseLearner")
    learns = getattr(found, "meta_iteration", None)
    if getattr(found, "trains", True) and getattr(learns, "__qualname__", "") == "BaseLearner.meta_iteration":
        raise ValueError(f"learner {name!r} has no meta_iteration, which says how it learns; give it one")
    return found


def option_owner(option: str) -> str | None:
    """Return one of metarl's own learners that has a setting of ``[outer]``, given the setting's name; or None."""
    from metarl.settings import outer_options

    return next((name for name in LEARNERS if option in outer_options(find_learner(name))), None)


def read_settings(data: dict[str, Any]) -> Any:
    """Return nested dicts, as from TOML, as settings, with the ``[outer]`` of the learner that they name.

    Raises:
        ValueError: an unknown learner, unknown keys or wrong values, all in one message.
    """
    from metarl.settings import structure

    name = data.get("learner", "maml")
    if not isinstance(name, str):
        return structure(data, find_learner("maml"), option_owner)
    try:
        learner = find_learner(name)
    except ValueError as unknown:
        rest = {key: value for key, value in data.items() if key not in ("learner", "outer")}
        try:
            structure(rest, find_learner("maml"))
        except ValueError as error:
            raise ValueError(f"{unknown}; {error}") from error
        raise
    return structure(data, learner, option_owner)


def load_learner(
    path: str | Path,
    *,
    device: str | None = None,
    policy_kwargs: dict[str, Any] | None = None,
    allow: bool | str | Iterable[str] = False,
) -> Any:
    """Return the learner of a checkpoint, of the class named in it; see ``BaseLearner.load``.

    Args:
        path: of the checkpoint, or of a run's folder (see ``stored_checkpoint``).
        device: where updates run; default: the device in the checkpoint's settings.
        policy_kwargs: arguments that the file cannot hold, as given to the class.
        allow: modules that may be imported besides those that need no permission, a name or several; True: any.

    Raises:
        ValueError: the file is not a checkpoint, is damaged, is of an unknown learner, or names a module that may not
            be imported.
    """
    from metarl.checkpoints import read_facts, refuse_imports, refused_in_a_sentence, stored_checkpoint

    file = stored_checkpoint(path)
    facts = read_facts(file)
    allow = allow if isinstance(allow, bool | str) or not isinstance(allow, Iterable) else tuple(allow)
    refuse_imports(file, facts, allow)
    with refused_in_a_sentence(file):
        kind = find_learner(facts["learner"])
    return kind.load(file, device=device, policy_kwargs=policy_kwargs, allow=allow)


def describe_learners() -> list[dict[str, Any]]:
    """Return name, class, summary, source and meta-updates of each learner, metarl's own first."""
    found = []
    for name, place in {**LEARNERS, **installed_learners()}.items():
        try:
            kind = find_learner(name)
        except ValueError as error:  # a broken plug-in must not hide the others
            fault = f"cannot be used: {error}"
            found.append({"name": name, "class": place, "summary": fault, "source": "", "updates": []})
            continue
        updates = [update for outer in kind.outer_settings if (update := getattr(outer, "update", None)) is not None]
        summary = (kind.__doc__ or "").partition("\n")[0]
        found.append(
            {"name": name, "class": kind.__name__, "summary": summary, "source": kind.source, "updates": updates}
        )
    return found
