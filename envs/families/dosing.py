"""Dosing, ``Dosing-v0``: keep a drug's concentration in its window, in patients who clear it at different rates."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.batched import BatchedFamily, EnvIndices
from metarl.envs.dosing import kinetics
from metarl.envs.dosing.optimum import best_doses, course
from metarl.envs.families.drawing import Canvas
from metarl.envs.single import SingleFamily

DOSES = 12  # of a course
LEVEL_AFTER = 3  # intervals after which the level is measured
LAST = 4  # intervals at the end that have to be inside the window for success
UNIT = kinetics.WINDOW[1]  # mg/L that stand for 1 in observations
HIGHEST = 3.0  # of what is observed of a level


PATIENTS = spaces.Dict(
    {"clearance": spaces.Box(0.015, 0.25, (), np.float32), "volume": spaces.Box(0.3, 0.8, (), np.float32)}
)


def draw_patients(n: int, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Draw log-normal clearances and volumes ``[n]``, clipped to the task space."""
    found = {}
    for name, middle, variation in (
        ("clearance", kinetics.CLEARANCE, kinetics.CLEARANCE_VARIATION),
        ("volume", kinetics.VOLUME, kinetics.VOLUME_VARIATION),
    ):
        box = PATIENTS[name]
        assert isinstance(box, spaces.Box)
        drawn = middle * np.exp(kinetics.log_deviation(variation) * rng.normal(size=n))
        found[name] = np.clip(drawn.astype(np.float32), box.low, box.high)
    return found


