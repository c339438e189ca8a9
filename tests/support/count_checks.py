"""Counts what the tests check, to compare before and after they are rearranged: run it from the repository's root."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
COLUMNS = ("functions", "cases", "asserts", "raises", "testing")


def count_written(source: str) -> Counter[str]:
    """Count the test functions of a file, its assert statements, and its calls of pytest, numpy and torch that check.

    >>> count_written("def test_it():\\n    assert f()\\n    np.testing.assert_equal(1, 1)\\n")
    Counter({'functions': 1, 'asserts': 1, 'testing': 1})
    """
    counts: Counter[str] = Counter()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            counts["functions"] += node.name.startswith("test_")
        elif isinstance(node, ast.Assert):
            counts["asserts"] += 1
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            counts["raises"] += name in ("pytest.raises", "pytest.warns", "pytest.fail", "raises", "warns")
            counts["testing"] += ".testing.assert_" in f".{name}" or name in ("assert_close", "assert_allclose")
    return +counts


def count_cases() -> Counter[str]:
    """Count the cases that pytest collects of each file, those that are left out by default included."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "full or not full", str(TESTS)]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return Counter(line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line)


def main() -> None:
    """Print the counts of each folder of tests, and of all."""
    cases = count_cases()
    folders: dict[str, Counter[str]] = defaultdict(Counter)
    for path in sorted(TESTS.rglob("*.py")):
        name = str(path.relative_to(TESTS.parent))
        folders[str(path.parent.relative_to(TESTS.parent))] += count_written(path.read_text(encoding="utf-8"))
        folders[str(path.parent.relative_to(TESTS.parent))]["cases"] += cases[name]
    total: Counter[str] = sum(folders.values(), Counter())
    print(f"{'':24}" + "".join(f"{column:>10}" for column in COLUMNS))
    for folder, counts in [*folders.items(), ("all", total)]:
        print(f"{folder:24}" + "".join(f"{counts[column]:10}" for column in COLUMNS))


if __name__ == "__main__":
    main()
