"""From a learner and a task to a replay."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from metarl.agent import MetaAgent, learner_of
from metarl.envs import tasks as task_tools
from metarl.envs.sync import close_or_warn
from metarl.envs.tasks import whole_number
from metarl.evaluation import points
from metarl.figures import step_name
from metarl.protocols.evaluate import evaluation_seed
from metarl.replay.files import refuse_file
from metarl.replay.playing import Player
from metarl.replay.recording import Episode, drawn_env, picture_of, refuse_undrawn
from metarl.replay.replay import Replay

FRAMES = 128  # pictures of an episode, by default at most
PANELS = 8  # points of adaptation that are shown at most
FASTEST = 50.0
USUAL_FPS = 20.0


def show(
    model: Any,
    task: Any = None,
    path: str | Path | None = None,
    *,
    steps: int | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    max_steps: int | None = None,
    frames: int = FRAMES,
    fps: float | None = None,
) -> Replay:
    """Play an episode of a task before and after each adaptation step, and return the moving pictures side by side.

    All episodes start from the same seed, so that they differ by adaptation only. For a learner with memory they are
    the episodes of one trial in order. Of more than 8 points some are left out, evenly spread. The learner does not
    change.

    Args:
        model: a learner, as ``metarl.MAML.load("runs/navigation")``.
        task: of its family, anything ``as_task`` accepts; default: the first test task.
        path: a new file to write, ``.gif`` or, with the extra ``[video]``, ``.mp4``; None for none.
        steps: adaptation steps, for a learner with memory earlier episodes; default ``evaluation.steps`` or
            ``learning.trial_episodes`` - 1.
        episodes: played for each adaptation step; default ``evaluation.episodes``.
        seed: of the episodes; default ``evaluation.seed``.
        deterministic: whether the most likely actions are taken in the episodes that are shown.
        max_steps: after which an episode is stopped; default: its own end.
        frames: pictures at most; of a longer episode only every 2nd, 4th, ... step is shown.
        fps: pictures a second, 0.1 to 50; default: the environment's ``metadata["render_fps"]``, at most 20.

    Raises:
        ValueError: the environment does not render, the file exists or cannot be written, the task is not of the
            family, or another argument is wrong; before anything is played, as far as that can be known.
        RolloutError: the environment failed.
    """
    model = learner_of(model)
    if path is not None:
        refuse_file(Path(path))
    refuse_undrawn(model.env, model.settings.family)
    standard = points(model.settings, remembers=model.remembers) - 1
    steps = standard if steps is None else whole_number("steps", steps, least=0)
    seed = evaluation_seed(model.settings) if seed is None else whole_number("seed", seed, least=0)
    max_steps = None if max_steps is None else whole_number("max_steps", max_steps)
    frames = whole_number("frames", frames, least=2)
    speed = _speed(fps, model)
    if episodes is not None:
        episodes = whole_number("episodes", episodes)
        if model.remembers:
            raise ValueError(
                f"episodes is {episodes}, but learner {model.name} adapts from episode to episode; give steps, the "
                "number of earlier episodes"
            )
    if isinstance(task, gymnasium.Env):
        raise ValueError(
            "the task is an environment, and a replay makes one of its own that renders; give a task of the family, as "
            f"in metarl.sample_tasks({model.settings.family!r}, 1, split='test')[0]"
        )
    chosen = test_task(model, 0) if task is None else task_tools.as_task(model.env, task)
    env = drawn_env(model.settings, chosen)
    try:
        player = Player(model, env, seed, deterministic=deterministic, most_frames=frames, max_steps=max_steps)
        env.reset(seed=0)
        picture_of(env, model.settings.family)  # so that one that cannot be drawn is known before anything is played
        found, labels = _played(model, player, chosen, steps, episodes, seed)
    finally:
        close_or_warn(env)
    replay = Replay(title=_title(model, chosen), episodes=tuple(found), labels=tuple(labels), fps=speed)
    if path is not None:
        replay.save(path)
    return replay


def test_task(model: MetaAgent, number: int) -> Any:
    """Return a test task of a learner, by its number among those on which ``evaluate`` and ``metarl train`` test.

    Raises:
        ValueError: there is no such number.
    """
    count = model.settings.evaluation.test_tasks
    number = whole_number("the number of the test task", number, least=0)
    if number >= count:
        raise ValueError(
            f"there is no test task {number}: there are {count} (evaluation.test_tasks), numbered from 0; a task of "
            "your own is given as JSON"
        )
    rng = task_tools.task_rng(evaluation_seed(model.settings), "test")
    batch = task_tools.draw_tasks(model.env, count, rng, "test")
    return task_tools.unstack_tasks(task_tools.task_space(model.env), batch)[number]


def _played(
    model: MetaAgent, player: Player, task: Any, steps: int, episodes: int | None, seed: int
) -> tuple[list[Episode], list[int]]:
    if model.remembers:
        actor, labels = player.actor(model.parameters), spread(steps + 1)
        # All are played, since each is remembered by those after it.
        trial = [player.play(actor, f"episode {number + 1}", number) for number in range(steps + 1)]
        return [trial[label] for label in labels], labels
    adapted = model.adaptation(task, steps=steps, episodes=episodes, seed=seed)
    labels = spread(len(adapted))
    names = [step_name(label, "adaptation steps") for label in labels]
    if not model.adapts_by_experience:
        names = ["told the task"]
    return [player.play(player.actor(adapted[at]), name) for at, name in zip(labels, names, strict=True)], labels


def spread(count: int) -> list[int]:
    """Return which of so many points are shown: all, or ``PANELS`` evenly spread, with the first and the last."""
    return [int(at) for at in np.unique(np.linspace(0, count - 1, min(count, PANELS)).round())]


def _speed(fps: Any, model: MetaAgent) -> float:
    if fps is None:
        own = (model.env.metadata or {}).get("render_fps")
        if not isinstance(own, int | float) or not 0.1 <= own < math.inf:
            return USUAL_FPS
        return min(float(own), USUAL_FPS)
    if not isinstance(fps, int | float | np.number) or isinstance(fps, bool) or not 0.1 <= float(fps) <= FASTEST:
        raise ValueError(f"fps is {fps!r}; expected the pictures a second, a number from 0.1 to {FASTEST:g}")
    return float(fps)


def _title(model: MetaAgent, task: Any) -> str:
    plain = json.dumps(_rounded(task_tools.plain(task)), ensure_ascii=False)
    return f"{model.settings.family}, task {plain}; {model.name}, iteration {model.iteration}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
