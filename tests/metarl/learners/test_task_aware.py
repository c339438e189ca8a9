"""The policy that is told the task: how it is told, how it trains, and what it gives to stable-baselines3."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import observed
from small import NAVIGATION, SIGN, batch, copied, played, same, small
from stable_baselines3.common.evaluation import evaluate_policy

import metarl
from metarl import TaskAware
from metarl.agents.policies.context import CONTEXT
from metarl.envs import tasks as task_tools

SPACE = spaces.Dict(
    {
        "goal": spaces.Box(-0.5, 2.0, (2,), np.float32),
        "side": spaces.Discrete(3, start=1),
        "counts": spaces.MultiDiscrete([2, 4]),
        "both": spaces.Tuple((spaces.MultiBinary(2), spaces.Box(0, 9, (), np.int64))),
        "free": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    }
)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), count=st.integers(1, 4))
def test_a_batch_of_tasks_is_the_same_after_it_was_vectors(seed: int, count: int) -> None:
    SPACE.seed(seed)
    batch = task_tools.stack_tasks(SPACE, [SPACE.sample() for _ in range(count)])
    vectors = task_tools.to_vectors(SPACE, batch)
    assert vectors.shape == (count, spaces.flatdim(SPACE))
    again = task_tools.from_vectors(SPACE, vectors)
    assert task_tools.plain(again) == task_tools.plain(batch)
    flat = spaces.flatten_space(SPACE)
    assert isinstance(flat, spaces.Box)
    assert (vectors >= flat.low).all()
    assert (vectors <= flat.high).all()


@pytest.mark.parametrize(
    ("family", "tasks", "expected"),
    [
        (NAVIGATION, [[-0.5, 0.5], [0.0, 0.25]], [[-1.0, 1.0], [0.0, 0.5]]),
        ("metarl/CornerNavigation2D-v0", [2], [[-1.0, -1.0, 1.0, -1.0]]),
    ],
)
def test_the_task_is_scaled_by_its_limits(family: str, tasks: Any, expected: Any) -> None:
    model = TaskAware("MlpPolicy", family)
    torch.testing.assert_close(model.contexts(batch(model, *tasks)), torch.tensor(expected))


def test_what_has_no_limits_is_left_as_it_is() -> None:
    model = TaskAware("MlpPolicy", "metarl/TabularMDP-v0")
    tasks = metarl.sample_tasks("metarl/TabularMDP-v0", 3, seed=1)
    contexts = model.contexts(tasks)
    flat = spaces.flatten_space(task_tools.task_space(model.env))
    free = ~np.isfinite(flat.high)
    assert free.sum() == 50
    given_rewards = tasks["rewards"].reshape(3, -1)
    np.testing.assert_allclose(contexts.numpy()[:, free], given_rewards, rtol=1e-6)
    assert contexts[:, torch.from_numpy(~free)].abs().max() <= 1.0


def test_the_task_is_a_further_input_of_the_first_layer() -> None:
    model = small("task-aware")
    task = np.array([0.3, -0.2], dtype=np.float32)
    observations = torch.rand(5, 2)
    own = model.parameters
    inputs = torch.cat([observations, torch.tensor(task / 0.5).expand(5, 2)], dim=1)
    weight = torch.cat([own["mlp_extractor.policy_net.0.weight"], own["context_weights"]], dim=1)
    hidden = torch.tanh(inputs @ weight.mT + own["mlp_extractor.policy_net.0.bias"])
    hidden = torch.tanh(hidden @ own["mlp_extractor.policy_net.2.weight"].mT + own["mlp_extractor.policy_net.2.bias"])
    mean = hidden @ own["action_net.weight"].mT + own["action_net.bias"]
    adapted = model.adapt(task)
    torch.testing.assert_close(adapted.get_distribution(observations).distribution.mean, mean)
    other = model.adapt(-task).get_distribution(observations).distribution.mean
    assert not torch.allclose(mean, other)


def test_training_changes_all_but_the_context_with_as_many_episodes_as_the_others() -> None:
    model = small("task-aware", inner={"steps": 2})
    before = copied(model.parameters)
    model.learn(iterations=1)
    assert model.num_timesteps == 3 * 4 * 3 * 8
    moved = {name for name, value in before.items() if not torch.equal(value, model.parameters[name])}
    assert moved == set(before) - {CONTEXT}
    tasks = metarl.sample_tasks(NAVIGATION, 4, seed=3)
    fitted = small("task-aware").learn(iterations=1, tasks=tasks)
    assert fitted.num_timesteps == 4 * 4 * 2 * 8


def test_an_epoch_climbs_the_mean_of_the_tasks_surrogates() -> None:
    """The step's direction against finite differences of the mean clipped surrogate, in all shared parameters."""
    model = small("task-aware", outer={"epochs": 1, "learning_rate": 1e-3})
    tasks = model.training_tasks(1)
    rollouts = played(model, tasks, model.begin_adaptation(model.parameters, tasks), episodes=8)
    samples, contexts = model.samples(model.state, rollouts), model.contexts(tasks)

    def surrogate(parameters: dict[str, torch.Tensor]) -> float:
        gains = []
        for task in range(3):
            own = samples.task(task)
            known = {name: value.double() for name, value in parameters.items()}
            known[CONTEXT] = contexts[task].double()
            new = model.functional_policy.distribution(known, observed(own.observations.double()))
            ratio = (new.log_prob(own.actions.double()) - own.log_probs.double()).exp()
            clipped = ratio.clamp(1 - 0.3, 1 + 0.3)
            gains.append(float((torch.minimum(ratio * own.advantages, clipped * own.advantages) * own.weights).sum()))
        return float(np.mean(gains))

    start = copied(model.parameters)
    model.learn(iterations=1)
    h = 1e-4
    for name in ("context_weights", "mlp_extractor.policy_net.0.weight", "action_net.bias"):
        index = tuple(0 for _ in start[name].shape)
        ahead, behind = ({**start, name: start[name].double().clone()} for _ in range(2))
        ahead[name][index] += h
        behind[name][index] -= h
        change = surrogate(ahead) - surrogate(behind)
        assert abs(change) > 1e-7
        # Adam's first step is the sign of the gradient.
        moved = float(model.parameters[name][index] - start[name][index])
        assert moved == pytest.approx(1e-3 * np.sign(change), rel=1e-2)


