"""Arguments of learners' classes that there are none: what to write in their place."""

from __future__ import annotations

import re
from typing import Any

import pytest

import metarl
from metarl.guide.elsewhere import names_here
from metarl.guide.meanings import meanings


@pytest.mark.parametrize(
    ("learner", "arguments", "advice"),
    [
        ("MAML", {"learning_rate": 1e-3}, "write inner={'step_size': 0.001} or outer={'update': 'ppo', "),
        ("ProMP", {"lr": 1e-3}, "write inner={'step_size': 0.001} or outer={'learning_rate': 0.001}"),
        ("MAML", {"n_steps": 3}, "write learning={'tasks': ..., 'episodes': ...}"),
        ("MAML", {"gamma": 0.9}, "write learning={'gamma': 0.9}"),
        ("RL2", {"ent_coef": 0.1}, "write outer={'entropy': 0.1}"),
        ("MAML", {"env": "CartPole-v1"}, "write family='CartPole-v1'"),
        ("MAML", {"hidden_sizes": [64]}, "write policy_kwargs={'hidden_sizes': [64]}"),
        ("MAML", {"verbos": 1}, "the nearest is 'verbose'"),
        ("MAML", {"zzz": 1}, "help(MAML) lists its arguments"),
    ],
)
def test_an_unknown_argument_says_what_to_write(learner: str, arguments: dict[str, Any], advice: str) -> None:
    name = next(iter(arguments))
    with pytest.raises(TypeError, match=re.escape(f"{learner} has no argument {name!r}; {advice}")):
        getattr(metarl, learner)(**arguments)


def test_each_name_of_elsewhere_is_of_settings_that_there_are() -> None:
    keys = {one.key for one in meanings()}
    for name in ("lr", "batch_size", "n_epochs", "clip_range", "target_kl", "net_arch", "n_jobs", "env", "tau"):
        assert set(names_here(name, sorted(keys))) <= keys
        assert names_here(name, sorted(keys)), name
