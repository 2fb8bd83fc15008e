"""Runnable scripts, which `tsar-jax list` lists."""
