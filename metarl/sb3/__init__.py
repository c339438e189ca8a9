"""stable-baselines3: models in, models out, loggers."""
