"""Checkpoints: everything is kept, nothing in a file is run, and what is damaged is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from small import same, small

from metarl import MAML
from metarl.learners.registry import load_learner


def test_save_and_load_keep_everything(tmp_path: Path) -> None:
    model = small().learn(iterations=2)
    model.save(tmp_path / "model")
    loaded = MAML.load(tmp_path / "model")
    assert (tmp_path / "model.zip").is_file()
    assert same(model.parameters, loaded.parameters)
    assert loaded.settings == model.settings
    assert (loaded.iteration, loaded.num_timesteps) == (2, model.num_timesteps)
    assert loaded.best is not None
    assert model.best is not None
    assert loaded.best.score == model.best.score
    assert same(model.learn(iterations=2).parameters, loaded.learn(iterations=2).parameters)


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    small().save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert sorted(archive.namelist()) == ["digest.sha256", "state.json", "tensors.safetensors"]


def test_policy_arguments_of_stable_baselines3_are_kept(tmp_path: Path) -> None:
    kwargs = {"net_arch": {"pi": [6], "vf": [3]}, "activation_fn": torch.nn.GELU}
    model = small(policy_kwargs=kwargs).learn(iterations=1)
    model.save(tmp_path / "model")
    loaded = MAML.load(tmp_path / "model")
    assert same(model.parameters, loaded.parameters)
    assert isinstance(loaded.policy.mlp_extractor.policy_net[1], torch.nn.GELU)


class Swish(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


def test_a_class_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    small(policy_kwargs={"activation_fn": Swish, "net_arch": [4]}).save(tmp_path / "model")
    with pytest.raises(ValueError, match="cannot keep activation_fn"):
        MAML.load(tmp_path / "model")
    loaded = MAML.load(tmp_path / "model", policy_kwargs={"activation_fn": Swish})
    assert isinstance(loaded.policy.mlp_extractor.policy_net[1], Swish)


def test_damaged_and_foreign_checkpoints_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with pytest.raises(ValueError, match="there is no checkpoint"):
        MAML.load(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        MAML.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "{}")
    with pytest.raises(ValueError, match="no checkpoint of metarl"):
        MAML.load(path)
    small().save(path)
    whole = path.read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="damaged or no checkpoint"):
            MAML.load(path)
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive:
        state, tensors = json.loads(archive.read("state.json")), archive.read("tensors.safetensors")
    for change, message in [
        ({"learner": "other"}, "learner 'other'"),
        ({"version": 99}, "version 99"),
        ({"settings": 3}, "damaged"),
        ({"format": "x"}, "no checkpoint"),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("state.json", json.dumps({**state, **change}))
            archive.writestr("tensors.safetensors", tensors)
        with pytest.raises(ValueError, match=message):
            MAML.load(path)
    state["settings"]["policy"]["hidden_sizes"] = [9]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("state.json", json.dumps(state))
        archive.writestr("tensors.safetensors", tensors)
    with pytest.raises(ValueError, match="do not fit"):
        MAML.load(path)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    model.save(tmp_path / "model")
    before = (tmp_path / "model.zip").read_bytes()

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        model.learn(iterations=1).save(tmp_path / "model")
    assert (tmp_path / "model.zip").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


def as_previous_release_wrote_it(path: Path) -> None:
    """Rewrite a checkpoint in the layout of the previous release: one value function, and of the best fewer counts."""
    with zipfile.ZipFile(path) as archive:
        facts, stored = (
            json.loads(archive.read("state.json")),
            safetensors.torch.load(archive.read("tensors.safetensors")),
        )
    facts["best"] = {"iteration": facts["best"]["iteration"], "score": facts["best"]["score"]}
    kept = {name: value for name, value in stored.items() if not name.startswith(("best_critic/", "buffers/"))}
    assert len(kept) < len(stored)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("state.json", json.dumps(facts))
        archive.writestr("tensors.safetensors", safetensors.torch.save(kept))


@pytest.mark.parametrize("name", ["maml", "meta-sgd", "pretrained"])
def test_a_checkpoint_of_the_previous_release_is_read(name: str, tmp_path: Path) -> None:
    learning = {} if name == "pretrained" else {"normalize_observations": True, "normalize_rewards": True}
    model = small(name, learning=learning).learn(iterations=2)
    model.save(tmp_path / "model")
    as_previous_release_wrote_it(tmp_path / "model.zip")
    loaded = load_learner(tmp_path / "model")
    for part, tensors in model.state.tensors().items():
        assert same(loaded.state.tensors()[part], tensors), part
    assert (loaded.iteration, loaded.num_timesteps) == (model.iteration, model.num_timesteps)
    assert (loaded.best.score, loaded.best.state.iteration) == (model.best.score, model.best.state.iteration)
    for part, tensors in model.best.state.tensors().items():
        # Then one value function was kept for both.
        expected = model.state.critic if part == "critic" else tensors
        assert same(loaded.best.state.tensors()[part], expected), part
    assert same(loaded.learn(iterations=1, reset_num_timesteps=False).parameters, model.learn(iterations=1).parameters)


@pytest.mark.parametrize("path", ["", "/", ".", "a\0b", None, 3])
def test_a_path_that_names_no_file_is_refused(path: Any) -> None:
    for work in (small().save, type(small()).load):
        with pytest.raises(ValueError, match=r"expected the name of a file|expected a run's folder"):
            work(path)
