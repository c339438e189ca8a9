"""The speed of learning with memory: the recurrent unit beside torch's, and RL² beside sb3-contrib's RecurrentPPO.

``python -m metarl.experiments.benchmarks.memory [--quick]``

RL² and RecurrentPPO play the same trials with a memory of 64, of a bandit and of HalfCheetahVel, and make as many
epochs with minibatches of as many steps; RecurrentPPO gets as many environments as RL² has trials. Their iterations
alternate. Times are processor seconds of one thread, since other programs may use the machine too; the extra
``[contrib]`` is needed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from metarl import RL2, RandomTask, Trial, make
from metarl.agents.policies.gru import gru
from metarl.experiments.benchmarks.problems import medians, threads

BANDIT, CHEETAH = "metarl/BernoulliBandit-v0", "metarl/HalfCheetahVel-v0"
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


@dataclass(frozen=True)
class Trials:
    """What is played: trials of an episode of so many steps each, and how many iterations are measured."""

    name: str
    count: int
    steps: int
    family: str
    kwargs: dict[str, Any]
    repeats: int

    def rates(self) -> tuple[float, float]:
        """Return the environment steps a second of whole iterations, RL²'s and RecurrentPPO's."""
        model = our_learner(self)
        numbers = iter(range(1, self.repeats + 2))
        rival, total = their_learner(self), self.count * self.steps
        works: dict[str, Callable[[], Any]] = {
            "ours": lambda: model.meta_iteration(model.state, next(numbers)),
            "theirs": lambda: rival.learn(total, reset_num_timesteps=False),
        }
        seconds = medians(works, self.repeats, time.process_time)
        model.close()
        return total / seconds["ours"], total / seconds["theirs"]


def bandit(count: int, pulls: int, repeats: int) -> Trials:
    """Return trials of the Bernoulli bandit."""
    return Trials(f"{count} trials of {pulls} pulls", count, pulls, BANDIT, {"pulls": pulls}, repeats)


def cheetah(count: int, repeats: int) -> Trials:
    """Return trials of HalfCheetahVel."""
    steps = 200
    return Trials(f"{count} trials of {steps} steps of HalfCheetahVel", count, steps, CHEETAH, {}, repeats)


def our_learner(trials: Trials) -> RL2:
    """Return RL² before training."""
    model = RL2(
        family=trials.family,
        family_kwargs=trials.kwargs,
        learning={"trial_episodes": 1},
        outer={"trials": trials.count, "minibatch_trials": max(1, trials.count // 4), "epochs": 4},
        policy_kwargs={"hidden_sizes": (64,)},
    )
    model.set_logger(Logger(None, []))
    return model


def their_learner(trials: Trials) -> Any:
    """Return RecurrentPPO before training."""
    from sb3_contrib import RecurrentPPO

    def environment() -> RandomTask:
        return RandomTask(Trial(make(trials.family, **trials.kwargs), 1))

    model = RecurrentPPO(
        "MultiInputLstmPolicy",
        DummyVecEnv([environment] * trials.count),
        n_steps=trials.steps,
        batch_size=trials.count * trials.steps // 4,
        n_epochs=4,
        seed=1,
        device="cpu",
        policy_kwargs={"lstm_hidden_size": 64, "net_arch": [], "enable_critic_lstm": False, "shared_lstm": True},
    )
    model.set_logger(Logger(None, []))
    return model


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
        played = [bandit(128, 10, 7), bandit(128, 100, 5), cheetah(16, 3)]
        for trials in [bandit(8, 5, 1), cheetah(2, 1)] if options.quick else played:
            ours, theirs = trials.rates()
            print(f"{trials.name}: RL² {ours:,.0f} steps a second, RecurrentPPO {theirs:,.0f}: {ours / theirs:.1f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
