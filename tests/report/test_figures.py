from __future__ import annotations

import html
import json

import numpy as np
import plotly.graph_objects as go
import pytest
from demo_page import HOSTILE, coloured, demo_page

from unseen.report import Confusion, Curve, Projection, figures


@pytest.mark.parametrize("kind", ["curve", "projection", "confusion"])
def test_plotly_accepts_every_word_of_a_figure(kind: str) -> None:
    """graph_objects knows the names and values that plotly.js takes, and raises on any other."""
    page = demo_page(HOSTILE)
    assert page.projection is not None
    assert page.confusion is not None
    figure = {
        "curve": lambda: figures.curve_figure(page.curves),
        "projection": lambda: figures.projection_figure(page.projection),  # type: ignore[arg-type]
        "confusion": lambda: figures.confusion_figure(page.confusion),  # type: ignore[arg-type]
    }[kind]()
    json.dumps(figure, allow_nan=False)
    go.Figure(coloured(figure))


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;"),
        ("a & b", "a &amp; b"),
        ("&lt;", "&amp;lt;"),
        ("two\nlines", "two lines"),
        ("a\x00b", "a\ufffdb"),
        ("שלום", "\u2068שלום\u2069"),
        ("a\u202eb", "\u2068a\u202eb\u2069"),
        ("x" * 28, "x" * 28),
        ("x" * 29, "x" * 27 + "…"),
        ("<" * 40, "&lt;" * 27 + "…"),
    ],
)
def test_label(name: str, drawn: str) -> None:
    assert figures.label(name) == drawn


def test_curve_is_in_percent_and_keeps_both_ends_when_thinned() -> None:
    steps = 50_000
    curve = Curve("m", np.linspace(0.8, 0, steps), np.linspace(0, 0.6, steps), ausuc=0.3, point=(0.5, 0.25))
    line, mark = figures.curve_figure((curve,))["data"]
    assert len(line["x"]) == len(line["y"]) == figures.MOST_POINTS
    assert (line["x"][0], line["y"][0], line["x"][-1], line["y"][-1]) == (80, 0, 0, 60)
    assert (mark["x"], mark["y"]) == ([50], [25])
    assert line["name"] == "m (AUSUC 30.0)"


def test_methods_and_classes_differ_by_more_than_colour() -> None:
    curves = tuple(Curve(str(i), np.array([0, 1]), np.array([1, 0]), 0.5, (0.5, 0.5)) for i in range(6))
    data = figures.curve_figure(curves)["data"]
    assert len({trace["line"]["dash"] for trace in data[::2]}) == 6
    assert len({trace["marker"]["symbol"] for trace in data[1::2]}) == 6
    names = tuple(map(str, range(35)))
    plane = Projection(np.zeros((35, 2)), np.arange(35), np.zeros(35, dtype=bool), names, "m")
    marks = {(t["marker"]["color"]["css"], t["marker"]["symbol"]) for t in figures.projection_figure(plane)["data"] if t["x"]}
    assert len(marks) == 35


def test_legend_ends_where_marks_would_repeat() -> None:
    for classes, legend in ((35, True), (36, False)):
        names = tuple(map(str, range(classes)))
        plane = Projection(np.zeros((classes, 2)), np.arange(classes), np.zeros(classes, dtype=bool), names, "m")
        assert figures.projection_figure(plane)["layout"]["showlegend"] is legend


def test_every_class_has_one_place_in_the_legend() -> None:
    """Also a class of which there is no real row, or no synthetic one."""
    plane = Projection(
        np.zeros((4, 2)), np.array([0, 0, 1, 2]), np.array([False, True, True, False]), ("both", "made", "real"), "m"
    )
    legend = [trace["name"] for trace in figures.projection_figure(plane)["data"] if trace["showlegend"] and trace["x"]]
    assert sorted(legend) == ["both", "made", "real"]


def test_places_count_real_rows_nearest_to_their_own_class() -> None:
    xy = np.array([[0, 0], [0, 1], [10, 0], [0.1, 0], [9, 0]], dtype=float)
    plane = Projection(xy, np.array([0, 1, 1, 0, 1]), np.array([False, False, False, True, True]), ("a", "b"), "m")
    assert [(p.name, p.real, p.synthetic, p.own) for p in figures.places(plane)] == [("a", 1, 1, 1.0), ("b", 2, 1, 0.5)]
    assert figures.own_share(plane) == pytest.approx(2 / 3)


def test_share_is_unknown_where_one_kind_is_missing() -> None:
    plane = Projection(np.zeros((2, 2)), np.array([0, 1]), np.array([True, True]), ("a", "b"), "m")
    assert figures.own_share(plane) is None


CONFUSION = Confusion("m", np.array([[2, 1, 0, 1], [0, 0, 0, 0], [3, 0, 3, 0]]), ("a", "b", "c"), ("s", "s", "s"))


def test_confusion_cells_are_shares_of_their_row() -> None:
    heat = figures.confusion_figure(CONFUSION)["data"][0]
    assert heat["z"] == [[50, 25, 0, 25], [0, 0, 0, 0], [50, 0, 50, 0]]
    assert heat["customdata"] == CONFUSION.counts.tolist()


def test_confusion_in_words() -> None:
    rows = [(t.name, t.rows, t.right, t.seen, t.nearest_seen, t.other, t.other_count) for t in figures.taken_for(CONFUSION)]
    assert rows == [("a", 4, 2, 1, "s", "b", 1), ("b", 0, 0, 0, "", "", 0), ("c", 6, 3, 0, "", "a", 3)]


def test_many_classes_keep_the_heat_map_small_and_choose_the_best_tested() -> None:
    classes = 700
    counts = np.zeros((classes, classes + 1), dtype=int)
    counts[np.arange(classes), np.arange(classes)] = 1
    counts[500:, -1] = 4
    names = tuple(f"class {i}" for i in range(classes))
    figure = figures.confusion_figure(Confusion("m", counts, names, names))
    heat, axis = figure["data"][0], figure["layout"]["yaxis"]
    assert np.shape(heat["z"]) == (200, 201)
    assert axis["ticktext"] == [f"class {i}" for i in range(500, 700)]
    assert not axis["showticklabels"]
    assert {row[-1] for row in heat["z"]} == {80}
    assert len(json.dumps(figure)) < 1_000_000


def test_names_reach_the_heat_map_escaped() -> None:
    names = ("<b>a</b>", "<a href='x'>b</a>", "c")
    layout = figures.confusion_figure(Confusion("m", CONFUSION.counts, names, names))["layout"]
    for text, name in zip(layout["yaxis"]["ticktext"], names, strict=True):
        assert "<" not in text
        assert html.unescape(text) == name
