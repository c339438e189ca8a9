"""The meta-learners: the gradients of each against its equations, what they have in common, and what they keep."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from samples import double, make_policy, make_samples
from stable_baselines3 import PPO
from stable_baselines3.common.logger import KVWriter, Logger
from torch import Tensor

import metarl
from metarl import ANIL, CAVIA, MAML, MetaSGD, Pretrained, ProMP, Random, Reptile, Scratch
from metarl.agents import DICE, LIKELIHOOD_RATIO, POLICY_GRADIENT, InnerObjective, clipped_objective
from metarl.experiments.command import main
from metarl.experiments.configuration import parse_override, read_configuration
from metarl.gradients.context_backend import CONTEXT, ContextPolicy
from metarl.gradients.curvature import Chain, Curvature
from metarl.gradients.flat import flatten, named
from metarl.gradients.inner import choose_path, inner_update
from metarl.gradients.meta_update import meta_gradients
from metarl.gradients.optimizers import ascend, first_moments
from metarl.gradients.terms import Term
from metarl.learner import BaseLearner, Outcome
from metarl.learners.cavia import ContextChain
from metarl.learners.e_maml import SamplingCredit
from metarl.learners.fomaml import FirstOrderChain
from metarl.learners.meta_sgd import SizedChain
from metarl.learners.promp import KLPenalty
from metarl.learners.registry import LEARNERS, find_learner, load_learner
from metarl.settings import as_dict, structure

CPU = torch.device("cpu")
NAVIGATION = "metarl/Navigation2D-v0"
STEP_SIZE = 0.3


def fill(chain: Chain, steps: int, size: Callable[[int], Any] = lambda step: STEP_SIZE) -> Chain:
    for step in range(steps):
        chain.adapt(make_samples(make_policy(), seed=step), size(step))
    return chain


def plain(kind: type[Chain] = Chain, steps: int = 2, objective: InnerObjective = POLICY_GRADIENT) -> Chain:
    policy = make_policy()
    path = choose_path(policy, CPU, objective=objective)
    return fill(kind(policy, path, double(policy.parameters())), steps)


def sized(steps: int = 2, sets: int = 1, layers: bool = False) -> SizedChain:
    policy = make_policy()
    counts = torch.tensor([shape.numel() for shape in policy.shapes.values()])
    owner = torch.repeat_interleave(counts) if layers else torch.arange(int(counts.sum()))
    sizes = torch.full((sets, int(owner.max()) + 1), STEP_SIZE, dtype=torch.float64)
    sizes += 0.1 * torch.rand(sizes.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chain = SizedChain(policy, choose_path(policy, CPU), double(policy.parameters()), sizes, owner)
    fill(chain, steps, lambda step: sizes[min(step, sets - 1)][owner])
    return chain


def context(steps: int = 2) -> ContextChain:
    policy = ContextPolicy(make_policy(), 3, seed=1)
    chain = ContextChain(policy, choose_path(policy, CPU, adapts=frozenset({CONTEXT})), double(policy.parameters()))
    fill(chain, steps)
    return chain


def credit(chain: Chain) -> Term:
    credits = torch.tensor([0.7, -1.2, 0.5], dtype=torch.float64)
    return SamplingCredit([credits[part] for part in chain.parts])


def slope(value: Callable[[Tensor], Tensor], vector: Tensor, direction: Tensor, h: float = 1e-5) -> float:
    return float(value(vector + h * direction) - value(vector - h * direction)) / (2 * h)


def directions(length: int, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randn(count, length, generator=generator, dtype=torch.float64)
    return list(drawn / drawn.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("make", "with_credit"),
    [
        (plain, False),
        (lambda: plain(objective=LIKELIHOOD_RATIO), False),
        (lambda: plain(objective=DICE), False),
        (plain, True),
        (sized, False),
        (lambda: sized(sets=2), False),
        (lambda: sized(layers=True), True),
        (context, False),
        (context, True),
    ],
    ids=[
        "maml",
        "likelihood ratio",
        "dice",
        "e-maml",
        "meta-sgd",
        "per step",
        "per layer, credited",
        "cavia",
        "cavia, credited",
    ],
)
def test_the_meta_gradient_equals_finite_differences(make: Callable[[], Chain], with_credit: bool) -> None:
    chain = make()
    curvature = Curvature(chain, make_samples(make_policy(), seed=9), term=credit(chain) if with_credit else None)
    gain, _ = curvature.evaluate(chain.vector)
    assert float(gain) == pytest.approx(float(curvature.gain), rel=1e-9)
    for direction in directions(len(chain.vector)):
        found = slope(lambda vector: curvature.evaluate(vector)[0], chain.vector, direction)
        assert float(curvature.gradient @ direction) == pytest.approx(found, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("make", [sized, lambda: sized(sets=2), context])
def test_the_fisher_product_equals_finite_differences_of_the_kl(make: Callable[[], Chain]) -> None:
    chain = make()
    curvature = Curvature(chain, make_samples(make_policy(), seed=9))
    h = 1e-3
    for direction in directions(len(chain.vector)):
        ahead, behind = (curvature.evaluate(chain.vector + sign * h * direction)[1] for sign in (1, -1))
        assert float(direction @ curvature.product(direction)) == pytest.approx(float(ahead + behind) / h**2, rel=1e-3)


@pytest.mark.parametrize(("steps", "objective"), [(1, LIKELIHOOD_RATIO), (2, LIKELIHOOD_RATIO), (2, DICE)])
def test_proximal_steps_follow_the_gradient_of_clipped_gain_and_penalty(steps: int, objective: InnerObjective) -> None:
    """ProMP's equation 14, away from the parameters that acted, where ratios are not 1 and the KL is not 0."""
    start = plain(steps=steps, objective=objective)
    query = make_samples(make_policy(), seed=9)
    clipped = clipped_objective(0.3)
    term = KLPenalty(start, 0.5)

    def value(vector: Tensor) -> Tensor:
        total = []
        for task in range(3):
            vectors = start.retrace(vector, task)
            samples = query.task(task)
            new = start.policy.distribution(named(start.policy.shapes, vectors[-1]), samples.observations)
            total.append(-clipped.loss(new, samples))
        for number, part in enumerate(start.parts):
            vectors = start.retrace(vector, part)
            for step, support in enumerate(start.supports):
                own = support.task(part)
                outputs = start.path.outputs(vectors[step].expand(*own.weights.shape[:-1], -1), own)
                total.append(term.value(number, step, outputs).sum())
        return torch.stack(total).sum() / 3

    moved = start.vector + 0.1 * directions(len(start.vector), 4)[3]
    here = start.at(moved)
    gradients = meta_gradients(here, query, clipped, term)
    assert float(term.value(0, 0, here.outputs(0, 0)).sum()) < 0
    for direction in directions(len(moved)):
        found = slope(value, moved, direction, 1e-6)
        assert float(gradients.mean(dim=0) @ direction) == pytest.approx(found, rel=1e-4, abs=1e-7)


