"""Checks whether an environment keeps the contract of a family, in one sentence a fault."""
