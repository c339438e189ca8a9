"""Small comparisons for reports, and what a report's page holds."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from metarl.experiments import training
from metarl.learners.registry import read_settings

NAVIGATION = "metarl/Navigation2D-v0"
TINY = {
    "learning": {"iterations": 3, "tasks": 3, "episodes": 3},
    "evaluation": {"every": 1, "tasks": 3, "test_tasks": 6, "episodes": 2, "steps": 2},
}


def train(out: Path, name: str, learner: str, seed: int = 1, **changes: object) -> Path:
    """Train a tiny run and return its folder."""
    plain = {**TINY, "family": NAVIGATION, "family_kwargs": {"max_episode_steps": 8}, **changes}
    settings = read_settings({**plain, "learner": learner, "seed": seed})
    run, model = training.start_run(settings, out, name, name)
    try:
        training.finish_run(run, model)
    finally:
        model.close()
        run.unlock()
    return out / name


def comparison(out: Path) -> Path:
    """Train maml and scratch with two seeds each and return the folder of the runs."""
    for learner in ("maml", "scratch"):
        for seed in (1, 2):
            train(out, f"{learner}-{seed}", learner, seed)
    return out


class Page(HTMLParser):
    """A page's elements, in order.

    Attributes:
        elements: names and attributes.
        texts: the texts within elements of a name, by name.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._within: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._within.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        """Leave an element, and those within it that have no end."""
        if tag in self._within:
            while self._within.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        """Note text in the element around it."""
        if self._within:
            self.texts[self._within[-1]][-1] += data

    def named(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of all elements of a name."""
        return [attributes for name, attributes in self.elements if name == tag]
