"""Pages whose words are written by hand and whose figures are not: benchmarks/words/NAME.md becomes docs/NAME.md.

What stands in braces is replaced by what the stored rows say, protocol `blind` if no other is named:

    {grocery: dfca}                             mean H with its interval, in percent
    {grocery: dfca | AUSUC}                     another figure: T1, U, S, H_without_gamma, seconds, or a diagnosis by its name
    {grocery: dfca, flow alone - dfca}          difference of H on equal tasks, with interval and how often it is above 0
    {grocery paper: dfca}                       under the protocol `paper`
    {grocery ablated: dfca}                     over those tasks alone that DFCA's ablation has too

A figure that nobody has measured yet reads "not measured yet".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from unseen.experiments.aggregate import Estimate, Method, diagnoses, paired, summaries
from unseen.experiments.results import FIGURES, Row

WORDS = Path(__file__).parent / "words"
PLACE = re.compile(
    r"\{(?P<data>[\w-]+)(?: (?P<protocol>paper|fixed))?(?P<ablated> ablated)?: (?P<of>[^{}|]+?)(?: \| (?P<figure>\w+))?\}"
)
MISSING = "not measured yet"


def write_pages(rows: Sequence[Row], docs: Path) -> None:
    """Every page of benchmarks/words, filled in."""
    for page in sorted(WORDS.glob("*.md")):
        (docs / page.name).write_text(filled(page.read_text(), rows))


def filled(text: str, rows: Sequence[Row]) -> str:
    """The text with the figures of these rows."""

    def figure(place: re.Match[str]) -> str:
        own = [row for row in rows if (row["dataset"], row["protocol"]) == (place["data"], place["protocol"] or "blind")]
        first, _, second = place["of"].partition(" - ")
        if place["ablated"]:
            taken = {(row["split"], row["seed"]) for row in own if row["variant"] and row["method"] == method(first)[0]}
            own = [row for row in own if (row["split"], row["seed"]) in taken]
        wanted = place["figure"] or "H"
        return difference(own, method(first), method(second), wanted) if second else value(own, method(first), wanted)

    return PLACE.sub(figure, text)


def method(label: str) -> Method:
    """`dfca, flow alone` is the row "flow alone" of DFCA's ablation; a comma may be in a row's name too."""
    name, _, variant = label.strip().partition(", ")
    return name, variant


def value(rows: Sequence[Row], of: Method, figure: str) -> str:
    """A mean over tasks, with an interval where there is one."""
    for summary in summaries(row for row in rows if (row["method"], row["variant"]) == of):
        if figure == "seconds":
            return f"{summary.seconds:.0f} s"
        if figure in FIGURES:
            estimate = summary.figures[figure]
            return MISSING if estimate is None else f"{100 * estimate.mean:.1f}{_interval(estimate, '{:.1f}')}"
    for diagnosis in diagnoses(row for row in rows if (row["method"], row["variant"]) == of):
        if figure in ("leak_unseen_to_seen", "leak_seen_to_unseen", "gap"):
            return f"{100 * getattr(diagnosis, figure):.1f}"
        if figure in diagnosis.figures:
            return f"{diagnosis.figures[figure]:.2f}"
    return MISSING


def difference(rows: Sequence[Row], first: Method, second: Method, figure: str) -> str:
    """How far the first is above the second, with its interval and the number of tasks in which it is."""
    for pair in paired(rows, first, second, figure):
        if pair.difference is not None:
            at = f"{100 * pair.difference.mean:+.1f}{_interval(pair.difference, '{:+.1f}')}"
            return f"{at}, above in {pair.better} of {pair.pairs} runs"
    return MISSING


def _interval(estimate: Estimate, form: str) -> str:
    if estimate.interval is None:
        return ""
    low, high = (form.format(100 * bound) for bound in estimate.interval)
    return f" ({low} to {high})"
