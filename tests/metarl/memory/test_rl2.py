"""RL²: what it learns, its interface, and what it refuses."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import LENGTHS_DIFFER, NAVIGATION, SIGN, copied, remembering, same, small, trials_of
from stable_baselines3.common.evaluation import evaluate_policy

import metarl
from metarl.learners.registry import load_learner
from metarl.settings import as_dict

BANDIT = "metarl/BernoulliBandit-v0"


def probe(name: str, **outer: Any) -> metarl.RL2:
    return metarl.RL2(
        family=f"probes:probe/{name}-v0",
        learning={"gae_lambda": 1.0},
        outer={"trials": 128, "learning_rate": 1e-2, **outer},
        evaluation={"every": 1000, "tasks": 20, "episodes": 4},
        policy_kwargs={"hidden_sizes": (16,)},
    )


@pytest.mark.parametrize(("critic", "chunk"), [("privileged", "trial"), ("plain", "trial"), ("plain", 2)])
def test_what_depends_on_the_task_is_found_out_in_the_first_episode(critic: str, chunk: Any) -> None:
    """Probe (f): the reward's sign is the task, so 0 is the best at first and 1 after an episode."""
    model = probe("HiddenSign", critic=critic, chunk=chunk)
    untrained = model.evaluate(n_tasks=40)
    trained = model.learn(iterations=15).evaluate(n_tasks=40)
    assert untrained.mean(1) < 0.5
    assert abs(trained.mean(0)) < 0.3
    assert trained.mean(1) > 0.95


def test_without_gradients_through_earlier_steps_there_is_no_memory_to_learn() -> None:
    """Chunks of a single step leave the recurrent weights as they were drawn, though the inputs still tell a little."""
    model = probe("HiddenSign", chunk=1)
    gradient = copied(model.parameters)["weight_hh"]
    model.learn(iterations=2)
    moved = (model.parameters["weight_hh"] - gradient).abs().max()
    assert moved > 0.0  # through the last step alone


def looks(model: Any) -> float:
    """Return how often a learner looks in the first episodes of trials."""
    _, rollouts = trials_of(model)
    return float(rollouts.actions[:, 0, 0, 0].float().mean())


def test_who_is_credited_with_later_episodes_looks_in_the_first() -> None:
    """Probe (g): looking costs in the first episode, and what it tells is of use only in the second."""
    far, near = (
        probe("CostlyLook", across_episodes=across, entropy=0.003).learn(iterations=60) for across in (True, False)
    )
    assert looks(far) > 0.8
    assert looks(near) < 0.3
    assert far.evaluate(n_tasks=100).mean(1) > 0.7


@pytest.mark.parametrize("name", ["Acted", "Matched"])
def test_what_pays_in_every_task_is_learned_for_the_first_episode(name: str) -> None:
    """Probes (d) and (e): an action that pays, and one that pays where the observation says so."""
    trained = probe(name).learn(iterations=25).evaluate(n_tasks=20)
    assert trained.mean(0) > 0.95
    assert trained.mean(1) > 0.95


def test_the_points_of_an_evaluation_are_episodes_of_a_trial() -> None:
    model = remembering(learning={"trial_episodes": 3})
    evaluation = model.evaluate(n_tasks=5, episodes=4)
    assert evaluation.returns.shape == (3, 5)
    assert evaluation.counted == evaluation.to_json()["counted"] == "earlier episodes"
    lines = evaluation.table().splitlines()
    assert "(5 tasks, " in lines[0]
    assert "4 trials of each task, of 3 episodes, as in training" in lines
    assert lines[4].split()[:2] == ["earlier", "episodes"]
    longer = model.evaluate(n_tasks=5, episodes=4, steps=4)
    np.testing.assert_array_equal(longer.returns[:3], evaluation.returns)  # a longer trial begins with the same
    assert longer.returns.shape == (5, 5)
    single = remembering(learning={"trial_episodes": 1}).learn(iterations=1).evaluate(n_tasks=2)
    assert single.returns.shape == (1, 2)
    assert small("maml").evaluate(n_tasks=2).counted == "adaptation steps"


