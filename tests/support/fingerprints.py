"""Fingerprints of training: what every learner's tensors are after three iterations, to the last bit.

``python tests/support/fingerprints.py`` compares with the kept file; ``--write`` writes it anew, which only a change
that is meant to alter results may do.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.learners.registry import find_learner

KEPT = Path(__file__).with_name("fingerprints.json")
ITERATIONS = 3
FAMILIES = {
    "navigation": {"family": "metarl/Navigation2D-v0", "family_kwargs": {"max_episode_steps": 15}},
    "bandit": {"family": "metarl/BernoulliBandit-v0", "family_kwargs": {"arms": 4, "pulls": 6}},
}
# Learner, settings of [outer] and [inner], and whether it has a fast and a general path.
VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any], bool]] = {
    "maml": ("maml", {}, {"steps": 2}, True),
    "maml, a share of the samples": ("maml", {"fisher_fraction": 0.5}, {}, True),
    "maml, recompute": ("maml", {"memory": "recompute"}, {}, True),
    "maml, ppo": ("maml", {"update": "ppo", "epochs": 2}, {}, True),
    "maml, vpg": ("maml", {"update": "vpg"}, {"steps": 2}, True),
    "maml, dice": ("maml", {}, {"objective": "dice", "baseline": "none"}, True),
    "maml, likelihood ratio": ("maml", {}, {"objective": "likelihood-ratio", "steps": 2}, True),
    "fomaml": ("fomaml", {}, {"steps": 2}, True),
    "fomaml, ppo": ("fomaml", {"update": "ppo", "epochs": 2}, {}, True),
    "e-maml": ("e-maml", {"credit": 2.0}, {"steps": 2}, True),
    "e-maml, ppo": ("e-maml", {"update": "ppo"}, {}, True),
    "promp": ("promp", {"adaptive": True}, {"steps": 2}, True),
    "reptile": ("reptile", {}, {"steps": 3}, False),
    "reptile, adam": ("reptile", {"optimizer": "adam", "learning_rate": 1e-3}, {"steps": 2}, False),
    "meta-sgd": ("meta-sgd", {}, {"steps": 3}, True),
    "meta-sgd, by layer and step": ("meta-sgd", {"step_sizes": "layer", "per_step": True}, {"steps": 2}, True),
    "meta-sgd, one, ppo": ("meta-sgd", {"step_sizes": "one", "update": "ppo"}, {}, True),
    "anil": ("anil", {}, {"steps": 2}, True),
    "anil, two layers, vpg": ("anil", {"head_layers": 2, "update": "vpg", "optimizer": "sgd"}, {}, True),
    "cavia": ("cavia", {}, {"step_size": 1.0}, True),
    "cavia, two numbers, two steps": ("cavia", {}, {"step_size": 0.5, "steps": 2}, True),
    "cavia, ppo": ("cavia", {"update": "ppo"}, {"step_size": 1.0}, True),
    "rl2": ("rl2", {"trials": 10, "minibatch_trials": 4, "epochs": 2}, {}, False),
    "rl2, plain, in chunks": ("rl2", {"critic": "plain", "chunk": 5, "across_episodes": False}, {}, False),
    "pretrained": ("pretrained", {"environments": 4, "minibatches": 2, "epochs": 2, "learning_rate": 3e-4}, {}, False),
    "multi-task": ("multi-task", {"components": 4, "epochs": 2}, {}, False),
    "task-aware": ("task-aware", {"epochs": 2}, {}, False),
    "scratch": ("scratch", {}, {}, False),
    "random": ("random", {}, {}, False),
}

POLICY_KWARGS: dict[str, dict[str, Any]] = {"cavia, two numbers, two steps": {"context_size": 2}}


def cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield a name, a learner's name and its arguments."""
    for family, of_family in FAMILIES.items():
        for variant, (learner, outer, inner, has_paths) in VARIANTS.items():
            for path in ("fast", "general") if has_paths else (None,):
                yield (
                    f"{family}, {variant}" + ("" if path is None else f", {path}"),
                    learner,
                    {
                        **of_family,
                        "learning": {
                            "tasks": 5,
                            "episodes": 6,
                            "normalize_observations": variant in ("maml", "reptile"),
                        },
                        "inner": inner,
                        "outer": outer if path is None else {**outer, "path": path},
                        "evaluation": {"every": 2, "tasks": 3, "episodes": 2, "steps": 2, "seed": "run"},
                        "policy_kwargs": {"hidden_sizes": (12, 10), **POLICY_KWARGS.get(variant, {})},
                        "seed": 3,
                        "device": "cpu",
                    },
                )


