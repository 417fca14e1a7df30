"""The figures as plotly's JSON, and the same findings as numbers for those who cannot see or run them.

A colour is written as {"css": "name"}: the page's script replaces it by the CSS variable of that name, so that a figure
follows the reader's colour scheme like everything else. Beside plotly's `data` and `layout` there may be `arrange`: what that
script does when there is little room. Text that plotly draws goes through `label`, because plotly reads pseudo-HTML (<b>,
<a href>) out of it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.report.contents import Confusion, Curve, Projection

Json = dict[str, Any]

SERIES = 7
"""Colours that stay apart for colour-blind readers (Paul Tol's bright scheme): CSS variables series-0 to series-6."""

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
POINTS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross")

MOST_MARKS = SERIES * len(SHAPES)
"""Classes that have a colour and shape of their own; beyond them a legend would mislead, and the pointer names a mark."""

LONGEST_LABEL = 28
MOST_POINTS = 600
"""Points of one drawn curve."""

MOST_NAMED = 24
"""Classes that are named inside a scatter plot; more names hide the points."""

MOST_TICKS = 60
MOST_CONFUSED = 200
"""Classes in a confusion heat map; beyond that a cell is less than a pixel and the page grows with the square."""


def label(text: str) -> str:
    """A name as plotly draws it: one line, shortened, its markup and its writing direction kept to itself."""
    line = " ".join(printable(text).split())
    short = line if len(line) <= LONGEST_LABEL else line[: LONGEST_LABEL - 1] + "…"
    if any(unicodedata.bidirectional(c) in _TURNS for c in short):
        short = f"\u2068{short}\u2069"
    return html.escape(short, quote=False)


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

_TURNS = {"R", "AL", "AN", "RLE", "LRE", "RLO", "LRO", "PDF", "RLI", "LRI", "FSI", "PDI"}


def printable(text: str) -> str:
    """The text with what no HTML page can hold (control characters, halves of a surrogate pair) made visible as �."""
    return _UNPRINTABLE.sub("\ufffd", text)


def curve_figure(curves: tuple[Curve, ...], numbers: Sequence[int] | None = None) -> Json:
    """Unseen over seen accuracy while γ moves, one line a method, and where each method operates.

    Args:
        numbers: which colour, dash and mark each curve has; by default they are taken in order.
    """
    data: list[Json] = []
    for number, curve in zip(numbers or range(len(curves)), curves, strict=True):
        colour, drawn = series(number), thinned(len(curve.seen))
        name = f"{label(curve.method)} (AUSUC {100 * curve.ausuc:.1f})"
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "legendgroup": str(number),
                "x": percents(np.asarray(curve.seen)[drawn]),
                "y": percents(np.asarray(curve.unseen)[drawn]),
                "line": {"color": colour, "dash": DASHES[number % len(DASHES)], "width": 2.5},
                "hovertemplate": "seen %{x:.1f} %, unseen %{y:.1f} %",
            }
        )
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "legendgroup": str(number),
                "showlegend": False,
                "x": percents([curve.point[0]]),
                "y": percents([curve.point[1]]),
                "marker": {
                    "color": colour,
                    "size": 13,
                    "symbol": POINTS[number % len(POINTS)],
                    "line": {"color": {"css": "page"}, "width": 2},
                },
                "hovertemplate": "operates at seen %{x:.1f} %, unseen %{y:.1f} %",
            }
        )
    axis = {"rangemode": "tozero", "ticksuffix": " %", "ticklabelstandoff": 5, **AXIS}
    return {
        "data": data,
        "layout": {
            **base_layout(height=460),
            "legend": {"x": 0.02, "y": 0.02, "xanchor": "left", "yanchor": "bottom", "bgcolor": {"css": "veil"}},
            "xaxis": {**axis, "title": {"text": "accuracy on seen classes (S)"}},
            "yaxis": {**axis, "title": {"text": "accuracy on unseen classes (U)"}},
        },
        "arrange": {
            "narrow": {
                "height": 340 + LEGEND_LINE * len(curves),
                "legend": LEGEND_BELOW,
            }
        },
    }


LEGEND_BELOW: Json = {
    "orientation": "h",
    "x": 0,
    "y": 0,
    "xanchor": "left",
    "yanchor": "bottom",
    "xref": "container",
    "yref": "container",
}
"""Where a narrow screen has the legend of a figure whose legend lies in it otherwise: one line an entry."""

LEGEND_LINE = 30
"""Height of a line of such a legend."""


def projection_figure(projection: Projection) -> Json:
    """Filled marks for real features, hollow ones for synthetic; colour and shape tell the class."""
    present = np.unique(_arrays(projection)[1])
    layout = {**base_layout(height=620), "xaxis": HIDDEN, "yaxis": HIDDEN, "showlegend": len(present) <= MOST_MARKS}
    if len(present) <= MOST_NAMED:
        layout["annotations"] = names_at_their_places(projection)
    return {"data": projection_marks(projection), "layout": layout}


