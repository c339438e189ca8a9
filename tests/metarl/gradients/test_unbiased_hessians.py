"""The Hessian of each inner loss: what it estimates, on a process with two states where expectations are sums.

DiCE's is without bias that of minus the expected return; the others leave something out, which is told exactly.
"""

from __future__ import annotations

import pytest
import torch
from adaptations import CPU, OBJECTIVES
from small import played, small
from torch import Tensor
from torch.autograd.functional import hessian, jacobian
from two_states import (
    GAMMA,
    POLICY,
    REWARDS,
    START,
    TRANSITIONS,
    action_values,
    all_episodes,
    assert_close,
    chances,
    exact,
    expectation,
    expected_return,
    far,
    log_policy,
    weighted_rewards,
)

from metarl.agents import (
    discounted_returns,
)
from metarl.gradients.adaptation import choose_backend
from metarl.gradients.flat import flatten, named

BASELINE = torch.tensor([0.9, 1.7], dtype=torch.float64)  # of the two states


def estimated_hessian(objective: str, horizon: int, baseline: Tensor | None = None, path: str = "fast") -> Tensor:
    """Return the expectation of the Hessian that an inner loss gives, of what it increases."""
    backend = choose_backend(POLICY, CPU, path=path, objective=OBJECTIVES[objective])
    loss = backend.inner_loss(START, expectation(POLICY, START, horizon, baseline).task(0))
    assert_close(-loss.gradient, jacobian(lambda vector: exact(vector, horizon), START))
    return -torch.stack([loss.push(unit) for unit in torch.eye(len(START), dtype=torch.float64)], dim=1)


def true_hessian(horizon: int) -> Tensor:
    return hessian(lambda vector: exact(vector, horizon), START)


def scores(horizon: int) -> Tensor:
    """Return the gradients of log pi(a_t|s_t), ``[episode, time, parameter]``."""
    states, actions, _ = all_episodes(horizon)
    return jacobian(lambda vector: log_policy(POLICY, vector)[states, actions], START)


def credited(horizon: int) -> Tensor:
    """Return ``gamma^t G_t`` of all episodes, each times its probability, ``[episode, time]``."""
    samples = expectation(POLICY, START, horizon).task(0)
    return samples.by_episode(samples.advantages * samples.weights)


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_the_sum_over_all_episodes_is_the_exact_return(horizon: int) -> None:
    probabilities = chances(POLICY, START, horizon)
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-12)
    assert_close((probabilities * weighted_rewards(horizon).sum(dim=1)).sum(), exact(START, horizon))


@pytest.mark.parametrize("path", ["fast", "general"])
@pytest.mark.parametrize("baseline", [None, BASELINE], ids=["dice", "loaded dice"])
@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_dices_hessian_is_without_bias(horizon: int, baseline: Tensor | None, path: str) -> None:
    """Foerster et al. 2018, theorem 1; with a baseline of the state, Farquhar et al. 2019."""
    assert_close(estimated_hessian("dice", horizon, baseline, path), true_hessian(horizon))


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_the_policy_gradients_hessian_lacks_the_products_of_scores(horizon: int) -> None:
    """What differentiating the estimate of the gradient leaves out: with u the later of two steps,
    ``E[sum_{s, s'} gamma^u G_u (grad log pi_s) (grad log pi_s')^T]`` (Foerster et al. 2018, on surrogate losses;
    Rothfuss et al. 2019, section 4). What is left depends on the baseline, which no Hessian of a return does."""
    psi, credit = scores(horizon), credited(horizon)
    missing = torch.zeros(len(START), len(START), dtype=torch.float64)
    for one in range(horizon):
        for other in range(horizon):
            missing += torch.einsum("e,ei,ej->ij", credit[:, max(one, other)], psi[:, one], psi[:, other])
    estimated = estimated_hessian("policy-gradient", horizon)
    assert_close(estimated + missing, true_hessian(horizon))
    assert far(estimated, true_hessian(horizon))
    assert far(estimated_hessian("policy-gradient", horizon, BASELINE), estimated)


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_the_low_variance_curvature_has_the_products_of_each_step_and_not_those_across_steps(horizon: int) -> None:
    """ProMP's: ``E[sum_t gamma^t G_t (grad log pi_t) (grad log pi_t)^T]`` is there, which plain MAML lacks; what is
    missing is ``H12 + H12^T`` with ``H12 = E[sum_t gamma^t (grad log pi_t) (grad Q_t)^T]`` (Rothfuss et al. 2019, on
    the bias of LVC): nothing where an episode has one step."""
    psi, credit = scores(horizon), credited(horizon)
    estimated = estimated_hessian("likelihood-ratio", horizon)
    own = torch.einsum("et,eti,etj->ij", credit, psi, psi)
    assert_close(estimated, estimated_hessian("policy-gradient", horizon) + own)
    assert_close(estimated_hessian("likelihood-ratio", horizon, BASELINE), estimated)

    states, actions, _ = all_episodes(horizon)
    gradients = jacobian(lambda vector: torch.stack(action_values(log_policy(POLICY, vector), horizon)), START)
    probabilities = chances(POLICY, START, horizon)
    across = torch.zeros_like(own)
    for t in range(horizon):
        later = GAMMA**t * gradients[t][states[:, t], actions[:, t]]
        across += torch.einsum("e,ei,ej->ij", probabilities, psi[:, t], later)
    assert_close(estimated + across + across.mT, true_hessian(horizon))
    assert far(estimated, true_hessian(horizon)) == (horizon > 1)


