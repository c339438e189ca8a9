"""Checkpoints: tensors (safetensors) and JSON in one zip file, without pickled code."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from metarl.files import replacing
from metarl.state import State

FORMAT = "metarl-checkpoint"
VERSION = 1
_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_COUNTS = ("iteration", "num_timesteps", "line_search_failures")
_PROGRESS = "progress_remaining"
_BEST_PARTS = {
    "parameters": "best",
    "critic": "best_critic",
    "normalizer": "best_normalizer",
    "extra": "best_extra",
}


def checkpoint_path(path: str | Path) -> Path:
    """Return a path with ``.zip`` added if it is missing."""
    path = Path(path)
    return path if path.suffix == ".zip" else path.with_name(path.name + ".zip")


def stored_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint file that a path names: as given to ``save``, or a run's folder.

    Of a run's folder it is ``checkpoints/best.zip``, the best on validation tasks so far; before the first validation
    it is ``checkpoints/last.zip``, the latest.

    Raises:
        ValueError: a folder without these, or both a run's folder and a file that ``save`` wrote.
    """
    folder = Path(path)
    if not folder.is_dir():
        return checkpoint_path(path)
    # The folder one is in, ".", has no name by itself.
    named = folder if folder.name else folder.absolute()
    file = checkpoint_path(named) if named.name else named
    kept = [folder / "checkpoints" / name for name in ("best.zip", "last.zip")]
    found = next((each for each in kept if each.is_file()), None)
    saved = file != folder and file.is_file()
    if found is None and not saved:
        raise ValueError(
            f"{str(folder)!r} is a folder without checkpoints/best.zip and checkpoints/last.zip; expected a run's "
            "folder, as runs/navigation, or a file that save() wrote"
        )
    if found is not None and saved:
        raise ValueError(
            f"{str(folder)!r} may be the run in that folder or the file {str(file)!r}; name {str(found)!r} or "
            f"{str(file)!r}"
        )
    return found or file


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file.

    Attributes:
        facts: learner, versions, settings and counts, in JSON's types.
        tensors: by part and name.
    """

    facts: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]

    def states(self, initial: State) -> tuple[State, tuple[float, State] | None]:
        """Return the state, and the score and state of the best validation, or None without a validation.

        Args:
            initial: the state of a new learner with the same settings; the tensors get its devices.

        Raises:
            ValueError: the tensors' names or shapes differ from those of ``initial``.
            KeyError: something is missing.
        """
        facts = self.facts
        initial = replace(initial, normalizer=replace(initial.normalizer, **facts["normalizer"]))
        counts: dict[str, Any] = {name: int(facts[name]) for name in _COUNTS}
        counts[_PROGRESS] = float(facts.get(_PROGRESS, 1.0))
        state = replace(initial.restored(self.tensors), **counts)
        best = facts["best"]
        if best is None:
            return state, None
        # Files without a value function of the best state share one between both states.
        parts = {part: self.tensors.get(name, {}) for part, name in _BEST_PARTS.items()}
        parts["critic"] = self.tensors.get("best_critic", self.tensors.get("critic", {}))
        own: dict[str, Any] = {**counts, **{name: int(best[name]) for name in _COUNTS if name in best}}
        own[_PROGRESS] = float(best.get(_PROGRESS, counts[_PROGRESS]))
        return state, (float(best["score"]), replace(initial.restored(parts), **own))


def write_checkpoint(
    path: Path,
    state: State,
    best: tuple[float, State] | None,
    facts: Mapping[str, Any],
    buffers: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint; a crash at any moment leaves the old file or the complete new one.

    Args:
        path: the file; its folder is made if it is missing.
        state: of the learner.
        best: score and state of the best validation so far, or None.
        facts: further entries of the JSON part.
        buffers: of the policy.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Mapping[str, Tensor]] = {**state.tensors(), "buffers": buffers or {}}
    if best is not None:
        parts |= {_BEST_PARTS[part]: tensors for part, tensors in best[1].tensors().items()}
    host = {
        f"{part}/{name}": tensor.detach().cpu().clone().contiguous()
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }
    body = {
        "format": FORMAT,
        "version": VERSION,
        **facts,
        **{name: getattr(state, name) for name in (*_COUNTS, _PROGRESS)},
        "normalizer": {"clip": state.normalizer.clip, "epsilon": state.normalizer.epsilon},
        "best": None,
    }
    if best is not None:
        body["best"] = {"score": best[0], **{name: getattr(best[1], name) for name in (*_COUNTS, _PROGRESS)}}
    with replacing(path) as beside, beside.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(_STATE), json.dumps(body, indent=1, allow_nan=False))
            archive.writestr(zipfile.ZipInfo(_TENSORS), safetensors.torch.save(host))
        file.flush()
        os.fsync(file.fileno())


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the contents of a checkpoint file.

    Raises:
        ValueError: the file does not exist, is not a checkpoint of metarl, is damaged, or has another version.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {str(path)!r}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if not {_STATE, _TENSORS} <= names:
                raise ValueError(f"{str(path)!r} is a zip file but no checkpoint of metarl; expected one by save()")
            state = json.loads(archive.read(_STATE))
            # Copies, since the last bit of a matrix product can depend on the alignment of a matrix in memory.
            tensors = {name: part.clone() for name, part in safetensors.torch.load(archive.read(_TENSORS)).items()}
    except (zipfile.BadZipFile, EOFError, OSError, SafetensorError, json.JSONDecodeError, UnicodeDecodeError,
            NotImplementedError) as error:  # fmt: skip
        raise ValueError(
            f"{str(path)!r} is damaged or no checkpoint of metarl ({error}); take another checkpoint"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{str(path)!r} is no checkpoint of metarl; expected one written by save()")
    if state.get("version") != VERSION:
        raise ValueError(
            f"{str(path)!r} has checkpoint version {state.get('version')!r}, this metarl reads {VERSION}; update metarl"
        )
    by_part: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, own = name.partition("/")
        by_part.setdefault(part, {})[own] = tensor
    return Checkpoint(state, by_part)
