"""The equations of the methods, one by one, on a small perceptron."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from tsar_jax.errors import UserError
from tsar_jax.networks.classifier import Variables
from tsar_jax.networks.mlp import make_mlp
from tsar_jax.plasticity.buffer import draw, put
from tsar_jax.plasticity.methods import (
    METHODS,
    Batch,
    ProblemSpec,
    TaskData,
    make_method,
    task_end,
)
from tsar_jax.plasticity.methods.agem import AGEM
from tsar_jax.plasticity.methods.base import cross_entropy, replay
from tsar_jax.plasticity.methods.er import ER
from tsar_jax.plasticity.methods.ewc_on import EWCOn
from tsar_jax.plasticity.methods.fdr import FDR, function_distance
from tsar_jax.plasticity.methods.gem import GEM
from tsar_jax.plasticity.methods.gss import GSS, largest_cosine, select
from tsar_jax.plasticity.methods.hal import HAL
from tsar_jax.plasticity.methods.icarl import ICaRL
from tsar_jax.plasticity.methods.kder import KDER
from tsar_jax.plasticity.methods.lwf import LwF
from tsar_jax.plasticity.methods.mer import MER
from tsar_jax.plasticity.methods.pnn import PNN
from tsar_jax.plasticity.methods.si import SI
from tsar_jax.plasticity.methods.synergy import SYNERgy

SHAPE, CLASSES, TASKS, CAPACITY, RATE = (2, 2, 1), 4, 2, 10, 0.1
KEY = jax.random.key(3)
pytestmark = pytest.mark.usefixtures("quickly_compiled")
CLOSE = {"rtol": 2e-4, "atol": 2e-6}


def scaled(images, key=None):
    return images.astype(jnp.float32) / 255


@pytest.fixture(scope="module")
def spec() -> ProblemSpec:
    return ProblemSpec(
        net=make_mlp(SHAPE, CLASSES, (6, 5)),
        learning_rate=RATE,
        capacity=CAPACITY,
        replay=4,
        tasks=TASKS,
        classes=CLASSES,
        task_classes=np.eye(TASKS, dtype=bool).repeat(CLASSES // TASKS, 1),
        image=jax.ShapeDtypeStruct(SHAPE, jnp.uint8),
        augment=scaled,
        normalise=scaled,
    )


def images_of(task: int, count: int, seed: int = 0) -> SimpleNamespace:
    random = np.random.RandomState(10 * seed + task)
    stored = jnp.asarray(random.randint(0, 256, (count, *SHAPE)), jnp.uint8)
    labels = jnp.asarray(random.randint(0, 2, count) + 2 * task, jnp.int32)
    return SimpleNamespace(stored=stored, labels=labels, images=scaled(stored))


def batch_of(task: int, count: int = 6, seed: int = 0) -> Batch:
    """The last row has run out."""
    shown = images_of(task, count, seed)
    mask = jnp.ones(count).at[-1].set(0)
    return Batch(shown.images, shown.stored, shown.labels, mask, jnp.int32(task))


def task_of(task: int, count: int = 11, padding: int = 3) -> TaskData:
    shown = images_of(task, count + padding, seed=1)
    return TaskData(shown.stored, shown.labels, (jnp.arange(count + padding) < count) * 1.0)


def loss_of(spec, params, images, labels) -> jax.Array:
    logits = spec.net.logits(Variables(params, {}), images)
    return cross_entropy(logits, labels, jnp.ones(labels.shape))


def gradient_of(spec, params, images, labels):
    return jax.jit(jax.grad(lambda params: loss_of(spec, params, images, labels)))(params)


def begun(method, spec):
    return jax.jit(lambda key: method.init(spec, key))(KEY)


def end_task(method, spec, state, task: int, data=None):
    data = task_of(task) if data is None else data
    return jax.jit(lambda state: method.at_task_end(spec, state, data, jnp.int32(task), KEY))(state)


def taken(method, spec, state, batch):
    """The state after a step."""
    return jax.jit(lambda state: method.update(spec, state, batch, KEY))(state)[0]


def direction(method, spec, state, batch, key=KEY):
    return jax.jit(lambda state: method.gradient(spec, state, batch, key))(state)


def assert_close(a, b, **close) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **(close or CLOSE)), a, b)


def shifted(params, by: float):
    return jax.tree.map(lambda leaf: leaf + by, params)


def test_synergy_estimates_importance_on_images_as_seen_in_training(spec) -> None:
    """Of all slots, black where never filled; S's statistics move by what these passes see."""
    plain = spec.net

    def moved(stats, images):
        return {"mean": 0.5 * stats["mean"] + 0.5 * images.mean()}

    tracked = plain._replace(
        init=lambda key: Variables(plain.init(key).params, {"mean": jnp.zeros(())}),
        train=lambda net, images, mask: (plain.logits(net, images), moved(net.stats, images)),
        fisher=lambda net, images, labels: (
            plain.fisher(net, images, labels)[0],
            moved(net.stats, images),
        ),
    )
    spec = dataclasses.replace(
        spec,
        net=tracked,
        augment=lambda images, key: (scaled(images) - 0.3) / 0.25,
        normalise=lambda images: jnp.full(images.shape, jnp.nan),
    )
    method = SYNERgy(ema_update_freq=0.0, fisher_update_freq=1.0)
    state = taken(method, spec, begun(method, spec), batch_of(0))
    kept = state.buffer.items
    assert int(state.buffer.seen) == 5 < CAPACITY
    semantic = state.memory.semantic
    shown = spec.augment(kept["images"], KEY)
    assert_close(shown[5:], jnp.full(shown[5:].shape, -1.2))
    assert_close(state.memory.fisher, plain.fisher(semantic, shown, kept["labels"])[0])
    # Nothing was there to be replayed: the draw was of black images, halving the mean once more.
    replayed = 0.5 * spec.augment(jnp.zeros((1, *SHAPE), jnp.uint8), KEY).mean()
    assert_close(semantic.stats["mean"], 0.5 * replayed + 0.5 * shown.mean())


