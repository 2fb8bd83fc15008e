"""Runnable scripts, one per verb: `tsar-jax list` names them."""
