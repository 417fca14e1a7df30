"""What the page of a bench shows is what its tasks kept, put where it belongs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pytest
from bench_folder import make_bench, write, write_failure, write_task

from unseen.errors import DataError, SettingsError
from unseen.experiments.literature import LiteratureRow
from unseen.report import bench_assemble
from unseen.report.bench_assemble import contents_of, write_bench_report
from unseen.report.bench_contents import Bench, Line, Shown
from unseen.storage import read_json

NAMES = [f"class {k}" for k in range(12)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods, one with two variants, on two data sets with two splits, two seeds."""
    return make_bench(
        tmp_path_factory.mktemp("whole") / "bench",
        methods=("eszsl", "class-gaussian", "tfvaegan"),
        datasets={"birds": (9, 3), "fish": (6, 4)},
        splits=("one", "two"),
        seeds=2,
        variants={"tfvaegan": ("without feedback", "no transform")},
    )


@pytest.fixture(scope="module")
def bench(whole: Path) -> Bench:
    return contents_of(whole, "unseen report bench")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Adds a task to a folder of the test's own; its classes 9, 10 and 11 are unseen."""
    make_bench(tmp_path, datasets={})

    def add(method: str, split: str = "one", seed: int = 0, protocol: str = "blind", variant: str = "", **changes: Any) -> Path:
        held_out = changes.pop("held_out", np.array([9, 10, 11]))
        return write_task(tmp_path, method, "birds", split, seed, protocol, variant, NAMES, held_out, **changes)

    return add


def line_of(bench: Bench, method: str, dataset: str = "birds", variant: str = "", protocol: str = "blind") -> Line:
    [line] = [n for n in bench.lines if (n.method, n.dataset, n.variant, n.protocol) == (method, dataset, variant, protocol)]
    return line


def shown_of(bench: Bench, method: str) -> Shown:
    [shown] = [one for one in bench.views[0].shown if one.method == method]
    return shown


# --- lines


def test_a_line_leads_to_the_runs_that_it_averages(bench: Bench, whole: Path) -> None:
    assert len(bench.lines) == 2 * (3 + 2 + 1)  # with variants and an oracle
    for line in bench.lines:
        rows = [bench.runs[k].row for k in line.runs]
        assert {(r["method"], r["variant"], r["dataset"]) for r in rows} == {(line.method, line.variant, line.dataset)}
        assert len(rows) == (2 if line.summary.oracle else 4)
        by_split = {split: [r["H"] for r in rows if r["split"] == split] for split in ("one", "two")}
        h = line.summary.figures["H"]
        assert h is not None
        assert h.mean == pytest.approx(mean(mean(values) for values in by_split.values()))
        for k in line.runs:
            run = bench.runs[k]
            assert run.row == read_json(whole / run.file)
            assert run.file == f"tasks/{run.id}/{'oracle' if line.summary.oracle else 'result'}.json"
            assert (run.source, run.command) == (f"/data/{line.dataset}", bench.commands[0])


def test_the_best_of_each_column_is_marked_among_lines_that_may_compete(folder: Callable[..., Path]) -> None:
    for split in ("one", "two"):
        folder("eszsl", split, H=0.4, U=0.4, S=0.41)
        folder("class-gaussian", split, H=0.4, U=0.5, S=0.3)
        folder("tfvaegan", split, protocol="paper", H=0.9, U=0.9, S=0.9)
        folder("transductive-x", split, H=0.9, U=0.9, S=0.9)
        folder("tfvaegan", split, variant="more", H=0.9, U=0.9, S=0.9)
        folder("tfvaegan", split, protocol="fixed", H=0.1, U=0.1, S=0.1)
    place = folder("gsmflow", "one", H=0.9, U=0.9, S=0.9)  # and not on the other split
    bench = contents_of(place.parents[1], "")
    best = {(n.method, n.variant, n.protocol): n.best & {"U", "S", "H"} for n in bench.lines}
    assert best.pop(("eszsl", "", "blind")) == {"S", "H"}
    assert best.pop(("class-gaussian", "", "blind")) == {"U", "H"}
    assert set(best.values()) == {frozenset()}, "alone under a protocol, nothing is the best of anything"
    missing = {n.method: n.missing for n in bench.lines if n.protocol == "blind" and not n.variant}
    assert missing.pop("gsmflow") == "1 of 2 runs"
    assert set(missing.values()) == {""}
    assert line_of(bench, "transductive-x").transductive
    assert line_of(bench, "tfvaegan", protocol="paper").summary.test_used_for_selection


