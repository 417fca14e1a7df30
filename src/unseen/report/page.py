"""One self-contained HTML page: it opens offline, asks the network for nothing, and shows names as text whatever they are.

Every class name, path and command is hostile until shown otherwise: a data set can come from anywhere. So all text is
escaped by jinja2, the figures' data are JSON whose markup characters are escaped, text that plotly draws is escaped once more
(`figures.label`), and a content security policy in the page lets run only the two scripts that this module puts there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unseen.errors import DataError, MissingDependency
from unseen.report import figures
from unseen.report.contents import Gallery, Page

HERE = Path(__file__).parent

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
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as missing:
        raise MissingDependency(
            f"the report page needs '{missing.name}', which is not installed; run: pip install 'unseen[report]'"
        ) from missing

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: figures.printable(value) if type(value) is str else value,
    )
    environment.filters.update(percent=percent, plain=plain, number=number, tile=tile_style)
    # Our own files and plotly's, the same in every page: not text to escape, but code to run under the policy.
    style, script, plotly = (HERE / "page.css").read_text("utf-8"), (HERE / "page.js").read_text("utf-8"), get_plotlyjs()
    return environment.get_template("page.html.j2").render(
        page=page,
        figures=_figures(page),
        columns=SHOWN_IN_TABLE,
        method_names=_methods(page),
        best=_best(page.results),
        rows=[_rest(row) for row in page.results],
        gallery=_gallery(page.gallery),
        faces=_faces(page.gallery),
        places=figures.places(page.projection) if page.projection else (),
        own_share=figures.own_share(page.projection) if page.projection else None,
        marks_limit=figures.MOST_MARKS,
        taken=figures.taken_for(page.confusion) if page.confusion else (),
        confusion_width=figures.confusion_width(page.confusion) if page.confusion else 0,
        confused_limit=figures.MOST_CONFUSED,
        first_pictures=FIRST_PICTURES,
        first_classes=FIRST_CLASSES,
        style=Markup(style),
        plotly=Markup(plotly),
        script=Markup(script),
        policy=_policy(plotly, script),
    )


def percent(value: object) -> str:
    """A fraction in percent with one decimal; a dash where there is none."""
    if isinstance(value, int | float | np.number) and np.isfinite(value):
        return f"{100 * float(value):.1f}"
    return "–"


def number(value: object) -> str:
    """A count, or seconds, as a reader likes it; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return "–" if value is None else str(value)
    amount = float(value)
    if not np.isfinite(amount):
        return "–"
    if amount >= 100 or isinstance(value, int | np.integer):
        return f"{round(amount):,}".replace(",", "\u202f")
    return f"{amount:.1f}"


def plain(value: object) -> str:
    """Any value of a result row as text, exactly: numbers unrounded, nested things as JSON."""
    value = _builtin(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def tile_style(place: tuple[int, int]) -> str:
    """Where a thumbnail lies in the sheet, for the style attribute."""
    column, row = place
    return f"--x:{int(column)};--y:{int(row)}"


def _builtin(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _builtin(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _builtin(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_builtin(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _figures(page: Page) -> dict[str, str]:
    """Each figure that there is, as JSON that cannot end the script element it stands in."""
    made: dict[str, Any] = {}
    if page.curves:
        made["curve"] = figures.curve_figure(page.curves)
    if page.projection:
        made["projection"] = figures.projection_figure(page.projection)
    if page.confusion:
        made["confusion"] = figures.confusion_figure(page.confusion)
    return {name: _safe_json(figure) for name, figure in made.items()}


def _safe_json(value: object) -> str:
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _best(results: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """The highest value of each accuracy, among the rows that may compete: none chosen on the test set, no oracle."""
    fair = [row for row in results if not row.get("test_used_for_selection") and not row.get("oracle")]
    best = {}
    for key, _ in SHOWN_IN_TABLE:
        values = [float(v) for row in fair if isinstance(v := row.get(key), int | float | np.number) and np.isfinite(v)]
        if len(values) > 1:
            best[key] = max(values)
    return best


def _methods(page: Page) -> list[str]:
    """The methods of the per-class table, in the order in which they come."""
    return list(dict.fromkeys(method for _, _, _, accuracy in page.per_class for method in accuracy))


def _rest(row: Mapping[str, object]) -> dict[str, str]:
    """Everything that a result row holds, in its own order, as text."""
    return {str(key): plain(value) for key, value in row.items()}


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


def _policy(*scripts: str) -> str:
    """A content security policy under which only these scripts run and nothing is fetched."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    # Plotly sets styles on what it draws; it offers the figure as a picture through blob: and data: addresses.
    rest = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {hashes}; {rest}"
