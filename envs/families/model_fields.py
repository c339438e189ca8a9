"""Fields of a MuJoCo model as parameters, such as ``body_mass``, ``body_mass/torso`` or ``geom_friction/floor/0``."""

from __future__ import annotations

import difflib
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

# The first part of a field's name says what its rows belong to: MuJoCo's type of object, and how many of it there are.
OBJECTS = {
    "body": ("mjOBJ_BODY", "nbody"),
    "geom": ("mjOBJ_GEOM", "ngeom"),
    "jnt": ("mjOBJ_JOINT", "njnt"),
    "dof": ("mjOBJ_JOINT", "njnt"),
    "actuator": ("mjOBJ_ACTUATOR", "nu"),
    "site": ("mjOBJ_SITE", "nsite"),
    "tendon": ("mjOBJ_TENDON", "ntendon"),
}
DOFS = (6, 3, 1, 1)  # degrees of freedom of a free, ball, slide and hinge joint


def model_of(env: gymnasium.Env[Any, Any]) -> Any:
    """Return the ``mujoco.MjModel`` of an environment, or None where it has none."""
    model = getattr(env.unwrapped, "model", None)
    return model if type(model).__module__.partition(".")[0] == "mujoco" else None


def field_names(model: Any) -> list[str]:
    """Return the names of the fields that can be parameters."""
    names = [name for name in dir(model) if name.partition("_")[0] in OBJECTS]
    return [name for name in names if getattr(getattr(model, name, None), "dtype", None) == np.float64]


class ModelField:
    """A field of a MuJoCo model, or the part of it that belongs to one object, or one entry of that part.

    Args:
        model: the ``mujoco.MjModel``.
        name: ``field``, ``field/object`` or ``field/object/entry``, where the object is a body, geom, joint, actuator,
            site or tendon by its name in the model, slashes included; or ``opt/option`` or ``opt/option/entry``, as
            ``opt/gravity/2``.

    Attributes:
        own: the model's own value: a float, or an array where the parameter names several numbers.

    Raises:
        ValueError: there is no such field, object or entry; the message names the nearest.
    """

    def __init__(self, model: Any, name: str) -> None:
        self.name = name
        self._field, separator, path = name.partition("/")
        entry: str | None = None
        if self._field == "opt":
            option, separator, last = path.partition("/")
            self._field, entry = f"opt/{option}", last if separator else None
            options = [
                option for option in dir(model.opt) if isinstance(getattr(model.opt, option), float | np.ndarray)
            ]
            if self._field.removeprefix("opt/") not in options:
                raise ValueError(f"the model has no option {name!r}{_nearest(name, [f'opt/{o}' for o in options])}")
            rows: Any = slice(None)
        else:
            names = field_names(model)
            if self._field not in names:
                raise ValueError(f"the model has no field {self._field!r}{_nearest(self._field, names)}")
            rows, entry = self._rows(model, path) if separator else (slice(None), None)
        own = self._read(model)[rows]
        self._entries: Any = (rows,)
        if entry is not None:
            width = own.shape[-1] if own.ndim > 1 or self._field.startswith("opt/") else 1
            if not entry.isdecimal() or int(entry) >= width:
                raise ValueError(f"parameter {name!r} ends with {entry!r}; expected an entry from 0 to {width - 1}")
            if own.ndim > 1:
                self._entries = (rows, int(entry))
            elif self._field.startswith("opt/"):
                self._entries = (slice(int(entry), int(entry) + 1),)
        values = self._read(model)[self._entries]
        self.own: Any = float(values.flat[0]) if values.size == 1 else values.copy()

    def _rows(self, model: Any, path: str) -> tuple[slice, str | None]:
        """Return the rows of the object and the entry that ``object`` or ``object/entry`` names.

        Names of objects may have slashes in them, so the whole path is tried as a name first.
        """
        import mujoco

        prefix = self._field.partition("_")[0]
        kind, count = OBJECTS[prefix]
        kind = getattr(mujoco.mjtObj, kind)
        names = [mujoco.mj_id2name(model, kind, index) for index in range(getattr(model, count))]
        before, separator, last = path.rpartition("/")
        wanted, entry = (before, last) if separator and path not in names and last.isdecimal() else (path, None)
        if wanted not in names:
            near = _nearest(wanted, [name for name in names if name])
            raise ValueError(f"parameter {self.name!r}: the model has no {prefix} {wanted!r}{near}")
        index = names.index(wanted)
        if prefix != "dof":
            return slice(index, index + 1), entry
        start = int(model.jnt_dofadr[index])
        return slice(start, start + DOFS[int(model.jnt_type[index])]), entry

    def _read(self, model: Any) -> NDArray[np.float64]:
        if self._field.startswith("opt/"):
            return np.atleast_1d(getattr(model.opt, self._field.removeprefix("opt/")))
        array: NDArray[np.float64] = getattr(model, self._field)
        return array

    def set(self, env: gymnasium.Env[Any, Any], value: Any) -> None:
        """Set the parameter in the environment's model to a number, or to an array of the shape of ``own``."""
        model, option = model_of(env), self._field.removeprefix("opt/")
        if option != self._field and not isinstance(getattr(model.opt, option), np.ndarray):
            setattr(model.opt, option, value)
        else:
            self._read(model)[self._entries] = value


def derive(env: gymnasium.Env[Any, Any]) -> None:
    """Let MuJoCo compute again what it derives from the fields of its model, as the mass of whole subtrees."""
    import mujoco

    mujoco.mj_setConst(model_of(env), env.unwrapped.data)  # type: ignore[attr-defined]


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:10]
    return f"; the nearest are {', '.join(near)}" if near else ""
