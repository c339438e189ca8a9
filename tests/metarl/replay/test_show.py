"""Replays from Python: what is played, counted and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IPython.core.formatters import HTMLFormatter
from PIL import Image
from small import remembering, small

import metarl
from metarl.learners.registry import describe_learners

TASK = [0.3, -0.2]
DRAWN = "toy_drawn:Drawn-v0"


def played(policy: Any, env: Any) -> list[float]:
    """Return the rewards of an episode of the most likely actions."""
    observation, _ = env.reset(seed=0)
    state, start, rewards, ended = None, np.ones(1, dtype=bool), [], False
    while not ended:
        action, state = policy.predict(observation, state, start, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        rewards.append(float(reward))
        start, ended = np.zeros(1, dtype=bool), terminated or truncated
    return rewards


def test_the_episodes_are_those_of_the_policies_that_adapt_returns(tmp_path: Path) -> None:
    model = small()
    before = {name: value.clone() for name, value in model.parameters.items()}
    replay = metarl.show(model, TASK, tmp_path / "replay.gif", steps=2, episodes=3, seed=5, deterministic=True)
    assert [episode.name for episode in replay.episodes] == ["before adaptation", "after 1 step", "after 2 steps"]
    # In this family every episode begins at the same place, whatever the seed.
    env = metarl.make(model.settings.family, task=TASK, **model.settings.family_kwargs)
    for steps, (episode, total) in enumerate(zip(replay.episodes, replay.returns, strict=True)):
        rewards = played(model.adapt(TASK, steps=steps, episodes=3, seed=5), env)
        np.testing.assert_allclose(episode.rewards, rewards, rtol=1e-4)
        assert total == pytest.approx(sum(rewards), rel=1e-4)
    assert replay.returns[0] != replay.returns[1] != replay.returns[2]
    assert replay.images.dtype == np.uint8
    assert replay.images.ndim == 4
    assert replay.images.shape[0] == len(replay.steps) == len(replay.episodes[0].rewards) + 1
    with Image.open(tmp_path / "replay.gif") as gif:
        assert gif.size == replay.images.shape[2:0:-1]
    assert all((model.parameters[name] == value).all() for name, value in before.items())


def test_with_memory_they_are_the_episodes_of_a_trial() -> None:
    model = remembering(learning={"trial_episodes": 3})
    replay = metarl.show(model, TASK, deterministic=True)
    assert [episode.name for episode in replay.episodes] == ["episode 1", "episode 2", "episode 3"]
    env = metarl.make(model.settings.family, task=TASK, **model.settings.family_kwargs)
    trial = played(model.adapt(TASK, episodes=0), metarl.Trial(env, 3))
    np.testing.assert_allclose(np.concatenate([one.rewards for one in replay.episodes]), trial, rtol=1e-4)
    assert len(metarl.show(model, TASK, steps=0).episodes) == 1
    with pytest.raises(ValueError, match="adapts from episode to episode; give steps"):
        metarl.show(model, TASK, episodes=2)


def test_the_same_seed_gives_the_same_replay_and_another_seed_another() -> None:
    model = small()
    one, same, other = (metarl.show(model, TASK, seed=seed) for seed in (1, 1, 2))
    assert one.to_gif() == same.to_gif()
    assert one.returns != other.returns
    assert metarl.show(model, TASK, seed=1, deterministic=True).returns != one.returns


@pytest.mark.parametrize("name", [entry["name"] for entry in describe_learners()])
def test_every_learner_can_be_shown(name: str) -> None:
    model = remembering() if name == "rl2" else small(name)
    replay = metarl.show(model)
    assert len(replay.episodes) == (1 if name == "task-aware" else 2 if name == "rl2" else 3)
    assert all(np.isfinite(replay.returns))
    test_tasks = metarl.sample_tasks(model.settings.family, 3, seed=model.settings.seed, split="test")
    assert f"[{float(f'{test_tasks[0][0]:.4g}')}" in replay.title
    if name == "random":
        with pytest.raises(ValueError, match="no most likely actions"):
            metarl.show(model, deterministic=True)


def test_of_many_points_eight_are_shown() -> None:
    replay = metarl.show(small("scratch"), TASK, steps=20, episodes=1)
    assert replay.labels == (0, 3, 6, 9, 11, 14, 17, 20)
    assert replay.episodes[-1].name == "after 20 steps"


def test_long_episodes_are_thinned_and_can_be_stopped() -> None:
    model = small(family=DRAWN, family_kwargs={"length": 50})
    replay = metarl.show(model, steps=0, frames=10)
    assert replay.every == 8
    assert replay.steps == [0, 8, 16, 24, 32, 40, 48, 50]
    assert replay.episodes[0].frames[:, 0, 0, 0].tolist() == replay.steps
    assert replay.returns == [sum(range(1, 51))]
    assert not replay.episodes[0].cut
    stopped = metarl.show(model, steps=0, max_steps=7)
    assert stopped.steps == list(range(8))
    assert stopped.episodes[0].cut


@pytest.mark.parametrize(
    ("told", "when", "expected"),
    [
        ((0, 1, 0), "any", [False, True, True, True]),
        ((0, 1, 0), "last", [False, True, False, False]),
        ((1,), "last", [True, True, True, True]),
        ((0,), "any", [False, False, False, False]),
        ((), "any", None),
    ],
)
def test_success_is_counted_as_in_an_evaluation(told: tuple[int, ...], when: str, expected: list[bool] | None) -> None:
    arguments = {"length": 4, "told": told}
    model = small(family=DRAWN, family_kwargs=arguments, evaluation={"success": when})
    replay = metarl.show(model, steps=1)
    success = replay.episodes[0].success
    assert expected == (None if success is None else success.tolist())
    assert replay.successes == (None if expected is None else [expected[-1]] * 2)
    assert ("success" in replay.table()) == (expected is not None)
    if expected is not None:
        assert [replay.episodes[0].success_at(step) for step in range(5)] == [False, *expected]
        rate = model.evaluate(steps=1, n_tasks=1, episodes=1).means("success")
        assert (rate == float(expected[-1])).all()


@pytest.mark.parametrize("picture", ["right", "grey", "with alpha", "large"])
def test_pictures_of_several_kinds_are_taken(picture: str) -> None:
    replay = metarl.show(small(family=DRAWN, family_kwargs={"picture": picture}), steps=0)
    assert replay.fps == 5
    assert replay.episodes[0].frames.shape == (4, *((120, 240) if picture == "large" else (180, 240)), 3)
    assert replay.episodes[0].frames[:, 5, 5].tolist() == [[time] * 3 for time in range(4)]


@pytest.mark.parametrize("picture", ["nothing", "numbers", "empty", "raises"])
def test_what_cannot_be_drawn_is_said_before_anything_is_played(picture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(family=DRAWN, family_kwargs={"picture": picture})
    monkeypatch.setattr(model, "collect", None)
    with pytest.raises(ValueError, match=r"toy_drawn:Drawn-v0 cannot be drawn: render\(\) (returned|raised)"):
        metarl.show(model)


def test_the_render_mode_is_passed_only_where_the_constructor_takes_it() -> None:
    told = metarl.show(small(family="toy_drawn:WithMode-v0"), steps=0)
    assert told.episodes[0].frames.any()
    for family in (DRAWN, "toy_drawn:WithMode-v0"):
        varied = metarl.parameterized(family, scale=(1.0, 3.0))
        replay = metarl.show(small(family=varied), {"scale": 2.0}, steps=0)
        assert replay.returns == [2.0 * (1 + 2 + 3)]
        assert replay.episodes[0].frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_mistakes_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    monkeypatch.setattr(model, "collect", None)
    (tmp_path / "mine.gif").write_text("mine")
    for arguments, part in [
        ({"task": [9.0, 0.0]}, r"task \[9.0, 0.0\] .*is outside"),
        ({"task": model.env}, "the task is an environment"),
        ({"path": tmp_path / "mine.gif"}, "is not overwritten"),
        ({"path": tmp_path / "x.png"}, "has to end in .gif or .mp4"),
        ({"steps": -1}, "steps is -1"),
        ({"episodes": 0}, "episodes is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"frames": 1}, "frames is 1"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": 51}, "fps is 51"),
        ({"fps": "fast"}, "fps is 'fast'"),
    ]:
        with pytest.raises(ValueError, match=part):
            metarl.show(model, **arguments)
    with pytest.raises(ValueError, match="the model is of type dict; expected a learner"):
        metarl.show({})
    with pytest.raises(ValueError, match="metarl/TabularMDP-v0 does not render, so there is nothing to show"):
        metarl.show(small(family="metarl/TabularMDP-v0"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.gif"]


def test_a_notebook_and_the_short_interface_show_it_too() -> None:
    short = metarl.MetaLearner(family=DRAWN, evaluation={"steps": 1, "episodes": 1})
    replay = metarl.show(short)
    shown = HTMLFormatter()(replay)
    assert '<img alt="toy_drawn:Drawn-v0, task' in shown
    assert "data:image/gif;base64,R0lGOD" in shown
    assert "before adaptation: return 6.00, after 1 step: return 6.00" in replay.in_words()
