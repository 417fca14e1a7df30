"""The published protocol beside `blind`: what choosing on the test rows adds to a figure.

Two comparisons, on equal tasks. Against its own last epoch, a `paper` run shows what picking the best of all epochs on the test
rows brought: nothing else differs. Against `blind` it shows what a reader of both would see, where settings differ as well:
`paper` takes those it was given and no γ, `blind` chooses on folds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from unseen.experiments.aggregate import Data, Method, Paired, Summary, is_oracle, paired, summaries, task_of
from unseen.experiments.results import Row


def among_blind(rows: Iterable[Row]) -> Iterator[Row]:
    """For each row of `paper` two that may be put among those of `blind`, as if of other methods.

    `NAME under paper` has its figures, and `NAME at its last epoch` those that it would have reported without choosing.
    """
    for row in rows:
        if row["protocol"] == "paper" and not is_oracle(row):
            known = {**row, "protocol": "blind"}
            yield known | {"method": _under_paper(row["method"])}
            for last in (row.get("selection") or {}).get("candidates", ()):
                figures = {**{name: last[name] for name in ("T1", "U", "S", "H")}, "AUSUC": None, "H_without_gamma": last["H"]}
                yield known | figures | {"method": _at_its_last_epoch(row["method"])}


def _under_paper(method: str) -> str:
    return f"{method} under paper"


def _at_its_last_epoch(method: str) -> str:
    return f"{method} at its last epoch"


@dataclass(frozen=True)
class SideBySide:
    """A method under `blind` and under `paper`, on the tasks that both have.

    Args:
        data, method: of what.
        blind, paper, last: the figures; `last` those of the last epochs of `paper`.
        choosing: H of `paper` minus that of its last epoch.
        optimism: H of `paper` minus that of `blind`.
    """

    data: Data
    method: str
    blind: Summary
    paper: Summary
    last: Summary
    choosing: Paired
    optimism: Paired


def side_by_side(rows: Iterable[Row]) -> list[SideBySide]:
    """One for each data set and method that has equal tasks under both protocols, sorted in this order. Variants are left out.

    Raises DataError when a method has two results of one task.
    """
    whole = [row for row in rows if not row["variant"]]
    rows = [*(row for row in whole if row["protocol"] == "blind"), *among_blind(whole)]
    tasks: dict[str, set[object]] = {}
    for row in rows:
        tasks.setdefault(row["method"], set()).add(task_of(row))
    found = []
    for method in tasks:
        names = method, _under_paper(method), _at_its_last_epoch(method)
        common = set.intersection(*(tasks.get(name, set()) for name in names))
        own = [row for row in rows if row["method"] in names and task_of(row) in common]
        blind, paper, last = map(_whole, names)
        of = {(summary.data, summary.method): summary for summary in summaries(own)}
        choosing = {pair.data: pair for pair in paired(own, paper, last)}
        for optimism in paired(own, paper, blind):
            data = optimism.data
            found.append(
                SideBySide(
                    data, method, of[data, blind], of[data, paper], of[data, last], choosing=choosing[data], optimism=optimism
                )
            )
    return sorted(found, key=lambda entry: (entry.data, entry.method))


def _whole(name: str) -> Method:
    return name, ""
