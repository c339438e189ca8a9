"""First-order MAML: the second derivatives of the inner update are left out."""

from __future__ import annotations

from metarl.learners.maml import MAML


class FOMAML(MAML):
    """First-order MAML: as MAML, with the Jacobian of the inner update replaced by the identity.

    It increases ``mean_i J_i(theta_i')`` along ``mean_i grad J_i(theta_i')`` (Finn et al. 2017, section 5.2; Nichol et
    al. 2018, section 3). It needs no second derivatives, but that direction is not the gradient of the objective.
    """

    name = "fomaml"
    source = "Finn et al. 2017"
    first_order = True
