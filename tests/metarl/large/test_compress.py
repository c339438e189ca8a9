"""Compression: weights in fewer bits act, are small on the disk, come back with the same bits, and still adapt."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from small import NAVIGATION, remembering, same, small
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from torch import Tensor

import metarl
from metarl import Compress, Compressed, Decompress, MetaLearner, Prune
from metarl.agents.frozen.packing import FORMS, Packing, int8_product, pack, unpack
from metarl.agents.small_images import SmallCnnPolicy

SEEN = np.random.default_rng(1).normal(size=(20, 2)).astype(np.float32)
SHORT = {"max_episode_steps": 8}


def ppo(widths: list[int]) -> PPO:
    """Return a model whose actions are far from 0."""
    env = metarl.sb3.make_vec_env(NAVIGATION, 2, **SHORT)
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=16, policy_kwargs={"net_arch": widths}, seed=1)
    with torch.no_grad():
        model.policy.action_net.weight *= 100
    return model


def actions(model: Any, seen: Any = SEEN) -> Any:
    """Return the most likely actions."""
    return model.predict(seen, deterministic=True)[0]


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """Return a weight, some of it 0."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    shape = draw(st.sampled_from([(3, 4), (7, 5, 3, 3), (2, 1), (40, 33)]))
    weight = torch.randn(shape) * 10.0 ** draw(st.integers(-6, 3))
    return torch.where(torch.rand(shape) < draw(st.sampled_from([0.0, 0.5, 1.0])), 0.0, weight)