def test_seeds_that_are_missing_are_told_but_do_not_keep_from_competing(folder: Callable[..., Path]) -> None:
    folder("eszsl", H=0.5)
    place = folder("eszsl", seed=1, H=0.5)
    folder("class-gaussian", H=0.6)
    bench = contents_of(place.parents[1], "")
    assert (line_of(bench, "class-gaussian").missing, line_of(bench, "eszsl").missing) == ("1 of 2 runs", "")
    assert "H" in line_of(bench, "class-gaussian").best


def test_data_sets_of_one_name_are_told_apart(folder: Callable[..., Path]) -> None:
    folder("eszsl", H=0.5)
    place = folder("class-gaussian", H=0.4, features_hash="f" * 64)
    bench = contents_of(place.parents[1], "")
    names = {n.method: n.dataset for n in bench.lines}
    assert names["class-gaussian"].startswith("birds (features ffffffff, embeddings ")
    assert names["eszsl"].startswith("birds (features ")
    assert len({view.dataset for view in bench.views}) == 2
    assert all(not n.best for n in bench.lines)


# --- comparisons


def test_differences_are_paired_with_the_baseline(bench: Bench, whole: Path) -> None:
    assert {(bench.lines[d.line].method, bench.lines[d.other].method) for d in bench.differences} == {
        ("eszsl", "class-gaussian"),
        ("tfvaegan", "class-gaussian"),
    }
    for d in bench.differences:
        ours, theirs = ({(r["split"], r["seed"]): r["H"] for r in rows_of(bench, n)} for n in (d.line, d.other))
        apart = [ours[task] - theirs[task] for task in ours]
        assert d.paired.difference is not None
        assert d.paired.difference.mean == pytest.approx(mean(apart))
        assert (d.paired.pairs, d.paired.better) == (4, sum(x > 0 for x in apart))
    against = contents_of(whole, "", baseline="eszsl").differences
    assert {bench.lines[d.other].method for d in against} == {"eszsl"}
    with pytest.raises(SettingsError, match="there is no result of dfca to compare with"):
        contents_of(whole, "", baseline="dfca")


def rows_of(bench: Bench, line: int) -> list[Any]:
    return [bench.runs[k].row for k in bench.lines[line].runs]


def test_without_the_usual_baseline_there_is_no_comparison(folder: Callable[..., Path]) -> None:
    folder("eszsl")
    place = folder("tfvaegan")
    assert contents_of(place.parents[1], "").differences == ()


def test_differences_are_among_inductive_results_or_among_transductive_ones(folder: Callable[..., Path]) -> None:
    for method in ("class-gaussian", "eszsl", "transductive-x"):
        place = folder(method)

    def compared(baseline: str | None = None) -> list[tuple[str, str]]:
        bench = contents_of(place.parents[1], "", baseline)
        return [(bench.lines[d.line].method, bench.lines[d.other].method) for d in bench.differences]

    assert compared() == [("eszsl", "class-gaussian")]
    assert compared("eszsl") == [("class-gaussian", "eszsl")]
    with pytest.raises(SettingsError, match=r"nothing to compare transductive-x with.*give another --baseline"):
        compared("transductive-x")
    folder("transductive-y")
    assert compared("transductive-x") == [("transductive-y", "transductive-x")]


