"""Policies of stable-baselines3 that act with packed weights.

The linear and convolutional layers of a ``CompressedPolicy`` hold packed parts (``metarl.agents.frozen.packing``) in
place of weights; biases, normalisation layers and the exploration noise stay as they are. Large linear layers compute
with int8 or half precision, each observation rounded by itself; small ones and convolutions, for which rounding
observations takes longer than it saves, unpack their weights at each call. Shared weights are unpacked once.

It is a policy like any other of stable-baselines3, which saves and loads it by itself, with only the packed parts. It
does not learn: ``decompressed`` returns a copy in single precision that does.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from metarl.agents.frozen.lora import convolution_arguments, replace_part
from metarl.agents.frozen.packing import Packing, int8_product, pack, unpack

_LARGE = 1 << 16  # weights from which it is faster to round observations than to unpack the weights
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
_MADE_ANEW = ("observation_space", "action_space", "lr_schedule", "use_sde")


class Packed(nn.Module):
    """The packed weight of a layer.

    Args:
        layer: whose weight and bias are taken.
        packing: how.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, packing: Packing) -> None:
        super().__init__()
        parts = pack(layer.weight, packing)
        for part, value in parts.items():
            self.register_buffer(f"weight:{part}", value)
        self.names = {part: f"weight:{part}" for part in parts}
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        self.packing = packing
        self._unpacked: Tensor | None = None
        self.register_load_state_dict_post_hook(_loaded)  # type: ignore[no-untyped-call]

    def parts(self) -> dict[str, Tensor]:
        """Return the packed parts."""
        return {part: getattr(self, name) for part, name in self.names.items()}

    def weight(self) -> Tensor:
        """Return the weight in single precision."""
        parts = self.parts()
        if self.packing.form != "shared":
            return unpack(parts)
        if self._unpacked is None or self._unpacked.device != parts["table"].device:
            self._unpacked = unpack(parts)
        return self._unpacked

    def forget(self) -> None:
        """Forget a weight that was unpacked, since the parts have changed."""
        self._unpacked = None


def _loaded(layer: nn.Module, _: Any) -> None:
    assert isinstance(layer, Packed)
    layer.forget()


class PackedLinear(Packed):
    """A linear layer with a packed weight."""

    def __init__(self, layer: nn.Linear, packing: Packing) -> None:
        super().__init__(layer, packing)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, given: Tensor) -> Tensor:
        """Return the layer's output."""
        parts = self.parts()
        large = self.in_features * self.out_features >= _LARGE and given.device.type == "cpu"
        if large and "int8" in parts:
            rows = given.reshape(-1, self.in_features)
            found = int8_product(rows, parts["int8"], parts["scale"]).reshape(*given.shape[:-1], -1)
            return found if self.bias is None else found + self.bias
        if large and self.packing.form in parts:
            weight = parts[self.packing.form]
            bias = None if self.bias is None else self.bias.to(weight.dtype)
            return nn.functional.linear(given.to(weight.dtype), weight, bias).float()
        return nn.functional.linear(given, self.weight(), self.bias)

    def plain(self) -> nn.Linear:
        """Return the layer in single precision."""
        return _with(nn.Linear(self.in_features, self.out_features, bias=self.bias is not None), self)


class PackedConv2d(Packed):
    """A convolution with a packed weight."""

    def __init__(self, layer: nn.Conv2d, packing: Packing) -> None:
        super().__init__(layer, packing)
        self.arguments = convolution_arguments(layer)

    def forward(self, given: Tensor) -> Tensor:
        """Return the layer's output."""
        stride, padding, dilation = (self.arguments[name] for name in ("stride", "padding", "dilation"))
        return nn.functional.conv2d(given, self.weight(), self.bias, stride, padding, dilation)

    def plain(self) -> nn.Conv2d:
        """Return the layer in single precision."""
        return _with(nn.Conv2d(**self.arguments), self)


def _with(layer: Layer, packed: Packed) -> Layer:
    """Give a layer the numbers of a packed one."""
    state = {"weight": packed.weight(), **({} if packed.bias is None else {"bias": packed.bias})}
    layer.load_state_dict(state)
    return layer


