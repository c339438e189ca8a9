"""Any ``torch.nn.Module`` as the features extractor of a policy, also by import path."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from metarl.agents.observations import map_observations

CLASS, ARGUMENTS = "features_extractor_class", "features_extractor_kwargs"


class ModuleExtractor(BaseFeaturesExtractor):
    """A module as stable-baselines3's features extractor; its output is flattened.

    Args:
        observation_space: of the policy, images with channels first.
        module_class: of the module, which is called with observations as stable-baselines3 preprocesses them: images
            as numbers in [0, 1], whole numbers one-hot, a dict for a Dict space.
        module_kwargs: its arguments.

    Raises:
        ValueError: it cannot be made, does not take such observations, or does not return a tensor with a row for each.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], module_class: type[nn.Module], module_kwargs: dict[str, Any]
    ) -> None:
        nn.Module.__init__(self)
        try:
            module = module_class(**module_kwargs)
        except Exception as error:  # a user's own code
            raise ValueError(f"the features extractor {module_class.__name__} cannot be made: {error}") from error
        width = _width(module, observation_space)
        super().__init__(observation_space, width)
        self.module = module

    def forward(self, observations: Any) -> Tensor:
        """Return the features ``[row, feature]``."""
        features: Tensor = self.module(observations)
        return features.flatten(1)


def _width(module: nn.Module, space: spaces.Space[Any]) -> int:
    """Return how many features a module has."""
    given = some_observations(space, 2)
    name = type(module).__name__
    training = module.training
    try:
        with torch.no_grad():
            found = module.eval()(preprocess_obs(given, space, normalize_images=True))
    except Exception as error:  # a user's own code
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the features extractor {name} does not take the observations {space}: {type(error).__name__}: {reason}"
        ) from error
    finally:
        module.train(training)
    if not isinstance(found, Tensor) or found.dim() < 2 or len(found) != 2:
        shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"the features extractor {name} returns {shown} for 2 observations; expected one tensor with 2 rows"
        )
    if found.dtype != torch.float32:
        raise ValueError(
            f"the features extractor {name} returns numbers of type {found.dtype}; expected torch.float32, as the last "
            "line of its forward makes them with .float()"
        )
    return int(found[0].numel())


def some_observations(space: spaces.Space[Any], count: int) -> Any:
    """Return the same random observations of a space at each call, ``[count, *obs]``, as tensors."""
    batch = batch_space(space, count)
    batch.seed(0)
    return map_observations(lambda part: torch.as_tensor(np.asarray(part)), batch.sample())


def agree(one: Tensor, other: Tensor) -> bool:
    """Whether outputs are the same but for rounding, which grows with the numbers that are computed with."""
    if one.shape != other.shape:
        return False
    largest = float(one.abs().nan_to_num(posinf=0.0).max())
    return torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-3 * largest, equal_nan=True)


def name_of(extractor: nn.Module) -> str:
    """Return the name of an extractor's class, or of that of the module in it."""
    return type(extractor.module if isinstance(extractor, ModuleExtractor) else extractor).__name__


def with_extractor(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a policy's arguments with the class of the features extractor as stable-baselines3 takes it.

    Args:
        arguments: in which ``features_extractor_class`` is a class of stable-baselines3's kind, another subclass of
            ``torch.nn.Module``, or the import path of one, ``module:Class``.

    Raises:
        ValueError: there is no such class.
    """
    if CLASS not in arguments:
        return arguments
    given, kwargs = arguments[CLASS], arguments.get(ARGUMENTS) or {}
    kind = _imported(given) if isinstance(given, str) else given
    if not isinstance(kind, type) or not issubclass(kind, nn.Module):
        raise ValueError(
            f"{CLASS} is {given!r}; expected a subclass of torch.nn.Module, or its import path 'module:Class'"
        )
    if issubclass(kind, BaseFeaturesExtractor):
        return {**arguments, CLASS: kind}
    return {**arguments, CLASS: ModuleExtractor, ARGUMENTS: {"module_class": kind, "module_kwargs": dict(kwargs)}}


def _imported(path: str) -> Any:
    module, separator, name = path.partition(":")
    if not separator:
        raise ValueError(f"{CLASS} is {path!r}; expected 'module:Class', as in 'torchvision.models:ResNet'")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{CLASS} is {path!r}, which cannot be imported: {error}") from error
