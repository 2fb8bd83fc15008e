"""What setup.cfg cannot say: a wheel has `experiments` and `data_prep` within `tsar_jax`."""

from setuptools import find_packages, setup

WITHIN = ("experiments", "data_prep")

setup(
    packages=[*find_packages(include=["tsar_jax*"]), *(f"tsar_jax.{name}" for name in WITHIN)],
    package_dir={f"tsar_jax.{name}": name for name in WITHIN},
)
