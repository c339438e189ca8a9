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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.envs import make, make_vec
from metarl.envs import tasks as task_tools
from metarl.experiments.configuration import parse_override, read_configuration
from metarl.settings import Settings
from metarl.statistics import bootstrap_interval


def answers(settings: Settings, steps: int) -> dict[str, list[NDArray[np.float64]]]:
    """Return the right answers of an episode for each test task, ``[task]``, after 1, 2, ... steps, by rival."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    rivals = {
        "nearest neighbour": lambda: KNeighborsClassifier(n_neighbors=1),
        "logistic regression": lambda: LogisticRegression(max_iter=300),
    }
    evaluation = settings.evaluation
    env = make(settings.family, **settings.family_kwargs)
    rng = task_tools.task_rng(int(evaluation.seed), "test")
    batch = task_tools.draw_tasks(env, evaluation.test_tasks, rng, "test")
    found: dict[str, list[NDArray[np.float64]]] = {}
    for step in range(1, steps + 1):
        shown = _questions(settings, batch, evaluation.episodes * step, seed=step)
        asked = _questions(settings, batch, evaluation.episodes, seed=1000)
        for name, make_rival in rivals.items():
            right = []
            for task in range(evaluation.test_tasks):
                fitted = make_rival().fit(*_flat(shown, task))
                inputs, labels = _flat(asked, task)
                right.append((fitted.predict(inputs) == labels).mean() * asked[1].shape[2])
            found.setdefault(name, []).append(np.array(right))
    return found


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
        for step, right in enumerate(points, 1):
            low, high = bootstrap_interval(right[None])
            episodes = step * settings.evaluation.episodes
            print(f"{name}, labels of {episodes} episodes: {right.mean():.2f} [{low:.2f}, {high:.2f}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
