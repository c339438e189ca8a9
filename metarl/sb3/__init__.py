"""Interfaces to stable-baselines3: models in, models out, callbacks, loggers."""
