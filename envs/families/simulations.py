"""MuJoCo simulations stepped in threads, to the same last bit as Gymnasium steps one."""

from __future__ import annotations

import copy
import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.envs.processes import available_cores

try:
    import mujoco
except ImportError as error:
    raise ImportError("the locomotion families need MuJoCo: pip install 'gymnasium[mujoco]>=1.1'") from error

Read = Callable[[Any], NDArray[np.float64]]
_STATE: dict[str, Read] = {
    "qpos": lambda data: data.qpos,
    "qvel": lambda data: data.qvel,
    "qacc_warmstart": lambda data: data.qacc_warmstart,
}


def load_model(file: str) -> Any:
    """Return the ``mujoco.MjModel`` in a file of Gymnasium's, as ``"ant.xml"``."""
    path = importlib.resources.files("gymnasium") / "envs/mujoco/assets" / file
    handler = mujoco.get_mju_user_warning()
    # MuJoCo warns of outdated lines in Gymnasium's files, about which nobody here can do anything.
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    finally:
        mujoco.set_mju_user_warning(handler)


def scale_model(model: Any, multipliers: Mapping[str, NDArray[Any]]) -> Any:
    """Return a copy of a model whose fields are multiplied entry by entry; MuJoCo then updates what depends on them."""
    scaled = copy.copy(model)
    for name, multiplier in multipliers.items():
        getattr(scaled, name)[:] *= multiplier
    mujoco.mj_setConst(scaled, mujoco.MjData(scaled))
    return scaled


class Worker:
    """What one thread needs: an ``MjData`` in which it steps its simulations one after another."""

    def __init__(self, model: Any, reads: Mapping[str, Read]) -> None:
        self.data = mujoco.MjData(model)
        # Kept, because asking MuJoCo's bindings for a view takes as long as copying its content.
        self.views = [read(self.data) for read in reads.values()]


class Simulations:
    """Simulations that are stepped together, each with a model that it may share with others.

    One step hands only positions, velocities and the solver's warm start to the next. So there is one ``MjData`` for
    each thread, which stays in the processor's cache, and not one for each simulation.

    Args:
        models: one ``mujoco.MjModel`` for each simulation, of the same structure; only numbers may differ.
        frame_skip: MuJoCo's time steps in one call of ``step``.
        reads: name to a function that takes an ``MjData`` and returns a view of the array to keep.

    Attributes:
        values: name to an array ``[simulation, ...]``, as it was after the last start or step of each simulation: what
            ``reads`` names, and always ``qpos``, ``qvel`` and ``qacc_warmstart``.
    """

    def __init__(self, models: Sequence[Any], frame_skip: int, reads: Mapping[str, Read]) -> None:
        self.models = list(models)
        self.frame_skip = frame_skip
        self._reads = dict(reads)
        threads = min(available_cores(), len(self.models))
        self.workers = [Worker(self.models[0], {**_STATE, **reads}) for _ in range(threads)]
        self._pool: ThreadPoolExecutor | None = None
        arrays = [np.zeros((len(self.models), *view.shape)) for view in self.workers[0].views]
        self.values = dict(zip([*_STATE, *reads], arrays, strict=True))
        self._values_of = list(zip(*arrays, strict=True))

    def start(self, index: int, positions: NDArray[np.float64], velocities: NDArray[np.float64]) -> None:
        """Put one simulation into a state, as Gymnasium's ``reset`` does: positions ``[nq]``, velocities ``[nv]``."""
        worker = self.workers[0]
        mujoco.mj_resetData(self.models[index], worker.data)
        worker.data.qpos[:] = positions
        worker.data.qvel[:] = velocities
        mujoco.mj_forward(self.models[index], worker.data)
        for own, view in zip(self._values_of[index], worker.views, strict=True):
            own[:] = view

    def step(self, indices: Sequence[int], controls: NDArray[np.float64]) -> None:
        """Step the simulations ``indices`` by ``frame_skip`` time steps with ``controls [len(indices), actuator]``."""
        if len(self.workers) == 1 or len(indices) < 2:
            self._run(self.workers[0], indices, controls)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(len(self.workers), thread_name_prefix="mujoco")
        bounds = [len(indices) * index // len(self.workers) for index in range(len(self.workers) + 1)]
        running = [
            self._pool.submit(self._run, worker, indices[low:high], controls[low:high])
            for worker, (low, high) in zip(self.workers, pairwise(bounds), strict=True)
        ]
        for future in running:
            future.result()

    def __deepcopy__(self, memo: dict[int, Any]) -> Simulations:
        """Return simulations in the same state; copied attribute by attribute, their views would belong to no array."""
        twin = Simulations(copy.deepcopy(self.models, memo), self.frame_skip, self._reads)
        for name, array in self.values.items():
            twin.values[name][:] = array
        return twin

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _run(self, worker: Worker, indices: Sequence[int], controls: NDArray[np.float64]) -> None:
        # mj_step releases the interpreter's lock. mujoco.rollout would not do: it keeps no warm start for each
        # simulation, so its results drift away from Gymnasium's.
        step, skip, data, control = mujoco.mj_step, self.frame_skip, worker.data, worker.data.ctrl
        positions, velocities, warm_start = worker.views[: len(_STATE)]
        for place, index in enumerate(indices):
            values = self._values_of[index]
            positions[:], velocities[:], warm_start[:] = values[: len(_STATE)]
            control[:] = controls[place]
            step(self.models[index], data, skip)
            for own, view in zip(values, worker.views, strict=True):
                own[:] = view