HIDDEN: Json = {"showgrid": False, "zeroline": False, "showticklabels": False, "ticks": ""}
"""An axis whose numbers mean nothing."""


def projection_marks(projection: Projection, legend: bool = True) -> list[Json]:
    """The marks of one plane, two traces a class: its synthetic and its real features."""
    xy, labels, synthetic = _arrays(projection)
    data: list[Json] = []
    for made in (True, False):  # the real ones last: they lie on top
        for number in np.unique(labels):
            rows = (labels == number) & (synthetic == made)
            shape = SHAPES[(number // SERIES + number) % len(SHAPES)]
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": label(projection.names[number]),
                    "legendgroup": str(number),
                    # A class without real features still needs its place in the legend.
                    "showlegend": legend and (not made or not np.any((labels == number) & ~synthetic)),
                    "x": rounded(xy[rows, 0]),
                    "y": rounded(xy[rows, 1]),
                    "marker": {
                        "color": series(int(number)),
                        "symbol": f"{shape}-open" if made else shape,
                        "size": 6 if made else 9,
                        "opacity": 0.55 if made else 1.0,
                        "line": {"color": series(int(number)) if made else {"css": "page"}, "width": 1},
                    },
                    "hovertemplate": "synthetic" if made else "real picture",
                }
            )
    return data


def names_at_their_places(projection: Projection) -> list[Json]:
    """Each class's name, above its marks."""
    return [_name_at_its_place(projection, int(number)) for number in np.unique(_arrays(projection)[1])]


def _name_at_its_place(projection: Projection, number: int) -> Json:
    """The class name above its real features (above its synthetic ones where nothing real is known)."""
    xy, labels, synthetic = _arrays(projection)
    rows = (labels == number) & ~synthetic
    rows = rows if rows.any() else labels == number
    return {
        "name": "class",  # where there is no room for names, the script leaves them out
        "x": round(float(np.median(xy[rows, 0])), 3),
        "y": round(float(xy[rows, 1].max()), 3),
        "text": label(projection.names[number]),
        "showarrow": False,
        "yanchor": "bottom",
        "yshift": 5,
        "font": {"size": 12, "color": {"css": "ink"}},
        "bgcolor": {"css": "veil"},
        "borderpad": 0,
    }


@dataclass(frozen=True)
class Place:
    """One class in the plane, in numbers: rows of each kind, and the share of real rows that lie nearest to their own."""

    name: str
    real: int
    synthetic: int
    own: float | None


def places(projection: Projection) -> tuple[Place, ...]:
    """What the plane shows, a class at a time: whose synthetic feature is nearest to each real one, within the plane."""
    xy, labels, synthetic = _arrays(projection)
    nearest = _nearest_labels(xy[~synthetic], xy[synthetic], labels[synthetic])
    real_labels = labels[~synthetic]
    found = []
    for number in np.unique(labels):
        mine = real_labels == number
        own = float(np.mean(nearest[mine] == number)) if mine.any() and len(nearest) else None
        made = int(np.sum(labels[synthetic] == number))
        found.append(Place(projection.names[number], int(mine.sum()), made, own))
    return tuple(found)


def own_share(projection: Projection) -> float | None:
    """Share of all real rows whose nearest synthetic row in the plane is of their own class."""
    counted = [(place.own, place.real) for place in places(projection) if place.own is not None]
    rows = sum(real for _, real in counted)
    return sum(own * real for own, real in counted) / rows if rows else None


