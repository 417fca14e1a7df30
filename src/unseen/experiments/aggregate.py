"""What many result rows say together: means and intervals, paired differences, ranks, and how often test rows were looked at.

Pure functions over rows (see `unseen.experiments.results.read_rows`). Nothing is compared across protocols or data: a figure
that test rows were used to choose (`paper`) stands beside others of its kind alone, but in `unseen.experiments.side_by_side`,
which says what that choice adds.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np

from unseen.errors import DataError, SettingsError
from unseen.evaluation.statistics import interval_over_splits
from unseen.experiments.results import FIGURES, Row, read_rows
from unseen.storage import read_json

Method = tuple[str, str]
"""A method and its variant; the full method's variant is empty."""
Data = tuple[str, str, str]
"""Name of a data set, hash of its features, hash of its embeddings."""
K = TypeVar("K", bound=Hashable)


def method_of(row: Row) -> Method:
    """Which method a row is of."""
    return row["method"], row.get("variant", "")


def data_of(row: Row) -> Data:
    """Which data a row is of: equal data may be compared."""
    return row["dataset"], row["features_hash"], row["embeddings_hash"]


def label(method: Method) -> str:
    """A method as tables name it."""
    return f"{method[0]}, {method[1]}" if method[1] else method[0]


def is_oracle(row: Row) -> bool:
    """Whether the row's classifier has learned from real unseen rows: a yardstick, no result."""
    return bool(row.get("test_used_for_training", False))


def is_transductive(row: Row) -> bool:
    """Whether the row's method trained on the unseen test rows, without labels: to be compared with its like alone."""
    return bool(row.get("transductive", False))


def marked(row: Row) -> Row:
    """The row, of a transductive method under a name that says so: for tables and figures that tell rows apart by name alone.

    A name of our own says it already; that of another package's method is its author's choice.
    """
    if not is_transductive(row) or "transductive" in row["method"]:
        return row
    return row | {"method": f"{row['method']} (transductive)"}


def grouped(rows: Iterable[Row], key: Callable[[Row], K]) -> dict[K, list[Row]]:
    """Rows by what `key` says of each, in the order in which it is first said."""
    groups: dict[K, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)


def task_of(row: Row) -> tuple[Hashable, ...]:
    """What two rows must have in common to be compared one to one; by protocol they are kept apart before."""
    return *data_of(row), row.get("labels_hash"), row["split_hash"], row["seed"]


def refuse_repeated(rows: Iterable[Row]) -> None:
    """Check that no method has two results of the same task: they differ in settings, versions or threads, so one is as good as
    the other, an average of both is neither, and a comparison could pick.

    Raises DataError, naming the tasks.
    """
    for (_, method, protocol), group in grouped(rows, lambda row: (task_of(row), method_of(row), row["protocol"])).items():
        if len(group) > 1:
            row = group[0]
            raise DataError(
                f"the tasks {' and '.join(str(r.get('task', '?')) for r in group[:2])} are both of {label(method)} on "
                f"{row['dataset']}, split {row['split']}, seed {row['seed']}, protocol {protocol}, with different settings or "
                "versions; keep them in different folders"
            )


# ---------------------------------------------------------------------------------------------------------- summaries


@dataclass(frozen=True)
class Estimate:
    """A figure, or a difference, measured on several splits with several seeds each.

    Args:
        mean: over splits of the mean over seeds, so a split counts the same however many seeds it has.
        between_seeds: standard deviation over seeds within a split, pooled over splits: the root of the summed squared
            distances from each value to its split's mean, divided by Σ (seeds of the split − 1). None with one seed a split.
        between_splits: standard deviation of the splits' means over seeds, with n − 1. What seeds leave in these means is in
            it. None with one split.
        interval: 95 % bootstrap (`interval_over_splits`); None for a single value, and where all seeds of a single split give
            the same, as closed forms do: an interval without width would look like certainty.
        over: what it was drawn over: `splits and seeds`, `splits`, `seeds`, or nothing. An interval over seeds alone says how
            far another seed may be off on this split, not how far another split.
    """

    mean: float
    between_seeds: float | None
    between_splits: float | None
    interval: tuple[float, float] | None
    over: str

    @staticmethod
    def of(values: Mapping[Hashable, Sequence[float]]) -> Estimate:
        """From split → one value a seed; there is at least one of each."""
        mean, low, high = interval_over_splits(values)
        per_split = [np.asarray(v, np.float64) for v in values.values()]
        spare = sum(len(v) - 1 for v in per_split)
        squares = sum(float(((v - v.mean()) ** 2).sum()) for v in per_split)
        over = " and ".join(["splits"] * (len(per_split) > 1) + ["seeds"] * (spare > 0))
        if over == "seeds" and np.ptp(per_split[0]) == 0:
            over = ""
        return Estimate(
            mean=mean,
            between_seeds=(squares / spare) ** 0.5 if spare else None,
            between_splits=float(np.std([v.mean() for v in per_split], ddof=1)) if len(per_split) > 1 else None,
            interval=(low, high) if over else None,
            over=over,
        )


