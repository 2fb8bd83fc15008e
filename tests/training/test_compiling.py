"""What is compiled at the start of a training, how often, and that this is said before."""

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from toy_training import ToyConfig, make_data, make_toy

from tsar_jax.training.loop import train
from tsar_jax.training.run import Run


class Said:
    """Progress that keeps what is said."""

    def __init__(self):
        self.lines = []

    def update(self, step, *_):
        self.lines.append(step)

    def message(self, text):
        self.lines.append(text)

    def close(self): ...


def test_compiling_is_said_before_anything_is_traced(tmp_path):
    config = ToyConfig(steps=2, chunk=2)
    for resume in (False, True):
        said, traced = Said(), []
        toy = make_toy(config)

        def step(*arguments, said=said, traced=traced, toy=toy):
            traced.append(list(said.lines))
            return toy.step(*arguments)

        system = toy._replace(step=step)
        run = Run(tmp_path / "run", config, "toy", "cpu", resume)
        train(system, make_data(config.inputs), config, run, progress=said)
        assert traced[0][-1] == "compiling ..."


class FirstProgress(Exception):
    """The first chunk is over."""


class UntilFirstProgress(Said):
    def update(self, *_):
        raise FirstProgress


def start(folder, system, config):
    """Train until the first progress."""
    with pytest.raises(FirstProgress):
        train(
            system,
            make_data(config.inputs),
            config,
            Run(folder, config, "toy"),
            progress=UntilFirstProgress(),
        )


def test_every_function_is_traced_once_before_the_first_progress(tmp_path):
    config, traced = ToyConfig(steps=2, chunk=1), []
    toy = make_toy(config)

    def counted(name):
        def function(*arguments):
            traced.append(name)
            return getattr(toy, name)(*arguments)

        return function

    system = toy._replace(**{name: counted(name) for name in ("init", "step", "evaluate")})
    start(tmp_path / "run", system, config)
    assert sorted(traced) == ["evaluate", "init", "step"]


@pytest.fixture
def cache_events(tmp_path, monkeypatch):
    """Names of what happens in a cache of compiled programs that is empty at first."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: jax.config.values[name] for name in names}
    for name, value in zip(names, (str(tmp_path / "cache"), 0.0, 0), strict=True):
        jax.config.update(name, value)
    reset_cache()
    events, listening = [], [True]
    # A listener cannot be taken away again, but it can stop listening.
    jax.monitoring.register_event_listener(lambda name, **_: listening and events.append(name))
    yield events
    listening.clear()
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


MISSES, HITS = "/jax/compilation_cache/cache_misses", "/jax/compilation_cache/cache_hits"
MOST_PROGRAMS = 5
"""For the keys, the first state and the chunk, and some to spare."""


def test_a_second_start_compiles_nothing_and_needs_few_programs(tmp_path, cache_events):
    config = ToyConfig(steps=2, chunk=1)
    counts = []
    for folder in ("first", "second"):
        jax.clear_caches()
        cache_events.clear()
        start(tmp_path / folder, make_toy(config), config)
        counts.append((cache_events.count(MISSES), cache_events.count(HITS)))
    (missed, _), (missed_again, hits) = counts
    assert missed > 0
    assert missed_again == 0
    assert hits <= MOST_PROGRAMS
