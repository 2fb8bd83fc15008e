"""A toy system for the tests of the loop, and a script that trains it.

Linear regression by Adam on batches drawn with the step's key.
"""

import dataclasses
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tsar_jax import cli
from tsar_jax.training.checkpoints import to_host
from tsar_jax.training.loop import LoopConfig, Trained, train
from tsar_jax.training.run import Run
from tsar_jax.training.system import System


@dataclasses.dataclass(frozen=True)
class ToyConfig(LoopConfig):
    """Flat: the loop's settings and the toy's own."""

    steps: int = 40
    chunk: int = 7
    eval_every: int | None = 10
    checkpoint_every: int | None = 5
    learning_rate: float = 0.01
    """Of Adam."""
    inputs: int = 8
    """Width of the regression."""
    nan_at: int = -1
    """The number of the step (from 1) whose loss is NaN; -1 for none."""
    work: int = 0
    """Idle iterations in every step."""
    model: str = "linear"


class ToyState(NamedTuple):
    weights: dict[str, jax.Array]
    optimiser: optax.OptState
    key: jax.Array
    count: jax.Array
    nothing: jax.Array


class Quiet:
    """Progress that says nothing."""

    def update(self, *_): ...

    def message(self, *_): ...

    def close(self): ...


def make_toy(config: ToyConfig, traces: list[int] | None = None) -> System:
    adam = optax.adam(config.learning_rate)

    def init(key):
        weights = {"kernel": jnp.zeros(config.inputs), "bias": 0.0}
        return ToyState(weights, adam.init(weights), key, 0, jnp.zeros((0, 3)))

    def loss_of(weights, data, rows):
        inputs, targets = data["inputs"][rows], data["targets"][rows]
        return jnp.mean(jnp.square(inputs @ weights["kernel"] + weights["bias"] - targets))

    def rows_of(key, count, data):
        # Not jax.random, which takes XLA a second to compile: the tests compile often.
        bits = jax.random.key_data(key)[0] >> (3 * jnp.arange(count, dtype=jnp.uint32))
        return bits % data["targets"].size

    def step(state, data, key):
        if traces is not None:
            traces.append(1)
        rows = rows_of(key, 4, data)
        loss, gradient = jax.value_and_grad(loss_of)(state.weights, data, rows)
        updates, optimiser = adam.update(gradient, state.optimiser)
        weights = optax.apply_updates(state.weights, updates)
        count = state.count + 1
        loss = jnp.where(count == config.nan_at, jnp.nan, loss)
        noise = jax.random.key_data(state.key)[1].astype(jnp.float32)
        noise = jax.lax.fori_loop(0, config.work, lambda _, x: jnp.sin(x), noise)
        new = ToyState(weights, optimiser, state.key, count, state.nothing)
        return new, {"loss": loss, "accuracy": 0.5, "noise": noise}, {}

    def evaluate(state, data, key):
        return {"test_loss": loss_of(state.weights, data, rows_of(key, 8, data))}

    return System(init, step, evaluate)


def make_data(inputs: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(64, inputs)).astype(np.float32)
    return {"inputs": features, "targets": features.sum(1)}


def train_toy(path: Path, config: ToyConfig, resume: bool = False, traces=None) -> Trained:
    run = Run(path, config, "toy", "cpu", resume)
    data = make_data(config.inputs)
    return train(make_toy(config, traces), data, config, run, progress=Quiet())


def same_bits(first, second) -> bool:
    """Whether two states hold the same bits."""
    one, two = to_host(first), to_host(second)
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and one[name].tobytes() == two[name].tobytes()
        for name in one
    )


def without_times(rows):
    """Rows of metrics without the columns that no two runs share."""
    return [
        {name: row[name] for name in row if name not in ("wall_s", "steps_per_s")} for row in rows
    ]


PRESETS = {
    "cpu": cli.Preset(ToyConfig(), "seconds on a laptop"),
    "long": cli.Preset(ToyConfig(steps=100_000), "minutes"),
}


def main() -> None:
    config, run = cli.parse(
        ToyConfig, PRESETS, experiment="toy", description="A toy.\n\n  python toy.py --steps 3"
    )
    data = make_data(config.inputs)
    print("begin", flush=True)
    trained = train(make_toy(config), data, config, run)
    print("end", trained.step, flush=True)


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
