"""Many races in lockstep, frame by frame and spread over devices: for drivers outside JAX."""

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
    """What came of a frame, for each car: images uint8 [count, side, side, 3], rewards, whether its
    race is over, and whether with a lap."""

    images: np.ndarray
    rewards: np.ndarray
    over: np.ndarray
    laps: np.ndarray


class Fleet:
    """`count` cars, each on a track of its own.

    side: pixels of their images; zooms: whether the first second of a race zooms in.
    """

    def __init__(self, count: int, side: int, *, zooms: bool) -> None:
        self.count = count
        self._devices = jax.local_device_count()
        self._share = math.ceil(count / self._devices)
        see = partial(observe, side=side, zooms=zooms)

        def restart(
            maps: jax.Array, moving: Race, cars: jax.Array, keys: jax.Array, number: jax.Array
        ) -> Any:
            """New races for the first `number` of these cars."""
            races = one_by_one(lambda key: reset(jax.random.wrap_key_data(key)))(keys)
            fresh = races.circuit.maps[:, 0], _without_maps(races, cars)

            def put(turn: jax.Array, fleet: Any) -> Any:
                return jax.tree.map(
                    lambda old, new: old.at[cars[turn]].set(new[turn]), fleet, fresh
                )

            return lax.fori_loop(0, number, put, (maps, moving))

        def look(maps: jax.Array, moving: Race) -> jax.Array:
            return one_by_one(lambda race: see(_with_maps(race, maps)))(moving)

        def advance(maps: jax.Array, moving: Race, actions: jax.Array) -> Any:
            def frame(each: tuple[Race, jax.Array]) -> Any:
                race, reward, over = step(_with_maps(each[0], maps), each[1])
                # A circuit does not change: to hand it on would be to copy it.
                return _without_circuit(race), reward, over

            moved, rewards, over = one_by_one(frame)((moving, actions))
            moved = moved._replace(circuit=moving.circuit)
            # After all of them have moved: XLA would compute, for every pixel, the frame again.
            return moved, look(maps, moved), rewards, over

        self._restart = jax.jit(on_each_device(restart), donate_argnums=(0, 1))
        self._advance = jax.jit(on_each_device(advance), donate_argnums=1)
        self._look = jax.jit(on_each_device(look))

        def empty(_: jax.Array) -> Any:
            """Room for all races, before any has begun."""
            race = jax.eval_shape(reset, jax.random.key(0))
            maps, moving = race.circuit.maps, _without_maps(race, race.circuit.number)
            one = jax.ShapeDtypeStruct(maps.shape[1:], maps.dtype), moving
            return jax.tree.map(lambda leaf: jnp.zeros((self._share, *leaf.shape), leaf.dtype), one)

        self._maps, self._moving = jax.jit(on_each_device(empty))(jnp.arange(self._devices))

    def begin(self, cars: np.ndarray, keys: jax.Array) -> None:
        """A new race for each of these cars (numbers [n]), from keys [n]."""
        by_device = [np.flatnonzero(cars // self._share == d) for d in range(self._devices)]
        # Few sizes, of which each is compiled once.
        room = min(self._share, 1 << (max(map(len, by_device)) - 1).bit_length())
        places = np.zeros((self._devices, room), int)
        chosen = np.zeros((self._devices, room), int)
        for device, own in enumerate(by_device):
            places[device, : len(own)] = cars[own] % self._share
            chosen[device, : len(own)] = own
        data = jax.random.key_data(keys)[chosen]
        numbers = np.array([len(own) for own in by_device])
        self._maps, self._moving = self._restart(self._maps, self._moving, places, data, numbers)

    def look(self) -> np.ndarray:
        """What the drivers see now: uint8 [count, side, side, 3]."""
        return self._flat(self._look(self._maps, self._moving))

    def advance(self, actions: np.ndarray) -> Frame:
        """One frame of every race. actions float [count, 3], as of `step`."""
        room = self._devices * self._share
        padded = np.resize(np.asarray(actions, np.float32), (room, 3))
        shares = padded.reshape(self._devices, self._share, 3)
        self._moving, *seen = self._advance(self._maps, self._moving, shares)
        return Frame(*map(self._flat, (*seen, self._moving.lap)))

    def _flat(self, leaf: jax.Array) -> np.ndarray:
        """Of all cars, from arrays [devices, share, ...]."""
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
