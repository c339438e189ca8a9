"""Families whose simulator lives in an environment of its own, and so is missing where most tests run."""

from __future__ import annotations

import importlib.util

FAMILIES = set() if importlib.util.find_spec("metaworld") else {"metarl/MetaWorld-v0"}
REASON = "needs Meta-World: make metaworld"
