"""A diagnosis: how evenly a system treats seen and unseen classes. It chooses nothing.

Leaks and their gap come from predictions, so any method has them. Margins come from scores, whose unit is the system's own:
they say something of a part that is trained to have them alike, as BSeGN's module is.
"""

from __future__ import annotations

import numpy as np

from unseen.data.dataset import Ids
from unseen.evaluation.metrics import Decisions, class_weights, per_class_accuracy


def domain_balance(
    seen_labels: Ids, seen_predicted: Ids, unseen_labels: Ids, unseen_predicted: Ids, unseen: Ids
) -> dict[str, float]:
    """Shares of rows that are taken for the other domain, and how far apart both domains are.

    Args:
        seen_labels, seen_predicted: (n,) class ids of rows of seen classes, and what they are taken for among all classes.
        unseen_labels, unseen_predicted: (m,) the same of unseen classes.
        unseen: ids of the unseen classes.

    Returns:
        As fractions, every class counting the same: `leak_seen_to_unseen`, `leak_unseen_to_seen`, `leak_gap`, the distance
        between these two, and `imbalance`, |S − U|. NaN where a domain has no row.
    """
    to_unseen = _mean(seen_labels, np.isin(seen_predicted, unseen))
    to_seen = _mean(unseen_labels, ~np.isin(unseen_predicted, unseen))
    S, U = per_class_accuracy(seen_labels, seen_predicted), per_class_accuracy(unseen_labels, unseen_predicted)
    return {
        "leak_seen_to_unseen": to_unseen,
        "leak_unseen_to_seen": to_seen,
        "leak_gap": abs(to_unseen - to_seen),
        "imbalance": abs(S - U),
    }


def margin_balance(seen_labels: Ids, seen: Decisions, unseen_labels: Ids, unseen: Decisions) -> dict[str, float]:
    """By how much rows prefer the best class of their own domain to the best one of the other, in units of the scores.

    Returns:
        Means in which every class counts the same: `margin_seen`, in − out of seen rows; `margin_unseen`, in − out of unseen
        rows; `margin_gap`, the distance between both. NaN where a domain has no row.
    """
    of_seen, of_unseen = _mean(seen_labels, seen.margin), _mean(unseen_labels, -unseen.margin)
    return {"margin_seen": of_seen, "margin_unseen": of_unseen, "margin_gap": abs(of_seen - of_unseen)}


def _mean(labels: Ids, values: np.ndarray[tuple[int, ...], np.dtype[np.bool_ | np.float64]]) -> float:
    return float(class_weights(labels) @ values) if len(labels) else float("nan")
