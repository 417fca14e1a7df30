"""One self-contained HTML page of a whole bench. It opens fast however much it holds: tables are plain HTML, and a figure is
drawn when the reader comes near it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from unseen.experiments.aggregate import Estimate, Ranks
from unseen.report import bench_figures, figures
from unseen.report.bench_contents import Bench, Cost, Difference, Line, Run, Shown, View
from unseen.report.contents import Confusion
from unseen.report.page import FIRST_CLASSES, SHOWN_IN_TABLE
from unseen.report.rendering import number, plain, render_template, safe_json

RANKED = (("T1", "T1"), ("U", "U"), ("S", "S"), ("H", "H"), ("AUSUC", "AUSUC"))

FIRST_TOLD = (
    *("protocol", "settings_from", "selection", "hyperparameters", "recipe", "gamma", "test_used_for_selection"),
    *("test_evaluations", "transductive", "uses_unseen_embeddings", "split_hash", "features_hash", "embeddings_hash"),
    *("labels_hash", "feature_extractor", "embedding_source", "versions", "device", "threads"),
)
"""What stands first among all that a run's row says."""

MOST_FIGURE_BYTES = 6_000_000
"""What figures and their tables may take together; with plotly's 5 MB and the runs the page stays below 15 MB."""

BYTES_A_CELL = 60
"""Of HTML, about, for a cell of a table."""


def render_bench(bench: Bench) -> str:
    """The page as HTML. The same contents give the same bytes.

    Raises:
        MissingDependency: jinja2 or plotly is not installed.
    """
    panels, left_out = _panels(bench.views)
    datasets = list(dict.fromkeys(line.dataset for line in bench.lines))
    protocols = list(dict.fromkeys(line.protocol for line in bench.lines))
    return render_template(
        "bench.html.j2",
        styles=["page.css", "bench.css"],
        scripts=["bench.js", *(["plotly", "page.js"] if panels else [])],
        values={
            "page": bench,
            "counts": _counts(bench),
            "columns": SHOWN_IN_TABLE,
            "rank_columns": RANKED,
            "scale": _scale(bench.lines),
            "place": place,
            "word": word,
            "megabytes": megabytes,
            "leaderboard": _leaderboard(bench.lines, datasets, protocols),
            "filters": _filters(bench.lines, datasets, protocols),
            "ranks": _ranks(bench),
            "left_out_of_ranks": lambda by_figure: any(found.left_out for found in by_figure.values()),
            "difference_groups": _differences(bench),
            "ablations": [(a, {d.line: d for d in a.differences}, _reach(a.differences)) for a in bench.ablations],
            "panels": panels,
            "panel_groups": [(name, list(group)) for name, group in groupby(panels, lambda panel: panel["view"].dataset)],
            "left_out": left_out,
            "phases": list(dict.fromkeys(phase for cost in bench.costs for phase in cost.seconds_by_phase)),
            "costs": _costs(bench),
            "setting_of": lambda line: _setting(bench, line),
            "origins": [_origin(bench, line) for line in bench.lines],
            "marks_limit": figures.MOST_MARKS,
            "confused_limit": figures.MOST_CONFUSED,
            "first_classes": FIRST_CLASSES,
        },
    )


def place(value: float, least: float, most: float) -> str:
    """Where a value lies between two bounds, for a style attribute."""
    share = (value - least) / (most - least) if most > least else 0.0
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def word(difference: Estimate) -> str:
    """What the interval of a difference says."""
    if difference.interval is None:
        return "too little to draw an interval from"
    low, high = difference.interval
    found = "higher" if low > 0 else "lower" if high < 0 else "no clear difference"
    return f"{found} on this split" if difference.over == "seeds" else found


def megabytes(amount: float | None) -> str:
    """Bytes in MB."""
    return "–" if amount is None else number(round(amount / 1e6))


def _scale(lines: Sequence[Line]) -> float:
    """Where the strips of H end: at the next ten percent above all of them."""
    found = [e for line in lines if (e := line.summary.figures["H"]) is not None]
    highest = max((e.interval[1] if e.interval else e.mean for e in found), default=1.0)
    return min(1.0, (int(10 * highest) + 1) / 10)


def _counts(bench: Bench) -> list[tuple[int, str]]:
    """The numbers at the top, with the words below them."""
    full = [line for line in bench.lines if not (line.variant or line.summary.oracle)]

    def of(count: int, one: str, many: str) -> tuple[int, str]:
        return count, one if count == 1 else many

    return [
        of(len({line.method for line in full}), "method", "methods"),
        of(len({line.dataset for line in bench.lines}), "data set", "data sets"),
        of(len({(line.dataset, split) for line in bench.lines for split in line.summary.splits}), "split", "splits"),
        of(sum(len(line.runs) for line in bench.lines if not line.summary.oracle), "run", "runs"),
        *([of(len(bench.failures), "task failed", "tasks failed")] if bench.failures else []),
        *([of(bench.unfinished, "task not finished", "tasks not finished")] if bench.unfinished else []),
    ]


