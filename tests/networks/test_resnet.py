"""ResNet-18's importance against one image at a time, and who is absent from a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.networks.classifier import Variables
from tsar_jax.networks.resnet import make_resnet18

# Programs that take far longer to compile than to run.
QUICK = {"xla_llvm_disable_expensive_passes": True, "xla_backend_optimization_level": 0}


def quickly(function, *arguments):
    return jax.device_get(jax.jit(function, compiler_options=QUICK)(*arguments))


@pytest.mark.slow
def test_importance_is_that_of_one_image_after_another():
    with jax.enable_x64(True):
        network = make_resnet18((16, 16, 3), 3, 2)
        rng = np.random.default_rng(0)
        images = jnp.asarray(rng.normal(size=(3, 16, 16, 3)))
        labels = jnp.array([0, 2, 1])
        variables = jax.tree.map(
            lambda a: jnp.asarray(a + 0.1 * rng.normal(size=a.shape)),
            quickly(network.init, jax.random.key(0)),
        )

        def surprise(params, stats, image, label):
            logits, stats = network.train(Variables(params, stats), image[None], None)
            return -jax.nn.log_softmax(logits)[0, label], stats

        def one_by_one(variables, images, labels):
            def step(carry, data):
                total, stats = carry
                (loss, stats), gradient = jax.value_and_grad(surprise, has_aux=True)(
                    variables.params, stats, *data
                )
                squares = jax.tree.map(lambda t, g: t + jnp.exp(-loss) * g**2 / 3, total, gradient)
                return (squares, stats), None

            start = jax.tree.map(jnp.zeros_like, variables.params), variables.stats
            return jax.lax.scan(step, start, (images, labels))[0]

        ours = quickly(network.fisher, variables, images, labels)
        want = quickly(one_by_one, variables, images, labels)

        def check(ours, want):
            np.testing.assert_allclose(ours, want, rtol=1e-7, atol=1e-12 * np.abs(want).max())

        jax.tree.map(check, ours, want)


@pytest.mark.slow
def test_absent_images_change_nothing():
    network = make_resnet18((8, 8, 1), 3, 2)
    variables = quickly(network.init, jax.random.key(0))
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)

    def loss(params, images, mask):
        logits, stats = network.train(variables._replace(params=params), images, mask)
        return (mask[:, None] * jnp.square(logits)).sum(), (logits, stats)

    @jax.jit
    def run(images, mask):
        return jax.value_and_grad(loss, has_aux=True)(variables.params, images, mask)

    other = np.concatenate([images[:2], 7 - images[2:]])
    some = np.array([1.0, 1.0, 0.0, 0.0], np.float32)
    (_, (logits, stats)), gradient = run(images, some)
    (_, (logits_other, stats_other)), gradient_other = run(other, some)
    np.testing.assert_allclose(logits[:2], logits_other[:2], rtol=1e-4, atol=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)  # noqa: E731
    jax.tree.map(close, (stats, gradient), (stats_other, gradient_other))
    alone, alone_stats = jax.jit(lambda x: network.train(variables, x, None))(images[:2])
    np.testing.assert_allclose(logits[:2], alone, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, stats, alone_stats)
    (_, (_, stats)), gradient = run(images, np.zeros(4, np.float32))
    jax.tree.map(np.testing.assert_array_equal, stats, variables.stats)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
