"""What a benchmark came to, for a terminal: tables, and the sentences that must stand beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rich.table import Table
from rich.text import Text

from unseen.experiments import tables
from unseen.experiments.aggregate import (
    Method,
    average_ranks,
    is_transductive,
    ledger,
    marked,
    method_of,
    overlapping_splits,
    paired_table,
    summaries,
    unseen_names,
)
from unseen.experiments.diagnoses import consistencies, diagnoses
from unseen.experiments.literature import beside, why_none
from unseen.experiments.results import Row, read_failures, read_oracles, read_rows
from unseen.experiments.side_by_side import side_by_side

YARDSTICK: Method = ("class-gaussian", "")
"""What others are compared with: it takes seconds, so a generative method has to beat it."""


def overview(folder: Path, among: Callable[[Row], bool] = lambda row: True) -> Iterator[Table | str]:
    """Means and intervals, differences, `paper` beside `blind`, ranks, ablations, diagnoses, ledger, literature, what failed.

    Args:
        among: which rows, where not all splits of a data set are of one kind and a mean over them would say nothing.

    Raises DataError when the folder is no benchmark's, or something in it is damaged.
    """
    rows, oracles = (list(map(marked, filter(among, read(folder)))) for read in (read_rows, read_oracles))
    if rows:
        whole = [row for row in rows if not row["variant"]]
        inductive = [row for row in whole if not is_transductive(row)]
        together = summaries([*whole, *oracles])
        yield from tables.of_summaries(together)
        yield from tables.notes(together)
        yield from map(str, overlapping_splits(unseen_names(folder, among)))
        yield from _unlike(whole)
        methods = {method_of(row) for row in whole}
        if YARDSTICK in methods and len(methods) > 1:
            yield from tables.of_pairs([pair for pair in paired_table(whole, YARDSTICK) if pair.pairs])
        yield from _protocols(rows)
        if len({method_of(row) for row in inductive}) > 1:
            yield from tables.of_ranks([ranks for ranks in average_ranks(inductive) if len(ranks.average) > 1])
        for method in sorted({row["method"] for row in rows if row["variant"]}):
            yield from _ablation([row for row in rows if row["method"] == method], method)
        yield from tables.of_diagnoses(diagnoses(rows))
        yield from tables.of_consistencies(consistencies(rows))
        yield tables.of_ledger(ledger([*rows, *oracles]))
        settings = {(row["split_hash"], row["embeddings_hash"], row["feature_extractor"]): row for row in rows}.values()
        yield from tables.of_literature([published for row in settings for published in beside(row)])
        yield from (sentence for row in settings if (sentence := why_none(row)))
    for failed in filter(among, read_failures(folder)):
        names = [str(failed.get(key, "?")) for key in ("dataset", "split", "method", "protocol", "seed")]
        yield f"failed: {', '.join(names)}: {failed['sentence']}"


def _protocols(rows: list[Row]) -> Iterator[Table | str]:
    """What choosing on test rows adds, where both protocols were run."""
    if entries := side_by_side(rows):
        yield from tables.of_protocols(entries)
        yield (
            "what `paper` adds to H by taking the best of all epochs on the test rows stands under `by choosing the epoch`; in "
            "`paper above blind` settings differ as well: a method's defaults and no γ there, what folds chose and a γ here"
        )


def _unlike(rows: list[Row]) -> Iterator[str]:
    """What makes rows of one table unlike each other."""
    if seen_test_rows := sorted({row["method"] for row in rows if is_transductive(row)}):
        named = ", ".join(seen_test_rows)
        yield f"{named}: trained on unseen test rows, without labels, so neither ranked nor compared with the others"
    chosen = [row for row in rows if row["protocol"] == "blind" and row["selection"]]
    if free := {row["method"] for row in chosen if "selection" not in row["seconds_by_phase"]}:
        yield f"seconds of {', '.join(sorted(free))} do not all count the choice of settings, which came with a preset"
    if len({str(sorted(row["versions"].items())) for row in rows}) > 1 or len({row["threads"] for row in rows}) > 1:
        yield "not all of these results were made with the same versions and number of threads"


def _ablation(rows: list[Row], method: str) -> Iterator[Table | str]:
    """A method's rows beside the whole, on tasks that some of them have; the differences; width and steps."""

    def task(row: Row) -> tuple[object, ...]:
        return (*(row[key] for key in ("features_hash", "embeddings_hash", "split_hash", "protocol", "seed")),)

    taken = {task(row) for row in rows if row["variant"]}
    rows = [row for row in rows if task(row) in taken]
    for table in tables.of_summaries(summaries(rows)):
        table.title = Text("Ablation of ").append(table.title if isinstance(table.title, Text) else str(table.title))
        yield table
    if any(not row["variant"] for row in rows):
        yield from tables.of_pairs(paired_table(rows, (method, "")))
    lengths: dict[tuple[object, ...], set[tuple[str, str]]] = {}
    for row in rows:
        lengths.setdefault(task(row), set()).add((str(row.get("hidden_width")), str(row.get("steps"))))
    equal = all(len(of_task) == 1 for of_task in lengths.values())
    told = ", ".join(sorted({f"{width} and {steps}" for of_task in lengths.values() for width, steps in of_task}))
    yield f"width and steps of {method}: {told}; " + (
        "the same in all rows of a task" if equal else "NOT the same in all rows of a task, so these differences mean little"
    )
