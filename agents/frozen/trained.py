"""Which parameters of a policy are trained: all but the frozen ones."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# The settings of ``[policy]`` on what is trained.
SETTINGS = ("freeze", "features_precision", "lora_rank", "lora_layers", "prune", "prune_scope", "context_size")
EXTRACTOR = ("features_extractor.", "pi_features_extractor.")

CRITIC = ("value_net.", "mlp_extractor.value_net.", "vf_features_extractor.")


def is_critic(name: str) -> bool:
    """Return whether a parameter of a stable-baselines3 policy, by its name, belongs only to the value function."""
    return name.startswith(CRITIC)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The settings of what is trained.

    Attributes:
        freeze: ``none``; ``extractor``, the features extractor; or names and patterns of parameters.
        half: whether a frozen front's features are kept in half precision.
        lora_rank: of low-rank updates, whose layers are frozen; 0 for none.
        lora_layers: names and patterns of the layers; none for all.
        prune: the share of the actor's weights that are 0 for good.
        prune_scope: ``global``, the smallest of all layers together, or ``layer``, the same share of each.
        seed: of the initial low-rank updates.
    """

    freeze: str | Sequence[str] = "none"
    half: bool = False
    lora_rank: int = 0
    lora_layers: Sequence[str] = ()
    prune: float = 0.0
    prune_scope: str = "global"
    seed: int = 0

    def refuse_idle(self) -> None:
        """Refuse layers for low-rank updates where there are none.

        Raises:
            ValueError: there are.
        """
        if self.lora_layers and not self.lora_rank:
            raise ValueError(
                f"policy.lora_layers is {list(self.lora_layers)!r}, and policy.lora_rank is 0, so no layer is updated; "
                "set it to the rank of the updates, as 8"
            )

    def refuse_half(self) -> None:
        """Refuse half precision of features where there is no frozen front; to be called then.

        Raises:
            ValueError: it is set.
        """
        if self.half:
            raise ValueError(
                "policy.features_precision is 'half', which is that of a frozen front's features, and there is none; "
                "set policy.freeze = 'extractor' too, or leave it out"
            )

    def frozen(self, names: Iterable[str]) -> frozenset[str]:
        """Return those of a policy's parameters, by name, that ``freeze`` means.

        Raises:
            ValueError: a pattern matches none of them, and the message names the nearest; or nothing is left.
        """
        known = list(names)
        if self.freeze == "none":
            return frozenset()
        if self.freeze == "extractor":
            return frozenset(name for name in known if name.startswith(EXTRACTOR))
        found: set[str] = set()
        for pattern in [self.freeze] if isinstance(self.freeze, str) else self.freeze:
            matching = fnmatch.filter(known, pattern)
            if not matching:
                near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.4)
                hint = f"the nearest are {', '.join(near)}" if near else f"it has {', '.join(known)}"
                raise ValueError(
                    f"policy.freeze names {pattern!r}, which matches no parameter of the policy; {hint}; a single word "
                    "is none or extractor"
                )
            found.update(matching)
        if len(found) == len(known):
            raise ValueError(
                f"policy.freeze is {list(self.freeze)!r}, which freezes all parameters of the policy; leave some out, "
                "as 'action_net.*'"
            )
        return frozenset(found)


ALL_TRAINED = Trained()


def refuse_frozen(pattern: str, frozen: Iterable[str]) -> None:
    """Refuse a pattern of what is to adapt that matches frozen parameters only.

    Raises:
        ValueError: it does.
    """
    matching = fnmatch.filter(list(frozen), pattern)
    if matching:
        raise ValueError(
            f"inner.adapts names {pattern!r}, which matches {matching[0]}, and that is frozen by policy.freeze or "
            "policy.lora_rank; what adapts cannot be frozen"
        )
