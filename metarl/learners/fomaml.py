"""First-order MAML: the derivative of the inner update is left out."""

from __future__ import annotations

from metarl.learners.maml import MAML


class FOMAML(MAML):
    """First-order MAML: as MAML, with the Jacobian of the inner update replaced by the identity.

    It increases ``mean_i J_i(theta_i')`` along ``mean_i grad J_i(theta_i')`` (Finn et al. 2017, section 5.2; Nichol et
    al. 2018, section 3): no second derivatives, at the price of a gradient that is not that of the objective.
    """

    name = "fomaml"
    source = "Finn et al. 2017"
    first_order = True
