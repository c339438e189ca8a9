"""Environment families: what a task is, how tasks are drawn, how a batch of them is stepped.

Importing this package registers the families metarl ships with Gymnasium.
"""

from metarl.envs.batched import BatchedFamily, SingleFamily
from metarl.envs.check import check_family
from metarl.envs.registry import (
    Listing,
    find_family,
    list_families,
    make,
    make_vec,
    register_own,
    sample_tasks,
)
from metarl.envs.sync import RolloutError
from metarl.envs.tasks import as_task
from metarl.envs.wrappers import FixedTask, RandomTask

__all__ = [
    "BatchedFamily",
    "FixedTask",
    "Listing",
    "RandomTask",
    "RolloutError",
    "SingleFamily",
    "as_task",
    "check_family",
    "find_family",
    "list_families",
    "make",
    "make_vec",
    "sample_tasks",
]

register_own()