def test_an_iteration_plays_as_many_episodes_as_one_of_maml_or_as_said() -> None:
    model = small("rl2", learning={"trial_episodes": 2})  # 3 tasks, 4 episodes, before and after a step
    assert model.trials == 12
    assert small("rl2", learning={"trial_episodes": 100}).trials == 1
    model.learn(iterations=1)
    _, rollouts = trials_of(model)
    assert rollouts.mask.shape[:2] == (12, 2)
    assert len(np.unique(model.training_tasks(1), axis=0)) == 12  # each trial has a task of its own
    assert remembering(outer={"trials": 5}).trials == 5


def test_given_tasks_take_turns() -> None:
    tasks = np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)
    model = remembering().learn(iterations=1, tasks=tasks)
    np.testing.assert_array_equal(model.training_tasks(1), tasks[[0, 1, 0, 1, 0, 1]])


def test_adapting_leaves_the_learner_and_remembers() -> None:
    model = remembering(family=BANDIT, family_kwargs={"pulls": 5}).learn(iterations=1)
    before, task = copied(model.parameters), metarl.sample_tasks(BANDIT, 1)[0]
    policies = [model.adapt(task, episodes=episodes) for episodes in (0, 1, 2, 2)]
    assert same(before, model.parameters)
    env = metarl.Trial(metarl.make(BANDIT, task=task, pulls=5), 2)
    observation, _ = env.reset(seed=1)
    states = [policy.predict(observation, deterministic=True)[1][0] for policy in policies]
    assert states[0].shape == (1, 1, model.functional_policy.memory_size)
    assert not np.allclose(states[0], states[1])
    assert not np.allclose(states[1], states[2])
    np.testing.assert_array_equal(states[2], states[3])
    assert not np.allclose(model.adapt(task, episodes=2, seed=9).predict(observation)[1][0], states[2])
    first, default = model.adapt(task), model.adapt(task, episodes=1)  # a trial has two episodes
    np.testing.assert_array_equal(first.predict(observation)[1][0], default.predict(observation)[1][0])
    assert len(evaluate_policy(policies[1], env, 3, return_episode_rewards=True, warn=False)[0]) == 3


