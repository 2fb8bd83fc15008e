"""What if ANML's gate modulated a local rule, evolved instead of differentiated?"""

import jax

from tsar_jax.systems.compose.config import ComposeConfig
from tsar_jax.systems.compose.streams import find_stream
from tsar_jax.systems.compose.system import make_system

config = ComposeConfig(
    learner="rule", modulation="activations", meta_optimiser="openai_es", meta_rate=0.02, classes=3
)
stream = find_stream(config)  # characters of Omniglot, one class after another
system, (data, _) = make_system(config, stream), stream.load()


def generation(state, key):
    state, metrics, _ = system.step(state, jax.device_put(data), key)
    return state, metrics["loss"]


keys = jax.random.split(jax.random.key(0), 20)
state, losses = jax.lax.scan(generation, system.init(jax.random.key(1)), keys)
print(f"loss {losses[:3].mean():.2f}, then {losses[-3:].mean():.2f}")