def _packed(layer: nn.Module, packing: Packing) -> Packed | None:
    """Return a layer with a packed weight, or None for a module that stays as it is."""
    if type(layer) is nn.Linear:
        return PackedLinear(layer, packing)
    if type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding_mode == "zeros":
        return PackedConv2d(layer, packing)
    return None


class CompressedPolicy(ActorCriticPolicy):
    """A policy of stable-baselines3 that acts with packed weights, and does not learn.

    Args:
        arguments: of ``ActorCriticPolicy``.
        form: see ``Packing``.
        bits: see ``Packing``.
        settings: further ones of ``ActorCriticPolicy``.
    """

    def __init__(self, *arguments: Any, form: str, bits: int, **settings: Any) -> None:
        self.packing = Packing(form, bits)
        super().__init__(*arguments, **settings)

    def _build(self, lr_schedule: Any) -> None:
        self.ortho_init = False  # weights are loaded
        super()._build(lr_schedule)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.zeros_(layer.weight)  # which are packed at once
        self.pack_layers()

    def pack_layers(self) -> None:
        """Put layers with packed weights in the place of the others."""
        for name, layer in list(self.named_modules()):
            packed = _packed(layer, self.packing)
            if packed is not None:
                replace_part(self, name, packed)
        _renew_optimizer(self)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own: dict[str, Any] = {"form": self.packing.form, "bits": self.packing.bits}
        return {
            **super()._get_constructor_parameters(),
            **own,
            "share_features_extractor": self.share_features_extractor,
        }

    def set_training_mode(self, mode: bool) -> None:
        """Refuse to learn.

        Raises:
            ValueError: it is to learn.
        """
        if mode:
            raise ValueError(
                "a compressed policy acts and does not learn; metarl.Decompress(model) returns a copy in single "
                "precision that does, and a learner that starts from it makes one itself"
            )
        super().set_training_mode(mode)


def architecture_of(policy: ActorCriticPolicy) -> dict[str, Any]:
    """Return the arguments that make a policy of the same architecture, besides its spaces."""
    given = {**policy._get_constructor_parameters(), "share_features_extractor": policy.share_features_extractor}
    # The arguments of all distributions are listed; those of state-dependent noise are None and do not apply.
    return {key: value for key, value in given.items() if key not in _MADE_ANEW and value is not None}


def copied(policy: ActorCriticPolicy) -> ActorCriticPolicy:
    """Return a copy of a policy, also of one that learns."""
    # The latest distribution has a graph of derivatives, which cannot be copied deeply.
    return copy.deepcopy(policy, {id(policy.action_dist): copy.copy(policy.action_dist)})


def compressed(policy: ActorCriticPolicy, packing: Packing) -> CompressedPolicy:
    """Return a copy of a policy that acts with packed weights.

    Raises:
        ValueError: a weight is too large for half precision.
    """
    made: Any = decompressed(policy)
    made.__class__ = CompressedPolicy
    made.packing = packing
    made.pack_layers()
    made.set_training_mode(False)
    return made  # type: ignore[no-any-return]


def decompressed(policy: ActorCriticPolicy) -> ActorCriticPolicy:
    """Return a copy of a policy, in single precision."""
    plain: Any = copied(policy)
    if isinstance(policy, CompressedPolicy):
        plain.__class__ = ActorCriticPolicy
        for name, layer in list(plain.named_modules()):
            if isinstance(layer, PackedLinear | PackedConv2d):
                replace_part(plain, name, layer.plain().to(policy.device))
        _renew_optimizer(plain)
    return plain  # type: ignore[no-any-return]


def _renew_optimizer(policy: ActorCriticPolicy) -> None:
    """Give a policy an optimizer of the parameters that it has now."""
    step_size = policy.optimizer.param_groups[0]["lr"]
    policy.optimizer = policy.optimizer_class(policy.parameters(), lr=step_size, **policy.optimizer_kwargs)  # type: ignore[call-arg]
