"""Tasks beyond the ranges of a family, for what is learned within them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.single import SingleFamily

ARGUMENT = "beyond_ranges"  # of ``make`` and ``make_vec``: how far, in widths of the range


def stretched(low: NDArray[Any], high: NDArray[Any], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the numbers at places along ranges: 0 is the lower end, 1 the upper one, and others are beyond them.

    Towards zero a range goes on by factors, so that what is positive (or negative) within it stays so: half a width
    beyond [5, 15] are 20 above and 5 / sqrt(3) below.

    >>> stretched(np.array(5.0), np.array(15.0), np.array([-0.5, 0.0, 0.5, 1.5])).round(3).tolist()
    [2.887, 5.0, 10.0, 20.0]
    >>> stretched(np.array(-3.0), np.array(3.0), np.array([-0.5, 1.5])).tolist()
    [-6.0, 6.0]
    """
    low, high = low.astype(np.float64), high.astype(np.float64)
    line = low + (high - low) * at
    with np.errstate(all="ignore"):  # of the rule that does not apply
        positive, negative = low * (high / low) ** at, high * (low / high) ** (1.0 - at)
    found: NDArray[np.float64] = np.where((low > 0) & (at < 0), positive, line)
    return np.where((high < 0) & (at > 1), negative, found)


def widened_space(space: spaces.Space[Any], beyond: float) -> spaces.Space[Any]:
    """Return a task space whose ranges go further at both ends; spaces of whole numbers and texts stay as they are."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: widened_space(part, beyond) for name, part in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([widened_space(part, beyond) for part in space.spaces])
    if not isinstance(space, spaces.Box) or not _is_range(space):
        return space
    low, high = (stretched(space.low, space.high, np.array(at)) for at in (-beyond, 1.0 + beyond))
    # Rounding to single precision may end inside.
    low, high = np.minimum(low.astype(space.dtype), space.low), np.maximum(high.astype(space.dtype), space.high)
    return spaces.Box(low, high, space.shape, space.dtype)


def _is_range(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and space.dtype.kind == "f" and space.is_bounded()


def _has_range(space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return any(_has_range(part) for part in parts)
    return _is_range(space)


def draw_beyond(space: spaces.Space[Any], inside: Any, beyond: float, rng: np.random.Generator) -> Any:
    """Return a batch of tasks each of whose numbers that has a range lies beyond it, below or above by a coin.

    Args:
        space: the task space, with the ranges.
        inside: a batch of tasks within them, whose other entries are taken.
        beyond: how far, in widths of the range.
        rng: the generator.

    Raises:
        ValueError: the family has no ranges.
    """
    if not _has_range(space):
        raise ValueError(f"the tasks of {space} have no ranges of numbers, beyond which others could be drawn")
    return _drawn(space, inside, beyond, rng)


def _drawn(space: spaces.Space[Any], inside: Any, beyond: float, rng: np.random.Generator) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _drawn(part, inside[name], beyond, rng) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_drawn(part, entry, beyond, rng) for part, entry in zip(space.spaces, inside, strict=True))
    if not isinstance(space, spaces.Box) or not _is_range(space):
        return inside
    shape = np.shape(inside)
    distance = beyond * (1.0 - rng.random(shape))  # in (0, beyond]
    at = np.where(rng.random(shape) < 0.5, -distance, 1.0 + distance)
    wider = widened_space(space, beyond)
    assert isinstance(wider, spaces.Box)
    return np.clip(stretched(space.low, space.high, at).astype(space.dtype), wider.low, wider.high)


def widen(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any], beyond: Any) -> None:
    """Let an environment of a family take tasks beyond its ranges.

    Raises:
        ValueError: ``beyond`` is no number above 0, or the family has no ranges or says that they are limits.
    """
    if isinstance(beyond, bool) or not isinstance(beyond, int | float) or not 0 < beyond < np.inf:
        raise ValueError(f"{ARGUMENT} is {beyond!r}; expected a number above 0, of widths of the ranges")
    refuse_limits(env)
    inner: Any = env.unwrapped
    space = widened_space(task_tools.task_space(env), beyond)
    for holder in [inner, *([inner.batch] if isinstance(inner, SingleFamily) else [])]:
        holder.task_space = space


def refuse_limits(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> None:
    """Refuse a family beyond whose ranges there is nothing.

    Raises:
        ValueError: it has no ranges, or says that they are limits (``ranges_are_limits``).
    """
    space, name = task_tools.task_space(env), task_tools.family_name(env)
    if not _has_range(space) or task_tools.attribute(env, "ranges_are_limits", False):
        raise ValueError(
            f"the tasks of {name} have no ranges of numbers beyond which there are others; choose a family with ranges,"
            " as metarl/CartPoleParams-v0, or the protocol 'steps'"
        )
