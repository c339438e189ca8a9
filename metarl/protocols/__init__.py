"""Protocols of evaluation: what is played on which tasks, and what is counted of it."""
