"""From stable-baselines3 to metarl: a PPO or A2C model, or its zip file, as the start of a meta-learner.

From a file, only tensors and plain JSON are read. The zip file also holds pickled objects; loading these could run
arbitrary code. Whatever a file declares, no more is read or built than it holds.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.save_util import data_to_json
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from metarl.agents import Normalizer, new_normalizer, wrap_module
from metarl.agents.frozen.extractors import with_extractor
from metarl.agents.frozen.packing import unpacked_tensors
from metarl.agents.frozen.trained import ALL_TRAINED, SETTINGS, Trained
from metarl.agents.normalization import Moments
from metarl.agents.observations import channels_first
from metarl.agents.policies import ModulePolicy
from metarl.agents.policies.build import MODULES
from metarl.agents.seeded import Seeded
from metarl.envs import make, own_actions
from metarl.sb3.bounds import Bounded, refuse_larger
from metarl.sb3.own_actions import fold_actions
from metarl.sb3.weights_file import read_tensors
from metarl.untrusted import in_words, open_zip, read_json, read_member, shown

_SPACE_FIELDS = ("_shape", "dtype", "low", "high", "n", "nvec", "start", "spaces")
_KEPT_ARGUMENTS = (
    "net_arch", "activation_fn", "log_std_init", "features_extractor_class", "features_extractor_kwargs",
    "normalize_images",
)  # fmt: skip
# Possessive and not begun inside a word, so that no text takes longer than its length.
_NUMBER = re.compile(r"(?<![\w.])[-+]?+(?:\d++\.?+\d*+(?:[eE][-+]?+\d++)?+|inf)(?![\w.])")
_DATA_BYTES = 64 << 20  # of a file's JSON, which holds pickled observations too
_UNBOUNDED = 3.4e38  # as older libraries write infinity in single precision
_REFUSED_ARGUMENTS = {
    "use_sde": "explores with state-dependent noise (use_sde=True)",
    "squash_output": "squashes its actions (squash_output=True)",
}


@dataclass(frozen=True)
class Source:
    """The data of a pretrained model.

    Attributes:
        described: the model's name in messages.
        tensors: its policy's state dict.
        arguments: of its policy's constructor.
        spaces: ``observation_space`` and ``action_space``, each a dict of the fields that are known.
        statistics: the ``VecNormalize`` around its environment, or None.
    """

    described: str
    tensors: dict[str, Tensor]
    arguments: dict[str, Any]
    spaces: dict[str, dict[str, Any]]
    statistics: VecNormalize | None


def read_source(source: Any, policy_kwargs: dict[str, Any]) -> Source:
    """Return the data of a PPO or A2C model, or of the zip file of one, with compressed weights in single precision.

    Args:
        source: the model, a path, a policy, or a learner, of which it is the policy before adaptation.
        policy_kwargs: arguments of its policy that a file holds only in pickled form.

    Raises:
        ValueError: the source is neither, is damaged, or is of a kind that cannot be used; the message says why.
    """
    if isinstance(source, OnPolicyAlgorithm):
        return _from_policy(f"the {type(source).__name__} model", source.policy, source.get_vec_normalize_env())
    policy = getattr(source, "policy", source)  # of a learner, the one before adaptation
    if isinstance(policy, ActorCriticPolicy):
        return _from_policy(f"the {type(source).__name__}", policy, None)
    if isinstance(source, str | Path):
        return _from_file(Path(source), {key: part for key, part in policy_kwargs.items() if key not in SETTINGS})
    raise ValueError(
        f"{type(source).__name__} cannot be taken over; expected a PPO or A2C model of stable-baselines3, or the path "
        "of its zip file"
    )


def _from_policy(described: str, policy: Any, statistics: VecNormalize | None) -> Source:
    if not isinstance(policy, ActorCriticPolicy):
        raise ValueError(f"{described} has a {type(policy).__name__}, expected an ActorCriticPolicy")
    given = policy._get_constructor_parameters()
    _refuse(described, {"use_sde": policy.use_sde, "squash_output": given["squash_output"]})
    arguments = {key: given[key] for key in _KEPT_ARGUMENTS}
    arguments["share_features_extractor"] = policy.share_features_extractor
    return Source(
        described=described,
        tensors=unpacked_tensors({name: value.detach().cpu().clone() for name, value in policy.state_dict().items()}),
        arguments=arguments,
        spaces={
            "observation_space": _plain_space(policy.observation_space),
            "action_space": _plain_space(policy.action_space),
        },
        statistics=statistics,
    )


def _from_file(path: Path, policy_kwargs: dict[str, Any]) -> Source:
    if not path.is_file() and path.suffix != ".zip":
        path = path.with_name(path.name + ".zip")
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; expected a model that stable-baselines3 saved")
    described = repr(str(path))
    try:
        with open_zip(path) as archive:
            data = read_json(read_member(archive, "data", _DATA_BYTES), finite=False)
            tensors = unpacked_tensors(read_tensors(read_member(archive, "policy.pth")))
    except Exception as error:  # damaged and foreign files raise errors of many types
        raise ValueError(f"{described} is damaged or no model of stable-baselines3 ({in_words(error)})") from error
    if not isinstance(data, dict) or "action_net.weight" not in tensors or "value_net.weight" not in tensors:
        raise ValueError(f"{described} holds no actor-critic policy; expected a PPO or A2C model")
    kept = data.get("policy_kwargs") or {}
    found = {name: data.get(name) or {} for name in ("observation_space", "action_space")}
    for name, table in {"policy_kwargs": kept, **found}.items():
        if not isinstance(table, dict):
            raise ValueError(f"{described} is damaged: its {name} is {shown(table)}, expected a table")
    _refuse(described, {**kept, "use_sde": data.get("use_sde") or kept.get("use_sde")})
    arguments = {
        key: _plain_argument(described, key, value)
        for key, value in kept.items()
        if key in (*_KEPT_ARGUMENTS, "share_features_extractor") and key not in policy_kwargs
    }
    return Source(described, tensors, {**arguments, **policy_kwargs}, found, None)


def _refuse(described: str, arguments: dict[str, Any]) -> None:
    for key, reason in _REFUSED_ARGUMENTS.items():
        if arguments.get(key):
            raise ValueError(f"{described} {reason}, which cannot be taken over; train one without")


def _plain_argument(described: str, key: str, value: Any) -> Any:
    """Return an argument from the plain description that a file holds besides the pickled value, if that suffices."""
    text = value if isinstance(value, str) else ""
    name = re.fullmatch(r"<class 'torch\.nn\.modules\.[\w.]+\.(\w+)'>", text)
    if name is not None and isinstance(getattr(torch.nn, name[1], None), type):
        return getattr(torch.nn, name[1])
    own = {f"<class '{kind.__module__}.{kind.__name__}'>": kind for kind in (FlattenExtractor, NatureCNN)}
    if text in own:
        return own[text]
    if "<" in text:
        raise ValueError(
            f"{described} keeps {key} = {shown(text)} only as pickled code, which is not run; give it: "
            f"from_pretrained(..., policy_kwargs={{{key!r}: ...}})"
        )
    return value


def _plain_space(space: spaces.Space[Any]) -> dict[str, Any]:
    """Return the plain JSON with which stable-baselines3's files describe a space."""
    return dict(json.loads(data_to_json({"space": space}))["space"])