def test_ablations_stand_below_the_full_method_and_are_compared_with_it(bench: Bench) -> None:
    assert len(bench.ablations) == 2
    for ablation, dataset in zip(bench.ablations, ("birds", "fish"), strict=True):
        assert (ablation.method, ablation.dataset, ablation.protocol) == ("tfvaegan", dataset, "blind")
        lines = [bench.lines[k] for k, _ in ablation.rows]
        assert [(n.method, n.variant, n.dataset) for n in lines] == [
            ("tfvaegan", variant, dataset) for variant in ("", "no transform", "without feedback")
        ]
        assert [summary for _, summary in ablation.rows] == [n.summary for n in lines]
        assert [bench.lines[d.line].variant for d in ablation.differences] == ["no transform", "without feedback"]
        for d in ablation.differences:
            assert d.other == ablation.rows[0][0]
            ours, full = (mean(r["H"] for r in rows_of(bench, n)) for n in (d.line, d.other))
            assert d.paired.difference is not None
            assert d.paired.difference.mean == pytest.approx(ours - full)
        assert ablation.effort == "All rows of a split and seed had the same: width 512, 6000 steps."


def test_an_ablation_is_measured_on_its_own_tasks(folder: Callable[..., Path]) -> None:
    """The full method has more splits in the comparison than its variants."""
    folder("tfvaegan", "one", H=0.4)
    folder("tfvaegan", "two", H=0.6)
    place = folder("tfvaegan", "one", variant="more", H=0.3, steps=12)
    bench = contents_of(place.parents[1], "")
    [ablation] = bench.ablations
    figures = [summary.figures["H"] for _, summary in ablation.rows]
    assert [e.mean for e in figures if e is not None] == [0.4, 0.3]
    full = line_of(bench, "tfvaegan").summary.figures["H"]
    assert full is not None
    assert full.mean == 0.5
    efforts = "width 512, 12 steps; width 512, 6000 steps"
    assert ablation.effort == f"The rows of a split and seed had different ones ({efforts}), so these differences say little."


def test_ranks_are_of_inductive_full_methods(folder: Callable[..., Path]) -> None:
    folder("eszsl", H=0.3)
    folder("class-gaussian", H=0.5)
    folder("transductive-x", H=0.9)
    place = folder("tfvaegan", H=0.4)
    folder("tfvaegan", variant="more", H=0.8)
    bench = contents_of(place.parents[1], "")
    assert bench.ranks["blind"]["H"].average == ((("class-gaussian", ""), 1.0), (("tfvaegan", ""), 2.0), (("eszsl", ""), 3.0))
    ranks = "class-gaussian 1.0, tfvaegan 2.0, eszsl 3.0"
    assert bench.verdict == f"Average rank of H under blind, over the 1 run that all these methods have: {ranks}."


def test_a_transductive_method_alone_is_said_to_be_one(folder: Callable[..., Path]) -> None:
    place = folder("transductive-x", H=0.9)
    verdict = contents_of(place.parents[1], "").verdict
    assert verdict == "transductive-x on birds, blind: H 90.0 percent, trained on unlabelled test rows."


def test_figures_and_looks_of_a_transductive_method_say_it(folder: Callable[..., Path]) -> None:
    """There the name is all that tells the methods apart."""
    folder("eszsl")
    place = folder("stranger", transductive=True)
    bench = contents_of(place.parents[1], "")
    assert {shown.method for view in bench.views for shown in view.shown} == {"eszsl", "stranger (transductive)"}
    assert {"eszsl", "stranger (transductive)"} <= {method for look in bench.looks for method, _ in look.by_method}
    assert line_of(bench, "stranger").transductive  # a line has its name as it is, and a flag


