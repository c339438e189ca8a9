"""One's own environment as a family, as it is: classes, functions, parameters anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import own_environments as own
import pytest
import tomli_w
from own_environments import Cart

import metarl
from metarl.envs import RolloutError, make_in_processes, quick_check, workers
from metarl.envs.families.navigation import Navigation2DVectorEnv
from metarl.envs.sync import SyncFamilyVectorEnv

# Where a parameter is -> how the environment's own value is read.
PLACES: dict[str, Callable[[Any], Any]] = {
    "params['mass']": lambda env: env.params["mass"],
    'params["motor"]["gain"]': lambda env: env.params["motor"]["gain"],
    "params.motor.gain": lambda env: env.params["motor"]["gain"],
    "params/mass": lambda env: env.params["mass"],
    "physics.mass": lambda env: env.physics.mass,
    "frozen.mass": lambda env: env.frozen.mass,
    "wind/0": lambda env: env.wind[0],
    "wind[0]": lambda env: env.wind[0],
    "wind[-2]": lambda env: env.wind[0],
    "pair[1]": lambda env: env.pair[1],
    "cfg['drag'][1]": lambda env: env.cfg["drag"][1],
    "table.friction": lambda env: env.table["friction"],
    "_twice": lambda env: vars(env)["_twice"],
}


def limited(env: Any = Cart, parameters: Any = None, **given: Any) -> metarl.Family:
    return metarl.parameterized(env, parameters, max_episode_steps=15, **given)


def episode(family: Any, task: Any) -> list[float]:
    env = metarl.make(family, task=task)
    env.reset(seed=3)
    env.action_space.seed(3)
    rewards: list[float] = []
    ended = False
    while not ended:
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        rewards.append(float(reward))
        ended = terminated or truncated
    return rewards


@pytest.mark.parametrize("name", PLACES)
def test_a_parameter_may_be_anywhere(name: str) -> None:
    family = limited(Cart, {name: (0.5, 3.0)})
    env = metarl.make(family)
    for value in (0.75, 2.5):
        env.reset(options={"task": {name: value}})
        assert PLACES[name](env.unwrapped.inner.unwrapped) == value
    assert episode(family, {name: 0.6}) != episode(family, {name: 2.9})
    assert metarl.check_family(family) == []
    fresh = Cart()
    assert PLACES[name](fresh) == PLACES[name](Cart()) != 2.5, "the class and other environments are left alone"
    assert own.SHARED == {"drag": [0.1, 0.2]}
    assert Cart.table == {"friction": 0.0}
    again = tomllib.loads(tomli_w.dumps({"family_kwargs": family.kwargs}))["family_kwargs"]
    assert episode(metarl.Family(family.id, again), {name: 0.6}) == episode(family, {name: 0.6})


def test_toml_tables_of_dotted_names_are_paths() -> None:
    written = tomllib.loads(
        "parameters = {physics.mass = [0.5, 2], params.motor.gain = {low = 0.1, high = 10, log = true}}"
    )
    env = metarl.make("metarl/Parameterized-v0", env="own_environments:Cart", **written)
    assert set(env.get_wrapper_attr("task_space").spaces) == {"physics.mass", "params.motor.gain"}


def test_a_method_or_function_sets_a_parameter() -> None:
    ways = ({"mass": "set_mass"}, {"mass": lambda env, value: env.set_mass(value)})
    for way in ways:
        env = metarl.make(limited(Cart, mass=(0.5, 3.0), set=way))
        env.reset(options={"task": {"mass": 2.5}})
        assert env.unwrapped.inner.unwrapped.params["mass"] == 2.5
    family = limited(Cart, gain=(0.5, 3.0), set={"gain": "own_environments:set_motor"})
    env = metarl.make(family, task={"gain": 0.7})
    env.reset()
    assert env.get_wrapper_attr("inner").unwrapped.params["motor"]["gain"] == 0.7


def test_what_is_computed_from_parameters_is_computed_again() -> None:
    without = limited(Cart, power=(0.5, 3.0))
    assert episode(without, {"power": 0.5}) == episode(without, {"power": 3.0})
    with pytest.warns(UserWarning, match="'power' makes no difference.*derive = 'method'.*set = "):
        metarl.check_family(limited(Cart, {"power": (0.5, 3.0), "physics.mass": (0.5, 2.0)}))
    assert "no parameter makes a difference; the environment may have computed" in metarl.check_family(without)[0]
    for derive in ("recompute", lambda env: env.recompute()):
        family = limited(Cart, power=(0.5, 3.0), derive=derive)
        assert episode(family, {"power": 0.5}) != episode(family, {"power": 3.0})
        assert metarl.check_family(family) == []


def test_a_parameter_of_a_wrapper_and_of_a_constructor_without_default() -> None:
    for family in (
        limited(Cart, gain=(0.5, 2.0), wrappers=[own.Gain]),
        limited(Cart, gain=(0.5, 2.0), wrappers=["own_environments:Gain"]),
        limited(own.make_limited_cart, gain=(0.5, 2.0)),
        limited(lambda: own.Gain(Cart()), gain=(0.5, 2.0)),
        limited(own.Needs, mass=(0.5, 2.0)),
        limited("own_environments:Needs", mass=(0.5, 2.0)),
    ):
        (name,) = family.kwargs["parameters"]
        assert episode(family, {name: 0.5}) != episode(family, {name: 2.0})
        assert metarl.check_family(family) == []


def test_ranges_are_drawn_as_they_are_written() -> None:
    family = limited(
        Cart, {"params.mass": {"low": 0.01, "high": 100, "log": True}, "gears[0]": range(1, 4)}, power=(1, 2)
    )
    tasks = metarl.sample_tasks(family, 600, seed=1)
    logs = np.log10(tasks["params.mass"])
    assert -2 <= logs.min() < -1.9
    assert 1.9 < logs.max() <= 2
    assert abs(logs.mean()) < 0.15
    assert set(tasks["gears[0]"].tolist()) == {1, 2, 3}
    assert tasks == metarl.sample_tasks(family, 600, seed=1)
    assert tasks != metarl.sample_tasks(family, 600, seed=2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parameters": {"mass": (1, 2)}}, r"no parameter 'mass'; did you mean params\['mass'\] or physics.mass"),
        (
            {"parameters": {"params": (1, 2)}},
            r"'params' .* is no number but a dict; name a number in it, as params\['mass'\]",
        ),
        ({"parameters": {"frozen": (1, 2)}}, "is no number but a Frozen; name a number in it, as frozen.mass"),
        ({"parameters": {"wind": (1, 2)}}, r"'wind' has the shape \(2,\).*name an entry of it, as with /0"),
        ({"parameters": {"params['mss']": (1, 2)}}, "leads nowhere: dict has no 'mss'; in it there are .'mass'"),
        ({"parameters": {"wind[7]": (1, 2)}}, "leads nowhere: ndarray has no 7"),
        (
            {"parameters": {"gears[0]": (1, 2)}},
            "whole numbers, which would cut off fractions; write {low, high, integer",
        ),
        ({"parameters": {"params[mass]": (1, 2)}}, "has no parameter 'params.mass.'"),
        (
            {"overwritten": (1.5, 2)},
            "reset of .*Cart overwrites the parameter 'overwritten': the task set it to 1.[5-9]",
        ),
        ({"power": {"low": 0, "high": 1, "log": True}}, "logarithms need numbers above 0"),
        ({"power": {"low": 1, "high": 2, "lgo": True}}, "expected .low, high."),
        (
            {"power": (1, 2), "set": {"power": "st_mass"}},
            "set of parameter 'power' is 'st_mass'.*the nearest is set_mass",
        ),
        ({"power": (1, 2), "set": {"mass": "set_mass"}}, "set names 'mass', which parameters does not"),
        ({"power": (1, 2), "derive": "z"}, "derive is 'z'; expected the name of a method"),
        ({"power": (1, 2), "derive": "power"}, "derive is 'power', which is no method but 1.0"),
        ({}, "no parameter of .*Cart is given a range, so that nothing varies"),
        ({"parameters": 3}, "parameters is 3; expected a dict"),
        ({"parameters": {"power": (1, 2)}, "power": (1, 2)}, "'power' is given twice"),
    ],
)
def test_wrong_parameters_are_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        metarl.parameterized(Cart, given.pop("parameters", None), **given)
    assert "\n" not in str(caught.value)


def test_wrong_environments_are_one_sentence() -> None:
    shared = {"mass": 1.0}

    class Sharing(Cart):
        def __init__(self) -> None:
            super().__init__()
            self.params = {**shared, "motor": motor}

    motor = {"gain": 1.0}
    one = Cart()
    for env, message in (
        (Cart(), "already made .Cart., but many of its kind are needed; give its class"),
        (3, "the family is 3; expected its id"),
        (int, "the class int, which is no gymnasium.Env"),
        (lambda: 3, "must inherit from the gymnasium.Env class"),
        ("own_environments:Crat", "'own_environments:Crat'|'Crat'"),
        ("Crat-v7", "env 'Crat-v7' is unknown"),
        (Sharing, "'params.motor.gain' lies inside an object that several environments share"),
        (lambda: one, "lies inside an object that several environments share"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            metarl.parameterized(env, {"params.motor.gain": (0.5, 2)})
    endless = own.Endless()
    with pytest.raises(ValueError, match="returned the same one twice"):
        metarl.make_vec(lambda: endless, 2)


@pytest.mark.parametrize(
    "family",
    [own.Endless, "own_environments:Endless", lambda: own.Gain(own.Endless())],
    ids=["class", "name", "function"],
)
def test_classes_and_functions_are_families(family: Any) -> None:
    env = metarl.make(family, max_episode_steps=5, task=0.75)
    env.reset(seed=1)
    assert env.unwrapped.params["mass"] == 0.75
    assert metarl.make_vec(family, 3, max_episode_steps=5).num_envs == 3
    assert len(metarl.sample_tasks(family, 4)) == 4
    assert metarl.check_family(family, max_episode_steps=5) == []
    with pytest.raises(TypeError, match=r"name what varies, with metarl.parameterized"):
        metarl.make(Cart)


def test_a_batched_class_is_a_family() -> None:
    env = metarl.make(Navigation2DVectorEnv, max_episode_steps=7)
    assert env.reset(seed=1)[0].shape == (2,)
    assert metarl.make_vec(Navigation2DVectorEnv, 3, max_episode_steps=7).num_envs == 3


def test_the_quick_check_says_what_would_waste_hours() -> None:
    with pytest.raises(
        ValueError, match=r"no episode of .*Endless has ended after .* and it has no time limit; set one"
    ):
        quick_check(own.Endless)
    with pytest.raises(RolloutError, match=r"Broken, task .*, gave the reward nan at step 3"):
        quick_check(own.Broken, max_episode_steps=9)
    with pytest.raises(RolloutError, match=r"SeldomBroken, task .*, gave the reward nan"):
        quick_check(own.SeldomBroken, max_episode_steps=9)
    assert "same seed and actions are the same" in quick_check(own.Deaf, max_episode_steps=9)[0]
    assert quick_check(own.Endless, max_episode_steps=9) == []
    (idle,) = quick_check(limited(Cart, {"unused": (1, 2), "physics.mass": (0.5, 2)}))
    assert "'unused' makes no difference" in idle
    with pytest.raises(ValueError, match="no time limit"):
        quick_check(metarl.parameterized(Cart, {"physics.mass": (0.5, 2)}))
    assert quick_check(metarl.parameterized("CartPole-v1", gravity=(5, 15))) == []


def test_what_wears_while_it_is_stepped_is_as_the_task_says_in_each_episode() -> None:
    for family in (
        limited(own.Wearing, mass=(0.5, 3.0)),
        limited(own.Wearing, pull=(0.5, 3.0), set={"pull": lambda env, value: setattr(env, "mass", value)}),
    ):
        (name,) = family.kwargs["parameters"]
        env = metarl.make(family)
        env.reset(seed=1, options={"task": {name: 2.0}})
        for _ in range(3):
            assert env.unwrapped.inner.unwrapped.mass == 2.0
            for _ in range(4):
                env.step(env.action_space.sample())
            env.reset(seed=1)


def test_a_setter_that_takes_another_value_is_named() -> None:
    env = metarl.make("metarl/Parameterized-v0", env=own.Clipping, parameters={"load": (0.5, 3.0)})
    env.reset(options={"task": {"load": 1.25}})
    with pytest.raises(ValueError, match=r"takes the value 2\.5 of the parameter 'load' and then has 1.5"):
        env.reset(options={"task": {"load": 2.5}})


def test_environments_that_change_each_other_are_named_before_training() -> None:
    classy = limited(own.Classy, gain=(-2.0, 2.0), set={"gain": "set_gain"})
    with pytest.raises(ValueError, match="that play different tasks at the same time change each other"):
        quick_check(classy)
    nested = {"env": "own_environments:Cart", "parameters": {"cfg['drag'][1]": [0.1, 2]}, "max_episode_steps": 9}
    assert quick_check("metarl/Parameterized-v0", **nested) == []


def test_an_environment_that_cannot_be_closed_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="raised RuntimeError in close: stuck"):
        family = limited(own.BadClose, {"physics.mass": (0.5, 2)})
    assert family.kwargs["max_episode_steps"] == 15


@pytest.mark.parametrize(
    ("what", "message"), [("reward", "gave the reward '-0.*expected a number"), ("end", "gave terminated as 'False'")]
)
def test_texts_for_numbers_are_named(what: str, message: str) -> None:
    vector = metarl.make_vec(limited(own.Texts, {"physics.mass": (0.5, 2)}, env_kwargs={"what": what}), 2)
    vector.reset(seed=1)
    with pytest.raises(RolloutError, match=message):
        vector.step(np.zeros((2, 1), np.float32))


@pytest.mark.parametrize(
    "given", [{"wrappers": 3}, {"wrappers": None}, {"env_kwargs": 3}, {"set": "x"}, {"set": 3}], ids=str
)
def test_arguments_of_other_kinds_are_one_sentence(given: dict[str, Any]) -> None:
    (name,) = given
    if given[name] is not None:
        with pytest.raises(ValueError, match=f"{name} is .*; expected a (list|dict)"):
            limited(Cart, power=(1, 2), **given)
    else:
        assert limited(Cart, power=(1, 2), **given).id == "metarl/Parameterized-v0"


SCRIPT = """
import sys, warnings
import gymnasium, metarl
from own_environments import Slow
class Mine(Slow):
    pass