@settings(max_examples=60, deadline=None)
@given(weights(), st.sampled_from(FORMS), st.integers(1, 8))
def test_rounded_weights_are_near_keep_their_zeros_and_are_not_rounded_again(w: Tensor, form: str, bits: int) -> None:
    packing = Packing(form, bits)
    parts = pack(w, packing)
    found = unpack(parts)
    assert torch.equal(unpack(pack(found, packing)), found)
    assert not bool(found[w == 0].any())
    largest = w.flatten(1).abs().amax(dim=1).reshape(-1, *(1,) * (w.dim() - 1))
    error = (found - w).abs()
    if form == "int8":
        assert bool((error <= 0.51 * largest / 127).all())
    if form == "shared":
        assert len(parts["places"]) == -(-w.numel() * bits // 8)
        assert len(found.unique()) <= 2**bits
    if form == "bfloat16":
        assert bool((error <= w.abs() * 2**-8).all())


def test_more_bits_of_shared_weights_are_nearer_and_places_are_the_nearest_values() -> None:
    torch.manual_seed(0)
    weight = torch.randn(50, 40)
    errors = [float((unpack(pack(weight, Packing("shared", bits))) - weight).square().mean()) for bits in range(1, 9)]
    assert errors == sorted(errors, reverse=True)
    # Lloyd's quantiser of a standard normal variable (Max 1960, table 1): 0.3634 with 2 levels, 0.009497 with 16.
    assert errors[0] == pytest.approx(0.3634, rel=0.1)
    assert errors[3] == pytest.approx(0.009497, rel=0.35)


def test_products_of_int8_are_near_and_each_row_is_by_itself() -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(30, 70), torch.randn(11, 70)
    parts = pack(weight, Packing("int8"))
    found = int8_product(rows, parts["int8"], parts["scale"])
    exact = rows @ weight.T
    assert float((found - exact).abs().max()) < 0.02 * float(exact.abs().max())
    assert torch.equal(torch.cat([int8_product(row[None], parts["int8"], parts["scale"]) for row in rows]), found)


@pytest.mark.parametrize(("form", "share", "near"), [("int8", 4, 0.1), ("half", 2, 0.01), ("shared", 7, 1.0)])
def test_a_compressed_model_is_one_of_stable_baselines3(form: str, share: float, near: float, tmp_path: Path) -> None:
    model = ppo([300, 300])  # layers of which int8 computes as whole numbers
    model.learn(16)
    small_one = Compress(model, form)
    assert type(small_one) is PPO
    size = np.abs(actions(model)).max()
    assert 0.0 < np.abs(actions(small_one) - actions(model)).max() < near * size
    model.policy.save(str(tmp_path / "full.pt"))
    small_one.policy.save(str(tmp_path / "small.pt"))
    full, less = ((tmp_path / name).stat().st_size for name in ("full.pt", "small.pt"))
    assert less < 1.1 * full / share
    small_one.save(tmp_path / "small.zip")
    again = PPO.load(tmp_path / "small.zip", env=model.get_env())
    np.testing.assert_array_equal(actions(again), actions(small_one))
    with pytest.raises(ValueError, match=r"^a compressed policy acts and does not learn; metarl\.Decompress"):
        small_one.learn(16)
    learning = Decompress(again)
    assert np.abs(actions(learning) - actions(again)).max() < near * size
    before = {name: value.clone() for name, value in learning.policy.state_dict().items()}
    learning.learn(16)
    assert not same(learning.policy.state_dict(), before)


def test_a_compressed_and_pruned_model_is_the_start_of_a_learner(tmp_path: Path) -> None:
    model = ppo([8, 6])
    learner = MetaLearner(
        Compress(Prune(model)), NAVIGATION, family_kwargs=SHORT, learning={"tasks": 2, "episodes": 2}
    ).learner
    expected = Decompress(Compress(Prune(model))).policy.state_dict()
    for name in ("mlp_extractor.policy_net.2.weight", "action_net.weight"):
        assert torch.equal(learner.parameters[name], expected[name])
    assert learner.backend.name == "fast"
    learner.learn(iterations=1)
    Compress(model, "shared").save(tmp_path / "small.zip")
    file = metarl.MAML.from_pretrained(tmp_path / "small.zip", NAVIGATION)
    assert len(file.parameters["action_net.weight"].unique()) <= 16
    policy = MetaLearner(learner.policy, NAVIGATION).learner
    assert same(policy.parameters, learner.parameters)
    again = MetaLearner(Compress(learner, "half"), NAVIGATION).learner
    assert torch.equal(again.parameters["action_net.weight"], learner.parameters["action_net.weight"].half().float())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("maml", {}),
        ("meta-sgd", {}),
        ("cavia", {}),
        ("reptile", {"policy_kwargs": {"lora_rank": 2}}),
        ("maml", {"policy_kwargs": {"prune": 0.4}}),
        ("maml", {"learning": {"normalize_observations": True}}),
        ("maml", {"policy_kwargs": {"features_extractor_class": "networks:Wide", "freeze": "extractor"}}),
    ],
)
def test_a_compressed_learner_adapts_and_comes_back_with_the_same_actions(
    name: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    model = small(name, **changes).learn(iterations=1)
    less = Compress(model)
    task = metarl.sample_tasks(NAVIGATION, 1, seed=1, split="test")[0]
    adapted, full = less.adapt(task), less.learner.adapt(task)
    np.testing.assert_allclose(actions(adapted), actions(full), atol=0.05 * np.abs(actions(full)).max())
    assert not np.array_equal(actions(adapted), actions(less.policy))
    less.save(tmp_path / "less")
    again = Compressed.load(tmp_path / "less")
    assert same(again.learner.parameters, less.learner.parameters)
    assert same(again.learner.functional_policy.buffers(), less.learner.functional_policy.buffers())
    np.testing.assert_array_equal(actions(again.adapt(task)), actions(adapted))
    np.testing.assert_array_equal(actions(again), actions(less))
    if name == "meta-sgd":
        assert same(again.learner.state.own_tensors, model.state.own_tensors)
    assert again.learner.learn(iterations=1).iteration == 2


def test_a_compressed_learner_is_small_on_the_disk(tmp_path: Path) -> None:
    model = small("promp", policy_kwargs={"hidden_sizes": (200, 200)}).learn(iterations=1)
    model.save(tmp_path / "full")
    Compress(Prune(model, 0.5, by="weights")).save(tmp_path / "pruned")
    Compress(model).save(tmp_path / "less")
    full, less, pruned = ((tmp_path / f"{name}.zip").stat().st_size for name in ("full", "less", "pruned"))
    assert less < full / 8  # a quarter of the parameters, and moments of Adam that begin anew
    assert pruned < less
    assert metarl.ProMP is type(Compressed.load(tmp_path / "less").learner)


@pytest.mark.parametrize(("kind", "width"), [(ActorCriticCnnPolicy, 40), (SmallCnnPolicy, 10)])
def test_images_are_seen_through_compressed_convolutions(kind: Any, width: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = kind(spaces.Box(0, 255, (3, width, width), np.uint8), spaces.Box(-1.0, 1.0, (2,)), lambda _: 0.0)
    with torch.no_grad():
        policy.action_net.weight *= 100
    seen = np.random.default_rng(1).integers(0, 256, (4, 3, width, width), np.uint8)
    less = Compress(policy)
    assert any(name.endswith("0.weight:int8") for name in less.state_dict())
    np.testing.assert_allclose(
        actions(less, seen), actions(policy, seen), atol=0.1 * np.abs(actions(policy, seen)).max()
    )
    less.save(str(tmp_path / "less.pt"))
    np.testing.assert_array_equal(actions(type(less).load(str(tmp_path / "less.pt")), seen), actions(less, seen))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int4",), r"^weights are to be 'int4'; expected one of int8, half, bfloat16, shared$"),
        (
            ("shared", 9),
            r"^bits is 9; expected a whole number from 1 to 8, of the places in a table of shared weights$",
        ),
        (("shared", True), r"^bits is True; expected a whole number"),
        (("int8", 4), r"^bits is 4, and only weights that are 'shared' have a number of bits; leave it out$"),
    ],
)
def test_forms_and_bits_that_there_are_not_are_one_sentence(arguments: Any, message: str) -> None:
    form, bits = (*arguments, None)[:2]
    with pytest.raises(ValueError, match=message):
        Compress(small(), form, bits=bits)


