"""What every page shares: templates in which all text is escaped, numbers as a reader likes them, and the policy of a page.

Every class name, path and command is hostile until shown otherwise: a data set can come from anywhere. So all text is
escaped by jinja2, the figures' data are JSON whose markup characters are escaped, text that plotly draws is escaped once more
(`figures.label`), and a content security policy in the page lets run only the scripts that `render_template` puts there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unseen.errors import MissingDependency
from unseen.report.figures import printable

HERE = Path(__file__).parent


def render_template(template: str, styles: Sequence[str], scripts: Sequence[str], values: Mapping[str, Any]) -> str:
    """A template of this folder as HTML. The same values give the same bytes.

    Args:
        template: its file; it extends `base.html.j2`.
        styles: files of CSS in this folder, in order.
        scripts: files of JavaScript in this folder, at the end of the page, in order; "plotly" is plotly's own, which lies
            there as text until `page.js` needs it.
        values: what the template shows.

    Raises:
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
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters.update(percent=percent, plain=plain, number=number)
    # Our own files and plotly's, the same in every page: not text to escape, but code to run under the policy.
    code = [get_plotlyjs() if name == "plotly" else (HERE / name).read_text("utf-8") for name in scripts]
    return environment.get_template(template).render(
        style=Markup("".join((HERE / name).read_text("utf-8") for name in styles)),
        scripts=[(name, Markup(script)) for name, script in zip(scripts, code, strict=True)],
        policy=_policy(*code),
        **values,
    )


def percent(value: object, signed: bool = False) -> str:
    """A fraction in percent with one decimal, on request with its sign; a dash where there is none."""
    amount = finite(value)
    return "–" if amount is None else f"{100 * amount:{'+' if signed else ''}.1f}"


def number(value: object) -> str:
    """A count, or seconds, as a reader likes it; a dash where there is none."""
    amount = finite(value)
    if amount is None:
        return value if isinstance(value, str) else "–"
    if amount >= 100 or isinstance(value, int | np.integer):
        return f"{round(amount):,}".replace(",", "\u202f")
    return f"{amount:.1f}"


def finite(value: object) -> float | None:
    """The value if it is a number that can be counted with, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    try:
        amount = float(value)
    except OverflowError:  # JSON knows integers of any length
        return None
    return amount if np.isfinite(amount) else None


def plain(value: object) -> str:
    """Any value of a result row as text, exactly: numbers unrounded, nested things as JSON."""
    value = _builtin(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def row_in_full(row: Mapping[str, object]) -> dict[str, str]:
    """Everything that a result row holds, in its own order, as text."""
    return {str(key): plain(value) for key, value in row.items()}


def safe_json(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


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


def _policy(*scripts: str) -> str:
    """A content security policy under which only these scripts run and nothing is fetched."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    # Plotly sets styles on what it draws; it offers the figure as a picture through blob: and data: addresses.
    rest = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return "; ".join(["default-src 'none'", *([f"script-src {hashes}"] if hashes else []), rest])
