"""`python -m tsar_jax`, for where the console command is not on the path."""

from tsar_jax.cli import main

main()
