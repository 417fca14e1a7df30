"""One self-contained HTML page of a run: it opens offline, asks the network for nothing, and shows names as text whatever
they are (see `unseen.report.rendering`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unseen.errors import DataError
from unseen.report import figures
from unseen.report.contents import Gallery, Page
from unseen.report.rendering import render_template, row_in_full, safe_json

MEDIA_TYPES = ("image/png", "image/webp", "image/jpeg", "image/avif", "image/gif")

SHOWN_IN_TABLE = (
    ("T1", "T1"),
    ("U", "U"),
    ("S", "S"),
    ("H", "H"),
    ("H_without_gamma", "H without γ"),
    ("AUSUC", "AUSUC"),
)
"""Keys of a result row that are accuracies, and the heads of their columns."""

FIRST_PICTURES = 24
"""Pictures with their guesses that show at once; the others wait behind a line to click."""

FIRST_CLASSES = 60
"""Rows of a table of classes that show at once."""


def render(page: Page) -> str:
    """The page as HTML. The same page gives the same bytes.

    Raises:
        DataError: the gallery's media type is not one of those in `MEDIA_TYPES`.
        MissingDependency: jinja2 or plotly is not installed.
    """
    drawn = _figures(page)
    return render_template(
        "page.html.j2",
        styles=["page.css"],
        scripts=["plotly", "page.js"] if drawn else [],
        values={
            "page": page,
            "figures": drawn,
            "columns": SHOWN_IN_TABLE,
            "method_names": _methods(page),
            "best": _best(page.results),
            "rows": [row_in_full(row) for row in page.results],
            "gallery": _gallery(page.gallery),
            "faces": _faces(page.gallery),
            "tile": tile_style,
            "places": figures.places(page.projection) if page.projection else (),
            "own_share": figures.own_share(page.projection) if page.projection else None,
            "marks_limit": figures.MOST_MARKS,
            "taken": figures.taken_for(page.confusion) if page.confusion else (),
            "confusion_width": figures.confusion_width(page.confusion) if page.confusion else 0,
            "confused_limit": figures.MOST_CONFUSED,
            "first_pictures": FIRST_PICTURES,
            "first_classes": FIRST_CLASSES,
        },
    )


def tile_style(place: tuple[int, int]) -> str:
    """Where a thumbnail lies in the sheet, for the style attribute."""
    column, row = place
    return f"--x:{int(column)};--y:{int(row)}"


def _figures(page: Page) -> dict[str, str]:
    """Each figure that there is, as JSON that cannot end the script element it stands in."""
    made: dict[str, Any] = {}
    if page.curves:
        made["curve"] = figures.curve_figure(page.curves)
    if page.projection:
        made["projection"] = figures.projection_figure(page.projection)
    if page.confusion:
        made["confusion"] = figures.confusion_figure(page.confusion)
    return {name: safe_json(figure) for name, figure in made.items()}


def _best(results: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """The highest value of each accuracy, among the rows that may compete: inductive, not chosen on the test set, no oracle."""
    unfair = ("test_used_for_selection", "transductive", "oracle")
    fair = [row for row in results if not any(row.get(mark) for mark in unfair)]
    best = {}
    for key, _ in SHOWN_IN_TABLE:
        values = [float(v) for row in fair if isinstance(v := row.get(key), int | float | np.number) and np.isfinite(v)]
        if len(values) > 1:
            best[key] = max(values)
    return best


def _methods(page: Page) -> list[str]:
    """The methods of the per-class table, in the order in which they come."""
    return list(dict.fromkeys(method for _, _, _, accuracy in page.per_class for method in accuracy))


def _gallery(gallery: Gallery | None) -> dict[str, Any] | None:
    if gallery is None:
        return None
    if gallery.media_type not in MEDIA_TYPES:
        raise DataError(f"the thumbnails are of type '{gallery.media_type}'; give one of {', '.join(MEDIA_TYPES)}")
    return {"uri": f"data:{gallery.media_type};base64,{base64.b64encode(gallery.sheet).decode('ascii')}"}


def _faces(gallery: Gallery | None) -> dict[str, tuple[int, int]]:
    """One thumbnail for each unseen class of which a picture is shown: the first."""
    faces: dict[str, tuple[int, int]] = {}
    for picture in gallery.pictures if gallery else ():
        faces.setdefault(picture.truth, picture.tile)
    return faces
