"""Live with Hebbian weights in a gymnasium environment, and choose the rule that earns most."""

import gymnasium
import jax

from tsar_jax.systems.hebbian.policy import PolicyConfig, make_policy

env = gymnasium.make("CartPole-v1")
config = PolicyConfig(rule="AD_lr", hidden=(16,))
policy = make_policy(config, env.observation_space.shape, int(env.action_space.n))
update = jax.jit(policy.learner.update)


def lifetime(coefficients, seed):
    """Return the steps of a lifetime, from random weights that change at each of them."""
    theta = policy.prepare(coefficients)
    weights = policy.learner.init(theta, jax.random.key(seed))
    observation, _ = env.reset(seed=seed)
    steps, over = 0, False
    while not over:
        weights, outputs = update(theta, weights, observation)
        observation, _, fallen, truncated, _ = env.step(int(outputs.argmax()))
        steps, over = steps + 1, fallen or truncated
    return steps


rules = [policy.init(jax.random.key(number)) for number in range(60)]
missed = [500 - sum(lifetime(rule, seed) for seed in range(2)) / 2 for rule in rules]
print(f"of 500 steps the first rule misses {missed[0]:.1f}, and the best one {min(missed):.1f}")
