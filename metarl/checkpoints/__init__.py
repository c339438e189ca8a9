"""Checkpoints: how a learner's state is written to a file, and read back without trusting the file."""

from metarl.checkpoints.file import (
    Checkpoint,
    checkpoint_path,
    read_checkpoint,
    read_facts,
    stored_checkpoint,
    write_checkpoint,
)
from metarl.checkpoints.loading import checked_settings, refused_in_a_sentence
from metarl.checkpoints.named_modules import Allowed, refuse_imports

__all__ = [
    "Allowed",
    "Checkpoint",
    "checked_settings",
    "checkpoint_path",
    "read_checkpoint",
    "read_facts",
    "refuse_imports",
    "refused_in_a_sentence",
    "stored_checkpoint",
    "write_checkpoint",
]
