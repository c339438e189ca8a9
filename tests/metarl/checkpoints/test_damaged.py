"""Damaged, edited and hostile checkpoints: each loads exactly what was saved, or is refused in one sentence."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import damage
import numpy as np
import pytest
import safetensors.torch
import torch
from small import small

from metarl.learners.registry import load_learner

SECONDS, BYTES = 2.0, 500 << 20
NORMALIZED = {"normalize_observations": True, "normalize_rewards": True}
BANDIT = {"family": "metarl/BernoulliBandit-v0", "family_kwargs": {"arms": 3, "pulls": 4}}
LEARNERS: Mapping[str, Mapping[str, Any]] = {
    "maml": {"learning": NORMALIZED, "outer": {"update": "ppo"}},
    "meta-sgd": {"outer": {"per_step": True}},
    "promp": BANDIT,
    "cavia": {},
    "multi-task": {"outer": {"components": 2}},
    "pretrained": {"outer": {"environments": 2, "minibatches": 2}},
}
DAMAGES = ("flips", "cut", "swapped", "facts", "tensors", "bomb")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """A checkpoint of each learner, with the state of the best validation in it."""
    found = {}
    for name, arguments in LEARNERS.items():
        model = small(name, **arguments).learn(iterations=2)
        path = tmp_path_factory.mktemp("whole") / "model.zip"
        model.save(path)
        model.close()
        found[name] = path.read_bytes()
    return found


def damaged(kind: str, raw: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    members = damage.members_of(raw)
    match kind:
        case "flips":
            return damage.flipped(raw, rng)
        case "cut":
            return damage.cut(raw, rng)
        case "swapped":
            return damage.swapped(members, damage.members_of(other), rng)
        case "facts":
            return damage.edited_facts(members, rng)
        case "tensors":
            return damage.edited_tensors(members, rng)
    return damage.bomb(members, rng)


@contextmanager
def within_bounds() -> Iterator[None]:
    """Hold what runs within it to its time of computation and its memory."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest memory so far
    before, began = memory("VmRSS"), time.process_time()
    yield
    seconds, used = time.process_time() - began, memory("VmHWM") - before
    assert seconds < SECONDS, f"{seconds:.1f} s"
    assert used < BYTES, f"{used >> 20} MiB"


def memory(kind: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) << 10


def contents(raw: bytes) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    members = damage.members_of(raw)
    return json.loads(members[damage.STATE]), safetensors.torch.load(members[damage.TENSORS])


def assert_same_contents(found: bytes, expected: bytes) -> None:
    """The tensors of two files are the same bits, and all facts of the first are in the second or are defaults."""
    (facts, tensors), (other_facts, other_tensors) = contents(found), contents(expected)
    assert tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        assert value.dtype == other_tensors[name].dtype, name
        assert torch.equal(value, other_tensors[name]), name
        assert value.isfinite().all(), name
    told = {way: value_at(facts, way) for way in damage.places(facts)}
    for way in damage.places(other_facts):
        value = value_at(other_facts, way)
        if not isinstance(value, dict | list) and way in told:
            assert told[way] == value, way


def value_at(facts: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        facts = facts[key]
    return facts


def check(path: Path, raw: bytes, kind: str, expected: bytes) -> bool:
    """Return whether the file was accepted, after a check that what was accepted is what was saved."""
    path.write_bytes(raw)
    refused: list[ValueError] = []
    with within_bounds():
        try:
            loaded = load_learner(path)
        except ValueError as error:
            refused.append(error)
    for error in refused:
        sentence = str(error)
        assert type(error) is ValueError
        assert str(path) in sentence
        assert sentence.isprintable()
        assert len(sentence) < 1500
        return False
    loaded.save(path.with_name("again"))
    loaded.close()
    again = path.with_name("again.zip").read_bytes()
    # Damage must not change anything; an edit that is sealed again may, to something valid that is in the file.
    assert_same_contents(again, expected if kind in ("flips", "cut") else raw)
    return True


def run(count: int, first: int, whole: Mapping[str, bytes], path: Path) -> dict[str, list[bool]]:
    accepted: dict[str, list[bool]] = {kind: [] for kind in DAMAGES}
    names = list(LEARNERS)
    for seed in range(first, first + count):
        rng = np.random.default_rng(seed)
        # Bombs take longest, and there are few ways to make one.
        kind = DAMAGES[seed % 5] if seed % 20 else "bomb"
        name, other = names[(seed // 5) % len(names)], names[(seed // 5 + 1) % len(names)]
        raw = damaged(kind, whole[name], whole[other], rng)
        try:
            accepted[kind].append(check(path, raw, kind, whole[name]))
        except BaseException as error:
            error.add_note(f"seed {seed}: {kind} of {name}")
            raise
    return accepted


def test_two_hundred_damaged_files(whole: Mapping[str, bytes], tmp_path: Path) -> None:
    accepted = run(200, 0, whole, tmp_path / "damaged.zip")
    assert all(len(found) >= 10 for found in accepted.values())
    assert not any(accepted["bomb"])
    assert not any(accepted["swapped"])
    assert sum(map(sum, accepted.values())) < 60


@pytest.mark.full
def test_two_thousand_damaged_files(whole: Mapping[str, bytes], tmp_path: Path) -> None:
    accepted = run(2000, 1000, whole, tmp_path / "damaged.zip")
    assert not any(accepted["bomb"])
    assert not any(accepted["swapped"])


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_whole_is_accepted_with_and_without_a_digest(
    name: str, whole: Mapping[str, bytes], tmp_path: Path
) -> None:
    members = damage.members_of(whole[name])
    assert damage.with_digest(members) == members, "the tests compute another digest"
    for raw in (whole[name], damage.zipped(damage.without_digest(members))):
        assert check(tmp_path / "model.zip", raw, "flips", whole[name])


@pytest.mark.parametrize("name", LEARNERS)
def test_any_change_of_a_member_is_seen_by_the_digest(name: str, whole: Mapping[str, bytes], tmp_path: Path) -> None:
    members = damage.members_of(whole[name])
    rng = np.random.default_rng(1)
    for member in (damage.STATE, damage.TENSORS, damage.DIGEST):
        changed = damage.zipped({**members, member: damage.flipped(members[member], rng)})
        (tmp_path / "model.zip").write_bytes(changed)
        with pytest.raises(ValueError, match=r"model\.zip' is damaged .*digest is another"):
            load_learner(tmp_path / "model.zip")
