"""What all ranks of a run need to have in common, compared before anything is written."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import metarl
import metarl.agents
import metarl.envs
import metarl.experiments
from metarl.envs.registry import find_family
from metarl.experiments.configuration import to_toml
from metarl.gradients.task_axis import GROUP_SIZE
from metarl.learner import BaseLearner
from metarl.results.versions import versions
from metarl.settings import Settings


def facts_of(options: argparse.Namespace, settings: Settings | None) -> dict[str, str]:
    """Return what a rank is to do and with which code, by name.

    Args:
        options: of the command line.
        settings: of a new run; None where one is resumed, whose settings rank 0 hands out.
    """
    asked = [str(options.resume), *options.overrides] if settings is None else to_toml(settings).splitlines()
    found = {
        "settings": "\n".join(asked),
        "versions of packages": "\n".join(f"{name} {version}" for name, version in versions().items()),
        "code of metarl": _digest(path for one in _packages() for path in sorted(Path(one).rglob("*.py"))),
    }
    return found if settings is None else {**found, **own_code(settings)}


def own_code(settings: Settings) -> dict[str, str]:
    """Return digests of the files in which family and learner are defined, by name."""
    entry = find_family(settings.family).entry_point
    family = entry if isinstance(entry, str) else f"{entry.__module__}:" if entry is not None else ""
    named = {
        f"code of the family {settings.family}": family,
        f"code of the learner {settings.learner}": settings.learner,
    }
    return {what: _digest(_file_of(name.partition(":")[0])) for what, name in named.items() if ":" in name}


def _packages() -> list[str]:
    return [path for package in (metarl, metarl.envs, metarl.agents, metarl.experiments) for path in package.__path__]


def _file_of(module: str) -> list[Path]:
    spec = importlib.util.find_spec(module)
    return [Path(spec.origin)] if spec is not None and spec.origin is not None and spec.has_location else []


def _digest(paths: Any) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def difference(by_rank: Sequence[Mapping[str, str]]) -> str | None:
    """Return a sentence on the first rank that differs from rank 0, None if all have the same."""
    first = by_rank[0]
    for rank, found in enumerate(by_rank):
        for name in first:
            if found.get(name) != first[name]:
                pairs = itertools.zip_longest(
                    found.get(name, "").splitlines(), first[name].splitlines(), fillvalue="nothing"
                )
                here, there = next(((one, other) for one, other in pairs if one != other), ("nothing", "nothing"))
                return (
                    f"rank {rank} has other {name} than rank 0 ({here!r}, not {there!r}); start all ranks with the "
                    "same command, from the same files, with the same installed packages"
                )
    return None


def refuse_ranks(learner: BaseLearner, count: int) -> None:
    """Refuse to train a learner on so many ranks.

    Raises:
        ValueError: it cannot deal its tasks to several, or has too few.
    """
    if count == 1 or not learner.trains:
        return
    tasks = learner.dealt_tasks
    groups = -(-tasks // GROUP_SIZE)
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if learner.device.type == "cuda" and here > gpus:
        raise ValueError(
            f"{here} processes on this machine would share {gpus} GPU{'' if gpus == 1 else 's'}; start one for each "
            "GPU, or set device=cpu"
        )
    if tasks == 0:
        raise ValueError(
            f"learner {learner.name} trains in a single process, since what it does in an iteration cannot be dealt by "
            f"tasks; start it without --processes and torchrun, not as {count} processes"
        )
    if groups < count:
        raise ValueError(
            f"an iteration of learner {learner.name} has {tasks} tasks here, which are dealt in groups of {GROUP_SIZE} "
            f"to at most {groups} processes, not {count}; start fewer, or give an iteration more tasks"
        )
