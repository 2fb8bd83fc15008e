"""The published meta-test protocol: learning-rate search, fresh runs, a table of the results."""

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
from tsar_jax.systems.episodic.meta_test import (
    Protocol,
    automatic_memory,
    frozen_signals,
    run_many,
)
from tsar_jax.training.config import earlier

Ties = Literal["largest", "smallest"]

PUBLISHED_RATES = (
    *(1e-3, 6e-4, 4e-4, 3.5e-4, 3e-4, 2.5e-4, 2e-4),
    *(1.5e-4, 1e-4, 9e-5, 8e-5, 6e-5, 3e-5, 1e-5),
)


@dataclasses.dataclass(frozen=True)
class MetaTestConfig:
    """The meta-test. Raises UserError for impossible values."""

    classes: tuple[int, ...] = (10, 50, 100)
    """Numbers of unseen classes to learn, one row of the result each."""
    runs: int = 5
    """Fresh draws of classes at the chosen learning rate."""
    rates: tuple[float, ...] = (1.6e-2, 8e-3, 4e-3, 2e-3, 1e-3, 5e-4, 2.5e-4)
    """Learning rates of Adam to search."""
    draws: int = 2
    """Draws of classes in the search: the best rate of each draw, and of those the mode."""
    ties: Ties = dataclasses.field(default="largest", metadata=earlier("largest"))
    """Rate that the search takes where several are best in equally many draws: the largest of
    them, or the smallest, as the release."""
    population: int = 650
    """Classes are drawn among the first this many evaluation classes."""
    learn: int = 15
    """Images of a class that are learned; the others test."""
    class_order: ClassOrder = dataclasses.field(default="random", metadata=earlier("random"))
    """Order in which the drawn classes are learned: random; or data, the data set's own, alphabet
    by alphabet, as the release."""
    plastic: tuple[str, ...] = ("head",)
    """What learns, by name (all: everything)."""
    iid: bool = False
    """Learn shuffled images instead of class after class: the oracle."""
    reset: bool = False
    """Begin with everything plastic re-initialised, not only the output layer."""
    scratch: bool = False
    """Test an untrained network in place of the meta-trained one."""
    epochs: int = 1
    """Passes over the images."""
    memory: int | None = None
    """Bytes for simultaneous runs; None: what suits the device."""
    seed: int = 0
    """Of the draws."""

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
    """One row: accuracies of every run with `classes` classes at the rate that the search chose.

    train, test: one accuracy per run. per_class: [runs][classes], test accuracy per class in the
    order of learning.
    """

    classes: int
    rate: float
    train: list[float]
    test: list[float]
    per_class: list[list[float]]


def check_classes(config: MetaTestConfig, available: int, per_class: int, outputs: int) -> None:
    """Raises UserError where the data or the network cannot serve the config."""
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


def best_rate(accuracy: np.ndarray, rates: Sequence[float], ties: Ties) -> float:
    """Return the rate that is best in the most draws.

    Args:
        accuracy: [draws, rates]; of rates equally good in a draw the largest is its best.
        rates: learning rates, in the columns' order.
        ties: which rate of those that are best in equally many draws.
    """
    order = np.argsort(rates)[::-1]
    winners = np.asarray(rates)[order][accuracy[:, order].argmax(1)]
    values, counts = np.unique(winners, return_counts=True)
    modes = values[counts == counts.max()]
    return float(modes.max() if ties == "largest" else modes.min())


def meta_test(
    network: Network,
    params: Any,
    images: jax.Array,
    config: MetaTestConfig,
    report: Callable[[Result], None] = lambda result: None,
    *,
    pixels: Pixels,
) -> list[Result]:
    """Search and fresh runs for each number of classes. images uint8 [classes, per_class, H, W].

    pixels: the scale that the network was trained with. `report` is called with each result as
    it is known. Raises UserError for a name in `plastic` that no parameter has, or more classes
    than there are.
    """
    check_classes(config, images.shape[0], images.shape[1], params["head"]["bias"].size)
    mask(params, config.plastic)
    signals = _signals(network, config.plastic, pixels, params, images)
    results = []
    for number, classes in enumerate(config.classes):
        protocol = Protocol(
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
            protocol,
            images.shape[1],
            config.memory or automatic_memory(),
            params,
            signals,
        )
        rate, found = search_and_run(
            run,
            jax.random.fold_in(jax.random.key(config.seed), number),
            rates=config.rates,
            draws=config.draws,
            runs=config.runs,
            ties=config.ties,
        )
        accuracies = {name: values.tolist() for name, values in found.items()}
        results.append(Result(classes, rate, **accuracies))
        report(results[-1])
    return results


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _signals(
    network: Network, plastic: tuple[str, ...], pixels: Pixels, params: Any, images: jax.Array
) -> Any:
    return frozen_signals(network, params, mask(params, plastic), images, pixels=pixels)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _run(
    network: Network,
    plastic: tuple[str, ...],
    protocol: Protocol,
    per_class: int,
    memory: int,
    params: Any,
    signals: Any,
    keys: jax.Array,
    rates: jax.Array,
    count: jax.Array,
) -> dict[str, jax.Array]:
    """Compiled once per network and protocol: conditions, search and runs share it."""
    return run_many(
        network,
        params,
        mask(params, plastic),
        signals,
        protocol,
        per_class,
        keys,
        rates,
        memory=memory,
        count=count,
    )


def search_and_run(
    run: Callable[..., dict[str, jax.Array]],
    key: jax.Array,
    *,
    rates: Sequence[float],
    draws: int,
    runs: int,
    ties: Ties = "largest",
    fresh_draws: bool = False,
) -> tuple[float, dict[str, np.ndarray]]:
    """Search for the rate, then run at it with keys that the search has not seen.

    run: (keys [n], rates [n], count) -> {"test": [n], ...} of which the first `count` are made.
    fresh_draws: each rate has keys of its own; otherwise all rates of a draw share its key.
    Returns the rate most often best on "test" in `draws` draws (ties: see `best_rate`), and the
    results of `runs` runs.
    """
    search_key, run_key = jax.random.split(key)
    room = max(len(rates) * draws, runs)

    def run_all(keys: jax.Array, rates: Sequence[float]) -> dict[str, np.ndarray]:
        index = np.minimum(np.arange(room), len(rates) - 1)
        padded = jnp.array(np.asarray(rates, np.float32)[index])
        found = run(keys[index], padded, jnp.int32(len(rates)))
        return {name: np.asarray(values)[: len(rates)] for name, values in found.items()}

    rate = rates[0]
    if len(rates) > 1:
        each = 1 if fresh_draws else len(rates)
        keys = jnp.repeat(jax.random.split(search_key, draws * len(rates) // each), each)
        accuracy = run_all(keys, tuple(rates) * draws)["test"]
        rate = best_rate(accuracy.reshape(draws, -1), rates, ties)
    return rate, run_all(jax.random.split(run_key, runs), [rate] * runs)


def mean_and_band(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % confidence interval; 0 for one value."""
    width = float(confidence_half_width(values)) if len(values) > 1 else 0.0
    return float(np.mean(values)), width
