"""The numbers of the SYNERgy release: six steps of every method, on both networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import QUICK, channels_last, close, files, load, series

from tsar_jax.interop_continual import (
    mlp_from_release,
    mlp_to_release,
    resnet18_from_release,
    resnet18_statistics_to_release,
    resnet18_to_release,
)
from tsar_jax.models.classifier import Variables
from tsar_jax.models.mlp import make_mlp
from tsar_jax.models.resnet import make_resnet18
from tsar_jax.plasticity.fisher import filter_means
from tsar_jax.plasticity.methods import METHODS, Batch, Bench, Learner, make_method

PREFIX = {
    "working": "after_",
    "semantic": "after_ema_model_",
    "stable": "after_stable_model_",
    "plastic": "after_plastic_model_",
}


def network_of(golden: dict, image_shape: tuple[int, ...]):
    classes = golden["eval_logits"].shape[-1]
    if golden["arch"] == "mlp":
        return make_mlp(image_shape, classes, golden["param_00"].shape[:1] * 2)
    return make_resnet18(image_shape, classes, width=golden["param_00"].shape[0])


def net_of(golden: dict, names: list[str]) -> Variables:
    found = series(golden, "param_")
    arrays = {name: found[number] for number, name in enumerate(names)}
    read = mlp_from_release if golden["arch"] == "mlp" else resnet18_from_release
    return jax.tree.map(jnp.asarray, read(arrays))


def released(golden: dict, model: Variables) -> dict[str, np.ndarray]:
    """Parameters, then statistics, by the release's names."""
    if golden["arch"] == "mlp":
        return mlp_to_release(model.params)
    return resnet18_to_release(model.params) | resnet18_statistics_to_release(model.stats)


def bench_of(golden: dict, image: jax.Array) -> Bench:
    """One in which every draw is the whole buffer and images are taken as they are."""
    capacity, classes = int(golden["buffer_size"]), golden["eval_logits"].shape[-1]
    return Bench(
        network_of(golden, image.shape),
        float(golden["lr"]),
        capacity,
        capacity,
        tasks=1,
        classes=classes,
        task_classes=np.ones((1, classes), bool),
        image=jax.ShapeDtypeStruct(image.shape, image.dtype),
        view=lambda images, key: images,
        normalise=lambda images: images,
        scale=lambda images: images,
    )


@pytest.mark.parametrize("path", files("cl_"), ids=lambda path: path.stem)
def test_steps(path, precision) -> None:
    golden = load(path, precision)
    hyper = zip(golden["hyper_names"], golden["hyper_values"], strict=True)
    method = make_method(str(golden["method"]), [f"{name}={value}" for name, value in hyper])
    names = [str(name) for name in golden["names"]]
    images, stored = (
        jnp.stack([channels_last(step) for step in golden[name]])
        for name in ("images", "buffer_images")
    )
    bench = bench_of(golden, images[0, 0])
    learner = method.begin(bench, jax.random.key(0))
    net = net_of(golden, names)
    assert jax.tree.map(jnp.shape, net) == jax.tree.map(jnp.shape, learner.net)
    learner = learner._replace(net=net, memory=method.begin_memory(bench, net))

    @jax.jit
    def run(learner: Learner):
        def one(learner: Learner, each):
            index, shown, kept, labels = each
            batch = Batch(shown, kept, labels, jnp.ones(labels.size), jnp.zeros((), jnp.int32))
            return method.step(bench, learner, batch, jax.random.key(index))

        labels = jnp.asarray(golden["labels"])
        each = (jnp.arange(len(labels)), images, stored, labels)
        learner, losses = jax.lax.scan(one, learner, each)
        return learner, losses, method.classify(bench, learner, learner.net, images[0])

    learner, losses, logits = run.lower(learner).compile(QUICK)(learner)
    close(losses, golden["losses"], precision)
    for name, model in method.models(learner).items():
        check_model(golden, PREFIX[name], model, names, precision)
    if golden["method"] == "synergy":
        check_fisher(golden, learner, names, precision)
    close(logits, golden["eval_logits"], precision)
    assert int(learner.buffer.seen if method.buffered else 48) == golden["labels"].size


def check_model(golden: dict, prefix: str, model: Variables, names, precision: str) -> None:
    found = series(golden, prefix)
    assert len(found) == len(names)
    for name, ours in released(golden, model).items():
        key = f"{prefix}{names.index(name):02d}" if name in names else f"{prefix}bn_{name}"
        close(ours, golden[key], precision)


def check_fisher(golden: dict, learner: Learner, names, precision: str) -> None:
    fisher = learner.memory.fisher
    for key, tree in (("fisher", fisher), ("adjusted_fisher", filter_means(fisher))):
        arrays = released(golden, learner.net._replace(params=tree))
        flat = np.concatenate([np.ravel(arrays[name]) for name in names])
        close(flat, golden[key], precision)


def test_every_method_of_the_tables_has_golden_numbers() -> None:
    assert {str(np.load(path)["method"]) for path in files("cl_")} <= set(METHODS)
