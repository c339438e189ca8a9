"""The ladder of probes: each family isolates one thing that can be wrong, with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl import MAML


def learner(probe: str, step_size: float = 0.1, max_kl: float = 0.05) -> MAML:
    return MAML(
        "MlpPolicy",
        f"probes:probe/{probe}-v0",
        learning={"tasks": 20, "episodes": 20, "gae_lambda": 1.0},
        inner={"step_size": step_size},
        outer={"max_kl": max_kl},
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


def looks(model: MAML) -> float:
    """The probability of looking, before adaptation."""
    logits = model._policy.distribution(model.parameters, torch.ones(1, 1)).parameters[0]
    return float(torch.softmax(logits[0, :2], dim=-1)[1].detach())


def test_maml_gives_no_credit_for_looking_before_adaptation() -> None:
    """Probe (g): looking helps only the update that follows, so plain MAML unlearns it and adapts worse for it."""
    model = learner("CostlyLook", step_size=1.0)
    before = looks(model)
    model.learn(20)
    assert looks(model) < before / 2
    blind = model.evaluate(n_tasks=40)
    assert blind.mean(1) - blind.mean(0) < 0.5
    # It is not the family's fault: who always looks adapts fully.
    curious = learner("CostlyLook", step_size=1.0)
    curious.parameters["action_net.bias"][:2] = torch.tensor([-4.0, 4.0])
    seeing = curious.evaluate(n_tasks=40)
    assert seeing.mean(1) - seeing.mean(0) > 0.9
