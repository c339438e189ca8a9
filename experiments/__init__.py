"""What a person runs: the metarl command, configurations, benchmarks, reports."""