def fingerprint(learner: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return hashes of a learner's tensors after training and of an evaluation, and numbers to compare roughly."""
    model = find_learner(learner)(**arguments)
    try:
        model.learn(iterations=ITERATIONS)
        returns = model.evaluate(n_tasks=7, episodes=3, steps=2).returns
        return {
            "parameters": hashed(model.parameters.values()),
            "own": hashed(value for _, value in sorted(model.state.own_tensors.items())),
            "normalizer": hashed(value for _, value in sorted(model.normalizer.tensors().items())),
            "evaluation": hashed([torch.from_numpy(returns)]),
            "norm": float(sum(float(value.double().square().sum()) for value in model.parameters.values())) ** 0.5,
            "returns": [round(float(value), 4) for value in returns.mean(axis=1)],
            "timesteps": model.num_timesteps,
        }
    finally:
        model.close()


def hashed(tensors: Any) -> str:
    """Return a hash of tensors' bytes, one after another."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


@functools.cache
def arithmetic() -> str:
    """Return a hash of what this machine's libraries compute: only where it is the same can bits be compared."""
    rng = np.random.default_rng(0)
    found = []
    for rows, width in ((6, 12), (90, 12), (300, 64), (1000, 33)):
        x, w = rng.standard_normal((rows, width), np.float32), rng.standard_normal((width, width), np.float32)
        a, b = torch.from_numpy(x), torch.from_numpy(w)
        found += [torch.from_numpy(np.tanh(x @ w)), a @ b, (a @ b).tanh().exp(), (a.double() @ b.double()), a.mT @ a]
        found += [torch.bmm(a.expand(3, -1, -1), b.expand(3, -1, -1)), a.sum(dim=0), torch.log_softmax(a, dim=-1)]
    return hashed([*found, torch.randn(50, generator=torch.Generator().manual_seed(0))])


def differences(name: str, kept: dict[str, Any], found: dict[str, Any], *, to_the_bit: bool) -> list[str]:
    """Return what a fingerprint has that a kept one has not; roughly where the machine computes other bits."""
    if to_the_bit:
        return [f"{name}: {key} is {found[key]}, was {value}" for key, value in kept.items() if found[key] != value]
    different = []
    # The bandit's actions are choices, which rounding can turn.
    tolerance = 0.06 if name.startswith("bandit") else 0.01
    if abs(found["norm"] - kept["norm"]) > tolerance * kept["norm"]:
        different.append(f"{name}: norm is {found['norm']}, was about {kept['norm']}")
    if not np.allclose(found["returns"], kept["returns"], rtol=0.1, atol=0.5):
        different.append(f"{name}: returns are {found['returns']}, were about {kept['returns']}")
    # All episodes of the bandit are of one length; on navigation a goal that is reached ends one.
    allowed = 0 if name.startswith("bandit") else 0.02 * kept["timesteps"]
    if abs(found["timesteps"] - kept["timesteps"]) > allowed:
        different.append(f"{name}: timesteps are {found['timesteps']}, were {kept['timesteps']}")
    return different


def main(arguments: list[str]) -> int:
    """Write the file, or compare with it and print what differs."""
    torch.set_num_threads(2)
    found = {name: fingerprint(learner, given) for name, learner, given in cases()}
    if "--write" in arguments:
        KEPT.write_text(json.dumps({"arithmetic": arithmetic(), "cases": found}, indent=1) + "\n", encoding="utf-8")
        print(f"{len(found)} cases written")
        return 0
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    if kept["arithmetic"] != arithmetic():
        print("this machine computes other bits than the one the file is of")
    different = [name for name in kept["cases"] if found.get(name) != kept["cases"][name]]
    for name in different:
        print(f"{name}\n  kept  {kept['cases'][name]}\n  found {found.get(name)}")
    print(f"{len(found)} cases, {len(different)} differ")
    return 1 if different or set(found) != set(kept["cases"]) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
