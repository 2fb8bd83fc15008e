"""Policies whose weights change with every step they take, and static ones to compare them with.

Najarro and Risi (2020), arXiv 2007.02686. Evolution acts on a `Genome`: the coefficients of a
Hebbian rule for every synapse, from which a lifetime with random weights begins; or, in a static
policy, the weights themselves.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tsar_jax.errors import UserError, check_known, check_rates, check_widths
from tsar_jax.networks.hebbian_network import (
    COEVOLVED,
    DISTRIBUTIONS,
    FEATURES,
    HIDDEN,
    IMAGE_SIDE,
    KERNELS,
    Initialiser,
    draw_layers,
    find_initialiser,
    forward,
    image_features,
    layer_shapes,
)
from tsar_jax.networks.types import LayerArrays
from tsar_jax.plasticity.hebbian import (
    RULES,
    draw_coefficients,
    find_rule,
    hebbian_update,
    multiply_rates,
    without_rate,
)
from tsar_jax.plasticity.learner import Learner
from tsar_jax.systems.hebbian.baselines import gru_learner, standardise
from tsar_jax.systems.hebbian.evolution import Genome
from tsar_jax.training.config import earlier, formerly

STATIC, GRU = "static", "gru"
"""Names that stand for a rule where weights evolve and do not change in a lifetime: of a static
policy, and of a recurrent one.
"""


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """A policy network and its plasticity.

    Raises:
        UserError: a value is impossible.
    """

    rule: str = "ABCD_lr"
    """Hebbian rule: A, AD, AD_lr, ABC, ABC_lr, ABCD, ABCD_lr, ABCD_lr_D_out or
    ABCD_lr_D_in_and_out; or evolved weights that do not change: static, or gru, whose first hidden
    layer is a gated recurrent unit."""
    initial: str = "uni"
    """Weights at birth: uni, normal, xa_uni, ka_uni, sparse, uni_big, xa_uni_big, ones, zeros,
    default, or coevolve: evolved along with the rule."""
    normalised: bool = True
    """After every update, divide each layer by its largest absolute weight."""
    bounded: bool = False
    """Tanh on the outputs, as the update and the environment see them."""
    gain: float = 1.0
    """Factor of the outputs for the environment alone, positive: the bound of an action's range."""
    hidden: tuple[int, ...] = HIDDEN
    """Units of the hidden layers, each at least 1."""
    distribution: Literal["normal", "uniform"] = dataclasses.field(
        default="normal", metadata=formerly("coefficients")
    )
    """Distribution of evolved parameters before the first generation: standard normal, or uniform
    from -1 to 1. It applies to the coefficients and, as published, to convolutions and co-evolved
    weights.
    """
    scale: float = 1.0
    """Factor of the first generation's coefficients, and of nothing else; positive."""
    kernels: Literal["fan_in"] | None = dataclasses.field(default=None, metadata=earlier("fan_in"))
    """Initial distribution of the convolutions, where observations are images. None:
    `distribution`, as published; fan_in: uniform within 1 / sqrt(fan in), which is .19 and .08,
    PyTorch's default.
    """

    standardised: bool = dataclasses.field(default=False, metadata=earlier(False))
    """Whether observations are standardised by mean and deviation of those that the lifetime has
    seen; of rules static and gru."""

    def __post_init__(self) -> None:
        check_known("Hebbian rule", self.rule, (*RULES, STATIC, GRU))
        if self.standardised and self.rule not in (STATIC, GRU):
            raise UserError(
                f"standardised is for rules {STATIC} and {GRU}, not {self.rule}: leave it out."
            )
        if self.rule == GRU and not self.hidden:
            raise UserError(
                "hidden is empty, but the rule gru needs a first hidden layer: name it."
            )
        if self.initial != COEVOLVED:
            find_initialiser(self.initial)
        check_known("distribution", self.distribution, DISTRIBUTIONS)
        if self.kernels is not None:
            check_known("start of the convolutions", self.kernels, ("fan_in",))
        check_widths(self, "hidden")
        check_rates(self, "gain", "scale")


