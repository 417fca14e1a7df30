"""How figures move with the number of synthetic rows: whether a generator's features help or are merely many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unseen.evaluation.metrics import harmonic_mean, per_class_accuracy
from unseen.evaluation.predictor import generative_predictor
from unseen.evaluation.protocol import Outcome
from unseen.final_classifier import classifier_rows
from unseen.methods.base import stream_seed

COUNTS = (10, 30, 100, 300, 1000)
"""Synthetic rows per unseen class; the run's own count is added, and what is far above it left out."""
FAR = 4


def figures_by_synthetic_count(outcome: Outcome) -> list[dict[str, Any]]:
    """T1, U, S and H on the test rows for other counts of synthetic rows, everything else as the run chose it.

    A diagnosis, not a choice: every point looks at the test rows once more, which the ledger counts. Rows are drawn anew for
    each count: of methods that add noise to a sample all of a class's rows differ, of others but for some all are those of the
    smaller count. Empty for a closed-form method, which synthesises
    nothing, and under `paper`, whose classifier was chosen by its epoch.
    """
    if outcome.trained is None or outcome.row["protocol"] == "paper":
        return []
    task, view, test = outcome.task, outcome.view, outcome.test
    own = task.recipe.rows_per_class(view.mean_seen_count)
    points = []
    for count in sorted({own, *(c for c in COUNTS if c <= FAR * own)}):
        rows = classifier_rows(outcome.trained, view, count, stream_seed(task.seed, "synthesis"), task.recipe.drawn)
        predictor = generative_predictor(
            outcome.predictor.scaler,
            view,
            outcome.trained.represent,
            rows,
            replace(task.recipe, synthetic=count),
            stream_seed(task.seed, "classifier"),
        )
        gamma = task.recipe.gamma * predictor.spread
        S = per_class_accuracy(test.seen_labels, predictor.decide(test.seen_features).predict(gamma))
        U = per_class_accuracy(test.unseen_labels, predictor.decide(test.unseen_features).predict(gamma))
        T1 = per_class_accuracy(test.unseen_labels, predictor.predict_unseen(test.unseen_features))
        points.append({"per_class": count, "T1": T1, "U": U, "S": S, "H": harmonic_mean(S, U)})
    return points
