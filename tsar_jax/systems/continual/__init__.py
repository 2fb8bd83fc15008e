"""Continual learning: SYNERGy and the methods that it is compared with."""
