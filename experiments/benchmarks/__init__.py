"""Benchmarks for developers: ratios measured in one run; left out of the wheel."""