def test_ewc_holds_what_the_fisher_information_says(spec, monkeypatch) -> None:
    monkeypatch.setattr(task_end, "CHUNK", 4)
    method = EWCOn(e_lambda=3.0, gamma=0.5)
    state = begun(method, spec)
    data = task_of(0)
    params = state.net.params

    def one(image, label):
        gradient = gradient_of(spec, params, image[None], label[None])
        likelihood = jnp.exp(-loss_of(spec, params, image[None], label[None]))
        return jax.tree.map(lambda g: likelihood * g**2, gradient)

    each = jax.vmap(one)(scaled(data.stored[:11]), data.labels[:11])
    fisher = jax.tree.map(lambda leaf: leaf.mean(0), each)
    state = end_task(method, spec, state, 0)
    assert_close(state.memory.fisher, fisher)
    twice = end_task(method, spec, state, 1, data)
    assert_close(twice.memory.fisher, jax.tree.map(lambda leaf: 1.5 * leaf, fisher))

    moved = state._replace(net=Variables(shifted(params, 0.1), {}))
    batch = batch_of(1)
    _, gradient, _ = direction(method, spec, moved, batch)
    _, plain, _ = direction(METHODS["sgd"](), spec, moved, batch)
    expected = jax.tree.map(lambda g, f: g + 2 * 3.0 * f * 0.1, plain, fisher)
    assert_close(gradient, expected)


@pytest.mark.parametrize("adjust", [False, True])
def test_ewc_can_give_every_filter_its_mean_importance(spec, adjust) -> None:
    kernel = jnp.arange(2 * 2 * 3 * 4, dtype=jnp.float32).reshape(2, 2, 3, 4)
    importance = {"kernel": kernel, "bias": jnp.arange(4.0)}
    net = spec.net._replace(fisher=lambda variables, images, labels: (importance, {}))
    method = EWCOn(gamma=0.5, adjust_fisher=adjust)
    spec = dataclasses.replace(spec, net=net)
    state = begun(method, spec)
    nothing = jax.tree.map(jnp.zeros_like, importance)
    state = state._replace(memory=state.memory._replace(fisher=nothing))
    data = task_of(0, count=6, padding=0)
    for task in (0, 1):
        state = method.at_task_end(spec, state, data, jnp.int32(task), KEY)
    means = jnp.broadcast_to(kernel.mean((0, 1, 2)), kernel.shape)
    expected = {"kernel": means if adjust else kernel, "bias": importance["bias"]}
    assert_close(state.memory.fisher, jax.tree.map(lambda leaf: 1.5 * leaf, expected))


