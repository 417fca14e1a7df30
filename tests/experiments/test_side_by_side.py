"""`paper` beside `blind`: equal tasks only, and choosing kept apart from what else differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from unseen.experiments import tables
from unseen.experiments.results import Row
from unseen.experiments.side_by_side import among_blind, side_by_side

MakeRow = Callable[..., Row]


def paper(row: MakeRow, *args: Any, H: float, last: float, **more: Any) -> Row:
    candidates = [{"step": 40, "T1": 0.5, "U": 0.25, "S": 0.75, "H": last}]
    selection = {"chosen_on": "the test rows", "chosen": {"step": 20}, "candidates": candidates, "test_evaluations": 8}
    return row(*args, H=H, protocol="paper", test_used_for_selection=True, selection=selection, **more)


def test_choosing_and_what_else_differs_are_told_apart_on_equal_tasks(row: MakeRow) -> None:
    rows = [
        row("gan", "a", 0, H=0.25),
        row("gan", "b", 0, H=0.5),
        row("gan", "c", 0, H=1.0),  # has no partner
        paper(row, "gan", "a", 0, H=0.5, last=0.375),
        paper(row, "gan", "b", 0, H=0.5, last=0.25),
        paper(row, "gan", "b", 1, H=1.0, last=0.0),  # has none either
        row("ridge", "a", 0, H=0.75),
        paper(row, "flow", "a", 0, H=0.75, last=0.5),
        row("gan", "a", 0, H=0.0, variant="half"),
    ]
    [entry] = side_by_side(rows)
    assert entry.method == "gan"
    assert (entry.optimism.pairs, entry.choosing.pairs) == (2, 2)
    assert [of.figures["H"].mean for of in (entry.blind, entry.paper, entry.last)] == [0.375, 0.5, 0.3125]  # type: ignore[union-attr]
    assert entry.last.figures["T1"].mean == 0.5  # type: ignore[union-attr]
    assert entry.choosing.difference.mean == 0.1875  # type: ignore[union-attr]
    assert entry.optimism.difference.mean == 0.125  # type: ignore[union-attr]
    [table] = tables.of_protocols([entry])
    cells = [next(iter(column.cells)) for column in table.columns]
    assert [str(cell) for cell in cells[:2]] == ["gan", "2"]
    assert cells[5:8] == ["37.5", "50.0", "31.2"]
    assert cells[8] == "+18.8 (+12.5 to +25.0)"
    assert cells[9] == "+12.5 (+0.0 to +25.0)"


def test_data_sets_are_kept_apart(row: MakeRow) -> None:
    rows = [
        made
        for dataset, gain in (("birds", 0.125), ("cars", 0.25))
        for made in (row("gan", dataset=dataset, H=0.5), paper(row, "gan", dataset=dataset, H=0.5 + gain, last=0.5))
    ]
    found = {entry.data[0]: entry.optimism.difference.mean for entry in side_by_side(rows)}  # type: ignore[union-attr]
    assert found == {"birds": 0.125, "cars": 0.25}


@pytest.mark.parametrize("selection", [None, {"candidates": []}])
def test_a_row_that_does_not_know_its_last_epoch_is_left_out(row: MakeRow, selection: dict[str, Any] | None) -> None:
    known = row("gan", protocol="paper", test_used_for_selection=True, selection=selection)
    assert side_by_side([row("gan"), known]) == []


def test_oracles_and_other_protocols_are_no_part_of_it(row: MakeRow) -> None:
    oracle = paper(row, "oracle (gan)", H=0.9, last=0.9) | {"test_used_for_training": True}
    assert list(among_blind([oracle, row("gan", protocol="fixed")])) == []
