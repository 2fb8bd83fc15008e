"""The numbers of the original ANML, OML and TSAR releases: a meta-learning step, and meta-test."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import FOLDER, QUICK, channels_last, check, close, files, load, series

from tsar_jax.data.episodes import Episode
from tsar_jax.networks import (
    ANML,
    OML,
    TSAR,
    Network,
    frozen_stages,
    run_stages,
    stored_stages,
)
from tsar_jax.plasticity.masks import mask, partition
from tsar_jax.systems.episodic.meta_test_lifetime import learn_stream
from tsar_jax.systems.episodic.release import from_release, release_names, to_release
from tsar_jax.systems.episodic.system import inner_loop, meta_objective


def compiler_options(kind: str) -> dict:
    """Level 0 compiles twice as fast again; why not TSAR's steps: see `golden.QUICK`."""
    return QUICK if kind == "tsar" else {**QUICK, "xla_backend_optimization_level": 0}


def network_of(kind: str, params) -> Network:
    classes = params["head"]["bias"].size
    if kind == "tsar":
        return TSAR(
            channels=params["trunk"]["block_0"]["bias"].size,
            regulator_channels=params["encoder"]["block_0"]["bias"].size,
            classes=classes,
        )
    if kind == "anml":
        return ANML(
            channels=params["trunk"]["block_0"]["bias"].size,
            gate_channels=params["neuromodulator"]["trunk"]["block_0"]["bias"].size,
            classes=classes,
        )
    return OML(
        channels=params["representation"]["conv_0"]["bias"].size,
        hidden_features=params["hidden"]["bias"].size,
        classes=classes,
    )


def setting(golden: dict, kind: str):
    """Network, parameters and what learns, all from the file."""
    arrays = [array for _, array in sorted(series(golden, "param_").items())]
    params = jax.tree.map(jnp.asarray, from_release(kind, arrays))
    plastic = mask(params, release_names(kind)[2 * int(golden["rln"]) :])
    return network_of(kind, params), params, plastic


def episode_of(golden: dict) -> Episode:
    """The trajectory's images and the query's, which share none."""
    learned, scored = channels_last(golden["traj_images"]), channels_last(golden["query_images"])
    labels = np.concatenate([golden["traj_labels"], golden["query_labels"]])
    trajectory = np.arange(len(learned))
    if int(golden["inner_updates"]) == len(learned) + 1:
        trajectory = np.concatenate([trajectory[:1], trajectory])
    return Episode(
        jnp.concatenate([learned, scored]),
        jnp.asarray(labels),
        jnp.asarray(trajectory),
        jnp.unique(golden["traj_labels"]),
        jnp.arange(len(learned), len(labels)),
    )


def cases():
    """Every file; second derivatives through every gate take longest to compile."""
    for path in files("anml_meta", "oml_meta", "tsar_meta"):
        slow = (pytest.mark.slow,) if "second_order" in path.stem else ()
        yield pytest.param(path, id=path.stem, marks=slow)


@functools.cache
def meta_learning(path: Path):
    """Compile a file's lifetime and meta-steps, once for each precision they are run in."""
    golden = load(path, "float64")
    kind = path.stem.split("_")[0]
    network, _, plastic = setting(golden, kind)
    options = {
        "learning_rate": float(golden["inner_lr"]),
        "first_order": str(golden["order"]) == "first_order",
    }
    optimiser = optax.adam(float(golden["meta_lr"]))

    def lifetime(params, episode):
        """The fast weights, and the query logits before and after."""
        images, labels = episode.images[episode.trajectory], episode.labels[episode.trajectory]
        activations = run_stages(network, params, images, 0, frozen_stages(network, plastic))
        fast = inner_loop(network, params, plastic, activations, labels, **options)
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, fast)
        queries = episode.images[episode.query]
        logits = jax.lax.map(lambda p: run_stages(network, p, queries), both)
        return fast, logits

    def steps(params, episode):
        """Adam's meta-steps on the same episode: parameters, losses, metrics and gradients."""

        def step(carry, _):
            params, state = carry
            (loss, metrics), gradient = jax.value_and_grad(
                lambda p: meta_objective(network, p, plastic, episode, **options), has_aux=True
            )(params)
            updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(params, updates), state), (loss, metrics, gradient)

        (params, _), history = jax.lax.scan(
            step, (params, optimiser.init(params)), length=len(golden["meta_losses"])
        )
        return params, history

    return [
        jax.jit(function, compiler_options=compiler_options(kind)) for function in (lifetime, steps)
    ]


@pytest.mark.parametrize("path", cases())
def test_meta_step(path: Path, precision: str) -> None:
    lifetime, steps = meta_learning(path)
    kind = path.stem.split("_")[0]

    def results(golden: dict) -> dict:
        _, params, _ = setting(golden, kind)
        arguments = params, episode_of(golden)
        fast, (before, after) = jax.device_get(lifetime(*arguments))
        params, (losses, metrics, gradient) = jax.device_get(steps(*arguments))
        first = to_release(kind, jax.tree.map(lambda leaf: leaf[0], gradient))
        return {
            "logits_before": before,
            "logits_after_inner": after,
            "meta_losses": losses,
            "meta_loss": losses[0],
            "meta_accuracies": metrics["accuracy"],
            **named(golden, "fast_", to_release(kind, fast)),
            **named(golden, "grad_", first),
            **named(golden, "after_", to_release(kind, params)),
        }

    found = results(load(path, precision))
    inner = {key: found.pop(key) for key in list(found) if key.startswith(("logits_", "fast_"))}
    # Two programs, each of which may round its own way.
    check(inner, path, precision, results)
    check(found, path, precision, results)


def named(golden: dict, prefix: str, arrays) -> dict:
    """Those of a network's arrays, in the release's order, that the file has under a prefix."""
    return {f"{prefix}{index:02d}": arrays[index] for index in series(golden, prefix)}


@pytest.mark.parametrize(
    "path", files("anml_finetune", "oml_finetune", "tsar_transfer"), ids=lambda path: path.stem
)
def test_meta_test_learning(path: Path, precision: str) -> None:
    golden = load(path, precision)
    start = load(FOLDER / str(golden["initial_params_from"]), precision)
    kind = str(golden["kind"])
    network, params, plastic = setting({**start, **golden}, kind)
    images, labels = channels_last(golden["images"]), jnp.asarray(golden["labels"])

    def learn(params, images):
        depth = stored_stages(network, plastic)
        activations = run_stages(network, params, images, 0, depth)
        learned, losses = learn_stream(
            network, params, plastic, activations, labels, learning_rate=float(golden["lr"])
        )
        return learned, losses, run_stages(network, learned, images)

    learned, losses, logits = jax.device_get(
        jax.jit(learn, compiler_options=compiler_options(kind))(params, images)
    )
    close(losses, golden["losses"], precision)
    ours = to_release(kind, learned)
    for index, array in series(golden, "after_").items():
        close(ours[index], array, precision)
    close(logits, golden["logits_after"], precision)
    frozen_before, frozen_after = partition(params, plastic)[1], partition(learned, plastic)[1]
    jax.tree.map(np.testing.assert_array_equal, frozen_before, frozen_after)
