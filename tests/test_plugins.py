"""Families of other people: the page that says how to write one runs as it stands, and a package is found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import forked

ROOT = Path(__file__).parents[1]
TINY = ["learning.iterations=2", "learning.tasks=2", "learning.episodes=2", "evaluation.tasks=2"]
SMALL_TEST = ["evaluation.test_tasks=2", "evaluation.episodes=2"]


def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs/write-a-family.md").read_text()
    code, _ = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (commands,) = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 40
    (tmp_path / "my_module.py").write_text(code)
    check, train = (line.split()[1:] for line in commands.splitlines())
    checked = forked.run(*check, cwd=tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "my_module:Throw-v0: no fault found\n"), checked.stderr
    trained = forked.run(*train, *TINY, *SMALL_TEST, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert json.loads((tmp_path / "runs/throw/results.json").read_text())["family"] == "my_module:Throw-v0"


def test_an_installed_package_is_listed_and_trains_by_name(tmp_path: Path) -> None:
    """A fresh environment with the package in it, which borrows everything else from this one."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    # addsitedir, not a bare path: metarl may be installed editable, through a .pth file of its own.
    borrowed = sysconfig.get_path("purelib")
    (site / "borrowed.pth").write_text(f"import site; site.addsitedir({borrowed!r})\n")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "tests/plugin_example", source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    # Built with this environment's setuptools, so that nothing is downloaded.
    options = ["--no-deps", "--no-build-isolation", "--target", str(site)]
    installed = subprocess.run([*pip, *options, str(source)], capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr

    call = [python, "-c", "import sys; from metarl.experiments.command import main; sys.exit(main())"]
    listed = subprocess.run([*call, "envs", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    families = {entry["id"]: entry for entry in json.loads(listed.stdout)}
    assert families["example/Throw-v0"]["source"] == "example"
    assert families["example/Throw-v0"]["fault"] is None
    arguments = ["train", "navigation", "family=example/Throw-v0", *TINY, *SMALL_TEST]
    trained = subprocess.run([*call, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "runs/navigation/results.json").is_file()
    checked = subprocess.run([*call, "check", "example/Throw-v0"], cwd=tmp_path, capture_output=True, check=False)
    assert checked.returncode == 0