@dataclass(frozen=True)
class Summary:
    """What the tasks of one method on one data set under one protocol say together.

    Args:
        data, method, protocol: of what.
        test_used_for_selection: test rows chose these figures, so they are too good.
        oracle: its classifier has learned from real unseen rows: no result.
        splits: names, in order.
        seeds: how many different ones.
        tasks: how many.
        figures: T1, U, S, H, AUSUC, H_without_gamma; None where a task has none.
        seconds: median of a task, its selection included.
        peak_memory: median in bytes; None where a task does not say.
    """

    data: Data
    method: Method
    protocol: str
    test_used_for_selection: bool
    oracle: bool
    splits: tuple[str, ...]
    seeds: int
    tasks: int
    figures: dict[str, Estimate | None]
    seconds: float
    peak_memory: float | None


def summaries(rows: Iterable[Row]) -> list[Summary]:
    """One summary for each data set (and features and embeddings), protocol, method and variant, sorted in this order.

    Raises DataError when a method has two results of one task.
    """
    rows = list(rows)
    refuse_repeated(rows)
    groups = grouped(rows, lambda row: (data_of(row), row["protocol"], method_of(row)))
    return [_summary(data, protocol, method, groups[data, protocol, method]) for data, protocol, method in sorted(groups)]


def _summary(data: Data, protocol: str, method: Method, rows: list[Row]) -> Summary:
    memory = [float(row["peak_memory"]) for row in rows if row.get("peak_memory") is not None]
    return Summary(
        data=data,
        method=method,
        protocol=protocol,
        test_used_for_selection=any(row["test_used_for_selection"] for row in rows),
        oracle=any(map(is_oracle, rows)),
        splits=tuple(sorted({row["split"] for row in rows})),
        seeds=len({row["seed"] for row in rows}),
        tasks=len(rows),
        figures={figure: _estimate(rows, figure) for figure in FIGURES},
        seconds=median(row["seconds"] for row in rows),
        peak_memory=median(memory) if len(memory) == len(rows) else None,
    )


def _estimate(rows: Sequence[Row], figure: str) -> Estimate | None:
    if any(row[figure] is None for row in rows):
        return None
    return Estimate.of({split: [r[figure] for r in group] for split, group in grouped(rows, lambda r: r["split_hash"]).items()})


# ------------------------------------------------------------------------------------------------------------ overlap


@dataclass(frozen=True)
class Overlap:
    """Splits of a data set that have unseen classes in common.

    Args:
        dataset: its name.
        splits: names of those that share a class with another one.
        places: unseen classes of all its splits, each counted as often as it occurs.
        different: how many different ones these are.
    """

    dataset: str
    splits: tuple[str, ...]
    places: int
    different: int

    def __str__(self) -> str:
        return (
            f"{len(self.splits)} splits of {self.dataset} share unseen classes ({self.different} different ones in "
            f"{self.places} places), so they are not independent and intervals over splits are too narrow"
        )


