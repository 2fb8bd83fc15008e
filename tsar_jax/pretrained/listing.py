"""A list of the trained runs that come with the package."""

import textwrap

from tsar_jax.errors import check_known
from tsar_jax.pretrained.store import HERE, PREFIX, known

WIDTH = 96
"""Width of a paragraph in columns, without its indentation."""


def listing(name: str | None) -> str:
    """Return a paragraph about each packaged run, or the full description of one.

    Raises:
        UserError: there is no run of that name.
    """
    runs = known()
    if name is not None:
        name = name.removeprefix(PREFIX)
        check_known("pretrained thing", name, runs)
        run = runs[name]
        lines = {"about": run.about, "result": run.result, "use": run.use}
        rows = {**lines, "experiment": run.experiment, "step": run.step, **run.provenance}
        return "\n".join(f"{key:10}  {value}" for key, value in rows.items())
    paragraphs = []
    for key, run in runs.items():
        file = HERE / f"{key}.npz"
        size = f"{file.stat().st_size / 1e6:.2g} MB" if file.exists() else f"needs {file.name}"
        body = textwrap.wrap(f"{run.about} {run.result}", WIDTH)
        head = f"{PREFIX}{key}  ({size})"
        paragraphs.append("\n    ".join([head, *body, f"$ {run.use}"]))
    return "\n".join(paragraphs)
