"""Which streams a continual-learning method can learn."""

from tsar_jax.data.continual.types import Stream
from tsar_jax.errors import UserError
from tsar_jax.plasticity.methods import METHODS, Method


def check_supported(method: Method, name: str, stream: Stream) -> None:
    """Check that a method, called `name`, can learn streams of such a kind.

    Raises:
        UserError: it cannot.
    """
    kind = "cumulative" if stream.cumulative else stream.kind
    if kind in method.kinds:
        return
    able = [name for name, other in METHODS.items() if kind in other.kinds]
    lacks = {
        "general": "it has no task boundaries",
        "cumulative": "its classes come back",
        "domain": "all of its tasks have the same classes",
    }
    because = f", since {lacks[kind]}" if kind in lacks else ""
    raise UserError(
        f"Method {name} cannot learn {stream.name}{because}: choose another stream, or a method "
        f"from {', '.join(able)}."
    )
