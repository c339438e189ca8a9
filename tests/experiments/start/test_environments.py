"""Training an environment by its name alone, and the sentences where that cannot be."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import forked
import gymnasium
import pytest
from tiny_runs import TINY

from metarl.experiments.arguments import parse
from metarl.experiments.configuration import parse_override, read_configuration
from metarl.guide.sizes import defaults

MODULE = '''
import os
import sys

import gymnasium
import numpy as np

print("imported")


class Cart(gymnasium.Env):
    """Pushed along a line; how strong a push is, is an argument."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, gain=1.0, render_mode=None):
        os.write(1, b"made\\n")
        self.gain = gain
        self.friction = 0.25
        self.lanes = 4
        self.max_speed = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.time = np.zeros(1, np.float32), 0
        return self.at, {}

    def step(self, action):
        self.time += 1
        self.at = self.at + np.float32(self.gain * (2 * action - 1) - self.friction)
        return self.at, -abs(float(self.at[0])), False, self.time == 6, {}


gymnasium.register("Cart-v0", Cart)
'''
SMALL = [setting for setting in TINY if not setting.startswith("family_kwargs")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_carts.py").write_text(MODULE)
    return tmp_path


def settings_of(name: str, *overrides: str, vary: tuple[str, ...] = ()) -> object:
    return read_configuration(name, [parse_override(text) for text in overrides], vary)


def test_an_ordinary_environment_trains_and_its_run_has_its_name(folder: Path) -> None:
    done = forked.run("train", *SMALL, "my_carts:Cart-v0", "--vary", "gain=0.5..2", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "my_carts:Cart-v0 has no configuration of its own" in done.stderr
    config = tomllib.loads((folder / "runs/my_carts-Cart-v0/config.toml").read_text())
    assert config["family"] == "metarl/Parameterized-v0"
    assert config["family_kwargs"] == {"env": "my_carts:Cart-v0", "parameters": {"gain": [0.5, 2]}}
    assert config["learning"]["tasks"] == 3  # as the command line says
    assert config["learning"]["gamma"] == 0.95  # as fits six steps
    assert config["learning"]["normalize_observations"] is True
    again = forked.run("evaluate", "runs/my_carts-Cart-v0", "--tasks", "2", "--episodes", "2", cwd=folder)
    assert again.returncode == 0, again.stderr


def test_a_configuration_to_edit_is_nothing_but_toml_and_trains_alike(folder: Path) -> None:
    words = ["my_carts:Cart-v0", "--vary", "gain=0.5..2", "--vary", "lanes=2,4", "learner=promp", "inner.steps=2"]
    printed = forked.run("init", *words, cwd=folder)
    assert printed.returncode == 0, printed.stderr
    (folder / "my.toml").write_text(printed.stdout)
    assert tomllib.loads(printed.stdout)["outer"]["kl_coefficient"] == 5e-4
    lines = printed.stdout.splitlines()
    for line, before in zip(lines[1:], lines, strict=False):
        if " = " in line and not line.startswith(("#", "env", "gain", "choices")):
            assert before.startswith("# "), line
    runs = [forked.run("train", *config, *SMALL[:-1], "--name", name, cwd=folder) for config, name in (
        (words, "words"), (["my.toml"], "file"))]  # fmt: skip
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    assert (folder / "runs/words/config.toml").read_text() == (folder / "runs/file/config.toml").read_text()
    assert (folder / "runs/words/results.json").read_text() == (folder / "runs/file/results.json").read_text()


def test_without_vary_the_sentence_names_what_could(folder: Path) -> None:
    done = forked.run("train", "my_carts:Cart-v0", cwd=folder)
    assert done.returncode == 2
    assert done.stderr == (
        "metarl: my_carts:Cart-v0 has no tasks (no task_space), so say what varies: --vary NAME=LOW..HIGH, as in "
        "--vary gain=0.5..2; its parameters are gain, friction, lanes\n"
    )
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_candidates_of_gymnasiums_own_are_their_physics(name: str) -> None:
    with pytest.raises(ValueError, match=r"--vary NAME=LOW\.\.HIGH, as in --vary g") as caught:
        settings_of(name)
    assert not any(word in str(caught.value) for word in ("total_mass", "screen", "fps", "render"))


def test_the_command_and_python_have_the_same_sizes() -> None:
    name, settings = read_configuration(
        "CartPole-v1", [("learning.iterations", 5)], ["gravity=5..15", "length=0.3..0.7"]
    )
    kwargs = {"env": "CartPole-v1", "parameters": {"gravity": [5, 15], "length": [0.3, 0.7]}}
    sized = defaults("metarl/Parameterized-v0", **kwargs)
    assert name == "CartPole-v1"
    assert settings.family_kwargs == kwargs
    assert settings.learning.iterations == 5
    assert (settings.learning.tasks, settings.learning.episodes) == (
        sized["learning"]["tasks"],
        sized["learning"]["episodes"],
    )
    assert settings.evaluation.test_tasks == sized["evaluation"]["test_tasks"]
    _, short = read_configuration("CartPole-v1", [("family_kwargs.max_episode_steps", 20)], ["gravity=5..15"])
    assert short.learning.tasks > settings.learning.tasks  # the batch is of steps


def test_a_family_needs_no_vary_and_a_shipped_name_wins() -> None:
    name, settings = read_configuration("metarl/TabularMDP-v0", [])
    assert (name, settings.family, settings.family_kwargs) == ("TabularMDP-v0", "metarl/TabularMDP-v0", {})
    before = dict(gymnasium.registry)
    gymnasium.register("navigation", "nowhere:Nothing")
    try:
        assert read_configuration("navigation", [])[1].family == "metarl/Navigation2D-v0"
    finally:
        gymnasium.registry.clear()
        gymnasium.registry.update(before)


@pytest.mark.parametrize(
    ("name", "vary", "message"),
    [
        ("cartpol", (), r"did you mean 'cartpole' \(a shipped configuration\) or 'CartPole-v1' \(an environment\)"),
        ("Navigation2D-v0", (), r"did you mean 'metarl/Navigation2D-v0' \(an environment\)"),
        ("qqqq", (), "shipped are acrobot"),
        ("no/such/file", (), "the path of a file of yours ends in .toml"),
        ("no_such_module:X-v0", (), "cannot be imported"),
        ("CartPole-v1", ("gravty=5..15",), "has no parameter 'gravty'; the nearest"),
        ("CartPole-v1", ("gravity=15..5",), "expected the lower end first"),
        ("navigation", ("gravity=5..15",), "--vary is for an environment, and 'navigation' is a configuration"),
        ("metarl/CartPoleParams-v0", ("gravity=5..15",), "has tasks of its own .*; leave --vary out"),
    ],
)
def test_a_name_or_range_that_does_not_fit_is_a_sentence(name: str, vary: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(name, vary=vary)


def test_wrong_settings_are_named_before_the_environment_is_made() -> None:
    with pytest.raises(ValueError, match=r"unknown setting 'learning.task'"):
        settings_of("no_such_module:X-v0", "learning.task=3")


@pytest.mark.parametrize(
    ("words", "config", "overrides"),
    [
        (["inner.steps=2", "navigation"], "navigation", ["inner.steps=2"]),
        (["--vary", "a=1..2", "inner.steps=2", "CartPole-v1"], "CartPole-v1", ["inner.steps=2"]),
        (["navigation", "--seed", "3", "inner.steps=2"], "navigation", ["inner.steps=2"]),
        (["inner.steps=2"], None, ["inner.steps=2"]),
    ],
)
def test_the_name_may_come_after_settings(words: list[str], config: str | None, overrides: list[str]) -> None:
    options = parse(["train", *words])
    assert (options.config, options.overrides) == (config, overrides)


def test_settings_without_a_name_say_where_it_goes(tmp_path: Path) -> None:
    done = forked.run("train", "inner.step_size=0.1", cwd=tmp_path)
    assert done.returncode == 2
    assert "name one or an environment before inner.step_size=0.1" in done.stderr


def test_a_runs_folder_is_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs/old").mkdir(parents=True)
    (tmp_path / "runs/old/config.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'metarl train --resume runs/old' goes on with it"):
        settings_of("runs/old")


def test_the_package_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "metarl", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:7]) == (0, "metarl ")


def test_a_file_of_the_folder_that_registers_the_name_is_suggested_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tank.py").write_text('import gymnasium\ngymnasium.register("Tank-v0", entry_point="tank:Tank")\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'Tank-v0'; tank.py in this folder names it, so write tank:Tank-v0"):
        read_configuration("Tank-v0", [])


def test_a_parameter_is_given_once() -> None:
    override = [("family_kwargs.parameters.gravity", [5, 15])]
    with pytest.raises(ValueError, match=r"'gravity' is given by --vary and by family_kwargs.parameters"):
        read_configuration("CartPole-v1", override, ["gravity=5..15"])
