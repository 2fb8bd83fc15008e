"""Rotation, permutation, cropping and flipping of images on the device."""

import chex
import jax
import jax.numpy as jnp


def rotation_map(degrees: jax.Array, side: int) -> jax.Array:
    """Return the source of every pixel of a rotated image: int32 [side * side], side * side for
    none.

    Counter-clockwise about the centre, nearest neighbour, black from outside, as Pillow rotates.
    """
    angle = jnp.deg2rad(degrees)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    offset = jnp.arange(side) + 0.5 - side / 2
    x, y = offset[None, :], offset[:, None]
    column = jnp.floor(cosine * x - sine * y + side / 2).astype(jnp.int32)
    row = jnp.floor(sine * x + cosine * y + side / 2).astype(jnp.int32)
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    return jnp.where(inside, row * side + column, side * side).reshape(-1)


def permutation_map(key: jax.Array, pixels: int) -> jax.Array:
    """Return a random permutation of pixels: int32 [pixels]."""
    return jax.random.permutation(key, pixels).astype(jnp.int32)


def move_pixels(images: jax.Array, maps: jax.Array) -> jax.Array:
    """Return images whose pixels are those of others in the places that a map names.

    Args:
        images: [N, H, W, 1].
        maps: [H * W], or one for each image [N, H * W]; one past the last pixel is black.
    """
    n, height, width, channels = images.shape
    chex.assert_equal(channels, 1)
    flat = images.reshape(n, height * width)
    if maps.ndim == 1:
        moved = jnp.take(flat, maps, axis=1, mode="fill", fill_value=0)
    else:
        moved = jnp.take_along_axis(flat, maps, axis=1, mode="fill", fill_value=0)
    return moved.reshape(images.shape)


def crop_and_flip(images: jax.Array, key: jax.Array, padding: int = 4) -> jax.Array:
    """Return a random crop of each image, padded with black, to its own size, mirrored with
    probability 1/2.

    images [N, H, W, C].
    """
    n, height, width, _ = images.shape
    row_key, column_key, flip_key = jax.random.split(key, 3)

    def places(key: jax.Array, size: int) -> jax.Array:
        shift = jax.random.randint(key, (n, 1), -padding, padding + 1)
        return shift + jnp.arange(size)

    rows, columns = places(row_key, height), places(column_key, width)
    mirrored = jax.random.bernoulli(flip_key, shape=(n, 1))
    columns = jnp.where(mirrored, columns[:, ::-1], columns)
    # Negative positions would count from the other end, so all outside ones become the same one.
    rows = jnp.where(rows < 0, height, rows)
    columns = jnp.where(columns < 0, width, columns)
    image = jnp.arange(n)[:, None, None]
    return images.at[image, rows[:, :, None], columns[:, None, :]].get(mode="fill", fill_value=0)
