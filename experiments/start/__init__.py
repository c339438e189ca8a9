"""From a name on the command line to a configuration, and what its settings mean."""
