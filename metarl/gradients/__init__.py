"""Derivatives: inner updates, their Jacobians, curvature and meta-updates; no environment, learner or logger."""
