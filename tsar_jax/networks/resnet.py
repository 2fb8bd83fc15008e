"""ResNet-18 for small images, as continual learning uses it: a 3x3 stem and no first pooling.

He et al. (2016), in the form of Mammoth (Buzzega et al. 2020): four stages of two basic blocks of
1, 2, 4 and 8 times `width` filters, each but the first halving the image; batch norm after every
convolution; a 1x1 convolution in a shortcut where stride or width changes.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tsar_jax.networks.batch_norm import (
    batch_statistics,
    image_statistics,
    normalise,
    update_running,
    update_running_per_image,
)
from tsar_jax.networks.classifier import Classifier, Tree, Variables
from tsar_jax.ops.convolution import convolve
from tsar_jax.ops.products import largest_divisor, product
from tsar_jax.ops.squared_gradients import affine_squared, convolve_squared, dense_squared

STRIDES = (1, 2, 2, 2)
BLOCKS = 2
# Images at a time in the pass for the importance of parameters, which bounds its memory.
FISHER_CHUNK = 10

# PyTorch's default: uniform up to 1 / sqrt(fan_in).
uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class LayerFunctions(NamedTuple):
    """Layers of the network; training, evaluation and importance differ in them.

    convolve: (x [N, H, W, C], kernel, stride) -> x. norm: (x, params, running statistics) ->
    (x, statistics). dense: (x [N, F], params) -> [N, D].
    """

    convolve: Callable[[jax.Array, jax.Array, int], jax.Array]
    norm: Callable[[jax.Array, Tree, Tree], tuple[jax.Array, Tree]]
    dense: Callable[[jax.Array, Tree], jax.Array]


def run_features(
    layers: LayerFunctions, variables: Variables, images: jax.Array
) -> tuple[jax.Array, dict[str, Any]]:
    """Run all but the last layer: images [N, H, W, C] -> [N, 8 width], and the norms'
    statistics.
    """
    params, stats = variables
    new = {}
    x = layers.convolve(images, params["conv1"]["kernel"], 1)
    x, new["bn1"] = layers.norm(x, params["bn1"], stats["bn1"])
    x = nn.relu(x)
    for name, stride in _blocks():
        x, new[name] = _run_block(layers, params[name], stats[name], x, stride)
    return x.mean((1, 2)), new


def run(layers: LayerFunctions, variables: Variables, images: jax.Array) -> tuple[jax.Array, Tree]:
    """Map images [N, H, W, C] to (logits [N, classes], the norms' statistics)."""
    features, stats = run_features(layers, variables, images)
    return layers.dense(features, variables.params["linear"]), stats


def _blocks() -> list[tuple[str, int]]:
    """Return names and strides of the blocks, in order."""
    return [
        (f"layer{stage + 1}_{index}", STRIDES[stage] if index == 0 else 1)
        for stage in range(len(STRIDES))
        for index in range(BLOCKS)
    ]


def _run_block(
    layers: LayerFunctions, params: Tree, stats: Tree, x: jax.Array, stride: int
) -> tuple[jax.Array, Tree]:
    """Return relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x))))), and the norms' statistics."""
    new = {}
    hidden = layers.convolve(x, params["conv1"]["kernel"], stride)
    hidden, new["bn1"] = layers.norm(hidden, params["bn1"], stats["bn1"])
    hidden = layers.convolve(nn.relu(hidden), params["conv2"]["kernel"], 1)
    hidden, new["bn2"] = layers.norm(hidden, params["bn2"], stats["bn2"])
    if "shortcut" in params:
        x = layers.convolve(x, params["shortcut"]["kernel"], stride)
        x, new["shortcut_bn"] = layers.norm(x, params["shortcut_bn"], stats["shortcut_bn"])
    return nn.relu(hidden + x), new


def _dense(x: jax.Array, params: Tree) -> jax.Array:
    return product(x, params["kernel"]) + params["bias"]


def _norm_by_batch(
    x: jax.Array, params: Tree, stats: Tree, mask: jax.Array | None
) -> tuple[jax.Array, Tree]:
    statistics = batch_statistics(x, mask)
    x = normalise(x, statistics.mean, statistics.variance, params["scale"], params["bias"])
    return x, jax.lax.stop_gradient(update_running(stats, statistics))


def _norm_by_running(x: jax.Array, params: Tree, stats: Tree) -> tuple[jax.Array, Tree]:
    return normalise(x, stats["mean"], stats["variance"], params["scale"], params["bias"]), stats


EVALUATION = LayerFunctions(convolve, _norm_by_running, _dense)


def _train(
    variables: Variables, images: jax.Array, mask: jax.Array | None = None
) -> tuple[jax.Array, Tree]:
    norm = functools.partial(_norm_by_batch, mask=mask)
    return run(LayerFunctions(convolve, norm, _dense), variables, images)


def _norm_by_image(x: jax.Array, params: Tree, stats: Tree) -> tuple[jax.Array, Tree]:
    statistics = image_statistics(x)
    mean, variance = statistics.mean[:, None, None], statistics.variance[:, None, None]
    ones, zeros = jnp.ones_like(params["scale"]), jnp.zeros_like(params["bias"])
    x = affine_squared(normalise(x, mean, variance, ones, zeros), params["scale"], params["bias"])
    return x, jax.lax.stop_gradient(update_running_per_image(stats, statistics))


# With these layers the pullback gives for every parameter the sum over images of the squared
# gradient.
IMPORTANCE = LayerFunctions(
    convolve_squared,
    _norm_by_image,
    lambda x, params: dense_squared(x, params["kernel"], params["bias"]),
)


def _fisher(variables: Variables, images: jax.Array, labels: jax.Array) -> tuple[Tree, Tree]:
    """Return the importance over all images, FISHER_CHUNK at a time.

    p (d log p / d theta)^2 is the square of sqrt(p) d log p / d theta.
    """
    count = labels.shape[0]
    chunk = largest_divisor(count, FISHER_CHUNK)
    classes = variables.params["linear"]["bias"].size

    def add_chunk(
        carry: tuple[Tree, Tree], data: tuple[Any, ...]
    ) -> tuple[tuple[Tree, Tree], None]:
        importance, stats = carry
        images, labels = data
        logits, pull, stats = jax.vjp(
            lambda params: run(IMPORTANCE, Variables(params, stats), images),
            variables.params,
            has_aux=True,
        )
        probabilities = jax.nn.softmax(logits)
        one_hot = jax.nn.one_hot(labels, classes, dtype=logits.dtype)
        root = jnp.sqrt((one_hot * probabilities).sum(-1, keepdims=True))
        (chunk_importance,) = pull(root * (one_hot - probabilities))
        return (jax.tree.map(jnp.add, importance, chunk_importance), stats), None

    start = jax.tree.map(jnp.zeros_like, variables.params), variables.stats
    chunks = jax.tree.map(lambda a: a.reshape(-1, chunk, *a.shape[1:]), (images, labels))
    (importance, stats), _ = jax.lax.scan(add_chunk, start, chunks)
    return jax.tree.map(lambda leaf: leaf / count, importance), stats


def _init(key: jax.Array, channels: int, classes: int, width: int) -> Variables:
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    keys = iter(jax.random.split(key, 64))

    def add(params: Tree, stats: Tree, conv: str, norm: str, shape: tuple[int, ...]) -> None:
        params[conv] = {"kernel": uniform(next(keys), shape)}
        params[norm] = {"scale": jnp.ones(shape[-1]), "bias": jnp.zeros(shape[-1])}
        stats[norm] = {"mean": jnp.zeros(shape[-1]), "variance": jnp.ones(shape[-1])}

    add(params, stats, "conv1", "bn1", (3, 3, channels, width))
    inputs = width
    for name, stride in _blocks():
        outputs = inputs * stride
        params[name], stats[name] = {}, {}
        block = params[name], stats[name]
        add(*block, "conv1", "bn1", (3, 3, inputs, outputs))
        add(*block, "conv2", "bn2", (3, 3, outputs, outputs))
        if stride != 1:
            add(*block, "shortcut", "shortcut_bn", (1, 1, inputs, outputs))
        inputs = outputs
    bound = inputs**-0.5
    params["linear"] = {
        "kernel": uniform(next(keys), (inputs, classes)),
        "bias": jax.random.uniform(next(keys), (classes,), minval=-bound, maxval=bound),
    }
    return Variables(params, stats)


def make_resnet18(image_shape: tuple[int, int, int], classes: int, width: int = 64) -> Classifier:
    """Return ResNet-18 for images [H, W, C]. width: filters of the first stage.

    Weights are drawn as PyTorch does by default. params: conv1, bn1, layer1_0 .. layer4_1 (conv1,
    bn1, conv2, bn2 and, where the width changes, shortcut, shortcut_bn), linear.
    """
    channels = image_shape[-1]
    return Classifier(
        init=lambda key: _init(key, channels, classes, width),
        train=_train,
        logits=lambda variables, images: run(EVALUATION, variables, images)[0],
        features=lambda variables, images: run_features(EVALUATION, variables, images)[0],
        fisher=_fisher,
    )
