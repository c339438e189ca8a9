"""``metarl train --processes N``: start N ranks on this machine, as ``torchrun --nproc-per-node N -m metarl`` does."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from metarl.envs.processes import available_cores
from metarl.experiments.arguments import BAD_INPUT, FAILED, INTERRUPTED, TERMINATED


def restarts() -> int:
    """Return how often torchrun will start all ranks anew after a failure; 0 if this process is none of its."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))


def start(count: int, arguments: Sequence[str]) -> int:
    """Run ``metarl`` with the same arguments in so many processes; return the exit status, that of rank 0.

    Each gets its part of the cores as threads, unless ``OMP_NUM_THREADS`` says how many.

    Args:
        count: how many processes.
        arguments: of the command line.
    """
    # The ranks say themselves, in a sentence, what the launcher's report would spread over a page.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // count)))
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "metarl", *arguments)
        except ChildFailedError as error:
            # The launcher stops the others as soon as one rank ends, and any of them may be the first.
            statuses = [failure.exitcode for failure in error.failures.values() if failure.exitcode > 0]
            return BAD_INPUT if BAD_INPUT in statuses else next(iter(statuses), FAILED)
        except SignalException as stop:
            return INTERRUPTED if stop.sigval.name == "SIGINT" else TERMINATED
    return 0
