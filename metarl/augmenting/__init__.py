"""Augmentation of what is scarce in training: more tasks from a few, and other views of their episodes."""
