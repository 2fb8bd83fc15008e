"""Preparation of data sets: from the archives that they come in to data for `tsar_jax.data`."""
