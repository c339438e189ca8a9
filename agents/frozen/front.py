"""A frozen front: a features extractor that is neither adapted nor trained, and so computed once for each observation.

Rollouts keep its features instead of the observations, and everything behind it, such as a perceptron, is a policy on
these features.
"""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import Tensor, nn

from metarl.agents.frozen.extractors import agree, name_of, some_observations
from metarl.agents.observations import map_observations, parts

AT_ONCE = 64  # observations, so that the memory of its layers stays small


class Front:
    """A frozen features extractor.

    Attributes:
        observation_space: of what it takes, images with channels first.
        space: of its features, a box.
        extractor: the features extractor, in evaluation mode.

    Args:
        observation_space: of what it takes, images with channels first.
        extractor: of stable-baselines3's kind; it is copied.
        half: whether features are rounded to half precision, in which rollouts keep them.

    Raises:
        ValueError: the extractor fails, or its features of an observation are not always the same.
    """

    def __init__(self, observation_space: spaces.Space[Any], extractor: nn.Module, *, half: bool = False) -> None:
        self.observation_space = observation_space
        self.extractor = copy.deepcopy(extractor).eval().requires_grad_(False)
        self.half = half
        width = int(extractor.features_dim)  # type: ignore[arg-type]
        self.space = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        self._begin()
        self._refuse_unsteady()

    def _begin(self) -> None:
        self._elsewhere: dict[torch.device, nn.Module] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes for ``copy`` and ``pickle``."""
        return {name: value for name, value in vars(self).items() if name not in ("_elsewhere", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the attributes."""
        self.__dict__.update(state)
        self._begin()

    def _refuse_unsteady(self) -> None:
        """Refuse an extractor of which features that are computed once would not be those of another time."""
        name, given = name_of(self.extractor), some_observations(self.observation_space, 4)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                first, again = self.features(given), self.features(given)
                alone = [self.features(map_observations(lambda part, n=n: part[n : n + 1], given)) for n in range(4)]
        except Exception as error:  # a user's own code
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the frozen features extractor {name} does not take the observations {self.observation_space}: "
                f"{type(error).__name__}: {reason}"
            ) from error
        if not agree(first, again):
            raise ValueError(
                f"the frozen features extractor {name} returns other features when it is given the same observations "
                "again; expected a function without random numbers and counters, since each observation's features "
                "are kept"
            )
        if not agree(first, torch.cat(alone)):
            raise ValueError(
                f"the frozen features extractor {name} returns other features for an observation alone than among "
                "others; compute each row by itself, without means or branches over rows"
            )

    def tensors(self) -> dict[str, Tensor]:
        """Return the extractor's own parameters and buffers by name, as those of a policy."""
        return {f"features_extractor.{name}": part for name, part in self.extractor.state_dict().items()}

    def features(self, observations: Any, extractor: nn.Module | None = None) -> Tensor:
        """Return the features ``[row, feature]`` of observations ``[row, *obs]``, as torch's operations.

        Args:
            observations: tensors.
            extractor: a copy of the extractor on the observations' device; default: the one on the CPU.
        """
        seen = preprocess_obs(observations, self.observation_space, normalize_images=True)
        found: Tensor = (self.extractor if extractor is None else extractor)(seen)
        return found.half() if self.half else found.float()

    def see(self, observations: Any, device: torch.device) -> NDArray[Any]:
        """Return the features of arrays of observations ``[row, *obs]``, computed on a device.

        Raises:
            ValueError: features are not finite, as those beyond 65,504 in half precision.
        """
        with self._lock:
            if device not in self._elsewhere:
                self._elsewhere[device] = copy.deepcopy(self.extractor).to(device)
        extractor, rows = self._elsewhere[device], len(parts(observations)[0])
        found = np.empty((rows, *self.space.shape), np.float16 if self.half else np.float32)
        with torch.inference_mode():
            for start in range(0, rows, AT_ONCE):
                some = slice(start, start + AT_ONCE)
                given = map_observations(lambda part, some=some: _tensor(part[some], device), observations)
                found[some] = self.features(given, extractor).cpu().numpy()
        if not np.isfinite(found).all():
            hint = "; set policy.features_precision = 'single'" if self.half else ""
            raise ValueError(f"the frozen features extractor returns features that are not finite{hint}")
        return found


def _tensor(part: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(part)).to(device)


def keep_evaluating(extractor: nn.Module) -> None:
    """Keep a frozen extractor in evaluation mode, in which dropout and batch statistics change nothing, in training."""
    extractor.register_forward_pre_hook(_evaluate)


def _evaluate(extractor: nn.Module, _: Any) -> None:
    if extractor.training:
        extractor.eval()


def refuse_nothing(extractor: nn.Module) -> None:
    """Refuse to freeze a features extractor that computes nothing.

    Raises:
        ValueError: it does not.
    """
    if type(extractor) is FlattenExtractor:
        raise ValueError(
            "policy.freeze is 'extractor', but this policy takes observations as they are; choose a policy with a "
            "features extractor, or name parameters: policy.freeze = ['mlp_extractor.policy_net.0.*']"
        )


class Headed(ActorCriticPolicy):
    """What is behind a frozen front and no plain perceptron."""


def behind(module: ActorCriticPolicy, front: Front) -> ActorCriticPolicy:
    """Return the policy on a front's features that has a policy's other parts.

    Raises:
        ValueError: there is nothing to freeze, or the value function has a features extractor of its own.
    """
    refuse_nothing(front.extractor)
    if not module.share_features_extractor:
        raise ValueError(
            "policy.freeze freezes the features extractor, and this policy has another one for the value function; "
            "leave share_features_extractor=False out"
        )
    kind = ActorCriticPolicy if type(module.mlp_extractor) is MlpExtractor else Headed
    # The architecture's small default is replaced by the policy's own parts.
    rest = kind(front.space, module.action_space, lambda _: 3e-4, net_arch=[], activation_fn=module.activation_fn)
    for name in ("mlp_extractor", "action_net", "value_net"):
        setattr(rest, name, copy.deepcopy(getattr(module, name)))
    if hasattr(module, "log_std"):
        rest.log_std = nn.Parameter(module.log_std.detach().clone())
    rest.net_arch = module.net_arch
    return rest.float()
