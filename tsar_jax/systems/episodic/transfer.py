"""Domain transfer: learn the classes of another data set, one image at a time, and remember them.

Beaulieu, Clune and Cheney (2021), arXiv 2108.12056: 100 classes in random order, 30 images of
each, everything learning but the encoder.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.data.episodes import draw_without_replacement
from tsar_jax.errors import (
    UserError,
    check_limits,
    check_positive,
    check_rates,
    check_seed,
    check_side,
)
from tsar_jax.networks import (
    TSAR,
    Network,
    init_params,
    run_stages,
    stored_stages,
)
from tsar_jax.plasticity.gradient_learner import GradientState
from tsar_jax.plasticity.learner import unroll
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.image_regulation import Normalise, mean_regulation, regulates_third
from tsar_jax.systems.episodic.meta_test import (
    adam_learner,
    as_many_as_fit,
    automatic_memory,
    bytes_per_run,
    fresh_start,
)
from tsar_jax.systems.episodic.protocol import Result, search_and_run
from tsar_jax.training.config import earlier

Params = Any
Condition = Literal["random", "spikes", "nonspikes", "mixed"]

RATES = tuple(round(1e-3 - 1e-4 * step, 4) for step in range(10))
"""The published grid: 1e-3, 9e-4 ... 1e-4."""


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """The transfer. Raises UserError for impossible values."""

    classes: int = 100
    """Classes of the new domain, in random order."""
    learn: int = 30
    """Images of a class that are learned, one at a time."""
    test: bool = False
    """Score held-out images: those of the lower half of each class, those of the upper half being
    learned (the release's --test). Otherwise learn any images and score the same ones, which
    measures retention, as the release's documented command does."""
    score: int | None = dataclasses.field(default=None, metadata=earlier(None))
    """Images of each class to score, with test. Where half a class is too few to learn or to score,
    as with Omniglot's 15 + 5, the first images are learned and the last scored, as in its
    meta-test. None: as many as are learned."""
    iid: bool = dataclasses.field(default=False, metadata=earlier(False))
    """Learn the images of all classes shuffled, not class after class: the oracle. Right after a
    class is then right after its last image."""
    reset: bool = dataclasses.field(default=False, metadata=earlier(False))
    """Begin with everything that learns re-initialised, not only the output layer."""
    condition: Condition = "random"
    """Which images are learned: random ones, or those to which the third convolution responds
    with the highest mean regulation (spikes), the lowest (nonspikes), or some of both (mixed)."""
    mixed: int = 15
    """How many spikes the mixed condition has; the others are nonspikes."""
    head_bias: float = -1.7
    """Bias that the fresh output head of the regulator begins with."""
    rates: tuple[float, ...] = RATES
    """Learning rates of Adam to search."""
    draws: int = 1
    """Times that the search tries every rate: best rate each time, the mode wins."""
    fresh_draws: bool = dataclasses.field(default=True, metadata=earlier(False))
    """Give every rate of the search a draw of classes and images of its own, as published;
    otherwise the rates share one, and differ by themselves alone."""
    runs: int = 49
    """Fresh draws at the chosen learning rate."""
    memory: int | None = None
    """Bytes for simultaneous runs; None: what suits the device."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        check_positive(self, "classes", "learn", "draws", "runs", "score", "memory")
        if self.score is not None and not self.test:
            raise UserError(
                f"score is {self.score} held-out images, but without test the learned images "
                "are scored: set test, or leave score out."
            )
        if self.condition == "mixed" and not 0 <= self.mixed <= self.learn:
            raise UserError(
                f"mixed must be between 0 and learn ({self.learn}): {self.mixed} is not."
            )
        check_rates(self, "rates")
        check_seed(self)


class Selection(NamedTuple):
    """Which images [classes, n] of each class are learned, and which are scored."""

    learn: jax.Array
    score: jax.Array


def check_target(config: TransferConfig, shape: tuple[int, ...], outputs: int) -> None:
    """Raises UserError where images [classes, per_class, ...] cannot serve the config."""
    classes, per_class = shape[:2]
    if len(shape) > 2:
        check_side("The images", shape[2:4])
    pool = per_class
    if config.test:
        pool = per_class // 2 if config.score is None else per_class - config.score
    check_limits(
        ("classes", config.classes, classes, "classes in the data"),
        ("classes", config.classes, outputs, "outputs of the network"),
        ("learn", config.learn, pool, "images of a class for it"),
    )


def split_class(config: TransferConfig, per_class: int) -> tuple[range, range]:
    """Return which images of a class may be learned, and which may be scored.

    Halves of the class, the upper one to learn; where one of them is too small, the first images
    and the last. All and all where the learned images are scored.
    """
    if not config.test:
        return range(per_class), range(per_class)
    scored = config.learn if config.score is None else config.score
    half = per_class // 2
    border = per_class - min(max(half, scored), per_class - config.learn)
    if border == per_class - half:
        return range(half, per_class), range(half)
    return range(border), range(border, per_class)


def select(
    key: jax.Array, shape: tuple[int, ...], config: TransferConfig, regulation: jax.Array | None
) -> Selection:
    """Choose images of each class; shape: classes, images of a class.

    regulation [classes, per_class] ranks the images for the conditions that need it. What is
    learned comes in random order.
    """
    classes, per_class = shape
    learnable, scorable = split_class(config, per_class)
    scored = config.learn if config.score is None else config.score
    learn_key, score_key, order_key = jax.random.split(key, 3)

    def draw(key: jax.Array, among: range, count: int) -> jax.Array:
        keys = jax.random.split(key, classes)
        drawn = jax.vmap(lambda k: draw_without_replacement(k, len(among), count))(keys)
        return among.start + drawn

    if config.condition == "random":
        learn = draw(learn_key, learnable, config.learn)
    else:
        assert regulation is not None
        chex.assert_shape(regulation, shape)
        ranks = jnp.argsort(regulation[:, jnp.array(learnable)], axis=1, descending=True)
        ranked = learnable.start + ranks
        highest = {"spikes": config.learn, "nonspikes": 0, "mixed": config.mixed}[config.condition]
        lowest = config.learn - highest
        learn = jnp.concatenate([ranked[:, :highest], ranked[:, len(learnable) - lowest :]], 1)
        learn = jax.random.permutation(order_key, learn, axis=1, independent=True)
    return Selection(learn, draw(score_key, scorable, scored) if config.test else learn)


def fresh_output(network: Network, params: Params, bias: float, key: jax.Array) -> Params:
    """Re-initialise the output layer and, of a TSAR, the regulator's head for it."""
    if not isinstance(network, TSAR):
        return {**params, "head": init_params(network, key)["head"]}
    fresh = init_params(network.clone(initial_bias=bias), key)
    if "head" not in network.regulated:
        return {**params, "head": fresh["head"]}
    regulator = {**params["regulator"], "head": fresh["regulator"]["head"]}
    return {**params, "head": fresh["head"], "regulator": regulator}


def starting_params(
    network: Network, params: Params, plastic: Params, config: TransferConfig, key: jax.Array
) -> Params:
    """Return what a transfer begins with: the output, or with reset all that learns, drawn anew."""
    if config.reset:
        params = fresh_start(network, params, plastic, key, everything=True)
    return fresh_output(network, params, config.head_bias, key)


def learn_shuffled(
    first: GradientState,
    learn: Callable[[GradientState, jax.Array], GradientState],
    score: Callable[[GradientState, jax.Array], jax.Array],
    stream: jax.Array,
    per_class: int,
) -> tuple[GradientState, jax.Array]:
    """Learn images of all classes in any order, and score each class after its last image.

    Args:
        first: the learner's state before the first image.
        learn: (state, image) -> state.
        score: (state, class) -> accuracy.
        stream: images in the order of learning, int [classes * per_class]; image n belongs to
            class n // per_class.
        per_class: images of a class.

    Returns:
        The learner's state after the last image, and the accuracies [classes].
    """
    last = jnp.argsort(stream).reshape(-1, per_class).max(1)
    by_last = jnp.argsort(last)

    def complete(
        carry: tuple[GradientState, jax.Array], position: jax.Array
    ) -> tuple[tuple[GradientState, jax.Array], jax.Array]:
        learned, done = carry
        end = last[position] + 1
        learned = lax.fori_loop(done, end, lambda n, before: learn(before, stream[n]), learned)
        return (learned, end), score(learned, position)

    (learned, _), found = lax.scan(complete, (first, jnp.int32(0)), by_last)
    return learned, jnp.zeros_like(found).at[by_last].set(found)


def transfer_once(
    network: Network,
    params: Params,
    plastic: Params,
    images: jax.Array,
    normalise: Normalise,
    config: TransferConfig,
    regulation: jax.Array | None,
    key: jax.Array,
    rate: jax.Array,
) -> dict[str, jax.Array]:
    """One transfer to images uint8 [classes, per_class, ...].

    Returns "train" and "test", accuracy at the end on the images learned and scored, and by
    class in the order of learning [classes]: "right_after", accuracy on the scored images as
    soon as the class has been learned (its last image, with iid), and "per_class", the same at
    the end.
    """
    class_key, image_key, fresh_key, stream_key = jax.random.split(key, 4)
    order = draw_without_replacement(class_key, images.shape[0], config.classes)
    chosen = select(image_key, images.shape[:2], config, regulation)
    start = starting_params(network, params, plastic, config, fresh_key)
    learner = adam_learner(network, plastic, rate)
    first = learner.init(start, None)
    depth = stored_stages(network, plastic)

    def signals_of(rows: jax.Array, position: jax.Array) -> Any:
        shown = images[order[position]][rows[order[position]]]
        return run_stages(network, start, normalise(shown), 0, depth)

    def accuracy(learned: GradientState, rows: jax.Array, position: jax.Array) -> jax.Array:
        logits = learner.predict(start, learned, signals_of(rows, position))
        return (logits.argmax(-1) == position).mean()

    def learn_class(learned: GradientState, position: jax.Array) -> tuple[GradientState, jax.Array]:
        examples = signals_of(chosen.learn, position), jnp.full(config.learn, position)
        learned, _ = unroll(learner, start, learned, examples)
        return learned, score(learned, position)

    def learn_image(learned: GradientState, index: jax.Array) -> GradientState:
        position, number = jnp.divmod(index, config.learn)
        one = signals_of(chosen.learn[:, number, None], position)
        example = jax.tree.map(lambda s: s[0], one), position
        return learner.update(start, learned, example, None)[0]

    def score(learned: GradientState, position: jax.Array) -> jax.Array:
        return accuracy(learned, chosen.score, position)

    positions = jnp.arange(config.classes)
    if config.iid:
        stream = jax.random.permutation(stream_key, config.classes * config.learn)
        learned, right_after = learn_shuffled(first, learn_image, score, stream, config.learn)
    else:
        learned, right_after = lax.scan(learn_class, first, positions)
    at_end = lax.map(lambda position: score(learned, position), positions)
    train = lax.map(lambda position: accuracy(learned, chosen.learn, position), positions)
    return {
        "train": train.mean(),
        "test": at_end.mean(),
        "per_class": at_end,
        "right_after": right_after,
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(
    network: Network,
    plastic: tuple[str, ...],
    normalise: Normalise,
    config: TransferConfig,
    params: Params,
    images: jax.Array,
    regulation: jax.Array | None,
    keys: jax.Array,
    rates: jax.Array,
    count: jax.Array,
) -> dict[str, jax.Array]:
    learned = mask(params, plastic)
    run = functools.partial(
        transfer_once, network, params, learned, images, normalise, config, regulation
    )
    memory = config.memory or automatic_memory()
    each = bytes_per_run(params, learned)
    return as_many_as_fit(run, keys, rates, each=each, memory=memory, count=count)


def transfer(
    network: Network,
    params: Params,
    plastic: tuple[str, ...],
    images: jax.Array,
    normalise: Normalise,
    config: TransferConfig,
) -> tuple[Result, np.ndarray]:
    """Search for the learning rate, then fresh runs; also accuracies right after learning.

    images: uint8 [classes, per_class, ...]. Returns the result and [runs, classes]. Raises
    UserError where data or network cannot serve the config.
    """
    check_target(config, images.shape, params["head"]["bias"].size)
    mask(params, plastic)
    regulation = None
    if config.condition != "random":
        if not regulates_third(network):
            raise UserError(
                f"condition {config.condition} ranks images by the regulation of the third "
                "convolution, which this network does not have: take condition random."
            )
        regulation = jax.jit(mean_regulation, static_argnums=(0, 3))(
            network, params, images, normalise
        )
    run = functools.partial(_run, network, plastic, normalise, config, params, images, regulation)
    rate, found = search_and_run(
        run,
        jax.random.key(config.seed),
        rates=config.rates,
        draws=config.draws,
        runs=config.runs,
        fresh_draws=config.fresh_draws,
    )
    right_after = found.pop("right_after")
    accuracies = {name: values.tolist() for name, values in found.items()}
    return Result(config.classes, rate, **accuracies), right_after
