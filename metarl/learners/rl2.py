"""RL²: a policy with memory that learns, over whole trials, to explore and to use what it found out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import ConfigDict
from torch import Tensor

from metarl import seeding
from metarl.agents import Parameters, Rollouts
from metarl.agents.policies.gru import Scratch
from metarl.agents.trials import trial_advantages
from metarl.envs import task_vectors
from metarl.envs import tasks as task_tools
from metarl.fields import FORBID, Count, Inside, NotNegative, Positive, Switch, setting
from metarl.gradients import task_axis
from metarl.gradients.flat import flatten, named
from metarl.gradients.optimizers import ascend, first_moments
from metarl.memory import by_hand
from metarl.memory.learner import MemoryLearner
from metarl.memory.playing import by_episode, free_bytes
from metarl.memory.ppo import Batch, Parts, Weights, after_cut, gradient_bytes, loss_gradient, remembered
from metarl.memory.value_head import CENTRE, SCALE, new_value_head, rescaled, standard_values
from metarl.state import Outcome, State

_SHARE = 0.1  # of an iteration's returns in the running units of the value function, after the first iterations
_UNITS = (CENTRE, SCALE)
_ROWS = 4096  # steps whose memory is computed side by side at least, where there are no features to keep


@dataclass(frozen=True, kw_only=True)
class TrialPPO:
    """The settings of PPO's epochs over whole trials.

    An iteration plays ``trials`` trials, each of a task of its own; ``auto`` stands for as many as have the episodes of
    an iteration of MAML: ``learning.tasks * learning.episodes * (inner.steps + 1)``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    trials: Literal["auto"] | Count = setting(
        "auto", "trials of an iteration, each of a task of its own; auto: as many as have the episodes of MAML's"
    )
    minibatch_trials: Count = setting(32, "trials for each step of Adam, at most; all steps have about as many")
    epochs: Count = setting(4, "passes over the trials of an iteration")
    learning_rate: Positive = setting(1e-3, "step size of Adam")
    clip: Inside = setting(0.2, "how far the ratio of new to old probabilities counts", "distance from 1")
    entropy: NotNegative = setting(0.01, "weight of the policy's entropy, against early certainty")
    value_weight: Positive = setting(0.5, "weight of the value function's error")
    max_gradient_norm: Positive = setting(0.5, "Euclidean norm to which a larger gradient is shortened")
    critic: Literal["privileged", "plain"] = setting(
        "privileged", "privileged: the value function is told the task in training, and the policy never is"
    )
    across_episodes: Switch = setting(True, "whether returns go on from an episode of a trial to the next")
    chunk: Literal["trial"] | Count = setting("trial", "steps through which gradients flow back; trial: all", "steps")


