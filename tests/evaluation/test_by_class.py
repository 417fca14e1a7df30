"""Figures class by class: what is counted, under which name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from unseen.data import Dataset
from unseen.evaluation.by_class import confusion, per_class
from unseen.evaluation.metrics import Decisions
from unseen.evaluation.protocol import Outcome, Task, run


def test_confusion_counts_rows_and_names_the_seen_class_taken_most() -> None:
    seen, unseen = np.array([0, 2, 3]), np.array([1, 4])
    decisions = Decisions(
        best_seen=np.array([0, 2, 2, 3, 0, 0]),
        best_unseen=np.array([1, 1, 4, 1, 4, 4]),
        margin=np.array([-1.0, 1.0, 2.0, 0.4, 0.5, 0.2]),
    )
    labels = np.array([1, 1, 1, 1, 4, 4])
    counts, nearest = confusion(decisions.predict(0.45), labels, seen, unseen)
    # class 1: one row right, two taken for 2, and the last one kept by γ; class 4: one for 0, one right
    np.testing.assert_array_equal(counts, [[2, 0, 2], [0, 1, 1]])
    assert nearest == [2, 0]
    counts, nearest = confusion(decisions.predict(1.5), labels, seen, unseen)
    np.testing.assert_array_equal(counts, [[3, 0, 1], [0, 2, 0]])
    assert nearest == [2, None]


@pytest.fixture(scope="module")
def outcomes(tiny_world: Callable[..., Dataset], tiny_task: Callable[..., Task]) -> list[Outcome]:
    world = tiny_world(seen=8, unseen=3, noise=1.0)
    return [run(tiny_task(world, method=method, gamma=0.2)) for method in ("class-gaussian", "eszsl")]


def test_per_class_gives_every_outcome_its_own_accuracies(outcomes: list[Outcome]) -> None:
    table = per_class(outcomes)
    assert [unseen for _, unseen, _, _ in table] == [True] * 3 + [False] * 8
    alone = [per_class([outcome]) for outcome in outcomes]
    for together, *single in zip(table, *alone, strict=True):
        assert together[3] == single[0][3] | single[1][3]
        assert together[:3] == single[0][:3] == single[1][:3]
    for outcome in outcomes:
        for kind, figure in ((True, "U"), (False, "S")):
            accuracies = [a[outcome.row["method"]] for _, unseen, _, a in table if unseen is kind]
            assert np.mean(accuracies) == pytest.approx(outcome.row[figure])
