"""metarl: meta-reinforcement learning on Gymnasium environment families, as easy as stable-baselines3.

``import metarl`` registers the environment families and is fast: torch is imported when a learner is first used
(PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metarl.envs import (
    Family,
    RandomTask,
    Tasks,
    Trial,
    as_task,
    check_family,
    make,
    make_vec,
    parameterized,
    sample_tasks,
    tasks_from_data,
)
from metarl.learners.registry import class_places
from metarl.version import __version__

if TYPE_CHECKING:
    from metarl.exporting.export import export as export
    from metarl.guide.sizes import defaults as defaults
    from metarl.learner import BaseLearner as BaseLearner
    from metarl.learners.anil import ANIL as ANIL
    from metarl.learners.cavia import CAVIA as CAVIA
    from metarl.learners.e_maml import EMAML as EMAML
    from metarl.learners.fomaml import FOMAML as FOMAML
    from metarl.learners.maml import MAML as MAML
    from metarl.learners.meta_learner import MetaLearner as MetaLearner
    from metarl.learners.meta_sgd import MetaSGD as MetaSGD
    from metarl.learners.multi_task import MultiTask as MultiTask
    from metarl.learners.pretrained import Pretrained as Pretrained
    from metarl.learners.promp import ProMP as ProMP
    from metarl.learners.random import Random as Random
    from metarl.learners.reptile import Reptile as Reptile
    from metarl.learners.rl2 import RL2 as RL2
    from metarl.learners.scratch import Scratch as Scratch
    from metarl.learners.task_aware import TaskAware as TaskAware
    from metarl.replay.replay import Replay as Replay
    from metarl.replay.show import show as show
    from metarl.results.combined import combine as combine
    from metarl.results.evaluation import Evaluation as Evaluation
    from metarl.shrinking.compress import Compress as Compress
    from metarl.shrinking.compress import Compressed as Compressed
    from metarl.shrinking.compress import Decompress as Decompress
    from metarl.shrinking.distill import distill as distill
    from metarl.shrinking.prune import Prune as Prune

# The modules of the names that are imported on first use.
_LAZY = {
    **class_places(),
    "BaseLearner": "metarl.learner",
    "Compress": "metarl.shrinking.compress",
    "Compressed": "metarl.shrinking.compress",
    "Decompress": "metarl.shrinking.compress",
    "combine": "metarl.results.combined",
    "defaults": "metarl.guide.sizes",
    "distill": "metarl.shrinking.distill",
    "export": "metarl.exporting.export",
    "Evaluation": "metarl.results.evaluation",
    "MetaLearner": "metarl.learners.meta_learner",
    "Prune": "metarl.shrinking.prune",
    "Replay": "metarl.replay.replay",
    "show": "metarl.replay.show",
}

__all__ = [
    *_LAZY,
    "Family",
    "RandomTask",
    "Tasks",
    "Trial",
    "__version__",
    "as_task",
    "check_family",
    "make",
    "make_vec",
    "parameterized",
    "sample_tasks",
    "tasks_from_data",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name == "sb3":
        return importlib.import_module("metarl.sb3")
    raise AttributeError(f"module 'metarl' has no attribute {name!r}")
