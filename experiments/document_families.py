"""Writes docs/families.md, the table of metarl's families, and the pictures in docs/pictures.

``python -m metarl.experiments.document_families`` writes them, with the speeds in docs/speeds.json, which
``python -m metarl.experiments.benchmarks.families --json docs/speeds.json`` measures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.envs import make
from metarl.experiments.families import describe_families

DOCS = Path(__file__).parents[1] / "docs"
STEPS = 15  # random actions before a picture is taken

HEAD = """# Families

Written by `experiments/document_families.py` from the registry; the data sheet of each family is the docstring of its
class, and `metarl envs` prints this list in short.

| family | task | observation | action | steps | optimum known | source | steps per second |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

FOOT = """
Steps: the time limit; "its own" where the family ends its episodes itself. Steps per second: of the batched
environment with {num_envs} sub-environments on {cores} cores, and how many times as many as those of Gymnasium's
`SyncVectorEnv` in the same run (`experiments/benchmarks/families.py`).

## Pictures
"""


def picture(family: str) -> NDArray[np.uint8] | None:
    """Return a picture of a family after some random actions; None if the family has no pictures."""
    if "rgb_array" not in make(family).metadata["render_modes"]:
        return None
    env = make(family, render_mode="rgb_array")
    env.action_space.seed(1)
    env.reset(seed=1)
    for _ in range(STEPS):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            break
    pixels: NDArray[np.uint8] = np.asarray(env.render(), dtype=np.uint8)
    env.close()
    return pixels


def picture_name(family: str) -> str:
    """Return the file name of a family's picture."""
    return f"{family.rpartition('/')[2]}.png"


def page(speeds: dict[str, Any], drawn: set[str]) -> str:
    """Return the text of docs/families.md.

    Args:
        speeds: the output of the benchmark.
        drawn: the families with a picture.
    """
    measured = {entry["family"]: entry for entry in speeds["speeds"]}
    lines, pictures = [], []
    for family in describe_families():
        if family["source"] != "metarl" or family["fault"] is not None:
            continue
        speed = measured.get(family["id"])
        cells = [
            f"`{family['id']}`",
            family["task"],
            family["observation"],
            family["action"],
            str(family["max_episode_steps"] or "its own"),
            "yes" if family["oracle"] else "no",
            (family["literature"] or "").rstrip("."),
            f"{speed['steps_per_second']:,.0f} ({speed['ratio']:.3g}x)" if speed else "not measured",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        if family["id"] in drawn:
            pictures.append(f"\n`{family['id']}`\n\n![{family['id']}](pictures/{picture_name(family['id'])})")
    counted = {"num_envs": next(iter(measured.values()))["num_envs"], "cores": speeds["machine"]["cores"]}
    return HEAD + "\n".join(lines) + "\n" + FOOT.format(**counted) + "\n".join(pictures) + "\n"


def main() -> None:
    """Write the page and the pictures."""
    from PIL import Image

    folder = DOCS / "pictures"
    folder.mkdir(exist_ok=True)
    drawn = set()
    for family in describe_families():
        if family["source"] == "metarl" and family["fault"] is None:
            pixels = picture(family["id"])
            if pixels is not None:
                Image.fromarray(pixels).quantize(64).save(folder / picture_name(family["id"]), optimize=True)
                drawn.add(family["id"])
    speeds = json.loads((DOCS / "speeds.json").read_text(encoding="utf-8"))
    (DOCS / "families.md").write_text(page(speeds, drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
