"""The settings of ``[policy]``: the network, its initial weights, and what of it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from metarl.agents.frozen.trained import SETTINGS, Trained
from metarl.fields import FORBID, BelowOne, Count, Finite, Name, Names, NoneOrCount, Patterns, Positive, Sizes, setting


@dataclass(frozen=True, kw_only=True)
class PolicyNetwork:
    """The policy and its initial weights."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    name: Name = setting(
        "MlpPolicy",
        "MlpPolicy, CnnPolicy, SmallCnnPolicy, MultiInputPolicy, GruPolicy, or module:Class, a policy of your own",
    )
    hidden_sizes: Sizes = setting(
        (64, 64),
        "widths of the hidden layers; after an image's features in CnnPolicy; the last is the memory in GruPolicy",
        "units",
    )
    activation: Literal["tanh", "relu"] = setting("tanh", "nonlinearity of the hidden layers")
    output_gain: Positive = setting(
        1.0, "initial size of the last layer's weights; with a small one learning can collapse", "factor"
    )
    log_std_init: Finite = setting(
        0.0, "initial exploration noise; actions are in [-1, 1]", "log of a standard deviation"
    )
    log_std_min: Finite = setting(
        -1.6094379124341003,
        "floor on the exploration noise; -1.609 is a deviation of 0.2",
        "log of a standard deviation",
    )
    features_extractor_class: str = setting(
        "", "a torch.nn.Module before the hidden layers, module:Class; empty: the policy's own"
    )
    features_extractor_kwargs: dict[str, Any] = field(
        default_factory=dict, metadata={"meaning": "arguments of features_extractor_class", "unit": ""}
    )
    freeze: Literal["none", "extractor"] | Patterns = setting(
        "none",
        "what neither adapts nor is trained: the features extractor, which is then computed once for each observation, "
        'or names and patterns of parameters, as ["mlp_extractor.policy_net.0.*"]',
    )
    features_precision: Literal["single", "half"] = setting(
        "single", "precision in which rollouts keep the features of a frozen features extractor"
    )
    lora_rank: NoneOrCount = setting(
        0, "rank of low-rank updates of linear and convolutional layers, whose own weights are frozen; 0: none"
    )
    lora_layers: Names = setting(
        (), 'layers with low-rank updates, names and patterns, as ["mlp_extractor.*"]; empty: all that are large enough'
    )
    context_size: Count = setting(
        5, 'additional inputs that adapt, in learner cavia and with inner.adapts = "context"', "numbers"
    )
    prune: BelowOne = setting(0.0, "weights of the actor that are 0 and stay 0, those of least magnitude", "share")
    prune_scope: Literal["global", "layer"] = setting(
        "global", "whether the smallest weights of all layers together are pruned, or the same share of each layer"
    )

    def trained(self, seed: int) -> Trained:
        """Return what of the policy is trained; the seed is that of initial low-rank updates."""
        return Trained(
            freeze=self.freeze,
            half=self.features_precision == "half",
            lora_rank=self.lora_rank,
            lora_layers=self.lora_layers,
            prune=self.prune,
            prune_scope=self.prune_scope,
            seed=seed,
        )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``build_policy`` besides what is trained."""
        given = {name: value for name, value in vars(self).items() if name not in SETTINGS}
        if not self.features_extractor_class:
            del given["features_extractor_class"]
        if not self.features_extractor_kwargs:
            del given["features_extractor_kwargs"]
        return given
