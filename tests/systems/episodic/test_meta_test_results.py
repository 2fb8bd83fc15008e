"""Results survive their file, pool over seeds and print as accuracies do."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsar_jax.errors import UserError
from tsar_jax.systems.episodic.meta_test import Result
from tsar_jax.systems.episodic.meta_test_results import (
    markdown,
    percent,
    pool_seeds,
    published_series,
    read_results,
    results_to_json,
    table,
)

accuracies = st.lists(st.floats(0, 1), min_size=1, max_size=3)
results = st.builds(
    Result,
    classes=st.integers(1, 600),
    rate=st.floats(1e-6, 1),
    train=accuracies,
    test=accuracies,
    per_class=st.lists(accuracies, max_size=3),
)


def row(classes=10, rate=1e-3, train=(0.5,), test=(0.25, 0.75), per_class=((0.5,), (1.0,))):
    return Result(classes, rate, list(train), list(test), [list(c) for c in per_class])


@given(
    conditions=st.dictionaries(st.text(max_size=9), st.lists(results, max_size=3), max_size=3),
    seed=st.integers(),
)
def test_results_survive_their_file(tmp_path_factory, conditions, seed):
    path = tmp_path_factory.mktemp("results") / "results.json"
    path.write_text(results_to_json(conditions, {"seed": seed}), encoding="utf-8")
    assert read_results(path) == (conditions, {"seed": seed})


def test_missing_file_names_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"no .*results.json: run anml_meta_test"):
        read_results(tmp_path / "results.json")
    with pytest.raises(UserError, match=r"no .*results.json: run tsar_transfer"):
        read_results(tmp_path / "results.json", "tsar_transfer")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        '{"conditions": {}}',
        '{"settings": {}}',
        '{"settings": {}, "conditions": []}',
        '{"settings": {}, "conditions": {"a": null}}',
        '{"settings": {}, "conditions": {"a": [1]}}',
        '{"settings": {}, "conditions": {"a": [{"classes": 3}]}}',
        results_to_json({"a": [row()]}, {})[:-40],
        results_to_json({"a": [row()]}, {}).replace('"rate"', '"pace"'),
    ],
)
def test_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"results.json does not hold.*run anml_meta_test again"):
        read_results(path)


def test_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="does not hold"):
        read_results(path)


def test_pooling_takes_one_value_per_seed():
    seeds = [
        [row(10, 1e-3, test=(0.2, 0.4)), row(50, 2e-3, train=(0.1, 0.3))],
        [row(10, 3e-3, test=(0.6,)), row(50, 2e-3, train=(0.8,))],
        [row(10, 2e-3, test=(0.9, 0.7)), row(50, 8e-3, train=(0.5,))],
    ]
    ten, fifty = pool_seeds(seeds)
    assert (ten.classes, fifty.classes) == (10, 50)
    assert (ten.rate, fifty.rate) == (2e-3, 2e-3)
    assert ten.test == pytest.approx([0.3, 0.6, 0.8])
    assert fifty.train == pytest.approx([0.2, 0.8, 0.5])
    assert ten.per_class == [[0.5], [1.0]] * 3


@pytest.mark.parametrize(
    "seeds", [[[row(10)], [row(50)]], [[row(10)], [row(10), row(50)]]], ids=["counts", "rows"]
)
def test_pooling_refuses_different_numbers_of_classes(seeds):
    with pytest.raises(UserError, match="different numbers of classes"):
        pool_seeds(seeds)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.6124], ".612"),
        ([1.0], "1.000"),
        ([0.0], ".000"),
        ([0.5, 0.5], ".500"),
        ([0.6, 0.62, 0.61], ".610 ± .025"),
        ([0.0, 1.0], ".000, 1.000"),
        ([0.0, 0.01, 0.09], ".033 (.000 to .156)"),
        ([0.98, 1.0, 0.99], ".990 (.965 to 1.000)"),
        ([0.5, 0.6, 0.7, float("nan")], ".600 ± .248 (1 of 4 lost)"),
        ([float("nan")], "– (1 of 1 lost)"),
    ],
)
def test_accuracies_are_written_without_the_zero(values, text):
    assert percent(values) == text


def test_markdown():
    conditions = {
        "meta-trained": [row(10, test=(0.6, 0.62, 0.61)), row(50, test=(0.25,))],
        "random features": [row(10, test=(0.5,)), row(50, test=(0.125,))],
    }
    assert markdown(conditions) == (
        "| condition | 10 classes | 50 classes |\n"
        "|---|---|---|\n"
        "| meta-trained | .610 ± .025 | .250 |\n"
        "| random features | .500 | .125 |\n"
    )


def test_markdown_has_the_published_rows_of_its_numbers_of_classes():
    conditions = {"anml": [row(10, test=(0.6,)), row(75, test=(0.25,))]}
    series = published_series(["anml", "ungated"], "accuracy")
    assert list(series) == [
        *("anml, replication 1 (P)", "anml, replication 2 (P)"),
        "anml, Beaulieu et al. 2020 (U)",
    ]
    lines = markdown(conditions, series).splitlines()
    assert lines[2:5] == [
        "| anml | .600 | .250 |",
        "| published: anml, replication 1 (P) | .90 | .86 |",
        "| published: anml, replication 2 (P) | .88 | – |",
    ]
    assert lines[-1].startswith("Published: full-size networks. P: primary source")
    assert markdown({"a": [row(11)]}, series) == markdown({"a": [row(11)]})


def test_many_numbers_of_classes_are_rows():
    from rich.console import Console

    many = [row(count, 1e-3, train=(0.5,)) for count in (10, 50, 75, 100, 200)]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table({"meta-trained": many, "random": many}, "Meta-test"))
    lines = console.export_text().splitlines()
    shown = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert len(shown) == 10
    assert shown[4] == ["meta-trained", "200", ".250, .750", ".500", "0.001"]


def test_table_shows_every_condition():
    from rich.console import Console

    conditions = {"meta-trained": [row(10, 4e-3)], "random": [row(10, 1e-3, train=(0.125,))]}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(conditions, "Meta-test"))
    text = console.export_text()
    for wanted in ("Meta-test", "test, 10 classes", ".250, .750", "0.004", "0.001", "0.12"):
        assert wanted in text
    assert json.loads(results_to_json(conditions, {}))["settings"] == {}
