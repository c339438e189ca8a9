"""The command ``metarl show``."""
