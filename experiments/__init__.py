"""The metarl command, configurations, runs, comparisons and benchmarks."""
