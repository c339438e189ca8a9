"""What of ``[augment]`` cannot be done for a family, said in a sentence before training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.augmenting.episodes import height_and_width, is_picture
from metarl.augmenting.settings import Augmenting
from metarl.augmenting.tasks import is_real
from metarl.envs import tasks as task_tools

TASKS = ("mix", "perturb", "mirror")
MEANING = ("remap_actions", "scale_rewards", "flip_rewards")


def refuse_unfit(augment: Augmenting, env: gymnasium.Env[Any, Any], train_tasks: int) -> None:
    """Check that a family has what is to be augmented.

    Args:
        augment: the settings.
        env: an environment of the family.
        train_tasks: how many tasks there are in training; 0 for as many as are drawn.

    Raises:
        ValueError: it has not; the message names the setting.
    """
    name = task_tools.family_name(env)
    _refuse_tasks(augment, env, name, train_tasks)
    seen = list(parts(env.observation_space))
    if augment.observation_noise and not any(map(is_real, seen)):
        raise ValueError(
            f"augment.observation_noise is {augment.observation_noise}, but observations of {name} have no real "
            f"numbers ({env.observation_space}); leave it out"
        )
    if augment.random_shift:
        pictures = [part for part in seen if is_picture(part)]
        least = min((min(height_and_width(part)) for part in pictures), default=0)
        if augment.random_shift >= max(least, 1):
            expected = f"fewer pixels than {least}, the side of an image" if pictures else "images of three axes"
            raise ValueError(
                f"augment.random_shift is {augment.random_shift}, which needs {expected}, and observations of {name} "
                f"are {env.observation_space}; {'set it lower' if pictures else 'leave it out'}"
            )
    if augment.remap_actions and not _can_be_remapped(env.action_space):
        raise ValueError(
            f"augment.remap_actions is {augment.remap_actions}, which needs choices (Discrete, MultiDiscrete) or a box "
            f"of real numbers that is symmetric about 0, and actions of {name} are {env.action_space}; leave it out"
        )


def _refuse_tasks(augment: Augmenting, env: gymnasium.Env[Any, Any], name: str, train_tasks: int) -> None:
    space = task_tools.task_space(env)
    every = list(parts(space))
    real = [part for part in every if is_real(part)]
    if augment.mix and not real and len(every) < 2:
        raise ValueError(
            f"augment.mix is {augment.mix}, but a task of {name} is a single choice ({space}), and there is nothing "
            "between two of them; leave it out"
        )
    if augment.mix and train_tasks == 1:
        raise ValueError(
            f"augment.mix is {augment.mix}, but learning.train_tasks = 1 leaves no other task to mix with; "
            "set learning.train_tasks to 2 or more, or leave augment.mix out"
        )
    if augment.perturb and not real:
        raise ValueError(
            f"augment.perturb is {augment.perturb}, but tasks of {name} have no real numbers ({space}); leave it out"
        )
    if augment.perturb and not all(np.isfinite([part.low, part.high]).all() for part in real):
        raise ValueError(
            f"augment.perturb is {augment.perturb} widths of the range, but the task space of {name} has numbers "
            f"without ends ({space}); give it finite ends, or leave augment.perturb out"
        )
    if augment.mirror and not callable(task_tools.attribute(env, "mirror_tasks")):
        raise ValueError(
            f"augment.mirror is {augment.mirror}, but {name} declares no symmetry; give the family the method "
            "mirror_tasks(tasks, rng) if it has one, or leave augment.mirror out"
        )


def refuse_settings(augment: Augmenting, names: tuple[str, ...], reason: str) -> None:
    """Refuse settings of ``[augment]`` that are on, for learners that cannot do what they say.

    Raises:
        ValueError: one is on.
    """
    for name in names:
        if value := getattr(augment, name):
            raise ValueError(f"augment.{name} is {value}, but {reason}; leave it out")


def parts(space: spaces.Space[Any]) -> Iterator[spaces.Space[Any]]:
    """Yield the spaces of which a space is made."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for part in space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces:
            yield from parts(part)
    else:
        yield space


def _can_be_remapped(space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.Box):
        return is_real(space) and bool((space.low == -space.high).all())
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
