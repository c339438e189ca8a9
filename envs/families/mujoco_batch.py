"""Batched MuJoCo: one simulation for each sub-environment, stepped from threads as exactly as Gymnasium steps one.

What the locomotion families share; each adds its task, its reward and its ends, computed on arrays over all rows.
"""

from __future__ import annotations

import copy
import importlib.resources
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import BatchedFamily, Rows, SingleFamily
from metarl.envs.families.goals import Directions, check_max_velocity

try:
    import mujoco
except ImportError as error:
    raise ImportError("the locomotion families need MuJoCo: pip install 'metarl-suite[mujoco]'") from error

PICTURE_SIZE = 256  # pixels

Read = Callable[[Any], NDArray[np.float64]]
_STATE: dict[str, Read] = {
    "qpos": lambda data: data.qpos,
    "qvel": lambda data: data.qvel,
    "qacc_warmstart": lambda data: data.qacc_warmstart,
}


def load_model(file: str) -> Any:
    """Return one of Gymnasium's models as a ``mujoco.MjModel``, by its file's name."""
    path = importlib.resources.files("gymnasium") / "envs/mujoco/assets" / file
    handler = mujoco.get_mju_user_warning()
    # Whoever runs these files cannot mend what MuJoCo finds outdated in them.
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    finally:
        mujoco.set_mju_user_warning(handler)


def scale_model(model: Any, multipliers: Mapping[str, NDArray[Any]]) -> Any:
    """Return a copy of a model with fields multiplied entry by entry, and what MuJoCo derives from them."""
    scaled = copy.copy(model)
    for name, multiplier in multipliers.items():
        getattr(scaled, name)[:] *= multiplier
    mujoco.mj_setConst(scaled, mujoco.MjData(scaled))
    return scaled


class Worker:
    """One ``mujoco.MjData``, which steps simulations one after another."""

    def __init__(self, model: Any, reads: Mapping[str, Read]) -> None:
        self.data = mujoco.MjData(model)
        # Made once: looking a view up in MuJoCo's bindings costs as much as copying it.
        self.views = [read(self.data) for read in reads.values()]


