"""What the figures average over: accuracy class by class, and what unseen classes are taken for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import Ids
from unseen.evaluation.protocol import Outcome


def per_class(outcomes: Sequence[Outcome]) -> tuple[tuple[str, bool, int, dict[str, float]], ...]:
    """(class, whether it is unseen, test rows, method → accuracy with its γ) for every class with a test row, unseen first.

    Args:
        outcomes: of different methods on the same split.
    """
    test, names = outcomes[-1].test, outcomes[-1].view.names
    out = []
    for unseen, labels in ((True, test.unseen_labels), (False, test.seen_labels)):
        right = {o.row["method"]: o.decisions[int(unseen)].predict(o.gamma) == labels for o in outcomes}
        for class_id in np.unique(labels):
            of_class = labels == class_id
            accuracies = {method: float(r[of_class].mean()) for method, r in right.items()}
            out.append((names[class_id], unseen, int(of_class.sum()), accuracies))
    return tuple(out)


def confusion(predicted: Ids, labels: Ids, seen: Ids, unseen: Ids) -> tuple[NDArray[np.int64], list[int | None]]:
    """What rows of unseen classes are taken for when all classes are possible.

    Args:
        predicted, labels: (n,) class ids; the labels are all unseen.
        seen, unseen: sorted class ids.

    Returns:
        (U, U + 1) counts: true class by predicted unseen class, the last column for all seen classes together. And for each
        unseen class the seen class that its rows are most often taken for, None where they never are.
    """
    taken_for_seen = np.isin(predicted, seen)
    column = np.where(taken_for_seen, len(unseen), np.searchsorted(unseen, predicted))
    counts = np.zeros((len(unseen), len(unseen) + 1), np.int64)
    np.add.at(counts, (np.searchsorted(unseen, labels), column), 1)
    wrong = [predicted[taken_for_seen & (labels == class_id)] for class_id in unseen]
    return counts, [int(np.bincount(taken).argmax()) if len(taken) else None for taken in wrong]