FAMILIES: dict[str, dict[str, Any]] = {
    "navigation": {},
    "bandit": {"family": BANDIT, "family_kwargs": {"pulls": 4}},
    "several choices": {"family": LENGTHS_DIFFER, "family_kwargs": {"actions": "multi"}},
    "images": {"family": LENGTHS_DIFFER, "family_kwargs": {"observations": "image channels last"}},
    "dicts": {"family": "toy_families:toy/Sign-v0", "family_kwargs": {"observations": "dict", "actions": "matrix"}},
    "normalised": {"learning": {"normalize_observations": True, "normalize_rewards": True}},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_adapter_the_policy_on_trials_and_the_learner_remember_the_same(name: str) -> None:
    """In a loop of one's own, the adapter; the policy that it gives, and that of no experience told the same steps."""
    model = remembering(**FAMILIES[name]).learn(iterations=1)
    task = metarl.sample_tasks(model.settings.family, 1, **model.settings.family_kwargs)[0]
    env = metarl.make(model.settings.family, task=task, **model.settings.family_kwargs)
    adapter, observed = model.adapter(env, seed=3), []
    actions: list[Any] = []
    for episode in range(2):
        observation, _ = env.reset(seed=episode)
        action = adapter.start(observation)
        while action is not None:
            observed.append(observation)
            actions.append(action)
            observation, reward, terminated, truncated, _ = env.step(action)
            action = adapter.observe(observation, reward, terminated, truncated)
    assert adapter.updates == 2
    assert [len(part) for part in adapter.returns] == [1, 1, 0]
    assert len(adapter.table().splitlines()) == 3
    # The same steps, told to a policy without experience by the wrapper.
    trial, policy = metarl.Trial(env, 3), model.adapt(env, episodes=0)
    told, _ = trial.reset(seed=0)
    state, starts = None, np.array([True])
    for action in actions:
        _, state = policy.predict(told, state, starts)
        starts = np.array([False])
        told, *_ = trial.step(action)
        if told["episode_ended"][0]:
            env.reset(seed=1)  # as above; only what is told of the end is used below
            told = {**told, **_first(env, told)}
    _, state = policy.predict(told, state, starts)
    _, remembered = adapter.policy.predict(told)
    assert state is not None
    assert remembered is not None
    np.testing.assert_allclose(remembered[0], state[0], atol=2e-5)


def _first(env: Any, told: dict[str, Any]) -> dict[str, Any]:
    """Return the first observation of an episode with seed 1, under its keys in a trial."""
    observation, _ = env.reset(seed=1)
    return observation if isinstance(observation, dict) else {"observation": observation}


def test_an_episode_that_is_dropped_is_forgotten() -> None:
    model = remembering(family=BANDIT, family_kwargs={"pulls": 4})
    env = metarl.make(BANDIT, pulls=4)
    ours, other = model.adapter(env, seed=1), model.adapter(env, seed=1)
    first = ours.start(env.reset(seed=1)[0])
    ours.observe(*env.step(first)[:4])
    assert ours.start(env.reset(seed=1)[0]) == other.start(env.reset(seed=1)[0]) == first
    assert ours.play() == other.play()
    with pytest.raises(ValueError, match="no episode was begun; call start"):
        ours.observe(np.zeros(1, np.float32), 0.0, False, False)


def test_a_policy_takes_one_observation_or_several() -> None:
    model = remembering(family=BANDIT)
    policy = model.policy
    env = metarl.Trial(metarl.make(BANDIT), 2)
    one, _ = env.reset(seed=1)
    action, state = policy.predict(one)
    assert np.shape(action) == ()
    several = {key: np.stack([value] * 3) for key, value in one.items()}
    actions, states = policy.predict(several)
    assert actions.shape == (3,)
    told = {**several, "previous_reward": np.ones((3, 1), np.float32)}
    starts = np.array([False, True, False])
    _, following = policy.predict(told, states, starts)
    # The second trial begins anew: it forgets, and what it is told of another trial's reward does not count.
    np.testing.assert_allclose(following[0][0, 1], states[0][0, 1], atol=1e-6)
    assert not np.allclose(following[0][0, 0], states[0][0, 0])
    np.testing.assert_allclose(following[0][0, 0], following[0][0, 2], atol=1e-6)
    assert model.predict(one)[1][0].shape == state[0].shape
    with pytest.raises(ValueError, match=r"the state has shape \(1, 3, 5\); expected \(1, 1, 5\)"):
        policy.predict(one, states)
    with pytest.raises(ValueError, match=r"put them into it by metarl.Trial\(env, episodes\)"):
        policy.predict(np.zeros(1, np.float32))


def test_a_policy_acts_with_the_probabilities_that_it_was_trained_with() -> None:
    model = remembering(family=BANDIT, outer={"learning_rate": 0.05}).learn(iterations=5)
    env = metarl.Trial(metarl.make(BANDIT), 2)
    one, _ = env.reset(seed=1)
    many = {key: np.stack([value] * 20_000) for key, value in one.items()}
    torch.manual_seed(0)
    drawn, _ = model.policy.predict(many)
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    model.settings.family_kwargs.clear()
    _, rollouts = trials_of(model, trials=1)
    chosen, log_probs = rollouts.actions[:, 0, 0], rollouts.log_probs[:, 0, 0]
    for action, log_prob in zip(chosen.tolist(), log_probs.tolist(), strict=True):
        assert shares[action] == pytest.approx(np.exp(log_prob), abs=0.015)
    likely = int(model.policy.predict(one, deterministic=True)[0])
    assert shares[likely] == shares.max()


def test_a_policy_is_saved_and_loaded_by_stable_baselines3(tmp_path: Path) -> None:
    from metarl.agents.policies import TrialPolicy

    model = remembering(family=BANDIT, learning={"normalize_rewards": True}).learn(iterations=1)
    policy = model.adapt(metarl.sample_tasks(BANDIT, 1)[0], episodes=2)
    policy.save(str(tmp_path / "policy"))
    loaded = TrialPolicy.load(str(tmp_path / "policy"))
    one, _ = metarl.Trial(metarl.make(BANDIT), 2).reset(seed=1)
    np.testing.assert_array_equal(
        loaded.predict(one, deterministic=True)[1], policy.predict(one, deterministic=True)[1]
    )


def test_a_policy_adapted_to_an_environment_acts_in_its_own_actions(tmp_path: Path) -> None:
    from metarl.agents.policies import TrialPolicy

    model = remembering(family=SIGN).learn(iterations=1)
    own, made = (gymnasium.make(SIGN), metarl.make(SIGN))
    adapter = model.adapter(own, seed=1)
    adapter.play()
    policy = adapter.policy
    assert policy.action_space == own.action_space == spaces.Box(-2.0, 2.0, (1,), np.float32)
    assert policy.observation_space == metarl.Trial(own, 1).observation_space
    same_one = model.adapter(made, seed=1)
    same_one.play()
    assert same_one.returns == adapter.returns
    assert same_one.policy.action_space == model.action_space
    policy.save(str(tmp_path / "policy"))
    found = []
    for one, env, width in (
        (policy, own, 2.0), (TrialPolicy.load(str(tmp_path / "policy")), own, 2.0), (same_one.policy, made, 1.0),
    ):  # fmt: skip
        trial = metarl.Trial(env, 3)
        observation, _ = trial.reset(seed=5, options={"task": [0.5]})
        state, begins, ended, played = None, np.array([True]), False, []
        while not ended:
            action, state = one.predict(observation, state, begins, deterministic=True)
            assert env.action_space.contains(action)
            observation, reward, terminated, truncated, _ = trial.step(action)
            begins, ended = np.array([False]), terminated or truncated
            played.append((float(action[0]) / width, reward))
        found.append(played)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], found[2], atol=1e-5)
    assert len(found[0]) == 9


