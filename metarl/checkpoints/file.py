"""The file of a checkpoint: tensors (safetensors), JSON and a digest of both in one zip file, without pickled code.

The digest shows that nothing was damaged or edited by accident. It is no signature: somebody who edits a file on
purpose can write a digest that fits. Such a file still has to pass all the other checks, of types, ranges, shapes and
finite numbers, and cannot make ``load`` run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from metarl.checkpoints.facts import COUNTS, EARLIER, FORMAT, PROGRESS, VERSION, OtherVersionError, check_facts
from metarl.checkpoints.values import check_values
from metarl.files import replacing
from metarl.sb3.bounds import refuse_larger
from metarl.state import State
from metarl.untrusted import JSON_BYTES, in_words, member_chunks, member_size, open_zip, read_json, read_member

_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_DIGEST = "digest.sha256"
_DIGEST_BYTES = 64  # in hexadecimal
_HEADER_BYTES = 1 << 20  # of the names and shapes of tensors
_BEST_PARTS = {
    "parameters": "best",
    "critic": "best_critic",
    "normalizer": "best_normalizer",
    "extra": "best_extra",
}


def checkpoint_path(path: str | Path) -> Path:
    """Return a path with ``.zip`` added if it is missing.

    Raises:
        ValueError: it names no file.
    """
    if not isinstance(path, str | os.PathLike) or not Path(path).name or "\0" in str(path):
        raise ValueError(f"the path of a checkpoint is {path!r}; expected the name of a file, as in 'runs/model'")
    path = Path(path)
    return path if path.suffix == ".zip" else path.with_name(path.name + ".zip")


def stored_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint file that a path names: as given to ``save``, or a run's folder.

    Of a run's folder it is ``checkpoints/best.zip``, the best on validation tasks so far; before the first validation
    it is ``checkpoints/last.zip``, the latest.

    Raises:
        ValueError: a folder without these, or both a run's folder and a file that ``save`` wrote.
    """
    folder = Path(path) if isinstance(path, str | os.PathLike) and "\0" not in str(path) else None
    if folder is None or not folder.is_dir():
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
        facts: learner, versions, settings and counts, in JSON's types, checked by ``check_facts``.
        tensors: by part and name, checked by ``check_values``.
    """

    facts: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]

    def all_tensors(self) -> dict[str, Tensor]:
        """Return all tensors by part and name in one."""
        return {f"{part}/{name}": value for part, tensors in self.tensors.items() for name, value in tensors.items()}

    def states(self, initial: State) -> tuple[State, tuple[float, State] | None]:
        """Return the state, and the score and state of the best validation, or None without a validation.

        Args:
            initial: the state of a new learner with the same settings; the tensors get its devices.

        Raises:
            ValueError: the tensors' names, shapes or types differ from those of ``initial``.
        """
        facts = self.facts
        initial = replace(initial, normalizer=replace(initial.normalizer, **facts["normalizer"]))
        counts: dict[str, Any] = {name: facts[name] for name in COUNTS}
        counts[EARLIER] = facts.get(EARLIER, 0)
        counts[PROGRESS] = float(facts.get(PROGRESS, 1.0))
        state = replace(initial.restored(self.tensors), **counts)
        best = facts["best"]
        if best is None:
            return state, None
        # Files without a value function of the best state share one between both states.
        parts = {part: self.tensors.get(name, {}) for part, name in _BEST_PARTS.items()}
        parts["critic"] = self.tensors.get("best_critic", self.tensors.get("critic", {}))
        own: dict[str, Any] = {**counts, **{name: best[name] for name in (*COUNTS, EARLIER) if name in best}}
        own[PROGRESS] = float(best.get(PROGRESS, counts[PROGRESS]))
        return state, (float(best["score"]), replace(initial.restored(parts), **own))

    def check_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Check that a policy has the buffers of this file, where it has any.

        Raises:
            ValueError: they differ.
        """
        own = self.tensors.get("buffers", {})
        same = own.keys() == buffers.keys() and all(
            value.dtype == buffers[name].dtype and bool(value.equal(buffers[name].cpu())) for name, value in own.items()
        )
        if own and not same:
            raise ValueError("the checkpoint's buffers do not fit its policy; it was damaged or edited")


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

    Raises:
        ValueError: the state is none that ``read_checkpoint`` reads, such as one with numbers that are not finite; an
            old file is kept.
    """
    parts: dict[str, Mapping[str, Tensor]] = {**state.tensors(), "buffers": buffers or {}}
    if best is not None:
        parts |= {_BEST_PARTS[part]: tensors for part, tensors in best[1].tensors().items()}
    host = {
        f"{part}/{name}": tensor.detach().cpu().clone().contiguous()
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }
    kept = (*COUNTS, EARLIER, PROGRESS)
    body = {
        "format": FORMAT,
        "version": VERSION,
        **facts,
        **{name: getattr(state, name) for name in kept},
        "normalizer": {"clip": state.normalizer.clip, "epsilon": state.normalizer.epsilon},
        "best": None,
    }
    if best is not None:
        body["best"] = {"score": best[0], **{name: getattr(best[1], name) for name in kept}}
    try:
        check_facts(body)
        check_values(parts, own_learner=_is_own(body))
        refuse_larger(body["settings"].get("policy", {}), host)
        members = {
            _STATE: json.dumps(body, indent=1, allow_nan=False).encode(),
            _TENSORS: safetensors.torch.save(host),
        }
        read_json(members[_STATE])
        _check_sizes({name: len(content) for name, content in members.items()}, members[_TENSORS][:8])
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not written, since nobody could load it: {in_words(error)}") from error
    members[_DIGEST] = _digest((name, len(content), [content]) for name, content in members.items()).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside, beside.open("wb") as file:
        with zipfile.ZipFile(file, "w") as archive:  # not compressed, which would save little and take long
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        file.flush()
        os.fsync(file.fileno())


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the contents of a checkpoint file.

    Its digest is checked before anything in it is parsed. Files of older versions have none; of these and all others
    types, ranges and finite numbers are checked. No more is read than the file holds, whatever it declares.

    Raises:
        ValueError: the file does not exist, is not a checkpoint of metarl, is damaged, or has another version.
    """
    with _opened(path) as archive:
        facts, packed = _read_facts(archive), read_member(archive, _TENSORS)
        _check_sizes({}, packed[:8])
        # Copies, since the last bit of a matrix product can depend on the alignment of a matrix in memory.
        tensors = {name: part.clone() for name, part in safetensors.torch.load(packed).items()}
        by_part = _by_part(tensors, has_best=facts["best"] is not None)
        check_values(by_part, own_learner=_is_own(facts))
    return Checkpoint(facts, by_part)


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts of a checkpoint file, whose digest is checked too, but not its tensors.

    Raises:
        ValueError: see ``read_checkpoint``.
    """
    with _opened(path) as archive:
        return _read_facts(archive)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a checkpoint file, and turn any error of what is read from it into one ``ValueError``."""
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {str(path)!r}")
    try:
        with open_zip(path) as archive:
            yield archive
    except OtherVersionError as error:
        raise ValueError(f"{str(path)!r} {error}") from error
    except PermissionError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except Exception as error:  # damaged files raise errors of many types
        raise ValueError(
            f"{str(path)!r} is damaged or no checkpoint of metarl ({in_words(error)}); take another checkpoint"
        ) from error


