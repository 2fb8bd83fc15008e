"""The meta-test: its settings, the search for the learning rate, and the runs that are reported."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax.data.episodes import ClassOrder, Pixels
from tsar_jax.errors import UserError, check_positive, check_rates, check_seed
from tsar_jax.evaluation.spread import confidence_half_width
from tsar_jax.networks import Network
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.meta_test_lifetime import (
    LifetimeSpec,
    default_memory_budget,
    frozen_activations,
    run_lifetimes,
)
from tsar_jax.training.config import earlier

Ties = Literal["largest", "smallest"]

PUBLISHED_RATES = (
    *(1e-3, 6e-4, 4e-4, 3.5e-4, 3e-4, 2.5e-4, 2e-4),
    *(1.5e-4, 1e-4, 9e-5, 8e-5, 6e-5, 3e-5, 1e-5),
)
"""Learning rates of the published search, the largest first."""


@dataclasses.dataclass(frozen=True)
class MetaTestConfig:
    """Settings of a meta-test. Raises UserError for impossible values."""

    classes: tuple[int, ...] = (10, 50, 100)
    """Numbers of unseen classes to learn, one row of the result each."""
    runs: int = 5
    """Lifetimes at the chosen learning rate, each with a fresh draw of classes."""
    rates: tuple[float, ...] = (1.6e-2, 8e-3, 4e-3, 2e-3, 1e-3, 5e-4, 2.5e-4)
    """Learning rates of Adam to search."""
    draws: int = 2
    """Draws of classes in the search, which takes the mode of the draws' best rates."""
    ties: Ties = dataclasses.field(default="largest", metadata=earlier("largest"))
    """Rate that the search takes where several are best in equally many draws: the largest of
    them; or the smallest, as the release does."""
    population: int = 650
    """Number of evaluation classes, the first ones, among which classes are drawn."""
    learn: int = 15
    """Images of a class that are learned; the others test."""
    class_order: ClassOrder = dataclasses.field(default="random", metadata=earlier("random"))
    """Order in which the drawn classes are learned: random; or data, the data set's own, alphabet
    by alphabet, as the release does."""
    plastic: tuple[str, ...] = ("head",)
    """Parameters that learn, by name (all: everything)."""
    iid: bool = False
    """Whether images are learned shuffled, not class after class: the oracle."""
    reset: bool = False
    """Whether everything plastic is re-initialised at first, not only the output layer."""
    scratch: bool = False
    """Whether an untrained network is tested in place of the meta-trained one."""
    epochs: int = 1
    """Passes over the images."""
    memory: int | None = None
    """Bytes of runs side by side. None: what suits the device."""
    seed: int = 0
    """Seed of the draws, in [0, 2**32)."""

    def __post_init__(self) -> None:
        check_positive(self, "runs", "draws", "population", "learn", "epochs", "memory")
        if not self.classes or min(self.classes) < 1:
            raise UserError(f"classes must be numbers of at least 1, but is {self.classes}.")
        check_rates(self, "rates")
        check_seed(self)
        if not self.plastic:
            raise UserError("plastic names nothing: name what learns, for example head.")


@dataclasses.dataclass(frozen=True)
class Result:
    """Accuracies of every run with one number of classes.

    classes: number of classes of a run.
    rate: learning rate that the search chose.
    train, test: accuracy on the images learned and held out, in [0, 1], one for each run.
    per_class: test accuracy on each class in the order of learning, [runs][classes].
    """

    classes: int
    rate: float
    train: list[float]
    test: list[float]
    per_class: list[list[float]]


def check_classes(config: MetaTestConfig, available: int, per_class: int, outputs: int) -> None:
    """Raise UserError where the data or the network cannot serve the config.

    Args:
        available: number of classes in the data.
        per_class: images of a class.
        outputs: output units of the network.
    """
    population = min(config.population, available)
    most = max(config.classes)
    if most > population:
        raise UserError(
            f"classes asks for {most} classes, but there are only {population} to draw from: "
            "ask for fewer."
        )
    if most > outputs:
        raise UserError(
            f"classes asks for {most} classes, but the network has {outputs} outputs: "
            "ask for fewer."
        )
    if config.learn >= per_class:
        raise UserError(
            f"learn is {config.learn}, but a class has {per_class} images and one must be left "
            f"to test: ask for at most {per_class - 1}."
        )


def best_learning_rate(accuracy: np.ndarray, learning_rates: Sequence[float], ties: Ties) -> float:
    """Return the learning rate that is best in the most draws.

    Args:
        accuracy: [draws, rates]; of rates equally good in a draw the largest is its best.
        learning_rates: the rates, in the columns' order.
        ties: choice among rates that are best in equally many draws.
    """
    order = np.argsort(learning_rates)[::-1]
    winners = np.asarray(learning_rates)[order][accuracy[:, order].argmax(1)]
    values, counts = np.unique(winners, return_counts=True)
    modes = values[counts == counts.max()]
    return float(modes.max() if ties == "largest" else modes.min())


