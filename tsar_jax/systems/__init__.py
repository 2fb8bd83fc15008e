"""One module per system: a Config and a few pure functions."""
