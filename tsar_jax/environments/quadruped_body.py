"""The quadruped's bodies: lengths of ankle segments, strengths of motors, friction.

A body has a name, by which the command line and tables speak of it, and MuJoCo's own compiler makes
a model of it from gymnasium's ant.xml.
"""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tsar_jax.errors import UserError, check_known, missing_extra

LEGS = {
    "left_front": "left_ankle_geom",
    "right_front": "right_ankle_geom",
    "left_back": "third_ankle_geom",
    "right_back": "fourth_ankle_geom",
}
"""Geom of each leg's ankle segment. Names are the model's, for which y, not x, is ahead."""
MOTORS = tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("hip", "ankle"))
"""Names of the motors, in the order of the joints that they turn."""
STANDARD, FRICTION = "standard", "friction"

HEALTHY, DAMAGED = 0.4, 0.1  # an ankle segment's length, m along x and as many along y
SHORTEST, LONGEST = 0.01, 1.0  # m, range of an ankle segment's length
STRONGEST = 10.0  # times as strong as a healthy motor
SMOOTHEST, ROUGHEST = 0.01, 10.0  # range of the coefficient of friction
INTEGRATORS = ("RK4", "implicitfast")
"""MuJoCo's integrators. RK4 is Ant-v5's and evaluates the forces four times a step, the other once.
"""


@dataclasses.dataclass(frozen=True)
class Body:
    """A quadruped, the standard one or one with other legs, motors or friction.

    lengths: of the ankle segments in the order of `LEGS`, m along x and as many along y, as ant.xml
        gives them.
    strengths: of the motors in the order of `MOTORS`: 1 is healthy, 0 has failed.
    friction: coefficient of sliding friction between the body and the floor.
    integrator: one of `INTEGRATORS`, by which it is simulated.

    Raises:
        UserError: the integrator is unknown, or a value is out of range.
    """

    lengths: tuple[float, ...] = (HEALTHY,) * len(LEGS)
    strengths: tuple[float, ...] = (1.0,) * len(MOTORS)
    friction: float = 1.0
    integrator: str = INTEGRATORS[0]

    def __post_init__(self) -> None:
        check_known("integrator", self.integrator, INTEGRATORS)
        for leg, length in zip(LEGS, self.lengths, strict=True):
            _check_range(f"length of the {leg} ankle segment", length, SHORTEST, LONGEST, " m")
        for motor, strength in zip(MOTORS, self.strengths, strict=True):
            _check_range(f"strength of the motor {motor}", strength, 0.0, STRONGEST)
        _check_range("coefficient of friction", self.friction, SMOOTHEST, ROUGHEST)


