"""The configurations shipped with metarl, for `metarl train NAME`."""
