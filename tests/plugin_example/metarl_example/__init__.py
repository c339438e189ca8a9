"""Registers the families of this package; metarl imports it through the ``metarl.envs`` entry-point group."""

import gymnasium

gymnasium.register(
    id="example/Throw-v0",
    entry_point="metarl_example.throw:ThrowEnv",
    max_episode_steps=5,
)