class RL2(MemoryLearner):
    """RL²: a recurrent policy that is trained over trials of several episodes of a task; experience adapts it.

    The policy is told its last action, the last reward and whether an episode has just ended, and remembers across the
    episodes of a trial. So exploring pays, where later steps of the trial make use of it (Duan et al. 2016; Wang et al.
    2016). It is trained by PPO (Schulman et al. 2017, equation 9) with generalised advantages, by which the discount
    goes on across the episodes of a trial (``outer.across_episodes``), and gradients flow back through whole trials
    (``outer.chunk``). With ``outer.critic = "privileged"`` the value function is told the task in training, and the
    policy never is (Pinto et al. 2018).
    """

    name = "rl2"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (TrialPPO,)
    source = "Duan et al. 2016; Wang et al. 2016"

    def validate(self) -> None:
        """Check the settings; see ``MemoryLearner.validate``.

        Raises:
            ValueError: inner steps are asked for, or the value function is to be told tasks that are no numbers.
        """
        super().validate()
        space = task_tools.task_space(self._env)
        if self.settings.outer.critic == "privileged" and not task_vectors.has_vectors(space):
            raise ValueError(
                f"outer.critic is 'privileged', but tasks of {space} have texts, which cannot be turned into numbers "
                "for the value function; set outer.critic = 'plain'"
            )

    @property
    def trials(self) -> int:
        """The number of trials of an iteration."""
        given = self.settings.outer.trials
        if given != "auto":
            return int(given)
        return max(1, self.settings.iteration_episodes // self.settings.learning.trial_episodes)

    def initial_state(self) -> State:
        """Return the state before training, with the value function, its units, and Adam's moments."""
        state = super().initial_state()
        told = self._told_tasks(self.drawn_tasks(0, 1)).shape[1]
        head = new_value_head(self.functional_policy.memory_size, told, self.settings.seed)
        head = {name: value.to(self.device) for name, value in head.items()}
        shared = flatten([*state.parameters.values(), *head.values()])
        units = {CENTRE: torch.zeros((), device=self.device), SCALE: torch.ones((), device=self.device)}
        return replace(state, critic=head, own_tensors={**first_moments("adam", shared), **units})

    def check_state(self, state: State) -> None:
        """Check the value function's units, by which its targets are shifted and divided.

        Raises:
            ValueError: one is not finite, or the divisor is not above 0.
        """
        centre, unit = (float(state.own_tensors[name]) for name in _UNITS)
        if not math.isfinite(centre) or not 0.0 < unit < math.inf:
            raise ValueError(
                f"the tensors {CENTRE} and {SCALE} are {centre} and {unit}; expected a finite number, and one above 0"
            )

    @property
    def dealt_tasks(self) -> int:
        """How many tasks an iteration deals to several processes: those of its trials."""
        return self.trials

    def training_tasks(self, iteration: int) -> Any:
        """Return the tasks of an iteration's trials, newly drawn and augmented; those given to ``learn`` take turns."""
        if self._given_tasks is None:
            return self.augmented(self.drawn_tasks(iteration, self.trials), iteration)
        turns = np.arange(self.trials) % task_tools.count_tasks(self._given_tasks)
        return self.augmented(task_tools.take_tasks(self._given_tasks, turns), iteration)

    def _told_tasks(self, tasks: Any) -> Tensor:
        """Return what the value function is told of tasks, ``[task, number]``; no numbers if it is plain."""
        if self.settings.outer.critic == "plain":
            return torch.zeros(task_tools.count_tasks(tasks), 0, device=self.device)
        scaled = task_vectors.scaled_vectors(task_tools.task_space(self._env), tasks)
        return torch.from_numpy(scaled).float().to(self.device)

    def meta_iteration(self, state: State, iteration: int) -> Outcome:
        """Play trials, estimate advantages over whole trials, and train policy and value function by PPO's epochs."""
        tasks = self.training_tasks(iteration)
        streams = self.training_streams(tasks, iteration, 0)
        self._refuse_long_trials(self.longest_trial(self.settings.learning.trial_episodes) or 1)
        own = self.collect_trials(state, tasks, streams)
        rollouts = task_axis.gather_rollouts(own)
        self._refuse_long_trials(int(rollouts.mask.sum(dim=(1, 2)).max()))
        batch, head, units = self._batch(state, rollouts, self._told_tasks(tasks))
        found, moments, metrics = self._epochs(state, head, batch, iteration)
        parameters = {name: found[name] for name in state.parameters}
        return Outcome(
            state=replace(
                state,
                parameters=parameters,
                critic={name: found[name] for name in state.critic},
                own_tensors={**moments, **units},
            ),
            rollouts=by_episode(own, own.n_tasks),
            metrics=metrics,
        )

    def _refuse_long_trials(self, steps: int) -> None:
        """Refuse trials of so many steps if the gradient through them does not fit into memory."""
        trials = min(self.trials, self.settings.outer.minibatch_trials)
        rows = trials * min(steps, self._chunk or steps)
        needed, free = gradient_bytes(self.functional_policy, rows), free_bytes(self.device)
        if needed > free:
            raise ValueError(
                f"the gradient through {trials} trials of up to {steps:,} steps needs about {needed:,} bytes of memory "
                f"and {free:,} are free; set outer.chunk to a number of steps, or outer.minibatch_trials to fewer"
            )

    def _batch(self, state: State, rollouts: Rollouts, tasks: Tensor) -> tuple[Batch, Parameters, Parameters]:
        """Return what an iteration learns from, and the value function with its units, adjusted to the returns."""
        learning, outer, policy = self.settings.learning, self.settings.outer, self.functional_policy
        steps, rewards = self.as_seen(state, rollouts)
        at_once = outer.minibatch_trials
        if by_hand.applies(policy, self.device):
            at_once = max(at_once, _ROWS // int(steps.lengths.max()))
        memory = remembered(policy, state.parameters, steps, at_once, self._chunk)
        beyond = after_cut(policy, state.parameters, steps, memory)
        units = {name: state.own_tensors[name] for name in _UNITS}

        @torch.no_grad()
        def values(memories: Tensor, trials: Tensor) -> Tensor:
            found = standard_values(state.critic, memories, tasks[trials])
            return (units[CENTRE] + units[SCALE] * found).cpu()

        of_steps = values(
            memory, torch.repeat_interleave(torch.arange(len(steps.lengths)), steps.lengths).to(tasks.device)
        )
        of_cut = torch.zeros(rollouts.mask.shape[:2])
        if len(steps.cut.places):
            of_cut[tuple(steps.cut.places.T)] = values(beyond, steps.cut.places[:, 0].to(tasks.device))
        advantages = trial_advantages(
            rollouts,
            rewards,
            of_steps,
            of_cut,
            gamma=learning.gamma,
            gae_lambda=learning.gae_lambda,
            across=outer.across_episodes,
        ).to(self.device)
        returns = advantages + of_steps.to(self.device)
        share = max(_SHARE, 1.0 / (state.iteration + 1))
        head, units = rescaled(state.critic, units, returns, share)
        return (
            Batch(
                steps=steps,
                tasks=tasks,
                advantages=standardized(advantages, returns),
                targets=(returns - units[CENTRE]) / units[SCALE],
            ),
            head,
            units,
        )

    @property
    def _chunk(self) -> int | None:
        chunk = self.settings.outer.chunk
        return None if chunk == "trial" else int(chunk)

    def _epochs(
        self, state: State, head: Parameters, batch: Batch, iteration: int
    ) -> tuple[Parameters, dict[str, Tensor], dict[str, float | str]]:
        """Return all parameters and Adam's moments after the epochs, and metrics of the last of them."""
        outer, policy = self.settings.outer, self.functional_policy
        weights = Weights(clip=outer.clip, entropy=outer.entropy, value=outer.value_weight)
        shared = {**state.parameters, **head}
        shapes = {name: value.shape for name, value in shared.items()}
        vector = flatten(shared.values())
        moments = {name: part for name, part in state.own_tensors.items() if name not in _UNITS}
        rng = seeding.Stream(self.settings.seed, (seeding.TRAINING, iteration, 1)).noise()
        gradient_of: Callable[..., tuple[Parameters, Parts, int]] = loss_gradient
        if by_hand.applies(policy, vector.device):
            gradient_of = functools.partial(by_hand.loss_gradient, scratch=Scratch())
        sums: dict[str, Tensor] = {}
        norms: list[Tensor] = []
        for _ in range(outer.epochs):
            sums, norms, rows = {}, [], 0
            order = torch.from_numpy(rng.permutation(len(batch.steps.lengths)))
            for trials in torch.tensor_split(order, -(-len(order) // outer.minibatch_trials)):
                gradient, parts, count = gradient_of(policy, named(shapes, vector), batch, trials, weights, self._chunk)
                flat = flatten(gradient.values())
                norm = flat.norm()
                flat = flat * (outer.max_gradient_norm / norm.clamp(min=outer.max_gradient_norm))
                vector, moments = ascend(vector, -flat, moments, outer.learning_rate)
                norms.append(norm)
                rows += count
                sums = {name: sums.get(name, torch.zeros_like(part)) + part for name, part in parts.items()}
            if not bool(torch.isfinite(torch.stack([*norms, vector.norm()])).all()):
                raise FloatingPointError(
                    f"iteration {iteration}: the gradient of the trials is not finite; a smaller outer.learning_rate "
                    "or a higher policy.log_std_min may help"
                )
        metrics: dict[str, float | str] = {
            "policy/entropy": float(sums["entropy"]) / rows,
            "train/kl": float(sums["kl"]) / rows,
            "train/value_error": float(sums["value_error"]) / rows,
            "train/gradient_norm": float(torch.stack(norms).mean()),
        }
        return named(shapes, vector), moments, metrics


def standardized(values: Tensor, origin: Tensor) -> Tensor:
    """Return values ``[row]`` with mean 0 and deviation 1; zeros where only rounding of ``origin`` differs."""
    shifted = values - values.mean()
    deviation = shifted.square().mean().sqrt()
    rounding = 1e-5 * origin.square().mean().sqrt()
    return torch.where(deviation > rounding, shifted / (deviation + 1e-8), 0.0)
