"""Plain layers in the place of those with low-rank updates or masks, for policies that leave metarl."""

from __future__ import annotations

from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from metarl.agents.frozen.lora import LoraConv2d, LoraLinear, replace_part
from metarl.agents.frozen.masked import MaskedConv2d, MaskedLinear

CHANGED = (LoraLinear, LoraConv2d, MaskedLinear, MaskedConv2d)


def changed_layers(module: nn.Module) -> list[str]:
    """Return the names of the layers that compute with other weights than their own."""
    return [name for name, part in module.named_modules() if isinstance(part, CHANGED)]


def merge(module: ActorCriticPolicy) -> ActorCriticPolicy:
    """Put plain layers that compute the same in the place of these; return the policy."""
    for name in changed_layers(module):
        part = module.get_submodule(name)
        assert isinstance(part, CHANGED)
        replace_part(module, name, part.merged().to(part.weight.device).train(part.training))
    return module