@dataclass(frozen=True)
class TakenOver:
    """A model as the start of a learner.

    Attributes:
        policy_name: stable-baselines3's name of the policy.
        architecture: ``policy_kwargs`` that make such a policy, including the floor on its log_std.
        module: a policy with the model's weights, for the mapped action space.
        normalizer: with the statistics of observations that the model was trained with, or None.
    """

    policy_name: str
    architecture: dict[str, Any]
    module: ActorCriticPolicy
    normalizer: Normalizer | None

    def policy(self, log_std_min: float, trained: Trained = ALL_TRAINED) -> ModulePolicy:
        """Return the policy as pure functions of the parameters that are trained."""
        return wrap_module(self.module, log_std_min, trained)


def take_over(
    source: Any,
    family: str,
    family_kwargs: dict[str, Any],
    policy_kwargs: dict[str, Any],
    vec_normalize: VecNormalize | None,
    *,
    log_std_min: float,
    check_spaces: bool = True,
) -> TakenOver:
    """Return a PPO or A2C model, or the zip file of one, as the start of a learner on a family.

    Args:
        source: the model, or a path.
        family: with the spaces that the model was trained on.
        family_kwargs: arguments of the family's constructor.
        policy_kwargs: arguments of the model's policy that a file keeps only pickled.
        vec_normalize: the ``VecNormalize`` that the model was trained with; the model's own where it is not given.
        log_std_min: the floor on the noise, which is lowered to the model's where that is smaller.
        check_spaces: refuse a model whose spaces are not the family's; else they are taken to be the family's own.

    Raises:
        ValueError: see ``BaseLearner.from_pretrained``.
    """
    for label, given in (("family_kwargs", family_kwargs), ("policy_kwargs", policy_kwargs)):
        if not isinstance(given, dict):
            raise ValueError(f"{label} is {given!r}; expected a dict")
    if vec_normalize is not None and not isinstance(vec_normalize, VecNormalize):
        raise ValueError(_no_statistics(vec_normalize, family))
    policy_kwargs = with_extractor(policy_kwargs)
    found = read_source(source, policy_kwargs)
    env = make(family, **family_kwargs)
    try:
        foreign, mapped = own_actions(env), env.action_space
        space = channels_first(env.observation_space)
    finally:
        env.close()
    actions = foreign
    if check_spaces:
        check_space(found.described, "observation space", found.spaces["observation_space"], space)
        actions = check_space(found.described, "action space", found.spaces["action_space"], foreign, mapped)
    name, module = make_module(found, space, actions)
    if isinstance(actions, spaces.Box) and actions != mapped:
        fold_actions(module, actions)
    module.action_space = mapped
    statistics = vec_normalize if vec_normalize is not None else found.statistics
    described = {**architecture(module), **{key: policy_kwargs[key] for key in SETTINGS if key in policy_kwargs}}
    if isinstance(mapped, spaces.Box):
        described["log_std_min"] = min(log_std_min, float(module.log_std.detach().min()))
    return TakenOver(name, described, module, None if statistics is None else take_statistics(space, statistics))


