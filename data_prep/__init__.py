"""Turns the archives that data sets are distributed in into data that `tsar_jax.data` loads."""
