"""Which way methods err, and how well what they make agrees with the class embeddings: means over many result rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean
from typing import Any

from unseen.experiments.aggregate import Data, Method, data_of, grouped, method_of
from unseen.experiments.results import Row


@dataclass(frozen=True)
class Diagnosis:
    """Which way a method errs on one data set under one protocol; means over tasks.

    Args:
        tasks: over how many; the rows of an ablation have their own.
        leak_unseen_to_seen, leak_seen_to_unseen: shares of test rows that are taken for a class of the other kind, with γ.
        leak_gap: distance of the two leaks of a task.
        gap: |S − U|.
        figures: whatever else was measured in all of these tasks, such as how synthetic rows lie to real ones; of a module
            that scores by itself the `margin_gap`.
    """

    data: Data
    protocol: str
    method: Method
    tasks: int
    leak_unseen_to_seen: float
    leak_seen_to_unseen: float
    leak_gap: float
    gap: float
    figures: dict[str, float]


def diagnoses(rows: Iterable[Row]) -> list[Diagnosis]:
    """One for each data set, protocol, method and variant, sorted in this order."""
    groups = grouped(rows, lambda row: (data_of(row), row["protocol"], method_of(row)))
    found = []
    for (data, protocol, method), group in sorted(groups.items()):
        tables = [_measured(row) for row in group]
        names = [name for name in tables[0] if all(table.get(name) is not None for table in tables)]
        found.append(
            Diagnosis(
                data,
                protocol,
                method,
                len(group),
                mean(row["leak_unseen_to_seen"] for row in group),
                mean(row["leak_seen_to_unseen"] for row in group),
                mean(abs(row["leak_unseen_to_seen"] - row["leak_seen_to_unseen"]) for row in group),
                mean(abs(row["S"] - row["U"]) for row in group),
                {name: mean(table[name] for table in tables) for name in names},
            )
        )
    return found


def _measured(row: Row) -> dict[str, Any]:
    alone = row.get("module_alone") or {}
    return {**(row.get("diagnosis") or {}), "margin_gap": alone.get("margin_gap")}


@dataclass(frozen=True)
class Consistency:
    """How well one representation of a method agrees with the class embeddings; means over the tasks that say so.

    Args:
        tasks: over how many.
        representation: x as scaled, u as the final classifier sees it, or a part between them.
        figures: of `unseen.evaluation.consistency`, by name.
    """

    data: Data
    protocol: str
    method: Method
    tasks: int
    representation: str
    figures: dict[str, float]


def consistencies(rows: Iterable[Row]) -> list[Consistency]:
    """One for each data set, protocol, method, variant and representation, for methods that show their parts."""
    groups = grouped((row for row in rows if row.get("consistency")), lambda r: (data_of(r), r["protocol"], method_of(r)))
    found = []
    for (data, protocol, method), group in sorted(groups.items()):
        tables = [row["consistency"] for row in group]
        per_representation = [name for name, values in tables[0].items() if isinstance(values, dict)]
        for representation in tables[0][per_representation[0]]:
            figures = {name: mean(table[name][representation] for table in tables) for name in per_representation}
            if representation == "h_s" and all(table["halves_told_apart"] is not None for table in tables):
                figures["halves_told_apart"] = mean(table["halves_told_apart"] for table in tables)
            found.append(Consistency(data, protocol, method, len(group), representation, figures))
    return found
