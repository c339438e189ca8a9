"""Recommendation: which items of a catalogue a policy would show a user."""