def test_a_setting_that_is_true_or_false() -> None:
    assert make_method("ewc_on", adjust_fisher=True).adjust_fisher is True
    assert make_method("ewc_on").adjust_fisher is False
    with pytest.raises(UserError, match=r"'adjust_fisher' must be bool.*but is 'maybe'"):
        make_method("ewc_on", adjust_fisher="maybe")


def test_si_integrates_what_the_loss_lost(spec) -> None:
    method = SI(c=2.0, xi=0.3)
    slow = dataclasses.replace(spec, learning_rate=0.01)
    begin = begun(method, slow)
    batch = batch_of(0)
    state = jax.jit(
        lambda state: jax.lax.fori_loop(
            0, 20, lambda _, state: method.update(slow, state, batch, KEY)[0], state
        )
    )(begin)
    lost = [
        loss_of(spec, one.net.params, batch.images[:-1], batch.labels[:-1])
        for one in (begin, state)
    ]
    total = sum(leaf.sum() for leaf in jax.tree.leaves(state.memory.path))
    np.testing.assert_allclose(total, lost[0] - lost[1], rtol=0.02)

    ended = end_task(method, slow, state, 0)
    expected = jax.tree.map(
        lambda path, new, old: path / ((new - old) ** 2 + 0.3),
        state.memory.path,
        state.net.params,
        begin.net.params,
    )
    assert_close(ended.memory.importance, expected)
    assert not any(leaf.any() for leaf in jax.tree.leaves(ended.memory.path))
    moved = ended._replace(net=Variables(shifted(ended.net.params, 0.1), {}))
    _, gradient, _ = direction(method, slow, moved, batch)
    _, plain, _ = direction(METHODS["sgd"](), slow, moved, batch)
    pulled = jax.tree.map(lambda g, o: jnp.clip(g + 2 * 2.0 * o * 0.1, -1, 1), plain, expected)
    assert_close(gradient, pulled)


def test_lwf_distils_the_net_from_before_the_task(spec) -> None:
    method = LwF(alpha=0.7, softmax_temp=2.0, wd_reg=0.01)
    state = end_task(method, spec, begun(method, spec), 0)
    state = state._replace(net=Variables(shifted(state.net.params, 0.1), {}))
    batch = batch_of(1)
    loss, _, _ = direction(method, spec, state, batch)
    new, old = (
        np.asarray(spec.net.logits(net, batch.images[:-1])) for net in (state.net, state.memory)
    )
    softened = [np.exp(logits[:, :2] / 2) for logits in (new, old)]
    q, p = (one / one.sum(1, keepdims=True) for one in softened)
    squares = sum((leaf**2).sum() for leaf in jax.tree.leaves(state.net.params))
    expected = cross_entropy(new, batch.labels[:-1], jnp.ones(5))
    expected += -0.7 * (p * np.log(q)).sum(1).mean() + 0.01 * squares
    np.testing.assert_allclose(loss, expected, rtol=1e-5)

    first = batch_of(0)
    loss, _, _ = direction(method, spec, state, first)
    logits = spec.net.logits(state.net, first.images[:-1])[:, :2]
    expected = cross_entropy(logits, first.labels[:-1], jnp.ones(5)) + 0.01 * squares
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_fdr_keeps_the_outputs_of_a_tasks_end(spec) -> None:
    random = np.random.RandomState(0)
    one, two = random.normal(size=(2, 5, CLASSES)).astype(np.float32)
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (one, two))
    np.testing.assert_allclose(
        function_distance(one, two), np.linalg.norm(p - q, axis=1), rtol=1e-5
    )
    assert not jax.grad(lambda x: function_distance(x, two).sum())(two).any()

    method = FDR(alpha=0.8)
    state = end_task(method, spec, begun(method, spec), 0)
    kept = state.buffer.items
    logits = spec.net.logits(state.net, scaled(kept["images"]))
    assert_close(kept["logits"][:5], logits[:5])
    assert not kept["logits"][5:].any()
    batch = batch_of(1)
    still, _, _ = direction(method, spec, state, batch)
    plain = loss_of(spec, state.net.params, batch.images[:-1], batch.labels[:-1])
    np.testing.assert_allclose(still, plain, rtol=1e-5)