def test_int8_where_there_is_no_engine_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoEngine:
        supported_engines = ("none",)

    monkeypatch.setattr(torch.backends, "quantized", NoEngine)
    with pytest.raises(ValueError, match=r"^torch has no engine for int8 on this platform; use .*'bfloat16'\)$"):
        Compress(small())
    assert Compress(small(), "bfloat16") is not None


def test_what_cannot_be_compressed_is_one_sentence() -> None:
    for model, message in [
        ("ppo.zip", r"^str cannot be compressed; expected a learner, an adapted policy, or a PPO or A2C model of"),
        (DQN("MlpPolicy", "CartPole-v1", buffer_size=10), r"^DQN cannot be compressed"),
        (PPO("MlpPolicy", "Pendulum-v1", use_sde=True), r"^a ActorCriticPolicy with state-dependent noise cannot be"),
        (remembering(), r"^learner rl2 acts with a memory, whose policies are not compressed; use one that adapts"),
    ]:
        with pytest.raises(ValueError, match=message):
            Compress(model)
    with pytest.raises(ValueError, match=r"^MAML is not compressed; expected what metarl\.Compress returns$"):
        Decompress(small())
    large = small()
    large.parameters["action_net.weight"][0, 0] = 1e6
    with pytest.raises(ValueError, match=r"^a weight is 1e\+06, more than the 65504 of half precision; use 'bfl"):
        Compress(large, "half")


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^there is no file '.*none\.zip'; expected one that Compressed\.save wrote$"):
        Compressed.load(tmp_path / "none")
    small().save(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"whole\.zip' is damaged or was not written by Compressed\.save \("):
        Compressed.load(tmp_path / "whole")
    Compress(small()).save(tmp_path / "less")
    with zipfile.ZipFile(tmp_path / "less.zip") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["state.json"] = content["state.json"].replace(b'"maml"', b'"other:Own"')
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        for name, part in content.items():
            archive.writestr(name, part)
    with pytest.raises(ValueError, match=r"other\.zip' .*other"):
        Compressed.load(tmp_path / "other")