def test_costs_are_medians(bench: Bench) -> None:
    for cost in bench.costs:
        rows = rows_of(bench, cost.line)
        assert not bench.lines[cost.line].variant
        assert cost.seconds_by_phase["training"] == median(r["seconds_by_phase"]["training"] for r in rows)
        assert (cost.threads, cost.device) == (("1",), ("cpu",))
    assert {bench.lines[cost.line].method for cost in bench.costs} == {"eszsl", "class-gaussian", "tfvaegan"}


def test_published_results_stand_beside_ours_of_the_same_method(
    folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def result(method: str) -> LiteratureRow:
        return LiteratureRow(method, "BIRDS", "ResNet", "attributes", "best epoch on test", "a paper", None, 0.5, 0.4, "")

    theirs = [result("TF-VAEGAN"), result("ESZSL, run by others")]
    monkeypatch.setattr(bench_assemble, "beside", lambda row: theirs if row["split"] == "one" else [])
    monkeypatch.setattr(bench_assemble, "why_none", lambda row: f"nothing is known of split {row['split']}")
    for method in ("eszsl", "tfvaegan", "class-gaussian"):
        folder(method)
    folder("tfvaegan", variant="more")
    folder("tfvaegan", protocol="paper")
    folder("eszsl", protocol="fixed")
    place = folder("eszsl", "two", protocol="fixed")  # its average is not of split one alone
    bench = contents_of(place.parents[1], "")
    [group] = bench.published
    named = [(r.method, [(bench.lines[k].method, bench.lines[k].protocol) for k in ours]) for r, ours in group.results]
    assert named == [
        ("TF-VAEGAN", [("tfvaegan", "blind"), ("tfvaegan", "paper")]),
        ("ESZSL, run by others", [("eszsl", "blind")]),
    ]
    assert [bench.lines[k].method for k in group.others] == ["class-gaussian"]
    assert bench.notes == ("Nothing is known of split two.",)


def test_overlapping_splits_are_warned_of(folder: Callable[..., Path]) -> None:
    place = folder("eszsl", "one", held_out=np.array([9, 10, 11]))
    folder("eszsl", "two", held_out=np.array([0, 1, 2]))
    assert contents_of(place.parents[1], "").warnings == ()
    folder("eszsl", "three", held_out=np.array([2, 3, 4]))
    [warning] = contents_of(place.parents[1], "").warnings
    assert warning == (
        "2 splits of birds share unseen classes (8 different ones in 9 places), so they are not independent and intervals over "
        "splits are too narrow."
    )


def test_looks_count_oracles_too(bench: Bench) -> None:
    assert [(look.dataset, look.split, look.to_report, look.to_choose) for look in bench.looks] == [
        (dataset, split, 10, 0) for dataset in ("birds", "fish") for split in ("one", "two")
    ]
    assert {look.to_diagnose for look in bench.looks} == {3 * 6 + 1}


# --- figures


def test_one_run_of_each_full_method_is_shown(bench: Bench) -> None:
    assert [(view.dataset, view.split) for view in bench.views] == [
        (dataset, split) for dataset in ("birds", "fish") for split in ("one", "two")
    ]
    for view in bench.views:
        assert [one.method for one in view.shown] == ["class-gaussian", "eszsl", "tfvaegan"]
        assert [one.number for one in view.shown] == [0, 1, 2]
        for one in view.shown:
            row = bench.runs[one.run].row
            assert (row["method"], row["variant"], row["dataset"], row["split"], row["seed"]) == (
                one.method, "", view.dataset, view.split, 0,
            )  # fmt: skip


def test_figures_are_those_of_the_task(bench: Bench, whole: Path) -> None:
    one = shown_of(bench, "tfvaegan")
    run = bench.runs[one.run]
    stored = json.loads((whole / "tasks" / run.id / "figures.json").read_text())
    assert one.curve is not None
    assert one.confusion is not None
    assert one.projection is not None
    assert (one.curve.ausuc, one.curve.point) == (run.row["AUSUC"], (run.row["S"], run.row["U"]))
    assert one.curve.seen.tolist() == stored["curve"]["seen"]
    assert one.curve.unseen.tolist() == stored["curve"]["unseen"]
    cells = [[int(t), int(a), int(one.confusion.counts[t, a])] for t, a in np.argwhere(one.confusion.counts)]
    assert cells == sorted(stored["confusion"]["cells"])
    assert list(one.confusion.names) == stored["confusion"]["names"]
    assert list(one.confusion.nearest_seen) == stored["confusion"]["nearest_seen"]
    assert [list(entry) for entry in one.per_class] == stored["per_class"]
    assert [{"per_class": n, **figures} for n, figures in one.synthetic_counts] == stored["synthetic_counts"]
    assert one.projection.xy.tolist() == stored["projection"]["xy"]
    assert one.projection.labels.tolist() == stored["projection"]["labels"]


def test_a_closed_form_has_neither_history_nor_plane(bench: Bench) -> None:
    one = shown_of(bench, "eszsl")
    assert (one.history, one.projection, one.synthetic_counts) == (None, None, ())
    assert one.curve is not None


def test_under_several_protocols_a_method_is_called_with_its_protocol(folder: Callable[..., Path]) -> None:
    folder("eszsl")
    folder("tfvaegan")
    place = folder("tfvaegan", protocol="paper")
    bench = contents_of(place.parents[1], "")
    assert [one.method for one in bench.views[0].shown] == ["eszsl", "tfvaegan, blind", "tfvaegan, paper"]


def test_the_first_seed_that_has_figures_is_shown(folder: Callable[..., Path]) -> None:
    first, second, third = (folder("eszsl", seed=seed) for seed in range(3))
    (first / "figures.json").unlink()
    (second / "figures.json").write_text('{"curve": ')
    bench = contents_of(first.parents[1], "")
    assert bench.runs[shown_of(bench, "eszsl").run].id == third.name
    [note] = bench.notes
    assert str(second / "figures.json") in note


@pytest.mark.parametrize(
    "damage",
    [
        {"curve": {"seen": [1, 0], "unseen": [0]}},
        {"curve": {"seen": ["<b>", 0], "unseen": [0, 1]}},
        {"curve": [1]},
        {"confusion": {"names": ["a"], "cells": [[0, 5, 1]], "nearest_seen": [""]}},
        {"confusion": {"names": ["a"], "cells": [[-1, 0, 1]], "nearest_seen": [""]}},
        {"confusion": {"names": ["a", 3], "cells": [], "nearest_seen": ["", ""]}},
        {"confusion": {"names": ["a", "b"], "cells": [], "nearest_seen": [""]}},
        {"projection": {"xy": [[0, 1]], "labels": [1], "synthetic": [False], "names": ["a"]}},
        {"projection": {"xy": [[0, 1], [2]], "labels": [0, 0], "synthetic": [False, True], "names": ["a"]}},
        {"projection": {"xy": [[0, 1e400]], "labels": [0], "synthetic": [False], "names": ["a"]}},
        {"per_class": [["a", True, "many", 0.5]]},
        {"per_class": [[["a"], True, 1, 0.5]]},
        {"per_class": 5},
        {"synthetic_counts": [{"per_class": 10}]},
        {"synthetic_counts": [{"per_class": 10**400, "T1": 1, "U": 1, "S": 1, "H": "x"}]},
    ],
)
def test_damaged_figures_are_left_out_and_told(damage: dict[str, Any], folder: Callable[..., Path]) -> None:
    place = folder("tfvaegan")
    stored = json.loads((place / "figures.json").read_text())
    (place / "figures.json").write_text(json.dumps({**stored, **damage}).replace("Infinity", "1e400"))
    bench = contents_of(place.parents[1], "")
    assert bench.views == ()
    [note] = bench.notes
    assert note.startswith(f"{place / 'figures.json'} is damaged")
    assert "No task" not in bench.verdict, "its numbers are shown all the same"


def test_long_curves_and_planes_are_thinned_to_what_a_screen_shows(folder: Callable[..., Path]) -> None:
    place = folder("tfvaegan")
    stored = json.loads((place / "figures.json").read_text())
    stored["curve"] = {"seen": np.linspace(1, 0, 5000).tolist(), "unseen": np.linspace(0, 1, 5000).tolist()}
    stored["projection"] = {
        "xy": np.random.default_rng(0).normal(size=(2400, 2)).tolist(),
        "labels": np.tile(np.repeat(np.arange(3), 400), 2).tolist(),
        "synthetic": (np.arange(2400) >= 1200).tolist(),
        "names": ["a", "b", "c"],
    }
    write(place / "figures.json", stored)
    one = shown_of(contents_of(place.parents[1], ""), "tfvaegan")
    assert one.curve is not None
    assert one.projection is not None
    assert len(one.curve.seen) == 201
    assert (one.curve.seen[0], one.curve.seen[-1], one.curve.unseen[-1]) == (1, 0, 1)
    assert len(one.projection.xy) == 600
    assert one.projection.synthetic.sum() == 300
    assert np.bincount(one.projection.labels).tolist() == [200, 200, 200]
    places = {tuple(xy): label for xy, label in zip(stored["projection"]["xy"], stored["projection"]["labels"], strict=True)}
    assert [places[tuple(xy)] for xy in one.projection.xy.tolist()] == one.projection.labels.tolist()


def line(phase: str, step: int, **losses: float) -> str:
    return json.dumps({"phase": phase, "step": step, "losses": losses}) + "\n"


FOLDS = line("choosing settings: l2 features, fold 1 of 3", 5, G=9.0) + line(
    "choosing settings: l2 features, fold 2 of 3", 9, G=8.0
)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("".join(line("training on all seen rows", k, G=1 / k) for k in (1, 2, 3)), [1, 2, 3]),
        (FOLDS + line("training on all seen rows", 20, G=1.0) + line("training on all seen rows", 40, G=0.5), [20, 40]),
        ("".join(line(f"scoring the test rows after step {k}", k, G=1.0) for k in (3, 6, 9)), [3, 6, 9]),
        (line("preparing", 1, R=1.0) + line("preparing", 7, R=0.5) + line("training", 2, G=1.0), [2]),
        (line("training", 1, G=1.0) + '{"phase": "training", "st', [1]),
        (line("training", 1, G=1.0) + "[1]\n{}\n" + line("training", 2, G=float("nan")), [1, 2]),
        (FOLDS, None),
        ("", None),
        (line("training", 1), None),
    ],
)
def test_the_history_is_that_of_the_final_training(text: str, steps: list[int] | None, folder: Callable[..., Path]) -> None:
    place = folder("tfvaegan")
    (place / "history.jsonl").write_text(text)
    history = shown_of(contents_of(place.parents[1], ""), "tfvaegan").history
    assert (None if history is None else history.steps.tolist()) == steps


