"""A lifetime on a tiny stream: what it measures, and that seeds do not see each other."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilers import AS_USERS_DO

from tsar_jax.data.continual import make_stream
from tsar_jax.data.continual.registry import StreamSettings
from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.networks.mlp import make_mlp
from tsar_jax.plasticity.methods import make_method
from tsar_jax.systems.continual.system import (
    CLASS_IL,
    TASK_IL,
    ContinualConfig,
    Experiment,
    make_spec,
    make_system,
    untrained_accuracy,
)
from tsar_jax.training.loop import make_keys
from tsar_jax.training.programs import make_programs
from tsar_jax.training.seeds import stack_seeds

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def images(count, seed):
    """Four classes, each with its own bright quarter."""
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % 4).astype(np.int32)
    shown = random.integers(0, 120, (count, 6, 6)).astype(np.uint8)
    for image, label in zip(shown, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[3 * row : 3 * row + 3, 3 * column : 3 * column + 3] += 120
    return LabelledImages(shown, labels, ("a", "b", "c", "d"))


DATASET = LabelledDataset("toy", images(160, 0), images(40, 1), "made up")


def experiment_of(method, stream="seq-toy", tasks=2, epochs=4, **options):
    method = make_method(method)
    settings = StreamSettings(batch=8, epochs=epochs, tasks=tasks, joint=method.joint, **options)
    stream = make_stream(stream, DATASET, settings)
    net = make_mlp(stream.image, stream.classes, (16,))
    spec = make_spec(net, stream, learning_rate=0.1, capacity=32, replay=8)
    return Experiment(spec, method, stream, test_batch=15)


def lived(experiment, seeds=2, first=0):
    system = make_system(ContinualConfig(), experiment)
    data = jax.tree.map(jnp.asarray, experiment.stream.data)
    keys, steps = make_keys(first, seeds), experiment.stream.steps
    programs = make_programs(system, data, keys.init, steps, seeds=seeds)
    state, metrics, _ = programs.chunk(programs.init(keys.init), data, keys.step, 0, steps)
    evaluated = programs.evaluate(state, data, keys.evaluate)
    return evaluated, stack_seeds(state), metrics["loss"], data


def test_the_matrix_is_what_the_last_models_get_right() -> None:
    experiment = experiment_of("synergy")
    scores, run_states, losses, _ = lived(experiment)
    accuracy = np.asarray(run_states.accuracy)
    assert np.isfinite(losses).all()
    assert accuracy.shape == (2, 2, 2, 2, 2)
    assert experiment.models == ["working", "semantic"]
    test = DATASET.test
    shown = jnp.asarray(test.images[..., None] / np.float32(255))
    for seed in range(2):
        state = jax.tree.map(lambda a, seed=seed: a[seed], run_states.learner)
        for number, model in enumerate(experiment.method.models(state).values()):
            logits = np.asarray(experiment.spec.net.logits(model, shown))
            for task in range(2):
                of_task = test.labels // 2 == task
                masked = np.where(np.arange(4) // 2 == task, logits, -np.inf)
                for kind, seen in ((CLASS_IL, logits), (TASK_IL, masked)):
                    right = (seen.argmax(-1) == test.labels)[of_task].mean()
                    assert accuracy[seed, 1, task, number, kind] == pytest.approx(right)
    assert float(scores["accuracy"]) == pytest.approx(accuracy[:, 1, :, 1, CLASS_IL].mean())


def test_plain_sgd_forgets_and_replay_does_not() -> None:
    matrices = {}
    for method in ("sgd", "er"):
        _, run_states, _, _ = lived(experiment_of(method))
        matrices[method] = np.asarray(run_states.accuracy)[..., 0, CLASS_IL].mean(0)
    assert matrices["sgd"][0, 0] > 0.9
    assert matrices["sgd"][1, 0] < 0.3
    assert matrices["er"][1].min() > 0.7


def test_a_seed_lives_the_same_life_in_any_company() -> None:
    experiment = experiment_of("er", epochs=1)
    _, together, mean_losses, _ = lived(experiment, seeds=2)
    losses = []
    for seed in range(2):
        _, alone, loss, _ = lived(experiment, seeds=1, first=seed)
        of_seed = jax.tree.map(lambda a, seed=seed: a[seed : seed + 1], together)
        jax.tree.map(np.testing.assert_array_equal, of_seed, alone)
        losses.append(loss)
    np.testing.assert_allclose(np.mean(losses, 0), mean_losses, rtol=1e-6)


def test_a_lost_seed_keeps_its_network_and_the_accuracies_from_before() -> None:
    experiment = experiment_of("derpp", epochs=1)
    _, sound, _, data = lived(experiment, seeds=1)
    keys, steps = make_keys(0, 2), experiment.stream.steps
    system = make_system(ContinualConfig(), experiment)
    programs = make_programs(system, data, keys.init, steps, seeds=2)
    halfway = experiment.stream.ends[0]
    state, _, _ = programs.chunk(programs.init(keys.init), data, keys.step, 0, halfway)
    run_states = state.state
    huge = jax.tree.map(lambda leaf: leaf.at[1].set(1e30), run_states.learner.net)
    frozen = jax.tree.map(lambda leaf: np.array(leaf[1]), huge)
    first = np.array(run_states.accuracy[1])
    state = state._replace(state=run_states._replace(learner=run_states.learner._replace(net=huge)))
    state, metrics, _ = programs.chunk(state, data, keys.step, halfway, steps - halfway)
    assert state.lost.tolist() == [False, True]
    assert np.isfinite(metrics["loss"][: steps - halfway]).all()
    of_seeds = [jax.tree.map(lambda leaf, i=i: leaf[i], state.state) for i in range(2)]
    jax.tree.map(np.testing.assert_array_equal, of_seeds[0], jax.tree.map(lambda a: a[0], sound))
    jax.tree.map(np.testing.assert_array_equal, of_seeds[1].learner.net, frozen)
    np.testing.assert_array_equal(of_seeds[1].accuracy, first)
    scores = programs.evaluate(state, data, keys.evaluate)
    average = experiment.average(of_seeds[0])
    assert float(scores["accuracy"]) == pytest.approx(float(average[CLASS_IL]))


def test_joint_training_is_tested_on_every_task_at_the_end() -> None:
    experiment = experiment_of("joint", stream="rot-toy", tasks=3, epochs=1)
    _, run_states, _, data = lived(experiment, seeds=1)
    accuracy = np.asarray(run_states.accuracy)
    assert accuracy.shape == (1, 1, 3, 1, 2)
    assert np.asarray(run_states.tested).all()
    untrained = np.asarray(untrained_accuracy(experiment, make_keys(0).init[None], data))
    assert untrained.shape == (1, 3)
    assert untrained.mean() < accuracy[..., CLASS_IL].mean()


def test_tests_of_later_tasks_wait() -> None:
    _, run_states, _, _ = lived(experiment_of("sgd", stream="rot-toy", tasks=4, epochs=1), seeds=1)
    tested = np.asarray(run_states.tested)[0]
    assert not np.asarray(run_states.accuracy)[0][~tested].any()
    assert tested.tolist() == [[j <= i + 1 for j in range(4)] for i in range(4)]


@pytest.mark.parametrize("method", ["er", "joint"])
def test_cumulative_tests_are_those_of_all_phases_so_far(method) -> None:
    """Every phase's model on the test images of each set of classes, one by one."""
    experiment = experiment_of(
        method, stream="gcil-toy", tasks=3, epochs=2, phase_size=30, schedule_seed=1
    )
    scores, run_states, _, _ = lived(experiment, seeds=1)
    accuracy = np.asarray(run_states.accuracy)[0, :, :, 0]
    joint = method == "joint"
    tested = [[True] * 3] if joint else [[j <= i for j in range(3)] for i in range(3)]
    assert np.asarray(run_states.tested)[0].tolist() == tested

    state = jax.tree.map(lambda a: a[0], run_states.learner)
    images, labels = experiment.stream.data["test_images"], experiment.stream.data["test_labels"]
    logits = np.asarray(
        experiment.spec.net.logits(state.net, jnp.asarray(images / np.float32(255)))
    )
    counts = experiment.stream.task_classes.sum(1)
    assert counts[0] < counts[-1]
    for phase, seen in enumerate(experiment.stream.task_classes):
        for kind, said in ((CLASS_IL, logits), (TASK_IL, np.where(seen, logits, -np.inf))):
            right = (said.argmax(-1) == labels)[seen[labels]].mean()
            assert accuracy[-1, phase, kind] == pytest.approx(right)
    assert float(scores["accuracy"]) == pytest.approx(accuracy[-1, :, CLASS_IL].mean())


def test_no_step_copies_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk's loop of steps carries one seed's images and makes them only by writing some."""
    lowered = jax.stages.Lowered
    as_users_do = functools.partialmethod(lowered.compile, AS_USERS_DO)
    monkeypatch.setattr(lowered, "compile", as_users_do)
    experiment = experiment_of("er", epochs=1)
    data = jax.tree.map(jnp.asarray, experiment.stream.data)
    keys = make_keys(0, 3)
    programs = make_programs(
        make_system(ContinualConfig(), experiment), data, keys.init, 4, seeds=3
    )
    text = programs.compile_chunk(programs.init(keys.init), data, keys.step).as_text()
    (body,) = re.findall(r"= \(.*u8\[32,6,6,1\].*\) while\(.* body=(%[\w.-]+)", text)
    (steps,) = re.findall(rf"^{re.escape(body)} \(.*?^}}", text, re.DOTALL | re.MULTILINE)
    made = re.findall(r"= u8\[32,6,6,1\]\S* ([\w-]+)\(.*?(calls=\S+|$)", steps, re.MULTILINE)
    assert {operation for operation, _ in made} == {"get-tuple-element", "fusion"}
    called = {calls for operation, calls in made if operation == "fusion"}
    assert all("scatter" in calls for calls in called), called