def test_first_order_is_the_gradient_after_adaptation_as_it_is() -> None:
    query = make_samples(make_policy(), seed=9)
    whole, first = plain(), plain(FirstOrderChain)
    for name, value in whole.parameters[-1].items():
        torch.testing.assert_close(first.parameters[-1][name], value)
    identity = torch.stack([part for one in whole.adapted(whole.parts, query) for part in one.gradient])
    torch.testing.assert_close(Curvature(first, query).gradients, identity)
    assert (Curvature(whole, query).gradients - identity).norm() > 0.01 * identity.norm()


def test_first_order_updates_refuse_a_term_of_the_policies_before_them() -> None:
    chain = plain(FirstOrderChain)
    with pytest.raises(ValueError, match="first-order inner updates keep nothing"):
        meta_gradients(chain, make_samples(make_policy(), seed=9), POLICY_GRADIENT, credit(chain))
    with pytest.raises(ValueError, match="first-order inner updates keep nothing"):
        Curvature(chain, make_samples(make_policy(), seed=9), term=credit(chain))
    with pytest.raises(ValueError, match="first-order inner updates keep nothing"):
        KLPenalty(chain, 0.5)


def test_a_constant_step_size_makes_meta_sgd_maml() -> None:
    policy = make_policy()
    length = sum(shape.numel() for shape in policy.shapes.values())
    sizes = torch.full((1, length), STEP_SIZE, dtype=torch.float64)
    chain = SizedChain(policy, choose_path(policy, CPU), double(policy.parameters()), sizes, torch.arange(length))
    fill(chain, 2, lambda step: sizes[0])
    query = make_samples(policy, seed=9)
    torch.testing.assert_close(Curvature(chain, query).gradient[:length], Curvature(plain(), query).gradient)


