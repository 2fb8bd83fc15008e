"""What holds for the system of every family: one type, several seeds, resuming, bad input."""

import dataclasses
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsar_jax.data.continual import make_stream
from tsar_jax.data.continual.registry import StreamSettings
from tsar_jax.data.types import LabelledDataset, LabelledImages
from tsar_jax.errors import UserError
from tsar_jax.networks.mlp import make_mlp
from tsar_jax.plasticity.methods import make_method
from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.streams import find_stream
from tsar_jax.systems.compose.system import make_system as make_composed
from tsar_jax.systems.continual.system import ContinualConfig, Experiment, make_spec
from tsar_jax.systems.continual.system import make_system as make_continual
from tsar_jax.systems.episodic.anml import AnmlConfig
from tsar_jax.systems.episodic.anml import make_system as make_anml
from tsar_jax.systems.episodic.system import check_data as check_episodic
from tsar_jax.systems.episodic.tsar import TsarConfig
from tsar_jax.systems.episodic.tsar import make_system as make_tsar
from tsar_jax.systems.hebbian.evolution import Evolution
from tsar_jax.systems.hebbian.policy import PolicyConfig
from tsar_jax.systems.hebbian.system import HebbianConfig
from tsar_jax.systems.hebbian.system import make_system as make_hebbian
from tsar_jax.systems.learned_rules.system import LearnedRuleConfig
from tsar_jax.systems.learned_rules.system import check_data as check_rules
from tsar_jax.systems.learned_rules.system import make_system as make_rules
from tsar_jax.training.checkpoints import load_checkpoint, load_seeds
from tsar_jax.training.loop import LoopConfig, train
from tsar_jax.training.run import Run
from tsar_jax.training.system import System, objective_of

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LOOP = {"steps": 2, "chunk": 1, "eval_every": 2, "checkpoint_every": 1, "seed": 3, "seeds": 1}
DRAWINGS = {
    split: np.random.default_rng(0).integers(0, 256, (8, 20, 28, 28)).astype(np.uint8)
    for split in ("background", "evaluation")
}
EPISODES: dict[str, Any] = {
    **{"outputs": 8, "train_classes": 8, "tasks": 1, "inner_updates": 2, "remember": 2},
    **{"eval_classes": 2, "eval_runs": 1, "eval_rates": (1e-3,)},
    "microbatch": None,  # all at once compiles faster
}


class Kind(NamedTuple):
    """config: of a toy. make: (config) -> its system. data: the system's."""

    config: LoopConfig
    make: Callable[[Any], System]
    data: Any

    @property
    def system(self) -> System:
        return self.make(self.config)


def episodic(config_class: Any, make: Any, **settings: Any) -> Kind:
    return Kind(config_class(**LOOP, **EPISODES, **settings), make, DRAWINGS)


def learned_rules() -> Kind:
    config = LearnedRuleConfig(
        **LOOP, classes=2, learn=3, query=2, hidden=(4,), fixed_images=False, replacement=False
    )
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 3, 3)).astype(np.uint8)
    return Kind(config, lambda config: make_rules(config, 4, 9), images)


def hebbian(environment: str, *, rule: str = "ABCD_lr", standardised=False, **evolution) -> Kind:
    config = HebbianConfig(
        **LOOP,
        environment=environment,
        limit=5,
        evaluations=2,
        policy=PolicyConfig(rule=rule, hidden=(3,), standardised=standardised),
        evolution=Evolution(population=4, **evolution),
    )
    return Kind(config, make_hebbian, ())


def noise_experiment(method: str, kind: str = "class") -> Experiment:
    """A method on a stream of two tasks of noise, which says that it is of a kind."""
    rng = np.random.default_rng(0)

    def images(count: int) -> LabelledImages:
        shown = rng.integers(0, 256, (count, 4, 4)).astype(np.uint8)
        return LabelledImages(shown, np.arange(count, dtype=np.int32) % 4, tuple("abcd"))

    dataset = LabelledDataset("noise", images(16), images(8), "made here")
    stream = make_stream("seq-noise", dataset, StreamSettings(batch=8, epochs=1, tasks=2))
    net = make_mlp(stream.image, stream.classes, (4,))
    spec = make_spec(net, stream, learning_rate=0.1, capacity=8, replay=4)
    return Experiment(spec, make_method(method), stream._replace(kind=kind))


def continual() -> Kind:
    config, experiment = ContinualConfig(**LOOP, method="er"), noise_experiment("er")
    return Kind(config, lambda config: make_continual(config, experiment), experiment.stream.data)


