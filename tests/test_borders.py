"""The walls between folders, held at any depth: what each may import, what it loads, what is packed, how long it is."""

from __future__ import annotations

import ast
import contextlib
import doctest
import functools
import importlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import count_checks
import privacy
import pytest
import source
from source import PACKAGES, ROOT

# Which rooms a room may import from, besides other packages. A room is a folder of the repository or, within metarl/,
# a sub-package; "root" are the modules of metarl/ itself, "front" is its __init__.py, "basics" are types of
# settings and how files are written and read, "names" the table of learners by name, which imports none of them.
MAY_IMPORT: Mapping[str, frozenset[str]] = {
    room: frozenset(others.split())
    for room, others in {
        "envs": "envs",
        "agents": "agents",
        "basics": "",
        "augmenting": "augmenting root envs basics",
        "checkpoints": "checkpoints root sb3 agents envs basics",
        "gradients": "gradients agents basics",
        "distributed": "distributed gradients agents basics",
        "sb3": "sb3 agents envs basics",
        "guide": "guide root training basics agents envs names",
        "results": "results root basics agents",
        "recommending": "recommending envs",
        "protocols": "protocols results root training basics gradients agents envs",
        "root": "root augmenting guide training checkpoints recommending protocols results basics gradients sb3 agents "
        "envs names",
        "replay": "replay protocols root basics agents envs",
        "exporting": "exporting memory root guide sb3 gradients agents envs basics names",
        "shrinking": "shrinking root gradients agents envs basics names",
        "training": "training root guide checkpoints results basics gradients sb3 agents envs",
        "names": "names root checkpoints",
        "memory": "memory names root training checkpoints basics gradients sb3 agents envs",
        "learners": "learners augmenting memory results names root training checkpoints basics gradients sb3 agents "
        "envs",
        "front": "front learners memory replay exporting shrinking results names root guide training checkpoints "
        "gradients sb3 agents envs",
        "experiments": "experiments front learners memory replay exporting protocols results names root guide training "
        "checkpoints basics distributed gradients sb3 agents envs",
    }.items()
}
# Packages of other people that a room does without.
WITHOUT: Mapping[str, tuple[str, ...]] = {
    "envs": ("torch", "stable_baselines3"),
    "gradients": ("gymnasium", "matplotlib", "tensorboard", "tqdm"),
}
# The code of the wheel is all code but this, which is for those who work on metarl.
NOT_PACKED = {"experiments/benchmarks"}


def room_of(module: str) -> str:
    """Return the room that a module of the four folders is in."""
    if module == "metarl":
        return "front"
    if module == "metarl.__main__":
        return "experiments"
    if module in ("metarl.fields", "metarl.files", "metarl.untrusted"):
        return "basics"
    top = ".".join(module.split(".")[:2])
    for folder, package in PACKAGES.items():
        if top == package:
            return folder
    if module in ("metarl.learners", "metarl.learners.registry"):
        return "names"
    is_package = (ROOT / "metarl" / top.removeprefix("metarl.")).is_dir()
    return top.removeprefix("metarl.") if is_package else "root"


@functools.cache
def rooms() -> Mapping[str, list[str]]:
    """Return the modules of each room."""
    found: dict[str, list[str]] = {room: [] for room in MAY_IMPORT}
    for module in source.all_modules():
        found.setdefault(room_of(module), []).append(module)
    return found


@pytest.mark.parametrize("folder", PACKAGES)
def test_all_modules_of_a_folder_are_found(folder: str) -> None:
    found = source.modules(folder)
    assert len(found) > 8
    assert PACKAGES[folder] in found
    assert all(name == PACKAGES[folder] or name.startswith(PACKAGES[folder] + ".") for name in found)
    assert sorted(found.values()) == sorted(path for path in (ROOT / folder).rglob("*.py"))
    if folder == "experiments":
        assert "metarl.experiments.configs" in found, "sub-packages are passed over"


def test_every_room_is_named_and_has_modules() -> None:
    unnamed = set(rooms()) - set(MAY_IMPORT)
    assert not unnamed, f"metarl/ has new rooms {sorted(unnamed)}: say in MAY_IMPORT what they may import"
    empty = {room for room, names in rooms().items() if not names}
    assert not empty, f"rooms without a module: {sorted(empty)}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    faults = []
    for module in rooms()[room]:
        for name in source.imports_of(module, source.all_modules()[module]):
            target = source.holder(name, source.all_modules())
            if target is not None and room_of(target) not in MAY_IMPORT[room]:
                faults.append(f"{module} imports {name}, of {room_of(target)}")
            faults += [
                f"{module} imports {name}" for part in WITHOUT.get(room, ()) if f"{name}.".startswith(f"{part}.")
            ]
    assert not faults, f"{room} may import from {', '.join(sorted(MAY_IMPORT[room]))}, but " + "; ".join(faults)


def test_no_import_leads_back_to_its_module() -> None:
    graph = source.import_graph()
    assert len(graph) > 100
    assert sum(map(len, graph.values())) > 300
    found = [" -> ".join(way) for way in source.circles(graph)]
    assert not found, "imports go round: " + "; ".join(found)