def test_a_long_history_is_thinned_and_gaps_stay_gaps(folder: Callable[..., Path]) -> None:
    place = folder("tfvaegan")
    lines = [line("training", k, G=k / 7, **({"D": -k} if k > 500 else {})) for k in range(1, 1001)]
    (place / "history.jsonl").write_text("".join(lines))
    history = shown_of(contents_of(place.parents[1], ""), "tfvaegan").history
    assert history is not None
    assert len(history.steps) == 200
    assert (history.steps[0], history.steps[-1]) == (1, 1000)
    np.testing.assert_allclose(history.losses["G"], history.steps / 7)
    np.testing.assert_array_equal(np.isnan(history.losses["D"]), history.steps <= 500)


# --- what is not there


def test_what_is_left_out_is_in_no_part_of_the_page(folder: Callable[..., Path], tmp_path: Path) -> None:
    """Neither in means nor among the looks, the warnings, the figures or what failed."""
    for split, held_out in (("small", [0, 1, 2]), ("large", [2, 3, 4])):
        place = folder("eszsl", split, held_out=np.array(held_out))
        folder("tfvaegan", split, held_out=np.array(held_out))
    out = place.parents[1]
    write_failure(out, "dfca", "birds", "large", 3, "the loss is not finite")
    everything, small = contents_of(out, ""), contents_of(out, "", among=lambda row: row["split"] == "small")
    assert [len(bench.runs) for bench in (everything, small)] == [6, 3], "oracles of tfvaegan among them"
    assert {run.row["split"] for run in small.runs} == {"small"}
    assert small.lines[0].summary.figures["H"] != everything.lines[0].summary.figures["H"]
    assert [len(bench.looks) for bench in (everything, small)] == [2, 1]
    assert [len(bench.views) for bench in (everything, small)] == [2, 1]
    assert (len(everything.failures), small.failures) == (1, ())
    assert "share unseen classes" in everything.warnings[0]
    assert not any("share unseen classes" in warning for warning in small.warnings)
    path = write_bench_report(out, "", tmp_path / "small.html", among=lambda row: row["split"] == "small")
    assert "the loss is not finite" not in path.read_text()