def composed(**choices: str) -> Kind:
    """A composition on images of nine pixels."""
    config = ComposeConfig(
        **LOOP,
        **{"encoder": "pixels", "modulator_encoder": "pixels", "hidden": (3,), "beta": 1.0},
        **{"classes": 2, "learn": 2, "query": 2, "outputs": 6, "eval_classes": 2},
        **{"eval_lifetimes": 2, "population": 4, "segment": 2, "buffer": 5},
        **choices,
    )
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 3, 3)).astype(np.uint8)

    def make(config: ComposeConfig) -> System:
        return make_composed(config, find_stream(config)._replace(shape=(3, 3)))

    return Kind(config, make, {"train": images, "test": images[::-1]})


ANML = {"channels": 2, "gate_channels": 2, "hidden_features": 4}
KINDS: dict[str, Callable[[], Kind]] = {
    **{
        model: lambda model=model: episodic(AnmlConfig, make_anml, model=model, **ANML)
        for model in ("anml", "oml", "ungated")
    },
    **{
        name: lambda model=model: episodic(
            TsarConfig, make_tsar, model=model, channels=2, regulator_channels=2
        )
        for name, model in {
            "tsar": "tsar",
            "baseline anml": "anml",
            "baseline unregulated": "unregulated",
        }.items()
    },
    "learned rules": learned_rules,
    "hebbian": lambda: hebbian("cart_pole"),
    "hebbian by SNES": lambda: hebbian("cart_pole", strategy="SNES", optimiser="adam"),
    "hebbian, gru": lambda: hebbian("cart_pole", rule="gru", standardised=True),
    "hebbian on the host": lambda: hebbian("CartPole-v1"),
    "continual": continual,
    "composed": lambda: composed(modulation="activations"),
    "composed, by parts": lambda: composed(learner="replay", meta_optimiser="pes"),
}


def as_parameter(name: str) -> Any:
    """A kind as a fixture's parameter; those whose code is mostly that of anml and tsar, slow."""
    slow = name.startswith("baseline") or name in ("oml", "ungated")
    return pytest.param(name, marks=[pytest.mark.slow] if slow else [])


@pytest.fixture(scope="module", params=[as_parameter(name) for name in KINDS])
def kind(request) -> Kind:
    if request.param == "hebbian on the host":
        pytest.importorskip("gymnasium")
    return KINDS[request.param]()


class Quiet:
    """Progress that says nothing."""

    def update(self, *_: Any) -> None: ...

    def message(self, *_: Any) -> None: ...

    def close(self) -> None: ...


def trained(kind: Kind, path, resume: bool = False, **settings: Any):
    config = dataclasses.replace(kind.config, **settings)
    run = Run(path, config, "toy", "cpu", resume)
    return train(kind.make(config), kind.data, config, run, progress=Quiet())


@pytest.fixture(scope="module")
def one(kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("one")
    return path, trained(kind, path)


def test_a_step_keeps_the_state_s_shapes_and_returns_scalars_and_arrays(kind) -> None:
    system = kind.make(kind.config)
    assert isinstance(system, System)
    key = jax.random.key(0)
    state = jax.eval_shape(system.init, key)
    data = jax.tree.map(jnp.asarray, kind.data)
    if system.host_metrics is not None:
        state = system.init(key)
        after, scalars, arrays = system.step(state, data, key)
        assert set(system.host_metrics.step) == set(scalars)
        evaluated = system.evaluate(state, data, key)
        assert set(system.host_metrics.evaluate) == set(evaluated)
    else:
        after, scalars, arrays = jax.eval_shape(system.step, state, data, key)
        evaluated = jax.eval_shape(system.evaluate, state, data, key)
        many = jax.eval_shape(jax.vmap(system.step, (None, None, 0)), state, data, key[None])
        jax.tree.map(lambda a, b: chex.assert_shape(a, (1, *b.shape)), many[0], after)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    for value in (*scalars.values(), *evaluated.values()):
        assert np.shape(value) == ()
    assert objective_of(scalars)
    assert isinstance(arrays, dict)


def test_training_is_a_function_of_the_seed_and_resumes_to_the_same_bits(
    kind, one, tmp_path
) -> None:
    path, whole = one
    shutil.copytree(path, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "checkpoints" / "2")  # as if it had been killed before
    resumed = trained(kind, tmp_path / "half", resume=True)
    chex.assert_trees_all_equal(jax.device_get(resumed.state), jax.device_get(whole.state))
    again = trained(kind, tmp_path / "again")
    chex.assert_trees_all_equal(jax.device_get(again.state), jax.device_get(whole.state))
    state, step = load_checkpoint(path, like=whole.state)
    assert step == 2
    chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(whole.state))


def test_a_seed_of_two_is_what_it_is_alone(kind, one, tmp_path) -> None:
    _, alone = one
    trained(kind, tmp_path / "two", seed=kind.config.seed - 1, seeds=2)
    states, lost, step = load_seeds(tmp_path / "two", like=alone.state)
    assert (lost, step) == ([], 2)
    second = jax.tree.map(lambda leaf: leaf[1], states)

    def close(a, b) -> None:
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-3, atol=1e-5)

    jax.tree.map(close, second, alone.state)
    first = jax.tree.leaves(jax.tree.map(lambda leaf: leaf[0], states))
    assert not all(map(np.array_equal, first, jax.tree.leaves(second)))


