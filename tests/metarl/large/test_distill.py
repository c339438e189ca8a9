"""Distillation: small policies that act as large ones do, and small learners that adapt as large ones do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small import NAVIGATION, remembering, same, small
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.policies import ActorCriticPolicy

import metarl
from metarl import Compress, distill

SHORT = {"max_episode_steps": 8}
TASK = np.array([0.3, -0.2], np.float32)
SEEN = torch.as_tensor(np.random.default_rng(1).uniform(-0.2, 0.2, (50, 2)), dtype=torch.float32)


def divergence(teacher: ActorCriticPolicy, student: ActorCriticPolicy) -> float:
    """Return the mean divergence of a student's action distribution from a teacher's."""
    with torch.no_grad():
        apart = kl_divergence(teacher.get_distribution(SEEN), student.get_distribution(SEEN))
    return float(apart.sum(dim=1).mean())


def far(model: Any, name: str = "action_net") -> Any:
    """Return a model whose actions depend strongly on observations."""
    with torch.no_grad():
        model.policy.get_parameter(f"{name}.weight").mul_(100)
        model.policy.get_parameter("log_std").fill_(-1.0)
    return model


def test_a_student_of_a_model_acts_as_it_and_values_as_it() -> None:
    env = metarl.sb3.make_vec_env(NAVIGATION, 2, **SHORT)
    teacher = far(A2C("MlpPolicy", env, policy_kwargs={"net_arch": [64, 64]}, seed=1))
    before = {name: value.clone() for name, value in teacher.policy.state_dict().items()}
    drawn = torch.random.get_rng_state()
    student = distill(teacher, [8], rounds=2, steps=400, epochs=30, learning_rate=0.01)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert type(student) is A2C
    assert same(teacher.policy.state_dict(), before)
    new = A2C("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, seed=1)
    assert divergence(teacher.policy, student.policy) < 0.1 * divergence(teacher.policy, new.policy)
    with torch.no_grad():
        wanted, found = teacher.policy.predict_values(SEEN), student.policy.predict_values(SEEN)
    assert float((wanted - found).square().mean()) < 0.2 * float(wanted.var())
    assert sum(part.numel() for part in student.policy.parameters()) < 100
    student.learn(16)


def test_a_student_of_a_compressed_adapted_policy_plays_in_a_given_environment() -> None:
    policy = Compress(small().adapt(TASK))
    student = distill(policy, [16], env=metarl.make(NAVIGATION, task=TASK, **SHORT), rounds=2, steps=100)
    assert type(student) is PPO
    assert divergence(policy, student.policy) < 0.05
    with pytest.raises(ValueError, match=r"^the environment's observation_space is .*, and the policy's .*; give"):
        distill(policy, env=metarl.make("metarl/CartPoleParams-v0"))
    with pytest.raises(ValueError, match=r"^a CompressedPolicy has no environment to play in; give one: dis"):
        distill(policy)


def test_a_student_of_a_learner_adapts_as_it_does() -> None:
    # Steps so large that adaptation changes actions a lot.
    changes: dict[str, Any] = {
        "policy_kwargs": {"hidden_sizes": (20, 20), "output_gain": 1.0, "log_std_init": -1.0},
        "inner": {"step_size": 0.3},
        "learning": {"tasks": 8, "episodes": 6},
    }
    teacher = small(**changes)
    student = distill(teacher, [6], rounds=2, epochs=15, learning_rate=0.03)
    assert type(student) is type(teacher)
    assert student.functional_policy.shapes["mlp_extractor.policy_net.0.weight"] == (6, 2)
    new = small(**{**changes, "policy_kwargs": {**changes["policy_kwargs"], "hidden_sizes": (6,)}})
    assert divergence(teacher.policy, student.policy) < 0.3 * divergence(teacher.policy, new.policy)
    apart = []
    for model in (student, new):
        found = [
            divergence(teacher.adapt(task, steps=1, episodes=20), model.adapt(task, steps=1, episodes=20))
            for task in metarl.sample_tasks(NAVIGATION, 4, seed=1, split="test")
        ]
        apart.append(float(np.mean(found)))
    assert apart[0] < 0.6 * apart[1]
    student.learn(iterations=1)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("meta-sgd", {}),
        ("reptile", {"policy_kwargs": {"lora_rank": 2}, "inner": {"adapts": "lora"}}),
        ("maml", {"policy_kwargs": {"features_extractor_class": "networks:Wide", "freeze": "extractor"}}),
        ("maml", {"inner": {"steps": 2, "adapts": "head"}, "learning": {"normalize_observations": True}}),
    ],
)
def test_all_learners_of_gradient_steps_have_students(name: str, changes: dict[str, Any]) -> None:
    teacher = small(name, **changes).learn(iterations=1)
    student = distill(Compress(teacher), [4], rounds=2, epochs=2)
    assert student.functional_policy.shapes["mlp_extractor.policy_net.0.weight"][0] == 4
    assert sum(map(torch.numel, student.parameters.values())) < sum(map(torch.numel, teacher.parameters.values()))
    assert student.normalizer.observations.keys() == teacher.normalizer.observations.keys()
    assert student.learn(iterations=1).iteration == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_sizes": [0]}, r"^hidden_sizes is \[0\]; expected whole numbers from 1 on, as \[32\]$"),
        ({"hidden_sizes": 32}, r"^hidden_sizes is 32; expected whole numbers"),
        ({"rounds": 0}, r"^rounds is 0; expected a whole number from 1 on$"),
        ({"epochs": 1.5}, r"^epochs is 1\.5; expected a whole number"),
        ({"learning_rate": 0.0}, r"^learning_rate is 0\.0; expected a number above 0, as 0\.003$"),
        ({"env": object()}, r"^env is given, and a learner plays tasks of its own family; leave it out$"),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distill(small(), **arguments)


def test_what_cannot_be_distilled_is_one_sentence() -> None:
    for model, message in [
        ("ppo.zip", r"^str cannot be distilled; expected a learner, an adapted policy, or a PPO or A2C model"),
        (remembering(), r"^learner rl2 acts with a memory, whose policies are not distilled"),
        (
            small("cavia"),
            r"^learner cavia does not adapt by gradient steps of its parameters alone and is not",
        ),
        (small("task-aware"), r"^learner task-aware does not adapt by gradient steps"),
    ]:
        with pytest.raises(ValueError, match=message):
            distill(model)
    front = small(policy_kwargs={"features_extractor_class": "networks:Wide", "freeze": "extractor"})
    with pytest.raises(ValueError, match=r"^policy is 'MlpPolicy', and the student keeps the frozen features"):
        distill(front, policy="MlpPolicy")
