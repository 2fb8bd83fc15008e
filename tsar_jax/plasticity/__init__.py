"""plasticity."""
