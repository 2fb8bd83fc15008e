"""Many races in lockstep, frame by frame and spread over devices, for drivers outside JAX."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tsar_jax.devices import on_each_device, one_by_one
from tsar_jax.environments.car_racing.racing import Race, observe, reset, step


class Frame(NamedTuple):
    """Result of a frame for each car.

    images: uint8 [count, side, side, 3].
    rewards: float [count].
    done: bool [count], whether the race is over.
    laps: bool [count], whether the race is over with a completed lap.
    """

    images: np.ndarray
    rewards: np.ndarray
    done: np.ndarray
    laps: np.ndarray


class Fleet:
    """Races of `count` cars, each on a track of its own.

    Args:
        count: number of cars.
        side: pixels of their images.
        zooms: whether the first second of a race zooms in.
    """

    def __init__(self, count: int, side: int, *, zooms: bool) -> None:
        self.count = count
        self._devices = jax.local_device_count()
        self._cars_per_device = math.ceil(count / self._devices)
        observe_race = partial(observe, side=side, zooms=zooms)

        def restart(
            maps: jax.Array, moving: Race, cars: jax.Array, keys: jax.Array, number: jax.Array
        ) -> Any:
            """Replace the races of the first `number` of these cars by new ones."""
            races = one_by_one(lambda key: reset(jax.random.wrap_key_data(key)))(keys)
            fresh = races.circuit.maps[:, 0], _without_maps(races, cars)

            def put(turn: jax.Array, fleet: Any) -> Any:
                return jax.tree.map(
                    lambda old, new: old.at[cars[turn]].set(new[turn]), fleet, fresh
                )

            return lax.fori_loop(0, number, put, (maps, moving))

        def look(maps: jax.Array, moving: Race) -> jax.Array:
            return one_by_one(lambda race: observe_race(_with_maps(race, maps)))(moving)

        def advance(maps: jax.Array, moving: Race, actions: jax.Array) -> Any:
            def frame(pair: tuple[Race, jax.Array]) -> Any:
                race, reward, done = step(_with_maps(pair[0], maps), pair[1])
                # A circuit does not change, and returning it would copy it.
                return _without_circuit(race), reward, done

            moved, rewards, done = one_by_one(frame)((moving, actions))
            moved = moved._replace(circuit=moving.circuit)
            # Rendered after all cars have moved: else XLA recomputes the step for every pixel.
            return moved, look(maps, moved), rewards, done

        self._restart = jax.jit(on_each_device(restart), donate_argnums=(0, 1))
        self._advance = jax.jit(on_each_device(advance), donate_argnums=1)
        self._look = jax.jit(on_each_device(look))

        def empty(_: jax.Array) -> Any:
            """Return zeros in the shape of all races, before any has begun."""
            race = jax.eval_shape(reset, jax.random.key(0))
            maps, moving = race.circuit.maps, _without_maps(race, race.circuit.number)
            one = jax.ShapeDtypeStruct(maps.shape[1:], maps.dtype), moving
            return jax.tree.map(
                lambda leaf: jnp.zeros((self._cars_per_device, *leaf.shape), leaf.dtype), one
            )

        self._maps, self._moving = jax.jit(on_each_device(empty))(jnp.arange(self._devices))

    def reset(self, cars: np.ndarray, keys: jax.Array) -> None:
        """Begin a new race for each of these cars (numbers int [n]), from keys [n]."""
        by_device = [
            np.flatnonzero(cars // self._cars_per_device == d) for d in range(self._devices)
        ]
        # Padding to powers of two keeps the number of compiled sizes small.
        padded_size = min(self._cars_per_device, 1 << (max(map(len, by_device)) - 1).bit_length())
        places = np.zeros((self._devices, padded_size), int)
        chosen = np.zeros((self._devices, padded_size), int)
        for device, own in enumerate(by_device):
            places[device, : len(own)] = cars[own] % self._cars_per_device
            chosen[device, : len(own)] = own
        data = jax.random.key_data(keys)[chosen]
        numbers = np.array([len(own) for own in by_device])
        self._maps, self._moving = self._restart(self._maps, self._moving, places, data, numbers)

    def look(self) -> np.ndarray:
        """Return the current images: uint8 [count, side, side, 3]."""
        return self._flat(self._look(self._maps, self._moving))

    def advance(self, actions: np.ndarray) -> Frame:
        """Advance every race by a frame. actions: float [count, 3], as `step` takes them."""
        room = self._devices * self._cars_per_device
        padded = np.resize(np.asarray(actions, np.float32), (room, 3))
        shares = padded.reshape(self._devices, self._cars_per_device, 3)
        self._moving, *seen = self._advance(self._maps, self._moving, shares)
        return Frame(*map(self._flat, (*seen, self._moving.lap)))

    def _flat(self, leaf: jax.Array) -> np.ndarray:
        """Return a leaf [devices, cars per device, ...] as [count, ...], without the padding."""
        whole = np.asarray(leaf)
        return whole.reshape(-1, *whole.shape[2:])[: self.count]


def _without_maps(race: Race, number: Any) -> Race:
    nothing: Any = ()
    return race._replace(circuit=race.circuit._replace(maps=nothing, number=number))


def _with_maps(race: Race, maps: jax.Array) -> Race:
    return race._replace(circuit=race.circuit._replace(maps=maps))


def _without_circuit(race: Race) -> Race:
    nothing: Any = ()
    return race._replace(circuit=nothing)
