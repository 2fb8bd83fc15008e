"""Learn one task after another from arrays of your own: SYNERGy forgets less than SGD does."""

import jax
import jax.numpy as jnp
import numpy as np

import tsar_jax as tj
from tsar_jax.networks.mlp import make_mlp
from tsar_jax.plasticity.methods import Batch, ProblemSpec, make_method

keys = jax.random.split(jax.random.key(0), 3)
tasks = jnp.repeat(jnp.arange(2), 50)  # of 100 batches of 16 images: classes 0 and 1, then 2 and 3
labels = 2 * tasks[:, None] + jax.random.randint(keys[0], (100, 16), 0, 2)
patterns = jax.random.randint(keys[1], (4, 8, 8, 1), 0, 100)[labels]
images = (patterns + jax.random.randint(keys[2], patterns.shape, 0, 156)).astype(jnp.uint8)
stream = Batch(images / 255, images, labels, jnp.ones(labels.shape), tasks)
sizes = {"capacity": 50, "replay": 16, "tasks": 2, "classes": 4}
spec = ProblemSpec(
    net=make_mlp((8, 8, 1), 4, (32,)),
    learning_rate=0.1,
    **sizes,
    task_classes=np.eye(2, dtype=bool).repeat(2, 1),
    image=jax.ShapeDtypeStruct((8, 8, 1), jnp.uint8),
    augment=lambda stored, key: stored / 255,
    normalise=lambda stored: stored / 255,
)


def error(method):
    """Return which share of the first task is wrong after the second."""
    learner = make_method(method).learner(spec)
    state, _ = tj.unroll(learner, (), learner.init((), keys[0]), stream, keys[1])
    logits = learner.predict((), state, (images[:50].reshape(-1, 8, 8, 1) / 255, None))
    return (logits.argmax(-1) != labels[:50].ravel()).mean()


print(f"wrong of the first task: {error('sgd'):.2f} by SGD, {error('synergy'):.2f} by SYNERGy")
