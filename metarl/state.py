"""The state of a learner as an immutable value: a meta-iteration takes a state and returns the next one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metarl.agents import Normalizer, Parameters, Rollouts
from metarl.gradients import task_axis


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything that training changes.

    Attributes:
        parameters: the shared parameters, no task axis.
        critic: the value function's own parameters, which only some learners train.
        normalizer: running statistics of observations and returns.
        own_tensors: the learner's further tensors (such as step sizes or an optimiser's moments), by name.
        iteration: the number of meta-iterations so far.
        num_timesteps: environment steps of training, counted as stable-baselines3 does: from 0 in each call of
            ``learn`` that does not go on with the one before.
        earlier_timesteps: those of earlier calls, before the count began again.
        line_search_failures: the number of meta-iterations in which the line search accepted no step.
        progress_remaining: the share of the training that remained in the last meta-iteration, from 1 at its start to
            0, on which scheduled step sizes depend.
    """

    parameters: Parameters
    critic: Parameters = field(default_factory=dict)
    normalizer: Normalizer = field(default_factory=Normalizer)
    own_tensors: dict[str, Tensor] = field(default_factory=dict)
    iteration: int = 0
    num_timesteps: int = 0
    earlier_timesteps: int = 0
    line_search_failures: int = 0
    progress_remaining: float = 1.0

    @property
    def all_timesteps(self) -> int:
        """Environment steps of the whole training."""
        return self.earlier_timesteps + self.num_timesteps

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return all tensors by part and name, as in a checkpoint."""
        return {
            "parameters": self.parameters,
            "critic": self.critic,
            "normalizer": self.normalizer.tensors(),
            "extra": self.own_tensors,
        }

    def digest(self) -> int:
        """Return a number below 2^63 that differs if any bit of the tensors does."""
        digest = hashlib.blake2b(digest_size=8)
        for tensors in self.tensors().values():
            for name in sorted(tensors):
                digest.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return int.from_bytes(digest.digest()) >> 1

    def restored(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> State:
        """Return this state with other tensors of the same names, shapes and types, moved to the devices of its own.

        Raises:
            ValueError: a tensor is missing, unexpected, or has another shape or type.
        """
        found = {}
        for part, expected in self.tensors().items():
            given = tensors.get(part, {})
            if _described(given) != _described(expected):
                wrong = {name for name, _ in _described(given).items() ^ _described(expected).items()}
                raise ValueError(
                    f"the checkpoint's tensors do not fit its policy; it was damaged or edited ({part}: "
                    f"{', '.join(sorted(wrong)[:3])})"
                )
            found[part] = {name: given[name].to(value.device) for name, value in expected.items()}
        return replace(
            self,
            parameters=found["parameters"],
            critic=found["critic"],
            normalizer=self.normalizer.restore(found["normalizer"]),
            own_tensors=found["extra"],
        )


def _described(tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}


@dataclass(frozen=True)
class Best:
    """The state with the best validation so far."""

    score: float
    state: State


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a meta-iteration.

    Attributes:
        state: the next state, with the changes that the learner itself makes: parameters, own tensors, the critic,
            failures of the line search, and environment steps not contained in the rollouts. ``advance`` updates what
            all learners have in common (iteration, environment steps of the rollouts, normaliser).
        rollouts: after 0, 1, ... inner steps; of this share's tasks.
        metrics: by the logger's tags; text is not written to progress.csv.
    """

    state: State
    rollouts: list[Rollouts]
    metrics: dict[str, float | str] = field(default_factory=dict)


def check_outcome(outcome: Outcome, before: State) -> None:
    """Check that a meta-iteration returned all parameters and own tensors of the state that it started from.

    Raises:
        ValueError: one is missing, is one too many or has another shape or type, which no checkpoint could restore.
    """
    state = outcome.state
    for kind, found, expected in (
        ("own tensors", state.own_tensors, before.own_tensors),
        ("parameters", state.parameters, before.parameters),
    ):
        if _described(found) != _described(expected):
            raise ValueError(
                f"the learner returned the {kind} {', '.join(found) or 'none'}, and started from "
                f"{', '.join(expected) or 'none'}, or their shapes or types differ; meta_iteration (in variants of "
                "MAML next_state) has to return all of them, with the same shapes and types"
            )


def advance(outcome: Outcome, *, gamma: float, log_std_min: float) -> State:
    """Return the state after a meta-iteration: update iteration, environment steps and normaliser.

    Args:
        outcome: of the meta-iteration.
        gamma: the discount factor of the returns by which rewards may be normalised.
        log_std_min: the floor on the logarithm of the standard deviation.
    """
    state = outcome.state
    normalizer = state.normalizer
    if normalizer.observations or normalizer.returns is not None:
        for part in outcome.rollouts:
            normalizer = normalizer.update(task_axis.gather_rollouts(part), gamma)
    # Copies rather than views of a flat vector, as after loading: a resumed run then computes the same bits.
    parameters = {name: value.clone() for name, value in state.parameters.items()}
    if "log_std" in parameters:
        # This does not change the policy, but below the floor log_std would have no gradient and never rise again.
        parameters["log_std"].clamp_(min=log_std_min)
    return replace(
        state,
        parameters=parameters,
        critic={name: value.detach().clone() for name, value in state.critic.items()},
        normalizer=normalizer,
        own_tensors={name: value.clone() for name, value in state.own_tensors.items()},
        iteration=state.iteration + 1,
        num_timesteps=state.num_timesteps + task_axis.count(sum(part.steps() for part in outcome.rollouts)),
    )
