"""What the estimators estimate, on a process with two states where expectations are sums over all episodes.

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
from torch import Tensor
from torch.autograd.functional import hessian, jacobian
from two_states import (
    GAMMA,
    REWARDS,
    TRANSITIONS,
    action_values,
    all_episodes,
    chances,
    drawn,
    expectation,
    expected_return,
    log_policy,
    tabular_policy,
    weighted_rewards,
)

from metarl import MAML
from metarl.agents import (
    DICE,
    LIKELIHOOD_RATIO,
    POLICY_GRADIENT,
    InnerObjective,
    Samples,
    clipped_objective,
    discounted_returns,
)
from metarl.gradients.curvature import Chain, Curvature
from metarl.gradients.flat import flatten, named
from metarl.gradients.inner import choose_path, task_vectors
from metarl.gradients.meta_update import meta_gradients
from metarl.learners.e_maml import SamplingCredit

CPU = torch.device("cpu")
POLICY = tabular_policy()
STEP_SIZE = 0.4
OBJECTIVES = {"policy-gradient": POLICY_GRADIENT, "likelihood-ratio": LIKELIHOOD_RATIO, "dice": DICE}
BASELINE = torch.tensor([0.9, 1.7], dtype=torch.float64)  # of the two states
START = torch.tensor([0.5, -0.4, 0.2, 0.9, -0.3, 0.1], dtype=torch.float64)


def exact(vector: Tensor, horizon: int) -> Tensor:
    return expected_return(log_policy(POLICY, vector), horizon)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def far(ours: Tensor, theirs: Tensor) -> bool:
    return float((ours - theirs).norm()) > 0.01 * float(theirs.norm())


def estimated_hessian(objective: str, horizon: int, baseline: Tensor | None = None, path: str = "fast") -> Tensor:
    """Return the expectation of the Hessian that an inner loss gives, of what it increases."""
    chosen = choose_path(POLICY, CPU, path=path, objective=OBJECTIVES[objective])
    loss = chosen.inner_loss(START, expectation(POLICY, START, horizon, baseline).task(0))
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


# ---------------------------------------------------------------------- the Hessian of the inner loss


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
    slopes = jacobian(lambda vector: torch.stack(action_values(log_policy(POLICY, vector), horizon)), START)
    probabilities = chances(POLICY, START, horizon)
    across = torch.zeros_like(own)
    for t in range(horizon):
        later = GAMMA**t * slopes[t][states[:, t], actions[:, t]]
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
    model = MAML(
        "MlpPolicy",
        "metarl/TabularMDP-v0",
        family_kwargs={"max_episode_steps": horizon},
        learning={"gamma": GAMMA, "episodes": 20},
        inner={"objective": "dice", "baseline": "none"},
        policy_kwargs={"hidden_sizes": ()},
    )
    draws = 600
    task = {"transitions": transitions, "rewards": rewards}
    tasks = {name: part.float().numpy()[None].repeat(draws, axis=0) for name, part in task.items()}
    rollouts = model._collect(model.parameters, tasks, 1, 0)
    samples = model._inner_samples(rollouts)
    returns = discounted_returns(rollouts.rewards, rollouts.mask, GAMMA)
    # From the mean over steps to the sum over an episode's, and from unit root mean square to returns as they are.
    scales = horizon * returns.square().mean(dim=(1, 2)).sqrt().double()
    start = flatten(model.parameters.values())
    directions = torch.randn(2, len(start), generator=torch.Generator().manual_seed(0))

    def value(vector: Tensor) -> Tensor:
        parts = named(model._policy.shapes, vector)
        log_pi = torch.log_softmax(parts["action_net.weight"].mT + parts["action_net.bias"], dim=-1)
        return expected_return(log_pi, horizon, **task)

    wanted = hessian(value, start.double())
    found = {}
    for name, objective in OBJECTIVES.items():
        path = choose_path(model._policy, CPU, objective=objective)
        losses = [path.inner_loss(start, samples.task(draw)) for draw in range(draws)]
        for direction in directions:
            bends = -scales * torch.stack([direction @ loss.push(direction) for loss in losses]).double()
            error = bends.mean() - direction.double() @ wanted @ direction.double()
            found.setdefault(name, []).append(float(error / (bends.std() / draws**0.5)))
    assert max(abs(z) for z in found["dice"]) < 4.0
    assert max(abs(z) for z in found["policy-gradient"]) > 10.0
    assert max(abs(z) for z in found["likelihood-ratio"]) > 10.0


# ---------------------------------------------------------------------- the meta-gradient


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("horizon", [1, 2])
def test_with_expected_inner_updates_dices_meta_gradient_is_exact(horizon: int, steps: int) -> None:
    """Objective I. That of plain MAML is not, for any horizon; that of ProMP's curvature is where an episode has one
    step. Each objective takes the same inner step, so it is the Jacobian that differs."""

    def adapt_and_play(vector: Tensor) -> Tensor:
        for _ in range(steps):
            value = exact(vector, horizon)
            (slope,) = torch.autograd.grad(value, vector, create_graph=True)
            vector = vector + STEP_SIZE * slope
        return exact(vector, horizon)

    wanted = jacobian(adapt_and_play, START)
    found = {}
    for name, objective in OBJECTIVES.items():
        path = choose_path(POLICY, CPU, objective=objective)
        chain = Chain(POLICY, path, named(POLICY.shapes, START))
        for _ in range(steps):
            chain.adapt(expectation(POLICY, task_vectors(POLICY, chain.parameters[-1], 1)[0], horizon), STEP_SIZE)
        adapted = task_vectors(POLICY, chain.parameters[-1], 1)[0]
        found[name] = Curvature(chain, expectation(POLICY, adapted, horizon)).gradient
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
        (slope,) = torch.autograd.grad((logs * chosen.advantages).sum() / episodes, vector, create_graph=True)
        return vector + STEP_SIZE * slope

    samples, probabilities = drawn(POLICY, START, horizon, episodes)
    draws = range(len(probabilities))

    def adapt_and_play(vector: Tensor) -> Tensor:
        played = torch.stack([exact(update(vector, samples.task(draw)), horizon) for draw in draws])
        chance = chances(POLICY, vector, horizon)
        return (chance if episodes == 1 else torch.outer(chance, chance).flatten()) @ played

    wanted = jacobian(adapt_and_play, START)
    found = {}
    for name, objective in OBJECTIVES.items():
        path = choose_path(POLICY, CPU, objective=objective)
        chain = Chain(POLICY, path, named(POLICY.shapes, START))
        chain.adapt(samples, STEP_SIZE * horizon)  # the sum over an episode's steps, from the mean
        adapted = task_vectors(POLICY, chain.parameters[-1], len(draws))
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
            term = None if credits is None else SamplingCredit([credits[part] for part in chain.parts])
            found[name + label] = probabilities @ Curvature(chain, query, term=term).gradients
    assert_close(found["policy-gradient credited"], wanted)
    assert_close(found["policy-gradient credited, less a baseline"], wanted)
    assert far(found["policy-gradient"], wanted)
    assert far(found["dice"], wanted)
    assert far(found["dice credited"], wanted)


# ---------------------------------------------------------------------- the surrogates as functions


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
    parameters = named(POLICY.shapes, START)
    inner = choose_path(POLICY, CPU, objective=OBJECTIVES[objective])
    chain = Chain(POLICY, inner, parameters)
    chain.adapt(expectation(POLICY, START, horizon), STEP_SIZE)
    acted = task_vectors(POLICY, chain.parameters[-1], 1)[0]
    query = expectation(POLICY, acted, horizon)
    moved = START + torch.tensor([0.2, -0.1, 0.15, 0.1, -0.2, 0.05], dtype=torch.float64)
    states, actions, _ = all_episodes(horizon)

    def ratios(vector: Tensor) -> Tensor:
        logs, old = (log_policy(POLICY, which)[states, actions] for which in (vector, acted))
        return (logs - old).exp()

    def value(vector: Tensor) -> Tensor:
        vector = vector.detach().requires_grad_()
        (slope,) = torch.autograd.grad(surrogate(objective, horizon, vector, START), vector)
        ratio = ratios(vector + STEP_SIZE * slope)
        advantages, weights = (query.task(0).by_episode(part[0]) for part in (query.advantages, query.weights))
        gains = ratio * advantages
        if outer == "clipped":
            gains = torch.minimum(gains, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages)
        before = chances(POLICY, START, horizon)[:, None] * log_policy(POLICY, vector)[states, actions]
        return ((gains * weights).sum() + credit * before.sum()).detach()

    gain: InnerObjective = clipped_objective(clip) if outer == "clipped" else LIKELIHOOD_RATIO
    here = chain.at(moved)
    (adapted,) = task_vectors(POLICY, here.parameters[-1], 1)
    credits = torch.tensor([credit], dtype=torch.float64)
    term = SamplingCredit([credits[part] for part in here.parts])
    (found,) = meta_gradients(here, query, gain, term)
    outside = (ratios(adapted) - 1.0).abs() > clip
    assert outside.any()
    assert not outside.all()
    h = 1e-5
    for index, unit in enumerate(torch.eye(len(moved), dtype=torch.float64)):
        slope = (value(moved + h * unit) - value(moved - h * unit)) / (2 * h)
        assert float(found[index]) == pytest.approx(float(slope), rel=1e-6, abs=1e-8)
