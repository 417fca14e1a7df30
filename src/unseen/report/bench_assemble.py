"""From a bench folder to its page. No data set is opened: whatever a figure needs was kept when its task ran."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from unseen.errors import DataError, SettingsError
from unseen.experiments.aggregate import (
    Data,
    Paired,
    Ranks,
    Summary,
    average_ranks,
    data_of,
    is_oracle,
    is_transductive,
    label,
    ledger,
    marked,
    method_of,
    overlapping_splits,
    paired,
    paired_table,
    summaries,
    unseen_names,
)
from unseen.experiments.literature import beside, why_none
from unseen.experiments.overview import YARDSTICK
from unseen.experiments.results import FIGURES, Row, read_failures, read_oracles, read_rows
from unseen.experiments.tables import notes as notes_on
from unseen.report.bench_contents import (
    Ablation,
    Bench,
    Cost,
    Difference,
    Failure,
    History,
    Line,
    Published,
    Run,
    Shown,
    View,
)
from unseen.report.bench_page import RANKED, render_bench
from unseen.report.contents import Confusion, Curve, Projection
from unseen.report.rendering import finite
from unseen.storage import JSON_LIMIT, read_json, write_text

HISTORY_POINTS = 200
MOST_TERMS = 12
CURVE_POINTS = 201
PLANE_POINTS = 300
"""Marks of each kind, real and synthetic, in one plane."""
MOST_CONFUSED = 2000
"""Unseen classes of which a confusion is counted; beyond that its square does not fit into memory."""
CHOOSING = "choosing settings"
"""How the phases begin in which `blind` trains on folds."""

Key = tuple[Data, str, tuple[str, str]]
"""What tells lines apart: data, protocol, method and variant."""


def write_bench_report(
    folder: Path,
    command: str,
    out: Path | None = None,
    baseline: str | None = None,
    among: Callable[[Row], bool] = lambda row: True,
) -> Path:
    """Write the page of a bench, finished or not.

    Args:
        folder: of the bench.
        command: what writes the page.
        out: where it goes; by default `report.html` in the folder.
        baseline: the method that others are compared with; by default class-gaussian where it was run.
        among: which rows, where not all splits of a data set are of one kind and a mean over them would say nothing.

    Returns:
        Where the page is.

    Raises:
        DataError: the folder is no bench, or a result in it is damaged.
        SettingsError: there is no result of the baseline, or none that may be compared with it.
        MissingDependency: the extra `unseen[report]` is not installed.
        RunError: the disk refuses.
    """
    path = out or folder / "report.html"
    write_text(path, render_bench(contents_of(folder, command, baseline, among)))
    return path


def contents_of(
    folder: Path, command: str, baseline: str | None = None, among: Callable[[Row], bool] = lambda row: True
) -> Bench:
    """The contents of the page; see `write_bench_report`."""
    results = list(filter(among, read_rows(folder)))
    rows = [*results, *filter(among, read_oracles(folder))]
    notes: list[str] = []
    runs = tuple(_run(folder, row, notes) for row in rows)
    names = _names_of_data(rows)
    lines = _lines(rows, names)
    number_of = {_key_of_summary(line.summary): k for k, line in enumerate(lines)}
    warnings = [*_overlaps(folder, among, notes), *notes_on(line.summary for line in lines)]
    full = [row for row in results if not row["variant"]]
    ranks = _ranks(full)
    return Bench(
        title=_title(lines),
        verdict=_verdict(ranks, lines),
        command=command,
        commands=_commands(folder, notes),
        warnings=tuple(map(_sentence, warnings)),
        runs=runs,
        lines=lines,
        ranks=ranks,
        differences=_differences(full, number_of, baseline),
        ablations=_ablations(results, lines, number_of),
        costs=tuple(_cost(k, line, rows) for k, line in enumerate(lines) if not (line.variant or line.summary.oracle)),
        published=_published(results, lines, names, notes),
        looks=tuple(ledger(map(marked, rows))),
        failures=_failures(folder, among),
        views=_views(folder, list(map(marked, results)), names, notes),
        unfinished=_unfinished(folder),
        notes=tuple(map(_sentence, dict.fromkeys(notes))),  # last: all the others may have added to them
    )


def _sentence(words: object) -> str:
    """As the page writes it: with a capital letter and a full stop."""
    text = str(words)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def _commands(folder: Path, notes: list[str]) -> tuple[str, ...]:
    try:
        commands = read_json(folder / "bench.json").get("commands")
    except DataError as error:
        notes.append(str(error))
        return ()
    return tuple(map(str, commands)) if isinstance(commands, list) else ()


def _run(folder: Path, row: Row, notes: list[str]) -> Run:
    """A row, with what its task says about where it came from."""
    try:
        asked = read_json(folder / "tasks" / row["task"] / "task.json")
    except DataError as error:
        notes.append(str(error))
        asked = {}
    file = "oracle.json" if is_oracle(row) else "result.json"
    return Run(row["task"], f"tasks/{row['task']}/{file}", row, str(asked.get("source", "")), str(asked.get("command", "")))


def _failures(folder: Path, among: Callable[[Row], bool]) -> tuple[Failure, ...]:
    found = []
    for entry in filter(among, read_failures(folder)):
        method, dataset, split, seed, protocol = (
            str(entry.get(key, "–")) for key in ("method", "dataset", "split", "seed", "protocol")
        )
        found.append(Failure(str(entry["task"]), method, dataset, split, seed, protocol, str(entry.get("sentence", "–"))))
    return tuple(found)


def _unfinished(folder: Path) -> int:
    """Tasks that were begun: their folder is there, with neither a result nor a failure in it."""
    ends = ("result.json", "failure.json")
    tasks = folder / "tasks"
    begun = [e for e in tasks.iterdir() if e.is_dir() and not e.name.startswith(".")] if tasks.is_dir() else []
    return sum(not any((entry / end).exists() for end in ends) for entry in begun)


# --------------------------------------------------------------------------------------------------------------- lines


def _names_of_data(rows: Sequence[Row]) -> dict[Data, str]:
    """What each data set is called: its name, and where two have the same one, the beginnings of their hashes."""
    names: dict[Data, str] = {}
    found = sorted({data_of(row) for row in rows})
    for data in found:
        same = [other for other in found if other[0] == data[0]]
        names[data] = data[0] if len(same) == 1 else f"{data[0]} (features {data[1][:8]}, embeddings {data[2][:8]})"
    return names


def _key(row: Row) -> Key:
    return data_of(row), row["protocol"], method_of(row)


def _key_of_summary(summary: Summary) -> Key:
    return summary.data, summary.protocol, summary.method


def _lines(rows: Sequence[Row], names: Mapping[Data, str]) -> tuple[Line, ...]:
    """A line a summary, with the best of each column marked."""
    runs_of: dict[Key, list[int]] = {}
    for k, row in enumerate(rows):
        runs_of.setdefault(_key(row), []).append(k)
    lines = []
    for summary in summaries(rows):
        numbers = runs_of[_key_of_summary(summary)]
        own = [rows[k] for k in numbers]
        lines.append(
            Line(
                summary=summary,
                dataset=names[summary.data],
                transductive=any(map(is_transductive, own)),
                unseen_embeddings=any(bool(row.get("uses_unseen_embeddings")) for row in own),
                settings_from=tuple(dict.fromkeys(str(row.get("settings_from", "–")) for row in own)),
                best=frozenset(),
                missing="",
                runs=tuple(numbers),
            )
        )
    return tuple(_compared(line, lines, rows) for line in lines)


def _compared(line: Line, lines: Sequence[Line], rows: Sequence[Row]) -> Line:
    """The line with what it is best at, and with what it lacks, among the full methods on its data under its protocol.

    Only lines that cover all the splits that any of them has may be the best: an easy split left out is no merit.
    """

    def tasks(of: Line) -> set[tuple[Any, Any]]:
        return {(rows[k]["split_hash"], rows[k]["seed"]) for k in of.runs}

    def splits(of: Line) -> set[Any]:
        return {split for split, _ in tasks(of)}

    if line.summary.oracle:
        return line
    beside = [r for r in lines if (r.summary.data, r.protocol) == (line.summary.data, line.protocol)]
    rivals = [r for r in beside if not (r.variant or r.summary.oracle)] or [line]
    everything: set[tuple[Any, Any]] = set().union(*map(tasks, rivals))
    lacking = len(everything - tasks(line))
    missing = f"{len(everything) - lacking} of {len(everything)} runs" if lacking else ""
    fair = [r for r in rivals if _may_be_best(r) and splits(r) == {split for split, _ in everything}]
    best = set()
    for figure in FIGURES:
        means = {id(r): e.mean for r in fair if (e := r.summary.figures[figure]) is not None}
        if len(means) > 1 and means.get(id(line)) == max(means.values()):
            best.add(figure)
    return replace(line, best=frozenset(best), missing=missing)


def _may_be_best(line: Line) -> bool:
    elsewhere = any("folds of another split" in words for words in line.settings_from)  # whose rows may be tested here
    return not (line.transductive or line.summary.test_used_for_selection or elsewhere)


def _title(lines: Sequence[Line]) -> str:
    methods = {line.method for line in lines if not line.summary.oracle}
    datasets = {line.dataset for line in lines}

    def of(names: set[str], one: str, many: str) -> str:
        return next(iter(names)) if len(names) == 1 else f"{len(names)} {many}" if names else f"no {one}"

    return f"Benchmark: {of(methods, 'method', 'methods')} on {of(datasets, 'data set', 'data sets')}"


def _verdict(ranks: Mapping[str, Mapping[str, Ranks]], lines: Sequence[Line]) -> str:
    """One sentence: who is ahead in H, under the first protocol that chooses nothing on test rows."""
    chosen_on_test = {line.protocol for line in lines if line.summary.test_used_for_selection}
    for protocol, by_figure in ranks.items():
        found = by_figure.get("H")
        if protocol in chosen_on_test or found is None or len(found.average) < 2 or not found.tasks:
            continue
        places = ", ".join(f"{method} {rank:.1f}" for (method, _), rank in found.average)
        runs = "run" if found.tasks == 1 else "runs"
        return f"Average rank of H under {protocol}, over the {found.tasks} {runs} that all these methods have: {places}."
    measured = [line for line in lines if not (line.variant or line.summary.oracle) and line.summary.figures["H"] is not None]
    if not measured:
        return "No task has finished yet." if not lines else "Nothing to rank yet."
    line = measured[0]
    h = line.summary.figures["H"]
    assert h is not None
    more = ", chosen on the test rows" if line.summary.test_used_for_selection else ""
    more += ", trained on unlabelled test rows" if line.transductive else ""
    return f"{line.method} on {line.dataset}, {line.protocol}: H {100 * h.mean:.1f} percent{more}."


# ---------------------------------------------------------------------------------------------------------- comparison


def _overlaps(folder: Path, among: Callable[[Row], bool], notes: list[str]) -> list[str]:
    try:
        return [str(overlap) for overlap in overlapping_splits(unseen_names(folder, among))]
    except DataError as error:
        notes.append(f"whether splits overlap is not known: {error}")
        return []


def _ranks(rows: Sequence[Row]) -> dict[str, dict[str, Ranks]]:
    """Protocol → figure → ranks, of inductive full methods."""
    found: dict[str, dict[str, Ranks]] = {}
    for figure, _ in RANKED:
        for ranks in average_ranks([row for row in rows if not is_transductive(row)], figure):
            if len(ranks.average) > 1:
                found.setdefault(ranks.protocol, {})[figure] = ranks
    return found


def _differences(rows: Sequence[Row], number_of: Mapping[Key, int], baseline: str | None) -> tuple[Difference, ...]:
    """Every full method against the baseline, which need not have been run if nobody asked for it by name."""
    if baseline is None and not any(method_of(row) == YARDSTICK for row in rows):
        return ()
    against = YARDSTICK if baseline is None else (baseline, "")
    compared = paired_table(rows, against)
    if baseline is not None and not compared and any(map(is_transductive, rows)):
        raise SettingsError(
            f"there is nothing to compare {label(against)} with, as transductive results are compared with their like alone; "
            "give another --baseline"
        )
    return tuple(_difference(found, number_of) for found in compared if found.pairs)


def _difference(found: Paired, number_of: Mapping[Key, int]) -> Difference:
    first, second = (number_of[found.data, found.protocol, method] for method in (found.first, found.second))
    return Difference(first, second, found)


def _ablations(rows: Sequence[Row], lines: Sequence[Line], number_of: Mapping[Key, int]) -> tuple[Ablation, ...]:
    """One table for each method with variants, data set and protocol."""

    def task(row: Row) -> tuple[Any, Any]:
        return row["split_hash"], row["seed"]

    groups: dict[tuple[Data, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((data_of(row), row["protocol"], row["method"]), []).append(row)
    found = []
    for (_, protocol, method), group in sorted(groups.items()):
        taken = {task(row) for row in group if row["variant"]}
        own = [row for row in group if task(row) in taken]
        if not own:
            continue
        numbered = [(number_of[_key_of_summary(summary)], summary) for summary in summaries(own)]
        variants = [summary.method for _, summary in numbered if summary.method[1]]
        pairs = [p for variant in variants for p in paired(own, variant, (method, "")) if p.pairs]
        differences = tuple(_difference(p, number_of) for p in pairs)
        found.append(Ablation(method, lines[numbered[0][0]].dataset, protocol, tuple(numbered), differences, _effort(own)))
    return tuple(found)


def _effort(rows: Iterable[Row]) -> str:
    """Whether width and steps are the same in all rows of a task, without which a difference says little."""
    of_task: dict[Any, set[tuple[str, str]]] = {}
    for row in rows:
        had = (str(row.get("hidden_width", "–")), str(row.get("steps", "–")))
        of_task.setdefault((row["split_hash"], row["seed"]), set()).add(had)
    told = "; ".join(sorted({f"width {width}, {steps} steps" for task in of_task.values() for width, steps in task}))
    if all(len(task) == 1 for task in of_task.values()):
        return f"All rows of a split and seed had the same: {told}."
    return f"The rows of a split and seed had different ones ({told}), so these differences say little."


def _cost(number: int, line: Line, rows: Sequence[Row]) -> Cost:
    own = [rows[k] for k in line.runs]
    phases: dict[str, list[float]] = {}
    for row in own:
        spent = row.get("seconds_by_phase")
        for phase, seconds in spent.items() if isinstance(spent, Mapping) else ():
            if (amount := finite(seconds)) is not None:
                phases.setdefault(str(phase), []).append(amount)
    return Cost(
        line=number,
        seconds_by_phase={phase: median(amounts) for phase, amounts in phases.items()},
        threads=tuple(dict.fromkeys(str(row["threads"]) for row in own if "threads" in row)),
        device=tuple(dict.fromkeys(str(row["device"]) for row in own if "device" in row)),
    )


def _published(
    rows: Sequence[Row], lines: Sequence[Line], names: Mapping[Data, str], notes: list[str]
) -> tuple[Published, ...]:
    """What others printed, beside our full methods on the same data and split."""
    found = []
    for (data, split_hash), row in {(data_of(row), row["split_hash"]): row for row in rows}.items():
        results = beside(row)
        if not results:
            notes += [reason] if (reason := why_none(row)) else []
            continue
        ours = [
            k
            for k, line in enumerate(lines)
            if line.summary.data == data
            and not (line.variant or line.summary.oracle)
            and {rows[r]["split_hash"] for r in line.runs} == {split_hash}
        ]
        entries = tuple((result, tuple(k for k in ours if _same_method(result.method, lines[k].method))) for result in results)
        taken = {k for _, numbers in entries for k in numbers}
        found.append(Published(names[data], row["split"], entries, tuple(k for k in ours if k not in taken)))
    return tuple(found)


def _same_method(published: str, ours: str) -> bool:
    """ "TF-VAEGAN" is `tfvaegan`; what follows a comma says who ran it."""

    def letters(name: str) -> str:
        return "".join(c for c in name.casefold() if c.isalnum())

    return letters(published.split(",")[0]) == letters(ours)


# --------------------------------------------------------------------------------------------------------------- views


def _views(folder: Path, rows: Sequence[Row], names: Mapping[Data, str], notes: list[str]) -> tuple[View, ...]:
    """For every data set and split one run of each full method: its first seed that has figures."""
    full = [(k, row) for k, row in enumerate(rows) if not row["variant"]]
    kinds = sorted({(row["method"], row["protocol"]) for _, row in full})
    protocols: dict[str, set[str]] = {}
    for method, protocol in kinds:
        protocols.setdefault(method, set()).add(protocol)
    grouped: dict[tuple[Data, str, str], dict[tuple[str, str], list[tuple[int, Row]]]] = {}
    for k, row in full:  # sorted by seed
        of_split = grouped.setdefault((data_of(row), row["split"], row["split_hash"]), {})
        of_split.setdefault((row["method"], row["protocol"]), []).append((k, row))
    splits = [(data, split) for data, split, _ in grouped]
    views = []
    for (data, split, split_hash), by_method in grouped.items():
        shown = []
        for (method, protocol), candidates in sorted(by_method.items()):
            called = method if len(protocols[method]) == 1 else f"{method}, {protocol}"
            shown += _first_shown(folder, candidates, called, kinds.index((method, protocol)), notes)
        if shown:
            name = split if splits.count((data, split)) == 1 else f"{split} ({split_hash[:8]})"
            views.append(View(names[data], name, tuple(shown)))
    return tuple(views)


def _first_shown(folder: Path, runs: Iterable[tuple[int, Row]], called: str, number: int, notes: list[str]) -> list[Shown]:
    for k, row in runs:
        place = folder / "tasks" / row["task"]
        if not (place / "figures.json").exists():
            continue
        try:
            stored = read_json(place / "figures.json")
            return [_shown(stored, _history(place / "history.jsonl"), k, row, called, number)]
        except DataError as error:
            notes.append(str(error))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            notes.append(f"{place / 'figures.json'} is damaged ({type(error).__name__}), so its figures are left out")
    return []


def _shown(stored: Mapping[str, Any], history: History | None, run: int, row: Row, called: str, number: int) -> Shown:
    """Figures as they are stored, checked. Raises some ValueError, TypeError or KeyError where they are not what they say."""
    return Shown(
        run=run,
        method=called,
        number=number,
        curve=_curve(stored["curve"], row, called) if stored.get("curve") else None,
        confusion=_confusion(stored["confusion"], called) if stored.get("confusion") else None,
        projection=_projection(stored["projection"], called) if stored.get("projection") else None,
        history=history,
        synthetic_counts=tuple(
            (int(point["per_class"]), {key: float(point[key]) for key in ("T1", "U", "S", "H")})
            for point in stored.get("synthetic_counts") or ()
        ),
        per_class=tuple(
            (_text(name), bool(unseen), int(count), float(accuracy))
            for name, unseen, count, accuracy in stored.get("per_class") or ()
        ),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a name is a {type(value).__name__}")
    return value


def _curve(stored: Mapping[str, Any], row: Row, called: str) -> Curve:
    seen, unseen = (np.asarray(stored[kind], np.float64) for kind in ("seen", "unseen"))
    if seen.ndim != 1 or seen.shape != unseen.shape or not len(seen):
        raise ValueError("a curve has two sides of equal length")
    drawn = _evenly(len(seen), CURVE_POINTS)
    point = tuple(np.nan if row[figure] is None else float(row[figure]) for figure in ("S", "U"))
    area = np.nan if row["AUSUC"] is None else float(row["AUSUC"])
    return Curve(called, seen[drawn], unseen[drawn], area, (point[0], point[1]))


def _confusion(stored: Mapping[str, Any], called: str) -> Confusion | None:
    names, nearest = (tuple(map(_text, stored[key])) for key in ("names", "nearest_seen"))
    if len(names) > MOST_CONFUSED or not names:
        return None
    if len(nearest) != len(names):
        raise ValueError("each class has one nearest seen class")
    counts = np.zeros((len(names), len(names) + 1), np.int64)
    for true, answer, count in stored["cells"]:
        if min(true, answer, count) < 0:
            raise ValueError("a count is not below zero, nor is a class")
        counts[true, answer] += count
    return Confusion(called, counts, names, nearest)


def _projection(stored: Mapping[str, Any], called: str) -> Projection:
    xy, labels = np.asarray(stored["xy"], np.float64), np.asarray(stored["labels"], np.int64)
    synthetic, names = np.asarray(stored["synthetic"], np.bool_), tuple(map(_text, stored["names"]))
    if xy.shape != (len(labels), 2) or synthetic.shape != labels.shape or not len(labels) or not np.isfinite(xy).all():
        raise ValueError("a plane has a finite place, a label and a kind for each mark")
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError("labels of a plane are of its names")
    kinds = [np.flatnonzero(synthetic == kind) for kind in (False, True)]
    drawn = np.concatenate([rows[_evenly(len(rows), PLANE_POINTS)] for rows in kinds])
    return Projection(xy[drawn], labels[drawn], synthetic[drawn], names, called)


def _history(path: Path) -> History | None:
    """The losses of the final training: the last steps that only grow, after those on folds. None where there are none.

    Under `paper` the phase's name changes within one training, so names say nothing but what is on folds.
    """
    try:
        if path.stat().st_size > JSON_LIMIT:
            return None
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    steps: list[int] = []
    losses: list[Mapping[str, Any]] = []
    for line in lines:
        try:
            entry = json.loads(line)
            step, phase, values = int(entry["step"]), str(entry["phase"]), dict(entry["losses"])
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            continue  # the last line of a killed process may be half written
        if phase.startswith(CHOOSING) or (steps and step <= steps[-1]):
            steps, losses = [], []
        if not phase.startswith(CHOOSING):
            steps.append(step)
            losses.append(values)
    if not steps:
        return None
    drawn = _evenly(len(steps), HISTORY_POINTS)
    terms = list(dict.fromkeys(term for k in drawn for term in losses[k]))[:MOST_TERMS]
    if not terms:
        return None
    values_of = {term: [finite(losses[k].get(term)) for k in drawn] for term in terms}
    return History(
        steps=np.array([steps[k] for k in drawn]),
        losses={term: np.array([np.nan if v is None else v for v in values]) for term, values in values_of.items()},
    )


def _evenly(count: int, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """At most so many of so many positions, as even as they come, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
