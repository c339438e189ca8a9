"""Results as JSON: the schema that is written, and the reading of it and of the older one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.results.aggregates import TasksOfSeeds, mean_interval, statistics_at, tasks_of
from metarl.results.kept import DETERMINISTIC, STEPS, EvaluatedRun, Kept
from metarl.statistics import LEVEL

SCHEMA = "metarl-results-2"
OLDER = "metarl-results-1"
_WIDTH = 110  # of a list in the file that stays on one line
_UNITS = {
    "return": "sum of an episode's rewards, undiscounted",
    "length": "environment steps of an episode",
    "success": "1 for an episode with success, else 0",
}


def unit_of(metric: str) -> str:
    """Return what a metric counts."""
    plain = metric.removesuffix(DETERMINISTIC)
    unit = _UNITS.get(plain, f"mean over an episode of {plain!r} in info")
    return unit if plain == metric else f"{unit}, with the policy's most likely actions"


def statistic_of(kept: Kept) -> str:
    """Return in words what ``mean``, ``low`` and ``high`` are of."""
    policy = "deterministic" if kept.metric.endswith(DETERMINISTIC) else "stochastic"
    over = "tasks of one seed" if len(kept.runs) == 1 else "seeds and tasks"
    drawn = sorted({run.evaluation_seed for run in kept.runs})
    seeds = f"seed {drawn[0]}" if len(drawn) == 1 else f"seeds {', '.join(map(str, drawn))}"
    return (
        f"mean undiscounted return of the {policy} policy; interval by bootstrap over {over}; tasks and episodes drawn "
        f"with {seeds}"
    )


def summary(means: NDArray[np.float64], tasks: TasksOfSeeds = "own") -> dict[str, Any]:
    """Return mean, interval and the tasks' values of a metric at one point.

    Args:
        means: ``[seed, task]``.
        tasks: which tasks the seeds have.
    """
    low, high = mean_interval(means, tasks)
    values = means.reshape(-1)
    return {"mean": float(values.mean()), "low": low, "high": high, "per_task": [float(value) for value in values]}


def entries_of(kept: Kept) -> list[dict[str, Any]]:
    """Return the summary of each point: of the score, and of each other metric that was measured there by name."""
    tasks = tasks_of(kept)
    means = {name: kept.means(name) for name in kept.metrics}
    entries = []
    for number, point in enumerate(kept.points):
        here = {name: values[:, :, number] for name, values in means.items()}
        main = summary(here.pop(kept.metric), tasks)
        per_task = main.pop("per_task")
        counts = {"tasks": len(per_task), "episodes": kept.episodes, "per_task": per_task}
        others = {name: summary(values, tasks) for name, values in here.items() if not np.isnan(values).any()}
        entries.append({"step": point, **main, **counts, **others})
    return entries


def document_of(kept: Kept) -> dict[str, Any]:
    """Return what ``results.json`` holds, without ``settings`` if they are not known."""
    oracle = kept.oracle
    steps_before = kept.steps_before
    return {
        "schema": SCHEMA,
        "family": kept.family,
        "learner": kept.learner,
        "split": kept.split,
        "protocol": kept.protocol,
        "metric": kept.metric,
        "statistic": statistic_of(kept),
        "level": LEVEL,
        "seeds": list(kept.seeds),
        "iteration": kept.iteration,
        "counted": kept.counted,
        "timesteps": kept.timesteps,
        "trained": None if kept.trained is None else list(kept.trained),
        "oracle": None if oracle is None else float(oracle.mean()),
        "adaptation": [
            {**entry, "statistics": statistics_at(kept, number)} for number, entry in enumerate(entries_of(kept))
        ],
        "regions": None if kept.regions is None else list(kept.regions),
        "units": {name: unit_of(name) for name in kept.metrics},
        "versions": dict(kept.versions),
        "runs": [
            {
                "seed": run.seed,
                "evaluation_seed": run.evaluation_seed,
                "iteration": run.iteration,
                "timesteps": run.timesteps,
                "tasks": None if run.tasks is None else list(run.tasks),
                "oracle": None if run.oracle is None else run.oracle.tolist(),
            }
            for run in kept.runs
        ],
        "episodes_before": kept.episodes_before.tolist(),
        "steps_before": None if steps_before is None else steps_before.tolist(),
        "episodes": {name: _shortest(values) for name, values in kept.metrics.items()},
        **({} if kept.settings is None else {"settings": dict(kept.settings)}),
    }


def _shortest(values: NDArray[np.float32]) -> Any:
    """Return nested lists of numbers with as few digits as single precision needs, None for NaN."""
    if values.ndim > 1:
        return [_shortest(part) for part in values]
    return [None if np.isnan(value) else float(str(value)) for value in values]


def text_of(document: Mapping[str, Any], indent: str = "") -> str:
    """Return a document as JSON, in which short lists, and lists of plain values, take one line each."""
    return _text(document, indent) + "\n"


def _text(value: Any, indent: str) -> str:
    deeper = indent + " "
    if isinstance(value, Mapping):
        inner = [f"{deeper}{json.dumps(str(key))}: {_text(part, deeper)}" for key, part in value.items()]
        return "{\n" + ",\n".join(inner) + f"\n{indent}}}" if inner else "{}"
    whole = json.dumps(value, allow_nan=False)
    nested = isinstance(value, Sequence) and any(isinstance(part, Mapping | list | tuple) for part in value)
    if not nested or (len(whole) <= _WIDTH and "{" not in whole):
        return whole
    return "[\n" + ",\n".join(deeper + _text(part, deeper) for part in value) + f"\n{indent}]"


def fields_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``Kept`` that a document holds.

    Raises:
        ValueError: the document is damaged, or of a version that is not known; the message is the end of a sentence.
    """
    schema = document.get("schema")
    if schema not in (SCHEMA, OLDER):
        raise ValueError(f"holds no results that this version reads: its schema is {schema!r}, expected {SCHEMA!r}")
    try:
        found = _newer(document) if schema == SCHEMA else _older(document)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"is damaged: {_reason(error)}") from error
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]!r}"
    return f"its numbers are not as expected ({error})"


