"""Checkpoints: tensors (safetensors) and JSON in one zip, never pickled code; written beside and renamed."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

FORMAT = "metarl-checkpoint"
VERSION = 1
_TENSORS = "tensors.safetensors"
_STATE = "state.json"


def checkpoint_path(path: str | Path) -> Path:
    """Return a path with ``.zip`` added where it is missing."""
    path = Path(path)
    return path if path.suffix == ".zip" else path.with_name(path.name + ".zip")


def write_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a checkpoint; a crash at any moment leaves the old file or the new one, whole.

    Args:
        path: the file; its folder is made where it is missing.
        tensors: by name.
        state: what JSON takes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    host = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    body = {"format": FORMAT, "version": VERSION, **state}
    try:
        with beside.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(zipfile.ZipInfo(_STATE), json.dumps(body, indent=1, allow_nan=False))
                archive.writestr(zipfile.ZipInfo(_TENSORS), safetensors.torch.save(host))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's tensors and state.

    Raises:
        ValueError: there is no such file, or it is no checkpoint of metarl, is damaged, or is of a newer version.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {str(path)!r}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if not {_STATE, _TENSORS} <= names:
                raise ValueError(f"{str(path)!r} is a zip file but no checkpoint of metarl; expected one by save()")
            state = json.loads(archive.read(_STATE))
            # Copies, since products of matrices that lie at odd addresses can differ in the last bit.
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
    return tensors, state
