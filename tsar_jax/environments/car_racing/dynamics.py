"""A car seen from above: a hull on four wheels that roll, slip and skid.

Gymnasium's CarRacing-v3 (car_dynamics, after Klimov 2016) in Box2D 2.3. Its solver iterates until
the joints hold; here their velocities are solved at once, which is what the iterations tend to, and
positions are corrected as it does. Units: m, kg, s, rad. Wheels come in the order front left, front
right, rear left, rear right.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SIZE = 0.02  # m per unit of the drawing below
INTERVAL = 1 / 50  # s
HULL = (
    ((-60, 130), (60, 130), (60, 110), (-60, 110)),
    ((-15, 120), (15, 120), (20, 20), (-20, 20)),
    ((25, 20), (50, -10), (50, -40), (20, -90), (-20, -90), (-50, -40), (-50, -10), (-25, 20)),
    ((-50, -90), (50, -90), (50, -120), (-50, -120)),
)
"""Corners of the hull's four parts, clockwise, +y ahead, in units of the drawing."""
WHEELS = ((-55, 80), (55, 80), (-55, -82), (55, -82))
WHEEL_RADIUS = 27 * SIZE
WHEEL_HALF_WIDTH = 14 * SIZE
HULL_DENSITY, WHEEL_DENSITY = 1.0, 0.1

ENGINE_POWER = 1e8 * SIZE**2
SPIN_INERTIA = 4000 * SIZE**2  # kg m^2, of a wheel about its axle
FRICTION_LIMIT = 1e6 * SIZE**2  # N on the road
ON_GRASS = 0.6  # factor of the friction limit on grass
GRIP = 205_000 * SIZE**2  # N per m/s of slip, below the limit
BRAKING = 15.0  # rad/s per step, of a brake pressed half as far as to lock
LOCKED = 0.9  # brake from which on wheels stand still
GAS_RISE = 0.1  # largest rise of the gas in one step
MIN_ROLLING = 5.0  # rad/s added to the rolling speed, so that power at rest gives a finite torque
STEER_GAIN, STEER_SPEED, STEER_LIMIT = 50.0, 3.0, 0.4  # 1/s, rad/s, rad

LINEAR_SLOP, ANGULAR_SLOP = 0.005, math.radians(2)  # m, rad: joint errors that Box2D leaves
MAX_CORRECTION = math.radians(8)  # rad, of a joint in one pass
MAX_TRANSLATION = 2.0  # m per step
SETTLING = 60  # passes of Box2D's position solver at most


def mass_of(parts: tuple[Any, ...], density: float) -> tuple[float, float, np.ndarray]:
    """Return the mass and inertia of convex polygons.

    Args:
        parts: polygons, each a tuple of corners in units of the drawing.
        density: kg / m^2.

    Returns:
        Mass, moment of inertia about the centre of mass, and that centre [2].
    """
    mass, inertia, moment = 0.0, 0.0, np.zeros(2)
    for part in parts:
        a = np.array(part) * SIZE
        b = np.roll(a, -1, axis=0)
        triangles = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2  # with the origin
        triangles *= density * np.sign(triangles.sum())
        mass += triangles.sum()
        moment += triangles @ (a + b) / 3
        inertia += triangles @ (a * a + a * b + b * b).sum(1) / 6
    centre = moment / mass
    return mass, float(inertia - mass * centre @ centre), centre


_WHEEL = ((-14, 27), (14, 27), (14, -27), (-14, -27))
HULL_MASS, HULL_INERTIA, HULL_CENTRE = mass_of(HULL, HULL_DENSITY)
WHEEL_MASS, WHEEL_INERTIA, _ = mass_of((_WHEEL,), WHEEL_DENSITY)
ARMS = np.array(WHEELS) * SIZE - HULL_CENTRE
"""Vectors from the hull's centre of mass to the wheels [4, 2], in the car's own frame, m."""


class Car(NamedTuple):
    """The hull, at its centre of mass, and four wheels; angles counter-clockwise from +y ahead.

    centre [2], angle, velocity [2], spin: of the hull. wheel_centres [4, 2], wheel_angles [4],
    wheel_velocities [4, 2], wheel_spins [4]: the same of the wheels. rolling [4]: rad/s about their
    axles, phase [4]: rad, how far they have rolled. gas: of the rear wheels, 0 to 1. All are float.
    """

    centre: jax.Array
    angle: jax.Array
    velocity: jax.Array
    spin: jax.Array
    wheel_centres: jax.Array
    wheel_angles: jax.Array
    wheel_velocities: jax.Array
    wheel_spins: jax.Array
    rolling: jax.Array
    phase: jax.Array
    gas: jax.Array

    @property
    def position(self) -> jax.Array:
        """Return the position [2] of the hull's origin, between the wheels."""
        return self.centre - rotate(self.angle, jnp.asarray(HULL_CENTRE))

    @property
    def steering(self) -> jax.Array:
        """Return the angle of each wheel against the hull [4], rad."""
        return self.wheel_angles - self.angle


