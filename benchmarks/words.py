"""Pages whose words are written by hand and whose figures are not: benchmarks/words/NAME.md becomes docs/NAME.md, and
benchmarks/words/readme.md the part of the README between its two marks.

What stands in braces is replaced by what the stored rows say, protocol `blind` if no other is named:

    {grocery: dfca}                             mean H with its interval, in percent, and the number of runs
    {grocery: dfca | AUSUC}                     another figure: T1, U, S, H_without_gamma, seconds, or a diagnosis by its name
    {grocery: dfca, flow alone - dfca}          difference of H on equal tasks, with interval and how often it is above 0
    {grocery paper: dfca}                       under the protocol `paper`
    {grocery: dfca under paper - dfca}          that of `paper` minus that of `blind`, on equal tasks
    {grocery: dfca under paper - dfca at its last epoch}   what choosing the epoch on test rows added
    {grocery paper: dfca | looks}               how often one run looked at the test rows
    {emoji/demo: dfca}                          on this split alone; {emoji/full*: dfca} on all whose names begin so
    {grocery ablated: dfca}                     over those tasks alone that all rows of DFCA's ablation have in common
    {grocery: sddn | h_s probe_accuracy}        how consistent a representation is
    {grocery: oracle (dfca)}                    of the same classifier with real rows of the unseen classes
    {grocery: dfca with 30}                     with so many synthetic rows a class, of the runs that were asked for it
    {helped: class-gaussian, names alone | T1}  what benchmarks/what_helps.py found, and on folds
    {grocery-folds: class-gaussian, 1 pictures worth 3 | T1}

A figure that nobody has measured yet reads "not measured yet".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import what_helps

from unseen.experiments.aggregate import Estimate, Method, paired, summaries
from unseen.experiments.diagnoses import consistencies, diagnoses
from unseen.experiments.results import FIGURES, Row, read_oracles, read_rows
from unseen.experiments.side_by_side import among_blind
from unseen.storage import read_json, write_json

WORDS = Path(__file__).parent / "words"
CURVES = Path(__file__).parent / "results" / "curves.json"
PLACE = re.compile(
    r"\{(?P<data>[\w-]+)(?:/(?P<split>[\w*]+))?(?: (?P<protocol>paper|fixed))?(?P<ablated> ablated)?: "
    r"(?P<of>[^{}|]+?)(?: \| (?P<figure>\w+(?: \w+)?))?\}"
)
MISSING = "not measured yet"


MARKS = "<!-- results -->", "<!-- /results -->"


def write_pages(folder: Path, docs: Path, readme: Path) -> None:
    """Every page of benchmarks/words, filled in from a benchmark's folder."""
    measured = read_rows(folder)
    rows = [*measured, *among_blind(measured), *read_oracles(folder), *curves(folder), *helped()]
    for page in sorted(WORDS.glob("*.md")):
        words = filled(page.read_text(), rows)
        if page.name != "readme.md":
            (docs / page.name).write_text(words)
            continue
        before, rest = readme.read_text().split(MARKS[0])
        readme.write_text(f"{before}{MARKS[0]}\n{words}{MARKS[1]}{rest.split(MARKS[1])[1]}")


def curves(folder: Path) -> Iterator[Row]:
    """What runs would have been with other numbers of synthetic rows a class, as rows of methods called `NAME with NUMBER`."""
    kept = read_json(CURVES) if CURVES.exists() else {}
    for row in read_rows(folder):
        for point in () if row["variant"] else kept.get(row["task"], ()):
            yield {**row, **{name: point.get(name) for name in FIGURES}, "method": f"{row['method']} with {point['per_class']}"}


def keep_curves(folder: Path) -> None:
    """Put the curves that the runs' figures have, which git does not keep, into one small file, beside those that it has."""
    rows = read_rows(folder)
    known = read_json(CURVES) if CURVES.exists() else {}
    kept = {row["task"]: known[row["task"]] for row in rows if row["task"] in known}
    for row in rows:
        figures = folder / "tasks" / row["task"] / "figures.json"
        if figures.exists() and not row["variant"] and (points := read_json(figures).get("synthetic_counts")):
            kept[row["task"]] = points
    write_json(CURVES, dict(sorted(kept.items())))