def test_a_bench_that_still_chooses_has_a_page(tmp_path: Path) -> None:
    write(tmp_path / "bench.json", {"format": "unseen-bench", "version": 1, "commands": ["unseen bench"]})
    bench = contents_of(tmp_path, "unseen report bench")
    assert (bench.runs, bench.unfinished, bench.verdict) == ((), 0, "No task has finished yet.")
    assert "No task has finished yet." in write_bench_report(tmp_path, "unseen report bench").read_text()


def test_failures_and_unfinished_tasks_are_told(folder: Callable[..., Path]) -> None:
    place = folder("eszsl")
    out = place.parents[1]
    write_failure(out, "dfca", "birds", "one", 3, "the loss is not finite")
    retried = write_failure(out, "dfca", "birds", "one", 4, "an earlier try")
    shutil.copy(place / "result.json", retried / "result.json")
    row = read_json(retried / "result.json")
    write(retried / "result.json", {**row, "task": retried.name, "method": "dfca", "seed": 4})
    (out / "tasks" / "begun").mkdir()
    bench = contents_of(out, "")
    [failure] = bench.failures
    assert (failure.method, failure.dataset, failure.split, failure.seed, failure.protocol, failure.sentence) == (
        "dfca", "birds", "one", "3", "blind", "the loss is not finite",
    )  # fmt: skip
    assert bench.unfinished == 1


