"""Meta-World's ML1, ML10, ML25 and ML45 as a family, ``MetaWorld-v0``; Meta-World has to be installed."""

from __future__ import annotations

import functools
import importlib
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

BENCHMARKS = ("ML1", "ML10", "ML25", "ML45")
OBSERVATIONS = 39

# Simulations that no environment of this process plays at the moment, by the name of what they simulate: one takes long
# to make, and an environment of ML45 may have to play any of fifty, of which it cannot keep one each.
_IDLE: dict[str, list[Any]] = {}


class MetaWorldEnv(gymnasium.Env[Any, Any]):
    """What a robot's arm has to do in Meta-World, with the goal hidden (``metarl/MetaWorld-v0``).

    - **What varies** (the task): an index into the benchmark's training tasks, followed by its test tasks. A task is
      one of 50 positions of the goal and of the objects, in one of the environments: ``benchmark="ML1"`` has ``env``,
      such as ``"reach-v3"``, ``"push-v3"`` or ``"pick-place-v3"``; ``"ML10"``, ``"ML25"`` and ``"ML45"``: 10, 25 or 45
      environments for training, five others for testing. **Hidden**: the goal, and which environment it is; the
      objects are seen.
    - **Observation**: Meta-World's, ``Box(-inf, inf, (39,))``: the hand, the gripper and the objects at this and the
      last step, in metres, and zeros in place of the goal.
    - **Action**: ``Box(-1, 1, (4,))``: how far the hand moves, and how strongly the gripper closes.
    - **Reward**: Meta-World's (of its version 2), 0 to 10 a step. **Success**: ``info["success"]``.
    - **Ends**: never terminates; truncates after 500 steps, the most that Meta-World allows.
    - **Splits**: training and validation draw from the official training tasks, testing from the official test tasks,
      each environment as often as the others; no task twice where there are enough. ``goals_seed=1`` chooses the goals.
    - **Needs**: Meta-World with its own, older MuJoCo; ``make metaworld`` installs them in ``.venv-metaworld``.
    - **Source**: Yu et al. 2019 (Meta-World); McLean et al. 2025 (Meta-World+), whose package this is.
    - **Versions**: v0, the first, with Meta-World 3.1.1.

    Raises:
        ImportError: Meta-World cannot be imported.
        ValueError: an unknown benchmark or environment, or a seed that is none.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]
    observation_reveals_task = True  # where the objects are, but not the goal

    def __init__(
        self, benchmark: str = "ML1", env: str = "reach-v3", goals_seed: int = 1, render_mode: str | None = None
    ) -> None:
        if benchmark not in BENCHMARKS:
            raise ValueError(f"benchmark is {benchmark!r}; expected one of {', '.join(BENCHMARKS)}")
        if not isinstance(goals_seed, int) or not 0 <= goals_seed < 2**31:
            raise ValueError(f"goals_seed is {goals_seed!r}; expected a whole number from 0 on, below 2**31")
        if benchmark == "ML1" and env not in (known := load_metaworld().ML1.ENV_NAMES):
            raise ValueError(f"env is {env!r}; expected one of {', '.join(known)}")
        self.render_mode = render_mode
        self._official = _benchmark(benchmark, env if benchmark == "ML1" else "", goals_seed)
        self._tasks = [*self._official.train_tasks, *self._official.test_tasks]
        self._classes = {**self._official.train_classes, **self._official.test_classes}
        self.task_space = spaces.Discrete(len(self._tasks))
        self.default_task = 0
        self.observation_space = spaces.Box(-np.inf, np.inf, (OBSERVATIONS,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._task = 0
        self._name = ""
        self._simulation: Any = None

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> NDArray[np.int64]:
        """Draw ``n`` tasks: official test tasks for ``split="test"``, else official training tasks."""
        trained = len(self._official.train_tasks)
        indices = range(trained, len(self._tasks)) if split == "test" else range(trained)
        goals: dict[str, list[int]] = {}
        for index in indices:
            goals.setdefault(self._tasks[index].env_name, []).append(index)
        names = rng.permutation(list(goals))
        rounds = -(-n // len(names))
        drawn = {name: rng.choice(each, rounds, replace=rounds > len(each)) for name, each in goals.items()}
        return np.array([drawn[names[i % len(names)]][i // len(names)] for i in range(n)])

    def env_name(self, task: int) -> str:
        """Return the name of the environment of a task, as ``"reach-v3"``."""
        return str(self._tasks[task].env_name)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Start an episode, of ``options["task"]`` where it is given."""
        super().reset(seed=seed)
        if options and "task" in options:
            self._task = int(options["task"])
        name = self.env_name(self._task)
        if name != self._name:
            self.close()
            idle = [] if self.render_mode else _IDLE.get(name, [])
            self._simulation = idle.pop() if idle else self._classes[name](render_mode=self.render_mode)
            self._name = name
        self._simulation.set_task(self._tasks[self._task])
        observation, info = self._simulation.reset()
        return observation, info

    def step(self, action: Any) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Step the simulation."""
        observation, reward, terminated, truncated, info = self._simulation.step(np.clip(action, -1.0, 1.0))
        return observation, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """Draw the simulation; None where ``render_mode`` is None."""
        return None if self.render_mode is None else self._simulation.render()

    def close(self) -> None:
        """Leave the simulation to other environments of the process."""
        if self._simulation is not None and self.render_mode is None:
            _IDLE.setdefault(self._name, []).append(self._simulation)
        elif self._simulation is not None:
            self._simulation.close()
        self._simulation, self._name = None, ""


def load_metaworld() -> Any:
    """Return the package.

    Raises:
        ImportError: it cannot be imported.
    """
    try:
        return importlib.import_module("metaworld")
    except ImportError as error:
        raise ImportError(
            "Meta-World needs an environment of its own, since its MuJoCo is an older one: 'make metaworld' makes "
            f".venv-metaworld, whose metarl has it ({error})"
        ) from error


@functools.lru_cache(maxsize=4)
def _benchmark(benchmark: str, env: str, goals_seed: int) -> Any:
    """Return an official benchmark; drawing its goals takes seconds, since it resets each environment 50 times."""
    metaworld = load_metaworld()
    return metaworld.ML1(env, seed=goals_seed) if benchmark == "ML1" else getattr(metaworld, benchmark)(seed=goals_seed)
