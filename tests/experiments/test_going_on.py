"""Runs that are used before they are finished, that go on with more iterations, and that start from other runs."""

from __future__ import annotations

import contextlib
import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import damages
import pytest
import torch
from stable_baselines3 import DQN, PPO

import metarl
from metarl.experiments.command import main
from metarl.experiments.runs import Run
from metarl.learners.registry import load_learner

RUN = ("family_kwargs.pulls=5", "learning.tasks=2", "learning.episodes=2", "evaluation.tasks=2", "evaluation.every=3",
       "evaluation.test_tasks=3", "evaluation.episodes=2", "evaluation.steps=1")  # fmt: skip
SMALL = (*RUN, "policy.hidden_sizes=[4]")
SAME = ("results.json", "progress.csv", "config.toml", "checkpoints/last.zip", "checkpoints/best.zip")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs after 2, 3 and all of 6 iterations, ``early``, ``half`` and ``whole``, and ``long``, of 9."""
    out = tmp_path_factory.mktemp("made")
    damages.make_runs(out)
    command = ["train", str(out / "whole/config.toml"), "learning.iterations=9", "--out", str(out), "--name", "long"]
    assert main([*command, "--quiet"]) == 0
    return out


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Iterator[Path]:
    for name in ("early", "half", "whole", "long"):
        shutil.copytree(made / name, tmp_path / name)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Call the command, which has to refuse; return its sentence."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("metarl: ")
    return line


def test_an_unfinished_run_is_evaluated_and_pictured_with_its_best_parameters(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "half", "--tasks", "3", "--episodes", "2", "--steps", "1"]) == 0
    printed = capsys.readouterr().out
    said = "is unfinished (at iteration 3 of 6): the parameters are those after iteration 3, the best on validation"
    assert said in printed
    assert "train --resume half" in printed
    assert json.loads((here / "half/evaluations/1.json").read_text())["iteration"] == 3
    assert main(["picture", "half", "--tasks", "2"]) == 0
    assert said in capsys.readouterr().out
    assert (here / "half/adaptation.png").stat().st_size > 1000
    assert main(["evaluate", "early", "--tasks", "3"]) == 0
    assert "(at iteration 2 of 6): the parameters are those after iteration 2, not validated" in capsys.readouterr().out
    assert main(["evaluate", "whole", "--tasks", "3"]) == 0
    assert "unfinished" not in capsys.readouterr().out
    # As older versions left it: the best parameters are in the latest checkpoint only.
    (here / "half/checkpoints/best.zip").unlink()
    assert main(["evaluate", "half", "--tasks", "3", "--episodes", "2", "--steps", "1"]) == 0
    one, two = (json.loads((here / f"half/evaluations/{n}.json").read_text()) for n in (1, 2))
    assert one == two


def test_load_takes_the_folder_of_a_run(here: Path) -> None:
    best = metarl.MAML.load("whole/checkpoints/best.zip")
    for found in (metarl.MAML.load("whole"), load_learner(here / "whole"), metarl.MetaLearner.load("whole").learner):
        assert found.iteration == best.iteration
        assert all(torch.equal(found.parameters[name], value) for name, value in best.parameters.items())
    assert metarl.MAML.load("early").iteration == 2
    (here / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"'nothing' is a folder without checkpoints/best\.zip"):
        metarl.MAML.load("nothing")
    best.save("nothing")
    assert metarl.MAML.load("nothing").iteration == best.iteration
    best.save("whole")
    with pytest.raises(ValueError, match=r"may be the run in that folder or the file 'whole\.zip'"):
        metarl.MAML.load("whole")


@pytest.mark.parametrize("name", ["whole", "half"])
def test_a_run_goes_on_with_more_iterations_to_the_bits_of_one_that_had_them_from_the_start(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = here / name / "results.json"
    before = {path: path.read_bytes() for path in (results, here / name / "checkpoints/best.zip") if path.exists()}
    assert main(["train", "--resume", name, "learning.iterations=9"]) == 0
    assert "goes on after iteration" in capsys.readouterr().out
    for file in SAME:
        assert (here / name / file).read_bytes() == (here / "long" / file).read_bytes(), file
    assert tomllib.loads((here / name / "config-1.toml").read_text())["learning"]["iterations"] == 6
    assert (here / name / "results-1.json").exists() == (name == "whole")
    if name == "whole":
        assert (here / "whole/results-1.json").read_bytes() == before[results]
        assert (here / "whole/checkpoints/best-1.zip").read_bytes() == before[here / "whole/checkpoints/best.zip"]
    assert main(["train", "--resume", name, "learning.iterations=10", "learning.workers=1"]) == 0
    kept = ["config-1.toml", "config-2.toml", "results-2.json"] + (["results-1.json"] if name == "whole" else [])
    assert {path.name for path in (here / name).glob("*-[0-9].*")} == set(kept)


@pytest.mark.parametrize("stopped_at", ["write_config", "keep_earlier"])
def test_a_change_of_settings_that_was_killed_is_made_whole(
    stopped_at: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(Run, stopped_at)

    def stop(*arguments: object) -> None:
        original(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, stopped_at, stop)
        assert main(["train", "--resume", "whole", "learning.iterations=9"]) == 130
    # Where the configuration has the new value already, it need not be given again.
    again = [] if stopped_at == "write_config" else ["learning.iterations=9"]
    assert main(["train", "--resume", "whole", *again]) == 0
    for file in SAME:
        assert (here / "whole" / file).read_bytes() == (here / "long" / file).read_bytes(), file
    assert (here / "whole/results-1.json").is_file()
    assert not (here / "whole/config-2.toml").exists()


@pytest.mark.parametrize(
    ("run", "settings", "part"),
    [
        ("whole", ["inner.step_size=0.2"], "inner.step_size cannot change in a run that was begun"),
        ("whole", ["learning.iterations=6"], "is finished after iteration 6; go on with more iterations, as in"),
        ("whole", ["learning.iterations=3"], "is finished after iteration 6"),
        ("half", ["learning.iterations=3"], "learning.iterations is 3, but the run 'half' is at iteration 3 already"),
        ("half", ["learning.iterations=x"], "learning.iterations is 'x'"),
        ("half", ["learning.iterations"], "give only --device, --quiet, --profile and settings"),
        ("half", ["--from", "whole"], "give only --device, --quiet, --profile and settings"),
        ("half", ["device=gpu"], "unknown device"),
    ],
)
def test_what_cannot_change_in_a_run_is_refused_and_changes_nothing(
    run: str, settings: list[str], part: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in (here / run).rglob("*") if path.is_file() and path.name != "lock"}
    assert part in sentence(capsys, "train", "--resume", run, *settings)
    after = {path: path.read_bytes() for path in (here / run).rglob("*") if path.is_file() and path.name != "lock"}
    assert after == before


def test_a_setting_that_was_edited_by_hand_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = here / "half/config.toml"
    config.write_text(config.read_text().replace("iterations = 6", "iterations = 60"))
    assert "'half/config.toml' was changed since the run began" in sentence(capsys, "train", "--resume", "half")


def test_a_run_starts_from_a_run_and_resumes_to_the_same_bits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = metarl.MAML.load("whole")
    command = ["train", "bernoulli-bandit", *SMALL, "learning.iterations=2", "--from", "whole"]
    assert main([*command, "--name", "one"]) == 0
    origin = json.loads((here / "runs/one/from.json").read_text())
    assert (origin["kind"], origin["learner"], origin["iteration"]) == ("metarl checkpoint", "maml", best.iteration)
    assert origin["path"] == str(here / "whole/checkpoints/best.zip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metarl.experiments.training.finish_run", interrupt)
        assert main([*command, "--name", "two"]) == 130
    begun = metarl.MAML.load("runs/two")
    assert (begun.iteration, begun.num_timesteps, begun.best) == (0, 0, None)
    assert all(torch.equal(begun.parameters[name], value) for name, value in best.parameters.items())
    assert main(["train", "--resume", "runs/two"]) == 0
    for file in SAME:
        assert (here / "runs/two" / file).read_bytes() == (here / "runs/one" / file).read_bytes(), file
    # A run's best parameters are another start than its latest ones, and both than none.
    assert main([*command[:-1], "whole/checkpoints/last", "--name", "last", "learner=anil"]) == 0
    assert json.loads((here / "runs/last/from.json").read_text())["iteration"] == 6


def interrupt(run: Run, learner: metarl.BaseLearner, **options: object) -> None:
    learner.logger.close()
    raise KeyboardInterrupt


def test_learned_step_sizes_and_statistics_of_observations_are_taken_over(here: Path) -> None:
    command = ["train", "bernoulli-bandit", *SMALL, "learning.iterations=2", "learner=meta-sgd"]
    more = ["learning.normalize_observations=true"]
    assert main([*command, *more, "--name", "first"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metarl.experiments.training.finish_run", interrupt)
        assert main([*command, *more, "--from", "runs/first", "--name", "second"]) == 130
    one, two = load_learner("runs/first").state, load_learner("runs/second").state
    assert one.own_tensors
    for part, tensors in one.tensors().items():
        assert all(torch.equal(two.tensors()[part][name], value) for name, value in tensors.items()), part
    assert main([*command, "--from", "runs/first", "--name", "third"]) == 2
    assert not (here / "runs/third").exists()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PPO models of the bandit family, and a model of another algorithm."""
    out = tmp_path_factory.mktemp("models")
    env = metarl.RandomTask(metarl.make("metarl/BernoulliBandit-v0", pulls=5))
    PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu", policy_kwargs={"net_arch": [4]}).save(out / "ppo")
    DQN("MlpPolicy", env, device="cpu", buffer_size=10).save(out / "dqn")
    return out


