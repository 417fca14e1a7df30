"""What `unseen.experiments.aggregate` computes, as tables for a terminal of 120 columns; in percent, unlike everything else.

What is the same in all lines stands in a table's title, so figures of different data or protocols come in tables of their own.
Names are a stranger's: none is read as markup, and what cannot be printed is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.table import Table
from rich.text import Text

from unseen.experiments.aggregate import Data, Estimate, Looks, Paired, Ranks, Summary, label
from unseen.experiments.diagnoses import Consistency, Diagnosis
from unseen.experiments.literature import LiteratureRow
from unseen.experiments.side_by_side import SideBySide

MISSING = "–"


def of_summaries(summaries: Sequence[Summary]) -> list[Table]:
    """A table for each data set and protocol, a line a method: means; of H also the interval, and the standard deviations
    between seeds and between splits (see `Estimate`)."""
    tables = []
    for (data, protocol), group in groupby(summaries, lambda s: (s.data, s.protocol)):
        lines = list(group)
        over = sorted({s.figures["H"].over for s in lines if s.figures["H"]} - {""})
        interval = f"; 95 % bootstrap interval over {' or '.join(over)}" if over else ""
        table = _table(
            f"{_name(data, [s.data for s in summaries])}, protocol {protocol}, percent{interval}",
            ["method"],
            ["runs", "T1", "U", "S", "H", "95 % of H", "± seeds", "± splits", "AUSUC", "H without γ", "seconds", "GiB"],
        )
        for s in lines:
            H = s.figures["H"]
            table.add_row(
                plain(label(s.method)),
                str(s.tasks),
                *(_percent(s.figures[figure]) for figure in ("T1", "U", "S", "H")),
                _interval(H),
                _deviation(H.between_seeds if H else None),
                _deviation(H.between_splits if H else None),
                *(_percent(s.figures[figure]) for figure in ("AUSUC", "H_without_gamma")),
                f"{s.seconds:.0f}",
                MISSING if s.peak_memory is None else f"{s.peak_memory / 2**30:.1f}",
            )
        tables.append(table)
    return tables


def notes(summaries: Iterable[Summary]) -> list[str]:
    """What must be said beside these summaries, each in one sentence."""
    summaries = list(summaries)
    found = []
    if any(s.test_used_for_selection for s in summaries):
        found.append("figures under paper are the best of all epochs on the test rows, which makes them too good")
    if any(s.oracle for s in summaries):
        found.append("an oracle has learned from real rows of the unseen classes: it is a yardstick, not a result")
    if any(e is not None and e.over == "seeds" for s in summaries for e in s.figures.values()):
        found.append("an interval over seeds of one split says nothing about other splits")
    return found


def of_pairs(pairs: Sequence[Paired]) -> list[Table]:
    """A table for each data set, protocol and baseline, a line a method: the mean difference in percent points, its interval,
    in how many pairs the method is above, and how many tasks of it and of the baseline have no partner."""
    tables = []
    for (data, protocol, second, figure), group in groupby(pairs, lambda p: (p.data, p.protocol, p.second, p.figure)):
        table = _table(
            f"{_name(data, [p.data for p in pairs])}, protocol {protocol}: {_heading(figure)} minus that of {label(second)} "
            "on equal tasks, percent points",
            ["method"],
            ["difference", "95 % interval", "over", "better on", "alone", "baseline alone"],
        )
        for p in group:
            table.add_row(
                plain(label(p.first)),
                MISSING if p.difference is None else f"{100 * p.difference.mean:+.1f}",
                _interval(p.difference, signed=True),
                (p.difference.over if p.difference else "") or MISSING,
                f"{p.better} of {p.pairs}",
                *map(str, p.alone),
            )
        tables.append(table)
    return tables


def of_protocols(entries: Sequence[SideBySide]) -> list[Table]:
    """A table for each data set, a line a method: T1 and H under both protocols and at the last epoch of `paper`; what choosing
    the epoch on test rows added to H, and how far H is above that of `blind`."""
    tables = []
    for data, group in groupby(entries, lambda e: e.data):
        table = _table(
            f"{_name(data, [e.data for e in entries])}: `paper` beside `blind` on equal tasks, percent",
            ["method"],
            ["runs", "T1 blind", "T1 paper", "T1 last epoch", "H blind", "H paper", "H last epoch"],
            ["by choosing the epoch", "paper above blind"],
        )
        for e in group:
            table.add_row(
                plain(e.method),
                str(e.optimism.pairs),
                *(_percent(of.figures[figure]) for figure in ("T1", "H") for of in (e.blind, e.paper, e.last)),
                *(_difference(pair) for pair in (e.choosing, e.optimism)),
            )
        tables.append(table)
    return tables


def of_diagnoses(diagnoses: Sequence[Diagnosis]) -> list[Table]:
    """A table for each data set and protocol, a line a method: over how many runs, shares that leak to the other kind of
    classes, their distance and |S − U| in percent, then what else was measured in its tasks, as it is."""
    tables = []
    for (data, protocol), group in groupby(diagnoses, lambda d: (d.data, d.protocol)):
        lines = list(group)
        names = list(dict.fromkeys(name for d in lines for name in d.figures))
        table = _table(
            f"{_name(data, [d.data for d in diagnoses])}, protocol {protocol}: which way the methods err",
            ["method"],
            ["runs", "unseen → seen", "seen → unseen", "leak gap", "|S − U|", *(name.replace("_", " ") for name in names)],
        )
        for d in lines:
            table.add_row(
                plain(label(d.method)),
                str(d.tasks),
                *(f"{100 * share:.1f}" for share in (d.leak_unseen_to_seen, d.leak_seen_to_unseen, d.leak_gap, d.gap)),
                *(f"{d.figures[name]:.2f}" if name in d.figures else MISSING for name in names),
            )
        tables.append(table)
    return tables


def of_consistencies(consistencies: Sequence[Consistency]) -> list[Table]:
    """A table for each data set and protocol, a line for each representation of a method: over how many runs, and figures as
    they are."""
    tables = []
    for (data, protocol), group in groupby(consistencies, lambda c: (c.data, c.protocol)):
        lines = list(group)
        names = list(dict.fromkeys(name for c in lines for name in c.figures))
        table = _table(
            f"{_name(data, [c.data for c in consistencies])}, protocol {protocol}: how consistent representations are",
            ["method", "of"],
            ["runs", *(name.replace("_", " ") for name in names)],
        )
        for c in lines:
            shown = (f"{c.figures[name]:.2f}" if name in c.figures else MISSING for name in names)
            table.add_row(plain(label(c.method)), plain(c.representation), str(c.tasks), *shown)
        tables.append(table)
    return tables


def of_ranks(ranks: Sequence[Ranks]) -> list[Table]:
    """A table for each protocol, a line a method, best first."""
    tables = []
    for r in ranks:
        title = f"Average rank in {_heading(r.figure)}, protocol {r.protocol}"
        table = _table(title, ["method"], ["rank", "tasks", "tasks left out"])
        for method, rank in r.average:
            table.add_row(plain(label(method)), f"{rank:.2f}", str(r.tasks), str(r.left_out))
        tables.append(table)
    return tables


def of_ledger(ledger: Sequence[Looks]) -> Table:
    """A line a split: how often its test rows were scored, what for, and by which methods."""
    table = _table(
        "How often test rows were scored",
        ["data set", "split", "fingerprint"],
        ["to report", "to choose", "to diagnose", "all"],
        ["by method"],
    )
    for looks in ledger:
        numbers = (looks.to_report, looks.to_choose, looks.to_diagnose, looks.total)
        table.add_row(
            *map(plain, (looks.dataset, looks.split, looks.split_hash[:12])),
            *map(str, numbers),
            plain("; ".join(f"{label(method)}: {count}" for method, count in looks.by_method.items())),
        )
    return table


def of_literature(rows: Sequence[LiteratureRow]) -> list[Table]:
    """A table for each setting, a line a published result."""
    tables = []
    for (dataset, features, embedding), group in groupby(rows, lambda r: (r.dataset, r.features, r.embedding)):
        table = _table(
            f"Published on {dataset}, features {features}, class embedding {embedding}; percent, H recomputed from U and S",
            ["method"],
            ["T1", "U", "S", "H"],
            ["selected on", "source", "note"],
        )
        for row in group:
            figures = (row.T1, row.U, row.S, row.H)
            table.add_row(
                plain(row.method),
                *(MISSING if value is None else f"{100 * value:.1f}" for value in figures),
                *map(plain, (row.selection, row.source, row.note)),
            )
        tables.append(table)
    return tables


def plain(text: str) -> Text:
    """A name as it is: no markup, no control characters."""
    return Text("".join(letter if letter.isprintable() else "\ufffd" for letter in text))


def _table(title: str, names: Sequence[str], numbers: Sequence[str], more: Sequence[str] = ()) -> Table:
    table = Table(title=plain(title), title_justify="left", box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", min_width=12)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    for name in more:
        table.add_column(name, overflow="fold")
    return table


def _name(data: Data, among: Iterable[Data]) -> str:
    """The data set's name, and where others have the same, what tells its features and embeddings from theirs."""
    name, features, embeddings = data
    alike = {other for other in among if other[0] == name}
    return name if len(alike) == 1 else f"{name} (features {features[:8]}, embeddings {embeddings[:8]})"


def _difference(pair: Paired) -> str:
    if pair.difference is None:
        return MISSING
    interval = "" if pair.difference.interval is None else f" ({_interval(pair.difference, signed=True)})"
    return f"{100 * pair.difference.mean:+.1f}{interval}"


def _heading(figure: str) -> str:
    return figure.replace("H_without_gamma", "H without γ")


def _percent(estimate: Estimate | None) -> str:
    return MISSING if estimate is None else f"{100 * estimate.mean:.1f}"


def _deviation(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def _interval(estimate: Estimate | None, signed: bool = False) -> str:
    if estimate is None or estimate.interval is None:
        return MISSING
    low, high = (100 * bound for bound in estimate.interval)
    return f"{low:+.1f} to {high:+.1f}" if signed else f"{low:.1f}–{high:.1f}"
