"""An evaluation as a tidy table of pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from metarl.results.kept import Kept


def frame_of(kept: Kept) -> pd.DataFrame:
    """Return a row for each seed, task, point and episode; see ``Evaluation.to_frame``."""
    shape = kept.metrics[kept.metric].shape
    seed, task, point, episode = (axis.reshape(-1) for axis in np.indices(shape))
    columns: dict[str, Any] = {
        name: [getattr(kept, name)] * seed.size for name in ("family", "learner", "split", "protocol")
    }
    if kept.regions is not None:
        columns["region"] = np.array(kept.regions)[task]
    before = np.nan if kept.steps_before is None else kept.steps_before[seed, task, point]
    frame = pd.DataFrame(
        {
            **columns,
            "seed": np.array(kept.seeds)[seed],
            "task": task,
            "point": np.array(kept.points)[point],
            "episodes_before": kept.episodes_before[seed, task, point],
            "steps_before": before,
            "episode": episode,
            **{name: values.reshape(-1).astype(np.float64) for name, values in kept.metrics.items()},
        }
    )
    measured = frame[list(kept.metrics)].notna().any(axis=1)
    return frame[measured].reset_index(drop=True)
