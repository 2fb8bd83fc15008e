"""Compare the compiled car racing's images, and how its car moves, with Gymnasium's.

Examples:
  tsar-jax run car_racing_views --out results/car_racing
  tsar-jax run car_racing_views --out FOLDER --races 10 --frames 400

Both cars drive the same tracks with the same random actions. Prints how far apart positions and
levels (0 to 255) are, and writes OUT/figures/views.png and .pdf: Gymnasium's image, ours, and four
times their difference.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsar_jax import cli
from tsar_jax.environments.car_racing.racing import FRAMES_PER_SECOND, observe, reset_on_track, step
from tsar_jax.environments.car_racing.track import given_track
from tsar_jax.environments.own import INSTALL
from tsar_jax.errors import UserError, check_positive, check_seed
from tsar_jax.plots.style import new_figure, save_figure, styled
from tsar_jax.training.progress import say_compiling
from tsar_jax.training.run import check_writable

HOLD = 15
"""Number of frames for which an action is held."""
SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The races to compare."""

    out: Path
    """Folder to write to."""
    races: int = 6
    """Tracks, each with actions of its own."""
    frames: int = 200
    """Frames of each race; images are compared at every tenth after the start's zoom."""
    seed: int = 3
    """Seed of the first track; the others follow."""

    def __post_init__(self) -> None:
        check_positive(self, "races")
        check_seed(self, count=self.races)
        if self.frames < FRAMES_PER_SECOND + 10:
            raise UserError(
                f"frames must be at least {FRAMES_PER_SECOND + 10}, but is {self.frames}: in the "
                "first second the view zooms."
            )


class Pair(NamedTuple):
    """Images of one frame of a race, uint8 [96, 96, 3], and the distance between the cars in m."""

    theirs: np.ndarray
    ours: np.ndarray
    apart: float

    @property
    def difference(self) -> np.ndarray:
        """Return the absolute difference of the images' levels [96, 96, 3]."""
        return np.abs(self.theirs.astype(float) - self.ours)


def main() -> None:
    arguments = cli.parse_settings(Arguments, experiment="car_racing_views", description=__doc__)
    check_writable(arguments.out, "--out")
    say_compiling()
    pairs = compare(arguments)
    differences = np.array([pair.difference.mean() for pair in pairs])
    grass = np.mean([(_grass(pair.theirs) == _grass(pair.ours)).mean() for pair in pairs])
    apart = np.array([pair.apart for pair in pairs])
    print(f"{len(pairs)} moments of {arguments.races} races:")
    print(
        f"levels apart:  mean {differences.mean():.2f}, worst image {differences.max():.2f} of 255"
    )
    print(f"road or grass: {grass:.2%} of the pixels ahead agree")
    print(f"cars apart:    median {np.median(apart):.1e} m, at most {apart.max():.1e} m")
    print(f"figure:        {draw(pairs, arguments.out / 'figures' / 'views')}")


def compare(arguments: Arguments) -> list[Pair]:
    """Drive both cars through every race and return the pairs of images."""
    try:
        from gymnasium.envs.box2d.car_racing import CarRacing
    except Exception as error:  # gymnasium's own, where it is there but Box2D is not
        raise UserError(f"Gymnasium's car racing cannot be imported: {INSTALL}.") from error
    env = CarRacing()
    begin, advance, see = jax.jit(reset_on_track), jax.jit(step), jax.jit(observe)
    pairs = []
    for seed in range(arguments.seed, arguments.seed + arguments.races):
        env.reset(seed=seed)
        track = np.array(env.track)
        race = begin(given_track(track[:, 2:], track[:, 1], crossing=True))
        rng = np.random.default_rng(seed)
        for frame in range(arguments.frames):
            if frame % HOLD == 0:
                brake = 0 if rng.random() < 0.75 else rng.random()
                action = np.array([rng.uniform(-0.3, 0.3), rng.uniform(0, 0.6), brake], np.float32)
            theirs, _, over, _, _ = env.step(action)
            race, _, _ = advance(race, jnp.asarray(action))
            if over:
                break
            if frame > FRAMES_PER_SECOND and frame % 10 == 0:
                assert env.car is not None
                away = np.linalg.norm(np.array(env.car.hull.position) - race.car.position)
                pairs.append(Pair(theirs, np.asarray(see(race)), float(away)))
    return pairs


def _grass(image: np.ndarray) -> np.ndarray:
    """Return where the field ahead of the car [64, 96] is greener than red."""
    field = image[:64].astype(int)
    return field[..., 1] > field[..., 0] + 50


@styled()
def draw(pairs: list[Pair], path: Path) -> Path:
    """Write a figure of the few pairs that show most road, and return its path."""
    by_road = sorted(pairs, key=lambda pair: _grass(pair.theirs).mean())
    chosen = by_road[: 4 * SHOWN : 4] if len(pairs) >= 4 * SHOWN else by_road[:SHOWN]
    figure, axes = new_figure(3, len(chosen), width=7, height=5.6, squeeze=False)
    rows = ("Gymnasium", "compiled", "difference x 4")
    for column, pair in zip(np.asarray(axes).T, chosen, strict=True):
        images = pair.theirs, pair.ours, np.clip(4 * pair.difference, 0, 255).astype(np.uint8)
        for panel, image, name in zip(column, images, rows, strict=True):
            panel.imshow(image, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            if pair is chosen[0]:
                panel.set_ylabel(name)
    return save_figure(figure, path)[0]


if __name__ == "__main__":
    cli.run_main(main)
