"""What a benchmark came to, for a terminal: tables, and the sentences that must stand beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from unseen.experiments import tables
from unseen.experiments.aggregate import (
    Method,
    average_ranks,
    label,
    ledger,
    method_of,
    overlapping_splits,
    paired_table,
    summaries,
    unseen_names,
)
from unseen.experiments.literature import beside, why_none
from unseen.experiments.results import read_failures, read_oracles, read_rows

YARDSTICK: Method = ("class-gaussian", "")
"""What others are compared with where nothing else is named: it takes seconds, so a generative method has to beat it."""


def overview(folder: Path, baseline: Method | None = None) -> Iterator[Table | str]:
    """Means with intervals, paired differences, average ranks, the ledger, published figures, failures.

    Args:
        baseline: what the others are compared with; the whole method in an ablation.

    Raises DataError when the folder is no benchmark's, or something in it is damaged.
    """
    rows, oracles = read_rows(folder), read_oracles(folder)
    if rows:
        together = summaries([*rows, *oracles])
        yield from tables.of_summaries(together)
        yield from tables.notes(together)
        yield from map(str, overlapping_splits(unseen_names(folder)))
        baseline = baseline or YARDSTICK
        if len({method_of(row) for row in rows}) > 1 and any(method_of(row) == baseline for row in rows):
            yield from tables.of_pairs(paired_table(rows, baseline))
        whole = [row for row in rows if not row["variant"]]
        if len({row["method"] for row in whole}) > 1:
            yield from tables.of_ranks(average_ranks(whole))
        widths = sorted(
            {(label(method_of(row)), row["hidden_width"], row["steps"]) for row in rows if row["steps"] is not None}
        )
        yield from (f"{method}: width {width or '–'}, {steps} steps" for method, width, steps in widths)
        yield tables.of_ledger(ledger([*rows, *oracles]))
        settings = {(row["split_hash"], row["embeddings_hash"], row["feature_extractor"]): row for row in rows}.values()
        yield from tables.of_literature([published for row in settings for published in beside(row)])
        yield from (sentence for row in settings if (sentence := why_none(row)))
    for failed in read_failures(folder):
        names = [str(failed.get(key, "?")) for key in ("dataset", "split", "method", "protocol", "seed")]
        yield f"failed: {', '.join(names)}: {failed['sentence']}"
