"""Policies as pure functions of their parameters, one file for each kind, with the actor that samples its actions."""

from metarl.agents.frozen.trained import is_critic
from metarl.agents.policies.acting import Actor, Noise, NoNoise
from metarl.agents.policies.build import build_policy, wrap_module
from metarl.agents.policies.context import ContextPolicy
from metarl.agents.policies.mixture import MixturePolicy
from metarl.agents.policies.module import ModulePolicy
from metarl.agents.policies.perceptron import PerceptronPolicy
from metarl.agents.policies.policy import Layer, Parameters, Policy
from metarl.agents.policies.recurrent import GruActor, GruPolicy, Memory
from metarl.agents.policies.trial_policy import TrialPolicy
from metarl.agents.policies.uniform import UniformPolicy

__all__ = [
    "Actor",
    "ContextPolicy",
    "GruActor",
    "GruPolicy",
    "Layer",
    "Memory",
    "MixturePolicy",
    "ModulePolicy",
    "NoNoise",
    "Noise",
    "Parameters",
    "PerceptronPolicy",
    "Policy",
    "TrialPolicy",
    "UniformPolicy",
    "build_policy",
    "is_critic",
    "wrap_module",
]
