"""No module of the repository uses what another one keeps to itself: a name that begins with an underscore."""

from __future__ import annotations

from pathlib import Path

import privacy

BASE = """
class Base:
    def _hook(self): ...
def _helper(): ...
"""
USER = """
import gymnasium
from pkg import base
from stable_baselines3.common.callbacks import BaseCallback
from .base import Base, _helper
class Own(Base):
    def __init__(self, other): self._mine = other._mine, super()._hook(), self._given
    def _hook(self): ...
class Callback(BaseCallback):
    def _on_step(self): ...
class Odd(Own, BaseCallback):
    def _hook(self): ...
    def _init_callback(self): ...
def use(thing, monkeypatch):
    thing._replace(a=1), gymnasium._private
    thing.part._secret
    base._helper()
    monkeypatch.setattr(thing, "_step", None)
    monkeypatch.setattr("pkg.base._helper", None)
"""


def test_underscored_names_of_other_modules_are_found(tmp_path: Path) -> None:
    for name, code in (("base", BASE), ("user", USER)):
        (tmp_path / f"{name}.py").write_text(code)
    known = {f"pkg.{name}": privacy.read(f"pkg.{name}", tmp_path / f"{name}.py") for name in ("base", "user")}
    lines = USER.splitlines()
    assert [
        (lines[number - 1].split()[0], text) for number, text in sorted(privacy.uses(known["pkg.user"], known))
    ] == [
        ("from", "import of pkg.base._helper"),
        ("thing.part._secret", "thing.part._secret"),
        ("base._helper()", "base._helper"),
        ("monkeypatch.setattr(thing,", "monkeypatch.setattr(thing, '_step', None)"),
        ('monkeypatch.setattr("pkg.base._helper",', "monkeypatch.setattr('pkg.base._helper', None)"),
    ]
    assert [text for _, text in privacy.overridden(known["pkg.user"], known)] == [
        "Own._hook overrides that of pkg.base.Base",
        "Odd._hook overrides that of pkg.base.Base",
    ]
    assert [*privacy.uses(known["pkg.base"], known), *privacy.overridden(known["pkg.base"], known)] == []


def test_no_module_uses_an_underscored_name_of_another() -> None:
    assert len(privacy.repository()) > 150
    found = privacy.offenders()
    assert not found, f"{len(found)} uses of another module's underscored name:\n" + "\n".join(found)
