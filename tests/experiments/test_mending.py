"""Going on with a run, files of which are damaged, missing or of another one: what is said and done about it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from damages import cut, empty, foreign, garbage, listed, make_runs

from metarl.experiments.command import main

Damage = Callable[[Path, Path, np.random.Generator], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``half``, a run after 3 of 6 iterations, ``whole``, the same to its end, and ``other``, another."""
    out = tmp_path_factory.mktemp("made")
    make_runs(out)
    return out


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(made / "half", tmp_path / "half")
    with contextlib.chdir(tmp_path):
        yield tmp_path / "half"


def resume(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Go on with the run; return the status and the sentences."""
    status = main(["train", "--resume", "half"])
    return status, [line for line in capsys.readouterr().err.split("\n") if line.startswith("metarl: ")]


def assert_same(folder: Path, whole: Path, *names: str) -> None:
    for name in names:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


DAMAGES = [empty, cut, garbage, listed, foreign]


def test_an_untouched_run_goes_on_without_a_word(made: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume(capsys) == (0, [])
    names = ("results.json", "progress.csv", "checkpoints/last.zip", "checkpoints/best.zip")
    assert_same(folder, made / "whole", *names)
    assert json.loads((folder / "cost.json").read_text())["seconds"] > 0


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["results.json", "checkpoints/best.zip"])
def test_a_result_that_is_not_the_runs_is_set_aside_and_made_again(
    name: str, damage: Damage, made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder / name, made / "other" / name, np.random.default_rng(0))
    found = (folder / name).read_bytes()
    status, sentences = resume(capsys)
    assert status == 0
    (sentence,) = sentences
    assert f"'half/{name}'" in sentence
    assert f"kept as '{Path(name).name}.aside-1'" in sentence
    assert (folder / f"{name}.aside-1").read_bytes() == found
    names = ("results.json", "progress.csv", "checkpoints/last.zip", "checkpoints/best.zip")
    assert_same(folder, made / "whole", *names)


def test_a_result_of_a_run_with_the_same_learner_that_is_ahead_is_not_taken(
    made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(made / "whole/results.json", folder / "results.json")
    status, (sentence,) = resume(capsys)
    assert status == 0
    assert "'half/results.json' is of another run: this one is at iteration 3 only" in sentence


@pytest.mark.parametrize("damage", [*DAMAGES, None])
def test_the_cost_is_taken_from_the_checkpoint_where_the_file_is_not_right(
    damage: Damage | None, made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if damage is None:
        (folder / "cost.json").unlink()
    else:
        damage(folder / "cost.json", made / "other/cost.json", np.random.default_rng(0))
    status, (sentence,) = resume(capsys)
    assert status == 0
    assert "'half/cost.json' is" in sentence
    assert "the seconds of training are not known any more" in sentence
    assert (folder / "cost.json.aside-1").exists() == (damage is not None)
    steps = json.loads((made / "whole/cost.json").read_text())["environment_steps"]
    assert json.loads((folder / "cost.json").read_text()) == {"environment_steps": steps, "seconds": None}
    assert_same(folder, made / "whole", "results.json", "progress.csv")


@pytest.mark.parametrize(("steps", "own"), [(80, True), (120, True), (40, False), (79, False), (160, False)])
def test_a_cost_counts_as_the_runs_up_to_the_checkpoint_or_one_iteration_before(
    steps: int, own: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cost.json").write_text(json.dumps({"environment_steps": steps, "seconds": 1000.0}))
    status, sentences = resume(capsys)
    assert (status, len(sentences)) == (0, 0 if own else 1)
    seconds = json.loads((folder / "cost.json").read_text())["seconds"]
    assert seconds > 1000 if own else seconds is None


def test_the_cost_is_whole_where_a_run_was_killed_after_its_last_checkpoint(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(made / "whole", folder)
    (folder / "results.json").unlink()
    cost = json.loads((folder / "cost.json").read_text())
    (folder / "cost.json").write_text(json.dumps({"environment_steps": cost["environment_steps"] - 40, "seconds": 9.0}))
    with contextlib.chdir(tmp_path):
        assert resume(capsys) == (0, [])
    assert json.loads((folder / "cost.json").read_text()) == {**cost, "seconds": 9.0}
    assert_same(folder, made / "whole", "results.json", "progress.csv")


@pytest.mark.parametrize("damage", [empty, garbage, listed, foreign, None])
def test_rows_of_progress_that_are_lost_are_named_and_no_others_taken_for_them(
    damage: Damage | None, made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = folder / "progress.csv"
    if damage is None:
        progress.unlink()
    else:
        damage(progress, made / "other/progress.csv", np.random.default_rng(0))
    found = None if damage is None else progress.read_bytes()
    status, (sentence,) = resume(capsys)
    assert status == 0
    assert "'half/progress.csv' is" in sentence
    assert "the rows of 3 iterations, 1 to 3 are not in it" in sentence
    if found is not None:
        assert (folder / "progress.csv.aside-1").read_bytes() == found
    assert rows_of(progress) == [4, 5, 6]
    assert_same(folder, made / "whole", "results.json")


def rows_of(progress: Path) -> list[int]:
    header, *rows = [line.split(",") for line in progress.read_text().splitlines()]
    return [int(row[header.index("rollout/iteration")]) for row in rows]


def test_good_rows_of_a_damaged_progress_stay_and_a_second_resume_keeps_them(
    made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = folder / "progress.csv"
    text = progress.read_text()
    progress.write_text(text[:-4])
    status, (sentence,) = resume(capsys)
    assert status == 0
    assert "the rows of iteration 3 are not in it" in sentence
    assert (folder / "progress.csv.aside-1").read_text() == text[:-4]
    assert rows_of(progress) == [1, 2, 4, 5, 6]
    (folder / "results.json").unlink()
    status, (sentence,) = resume(capsys)
    assert status == 0
    assert "'half/progress.csv' has gaps" in sentence
    assert rows_of(progress) == [1, 2, 4, 5, 6]
    assert not (folder / "progress.csv.aside-2").exists()


def test_rows_after_the_checkpoint_are_computed_again_without_a_word(
    made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (made / "whole/progress.csv").read_text().splitlines(keepends=True)
    (folder / "progress.csv").write_text("".join(lines[:5]) + lines[5][:9])
    assert resume(capsys) == (0, [])
    assert_same(folder, made / "whole", "progress.csv", "results.json")


def test_a_table_program_that_rewrote_progress_loses_no_row(
    made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "progress.csv").read_text()
    (folder / "progress.csv").write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    assert resume(capsys) == (0, [])
    assert_same(folder, made / "whole", "progress.csv")


@pytest.mark.parametrize("damage", [empty, cut, garbage, foreign])
def test_a_checkpoint_that_is_not_the_runs_is_refused(
    damage: Damage, made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder / "checkpoints/last.zip", made / "other/checkpoints/last.zip", np.random.default_rng(0))
    before = sorted(path.name for path in folder.iterdir() if path.name != "lock")
    status, (sentence,) = resume(capsys)
    assert status == 2
    assert "half/checkpoints/last.zip" in sentence
    assert sorted(path.name for path in folder.iterdir() if path.name != "lock") == before


def test_a_folder_without_checkpoint_and_a_lock_that_is_none_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "lock").unlink(missing_ok=True)
    (folder / "lock").mkdir()
    status, (sentence,) = resume(capsys)
    assert (status, "the run 'half' cannot be locked" in sentence) == (2, True)
    (folder / "lock").rmdir()
    (folder / "lock").write_bytes(b"\xff garbage")
    (folder / "checkpoints/last.zip").unlink()
    status, (sentence,) = resume(capsys)
    assert (status, "the run 'half' has no checkpoint to go on from" in sentence) == (2, True)


def test_what_a_killed_write_left_is_deleted_and_nothing_else(
    made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leftovers = ["progress.csv.part", "cost.json.77.part", "results.json.78.part", "checkpoints/last.zip.79.part"]
    own = ["notes.part", "progress.csv.bak", "checkpoints/mine.zip", "checkpoints/last.zip.part.txt"]
    for name in leftovers + own:
        (folder / name).write_text("text")
    assert resume(capsys) == (0, [])
    assert not any((folder / name).exists() for name in leftovers)
    assert all((folder / name).read_text() == "text" for name in own)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_finished_run_gets_its_best_parameters_again(
    damage: Damage, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "whole", tmp_path / "half")
    damage(tmp_path / "half/checkpoints/best.zip", made / "other/checkpoints/best.zip", np.random.default_rng(0))
    assert main(["evaluate", "half", "--tasks", "2"]) == 2
    assert "half/checkpoints/best.zip" in capsys.readouterr().err
    assert main(["picture", "half"]) == 2
    capsys.readouterr()
    status, sentences = resume(capsys)
    assert status == 2
    assert "half/checkpoints/best.zip" in sentences[0]
    assert "is finished" in sentences[1]
    assert_same(tmp_path / "half", made / "whole", "checkpoints/best.zip", "results.json")
    assert main(["evaluate", "half", "--tasks", "2"]) == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_comparison_makes_a_damaged_result_again_and_knows_no_cost_that_is_damaged(
    damage: Damage, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "whole", tmp_path / "comparison/maml-1")
    configuration = str(made / "whole/config.toml")
    damage(tmp_path / "comparison/maml-1/results.json", made / "other/results.json", np.random.default_rng(0))
    command = ["compare", configuration, "--learners", "maml", "--seeds", "1"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "'comparison/maml-1/results.json' is" in printed.err
    assert_same(tmp_path / "comparison/maml-1", made / "whole", "results.json")
    (tmp_path / "comparison/maml-1/cost.json").write_bytes(b"")
    assert main(command) == 0
    steps = json.loads((made / "whole/results.json").read_text())["timesteps"]
    assert capsys.readouterr().out.splitlines()[4].endswith(f"| {steps} | – |")
