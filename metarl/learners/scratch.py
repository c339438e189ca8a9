"""A baseline that is not meta-trained: the inner update from a random start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict

from metarl.fields import FORBID
from metarl.learner import BaseLearner


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """The settings of no meta-update: none."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID


class Scratch(BaseLearner):
    """From scratch: the inner update from a random start, without meta-training.

    With ``evaluation.steps`` and ``evaluation.episodes`` it can get the budget of other learners, or a larger one. It
    is the "random" of Finn et al. 2017, figures 4 and 5.
    """

    name = "scratch"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (Nothing,)
    source = "Finn et al. 2017"
    learns_to_adapt = False
    trains = False
