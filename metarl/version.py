"""The version of metarl, in one place."""

__version__ = "0.1.0"
