"""Probes of trained continual learners: confidence, bias towards tasks, flatness of the minimum."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.data.continual.types import Test
from tsar_jax.networks.classifier import Variables
from tsar_jax.systems.continual.measures import Outcome
from tsar_jax.systems.continual.system import Experiment, RunState


class Predictions(NamedTuple):
    """Predictions of one model on all tests: arrays [tests, images], and [tests, tasks].

    confidence: probability of the class predicted. right: whether it is the true one. mask: 1, or 0
    for padding. task_probability: mean over a test's images of the probability of all classes of a
    task.
    """

    confidence: jax.Array
    right: jax.Array
    mask: jax.Array
    task_probability: jax.Array


def predict(
    experiment: Experiment, run_state: RunState, model: Variables, data: Any
) -> Predictions:
    """Return a model's predictions for every test image of a run's stream."""
    stream = experiment.stream
    tasks = jnp.asarray(stream.task_classes, jnp.float32)

    def of_test(number: jax.Array) -> Predictions:
        def of_chunk(chunk: Test) -> Predictions:
            probability = jax.nn.softmax(
                experiment.method.classify(
                    experiment.spec, run_state.learner, model, chunk.images, number
                )
            )
            right = (probability.argmax(-1) == chunk.labels).astype(jnp.float32)
            mass = (chunk.mask[:, None] * (probability @ tasks.T)).sum(0)
            return Predictions(probability.max(-1), right, chunk.mask, mass)

        of_chunks = experiment.over_test(of_chunk, data, run_state.course, number)
        confidence, right, mask = (field.reshape(-1) for field in of_chunks[:3])
        mass = of_chunks.task_probability.sum(0) / mask.sum()
        return Predictions(confidence, right, mask, mass)

    return lax.map(of_test, jnp.arange(len(stream.task_classes)))


class Reliability(NamedTuple):
    """A reliability diagram: each bin's share of images, mean confidence and accuracy.

    Arrays [bins]; nan in a bin without images. error: expected calibration error, the mean over
    images of |accuracy - confidence| of their bin (Guo et al. 2017).
    """

    share: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def reliability(predictions: Predictions, bins: int = 10) -> Reliability:
    """Return the reliability of all predictions, in equal bins of confidence from 0 to 1."""
    valid = np.asarray(predictions.mask) > 0
    confidence = np.asarray(predictions.confidence)[valid]
    right = np.asarray(predictions.right)[valid]
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bin_of, confidence, bins) / count
        accuracy = np.bincount(bin_of, right, bins) / count
    share = count / count.sum()
    gap = np.where(count, np.abs(accuracy - mean_confidence), 0)
    return Reliability(share, mean_confidence, accuracy, float((share * gap).sum()))


def accuracy_under_noise(
    experiment: Experiment,
    run_state: RunState,
    model: Variables,
    data: Any,
    deviations: jax.Array,
    key: jax.Array,
    draws: int,
) -> jax.Array:
    """Return the accuracy over all tests with Gaussian noise added to every parameter.

    Args:
        experiment, run_state: a method on a stream.
        model: the one to probe.
        data: the stream's.
        deviations: standard deviations of the noise, float [deviations].
        key: of the noise.
        draws: number of draws per deviation.

    Returns:
        float [deviations, draws].
    """
    leaves, tree = jax.tree.flatten(model.params)

    def accuracy_of_draw(deviation: jax.Array, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(leaves))
        noisy = [
            leaf + deviation * jax.random.normal(k, leaf.shape, leaf.dtype)
            for leaf, k in zip(leaves, keys, strict=True)
        ]
        changed = model._replace(params=jax.tree.unflatten(tree, noisy))
        predictions = predict(experiment, run_state, changed, data)
        return (predictions.right * predictions.mask).sum() / predictions.mask.sum()

    keys = jax.random.split(key, draws)
    return lax.map(
        lambda deviation: lax.map(lambda key: accuracy_of_draw(deviation, key), keys),
        jnp.asarray(deviations),
    )


def trade_off(outcome: Outcome, model: str | None = None) -> Mapping[str, np.ndarray]:
    """Return stability, plasticity and their harmonic mean, each [seeds] (Sarfraz et al. 2022).

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
