"""Tasks dealt to two shares give the bits of an undivided iteration, for every learner that trains."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from shares import in_shares
from small import NAVIGATION, same, small

from metarl.gradients import task_axis
from metarl.learners.registry import LEARNERS, find_learner
from metarl.state import Outcome, State, advance

SHARES = 2


@pytest.fixture(autouse=True)
def one_thread_each() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def two_iterations(model: Any, turn: Any = None) -> list[tuple[State, Outcome]]:
    """Return the states after two iterations, each with what it came from."""
    found = []
    state = model.state
    settings = model.settings
    for iteration in (1, 2):
        with turn or contextlib.nullcontext():
            outcome = model.meta_iteration(state, iteration)
        state = advance(outcome, gamma=settings.learning.gamma, log_std_min=settings.policy.log_std_min)
        found.append((state, outcome))
    return found


def assert_same(whole: tuple[State, Outcome], share: tuple[State, Outcome]) -> None:
    (state, outcome), (other, of_share) = whole, share
    for part, tensors in state.tensors().items():
        assert same(tensors, other.tensors()[part]), part
    counts = ("iteration", "num_timesteps", "line_search_failures")
    assert [getattr(state, name) for name in counts] == [getattr(other, name) for name in counts]
    assert outcome.metrics == of_share.metrics


FAMILIES: dict[str, dict[str, Any]] = {
    "navigation": {"family": NAVIGATION, "family_kwargs": {"max_episode_steps": 15}},
    "bandit": {"family": "metarl/BernoulliBandit-v0", "family_kwargs": {"arms": 4, "pulls": 6}},
    "lengths differ": {"family": "toy_families:toy/LengthsDiffer-v0"},
}
BY_UPDATE = ("maml", "fomaml", "e-maml", "meta-sgd", "anil", "cavia")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"outer": {"update": update}}) for name, update in itertools.product(BY_UPDATE, ("trpo", "ppo"))),
    *((name, {"outer": {"path": "general"}}) for name in (*BY_UPDATE, "promp")),
    ("maml", {"outer": {"update": "ppo", "path": "general"}}),
    ("maml", {"outer": {"update": "vpg"}, "learning": {"normalize_observations": True, "normalize_rewards": True}}),
    ("maml", {"inner": {"steps": 2, "objective": "dice"}, "outer": {"fisher_fraction": 0.5}}),
    ("meta-sgd", {"inner": {"steps": 2}, "outer": {"step_sizes": "layer", "per_step": True}}),
    ("promp", {"outer": {"adaptive": True}, "inner": {"steps": 2}}),
    ("reptile", {"inner": {"steps": 2}, "learning": {"normalize_observations": True}}),
    ("reptile", {"outer": {"optimizer": "adam", "learning_rate": 1e-3}}),
    ("multi-task", {"outer": {"components": 5, "epochs": 2}}),
    ("task-aware", {"outer": {"epochs": 2}, "learning": {"normalize_observations": True}}),
    ("rl2", {"outer": {"trials": 7, "minibatch_trials": 3}, "learning": {"trial_episodes": 3}}),
    ("rl2", {"outer": {"trials": 6, "critic": "plain", "chunk": 4}, "learning": {"normalize_rewards": True}}),
    ("pretrained", {"outer": {"environments": 4, "minibatches": 2, "epochs": 2}}),
]


def learner(name: str, family: str, settings: dict[str, Any]) -> Any:
    learning = {"tasks": 5, "episodes": 4, **settings.get("learning", {})}
    return small(name, **{**FAMILIES[family], **settings, "learning": learning, "seed": 3, "device": "cpu"})


def test_every_learner_that_trains_is_among_the_variants() -> None:
    assert {name for name, _ in VARIANTS} == {name for name in LEARNERS if find_learner(name).trains}


@pytest.mark.parametrize("family", ["navigation", "bandit"])
@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=[f"{name} {settings}" for name, settings in VARIANTS])
def test_two_shares_give_the_bits_of_one(name: str, settings: dict[str, Any], family: str) -> None:
    whole = two_iterations(learner(name, family, settings))
    models = [learner(name, family, settings) for _ in range(SHARES)]
    # stable-baselines3 seeds the global generators, which threads share and processes do not.
    turn = threading.Lock() if name == "pretrained" else None
    shares = in_shares(lambda index: two_iterations(models[index], turn))
    for share in shares:
        for one, other in zip(whole, share, strict=True):
            assert_same(one, other)


@pytest.mark.parametrize(
    ("name", "settings"), [("maml", {}), ("reptile", {}), ("task-aware", {}), ("rl2", {"outer": {"trials": 5}})]
)
def test_episodes_of_different_lengths_in_the_shares_change_no_bit(name: str, settings: dict[str, Any]) -> None:
    whole = two_iterations(learner(name, "lengths differ", settings))
    models = [learner(name, "lengths differ", settings) for _ in range(SHARES)]
    for share in in_shares(lambda index: two_iterations(models[index])):
        for one, other in zip(whole, share, strict=True):
            assert_same(one, other)
        played = [part.n_tasks for _, outcome in share for part in outcome.rollouts]
        assert set(played) <= {2, 3}


def test_the_tasks_are_dealt_whole_in_groups() -> None:
    assert in_shares(lambda index: list(task_axis.own_tasks(5))) == [[0, 1], [2, 3, 4]]
    assert in_shares(lambda index: list(task_axis.own_tasks(8))) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_too_few_tasks_for_the_shares_are_refused_in_a_sentence() -> None:
    model = small(learning={"tasks": 2})
    with (
        task_axis.dealt_to(task_axis.Share(index=0, count=2, gather=lambda own, rows: [own])),
        pytest.raises(
            ValueError,
            match=r"^2 tasks cannot be dealt to 2 shares in groups of 2; use fewer shares or at least 3 tasks$",
        ),
    ):
        model.meta_iteration(model.state, 1)
