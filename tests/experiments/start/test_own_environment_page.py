"""One's own environment by the page: in a script, in a notebook and by the command, from a folder with one file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import forked
import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "any-environment.md").read_text()
ENVIRONMENT, SCRIPT = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
TINY = ["learning.tasks=2", "learning.episodes=2", "evaluation.tasks=2", "evaluation.test_tasks=2"]


def quick(code: str) -> str:
    """Return the page's code with fewer iterations."""
    assert "iterations=20" in code
    return code.replace("iterations=20", "iterations=1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the page's environment and nothing else."""
    (tmp_path / "my_env.py").write_text(ENVIRONMENT)
    return tmp_path


def test_the_environment_is_one_of_thirty_lines_that_knows_nothing_of_metarl() -> None:
    assert len([line for line in ENVIRONMENT.splitlines() if line]) <= 30
    assert "metarl" not in ENVIRONMENT
    assert "render_mode" not in ENVIRONMENT


def test_the_whole_in_one_script_of_the_main_program_runs(folder: Path) -> None:
    (folder / "my_env.py").unlink()
    whole = ENVIRONMENT + quick(SCRIPT).replace("from my_env import Cart\n", "")
    done = forked.run(code=whole, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / "own-environment.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        cell.source = cell.source.replace("iterations=20", "iterations=1")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    texts = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("adaptation steps" in text for text in texts)


def test_the_notebook_is_the_page() -> None:
    notebook = nbformat.read(DOCS / "own-environment.ipynb", as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    page = ENVIRONMENT + SCRIPT.replace("from my_env import Cart\n", "").replace("import gymnasium\n", "")
    assert [line for line in code.splitlines() if line] == [line for line in page.splitlines() if line]


def test_the_commands_run(folder: Path) -> None:
    (commands,) = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    check, train, evaluate, init = (shlex.split(line)[1:] for line in commands.splitlines())
    done = forked.run(*check, cwd=folder)
    assert done.stdout.endswith("no fault found\n"), done.stdout + done.stderr
    done = forked.run(*train, "learning.iterations=1", *TINY, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "adaptation steps" in done.stdout
    done = forked.run(*evaluate, cwd=folder)
    assert done.returncode == 0, done.stderr
    words = init[: init.index(">")]
    done = forked.run(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / init[-1]).write_text(done.stdout)
    done = forked.run("train", init[-1], "learning.iterations=1", *TINY, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_pages_script_adapts(folder: Path) -> None:
    done = forked.run(code=SCRIPT.replace("iterations=20", "iterations=10"), cwd=folder)
    means = [float(row) for row in re.findall(r"^ +\d  +(-\d+\.\d+)", done.stdout, flags=re.MULTILINE)]
    assert len(means) == 4, done.stdout + done.stderr
    assert means[1] > means[0] + 10, done.stdout
    assert (folder / "cart.zip").exists()