def _array(values: Any, shape: tuple[int | None, ...], name: str) -> NDArray[np.float64]:
    """Return numbers as an array; None in place of a number is NaN, and None in a shape is any length."""
    array = np.array(values, dtype=np.float64)
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits or np.isinf(array).any():
        raise ValueError(f"{name} has the shape {array.shape}")
    return array


def _whole(value: Any, name: str) -> int:
    if type(value) is not int:
        raise ValueError(f"{name} is {value!r}")
    return value


def _newer(document: Mapping[str, Any]) -> dict[str, Any]:
    points = tuple(_whole(entry["step"], "adaptation.step") for entry in document["adaptation"])
    runs = tuple(_run(run) for run in document["runs"])
    main = document["episodes"][document["metric"]]
    shape = (len(runs), len(main[0]), len(points))
    lengths = {run.tasks if run.tasks is None else len(run.tasks) for run in runs} - {None}
    oracles = {None if run.oracle is None else len(run.oracle) for run in runs} - {None}
    if not points or not runs or min(shape) < 1 or not (lengths | oracles) <= {shape[1]}:
        raise ValueError(f"there are {shape[1]} tasks of {len(runs)} seeds")
    episodes = {
        str(name): _array(values, (*shape, None), f"episodes.{name}").astype(np.float32)
        for name, values in document["episodes"].items()
    }
    if len({values.shape for values in episodes.values()}) > 1:
        raise ValueError("the metrics have different numbers of episodes")
    if np.isnan(episodes[document["metric"]]).all(axis=3).any():
        raise ValueError(f"a task has no {document['metric']}")
    steps_before, regions, trained = document["steps_before"], document["regions"], document["trained"]
    if regions is not None and len(regions) != shape[1]:
        raise ValueError(f"there are {len(regions)} regions of {shape[1]} tasks")
    return {
        **{name: str(document[name]) for name in ("family", "learner", "split", "protocol", "metric", "counted")},
        "runs": runs,
        "episodes": _whole(document["adaptation"][0]["episodes"], "adaptation.episodes"),
        "points": points,
        "metrics": episodes,
        "episodes_before": _array(document["episodes_before"], shape, "episodes_before"),
        "steps_before": None if steps_before is None else _array(steps_before, shape, "steps_before"),
        "trained": None if trained is None else (_whole(trained[0], "trained"), _whole(trained[1], "trained")),
        "regions": None if regions is None else tuple(map(str, regions)),
        "versions": {str(name): str(version) for name, version in document["versions"].items()},
        "settings": document.get("settings"),
    }


def _run(run: Mapping[str, Any]) -> EvaluatedRun:
    timesteps, tasks, oracle = run["timesteps"], run["tasks"], run["oracle"]
    return EvaluatedRun(
        seed=_whole(run["seed"], "runs.seed"),
        evaluation_seed=_whole(run["evaluation_seed"], "runs.evaluation_seed"),
        iteration=_whole(run["iteration"], "runs.iteration"),
        timesteps=None if timesteps is None else _whole(timesteps, "runs.timesteps"),
        tasks=None if tasks is None else tuple(tasks),
        oracle=None if oracle is None else _array(oracle, (None,), "runs.oracle"),
    )


def _older(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that schema 1 tells, where the means over episodes are all that is known of them."""
    entries, (seed,) = document["adaptation"], document["seeds"]
    names = [name for name, value in entries[0].items() if isinstance(value, Mapping)]
    columns = {"return": [entry["per_task"] for entry in entries]}
    columns |= {name: [entry[name]["per_task"] for entry in entries] for name in names}
    tasks, points = len(entries[0]["per_task"]), tuple(_whole(entry["step"], "step") for entry in entries)
    shape = (len(points), tasks)
    metrics = {name: _array(values, shape, name).T[None, :, :, None] for name, values in columns.items()}
    if tasks < 1 or any(np.isnan(values).any() for values in metrics.values()):
        raise ValueError("numbers are missing")
    episodes = _whole(entries[0]["episodes"], "adaptation.episodes")
    counted = str(document.get("counted", STEPS))
    experience = np.array(points, dtype=np.float64) * (episodes if counted == STEPS else 1)
    oracle, timesteps = document["oracle"], document.get("timesteps")
    drawn = str(document["statistic"]).rpartition("seed ")[2]
    run = EvaluatedRun(
        seed=_whole(seed, "seeds"),
        evaluation_seed=int(drawn) if drawn.isdecimal() else seed,
        iteration=_whole(document["iteration"], "iteration"),
        timesteps=None if timesteps is None else _whole(timesteps, "timesteps"),
        # Only their mean is known, which is the mean of tasks that all have it.
        oracle=None if oracle is None else np.full(tasks, float(oracle)),
    )
    return {
        **{name: str(document[name]) for name in ("family", "learner", "split")},
        "protocol": "steps",
        "runs": (run,),
        "episodes": episodes,
        "counted": counted,
        "points": points,
        "metrics": {name: values.astype(np.float32) for name, values in metrics.items()},
        "episodes_before": np.broadcast_to(experience, (1, tasks, len(points))).copy(),
        "steps_before": None,
        "settings": document.get("settings"),
    }
