"""All benchmarks, in the order they are run."""

from collections.abc import Sequence

from benchmarks import anml, car_racing, continual, hebbian, plasticity, resnet, tsar
from benchmarks.measure import Benchmark
from tsar_jax.errors import check_known

BENCHMARKS: tuple[Benchmark, ...] = (
    *anml.BENCHMARKS,
    *tsar.BENCHMARKS,
    *plasticity.BENCHMARKS,
    *hebbian.BENCHMARKS,
    *car_racing.BENCHMARKS,
    *continual.BENCHMARKS,
    *resnet.BENCHMARKS,
)


def choose(names: Sequence[str] | None) -> list[Benchmark]:
    """The benchmarks of these names, or all but the optional ones. Raises UserError."""
    if names is None:
        return [benchmark for benchmark in BENCHMARKS if not benchmark.optional]
    by_name = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    for name in names:
        check_known("benchmark", name, by_name)
    return [by_name[name] for name in names]
