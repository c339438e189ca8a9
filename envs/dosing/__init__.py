"""Dosing of a drug: its kinetics as pure functions of arrays, the best doses, and the textbook's rule."""