def _leaderboard(lines: Sequence[Line], datasets: list[str], protocols: list[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The lines of full methods, by data set; within it by protocol, and the highest H first."""
    entries = [
        {"line": line, "number": k, "dataset": datasets.index(line.dataset), "protocol": protocols.index(line.protocol)}
        for k, line in enumerate(lines)
        if not line.variant
    ]

    def order(entry: dict[str, Any]) -> tuple[Any, ...]:
        line = entry["line"]
        h = line.summary.figures["H"]
        chosen_on_test = line.summary.test_used_for_selection
        return (
            entry["dataset"],
            line.summary.oracle,
            chosen_on_test,
            entry["protocol"],
            line.transductive,
            -h.mean if h else 1.0,
        )

    ordered = sorted(entries, key=order)
    return [(datasets[k], list(group)) for k, group in groupby(ordered, lambda entry: entry["dataset"])]


def _filters(
    lines: Sequence[Line], datasets: list[str], protocols: list[str]
) -> list[tuple[str, str, str, list[tuple[int, str]]]]:
    """Name, label, the word for all, and the options with their values. A choice among one is none, but says what it is."""
    settings = [(0, "inductive"), (1, "transductive")]
    present = {int(line.transductive) for line in lines}
    return [
        ("protocol", "Protocol", "all protocols", list(enumerate(protocols))),
        ("dataset", "Data set", "all data sets", list(enumerate(datasets))),
        ("setting", "Setting", "inductive and transductive", [option for option in settings if option[0] in present]),
    ]


def _ranks(bench: Bench) -> list[tuple[str, list[tuple[str, dict[str, float]]], Mapping[str, Ranks]]]:
    """By protocol: the methods with their rank in each figure, in the order of their ranks in H."""
    found = []
    for protocol, by_figure in bench.ranks.items():
        own: dict[str, dict[str, float]] = {}
        for figure in sorted(by_figure, key=lambda figure: figure != "H"):
            for (method, _), rank in by_figure[figure].average:
                own.setdefault(method, {})[figure] = rank
        found.append((protocol, list(own.items()), by_figure))
    return found


def _differences(bench: Bench) -> list[tuple[str, str, list[tuple[str, list[Difference]]], float]]:
    """By figure and the method that it is compared with, then by data set; and how far the strips reach."""
    tables: dict[tuple[str, str], dict[str, list[Difference]]] = {}
    for difference in bench.differences:
        line, other = bench.lines[difference.line], bench.lines[difference.other]
        tables.setdefault((difference.paired.figure, other.method), {}).setdefault(line.dataset, []).append(difference)
    reach = _reach(bench.differences)
    return [(figure, other, list(by_dataset.items()), reach) for (figure, other), by_dataset in tables.items()]


def _reach(differences: Sequence[Difference]) -> float:
    """How far from zero the strips of these differences must reach."""
    intervals = [e.interval for d in differences if (e := d.paired.difference) is not None and e.interval]
    return 1.08 * max((abs(bound) for interval in intervals for bound in interval), default=0.0)


def _costs(bench: Bench) -> list[tuple[str, list[tuple[Cost, str]]]]:
    """By data set: each line's cost, and its share of the longest there."""
    grouped = []
    for dataset, group in groupby(bench.costs, lambda cost: bench.lines[cost.line].dataset):
        costs = list(group)
        seconds = [bench.lines[cost.line].summary.seconds for cost in costs]
        grouped.append((dataset, [(cost, place(spent, 0, max(seconds))) for cost, spent in zip(costs, seconds, strict=True)]))
    return grouped


def _setting(bench: Bench, line: Line) -> str:
    """Features and embeddings of our own line, in words, to set beside those of a published one."""
    row = bench.runs[line.runs[0]].row
    words = [str(row[key]) for key in ("feature_extractor", "embedding_source") if row.get(key)]
    return "; ".join([*words, f"protocol {line.protocol}, settings from {', '.join(line.settings_from)}"])


# ------------------------------------------------------------------------------------------------------------- origins


@dataclass(frozen=True)
class _Origin:
    line: Line
    common: dict[str, str]
    runs: list[tuple[int, Run, dict[str, str]]]


def _origin(bench: Bench, line: Line) -> _Origin:
    """What all runs of a line have in common, said once, and what each has for its own."""
    told = [(number, bench.runs[number], _told(bench.runs[number])) for number in line.runs]
    first = told[0][2]
    common = {key: text for key, text in first.items() if all(own.get(key) == text for _, _, own in told)}
    own = [(number, run, {k: v for k, v in texts.items() if k not in common}) for number, run, texts in told]
    return _Origin(line, common, own)


def _told(run: Run) -> dict[str, str]:
    """Everything that a run's row holds, as text, save for the candidates of its selection: hundreds, and in its file."""
    row = dict(run.row)
    selection = row.get("selection")
    if isinstance(selection, Mapping) and isinstance(candidates := selection.get("candidates"), list):
        row["selection"] = {**selection, "candidates": f"{len(candidates)}, listed in the file"}
    texts = {"file": run.file, "command": run.command, "source": run.source}
    texts |= {
        key: plain(row[key]) for key in (*(key for key in FIRST_TOLD if key in row), *sorted(row.keys() - set(FIRST_TOLD)))
    }
    return {key: text for key, text in texts.items() if text}


# -------------------------------------------------------------------------------------------------------------- panels


def _panels(views: Sequence[View]) -> tuple[list[dict[str, Any]], list[View]]:
    """What is shown of each view, and the views for which there is no room.

    The first split of every data set comes before the second of any, so that what is left out is what is missed least.
    """
    seen_splits: dict[str, int] = {}
    turns = []
    for k, view in enumerate(views):
        turns.append((seen_splits.setdefault(view.dataset, 0), k))
        seen_splits[view.dataset] += 1
    made: dict[int, dict[str, Any]] = {}
    room = MOST_FIGURE_BYTES
    for _, k in sorted(turns):
        panel, size = _panel(f"view-{k}", views[k])
        if size > room:
            break
        room -= size
        made[k] = panel
    return [made[k] for k in sorted(made)], [view for k, view in enumerate(views) if k not in made]


def _panel(id_: str, view: View) -> tuple[dict[str, Any], int]:
    """One view's figures as JSON, what stands in its tables, and the bytes that all of it takes, about."""
    shown = view.shown
    curves = [(one.curve, one.number) for one in shown if one.curve is not None]
    planes = [one for one in shown if one.projection is not None]
    synthetic = [one for one in shown if one.synthetic_counts]
    plots: dict[str, Any] = {}
    if curves:
        plots["curve"] = figures.curve_figure(tuple(curve for curve, _ in curves), [number for _, number in curves])
    if planes:
        plots["planes"] = bench_figures.projections_figure(planes)
    if synthetic:
        plots["synthetic"] = bench_figures.synthetic_figure(synthetic)
    panel: dict[str, Any] = {
        "id": id_,
        "view": view,
        "methods": [one.method for one in shown if one.per_class],
        "curve_later": reserved(plots["curve"]) if curves else "",
        "plots": {name: safe_json(plot) for name, plot in plots.items()},
        "curves": [curve for curve, _ in curves],
        "histories": [_history(f"{id_}-history-{k}", one) for k, one in enumerate(shown) if one.history is not None],
        "planes": [_plane(one) for one in planes],
        "plane_classes": max((len(one.projection.names) for one in planes if one.projection), default=0),
        "planes_later": reserved(plots["planes"]) if planes else "",
        "synthetic": synthetic,
        "synthetic_later": reserved(plots["synthetic"]) if synthetic else "",
        "heats": [_heat(f"{id_}-heat-{k}", one.confusion) for k, one in enumerate(shown) if one.confusion is not None],
        "per_class": _per_class(shown),
    }
    json_bytes = sum(map(len, panel["plots"].values())) + sum(len(e["json"]) for e in (*panel["histories"], *panel["heats"]))
    cells = len(panel["per_class"]) * (2 + len(shown)) + 6 * sum(len(heat["taken"]) for heat in panel["heats"])
    cells += 4 * sum(len(plane["places"]) for plane in panel["planes"])
    return panel, json_bytes + BYTES_A_CELL * cells


def reserved(figure: Mapping[str, Any]) -> str:
    """The room that a figure will take when it is drawn: what makes the height of several plots, or the height of one."""
    arrange, height = figure.get("arrange", {}), figure["layout"]["height"]
    if "facets" in arrange:
        return json.dumps({"facets": arrange["facets"]})
    return json.dumps({"height": height, "narrow": arrange.get("narrow", {}).get("height", height)})


def _history(id_: str, one: Shown) -> dict[str, Any]:
    assert one.history is not None
    figure = bench_figures.history_figure(one.history, one.number)
    numbers = []
    for term, values in one.history.losses.items():
        known = np.asarray(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        if len(known):
            numbers.append((term, *(f"{value:.4g}" for value in (known[0], known.min(), known.max(), known[-1]))))
    last = int(one.history.steps[-1])
    return {
        "id": id_,
        "method": one.method,
        "json": safe_json(figure),
        "later": reserved(figure),
        "numbers": numbers,
        "last_step": last,
    }


def _plane(one: Shown) -> dict[str, Any]:
    assert one.projection is not None
    return {"method": one.method, "places": figures.places(one.projection), "own": figures.own_share(one.projection)}


def _heat(id_: str, confusion: Confusion) -> dict[str, Any]:
    figure = figures.confusion_figure(confusion)
    return {
        "id": id_,
        "confusion": confusion,
        "json": safe_json(figure),
        "later": reserved(figure),
        "taken": figures.taken_for(confusion),
        "width": figures.confusion_width(confusion),
    }


def _per_class(shown: Sequence[Shown]) -> list[tuple[str, bool, int, dict[str, float]]]:
    """One row a class, with the accuracy of each method."""
    rows: dict[tuple[str, bool], tuple[int, dict[str, float]]] = {}
    for one in shown:
        for name, unseen, count, accuracy in one.per_class:
            rows.setdefault((name, unseen), (count, {}))[1][one.method] = accuracy
    return [(name, unseen, count, accuracies) for (name, unseen), (count, accuracies) in rows.items()]
