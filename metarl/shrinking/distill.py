"""Distillation: a smaller policy that acts as a large one does, learned from the large one's action distributions.

The student minimises the KL divergence of its action distribution from the teacher's (Rusu et al. 2016, section 3) on
states of the teacher's episodes in the first round and of its own episodes in the others, all rounds together (Ross et
al. 2011, algorithm 3.1).

A student of a learner has to adapt as the teacher does. In each round one of them plays and adapts, on tasks of the
split ``train``. The student minimises the sum of the divergences before and after each inner step from the teacher that
takes its inner steps on the same episodes, through its own inner steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from metarl import seeding
from metarl.adaptation_loop import adapt_on_rollouts
from metarl.agents import Distribution, Parameters, Rollouts, Samples, mean_kl, policy_gradient_loss
from metarl.agents.policies import ModulePolicy
from metarl.agents.policies.build import find_policy_class
from metarl.envs import tasks as task_tools
from metarl.gradients.adaptation import StepSize
from metarl.gradients.flat import named
from metarl.learner import BaseLearner
from metarl.shrinking.compress import Compressed, Decompress, learner_to_shrink

_BATCH = 64  # observations of a step of Adam
_TASKS = 2  # of a step of Adam
_OF_THE_TEACHER = ("net_arch", "activation_fn", "features_extractor_class", "features_extractor_kwargs")


def distill(
    model: Any,
    hidden_sizes: Sequence[int] = (32,),
    *,
    policy: str | None = None,
    env: Any = None,
    rounds: int = 10,
    steps: int = 1000,
    epochs: int = 20,
    learning_rate: float = 3e-3,
    seed: int = 1,
) -> Any:
    """Return a smaller model that acts, and of a learner adapts, as a given one does.

    Args:
        model: a learner that adapts by gradient steps (also in a ``MetaLearner`` or ``Compressed``), for which one of
            the same class comes back; or an adapted policy or a PPO or A2C model, also compressed, for which a model
            of stable-baselines3 comes back.
        hidden_sizes: widths of the student's hidden layers.
        policy: its policy by name; default: the learner's own, else ``MlpPolicy``, ``CnnPolicy`` or
            ``MultiInputPolicy``, as the observations are.
        env: in which a policy or model plays: a ``gymnasium.Env`` or vector environment of stable-baselines3, with the
            action space of the policy; default: the model's own. Learners play tasks of their family.
        rounds: of playing and learning; a learner plays ``learning.tasks`` and ``learning.episodes`` in each.
        steps: environment steps of a policy or model in each round.
        epochs: passes over all that was played, in each round.
        learning_rate: of Adam.
        seed: of the student's initial weights and of a policy's episodes.

    Raises:
        ValueError: a model that cannot be distilled, an environment that does not fit, or a number that is none.
    """
    _check(hidden_sizes, rounds=rounds, steps=steps, epochs=epochs)
    rate = isinstance(learning_rate, int | float) and math.isfinite(learning_rate) and learning_rate > 0
    if not rate:
        raise ValueError(f"learning_rate is {learning_rate!r}; expected a number above 0, as 0.003")
    if isinstance(model, OnPolicyAlgorithm | ActorCriticPolicy):
        return _distilled_model(model, list(hidden_sizes), policy, env, rounds, steps, epochs, learning_rate, seed)
    if env is not None:
        raise ValueError("env is given, and a learner plays tasks of its own family; leave it out")
    learner = Decompress(model) if isinstance(model, Compressed) else learner_to_shrink(model, "distilled")
    return _distilled_learner(learner, list(hidden_sizes), policy, rounds, epochs, learning_rate, seed)


def _check(hidden_sizes: Any, **counts: Any) -> None:
    def wrong(number: Any) -> bool:
        return not isinstance(number, int) or isinstance(number, bool) or number < 1

    if isinstance(hidden_sizes, str) or not isinstance(hidden_sizes, Sequence) or any(map(wrong, hidden_sizes)):
        raise ValueError(f"hidden_sizes is {hidden_sizes!r}; expected whole numbers from 1 on, as [32]")
    for name, number in counts.items():
        if wrong(number):
            raise ValueError(f"{name} is {number!r}; expected a whole number from 1 on")


def _distilled_model(
    model: Any,
    hidden_sizes: list[int],
    name: str | None,
    env: Any,
    rounds: int,
    steps: int,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> OnPolicyAlgorithm:
    teacher = model if isinstance(model, ActorCriticPolicy) else model.policy
    where = env if env is not None or teacher is model else model.get_env()
    if where is None:
        raise ValueError(f"a {type(model).__name__} has no environment to play in; give one: distill(model, env=env)")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chosen = find_policy_class(name or _name_for(teacher))
        student = _kind_for(model)(chosen, where, policy_kwargs={"net_arch": hidden_sizes}, device=teacher.device)
        _refuse_other_spaces(teacher, student.policy)
        playing: Any = student.get_env()
        playing.seed(seed)
        seen: list[Any] = []
        optimizer = torch.optim.Adam(student.policy.parameters(), lr=learning_rate)
        for number in range(rounds):
            seen += _played(teacher if number == 0 else student.policy, playing, steps)
            _imitate(student.policy, teacher, seen, optimizer, epochs)
    student.policy.set_training_mode(False)
    return student


def _kind_for(model: Any) -> Callable[..., OnPolicyAlgorithm]:
    return type(model) if isinstance(model, OnPolicyAlgorithm) else PPO


def _name_for(teacher: ActorCriticPolicy) -> str:
    space = teacher.observation_space
    if hasattr(space, "spaces"):
        return "MultiInputPolicy"
    return "CnnPolicy" if len(space.shape or ()) == 3 else "MlpPolicy"


def _refuse_other_spaces(teacher: ActorCriticPolicy, student: Any) -> None:
    for kind in ("observation_space", "action_space"):
        own, found = getattr(teacher, kind), getattr(student, kind)
        if own != found:
            raise ValueError(
                f"the environment's {kind} is {found}, and the policy's {own}; give an environment with the policy's, "
                "as metarl.make(family, task=task) for a policy that adapt(task) returned"
            )


def _played(player: ActorCriticPolicy, env: Any, steps: int) -> list[Any]:
    """Return batches of observations, as arrays, of ``steps`` environment steps."""
    found, latest = [], env.reset()
    for _ in range(-(-steps // env.num_envs)):
        found.append(latest)
        actions, _ = player.predict(latest, deterministic=False)
        latest, *_ = env.step(actions)
    return found


def _imitate(student: Any, teacher: ActorCriticPolicy, seen: list[Any], optimizer: Any, epochs: int) -> None:
    """Train a student's action distribution and values to be the teacher's on observations."""
    together = max(1, _BATCH // len(seen[0] if not isinstance(seen[0], dict) else next(iter(seen[0].values()))))
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(seen)), together):
            batches = [student.obs_to_tensor(seen[int(number)])[0] for number in chosen]
            given: Any = (
                {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
                if isinstance(batches[0], dict)
                else torch.cat(batches)
            )
            with torch.no_grad():
                wanted, values = teacher.get_distribution(given), teacher.predict_values(given)
            divergence = kl_divergence(wanted, student.get_distribution(given))
            scale = values.var(correction=0).clamp(min=1e-6)
            loss = divergence.reshape(len(values), -1).sum(dim=1).mean()
            loss = loss + (student.predict_values(given) - values).square().mean() / scale
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _distilled_learner(
    learner: BaseLearner,
    hidden_sizes: list[int],
    name: str | None,
    rounds: int,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> BaseLearner:
    if not learner.adapts_by_experience or not isinstance(learner.functional_policy, ModulePolicy):
        raise ValueError(
            f"learner {learner.name} does not adapt by gradient steps of its parameters alone and is not distilled; "
            "distil what it adapts to, as distill(learner.adapt(task), env=metarl.make(family, task=task))"
        )
    student = _new_student(learner, hidden_sizes, name, seed)
    played: list[_Episodes] = []
    parameters = {key: value.clone().requires_grad_() for key, value in student.parameters.items()}
    optimizer = torch.optim.Adam(parameters.values(), lr=learning_rate)
    for number in range(rounds):
        tasks = learner.drawn_tasks(number + 1, learner.settings.learning.tasks)
        played += _episodes(learner, student, tasks, number)
        for _ in range(epochs):
            for start in range(0, len(played), _TASKS):
                optimizer.zero_grad()
                for task in played[start : start + _TASKS]:
                    _divergence(student, parameters, task).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        found = {key: value.detach().clone() for key, value in parameters.items()}
        student.state = replace(student.state, parameters=found)
    return student


def _new_student(learner: BaseLearner, hidden_sizes: list[int], name: str | None, seed: int) -> BaseLearner:
    """Return a learner of the same class and settings with a new, smaller policy, on the features of the same front."""
    settings, front = learner.given_settings, learner.functional_policy.front
    if front is not None and name is not None:
        raise ValueError(
            f"policy is {name!r}, and the student keeps the frozen features extractor of the learner; leave policy out"
        )
    dropped = {"lora_rank": 0, "lora_layers": (), "prune": 0.0, "freeze": "none" if front is None else "extractor"}
    own = {**dropped, "hidden_sizes": tuple(hidden_sizes)}
    if name is not None:
        own |= {"name": name, "features_extractor_class": None, "features_extractor_kwargs": None}
    network = replace(settings.policy, **own)  # type: ignore[arg-type]
    adapts = "all" if settings.inner.adapts == "lora" else settings.inner.adapts
    settings = replace(settings, policy=network, inner=replace(settings.inner, adapts=adapts), seed=seed)
    left_out = _OF_THE_TEACHER if name is not None else ("net_arch",)
    kwargs = {key: value for key, value in learner.policy_kwargs.items() if key not in left_out}
    student = type(learner).from_settings(settings, kwargs)
    if front is not None:
        buffers = {**student.functional_policy.buffers(), **front.tensors()}
        student = type(learner).from_settings(settings, kwargs, buffers)
    noise = {key: value.clone() for key, value in learner.parameters.items() if key == "log_std"}
    state = replace(student.state, parameters={**student.parameters, **noise}, normalizer=learner.normalizer)
    student.state = state
    return student


class _Episodes:
    """What a task's student learns from: its samples before each inner step and after the last, and the teacher's.

    Args:
        samples: for 0, 1, ... inner steps, of one task.
        inner: the same, with the advantages of the inner update.
        wanted: the teacher's action distributions at these samples.
        sizes: of the student's inner steps.
    """

    def __init__(
        self, samples: list[Samples], inner: list[Samples], wanted: list[Distribution], sizes: list[StepSize]
    ) -> None:
        self.samples, self.inner, self.wanted, self.sizes = samples, inner, wanted, sizes


def _episodes(learner: BaseLearner, student: BaseLearner, tasks: Any, number: int) -> list[_Episodes]:
    """Return what is played of a batch of tasks, by the teacher or in later rounds the student, and what is wanted."""
    count = task_tools.count_tasks(tasks)
    steps = learner.settings.inner.steps

    player = learner if number == 0 else student

    def collect(parameters: Parameters, step: int) -> Rollouts:
        streams = seeding.streams(player.settings.seed, seeding.TRAINING, number, step, tasks=range(count))
        return player.collect(player.state, parameters, tasks, streams)

    def update(parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        return player.adapted(player.state, parameters, rollouts, step)

    _, rollouts = adapt_on_rollouts(_stacked(player, count), collect, update, steps)
    teacher = [_stacked(learner, count)]
    for step in range(steps):
        teacher.append(learner.adapted(learner.state, teacher[-1], rollouts[step], step))
    samples = [student.samples(student.state, part) for part in rollouts]
    inner = [student.inner_samples(student.state, part) for part in rollouts]
    sizes = [student.step_size(student.state, step) for step in range(steps)]
    found = []
    for task in range(count):
        own = [part.task(task) for part in samples]
        with torch.no_grad():
            wanted = [
                learner.functional_policy.distribution({key: value[task] for key, value in parameters.items()}, part)
                for parameters, part in zip(teacher, own, strict=True)
            ]
        found.append(_Episodes(own, [part.task(task) for part in inner], wanted, sizes))
    return found


def _stacked(learner: BaseLearner, count: int) -> Parameters:
    return {key: value.expand(count, *value.shape) for key, value in learner.parameters.items()}


def _divergence(student: BaseLearner, parameters: Parameters, task: _Episodes) -> Tensor:
    """Return the sum of the mean divergences before and after each inner step, differentiable through the steps."""
    policy = student.functional_policy
    total = torch.zeros(())
    for step, (samples, wanted) in enumerate(zip(task.samples, task.wanted, strict=True)):
        total = total + mean_kl(wanted, policy.distribution(parameters, samples), samples)
        if step < len(task.sizes):
            loss = policy_gradient_loss(policy.distribution(parameters, task.inner[step]), task.inner[step])
            moved = {key: value for key, value in parameters.items() if student.adapts is None or key in student.adapts}
            gradients = torch.autograd.grad(loss, list(moved.values()), create_graph=True)
            size = task.sizes[step]
            sizes = named(policy.shapes, size) if isinstance(size, Tensor) else size
            for (key, value), gradient in zip(moved.items(), gradients, strict=True):
                own = sizes[key] if isinstance(sizes, dict) else sizes
                parameters = {**parameters, key: value - own * gradient}
    return total
