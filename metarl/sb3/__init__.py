"""Interfaces to stable-baselines3: models in, models out, callbacks, loggers, and vector environments.

``make_vec_env`` is imported on first use, so that importing a module of this package stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.sb3.vec_env import make_vec_env as make_vec_env

__all__ = ["make_vec_env"]


def __getattr__(name: str) -> Any:
    if name == "make_vec_env":
        from metarl.sb3.vec_env import make_vec_env

        return make_vec_env
    raise AttributeError(f"module 'metarl.sb3' has no attribute {name!r}")
