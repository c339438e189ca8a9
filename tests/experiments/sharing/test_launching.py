"""Jobs that share the work of a command, by submitit, and the extras that are missing."""

from __future__ import annotations

import re
from pathlib import Path

import forked
import pytest

from metarl.experiments.command import main

TINY = ["learning.iterations=1", "learning.tasks=2", "learning.episodes=2", "family_kwargs.max_episode_steps=5",
        "evaluation.tasks=2", "evaluation.test_tasks=2", "evaluation.episodes=2", "evaluation.steps=1"]  # fmt: skip
COMPARE = ["compare", "navigation", *TINY, "--learners", "random", "--seeds", "1"]
SWEEP = ["sweep", "navigation", *TINY, "inner.step_size=0.1..0.2"]


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [("optuna", SWEEP, "[sweep]"), ("submitit", [*COMPARE, "--submitit", "1 executor=debug"], "[cluster]")],
)
def test_an_extra_that_is_missing_is_named(missing: str, command: list[str], extra: str, tmp_path: Path) -> None:
    hidden = f"""
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == {missing!r} else found(name, package)
sys.modules[{missing!r}] = None
"""
    done = forked.run(*command, cwd=tmp_path, code=hidden + forked.COMMAND)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"needs the extra {extra}: pip install 'metarl-suite{extra}'" in done.stderr


def test_jobs_share_the_work_and_the_command_writes_the_table(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    done = forked.run(*COMPARE, "--submitit", "1 executor=local timeout_min=10", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Submitted to local: \d+; their output is in comparison/.jobs$", done.stdout, flags=re.MULTILINE)
    assert "| random | 1 |" in done.stdout
    claimed = sorted(path.name for path in (tmp_path / "comparison/.claims").glob("*-*"))
    assert claimed == ["random-1.1"]
    refused = forked.run(*COMPARE, "--submitit", "1 executor=local slurm_colour=red", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "metarl: --submitit: Unknown argument 'colour' for executor 'slurm'" in refused.stderr


def test_settings_of_slurm_reach_it_and_what_it_refuses_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    out = tmp_path / "comparison"
    for name, code in {
        "srun": "",
        "sbatch": f"cp $1 {tmp_path}/submitted; echo 'invalid partition' >&2; exit 1",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    jobs = "3 executor=slurm slurm_partition=gpu timeout_min=90 cpus_per_task=4"
    assert main([*COMPARE, "--out", str(out), "--submitit", jobs]) == 2
    *_, sentence = capsys.readouterr().err.splitlines()  # submitit shows what sbatch printed before
    assert sentence.startswith("metarl: --submitit: ")
    assert "invalid partition" in sentence
    submitted = (tmp_path / "submitted").read_text()
    for line in ("--partition=gpu", "--time=90", "--cpus-per-task=4", "--array=0-2", "--job-name=metarl"):
        assert f"#SBATCH {line}" in submitted, submitted