class Policy(NamedTuple):
    """A policy for one agent, as pure functions.

    init: (key) -> Genome, where evolution begins
    prepare: (Genome) -> Genome as the learner takes it, computed once per lifetime
    learner: theta is the prepared genome, state the weights, an example an observation; aux is the
        outputs, of the weights before the update
    plastic: whether weights change at all
    """

    init: Callable[[jax.Array], Genome]
    prepare: Callable[[Genome], Genome]
    learner: Learner
    plastic: bool


def make_policy(
    config: PolicyConfig, observation_shape: tuple[int, ...], num_actions: int
) -> Policy:
    """Return the policy for observations of a shape and a number of outputs.

    Args:
        config: the network and its plasticity.
        observation_shape: [n], or an image's [H, W, 3].
        num_actions: number of outputs.

    Raises:
        UserError: the observations have another shape.
    """
    pixels = len(observation_shape) == 3 and observation_shape[-1] == 3
    if not pixels and (len(observation_shape) != 1 or observation_shape[0] < 1):
        raise UserError(
            f"Observations of shape {observation_shape} suit no policy: they must be a vector or "
            "an image [height, width, 3]."
        )
    sizes = (FEATURES if pixels else observation_shape[0], *config.hidden, num_actions)
    encode = _encode_pixels if pixels else _encode_state
    draw_kernels = partial(_draw_kernels, config) if pixels else lambda key: ()
    if config.standardised and pixels:
        raise UserError(
            "standardised is for observations that are vectors, not images: leave it out."
        )
    make = {STATIC: _static, GRU: _gru}.get(config.rule, _hebbian)
    policy = make(config, sizes, encode, draw_kernels)
    if not config.standardised:
        return policy
    return policy._replace(learner=standardise(policy.learner, sizes[0]))


Encode = Callable[[Genome, jax.Array], jax.Array]
DrawKernels = Callable[[jax.Array], LayerArrays]


def _hebbian(
    config: PolicyConfig, sizes: tuple[int, ...], encode: Encode, draw_kernels: DrawKernels
) -> Policy:
    rule = find_rule(config.rule)
    prepared = without_rate(rule)
    coevolved = config.initial == COEVOLVED
    draw, draw_evolved = _find_draw(config), DISTRIBUTIONS[config.distribution]

    def init(key: jax.Array) -> Genome:
        rule_key, kernel_key, weights_key = jax.random.split(key, 3)
        coefficients = draw_coefficients(
            rule, draw_evolved, rule_key, layer_shapes(sizes), scale=config.scale
        )
        evolved = {"kernels": draw_kernels(kernel_key)}
        if coevolved:
            evolved["weights"] = draw_layers(draw, weights_key, sizes)
        return Genome(coefficients, evolved)

    def prepare(genome: Genome) -> Genome:
        return Genome(tuple(multiply_rates(rule, c) for c in genome.main), genome.coevolved)

    def init_weights(genome: Genome, key: jax.Array) -> LayerArrays:
        if coevolved:
            return genome.coevolved["weights"]
        return draw_layers(draw, key, sizes)

    def change(genome: Genome, weights: LayerArrays, activities: LayerArrays) -> LayerArrays:
        return hebbian_update(
            prepared, genome.main, weights, activities, normalised=config.normalised
        )

    return Policy(init, prepare, _learner(config, encode, init_weights, change), plastic=True)


def _static(
    config: PolicyConfig, sizes: tuple[int, ...], encode: Encode, draw_kernels: DrawKernels
) -> Policy:
    draw = _find_draw(config)

    def init(key: jax.Array) -> Genome:
        kernel_key, weights_key = jax.random.split(key)
        return Genome(draw_layers(draw, weights_key, sizes), {"kernels": draw_kernels(kernel_key)})

    def init_weights(genome: Genome, key: Any = None) -> LayerArrays:
        del key
        return genome.main

    def change(genome: Genome, weights: LayerArrays, activities: LayerArrays) -> LayerArrays:
        del genome, activities
        return weights

    learner = _learner(config, encode, init_weights, change)
    return Policy(init, lambda genome: genome, learner, plastic=False)


