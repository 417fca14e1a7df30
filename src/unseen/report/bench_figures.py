"""The figures of a bench as plotly's JSON: small plots side by side, which the page's script arranges in columns.

Colours are names of CSS variables, and text goes through `label`, as in `unseen.report.figures`. Of several plots `arrange`
says how many there are, the least width at which one can be read, the height of one, and what the legend adds; the script
takes as many columns as fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unseen.report.bench_contents import History, Shown
from unseen.report.figures import (
    AXIS,
    DASHES,
    HIDDEN,
    MOST_MARKS,
    MOST_NAMED,
    POINTS,
    Json,
    base_layout,
    label,
    names_at_their_places,
    percents,
    projection_marks,
    series,
)

FEW_NAMED = 12
"""Classes that are named inside a small plot."""

APART = 1.8
"""How many times as large as the tick before it a tick of a logarithmic axis must be."""


def projections_figure(shown: Sequence[Shown]) -> Json:
    """Real and synthetic features, one plane a method; a class has the same colour and shape in all of them."""
    data: list[Json] = []
    axes: Json = {}
    annotations: list[Json] = []
    planes = [(one.method, one.projection) for one in shown if one.projection is not None]
    classes = max(len(plane.names) for _, plane in planes)
    in_legend: set[str] = set()
    for k, (method, plane) in enumerate(planes, start=1):
        for trace in projection_marks(plane, legend=classes <= MOST_MARKS):
            trace |= _on(k)
            trace["showlegend"] &= trace["legendgroup"] not in in_legend
            in_legend |= {trace["legendgroup"]} if trace["showlegend"] else set()
            data.append(trace)
        axes |= _axes(k, HIDDEN, HIDDEN)
        annotations.append(_title(k, method))
        if classes <= MOST_NAMED:
            annotations += [name | _refer(k) for name in names_at_their_places(plane)]
    figure = _facets(data, axes, annotations, len(planes), least=300, height=340, extra=24 + 24 * min(6, -(-classes // 6)))
    figure["arrange"]["roomForNames"] = 300 if classes <= FEW_NAMED else 480
    return figure


def history_figure(history: History, number: int) -> Json:
    """The losses of one training, one small plot a term, because their scales have nothing in common."""
    data: list[Json] = []
    axes: Json = {}
    titles = []
    for k, (term, values) in enumerate(history.losses.items(), start=1):
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label(term),
                "showlegend": False,
                "x": [int(step) for step in history.steps],
                "y": significant(values),
                "line": {"color": series(number), "width": 1.5},
                "hovertemplate": "step %{x}: %{y:.4g}<extra></extra>",
                **_on(k),
            }
        )
        axes |= _axes(k, {**AXIS, "nticks": 4, "rangemode": "tozero"}, {**AXIS, "nticks": 5})
        titles.append(_title(k, term))
    return _facets(data, axes, titles, len(titles), least=230, height=190, extra=0)


def synthetic_figure(shown: Sequence[Shown]) -> Json:
    """T1, U, S and H over the number of synthetic rows a class, one line a method."""
    data: list[Json] = []
    axes: Json = {}
    keys = ("T1", "U", "S", "H")
    measured = [one for one in shown if one.synthetic_counts]
    ticks = _apart({count for one in measured for count, _ in one.synthetic_counts})
    for k, key in enumerate(keys, start=1):
        data += [_over_counts(one, key, k) for one in measured]
        x = {**AXIS, "type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": [str(t) for t in ticks], "tickangle": 0}
        axes |= _axes(k, x, {**AXIS, "ticksuffix": " %", "nticks": 6})
    return _facets(data, axes, [_title(k, key) for k, key in enumerate(keys, start=1)], len(keys), 230, 230, extra=50)


def _over_counts(one: Shown, key: str, k: int) -> Json:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label(one.method),
        "legendgroup": str(one.number),
        "showlegend": k == 1,
        "x": [count for count, _ in one.synthetic_counts],
        "y": percents([figures[key] for _, figures in one.synthetic_counts]),
        "line": {"color": series(one.number), "dash": DASHES[one.number % len(DASHES)], "width": 2},
        "marker": {"color": series(one.number), "symbol": POINTS[one.number % len(POINTS)], "size": 7},
        "hovertemplate": "%{x} rows a class: %{y:.1f} %",
        **_on(k),
    }


def _apart(counts: set[int]) -> list[int]:
    """Those of the counts that can be written side by side, smallest first."""
    ticks: list[int] = []
    for count in sorted(counts):
        if count > 0 and (not ticks or count >= APART * ticks[-1]):
            ticks.append(count)
    return ticks


def significant(values: object) -> list[float | None]:
    """Four significant digits, which is more than a small plot shows; what is not finite is a gap."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in np.asarray(values, dtype=np.float64)]


def _facets(data: list[Json], axes: Json, annotations: list[Json], count: int, least: int, height: int, extra: int) -> Json:
    layout = base_layout(height=height * count + extra)
    layout["margin"]["b"] += extra
    layout["legend"] |= {"y": 0, "yref": "container", "yanchor": "bottom"}
    grid = {"rows": count, "columns": 1, "pattern": "independent"}
    return {
        "data": data,
        "layout": {**layout, **axes, "annotations": annotations, "grid": grid},
        "arrange": {"facets": {"count": count, "least": least, "height": height, "extra": extra}},
    }


def _number(k: int) -> str:
    return "" if k == 1 else str(k)


def _on(k: int) -> Json:
    return {"xaxis": f"x{_number(k)}", "yaxis": f"y{_number(k)}"}


def _refer(k: int) -> Json:
    return {"xref": f"x{_number(k)}", "yref": f"y{_number(k)}"}


def _axes(k: int, x: Json, y: Json) -> Json:
    return {f"xaxis{_number(k)}": dict(x), f"yaxis{_number(k)}": dict(y)}


def _title(k: int, text: str) -> Json:
    """What a small plot shows, above it."""
    return {
        "text": label(text),
        "x": 0,
        "y": 1,
        "xref": f"x{_number(k)} domain",
        "yref": f"y{_number(k)} domain",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 14, "color": {"css": "ink"}},
    }
