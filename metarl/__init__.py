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
    from metarl.learners.anil import ANIL
    from metarl.learners.cavia import CAVIA
    from metarl.learners.e_maml import EMAML
    from metarl.evaluation import Evaluation
    from metarl.learners.fomaml import FOMAML
    from metarl.learner import BaseLearner
    from metarl.learners.maml import MAML
    from metarl.learners.meta_sgd import MetaSGD
    from metarl.learners.multi_task import MultiTask
    from metarl.learners.pretrained import Pretrained
    from metarl.learners.promp import ProMP
    from metarl.learners.reptile import Reptile
    from metarl.meta_learner import MetaLearner
    from metarl.learners.task_aware import TaskAware
    from metarl.learners.scratch import Random, Scratch

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
    "ANIL": "metarl.learners.anil",
    "CAVIA": "metarl.learners.cavia",
    "EMAML": "metarl.learners.e_maml",
    "FOMAML": "metarl.learners.fomaml",
    "MAML": "metarl.learners.maml",
    "BaseLearner": "metarl.learner",
    "Evaluation": "metarl.evaluation",
    "MetaLearner": "metarl.meta_learner",
    "MetaSGD": "metarl.learners.meta_sgd",
    "MultiTask": "metarl.learners.multi_task",
    "Pretrained": "metarl.learners.pretrained",
    "ProMP": "metarl.learners.promp",
    "Random": "metarl.learners.scratch",
    "Reptile": "metarl.learners.reptile",
    "Scratch": "metarl.learners.scratch",
    "TaskAware": "metarl.learners.task_aware",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'metarl' has no attribute {name!r}")