def _nearest_labels(points: NDArray[np.float64], others: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(points) or not len(others):
        return np.zeros(0, dtype=np.int64)
    from scipy.spatial import KDTree  # here, because a page without a plane needs no scipy

    nearest: NDArray[np.int64] = labels[KDTree(others).query(points)[1]]
    return nearest


def confusion_figure(confusion: Confusion) -> Json:
    """A heat map: true unseen classes down, answers across, "a seen class" as the last column; a cell is a share of its row.

    Beyond 200 classes it shows the 200 with the most test pictures; answers among the others fall into no cell.
    """
    counts = np.asarray(confusion.counts, dtype=np.int64)
    totals = counts.sum(axis=1)
    shown = np.sort(np.argsort(-totals, kind="stable")[:MOST_CONFUSED])
    columns = np.append(shown, counts.shape[1] - 1)
    part = counts[np.ix_(shown, columns)]
    shares = 100 * part / np.maximum(totals[shown], 1)[:, None]
    names = [label(confusion.names[i]) for i in shown]
    ticks = len(shown) <= MOST_TICKS
    axis = {"tickmode": "array", "showticklabels": ticks, "ticks": "", "showgrid": False, "zeroline": False, "automargin": True}
    line = {"color": {"css": "muted"}, "width": 2}
    return {
        "data": [
            {
                "type": "heatmap",
                "x": list(range(len(shown) + 1)),
                "y": list(range(len(shown))),
                "z": [rounded(row) for row in shares],
                "customdata": part.tolist(),
                "zmin": 0,
                "zmax": 100,
                "xgap": int(ticks),
                "ygap": int(ticks),
                "colorscale": [[0, {"css": "heat-0"}], [0.5, {"css": "heat-1"}], [1, {"css": "heat-2"}]],
                "colorbar": {
                    "ticksuffix": " %",
                    "thickness": 12,
                    "outlinewidth": 0,
                    "title": {"text": "share of the true class", "side": "right"},
                },
                "hovertemplate": "is: %{y}<br>taken for: %{x}<br>%{customdata} pictures, %{z:.0f} %<extra></extra>",
            }
        ],
        "layout": {
            **base_layout(height=int(np.clip(26 * len(shown) + 190, 360, 1100))),
            "xaxis": {**axis, "tickvals": list(range(len(shown) + 1)), "ticktext": [*names, "a seen class"], "tickangle": -60},
            "yaxis": {**axis, "tickvals": list(range(len(shown))), "ticktext": names, "autorange": "reversed"},
            # The last column is no class of its own: a line keeps it apart.
            "shapes": [
                {
                    "type": "line",
                    "x0": len(shown) - 0.5,
                    "x1": len(shown) - 0.5,
                    "y0": 0,
                    "y1": 1,
                    "yref": "paper",
                    "line": line,
                }
            ],
            "showlegend": False,
        },
    }


def confusion_width(confusion: Confusion) -> int:
    """Pixels below which the heat map's names would run into each other; a narrower screen scrolls it sideways."""
    shown = min(len(confusion.names), MOST_CONFUSED)
    return 250 + 20 * shown if shown <= MOST_TICKS else 250 + 3 * shown


@dataclass(frozen=True)
class Taken:
    """One row of the confusion in words; names are "" where there is nothing to name."""

    name: str
    rows: int
    right: int
    seen: int
    nearest_seen: str
    other: str
    other_count: int


def taken_for(confusion: Confusion) -> tuple[Taken, ...]:
    """The confusion, a class at a time: how many were right, taken for a seen class, and for which other unseen class."""
    counts = np.asarray(confusion.counts, dtype=np.int64)
    found = []
    for number, row in enumerate(counts):
        wrong = row[:-1].copy()
        wrong[number] = 0
        other = int(wrong.argmax()) if len(wrong) else 0
        most = int(wrong[other]) if len(wrong) else 0
        found.append(
            Taken(
                name=confusion.names[number],
                rows=int(row.sum()),
                right=int(row[number]),
                seen=int(row[-1]),
                nearest_seen=confusion.nearest_seen[number] if row[-1] else "",
                other=confusion.names[other] if most else "",
                other_count=most,
            )
        )
    return tuple(found)


_FONT = "system-ui, sans-serif"

AXIS: Json = {"gridcolor": {"css": "line"}, "zerolinecolor": {"css": "line"}, "automargin": True}


def base_layout(height: int) -> Json:
    """What all figures share: the reader's colours and fonts, a legend below, small margins."""
    return {
        "height": height,
        "margin": {"l": 12, "r": 12, "t": 34, "b": 12},  # above: the buttons
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 13, "color": {"css": "ink"}},
        "legend": {"orientation": "h", "x": 0, "y": -0.02, "xanchor": "left", "yanchor": "top", "itemsizing": "constant"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": {"css": "muted"}, "activecolor": {"css": "accent"}},
        "hoverlabel": {
            "bgcolor": {"css": "panel"},
            "bordercolor": {"css": "line"},
            "font": {"family": _FONT, "color": {"css": "ink"}},
            "namelength": -1,
        },
    }


def _arrays(projection: Projection) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    return (
        np.asarray(projection.xy, dtype=np.float64),
        np.asarray(projection.labels, dtype=np.int64),
        np.asarray(projection.synthetic, dtype=np.bool_),
    )


def series(number: int) -> Json:
    """The colour of a series."""
    return {"css": f"series-{number % SERIES}"}


def thinned(points: int) -> NDArray[np.int64]:
    """Which of so many points of a curve to draw: both ends, and no more than a screen can tell apart."""
    return np.unique(np.linspace(0, points - 1, min(points, MOST_POINTS)).round().astype(np.int64))


def percents(values: Any) -> list[float | None]:
    """Fractions in percent, `rounded`."""
    return rounded(100 * np.asarray(values, dtype=np.float64))


def rounded(values: Any) -> list[float | None]:
    """Three decimals: more than a screen shows, and a third of the bytes. What is not finite is a gap."""
    return [round(float(v), 3) if np.isfinite(v) else None for v in np.asarray(values, dtype=np.float64)]
