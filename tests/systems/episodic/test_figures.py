"""The figures: what they show, and that they are written whole."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tsar_jax.evaluation.published_results import LEGEND
from tsar_jax.plots.style import new_figure, save_figure
from tsar_jax.systems.episodic import meta_test_figure
from tsar_jax.systems.episodic.analysis.representation import (
    NEAREST_NEIGHBOUR,
    SPARSITY,
    published_measures,
)
from tsar_jax.systems.episodic.analysis.representation_figures import (
    class_title,
    colour_groups,
    gates_figure,
    representations_figure,
    unit_map,
    unit_orders,
)
from tsar_jax.systems.episodic.meta_test import Result

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (2, 28, 28)).astype(np.uint8)
NAMES = ["Angelic/character01", "Old_Church_Slavonic_(Cyrillic)/character28"]
GATE, BEFORE = RANDOM.uniform(size=(2, 2, 12))
ANML = {"gate": GATE, "features before gate": 5 * BEFORE, "features": 5 * BEFORE * GATE}
OML = {"representation": RANDOM.uniform(size=(2, 27)), "features": np.zeros((2, 7))}


def means(spaces):
    return {name: units.mean(0) for name, units in spaces.items()}


def test_units_fill_a_square_from_its_first_row() -> None:
    cells = unit_map(np.array([10.0, 30.0, 20.0, 40.0, 50.0]), np.array([4, 3, 1, 2, 0]))
    np.testing.assert_array_equal(cells, [[50, 40, 30], [20, 10, np.nan]])
    assert unit_map(np.zeros(2304), np.arange(2304)).shape == (48, 48)


def test_a_gate_orders_all_spaces_and_shares_no_colours_with_them() -> None:
    orders = unit_orders(means(ANML))
    for order in orders.values():
        np.testing.assert_array_equal(order, np.argsort(-GATE.mean(0), kind="stable"))
    gate, others = colour_groups(ANML)
    assert gate == (["gate"], 1.0)
    assert others[0] == ["features before gate", "features"]
    assert 4 < others[1] <= 5
    assert [group for group, _ in colour_groups(OML)] == [["representation"], ["features"]]


def test_class_titles_are_short_lines() -> None:
    assert class_title(NAMES[0]) == "Angelic\n1"
    assert class_title(NAMES[1]) == "Old Church\nSlavonic\n(Cyrillic)\n28"


@pytest.mark.parametrize("spaces", [ANML, OML], ids=["anml", "oml"])
def test_a_row_per_image_and_a_column_per_space(spaces, tmp_path: Path) -> None:
    figure = gates_figure(IMAGES, NAMES, spaces, means(spaces))
    maps = [axis for axis in figure.axes if axis.images]
    assert len(maps) == 2 * (1 + len(spaces))
    titles = [axis.get_title().replace("\n", " ") for axis in maps[: 1 + len(spaces)]]
    last = "Features after gate" if "gate" in spaces else "Features"
    assert titles[0] == "Image"
    assert titles[-1] == last
    for path in save_figure(figure, tmp_path / "gates"):
        assert path.stat().st_size > 5000
    width, height = figure.get_size_inches()
    with Image.open(tmp_path / "gates.png") as image:
        assert image.size == (round(200 * width), round(200 * height))


def test_bars_stand_for_what_was_measured_and_published() -> None:
    measured = {
        state: {name: {SPARSITY: share, NEAREST_NEIGHBOUR: share / 2} for name in ANML}
        for state, share in (("trained", 0.5), ("untrained", 0.25))
    }
    figure = representations_figure(measured, published_measures("anml"), 100, "T")
    left, right = figure.axes
    assert sorted(bar.get_height() for bar in left.patches) == pytest.approx(
        [5.9, 25, 25, 25, 50, 50, 50, 52.8, 56.9]
    )
    assert len(right.patches) == 10
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "Trained, this run (100 unseen classes)" in labels
    assert "Untrained, published (600 unseen classes; T)" in labels
    nothing_published = representations_figure(measured, published_measures("ungated"), 100, "")
    assert [len(axis.patches) for axis in nothing_published.axes] == [6, 6]


def test_published_meta_tests_are_lines_at_the_measured_numbers_of_classes(monkeypatch) -> None:
    figures = []
    monkeypatch.setattr(meta_test_figure, "save_figure", lambda figure, _: figures.append(figure))
    rows = [Result(n, 1e-3, [0.5], [0.25], []) for n in (10, 50, 600, 900)]
    for published in (("anml", "ungated"), ()):
        meta_test_figure.meta_test_figure({"anml": rows}, Path("a"), "1 run", published)
    drawn, without = figures
    test, train = (
        {line.get_label(): line for line in axes.lines if "published" in line.get_label()}
        for axes in drawn.axes
    )
    assert list(test) == [f"published: anml, replication {n} (P)" for n in (1, 2)]
    assert list(test["published: anml, replication 1 (P)"].get_xdata()) == [10, 50, 600]
    assert list(test["published: anml, replication 1 (P)"].get_ydata()) == [0.9, 0.89, 0.65]
    ((label, line),) = train.items()
    assert line.get_marker() == test[label].get_marker()
    assert list(line.get_ydata()) == [0.94, 0.98, 0.93]
    assert LEGEND in drawn.get_suptitle()
    assert not [line for axes in without.axes for line in axes.lines if "pub" in line.get_label()]
    assert LEGEND not in without.get_suptitle()


def test_a_figure_is_written_whole_and_the_same_each_time(tmp_path: Path) -> None:
    def draw(path: Path) -> list[bytes]:
        figure, axis = new_figure(width=2, height=1)
        axis.plot([0, 1])
        files = save_figure(figure, path)
        assert files == [path.with_name(path.name + suffix) for suffix in (".png", ".pdf")]
        return [file.read_bytes() for file in files]

    png, pdf = draw(tmp_path / "new" / "one.5")
    assert png.startswith(b"\x89PNG")
    assert pdf.startswith(b"%PDF")
    assert draw(tmp_path / "new" / "one.5") == [png, pdf]
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_the_package_does_not_import_matplotlib() -> None:
    code = (
        "import sys, tsar_jax, tsar_jax.systems.episodic.anml,"
        " tsar_jax.systems.episodic.analysis.representation;"
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