def test_tasks_have_equal_shares_of_the_buffer(spec) -> None:
    method = AGEM()
    spec = dataclasses.replace(spec, capacity=7)
    state = end_task(method, spec, begun(method, spec), 0, task_of(0, 2))
    assert state.buffer.seen == 3
    assert set(np.asarray(state.buffer.items["labels"][:3]).tolist()) <= {0, 1}
    state = end_task(method, spec, state, 1)
    assert state.buffer.seen == 7
    assert (state.buffer.items["labels"] >= 2).tolist() == [False] * 3 + [True] * 4
    with pytest.raises(UserError, match="buffer is 1, but 2 tasks have to share it"):
        end_task(method, dataclasses.replace(spec, capacity=1), state, 0)


def test_agem_does_not_go_against_the_gradient_on_a_draw(spec) -> None:
    """A draw is of the whole share where that is no larger, so that it is known here."""
    method = AGEM()
    spec = dataclasses.replace(spec, replay=5)
    batch = batch_of(1)
    fresh = begun(method, spec)
    _, plain, _ = direction(METHODS["sgd"](), spec, fresh, batch)
    assert_close(direction(method, spec, fresh, batch)[1], plain)
    state = end_task(method, spec, fresh, 0)
    items = state.buffer.items
    old = gradient_of(spec, state.net.params, scaled(items["images"][:5]), items["labels"][:5])
    along = ravel_pytree(old)[0] @ ravel_pytree(plain)[0]
    assert along < 0
    _, projected, _ = direction(method, spec, state, batch)
    assert abs(ravel_pytree(old)[0] @ ravel_pytree(projected)[0]) < 1e-4 * abs(along)


def test_gem_knows_the_gradient_on_every_past_share(spec) -> None:
    method = GEM()
    state = begun(method, spec)
    for task in range(TASKS):
        state = end_task(method, spec, state, task)
    past, _ = method.past_gradients(spec, state, jnp.int32(1), KEY)
    items = state.buffer.items
    first = gradient_of(spec, state.net.params, scaled(items["images"][:5]), items["labels"][:5])
    assert_close(past[0], ravel_pytree(first)[0])
    assert not past[1].any()
    batch = batch_of(1)
    along = [
        past[0] @ ravel_pytree(direction(one, spec, state, batch)[1])[0]
        for one in (method, METHODS["sgd"]())
    ]
    assert along[1] < 0
    assert along[0] > 0.05 * along[1]


def test_gss_prefers_gradients_unlike_others(spec) -> None:
    random = np.random.RandomState(0)
    vector, others = random.normal(size=6), random.normal(size=(3, 6))
    cosines = others @ vector / np.linalg.norm(others, axis=1) / np.linalg.norm(vector)
    two = np.array([1.0, 1.0, 0.0])
    np.testing.assert_allclose(largest_cosine(vector, others, two), cosines[:2].max(), rtol=1e-5)
    assert largest_cosine(vector, others, 0 * two) == -1

    scores, mask = jnp.array([0.5, 1.5, 0.0, 0.0]), jnp.array([1.0, 1.0, 0.0, 1.0])
    own = jnp.full(4, 0.5)
    indices, given = select(KEY, scores, 2, mask, jnp.float32(1.2), own)
    assert indices.tolist() == [2, 3, 4, 4]
    np.testing.assert_allclose(given[:2], 1.2)

    # One image meets a full buffer: slot 1 is met 3 times in 4 and then lost 3 times in 4.
    scores, one = jnp.array([0.5, 1.5]), jnp.ones(1)
    keys = jax.random.split(KEY, 4000)
    meet = jax.vmap(lambda key: select(key, scores, 2, one, jnp.float32(0.9), own[:1])[0][0])
    shares = np.bincount(np.asarray(meet(keys)), minlength=3) / keys.size
    np.testing.assert_allclose(shares, [0.25 / 2, 0.75 * 0.75, 1 - 0.125 - 0.5625], atol=0.03)
    alike = jax.vmap(lambda key: select(key, scores, 2, one, jnp.float32(1.1), own[:1])[0][0])
    assert (alike(keys) == 2).all()