def _gru(
    config: PolicyConfig, sizes: tuple[int, ...], encode: Encode, draw_kernels: DrawKernels
) -> Policy:
    draw, cell = _find_draw(config), nn.GRUCell(config.hidden[0])
    recurrent = gru_learner(cell, bounded=config.bounded, gain=config.gain)

    def init(key: jax.Array) -> Genome:
        cell_key, layers_key, kernel_key = jax.random.split(key, 3)
        start = jnp.zeros(config.hidden[0]), jnp.zeros(sizes[0])
        main = {
            "cell": cell.init(cell_key, *start)["params"],
            "layers": draw_layers(draw, layers_key, sizes[1:]),
        }
        return Genome(main, {"kernels": draw_kernels(kernel_key)})

    def update(
        genome: Genome, memory: jax.Array, observation: jax.Array, key: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        return recurrent.update(genome.main, memory, encode(genome, observation), key)

    def predict(genome: Genome, memory: jax.Array, observations: jax.Array) -> jax.Array:
        inputs = jax.vmap(lambda x: encode(genome, x))(observations)
        return recurrent.predict(genome.main, memory, inputs)

    learner = Learner(lambda genome, key: recurrent.init(genome.main, key), update, predict)
    return Policy(init, lambda genome: genome, learner, plastic=False)


def _learner(
    config: PolicyConfig,
    encode: Encode,
    init: Callable[[Genome, Any], LayerArrays],
    change: Callable[[Genome, LayerArrays, LayerArrays], LayerArrays],
) -> Learner:
    """Return a policy's learner.

    Args:
        config: the network's settings.
        encode: (genome, observation) -> inputs of the dense layers.
        init: (genome, key) -> weights.
        change: (genome, weights, activities) -> weights after them.
    """

    def activities_of(genome: Genome, weights: LayerArrays, observation: jax.Array) -> LayerArrays:
        return forward(weights, encode(genome, observation), bounded=config.bounded)

    def update(
        genome: Genome, weights: LayerArrays, observation: jax.Array, key: Any = None
    ) -> tuple[LayerArrays, jax.Array]:
        del key
        activities = activities_of(genome, weights, observation)
        return change(genome, weights, activities), config.gain * activities[-1]

    def predict(genome: Genome, weights: LayerArrays, observations: jax.Array) -> jax.Array:
        outputs = jax.vmap(lambda x: activities_of(genome, weights, x)[-1])(observations)
        return config.gain * outputs

    return Learner(init, update, predict)


def _find_draw(config: PolicyConfig) -> Initialiser:
    """Return the distribution of dense weights, drawn for every lifetime, or once where they
    evolve.
    """
    if config.initial == COEVOLVED:
        return DISTRIBUTIONS[config.distribution]
    return find_initialiser(config.initial)


def _draw_kernels(config: PolicyConfig, key: jax.Array) -> LayerArrays:
    """Return the convolutions [k, k, in, out] of the first generation."""
    keys = jax.random.split(key, len(KERNELS))
    if config.kernels is None:
        draw = DISTRIBUTIONS[config.distribution]
        return tuple(draw(k, shape) for k, shape in zip(keys, KERNELS, strict=True))
    bounds = [1 / (height * width * into) ** 0.5 for height, width, into, _ in KERNELS]
    return tuple(
        jax.random.uniform(k, shape, minval=-bound, maxval=bound)
        for k, shape, bound in zip(keys, KERNELS, bounds, strict=True)
    )


def _encode_state(genome: Genome, observation: jax.Array) -> jax.Array:
    del genome
    return observation


def _encode_pixels(genome: Genome, image: jax.Array) -> jax.Array:
    """Return features of an image uint8 [H, W, 3], resized if its side is not the policy's."""
    scaled = image.astype(jnp.float32) / 255
    if image.shape[:2] != (IMAGE_SIDE, IMAGE_SIDE):
        scaled = jax.image.resize(scaled, (IMAGE_SIDE, IMAGE_SIDE, 3), "linear")
    return image_features(genome.coevolved["kernels"], scaled)