def overlapping_splits(unseen_of: Mapping[tuple[str, str], frozenset[str]]) -> list[Overlap]:
    """The data sets whose splits overlap. No resampling mends that: whoever prints an interval over them says so.

    Args:
        unseen_of: (data set, split) → names of its unseen classes; see `unseen_names`.
    """
    overlaps = []
    for dataset in sorted({dataset for dataset, _ in unseen_of}):
        own = {split: names for (of, split), names in sorted(unseen_of.items()) if of == dataset}
        often = Counter(itertools.chain.from_iterable(own.values()))
        sharing = tuple(split for split, names in own.items() if any(often[name] > 1 for name in names))
        if sharing:
            overlaps.append(Overlap(dataset, sharing, often.total(), len(often)))
    return overlaps


def unseen_names(folder: Path, among: Callable[[Row], bool] = lambda row: True) -> dict[tuple[str, str], frozenset[str]]:
    """(data set, split) → names of its unseen classes, of a benchmark's finished tasks, from their `task.json`.

    Args:
        among: which tasks, by their rows.

    Where data sets of one name have different splits of one name, the beginning of the split's hash is added to the latter.

    Raises DataError when the folder is no benchmark's, or a file is damaged.
    """
    found: dict[tuple[str, str], frozenset[str]] = {}
    for row in filter(among, read_rows(folder)):
        path = folder / "tasks" / row["task"] / "task.json"
        listed = read_json(path).get("unseen")
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise DataError(f"{path} is damaged (it does not list the unseen classes); run its benchmark again")
        names = frozenset(listed)
        if found.setdefault((row["dataset"], row["split"]), names) != names:
            found[row["dataset"], f"{row['split']} ({row['split_hash'][:8]})"] = names
    return found


# ------------------------------------------------------------------------------------------------------------- paired


@dataclass(frozen=True)
class Paired:
    """How far a method is above another one on equal tasks: same data, split, protocol and seed.

    Args:
        data, protocol: where.
        first, second: of which two; figure: in what.
        difference: first − second; None without a pair.
        pairs: tasks that both have.
        better: pairs in which the first is above the second.
        alone: tasks of the first, and of the second, that the other one does not have.
    """

    data: Data
    protocol: str
    first: Method
    second: Method
    figure: str
    difference: Estimate | None
    pairs: int
    better: int
    alone: tuple[int, int]


def paired(rows: Iterable[Row], first: Method, second: Method, figure: str = "H") -> list[Paired]:
    """The two methods compared, once for each data set and protocol on which either has a task.

    Raises DataError when one of them has two results of one task.
    """
    rows = [row for row in rows if method_of(row) in (first, second) and row[figure] is not None]
    refuse_repeated(rows)
    groups = grouped(rows, lambda row: (data_of(row), row["protocol"]))
    return [_paired(data, protocol, groups[data, protocol], first, second, figure) for data, protocol in sorted(groups)]


def _paired(data: Data, protocol: str, rows: list[Row], first: Method, second: Method, figure: str) -> Paired:
    ours, theirs = ({task_of(row): row for row in rows if method_of(row) == method} for method in (first, second))
    common = [task for task in ours if task in theirs]
    differences: dict[Hashable, list[float]] = defaultdict(list)
    for task in common:
        differences[ours[task]["split_hash"]].append(ours[task][figure] - theirs[task][figure])
    return Paired(
        data=data,
        protocol=protocol,
        first=first,
        second=second,
        figure=figure,
        difference=Estimate.of(differences) if common else None,
        pairs=len(common),
        better=sum(d > 0 for ds in differences.values() for d in ds),
        alone=(len(ours) - len(common), len(theirs) - len(common)),
    )


def paired_table(rows: Iterable[Row], baseline: Method, figure: str = "H") -> list[Paired]:
    """Every other method and variant against the baseline, wherever it has a task, sorted by data set, protocol and method.

    Oracles are no results and are left out, and so are transductive results where the baseline is inductive, and inductive ones
    where it is not: what has trained on the test rows is above or below the other kind for that alone.

    Raises:
        DataError: a method has two results of one task.
        SettingsError: there is no result of the baseline.
    """
    rows = [row for row in rows if not is_oracle(row)]
    methods = sorted({method_of(row) for row in rows})
    if baseline not in methods:
        raise SettingsError(
            f"there is no result of {label(baseline)} to compare with; there are {', '.join(map(label, methods))}"
        )
    kinds = {is_transductive(row) for row in rows if method_of(row) == baseline}
    rows = [row for row in rows if is_transductive(row) in kinds]
    against = [p for method in methods if method != baseline for p in paired(rows, method, baseline, figure)]
    return sorted((p for p in against if p.pairs or p.alone[0]), key=lambda p: (p.data, p.protocol, p.first))