def test_where_a_policy_acts_is_said_once_where_the_own_actions_are_others() -> None:
    model = remembering(family=SIGN)
    with pytest.warns(UserWarning, match="use it in environments of metarl.make.*where episodes=0 gives"):
        model.adapt([0.5], episodes=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.adapt([0.5], episodes=1).action_space == model.action_space
        own = gymnasium.make(SIGN)
        assert remembering(family=SIGN).adapt(own, episodes=1).action_space == own.action_space


def test_its_learning_rate_takes_a_schedule() -> None:
    kept: list[dict[str, torch.Tensor]] = []
    model = remembering(outer={"learning_rate": {"start": 0.01, "end": 0.0, "schedule": "linear"}})
    model.learn(iterations=3, callback=lambda found, _: kept.append(found["self"].parameters) or True)
    assert not same(kept[0], kept[1])
    assert same(kept[1], kept[2]), "the last step has no length"
    fixed = remembering(outer={"learning_rate": 0.01}).learn(iterations=1)
    assert same(kept[0], fixed.parameters)


def test_it_is_said_where_later_episodes_gain_nothing() -> None:
    model = metarl.RL2(
        family="probes:probe/Acted-v0",  # the same action pays in every task
        outer={"trials": 128, "learning_rate": 1e-2},
        learning={"gae_lambda": 1.0},
        evaluation={"every": 2, "tasks": 20, "episodes": 4},
        policy_kwargs={"hidden_sizes": (16,)},
    )
    with pytest.warns(UserWarning, match="the tasks may not need adaptation"):
        model.learn(iterations=30)
    assert model.iteration == 30


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("no change", r"try larger steps \(outer.learning_rate\);"),
        ("harm", r"try smaller steps \(outer.learning_rate\) or more trials \(outer.trials\);"),
    ],
)
def test_advice_names_settings_that_it_has(kind: str, advice: str) -> None:
    model = remembering(evaluation={"every": 1, "tasks": 2, "episodes": 1})
    model.adaptation_check.finding = lambda: (kind, {"start": 0.0, "before": 1.0, "after": 0.5})
    with pytest.warns(UserWarning, match=advice):
        model.learn(iterations=2)


