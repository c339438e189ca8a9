"""The meta-learners, one file an algorithm, and the registry that finds them by name."""
