from __future__ import annotations

import html
import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from demo_page import HOSTILE, coloured

from unseen.report.bench_contents import History, Shown
from unseen.report.bench_figures import history_figure, projections_figure, significant, synthetic_figure
from unseen.report.bench_page import reserved
from unseen.report.contents import Projection


def shown(method: str = "m", number: int = 0, **parts: Any) -> Shown:
    nothing = {"curve": None, "confusion": None, "projection": None, "history": None, "synthetic_counts": (), "per_class": ()}
    return Shown(run=0, method=method, number=number, **{**nothing, **parts})


def plane(names: tuple[str, ...], each: int = 2) -> Projection:
    labels = np.tile(np.repeat(np.arange(len(names)), each), 2)
    xy = np.stack([labels, np.arange(len(labels))], axis=1).astype(float)
    return Projection(xy, labels, np.arange(len(labels)) >= len(labels) // 2, names, "m")


def counted(*counts: int) -> tuple[tuple[int, dict[str, float]], ...]:
    return tuple((n, {"T1": 0.1, "U": 0.2, "S": 0.3, "H": 0.24}) for n in counts)


PLANES = projections_figure([shown(HOSTILE[k], k, projection=plane(HOSTILE)) for k in range(3)])
HISTORY = history_figure(History(np.array([1, 5]), {name: np.array([1.0, np.nan]) for name in HOSTILE[:5]}), 8)
SYNTHETIC = synthetic_figure([shown(HOSTILE[k], k, synthetic_counts=counted(10, 30)) for k in range(9)])


@pytest.mark.parametrize("figure", [PLANES, HISTORY, SYNTHETIC], ids=["planes", "history", "synthetic"])
def test_plotly_accepts_every_word_of_a_figure_and_reads_no_markup(figure: dict[str, Any]) -> None:
    json.dumps(figure, allow_nan=False)
    drawn = go.Figure(coloured({key: figure[key] for key in ("data", "layout")}))
    texts = [trace.name for trace in drawn.data] + [note.text for note in drawn.layout.annotations]
    assert len(texts) > 5
    assert not any("<" in text for text in texts)


@pytest.mark.parametrize(("figure", "count"), [(PLANES, 3), (HISTORY, 5), (SYNTHETIC, 4)])
def test_every_small_plot_has_axes_and_a_title_of_its_own(figure: dict[str, Any], count: int) -> None:
    numbers = ["", *map(str, range(2, count + 1))]
    assert {trace["xaxis"] for trace in figure["data"]} == {f"x{k}" for k in numbers}
    assert all(trace["yaxis"] == trace["xaxis"].replace("x", "y") for trace in figure["data"])
    assert {key for key in figure["layout"] if key.startswith("xaxis")} == {f"xaxis{k}" for k in numbers}
    titles = [note["xref"] for note in figure["layout"]["annotations"] if note["xref"].endswith("domain")]
    assert titles == [f"x{k} domain" for k in numbers]
    assert figure["arrange"]["facets"]["count"] == count
    assert json.loads(reserved(figure)) == {"facets": figure["arrange"]["facets"]}


def test_planes_share_one_legend_and_the_look_of_their_classes() -> None:
    figure = projections_figure([shown("a", projection=plane(("x", "y"))), shown("b", projection=plane(("x", "y")))])
    legend = [(trace["name"], trace["xaxis"]) for trace in figure["data"] if trace["showlegend"]]
    assert legend == [("x", "x"), ("y", "x")]
    looks = {
        (t["xaxis"], t["name"]): (t["marker"]["color"]["css"], t["marker"]["symbol"], t["x"])
        for t in figure["data"]
        if not t["marker"]["symbol"].endswith("-open")
    }
    assert looks["x", "x"] == looks["x2", "x"]
    assert looks["x", "y"] == looks["x2", "y"]
    assert looks["x", "x"] != looks["x", "y"]


def test_classes_are_named_in_a_plane_only_where_names_have_room() -> None:
    def named(classes: int) -> tuple[int, int]:
        names = tuple(f"class {k}" for k in range(classes))
        figure = projections_figure([shown(projection=plane(names))])
        notes = [note for note in figure["layout"]["annotations"] if note.get("name") == "class"]
        return len(notes), figure["arrange"]["roomForNames"]

    assert named(12) == (12, 300)
    assert named(13) == (13, 480)
    assert named(25)[0] == 0
    beyond = projections_figure([shown(projection=plane(tuple(map(str, range(36)))))])
    assert not any(trace["showlegend"] for trace in beyond["data"]), "marks repeat, so a legend would mislead"


def test_a_gap_in_a_history_stays_a_gap() -> None:
    figure = history_figure(History(np.array([1, 2, 3]), {"G": np.array([1.0, np.nan, 0.123456])}), 1)
    [trace] = figure["data"]
    assert (trace["x"], trace["y"]) == ([1, 2, 3], [1.0, None, 0.1235])
    assert significant([123456.0, 0.000123456, -np.inf]) == [123500.0, 0.0001235, None]


def test_synthetic_counts_are_in_percent_and_each_method_has_a_look_of_its_own() -> None:
    figure = synthetic_figure([shown(str(k), k, synthetic_counts=counted(10, 30, 1000)) for k in range(10)])
    of_h = [trace for trace in figure["data"] if trace["xaxis"] == "x4"]
    assert [trace["y"] for trace in of_h] == [[24.0, 24.0, 24.0]] * 10
    assert [trace["x"] for trace in of_h] == [[10, 30, 1000]] * 10
    assert len({(trace["line"]["color"]["css"], trace["line"]["dash"]) for trace in of_h}) == 10
    assert sum(trace["showlegend"] for trace in figure["data"]) == 10


def test_ticks_of_synthetic_counts_do_not_run_into_each_other() -> None:
    figure = synthetic_figure([shown(synthetic_counts=counted(10, 30, 100, 250, 300, 1000))])
    assert figure["layout"]["xaxis"]["tickvals"] == [10, 30, 100, 250, 1000]


def test_a_number_keeps_its_look_beyond_the_methods_that_are_shown() -> None:
    [trace] = history_figure(History(np.array([1, 2]), {"G": np.array([1.0, 2.0])}), 8)["data"]
    assert trace["line"]["color"] == {"css": "series-1"}


def test_labels_of_small_plots_are_escaped_once() -> None:
    titles = [note["text"] for note in HISTORY["layout"]["annotations"]]
    assert html.unescape(titles[0]) == HOSTILE[0]
