"""Parts of a policy's parameters, by what a setting calls them."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Sequence

from metarl.agents.frozen.lora import A, B
from metarl.agents.frozen.trained import refuse_frozen
from metarl.agents.policies.context import CONTEXT
from metarl.agents.policies.policy import Policy


def layers_of(policy: Policy) -> list[str]:
    """Return the names of a policy's layers, in its own order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in policy.shapes if "." in name))


def head_of(policy: Policy, layers: int = 1) -> frozenset[str]:
    """Return the names of the parameters of the last layers, and of those without a layer, the exploration noise."""
    known = layers_of(policy)
    head = set(known[max(0, len(known) - layers) :])
    return frozenset(name for name in policy.shapes if name.rpartition(".")[0] in head or "." not in name)


def selected(policy: Policy, part: str | Sequence[str], setting: str = "inner.adapts") -> frozenset[str] | None:
    """Return the names of the parameters that a setting means; None for all.

    Args:
        policy: whose parameters they are.
        part: ``all``; ``head``, the last layer and the exploration noise; ``biases``; ``norms``, the parameters of
            normalisation layers; ``lora``, low-rank updates; ``context``, the additional inputs; or names and patterns
            (``fnmatch``), as ``("action_net.*", "log_std")``.
        setting: its name, for errors.

    Raises:
        ValueError: the policy has no such parameter; the message names the nearest.
    """
    if part == "all":
        return None
    if isinstance(part, str):
        words: dict[str, Callable[[Policy], frozenset[str]]]
        words = {"head": head_of, "biases": _biases, "norms": lambda policy: policy.norms(), "lora": _lora}
        words["context"] = lambda policy: frozenset({CONTEXT} & policy.shapes.keys())
        found = words[part](policy)
        if not found and part == "lora":
            raise ValueError(f"{setting} is 'lora', but policy.lora_rank is 0; set it to the rank of the updates, as 8")
        if not found:
            raise ValueError(
                f"{setting} is {part!r}, but the policy has none; its parameters are {', '.join(policy.shapes)}"
            )
        return found
    single = "; a single word is all, head, biases, norms, lora or context" if len(part) == 1 else ""
    chosen: set[str] = set()
    for pattern in part:
        matching = fnmatch.filter(policy.shapes, pattern)
        if not matching:
            refuse_frozen(pattern, policy.frozen)
            near = difflib.get_close_matches(pattern, list(policy.shapes), n=3, cutoff=0.4)
            hint = f"the nearest are {', '.join(near)}" if near else f"it has {', '.join(policy.shapes)}"
            raise ValueError(f"{setting} names {pattern!r}, which matches no parameter of the policy; {hint}{single}")
        chosen.update(matching)
    return None if chosen == set(policy.shapes) else frozenset(chosen)


def refuse_part(part: str | Sequence[str], learner: str, what: str) -> None:
    """Refuse a choice of what adapts, for a learner that does not leave it open.

    Args:
        part: the setting ``inner.adapts``.
        learner: its name.
        what: what adapts in this learner.

    Raises:
        ValueError: it is not ``all``.
    """
    if part != "all":
        given = part if isinstance(part, str) else list(part)
        raise ValueError(f"inner.adapts is {given!r}, but learner {learner} adapts {what}; leave it out")


def _lora(policy: Policy) -> frozenset[str]:
    return frozenset(name for name in policy.shapes if name.rpartition(".")[2] in (A, B))


def _biases(policy: Policy) -> frozenset[str]:
    return frozenset(name for name in policy.shapes if name.rpartition(".")[2].startswith("bias"))
