"""The settings in words: what ``metarl settings`` prints, and docs/settings.md.

``python -m metarl.experiments.start.settings_page`` writes the page.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from metarl.guide.elsewhere import names_here
from metarl.guide.faults import nearest
from metarl.guide.meanings import Meaning, meanings
from metarl.learners.registry import LEARNERS

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

HEAD = """# Settings

Written by `experiments/start/settings_page.py` from the fields of the settings; `metarl settings NAME` prints the same.

A setting has the same name everywhere: `inner.step_size=0.05` on the command line, `step_size = 0.05` under `[inner]`
in a TOML file (`metarl init FAMILY > my.toml` writes one to edit), and `inner={"step_size": 0.05}` in Python. Those of
`[policy]` belong into `policy_kwargs` there, except for its name, which is the argument `policy`. The defaults here are
those of a file or a class that does not set them; `metarl train FAMILY` and `metarl.defaults(FAMILY)` choose some of
them to fit the family.
"""
TITLES = {
    "": "The top level",
    "learning": "`[learning]`: collecting rollouts, discounting",
    "inner": "`[inner]`: the inner update",
    "outer": "`[outer]`: the meta-update, which depends on the learner",
    "policy": "`[policy]`: the policy and its initial weights",
    "augment": "`[augment]`: more tasks from a few, and other views of episodes, in training only",
    "evaluation": "`[evaluation]`: validation during training, and the test at its end",
}


def listing(name: str | None = None) -> str:
    """Return settings in words, one after the other.

    Args:
        name: a section, a setting, a learner (for its ``[outer]``), what stable-baselines3 calls it, as in
            ``n_epochs``, or a part of a setting's name; None for all.

    Raises:
        ValueError: nothing has such a name.
    """
    return "\n".join(line for one in _chosen(name) for line in _in_words(one))


def _chosen(name: str | None) -> Sequence[Meaning]:
    every = meanings()
    if name is None:
        return every
    wanted = name.strip().strip("[]").lower().replace("-", "_")
    elsewhere = names_here(wanted, [one.key for one in every])
    for fits in (
        lambda one: one.key == wanted,
        lambda one: _section(one) == wanted,
        lambda one: name in one.learners,
        lambda one: one.key.rpartition(".")[2] == wanted,
        lambda one: one.key in elsewhere,
        lambda one: wanted in one.key,
    ):
        found = [one for one in every if fits(one)]
        if found and wanted:
            return found
    keys = [*TITLES, *(one.key for one in every)]
    raise ValueError(f"there is no setting {name!r}; {nearest(wanted, list(dict.fromkeys(filter(None, keys))))}")


def _section(one: Meaning) -> str:
    return one.key.rpartition(".")[0]


def _in_words(one: Meaning) -> list[str]:
    text = one.text or "its learner does not say what it is"
    return [
        f"{one.key} = {json.dumps(one.default)}",
        *textwrap.wrap(f"{text}; {one.expected}", 100, initial_indent="    ", subsequent_indent="    "),
        *textwrap.wrap(f"of {one.users}", 100, initial_indent="    ", subsequent_indent="    "),
    ]


def page() -> str:
    """Return the text of docs/settings.md."""
    every = meanings()
    parts = [HEAD]
    for section, title in TITLES.items():
        parts.append(f"\n## {title}\n\n| setting | default | meaning | unit | values | has it |\n|{' --- |' * 6}\n")
        parts += [_row(one) for one in every if _section(one) == section]
    return "".join(parts)


def _row(one: Meaning) -> str:
    cells = [f"`{one.key}`", f"`{json.dumps(one.default)}`", one.meaning, one.unit, one.expected, _users(one)]
    return f"| {' | '.join(cells)} |\n"


def _users(one: Meaning) -> str:
    missing = [name for name in LEARNERS if name not in one.learners]
    return one.users if one.learners or not missing else "all learners"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
