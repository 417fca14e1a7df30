"""Leaks, gaps and margins against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unseen.evaluation.balance import domain_balance, margin_balance
from unseen.evaluation.metrics import Decisions

UNSEEN = np.array([1, 4])
SEEN = np.array([0, 2, 3])


def test_leaks_are_means_of_classes_and_their_gap_the_distance() -> None:
    """Class 0 has four rows, class 2 one: each counts half."""
    found = domain_balance(
        seen_labels=np.array([0, 0, 0, 0, 2]),
        seen_predicted=np.array([0, 1, 3, 4, 2]),  # of class 0 two rows leak, one is another seen class; class 2 is right
        unseen_labels=np.array([1, 4, 4]),
        unseen_predicted=np.array([4, 0, 4]),  # class 1 is taken for another unseen class; of class 4 one row leaks
        unseen=UNSEEN,
    )
    assert found == pytest.approx(
        {
            "leak_seen_to_unseen": (2 / 4 + 0 / 1) / 2,
            "leak_unseen_to_seen": (0 / 1 + 1 / 2) / 2,
            "leak_gap": 0.0,
            "imbalance": (1 / 4 + 1) / 2 - (0 + 1 / 2) / 2,
        }
    )


def test_the_gaps_are_distances_whichever_domain_is_preferred() -> None:
    rng = np.random.default_rng(3)
    seen_labels, unseen_labels = rng.choice(SEEN, 40), rng.choice(UNSEEN, 30)
    always_seen = np.full(40, 0), np.full(30, 0)
    always_unseen = np.full(40, 1), np.full(30, 1)
    for predicted, leaks in ((always_seen, (0.0, 1.0)), (always_unseen, (1.0, 0.0))):
        found = domain_balance(seen_labels, predicted[0], unseen_labels, predicted[1], UNSEEN)
        assert (found["leak_seen_to_unseen"], found["leak_unseen_to_seen"]) == pytest.approx(leaks)
        assert found["leak_gap"] == pytest.approx(1)
        assert found["imbalance"] == pytest.approx(1 / 3 if leaks[0] == 0 else 1 / 2)  # the one class that is always right


def test_margins_are_of_the_own_domain_over_the_other() -> None:
    scores_of_seen = np.array([[5.0, 1.0, 4.0, 0.0, 2.0], [0.0, 3.0, 1.0, 2.0, 0.0]])  # in 5, out 2; in 2, out 3
    scores_of_unseen = np.array([[0.0, 7.0, 1.0, 2.0, 3.0], [6.0, 1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 1.0, 0.0, 4.0]])
    seen, unseen = (Decisions.from_scores(s, SEEN, UNSEEN) for s in (scores_of_seen, scores_of_unseen))
    found = margin_balance(np.array([0, 3]), seen, np.array([1, 4, 4]), unseen)
    of_seen = ((5 - 2) + (2 - 3)) / 2
    of_unseen = ((7 - 2) + ((2 - 6) + (4 - 1)) / 2) / 2
    assert found == pytest.approx({"margin_seen": of_seen, "margin_unseen": of_unseen, "margin_gap": of_unseen - of_seen})
    mirrored = margin_balance(np.array([0, 3]), seen, np.array([0, 3]), replace_margin(seen, -seen.margin))
    assert mirrored["margin_gap"] == pytest.approx(0), "both domains prefer their own alike"


def replace_margin(decisions: Decisions, margin: np.ndarray) -> Decisions:
    return Decisions(decisions.best_seen, decisions.best_unseen, margin)


def test_a_domain_without_rows_has_no_balance() -> None:
    none = np.zeros(0, np.int64)
    found = domain_balance(none, none, np.array([1]), np.array([1]), UNSEEN)
    assert found["leak_unseen_to_seen"] == 0
    assert all(math.isnan(found[key]) for key in ("leak_seen_to_unseen", "leak_gap", "imbalance"))
