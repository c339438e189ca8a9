"""What a nearest neighbour and a logistic regression recognise with the labels that adaptation had to find out.

``python -m metarl.experiments.benchmarks.recognition digits [SETTING=VALUE ...]``

On the test tasks of a configuration of ``metarl/Labelled-v0``, as many episodes as adaptation plays are shown with the
right labels, which say more than the rewards that a learner gets; then ``evaluation.episodes`` others are answered.
scikit-learn is needed (the extra ``[data]``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl.envs import make, make_vec
from metarl.envs import tasks as task_tools
from metarl.experiments.configuration import parse_override, read_configuration
from metarl.settings import Settings
from metarl.statistics import bootstrap_interval


class Answers(NamedTuple):
    """Right answers of an episode, expected of a rival, for each test task.

    Attributes:
        all: to the questions as they come, ``[task]``.
        new: if no row were asked that was shown before, ``[task]``; NaN for a task with such rows only.
        seen: the share of the questions whose row was shown before, ``[task]``.
    """

    all: NDArray[np.float64]
    new: NDArray[np.float64]
    seen: NDArray[np.float64]


def answers(settings: Settings, steps: int) -> dict[str, list[Answers]]:
    """Return each rival's answers after the labels of 1, 2, ... adaptation steps."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    rivals = {
        "nearest neighbour": lambda: KNeighborsClassifier(n_neighbors=1),
        "logistic regression": lambda: LogisticRegression(max_iter=300),
    }
    evaluation = settings.evaluation
    env = make(settings.family, **settings.family_kwargs)
    rng = task_tools.task_rng(settings.seed if evaluation.seed == "run" else evaluation.seed, "test")
    batch = task_tools.draw_tasks(env, evaluation.test_tasks, rng, "test")
    found: dict[str, list[Answers]] = {name: [] for name in rivals}
    for step in range(1, steps + 1):
        shown = _questions(settings, batch, evaluation.episodes * step, seed=step)
        asked = _questions(settings, batch, evaluation.episodes, seed=1000)
        for name, make_rival in rivals.items():
            shares = [
                _recognised(make_rival(), _flat(shown, task), _flat(asked, task)) for task in range(len(asked[1]))
            ]
            right, new, seen = np.array(shares).T
            found[name].append(Answers(right * asked[1].shape[2], new * asked[1].shape[2], seen))
    return found


def _recognised(
    rival: Any, shown: tuple[NDArray[Any], NDArray[Any]], asked: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[float, float, float]:
    """Return the share of right answers, that to rows that were not shown, and the share of rows that were."""
    right = rival.fit(*shown).predict(asked[0]) == asked[1]
    known = {row.tobytes() for row in shown[0]}
    seen = np.array([row.tobytes() in known for row in asked[0]])
    return float(right.mean()), float(right[~seen].mean()) if not seen.all() else np.nan, float(seen.mean())


def _questions(settings: Settings, batch: Any, episodes: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return inputs ``[task, episode, question, feature]`` and labels ``[task, episode, question]``."""
    count = task_tools.count_tasks(batch)
    env = make_vec(settings.family, count * episodes, **settings.family_kwargs)
    env.reset(seed=seed, options={"tasks": task_tools.repeat_tasks(batch, episodes)})
    inputs, labels = env.unwrapped.questions()  # type: ignore[attr-defined]
    return inputs.reshape(count, episodes, *inputs.shape[1:]), labels.reshape(count, episodes, -1)


def _flat(questions: tuple[NDArray[Any], NDArray[Any]], task: int) -> tuple[NDArray[Any], NDArray[Any]]:
    inputs, labels = questions[0][task], questions[1][task]
    return inputs.reshape(-1, inputs.shape[-1]), labels.reshape(-1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the rivals' right answers an episode, with intervals over tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    _, settings = read_configuration(options.config, [parse_override(text) for text in options.overrides])
    for name, points in answers(settings, settings.evaluation.steps).items():
        for step, point in enumerate(points, 1):
            low, high = bootstrap_interval(point.all[None])
            new_low, new_high = bootstrap_interval(point.new[~np.isnan(point.new)][None])
            print(
                f"{name}, labels of {step * settings.evaluation.episodes} episodes: {point.all.mean():.2f} "
                f"[{low:.2f}, {high:.2f}]; on rows not shown before {np.nanmean(point.new):.2f} [{new_low:.2f}, "
                f"{new_high:.2f}] ({point.seen.mean():.0%} were)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