def test_sampled_episodes_agree_within_their_standard_error() -> None:
    """The learner's own rollouts, samples and inner losses: a second derivative along two directions, over 600 draws of
    20 episodes. Without a baseline, each draw's scale is known and taken out again."""
    horizon = 3
    transitions = torch.zeros(10, 5, 10, dtype=torch.float64)
    transitions[:, :, 0] = 1.0
    transitions[:2, :2, :2], transitions[:2, 2:, :2] = TRANSITIONS, TRANSITIONS[:, :1]
    rewards = torch.zeros(10, 5, dtype=torch.float64)
    rewards[:2, :2], rewards[:2, 2:] = REWARDS, REWARDS[:, :1] - 1.0
    model = small(
        family="metarl/TabularMDP-v0",
        family_kwargs={"max_episode_steps": horizon},
        learning={"gamma": GAMMA, "episodes": 20},
        inner={"objective": "dice", "baseline": "none"},
        policy_kwargs={"hidden_sizes": ()},
    )
    draws = 600
    task = {"transitions": transitions, "rewards": rewards}
    tasks = {name: part.float().numpy()[None].repeat(draws, axis=0) for name, part in task.items()}
    rollouts = played(model, tasks)
    samples = model.inner_samples(model.state, rollouts)
    returns = discounted_returns(rollouts.rewards, rollouts.mask, GAMMA)
    # From the mean over steps to the sum over an episode's, and from unit root mean square to returns as they are.
    scales = horizon * returns.square().mean(dim=(1, 2)).sqrt().double()
    policy, start = model.functional_policy, flatten(model.parameters.values())
    directions = torch.randn(2, len(start), generator=torch.Generator().manual_seed(0))

    def value(vector: Tensor) -> Tensor:
        parts = named(policy.shapes, vector)
        log_pi = torch.log_softmax(parts["action_net.weight"].mT + parts["action_net.bias"], dim=-1)
        return expected_return(log_pi, horizon, **task)

    wanted = hessian(value, start.double())
    found = {}
    for name, objective in OBJECTIVES.items():
        backend = choose_backend(policy, CPU, objective=objective)
        losses = [backend.inner_loss(start, samples.task(draw)) for draw in range(draws)]
        for direction in directions:
            bends = -scales * torch.stack([direction @ loss.push(direction) for loss in losses]).double()
            error = bends.mean() - direction.double() @ wanted @ direction.double()
            found.setdefault(name, []).append(float(error / (bends.std() / draws**0.5)))
    assert max(abs(z) for z in found["dice"]) < 4.0
    assert max(abs(z) for z in found["policy-gradient"]) > 10.0
    assert max(abs(z) for z in found["likelihood-ratio"]) > 10.0
