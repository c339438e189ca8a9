"""Learners by name: in settings, on the command line, and classes of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small as tiny
from small import Still, same, small

from metarl.experiments.command import main
from metarl.experiments.configuration import parse_override, read_configuration
from metarl.learners.registry import LEARNERS, read_settings
from metarl.settings import as_dict


def test_another_learner_or_update_in_an_override_replaces_the_outer_settings() -> None:
    def read(*overrides: str) -> Any:
        return read_configuration("navigation", [parse_override(text) for text in overrides])[1]

    assert read().outer.fisher_fraction == 0.125
    assert read("outer.update=trpo").outer.fisher_fraction == 0.125
    assert read("learner=fomaml").outer.fisher_fraction == 1.0
    changed = read("learner=promp", "outer.clip=0.2")
    assert (changed.outer.clip, changed.outer.epochs, changed.learning.gae_lambda) == (0.2, 5, 0.9)
    assert read("outer.update=ppo").outer.clip == 0.3
    assert read_settings(as_dict(changed)) == changed


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"learner": "reptil"}, "unknown learner 'reptil'; the nearest is 'reptile'"),
        ({"learner": "nowhere:Thing"}, "'nowhere:Thing' cannot be imported"),
        ({"learner": "metarl.settings:Settings"}, "is no meta-learner"),
        ({"outer": {"clip": 0.2}}, "outer.clip is a setting of outer.update = 'ppo', and this is 'trpo'"),
        ({"outer": {"update": "ppo", "max_kl": 0.2}}, "outer.max_kl is a setting of outer.update = 'trpo'"),
        ({"outer": {"update": "adam"}}, "outer.update is 'adam'; learner 'maml' takes 'trpo', 'ppo', 'vpg'"),
        ({"outer": {"credit": 0.2}}, "outer.credit is a setting of learner 'e-maml', not of 'maml'"),
        ({"learner": "reptile", "outer": {"max_kl": 0.2}}, "outer.max_kl is a setting of learner 'maml'"),
        ({"learner": "promp", "outer": {"epoch": 3}}, "unknown setting 'outer.epoch'; the nearest is 'outer.epochs'"),
        ({"inner": {"objective": "dicey"}}, "inner.objective is 'dicey'; it should be 'auto'"),
        ({"inner": {"baseline": "none"}}, "for inner.objective = 'dice', and this is 'policy-gradient'; set inner.ob"),
        ({"learner": "promp", "inner": {"baseline": "none"}}, "'dice', and this is 'likelihood-ratio'"),
    ],
)
def test_settings_that_do_not_fit_the_learner_are_named(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        read_settings(data)


def test_the_command_lists_the_learners_and_trains_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["learners", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == list(LEARNERS)
    assert all(entry["summary"].endswith((".", ":")) and entry["source"] for entry in listed)
    assert main(["learners"]) == 0
    assert "outer.update: trpo, ppo, vpg" in capsys.readouterr().out
    few = ["learning.iterations=2", "learning.tasks=2", "learning.episodes=2", "family_kwargs.max_episode_steps=5",
           "evaluation.tasks=2", "evaluation.test_tasks=2", "evaluation.episodes=2"]  # fmt: skip
    assert main(["train", "navigation", "learner=meta-sgd", *few]) == 0
    assert json.loads((tmp_path / "runs/navigation/results.json").read_text())["learner"] == "meta-sgd"
    assert main(["evaluate", "runs/navigation", "--tasks", "2", "--episodes", "2"]) == 0
    assert main(["train", "navigation", "learner=meta-sdg"]) == 2
    assert "the nearest is 'meta-sgd'" in capsys.readouterr().err


def test_a_class_of_ones_own_is_a_learner_by_its_module(tmp_path: Path) -> None:
    model = small(Still).learn(iterations=1)
    assert model.name == f"{tiny.__name__}:Still"
    model.save(tmp_path / "model")
    assert same(Still.load(tmp_path / "model").parameters, model.parameters)
