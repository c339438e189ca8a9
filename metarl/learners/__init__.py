"""The meta-learners, one file for each algorithm, and the registry that finds them by name."""
