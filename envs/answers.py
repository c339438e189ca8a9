"""What single environments return from ``reset`` and ``step``: checked against their spaces, and infos as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class Infos:
    """Collects the infos of ``num_envs`` environments: numbers and truth values only.

    Attributes:
        arrays: key to an array ``[num_envs]``, float64, with NaN for environments that gave no such entry.
    """

    def __init__(self, num_envs: int) -> None:
        self._num_envs = num_envs
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def add(self, env_index: int, info: Mapping[str, Any]) -> None:
        """Take the info of one environment."""
        for key, value in info.items():
            number = _number(value)
            if number is not None:
                if key not in self.arrays:
                    self.arrays[key] = np.full(self._num_envs, np.nan)
                self.arrays[key][env_index] = number


def join_infos(parts: list[tuple[range, dict[str, NDArray[np.float64]]]], num_envs: int) -> dict[str, NDArray[Any]]:
    """Join the arrays of ``Infos`` of several processes, each with the numbers of its environments."""
    joined: dict[str, NDArray[Any]] = {}
    for indices, arrays in parts:
        for key, values in arrays.items():
            joined.setdefault(key, np.full(num_envs, np.nan))[indices.start : indices.stop] = values
    return joined


def _number(value: Any, one_entry: bool = False) -> float | None:
    """Return a single number or truth value as a float, or None; ``one_entry`` allows arrays such as [1.0]."""
    if type(value) in (float, bool):  # nearly always, and looking no further saves microseconds in each step
        return float(value)
    if not isinstance(value, bool | int | float | np.generic | np.ndarray):
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or (array.size != 1 if one_entry else array.shape != ()):
        return None
    return float(array.item())


def check_reset(space: spaces.Space[Any], answer: Any) -> tuple[Any, Mapping[str, Any]]:
    """Return the observation and the info that an environment's ``reset`` returned.

    Raises:
        ValueError: it returned something else; the message says what was expected.
    """
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ValueError(f"returned {_described(answer)}, expected two values: observation and info")
    return conform(space, answer[0]), _info(answer[1])


def check_step(space: spaces.Space[Any], answer: Any) -> tuple[Any, float, bool, bool, Mapping[str, Any]]:
    """Return the five values that an environment's ``step`` returned, with the observation as its space has it.

    Raises:
        ValueError: it returned something else; the message says what was expected.
    """
    if not isinstance(answer, tuple) or len(answer) != 5:
        raise ValueError(
            f"returned {_described(answer)}, expected five values: observation, reward, terminated, truncated and info"
        )
    observation, reward, *ends, info = answer
    number = _number(reward, one_entry=True)
    if number is None:
        raise ValueError(f"gave the reward {_described(reward)}, expected a number")
    for name, end in zip(("terminated", "truncated"), ends, strict=True):
        if _number(end, one_entry=True) not in (0.0, 1.0):
            raise ValueError(f"gave {name} as {_described(end)}, expected True or False")
    return conform(space, observation), number, bool(ends[0]), bool(ends[1]), _info(info)


def _info(info: Any) -> Mapping[str, Any]:
    if not isinstance(info, Mapping):
        raise ValueError(f"gave the info {_described(info)}, expected a dict")
    return info


def conform(space: spaces.Space[Any], value: Any, what: str = "the observation") -> Any:
    """Return an observation with the structure and the array types of its space.

    Numbers of another precision are accepted; whether they lie within the limits of a box is not examined.

    Raises:
        ValueError: the structure, the shape or the type of numbers is another; the message says what was expected.
    """
    if isinstance(space, spaces.Box) and type(value) is np.ndarray:
        if value.dtype == space.dtype and value.shape == space.shape:  # nearly always
            return value
    elif isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or not set(space.spaces) <= set(value):
            found = (
                f"a dict with the keys {sorted(map(str, value))}" if isinstance(value, Mapping) else _described(value)
            )
            raise ValueError(f"gave {what} as {found}, expected a dict with the keys {sorted(space.spaces)}")
        return {key: conform(part, value[key], f"{what}, key {key!r},") for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            raise ValueError(f"gave {what} as {_described(value)}, expected a tuple of {len(space.spaces)} parts")
        pairs = enumerate(zip(space.spaces, value, strict=True))
        return tuple(conform(part, entry, f"{what}, part {index},") for index, (part, entry) in pairs)
    if isinstance(space, spaces.Discrete):
        array = _array(value)
        if array.shape != () or array.dtype.kind not in "biu" or not space.contains(int(array)):
            last = space.start + space.n - 1
            raise ValueError(
                f"gave {what} as {_described(value)}, expected a whole number from {space.start} to {last}"
            )
        return space.dtype.type(array)
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        array = _array(value)
        fits = array.shape == space.shape and np.can_cast(array.dtype, space.dtype, "same_kind")
        if fits and array.dtype.kind in "iu" and not np.can_cast(array.dtype, space.dtype):
            fits = bool((array.astype(space.dtype) == array).all())  # whole numbers would wrap round
        if not fits:
            raise ValueError(
                f"gave {what} as {_described(value)}, expected an array of shape {space.shape} and type {space.dtype}"
            )
        return array
    return value


def _array(value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError:  # nested lists of different lengths
        return np.asarray(None)


def _described(value: Any) -> str:
    """Return a few words that say what a value is: the shape and type of an array, the text of anything short."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} values"
    text = repr(value)
    return text if len(text) <= 60 else f"an object of type {type(value).__name__}"
