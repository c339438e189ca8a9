"""What is suggested for a wrong key, and a sentence for each usual mix-up of arguments in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.policies import ActorCriticPolicy

import metarl
from metarl.learners.registry import read_settings

FAMILY = "metarl/BernoulliBandit-v0"


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ({"learning": {"taks": 5}}, "the nearest is 'learning.tasks'"),
        ({"learning": {"step_size": 5}}, "the nearest is 'inner.step_size'"),  # it is called so elsewhere
        ({"evaluation": {"taks": 5}}, "the nearest is 'evaluation.tasks'"),  # not learning.tasks
        (
            {"learning": {"horizon": 5}},
            r"the settings of \[learning\] are iterations, tasks, train_tasks, episodes, gamma",
        ),
        ({"learning": {"batch": 5}}, "the nearest are 'learning.tasks' and 'learning.episodes'"),
        ({"learning": {"n_steps": 5}}, "the nearest are 'learning.tasks' and 'learning.episodes'"),
        ({"learning": {"lr": 5}}, "the nearest is 'inner.step_size'"),
        ({"inner": {"lr": 5}}, "the nearest is 'inner.step_size'"),
        ({"inner": {"learning_rate": 5}}, "the nearest is 'inner.step_size'"),
        ({"outer": {"update": "ppo", "lr": 5}}, "the nearest is 'outer.learning_rate'"),
        ({"outer": {"lr": 5}}, r"the settings of \[outer\] are path, memory, update, max_kl"),
        ({"polcy": {}}, "the nearest is 'policy'"),
        ({"zzz": {}}, "there are family, learner, seed, device"),
    ],
)
def test_only_a_near_key_is_suggested_else_those_of_the_section(data: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        read_settings(data)


def env() -> gymnasium.Env[Any, Any]:
    return metarl.make(FAMILY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: {"learning": 5}, r"^learning is 5; expected a table of settings \(in Python a dict\)$"),
        (lambda: {"outer": []}, r"^outer is \[\]; expected a table"),
        (lambda: {"family_kwargs": "arms=3"}, "^family_kwargs is 'arms=3'; expected a table"),
        (lambda: {"policy_kwargs": "MlpPolicy"}, "^policy_kwargs is 'MlpPolicy'; expected a dict"),
        (lambda: {"policy_kwargs": {"hidden_sizes": "64"}}, r"is '64'; expected whole numbers .* as in \[64, 64\]$"),
        (lambda: {"policy_kwargs": {"hidden_sizes": 0}}, r"is 0; expected whole numbers of at least 1"),
        (lambda: {"policy_kwargs": {"hiden_sizes": [64]}}, "'hiden_sizes', .* the nearest is 'hidden_sizes'"),
        (lambda: {"policy_kwargs": {"net_arch": 64}}, "^net_arch is 64; .* give hidden_sizes$"),
        (lambda: {"policy_kwargs": {"activation_fn": "tanh"}}, "^activation_fn is 'tanh'; .* give activation$"),
        (lambda: {"policy": FAMILY}, "the family is the second argument"),
        (lambda: {"policy": ActorCriticPolicy}, "is the class ActorCriticPolicy; expected 'MlpPolicy'"),
        (
            lambda: {"family": env()},
            "^the family is an environment that is already made .* give its class",
        ),
        (lambda: {"family": int}, "the class int, which is no gymnasium.Env"),
        (lambda: {"family": None}, "^the family is None; expected its id"),
        (lambda: {"seed": "1"}, "^seed is '1'; expected a whole number"),
        (lambda: {"seed": None}, "^seed is None; expected a whole number"),
        (lambda: {"device": 0}, "^device is 0; expected the name of a device"),
        (lambda: {"device": torch.device("cpu")}, "; expected the name of a device"),
        (lambda: {"tensorboard_log": True}, "^tensorboard_log is True; expected the folder"),
        (lambda: {"verbose": "1"}, "^verbose is '1'; expected a whole number"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_a_sentence(arguments: Callable[[], dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        metarl.MAML(**{"policy": "MlpPolicy", "family": FAMILY, **arguments()})
    assert "\n" not in str(caught.value)


def test_one_hidden_layer_can_be_a_number() -> None:
    model = metarl.MAML("MlpPolicy", FAMILY, policy_kwargs={"hidden_sizes": 16})
    assert model.settings.policy.hidden_sizes == (16,)
    assert read_settings({"policy": {"hidden_sizes": 16}}).policy.hidden_sizes == (16,)
    model.close()


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (5, "^callback is 5; expected a callback"),
        ("tensorboard", "^callback is 'tensorboard'; expected a callback"),
        ([5], "^callback is 5; expected a callback"),
        (CheckpointCallback, r"as in CheckpointCallback\(...\)"),
    ],
)
def test_a_callback_that_is_none_is_a_sentence(callback: Any, message: str) -> None:
    model = metarl.MAML("MlpPolicy", FAMILY)
    with pytest.raises(ValueError, match=message):
        model.learn(iterations=1, callback=callback)
    assert model.iteration == 0
    model.close()


@pytest.mark.parametrize("family", [FAMILY, None, [0.5], np.zeros(2)])
def test_as_task_of_no_environment_is_a_sentence(family: Any) -> None:
    with pytest.raises(TypeError, match=r"expected an environment of it, as metarl.make"):
        metarl.as_task(family, [0.5] * 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vec_normalize": "vn.pkl"}, r"vec_normalize=VecNormalize.load\('vn.pkl', DummyVecEnv"),
        ({"vec_normalize": 5}, "^vec_normalize is 5; expected the VecNormalize"),
        ({"policy_kwargs": "x"}, "^policy_kwargs is 'x'; expected a dict"),
        ({"family_kwargs": "x"}, "^family_kwargs is 'x'; expected a dict"),
    ],
)
def test_wrong_arguments_beside_a_model_are_sentences(arguments: dict[str, Any], message: str) -> None:
    model = PPO("MlpPolicy", env(), n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(ValueError, match=message):
        metarl.MAML.from_pretrained(model, FAMILY, **arguments)


def test_a_learner_is_named_not_given() -> None:
    with pytest.raises(ValueError, match="expected its name, as in 'maml'"):
        metarl.MetaLearner(learner=metarl.MAML)  # type: ignore[arg-type]