def test_bad_settings_are_refused_before_anything_is_written(kind, tmp_path) -> None:
    for settings in ({"seeds": 0}, {"seed": -1}, {"steps": -1}, {"chunk": 0}):
        with pytest.raises(UserError, match=next(iter(settings))):
            trained(kind, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def small(config_class: Any, **settings: Any) -> Any:
    return config_class(**LOOP, **{**EPISODES, **settings})


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "anml: model": (lambda: small(AnmlConfig, model="amnl"), "no model 'amnl'.*nearest is anml"),
    "anml: order": (
        lambda: small(AnmlConfig, order="frist"),
        "no order of the meta-gradient 'frist'.*nearest is first",
    ),
    "anml: pixels": (lambda: small(AnmlConfig, pixels="units"), "no scale of pixels 'units'"),
    "anml: what learns": (
        lambda: start_of(make_anml(small(AnmlConfig, **ANML, plastic=("hed",))), DRAWINGS),
        "No parameter is called 'hed'.*nearest is head",
    ),
    "anml: data": (
        lambda: check_episodic(small(AnmlConfig, train_classes=9, outputs=9), DRAWINGS),
        "train_classes is 9, but there are only 8 background classes",
    ),
    "anml: size of images": (
        lambda: check_episodic(
            small(AnmlConfig), {name: images[..., :27] for name, images in DRAWINGS.items()}
        ),
        "background images are 28x27, but the networks take 28x28",
    ),
    "tsar: model": (lambda: small(TsarConfig, model="oml"), "no model 'oml': .* anml, unregulated"),
    "tsar: layers": (
        lambda: small(TsarConfig, regulated=("block_9",)),
        "no layer to regulate 'block_9'",
    ),
    "learned rules: terms": (
        lambda: make_rules(LearnedRuleConfig(terms=("oija",)), 4, 9),
        "no term 'oija'.*nearest is oja",
    ),
    "learned rules: feedback": (
        lambda: LearnedRuleConfig(feedback="symm"),
        "no feedback 'symm'.*nearest is sym",
    ),
    "learned rules: split": (lambda: LearnedRuleConfig(split="tset"), "no split 'tset'"),
    "learned rules: memory": (
        lambda: LearnedRuleConfig(memory="stored"),
        "no remat strategy 'stored'.*nearest is store",
    ),
    "learned rules: data": (
        lambda: check_rules(LearnedRuleConfig(learn=3, query=2), np.zeros((4, 4, 3, 3), np.uint8)),
        r"learn \+ query is 5, but there are only 4 images of a class",
    ),
    "hebbian: environment": (
        lambda: make_hebbian(HebbianConfig(environment="cart_pol")),
        "no environment 'cart_pol': the nearest are cart_pole",
    ),
    "hebbian: rule": (lambda: PolicyConfig(rule="ABCDE"), "no Hebbian rule 'ABCDE'"),
    "hebbian: population": (lambda: Evolution(population=3), "population must be an even number"),
    "hebbian: strategy": (
        lambda: hebbian("cart_pole", strategy="SNESS").system,
        "no strategy 'SNESS'.*nearest is SNES",
    ),
    "hebbian: optimiser": (
        lambda: hebbian("cart_pole", optimiser="adamm").system,
        "no optimiser 'adamm'.*nearest is adam",
    ),
    "hebbian: optimiser that needs the loss": (
        lambda: hebbian("cart_pole", optimiser="polyak_sgd").system,
        "no optimiser 'polyak_sgd'",
    ),
    "hebbian: optimiser of a strategy that has none": (
        lambda: hebbian("cart_pole", strategy="CMA_ES", optimiser="adam").system,
        "CMA_ES moves its centre without an optimiser",
    ),
    "continual: release": (
        lambda: ContinualConfig(published="cls-er"),
        "no release 'cls-er'.*nearest is clser",
    ),
    "continual: stream": (
        lambda: make_continual(
            ContinualConfig(method="icarl"), noise_experiment("icarl", kind="general")
        ),
        "icarl cannot learn seq-noise, since it has no task boundaries",
    ),
}


def start_of(system: System, data: Any) -> Any:
    key = jax.random.key(0)
    return jax.eval_shape(system.step, jax.eval_shape(system.init, key), data, key)


@pytest.mark.parametrize("what", REFUSED)
def test_settings_and_data_of_a_family_that_cannot_be_are_named_in_a_sentence(what) -> None:
    make, sentence = REFUSED[what]
    if what == "hebbian: environment":
        pytest.importorskip("gymnasium")
    with pytest.raises(UserError, match=sentence) as error:
        make()
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)
