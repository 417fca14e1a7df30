"""Many rows together: every number against one computed by hand or another way, and nothing compared that must not be."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unseen.errors import DataError, SettingsError
from unseen.evaluation.statistics import interval_over_splits
from unseen.experiments.aggregate import (
    Estimate,
    average_ranks,
    is_oracle,
    label,
    ledger,
    overlapping_splits,
    paired,
    paired_table,
    refuse_repeated,
    summaries,
    unseen_names,
)
from unseen.experiments.diagnoses import consistencies, diagnoses

Row = dict[str, Any]
MakeRow = Callable[..., Row]
FULL = ("tfvaegan", "")
LINEAR = ("eszsl", "")


# --- summaries


def test_estimate_by_hand() -> None:
    found = Estimate.of({"a": [0.1, 0.3], "b": [0.5, 0.5], "c": [0.9]})
    assert found.mean == pytest.approx((0.2 + 0.5 + 0.9) / 3)
    assert found.between_seeds == pytest.approx(((0.1**2 + 0.1**2 + 0 + 0) / 2) ** 0.5)  # a has one spare seed, b one, c none
    assert found.between_splits == pytest.approx(statistics.stdev([0.2, 0.5, 0.9]))
    assert found.interval == interval_over_splits({"a": [0.1, 0.3], "b": [0.5, 0.5], "c": [0.9]})[1:]
    assert found.over == "splits and seeds"


def test_estimate_says_what_its_interval_is_over() -> None:
    one_split = Estimate.of({"a": [0.1, 0.2, 0.6]})
    assert one_split.over == "seeds"
    assert one_split.between_splits is None
    assert one_split.between_seeds == pytest.approx(statistics.stdev([0.1, 0.2, 0.6]))
    assert one_split.interval is not None
    assert 0.1 <= one_split.interval[0] < 0.3 < one_split.interval[1] <= 0.6
    one_seed = Estimate.of({"a": [0.1], "b": [0.5]})
    assert (one_seed.over, one_seed.between_seeds) == ("splits", None)
    assert Estimate.of({"a": [0.25]}) == Estimate(0.25, None, None, None, "")
    assert Estimate.of({"a": [0.25] * 3}) == Estimate(0.25, 0.0, None, None, "")  # a closed form's seeds are no evidence


def test_a_split_counts_the_same_however_many_seeds_it_has(row: MakeRow) -> None:
    rows = [row(split="a", seed=s, H=0.2) for s in range(9)] + [row(split="b", H=0.8)]
    (found,) = summaries(rows)
    assert found.figures["H"] is not None
    assert found.figures["H"].mean == pytest.approx(0.5)
    assert (found.splits, found.seeds, found.tasks) == (("a", "b"), 9, 10)


def test_summaries_of_real_rows_are_plain_means(real_rows: list[Row]) -> None:
    found = summaries(real_rows)
    assert {s.method[0] for s in found} >= {"eszsl", "class-gaussian", "tfvaegan", "oracle (tfvaegan)"}
    for s in found:
        own = [row for row in real_rows if (row["method"], row["variant"], row["protocol"]) == (*s.method, s.protocol)]
        assert s.tasks == len(own)
        for figure, estimate in s.figures.items():
            if estimate is not None:
                by_split = [[row[figure] for row in own if row["split"] == split] for split in s.splits]
                assert estimate.mean == pytest.approx(np.mean([np.mean(values) for values in by_split]))
        assert s.oracle == s.method[0].startswith("oracle")
        assert s.peak_memory == np.median([row["peak_memory"] for row in own])


def test_groups_are_kept_apart(row: MakeRow) -> None:
    rows = [
        row(),
        row(variant="no feedback"),
        row(protocol="paper", test_used_for_selection=True),
        row(features_hash="others"),
        row(embeddings_hash="others"),
        row(dataset="cars"),
        row("eszsl"),
    ]
    found = summaries(random.Random(0).sample(rows, len(rows)))
    assert len(found) == len(rows)
    assert [s.data[0] for s in found] == ["birds"] * 6 + ["cars"]
    assert [s.test_used_for_selection for s in found] == [s.protocol == "paper" for s in found]


def test_seconds_and_memory_are_medians(row: MakeRow) -> None:
    rows = [row(seed=k, seconds=s, peak_memory=m) for k, (s, m) in enumerate([(1.0, 10), (2.0, 30), (90.0, 20)])]
    (found,) = summaries(rows)
    assert (found.seconds, found.peak_memory) == (2.0, 20.0)
    (partly,) = summaries([*rows, row(seed=9, peak_memory=None)])
    assert partly.peak_memory is None


def test_a_figure_that_a_task_lacks_is_none_at_all(row: MakeRow) -> None:
    (found,) = summaries([row(seed=0), row(seed=1, AUSUC=None)])
    assert found.figures["AUSUC"] is None
    assert found.figures["H"] is not None


def test_two_results_of_one_task_are_refused_wherever_they_would_be_pooled(row: MakeRow) -> None:
    rows = [row(task="aa"), row(task="bb", versions={"torch": "2.12"}), row("eszsl")]
    for what in (summaries, average_ranks, refuse_repeated, lambda r: paired(r, FULL, LINEAR)):
        with pytest.raises(
            DataError, match=r"tasks aa and bb are both of tfvaegan on birds, split main, seed 0, protocol blind"
        ):
            what(rows)
    refuse_repeated([row(), row(protocol="fixed"), row(variant="x"), row(seed=1)])


def test_a_large_benchmark_is_summarised_in_no_time(row: MakeRow) -> None:
    rows = [
        row(f"method {m}", f"split {s}", seed, random.Random(m).random(), dataset=f"data {d}", task=f"{d}-{m}-{s}-{seed}")
        for d in range(6)
        for m in range(10)
        for s in range(5)
        for seed in range(5)
    ]
    begun = time.process_time()
    assert len(summaries(rows)) == 60
    assert time.process_time() - begun < 1.5


# --- overlap


def test_overlap_is_counted_and_said() -> None:
    unseen = {
        ("birds", "a"): frozenset({"owl", "emu", "kea"}),
        ("birds", "b"): frozenset({"kea", "tit"}),
        ("birds", "c"): frozenset({"jay"}),
        ("cars", "a"): frozenset({"owl", "emu", "kea"}),  # another data set's owl is another class
        ("cars", "b"): frozenset({"van"}),
    }
    (found,) = overlapping_splits(unseen)
    assert (found.dataset, found.splits, found.places, found.different) == ("birds", ("a", "b"), 6, 5)
    assert str(found) == (
        "2 splits of birds share unseen classes (5 different ones in 6 places), so they are not independent and intervals over "
        "splits are too narrow"
    )
    assert overlapping_splits({}) == []


def test_unseen_names_are_read_from_the_tasks(row: MakeRow, bench: Callable[..., Path]) -> None:
    folder = bench([row(split=s, seed=k) for s in "ab" for k in (0, 1)], {"a": ["owl", "emu"], "b": ["emu"]})
    assert unseen_names(folder) == {("birds", "a"): {"owl", "emu"}, ("birds", "b"): {"emu"}}


def test_splits_of_one_name_in_data_of_one_name_are_told_apart(row: MakeRow, bench: Callable[..., Path]) -> None:
    folder = bench([row(task="a"), row(task="b", split_hash="f" * 64, features_hash="others")], {"main": ["owl"]})
    (folder / "tasks" / "b" / "task.json").write_text(json.dumps({"unseen": ["tit"]}))
    assert sorted(map(sorted, unseen_names(folder).values())) == [["owl"], ["tit"]]
    (folder / "tasks" / "b" / "task.json").write_text(json.dumps({"unseen": "tit"}))
    with pytest.raises(DataError, match=r"b/task\.json is damaged \(it does not list the unseen classes\)"):
        unseen_names(folder)


# --- paired


def test_pairs_by_hand(row: MakeRow) -> None:
    rows = [
        row("tfvaegan", "a", 0, 0.5), row("eszsl", "a", 0, 0.4),
        row("tfvaegan", "a", 1, 0.6), row("eszsl", "a", 1, 0.6),
        row("tfvaegan", "b", 0, 0.3), row("eszsl", "b", 0, 0.4),
        row("tfvaegan", "b", 1, 0.9), row("eszsl", "b", 7, 0.1), row("eszsl", "c", 0, 0.1),
    ]  # fmt: skip
    (found,) = paired(rows, FULL, LINEAR)
    assert found.difference is not None
    assert found.difference.mean == pytest.approx((0.05 - 0.1) / 2)
    assert found.difference.interval == pytest.approx(interval_over_splits({"a": [0.1, 0.0], "b": [-0.1]})[1:])
    assert (found.pairs, found.better, found.alone) == (3, 1, (1, 2))
    (mirrored,) = paired(rows, LINEAR, FULL)
    assert mirrored.difference is not None
    assert mirrored.difference.mean == pytest.approx(-found.difference.mean)
    assert mirrored.alone == (2, 1)


@pytest.mark.parametrize(
    "field", ["protocol", "split_hash", "features_hash", "embeddings_hash", "labels_hash", "seed", "dataset"]
)
def test_tasks_that_differ_in_anything_are_no_pair(field: str, row: MakeRow) -> None:
    other = row("eszsl", H=0.1) | {field: 5 if field == "seed" else "another"}
    found = paired([row("tfvaegan"), other], FULL, LINEAR)
    assert [p.pairs for p in found] == [0] * len(found)
    assert sum(p.alone[0] for p in found) == 1
    assert sum(p.alone[1] for p in found) == 1
    assert all(p.difference is None for p in found)


def test_protocols_and_data_sets_are_compared_apart(row: MakeRow) -> None:
    """paper beats blind by being chosen on the test rows; pooled, the difference would be one of protocols."""
    rows = [row(m, H=h, protocol=p) for p, m, h in [("blind", "tfvaegan", 0.4), ("blind", "eszsl", 0.5)]]
    rows += [row("tfvaegan", H=0.9, protocol="paper", test_used_for_selection=True)]
    rows += [row("tfvaegan", H=0.8, dataset="cars"), row("eszsl", H=0.2, dataset="cars")]
    found = {(p.data[0], p.protocol): p for p in paired(rows, FULL, LINEAR)}
    means = {key: p.difference and round(p.difference.mean, 9) for key, p in found.items()}
    assert means == {("birds", "blind"): -0.1, ("birds", "paper"): None, ("cars", "blind"): 0.6}
    assert found["birds", "paper"].alone == (1, 0)


def test_against_a_baseline(row: MakeRow) -> None:
    rows = [row("tfvaegan", H=0.5), row("tfvaegan", H=0.3, variant="no feedback"), row("eszsl", H=0.2)]
    rows += [row("oracle (tfvaegan)", H=0.9, test_used_for_training=True), row("eszsl", dataset="cars")]
    rows += [row("tfvaegan", dataset="ships")]  # the baseline alone is no comparison
    found = paired_table(rows, FULL)
    assert [(p.first, p.data[0], p.pairs) for p in found] == [
        (("eszsl", ""), "birds", 1),
        (("tfvaegan", "no feedback"), "birds", 1),
        (("eszsl", ""), "cars", 0),
    ]
    assert [p.difference and round(p.difference.mean, 9) for p in found] == [-0.3, -0.2, None]
    with pytest.raises(
        SettingsError, match=r"no result of prototype to compare with; there are eszsl, tfvaegan, tfvaegan, no fee"
    ):
        paired_table(rows, ("prototype", ""))


def test_transductive_results_are_compared_with_their_like_alone(row: MakeRow) -> None:
    """Whichever of them is the baseline, and whatever the method is called."""
    rows = [row("class-gaussian", H=0.4), row("eszsl", H=0.2)]
    rows += [row(name, H=0.9, transductive=True) for name in ("tfvaegan-transductive", "stranger")]
    assert [p.first for p in paired_table(rows, ("class-gaussian", ""))] == [("eszsl", "")]
    assert [p.first for p in paired_table(rows, ("stranger", ""))] == [("tfvaegan-transductive", "")]


def test_another_figure_and_tasks_without_it(row: MakeRow) -> None:
    rows = [row("tfvaegan", T1=0.9), row("eszsl", T1=0.6), row("tfvaegan", seed=1), row("eszsl", seed=1, T1=None)]
    (found,) = paired(rows, FULL, LINEAR, "T1")
    assert found.difference is not None
    assert found.difference.mean == pytest.approx(0.3)
    assert (found.pairs, found.alone) == (1, (1, 0))


# --- ranks


def test_ranks_by_hand(row: MakeRow) -> None:
    figures = {
        ("a", 0): {"x": 0.5, "y": 0.4, "z": 0.3},  # 1, 2, 3
        ("a", 1): {"x": 0.2, "y": 0.2, "z": 0.3},  # 2.5, 2.5, 1
        ("b", 0): {"x": 0.9, "y": 0.9, "z": 0.9},  # 2, 2, 2
        ("b", 1): {"x": 0.9, "y": 0.8},  # z is missing, so nobody is ranked here
    }
    rows = [row(m, split, seed, H) for (split, seed), of in figures.items() for m, H in of.items()]
    (found,) = average_ranks(random.Random(3).sample(rows, len(rows)))
    assert (found.tasks, found.left_out) == (3, 1)
    assert dict(found.average) == pytest.approx({("z", ""): 2.0, ("x", ""): 5.5 / 3, ("y", ""): 6.5 / 3})
    assert [method for method, _ in found.average] == [("x", ""), ("z", ""), ("y", "")]


def test_what_test_rows_chose_is_ranked_among_itself_and_oracles_are_not(row: MakeRow) -> None:
    rows = [row("x", H=0.4), row("y", H=0.5), row("oracle (x)", H=0.9, test_used_for_training=True)]
    rows += [row(m, H=h, protocol="paper", test_used_for_selection=True) for m, h in (("x", 0.95), ("y", 0.8))]
    blind, paper = average_ranks(rows)
    assert (blind.protocol, dict(blind.average)) == ("blind", {("y", ""): 1.0, ("x", ""): 2.0})
    assert (paper.protocol, dict(paper.average)) == ("paper", {("x", ""): 1.0, ("y", ""): 2.0})


def test_without_a_common_task_there_is_no_rank(row: MakeRow) -> None:
    (found,) = average_ranks([row("x", "a"), row("y", "b")])
    assert (found.average, found.tasks, found.left_out) == ((), 0, 2)
    assert average_ranks([]) == []


# --- ledger


def test_looks_at_the_test_rows_are_all_counted(row: MakeRow) -> None:
    rows = [
        row("x", "a", 0),
        row("x", "a", 1, diagnostic_evaluations=5),
        row("x", "a", 0, protocol="paper", test_used_for_selection=True, test_evaluations=250),
        row("oracle (x)", "a", 0, test_used_for_training=True, diagnostic_evaluations=5),
        row("y", "a", 0, variant="no feedback"),
        row("y", "b", 0),
        row("y", "b", 0, features_hash="others"),  # the same pictures
    ]
    a, b = ledger(rows)
    assert (a.split, a.to_report, a.to_choose, a.to_diagnose, a.total) == ("a", 4, 250, 6, 260)
    assert a.by_method == {("oracle (x)", ""): 1, ("x", ""): 258, ("y", "no feedback"): 1}
    assert (b.to_report, b.to_choose, b.to_diagnose, b.by_method) == (2, 0, 0, {("y", ""): 2})


def test_splits_of_one_name_and_other_rows_have_their_own_count(row: MakeRow) -> None:
    assert [looks.total for looks in ledger([row(), row(split_hash="another")])] == [1, 1]


def test_labels() -> None:
    assert label(("tfvaegan", "")) == "tfvaegan"
    assert label(("tfvaegan", "no feedback")) == "tfvaegan, no feedback"


# ---------------------------------------------------------------------------------------------------------- diagnoses


def test_diagnoses_are_means_over_tasks(row: MakeRow) -> None:
    rows = [
        row("dfca", seed=seed, U=0.2, S=S, leak_unseen_to_seen=leak, diagnosis={"nearest_own": own, "order_kept": kept})
        for seed, S, leak, own, kept in ((0, 0.5, 0.4, 0.25, 0.5), (1, 0.1, 0.2, 0.75, None))
    ]
    full, linear = diagnoses([*rows, row("eszsl", diagnosis=None, leak_unseen_to_seen=0.1)])
    assert (full.leak_unseen_to_seen, full.leak_seen_to_unseen) == (pytest.approx(0.3), 0.125)
    assert full.gap == pytest.approx(0.2), "the distance is taken in each task"
    assert full.leak_gap == pytest.approx((0.275 + 0.075) / 2), "and so is that of the leaks"
    assert (full.tasks, linear.tasks) == (2, 1)
    assert full.figures == {"nearest_own": 0.5}, "what one task lacks has no mean"
    assert linear.method == ("eszsl", "")
    assert linear.leak_gap == pytest.approx(0.025), "a distance has no sign"
    assert linear.figures == {}
    alone = [row("bsegn", seed=seed, module_alone={"H": 0.5, "margin_gap": gap}) for seed, gap in ((0, 1.5), (1, 0.5))]
    assert [d.figures for d in diagnoses(alone)] == [{"margin_gap": pytest.approx(1.0)}]


def test_lines_of_an_ablation_say_over_how_many_runs_they_are(row: MakeRow) -> None:
    """A variant may have fewer splits than the whole method, and a diagnosis fewer runs than there are."""
    measured = {"attribute_cosine": {"x": 0.5}, "halves_told_apart": None}
    rows = [row("sddn", seed=seed, consistency=measured if seed else None) for seed in range(3)]
    rows.append(row("sddn", variant="B0", consistency=measured))
    assert [(d.method, d.tasks) for d in diagnoses(rows)] == [(("sddn", ""), 3), (("sddn", "B0"), 1)]
    assert [(c.method, c.tasks) for c in consistencies(rows)] == [(("sddn", ""), 2), (("sddn", "B0"), 1)]


def test_rows_from_before_there_were_diagnoses_have_none(real_rows: list[Row]) -> None:
    assert all(d.figures == {} or "nearest_own" in d.figures for d in diagnoses(r for r in real_rows if not is_oracle(r)))
