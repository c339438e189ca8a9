"""Configurations that metarl ships; `metarl train NAME` takes them by name."""