class Simulations:
    """Simulations side by side, each with a model that it may share with others.

    Models have the same structure and differ in numbers only. ``values[name]`` holds, ``[simulation, ...]``, what the
    function ``reads[name]`` finds in a simulation's ``mujoco.MjData`` after its last start or step; positions ``qpos``
    and velocities ``qvel`` are always read.

    What one step hands to the next is small: positions, velocities and the solver's warm start. So there is one
    ``MjData`` for each thread, which stays in the processor's cache, and not one for each simulation.
    """

    def __init__(self, models: Sequence[Any], frame_skip: int, reads: Mapping[str, Read]) -> None:
        self.models = list(models)
        self.frame_skip = frame_skip
        threads = min(len(os.sched_getaffinity(0)), len(self.models))
        self.workers = [Worker(self.models[0], {**_STATE, **reads}) for _ in range(threads)]
        self._pool: ThreadPoolExecutor | None = None
        arrays = [np.zeros((len(self.models), *view.shape)) for view in self.workers[0].views]
        self.values = dict(zip([*_STATE, *reads], arrays, strict=True))
        self._rows = list(zip(*arrays, strict=True))

    def start(self, row: int, positions: NDArray[np.float64], velocities: NDArray[np.float64]) -> None:
        """Put a simulation into a state, as Gymnasium's ``reset`` does."""
        worker = self.workers[0]
        mujoco.mj_resetData(self.models[row], worker.data)
        worker.data.qpos[:] = positions
        worker.data.qvel[:] = velocities
        mujoco.mj_forward(self.models[row], worker.data)
        for own, view in zip(self._rows[row], worker.views, strict=True):
            own[:] = view

    def step(self, rows: Sequence[int], controls: NDArray[np.float64]) -> None:
        """Step the simulations ``rows`` by ``frame_skip`` time steps with ``controls [row, actuator]``."""
        if len(self.workers) == 1 or len(rows) < 2:
            self._run(self.workers[0], rows, controls)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(len(self.workers), thread_name_prefix="mujoco")
        bounds = [len(rows) * index // len(self.workers) for index in range(len(self.workers) + 1)]
        running = [
            self._pool.submit(self._run, worker, rows[low:high], controls[low:high])
            for worker, (low, high) in zip(self.workers, pairwise(bounds), strict=True)
        ]
        for future in running:
            future.result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _run(self, worker: Worker, rows: Sequence[int], controls: NDArray[np.float64]) -> None:
        # mj_step releases the interpreter's lock. `mujoco.rollout` has no warm start for each simulation and drifts.
        step, skip, data, control = mujoco.mj_step, self.frame_skip, worker.data, worker.data.ctrl
        positions, velocities, warm_start = worker.views[: len(_STATE)]
        for index, row in enumerate(rows):
            values = self._rows[row]
            positions[:], velocities[:], warm_start[:] = values[: len(_STATE)]
            control[:] = controls[index]
            step(self.models[row], data, skip)
            for own, view in zip(values, worker.views, strict=True):
                own[:] = view


class LocomotionVectorEnv(BatchedFamily):
    """A body that MuJoCo simulates, in batches: rewards are progress + ``alive`` - ``control_cost`` × Σ control².

    A subclass names Gymnasium's model ``file`` and the constants below, sets ``task_space`` and ``default_task`` before
    calling this constructor, and defines ``_progress``. Starts are drawn as Gymnasium draws them: the same seed gives
    the same.
    """

    splits_share_tasks: bool = False  # whether the tasks are so few that every split holds the same ones
    file: ClassVar[str]
    frame_skip: ClassVar[int] = 5  # MuJoCo's time steps in a control step
    reset_noise: ClassVar[float] = 0.1
    normal_velocities: ClassVar[bool] = True  # at the start; else uniform, as the positions are
    hidden: ClassVar[int] = 1  # how many of the first positions the observation leaves out
    speed_limit: ClassVar[float | None] = None  # what observed velocities are clipped to
    control_cost: ClassVar[float]
    alive: ClassVar[float] = 0.0
    reads: ClassVar[dict[str, Read]] = {}  # beside the state, see ``Simulations``
    observed: ClassVar[tuple[str, ...]] = ()  # which of them are observed

    def __init__(self, num_envs: int, max_episode_steps: int | None, render_mode: str | None) -> None:
        self.model = load_model(self.file)
        low, high = self.model.actuator_ctrlrange.T
        self._middle, self._half_range = (low + high) / 2, (high - low) / 2
        self.control_step = float(self.model.opt.timestep * self.frame_skip)  # s
        self.single_action_space = spaces.Box(-1.0, 1.0, (self.model.nu,), np.float32)
        probe = Simulations([self.model], self.frame_skip, self.reads)
        size = self._observation(probe.values).shape[1]
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float64)
        super().__init__(num_envs, max_episode_steps, render_mode)
        self.simulations = Simulations([self.model] * self.num_envs, self.frame_skip, self.reads)

    def _places(self, rows: Rows | slice) -> NDArray[np.float64]:
        """Return where the bodies are, ``[row, axis]``; velocities are computed from it over a control step."""
        return self.simulations.values["qpos"][rows, :1].copy()

    def _progress(self, velocities: NDArray[np.float64], rows: Rows | slice) -> NDArray[np.float64]:
        """Return the part of the rewards that depends on the task, for velocities ``[row, axis]`` in m/s."""
        raise NotImplementedError

    def _ended(self, rows: Rows | slice) -> NDArray[np.bool_]:
        """Return which episodes terminated."""
        return np.zeros(len(self.simulations.values["qpos"][rows]), dtype=np.bool_)

    def _start(self, rows: Rows) -> None:
        noise, model = self.reset_noise, self.model
        for row in rows.tolist():
            generator = self._generator(row)
            positions = model.qpos0 + generator.uniform(low=-noise, high=noise, size=model.nq)
            if self.normal_velocities:
                velocities = noise * generator.standard_normal(model.nv)
            else:
                velocities = generator.uniform(low=-noise, high=noise, size=model.nv)
            self.simulations.start(row, positions, velocities)

    def _move(self, actions: NDArray[Any], rows: Rows | slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        controls = self._middle + self._half_range * np.clip(actions.astype(np.float64), -1.0, 1.0)
        before = self._places(rows)
        self.simulations.step(np.arange(self.num_envs)[rows].tolist(), controls)
        velocities = (self._places(rows) - before) / self.control_step
        cost = self.control_cost * np.square(controls).sum(axis=1)
        return self._progress(velocities, rows) + self.alive - cost, self._ended(rows)

    def _observe(self) -> NDArray[np.float64]:
        return self._observation(self.simulations.values)

    def _observation(self, values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        velocities = values["qvel"]
        if self.speed_limit is not None:
            velocities = np.clip(velocities, -self.speed_limit, self.speed_limit)
        others = [values[name].reshape(len(velocities), -1) for name in self.observed]
        return np.concatenate([values["qpos"][:, self.hidden :], velocities, *others], axis=1)

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads that step."""
        self.simulations.close()


class DirectedVectorEnv(LocomotionVectorEnv):
    """A body that has to go in a direction, which is the task."""

    def __init__(
        self, num_envs: int, max_episode_steps: int | None, render_mode: str | None, directions: Directions
    ) -> None:
        self.directions = directions
        self.task_space, self.default_task = directions.space, directions.default
        self.splits_share_tasks = directions.finite
        super().__init__(num_envs, max_episode_steps, render_mode)

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> NDArray[Any]:
        """Draw n tasks ``[task]``; of two directions as many of each, in every split."""
        return self.directions.sample(n, rng)

    def _progress(self, velocities: NDArray[np.float64], rows: Rows | slice) -> NDArray[np.float64]:
        vectors = self.directions.vectors(self.tasks[rows])[:, : velocities.shape[1]]
        progress: NDArray[np.float64] = (vectors * velocities).sum(axis=1)
        return progress


class VelocityVectorEnv(LocomotionVectorEnv):
    """A body that has to go along x at a speed (m/s), which is the task."""

    def __init__(
        self,
        num_envs: int,
        max_velocity: float = 3.0,
        max_episode_steps: int | None = 200,
        render_mode: str | None = None,
    ) -> None:
        self.task_space = spaces.Box(0.0, check_max_velocity(max_velocity), (), np.float64)
        self.default_task = np.array(max_velocity / 2)
        super().__init__(num_envs, max_episode_steps, render_mode)

    def _progress(self, velocities: NDArray[np.float64], rows: Rows | slice) -> NDArray[np.float64]:
        wanted: NDArray[np.float64] = self.tasks[rows]
        return -np.abs(velocities[:, 0] - wanted)


class LocomotionEnv(SingleFamily):
    """One body that MuJoCo simulates."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # type: ignore[misc]
    camera: ClassVar[dict[str, Any]] = {"distance": 4.0}

    def __init__(self, batch: LocomotionVectorEnv, render_mode: str | None) -> None:
        self._batch: LocomotionVectorEnv
        super().__init__(batch, render_mode)
        self.splits_share_tasks = batch.splits_share_tasks
        if hasattr(batch, "sample_tasks"):
            self.sample_tasks = batch.sample_tasks
        self._renderer: Any = None
        self._drawn: Any = None

    @property
    def model(self) -> Any:
        """The ``mujoco.MjModel`` of the current task."""
        return self._batch.simulations.models[0]

    @property
    def data(self) -> Any:
        """The ``mujoco.MjData`` of the simulation."""
        return self._batch.simulations.workers[0].data

    def _picture(self) -> NDArray[np.uint8]:
        """Draw the body with Gymnasium's renderer.

        Raises:
            RuntimeError: MuJoCo cannot draw on this machine.
        """
        if not os.environ.get("DISPLAY"):
            os.environ.setdefault("MUJOCO_GL", "egl")  # else a window is tried, which needs a display
        try:
            if self._renderer is None or self._drawn is not self.model:
                from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

                self._close_renderer()
                self._renderer = MujocoRenderer(self.model, self.data, self.camera, PICTURE_SIZE, PICTURE_SIZE)
                self._drawn = self.model
            picture: NDArray[np.uint8] = self._renderer.render("rgb_array")
        except Exception as error:  # what fails without a graphics library differs by library
            raise RuntimeError(
                f"MuJoCo cannot draw here ({error}); install EGL or OSMesa (Debian: libegl1 or libosmesa6) and set the "
                "environment variable MUJOCO_GL to egl or osmesa"
            ) from error
        return picture

    def _close_renderer(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def close(self) -> None:
        """Free the renderer and end the threads."""
        self._close_renderer()
        self._batch.close()