def test_a_saved_learner_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    model = remembering(family=LENGTHS_DIFFER, learning={"normalize_observations": True}).learn(iterations=2)
    model.save(tmp_path / "model")
    loaded = load_learner(tmp_path / "model")
    assert as_dict(loaded.settings) == as_dict(model.settings)
    for learner in (model, loaded):
        learner.learn(iterations=1)
    for part, tensors in model.state.tensors().items():
        assert same(tensors, loaded.state.tensors()[part]), part


def test_callbacks_get_trials() -> None:
    env = remembering(learning={"trial_episodes": 3}).get_env()
    observation = env.reset()
    assert set(observation) == {"observation", "previous_action", "previous_reward", "episode_ended"}
    model = remembering()
    mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=2, warn=False)
    assert np.isfinite(mean)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: remembering(inner={"steps": 2}),
            "inner.steps is 2, but learner rl2 adapts by its memory, without inner",
        ),
        (
            lambda: metarl.RL2("MlpPolicy"),
            "learner rl2 needs a policy with memory, and 'MlpPolicy' has none; set policy",
        ),
        (lambda: metarl.MAML("GruPolicy"), "learner maml takes each observation by itself, and a policy with memory"),
        (lambda: metarl.CAVIA("GruPolicy"), "learner cavia .* needs a perceptron"),
        (lambda: metarl.RL2.from_pretrained("ppo.zip"), "a PPO or A2C model has none; train from the start"),
        (
            lambda: remembering(family="toy_families:toy/Words-v0"),
            "outer.critic is 'privileged', but tasks of Text.*; set outer.critic = 'plain'",
        ),
        (
            lambda: remembering(outer={"critic": "blind"}),
            "outer.critic is 'blind'; it should be 'privileged' or 'plain'",
        ),
        (
            lambda: remembering(outer={"chunk": 0}),
            "outer.chunk is 0; it should be 'trial', or be greater than or equal to 1",
        ),
        (
            lambda: remembering(outer={"trials": 0}),
            "outer.trials is 0; it should be 'auto', or be greater than or equal to 1",
        ),
        (lambda: remembering(learning={"trial_episodes": 0}), "learning.trial_episodes is 0"),
        (lambda: remembering().adapt([0.1, 0.1], steps=1), "steps is 1, but learner rl2 adapts by its memory"),
        (lambda: remembering().adapt([0.1, 0.1], episodes=-1), "episodes is -1; expected a whole number of at least 0"),
        (lambda: remembering().adapt([7.0, 0.1]), r"task \[7.0, 0.1\] of metarl/Navigation2D-v0 is outside its space"),
        (
            lambda: remembering().adapt(metarl.make(BANDIT)),
            "the environment's observation_space is .* like those it was",
        ),
        (lambda: remembering().adapter(metarl.make(NAVIGATION), episodes=3), "adapts at every step and not between"),
        (lambda: remembering().adapter(3), "int is no gymnasium.Env; give the environment to adapt to"),
        (
            lambda: remembering().to_sb3(None, [0.1, 0.1]),
            "learner rl2 has a policy with memory, which PPO and A2C cannot",
        ),
        (lambda: remembering().evaluate(steps=-1), "steps is -1; expected a whole number of at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_tasks_without_numbers_are_learned_with_a_plain_critic() -> None:
    model = remembering(family="toy_families:toy/Words-v0", outer={"critic": "plain"}).learn(iterations=1)
    assert model.num_timesteps == 6 * 2 * 3


def test_numbers_that_are_not_finite_are_named() -> None:
    model = remembering(outer={"learning_rate": 1e30})
    with pytest.raises((FloatingPointError, metarl.envs.RolloutError), match="iteration"):
        model.learn(iterations=3)
