"""The start of a new run from given parameters: of another run, a checkpoint or a stable-baselines3 model."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gymnasium.spaces import flatdim
from torch import Tensor

from metarl.agents import wrap_module
from metarl.agents.frozen.trained import SETTINGS
from metarl.agents.policies import ModulePolicy
from metarl.checkpoints import checkpoint_path, stored_checkpoint
from metarl.learner import BaseLearner
from metarl.learners.registry import find_learner, load_learner
from metarl.settings import Settings, as_dict
from metarl.state import State

_SECTIONS = ("seed", "device", "family_kwargs", "learning", "inner", "outer", "augment", "evaluation")
_ARCHITECTURE = ("name", "hidden_sizes", "activation")


def learner_from(settings: Settings, source: Path) -> tuple[BaseLearner, dict[str, Any]]:
    """Return a new learner that starts from given parameters, and what they are, for ``from.json``.

    From a checkpoint it takes parameters, value function and observation statistics, and if the learner is the same,
    the learner's own tensors (such as learned step sizes). Counts of iterations and environment steps begin at 0.

    Args:
        settings: of the new learner.
        source: a run's folder (its best parameters so far), a checkpoint, or a model's zip file.

    Raises:
        ValueError: there is no such file, it is damaged, or it does not fit the settings.
    """
    if not source.exists() and not checkpoint_path(source).is_file():
        raise ValueError(
            f"there is no {str(source)!r} to start from; expected a run's folder, a checkpoint that save() wrote, or "
            "the zip file of a PPO or A2C model of stable-baselines3"
        )
    path = stored_checkpoint(source) if source.is_dir() or not source.is_file() else source
    origin: dict[str, Any] = {"path": str(path.absolute())}
    try:
        origin["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        with zipfile.ZipFile(path) as archive:
            is_model = "policy.pth" in archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{str(path)!r} cannot be started from: it is neither a checkpoint of metarl nor the zip file of a model "
            f"of stable-baselines3 ({error})"
        ) from error
    if is_model:
        return _from_model(settings, path), {**origin, "kind": "stable-baselines3 model"}
    earlier: BaseLearner = load_learner(path, device=settings.device, allow=True)
    try:
        state = earlier.state
        if source.is_dir() and path.name == "last.zip" and earlier.best is not None:
            state = earlier.best.state
        learner = _from_checkpoint(settings, earlier, state, path)
    finally:
        earlier.close()
    facts = {"kind": "metarl checkpoint", "learner": earlier.name, "iteration": state.iteration}
    return learner, {**origin, **facts}


def _from_model(settings: Settings, path: Path) -> BaseLearner:
    plain = as_dict(settings)
    sections = {name: plain[name] for name in _SECTIONS}
    # What is trained of the model, and an extractor of one's own, which its file names in pickled code only.
    names = (*SETTINGS, "features_extractor_class", "features_extractor_kwargs")
    given = {name: getattr(settings.policy, name) for name in names}
    usual = Settings().policy
    policy_kwargs = {name: value for name, value in given.items() if value != getattr(usual, name)}
    learner: BaseLearner = find_learner(settings.learner).from_pretrained(
        path, settings.family, policy_kwargs=policy_kwargs, **sections
    )
    try:
        hidden = learner.policy_kwargs.get("net_arch")
        hidden = hidden.get("pi") if isinstance(hidden, dict) else hidden
        activation = getattr(learner.policy_kwargs.get("activation_fn"), "__name__", "").lower()
        own = {name: getattr(learner.given_settings.policy, name) for name in (*_ARCHITECTURE, "log_std_min")}
        if hidden:
            own["hidden_sizes"] = tuple(hidden)
        if activation:
            own["activation"] = activation
        _compare("policy", own, settings.policy, path)
    except BaseException:
        learner.close()
        raise
    learner.given_settings = replace(learner.given_settings, policy=settings.policy)
    return learner


def _compare(section: str, found: dict[str, Any], wanted: Any, path: Path) -> None:
    """Raise an error that says what to set if settings of a section differ from those of what is started from."""
    for name, there in found.items():
        here = getattr(wanted, name)
        if here != there:
            raise ValueError(
                f"{str(path)!r} has {section}.{name} = {_plain(there)}, and this run {_plain(here)}; to start from it, "
                f"set {section}.{name}={_plain(there)}"
            )


def _from_checkpoint(settings: Settings, earlier: BaseLearner, state: State, path: Path) -> BaseLearner:
    found, wanted = earlier.given_settings, find_learner(settings.learner)
    if earlier.remembers != wanted.remembers:
        has, needs = ("a memory", "none") if earlier.remembers else ("no memory", "one")
        raise ValueError(
            f"{str(path)!r} is of learner {earlier.name}, whose policy has {has}, and that of learner {wanted.name} "
            f"has {needs}; start from a run of a learner alike"
        )
    _compare("policy", {name: getattr(found.policy, name) for name in _ARCHITECTURE}, settings.policy, path)
    normalized = {"normalize_observations": found.learning.normalize_observations}
    _compare("learning", normalized, settings.learning, path)
    policy = earlier.functional_policy
    if any(getattr(found.policy, name) != getattr(settings.policy, name) for name in SETTINGS):
        policy, state = _trained_otherwise(settings, earlier, state, path)
    learner: BaseLearner = wanted.from_settings(settings, earlier.policy_kwargs, policy.buffers())
    try:
        learner.state = _taken_over(learner, earlier, state, path)
    except BaseException:
        learner.close()
        raise
    return learner


def _trained_otherwise(
    settings: Settings, earlier: BaseLearner, state: State, path: Path
) -> tuple[ModulePolicy, State]:
    """Return an earlier learner's policy of which other parts are trained, as settings say, and its state."""
    policy = earlier.functional_policy
    if not isinstance(policy, ModulePolicy):
        for name in SETTINGS:
            there, here = (getattr(of.policy, name) for of in (earlier.given_settings, settings))
            if there != here:
                raise ValueError(
                    f"{str(path)!r} has policy.{name} = {_plain(there)}, and this run {_plain(here)}, which cannot "
                    f"change in a {type(policy).__name__}; set policy.{name}={_plain(there)}"
                )
    assert isinstance(policy, ModulePolicy)
    whole = policy.module(state.parameters, state.critic)
    new = wrap_module(whole, settings.policy.log_std_min, settings.policy.trained(settings.seed))
    # In the module the exploration noise is at its floor at least; the learner's own value is kept.
    noise = {name: state.parameters[name] for name in {"log_std"} & set(state.parameters) & set(new.parameters())}
    return new, replace(state, parameters={**new.parameters(), **noise})


