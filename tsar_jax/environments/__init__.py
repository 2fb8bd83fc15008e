"""Environments in which a policy acts: compiled ones, and simulators on the host."""
