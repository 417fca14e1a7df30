"""What is printed together, and what must not be mixed."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from unseen.experiments.overview import overview
from unseen.storage import write_json

Row = dict[str, Any]


@pytest.fixture
def printed() -> Callable[[Path], list[str]]:
    """Tables and sentences, each as text."""

    def print_all(folder: Path) -> list[str]:
        console = Console(width=200, record=True, file=StringIO())
        out = []
        for part in overview(folder):
            console.print(part, soft_wrap=isinstance(part, str))
            out.append(console.export_text())
            assert isinstance(part, str | Table)
        return out

    return print_all


def figures_of(table: str) -> dict[str, list[str]]:
    """First word of a line → the rest."""
    return {line.split()[0]: line.split()[1:] for line in table.splitlines()[2:] if line.strip()}


def test_an_ablation_is_measured_on_its_own_tasks(
    row: Callable[..., Row], bench: Callable[..., Path], printed: Callable[[Path], list[str]]
) -> None:
    """The whole method was run on two splits, its row on one: their means are over the same tasks in the ablation's table."""
    common = {"method": "tfvaegan", "hidden_width": 8, "steps": 12}
    rows = [
        row(task="a", split="one", split_hash="1", H=0.5, **common),
        row(task="b", split="two", split_hash="2", H=0.1, **common),
        row(task="c", split="one", split_hash="1", H=0.4, variant="less", **common),
        row(task="d", split="one", split_hash="1", H=0.2, method="class-gaussian"),
        row(task="e", split="two", split_hash="2", H=0.2, method="class-gaussian"),
    ]
    parts = printed(bench(rows, {"one": ["owl"], "two": ["cat"]}))
    main, ablation = parts[0], next(part for part in parts if part.startswith("Ablation of"))
    place = main.splitlines()[1].split().index("H") - 1
    assert "less" not in main
    assert figures_of(main)["tfvaegan"][place] == "30.0"
    lines = [line.split() for line in ablation.splitlines()[2:] if line.strip()]
    assert [line[0] for line in lines] == ["tfvaegan", "tfvaegan,"]
    assert lines[0][1 + place] == "50.0"
    assert lines[1][2 + place] == "40.0"
    difference = next(part for part in parts if "minus that of tfvaegan" in part)
    assert "-10.0" in difference
    assert any("width and steps of tfvaegan: 8 and 12; the same in all rows of a task" in part for part in parts)
    assert not any("less" in part for part in parts if "Average rank" in part)


def test_a_transductive_method_is_said_to_be_one_and_not_ranked(
    row: Callable[..., Row], bench: Callable[..., Path], printed: Callable[[Path], list[str]]
) -> None:
    rows = [
        row(task="a", split_hash="1", H=0.4, method="eszsl"),
        row(task="b", split_hash="1", H=0.5, method="tfvaegan", transductive=False),
        row(task="c", split_hash="1", H=0.9, method="tfvaegan-transductive", transductive=True),
    ]
    parts = printed(bench(rows, {"main": ["owl"]}))
    said = "tfvaegan-transductive: trained on unseen test rows, without labels, so neither ranked"
    assert any(said in part for part in parts)
    (ranks,) = [part for part in parts if part.startswith("Average rank")]
    assert {name: place[0] for name, place in figures_of(ranks).items()} == {"tfvaegan": "1.00", "eszsl": "2.00"}
    assert "tfvaegan-transductive" in parts[0]  # its figures are there, under a name that says it


def test_every_line_of_a_transductive_method_says_it(
    row: Callable[..., Row], bench: Callable[..., Path], printed: Callable[[Path], list[str]]
) -> None:
    """The names of other packages' methods need not; one that does is left as it is."""
    candidates = [{"epoch": 1, "T1": 0.5, "U": 0.5, "S": 0.5, "H": 0.5}]
    stranger: Row = {"method": "stranger", "transductive": True, "diagnosis": {"order_kept": 0.5}}
    rows = [
        row(task="a", method="eszsl"),
        row(task="b", **stranger),
        row(task="c", **stranger, variant="less"),
        row(task="d", **stranger, protocol="paper", selection={"candidates": candidates}),
        row(task="e", method="x-transductive", transductive=True),
    ]
    folder = bench(rows, {"main": ["owl"]})
    oracle = {**rows[1], "method": "oracle (stranger)", "AUSUC": None, "test_used_for_training": True}
    write_json(folder / "tasks" / "b" / "oracle.json", oracle)
    told = "\n".join(printed(folder))
    of = [line for line in told.splitlines() if line.startswith("stranger") and "trained on" not in line]
    assert len(of) == 9  # blind, paper, both beside each other, three of the ablation, and three of diagnoses
    assert all(line.startswith("stranger (transductive)") for line in of)
    assert "oracle (stranger) (transductive)" in told
    assert "stranger (transductive), less: 1" in told  # looks at test rows
    assert "x-transductive (" not in told


