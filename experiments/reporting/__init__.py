"""A report of runs: one page that can be sent, with figures, tables, what to beware of and how to repeat it."""

from metarl.experiments.reporting.page import write_report

__all__ = ["write_report"]
