"""What the settings mean, which values fit a family, and what was probably meant by a wrong one."""
