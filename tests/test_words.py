"""Pages whose words are written by hand: what is put where a figure belongs."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def words() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
        return importlib.import_module("words")


def row(method: str, split: str, h: float, variant: str = "", protocol: str = "blind", seed: int = 0) -> dict[str, Any]:
    figures = {"T1": 0.5, "U": h - 0.1, "S": h + 0.1, "H": h, "AUSUC": None, "H_without_gamma": h}
    leaks = {
        "leak_unseen_to_seen": h / 2,
        "leak_seen_to_unseen": 0.25,
        "diagnosis": {"mean_distance": 10 * h},
        "module_alone": None,
    }
    of = {"dataset": "shop", "features_hash": "f", "embeddings_hash": "e", "split": split, "split_hash": f"hash of {split}"}
    about = {"method": method, "variant": variant, "protocol": protocol, "seed": seed, "test_used_for_selection": False}
    about["test_evaluations"] = 26 if protocol == "paper" else 1
    return {**figures, **leaks, **of, **about, "seconds": 12.4, "peak_memory": 1}


ROWS = [
    *(row("flow", split, h) for split, h in (("a", 0.5), ("b", 0.75), ("c", 0.125))),
    row("flow", "a", 0.25, "alone, or so"),
    row("flow", "b", 0.875, "alone, or so"),
    row("flow", "a", 0.625, protocol="paper"),
]


@pytest.mark.parametrize(
    ("place", "figure"),
    [
        ("{shop paper: flow}", "62.5 (1 run)"),
        ("{shop paper: flow | U}", "52.5 (1 run)"),
        ("{shop paper: flow | seconds}", "12 s"),
        ("{shop paper: flow | leak_unseen_to_seen}", "31.2"),
        ("{shop paper: flow | gap}", "20.0"),
        ("{shop paper: flow | mean_distance}", "6.25"),
        ("{shop paper: flow | AUSUC}", "not measured yet"),
        ("{shop paper: flow | no_such_figure}", "not measured yet"),
        ("{shop paper: flow | looks}", "26"),
        ("{shop: flow | looks}", "1"),
        ("{shop: other | looks}", "not measured yet"),
        ("{shop: other}", "not measured yet"),
        ("{shop: flow - other}", "not measured yet"),
        ("{elsewhere: flow}", "not measured yet"),
        ("no place {here}, nor {a: }", "no place {here}, nor {a: }"),
    ],
)
def test_a_figure_stands_where_its_place_was(words: ModuleType, place: str, figure: str) -> None:
    assert words.filled(place, ROWS) == figure


def test_a_place_may_name_splits(words: ModuleType) -> None:
    assert words.filled("{shop/b: flow}", ROWS) == "75.0 (1 run)"
    rows = [*ROWS, row("flow", "full0", 0.25), row("flow", "full1", 0.5)]
    assert words.filled("{shop/full*: flow}", rows).startswith("37.5 (")
    assert words.filled("{shop/b ablated: flow, alone, or so - flow}", rows) == "+12.5 (above in 1 of 1 run)"
    assert words.filled("{shop/c: flow, alone, or so}", ROWS) == "not measured yet"


def test_a_place_may_name_a_representation(words: ModuleType) -> None:
    told = {"probe_accuracy": {"x": 0.5, "h_s": 0.25}, "halves_told_apart": 0.75}
    rows = [{**r, "consistency": told} for r in ROWS]
    assert words.filled("{shop: flow | h_s probe_accuracy}", rows) == "0.25"
    assert words.filled("{shop: flow | h_s halves_told_apart}", rows) == "0.75"
    assert words.filled("{shop: flow | x halves_told_apart}", rows) == "not measured yet"
    assert words.filled("{shop: flow | x probe_accuracy}", ROWS) == "not measured yet"


def test_a_mean_is_over_all_splits_or_over_those_of_the_ablation(words: ModuleType) -> None:
    assert words.filled("{shop: flow}", ROWS).startswith("45.8 (")
    assert words.filled("{shop: flow}", ROWS).endswith(", 3 runs)")
    assert words.filled("{shop ablated: flow}", ROWS).startswith("62.5 (")
    assert words.filled("{shop ablated: flow}", ROWS).endswith(", 2 runs)")
    assert words.filled("{shop ablated: flow, alone, or so}", ROWS) == words.filled("{shop: flow, alone, or so}", ROWS)


def test_rows_of_an_ablation_rest_on_the_same_tasks_while_some_are_missing(words: ModuleType) -> None:
    """A row that has done split b alone leaves b alone to all of them."""
    rows = [*ROWS, row("flow", "b", 0.375, "one more")]
    assert words.filled("{shop ablated: flow}", rows) == "75.0 (1 run)"
    assert words.filled("{shop ablated: flow, alone, or so | U}", rows) == "77.5 (1 run)"
    assert words.filled("{shop ablated: flow, one more}", rows) == "37.5 (1 run)"
    assert words.filled("{shop ablated: flow}", [row("flow", "a", 0.5)]) == "not measured yet"


def test_a_difference_is_on_equal_tasks(words: ModuleType) -> None:
    """-25 points on one split, +12.5 on the other; the third split and the other protocol have no pair."""
    said = words.filled("{shop: flow, alone, or so - flow}", ROWS)
    assert said == "-6.2 (-25.0 to +12.5, above in 1 of 2 runs)"


def test_what_would_help_is_compared_draw_by_draw(words: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what knows no draw the one row stands against each."""
    rows = [("", 0, 0.5), ("names alone", 0, 0.25), *(("with one real picture", draw, 0.5 + draw / 8) for draw in range(3))]
    stored = [
        {"dataset": "helped", "split": "a", "split_hash": "of a", "variant": what, "seed": seed, "T1": t1}
        for what, seed, t1 in rows
    ]
    monkeypatch.setattr(words.what_helps, "read", lambda: stored)
    place = "{{helped: class-gaussian, {} - class-gaussian | T1}}"
    said = words.filled(place.format("with one real picture"), list(words.helped()))
    assert said == "+12.5 (+0.0 to +25.0, above in 2 of 3 runs)"
    assert words.filled(place.format("names alone"), list(words.helped())) == "-25.0 (above in 0 of 1 run)"
    assert words.filled("{helped: class-gaussian | T1}", list(words.helped())) == "50.0 (1 run)"


def test_seeds_that_say_the_same_again_are_no_further_runs(words: ModuleType) -> None:
    """Of a method that draws nothing; against one that draws, each of whose seeds is another run."""
    rows = [row("ridge", split, h, seed=seed) for split, h in (("a", 0.5), ("b", 0.25)) for seed in range(3)]
    rows += [row("flow", split, 0.625 + seed / 8, seed=seed) for split in ("a", "b") for seed in range(3)]
    rows += [row("other", "a", 0.75, seed=seed) for seed in range(3)]
    assert words.filled("{shop: ridge}", rows) == "37.5 (25.0 to 50.0, 2 runs)"
    assert words.filled("{shop: flow}", rows).endswith("6 runs)")
    assert words.filled("{shop: flow - ridge}", rows).endswith("above in 6 of 6 runs)")
    assert words.filled("{shop: other - ridge}", rows) == "+25.0 (above in 1 of 1 run)"
