"""ANIL: only the head adapts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from metarl.agents import Policy
from metarl.agents.policies.selection import head_of, layers_of, refuse_part
from metarl.fields import FORBID, Count, setting
from metarl.learners.maml import MAML


@dataclass(frozen=True, kw_only=True)
class Head:
    """The parameters that adapt: the last layers, and for a box of actions the exploration noise."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    head_layers: Count = setting(1, "how many of the last layers adapt", "layers")


class ANIL(MAML):
    """ANIL: as MAML, with inner steps on the head alone; the meta-update changes all layers.

    ``theta_head' = theta_head - alpha grad_head L(theta)``, and ``theta_body' = theta_body``. With all layers in the
    head (``outer.head_layers``) it is MAML. The inner gradient stops at the head, so an inner update of a perceptron
    takes half as long as MAML's, and a Fisher-vector product a little more than half. Source: Raghu et al. 2020,
    section 4.
    """

    name = "anil"
    options = Head
    source = "Raghu et al. 2020"

    def adapting_parameters(self, policy: Policy) -> frozenset[str]:
        """Return the names of the head's parameters, and of the exploration noise.

        Raises:
            ValueError: ``outer.head_layers`` is more than the policy has, or ``inner.adapts`` is set.
        """
        refuse_part(self.settings.inner.adapts, self.name, "its head, of outer.head_layers layers")
        layers, wanted = layers_of(policy), self.settings.outer.head_layers
        if wanted > len(layers):
            raise ValueError(
                f"outer.head_layers is {wanted}, but the policy has {len(layers)} layers ({', '.join(layers)}); "
                f"expected at most {len(layers)}, with which ANIL is MAML"
            )
        return head_of(policy, wanted)
