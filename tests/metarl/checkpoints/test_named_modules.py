"""Which modules loading a checkpoint imports: only those that the caller allows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import damage
import pytest
from small import NAVIGATION, same, small

from metarl import MAML, MetaLearner
from metarl.learners.registry import find_learner, load_learner

MODULE = """
import gymnasium
from stable_baselines3.common.policies import ActorCriticPolicy
from metarl import MAML
from metarl.envs.families.navigation import Navigation2DEnv

class Mine(MAML):
    "As MAML."

class Own(ActorCriticPolicy):
    "As MlpPolicy."

class Same(gymnasium.Wrapper):
    "As without."

gymnasium.register("Mine-v0", "{name}:Navigation2DEnv", max_episode_steps=5)
gymnasium.register("Cart-v0", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=5)
"""
NAME = "module_of_a_checkpoint"
GRAVITY = {"gravity": [5, 15]}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of one's own with the module ``inner``, which can be imported but is not."""
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "__init__.py").touch()
    (tmp_path / NAME / "inner.py").write_text(MODULE.replace("{name}", f"{NAME}.inner"))
    monkeypatch.syspath_prepend(tmp_path)
    yield NAME
    forget()


def forget() -> None:
    import gymnasium

    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]
    for name in ("Mine-v0", "Cart-v0"):
        gymnasium.registry.pop(name, None)


def parameterized(**more: Any) -> dict[str, Any]:
    return {"family": "metarl/Parameterized-v0", "family_kwargs": {"parameters": GRAVITY, **more}}


PLACES: dict[str, Callable[[str], Any]] = {
    "learner": lambda name: small(find_learner(f"{name}:Mine")),
    "policy": lambda name: small(policy=f"{name}:Own"),
    "family": lambda name: small(family=f"{name}:Mine-v0"),
    "environment": lambda name: small(**parameterized(env=f"{name}:Cart-v0")),
    "wrapper": lambda name: small(**parameterized(env="CartPole-v1", wrappers=[f"{name}:Same"])),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("allow", [f"{NAME}.inner", NAME, ["other", NAME], True])
def test_a_module_is_imported_only_where_the_caller_allows_it(
    place: str, allow: Any, package: str, tmp_path: Path
) -> None:
    module = f"{package}.inner"
    model = PLACES[place](module)
    model.save(tmp_path / "model")
    kind = MAML if place != "learner" else None
    forget()
    for load in (load_learner, MetaLearner.load, *([] if kind is None else [kind.load])):
        for refused in (False, (), "module_of", f"{NAME}.inner.more", "modules"):
            with pytest.raises(ValueError, match=rf"model\.zip' names the module '{module}'.*allow='{module}'"):
                load(tmp_path / "model", allow=refused)
        with pytest.raises(ValueError, match="names the module"):
            load(tmp_path / "model")
        assert module not in sys.modules
    loaded = load_learner(tmp_path / "model", allow=iter(allow) if isinstance(allow, list) else allow)
    assert same(loaded.parameters, model.parameters)
    assert module in sys.modules
    # What the program has imported needs no permission.
    assert same(load_learner(tmp_path / "model").parameters, model.parameters)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Edit a checkpoint's JSON, and seal it again."""
    members = damage.members_of(path.read_bytes())
    facts = json.loads(members[damage.STATE])
    change(facts)
    members[damage.STATE] = json.dumps(facts).encode()
    path.write_bytes(damage.zipped(damage.with_digest(members)))
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        {"env": "metarl/Parameterized-v0", "env_kwargs": {"env": f"{NAME}.inner:Cart-v0", "parameters": GRAVITY}},
        {"env": "CartPole-v1", "env_kwargs": {"kind": f"{NAME}.inner.Same"}},
        {"env": "CartPole-v1", "env_kwargs": {"a": [{"b": f"{NAME}.inner:Same"}]}},
    ],
    ids=["environment in an environment", "dotted name", "deep inside"],
)
def test_modules_deep_in_the_arguments_are_found(arguments: dict[str, Any], package: str, tmp_path: Path) -> None:
    small(**parameterized(env="CartPole-v1")).save(tmp_path / "model")
    path = rewritten(tmp_path / "model.zip", lambda facts: facts["settings"]["family_kwargs"].update(arguments))
    with pytest.raises(ValueError, match=f"names the module '{package}"):
        load_learner(path)
    assert f"{package}.inner" not in sys.modules


@pytest.mark.parametrize("name", ["os:system", "sys:exit", "builtins:input", "subprocess:Popen", "torch:load"])
def test_what_is_no_wrapper_is_not_called(name: str, tmp_path: Path) -> None:
    small(**parameterized(env="CartPole-v1")).save(tmp_path / "model")
    path = rewritten(tmp_path / "model.zip", lambda facts: facts["settings"]["family_kwargs"].update(wrappers=[name]))
    with pytest.raises(
        ValueError, match=f"model.zip' names '{name}' .wrappers., which is no environment's class and no wrapper"
    ):
        load_learner(path)


def test_what_comes_with_metarl_needs_no_permission(tmp_path: Path) -> None:
    wrapper = "gymnasium.wrappers:DelayObservation"
    small(**parameterized(env="gymnasium:CartPole-v1", wrappers=["gymnasium.wrappers:Autoreset"])).save(tmp_path / "m")
    assert load_learner(tmp_path / "m").settings.family_kwargs["env"] == "gymnasium:CartPole-v1"
    path = rewritten(tmp_path / "m.zip", lambda facts: facts["settings"]["family_kwargs"].update(wrappers=[wrapper]))
    with pytest.raises(ValueError, match=r"m\.zip' cannot be loaded"):  # it lacks an argument
        load_learner(path)


@pytest.mark.parametrize("allow", ["", 3, None, [3], [""]])
def test_an_allow_that_names_no_modules_is_refused(allow: Any, tmp_path: Path) -> None:
    small(family=NAVIGATION).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"allow is .* expected the name of a module, several names, or True"):
        MAML.load(tmp_path / "model", allow=allow)