# -------------------------------------------------------------------------------------------------------------- ranks


@dataclass(frozen=True)
class Ranks:
    """Average ranks under one protocol; 1 is best. Seeds of a split share its test rows, so tasks are no independent votes.

    Args:
        protocol: where; figure: in what.
        average: each method with its average rank, best first.
        tasks: how many all of them have, which the average is over.
        left_out: tasks that one of them lacks.
    """

    protocol: str
    figure: str
    average: tuple[tuple[Method, float], ...]
    tasks: int
    left_out: int


def average_ranks(rows: Iterable[Row], figure: str = "H") -> list[Ranks]:
    """Average rank over the tasks that all methods of a protocol have; equal figures share their ranks.

    Protocols are ranked apart, so figures that test rows chose are ranked among themselves alone. Oracles are left out. A
    method that has few tasks leaves few for all: give the rows of the methods that are to be compared.

    Raises DataError when a method has two results of one task.
    """
    from scipy.stats import rankdata

    rows = [row for row in rows if not is_oracle(row) and row[figure] is not None]
    refuse_repeated(rows)
    found = []
    for protocol, group in sorted(grouped(rows, lambda row: row["protocol"]).items()):
        methods = sorted({method_of(row) for row in group})
        by_task = [{method_of(r): r[figure] for r in of_task} for of_task in grouped(group, task_of).values()]
        complete = [[-figures[m] for m in methods] for figures in by_task if len(figures) == len(methods)]
        average: Any = rankdata(complete, axis=1).mean(axis=0) if complete else []
        ranked = sorted(zip(methods, map(float, average), strict=False), key=lambda entry: (entry[1], entry[0]))
        found.append(Ranks(protocol, figure, tuple(ranked), len(complete), len(by_task) - len(complete)))
    return found


# ------------------------------------------------------------------------------------------------------------- ledger


@dataclass(frozen=True)
class Looks:
    """How often the test rows of a split were scored.

    Args:
        dataset, split, split_hash: which split.
        to_report: once for every result.
        to_choose: by the protocol `paper`, which picks the best of all epochs on them.
        to_diagnose: for curves and oracles, which choose nothing.
        by_method: method → all of these together.
    """

    dataset: str
    split: str
    split_hash: str
    to_report: int
    to_choose: int
    to_diagnose: int
    by_method: dict[Method, int]

    @property
    def total(self) -> int:
        """All of them."""
        return self.to_report + self.to_choose + self.to_diagnose


def ledger(rows: Iterable[Row]) -> list[Looks]:
    """How often each split's test rows were looked at to make these rows, sorted by data set and split.

    Every look at them that may lead to a choice, also one that somebody makes after reading a table, makes figures on them
    less trustworthy; this is the count of those that these rows know of. An oracle's row counts as one diagnosis.
    """
    found = []
    groups = grouped(rows, lambda row: (row["dataset"], row["split"], row["split_hash"]))
    for (dataset, split, split_hash), group in sorted(groups.items()):
        by_method: dict[Method, int] = defaultdict(int)
        to_report = to_choose = to_diagnose = 0
        for row in group:
            report, choose, diagnose = _looks(row)
            to_report, to_choose, to_diagnose = to_report + report, to_choose + choose, to_diagnose + diagnose
            by_method[method_of(row)] += report + choose + diagnose
        found.append(Looks(dataset, split, split_hash, to_report, to_choose, to_diagnose, dict(sorted(by_method.items()))))
    return found


def _looks(row: Row) -> tuple[int, int, int]:
    if is_oracle(row):
        return 0, 0, 1
    diagnostic = row.get("diagnostic_evaluations") or 0
    if row["test_used_for_selection"]:
        return 1, row["test_evaluations"], diagnostic
    return row["test_evaluations"], 0, diagnostic