# Loads each room's modules in a child of its own, and prints which modules were loaded by then.
LOADER = """
import importlib, json, os, sys, traceback
for room, names in json.loads(sys.argv[1]):
    if room != "envs":
        import stable_baselines3  # once for all, since it takes long; the first room has to do without
    child = os.fork()
    if child == 0:
        try:
            for name in names:
                importlib.import_module(name)
            print(json.dumps([room, sorted(sys.modules)]), flush=True)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def loaded() -> Mapping[str, list[str]]:
    """What is loaded after all modules of a room were imported, and nothing else."""
    # Where the table of learners lies in the package of learners, it comes with them.
    names = {room: rooms()[room] for room in MAY_IMPORT if room not in ("front", "names")}
    assert next(iter(names)) == "envs"
    command = [sys.executable, "-c", LOADER, json.dumps(list(names.items()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("room", [room for room in MAY_IMPORT if room not in ("front", "names")])
def test_each_room_loads_alone(room: str, loaded: Mapping[str, list[str]]) -> None:
    may = {room}
    while not may >= (more := may.union(*(MAY_IMPORT[other] for other in may))):
        may = more
    # `import metarl` registers the families and reads the table of learners, so those are always there.
    may |= {"front", "envs", "names"}
    assert set(rooms()[room]) <= set(loaded[room])
    known = source.all_modules()
    strangers = [
        name for name in loaded[room] if name in known and room_of(name) not in may and name != "metarl.version"
    ]
    assert not strangers, f"{room} loads {', '.join(strangers)}"
    if room == "envs":
        assert not {"torch", "stable_baselines3"} & set(loaded[room])


@pytest.mark.parametrize("folder", PACKAGES)
def test_docstrings_examples_run_and_every_module_has_a_docstring(folder: str) -> None:
    names = source.modules(folder)
    assert len(names) > 8
    for name in names:
        module = importlib.import_module(name)
        assert module.__doc__, name
        with contextlib.redirect_stdout(sys.stderr):
            assert doctest.testmod(module).failed == 0, name


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_public_name_has_a_docstring(folder: str) -> None:
    count = 0
    for name, path in source.modules(folder).items():
        for node in source.tree(path).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name}.{node.name}"
                count += 1
    assert count > 20


@pytest.mark.parametrize("helper", [source, privacy, count_checks], ids=lambda module: module.__name__)
def test_the_examples_of_what_reads_the_code_run(helper: object) -> None:
    result = doctest.testmod(helper)  # type: ignore[arg-type]
    assert result.failed == 0
    assert result.attempted > 0


def test_the_packages_of_the_wheel_are_all_folders_with_code_but_the_benchmarks() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    with_code = {str(path.parent.relative_to(ROOT)) for folder in PACKAGES for path in source.files(folder)}
    assert len(with_code) >= 5
    assert all((ROOT / folder / "__init__.py").is_file() for folder in with_code), "a folder has no __init__.py"
    packed = {folder for folder in with_code if not any(Path(folder).is_relative_to(part) for part in NOT_PACKED)}
    names = {folder: source.module_name(ROOT / folder / "__init__.py", ROOT, "")[1:] for folder in packed}
    expected = {name if name.startswith("metarl") else f"metarl.{name}": folder for folder, name in names.items()}
    assert tools["package-dir"] == expected, "pyproject.toml's package-dir is not all folders with code"
    assert sorted(tools["packages"]) == sorted(expected), "pyproject.toml's packages are not all folders with code"


CODE = {"package": tuple(PACKAGES), "tests": ("tests",)}


LONGEST, USUALLY_LONGEST, MOST_MODULES = 450, 300, 16
MAY_BE_LONGER = {"metarl/gradients/perceptron.py"}
MAY_HAVE_MORE = {"envs/families"}


def lengths(part: str) -> Mapping[str, int]:
    """Return how many lines each file of a part of the repository has."""
    found = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in CODE[part]
        for path in source.files(folder)
    }
    assert len(found) > 40
    return found


@pytest.mark.parametrize("part", CODE)
def test_nine_files_in_ten_are_short(part: str) -> None:
    long = [f"{name}: {count}" for name, count in lengths(part).items() if count >= USUALLY_LONGEST]
    assert len(long) <= len(lengths(part)) / 10, f"{USUALLY_LONGEST} lines and more: {', '.join(long)}"


@pytest.mark.parametrize("part", CODE)
def test_no_file_is_too_long(part: str) -> None:
    too_long = {name: count for name, count in lengths(part).items() if count > LONGEST and name not in MAY_BE_LONGER}
    assert not too_long, f"more than {LONGEST} lines: {too_long}"


@pytest.mark.parametrize("part", CODE)
def test_no_folder_has_too_many_modules(part: str) -> None:
    counts: dict[str, int] = {}
    for folder in CODE[part]:
        for path in source.files(folder):
            name = str(path.parent.relative_to(ROOT))
            counts[name] = counts.get(name, 0) + (path.stem != "__init__")
    too_many = {name: count for name, count in counts.items() if count > MOST_MODULES and name not in MAY_HAVE_MORE}
    assert not too_many, f"more than {MOST_MODULES} modules: {too_many}"
