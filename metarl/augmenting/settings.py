"""The settings of ``[augment]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from metarl.fields import FORBID, NoneOrCount, NotNegative, Unit, setting


@dataclass(frozen=True, kw_only=True)
class Augmenting:
    """Augmentation in training; validation, test and adaptation play tasks as they are. All of it is off by default."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    mix: Unit = setting(
        0.0, "how many tasks are mixed with another: numbers lie between the two, choices are of either", "share"
    )
    perturb: Unit = setting(
        0.0, "deviation of noise on the tasks' numbers, reflected at the ends of their ranges", "widths of the range"
    )
    mirror: Unit = setting(0.0, "how many tasks are mirrored by a symmetry that the family declares", "share")
    observation_noise: NotNegative = setting(
        0.0, "deviation of noise on observations of real numbers, in their own units", "standard deviation"
    )
    random_shift: NoneOrCount = setting(
        0, "how far images are shifted at random, each by itself; what comes in repeats the edge", "pixels"
    )
    remap_actions: Unit = setting(
        0.0, "how many tasks have other actions: choices permuted, signs of real numbers drawn", "share"
    )
    scale_rewards: NotNegative = setting(
        0.0, "rewards of each task are multiplied by a factor from 1 / (1 + x) to 1 + x", "x"
    )
    flip_rewards: Unit = setting(0.0, "how many tasks have rewards of the opposite sign", "share")

    @property
    def changes_tasks(self) -> bool:
        """Whether tasks become others."""
        return bool(self.mix or self.perturb or self.mirror)

    @property
    def changes_episodes(self) -> bool:
        """Whether what is seen, done or paid in episodes is changed."""
        return bool(self.observation_noise or self.random_shift or self.changes_meaning)

    @property
    def changes_meaning(self) -> bool:
        """Whether what actions do, or what is rewarded, is changed for each task."""
        return bool(self.remap_actions or self.scale_rewards or self.flip_rewards)
