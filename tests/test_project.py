"""The project as a whole: its documents run, its configurations are valid, its tests check something."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import forked
import not_installed
import pytest

import metarl
from metarl.experiments.command import parse
from metarl.experiments.configuration import read_configuration, shipped_configurations
from metarl.learners.registry import describe_learners

ROOT = Path(__file__).parents[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_the_page_on_stable_baselines3_runs_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs/stable-baselines3.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(code) == 4
    done = forked.run(cwd=tmp_path, code="\n".join(code))
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [["0", "5"], ["1", "5"], ["2", "1"]]


def test_the_page_on_memory_runs_as_it_stands(tmp_path: Path) -> None:
    pytest.importorskip("sb3_contrib")
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/memory.md").read_text(), flags=re.DOTALL)
    assert len(code) == 3
    done = forked.run(cwd=tmp_path, code="\n".join([*code, "print(f'{mean:.1f}')"]))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("earlier episodes" in line for line in lines) == 2
    assert 0.0 <= float(lines[-1]) <= 20.0


def test_the_page_on_learners_of_ones_own_runs_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs/write-a-learner.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 40
    (tmp_path / "sign_learner.py").write_text(code)
    (line,) = re.findall(r"```sh\nmetarl (.*?)\n```", page, flags=re.DOTALL)
    tiny = ["learning.iterations=2", "learning.tasks=2", "learning.episodes=2", "family_kwargs.max_episode_steps=5",
            "evaluation.tasks=2", "evaluation.test_tasks=2", "evaluation.episodes=2"]  # fmt: skip
    done = forked.run(*line.split(), *tiny, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "learning_rate = 0.02" in (tmp_path / "runs/navigation/config.toml").read_text()


def test_the_page_on_large_policies_runs_as_it_stands(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/large-policies.md").read_text(), flags=re.DOTALL)
    done = forked.run(cwd=tmp_path, code="\n".join(code))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2] == "fast 2243 parameters are trained"
    assert re.fullmatch(r"torch.Size\(\[\d+, 2\]\)", done.stdout.splitlines()[-1])


def test_the_page_on_the_short_way_runs_as_it_stands(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/fit-and-evaluate.md").read_text(), flags=re.DOTALL)
    assert len(code) == 3
    done = forked.run(cwd=tmp_path, code="\n".join(code))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("adaptation steps") == 3
    assert re.fullmatch(r"\[\d+, \d+, \d+\]", done.stdout.splitlines()[-1])
    assert (tmp_path / "short.zip").is_file()


@pytest.mark.parametrize("page", sorted((ROOT / "docs/worlds").glob("[a-z]*.md")), ids=lambda page: page.stem)
def test_the_pages_on_worlds_run_and_are_listed(page: Path, tmp_path: Path) -> None:
    assert f"({page.name})" in (page.parent / "README.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    commands = page.read_text().replace("\\\n", "")
    for words in re.findall(r"^metarl (.*?)(?:#.*)?$", commands, flags=re.MULTILINE):
        assert parse(shlex.split(words)).command
    done = forked.run(cwd=tmp_path, code="\n".join([*code, "print('done')"]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")


def test_the_readme_has_a_row_for_each_learner() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| `(\w+)` \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert rows == [(entry["name"], entry["class"]) for entry in describe_learners()]
    assert all(getattr(metarl, name).__name__ == name for _, name in rows)


def test_the_readmes_example_runs_as_it_stands(tmp_path: Path) -> None:
    own, code = blocks("python")
    done = forked.run(cwd=tmp_path, code=own)
    assert done.returncode == 0, done.stderr
    assert len([line for line in code.splitlines() if line]) == 10
    done = forked.run(cwd=tmp_path, code=code)
    assert done.returncode == 0, done.stderr
    assert -200.0 < float(done.stdout) < 0.0
    assert (tmp_path / "navigation.zip").is_file()


def test_the_readme_names_commands_that_exist() -> None:
    lines = [shlex.split(line, comments=True) for line in "\n".join(blocks("sh")).splitlines()]
    commands = [words[1:] for words in lines if words and words[0] == "metarl"]
    assert len(commands) == 18
    for words in commands:
        assert parse(words).command == words[0]
    makefile = (ROOT / "Makefile").read_text()
    targets = [words[1] for words in lines if words and words[0] == "make"]
    assert targets == ["train", "test"]
    assert all(f"\n{target}: " in makefile for target in targets)


def test_every_shipped_configuration_is_valid_and_complete() -> None:
    shipped = shipped_configurations()
    assert "navigation" in shipped
    for name in shipped:
        _, settings = read_configuration(name, [])
        if settings.family not in not_installed.FAMILIES:
            metarl.make(settings.family, **settings.family_kwargs).close()


def test_importing_metarl_registers_the_families_and_loads_no_torch() -> None:
    code = (
        "import sys, metarl, gymnasium\n"
        "assert 'metarl/Navigation2D-v0' in gymnasium.registry\n"
        "assert 'torch' not in sys.modules and 'stable_baselines3' not in sys.modules\n"
        "assert metarl.MAML.name == 'maml' and 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_test_checks_something() -> None:
    """A test without a check cannot fail: each needs an assertion, or a helper that makes one."""
    checks = ("assert", "raises", "warns(", "testing", "run_inside")
    count = 0
    for path in (ROOT / "tests").rglob("test_*.py"):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                text = ast.get_source_segment(source, node) or ""
                body = text.partition('"""')[2].partition('"""')[2] if '"""' in text else text
                assert any(word in body for word in checks), node.name
                count += 1
    assert count > 100
