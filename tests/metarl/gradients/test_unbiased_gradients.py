"""What the meta-gradients estimate, on a process with two states where expectations are sums over all episodes.

Write J(theta) for the expected discounted return. Two objectives of meta-learning are told apart (Rothfuss et al. 2019,
section 4; Al-Shedivat et al. 2018; Stadie et al. 2018), with U the inner update:

I.  ``J(theta + alpha grad J(theta))``: the update from *expected* gradients. Its gradient needs the Hessian of J.
II. ``E_tau[J(U(theta, tau))]``: the update from *sampled* episodes tau, which are drawn from the policy too. At fixed
    tau the derivative of U is that of the policy-gradient estimate, whatever the Hessian of J is; and the draw of tau
    has a gradient of its own.

DiCE's inner loss is about I: its Hessian is without bias that of -J. E-MAML is about II. Neither serves the other.
"""

from __future__ import annotations

import pytest
import torch
from adaptations import CPU, OBJECTIVES
from torch import Tensor
from torch.autograd.functional import jacobian
from two_states import (
    POLICY,
    START,
    all_episodes,
    assert_close,
    chances,
    drawn,
    exact,
    expectation,
    far,
    log_policy,
    weighted_rewards,
)

from metarl.agents import (
    LIKELIHOOD_RATIO,
    InnerObjective,
    Samples,
    clipped_objective,
)
from metarl.gradients.adaptation import Adaptation, choose_backend, task_vectors
from metarl.gradients.curvature import Curvature
from metarl.gradients.meta_update import meta_gradients
from metarl.learners.e_maml import SamplingCredit

STEP_SIZE = 0.4


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("horizon", [1, 2])
def test_with_expected_inner_updates_dices_meta_gradient_is_exact(horizon: int, steps: int) -> None:
    """Objective I. That of plain MAML is not, for any horizon; that of ProMP's curvature is where an episode has one
    step. Each objective takes the same inner step, so it is the Jacobian that differs."""

    def adapt_and_play(vector: Tensor) -> Tensor:
        for _ in range(steps):
            value = exact(vector, horizon)
            (gradient,) = torch.autograd.grad(value, vector, create_graph=True)
            vector = vector + STEP_SIZE * gradient
        return exact(vector, horizon)

    wanted = jacobian(adapt_and_play, START)
    found = {}
    for name, objective in OBJECTIVES.items():
        backend = choose_backend(POLICY, CPU, objective=objective)
        adaptation = Adaptation(POLICY, backend, START)
        for _ in range(steps):
            adaptation.adapt(
                expectation(POLICY, task_vectors(POLICY, adaptation.parameters[-1], 1)[0], horizon), STEP_SIZE
            )
        (adapted,) = task_vectors(POLICY, adaptation.parameters[-1], 1)
        found[name] = Curvature(adaptation, expectation(POLICY, adapted, horizon)).gradient
    assert_close(found["dice"], wanted)
    assert far(found["policy-gradient"], wanted)
    assert far(found["likelihood-ratio"], wanted) == (horizon > 1)


@pytest.mark.parametrize("episodes", [1, 2])
def test_with_sampled_inner_updates_e_mamls_meta_gradient_is_without_bias(episodes: int) -> None:
    """Objective II (Stadie et al. 2018, equation 3): to the gradient through the update at fixed episodes comes
    ``E[J(theta') sum_t grad log pi(a_t|s_t)]`` over all steps of all episodes before adaptation. The learner has the
    mean over those steps in place of the sum, so ``outer.credit`` is their number here. A baseline of the returns after
    adaptation changes nothing. MAML leaves the term out; DiCE's inner loss, which is about objective I, gives another
    gradient with the term and without."""
    horizon = 2
    count = episodes * horizon

    def update(vector: Tensor, chosen: Samples) -> Tensor:
        logs = log_policy(POLICY, vector)[chosen.observations.argmax(dim=-1), chosen.actions]
        (gradient,) = torch.autograd.grad((logs * chosen.advantages).sum() / episodes, vector, create_graph=True)
        return vector + STEP_SIZE * gradient

    samples, probabilities = drawn(POLICY, START, horizon, episodes)
    draws = range(len(probabilities))

    def adapt_and_play(vector: Tensor) -> Tensor:
        played = torch.stack([exact(update(vector, samples.task(draw)), horizon) for draw in draws])
        chance = chances(POLICY, vector, horizon)
        return (chance if episodes == 1 else torch.outer(chance, chance).flatten()) @ played

    wanted = jacobian(adapt_and_play, START)
    found = {}
    for name, objective in OBJECTIVES.items():
        backend = choose_backend(POLICY, CPU, objective=objective)
        adaptation = Adaptation(POLICY, backend, START)
        adaptation.adapt(samples, STEP_SIZE * horizon)  # the sum over an episode's steps, from the mean
        adapted = task_vectors(POLICY, adaptation.parameters[-1], len(draws))
        after = torch.stack([exact(vector, horizon) for vector in adapted])
        queries = [expectation(POLICY, vector, horizon) for vector in adapted]
        query = Samples(
            **{
                name: torch.cat([getattr(part, name) for part in queries])
                for name in ("observations", "actions", "log_probs", "advantages", "weights")
            },
            episode_rows=horizon,
        )
        for label, baseline in (("", None), (" credited", 0.0), (" credited, less a baseline", 0.7)):
            credits = None if baseline is None else count * (after - baseline)
            term = None if credits is None else SamplingCredit([credits[group] for group in adaptation.groups])
            found[name + label] = probabilities @ Curvature(adaptation, query, term=term).gradients
    assert_close(found["policy-gradient credited"], wanted)
    assert_close(found["policy-gradient credited, less a baseline"], wanted)
    assert far(found["policy-gradient"], wanted)
    assert far(found["dice"], wanted)
    assert far(found["dice credited"], wanted)


