"""The mixture of per-task policies: what trains, what adapts, and what it gives to stable-baselines3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples import observed
from small import NAVIGATION, SECTIONS, SHORT, SIGN, adapted_to, batch, played, small
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

import metarl
from metarl import MetaLearner, MultiTask
from metarl.agents.policies.mixture import LOGITS
from metarl.envs import tasks as task_tools
from metarl.gradients.adaptation import choose_backend, inner_update
from metarl.gradients.flat import flatten_tasks, named

# What a policy is for is said where it is tested (sb3/test_own_actions.py).
pytestmark = pytest.mark.filterwarnings("ignore:this policy acts in:UserWarning")


def mixture(**changes: Any) -> MultiTask:
    model: MultiTask = small("multi-task", **{"outer": {"components": 5}, **changes})
    return model


def unlike(model: MultiTask) -> MultiTask:
    """Move the components apart, as training on different tasks would."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.parameters.items():
        if name != LOGITS:
            value += 0.5 * torch.randn(value.shape, generator=generator)
    return model


@pytest.mark.parametrize("objective", ["policy-gradient", "dice"])
def test_weights_follow_the_policy_gradient_of_the_mixture_and_components_stay(objective: str) -> None:
    model = unlike(mixture(outer={"components": 5, "weight_step_size": 3.0}, inner={"objective": objective}))
    tasks = metarl.sample_tasks(NAVIGATION, 3, seed=1)
    parameters = model.parameters
    for step, size in enumerate([3.0, 1.5]):
        rollouts = played(model, tasks, parameters, step=step)
        adapted = model.adapted(model.state, parameters, rollouts, step)
        # The same step by autograd through the log-probability of the whole mixture.
        expected = inner_update(model.functional_policy, parameters, model.inner_samples(model.state, rollouts), size)
        torch.testing.assert_close(adapted[LOGITS], expected[LOGITS], atol=1e-5, rtol=1e-4)
        assert (adapted[LOGITS] != 0).all()
        for name, value in model.parameters.items():
            if name != LOGITS:
                assert torch.equal(adapted[name], value.expand_as(adapted[name]))
        parameters = adapted
    assert (model.parameters[LOGITS] == 0).all()


def test_each_component_trains_on_its_own_task_by_ppos_epochs() -> None:
    model = mixture(outer={"components": 5, "epochs": 1, "learning_rate": 0.01})
    components = model.functional_policy.components(model.parameters)
    rollouts = played(model, model.component_tasks(model.state), components, episodes=24 // 5)
    # The first epoch's gradient is the policy gradient, and Adam's first step is its sign.
    plain = model.functional_policy.plain
    backend = choose_backend(plain, torch.device("cpu"))
    samples = model.samples(model.state, rollouts)
    gradients = torch.stack(
        [backend.inner_gradient(vector, samples.task(i)) for i, vector in enumerate(flatten_tasks(components))]
    )
    expected = named(plain.shapes, flatten_tasks(components) - 0.01 * gradients.sign())
    model.learn(iterations=1)
    for name, value in expected.items():
        clear = named(plain.shapes, gradients)[name].abs() > 1e-4
        torch.testing.assert_close(model.parameters[name][clear], value[clear], atol=1e-5, rtol=0)
    assert model.num_timesteps == rollouts.steps() == 5 * 4 * 8
    assert not torch.equal(model.parameters["action_net.bias"][0], model.parameters["action_net.bias"][1])


def test_its_tasks_are_drawn_once_and_kept(tmp_path: Path) -> None:
    model = mixture()
    rng = task_tools.task_rng(1, "train", 0)
    drawn = task_tools.draw_tasks(model.env, 5, rng, "train")
    np.testing.assert_array_equal(model.component_tasks(model.state), drawn)
    model.learn(iterations=1).save(tmp_path / "model")
    loaded = MultiTask.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.component_tasks(loaded.state), drawn)
    assert model.component_tasks(model.state).dtype == drawn.dtype


@pytest.mark.parametrize("actions", ["standard box", "matrix", "discrete", "multi"])
def test_an_adapted_policy_of_stable_baselines3_scores_as_its_own_rollouts_do(actions: str) -> None:
    kwargs = {"actions": actions}
    model = unlike(mixture(family=SIGN, family_kwargs=kwargs, learning={"tasks": 2, "episodes": 5}))
    task = np.array([0.8], dtype=np.float32)
    adapted = model.adapt(task, steps=2, episodes=20)
    assert (adapted.mixture_logits != 0).all()
    tasks = batch(model, task)
    rollouts = played(model, tasks, adapted_to(model, tasks, steps=2, episodes=20), episodes=200)
    env = metarl.make(SIGN, task=task, **kwargs)
    torch.manual_seed(0)
    mean, deviation = evaluate_policy(adapted, env, n_eval_episodes=200, deterministic=False, warn=False)
    # Boxes are clipped by stable-baselines3 and the environment alike.
    assert mean == pytest.approx(float(rollouts.returns().mean()), abs=6 * deviation / 200**0.5 + 1e-6)


def test_ppo_goes_on_learning_from_the_mixture_and_a_ppo_model_starts_one() -> None:
    model = unlike(mixture())
    ppo = model.to_sb3(PPO, [0.2, 0.1], episodes=5, n_steps=16, batch_size=16)
    before = ppo.policy.mixture_logits.detach().clone()
    ppo.learn(32)
    assert not torch.equal(ppo.policy.mixture_logits, before)
    plain = PPO("MlpPolicy", metarl.make(NAVIGATION, task=[0.2, 0.1]), n_steps=8, batch_size=8)
    started = MultiTask.from_pretrained(plain, NAVIGATION, outer={"components": 3})
    torch.testing.assert_close(started.parameters["action_net.weight"][2], plain.policy.action_net.weight.detach())


def test_observation_statistics_are_part_of_the_policy_that_is_given() -> None:
    learning = {"normalize_observations": True}
    model = mixture(learning=learning).learn(iterations=2)
    assert model.normalizer.observations[""].count > 0
    task = np.array([0.2, 0.1], dtype=np.float32)
    observations = torch.rand(5, 2)
    seen = observed(model.normalizer.observe(observations))
    distribution = model.functional_policy.distribution(model.parameters, seen)
    policy = model.adapt(task, steps=0)
    actions = torch.zeros(5, 2)
    torch.testing.assert_close(policy.get_distribution(observations).log_prob(actions), distribution.log_prob(actions))


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"outer.components is 25, more than the 24 episodes of an iteration"):
        mixture(outer={"components": 25})
    with pytest.raises(ValueError, match="learner multi-task mixes perceptrons, and so needs a perceptron"):
        mixture(family=SIGN, family_kwargs={"observations": "discrete"})
    short = MetaLearner(None, NAVIGATION, learner="multi-task", family_kwargs=SHORT, **SECTIONS)
    with pytest.raises(ValueError, match="trains on the tasks that it drew at its start; leave tasks out"):
        short.fit(metarl.sample_tasks(NAVIGATION, 2, seed=1))
    with pytest.raises(FloatingPointError, match=r"iteration 1: the policy gradient of task \[.*\] is not finite"):
        mixture(outer={"components": 5, "learning_rate": 1e38}).learn(iterations=1)