def test_a_transductive_method_is_not_compared_with_class_gaussian(
    row: Callable[..., Row], bench: Callable[..., Path], printed: Callable[[Path], list[str]]
) -> None:
    rows = [row(method="class-gaussian", H=0.4), row(method="stranger", H=0.9, transductive=True)]
    alone = printed(bench(rows, {"main": ["owl"]}))
    assert not any("minus that of class-gaussian" in part for part in alone)
    assert any("(transductive): trained on" in part and "nor compared with the others" in part for part in alone)
    (compared,) = [part for part in printed(bench([row(H=0.5)], {"main": ["owl"]})) if "minus that of class-gaussian" in part]
    assert "tfvaegan" in compared
    assert "stranger" not in compared


def test_unequal_steps_in_an_ablation_are_said(
    row: Callable[..., Row], bench: Callable[..., Path], printed: Callable[[Path], list[str]]
) -> None:
    rows = [row(task="a", method="tfvaegan", steps=12), row(task="b", method="tfvaegan", variant="less", steps=6)]
    assert any("NOT the same in all rows" in part for part in printed(bench(rows, {"main": ["owl"]})))


def test_an_oracle_stands_beside_the_results_and_in_the_ledger_but_in_no_comparison(
    row: Callable[..., Row], bench: Callable[..., Path], printed: Callable[[Path], list[str]]
) -> None:
    rows = [row(task="a", method="tfvaegan", H=0.5), row(task="b", method="class-gaussian", H=0.4)]
    folder = bench(rows, {"main": ["owl"]})
    oracle = {**rows[0], "method": "oracle (tfvaegan)", "H": 0.9, "AUSUC": None, "test_used_for_training": True}
    write_json(folder / "tasks" / "a" / "oracle.json", oracle)
    parts = printed(folder)
    assert "oracle (tfvaegan)" in parts[0]
    for part in parts:
        if "minus" in part or "Average rank" in part:
            assert "oracle" not in part
    assert "oracle (tfvaegan): 1" in next(part for part in parts if "How often test rows were scored" in part)


def test_a_failure_is_named(row: Callable[..., Row], bench: Callable[..., Path], printed: Callable[[Path], list[str]]) -> None:
    folder = bench([row(task="a")], {"main": ["owl"]})
    known = {"dataset": "toy", "split": "first", "method": "x", "protocol": "blind", "seed": 3, "sentence": "[red]too bad"}
    write_json(folder / "tasks" / "b" / "failure.json", known)
    assert any("failed: toy, first, x, blind, 3: " in part for part in printed(folder))


def test_nothing_is_compared_where_there_is_nothing_to_compare_with(
    row: Callable[..., Row], bench: Callable[..., Path], printed: Callable[[Path], list[str]]
) -> None:
    """Closed forms have no `paper`: a generative method alone under it has no difference and no rank."""
    rows = [
        row(task="a", method="tfvaegan", H=0.5),
        row(task="b", method="class-gaussian", H=0.4),
        row(task="c", method="tfvaegan", H=0.6, protocol="paper", test_used_for_selection=True),
    ]
    parts = printed(bench(rows, {"main": ["owl"]}))
    compared = [part.splitlines()[0] for part in parts if "minus that of" in part or part.startswith("Average rank")]
    assert [("paper" in title, "blind" in title) for title in compared] == [(False, True)] * 2


def test_what_makes_rows_unlike_is_said(
    row: Callable[..., Row], bench: Callable[..., Path], printed: Callable[[Path], list[str]]
) -> None:
    chosen = {"selection": {"candidates": 3}}
    alike = [
        row(task="a", method="eszsl", **chosen),
        row(task="b", method="tfvaegan", seconds_by_phase={"training": 1.0}, **chosen),
        row(task="c", method="eszsl", seed=1, versions={"torch": "3"}),
        row(task="d", method="eszsl", protocol="paper", test_used_for_selection=True, seconds_by_phase={"training": 1.0})
        | {"selection": {"candidates": []}},  # an epoch was chosen, in the seconds of training
    ]
    parts = printed(bench(alike, {"main": ["owl"]}))
    assert any("seconds of tfvaegan do not all count the choice of settings" in part for part in parts)
    assert any("not all of these results were made with the same versions" in part for part in parts)


def test_what_is_left_out_is_in_no_part(row: Callable[..., Row], bench: Callable[..., Path]) -> None:
    """Neither in means nor in the ledger, nor in what is said of splits and of what failed."""
    rows = [
        row(task=f"{method}-{split}", split=split, split_hash=split, H=H, method=method)
        for split, H in (("small", 0.47), ("large", 0.11))
        for method in ("eszsl", "tfvaegan")
    ]
    folder = bench(rows, {"small": ["owl"], "large": ["owl"]})
    write_json(folder / "tasks" / "x" / "failure.json", {"split": "large", "sentence": "no memory"})
    console = Console(width=200, record=True, file=StringIO())

    def told(among: Callable[[Row], bool]) -> str:
        for part in overview(folder, among):
            console.print(part, soft_wrap=isinstance(part, str))
        return console.export_text()

    everything, small = (told(among).split() for among in (lambda row: True, lambda row: row["split"] == "small"))
    of_all = {"29.0", "large", "share", "memory"}
    assert set(everything) >= of_all
    assert "47.0" in small
    assert not of_all.intersection(small)
