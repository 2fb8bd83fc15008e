"""`python -m tsar_jax`: the console command where it is not on the path."""

from tsar_jax.cli import main

main()
