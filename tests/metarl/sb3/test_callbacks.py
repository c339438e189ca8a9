"""stable-baselines3's own callbacks, unmodified, with a meta-learner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import NAVIGATION, small
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.monitor import Monitor

import metarl
from metarl import MAML


def learner() -> MAML:
    model: MAML = small(family_kwargs={"max_episode_steps": 5}, evaluation={"every": 10})
    return model


def evaluation_env() -> Monitor:
    return Monitor(metarl.make(NAVIGATION, task=[0.1, 0.1], max_episode_steps=5))


def test_checkpoint_callback_saves_what_load_reads(tmp_path: Path) -> None:
    model = learner().learn(
        iterations=4, callback=CheckpointCallback(save_freq=2, save_path=str(tmp_path), name_prefix="maml")
    )
    steps = model.num_timesteps // 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"maml_{2 * steps}_steps.zip",
        f"maml_{4 * steps}_steps.zip",
    ]
    assert MAML.load(tmp_path / f"maml_{2 * steps}_steps.zip").iteration == 2


def test_eval_callback_evaluates_the_policy_before_adaptation(tmp_path: Path) -> None:
    callback = EvalCallback(
        evaluation_env(),
        n_eval_episodes=2,
        eval_freq=2,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path / "best"),
        verbose=0,
    )
    model = learner().learn(iterations=4, callback=callback)
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (2, 2)
    assert -20.0 < callback.last_mean_reward < 0.0
    assert MAML.load(tmp_path / "best" / "best_model").iteration in (2, 4)
    assert model.iteration == 4


def test_reward_threshold_and_no_improvement_stop() -> None:
    reached = StopTrainingOnRewardThreshold(reward_threshold=-1000.0, verbose=0)
    callback = EvalCallback(evaluation_env(), callback_on_new_best=reached, n_eval_episodes=1, eval_freq=2, verbose=0)
    assert learner().learn(iterations=6, callback=callback).iteration == 2
    stuck = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, verbose=0)
    callback = EvalCallback(evaluation_env(), callback_after_eval=stuck, n_eval_episodes=1, eval_freq=1, verbose=0)
    callback.best_mean_reward = 100.0
    assert learner().learn(iterations=9, callback=callback).iteration < 9


def test_max_episodes_stops() -> None:
    callback = StopTrainingOnMaxEpisodes(max_episodes=2 * 3 * 4 * 3)
    model = learner().learn(iterations=9, callback=callback)
    assert model.iteration == 3
    assert callback.n_episodes == 2 * 3 * 4 * 3


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_progress_bar_counts_iterations(capsys: pytest.CaptureFixture[str]) -> None:
    model = learner().learn(iterations=2)
    callback = ProgressBarCallback()
    model.learn(iterations=3, callback=callback, reset_num_timesteps=False)
    assert callback.pbar.n == callback.pbar.total == 3


def test_a_list_of_callbacks_and_every_n_timesteps() -> None:
    calls = []

    class Seen(BaseCallback):
        def _on_step(self) -> bool:
            calls.append(self.num_timesteps)
            return True

        def _on_training_end(self) -> None:
            calls.append(-1)

    steps = learner().learn(iterations=1).num_timesteps
    both = CallbackList([Seen(), EveryNTimesteps(n_steps=2 * steps, callback=Seen())])
    learner().learn(iterations=4, callback=both)
    assert calls == [steps, 2 * steps, 2 * steps, 3 * steps, 4 * steps, 4 * steps, -1]


def test_infos_hold_the_returns_and_lengths_of_the_episodes() -> None:
    found: list[Any] = []

    def keep(local: dict[str, Any], _: dict[str, Any]) -> bool:
        found.append((local["infos"], local["rewards"], local["dones"]))
        return True

    learner().learn(iterations=1, callback=keep)
    infos, rewards, dones = found[0]
    assert len(infos) == len(rewards) == len(dones) == 2 * 3 * 4
    assert dones.all()
    assert [info["episode"]["r"] for info in infos] == pytest.approx(list(rewards))
    assert {info["episode"]["l"] for info in infos} == {5}
