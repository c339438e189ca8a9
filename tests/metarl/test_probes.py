"""The ladder of probes: each family isolates one thing that can be wrong, with a known answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small import copied, played, same

from metarl import MAML
from metarl.agents import LIKELIHOOD_RATIO
from metarl.gradients.adaptation import Adaptation
from metarl.gradients.meta_update import meta_gradients
from metarl.learners.registry import find_learner

# Solved probes have nothing left to learn, which is said.
pytestmark = pytest.mark.filterwarnings("ignore:.*as good as it gets")


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
    samples = model.samples(model.state, played(model, np.ones(20, np.int64)))
    assert (samples.advantages == 0).all()
    before = copied(model.parameters)
    model.learn(iterations=2)
    assert same(before, model.parameters)


@pytest.mark.parametrize("probe", ["Acted", "Matched"])
def test_what_pays_in_every_task_is_learned_before_adaptation(probe: str) -> None:
    """Probes (d) and (e): an action that pays, and one that pays where the observation says so."""
    model = learner(probe)
    assert abs(model.evaluate(n_tasks=20).mean(0)) < 0.5
    assert model.learn(iterations=25).evaluate(n_tasks=20).mean(0) > 0.95


def test_what_depends_on_the_task_is_learned_by_adaptation() -> None:
    """Probe (f): the reward's sign is the task, so 0 is the best before adaptation and 1 after it."""
    model = learner("HiddenSign", step_size=0.3, max_kl=0.01)
    untrained = model.evaluate(n_tasks=40)
    trained = model.learn(iterations=40).evaluate(n_tasks=40)
    assert untrained.mean(1) < 0.7
    assert abs(trained.mean(0)) < 0.3
    assert trained.mean(1) > 0.95


def looking(much: float, name: str = "maml", probe: str = "CostlyLook", **settings: Any) -> Any:
    """A learner whose policy looks with the logit ``much``."""
    given: dict[str, Any] = {"inner": {"step_size": 1.0}, **settings}
    learning = {"tasks": 20, "episodes": 20, "gae_lambda": 1.0, **given.pop("learning", {})}
    evaluation = {"every": 1000, "tasks": 20, "steps": 1}
    model = find_learner(name)(
        "MlpPolicy",
        f"probes:probe/{probe}-v0",
        learning=learning,
        evaluation=evaluation,
        policy_kwargs={"hidden_sizes": (16,)},
        **given,
    )
    parameters = copied(model.parameters)
    parameters["action_net.weight"][:2] = 0.0
    parameters["action_net.bias"][:2] = torch.tensor([0.0, much])
    model.state = replace(model.state, parameters=parameters)
    return model


def pull(model: Any, iterations: int) -> float:
    """How the meta-gradient changes the logit of looking, its mean in units of the mean's own standard error."""
    changes = []
    for iteration in range(1, iterations + 1):
        state, tasks = model.state, model.training_tasks(iteration)
        vector, linear_map = model.meta_vector(state), model.linear_map()
        adaptation = Adaptation(
            model.functional_policy, model.backend, vector, linear_map, first_order=model.first_order
        )
        rollouts = [played(model, tasks, iteration=iteration)]
        adaptation.adapt(model.inner_samples(state, rollouts[0]), model.inner_step_size(state, 0))
        rollouts.append(played(model, tasks, adaptation.parameters[-1], iteration=iteration, step=1))
        term = model.objective_term(state, adaptation, rollouts)
        gradients = meta_gradients(adaptation, model.samples(state, rollouts[1]), LIKELIHOOD_RATIO, term)
        gradient = adaptation.shared(gradients.mean(dim=0))["action_net.bias"]
        changes.append(float(gradient[1] - gradient[0]))
    return float(np.mean(changes) / (np.std(changes) / np.sqrt(len(changes))))


@pytest.mark.parametrize("probe", ["CostlyLook", "CostlyLookAhead"])
def test_who_looks_adapts_better(probe: str) -> None:
    """Probe (g), in one step or two: looking makes the update that follows a good one."""
    never, always = (looking(much, probe=probe).evaluate(n_tasks=100) for much in (-6.0, 6.0))
    assert always.mean(1) - never.mean(1) > 0.2


@pytest.mark.parametrize(("name", "iterations"), [("maml", 30), ("fomaml", 30), ("anil", 30), ("cavia", 20)])
def test_learners_that_give_no_credit_for_looking_before_adaptation(name: str, iterations: int) -> None:
    """Probe (g): their meta-gradient knows what looking costs after adaptation, and nothing of what it brings there.

    Reptile's does not know either: it moves along the inner updates, which find looking to cost.
    """
    assert pull(looking(0.0, name), iterations) < -2.0


@pytest.mark.parametrize(
    ("name", "iterations", "inner", "settings"),
    [
        # With the sum over the eight steps before adaptation, where the standard term has their mean.
        ("e-maml", 50, {}, {"learning": {"tasks": 100, "episodes": 8}, "outer": {"credit": 8.0}}),
        ("promp", 60, {}, {}),
        ("maml", 60, {"objective": "dice", "baseline": "none"}, {}),
    ],
    ids=["e-maml", "promp", "dice"],
)
def test_learners_that_credit_looking_before_adaptation(
    name: str, iterations: int, inner: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Probe (g): what was sampled before adaptation is credited with what the update led to.

    Episodes have one step, where DiCE's curvature is that of ProMP.
    """
    assert pull(looking(0.0, name, inner={"step_size": 3.0, **inner}, **settings), iterations) > 2.0


@pytest.mark.parametrize(
    ("name", "iterations", "inner", "credits"),
    [("maml", 10, {}, False), ("promp", 10, {}, False), ("maml", 40, {"objective": "dice"}, True)],
    ids=["maml", "promp", "dice"],
)
def test_only_dice_credits_looking_a_step_ahead(
    name: str, iterations: int, inner: dict[str, Any], credits: bool
) -> None:
    """Probe (g) in two steps: ProMP's curvature credits a step for itself, DiCE's for those that follow too."""
    inner = {"step_size": 6.0, **inner}
    found = pull(looking(0.0, name, "CostlyLookAhead", inner=inner, learning={"tasks": 60}), iterations)
    assert found > 2.0 if credits else found < -2.0


def test_reptile_and_meta_sgd_look_less() -> None:
    """Probe (g), by what training does: the logit of looking falls."""
    towards = {"reptile": {}, "meta-sgd": {"update": "vpg", "optimizer": "sgd", "learning_rate": 1.0}}
    for name, outer in towards.items():
        model = looking(0.0, name, outer=outer).learn(iterations=15)
        bias = model.parameters["action_net.bias"]
        assert float(bias[1] - bias[0]) < -0.1, name