def surrogate(objective: str, horizon: int, vector: Tensor, acted: Tensor) -> Tensor:
    """Return what an inner update increases, written down: of the episodes drawn with the parameters ``acted``."""
    states, actions, _ = all_episodes(horizon)
    probabilities = chances(POLICY, acted, horizon)[:, None]
    samples = expectation(POLICY, acted, horizon).task(0)
    advantages = samples.by_episode(samples.advantages)
    logs, old = (log_policy(POLICY, which)[states, actions] for which in (vector, acted))
    if objective == "policy-gradient":
        return (probabilities * advantages * logs).sum()
    if objective == "likelihood-ratio":
        return (probabilities * advantages * (logs - old).exp()).sum()
    return (probabilities * weighted_rewards(horizon) * (logs - old).cumsum(dim=1).exp()).sum()


@pytest.mark.parametrize("credit", [0.0, 0.8], ids=["maml", "e-maml"])
@pytest.mark.parametrize("outer", ["ratio", "clipped"])
@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_meta_gradients_equal_finite_differences(objective: str, outer: str, credit: float) -> None:
    """At other parameters than those that acted, where ratios are not 1, as in PPO's epochs."""
    horizon, clip = 3, 0.15
    backend = choose_backend(POLICY, CPU, objective=OBJECTIVES[objective])
    adaptation = Adaptation(POLICY, backend, START)
    adaptation.adapt(expectation(POLICY, START, horizon), STEP_SIZE)
    acted = task_vectors(POLICY, adaptation.parameters[-1], 1)[0]
    query = expectation(POLICY, acted, horizon)
    moved = START + torch.tensor([0.2, -0.1, 0.15, 0.1, -0.2, 0.05], dtype=torch.float64)
    states, actions, _ = all_episodes(horizon)

    def ratios(vector: Tensor) -> Tensor:
        logs, old = (log_policy(POLICY, which)[states, actions] for which in (vector, acted))
        return (logs - old).exp()

    def value(vector: Tensor) -> Tensor:
        vector = vector.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(surrogate(objective, horizon, vector, START), vector)
        ratio = ratios(vector + STEP_SIZE * gradient)
        advantages, weights = (query.task(0).by_episode(part[0]) for part in (query.advantages, query.weights))
        gains = ratio * advantages
        if outer == "clipped":
            gains = torch.minimum(gains, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages)
        before = chances(POLICY, START, horizon)[:, None] * log_policy(POLICY, vector)[states, actions]
        return ((gains * weights).sum() + credit * before.sum()).detach()

    gain: InnerObjective = clipped_objective(clip) if outer == "clipped" else LIKELIHOOD_RATIO
    here = adaptation.at(moved)
    (adapted,) = task_vectors(POLICY, here.parameters[-1], 1)
    credits = torch.tensor([credit], dtype=torch.float64)
    term = SamplingCredit([credits[group] for group in here.groups])
    (found,) = meta_gradients(here, query, gain, term)
    outside = (ratios(adapted) - 1.0).abs() > clip
    assert outside.any()
    assert not outside.all()
    h = 1e-5
    for index, unit in enumerate(torch.eye(len(moved), dtype=torch.float64)):
        difference = (value(moved + h * unit) - value(moved - h * unit)) / (2 * h)
        assert float(found[index]) == pytest.approx(float(difference), rel=1e-6, abs=1e-8)