def run_meta_test(
    network: Network,
    params: Any,
    images: jax.Array,
    config: MetaTestConfig,
    report: Callable[[Result], None] = lambda result: None,
    *,
    pixels: Pixels,
) -> list[Result]:
    """Search for the learning rate and run lifetimes at it, for each number of classes.

    Args:
        images: uint8 [classes, per_class, H, W].
        report: called with each result as soon as it is known.
        pixels: the scale that the network was trained with.

    Returns:
        A result for each of config.classes.

    Raises:
        UserError: no parameter has a name in `plastic`, or there are fewer classes or images than
            the config asks for.
    """
    check_classes(config, images.shape[0], images.shape[1], params["head"]["bias"].size)
    mask(params, config.plastic)
    activations = _frozen_activations(network, config.plastic, pixels, params, images)
    results = []
    for number, classes in enumerate(config.classes):
        spec = LifetimeSpec(
            classes=classes,
            population=min(config.population, images.shape[0]),
            learn=config.learn,
            class_order=config.class_order,
            iid=config.iid,
            epochs=config.epochs,
            reset=config.reset,
        )
        run = functools.partial(
            _run,
            network,
            config.plastic,
            spec,
            images.shape[1],
            config.memory or default_memory_budget(),
            params,
            activations,
        )
        learning_rate, arrays = search_and_run(
            run,
            jax.random.fold_in(jax.random.key(config.seed), number),
            learning_rates=config.rates,
            draws=config.draws,
            runs=config.runs,
            ties=config.ties,
        )
        accuracies = {name: values.tolist() for name, values in arrays.items()}
        results.append(Result(classes, learning_rate, **accuracies))
        report(results[-1])
    return results


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _frozen_activations(
    network: Network, plastic: tuple[str, ...], pixels: Pixels, params: Any, images: jax.Array
) -> Any:
    """Return `frozen_activations`, compiled once for each network."""
    return frozen_activations(network, params, mask(params, plastic), images, pixels=pixels)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _run(
    network: Network,
    plastic: tuple[str, ...],
    spec: LifetimeSpec,
    per_class: int,
    memory_budget: int,
    params: Any,
    activations: Any,
    keys: jax.Array,
    learning_rates: jax.Array,
    count: jax.Array,
) -> dict[str, jax.Array]:
    """Return `run_lifetimes`, compiled once for each network and spec.

    Conditions, the search and the runs share the program.
    """
    return run_lifetimes(
        network,
        params,
        mask(params, plastic),
        activations,
        spec,
        per_class,
        keys,
        learning_rates,
        memory_budget=memory_budget,
        count=count,
    )


def search_and_run(
    run: Callable[..., dict[str, jax.Array]],
    key: jax.Array,
    *,
    learning_rates: Sequence[float],
    draws: int,
    runs: int,
    ties: Ties = "largest",
    fresh_draws: bool = False,
) -> tuple[float, dict[str, np.ndarray]]:
    """Search for the learning rate, then run at it with keys that the search has not seen.

    Args:
        run: (keys [n], learning rates [n], count) -> {"test": [n], ...}, of which the first `count`
            are run.
        learning_rates: the rates to search; a single one is taken without a search.
        draws: number of times that the search tries every rate.
        runs: lifetimes at the chosen rate.
        ties: see `best_learning_rate`.
        fresh_draws: whether each rate has keys of its own; otherwise all rates of a draw share its
            key.

    Returns:
        The rate most often best on "test", and the arrays of the runs [runs, ...].
    """
    search_key, run_key = jax.random.split(key)
    # The search and the runs have arrays of one length, and so one compiled program.
    length = max(len(learning_rates) * draws, runs)

    def run_all(keys: jax.Array, learning_rates: Sequence[float]) -> dict[str, np.ndarray]:
        count = len(learning_rates)
        index = np.minimum(np.arange(length), count - 1)
        padded = jnp.array(np.asarray(learning_rates, np.float32)[index])
        arrays = run(keys[index], padded, jnp.int32(count))
        return {name: np.asarray(values)[:count] for name, values in arrays.items()}

    chosen = learning_rates[0]
    if len(learning_rates) > 1:
        rates_per_key = 1 if fresh_draws else len(learning_rates)
        keys = jax.random.split(search_key, draws * len(learning_rates) // rates_per_key)
        keys = jnp.repeat(keys, rates_per_key)
        accuracy = run_all(keys, tuple(learning_rates) * draws)["test"]
        chosen = best_learning_rate(accuracy.reshape(draws, -1), learning_rates, ties)
    return chosen, run_all(jax.random.split(run_key, runs), [chosen] * runs)


def mean_and_band(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % confidence interval; 0 for one value."""
    width = float(confidence_half_width(values)) if len(values) > 1 else 0.0
    return float(np.mean(values)), width
