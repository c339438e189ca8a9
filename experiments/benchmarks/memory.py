"""The speed of learning with memory: the recurrent unit beside torch's, and RL² beside sb3-contrib's RecurrentPPO.

``python -m metarl.experiments.benchmarks.memory [--quick]``

RL² and RecurrentPPO play the same trials of a bandit with a memory of 64 and make as many epochs with minibatches of as
many steps; RecurrentPPO gets as many environments as RL² has trials. Times are processor seconds of one thread, since
other programs may use the machine too; the extra ``[contrib]`` is needed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from metarl import RL2, RandomTask, Trial, make
from metarl.agents.policies.gru import gru
from metarl.experiments.benchmarks.problems import medians, threads

FAMILY = "metarl/BernoulliBandit-v0"
SHAPES = ((32, 10, 64), (32, 100, 64), (32, 400, 64), (128, 100, 128))  # sequences, steps, hidden


def unit_seconds(sequences: int, steps: int, hidden: int, repeats: int) -> dict[str, float]:
    """Return the seconds of the passes forwards and backwards, by hand and by torch's own unit, packed and padded."""
    sizes = torch.full((steps,), sequences)
    generator = torch.Generator().manual_seed(0)
    shapes = ((3 * hidden, hidden), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,))
    weights = [(0.1 * torch.randn(shape, generator=generator)).requires_grad_() for shape in shapes]
    rows = torch.randn(sequences * steps, hidden, generator=generator, requires_grad=True)
    start, towards = torch.zeros(sequences, hidden), torch.randn(sequences * steps, hidden, generator=generator)
    options = (True, 1, 0.0, False, False)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "ours": lambda: gru(rows, sizes, start, (weights[0], weights[1], weights[2], weights[3])),
        "torch, packed": lambda: torch.gru(rows, sizes, start[None], weights, *options)[0],
        "torch, padded": lambda: torch.gru(rows.view(steps, sequences, hidden), start[None], weights, *options, False)[
            0
        ].view(-1, hidden),
    }
    calls: dict[str, Callable[[], object]] = {}
    for name, way in ways.items():
        kept = way()
        calls[f"{name}, forwards"] = way
        calls[f"{name}, backwards"] = lambda kept=kept: torch.autograd.grad(  # type: ignore[misc]
            (kept * towards).sum(), [rows, *weights], retain_graph=True
        )
    return medians(calls, repeats, time.process_time)


def ours(trials: int, pulls: int, repeats: int) -> float:
    """Return the environment steps a second of RL²'s whole iterations."""
    model = RL2(
        family=FAMILY,
        family_kwargs={"pulls": pulls},
        learning={"trial_episodes": 1},
        outer={"trials": trials, "minibatch_trials": max(1, trials // 4), "epochs": 4},
        policy_kwargs={"hidden_sizes": (64,)},
    )
    model.set_logger(Logger(None, []))
    numbers = iter(range(1, repeats + 2))
    seconds = medians({"ours": lambda: model.meta_iteration(model.state, next(numbers))}, repeats, time.process_time)
    model.close()
    return trials * pulls / seconds["ours"]


def theirs(trials: int, pulls: int, repeats: int) -> float:
    """Return the environment steps a second of RecurrentPPO's rollouts and updates."""
    from sb3_contrib import RecurrentPPO

    def environment() -> RandomTask:
        return RandomTask(Trial(make(FAMILY, pulls=pulls), 1))

    model = RecurrentPPO(
        "MultiInputLstmPolicy",
        DummyVecEnv([environment] * trials),
        n_steps=pulls,
        batch_size=trials * pulls // 4,
        n_epochs=4,
        seed=1,
        device="cpu",
        policy_kwargs={"lstm_hidden_size": 64, "net_arch": [], "enable_critic_lstm": False, "shared_lstm": True},
    )
    model.set_logger(Logger(None, []))
    seconds = medians(
        {"theirs": lambda: model.learn(trials * pulls, reset_num_timesteps=False)}, repeats, time.process_time
    )
    return trials * pulls / seconds["theirs"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller, and only once")
    options = parser.parse_args(arguments)
    repeats = 1 if options.quick else 7
    with threads(1):
        for shape in SHAPES[:1] if options.quick else SHAPES:
            found = unit_seconds(*shape, repeats)
            print(f"{shape[0]} sequences of {shape[1]} steps, memory {shape[2]}:")
            for name, seconds in found.items():
                own = found[f"ours, {name.rpartition(', ')[2]}"]
                print(f"  {name}: {1e3 * seconds:.2f} ms, ours ÷ this {own / seconds:.2f}")
        for trials, pulls in ((8, 5),) if options.quick else ((128, 10), (128, 100)):
            rates = ours(trials, pulls, repeats), theirs(trials, pulls, min(repeats, 3))
            print(
                f"{trials} trials of {pulls} pulls: RL² {rates[0]:,.0f} steps a second, RecurrentPPO {rates[1]:,.0f}: "
                f"{rates[0] / rates[1]:.1f} x"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