SMALL: dict[str, Any] = {
    "family_kwargs": {"max_episode_steps": 8},
    "learning": {"tasks": 3, "episodes": 4},
    "evaluation": {"every": 1, "tasks": 2, "episodes": 2, "steps": 2},
    "policy_kwargs": {"hidden_sizes": (6, 5)},
}


def small(kind: type[BaseLearner], **changed: Any) -> BaseLearner:
    return kind("MlpPolicy", NAVIGATION, **{**SMALL, **changed})


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_with_all_layers_in_the_head_anil_is_maml() -> None:
    whole = small(ANIL, outer={"head_layers": 3}).learn(2)
    for name, value in small(MAML).learn(2).parameters.items():
        torch.testing.assert_close(whole.parameters[name], value)
    with pytest.raises(ValueError, match=r"head_layers is 4, but the policy has 3 layers .* expected at most 3"):
        small(ANIL, outer={"head_layers": 4})


@pytest.mark.parametrize(("kind", "moving"), [(ANIL, {"log_std", "action_net.weight", "action_net.bias"}),
                                              (CAVIA, {"context"})])  # fmt: skip
def test_only_the_part_that_adapts_moves_in_adaptation(kind: type[BaseLearner], moving: set[str]) -> None:
    model = small(kind, inner={"step_size": 1.0})
    tasks = metarl.sample_tasks(NAVIGATION, 3, seed=1)
    rollouts = model._collect(model.parameters, tasks, 1, 0)
    adapted = model.adapted(model.parameters, rollouts, 0)
    assert model.path.name == "fast"
    assert {name for name, value in model.parameters.items() if not torch.equal(adapted[name][0], value)} == moving
    before = {name: value.clone() for name, value in model.parameters.items()}
    model.learn(2)
    moved = {name for name, value in before.items() if not torch.equal(model.parameters[name], value)}
    assert moved == set(before) - {"context"}


def test_an_adapted_context_is_a_plain_policy_that_does_the_same() -> None:
    model = small(CAVIA, inner={"step_size": 1.0}, outer={"context_size": 3}).learn(1)
    tasks = metarl.sample_tasks(NAVIGATION, 1, seed=1)
    parameters = {name: value[0] for name, value in model._adapt_to(tasks, 2, 4, 1).items()}
    assert parameters["context"].shape == (3,)
    assert (parameters["context"] != 0).all()
    observations = torch.rand(5, 2)
    mean = model._policy.distribution(parameters, observations).parameters[0]
    adapted = model.as_policy(parameters)
    torch.testing.assert_close(adapted.get_distribution(observations).distribution.mean, mean)
    with pytest.raises(ValueError, match="needs a perceptron"):
        CAVIA("MlpPolicy", "toy_families:toy/Sign-v0", family_kwargs={"observations": "discrete"})


def test_reptile_with_one_step_moves_along_the_policy_gradient() -> None:
    model = small(Reptile, inner={"step_size": 0.2}, outer={"learning_rate": 0.5})
    tasks = model._training_tasks(1)
    samples = model._samples(model._collect(model.parameters, tasks, 1, 0))
    path = choose_path(model._policy, CPU)
    start = flatten(model.parameters.values())
    slopes = torch.stack([path.inner_gradient(start, samples.task(task)) for task in range(3)])
    model.learn(1)
    torch.testing.assert_close(flatten(model.parameters.values()), start - 0.5 * 0.2 * slopes.mean(dim=0))


