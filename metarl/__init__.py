"""metarl: meta-reinforcement learning on Gymnasium environment families, as easy as stable-baselines3.

``import metarl`` registers the environment families and stays quick: torch loads when a learner is first used
(PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metarl.envs import RandomTask, as_task, check_family, make, make_vec, sample_tasks
from metarl.version import __version__

if TYPE_CHECKING:
    from metarl.anil import ANIL
    from metarl.cavia import CAVIA
    from metarl.e_maml import EMAML
    from metarl.evaluation import Evaluation
    from metarl.fomaml import FOMAML
    from metarl.learner import BaseLearner
    from metarl.maml import MAML
    from metarl.meta_sgd import MetaSGD
    from metarl.multi_task import MultiTask
    from metarl.pretraining import Pretrained
    from metarl.promp import ProMP
    from metarl.reptile import Reptile
    from metarl.short import MetaLearner
    from metarl.task_aware import TaskAware
    from metarl.untrained import Random, Scratch

__all__ = [
    "ANIL",
    "CAVIA",
    "EMAML",
    "FOMAML",
    "MAML",
    "BaseLearner",
    "Evaluation",
    "MetaLearner",
    "MetaSGD",
    "MultiTask",
    "Pretrained",
    "ProMP",
    "Random",
    "RandomTask",
    "Reptile",
    "Scratch",
    "TaskAware",
    "__version__",
    "as_task",
    "check_family",
    "make",
    "make_vec",
    "sample_tasks",
]

_LAZY = {
    "ANIL": "metarl.anil",
    "CAVIA": "metarl.cavia",
    "EMAML": "metarl.e_maml",
    "FOMAML": "metarl.fomaml",
    "MAML": "metarl.maml",
    "BaseLearner": "metarl.learner",
    "Evaluation": "metarl.evaluation",
    "MetaLearner": "metarl.short",
    "MetaSGD": "metarl.meta_sgd",
    "MultiTask": "metarl.multi_task",
    "Pretrained": "metarl.pretraining",
    "ProMP": "metarl.promp",
    "Random": "metarl.untrained",
    "Reptile": "metarl.reptile",
    "Scratch": "metarl.untrained",
    "TaskAware": "metarl.task_aware",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'metarl' has no attribute {name!r}")
