"""Derivatives: inner updates, their Jacobians, curvature and meta-updates; no environments, learners or loggers."""