def test_a_bench_without_results_says_so(tmp_path: Path) -> None:
    make_bench(tmp_path, datasets={})
    write_failure(tmp_path, "dfca", "birds", "one", 0, "the disk is full")
    path = write_bench_report(tmp_path, "unseen report bench")
    assert path == tmp_path / "report.html"
    html = path.read_text()
    assert "No task has finished yet." in html
    assert "the disk is full" in html


def test_a_folder_that_is_no_bench_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a benchmark"):
        write_bench_report(tmp_path, "")


def test_a_task_without_its_description_is_shown_and_told(folder: Callable[..., Path]) -> None:
    place = folder("eszsl")
    (place / "task.json").unlink()
    bench = contents_of(place.parents[1], "")
    assert (bench.runs[0].source, bench.runs[0].command) == ("", "")
    assert any(f"{place / 'task.json'} does not exist" in note for note in bench.notes)
    assert any("Whether splits overlap is not known" in note for note in bench.notes)


def test_writing_a_page_loads_neither_torch_nor_scikit_learn(whole: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from unseen.report.bench_assemble import write_bench_report;"
        "write_bench_report(Path(sys.argv[1]), '', Path(sys.argv[2]));"
        "print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    )
    arguments = [sys.executable, "-c", program, str(whole), str(tmp_path / "page.html")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert done.stdout.strip() == "[]"
    assert (tmp_path / "page.html").exists()