def test_gss_scores_an_image_by_its_gradient(spec) -> None:
    method = GSS(gss_minibatch_size=4)
    state = taken(method, spec, begun(method, spec), batch_of(0))
    assert state.buffer.seen == 5
    np.testing.assert_allclose(state.buffer.items["score"][:5], 0.1)
    batch = batch_of(1)
    spec = dataclasses.replace(spec, capacity=5)
    whole, each = jax.jit(lambda one: method.scores(spec, one, batch, KEY))(
        state._replace(
            buffer=jax.tree.map(lambda leaf: leaf[:4] if leaf.ndim else leaf * 0 + 4, state.buffer)
        )
    )
    params, items = state.net.params, state.buffer.items

    def vector(images, labels):
        return np.asarray(ravel_pytree(gradient_of(spec, params, images, labels))[0])

    held = np.stack(
        [vector(scaled(items["images"][k : k + 1]), items["labels"][k : k + 1]) for k in range(4)]
    )

    def score(g):
        return (held @ g / np.linalg.norm(held, axis=1) / np.linalg.norm(g)).max() + 1

    expected = score(vector(batch.images[:-1], batch.labels[:-1]))
    np.testing.assert_allclose(whole, expected, rtol=1e-4)
    own = [score(vector(batch.images[k : k + 1], batch.labels[k : k + 1])) for k in range(6)]
    np.testing.assert_allclose(each, own if expected < 1 else np.zeros(6), rtol=1e-4)


@pytest.mark.parametrize(("batch_num", "rounds"), [(1, [(0, 4)]), (3, [(0, 4), (4, 6), (0, 4)])])
def test_gss_learns_a_batch_with_one_draw_after_another(spec, batch_num, rounds) -> None:
    """Six items, four to a draw: the second round has the two that are left; the third, four."""
    method = GSS(batch_num=batch_num)
    state = begun(method, spec)
    held = images_of(0, 6)
    items = {"images": held.stored, "labels": held.labels, "score": jnp.ones(6)}
    state = state._replace(buffer=put(state.buffer, jnp.arange(6), items, jnp.int32(6)))
    batch = batch_of(1)
    found = taken(method, spec, state, batch)
    assert found.step == 1

    order = np.asarray(draw(state.buffer, jax.random.split(KEY, 3)[0], CAPACITY).indices)
    assert sorted(order[:6]) == list(range(6))
    params = state.net.params
    for first, after in rounds:
        images = jnp.concatenate([batch.images[:-1], scaled(held.stored[order[first:after]])])
        labels = jnp.concatenate([batch.labels[:-1], held.labels[order[first:after]]])
        slope = gradient_of(spec, params, images, labels)
        params = jax.tree.map(lambda p, g: p - RATE * g, params, slope)
    assert_close(found.net.params, params)


def test_kder_holds_the_net_to_what_it_was_a_step_ago(spec) -> None:
    method = KDER(reg_weight=0.7)
    before = begun(method, spec)
    state = taken(method, spec, before, batch_of(0))
    assert_close(state.memory.params, before.net.params)
    items = {name: value[:5] for name, value in state.buffer.items.items()}
    spec = dataclasses.replace(spec, replay=5)
    batch = batch_of(1)
    images = jnp.concatenate([batch.images[:-1], scaled(items["images"])])
    labels = jnp.concatenate([batch.labels[:-1], items["labels"]])
    target = spec.net.logits(before.net, scaled(items["images"]))

    def expected(params):
        said = spec.net.logits(Variables(params, {}), scaled(items["images"]))
        return 0.7 * jnp.square(said - target).mean() + loss_of(spec, params, images, labels)

    value, slope = jax.jit(jax.value_and_grad(expected))(state.net.params)
    loss, gradient, _ = direction(method, spec, state, batch)
    np.testing.assert_allclose(loss, value, rtol=1e-5)
    assert_close(gradient, slope)
    again = taken(method, spec, state, batch)
    assert_close(again.memory.params, state.net.params)


