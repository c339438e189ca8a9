"""What a checkpoint's numbers may be, whether or not a digest fits them; and what is not written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import damage
import pytest
import safetensors.torch
import torch
from small import same, small
from torch import Tensor

from metarl import MAML
from metarl.learners.registry import load_learner
from metarl.state import State

NORMALIZED = {"normalize_observations": True, "normalize_rewards": True}
PPO = {"update": "ppo"}
# The learner, a tensor in its file, what becomes of it, and the words of the message.
TENSORS: Mapping[str, tuple[str, dict[str, Any], str, Callable[[Tensor], Tensor], str]] = {
    "NaN": ("maml", {}, "parameters/log_std", lambda value: value * torch.nan, "not finite"),
    "infinite": ("maml", {}, "best/action_net.bias", lambda value: value + torch.inf, "not finite"),
    "a critic": ("pretrained", {}, "critic/value_net.bias", lambda value: value + torch.inf, "not finite"),
    "another type": ("maml", {}, "parameters/log_std", lambda value: value.double(), "do not fit"),
    "half": ("maml", {}, "best_critic/value_net.bias", lambda value: value.half(), "do not fit"),
    "another shape": ("maml", {}, "parameters/log_std", lambda value: value[None], "do not fit"),
    "variance": ("maml", {}, "normalizer/observations//variance", lambda value: -value, "negative"),
    "count": ("maml", {}, "normalizer/returns//count", lambda value: -value, "negative"),
    "mean square": ("maml", {"outer": PPO}, "extra/adam_square", lambda value: value - 1, "negative"),
    "steps": ("maml", {"outer": PPO}, "extra/adam_steps", lambda value: value - 1000, "negative"),
    "coefficient": ("promp", {}, "extra/kl_coefficient", lambda value: -value - 1, "negative"),
    "step sizes": ("meta-sgd", {}, "extra/step_sizes", lambda value: value * torch.nan, "not finite"),
    "unit": ("rl2", {"outer": {"trials": 4}}, "extra/value_scale", lambda value: -value, "above 0"),
    "centre": ("rl2", {"outer": {"trials": 4}}, "extra/value_centre", lambda value: value * torch.nan, "not finite"),
    "tasks": ("multi-task", {"outer": {"components": 2}}, "extra/tasks", lambda value: value + 9, "outside"),
}
FACTS: Mapping[str, tuple[dict[str, Any], str]] = {
    "negative iteration": ({"iteration": -1}, "iteration is -1, expected a whole number from 0 on"),
    "half an iteration": ({"iteration": 1.5}, "iteration is 1.5, expected a whole number"),
    "a switch": ({"num_timesteps": True}, "num_timesteps is True"),
    "beyond counting": ({"line_search_failures": 2**80}, "line_search_failures is 1208925819614629174706176"),
    "no score": ({"best": {"score": None, "iteration": 1}}, "best.score is None, expected a number"),
    "a later best": ({"best": {"score": 1.0, "iteration": 9}}, "best.iteration is 9, after iteration = 2"),
    "no clip": ({"normalizer": {"clip": 0, "epsilon": 0.1}}, "normalizer.clip is 0, expected a number above 0"),
    "a version of another type": ({"version": True}, "version is True"),
    "a seed": ({"settings": {"seed": -1}}, "seed is -1"),
    "a setting": ({"settings": {"inner": {"step_size": -0.5}}}, "inner.step_size is -0.5"),
    "an unknown setting": ({"settings": {"inner": {"size": 1}}}, "inner has the unknown entry 'size'"),
    "an argument": ({"policy_kwargs": {"net_arch": {"list": 3}}}, "argument net_arch is {'list': 3}"),
    "no class": ({"policy_kwargs": {"activation_fn": {"torch": "functional"}}}, "argument activation_fn is"),
}


def edited(path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], None], sealed: bool) -> None:
    """Edit facts and tensors of a checkpoint; with a digest that fits, or none, as in older versions."""
    members = damage.members_of(path.read_bytes())
    facts, tensors = json.loads(members[damage.STATE]), safetensors.torch.load(members[damage.TENSORS])
    change(facts, tensors)
    whole = {name: value.clone().contiguous() for name, value in tensors.items()}
    members |= {damage.STATE: json.dumps(facts).encode(), damage.TENSORS: safetensors.torch.save(whole)}
    path.write_bytes(damage.zipped(damage.with_digest(members) if sealed else damage.without_digest(members)))


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("case", TENSORS)
def test_a_tensor_with_impossible_numbers_is_refused(case: str, sealed: bool, tmp_path: Path) -> None:
    learner, arguments, name, change, message = TENSORS[case]
    learning = {} if learner == "pretrained" else NORMALIZED
    small(learner, learning=learning, **arguments).learn(iterations=2).save(tmp_path / "model")
    edited(tmp_path / "model.zip", lambda _, tensors: tensors.update({name: change(tensors[name])}), sealed)
    with pytest.raises(ValueError, match=rf"model\.zip' .*{message}"):
        load_learner(tmp_path / "model")


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("case", FACTS)
def test_a_fact_out_of_range_is_refused(case: str, sealed: bool, tmp_path: Path) -> None:
    changes, message = FACTS[case]
    small().learn(iterations=2).save(tmp_path / "model")

    def change(facts: dict[str, Any], _: Any) -> None:
        for key, value in changes.items():
            for inner, entry in value.items() if key == "settings" else ():
                nested = {**facts[key][inner], **entry} if isinstance(entry, dict) else entry
                facts[key] = {**facts[key], inner: nested}
            if key != "settings":
                facts[key] = value

    edited(tmp_path / "model.zip", change, sealed)
    with pytest.raises(ValueError) as refused:  # noqa: PT011, the words are compared below
        load_learner(tmp_path / "model")
    assert message in str(refused.value)
    assert "model.zip'" in str(refused.value)


def test_a_state_that_nobody_could_go_on_with_is_not_written(tmp_path: Path) -> None:
    model = small().learn(iterations=1)
    model.save(tmp_path / "model")
    kept = (tmp_path / "model.zip").read_bytes()
    faulty = {**model.parameters, "log_std": model.parameters["log_std"] * torch.nan}
    model.state = dataclasses.replace(model.state, parameters=faulty)
    with pytest.raises(
        ValueError, match=r"model\.zip' is not written.*'parameters/log_std' has numbers that are not fi"
    ):
        model.save(tmp_path / "model")
    assert (tmp_path / "model.zip").read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


class Lowest(MAML):
    """Keeps the lowest number so far, before any infinite."""

    def initial_tensors(self) -> dict[str, Tensor]:
        """Return what is kept."""
        return {**super().initial_tensors(), "lowest": torch.tensor(torch.inf), "unknown": torch.tensor(torch.nan)}

    def next_state(self, state: State, adaptation: Any, step: Any) -> State:
        """Return the next state."""
        following = super().next_state(state, adaptation, step)
        kept = {name: state.own_tensors[name] for name in ("lowest", "unknown")}
        return dataclasses.replace(following, own_tensors={**following.own_tensors, **kept})


def test_what_own_tensors_of_a_learner_of_ones_own_may_be_is_its_own_affair(tmp_path: Path) -> None:
    model = small(Lowest, outer=PPO).learn(iterations=1)
    model.save(tmp_path / "model")
    loaded = Lowest.load(tmp_path / "model")
    assert loaded.state.own_tensors["lowest"] == torch.inf
    assert same(loaded.parameters, model.parameters)
    edited(
        tmp_path / "model.zip", lambda _, found: found.update({"extra/adam_mean": found["extra/adam_mean"] / 0}), True
    )
    with pytest.raises(ValueError, match="'extra/adam_mean' has numbers that are not finite"):
        Lowest.load(tmp_path / "model")