def _taken_over(learner: BaseLearner, earlier: BaseLearner, state: State, path: Path) -> State:
    for kind in ("observation_space", "action_space"):
        found, wanted = getattr(earlier, kind), getattr(learner, kind)
        if type(found) is not type(wanted) or found.shape != wanted.shape or flatdim(found) != flatdim(wanted):
            raise ValueError(
                f"{str(path)!r} was trained with the {kind.replace('_', ' ')} {found} of "
                f"{earlier.given_settings.family}; that of {learner.given_settings.family} is {wanted}, so it "
                "cannot start from it"
            )
    own, given = learner.state.tensors(), state.tensors()
    if _shapes(own["parameters"]) != _shapes(given["parameters"]):
        differing = sorted(set(_shapes(own["parameters"]).items()) ^ set(_shapes(given["parameters"]).items()))
        raise ValueError(
            f"{str(path)!r} of learner {earlier.name!r} has other parameters than this run's learner {learner.name!r} "
            f"({differing[0][0]} is in one only or has another shape), so it cannot start from them"
        )
    parts = {**own, "parameters": given["parameters"]}
    if _shapes(own["critic"]) == _shapes(given["critic"]):
        parts["critic"] = given["critic"]
    if learner.name == earlier.name and _shapes(own["extra"]) == _shapes(given["extra"]):
        parts["extra"] = given["extra"]
    normalizer = replace(learner.state.normalizer, observations=state.normalizer.observations)
    if normalizer.returns is not None and state.normalizer.returns is not None:
        normalizer = replace(normalizer, returns=state.normalizer.returns)
    return replace(learner.state, normalizer=normalizer).restored({**parts, "normalizer": normalizer.tensors()})


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def _plain(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)
