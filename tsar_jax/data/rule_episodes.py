"""Episodes for learned plasticity rules: a few classes of handwriting, learned image by image.

Shervani-Tabar and Rosenbaum (2023), arXiv 2210.16414.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tsar_jax.data.episodes import draw_images, draw_without_replacement

Examples = tuple[jax.Array, jax.Array]
"""Images float [.., pixels] of 0..1, and their labels."""


class RuleEpisode(NamedTuple):
    """Data of one episode: examples to learn, in order, and a query set.

    images float [.., pixels] of 0..1, labels: the classes' own numbers.
    """

    examples: Examples
    query: Examples


def draw_rule_episode(
    key: jax.Array,
    images: jax.Array,
    *,
    classes: int,
    learn: int,
    query: int,
    fixed_images: bool,
    replacement: bool,
) -> RuleEpisode:
    """Draw an episode: a few classes, learned image by image in mixed order.

    A class that is drawn twice has the same images twice, so that none of them is both learned and
    scored.

    Args:
        key: of the draw.
        images: uint8 [classes, per_class, H, W].
        classes: of the episode, among those of the images.
        learn, query: images of a class to learn and to score.
        fixed_images: always take a class's first ones; otherwise random ones.
        replacement: draw the classes with replacement.
    """
    population, per_class = images.shape[:2]
    class_key, image_key, order_key = jax.random.split(key, 3)
    images_per_class = learn + query
    if replacement:
        chosen = jax.random.randint(class_key, (classes,), 0, population)
    else:
        chosen = draw_without_replacement(class_key, population, classes)
    if fixed_images:
        rows = jnp.tile(jnp.arange(images_per_class), (classes, 1))
    else:
        rows = draw_images(image_key, classes, per_class, images_per_class)
        first_drawn = jnp.argmax(chosen[:, None] == chosen, axis=1)
        rows = rows[first_drawn]

    def gather(rows: jax.Array) -> Examples:
        """Return rows [classes, n] of each class as examples, class after class."""
        pixels = images[chosen[:, None], rows].reshape(rows.size, -1)
        return pixels.astype(jnp.float32) / 255, jnp.repeat(chosen, rows.shape[1])

    order = jax.random.permutation(order_key, classes * learn)
    shuffled = jax.tree.map(lambda leaf: leaf[order], gather(rows[:, :learn]))
    return RuleEpisode(shuffled, gather(rows[:, learn:]))
