"""From the contents of a checkpoint to a learner: what is checked before anything is built from them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from metarl.checkpoints.facts import check_settings
from metarl.sb3.bounds import refuse_larger
from metarl.sb3.policy_arguments import decode
from metarl.settings import Settings, structure
from metarl.untrusted import in_words, walk

# Settings that say how large tensors are, besides the layers of the policy.
_SIZES = (("outer", "components"), ("policy", "context_size"))
_PARAMETERIZED = "metarl/Parameterized-v0"
_USUAL = 1_000_000  # numbers up to here do no harm as arguments of metarl's families


@contextlib.contextmanager
def refused_in_a_sentence(path: Path) -> Iterator[None]:
    """Turn any error into one ``ValueError`` that names a checkpoint.

    Raises:
        ValueError: what runs within it failed.
    """
    try:
        yield
    except Exception as error:  # what is built from a damaged file may fail in any way
        raise ValueError(f"{str(path)!r} cannot be loaded: {in_words(error)}") from error


def checked_settings(
    facts: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    learner: Any,
    owner: Callable[[str], str | None],
    device: str | None,
    policy_kwargs: dict[str, Any] | None,
) -> tuple[Settings, dict[str, Any]]:
    """Return the settings and the policy's arguments of a checkpoint.

    Args:
        facts: of the checkpoint, with the types that ``check_facts`` checks.
        tensors: all of them, which bound what the settings may describe.
        learner: the class.
        owner: as for ``structure``.
        device: instead of the one in the settings, or None.
        policy_kwargs: arguments of the policy that the file cannot hold, or None.

    Raises:
        ValueError: settings or arguments are wrong, or describe more than the tensors can hold.
    """
    data = dict(facts["settings"])
    check_settings(data, learner)
    given = {} if policy_kwargs is None else policy_kwargs
    if not isinstance(given, dict):
        raise ValueError(f"policy_kwargs is {given!r}; expected a dict of arguments")
    policy = data.get("policy")
    refuse_larger(policy if isinstance(policy, dict) else {}, tensors)
    _refuse_larger_settings(data, sum(value.numel() for value in tensors.values()))
    kept = decode(facts["policy_kwargs"], given)
    refuse_larger(kept, tensors)
    if device is not None:
        data["device"] = device
    return structure(data, learner, owner), kept


def _refuse_larger_settings(data: Mapping[str, Any], numbers: int) -> None:
    """Refuse settings that ask a learner or one of metarl's families for more numbers than there are in all tensors."""
    arguments = data.get("family_kwargs")
    for section, name in _SIZES:
        size = data[section].get(name) if isinstance(data.get(section), dict) else None
        if isinstance(size, int) and size > numbers:
            raise ValueError(f"its tensors do not fit {section}.{name} = {size}")
    if isinstance(arguments, dict):
        family = arguments.get("env") if data.get("family") == _PARAMETERIZED else data.get("family")
        if not isinstance(family, str) or not family.startswith("metarl/"):
            return
        for key, value in walk(arguments):
            if isinstance(value, int) and key != "max_episode_steps" and value > max(_USUAL, numbers):
                raise ValueError(f"its tensors do not fit family_kwargs.{key} = {value}")
