"""Show what comes with the package."""

import textwrap

from tsar_jax.errors import check_known
from tsar_jax.pretrained.store import HERE, PREFIX, known


def listing(name: str | None) -> str:
    """Return a paragraph about each trained thing, or all that is known of one.

    Raises:
        UserError: there is no such thing.
    """
    found = known()
    if name is not None:
        name = name.removeprefix(PREFIX)
        check_known("pretrained thing", name, found)
        shown = found[name]
        lines = {"about": shown.about, "result": shown.result, "use": shown.use}
        rows = {**lines, "experiment": shown.experiment, "step": shown.step, **shown.provenance}
        return "\n".join(f"{key:10}  {value}" for key, value in rows.items())
    paragraphs = []
    for key, shown in found.items():
        size = (HERE / f"{key}.npz").stat().st_size
        body = textwrap.wrap(f"{shown.about} {shown.result}", 96)
        head = f"{PREFIX}{key}  ({size / 1e6:.2g} MB)"
        paragraphs.append("\n    ".join([head, *body, f"$ {shown.use}"]))
    return "\n".join(paragraphs)