def test_a_run_starts_from_a_model_of_stable_baselines3_and_resumes_to_the_same_bits(here: Path, models: Path) -> None:
    command = ["train", "bernoulli-bandit", *SMALL, "learning.iterations=2", "--from", str(models / "ppo")]
    assert main([*command, "--name", "one"]) == 0
    assert json.loads((here / "runs/one/from.json").read_text())["kind"] == "stable-baselines3 model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metarl.experiments.training.finish_run", interrupt)
        assert main([*command, "--name", "two"]) == 130
    given = metarl.MAML.from_pretrained(models / "ppo.zip", "metarl/BernoulliBandit-v0", family_kwargs={"pulls": 5})
    begun = metarl.MAML.load("runs/two")
    assert all(torch.equal(begun.parameters[name], value) for name, value in given.parameters.items())
    assert main(["train", "--resume", "runs/two"]) == 0
    for file in SAME:
        assert (here / "runs/two" / file).read_bytes() == (here / "runs/one" / file).read_bytes(), file
    # And a run from such a run.
    assert main([*command[:-1], "runs/one", "--name", "three"]) == 0


@pytest.mark.parametrize(
    ("source", "more", "part"),
    [
        ("nowhere", [], "there is no 'nowhere' to start from"),
        (".", [], "'.' is a folder without checkpoints/best.zip"),
        ("whole/config.toml", [], "'whole/config.toml' cannot be started from: it is neither"),
        ("whole", ["policy.hidden_sizes=[5]"], "set policy.hidden_sizes=[4]"),
        ("whole", ["policy.activation=relu"], "set policy.activation=tanh"),
        ("whole", ["learning.normalize_observations=true"], "set learning.normalize_observations=false"),
        ("whole", ["family_kwargs.arms=7"], "was trained with the"),
        ("whole", ["learner=cavia"], "has other parameters than this run's learner 'cavia'"),
        ("ppo", ["policy.hidden_sizes=[5]"], "set policy.hidden_sizes=[4]"),
        ("ppo", ["family_kwargs.arms=7"], "was trained with the"),
        ("dqn", [], "holds no actor-critic policy"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_no_folder(
    source: str, more: list[str], part: str, here: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(models / f"{source}.zip") if source in ("ppo", "dqn") else source
    assert part in sentence(capsys, "train", "bernoulli-bandit", *SMALL, *more, "--from", path)
    assert not (here / "runs").exists()
