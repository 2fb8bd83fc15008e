"""Hebbian networks: policies whose weights change in a lifetime by evolved rules."""