def test_hal_holds_its_anchors(spec) -> None:
    method = HAL(hal_lambda=0.6, beta=0.5, gamma=0.1, steps_on_anchors=3)
    state = taken(method, spec, begun(method, spec), batch_of(0))
    np.testing.assert_array_equal(state.buffer.items["occupied"], np.arange(CAPACITY) < 5)
    mean = spec.net.features(state.net, batch_of(0).images[:-1]).mean(0)
    np.testing.assert_allclose(state.memory.features, 0.5 * mean, rtol=1e-5)

    state = taken(method, spec, state, batch_of(0, seed=2))
    np.testing.assert_array_equal(state.buffer.items["occupied"], np.arange(CAPACITY) < 5)
    state = end_task(method, spec, state, 0)
    np.testing.assert_array_equal(state.memory.present, [[1, 1], [0, 0]])
    assert not state.memory.features.any()
    batch = batch_of(1)
    loss, plain, _ = direction(ER(), spec, state, batch)
    ahead = jax.tree.map(lambda p, g: p - RATE * g, state.net.params, plain)
    anchors = state.memory.anchors[0]
    target = spec.net.logits(Variables(ahead, {}), anchors)

    def held(params):
        return 0.6 * jnp.square(spec.net.logits(Variables(params, {}), anchors) - target).mean()

    more, slope = jax.value_and_grad(held)(state.net.params)
    found, gradient, _ = direction(method, spec, state, batch)
    np.testing.assert_allclose(found, loss + more, rtol=1e-5)
    assert_close(gradient, jax.tree.map(jnp.add, plain, slope))


def test_an_anchor_ascends_what_is_forgotten(spec) -> None:
    method = HAL(gamma=0.2, steps_on_anchors=1)
    state = begun(method, spec)
    tuned = Variables(shifted(state.net.params, 0.1), {})
    begin, labels = images_of(0, 2).images, jnp.array([0, 1])
    found = method.ascended(spec, state, tuned, begin, labels)

    def harm(anchor, label):
        one = anchor[None], label[None]
        forgotten = loss_of(spec, tuned.params, *one) - loss_of(spec, state.net.params, *one)
        return forgotten - 0.2 * jnp.square(spec.net.features(state.net, one[0])).sum()

    expected = begin + RATE * jax.vmap(jax.grad(harm))(begin, labels)
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_icarl_keeps_the_best_exemplars_of_every_class(spec) -> None:
    method = ICaRL()
    state = begun(method, spec)
    first = end_task(method, spec, state, 0).buffer
    buffer = end_task(method, spec, end_task(method, spec, state, 0), 1).buffer
    data, labels = task_of(0), np.asarray(task_of(0).labels[:11])
    assert first.items["labels"].tolist() == [0] * 5 + [1] * 5
    assert buffer.items["labels"][:8].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not buffer.items["occupied"][8:].any()
    for label in (0, 1):
        features = spec.net.features(state.net, scaled(data.stored[:11]))
        features = np.asarray(features)[labels == label]
        own = np.asarray(data.stored[:11])[labels == label]
        best = np.linalg.norm(features - features.mean(0), axis=1).argmin()
        for one, slot in ((first, 5 * label), (buffer, 2 * label)):
            np.testing.assert_array_equal(one.items["images"][slot], own[best])
        held = first.items["occupied"][5 * label : 5 * label + 5]
        assert held.sum() == min(5, len(own))
        np.testing.assert_array_equal(
            buffer.items["images"][2 * label + 1], first.items["images"][5 * label + 1]
        )
    with pytest.raises(UserError, match="4 classes have to share it"):
        method.init(dataclasses.replace(spec, capacity=3), KEY)


