"""Environments in several processes: the same bits as in one, failures named, nothing left behind."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from metarl import MAML
from metarl.envs import RolloutError, WorkerFamilyVectorEnv, choose_workers, make_vec
from metarl.envs.processes import available_cores
from metarl.envs.worker_process import Worker

SLOW = "toy_families:toy/Slow-v0"


def workers_of(pid: int) -> list[psutil.Process]:
    """The worker processes of a process (multiprocessing's own resource tracker is none)."""
    return [child for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("family", ["toy_families:toy/Sign-v0", "toy_families:toy/LengthsDiffer-v0"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_no_bit(family: str, workers: int) -> None:
    tasks = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    plain = make_vec(family, 5)
    apart = WorkerFamilyVectorEnv(family, 5, workers=workers, step_timeout=60.0)
    try:
        for seed in (3, [9, 8, 7, 6, 5]):
            options = {"tasks": tasks}
            np.testing.assert_array_equal(
                plain.reset(seed=seed, options=options)[0], apart.reset(seed=seed, options=options)[0]
            )
            plain.action_space.seed(0)
            for _ in range(4):
                actions = plain.action_space.sample()
                for one, other in zip(plain.step(actions)[:4], apart.step(actions)[:4], strict=True):
                    np.testing.assert_array_equal(one, other)
        with pytest.raises(ValueError, match="2 tasks for 5 sub-environments"):
            apart.reset(options={"tasks": tasks[:2]})
    finally:
        apart.close()
    assert workers_of(os.getpid()) == []


def test_slow_environments_get_workers_and_fast_ones_do_not() -> None:
    assert choose_workers(SLOW, 40) == min(available_cores(), 40)
    assert choose_workers("toy_families:toy/Sign-v0", 4) == 1
    assert choose_workers("metarl/Navigation2D-v0", 400) == 1


def learner(family: str, family_kwargs: dict[str, Any] | None = None, **learning: Any) -> MAML:
    return MAML(
        "MlpPolicy",
        family,
        family_kwargs=family_kwargs,
        learning={"tasks": 3, "episodes": 2, "workers": 2, **learning},
        evaluation={"tasks": 2, "episodes": 2, "steps": 1},
        policy_kwargs={"hidden_sizes": (4,)},
    )


def test_training_with_workers_gives_the_same_parameters() -> None:
    one, two = learner(SLOW, workers=1).learn(iterations=1), learner(SLOW).learn(iterations=1)
    two.close()
    assert all((one.parameters[name] == value).all() for name, value in two.parameters.items())


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("Raises", r"task \[-?\d.*\], sub-environment 0 raised OSError: broken, at step 1"),
        ("NanReward", r"task \[-?\d.*\], sub-environment 0 gave the reward nan, at step 0"),
        ("Dies", r"task \[0\.\d+\], sub-environment \d died with its process \(exit code 7\), at step 1"),
        ("Hangs", r"task \[0\.\d+\], sub-environment \d has not answered for 0.5 seconds; .*, at step 1"),
    ],
)
def test_a_failure_in_a_worker_is_named_and_leaves_no_process(family: str, message: str) -> None:
    model = learner(f"toy_families:toy/{family}-v0", step_timeout=0.5 if family == "Hangs" else 60.0)
    before = {name: value.clone() for name, value in model.parameters.items()}
    with pytest.raises(RolloutError, match=f"iteration 1: .*{message}"):
        model.learn(iterations=1)
    assert workers_of(os.getpid()) == []
    assert all((before[name] == value).all() for name, value in model.parameters.items())


@pytest.mark.parametrize("hangs", [False, True])
def test_workers_that_fail_are_started_anew_as_often_as_is_asked(hangs: bool, tmp_path: Path) -> None:
    family, once = "toy_ranks:FailsOnce", {"step_timeout": 1.0, "check": False}
    undisturbed = learner("toy_families:toy/Sign-v0", workers=1).learn(iterations=3)
    kwargs = {"mark": str(tmp_path / "one"), "hangs": hangs}
    restarted = learner(family, family_kwargs=kwargs, **once, restart_workers=1)
    told: list[Any] = []

    def tell(*_: Any) -> bool:
        told.append(dict(restarted.logger.name_to_value))
        return True

    restarted.learn(iterations=3, callback=tell, log_interval=None)
    assert told[1]["rollout/worker_restarts"] == restarted.sampler.restarts == 1
    assert all((undisturbed.parameters[name] == value).all() for name, value in restarted.parameters.items())
    restarted.close()
    with pytest.raises(RolloutError, match="FailsOnce"):
        learner(family, family_kwargs={**kwargs, "mark": str(tmp_path / "two")}, **once).learn(iterations=3)
    assert workers_of(os.getpid()) == []


MAIN = """
import sys
import gymnasium
import psutil
from toy_families import SignEnv, Slow
import metarl

class Own(Slow):
    pass

gymnasium.register(id="Own-v0", entry_point="__main__:Own")
family, workers = sys.argv[1], sys.argv[2]
model = metarl.MAML("MlpPolicy", family, learning={{"tasks": 10, "episodes": 4, "workers": {workers}}},
                    evaluation={{"tasks": 2, "episodes": 2}})
model.learn(iterations=1)
started = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
print("trained", "with" if started else "without", "workers")
{after}
"""


def run_script(tmp_path: Path, family: str, workers: str, after: str = "") -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(MAIN.format(workers=workers, after=after))
    support = str(Path(__file__).parents[1] / "support")
    return subprocess.Popen(
        [sys.executable, str(script), family, workers],
        env={**os.environ, "PYTHONPATH": support},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(available_cores() < 2, reason="there is one core, so no workers are started")
def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    out, err = run_script(tmp_path, SLOW, "'auto'").communicate(timeout=120)
    assert out.split() == ["trained", "with", "workers"], err


def test_a_family_of_the_main_program_stays_in_its_process(tmp_path: Path) -> None:
    out, err = run_script(tmp_path, "Own-v0", "'auto'").communicate(timeout=120)
    assert out.split() == ["trained", "without", "workers"], err
    _, err = run_script(tmp_path, "Own-v0", "2").communicate(timeout=120)
    assert "cannot be made in another process: the class of Own-v0 is defined in the main program" in err


def test_ctrl_c_leaves_workers_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    model = learner("toy_families:toy/Sign-v0")
    expected = learner("toy_families:toy/Sign-v0").learn(iterations=1).parameters
    answers, receive = itertools.count(1), Worker.receive

    def interrupted(worker: Worker, deadline: float, seconds: float) -> Any:
        if next(answers) == 6:  # after both workers have started and reset, the second one's first step
            raise KeyboardInterrupt
        return receive(worker, deadline, seconds)

    monkeypatch.setattr(Worker, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.learn(iterations=1)
    monkeypatch.undo()
    model.learn(iterations=1)
    assert all((expected[name] == value).all() for name, value in model.parameters.items())
    model.close()


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    process = run_script(tmp_path, SLOW, "2", after="import time; sys.stdout.flush(); time.sleep(100)")
    assert process.stdout is not None
    assert process.stdout.readline().split() == ["trained", "with", "workers"]
    left = workers_of(process.pid)
    assert len(left) >= 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in left):
        assert time.monotonic() < deadline, "a worker is still there"
        time.sleep(0.05)