@pytest.mark.parametrize("baseline", ["linear", "none"])
def test_dice_adapts_in_training_as_in_evaluation_and_not_as_the_policy_gradient_does(baseline: str) -> None:
    model = small(MAML, inner={"objective": "dice", "baseline": baseline}, learning={"tasks": 3, "episodes": 4})
    rollouts = model._collect(model.parameters, model._training_tasks(1), 1, 0)
    chain = model._chain()
    chain.adapt(model._inner_samples(rollouts), model.training_step_size(0))
    adapted = model.adapted(model.parameters, rollouts, 0)
    for name, value in chain.parameters[-1].items():
        torch.testing.assert_close(adapted[name], value)
    moved = flatten(adapted.values()) - flatten(small(MAML).adapted(model.parameters, rollouts, 0).values())
    assert moved.norm() > 1e-3
    before = {name: value.clone() for name, value in model.parameters.items()}
    assert not same(model.learn(1).parameters, before)


def test_adam_takes_the_steps_of_torchs() -> None:
    generator = torch.Generator().manual_seed(3)
    ours = torch.randn(7, generator=generator, dtype=torch.float64)
    theirs = ours.clone().requires_grad_()
    optimizer, state = torch.optim.Adam([theirs], lr=0.1, maximize=True), first_moments("adam", ours)
    for _ in range(4):
        theirs.grad = torch.randn(7, generator=generator, dtype=torch.float64)
        ours, state = ascend(ours, theirs.grad, state, 0.1)
        optimizer.step()
    torch.testing.assert_close(ours, theirs.detach())


UPDATES = [
    (name, getattr(outer, "update", None), steps)
    for name in LEARNERS
    if find_learner(name).trains
    for steps, outer in enumerate(find_learner(name).outer_settings, start=1)
]


@pytest.mark.parametrize(("name", "update", "steps"), UPDATES)
def test_a_learner_that_was_saved_goes_on_with_the_same_bits(
    name: str, update: str | None, steps: int, tmp_path: Path
) -> None:
    outer: dict[str, Any] = {"promp": {"adaptive": True}, "reptile": {"optimizer": "adam"}}.get(name, {})
    if update is not None:
        outer["update"] = update
    model = small(find_learner(name), inner={"steps": steps}, outer=outer).learn(1)
    model.save(tmp_path / "model")
    loaded = load_learner(tmp_path / "model")
    assert type(loaded) is type(model)
    assert same(loaded.extra, model.extra)
    before = {key: value.clone() for key, value in model.parameters.items()}
    model.learn(1)
    loaded.learn(1)
    assert same(model.parameters, loaded.parameters)
    assert same(model.extra, loaded.extra)
    assert not same(model.parameters, before)
    model.save_best(tmp_path / "best")
    np.testing.assert_array_equal(load_learner(tmp_path / "best").best.extra.keys(), model.best.extra.keys())


def test_promp_adapts_its_coefficient_to_the_kl() -> None:
    high = small(ProMP, outer={"adaptive": True, "learning_rate": 0.1}).learn(1)
    low = small(ProMP, outer={"adaptive": True, "learning_rate": 1e-6}).learn(1)
    fixed = small(ProMP, outer={"learning_rate": 0.1}).learn(1)
    assert [float(model.extra["kl_coefficient"]) for model in (high, low, fixed)] == [1e-3, 2.5e-4, 5e-4]


def test_meta_sgd_adapts_with_the_step_sizes_it_learned() -> None:
    model = small(MetaSGD, inner={"steps": 2}, outer={"step_sizes": "layer", "per_step": True}).learn(2)
    sizes = model.extra["step_sizes"]
    assert sizes.shape == (2, len(model.parameters))
    assert (sizes != 0.1).all()
    tasks = metarl.sample_tasks(NAVIGATION, 1, seed=1)
    rollouts = model._play(model.parameters, tasks, 4, [metarl.seeding.Stream(1, (9,))])
    for step, size in enumerate([sizes[0], sizes[1], 0.5 * sizes[1]]):
        each = dict(zip(model.parameters, size, strict=True))
        expected = inner_update(
            model._policy,
            model.parameters,
            model._samples(rollouts),
            {name: each[name].expand_as(value) for name, value in model.parameters.items()},
        )
        adapted = model.adapted(model.parameters, rollouts, step)
        assert all(torch.equal(adapted[name], value) for name, value in expected.items())


