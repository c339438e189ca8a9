"""The environment families that metarl ships, one file each, and what several of them share."""