def test_adaptation_changes_nothing_and_plays_nothing() -> None:
    model = small("task-aware")
    task = metarl.sample_tasks(NAVIGATION, 1, seed=1)[0]
    zero, three = (model.adapt(task, steps=steps) for steps in (0, 3))
    assert same(zero.state_dict(), three.state_dict())
    env = metarl.make(NAVIGATION, task=task, max_episode_steps=8)
    mean, deviation = evaluate_policy(zero, env, n_eval_episodes=100, deterministic=False, warn=False)
    tasks = batch(model, task)
    rollouts = played(model, tasks, model.begin_adaptation(model.parameters, tasks), episodes=400)
    assert mean == pytest.approx(float(rollouts.returns().mean()), abs=5 * deviation / 10)


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    model = small("task-aware")
    env: gymnasium.Env[Any, Any] = metarl.make(NAVIGATION, max_episode_steps=8)
    with pytest.raises(ValueError, match="has to be told the task; give adapt"):
        model.adapt(env)
    with pytest.raises(
        ValueError, match="learner task-aware appends the task to the observation, which needs a percep"
    ):
        small("task-aware", family=SIGN, family_kwargs={"observations": "discrete"})
    with pytest.raises(FloatingPointError, match=r"iteration 1: the policy gradient of task \[.*\] is not finite"):
        small("task-aware", outer={"learning_rate": 1e38}).learn(iterations=1)


def test_it_knows_the_hidden_sign_before_any_adaptation() -> None:
    """Probe (f): without the task 0 is the best, with it 1."""
    model = TaskAware(
        "MlpPolicy",
        "probes:probe/HiddenSign-v0",
        learning={"tasks": 20, "episodes": 20, "gae_lambda": 1.0},
        evaluation={"every": 1000, "tasks": 20, "steps": 1},
        policy_kwargs={"hidden_sizes": (16,)},
    )
    untrained = model.evaluate(n_tasks=40)
    trained = model.learn(iterations=10).evaluate(n_tasks=40)
    assert abs(untrained.mean(0)) < 0.5
    assert trained.mean(0) > 0.95
    assert trained.mean(1) > 0.95
