"""How figures look, and drawings that know no family of systems."""
