"""The fast path of policies that equal a perceptron whose parameters are a function of theirs."""

from metarl.gradients.folds.backend import Fold, FoldedBackend
from metarl.gradients.folds.changed import ChangedFold, ChangedParts
from metarl.gradients.folds.choice import how_to_fold
from metarl.gradients.folds.context import ContextFold

__all__ = ["ChangedFold", "ChangedParts", "ContextFold", "Fold", "FoldedBackend", "how_to_fold"]
