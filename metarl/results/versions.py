"""The versions that results depend on."""

from __future__ import annotations

import functools
import importlib.metadata
import platform

from metarl.version import __version__

PACKAGES = ("gymnasium", "numpy", "stable-baselines3", "tensorboard", "torch")


@functools.cache
def package_versions() -> dict[str, str]:
    """Return the versions of the packages that metarl computes with, by name."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def versions() -> dict[str, str]:
    """Return the versions of metarl, Python and packages, by name."""
    return {"metarl": __version__, "python": platform.python_version(), **package_versions()}
