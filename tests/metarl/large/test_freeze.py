"""Frozen parts of a policy: they neither adapt nor are trained, and what is behind a frozen front is fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
import networks
import numpy as np
import pytest
import torch
from small import NAVIGATION, SIGN, copied, remembering, same, small
from stable_baselines3 import PPO

import metarl
from metarl.agents.frozen.trained import Trained
from metarl.experiments.command import main
from metarl.learners.registry import find_learner

WIDE = "networks:Wide"
FIRST = "mlp_extractor.policy_net.0"


def front(learner: str = "maml", **policy: Any) -> Any:
    """Return a tiny learner behind a frozen network."""
    arguments = {"features_extractor_class": WIDE, "freeze": "extractor", **policy}
    return remembering(policy_kwargs=arguments) if learner == "rl2" else small(learner, policy_kwargs=arguments)


@pytest.mark.parametrize("learner", ["maml", "meta-sgd", "cavia", "pretrained", "reptile", "rl2"])
def test_a_frozen_front_never_changes_and_goes_on_after_loading(learner: str, tmp_path: Path) -> None:
    model = front(learner)
    before, shared = model.functional_policy.buffers(), copied(model.parameters)
    assert not [name for name in shared if name.startswith("features_extractor")]
    model.learn(iterations=2)
    assert same(model.functional_policy.buffers(), before)
    assert not same(model.parameters, shared)
    model.save(tmp_path / "model.zip")
    again = type(model).load(tmp_path / "model.zip")
    assert same(again.functional_policy.buffers(), before)
    assert same(again.learn(iterations=1).parameters, model.learn(iterations=1).parameters)
    policy = model.adapt(metarl.sample_tasks(NAVIGATION, 1, seed=1)[0])
    held = {f"features_{name.removeprefix('features_')}": value for name, value in policy.named_parameters()}
    assert all(torch.equal(held[name], value) and not held[name].requires_grad for name, value in before.items())


def test_behind_a_front_the_fast_path_gives_what_the_general_one_gives() -> None:
    arguments = {"features_extractor_class": WIDE, "freeze": "extractor"}
    fast, general = front(), small(policy_kwargs=arguments, outer={"path": "general"})
    assert (fast.backend.name, general.backend.name) == ("fast", "general")
    general.learn(iterations=2)
    for name, value in fast.learn(iterations=2).parameters.items():
        torch.testing.assert_close(general.parameters[name], value, rtol=2e-3, atol=2e-5)


def test_an_adapted_policy_acts_on_observations_as_the_learner_acts_on_features() -> None:
    model = front().learn(iterations=1)
    env = metarl.make(NAVIGATION)
    policy = model.adapt(env, steps=1)
    seen = np.stack([env.observation_space.sample() for _ in range(5)])
    actor = model.functional_policy.actor({name: dict(policy.named_parameters())[name] for name in model.parameters})
    kept = actor.see(env.observation_space, seen)
    assert kept.shape == (5, 16)
    expected = np.clip(actor.act(kept[None], None)[0][0], -1.0, 1.0)
    np.testing.assert_allclose(policy.predict(seen, deterministic=True)[0], expected, atol=1e-6)


def test_half_precision_is_what_rollouts_keep_and_the_policy_acted_on() -> None:
    model = front(features_precision="half").learn(iterations=1)
    rollouts = model.meta_iteration(model.state, 2).rollouts
    assert {part.observations.dtype for part in rollouts} == {torch.float16}
    with pytest.raises(ValueError, match=r"features that are not finite; set policy\.features_precision = 'single'"):
        front(features_extractor_class="networks:Huge", features_precision="half").learn(iterations=1)


def test_frozen_parameters_are_named_by_patterns() -> None:
    model = small(policy_kwargs={"freeze": [f"{FIRST}.*"]})
    before = model.functional_policy.buffers()
    assert set(before) == {f"{FIRST}.weight", f"{FIRST}.bias"}
    assert not before.keys() & model.parameters.keys()
    policy = model.learn(iterations=1).adapt(metarl.sample_tasks(NAVIGATION, 1, seed=1)[0])
    own = dict(policy.named_parameters())
    assert all(torch.equal(own[name], value) and not own[name].requires_grad for name, value in before.items())
    whole = small(policy_kwargs={"features_extractor_class": WIDE, "freeze": ["features_extractor.*"]})
    assert whole.functional_policy.front is not None


def test_a_front_has_no_dropout_where_its_policy_is_trained() -> None:
    policy = front().adapt([0.1, 0.2], seed=1)
    seen = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    expected = policy.extract_features(seen)
    policy.set_training_mode(True)
    torch.testing.assert_close(policy.extract_features(seen), expected)
    model = front().to_sb3(PPO, [0.1, 0.2], seed=1, n_steps=8, batch_size=8).learn(8)
    model.policy.set_training_mode(True)
    torch.testing.assert_close(model.policy.extract_features(seen), expected)


@pytest.mark.parametrize(
    ("learner", "pattern"),
    [
        *[(learner, "log_std") for learner in ("maml", "meta-sgd", "promp", "reptile", "pretrained", "rl2")],
        *[("rl2", pattern) for pattern in ("action_net.*", "embedding.*", "*_hh", "weight_ih")],
    ],
)
def test_any_parameters_can_be_frozen(learner: str, pattern: str, tmp_path: Path) -> None:
    policy = {"freeze": [pattern]}
    model = remembering(policy_kwargs=policy) if learner == "rl2" else small(learner, policy_kwargs=policy)
    before, shared = model.functional_policy.buffers(), copied(model.parameters)
    assert before
    assert before.keys().isdisjoint(shared)
    model.learn(iterations=1)
    assert same(model.functional_policy.buffers(), before)
    assert not same(model.parameters, shared)
    model.save(tmp_path / "model.zip")
    again = type(model).load(tmp_path / "model.zip")
    np.testing.assert_array_equal(again.evaluate(n_tasks=2).returns, model.evaluate(n_tasks=2).returns)
    policies = [of.adapt([0.1, 0.2], seed=1) for of in (model, again)]
    if learner != "rl2":
        held = dict(policies[0].named_parameters())
        assert all(torch.equal(held[name], value) for name, value in before.items())
    metarl.export(policies[0], tmp_path / "policy.pt2")  # which is run and compared


def test_frozen_noise_leaves_the_gradient_of_the_rest_as_it_is() -> None:
    rest: dict[str, Any] = {
        "inner": {"adapts": ["mlp_extractor.*", "action_net.*"]},
        "outer": {"update": "vpg", "learning_rate": 0.1},
    }
    shared = small(**rest).learn(iterations=1).parameters
    for path in ("auto", "general"):
        rest["outer"]["path"] = path
        frozen = small(policy_kwargs={"freeze": ["log_std"]}, **rest).learn(iterations=1).parameters
        assert frozen.keys() == shared.keys() - {"log_std"}
        for name, value in frozen.items():
            torch.testing.assert_close(value, shared[name], rtol=1e-4, atol=1e-6)


def test_images_and_dicts_have_fronts() -> None:
    spaces = gymnasium.spaces
    for space, extractor in (
        (spaces.Box(0, 255, (20, 20, 3), np.uint8), networks.Pixels),
        (spaces.Dict(eye=spaces.Box(0, 255, (20, 20, 3), np.uint8), n=spaces.Discrete(3)), networks.Pixels),
    ):
        kind = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
        key = {"key": "eye"} if isinstance(space, spaces.Dict) else {}
        policy = networks.small_policy(
            space,
            name=kind,
            trained=Trained(freeze="extractor"),
            features_extractor_class=extractor,
            features_extractor_kwargs=key,
        )
        space.seed(1)
        rows = [space.sample() for _ in range(3)]
        batch: Any = {name: np.stack([row[name] for row in rows]) for name in rows[0]} if key else np.stack(rows)
        actor = policy.actor(policy.parameters())
        actions, _ = actor.act(actor.see(space, batch)[None], None)
        module = policy.module(policy.parameters())
        np.testing.assert_array_equal(module.predict(batch, deterministic=True)[0], actions[0])


def test_a_front_s_policy_goes_on_in_stable_baselines3() -> None:
    model = front().learn(iterations=1)
    before = model.functional_policy.buffers()
    ppo = model.to_sb3(PPO, metarl.sample_tasks(NAVIGATION, 1, seed=1)[0], n_steps=16, batch_size=16)
    ppo.learn(16)
    own = dict(ppo.policy.named_parameters())
    assert all(torch.equal(own[name], value) for name, value in before.items())
    taken = find_learner("maml").from_pretrained(
        ppo,
        NAVIGATION,
        policy_kwargs={"freeze": "extractor"},
        learning={"tasks": 2, "episodes": 2},
    )
    assert same(taken.functional_policy.buffers(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy_kwargs": {"freeze": "extractor"}}, "takes observations as they are; choose a policy with a features"),
        (
            {"policy_kwargs": {"freeze": "extracter"}},
            "'extracter', which matches no .*; a single word is none or extractor",
        ),
        ({"policy_kwargs": {"freeze": ["action_net.wieght"]}}, "the nearest are action_net.weight"),
        ({"policy_kwargs": {"freeze": ["*"]}}, "which freezes all parameters of the policy; leave some out"),
        (
            {"policy_kwargs": {"freeze": [f"{FIRST}.*"]}, "inner": {"adapts": [f"{FIRST}.bias"]}},
            f"which matches {FIRST}.bias, and that is frozen",
        ),
        (
            {
                "policy_kwargs": {"features_extractor_class": WIDE, "freeze": "extractor"},
                "inner": {"adapts": ["features_extractor.*"]},
            },
            "and that is frozen by policy.freeze",
        ),
        (
            {
                "policy_kwargs": {"features_extractor_class": WIDE, "freeze": "extractor"},
                "learning": {"normalize_observations": True},
            },
            "which was not trained on normalised observations; leave one of them out",
        ),
        ({"policy_kwargs": {"features_extractor_class": "networks"}}, "expected 'module:Class'"),
        ({"policy_kwargs": {"features_extractor_class": "networks:Thin"}}, "cannot be imported"),
        ({"policy_kwargs": {"features_extractor_class": "pathlib:Path"}}, "expected a subclass of torch.nn.Module"),
        ({"policy_kwargs": {"features_extractor_class": "networks:NoRows"}}, "expected one tensor with 2 rows"),
        (
            {
                "policy_kwargs": {
                    "features_extractor_class": WIDE,
                    "features_extractor_kwargs": {"numbers": 5},
                    "freeze": "extractor",
                }
            },
            "the features extractor Wide does not take the observations",
        ),
        ({"policy_kwargs": {"features_extractor_class": WIDE}}, "Dropout, which draws at random"),
        ({"policy_kwargs": {"features_precision": "half"}}, "a frozen front's features, and there is none; set policy"),
        *[
            ({"policy_kwargs": {"features_extractor_class": f"networks:{name}", "freeze": freeze}}, message)
            for name, freeze, message in (
                ("Whole", "none", "returns numbers of type torch.int64; expected torch.float32"),
                ("AmongOthers", "none", "the policy's output for an observation alone is another than among others"),
                ("AmongOthers", "extractor", "returns other features for an observation alone than among others"),
                ("Noise", "extractor", "returns other features when it is given the same observations again"),
            )
        ],
    ],
)
def test_bad_input_is_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*" + message.replace("(", r"\(")):
        small(**changes)


def test_learners_that_see_the_task_refuse_a_front() -> None:
    for learner in ("task-aware", "multi-task"):
        with pytest.raises(ValueError, match="puts a frozen features extractor before them"):
            front(learner)


def test_a_front_stands_in_a_configuration_and_needs_permission_to_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_eyes.py").write_text(Path(networks.__file__).read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own.toml").write_text(
        f'family = "{NAVIGATION}"\n[family_kwargs]\nmax_episode_steps = 5\n'
        '[policy]\nfeatures_extractor_class = "my_eyes:Wide"\nfreeze = "extractor"\n'
        "[policy.features_extractor_kwargs]\nwidth = 3\n"
        "[learning]\niterations = 1\ntasks = 2\nepisodes = 2\ncheck = false\n"
        "[evaluation]\ntasks = 2\ntest_tasks = 2\nepisodes = 2\nsteps = 1\n"
    )
    assert main(["train", "own.toml", "--name", "made"]) == 0
    model = find_learner("maml").load("runs/made", allow="my_eyes")
    assert model.functional_policy.buffers()["features_extractor.module.layers.0.weight"].shape == (3, 2)
    monkeypatch.delitem(sys.modules, "my_eyes")
    with pytest.raises(ValueError, match="names the module 'my_eyes', and to load it would run that module's code"):
        find_learner("maml").load("runs/made")


def test_a_discrete_family_has_fronts_too() -> None:
    model = small(family=SIGN, policy_kwargs={"features_extractor_class": networks.Wide, "freeze": "extractor"})
    assert model.learn(iterations=1).functional_policy.front is not None
