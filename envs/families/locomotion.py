"""What the locomotion families share: bodies that MuJoCo simulates, in batches.

Each family adds its task, its rewards and its ends, computed on arrays over the sub-environments.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import BatchedFamily, EnvIndices
from metarl.envs.families.goals import Directions, check_max_velocity
from metarl.envs.families.simulations import Read, Simulations, load_model
from metarl.envs.single import SingleFamily

PICTURE_SIZE = 256  # pixels


class LocomotionVectorEnv(BatchedFamily):
    """A body that MuJoCo simulates, in batches: rewards are progress + ``alive`` - ``control_cost`` × Σ control².

    A subclass names the ``file`` of Gymnasium's model and the constants below, sets ``task_space`` and
    ``default_task`` before it calls this constructor, and defines ``progress_rewards``. Episodes start from the same
    state as Gymnasium's for the same seed.
    """

    ranges_are_limits: bool = False  # True where there are no tasks beyond the ends of the task space
    splits_share_tasks: bool = False  # True where there are so few tasks that every split has all of them
    file: ClassVar[str]
    frame_skip: ClassVar[int] = 5  # MuJoCo's time steps in a control step
    reset_noise: ClassVar[float] = 0.1
    normal_velocities: ClassVar[bool] = True  # at the start; else uniform, as the positions are
    hidden: ClassVar[int] = 1  # how many positions, from the first on, the observation leaves out
    speed_limit: ClassVar[float | None] = None  # observed velocities are clipped to plus and minus this
    control_cost: ClassVar[float]
    alive: ClassVar[float] = 0.0
    reads: ClassVar[dict[str, Read]] = {}  # see ``Simulations``
    observed: ClassVar[tuple[str, ...]] = ()  # the names among ``reads`` that the observation includes

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

    def body_positions(self, indices: EnvIndices | slice) -> NDArray[np.float64]:
        """Return where the bodies are (m), ``[len(indices), axis]``: their change in a control step is the velocity."""
        return self.simulations.values["qpos"][indices, :1].copy()

    def progress_rewards(self, velocities: NDArray[np.float64], indices: EnvIndices | slice) -> NDArray[np.float64]:
        """Return the part of the rewards that depends on the task, ``[len(indices)]``.

        Args:
            velocities: of the bodies (m/s), ``[len(indices), axis]``, the mean over the control step.
            indices: the numbers of the sub-environments.
        """
        raise NotImplementedError

    def terminated(self, indices: EnvIndices | slice) -> NDArray[np.bool_]:
        """Return which of the episodes terminated, ``[len(indices)]``; none unless a subclass says so."""
        return np.zeros(len(self.simulations.values["qpos"][indices]), dtype=np.bool_)

    def start_episodes(self, indices: EnvIndices) -> None:
        """Put the bodies near their first pose, with noise drawn from each one's generator."""
        noise, model = self.reset_noise, self.model
        for index in indices.tolist():
            generator = self.generator(index)
            positions = model.qpos0 + generator.uniform(low=-noise, high=noise, size=model.nq)
            if self.normal_velocities:
                velocities = noise * generator.standard_normal(model.nv)
            else:
                velocities = generator.uniform(low=-noise, high=noise, size=model.nv)
            self.simulations.start(index, positions, velocities)

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Apply the torques for one control step."""
        controls = self._middle + self._half_range * np.clip(actions.astype(np.float64), -1.0, 1.0)
        before = self.body_positions(indices)
        self.simulations.step(np.arange(self.num_envs)[indices].tolist(), controls)
        velocities = (self.body_positions(indices) - before) / self.control_step
        cost = self.control_cost * np.square(controls).sum(axis=1)
        return self.progress_rewards(velocities, indices) + self.alive - cost, self.terminated(indices)

    def observe(self) -> NDArray[np.float64]:
        """Return positions, velocities and what ``observed`` names, ``[num_envs, size]``."""
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
    """A body that has to go in a direction: the task is the direction."""

    def __init__(
        self, num_envs: int, max_episode_steps: int | None, render_mode: str | None, directions: Directions
    ) -> None:
        self.directions = directions
        self.task_space, self.default_task = directions.space, directions.default
        self.splits_share_tasks = directions.finite
        self.ranges_are_limits = True  # of an angle
        super().__init__(num_envs, max_episode_steps, render_mode)

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> NDArray[Any]:
        """Draw n tasks ``[n]``; of two directions each comes equally often, in every split."""
        return self.directions.sample(n, rng)

    def progress_rewards(self, velocities: NDArray[np.float64], indices: EnvIndices | slice) -> NDArray[np.float64]:
        """Return the velocity in the wanted direction."""
        vectors = self.directions.vectors(self.tasks[indices])[:, : velocities.shape[1]]
        progress: NDArray[np.float64] = (vectors * velocities).sum(axis=1)
        return progress


class VelocityVectorEnv(LocomotionVectorEnv):
    """A body that has to go along x at a speed: the task is the speed (m/s)."""

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

    def progress_rewards(self, velocities: NDArray[np.float64], indices: EnvIndices | slice) -> NDArray[np.float64]:
        """Return minus the difference from the wanted speed."""
        wanted: NDArray[np.float64] = self.tasks[indices]
        return -np.abs(velocities[:, 0] - wanted)


class LocomotionEnv(SingleFamily):
    """One body that MuJoCo simulates."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # type: ignore[misc]
    camera: ClassVar[dict[str, Any]] = {"distance": 4.0}

    def __init__(self, batch: LocomotionVectorEnv, render_mode: str | None) -> None:
        self.batch: LocomotionVectorEnv
        super().__init__(batch, render_mode)
        self.splits_share_tasks = batch.splits_share_tasks
        self.ranges_are_limits = batch.ranges_are_limits
        if hasattr(batch, "sample_tasks"):
            self.sample_tasks = batch.sample_tasks
        self._renderer: Any = None
        self._drawn: Any = None

    @property
    def model(self) -> Any:
        """The ``mujoco.MjModel`` of the current task."""
        return self.batch.simulations.models[0]

    @property
    def data(self) -> Any:
        """The ``mujoco.MjData`` of the simulation."""
        return self.batch.simulations.workers[0].data

    def draw_picture(self) -> NDArray[np.uint8]:
        """Draw the body with Gymnasium's renderer.

        Raises:
            RuntimeError: MuJoCo cannot draw on this machine.
        """
        if not os.environ.get("DISPLAY"):
            os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo's default is a window, which needs a display
        try:
            if self._renderer is None or self._drawn is not self.model:
                import mujoco
                from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

                self._close_renderer()
                # The camera goes with the torso; a free one would soon see none of a body that runs.
                camera = {"type": int(mujoco.mjtCamera.mjCAMERA_TRACKING), "trackbodyid": 1, **self.camera}
                self._renderer = MujocoRenderer(self.model, self.data, camera, PICTURE_SIZE, PICTURE_SIZE)
                self._drawn = self.model
            picture: NDArray[np.uint8] = self._renderer.render("rgb_array")
        except Exception as error:  # each graphics library has exceptions of its own
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
        self.batch.close()
