"""What a continual learner has become: how sure it is, of which tasks, how flat its minimum."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.data.continual.types import Test
from tsar_jax.networks.classifier import Variables
from tsar_jax.systems.continual.measures import Outcome
from tsar_jax.systems.continual.system import Life, Lifetime


class Predictions(NamedTuple):
    """Of one model on all tests: arrays [tests, images], and [tests, tasks].

    confidence: probability of the class predicted. right: whether it is the true one. present: 1,
    or 0 for what only fills up. task_probability: mean over a test's images of the probability of
    all classes of a task.
    """

    confidence: jax.Array
    right: jax.Array
    mask: jax.Array
    task_probability: jax.Array


def predict(life: Life, lifetime: Lifetime, model: Variables, data: Any) -> Predictions:
    """What a model says about every test image of a lifetime's stream."""
    stream = life.stream
    tasks = jnp.asarray(stream.task_classes, jnp.float32)

    def of_test(number: jax.Array) -> Predictions:
        def of_chunk(shown: Test) -> Predictions:
            probability = jax.nn.softmax(
                life.method.classify(life.spec, lifetime.learner, model, shown.images, number)
            )
            right = (probability.argmax(-1) == shown.labels).astype(jnp.float32)
            mass = (shown.mask[:, None] * (probability @ tasks.T)).sum(0)
            return Predictions(probability.max(-1), right, shown.mask, mass)

        found = life.over_test(of_chunk, data, lifetime.course, number)
        confidence, right, mask = (field.reshape(-1) for field in found[:3])
        mass = found.task_probability.sum(0) / mask.sum()
        return Predictions(confidence, right, mask, mass)

    return lax.map(of_test, jnp.arange(len(stream.task_classes)))


class Reliability(NamedTuple):
    """A reliability diagram: of each bin of confidence its share of images, confidence, accuracy.

    Arrays [bins]; nan in a bin without images. error: expected calibration error, the mean over
    images of |accuracy - confidence| of their bin (Guo et al. 2017).
    """

    share: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def reliability(predictions: Predictions, bins: int = 10) -> Reliability:
    """Of all images that are there, in equal bins of confidence from 0 to 1."""
    there = np.asarray(predictions.mask) > 0
    confidence = np.asarray(predictions.confidence)[there]
    right = np.asarray(predictions.right)[there]
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bin_of, confidence, bins) / count
        accuracy = np.bincount(bin_of, right, bins) / count
    share = count / count.sum()
    gap = np.where(count, np.abs(accuracy - mean_confidence), 0)
    return Reliability(share, mean_confidence, accuracy, float((share * gap).sum()))


def accuracy_under_noise(
    life: Life,
    lifetime: Lifetime,
    model: Variables,
    data: Any,
    deviations: jax.Array,
    key: jax.Array,
    draws: int,
) -> jax.Array:
    """Accuracy over all tests with Gaussian noise added to every parameter: [levels, draws].

    deviations [levels]: standard deviation of the noise.
    """
    leaves, tree = jax.tree.flatten(model.params)

    def one(deviation: jax.Array, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(leaves))
        noisy = [
            leaf + deviation * jax.random.normal(k, leaf.shape, leaf.dtype)
            for leaf, k in zip(leaves, keys, strict=True)
        ]
        changed = model._replace(params=jax.tree.unflatten(tree, noisy))
        found = predict(life, lifetime, changed, data)
        return (found.right * found.mask).sum() / found.mask.sum()

    keys = jax.random.split(key, draws)
    return lax.map(
        lambda deviation: lax.map(lambda key: one(deviation, key), keys), jnp.asarray(deviations)
    )


def trade_off(outcome: Outcome, model: str | None = None) -> Mapping[str, np.ndarray]:
    """Stability, plasticity and the harmonic mean of the two, each [seeds] (Sarfraz et al. 2022).

    Stability: mean accuracy at the end on all tasks but the last. Plasticity: mean accuracy on
    every task right after it was learned.
    """
    matrix = outcome.matrix(model)
    stability = matrix[..., -1, :-1].mean(-1)
    plasticity = np.diagonal(matrix, axis1=-2, axis2=-1).mean(-1)
    return {
        "stability": stability,
        "plasticity": plasticity,
        "trade_off": 2 * stability * plasticity / (stability + plasticity),
    }
