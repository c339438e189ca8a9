"""Environment families: what their tasks are, how tasks are drawn, and how many of them are played at once.

Importing this package registers the families metarl ships with Gymnasium.
"""

from metarl.envs.batched import BatchedFamily
from metarl.envs.checker.check import check_family
from metarl.envs.checker.quick import quick_check
from metarl.envs.families.from_data import tasks_from_data
from metarl.envs.parameterize import parameterized
from metarl.envs.references import Family
from metarl.envs.registry import (
    Listing,
    find_family,
    list_families,
    make,
    make_vec,
    own_actions,
    own_env,
    register_own,
    sample_tasks,
)
from metarl.envs.sequence import Tasks
from metarl.envs.single import SingleFamily
from metarl.envs.sync import RolloutError
from metarl.envs.tasks import as_task
from metarl.envs.workers import WorkerFamilyVectorEnv, choose_workers, make_in_processes
from metarl.envs.wrappers import FixedTask, RandomTask, Trial

__all__ = [
    "BatchedFamily",
    "Family",
    "FixedTask",
    "Listing",
    "RandomTask",
    "RolloutError",
    "SingleFamily",
    "Tasks",
    "Trial",
    "WorkerFamilyVectorEnv",
    "as_task",
    "check_family",
    "choose_workers",
    "find_family",
    "list_families",
    "make",
    "make_in_processes",
    "make_vec",
    "own_actions",
    "own_env",
    "parameterized",
    "quick_check",
    "sample_tasks",
    "tasks_from_data",
]

register_own()
