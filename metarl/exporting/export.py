"""From a learner and a task, or a policy, to a file that acts without metarl."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from metarl.agent import MetaAgent, learner_of
from metarl.agents.policies import TrialPolicy
from metarl.envs import own_env
from metarl.envs import tasks as task_tools
from metarl.exporting.formats import refuse_file, write_network
from metarl.exporting.networks import network_of
from metarl.gradients.flat import task_parameters
from metarl.guide.faults import shown
from metarl.memory.learner import MemoryLearner
from metarl.sb3.own_actions import unfold_actions
from metarl.version import __version__


def export(
    model: Any,
    path: str | Path,
    task: Any = None,
    *,
    steps: int | None = None,
    episodes: int | None = None,
    seed: int | None = None,
) -> Path:
    """Write a policy into a file of ONNX or of ``torch.export``, which acts without metarl.

    Normalisation of observations is inside, and so is the map to the environment's own actions, if the model is a
    learner. The input is ``observation``, ``[environment, *obs]``, or one input for each key of a Dict space: boxes in
    single precision, images as bytes with channels first. The first output, ``action``, is the most likely action;
    further ones describe the distribution of actions. A policy with memory has the inputs ``state`` and
    ``episode_start`` too, and returns the next state. Before the file is written, it is run on random observations and
    compared with the policy. The learner does not change.

    Args:
        model: a learner, ``MetaLearner``, or a policy that ``adapt`` returned, whose actions stay those it has.
        path: a new file, ``.onnx`` (needs the extra ``[export]``) or ``.pt2``.
        task: to adapt to, anything ``adapt`` takes; None: the policy before adaptation.
        steps: adaptation steps, as for ``adapt``.
        episodes: as for ``adapt``.
        seed: of the episodes, as for ``adapt``.

    Returns:
        the path.

    Raises:
        ValueError: the file exists or cannot be written, an extra is missing, arguments do not fit, torch cannot export
            the policy, or what was exported would act otherwise.
        RolloutError: the environment failed in adaptation.
    """
    path = Path(path)
    refuse_file(path)
    counts = {"steps": steps, "episodes": episodes, "seed": seed}
    asked = {name: value for name, value in counts.items() if value is not None}
    facts = {"metarl": __version__}
    if isinstance(model, ActorCriticPolicy | TrialPolicy):
        if task is not None or asked:
            named = ", ".join([*(["task"] if task is not None else []), *asked])
            raise ValueError(f"{named} cannot be given with a policy, which has adapted already; give the learner")
        policy = copy.deepcopy(model)
    else:
        learner = learner_of(model)
        if task is None and asked:
            raise ValueError(f"{', '.join(asked)} is given, but no task to adapt to; give a task too, or leave it out")
        policy = _policy(learner, task, asked)
        facts |= {"family": learner.settings.family, "learner": learner.name, "iteration": str(learner.iteration)}
        if task is not None and not isinstance(task, gymnasium.Env):
            facts["task"] = json.dumps(task_tools.plain(task_tools.as_task(learner.env, task)))
    actions = policy.action_space
    if not isinstance(actions, spaces.Box | spaces.Discrete | spaces.MultiDiscrete):
        raise ValueError(f"policies for {shown(actions)} cannot be exported; expected Box, Discrete or MultiDiscrete")
    facts["action"] = str(actions)
    write_network(path, network_of(policy.to("cpu")), facts)
    return path


def _policy(learner: MetaAgent, task: Any, asked: dict[str, int]) -> ActorCriticPolicy | TrialPolicy:
    """Return a policy of its own, in the environment's own actions."""
    if isinstance(task, gymnasium.Env):
        return learner.adapt(task, **asked)
    env = own_env(learner.env)
    if isinstance(learner, MemoryLearner):
        memory = None if task is None else learner.remembered(task, **asked)
        return learner.as_policy(learner.parameters, learner.state, memory, env)
    parameters = learner.parameters if task is None else task_parameters(learner.adaptation(task, **asked)[-1], 0)
    return unfold_actions(learner.as_policy(parameters, learner.state), env.action_space)