gymnasium.register(id="Mine-v0", entry_point={entry})
warnings.simplefilter("error" if {quiet} else "always")
family = metarl.Family("metarl/Parameterized-v0", dict(
    env="Mine-v0", parameters={{"params['mass']": [0.5, 2]}}, max_episode_steps=4))
model = metarl.MAML(
    "MlpPolicy", family, learning=dict(tasks=2, episodes=2, workers="auto"), evaluation=dict(tasks=2, episodes=2))
model.learn(iterations=1)
model.evaluate(n_tasks=2)
print("trained", model.num_timesteps)
"""


@pytest.mark.parametrize(
    ("entry", "elsewhere"),
    [
        ("Mine", False),
        ('"__main__:Mine"', False),
        ("lambda: Mine()", False),
        ("Slow", True),
        ('"own_environments:Slow"', True),
    ],
    ids=["class of the program", "name in the program", "lambda", "class of a module", "name in a module"],
)
def test_environments_registered_in_the_program_train_with_default_settings(
    entry: str, elsewhere: bool, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT.format(entry=entry, quiet=elsewhere))
    path = str(Path(own.__file__).parent)
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == ["trained", "32"], done.stderr
    said = done.stderr.count("step in one process, since another could not make them")
    assert said == (0 if elsewhere or os.cpu_count() == 1 else 1), done.stderr
    assert "Overriding" not in done.stderr


def test_what_only_this_process_can_make_steps_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is found out only by trying, as with a module that was made by hand."""
    module = types.ModuleType("made_by_hand")
    module.Mine = type("Mine", (own.Endless,), {"__module__": "made_by_hand"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_by_hand", module)
    monkeypatch.setattr(workers, "choose_workers", lambda *_, **__: 2)
    with pytest.warns(UserWarning, match="step in one process, since another could not make them"):
        vector = make_in_processes("made_by_hand:Mine", 3, workers="auto", step_timeout=30.0, max_episode_steps=4)
    assert isinstance(vector, SyncFamilyVectorEnv)
    with pytest.raises((ValueError, RolloutError), match="cannot be made in another process"):
        make_in_processes("made_by_hand:Mine", 3, workers=2, step_timeout=30.0, max_episode_steps=4)


def test_tasks_are_a_sequence_in_any_space() -> None:
    for family in (
        limited(Cart, {"physics.mass": (0.5, 2)}),
        "metarl/Navigation2D-v0",
        "metarl/TabularMDP-v0",
        own.Endless,
    ):
        tasks = metarl.sample_tasks(family, 5, seed=2)
        assert [len(tasks), len(list(tasks)), len(tasks[1:4])] == [5, 5, 3]
        metarl.as_task(metarl.make(family), tasks[0])
        assert repr(tasks[-1]) == repr(list(tasks)[4])
        assert type(tasks[:2]) is type(tasks)
        assert re.search(r"array|float", repr(tasks)) is None
        with pytest.raises(IndexError, match="there is no task 5; there are 5"):
            tasks[5]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env = metarl.make_vec(family, 2)
            env.reset(seed=1, options={"tasks": tasks[:2]})
            env.reset(seed=1, options={"tasks": list(tasks)[:2]})
    mass = metarl.sample_tasks(limited(Cart, {"physics.mass": (0.5, 2)}), 5)[0]["physics.mass"]
    assert isinstance(mass, float)
