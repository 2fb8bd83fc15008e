"""A composition that is a published system, against the numbers of the original release."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from golden import check, close, files, load
from test_hebbian import HIDDEN, released
from test_meta_learning import compiler_options, episode_of, named, setting
from test_plasticity_rules import examples_of, random_weights

from tsar_jax.plasticity.hebbian import RULES
from tsar_jax.plasticity.learner import unroll
from tsar_jax.plasticity.losses import accuracy, cross_entropy
from tsar_jax.plasticity.rules import POOL
from tsar_jax.systems.compose.composition import compose
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.lifetimes import image_objective
from tsar_jax.systems.compose.streams import STREAMS
from tsar_jax.systems.episodic.release import to_release

MODULATIONS = {"anml": "activations", "oml": "none", "tsar": "weights"}
REGULATED = ("head", "block_0", "block_1", "block_2")
"""TSAR's regulated layers, in the order in which a composition has their gates."""


@pytest.mark.parametrize("path", files("rule_fixed"), ids=lambda path: path.stem)
def test_the_composed_rule_learns_and_is_meta_learned_as_the_releases(path, precision) -> None:
    golden = load(path, precision)
    sizes = tuple(int(size) for size in golden["layer_sizes"])
    config = ComposeConfig(
        learner="rule",
        terms=tuple(POOL[int(term)] for term in golden["terms"]),
        beta=float(golden["beta"]),
        encoder="pixels",
        hidden=sizes[1:-1],
        outputs=sizes[-1],
        classes=5,
        eval_classes=5,
    )
    assert not golden["l1"]
    composition = compose(config, STREAMS["characters"](config))
    weights, random = random_weights(int(golden["weight_seed"]), 0, sizes, precision)
    learned, query = (examples_of(golden, 0, part, precision) for part in ("train", "query"))

    def as_images(examples):
        images, labels = examples
        return images.reshape(-1, 28, 28, 1), labels

    @jax.jit
    def objective(coefficients):
        theta = {"weights": weights, "feedback": random, "coefficients": coefficients}
        learner, sense = composition.learner, composition.sense
        (images, labels), (asked, answers) = as_images(learned), as_images(query)
        state, _ = unroll(
            learner, theta, learner.init(theta, None), (sense(theta, images), labels), remat="store"
        )
        logits = learner.predict(theta, state, sense(theta, asked))
        return cross_entropy(logits, answers), accuracy(logits, answers)

    count = len(golden["terms"])
    theta = jnp.asarray(golden["theta_init"][:count])
    (loss, correct), gradient = jax.value_and_grad(objective, has_aux=True)(theta)
    close(loss, golden["meta_losses"][0], precision)
    close(correct, golden["accuracies"][0], precision)
    close(gradient, golden["theta_grads"][0][:count], precision)


def composed_theta(kind: str, params, rate: float):
    """A network's parameters as theta of a composition, with the inner learning rate."""
    rates = jnp.full(2, jnp.log(rate))
    if kind == "oml":
        return {"weights": params, "rates": rates}
    if kind == "anml":
        gate = params["neuromodulator"]
        modulator = {"encoder": gate["trunk"], "heads": gate["gate"]}
    else:
        heads = tuple(params["regulator"][layer] for layer in REGULATED)
        modulator = {"encoder": params["encoder"], "heads": heads}
    weights = {name: params[name] for name in ("trunk", "head")}
    return {"weights": weights, "rates": rates, "modulator": modulator}


def network_params(kind: str, theta):
    """Undo `composed_theta`."""
    if kind == "oml":
        return theta["weights"]
    encoder, heads = theta["modulator"]["encoder"], theta["modulator"]["heads"]
    if kind == "anml":
        return theta["weights"] | {"neuromodulator": {"trunk": encoder, "gate": heads}}
    regulator = dict(zip(REGULATED, heads, strict=True))
    return theta["weights"] | {"encoder": encoder, "regulator": regulator}


def meta_learning_cases():
    for path in files("anml_meta", "oml_meta", "tsar_meta"):
        slow = (pytest.mark.slow,) if "second_order" in path.stem else ()
        yield pytest.param(path, id=path.stem, marks=slow)


@pytest.mark.parametrize("path", meta_learning_cases())
def test_composed_networks_are_meta_learned_as_the_releases(path: Path, precision: str) -> None:
    golden = load(path, "float64")
    kind = path.stem.split("_")[0]
    network, _, _ = setting(golden, kind)
    config = ComposeConfig(
        network=kind,
        modulation=MODULATIONS[kind],
        stream="episodes",
        channels=network.channels,
        modulator_channels=getattr(network, "regulator_channels", 1)
        if kind == "tsar"
        else getattr(network, "gate_channels", 1),
        hidden=(network.hidden_features,) if kind == "oml" else (),
        outputs=network.classes,
        eval_classes=1,
        classes=1,
        order="first" if str(golden["order"]) == "first_order" else "second",
    )

    @jax.jit(compiler_options=compiler_options(kind))
    def step(theta, episode):
        stream = STREAMS["episodes"](config)._replace(draw=lambda images, key, classes: episode)
        composition = compose(config, stream)
        lives = image_objective(config, composition, stream, None, config.classes)
        return jax.value_and_grad(lives.whole, has_aux=True)(theta, jax.random.key(0))

    def results(golden: dict) -> dict:
        _, params, _ = setting(golden, kind)
        theta = composed_theta(kind, params, float(golden["inner_lr"]))
        (loss, metrics), gradient = jax.device_get(step(theta, episode_of(golden)))
        first = to_release(kind, network_params(kind, gradient))
        return {
            "meta_loss": loss,
            "meta_accuracies": metrics["accuracy"],
            **named(golden, "grad_", first),
        }

    found = results(load(path, precision))
    close(found.pop("meta_accuracies"), load(path, precision)["meta_accuracies"][0], precision)
    check(found, path, precision, lambda golden: without_accuracy(results(golden)))


def without_accuracy(found: dict) -> dict:
    return {name: value for name, value in found.items() if name != "meta_accuracies"}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("path", files("hebbian_rules"), ids=lambda path: path.stem)
def test_a_composed_hebbian_lifetime_is_the_releases(path, rule, precision) -> None:
    golden = load(path, precision)
    prefix = f"{rule}__normalised__"
    observations, outputs = golden["observations"], golden[prefix + "outputs"]
    config = ComposeConfig(
        learner="hebbian",
        stream="cart_pole",
        hidden=HIDDEN,
        units="tanh",
        hebbian_rule=rule,
        sharing="synapse",
    )
    world = STREAMS["cart_pole"](config)._replace(
        observation_shape=observations.shape[1:], num_actions=outputs.shape[1]
    )
    composition = compose(config, world)
    sizes = (observations.shape[1], *HIDDEN, outputs.shape[1])
    seed = int(golden[prefix + "recipe_seed"])
    weights, coefficients = released(seed, sizes, len(RULES[rule].columns), precision)

    @jax.jit
    def lifetime(theta, observations):
        learner = composition.learner
        full = composition.complete(theta, jax.random.key(0))
        examples = composition.sense(full, observations), jnp.zeros((len(observations), 0))
        return unroll(learner, full, learner.init(full, None), examples, remat="store")

    theta = {"weights": weights, "coefficients": coefficients}
    state, ours = lifetime(theta, jnp.asarray(observations))
    close(ours, outputs, precision)
    for layer, every in enumerate((1, 8, 1)):
        close(state[layer][:, ::every], golden[f"{prefix}final_{layer}"], precision)
