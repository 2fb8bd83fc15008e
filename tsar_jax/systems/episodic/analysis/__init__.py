"""Analyses of what a meta-trained network represents and how it regulates its weights."""