def _read_facts(archive: zipfile.ZipFile) -> dict[str, Any]:
    names = set(archive.namelist())
    if not {_STATE, _TENSORS} <= names:
        raise ValueError("it is a zip file without a checkpoint; expected one by save()")
    if not names <= {_STATE, _TENSORS, _DIGEST}:
        raise ValueError("it has members that are none of a checkpoint")
    if _DIGEST in names:
        _check_digest(archive)
    facts: dict[str, Any] = read_json(read_member(archive, _STATE, JSON_BYTES))
    check_facts(facts)
    return facts


def _is_own(facts: Mapping[str, Any]) -> bool:
    """Return whether the learner is one of metarl's, which alone have names without a module."""
    return ":" not in facts["learner"]


def _check_sizes(sizes: Mapping[str, int], start: bytes) -> None:
    """Check how long the JSON is, and the header of the tensors by their first bytes."""
    if sizes.get(_STATE, 0) > JSON_BYTES:
        raise ValueError(f"its settings take {sizes[_STATE]} bytes, and at most {JSON_BYTES} are read")
    header = int.from_bytes(start, "little")
    if header > _HEADER_BYTES:
        raise ValueError(f"the names of its tensors take {header} bytes, and at most {_HEADER_BYTES} are read")


def _digest(members: Iterable[tuple[str, int, Iterable[bytes]]]) -> str:
    """Return the digest of members, each with its name, its size and its bytes in parts."""
    digest = hashlib.sha256()
    for name, size, chunks in sorted(members, key=lambda member: member[0]):
        digest.update(f"{name}\0{size}\0".encode())
        for chunk in chunks:
            digest.update(chunk)
    return digest.hexdigest()


def _check_digest(archive: zipfile.ZipFile) -> None:
    limits = {_STATE: JSON_BYTES, _TENSORS: None}
    found = _digest(
        (name, member_size(archive, name, most), member_chunks(archive, name, most)) for name, most in limits.items()
    )
    if read_member(archive, _DIGEST, _DIGEST_BYTES) != found.encode():
        raise ValueError("its contents are not those that were saved, since their digest is another")


def _by_part(tensors: Mapping[str, Tensor], *, has_best: bool) -> dict[str, dict[str, Tensor]]:
    parts = {*_BEST_PARTS, "buffers", *(_BEST_PARTS.values() if has_best else ())}
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, own = name.partition("/")
        if part not in parts:
            raise ValueError(f"it has the tensor {name!r}, which no checkpoint has")
        found.setdefault(part, {})[own] = tensor
    return found
