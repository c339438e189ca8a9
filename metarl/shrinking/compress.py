"""Compression of learners, policies and models of stable-baselines3: weights in fewer bits, on the disk and for acting.

What acts and what adapts are kept apart. A policy or model becomes one whose layers hold packed weights
(``metarl.agents.frozen.packed``): it acts, and stable-baselines3 saves and loads it with these alone. A learner becomes
a ``Compressed`` around an ordinary learner with the same weights, rounded: it adapts in single precision, since the
steps of an inner update are smaller than those between rounded weights, hands out adapted policies that act with packed
weights, and is saved with packed tensors.
"""

from __future__ import annotations

import copy
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from numpy.typing import NDArray
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

from metarl.agent import learner_of
from metarl.agents import Parameters
from metarl.agents.frozen.packed import CompressedPolicy, architecture_of, compressed, decompressed
from metarl.agents.frozen.packing import Packing, packed_tensors, unpacked_tensors
from metarl.agents.policies.build import MODULES
from metarl.files import replacing
from metarl.learner import BaseLearner
from metarl.learners.registry import load_learner
from metarl.untrusted import JSON_BYTES, in_words, open_zip, read_member

_STATE, _TENSORS, _MARK = "state.json", "tensors.safetensors", "compressed.txt"
_BEGIN_ANEW = ("adam_mean", "adam_square", "adam_steps")  # moments of optimizers, by the first part of their names
_KEPT_EXACT = ("normalizer", "extra")  # statistics, and what a learner has of its own, such as learned step sizes


def Compress(model: Any, form: str = "int8", *, bits: int | None = None) -> Any:  # noqa: N802
    """Return a copy of a model with weights of fewer bits.

    Biases, normalisation layers and the exploration noise stay in single precision. What comes back acts; it adapts and
    learns on copies in single precision: ``MetaLearner(Compress(Prune(model)), family)``, ``Decompress(model)``.

    Args:
        model: a PPO or A2C model of stable-baselines3 or an adapted policy, and the same comes back; or a learner or
            ``MetaLearner``, of which a ``Compressed`` comes back.
        form: ``int8``, whole numbers with a scale for each output of a layer, and large linear layers compute with
            them; ``half`` or ``bfloat16``; or ``shared``, a table of values for each layer (k-means), which are looked
            up once before acting.
        bits: of a place in such a table, 1 to 8; default 4.

    Raises:
        ValueError: a model that cannot be compressed, a form or bits that there are not, or int8 where torch has no
            engine for it.
    """
    if bits is not None and form != "shared":
        raise ValueError(f"bits is {bits!r}, and only weights that are 'shared' have a number of bits; leave it out")
    packing = Packing(form, 4 if bits is None else bits)
    if form == "int8":
        _refuse_without_engine()
    if isinstance(model, OnPolicyAlgorithm):
        return _with_policy(model, compressed(_checked(model.policy), packing))
    if isinstance(model, ActorCriticPolicy):
        return compressed(_checked(model), packing)
    return Compressed(learner_to_shrink(model, "compressed"), packing)


def Decompress(model: Any) -> Any:  # noqa: N802
    """Return a model in single precision from a compressed one, with the rounded weights; it learns.

    Args:
        model: what ``Compress`` returned.

    Raises:
        ValueError: it is no compressed model.
    """
    if isinstance(model, Compressed):
        return model.learner
    if isinstance(model, OnPolicyAlgorithm) and isinstance(model.policy, CompressedPolicy):
        return _with_policy(model, decompressed(model.policy))
    if isinstance(model, CompressedPolicy):
        return decompressed(model)
    raise ValueError(f"{type(model).__name__} is not compressed; expected what metarl.Compress returns")


def _refuse_without_engine() -> None:
    if not set(torch.backends.quantized.supported_engines) - {"none"}:
        raise ValueError("torch has no engine for int8 on this platform; use metarl.Compress(model, 'bfloat16')")


def _checked(policy: Any) -> ActorCriticPolicy:
    known = (ActorCriticPolicy, CompressedPolicy, *MODULES.values())
    if type(policy) not in known or policy.use_sde:
        noise = " with state-dependent noise" if getattr(policy, "use_sde", False) else ""
        raise ValueError(
            f"a {type(policy).__name__}{noise} cannot be compressed; expected one of {', '.join(MODULES)} without it"
        )
    assert isinstance(policy, ActorCriticPolicy)
    return policy


def _with_policy(model: OnPolicyAlgorithm, policy: ActorCriticPolicy) -> OnPolicyAlgorithm:
    """Return a copy of a model with another policy, of a class and with arguments that make it again on loading."""
    found = copy.copy(model)
    found.policy, found.policy_class = policy, type(policy)
    found.policy_kwargs = architecture_of(policy)
    return found


