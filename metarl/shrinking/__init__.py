"""Smaller policies from large ones."""
