"""Whether adaptation helps: what is concluded from validations, and that a learner says it once."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small import small

from metarl.training.adaptation_check import LEAST_TASKS, VALIDATIONS, judge

RNG = np.random.default_rng(3)
TASKS = 20
EFFORT = RNG.normal(size=TASKS)  # how hard each task is


def returns(*means: float, noise: float = 0.5) -> NDArray[np.float64]:
    """Return a validation with these means after 0, 1, ... steps."""
    return np.array(means)[:, None] + EFFORT + noise * RNG.normal(size=(len(means), TASKS))


START = -20.0 + RNG.normal(size=TASKS)


def test_adaptation_that_helps_is_not_spoken_of() -> None:
    assert judge(START, [returns(-19.0, -10.0, -9.0) for _ in range(5)]) is None
    assert judge(START, [returns(-5.0, -6.0, -4.0) for _ in range(5)]) is None, "the second step helps"
    assert judge(START, [returns(-19.0 + k, -18.0 + k, -17.0 + k) for k in range(5)]) is None


def test_a_policy_that_needs_no_adaptation() -> None:
    same_return = [returns(-2.0, -2.0, -2.0) for _ in range(VALIDATIONS)]
    assert judge(START, same_return) == "no need"
    assert judge(START, [returns(-19.0, -10.0, -9.0), *same_return]) == "no need", "only the last ones count"
    assert judge(START, [*same_return, returns(-2.0, 3.0, 4.0)]) is None, "it needs several that agree"
    assert judge(START, [returns(-2.0, -2.0, noise=20.0) for _ in range(5)]) is None, "too noisy to tell"


def test_nothing_that_changes_anything() -> None:
    assert judge(np.ones(TASKS), [np.ones((3, TASKS))] * VALIDATIONS) == "no change"
    first = returns(-20.0, -20.0, -20.0)
    nearly = [np.concatenate([first[:1] + 0.01 * RNG.normal(size=TASKS), returns(-20.0, -20.0)]) for _ in range(4)]
    assert judge(START, [first, *nearly]) == "no change"
    changed = [returns(-20.0, -20.0, -20.0) for _ in range(4)]
    assert judge(START, [first, *changed]) is None, "the policy changed, but not for the better yet"


def test_adaptation_that_harms() -> None:
    assert judge(START, [returns(-20.0, -25.0, -26.0) for _ in range(VALIDATIONS)]) == "harm"
    assert judge(START, [returns(-2.0, -2.5, -3.0) for _ in range(VALIDATIONS)]) == "no need", "training gained more"


def test_little_is_not_enough() -> None:
    assert judge(START, [returns(-2.0, -2.0)] * (VALIDATIONS - 1)) is None
    few = slice(0, LEAST_TASKS - 1)
    assert judge(START[few], [returns(-2.0, -2.0)] * 3) is None
    assert judge(START, [returns(-2.0, -2.0)[:, few]] * 3) is None


def learner(probe: str, name: str = "maml", **learning: Any) -> Any:
    return small(
        name,
        family=f"probes:probe/{probe}-v0",
        learning={"tasks": 6, "episodes": 6, **learning},
        inner={"step_size": 0.3},
        evaluation={"tasks": 6, "episodes": 10, "steps": 1},
    )


def said(model: Any, iterations: int) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.learn(iterations=iterations)
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


def test_a_constant_reward_is_spoken_of_once() -> None:
    (sentence,) = said(learner("Constant"), 6)
    assert sentence.startswith("iteration 3: the meta-gradient has been exactly 0 for 3 iterations")


def test_rewards_that_the_policy_does_not_change_are_spoken_of_without_the_gradient() -> None:
    model = learner("Constant")
    model.standstill.sentence = lambda *_: None  # type: ignore[method-assign]
    (sentence,) = said(model, 6)
    assert sentence.startswith("after iteration 3: neither training nor adaptation has changed the return")
    assert "outer.max_kl" in sentence
    assert "1.00 before and 1.00 after" in sentence


@pytest.mark.parametrize("name", ["scratch", "random", "task-aware"])
def test_baselines_that_do_not_learn_to_adapt_are_not_checked(name: str) -> None:
    assert said(learner("Constant", name), 4) == []


def test_the_check_can_be_switched_off() -> None:
    assert said(learner("Constant", check=False), 4) == []


def test_a_family_that_needs_no_adaptation_is_spoken_of() -> None:
    model = small(
        family="probes:probe/Acted-v0",
        learning={"tasks": 6, "episodes": 20},
        inner={"step_size": 0.5},
        outer={"max_kl": 0.3, "max_kl_before": 0.3},
        evaluation={"tasks": 6, "episodes": 10, "steps": 1},
    )
    (sentence,) = (sentence for sentence in said(model, 16) if "adaptation" in sentence)
    assert "adaptation adds nothing" in sentence
    assert "learner=pretrained" in sentence


def test_a_family_that_needs_adaptation_is_not_spoken_of() -> None:
    model = learner("HiddenSign")
    assert said(model, 8) == []
