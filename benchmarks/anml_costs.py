"""Arithmetic and traffic of ANML and OML, by formula.

Nominal figures, as rooflines are commonly stated: three image channels, as published, and a
gradient as twice its forward pass. Grey images and the gradient with respect to images, which is
not needed, would spare the paper's ANML 5 % of its meta-step.
"""

from tsar_jax.networks import frozen_stages, params_like
from tsar_jax.plasticity.masks import mask
from tsar_jax.systems.episodic.anml import MODELS, AnmlConfig, make_network

IMAGE_CHANNELS = 3
# Output side of each 3x3 convolution on 28x28 images.
TRUNK_SIDES = (26, 11, 3)
REPRESENTATION_SIDES = (26, 24, 22, 10, 8, 3)


def convolution_macs(sides: tuple[int, ...], channels: int) -> int:
    """Multiply-accumulates, per image, of 3x3 convolutions with these output sides."""
    macs, in_channels = 0, IMAGE_CHANNELS
    for side in sides:
        macs += side * side * 9 * in_channels * channels
        in_channels = channels
    return macs


def level_macs(config: AnmlConfig) -> dict[str, int]:
    """Multiply-accumulates of one image's forward pass, level by level."""
    channels, features = config.channels, 9 * config.channels
    if config.model == "oml":
        return {
            "representation": convolution_macs(REPRESENTATION_SIDES, channels),
            "hidden": features * config.hidden_features,
            "head": config.hidden_features * config.outputs,
        }
    prediction = {
        "trunk": convolution_macs(TRUNK_SIDES, channels),
        "head": features * config.outputs,
    }
    if config.model == "ungated":
        return prediction
    gate = convolution_macs(TRUNK_SIDES, config.gate_channels)
    return {"neuromodulator": gate + 9 * config.gate_channels * features, **prediction}


def inner_levels(config: AnmlConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The levels that the inner loop leaves alone, and the others."""
    network = make_network(config)
    params = params_like(network)
    depth = frozen_stages(network, mask(params, config.plastic or MODELS[config.model].plastic))
    return network.stages[:depth], network.stages[depth:]


def meta_step_flops(config: AnmlConfig) -> float:
    """FLOP of one first-order meta-step.

    episodes * 2 * [T * (frozen + 3 * plastic) + Q * 3 * (frozen + plastic)], with T inner updates,
    Q query images (the trajectory's among them), and the multiply-accumulates per image of the
    levels that are frozen and plastic in the inner loop. At the paper's width 63 GFLOP.
    """
    macs = level_macs(config)
    frozen, plastic = (sum(macs[level] for level in levels) for levels in inner_levels(config))
    query = config.remember + config.inner_updates
    inner = config.inner_updates * (frozen + 3 * plastic)
    return 2.0 * config.episodes * (inner + 3 * query * (frozen + plastic))


def head_state_bytes(features: int, outputs: int) -> int:
    """Bytes of an output layer's weights and biases and of Adam's two moments of them, float32."""
    return 3 * 4 * outputs * (features + 1)


def head_update_bytes(features: int, outputs: int) -> int:
    """Least traffic of one Adam update of an output layer: read and write w, m and v."""
    return 2 * head_state_bytes(features, outputs)
