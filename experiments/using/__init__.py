"""What is done with the policies of a run: replays and exported files."""
