"""Benchmarks for developers, which measure ratios within a run; not part of the wheel."""
