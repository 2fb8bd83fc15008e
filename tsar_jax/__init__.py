"""Plasticity that learns to learn: five published systems on one functional core."""
