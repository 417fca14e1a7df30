"""Tables for a terminal: percent, and names as they are."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from unseen.experiments import tables
from unseen.experiments.aggregate import average_ranks, ledger, paired_table, summaries
from unseen.experiments.diagnoses import consistencies, diagnoses
from unseen.experiments.literature import published

Row = dict[str, Any]
MakeRow = Callable[..., Row]
HOSTILE = "[bold]x[/bold] [link=http://a]\x1b[31m:warning:\r"
SHOWN = "[bold]x[/bold] [link=http://a]\ufffd[31m:warning:\ufffd"


def printed(table: Table) -> list[list[str]]:
    """The cells of each line, as a wide terminal shows them: title, headings, lines."""
    out = io.StringIO()
    Console(file=out, width=2000, color_system=None).print(table)
    return [re.split(r"\s{2,}", line.strip()) for line in out.getvalue().splitlines() if line.strip()]


@pytest.fixture
def rows(row: MakeRow) -> list[Row]:
    of_first = [row("tfvaegan", split, seed, 0.5 + 0.1 * seed) for split in "ab" for seed in (0, 1)]
    return of_first + [row("eszsl", split, seed, 0.25) for split in "ab" for seed in (0, 1)]


def test_summaries_in_percent(rows: list[Row]) -> None:
    (table,) = tables.of_summaries(summaries(rows))
    (title,), heading, linear, full = printed(table)
    of = dict(zip(heading, full, strict=True))
    assert title == "birds, protocol blind, percent; 95 % bootstrap interval over splits and seeds"
    assert of["method"] == "tfvaegan"
    assert (of["T1"], of["U"], of["H"], of["AUSUC"], of["H without γ"]) == ("65.0", "55.0", "55.0", "55.0", "55.0")
    assert of["95 % of H"] == "50.0–60.0"
    assert (of["± seeds"], of["± splits"]) == ("7.1", "0.0")  # two seeds 10 points apart: 5·√2
    assert (of["runs"], of["seconds"], of["GiB"]) == ("4", "2", "1.0")
    assert dict(zip(heading, linear, strict=True))["95 % of H"] == "25.0–25.0"


def test_data_and_protocols_have_tables_of_their_own(row: MakeRow) -> None:
    different = [row(), row(features_hash="f" * 64), row(protocol="paper"), row(dataset="cars")]
    titles = [printed(table)[0][0] for table in tables.of_summaries(summaries(different))]
    assert len(titles) == len(set(titles)) == 4
    assert "birds (features ffffffff, embeddings " in "".join(titles)
    assert titles[-1] == "cars, protocol blind, percent"


def test_what_is_missing_is_a_dash(row: MakeRow) -> None:
    (table,) = tables.of_summaries(summaries([row(H=None, peak_memory=None)]))
    _, heading, line = printed(table)
    of = dict(zip(heading, line, strict=True))
    assert {of[name] for name in ("T1", "H", "95 % of H", "± seeds", "± splits", "GiB")} == {"–"}


def test_pairs(rows: list[Row]) -> None:
    (table,) = tables.of_pairs(paired_table(rows, ("eszsl", "")))
    (title,), heading, line = printed(table)
    of = dict(zip(heading, line, strict=True))
    assert title == "birds, protocol blind: H minus that of eszsl on equal tasks, percent points"
    assert (of["method"], of["difference"], of["over"]) == ("tfvaegan", "+30.0", "splits and seeds")
    assert (of["95 % interval"], of["better on"], of["alone"]) == ("+25.0 to +35.0", "4 of 4", "0")


def test_ranks_and_ledger(row: MakeRow, rows: list[Row]) -> None:
    (table,) = tables.of_ranks(average_ranks([*rows, row("eszsl", "c")]))
    assert printed(table) == [
        ["Average rank in H, protocol blind"],
        ["method", "rank", "tasks", "tasks left out"],
        ["tfvaegan", "1.00", "4", "1"],
        ["eszsl", "2.00", "4", "1"],
    ]
    _, _, first, second = printed(tables.of_ledger(ledger(rows)))
    assert first[3:] == ["4", "0", "0", "4", "eszsl: 2; tfvaegan: 2"]
    assert (first[1], second[1]) == ("a", "b")


def test_literature() -> None:
    chosen = [r for r in published() if r.dataset == "FLO" and r.features == "ResNet-101, fine-tuned (TF-VAEGAN's files)"]
    (table,) = tables.of_literature(chosen)
    (title,), heading, line, other = printed(table)
    of = dict(zip(heading, line, strict=True))
    assert title.startswith("Published on FLO, features ResNet-101, fine-tuned (TF-VAEGAN's files), class embedding 1024-d")
    assert (of["T1"], of["U"], of["S"], of["H"]) == ("74.7", "69.5", "92.5", "79.4")
    assert (of["source"], of["selected on"]) == ("README of SDGZSL", "best epoch on test")
    assert of["note"].startswith("U corrected")
    assert other[0] == "SDGZSL"


def test_names_are_shown_as_they_are_and_run_nothing(row: MakeRow) -> None:
    rows = [row(HOSTILE, HOSTILE, seed, dataset=HOSTILE, variant=HOSTILE) for seed in (0, 1)]
    rows += [row("eszsl", HOSTILE, seed, dataset=HOSTILE) for seed in (0, 1)]
    for table in (
        *tables.of_summaries(summaries(rows)),
        *tables.of_pairs(paired_table(rows, ("eszsl", ""))),
        *tables.of_ranks(average_ranks(rows)),
        tables.of_ledger(ledger(rows)),
    ):
        text = "\n".join("  ".join(line) for line in printed(table))
        assert "\x1b" not in text
        assert "\r" not in text
        assert text.count(SHOWN) >= 2


def test_a_terminal_of_120_columns_shows_every_name_and_number(rows: list[Row], row: MakeRow) -> None:
    name = "a-method-with-a-name-that-is-longer-than-its-column"
    long = [row(name, split, seed, 0.25, seconds=123456.0) for split in "ab" for seed in (0, 1)]
    (table,) = tables.of_summaries(summaries([*rows, *long]))
    out = io.StringIO()
    Console(file=out, width=120, color_system=None).print(table)
    _, heading, *lines = out.getvalue().splitlines()
    assert heading.split("  ")[0] == "method"
    assert name in "".join(line[: heading.index("runs")].strip() for line in lines)
    assert "…" not in out.getvalue()
    assert "123456" in out.getvalue()


def test_what_must_be_said_beside_a_table_is_said(row: MakeRow, rows: list[Row]) -> None:
    assert tables.notes(summaries(rows)) == []
    assert tables.notes(summaries([row(seed=0), row(seed=1, H=0.6)])) == [
        "an interval over seeds of one split says nothing about other splits"
    ]
    told = tables.notes(
        summaries([row(protocol="paper", test_used_for_selection=True), row("oracle (x)", test_used_for_training=True)])
    )
    assert [sentence.split()[0] for sentence in told] == ["figures", "an"]
    assert "too good" in told[0]
    assert "yardstick" in told[1]


def test_diagnoses_show_leaks_in_percent_and_the_rest_as_it_is(row: MakeRow) -> None:
    lines = [row("dfca", diagnosis={"order_kept": -0.256}), row("eszsl", diagnosis=None), row("eszsl", seed=1)]
    (table,) = tables.of_diagnoses(diagnoses(lines))
    (title,), heading, full, linear = printed(table)
    assert title == "birds, protocol blind: which way the methods err"
    assert heading == ["method", "runs", "unseen → seen", "seen → unseen", "leak gap", "|S − U|", "order kept"]
    assert full == ["dfca", "1", "25.0", "12.5", "12.5", "0.0", "-0.26"]
    assert linear == ["eszsl", "2", "25.0", "12.5", "12.5", "0.0", "–"]


def test_consistency_has_a_line_for_each_representation(row: MakeRow) -> None:
    def measured(cosine: float, told: float | None) -> dict[str, Any]:
        return {
            "attribute_cosine": {"x": 0.5, "h_s": cosine},
            "probe_accuracy": {"x": 0.25, "h_s": 1},
            "halves_told_apart": told,
        }

    lines = [row("sddn", seed=seed, consistency=measured(cosine, 0.75)) for seed, cosine in ((0, 0.1), (1, 0.3))]
    lines += [row("sddn", variant="B0", consistency=measured(0.5, None)), row("eszsl", consistency=None), row("dfca")]
    (table,) = tables.of_consistencies(consistencies(lines))
    (title,), heading, *found = printed(table)
    assert title == "birds, protocol blind: how consistent representations are"
    assert heading == ["method", "of", "runs", "attribute cosine", "probe accuracy", "halves told apart"]
    assert found == [
        ["sddn", "x", "2", "0.50", "0.25", "–"],
        ["sddn", "h_s", "2", "0.20", "1.00", "0.75"],
        ["sddn, B0", "x", "1", "0.50", "0.25", "–"],
        ["sddn, B0", "h_s", "1", "0.50", "1.00", "–"],
    ]