def _check_range(what: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Raise UserError where a value, which may be NaN, is not between two others."""
    if not low <= value <= high:
        raise UserError(f"The {what} must be between {low} and {high}{unit}, but is {value}.")


def find_body(name: str, integrator: str = INTEGRATORS[0]) -> Body:
    """Return the body of a name.

    Args:
        name: "standard", or what differs from it, joined by "+": a damaged leg ("left_front", or
            "left_front:0.2" with its length, m), a motor that has failed ("right_back_hip", or
            "right_back_hip:0.5" with its strength), or "friction:0.3". As in
            "left_front:0.2+friction:0.3".
        integrator: one of `INTEGRATORS`.

    Raises:
        UserError: the name is none of these or says one thing twice, a value is out of range, or
            the integrator is unknown.
    """
    if name == STANDARD:
        return Body(integrator=integrator)
    lengths, strengths = dict.fromkeys(LEGS, HEALTHY), dict.fromkeys(MOTORS, 1.0)
    friction = 1.0
    parts = [part.partition(":") for part in name.split("+")]
    for part, colon, text in parts:
        value = text if colon else None
        if [other for other, *_ in parts].count(part) > 1:
            raise UserError(f"The body {name!r} says twice what {part} is like: say it once.")
        if part in lengths:
            lengths[part] = _number(name, part, value, "length", DAMAGED)
        elif part in strengths:
            strengths[part] = _number(name, part, value, "strength", 0.0)
        elif part == FRICTION:
            friction = _number(name, part, value, "coefficient", None)
        else:
            known = (STANDARD, *LEGS, *MOTORS, FRICTION)
            hint = ", or join several by + and give them values (left_front:0.2+friction:0.3)"
            check_known("body", name if len(parts) == 1 else part, known, hint)
            raise UserError(f"{STANDARD} has no value and joins nothing, but the body is {name!r}.")
    return Body(tuple(lengths.values()), tuple(strengths.values()), friction, integrator)


def _number(name: str, part: str, text: str | None, quantity: str, usual: float | None) -> float:
    """Return the number that a part of a body's name gives, or the usual one where it gives none.

    Raises UserError where there is neither.
    """
    if text is None and usual is not None:
        return usual
    try:
        return float(text or "")
    except ValueError:
        raise UserError(
            f"{text or ''!r} in the body {name!r} is no {quantity}: give a number, as in "
            f"{part}:0.2."
        ) from None


def load_simulator() -> Any:
    """Import the module mujoco and return it. Raises UserError where it is missing."""
    try:
        import mujoco
    except ImportError:
        raise missing_extra("The quadruped", "MuJoCo and gymnasium", "environments") from None
    return mujoco


def build_model(body: Body) -> Any:
    """Return the body as a mujoco.MjModel. Raises UserError where a package is missing."""
    mujoco = load_simulator()
    # Located, not imported: the import takes longer than all the rest, and only a file is needed.
    gymnasium = importlib.util.find_spec("gymnasium")
    if gymnasium is None or gymnasium.origin is None:
        raise missing_extra("The quadruped", "gymnasium's model of it", "environments")
    path = Path(gymnasium.origin).parent / "envs" / "mujoco" / "assets" / "ant.xml"
    spec = mujoco.MjSpec.from_file(str(path))
    for name, length in zip(LEGS.values(), body.lengths, strict=True):
        if length != HEALTHY:
            segment = spec.geom(name)
            segment.fromto = segment.fromto * (length / HEALTHY)
    spec.option.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{body.integrator.upper()}")
    model = spec.compile()
    # Of two that touch, MuJoCo takes the larger coefficient: all of them must have it.
    model.geom_friction[:, 0] = body.friction
    model.actuator_gear[:, 0] *= np.asarray(body.strengths)[motor_order(model)]
    return model


class Anatomy(NamedTuple):
    """Measures of a body that observations and rewards need; rows are legs in the order of `LEGS`.

    middle, reach [8]: each joint's range, rad, is middle +- reach.
    hip [4, 3]: place of the hip, from the torso's centre, m.
    knee [4, 3]: place of the ankle joint, from the hip, all joints at zero, m.
    foot [4, 3]: place of the ankle segment's far end, from its joint, all joints at zero, m.
    swing [4, 3]: the ankle's axis x foot, m.
    radius: of the ankle segments, m.
    """

    middle: Any
    reach: Any
    hip: Any
    knee: Any
    foot: Any
    swing: Any
    radius: Any


def find_anatomy(model: Any) -> Anatomy:
    """Return the anatomy of a mujoco.MjModel made by `build_model`."""
    segment = [model.geom(name).id for name in LEGS.values()]
    below = model.geom_bodyid[segment]
    above = model.body_parentid[below]
    # A segment begins at its joint, so that its far end is twice as far away as its centre.
    foot = 2 * model.geom_pos[segment]
    axis = model.jnt_axis[model.body_jntadr[below]]
    low, high = model.jnt_range[1:].T  # without the torso's free joint
    return Anatomy(
        middle=(low + high) / 2,
        reach=(high - low) / 2,
        hip=model.body_pos[above],
        knee=model.body_pos[below],
        foot=foot,
        swing=np.cross(axis, foot),
        radius=model.geom_size[segment[0], 0],
    )


def motor_order(model: Any) -> np.ndarray:
    """Return for each motor of the model [8] the index of its joint: actions are in the joints'
    order.
    """
    return model.actuator_trnid[:, 0] - 1
