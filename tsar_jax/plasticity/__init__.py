"""Learners: pure functions that change weights within a lifetime."""
