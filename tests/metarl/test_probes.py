"""The ladder of probes: each family isolates one thing that can be wrong, with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl import MAML
from metarl.curvature import Chain, Curvature


def learner(probe: str, step_size: float = 0.1, max_kl: float = 0.05) -> MAML:
    return MAML(
        "MlpPolicy",
        f"probes:probe/{probe}-v0",
        learning={"tasks": 20, "episodes": 20, "gae_lambda": 1.0},
        inner={"step_size": step_size},
        outer={"max_kl": max_kl, "max_kl_before": max_kl},
        evaluation={"every": 1000, "tasks": 20, "steps": 1},
        policy_kwargs={"hidden_sizes": (16,)},
    )


@pytest.mark.parametrize("probe", ["Constant", "Observed", "Delayed"])
def test_rewards_that_no_action_changes_teach_nothing(probe: str) -> None:
    """Probes (a) to (c): the baseline explains a constant, an observed and a delayed reward, to the last digit."""
    model = learner(probe)
    rollouts = model._collect(model.parameters, np.ones(20, np.int64), 1, 0)
    samples = model._samples(rollouts)
    assert (samples.advantages == 0).all()
    before = {name: value.clone() for name, value in model.parameters.items()}
    model.learn(2)
    assert all(torch.equal(before[name], value) for name, value in model.parameters.items())


@pytest.mark.parametrize("probe", ["Acted", "Matched"])
def test_what_pays_in_every_task_is_learned_before_adaptation(probe: str) -> None:
    """Probes (d) and (e): an action that pays, and one that pays where the observation says so."""
    model = learner(probe)
    assert abs(model.evaluate(n_tasks=20).mean(0)) < 0.5
    assert model.learn(15).evaluate(n_tasks=20).mean(0) > 0.95


def test_what_depends_on_the_task_is_learned_by_adaptation() -> None:
    """Probe (f): the reward's sign is the task, so 0 is the best before adaptation and 1 after it."""
    model = learner("HiddenSign", step_size=0.3, max_kl=0.01)
    untrained = model.evaluate(n_tasks=40)
    trained = model.learn(40).evaluate(n_tasks=40)
    assert untrained.mean(1) < 0.7
    assert abs(trained.mean(0)) < 0.3
    assert trained.mean(1) > 0.95


def looking(much: float) -> MAML:
    """A learner whose policy looks with the logit ``much``."""
    model = learner("CostlyLook", step_size=1.0)
    with torch.no_grad():
        model.parameters["action_net.weight"][:2] = 0.0
        model.parameters["action_net.bias"][:2] = torch.tensor([0.0, much])
    return model


def test_maml_gives_no_credit_for_looking_before_adaptation() -> None:
    """Probe (g): looking makes the update that follows a good one, but plain MAML's gradient says to look less.

    Its meta-gradient knows what looking costs after adaptation, and nothing of what it brings there.
    """
    never, always = looking(-6.0).evaluate(n_tasks=100), looking(6.0).evaluate(n_tasks=100)
    assert always.mean(1) - never.mean(1) > 0.2
    model = looking(0.0)
    slopes = []
    for iteration in range(1, 31):
        tasks = model._training_tasks(iteration)
        chain = Chain(model._policy, model.path, model.parameters)
        chain.adapt(model._samples(model._collect(model.parameters, tasks, iteration, 0)), 1.0)
        query = model._samples(model._collect(chain.parameters[-1], tasks, iteration, 1))
        slope = chain.named(Curvature(chain, query).gradient)["action_net.bias"]
        slopes.append(float(slope[1] - slope[0]))
    assert np.mean(slopes) < -2.0 * np.std(slopes) / np.sqrt(len(slopes))
