"""RL² from the command line: every shipped configuration, runs that resume, and comparisons by experience."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import not_installed
import numpy as np
import pytest
from small import same
from tiny_runs import scalars

from metarl.checkpoints import read_checkpoint
from metarl.experiments.command import main
from metarl.experiments.configuration import read_configuration, shipped_configurations
from metarl.learners.registry import find_learner
from metarl.learners.rl2 import RL2

TINY = [
    "learning.iterations=4", "learning.tasks=3", "learning.episodes=2", "policy.hidden_sizes=[6]", "evaluation.every=2",
    "evaluation.tasks=3", "evaluation.test_tasks=4", "evaluation.episodes=2", "family_kwargs.max_episode_steps=8",
]  # fmt: skip
MEMORY = ["learner=rl2", "learning.trial_episodes=3"]


@pytest.mark.parametrize("name", shipped_configurations())
def test_every_shipped_configuration_takes_it(name: str) -> None:
    _, settings = read_configuration(name, [("learner", "rl2"), ("policy.hidden_sizes", [4])])
    if settings.family in not_installed.FAMILIES:
        pytest.skip(not_installed.REASON)
    learner = find_learner("rl2").from_settings(settings)
    try:
        assert learner.settings.policy.name == "GruPolicy"
        assert learner.trials * 2 == settings.iteration_episodes
    finally:
        learner.close()


def test_a_configuration_with_memory_takes_a_learner_without(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('learner = "rl2"\n[policy]\nname = "GruPolicy"\nhidden_sizes = [5]\n')
    assert read_configuration(str(file), [])[1].policy.name == "GruPolicy"
    _, settings = read_configuration(str(file), [("learner", "maml")])
    assert settings.policy.hidden_sizes == (5,)
    learner = find_learner("maml").from_settings(settings)
    assert learner.functional_policy.layers is not None
    learner.close()


def test_a_run_with_all_that_a_run_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "navigation", *MEMORY, *TINY]) == 0
    run = tmp_path / "runs/navigation"
    results = json.loads((run / "results.json").read_text())
    assert results["counted"] == "earlier episodes"
    assert [entry["step"] for entry in results["adaptation"]] == [0, 1, 2]
    assert results["timesteps"] <= 4 * 4 * 3 * 8  # 4 trials of 3 episodes of 8 steps in each iteration
    tags = scalars(run)
    for k in range(3):
        assert len(tags[f"rollout/return_step_{k}"]) == 4
        assert len(tags[f"validation/return_step_{k}"]) == 2
    assert len(tags["train/value_error"]) == 4
    assert main(["evaluate", str(run), "--tasks", "2", "--episodes", "2"]) == 0
    assert main(["evaluate", str(run), "--tasks", "2", "--episodes", "2", "--steps", "4"]) == 0
    counts = [len(json.loads((run / f"evaluations/{n}.json").read_text())["adaptation"]) for n in (1, 2)]
    assert counts == [3, 5]
    assert main(["picture", str(run), "--tasks", "2"]) == 0
    again = tmp_path / "again"
    assert main(["train", str(run / "config.toml"), "--out", str(again), "--name", "same"]) == 0
    one, other = (json.loads((folder / "results.json").read_text()) for folder in (run, again / "same"))
    assert one == other


def test_any_environment_trains_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = [setting for setting in TINY if not setting.startswith("family_kwargs")]
    schedule = 'outer.learning_rate={start = 1e-3, end = 1e-5, schedule = "linear"}'
    assert main(["train", "CartPole-v1", "--vary", "gravity=5..15", *MEMORY, *tiny, schedule]) == 0
    run = tmp_path / "runs/CartPole-v1"
    assert [value for _, value in scalars(run)["train/outer_learning_rate"]][::3] == pytest.approx([1e-3, 1e-5])
    assert json.loads((run / "results.json").read_text())["counted"] == "earlier episodes"
    assert RL2.load(run).settings.policy.name == "GruPolicy"
    assert main(["evaluate", str(run), "--tasks", "2", "--episodes", "2"]) == 0
    again = json.loads((run / "evaluations/1.json").read_text())
    assert [entry["step"] for entry in again["adaptation"]] == [0, 1, 2]


def test_a_run_starts_from_one_alike_and_from_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = [*TINY, "learning.iterations=1"]
    assert main(["train", "navigation", *MEMORY, *tiny, "--name", "memory"]) == 0
    assert main(["train", "navigation", *tiny, "--name", "steps"]) == 0
    assert main(["train", "navigation", *MEMORY, *tiny, "--name", "more", "--from", "runs/memory"]) == 0
    first, following = (read_checkpoint(tmp_path / f"runs/{name}/checkpoints/last.zip") for name in ("memory", "more"))
    assert not same(first.tensors["parameters"], following.tensors["parameters"])
    capsys.readouterr()
    for learner, source in ((MEMORY, "runs/steps"), ([], "runs/memory")):
        assert main(["train", "navigation", *learner, *tiny, "--from", source]) == 2
        assert "start from a run of a learner alike" in capsys.readouterr().err


def test_a_file_to_edit_says_what_an_iteration_plays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "navigation", *MEMORY, "outer.trials=7"]) == 0
    printed = " ".join(capsys.readouterr().out.replace("#", "").split())
    assert "One iteration plays 7 trials x 3 episodes = 21 episodes." in printed
    assert 'name = "GruPolicy"' in printed


def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "cartpole", *MEMORY, *TINY]  # its episodes end at different times
    assert main([*arguments, "--name", "whole"]) == 0
    iterate = RL2.meta_iteration

    def interrupted(self: RL2, state: object, iteration: int) -> object:
        if iteration == 3:
            raise KeyboardInterrupt
        return iterate(self, state, iteration)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(RL2, "meta_iteration", interrupted)
        assert main([*arguments, "--name", "broken"]) == 130
    assert main(["train", "--resume", "runs/broken"]) == 0
    found = [read_checkpoint(tmp_path / f"runs/{name}/checkpoints/last.zip") for name in ("whole", "broken")]
    assert found[0].tensors.keys() == found[1].tensors.keys()
    for part, tensors in found[0].tensors.items():
        assert same(tensors, found[1].tensors[part]), part
    tables = [(tmp_path / f"runs/{name}/progress.csv").read_bytes() for name in ("whole", "broken")]
    assert tables[0] == tables[1]


def test_trials_too_long_for_the_memory_end_a_run_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "navigation", "learner=rl2", *TINY, "learning.trial_episodes=100000000"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]  # after the progress bar
    assert line.startswith("metarl: ")
    assert "the gradient through 1 trials of up to 800,000,000 steps needs about" in line
    assert "set outer.chunk to a number of steps" in line


def test_it_is_compared_by_experience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "maml,scratch,rl2 learning.trial_episodes=3,rl2 learning.trial_episodes=1"
    assert main(["compare", "navigation", "--learners", rows, "--seeds", "1", *TINY, "learning.iterations=1"]) == 0
    with (tmp_path / "comparison/comparison.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    before = {label: [] for label in rows.split(",")}
    for row in table:
        before[row["learner"]].append(int(row["earlier_episodes"]))
    assert before == {
        "maml": [0, 2, 4, 6], "scratch": [0, 2, 4, 6],
        "rl2 learning.trial_episodes=3": [0, 1, 2], "rl2 learning.trial_episodes=1": [0],
    }  # fmt: skip
    text = (tmp_path / "comparison/comparison.md").read_text()
    assert "adaptation steps of 2 episodes, or earlier episodes of a trial, for learners with memory" in text
    assert "| a step is |" in text
    assert "| maml | 1 | 2 episodes |" in text
    assert "| rl2 learning.trial_episodes=3 | 1 | 1 episode |" in text
    assert (tmp_path / "comparison/comparison.png").stat().st_size > 1000


def test_what_is_played_does_not_depend_on_how_many_are_played_at_once() -> None:
    returns = []
    for at_once in (7, 3, 1):
        model = RL2(family_kwargs={"max_episode_steps": 30}, learning={"tasks": at_once}, seed=2)
        returns.append(model.evaluate(n_tasks=7, episodes=3).returns)
    for other in returns[1:]:
        np.testing.assert_array_equal(returns[0], other)