def helped() -> Iterator[Row]:
    """The rows of what_helps.py. What knows no draw of its own is the same in all three."""
    none = {**dict.fromkeys(FIGURES), "seconds": 0.0, "peak_memory": None, "test_used_for_selection": False}
    about = {"features_hash": "", "embeddings_hash": "", "method": "class-gaussian", "protocol": "blind"}
    for row in what_helps.read():
        drawn = row["dataset"] != "helped" or row["variant"] in what_helps.DRAWN
        for draw in [row["seed"]] if drawn else what_helps.DRAWS:
            yield {**none, **about, **row, "seed": draw}


def filled(text: str, rows: Sequence[Row]) -> str:
    """The text with the figures of these rows."""

    def figure(place: re.Match[str]) -> str:
        own = [row for row in rows if (row["dataset"], row["protocol"]) == (place["data"], place["protocol"] or "blind")]
        own = [row for row in own if fnmatchcase(row["split"], place["split"] or "*")]
        first, _, second = place["of"].partition(" - ")
        if place["ablated"]:
            own = in_common([row for row in own if row["method"] == method(first)[0]])
        wanted = place["figure"] or "H"
        return difference(own, method(first), method(second), wanted) if second else value(own, method(first), wanted)

    return PLACE.sub(figure, text)


def method(label: str) -> Method:
    """`dfca, flow alone` is the row "flow alone" of DFCA's ablation; a comma may be in a row's name too."""
    name, _, variant = label.strip().partition(", ")
    return name, variant


def in_common(rows: Sequence[Row]) -> list[Row]:
    """Of one method's rows those whose task every variant has done: while runs are missing, means of others do not compare."""
    tasks: dict[str, set[tuple[str, int]]] = {}
    for row in rows:
        tasks.setdefault(row["variant"], set()).add((row["split"], row["seed"]))
    shared = set.intersection(*tasks.values()) if len(tasks) > 1 else set()
    return [row for row in rows if (row["split"], row["seed"]) in shared]


def counted_once(rows: Sequence[Row]) -> list[Row]:
    """One seed a split, of a method that draws nothing: its other seeds only say the same again."""
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        first.setdefault(row["split"], row)
    drawn = any(row[name] != first[row["split"]][name] for row in rows for name in FIGURES)
    return list(rows) if drawn else list(first.values())


def value(rows: Sequence[Row], of: Method, figure: str) -> str:
    """A mean over tasks, with an interval where there is one."""
    rows = counted_once([row for row in rows if (row["method"], row["variant"]) == of])
    if figure == "looks" and rows:
        looks = sorted({row["test_evaluations"] for row in rows})
        return str(looks[0]) if len(looks) == 1 else f"{looks[0]} to {looks[-1]}"
    for summary in summaries(rows):
        if figure == "seconds":
            return f"{summary.seconds:.0f} s"
        if figure in FIGURES:
            estimate = summary.figures[figure]
            if estimate is None:
                return MISSING
            return f"{100 * estimate.mean:.1f} ({_interval(estimate, '{:.1f}')}{_runs(summary.tasks)})"
    for diagnosis in diagnoses(rows):
        if figure in ("leak_unseen_to_seen", "leak_seen_to_unseen", "gap"):
            return f"{100 * getattr(diagnosis, figure):.1f}"
        if figure in diagnosis.figures:
            return f"{diagnosis.figures[figure]:.2f}"
    for consistency in consistencies(rows):
        name = figure.removeprefix(f"{consistency.representation} ")
        if name != figure and name in consistency.figures:
            return f"{consistency.figures[name]:.2f}"
    return MISSING


def difference(rows: Sequence[Row], first: Method, second: Method, figure: str) -> str:
    """How far the first is above the second, with its interval and the number of tasks in which it is."""
    of = [[row for row in rows if (row["method"], row["variant"]) == method] for method in (first, second)]
    once = [counted_once(own) for own in of]
    if all(len(own) == len({row["split"] for row in own}) for own in once):
        of = once
    for pair in paired([row for own in of for row in own], first, second, figure):
        if pair.difference is not None:
            interval = _interval(pair.difference, "{:+.1f}")
            return f"{100 * pair.difference.mean:+.1f} ({interval}above in {pair.better} of {_runs(pair.pairs)})"
    return MISSING


def _interval(estimate: Estimate, form: str) -> str:
    if estimate.interval is None:
        return ""
    low, high = (form.format(100 * bound) for bound in estimate.interval)
    return f"{low} to {high}, "


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