def rotate(angle: jax.Array, vectors: jax.Array) -> jax.Array:
    """Return vectors [..., 2] turned counter-clockwise by an angle, rad."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    return jnp.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def cross(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the cross product a x b [...] of vectors [..., 2]."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def across(vectors: jax.Array) -> jax.Array:
    """Return vectors [..., 2] turned by a right angle: the velocity of such a point at 1 rad/s."""
    return jnp.stack([-vectors[..., 1], vectors[..., 0]], axis=-1)


def init_car(position: jax.Array, heading: jax.Array) -> Car:
    """Return a car at rest as the original puts it on the track, before it has settled.

    Its wheels are turned, but where they would be if the hull were not; joints then pull them.

    Args:
        position: of the hull's origin, float [2].
        heading: rad, scalar.
    """
    centre = position + rotate(heading, jnp.asarray(HULL_CENTRE))
    zero, four = jnp.zeros_like(heading), jnp.zeros((4,), heading.dtype)
    rest = jnp.zeros((4, 2), heading.dtype)
    wheels = position + jnp.asarray(WHEELS, heading.dtype) * SIZE
    return Car(centre, heading, rest[0], zero, wheels, four + heading, rest, four, four, four, zero)


def push(car: Car, action: jax.Array, on_road: jax.Array) -> tuple[Car, jax.Array]:
    """Apply engine, brakes and friction to the wheels for one step, and find how they are steered.

    Args:
        car: the car before the step.
        action: float [3], steering -1 to 1, gas and brake 0 to 1.
        on_road: bool [4], whether a wheel touches the road.

    Returns:
        The car with new wheel velocities and rolling, and motor speeds [4], rad/s.
    """
    steer, gas, brake = action
    goal = jnp.array([1, 1, 0, 0]) * -steer
    error = goal - car.steering
    motor = jnp.sign(error) * jnp.minimum(STEER_GAIN * jnp.abs(error), STEER_SPEED)

    gas = car.gas + jnp.minimum(gas - car.gas, GAS_RISE)
    driven = jnp.array([0, 0, 1, 1]) * gas
    power = INTERVAL * ENGINE_POWER * driven / SPIN_INERTIA
    rolling = car.rolling + power / (jnp.abs(car.rolling) + MIN_ROLLING)
    slowed = jnp.sign(rolling) * jnp.maximum(jnp.abs(rolling) - BRAKING * brake, 0)
    rolling = jnp.where(brake >= LOCKED, 0.0, jnp.where(brake > 0, slowed, rolling))
    phase = car.phase + rolling * INTERVAL

    force = friction(car, rolling, on_road)  # [4, 2]: to the right, ahead
    rolling = rolling - INTERVAL * force[:, 1] * WHEEL_RADIUS / SPIN_INERTIA
    pushed = INTERVAL / WHEEL_MASS * rotate(car.wheel_angles, force)
    velocities = car.wheel_velocities + pushed
    return car._replace(wheel_velocities=velocities, rolling=rolling, phase=phase, gas=gas), motor


def friction(car: Car, rolling: jax.Array, on_road: jax.Array) -> jax.Array:
    """Return the force on each wheel in its own frame [4, 2]: against its slip, in the friction
    circle.
    """
    slip = rotate(-car.wheel_angles, car.wheel_velocities)
    force = GRIP * (jnp.array([[0.0, WHEEL_RADIUS]]) * rolling[:, None] - slip)
    limit = FRICTION_LIMIT * jnp.where(on_road, 1.0, ON_GRASS)
    size = jnp.sqrt(jnp.square(force).sum(-1))
    return force * jnp.minimum(1, limit / jnp.maximum(size, 1e-12))[:, None]


def move(car: Car, motor: jax.Array) -> Car:
    """Advance the simulator by a step: velocities that the joints allow, then positions."""
    return corrected(_advanced(car, motor), car.steering)


def settle(car: Car) -> Car:
    """Return a car after its first step: the wheels move to their places on the hull."""

    def unsettled(at: tuple[Car, jax.Array, jax.Array]) -> jax.Array:
        return (at[1] > LINEAR_SLOP) & (at[2] < SETTLING)

    def once(at: tuple[Car, jax.Array, jax.Array]) -> tuple[Car, jax.Array, jax.Array]:
        return corrected(at[0], car.steering), _worst_gap(at[0]), at[2] + 1

    start = car, jnp.full_like(car.angle, jnp.inf), jnp.zeros((), jnp.int32)
    return lax.while_loop(unsettled, once, start)[0]


def _advanced(car: Car, motor: jax.Array) -> Car:
    """Return the car moved by velocities that keep wheels on their arms and turning as steered.

    With M and J the mass and inertia of hull and wheels together, about the hull's centre, S the
    sum of the arms and m a wheel's mass, the momenta p and L give the hull's velocity v and spin w:
    p = M v + m w x S,  L = J w + m S x v + sum of what the motors add.
    """
    at_limit = jnp.where(car.steering >= STEER_LIMIT, jnp.minimum(motor, 0), motor)
    turning = jnp.where(car.steering <= -STEER_LIMIT, jnp.maximum(at_limit, 0), at_limit)
    arms = rotate(car.angle, jnp.asarray(ARMS, car.angle.dtype))
    mass = HULL_MASS + 4 * WHEEL_MASS
    reach = WHEEL_MASS * ARMS.sum(0)
    inertia = HULL_INERTIA + 4 * WHEEL_INERTIA + WHEEL_MASS * (ARMS**2).sum()
    turned_reach = rotate(car.angle, jnp.asarray(reach, car.angle.dtype))
    momentum = HULL_MASS * car.velocity + WHEEL_MASS * car.wheel_velocities.sum(0)
    angular = (
        HULL_INERTIA * car.spin
        + WHEEL_INERTIA * (car.wheel_spins - turning).sum()
        + WHEEL_MASS * cross(arms, car.wheel_velocities).sum()
    )
    spin = (angular - cross(turned_reach, momentum) / mass) / (inertia - reach @ reach / mass)
    velocity = (momentum - spin * across(turned_reach)) / mass
    velocities = velocity + spin * across(arms)
    velocity, velocities = _bounded(velocity), _bounded(velocities)
    spins = spin + turning
    return car._replace(
        centre=car.centre + INTERVAL * velocity,
        angle=car.angle + INTERVAL * spin,
        velocity=velocity,
        spin=spin,
        wheel_centres=car.wheel_centres + INTERVAL * velocities,
        wheel_angles=car.wheel_angles + INTERVAL * spins,
        wheel_velocities=velocities,
        wheel_spins=spins,
    )


def _bounded(velocity: jax.Array) -> jax.Array:
    """Return velocities that move no body farther than `MAX_TRANSLATION` in a step."""
    way = INTERVAL * jnp.sqrt(jnp.square(velocity).sum(-1, keepdims=True))
    return velocity * jnp.minimum(1, MAX_TRANSLATION / jnp.maximum(way, 1e-12))


def corrected(car: Car, steering: jax.Array) -> Car:
    """Return the car after one pass of Box2D's position solver over the four joints in order.

    A wheel that was at its steering limit when the step began is turned back to it, but for a slop;
    then wheel and hull are drawn together, the lighter by more.

    Args:
        car: the car after its velocities have moved it.
        steering: float [4], rad, when the step began.
    """
    centre, angle = car.centre, car.angle
    centres, angles = [], []
    for wheel in range(4):
        over = car.wheel_angles[wheel] - angle
        above = jnp.clip(over - STEER_LIMIT - ANGULAR_SLOP, 0, MAX_CORRECTION)
        below = jnp.clip(over + STEER_LIMIT + ANGULAR_SLOP, -MAX_CORRECTION, 0)
        back = jnp.where(steering[wheel] >= STEER_LIMIT, above, 0)
        back = jnp.where(steering[wheel] <= -STEER_LIMIT, below, back)
        share = HULL_INERTIA / (HULL_INERTIA + WHEEL_INERTIA)
        angles.append(car.wheel_angles[wheel] - share * back)
        angle = angle + (1 - share) * back
        arm = rotate(angle, jnp.asarray(ARMS[wheel], angle.dtype))
        impulse = _joining(arm, centre + arm - car.wheel_centres[wheel])
        centre = centre - impulse / HULL_MASS
        angle = angle - cross(arm, impulse) / HULL_INERTIA
        centres.append(car.wheel_centres[wheel] + impulse / WHEEL_MASS)
    return car._replace(
        centre=centre,
        angle=angle,
        wheel_centres=jnp.stack(centres),
        wheel_angles=jnp.stack(angles),
    )


def _joining(arm: jax.Array, gap: jax.Array) -> jax.Array:
    """Return the impulse [2] that closes a gap [2] between a wheel and the hull's arm [2].

    Solves K impulse = gap, K = (1/m_hull + 1/m_wheel) 1 + (1/I_hull) times the arm's matrix.
    """
    x, y = arm
    both = 1 / HULL_MASS + 1 / WHEEL_MASS
    a, b, d = both + y * y / HULL_INERTIA, -x * y / HULL_INERTIA, both + x * x / HULL_INERTIA
    solved = jnp.stack([d * gap[0] - b * gap[1], a * gap[1] - b * gap[0]])
    return solved / (a * d - b * b)


def _worst_gap(car: Car) -> jax.Array:
    """Return the largest distance between a wheel and its place on the hull, m."""
    places = car.centre + rotate(car.angle, jnp.asarray(ARMS, car.angle.dtype))
    return jnp.sqrt(jnp.square(places - car.wheel_centres).sum(-1)).max()
