"""The numbers of the SYNERgy release: six steps of every method, on both networks."""

import functools
from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import QUICK, channels_last, check, close, files, load, series

from tsar_jax.networks.classifier import Variables
from tsar_jax.networks.mlp import make_mlp
from tsar_jax.networks.resnet import make_resnet18
from tsar_jax.plasticity.fisher import filter_means
from tsar_jax.plasticity.methods import (
    METHODS,
    Batch,
    Method,
    ProblemSpec,
    TrainState,
    make_method,
)
from tsar_jax.plasticity.methods.base import cross_entropy
from tsar_jax.systems.continual.release import (
    mlp_from_release,
    mlp_to_release,
    resnet18_from_release,
    resnet18_statistics_to_release,
    resnet18_to_release,
)

PREFIX = {
    "working": "after_",
    "semantic": "after_ema_model_",
    "stable": "after_stable_model_",
    "plastic": "after_plastic_model_",
}
UNCHANGED = {"mean": 0, "std": 1}
"""What images are normalised by in a file that does not say."""


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


def spec_of(golden: dict, image: jax.Array) -> ProblemSpec:
    """One in which every draw is the whole buffer.

    Images are stored as they are; the network takes them normalised where the file says by what.
    """
    mean, std = (golden.get(name, value) for name, value in UNCHANGED.items())
    capacity, classes = int(golden["buffer_size"]), golden["eval_logits"].shape[-1]
    return ProblemSpec(
        network_of(golden, image.shape),
        float(golden["lr"]),
        capacity,
        capacity,
        tasks=1,
        classes=classes,
        task_classes=np.ones((1, classes), bool),
        image=jax.ShapeDtypeStruct(image.shape, image.dtype),
        augment=lambda images, key: (images - mean) / std,
        normalise=lambda images: (images - mean) / std,
    )


def cases():
    """Every file; ResNet-18 takes minutes to compile."""
    for path in files("cl_"):
        with np.load(path) as archive:
            slow = (pytest.mark.slow,) if archive["arch"] == "resnet" else ()
        yield pytest.param(path, id=path.stem, marks=slow)


@pytest.mark.parametrize("path", cases())
def test_steps(path, precision) -> None:
    """In six steps of DER++ with ResNet-18 at least two ReLUs are within rounding of 0.

    The last loss is the recorded one, .0386 more or .0784 more, to 1e-5, in either precision.
    """
    golden = load(path, precision)
    method = method_of(golden)

    @functools.cache
    def run(precision: str):
        return run_of(load(path, precision), method)

    def results(golden: dict) -> dict:
        return after_steps(golden, run(str(golden["param_00"].dtype)), method)

    found = results(golden)
    assert {key for key in golden if key.startswith("after_")} <= set(found)
    check(found, path, precision, results)


def method_of(golden: dict) -> Method:
    """The file's method; its numbers are floats, whatever the hyper-parameters are."""
    kinds = {field.name: field.type for field in fields(METHODS[str(golden["method"])])}
    hyper = zip(golden["hyper_names"], golden["hyper_values"].tolist(), strict=True)
    values = {str(name): kinds[str(name)](value) for name, value in hyper}
    return make_method(str(golden["method"]), **values)


def test_hyper_parameters_that_are_no_floats_are_read() -> None:
    golden = {"method": "ewc_on", "hyper_names": ["e_lambda", "adjust_fisher"]}
    assert method_of({**golden, "hyper_values": np.array([2.0, 1.0])}).adjust_fisher is True
    golden = {"method": "gss", "hyper_names": ["batch_num"], "hyper_values": np.array([3.0])}
    assert method_of(golden).batch_num == 3


def begun(golden: dict, method: Method, spec: ProblemSpec) -> TrainState:
    """The state with the file's parameters."""
    state = jax.eval_shape(lambda: method.init(spec, jax.random.key(0)))
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
    net = net_of(golden, [str(name) for name in golden["names"]])
    assert jax.tree.map(jnp.shape, net) == jax.tree.map(jnp.shape, state.net)
    return state._replace(net=net, memory=method.init_memory(spec, net))


def run_of(golden: dict, method: Method):
    """The compiled program of all steps: (golden) -> state, losses, logits."""
    images, stored = (
        jnp.stack([channels_last(step) for step in golden[name]])
        for name in ("images", "buffer_images")
    )
    spec = spec_of(golden, images[0, 0])

    def steps(state: TrainState):
        def one(state: TrainState, each):
            index, shown, kept, labels = each
            batch = Batch(shown, kept, labels, jnp.ones(labels.size), jnp.zeros((), jnp.int32))
            return method.update(spec, state, batch, jax.random.key(index))

        labels = jnp.asarray(golden["labels"])
        each = (jnp.arange(len(labels)), images, stored, labels)
        state, losses = jax.lax.scan(one, state, each)
        return state, losses, method.classify(spec, state, state.net, images[0])

    compiled = jax.jit(steps).lower(begun(golden, method, spec)).compile(QUICK)
    return lambda golden: compiled(begun(golden, method, spec))


def after_steps(golden: dict, run, method: Method) -> dict[str, np.ndarray]:
    """What the steps give, by the keys of the file."""
    names = [str(name) for name in golden["names"]]
    state, losses, logits = jax.device_get(run(golden))
    found = {"losses": losses, "eval_logits": logits}
    for name, model in method.models(state).items():
        prefix = PREFIX[name]
        for array, ours in released(golden, model).items():
            key = f"{names.index(array):02d}" if array in names else f"bn_{array}"
            found[prefix + key] = ours
    if golden["method"] == "synergy":
        fisher = state.memory.fisher
        for key, tree in (("fisher", fisher), ("adjusted_fisher", filter_means(fisher))):
            arrays = released(golden, state.net._replace(params=tree))
            found[key] = np.concatenate([np.ravel(arrays[name]) for name in names])
    if method.buffered:
        assert int(state.buffer.seen) == golden["labels"].size
    return found


@pytest.mark.parametrize(
    "path", [case.values[0] for case in cases() if case.marks][:1], ids=lambda path: path.stem
)
def test_the_first_loss_of_resnet(path, precision) -> None:
    """Before anything is replayed the loss is the first batch's cross-entropy: a forward pass."""
    golden = load(path, precision)
    images = channels_last(golden["images"][0])
    net = net_of(golden, [str(name) for name in golden["names"]])
    train = jax.jit(lambda net, images: network_of(golden, images.shape[1:]).train(net, images)[0])
    logits = train.lower(net, images).compile(QUICK)(net, images)
    loss = cross_entropy(logits, jnp.asarray(golden["labels"][0]), jnp.ones(len(images)))
    close(loss, golden["losses"][0], precision)


def test_every_method_of_the_tables_has_golden_numbers() -> None:
    assert {str(np.load(path)["method"]) for path in files("cl_")} <= set(METHODS)
