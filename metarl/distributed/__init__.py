"""Several processes that hold the same learner, and each play and differentiate a share of the tasks."""

from metarl.distributed.group import Group, LostError, join, launched

__all__ = ["Group", "LostError", "join", "launched"]
