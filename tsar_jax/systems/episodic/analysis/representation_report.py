"""An analysis of a network's representations as numbers in a file and as a table."""

from typing import Any

import rich.box
from rich.table import Table

from tsar_jax.evaluation.published_results import LEGEND
from tsar_jax.systems.episodic.analysis import representation
from tsar_jax.systems.episodic.analysis.representation import (
    DEAD_UNITS,
    NEAREST_NEIGHBOUR,
    SPARSITY,
    published_marks,
    published_measures,
)
from tsar_jax.systems.episodic.analysis.representation_analysis import Analysis, MetaTests
from tsar_jax.systems.episodic.analysis.representation_figures import representation_title
from tsar_jax.systems.episodic.anml import AnmlConfig

TITLES = {
    SPARSITY: "active units",
    DEAD_UNITS: "dead units",
    NEAREST_NEIGHBOUR: "5-nearest neighbours",
}


def make_report(
    config: AnmlConfig,
    tests: MetaTests,
    trained: Analysis,
    untrained: Analysis,
    *,
    step: int,
    classes: int,
    seed: int,
) -> dict[str, Any]:
    """Return the numbers of a run, and how they were measured, as JSON values.

    Args:
        config: config of the run.
        tests: the meta-tests of both networks.
        trained: numbers of the network after `step` steps of meta-training.
        untrained: numbers of the same network before it.
        step: step of the checkpoint.
        classes: number of unseen classes that were measured on.
        seed: seed of the classes drawn and of the meta-tests.
    """

    def numbers(analysis: Analysis) -> dict[str, Any]:
        return {"spaces": analysis.measures, "meta_test": analysis.meta_test}

    return {
        "model": config.model,
        "pixels": config.pixels,
        "step": step,
        "classes": classes,
        "threshold": representation.THRESHOLD,
        "neighbours": representation.NEIGHBOURS,
        "meta_test": {
            "classes": tests.spec.classes,
            "runs": len(tests.keys),
            "rate": tests.learning_rate,
        },
        "seed": seed,
        "trained": numbers(trained),
        "untrained": numbers(untrained),
        "published": published_measures(config.model),
    }


def make_table(report: dict[str, Any]) -> Table:
    """Return the report as a table for a terminal, in %."""
    test = report["meta_test"]
    marks = published_marks(report["model"])
    of_published = f" Sources of what is published: {marks}. {LEGEND}." if marks else ""
    table = Table(
        box=rich.box.SIMPLE,
        pad_edge=False,
        title=f"{report['model']}, step {report['step']}: % on {report['classes']} unseen classes",
        caption=f"Meta-test: {test['runs']} runs of {test['classes']} classes, "
        f"the output layer learning at rate {test['rate']:g}." + of_published,
    )
    table.add_column("space")
    table.add_column("measure")
    for column in ("trained", "untrained", "published"):
        table.add_column(column, justify="right")
    trained, untrained = report["trained"], report["untrained"]
    for name, measures in trained["spaces"].items():
        title = representation_title(name, list(trained["spaces"]))
        for measure, value in measures.items():
            values = (
                value,
                untrained["spaces"][name][measure],
                report["published"]["trained"].get(name, {}).get(measure),
            )
            table.add_row(title, TITLES[measure], *map(percent, values))
            title = ""
        table.add_section()
    title = "Meta-test"
    for measure, value in trained["meta_test"].items():
        values = (value, untrained["meta_test"][measure], None)
        table.add_row(title, measure.replace("_", " "), *map(percent, values))
        title = ""
    return table


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash for None."""
    return "-" if share is None else f"{100 * share:.1f}"