class DosingVectorEnv(BatchedFamily):
    """``metarl/Dosing-v0``, batched in numpy; the data sheet is in ``DosingEnv``.

    Attributes:
        levels: the concentrations of the course so far, ``[num_envs, dose, hour]``, mg/L; 0 for what is to come.
    """

    ranges_are_limits = True  # of clearances, which may not become negative

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        route: str = "oral",
        doses: int = DOSES,
        level_after: int = LEVEL_AFTER,
    ) -> None:
        kinetics.check_route(route)
        self.route = route
        self.doses = task_tools.whole_number("doses", doses, least=LAST)
        self.level_after = task_tools.whole_number("level_after", level_after, least=0)
        if self.level_after >= self.doses:
            raise ValueError(
                f"level_after is {self.level_after}, and a course has {self.doses} doses; expected fewer, so that the "
                "level can still be used, or 0 for none"
            )
        self.single_observation_space = spaces.Box(0.0, HIGHEST, (3,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.task_space = copy.deepcopy(PATIENTS)  # which may be widened
        self.default_task = {
            "clearance": np.array(kinetics.CLEARANCE, np.float32),
            "volume": np.array(kinetics.VOLUME, np.float32),
        }
        super().__init__(num_envs, max_episode_steps, render_mode)
        self.levels = np.zeros((self.num_envs, self.doses, kinetics.INTERVAL))
        self._concentration = np.zeros(self.num_envs)
        self._gut = np.zeros(self.num_envs)
        self._inside = np.zeros(self.num_envs, dtype=np.int64)  # intervals in a row, the last one included
        self._assay = np.ones(self.num_envs)
        self._observations = np.zeros((self.num_envs, 3), dtype=np.float32)

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> dict[str, NDArray[np.float32]]:
        """Draw ``n`` patients; every split is the same distribution."""
        return draw_patients(n, rng)

    def start_episodes(self, indices: EnvIndices) -> None:
        """Begin courses without any drug, and draw the error of the measured level."""
        for state in (self.levels, self._concentration, self._gut, self._inside, self._observations):
            state[indices] = 0
        error = self.streams.normal(indices, 1)[:, 0]
        self._assay[indices] = np.exp(kinetics.log_deviation(kinetics.LEVEL_VARIATION) * error)

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Give the doses that actions stand for; the last one terminates the course."""
        running, steps = np.arange(self.num_envs)[indices], self.elapsed_steps[indices]
        given = kinetics.to_doses(actions[:, 0])
        levels, left = kinetics.concentrations(
            self._concentration[running],
            self._gut[running] + given,
            self.tasks["clearance"][running],
            self.tasks["volume"][running],
            self.route,
        )
        self.levels[running, steps] = levels
        self._concentration[running], self._gut[running] = levels[:, -1], left
        self._inside[running] = np.where(kinetics.inside(levels), self._inside[running] + 1, 0)
        self._observations[running, 0] = (steps + 1) / self.doses
        measured = running[steps + 1 == self.level_after]
        level = self._concentration[measured] * self._assay[measured] / UNIT
        self._observations[measured, 1] = np.minimum(level, HIGHEST)
        self._observations[running, 2] = given / kinetics.LARGEST_DOSE
        return kinetics.closeness(levels).mean(axis=1), steps + 1 == self.doses

    def infos(self, ended: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Return whether the last intervals of a course that ended were inside the window."""
        return {"success": ended & (self._inside >= LAST)}

    def observe(self) -> NDArray[np.float32]:
        """Return how far the courses are, the measured levels and the last doses, ``[num_envs, 3]``."""
        return self._observations.copy()

    def oracle_doses(self, task: Any) -> NDArray[np.float64]:
        """Return the best doses of a patient in mg/kg, ``[dose]``.

        Raises:
            ValueError: the patient's clearance or volume is missing or makes no sense.
        """
        doses = min(self.doses, self.max_episode_steps or self.doses)
        return best_doses(*_patient(task), doses, self.route)

    def oracle_return(self, task: Any) -> float:
        """Return the best return of one who knows clearance and volume, up to the grid of doses."""
        levels = course(self.oracle_doses(task), *_patient(task), self.route)
        return float(kinetics.closeness(levels).mean(axis=1).sum())


def _patient(task: Any) -> tuple[float, float]:
    if not isinstance(task, Mapping) or not {"clearance", "volume"} <= set(task):
        raise ValueError(f"the patient is {task!r}; expected a dict with the keys clearance and volume")
    kinetics.check_patient(task["clearance"], task["volume"])
    return float(task["clearance"]), float(task["volume"])


class DosingEnv(SingleFamily):
    """Keep a drug in its window in a patient one does not know (``metarl/Dosing-v0``). Not for treating people.

    - **What varies** (the task): the patient's ``clearance`` in L/h/kg and ``volume`` of distribution in L/kg,
      log-normal around 0.0614 and 0.485 with coefficients of variation of 38.5 % and 12.5 %, clipped to
      [0.015, 0.25] and [0.3, 0.8]. **Hidden**: only the rewards and one measured level tell of them.
    - **Arguments**: ``route="oral"`` (or ``"intravenous"``), ``doses=12`` of a course, ``level_after=3``: the number
      of intervals after which a level is measured (0: never).
    - **Observation**: ``Box(0, 3, (3,))``: the share of the course that is over; the measured level in units of
      20 mg/L, 0 before it is known, with an error of 10.6 %; and the last dose as a share of the largest. A course
      starts without any drug.
    - **Action**: ``Box(-1, 1, (1,))``, clipped to it: a dose every six hours, from 0 to 15 mg/kg in equal steps
      (``metarl.envs.dosing.kinetics.to_actions`` turns doses into actions).
    - **Kinetics**: one compartment, whose concentration falls at the rate clearance / volume; what is given orally is
      absorbed at a rate of 1.6 per hour. The drug's window is 10 to 20 mg/L, that of theophylline.
    - **Reward**: the mean over the hours 1, ..., 6 after the dose of 1 minus the distance of the concentration from the
      window, in factors of two, at least -1; so 1 for each interval inside the window.
    - **Success**: at the end of a course whose last four intervals were inside the window at all six hours.
    - **Ends**: terminates after ``doses`` steps.
    - **Optimum**: by dynamic programming over a grid of concentrations, with doses in steps of 0.125 mg/kg
      (``oracle_return``; ``oracle_doses`` are the doses).
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: population values and errors of theophylline by Yano et al. 1993 (Biol Pharm Bull 16, 501), whose
      patients had infusions, for the mean PaCO2 of 42.5 mmHg; absorption about that of Pinheiro and Bates 1995.
    - **Versions**: v0, the first.
    """

    ranges_are_limits = True  # of clearances, which may not become negative

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 4}  # type: ignore[misc]

    def __init__(
        self,
        render_mode: str | None = None,
        route: str = "oral",
        doses: int = DOSES,
        level_after: int = LEVEL_AFTER,
    ) -> None:
        self.batch: DosingVectorEnv
        super().__init__(DosingVectorEnv(1, route=route, doses=doses, level_after=level_after), render_mode)

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> dict[str, NDArray[np.float32]]:
        """Draw ``n`` patients; every split is the same distribution."""
        return self.batch.sample_tasks(n, rng, split)

    def oracle_doses(self, task: Any) -> NDArray[np.float64]:
        """Return the best doses of a patient in mg/kg, ``[dose]``."""
        return self.batch.oracle_doses(task)

    def oracle_return(self, task: Any) -> float:
        """Return the best return of one who knows clearance and volume; see the batched class."""
        return self.batch.oracle_return(task)

    def draw_picture(self) -> NDArray[np.uint8]:
        """Draw the window in green, up to twice its high end, and the concentrations of the course so far."""
        canvas = Canvas(size=256, extent=1.0)
        low, high = (end / kinetics.WINDOW[1] - 1.0 for end in kinetics.WINDOW)
        canvas.box((-1.0, low), (1.0, high), (205, 235, 205))
        hours = int(self.batch.elapsed_steps[0]) * kinetics.INTERVAL
        curve = np.concatenate([[0.0], self.batch.levels[0].ravel()[:hours]])
        across = 2.0 * np.arange(hours + 1) / (self.batch.doses * kinetics.INTERVAL) - 1.0
        canvas.line(np.stack([across, curve / kinetics.WINDOW[1] - 1.0], axis=1), (46, 92, 184))
        return canvas.pixels
