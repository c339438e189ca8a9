"""The benchmarks run, and say what they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import small

from metarl import check_family
from metarl.experiments.benchmarks import images, iteration, memory, problems, shrinking, update, workers


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = update.Setting("A", 2, 50, 2, 2, 8)
    for module in (update, iteration):
        monkeypatch.setattr(module, "settings", lambda *args, **kwargs: [setting])
        monkeypatch.setattr(module, "EPISODES", 2)
    # The programs whose start is timed, and the rival's iterations, take seconds each: once and once to warm up.
    start, rival = update.measure_start, iteration.rival_iteration
    monkeypatch.setattr(update, "measure_start", lambda repeats: start(1))
    monkeypatch.setattr(iteration, "rival_iteration", lambda *given: rival(*given[:3], 1))


@pytest.mark.usefixtures("tiny")
def test_the_updates_table_and_its_json_have_the_same_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert update.main(["--quick", "--json", str(tmp_path / "table.json")]) == 0
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert {"Fisher-vector product", "inner update", "rollout", "import metarl"} <= {row["part"] for row in rows}
    for row in rows:
        assert row["part"] in printed
        assert row["seconds"] > 0
        assert row["floor"] is None or row["ratio"] == pytest.approx(row["seconds"] / row["floor"])
    assert torch.get_num_threads() == threads


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine")
@pytest.mark.usefixtures("tiny")
def test_the_parts_on_a_gpu_come_with_their_rates(tmp_path: Path) -> None:
    assert update.main(["--quick", "--device", "cuda", "--json", str(tmp_path / "table.json")]) == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert {"Fisher-vector product", "Fisher-vector product, CUDA graph"} <= {row["part"] for row in rows}
    for row in rows:
        assert row["rates"]["TFLOP/s"] > 0
        assert row["rates"]["share of peak"] == pytest.approx(1 / row["ratio"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device on this machine")
def test_a_device_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        update.main(["--device", "cuda"])
    assert "device 'cuda' is not available on this machine" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny")
def test_the_iterations_benchmark_compares_with_the_sum_of_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert iteration.main(["--hidden", "8", "--tasks", "2", "--repeats", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("x the sum of its parts") == 6
    assert "fisher_fraction = 0.125, 2 thread(s)" in printed


def test_the_general_path_is_measured_against_double_backward_for_every_kind_of_policy() -> None:
    given = {
        "images": problems.image_problem(2, 6),
        "dict": problems.dict_problem(2, 9),
        "trunk": problems.trunk_problem(2, 9),
    }
    rows = update.measure_others(given, 1)
    assert [row.setting.partition(",")[0] for row in rows] == ["images", "dict", "trunk"]
    assert all(row.against["double backward"] > 0 for row in rows)


def test_the_benchmark_of_images_says_what_it_held(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--tasks", "2", "--episodes", "1", "--cg-iterations", "1", "--workers", "1", "--memory", "recompute"]
    assert images.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "images (51, 3, 64, 64) torch.uint8" in printed
    assert "GB at most" in printed


def test_the_benchmark_of_workers_compares_with_one_core(capsys: pytest.CaptureFixture[str]) -> None:
    assert workers.main(["--num-envs", "4", "--workers", "2", "--repeats", "1", "--steps", "2"]) == 0
    assert "2 workers are" in capsys.readouterr().out


@pytest.mark.parametrize("family", ["Spot", "Busy"])
def test_the_benchmarks_own_families_are_sound(family: str) -> None:
    assert check_family(f"metarl.experiments.benchmarks.slow_families:bench/{family}-v0") == []


def test_the_benchmark_of_locomotion_sets_a_family_against_mujoco_alone_and_gymnasium(tmp_path: Path) -> None:
    pytest.importorskip("mujoco", reason="needs the extra [mujoco]")
    file = tmp_path / "speeds.json"
    script = Path(__file__).parents[2] / "experiments/benchmarks/locomotion.py"
    call = [sys.executable, script, "--quick", "--envs", "4", "metarl/HopperParams-v0", "--json", file]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "metarl/HopperParams-v0" in done.stdout
    written = json.loads(file.read_text())
    assert 0 < written["memory_mb"] < 400
    (result,) = written["results"]
    speeds, ratio = result["steps_per_second"], result["ratio"]
    assert ratio["bare"] == pytest.approx(speeds["own"] / (result["cores"] * speeds["bare"]))
    assert ratio["sync"] == pytest.approx(speeds["own"] / speeds["sync"])
    assert ratio["async"] == pytest.approx(speeds["own"] / speeds["async"])


def test_the_speed_of_learning_with_memory_is_measured_beside_others(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sb3_contrib")
    assert memory.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert "32 sequences of 10 steps, memory 64:" in printed
    assert printed.count("ours ÷ this 1.00") >= 2
    assert "8 trials of 5 pulls: RL² " in printed
    assert "2 trials of 200 steps of HalfCheetahVel: RL² " in printed


def test_what_shrinking_costs_and_saves_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        small(seed=seed).save(tmp_path / str(seed))
    tiny = ["--tasks", "2", "--episodes", "2", "--hidden", "3", "--rounds", "1", "--epochs", "1"]
    assert shrinking.main([str(tmp_path / "1"), str(tmp_path / "2"), *tiny]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["full", "pruned", "int8", "4 bits, shared", "pruned, int8", "distilled"]
    sizes = {row[0]: int(row[-4]) for row in rows}
    assert sizes["int8"] < sizes["full"]
    assert all(int(row[-2]) > 0 and float(row[1].split()[0]) < 0 for row in rows)
