"""The command as its users call it: what it prints, what it leaves, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import forked
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import TINY, copy_toy_families, scalars

from metarl import MAML
from metarl.version import __version__

METARL = [str(Path(sys.executable).with_name("metarl"))]


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return forked.run(*arguments, cwd=cwd)


def call_program(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Call the installed program itself, in a process that imports all anew."""
    return subprocess.run([*METARL, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def train(cwd: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return call("train", "navigation", *TINY, *more, cwd=cwd)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one run was trained, by the program; what repeats it is forked and has another hash seed."""
    folder = tmp_path_factory.mktemp("finished")
    done = call_program("train", "navigation", *TINY, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    (folder / "progress.txt").write_text(done.stderr)
    return folder


def test_training_ends_with_the_table_the_folder_and_the_tensorboard_command(finished: Path) -> None:
    printed = (finished / "printed.txt").read_text()
    results = json.loads((finished / "runs/navigation/results.json").read_text())
    for entry in results["adaptation"]:
        assert f"{entry['mean']:.2f}" in printed
        assert f"[{entry['low']:.2f}, {entry['high']:.2f}]" in printed
    assert f"{results['oracle']:.2f}" in printed
    assert "runs/navigation" in printed
    command = printed.splitlines()[-1].removeprefix("Look at it: ").split()
    assert command[1:] == ["--logdir", "runs"]
    assert shutil.which(command[0], path=f"{finished}:{os.environ['PATH']}") or (finished / command[0]).exists()
    lines = (finished / "progress.txt").read_text().splitlines()
    assert all(re.fullmatch(r"iteration \d of 3: return before \S+, after adaptation \S+.*", line) for line in lines)
    assert lines[0].startswith("iteration 1 of 3")
    assert lines[0].endswith(" left")
    assert lines[-1].startswith("iteration 3 of 3")


def test_a_run_leaves_what_is_promised(finished: Path) -> None:
    run = finished / "runs/navigation"
    results = json.loads((run / "results.json").read_text())
    facts = {"schema", "family", "learner", "split", "protocol", "metric", "statistic", "level", "seeds", "iteration"}
    facts |= {"counted", "timesteps", "trained", "oracle", "units", "versions", "settings"}
    expected = facts | {"adaptation", "regions", "runs", "episodes_before", "steps_before", "episodes"}
    assert set(results) == expected
    assert results["settings"] == tomllib.loads((run / "config.toml").read_text())
    assert (results["split"], results["learner"], results["seeds"]) == ("test", "maml", [1])
    assert results["statistic"].endswith("drawn with seed 1")
    for number, entry in enumerate(results["adaptation"]):
        expected = {"step", "mean", "low", "high", "tasks", "episodes", "per_task", "length", "statistics"}
        assert set(entry) == expected
        assert (entry["step"], entry["tasks"], entry["episodes"], len(entry["per_task"])) == (number, 4, 2, 4)
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["learning"]["iterations"] == 3
    assert config["inner"]["later_step_scale"] == 0.5
    machine = json.loads((run / "machine.json").read_text())
    assert machine["packages"]["torch"] == torch.__version__
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.zip", "best.zip"}
    assert MAML.load(run / "checkpoints/last.zip").iteration == 3
    assert MAML.load(run / "checkpoints/best.zip").iteration == results["iteration"]
    rows = (run / "progress.csv").read_text().splitlines()
    assert len(rows) == 4
    assert not any(column.startswith("time/") for column in rows[0].split(","))


def test_a_resolved_configuration_gives_the_same_run_again(finished: Path, tmp_path: Path) -> None:
    again = call("train", str(finished / "runs/navigation/config.toml"), "--out", "elsewhere", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    one = (finished / "runs/navigation/results.json").read_text()
    assert (tmp_path / "elsewhere/config/results.json").read_text() == one


def test_tensorboard_has_every_series_by_environment_step(finished: Path) -> None:
    run = finished / "runs/navigation"
    series = scalars(run)
    page = (Path(__file__).parents[2] / "docs/tensorboard.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_/]+)(?:<k>)?`", page, flags=re.MULTILINE))
    only_text = {"configuration", "validation/paths", "train/path"}
    only_where_info_tells = {f"{phase}/success_step_" for phase in ("rollout", "validation", "test")}
    only_where_set = {"rollout/worker_restarts"}
    assert {
        re.sub(r"\d+$", "", tag) for tag in series
    } == documented - only_text - only_where_info_tells - only_where_set
    assert {f"validation/return_step_{k}" for k in range(4)} | {"rollout/return_step_1"} < set(series)
    each = 3 * 3 * 8 * 2
    assert series["rollout/iteration"] == [(each, 1), (2 * each, 2), (3 * each, 3)]
    assert [step for step, _ in series["validation/gain"]] == [2 * each, 3 * each]
    for (_, before), (_, after), (_, gain) in zip(
        series["rollout/return_step_0"], series["rollout/return_step_1"], series["rollout/gain"], strict=True
    ):
        assert gain == pytest.approx(after - before, abs=1e-4)
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    assert [event.step for event in accumulator.Images("validation/paths")] == [2 * each, 3 * each]
    results = json.loads((run / "results.json").read_text())
    for k, entry in enumerate(results["adaptation"]):
        assert series[f"test/return_step_{k}"] == [(3 * each, pytest.approx(entry["mean"], rel=1e-6))]
    plugins = accumulator.PluginTagToContent("hparams")
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(plugins)
    text = accumulator.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "step_size = 0.1" in text
    assert accumulator.Tensors("train/path/text_summary")[0].tensor_proto.string_val[0] == b"fast"


def test_a_second_run_is_numbered_and_a_given_name_is_taken_once(finished: Path) -> None:
    before = (finished / "runs/navigation/results.json").read_bytes()
    assert train(finished).returncode == 0
    assert (finished / "runs/navigation-2/results.json").is_file()
    assert train(finished, "--name", "mine", "--seed", "2").returncode == 0
    taken = train(finished, "--name", "mine")
    assert taken.returncode == 2
    assert "mine" in taken.stderr
    assert (finished / "runs/navigation/results.json").read_bytes() == before
    assert json.loads((finished / "runs/mine/results.json").read_text())["seeds"] == [2]


def test_evaluate_writes_a_numbered_result_and_prints_the_table(finished: Path) -> None:
    arguments = ["evaluate", "runs/navigation", "--tasks", "5", "--episodes", "3", "--steps", "2"]
    first = call(*arguments, cwd=finished)
    assert first.returncode == 0, first.stderr
    call(*arguments, "--seed", "4", cwd=finished)
    folder = finished / "runs/navigation/evaluations"
    assert sorted(path.name for path in folder.iterdir()) == ["1.csv", "1.json", "2.csv", "2.json"]
    one, two = (json.loads((folder / f"{n}.json").read_text()) for n in (1, 2))
    assert [entry["step"] for entry in one["adaptation"]] == [0, 1, 2]
    assert len(one["adaptation"][0]["per_task"]) == 5
    assert one["adaptation"] != two["adaptation"]
    assert f"{one['adaptation'][2]['mean']:.2f}" in first.stdout
    assert "evaluations/1.json" in first.stdout
    assert (folder / "1.csv").read_text().splitlines()[
        0
    ] == "step,mean,low,high,tasks,episodes,oracle,length_mean,length_low,length_high"


def test_envs_lists_the_families() -> None:
    listed = call("envs", "--json", cwd=Path.cwd())
    families = {entry["id"]: entry for entry in json.loads(listed.stdout)}
    assert families["metarl/Navigation2D-v0"]["max_episode_steps"] == 100
    assert families["metarl/CornerNavigation2D-v0"]["task"] == "one of 4"
    printed = call("envs", cwd=Path.cwd()).stdout
    assert "metarl/CartPoleParams-v0" in printed
    assert "force_mag: 5 to 20; gravity: 4.9 to 19.6" in printed
    assert call_program("--version", cwd=Path.cwd()).stdout == f"metarl {__version__}\n"


def test_check_prints_each_fault_and_ends_with_1(tmp_path: Path) -> None:
    copy_toy_families(tmp_path)
    sound = call("check", "toy_families:toy/Sign-v0", cwd=tmp_path)
    assert (sound.returncode, sound.stdout) == (0, "toy_families:toy/Sign-v0: no fault found\n"), sound.stderr
    broken = call("check", "toy_families:toy/TaskIgnored-v0", cwd=tmp_path)
    assert broken.returncode == 1
    assert 'reset must read options["task"]' in broken.stdout
    assert len(broken.stdout.splitlines()) == 1
    varied = call("check", "CartPole-v1", "--vary", "gravity=5..15", "max_episode_steps=20", cwd=tmp_path)
    assert (varied.returncode, varied.stdout) == (0, "CartPole-v1: no fault found\n"), varied.stderr
    unknown = call("check", "toy_families:toy/None-v0", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "registers no environment" in unknown.stderr


def test_a_profile_shows_the_update_of_one_iteration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    # Enough work that the second thread takes its share, whatever else the machine does.
    work = ["learning.tasks=20", "learning.episodes=20", "policy.hidden_sizes=[64, 64]", "outer.fisher_fraction=1.0"]
    more = [*TINY, *work, "family_kwargs.max_episode_steps=50", "learning.iterations=1"]
    done = call_program("train", "navigation", *more, "--profile", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    events = json.loads((tmp_path / "runs/navigation/profile.json").read_text())["traceEvents"]
    products = {event["tid"] for event in events if event["name"] == "aten::addmm"}
    assert products, "the update's matrix products are missing"
    # The return baseline is solved in the main thread, the products spread over others.
    main = {event["tid"] for event in events if event["name"] == "aten::linalg_cholesky_ex"}
    assert len(main) == 1
    assert products - main, "only the main thread's"


def test_a_family_of_the_folder_one_works_in_trains(tmp_path: Path) -> None:
    source = copy_toy_families(tmp_path) / "toy_families.py"
    (tmp_path / "my_module.py").write_text(
        source.read_text().replace("toy_families:", "my_module:").replace("toy/", "my/")
    )
    settings = [setting for setting in TINY if not setting.startswith("family_kwargs")]
    done = call("train", "navigation", "family=my_module:my/Sign-v0", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "runs/navigation/results.json").read_text())["oracle"] is None


BAD: list[tuple[Sequence[str], str]] = [
    (["train", "navigation", "family=metarl/Nav2D-v0"], "metarl/Navigation2D-v0"),
    (["train", "navgation"], "did you mean 'navigation'"),
    (["train", "missing.toml"], "No such file"),
    (["train"], "no configuration is given"),
    (["train", "navigation", "learning.tasks=0", "inner.stepsize=1", "outer.max_kl=nan"], "inner.step_size"),
    (["train", "navigation", "learning.episodes=-1"], "learning.episodes is -1"),
    (["train", "navigation", "step_size"], "expected key=value"),
    (["train", "navigation", "--seed", "x"], "seed is 'x'"),
    (["train", "navigation", "--out", "/dev/null/runs"], "cannot be written"),
    (["train", "navigation", "--device", "cuda:99"], "is not available"),
    (["train", "navigation", "--device", "gpu"], "unknown device"),
    (["train", "navigation", "--name", "../up"], "not allowed"),
    (["train", "navigation", "--name", "a/b"], "not allowed"),
    (["train", "navigation", "--name", ""], "not allowed"),
    (["train", "navigation", "family_kwargs.speed=3"], "speed"),
    (["train", "navigation", "--frobnicate"], "--frobnicate"),
    (["train", "--resume", "nowhere"], "is no run"),
    (["train", "navigation", "--resume", "nowhere"], "--resume"),
    (["evaluate", "."], "is no run"),
    (["evaluate", ".", "--tasks", "many"], "invalid int"),
    (["frobnicate"], "frobnicate"),
]


@pytest.mark.parametrize(("arguments", "part"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_one_sentence_and_status_2(arguments: list[str], part: str, tmp_path: Path) -> None:
    from metarl.experiments.command import main

    code, printed = run_inside(main, arguments, tmp_path)
    assert code == 2
    assert part in printed
    assert printed.startswith("metarl: ")
    assert len(printed.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def run_inside(main: object, arguments: list[str], folder: Path) -> tuple[int, str]:
    """Call the command in this process, from a folder; return status and standard error."""
    import contextlib
    import io

    printed = io.StringIO()
    path = list(sys.path)
    with contextlib.chdir(folder), contextlib.redirect_stderr(printed):
        try:
            code = main(arguments)  # type: ignore[operator]
        except SystemExit as stop:
            code = int(stop.code or 0)
    sys.path[:] = path
    return code, printed.getvalue()


def test_several_faults_are_named_at_once(tmp_path: Path) -> None:
    done = call("train", "navigation", "learning.tasks=0", "inner.stepsize=1", "outer.max_kl=nan", cwd=tmp_path)
    assert done.returncode == 2
    assert "learning.tasks is 0" in done.stderr
    assert "the nearest is 'inner.step_size'" in done.stderr
    assert "outer.max_kl is nan" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_bad_counts_and_finished_runs(finished: Path) -> None:
    from metarl.experiments.command import main

    for arguments, part in [
        (["evaluate", "runs/navigation", "--tasks", "0"], "tasks is 0"),
        (["evaluate", "runs/navigation", "--steps", "-1"], "steps is -1"),
        (["evaluate", "runs/navigation", "--seed", "-1"], "seed is -1"),
        (["train", "--resume", "runs/navigation"], "is finished"),
    ]:
        code, printed = run_inside(main, arguments, finished)
        assert (code, part in printed) == (2, True), printed


def test_a_damaged_checkpoint_of_a_run_is_one_sentence(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "broken"
    shutil.copytree(finished / "runs/navigation", run)
    (run / "checkpoints/best.zip").write_bytes(b"garbage")
    done = call("evaluate", "broken", cwd=tmp_path)
    assert done.returncode == 2
    assert "damaged or no checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
