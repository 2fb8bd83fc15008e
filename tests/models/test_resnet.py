"""ResNet-18 against the release's numbers, and its importance against one image at a time."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tsar_jax.interop_continual import (
    resnet18_from_release,
    resnet18_statistics_to_release,
    resnet18_to_release,
)
from tsar_jax.models.classifier import Variables
from tsar_jax.models.resnet import make_resnet18

GOLDEN = Path(__file__).parents[1] / "golden" / "cl_derpp_resnet.npz"
TOLERANCE = {"float64": 2e-5, "float32": 2e-3}


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def der_steps(network, variables, streams, *, rate, alpha, beta):
    """Six steps of DER++, each replaying the whole buffer: three passes in training mode."""
    images, labels, kept = streams
    steps, batch = labels.shape

    def step(carry, index):
        variables, stored = carry
        buffer, buffer_labels = kept.reshape(-1, *kept.shape[2:]), labels.reshape(-1)
        filled = jnp.arange(steps * batch) < index * batch
        count = jnp.maximum(filled.sum(), 1)

        def loss_of(params):
            one, stats = network.train(Variables(params, variables.stats), images[index], None)
            two, stats = network.train(Variables(params, stats), buffer, filled)
            three, stats = network.train(Variables(params, stats), buffer, filled)
            errors = jnp.square(two - stored).mean(-1)
            surprise = optax.softmax_cross_entropy_with_integer_labels(three, buffer_labels)
            replay = jnp.where(filled, alpha * errors + beta * surprise, 0).sum() / count
            return cross_entropy(one, labels[index]) + replay, (one, stats)

        (loss, (logits, stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            variables.params
        )
        params = jax.tree.map(lambda p, g: p - rate * g, variables.params, gradient)
        stored = jax.lax.dynamic_update_slice(stored, logits, (index * batch, 0))
        return (variables._replace(params=params, stats=stats), stored), loss

    classes = variables.params["linear"]["bias"].size
    stored = jnp.zeros((steps * batch, classes), images.dtype)
    (variables, _), losses = jax.lax.scan(step, (variables, stored), jnp.arange(steps))
    return variables, losses


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_steps_of_the_release(precision):
    with jax.enable_x64(precision == "float64"), np.load(GOLDEN) as archive:
        golden = {
            key: value.astype(precision) if value.dtype.kind == "f" else value
            for key, value in archive.items()
        }
        names = [str(name) for name in golden["names"]]
        variables = resnet18_from_release(
            {name: golden[f"param_{index:02}"] for index, name in enumerate(names)}
        )
        network = make_resnet18((16, 16, 3), 7, 4)
        last = lambda images: jnp.asarray(np.moveaxis(images, -3, -1))  # noqa: E731
        streams = last(golden["images"]), golden["labels"], last(golden["buffer_images"])
        hyper = dict(zip(golden["hyper_names"].tolist(), golden["hyper_values"], strict=True))

        @jax.jit
        def run(variables, streams):
            streams = jax.tree.map(jnp.asarray, streams)
            after, losses = der_steps(network, variables, streams, rate=golden["lr"], **hyper)
            return after, losses, network.logits(after, streams[0][0])

        after, losses, logits = jax.device_get(run(variables, streams))
        want = {"losses": losses, "eval_logits": logits}
        ours = resnet18_to_release(after.params)
        assert list(ours) == names
        want |= {f"after_{index:02}": ours[name] for index, name in enumerate(names)}
        ours = resnet18_statistics_to_release(after.stats)
        want |= {f"after_bn_{name}": array for name, array in ours.items()}
        for name, array in want.items():
            scale = max(1.0, np.abs(golden[name]).max())
            error = np.abs(array - golden[name]).max() / scale
            assert error <= TOLERANCE[precision], (name, error)