def test_another_learner_or_update_in_an_override_replaces_the_outer_settings() -> None:
    def read(*overrides: str) -> Any:
        return read_configuration("navigation", [parse_override(text) for text in overrides])[1]

    assert read().outer.fisher_fraction == 0.125
    assert read("outer.update=trpo").outer.fisher_fraction == 0.125
    assert read("learner=fomaml").outer.fisher_fraction == 1.0
    changed = read("learner=promp", "outer.clip=0.2")
    assert (changed.outer.clip, changed.outer.epochs, changed.learning.gae_lambda) == (0.2, 5, 0.9)
    assert read("outer.update=ppo").outer.clip == 0.3
    assert structure(as_dict(changed)) == changed


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"learner": "reptil"}, "unknown learner 'reptil'; the nearest is 'reptile'"),
        ({"learner": "nowhere:Thing"}, "'nowhere:Thing' cannot be imported"),
        ({"learner": "metarl.settings:Settings"}, "is no meta-learner"),
        ({"outer": {"clip": 0.2}}, "outer.clip is a setting of outer.update = 'ppo', and this is 'trpo'"),
        ({"outer": {"update": "ppo", "max_kl": 0.2}}, "outer.max_kl is a setting of outer.update = 'trpo'"),
        ({"outer": {"update": "adam"}}, "outer.update is 'adam'; learner 'maml' takes 'trpo', 'ppo', 'vpg'"),
        ({"outer": {"credit": 0.2}}, "outer.credit is a setting of learner 'e-maml', not of 'maml'"),
        ({"learner": "reptile", "outer": {"max_kl": 0.2}}, "outer.max_kl is a setting of learner 'maml'"),
        ({"learner": "promp", "outer": {"epoch": 3}}, "unknown setting 'outer.epoch'; the nearest is 'outer.epochs'"),
        ({"inner": {"objective": "dicey"}}, "inner.objective is 'dicey'; it should be 'auto'"),
        ({"inner": {"baseline": "none"}}, "for inner.objective = 'dice', and this is 'policy-gradient'; set inner.ob"),
        ({"learner": "promp", "inner": {"baseline": "none"}}, "'dice', and this is 'likelihood-ratio'"),
    ],
)
def test_settings_that_do_not_fit_the_learner_are_named(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        structure(data)


def test_the_command_lists_the_learners_and_trains_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["learners", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == list(LEARNERS)
    assert all(entry["summary"].endswith((".", ":")) and entry["source"] for entry in listed)
    assert main(["learners"]) == 0
    assert "outer.update: trpo, ppo, vpg" in capsys.readouterr().out
    tiny = ["learning.iterations=2", "learning.tasks=2", "learning.episodes=2", "family_kwargs.max_episode_steps=5",
            "evaluation.tasks=2", "evaluation.test_tasks=2", "evaluation.episodes=2"]  # fmt: skip
    assert main(["train", "navigation", "learner=meta-sgd", *tiny]) == 0
    assert json.loads((tmp_path / "runs/navigation/results.json").read_text())["learner"] == "meta-sgd"
    assert main(["evaluate", "runs/navigation", "--tasks", "2", "--episodes", "2"]) == 0
    assert main(["train", "navigation", "learner=meta-sdg"]) == 2
    assert "the nearest is 'meta-sgd'" in capsys.readouterr().err


def test_plain_steps_leave_step_sizes_alone_and_have_no_moments() -> None:
    model = small(MetaSGD, outer={"update": "vpg", "optimizer": "sgd"}).learn(2)
    assert list(model.extra) == ["step_sizes"]


@pytest.mark.parametrize("actions", ["standard box", "matrix", "discrete", "multi"])
def test_random_actions_are_uniform(actions: str) -> None:
    model = Random(
        "MlpPolicy",
        "toy_families:toy/Sign-v0",
        family_kwargs={"actions": actions, "observations": "box"},
        evaluation={"steps": 1, "episodes": 3},
    )
    tasks = np.array([[0.5]], dtype=np.float32)
    streams = [metarl.seeding.Stream(1, (9,))]
    rollouts = model._play(model.parameters, tasks, 1000, streams)
    drawn = rollouts.actions.reshape(3000, -1).double()
    space = model.action_space
    if isinstance(space, gymnasium.spaces.Box):
        assert float(drawn.min()) > -1.0
        assert float(drawn.max()) < 1.0
        torch.testing.assert_close(drawn.mean(dim=0), torch.zeros_like(drawn[0]), atol=0.05, rtol=0)
        torch.testing.assert_close(drawn.var(dim=0), torch.full_like(drawn[0], 1 / 3), atol=0.02, rtol=0)
        expected = -np.log(2.0) * drawn.shape[1]
    else:
        counts = getattr(space, "nvec", None)
        counts = [space.n] if counts is None else counts
        for column, count in zip(drawn.T, counts, strict=True):
            shares = [float((column == value).double().mean()) for value in range(count)]
            np.testing.assert_allclose(shares, 1 / count, atol=0.04)
        expected = -np.log(np.prod(counts))
    np.testing.assert_allclose(rollouts.log_probs, expected, rtol=1e-5)
    assert model.learn(5).iteration == 0
    assert model.evaluate(n_tasks=2).returns.shape == (2, 2)
    with pytest.raises(ValueError, match="has no policy to give"):
        model.adapt(tasks[0])


def test_from_scratch_only_adapts() -> None:
    model = small(Scratch)
    before = {name: value.clone() for name, value in model.parameters.items()}
    model.learn(3)
    assert same(before, model.parameters)
    assert (model.num_timesteps, model.best is not None) == (0, True)
    np.testing.assert_array_equal(model.evaluate(n_tasks=3).returns, small(MAML).evaluate(n_tasks=3).returns)


def test_joint_training_is_stable_baselines3s_and_leaves_its_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = small(Pretrained).learn(1)
    assert torch.equal(torch.rand(3), expected)
    assert model.num_timesteps == 3 * 4 * 2 * 8 == 192
    assert float(model.extra["adam_steps"]) == 3 * 10 * 4  # rollouts, epochs, minibatches
    assert all(torch.isfinite(value).all() for value in model.parameters.values())
    with pytest.raises(ValueError, match=r"outer.environments is 8, which outer.minibatches = 3 does not divide"):
        small(Pretrained, outer={"minibatches": 3})


def test_the_short_way_fits_evaluates_and_is_saved(tmp_path: Path) -> None:
    tasks = metarl.sample_tasks(NAVIGATION, 2, seed=3)
    model = metarl.MetaLearner(None, NAVIGATION, learner="reptile", **SMALL)
    assert model.fit(tasks, epochs=2) is model
    assert (model.learner.iteration, type(model.learner)) == (2, Reptile)
    assert model.learner.num_timesteps == 2 * 2 * 4 * 8
    evaluation = model.evaluate(tasks)
    assert (evaluation.split, evaluation.returns.shape) == ("given", (3, 2))
    model.save(tmp_path / "short")
    loaded = metarl.MetaLearner.load(tmp_path / "short")
    np.testing.assert_array_equal(loaded.evaluate(tasks).returns, evaluation.returns)
    ppo = model.learner.to_sb3(PPO, tasks[0], n_steps=8, batch_size=8)
    onward = metarl.MetaLearner(ppo, NAVIGATION, learner="fomaml", family_kwargs={"max_episode_steps": 8})
    assert torch.equal(onward.learner.parameters["action_net.weight"], ppo.policy.action_net.weight)
    with pytest.raises(ValueError, match="has shape"):
        model.fit([[0.1]])
    with pytest.raises(ValueError, match="the nearest is 'maml'"):
        metarl.MetaLearner(None, NAVIGATION, learner="mam")


class Tags(KVWriter):
    def __init__(self) -> None:
        self.tags: set[str] = set()

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.tags |= set(key_values)

    def close(self) -> None:
        pass


def test_what_only_some_learners_log_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/tensorboard.md").read_text()
    documented = set(re.findall(r"^\| ([a-z-]+) \| `([a-z_/]+)`", page, flags=re.MULTILINE))
    logged = {}
    for name in LEARNERS:
        model = small(find_learner(name))
        writer = Tags()
        model.set_logger(Logger(None, [writer]))
        model.learn(1)
        logged[name] = writer.tags
    assert {(name, tag) for name, tags in logged.items() for tag in tags - logged["maml"]} == documented


def test_the_test_tasks_of_a_seed_are_the_same_for_all_learners() -> None:
    tasks = {}
    for name in LEARNERS:
        model = small(find_learner(name))
        tasks[name] = np.stack(model.evaluate_rollouts("test", n_tasks=3)[1])
        model.close()
    for name, drawn in tasks.items():
        np.testing.assert_array_equal(drawn, metarl.sample_tasks(NAVIGATION, 3, seed=1, split="test"), err_msg=name)


def test_the_number_of_torchs_threads_changes_no_bit() -> None:
    """More than 10,000 parameters: torch adds up long vectors in as many parts as it has threads."""
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            model = small(MAML, policy_kwargs={"hidden_sizes": (128, 128)}).learn(1)
            assert torch.get_num_threads() == threads
            found.append((model.parameters, model.evaluate(n_tasks=2).returns))
    finally:
        torch.set_num_threads(before)
    assert same(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


class Still(BaseLearner):
    """Stays where it is."""

    def _meta_iteration(self, iteration: int) -> Outcome:
        return Outcome(self.parameters, [self._collect(self.parameters, self._training_tasks(iteration), iteration, 0)])


def test_a_class_of_ones_own_is_a_learner_by_its_module(tmp_path: Path) -> None:
    model = small(Still).learn(1)
    assert model.name == f"{__name__}:Still"
    model.save(tmp_path / "model")
    assert same(Still.load(tmp_path / "model").parameters, model.parameters)


@pytest.mark.parametrize(
    ("name", "inner", "outer", "iterations"),
    [
        ("maml", {"step_size": 0.3, "objective": "dice"}, {"max_kl": 0.03, "max_kl_before": 0.03}, 12),
        ("fomaml", {"step_size": 0.3}, {}, 12),
        ("promp", {"step_size": 0.3}, {"learning_rate": 0.03}, 12),
        ("e-maml", {"step_size": 0.3}, {"update": "vpg", "learning_rate": 0.1}, 12),
        ("reptile", {"step_size": 0.3, "steps": 3}, {}, 40),
        ("meta-sgd", {"step_size": 0.1}, {"update": "vpg", "learning_rate": 0.1}, 30),
        ("anil", {"step_size": 0.3}, {"update": "vpg", "learning_rate": 0.1}, 12),
        ("cavia", {"step_size": 1.0}, {"update": "vpg", "learning_rate": 0.1}, 12),
        ("multi-task", {"step_size": 0.1}, {"learning_rate": 0.03}, 12),
    ],
)
def test_each_learns_to_adapt(name: str, inner: dict[str, Any], outer: dict[str, Any], iterations: int) -> None:
    """Probe (f): the reward's sign is the hidden task, so 0 is the best before adaptation and 1 after it."""
    model = find_learner(name)(
        "MlpPolicy",
        "probes:probe/HiddenSign-v0",
        learning={"tasks": 20, "episodes": 20, "gae_lambda": 1.0},
        inner=inner,
        outer=outer,
        evaluation={"every": 1000, "tasks": 20, "steps": inner.get("steps", 1)},
        policy_kwargs={"hidden_sizes": (16,)},
    )
    untrained = model.evaluate(n_tasks=40)
    trained = model.learn(iterations).evaluate(n_tasks=40)
    assert untrained.mean(-1) < 0.9
    assert abs(trained.mean(0)) < 0.3
    assert trained.mean(-1) > 0.9
