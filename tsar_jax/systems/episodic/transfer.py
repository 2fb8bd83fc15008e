"""Domain transfer: learn the classes of another data set, image by image, and be tested on all.

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
from tsar_jax.systems.episodic.meta_test import Result, search_and_run
from tsar_jax.systems.episodic.meta_test_lifetime import (
    adam_learner,
    bytes_per_lifetime,
    default_memory_budget,
    map_in_batches,
    reinitialise,
)
from tsar_jax.training.config import earlier

Params = Any
Condition = Literal["random", "spikes", "nonspikes", "mixed"]

RATES = tuple(round(1e-3 - 1e-4 * step, 4) for step in range(10))
"""Learning rates of the published search: 1e-3, 9e-4 ... 1e-4."""


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """Settings of a transfer. Raises UserError for impossible values."""

    classes: int = 100
    """Classes of the new domain, in random order."""
    learn: int = 30
    """Images of a class that are learned, one at a time."""
    test: bool = False
    """Whether held-out images are scored: those of the lower half of each class, those of the upper
    half being learned (the release's --test). Otherwise any images are learned and the same ones
    scored, which measures retention, as the release's documented command does."""
    score: int | None = dataclasses.field(default=None, metadata=earlier(None))
    """Images of each class that are scored, with test. Where half a class is too few to learn or to
    score, as with Omniglot's 15 + 5, the first images are learned and the last scored, as in its
    meta-test. None: as many as are learned."""
    iid: bool = dataclasses.field(default=False, metadata=earlier(False))
    """Whether the images of all classes are learned shuffled, not class after class: the oracle.
    Right after a class is then right after its last image."""
    reset: bool = dataclasses.field(default=False, metadata=earlier(False))
    """Whether everything that learns is re-initialised at first, not only the output layer."""
    condition: Condition = "random"
    """Choice of the images that are learned: random ones, or those to which the third convolution
    responds with the highest mean regulation (spikes), the lowest (nonspikes), or some of both
    (mixed)."""
    mixed: int = 15
    """Number of spikes in condition mixed, from 0 to learn; the other images are nonspikes."""
    head_bias: float = -1.7
    """Initial bias of the regulator's head for the output layer, which is drawn anew."""
    rates: tuple[float, ...] = RATES
    """Learning rates of Adam to search."""
    draws: int = 1
    """Number of times that the search tries every rate; it takes the mode of the best rates."""
    fresh_draws: bool = dataclasses.field(default=True, metadata=earlier(False))
    """Whether every rate of the search has a draw of classes and images of its own, as published;
    otherwise the rates share one, and differ by themselves alone."""
    runs: int = 49
    """Lifetimes at the chosen learning rate, each with a fresh draw of classes and images."""
    memory: int | None = None
    """Bytes of runs side by side. None: what suits the device."""
    seed: int = 0
    """Seed of the draws, in [0, 2**32)."""

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
    """Indices [classes, n] of the images of each class that are learned, and that are scored."""

    learn: jax.Array
    score: jax.Array


def check_target(config: TransferConfig, shape: tuple[int, ...], outputs: int) -> None:
    """Raise UserError where the images or the network cannot serve the config.

    Args:
        shape: shape of the images [classes, per_class, ...].
        outputs: output units of the network.
    """
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

    These are the halves of the class, the upper one to learn; or where one of them is too small,
    the first images and the last. Where the learned images are scored, both are all images.
    """
    if not config.test:
        return range(per_class), range(per_class)
    scored = config.learn if config.score is None else config.score
    half = per_class // 2
    border = per_class - min(max(half, scored), per_class - config.learn)
    if border == per_class - half:
        return range(half, per_class), range(half)
    return range(border), range(border, per_class)


def select_images(
    key: jax.Array, shape: tuple[int, ...], config: TransferConfig, regulation: jax.Array | None
) -> Selection:
    """Select the images of each class that are learned, in random order, and that are scored.

    Args:
        shape: number of classes, and of images of a class.
        regulation: mean regulation [classes, per_class] of the images, by which the conditions
            but random rank them. None: for condition random.
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


def reinitialise_output(network: Network, params: Params, bias: float, key: jax.Array) -> Params:
    """Return the parameters with the output layer drawn anew.

    The head of a TSAR's regulator for that layer is drawn anew too.

    Args:
        bias: initial bias of the regulator's head.
    """
    if not isinstance(network, TSAR):
        return {**params, "head": init_params(network, key)["head"]}
    drawn = init_params(network.clone(initial_bias=bias), key)
    if "head" not in network.regulated:
        return {**params, "head": drawn["head"]}
    regulator = {**params["regulator"], "head": drawn["regulator"]["head"]}
    return {**params, "head": drawn["head"], "regulator": regulator}


def initial_params(
    network: Network, params: Params, plastic: Params, config: TransferConfig, key: jax.Array
) -> Params:
    """Return the parameters that a transfer begins with.

    The output layer is drawn anew; with config.reset, everything plastic.
    """
    if config.reset:
        params = reinitialise(network, params, plastic, key, everything=True)
    return reinitialise_output(network, params, config.head_bias, key)


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
        learned = lax.fori_loop(done, end, lambda n, state: learn(state, stream[n]), learned)
        return (learned, end), score(learned, position)

    (learned, _), accuracies = lax.scan(complete, (first, jnp.int32(0)), by_last)
    return learned, jnp.zeros_like(accuracies).at[by_last].set(accuracies)


def run_transfer_lifetime(
    network: Network,
    params: Params,
    plastic: Params,
    images: jax.Array,
    normalise: Normalise,
    config: TransferConfig,
    regulation: jax.Array | None,
    key: jax.Array,
    learning_rate: jax.Array,
) -> dict[str, jax.Array]:
    """Run one lifetime of a transfer.

    Args:
        params: the meta-trained parameters.
        plastic: tree of booleans like params, True where they learn.
        images: uint8 [classes, per_class, ...].
        normalise: maps images to the network's input.
        regulation: see `select_images`.
        key: key of the draws.
        learning_rate: Adam's, float [].

    Returns:
        "train" and "test" [], accuracy at the end on the images learned and scored; and by class in
        the order of learning [classes] "right_after", accuracy on the scored images as soon as the
        class has been learned (its last image, with iid), and "per_class", the same at the end.
    """
    class_key, image_key, initial_key, stream_key = jax.random.split(key, 4)
    order = draw_without_replacement(class_key, images.shape[0], config.classes)
    selection = select_images(image_key, images.shape[:2], config, regulation)
    initial = initial_params(network, params, plastic, config, initial_key)
    learner = adam_learner(network, plastic, learning_rate)
    first = learner.init(initial, None)
    depth = stored_stages(network, plastic)

    def class_activations(rows: jax.Array, position: jax.Array) -> Any:
        class_images = images[order[position]][rows[order[position]]]
        return run_stages(network, initial, normalise(class_images), 0, depth)

    def accuracy(learned: GradientState, rows: jax.Array, position: jax.Array) -> jax.Array:
        logits = learner.predict(initial, learned, class_activations(rows, position))
        return (logits.argmax(-1) == position).mean()

    def learn_class(learned: GradientState, position: jax.Array) -> tuple[GradientState, jax.Array]:
        labels = jnp.full(config.learn, position)
        examples = class_activations(selection.learn, position), labels
        learned, _ = unroll(learner, initial, learned, examples)
        return learned, score(learned, position)

    def learn_image(learned: GradientState, index: jax.Array) -> GradientState:
        position, number = jnp.divmod(index, config.learn)
        batch_of_one = class_activations(selection.learn[:, number, None], position)
        example = jax.tree.map(lambda a: a[0], batch_of_one), position
        return learner.update(initial, learned, example, None)[0]

    def score(learned: GradientState, position: jax.Array) -> jax.Array:
        return accuracy(learned, selection.score, position)

    positions = jnp.arange(config.classes)
    if config.iid:
        stream = jax.random.permutation(stream_key, config.classes * config.learn)
        learned, right_after = learn_shuffled(first, learn_image, score, stream, config.learn)
    else:
        learned, right_after = lax.scan(learn_class, first, positions)
    at_end = lax.map(lambda position: score(learned, position), positions)
    train = lax.map(lambda position: accuracy(learned, selection.learn, position), positions)
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
    learning_rates: jax.Array,
    count: jax.Array,
) -> dict[str, jax.Array]:
    """Return the arrays of `run_transfer_lifetime`, of the first `count` keys and rates [n]."""
    learned = mask(params, plastic)

    def run(shared: Any, key: jax.Array, learning_rate: jax.Array) -> dict[str, jax.Array]:
        params, images, regulation = shared
        return run_transfer_lifetime(
            network, params, learned, images, normalise, config, regulation, key, learning_rate
        )

    return map_in_batches(
        run,
        (params, images, regulation),
        keys,
        learning_rates,
        lifetime_bytes=bytes_per_lifetime(params, learned),
        memory_budget=config.memory or default_memory_budget(),
        count=count,
    )


def transfer(
    network: Network,
    params: Params,
    plastic: tuple[str, ...],
    images: jax.Array,
    normalise: Normalise,
    config: TransferConfig,
) -> tuple[Result, np.ndarray]:
    """Search for the learning rate, then run lifetimes of the transfer at it.

    Args:
        params: the meta-trained parameters.
        plastic: names of the parameters that learn.
        images: uint8 [classes, per_class, ...].
        normalise: maps images to the network's input.

    Returns:
        The result, and the accuracies on each class right after it was learned [runs, classes].

    Raises:
        UserError: the images or the network cannot serve the config.
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
    learning_rate, arrays = search_and_run(
        run,
        jax.random.key(config.seed),
        learning_rates=config.rates,
        draws=config.draws,
        runs=config.runs,
        fresh_draws=config.fresh_draws,
    )
    right_after = arrays.pop("right_after")
    accuracies = {name: values.tolist() for name, values in arrays.items()}
    return Result(config.classes, learning_rate, **accuracies), right_after
