"""MinAtar and minigrid: rewired controls, layouts, what is held out, and how bad input is reported."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import metarl
from metarl.envs import tasks as task_tools
from metarl.envs.families.minatar import GAMES, RAMPS
from metarl.envs.families.minigrid import channels_of

pytest.importorskip("minatar")
pytest.importorskip("minigrid")
MINATAR, MINIGRID = "metarl/MinAtar-v0", "metarl/MiniGrid-v0"
NO_OP, LEFT, RIGHT = 0, 1, 2  # breakout's actions in the order of its buttons


def controls(*numbers: int, **others: Any) -> dict[str, Any]:
    return {"controls": list(numbers), **(others or {"sticky": 0.0})}


def paddle(observation: Any) -> int:
    return int(observation[0, 9].argmax())


@pytest.mark.parametrize("family", [MINATAR, MINIGRID])
def test_checkers_find_nothing_and_the_docstring_is_a_data_sheet(family: str) -> None:
    check_env(gymnasium.make(family).unwrapped, skip_render_check=True)
    assert metarl.check_family(family) == []
    text = type(metarl.make(family).unwrapped).__doc__ or ""
    parts = ("What varies", "Hidden", "Observation", "Action", "Reward", "Ends", "Splits", "Source", "Versions")
    assert [part for part in parts if f"**{part}**" not in text] == []
    assert f"(``{family}``)" in text


@pytest.mark.parametrize("game", GAMES)
def test_each_game_plays_and_repeats_from_its_seed(game: str) -> None:
    env = metarl.make(MINATAR, game=game)
    task = metarl.sample_tasks(MINATAR, 1, seed=2, game=game)[0]
    assert ("level" in task) == (game in RAMPS)
    played = []
    for _ in range(2):
        env.action_space.seed(0)
        env.reset(seed=3, options={"task": task})
        steps = [env.step(env.action_space.sample())[:3] for _ in range(8)]
        played.append([(seen.tolist(), reward, ended) for seen, reward, ended in steps])
    assert played[0] == played[1]
    assert set(np.unique(played[0][0][0])) == {0.0, 1.0}


def test_a_button_does_what_the_task_says() -> None:
    env = metarl.make(MINATAR)
    for given in ((NO_OP, LEFT, RIGHT), (RIGHT, NO_OP, LEFT), (LEFT, RIGHT, NO_OP)):
        moves = []
        for button in range(3):
            before, _ = env.reset(seed=1, options={"task": controls(*given)})
            moves.append(paddle(env.step(button)[0]) - paddle(before))
        assert moves == [{NO_OP: 0, LEFT: -1, RIGHT: 1}[action] for action in given]


def test_a_sticky_button_repeats_the_last_action() -> None:
    env = metarl.make(MINATAR, sticky=[0.0, 1.0])
    before, _ = env.reset(seed=1, options={"task": {"controls": [NO_OP, LEFT, RIGHT], "sticky": 1.0}})
    after, *_ = env.step(LEFT)
    assert paddle(after) == paddle(before)  # each episode begins with no action to repeat
    assert (after != before).any()


def test_a_level_makes_the_game_faster_from_the_start() -> None:
    env = metarl.make(MINATAR, game="asterix", sticky=0.0)
    speeds = []
    for level in (0, 1, 3):
        env.reset(seed=1, options={"task": {"controls": [0, 1, 2, 3, 4], "sticky": 0.0, "level": level}})
        game = env.unwrapped.game
        speeds.append((game.spawn_speed, game.move_speed))
    assert speeds == [(10, 5), (9, 5), (7, 4)]


def test_controls_of_four_buttons_or_more_are_held_out() -> None:
    for family, kwargs in ((MINATAR, {"game": "space_invaders"}), (MINATAR, {"game": "asterix"}), (MINIGRID, {})):
        drawn = []
        for split in task_tools.SPLITS:
            tasks = metarl.sample_tasks(family, 300, seed=1, split=split, **kwargs)
            drawn.append({tuple(row) for row in tasks["controls"].tolist()})
        assert not drawn[0] & drawn[2]
        assert not drawn[0] & drawn[1]
        assert not drawn[1] & drawn[2]
        assert min(map(len, drawn)) >= 4
    layouts = [set(metarl.sample_tasks(MINIGRID, 300, split=split)["layout"].tolist()) for split in task_tools.SPLITS]
    assert not layouts[0] & layouts[2]


def test_a_layout_is_the_same_in_each_episode_and_its_goal_pays() -> None:
    env = metarl.make(MINIGRID, env="MiniGrid-Empty-5x5-v0", render_mode="rgb_array")
    task = controls(1, 2, 0, 3, layout=5)  # the first button turns right, the second goes ahead
    first, _ = env.reset(seed=1, options={"task": task})
    again, _ = env.reset(seed=2)
    np.testing.assert_array_equal(first, again)
    assert env.render().shape[2] == 3
    steps = [env.step(button) for button in (1, 1, 0, 1, 1)]
    assert [step[2] for step in steps] == [False] * 4 + [True]
    assert [step[4]["success"] for step in steps] == [False] * 4 + [True]
    assert steps[-1][1] == pytest.approx(1 - 0.9 * 5 / 100)


def test_layouts_differ() -> None:
    env = metarl.make(MINIGRID, env="MiniGrid-SimpleCrossingS9N1-v0")
    seen = {env.reset(options={"task": controls(0, 1, 2, 3, layout=n)})[0].tobytes() for n in range(12)}
    assert len(seen) > 1


def test_channels_hold_what_the_image_shows() -> None:
    image = np.zeros((7, 7, 3), np.uint8)
    image[1, 2] = (4, 3, 2)  # a locked purple door
    image[3, 3] = (1, 0, 0)  # empty
    seen = channels_of(image)
    assert np.argwhere(seen[:, 1, 2]).ravel().tolist() == [4, 11 + 3, 17 + 2]
    assert np.argwhere(seen[:, 3, 3]).ravel().tolist() == [1]
    assert seen.sum() == 3 + 48


def test_bad_input_is_one_sentence() -> None:
    for family, kwargs, message in (
        (MINATAR, {"game": "pong"}, "game is 'pong'; expected one of asterix, breakout"),
        (MINATAR, {"sticky": 1.5}, "sticky is 1.5; expected probabilities from 0 to 1"),
        (MINATAR, {"sticky": [0.4, 0.2]}, "the smaller end first"),
        (MINATAR, {"sticky": "much"}, "sticky is 'much'; expected a probability or"),
        (MINATAR, {"levels": 0}, "levels is 0"),
        (MINIGRID, {"env": "CartPole-v1"}, "env is 'CartPole-v1', a CartPoleEnv; expected a world of minigrid"),
        (MINIGRID, {"env": "MiniGrid-Emty-v0"}, "env is 'MiniGrid-Emty-v0'; expected a world of minigrid"),
        (MINIGRID, {"actions": ["left", "jump"]}, "actions has 'jump'; expected some of left"),
        (MINIGRID, {"actions": ["left", "left"]}, "expected two or more different ones"),
        (MINATAR, {"sticky": -0.1}, "sticky is -0.1; expected probabilities"),
    ):
        with pytest.raises(ValueError, match=message):
            metarl.make(family, **kwargs)
    for family in (MINATAR, MINIGRID):
        env = metarl.make(family)
        env.reset(seed=0)
        with pytest.raises(ValueError, match="expected a button, a whole number from 0 to"):
            env.unwrapped.step(9)
        with pytest.raises(ValueError, match="unknown render_mode"):
            type(env.unwrapped)(render_mode="ansi")
    with pytest.raises(ValueError, match="each number from 0 to 2 once"):
        metarl.make(MINATAR).reset(options={"task": controls(0, 0, 1)})
    with pytest.raises(ValueError, match="each number from 0 to 3 once"):
        metarl.make(MINIGRID).reset(options={"task": controls(0, 0, 1, 2, layout=1)})


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minatar", None)
    monkeypatch.setitem(sys.modules, "minatar.environments.breakout", None)
    monkeypatch.setitem(sys.modules, "minigrid", None)
    for family in (MINATAR, MINIGRID):
        with pytest.raises(ValueError, match=r"needs the extra \[games\]: pip install 'metarl-suite\[games\]'"):
            metarl.make(family)


@pytest.mark.parametrize("family", [MINATAR, MINIGRID])
def test_workers_play_as_one_process_does(family: str) -> None:
    tasks = metarl.sample_tasks(family, 4, seed=1)
    here = metarl.make_vec(family, 4)
    workers = metarl.envs.WorkerFamilyVectorEnv(family, 4, workers=2, step_timeout=60.0)
    played = []
    for env in (here, workers):
        env.action_space.seed(0)
        answers = [env.reset(seed=[1, 2, 3, 4], options={"tasks": tasks})[0]]
        for _ in range(6):
            answers += env.step(env.action_space.sample())[:4]
        played.append(answers)
        env.close()
    for one, other in zip(*played, strict=True):
        np.testing.assert_array_equal(one, other)
