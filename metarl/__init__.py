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
    from metarl.evaluation import Evaluation
    from metarl.maml import MAML

__all__ = [
    "MAML",
    "Evaluation",
    "RandomTask",
    "__version__",
    "as_task",
    "check_family",
    "make",
    "make_vec",
    "sample_tasks",
]

_LAZY = {"MAML": "metarl.maml", "Evaluation": "metarl.evaluation"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'metarl' has no attribute {name!r}")
