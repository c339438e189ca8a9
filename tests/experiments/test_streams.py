"""Standard output and error that are closed, cut off or full, as shells and services make them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

METARL = str(Path(sys.executable).with_name("metarl"))
TINY = (
    "learning.iterations=2 learning.tasks=2 learning.episodes=2 policy.hidden_sizes=[4] evaluation.tasks=2 "
    "evaluation.test_tasks=2 evaluation.episodes=2 evaluation.steps=1"
)


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash with ``$METARL`` in it; its last output is the status of the first program of the line."""
    script = f'METARL="{METARL}"; {command}; echo "status ${{PIPESTATUS[0]}}" >> status'
    return subprocess.run(["bash", "-c", script], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def status(folder: Path) -> int:
    return int((folder / "status").read_text().split()[-1])


@pytest.mark.parametrize(
    "redirection", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", "2>&1 | head -c 1", "| true"]
)
def test_training_goes_on_whatever_became_of_its_streams(redirection: str, tmp_path: Path) -> None:
    done = shell(f"$METARL train bernoulli-bandit {TINY} {redirection}", tmp_path)
    assert status(tmp_path) == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    run = tmp_path / "runs/bernoulli-bandit"
    assert json.loads((run / "results.json").read_text())["learner"] == "maml"
    # A file that had taken the number of a closed stream would have got what was written to that.
    assert "iteration" not in (run / "config.toml").read_text().partition("iterations")[0]
    assert b"it/s" not in (run / "progress.csv").read_bytes()


def test_a_comparison_goes_on_where_nobody_reads_its_lines_any_more(tmp_path: Path) -> None:
    done = shell(f"$METARL compare bernoulli-bandit --learners maml,scratch --seeds 1 {TINY} | head -1", tmp_path)
    assert done.stdout == "maml-1 ...\n"
    assert status(tmp_path) == 0, done.stderr
    assert (tmp_path / "comparison/comparison.md").is_file()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["envs", "envs --json", "learners", "--help", "--version"])
def test_a_list_that_is_cut_off_ends_quietly(command: str, tmp_path: Path) -> None:
    done = shell(f"$METARL {command} | true", tmp_path)
    assert (done.stderr, status(tmp_path)) == ("", 0)


def test_a_mistake_keeps_its_status_where_the_sentence_has_nowhere_to_go(tmp_path: Path) -> None:
    for redirection in ("2>&-", "2>/dev/full", "2>&1 | true"):
        shell(f"$METARL train navgation {redirection}", tmp_path)
        assert status(tmp_path) == 2, redirection


def test_output_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    done = shell("$METARL envs > /dev/full", tmp_path)
    assert done.stderr == "metarl: 'standard output' cannot be read or written: No space left on device\n"
    assert status(tmp_path) == 1


def test_an_encoding_that_lacks_a_character_stops_no_table(tmp_path: Path) -> None:
    rows = "maml,random"
    command = f"PYTHONIOENCODING=ascii $METARL compare bernoulli-bandit --learners {rows} --seeds 1 {TINY}"
    done = shell(f"{command} && rm comparison/*/cost.json && {command}", tmp_path)
    assert status(tmp_path) == 0, done.stderr
    assert "\\u2013" in done.stdout


def test_what_is_written_to_files_are_lines_and_quiet_leaves_only_the_result(tmp_path: Path) -> None:
    done = shell(f"$METARL train bernoulli-bandit {TINY} --name loud", tmp_path)
    first, *rest = done.stdout.splitlines()
    assert first.startswith("The run is in runs/loud. Look at it: ")
    assert first.endswith("tensorboard --logdir runs")
    for line, number in zip(done.stderr.splitlines(), (1, 2), strict=True):
        assert line.startswith(f"iteration {number} of 2: return before ")
    quiet = shell(f"$METARL train bernoulli-bandit {TINY} --name quiet --quiet", tmp_path)
    assert quiet.stderr == ""
    assert quiet.stdout.splitlines() == [line.replace("loud", "quiet") for line in rest]
    refused = shell(f"$METARL train bernoulli-bandit {TINY} --name quiet --quiet", tmp_path)
    assert (refused.stdout, len(refused.stderr.splitlines())) == ("", 1)


def test_on_a_terminal_progress_is_a_bar(tmp_path: Path) -> None:
    done = shell(f'script -qec "stty cols 120 rows 40; $METARL train bernoulli-bandit {TINY}" /dev/null', tmp_path)
    assert status(tmp_path) == 0, done.stdout
    assert "2/2" in done.stdout
    assert "iteration 1 of 2" not in done.stdout


WARNS = """
import gymnasium, warnings
from metarl.envs.families.bandits import BernoulliBanditEnv
class Warns(BernoulliBanditEnv):
    def __init__(self, **arguments):
        warnings.warn("the arms\\n  are worn")
        gymnasium.logger.warn("so are %s", "the legs")
        super().__init__(**arguments)
gymnasium.register("Warns-v0", "warns:Warns", max_episode_steps=5)
"""


def test_a_warning_is_one_sentence_without_a_place_in_the_code(tmp_path: Path) -> None:
    (tmp_path / "warns.py").write_text(WARNS)
    done = shell(f"$METARL train bernoulli-bandit family=warns:Warns-v0 {TINY} --quiet", tmp_path)
    lines = set(done.stderr.splitlines())
    assert {"metarl: warning: the arms are worn", "metarl: warning: so are the legs"} <= lines
    assert all(line.startswith("metarl: ") for line in lines), lines
