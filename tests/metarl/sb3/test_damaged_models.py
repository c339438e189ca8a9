"""Damaged and hostile files of stable-baselines3's models: the same model, or one sentence; nothing in them is run."""

from __future__ import annotations

import io
import json
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import damage
import gymnasium
import numpy as np
import pytest
import torch
from small import SECTIONS, SIGN, same
from stable_baselines3 import PPO

import metarl
from metarl import MAML

SMALL: dict[str, Any] = {name: SECTIONS[name] for name in ("learning", "evaluation")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a PPO model."""
    metarl.envs.find_family(SIGN)
    path = tmp_path_factory.mktemp("whole") / "model.zip"
    PPO("MlpPolicy", gymnasium.make("toy/Sign-v0"), seed=3, policy_kwargs={"net_arch": [6, 5]}).save(path)
    return path.read_bytes()


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def weights_of(raw: bytes) -> dict[str, torch.Tensor]:
    return dict(torch.load(io.BytesIO(damage.members_of(raw)["policy.pth"]), weights_only=True))


def with_weights(raw: bytes, **changes: torch.Tensor) -> bytes:
    tensors = {**weights_of(raw), **{name.replace("__", "."): value for name, value in changes.items()}}
    return damage.zipped({**damage.members_of(raw), "policy.pth": saved(tensors)})


def with_data(raw: bytes, **changes: Any) -> bytes:
    members = damage.members_of(raw)
    return damage.zipped({**members, "data": json.dumps({**json.loads(members["data"]), **changes}).encode()})


def with_listing(raw: bytes, old: bytes, new: bytes) -> bytes:
    """Edit the pickled names and shapes of the weights."""
    members = damage.members_of(raw)
    inner = damage.members_of(members["policy.pth"])
    (listing,) = (name for name in inner if name.endswith("data.pkl"))
    assert old in inner[listing]
    inner[listing] = inner[listing].replace(old, new)
    return damage.zipped({**members, "policy.pth": damage.zipped(inner)})


def with_listing_of(raw: bytes, listing: bytes) -> bytes:
    members = damage.members_of(raw)
    inner = {**damage.members_of(members["policy.pth"])}
    (name,) = (name for name in inner if name.endswith("data.pkl"))
    return damage.zipped({**members, "policy.pth": damage.zipped({**inner, name: listing})})


def load(raw: bytes, path: Path) -> MAML:
    path.write_bytes(raw)
    return MAML.from_pretrained(path, SIGN, **SMALL)


def check(raw: bytes, path: Path, expected: MAML) -> bool:
    """Return whether a file was accepted, after a check that it is the same model."""
    began = time.process_time()
    refused: ValueError | None = None
    try:
        model = load(raw, path)
    except ValueError as error:
        refused = error
    assert time.process_time() - began < 2.0
    if refused is None:
        assert same(model.parameters, expected.parameters)
        return True
    assert type(refused) is ValueError
    assert str(path) in str(refused)
    assert str(refused).isprintable()
    assert len(str(refused)) < 1500
    return False


@pytest.mark.parametrize("kind", ["file", "weights", "listing", "data"])
def test_damage_is_refused_or_changes_nothing(kind: str, whole: bytes, tmp_path: Path) -> None:
    expected = load(whole, tmp_path / "whole.zip")
    accepted = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        members = damage.members_of(whole)
        change = damage.flipped if seed % 2 else damage.cut
        if kind == "file":
            raw = change(whole, rng)
        elif kind == "listing":
            inner = damage.members_of(members["policy.pth"])
            (name,) = (name for name in inner if name.endswith("data.pkl"))
            inner[name] = change(inner[name], rng)
            raw = damage.zipped({**members, "policy.pth": damage.zipped(inner)})
        elif kind == "weights":
            raw = damage.zipped({**members, "policy.pth": change(members["policy.pth"], rng)})
        else:
            raw = damage.zipped({**members, "data": change(members["data"], rng)})
        accepted.append(check(raw, tmp_path / "model.zip", expected))
    assert not all(accepted)


class Bomb:
    """Unpickling it writes a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("run"),)


def test_what_is_hostile_is_refused_at_once_and_not_run(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = load(whole, tmp_path / "whole.zip")
    members, zeros = damage.members_of(whole), bytes(200 << 20)
    bias, (dim,) = "action_net__bias", weights_of(whole)["action_net.bias"].shape
    policy = json.loads(members["data"])["policy_kwargs"]
    hostile = {
        "a bomb": damage.zipped({**members, "policy.pth": zeros}, zipfile.ZIP_DEFLATED),
        "a bomb of JSON": damage.zipped({**members, "data": zeros}, zipfile.ZIP_DEFLATED),
        "nested": damage.zipped({**members, "data": b"[" * 500_000}),
        "many values": damage.zipped({**members, "data": b"[" + b"[]," * 5_000_000 + b"1]"}),
        "code": damage.zipped({**members, "policy.pth": pickle.dumps(Bomb())}),
        "code as weights": with_listing_of(whole, pickle.dumps({"action_net.bias": Bomb()}, protocol=2)),
        "a large call": with_listing_of(whole, b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."),
        "a large memo": with_listing_of(whole, b"\x80\x02}r\xff\xff\xff\x7f."),
        "larger than stored": with_listing(whole, b"K\x05K\x06\x86", b"K\xffK\xff\x86"),
        "NaN": with_weights(whole, **{bias: torch.full((dim,), torch.nan)}),
        "infinite": with_weights(whole, log_std=torch.full((dim,), torch.inf)),
        "whole numbers": with_weights(whole, **{bias: torch.zeros(dim, dtype=torch.int64)}),
        "another shape": with_weights(whole, **{bias: torch.zeros(dim, 1)}),
        "something more": with_weights(whole, more=torch.zeros(1)),
        "thousands of layers": with_data(whole, policy_kwargs={**policy, "net_arch": [2] * 5000}),
        "wide layers": with_data(whole, policy_kwargs={**policy, "net_arch": [10**6, 10**6]}),
        "no such layers": with_data(whole, policy_kwargs={**policy, "net_arch": "wide"}),
        "no table": with_data(whole, policy_kwargs=[1]),
        "no space": with_data(whole, observation_space="1" * 1_000_000),
        "digits": with_data(whole, observation_space={"_shape": "1" * 1_000_000 + "x"}),
        "another activation": with_data(
            whole, policy_kwargs={**policy, "activation_fn": "<class 'torch.nn.modules.activation.Such'>"}
        ),
        "a large extractor": with_data(
            whole,
            policy_kwargs={
                **policy,
                "features_extractor_class": "<class 'stable_baselines3.common.torch_layers.NatureCNN'>",
                "features_extractor_kwargs": {"features_dim": 10**12},
            },
        ),
    }
    for name, raw in hostile.items():
        assert not check(raw, tmp_path / "model.zip", expected), name
    assert not Path("run").exists()