def _no_statistics(given: Any, family: str) -> str:
    """Return the sentence on a ``vec_normalize`` that is none; its file holds pickled code, which is not run here."""
    if not isinstance(given, str | Path):
        return f"vec_normalize is {given!r}; expected the VecNormalize that the model was trained with"
    return (
        f"vec_normalize is the path {str(given)!r}; expected the VecNormalize itself, since its file is pickled code "
        "that only you can trust: from_pretrained(..., "
        f"vec_normalize=VecNormalize.load({str(given)!r}, DummyVecEnv([lambda: metarl.make({family!r})])))"
    )


def check_space(described: str, kind: str, found: dict[str, Any], *accepted: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return that of the accepted spaces which a model was trained on; limits of 3.4e38 and more count as none.

    Raises:
        ValueError: the model was trained on none of them.
    """
    for space in accepted:
        expected = _plain_space(space)
        if all(_same(found.get(field), expected.get(field)) for field in _SPACE_FIELDS):
            return space
    trained = {field.strip("_"): found[field] for field in _SPACE_FIELDS if found.get(field) is not None}
    raise ValueError(
        f"{described} was trained with the {kind} {shown(trained)}; the family's is {accepted[0]}; if they mean the "
        "same, insist with from_pretrained(..., check_spaces=False)"
    )


def _same(found: Any, expected: Any) -> bool:
    """Whether two descriptions of a space's field differ by the spelling of numbers at most."""
    if len(str(found)) > 10 * len(str(expected)) + 1000:  # no other spelling is so much longer
        return False
    (words, numbers), (other_words, other_numbers) = _spelled(found), _spelled(expected)
    return (
        words == other_words and len(numbers) == len(other_numbers) and np.allclose(numbers, other_numbers, rtol=1e-5)
    )


def _spelled(value: Any) -> tuple[str, list[float]]:
    """Return the words and the numbers of a description."""
    text = str(value)
    numbers = [float(number) for number in _NUMBER.findall(text)]
    unbounded = [math.copysign(math.inf, number) if abs(number) >= _UNBOUNDED else number for number in numbers]
    return " ".join(_NUMBER.sub("#", text).replace(",", " ").split()), unbounded


def make_module(source: Source, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> Any:
    """Return the policy's name, and a stable-baselines3 policy with a source's architecture and weights.

    Args:
        source: the data of the model.
        observation_space: of the family.
        action_space: that the model was trained on.

    Raises:
        ValueError: the tensors do not fit, usually because an entry of ``policy_kwargs`` is missing.
    """
    if isinstance(observation_space, spaces.Dict):
        name = "MultiInputPolicy"
    else:
        name = "CnnPolicy" if any(key.startswith("features_extractor.cnn.") for key in source.tensors) else "MlpPolicy"
    with Seeded(0):  # any seed would do, since all weights are overwritten
        try:
            refuse_larger(source.arguments, source.tensors)
            with Bounded(source.tensors):
                seen: Any = channels_first(observation_space)
                module = MODULES[name](seen, action_space, lambda _: 3e-4, **source.arguments).float()
                _check_tensors(module, source.tensors)
                module.load_state_dict(source.tensors)
        except Exception as error:  # a policy's constructor may raise anything for arguments of a damaged file
            raise ValueError(
                f"the weights of {source.described} do not fit a {name} with {shown(source.arguments)}; give what is "
                f"missing as policy_kwargs ({in_words(error)})"
            ) from error
    return name, module


def _check_tensors(module: ActorCriticPolicy, tensors: dict[str, Tensor]) -> None:
    """Refuse whole numbers where a policy has others, which torch would convert, and weights that are not finite."""
    weights = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for name, value in module.state_dict().items():
        if name in tensors and tensors[name].is_floating_point() != value.is_floating_point():
            raise ValueError(f"its tensor {name!r} is of {tensors[name].dtype}, and the policy's of {value.dtype}")
        numbers = tensors.get(name, value)
        if not bool((numbers.isfinite() if name in weights else ~numbers.isnan()).all()):
            raise ValueError(f"its tensor {name!r} has numbers that are not finite")


def architecture(module: ActorCriticPolicy) -> dict[str, Any]:
    """Return the arguments that make a policy like ``module``, independent of stable-baselines3's defaults."""
    given = module._get_constructor_parameters()
    kept = {key: given[key] for key in _KEPT_ARGUMENTS if key != "log_std_init"}
    return {**kept, "share_features_extractor": module.share_features_extractor}


def take_statistics(space: spaces.Space[Any], statistics: VecNormalize) -> Normalizer | None:
    """Return the observation statistics of a ``VecNormalize`` as a normaliser; None if it normalises no observations.

    Raises:
        ValueError: the statistics do not fit this observation space.
    """
    if not statistics.norm_obs:
        return None
    given = statistics.obs_rms if isinstance(statistics.obs_rms, dict) else {"": statistics.obs_rms}
    empty = new_normalizer(space, True, False)
    observations = {}
    for key, moments in given.items():
        if key not in empty.observations or empty.observations[key].mean.shape != moments.mean.shape:
            raise ValueError(f"the VecNormalize has statistics of {key or 'observations'} that are none of {space}")
        mean, variance = (torch.as_tensor(part, dtype=torch.float64).clone() for part in (moments.mean, moments.var))
        observations[key] = Moments(mean, variance, float(moments.count))
    return Normalizer(observations=observations, clip=float(statistics.clip_obs), epsilon=float(statistics.epsilon))
