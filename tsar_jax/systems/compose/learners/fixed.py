"""The learner that does not learn."""

from tsar_jax.plasticity.learner import Learner
from tsar_jax.systems.compose.config import ComposeConfig, refuse_settings
from tsar_jax.systems.compose.learners.types import LEARNERS, WEIGHTS, Component, plain_component
from tsar_jax.systems.compose.perceptron import draw_weights, predict


@LEARNERS.register("fixed")
def fixed(config: ComposeConfig, sizes: tuple[int, ...], labelled: bool) -> Component:
    """Return the learner that does not learn: whatever is gained is gained across lifetimes."""
    del labelled
    refuse_settings(config, "learner fixed", "distribution")
    learner = Learner(
        lambda theta, key: theta[WEIGHTS],
        lambda theta, state, example, key: (state, ()),
        lambda theta, state, inputs: predict(config, state, inputs),
    )
    component = plain_component(
        lambda key: {WEIGHTS: draw_weights(config, key, sizes)}, learner, (WEIGHTS,)
    )
    return component._replace(plastic=False)