def learner_to_shrink(model: Any, what: str) -> BaseLearner:
    """Return the learner of a model, for what is done to it (``compressed``).

    Raises:
        ValueError: it is no learner, or one with memory.
    """
    try:
        learner = learner_of(model)
    except ValueError as error:
        raise ValueError(
            f"{type(model).__name__} cannot be {what}; expected a learner, an adapted policy, or a PPO or A2C model of "
            "stable-baselines3"
        ) from error
    if learner.remembers or not isinstance(learner, BaseLearner):
        raise ValueError(
            f"learner {learner.name} acts with a memory, whose policies are not {what}; use one that adapts by "
            "gradients, such as maml"
        )
    return learner


class Compressed:
    """A learner with weights of fewer bits, made by ``Compress``.

    Attributes:
        learner: with the rounded weights, an ordinary learner in single precision, which evaluates, adapts and learns.
            The value function is rounded too; moments of an optimizer begin anew.
        packing: how weights are packed.

    Args:
        learner: is copied.
        packing: of the weights.
    """

    def __init__(self, learner: BaseLearner, packing: Packing) -> None:
        self.packing = packing
        buffers = _rounded(learner.functional_policy.buffers(), packing)
        self.learner = type(learner).from_settings(learner.given_settings, learner.policy_kwargs, buffers)
        state = learner.state
        self.learner.state = replace(
            state,
            parameters=_rounded(state.parameters, packing),
            critic=_rounded(state.critic, packing),
            own_tensors={
                name: torch.zeros_like(value) if name.startswith(_BEGIN_ANEW) else value.clone()
                for name, value in state.own_tensors.items()
            },
        )
        self.learner.tasks_trained_on = learner.tasks_trained_on

    @property
    def policy(self) -> CompressedPolicy:
        """The policy before adaptation, acting with packed weights."""
        return compressed(_checked(self.learner.policy), self.packing)

    def adapt(self, task: Any, **arguments: Any) -> CompressedPolicy:
        """Adapt to a task in single precision and return the adapted policy, acting with packed weights.

        The arguments and errors are those of ``BaseLearner.adapt``.
        """
        return compressed(_checked(self.learner.adapt(task, **arguments)), self.packing)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[NDArray[Any], Any]:
        """Return actions of the policy before adaptation, as stable-baselines3's ``predict`` does."""
        return self.policy.predict(observation, state, episode_start, deterministic)

    def save(self, path: str | Path) -> None:
        """Write a file with packed tensors (``.zip`` is added if it is missing); what was learned since is rounded.

        Raises:
            ValueError: the state has numbers that are not finite.
        """
        file = _file(path)
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "whole.zip"
            best, self.learner.best = self.learner.best, None
            try:
                self.learner.save(whole)
            finally:
                self.learner.best = best
            with open_zip(whole) as archive:
                facts, tensors = read_member(archive, _STATE, JSON_BYTES), read_member(archive, _TENSORS)
        packed: Parameters = {}
        for name, value in safetensors.torch.load(tensors).items():
            part = {name: value}
            exact = name.startswith(_KEPT_EXACT) and bool(value.any())
            packed |= part if exact else packed_tensors(part, self.packing)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(_MARK), f"{self.packing.form} {self.packing.bits}")
            archive.writestr(zipfile.ZipInfo(_STATE), facts, zipfile.ZIP_DEFLATED)
            archive.writestr(zipfile.ZipInfo(_TENSORS), safetensors.torch.save(packed), zipfile.ZIP_DEFLATED)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        allow: bool | str | Iterable[str] = False,
    ) -> Self:
        """Return what ``save`` wrote; the arguments and errors are those of ``BaseLearner.load``."""
        file = _file(path)
        if not file.is_file():
            raise ValueError(f"there is no file {str(file)!r}; expected one that Compressed.save wrote")
        try:
            with open_zip(file) as archive:
                form, bits = read_member(archive, _MARK, 100).decode().split()
                facts = read_member(archive, _STATE, JSON_BYTES)
                tensors = unpacked_tensors(safetensors.torch.load(read_member(archive, _TENSORS)))
            packing = Packing(form, int(bits))
        except Exception as error:  # damaged files raise errors of many types
            raise ValueError(
                f"{str(file)!r} is damaged or was not written by Compressed.save ({in_words(error)})"
            ) from error
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / file.name
            with zipfile.ZipFile(whole, "w") as archive:
                archive.writestr(_STATE, facts)
                archive.writestr(_TENSORS, safetensors.torch.save(tensors))
            try:
                learner = load_learner(whole, device=device, policy_kwargs=policy_kwargs, allow=allow)
            except ValueError as error:
                raise ValueError(str(error).replace(str(whole), str(file))) from error
        return cls(learner, packing)


def _rounded(tensors: Parameters, packing: Packing) -> Parameters:
    """Return tensors with the weights among them as they are after packing, on their devices."""
    found = unpacked_tensors(packed_tensors({name: value.cpu() for name, value in tensors.items()}, packing))
    return {name: found[name].to(value.device, value.dtype) for name, value in tensors.items()}


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".zip" else path.with_name(f"{path.name}.zip")
