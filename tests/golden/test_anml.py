"""The numbers of the original ANML and OML releases (one meta-learning step, and meta-test)."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tsar_jax.data.episodes import Episode
from tsar_jax.evaluation.meta_test import learn_stream
from tsar_jax.interop import from_release, release_names, to_release
from tsar_jax.models import ANML, OML, Network, frozen_levels, run_levels
from tsar_jax.plasticity.masks import mask, partition
from tsar_jax.systems.anml import inner_loop, meta_objective

FOLDER = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parent))
TOLERANCE = {"float64": 2e-5, "float32": 2e-3}


def files(*prefixes: str) -> list[Path]:
    return sorted(path for prefix in prefixes for path in FOLDER.glob(f"{prefix}*.npz"))


@pytest.fixture(params=["float64", "float32"])
def precision(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def load(path: Path, precision: str) -> dict:
    def cast(array):
        return array.astype(precision) if array.dtype.kind == "f" else array

    with np.load(path, allow_pickle=False) as archive:
        return {name: cast(archive[name]) for name in archive.files}


def series(golden: dict, prefix: str) -> dict[int, np.ndarray]:
    names = [name for name in golden if name.startswith(prefix) and name[len(prefix) :].isdigit()]
    return {int(name[len(prefix) :]): golden[name] for name in names}


def network_of(kind: str, params) -> Network:
    classes = params["head"]["bias"].size
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


def close(ours, golden, precision: str, scale: float | None = None) -> None:
    scale = max(1.0, float(np.abs(golden).max())) if scale is None else scale
    error = np.abs(np.asarray(ours) - np.asarray(golden)).max()
    assert error <= TOLERANCE[precision] * scale, f"off by {error:.2e} at scale {scale:.2e}"


def channels_last(images: np.ndarray) -> jax.Array:
    return jnp.asarray(images.transpose(0, 2, 3, 1))


def setting(golden: dict, kind: str):
    """Network, parameters and what learns, all from the file."""
    arrays = [array for _, array in sorted(series(golden, "param_").items())]
    params = jax.tree.map(jnp.asarray, from_release(kind, arrays))
    plastic = mask(params, release_names(kind)[2 * int(golden["rln"]) :])
    return network_of(kind, params), params, plastic


def trajectory(golden: dict) -> tuple[jax.Array, jax.Array]:
    images, labels = channels_last(golden["traj_images"]), jnp.asarray(golden["traj_labels"])
    if int(golden["inner_updates"]) == len(labels) + 1:
        images = jnp.concatenate([images[:1], images])
        labels = jnp.concatenate([labels[:1], labels])
    return images, labels


@pytest.mark.parametrize("path", files("anml_meta", "oml_meta"), ids=lambda path: path.stem)
def test_meta_step(path: Path, precision: str) -> None:
    golden = load(path, precision)
    kind = path.stem.split("_")[0]
    network, params, plastic = setting(golden, kind)
    images, labels = trajectory(golden)
    queries, query_labels = channels_last(golden["query_images"]), golden["query_labels"]
    episode = Episode(images, labels, queries, jnp.asarray(query_labels), jnp.unique(labels))
    options = {
        "rate": float(golden["inner_lr"]),
        "first_order": str(golden["order"]) == "first_order",
    }

    def logits(params):
        return network.apply({"params": params}, queries)

    close(logits(params), golden["logits_before"], precision)
    fast = jax.jit(lambda p: inner_loop(network, p, plastic, images, labels, **options))(params)
    close(logits(fast), golden["logits_after_inner"], precision)
    ours = to_release(kind, fast)
    for index, array in series(golden, "fast_").items():
        close(ours[index], array, precision)

    optimiser = optax.adam(float(golden["meta_lr"]))
    state = optimiser.init(params)

    @jax.jit
    def step(params, state):
        (loss, metrics), gradient = jax.value_and_grad(
            lambda p: meta_objective(network, p, plastic, episode, **options), has_aux=True
        )(params)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), state, loss, metrics, gradient

    gradients = series(golden, "grad_")
    largest = max(float(np.abs(array).max()) for array in gradients.values())
    for number, want in enumerate(golden["meta_losses"]):
        params, state, loss, metrics, gradient = step(params, state)
        close(loss, want, precision)
        close(metrics["accuracy"], golden["meta_accuracies"][number], precision)
        if number == 0:
            close(loss, golden["meta_loss"], precision)
            ours = to_release(kind, gradient)
            for index, array in gradients.items():
                close(ours[index], array, precision, largest)
    ours = to_release(kind, params)
    for index, array in series(golden, "after_").items():
        close(ours[index], array, precision)


@pytest.mark.parametrize("path", files("anml_finetune", "oml_finetune"), ids=lambda path: path.stem)
def test_meta_test_learning(path: Path, precision: str) -> None:
    golden = load(path, precision)
    start = load(FOLDER / str(golden["initial_params_from"]), precision)
    kind = str(golden["kind"])
    network, params, plastic = setting({**start, **golden}, kind)
    images, labels = channels_last(golden["images"]), jnp.asarray(golden["labels"])

    learned, losses = jax.jit(
        lambda p: learn_stream(
            network,
            p,
            plastic,
            run_levels(network, p, images, 0, frozen_levels(network, plastic)),
            labels,
            rate=float(golden["lr"]),
        )
    )(params)
    close(losses, golden["losses"], precision)
    ours = to_release(kind, learned)
    for index, array in series(golden, "after_").items():
        close(ours[index], array, precision)
    close(network.apply({"params": learned}, images), golden["logits_after"], precision)
    frozen_before, frozen_after = partition(params, plastic)[1], partition(learned, plastic)[1]
    jax.tree.map(np.testing.assert_array_equal, frozen_before, frozen_after)