def test_icarl_distils_and_names_the_nearest_mean(spec) -> None:
    method = ICaRL(wd_reg=0.01)
    state = end_task(method, spec, begun(method, spec), 0)
    items = state.buffer.items
    images = images_of(1, 7).images
    features = np.asarray(spec.net.features(state.net, images))
    kept = np.asarray(spec.net.features(state.net, scaled(items["images"])))
    full = np.asarray(items["occupied"])
    means = [kept[full & (np.asarray(items["labels"]) == label)].mean(0) for label in (0, 1)]
    apart = np.square(features[:, None] - np.stack(means)).sum(-1)
    logits = method.classify(spec, state, state.net, images)
    np.testing.assert_allclose(logits[:, :2], -apart, rtol=1e-3, atol=1e-5)
    assert (logits[:, 2:] < -1e8).all()

    state = state._replace(net=Variables(shifted(state.net.params, 0.1), {}))
    spec = dataclasses.replace(spec, replay=CAPACITY)
    batch = batch_of(1)
    images = jnp.concatenate([batch.images[:-1], scaled(items["images"][full])])
    labels = jnp.concatenate([batch.labels[:-1], items["labels"][full]])
    logits, old = (spec.net.logits(net, images) for net in (state.net, state.memory.old))
    target = jnp.concatenate([jax.nn.sigmoid(old[:, :2]), jax.nn.one_hot(labels, 4)[:, 2:]], 1)
    said = jax.nn.sigmoid(logits)
    expected = -(target * jnp.log(said) + (1 - target) * jnp.log(1 - said)).mean()
    expected += 0.01 * sum((leaf**2).sum() for leaf in jax.tree.leaves(state.net.params))
    loss, _, _ = direction(method, spec, state, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("item_num", [1, 3])
def test_mer_is_reptile_within_and_across_batches(spec, item_num) -> None:
    method = MER(beta=0.5, gamma=0.3, batch_num=2, item_num=item_num)
    state = begun(method, spec)
    held = images_of(0, 3)
    items = {"images": held.stored, "labels": held.labels}
    state = state._replace(buffer=put(state.buffer, jnp.arange(3), items, jnp.int32(3)))
    batch = batch_of(1)
    batch = Batch(*(field[:1] for field in batch[:4]), batch.task)
    found = taken(method, dataclasses.replace(spec, replay=3), state, batch).net.params

    loss_key = jax.random.split(KEY, 3)[0]
    begin = params = state.net.params
    for key in jax.random.split(loss_key, 2):
        drawn = replay(dataclasses.replace(spec, replay=3), state.buffer, key)
        images = jnp.concatenate([drawn.images, batch.images])
        labels = jnp.concatenate([drawn.labels, batch.labels])
        before = params
        for rows in {1: ([0], [1], [2], [3]), 3: ([0], [1, 2, 3])}[item_num]:
            rows = np.array(rows)
            slope = gradient_of(spec, params, images[rows], labels[rows])
            params = jax.tree.map(lambda p, g: p - RATE * g, params, slope)
        params = jax.tree.map(lambda a, b: a + 0.5 * (b - a), before, params)
    expected = jax.tree.map(lambda a, b: a + 0.3 * (b - a), begin, params)
    assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_progressive_net_leaves_its_older_columns_alone(spec) -> None:
    method = PNN()
    state = begun(method, spec)
    params = state.net.params
    first = taken(method, spec, state, batch_of(0))
    second = taken(method, spec, first, batch_of(1))
    nets = [jax.device_get(one.net.params["columns"]) for one in (state, first, second)]
    for changed in range(TASKS):
        for task in range(TASKS):
            same = jax.tree.map(
                lambda a, b, task=task: bool((a[task] == b[task]).all()),
                nets[changed],
                nets[changed + 1],
            )
            assert all(jax.tree.leaves(same)) == (task != changed)

    images = batch_of(0).images
    classify = jax.jit(lambda task: method.classify(spec, state, state.net, images, task))
    zero, one = classify(jnp.int32(0)), classify(jnp.int32(1))
    params = jax.device_get(params)
    columns = [jax.tree.map(lambda leaf, task=task: leaf[task], params) for task in (0, 1)]
    plain = Variables(columns[0]["columns"], {})
    assert_close(zero, spec.net.logits(plain, images))

    def dense(column, layer, x):
        return x @ column["columns"][layer]["kernel"] + column["columns"][layer]["bias"]

    def taken_over(layer, older):
        lateral = columns[1]["lateral"][layer]
        scaled_up = older * lateral["scale"][0]
        reduced = jax.nn.relu(scaled_up @ lateral["reduce"][0] + lateral["bias"])
        return reduced @ lateral["expand"]

    @jax.jit
    def second_column(flat):
        old = [jax.nn.relu(dense(columns[0], "layer_0", flat))]
        old.append(jax.nn.relu(dense(columns[0], "layer_1", old[0])))
        x = jax.nn.relu(dense(columns[1], "layer_0", flat))
        x = jax.nn.relu(dense(columns[1], "layer_1", x) + taken_over("layer_1", old[0]))
        return dense(columns[1], "layer_2", x) + taken_over("layer_2", old[1])

    assert_close(one, second_column(images.reshape(len(images), -1)))


def test_a_progressive_net_is_a_perceptron(spec) -> None:
    def init(key):
        return Variables({"conv1": {"kernel": jnp.zeros((3, 3, 1, 4))}}, {})

    with pytest.raises(UserError, match="multilayer perceptrons only"):
        PNN().init(dataclasses.replace(spec, net=spec.net._replace(init=init)), KEY)
