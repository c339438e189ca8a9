"""Recommendation: how users click, as pure functions of arrays, and a classical recommender."""
