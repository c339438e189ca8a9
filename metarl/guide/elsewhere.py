"""What names of stable-baselines3, and of papers and other libraries, are here."""

from __future__ import annotations

from collections.abc import Sequence

BATCH = ("learning.tasks", "learning.episodes")
_STEP_SIZE = ("inner.step_size", "outer.learning_rate")

# A name of elsewhere -> the settings that say the same here.
_NAMES: dict[str, tuple[str, ...]] = {
    "adapt_steps": ("inner.steps",),
    "activation_fn": ("policy.activation",),
    "batch": BATCH,
    "batch_size": BATCH,
    "clip_range": ("outer.clip",),
    "discount": ("learning.gamma",),
    "ent_coef": ("outer.entropy",),
    "entropy_coef": ("outer.entropy",),
    "env": ("family",),
    "env_kwargs": ("family_kwargs",),
    "eval_freq": ("evaluation.every",),
    "fast_batch_size": ("learning.episodes",),
    "fast_lr": ("inner.step_size",),
    "inner_lr": ("inner.step_size",),
    "inner_steps": ("inner.steps",),
    "lam": ("learning.gae_lambda",),
    "learning_rate": _STEP_SIZE,
    "lr": _STEP_SIZE,
    "max_grad_norm": ("outer.max_gradient_norm",),
    "meta_batch_size": ("learning.tasks",),
    "meta_lr": ("outer.learning_rate",),
    "n_envs": BATCH,
    "n_epochs": ("outer.epochs",),
    "n_eval_episodes": ("evaluation.episodes",),
    "n_iterations": ("learning.iterations",),
    "n_jobs": ("learning.workers",),
    "n_steps": BATCH,
    "n_workers": ("learning.workers",),
    "net_arch": ("policy.hidden_sizes",),
    "norm_obs": ("learning.normalize_observations",),
    "norm_reward": ("learning.normalize_rewards",),
    "num_envs": BATCH,
    "num_steps": BATCH,
    "num_workers": ("learning.workers",),
    "outer_lr": ("outer.learning_rate",),
    "shots": ("learning.episodes",),
    "target_kl": ("outer.max_kl",),
    "tau": ("learning.gae_lambda",),
    "timesteps": ("learning.iterations",),
    "total_timesteps": ("learning.iterations",),
    "vf_coef": ("outer.value_weight",),
}


def names_here(name: str, keys: Sequence[str], section: str = "") -> list[str]:
    """Return the settings that say what ``name`` says elsewhere, of those that there are.

    >>> names_here("lr", ["inner.step_size", "outer.learning_rate"])
    ['inner.step_size', 'outer.learning_rate']
    >>> names_here("lr", ["inner.step_size", "outer.learning_rate"], "inner")
    ['inner.step_size']

    Args:
        name: the last part of a setting's name.
        keys: the dotted names of all settings that there are.
        section: where the name was given; only settings of that section are meant, where some can be in it.
    """
    named = _NAMES.get(name.lower().replace("-", "_"), ())
    inside = [key for key in named if section and key.startswith(f"{section}.")]
    return [key for key in inside or named if key in keys]
