"""Learned plasticity rules: local rules whose coefficients are meta-trained."""
