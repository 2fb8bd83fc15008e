"""Where scripts that do not import it from the package yet find `read_run`."""

from tsar_jax.training.run import read_run as read_run
