"""The oracle: the same final classifier, fitted on *real* unseen rows. It tells a weak generator from a weak classifier."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from unseen.data.dataset import Ids
from unseen.errors import DataError
from unseen.evaluation.metrics import harmonic_mean, per_class_accuracy
from unseen.evaluation.predictor import generative_predictor
from unseen.evaluation.protocol import Outcome, task_hash
from unseen.final_classifier import ClassifierRows
from unseen.methods.base import stream_seed
from unseen.recipe import Recipe
from unseen.represented import hold


def oracle(outcome: Outcome, recipe: Recipe, seed: int) -> dict[str, Any]:
    """The row of an oracle for a trained outcome.

    Half of each unseen class's test rows take the place of the synthetic ones and the other half is scored; then the halves
    change places. Seen test rows are scored by both and averaged. γ is 0. A class with a single test row is left out: it
    cannot be learned from and scored. This is no result: it has learned from test rows, and its row says so.

    Args:
        outcome: of a generative method; its scaling and representation are used.
        recipe: of the final classifier.
        seed: of the halves and the classifier.

    Raises:
        DataError: no unseen class has two test rows.
    """
    begun = time.monotonic()
    view, test, predictor = outcome.view, outcome.test, outcome.predictor
    recipe = replace(recipe, classifier_batch=64, gamma=0.0)
    enough = np.bincount(test.unseen_labels)[test.unseen_labels] > 1
    if not enough.any():
        raise DataError("no unseen class has two test rows, so no oracle can learn from one and be scored on the other")
    features, true = test.unseen_features[enough], test.unseen_labels[enough]
    first_half = halves(true, seed)
    predicted = np.empty(len(true), np.int64)
    conventional = np.empty_like(predicted)
    seen_accuracies = []
    for fitted_on in (first_half, ~first_half):
        real_unseen = predictor.scaler.rows(features[fitted_on], view.device)
        labels = torch.from_numpy(true[fitted_on]).to(view.device)
        # Every class counts as often as the mean seen class, so that the size of a half is no prior.
        weights = view.mean_seen_count / torch.bincount(labels)[labels]
        rows = ClassifierRows(
            features=hold(predictor.represent, view.features[:1], (view.features, real_unseen), len(view.labels) + len(labels)),
            labels=torch.cat([view.labels, labels]),
            weights=torch.cat([torch.ones(len(view.labels), device=view.device), weights]),
            synthetic=len(labels),
        )
        fitted = generative_predictor(predictor.scaler, view, predictor.represent, rows, recipe, stream_seed(seed, "oracle"))
        scored = ~fitted_on
        predicted[scored] = fitted.decide(features[scored]).predict()
        conventional[scored] = fitted.predict_unseen(features[scored])
        seen_accuracies.append(per_class_accuracy(test.seen_labels, fitted.decide(test.seen_features).predict()))
    S, U = float(np.mean(seen_accuracies)), per_class_accuracy(true, predicted)
    seconds = time.monotonic() - begun
    row = {
        **outcome.row,
        "method": f"oracle ({outcome.row['method']})",
        "T1": per_class_accuracy(true, conventional),
        "S": S,
        "U": U,
        "H": harmonic_mean(S, U),
        "H_without_gamma": harmonic_mean(S, U),
        "AUSUC": None,
        "H_interval": None,
        "gamma": 0.0,
        "leak_seen_to_unseen": None,
        "leak_unseen_to_seen": None,
        "leak_gap": None,
        "imbalance": None,
        "module_alone": None,
        "diagnostic_evaluations": 0,
        "recipe": asdict(recipe),
        "seconds": seconds,
        "seconds_by_phase": {"oracle": seconds},
        "test_used_for_training": True,
    }
    return row | {"task_hash": task_hash(row)}


def halves(labels: Ids, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """(n,) true for half the rows of each class."""
    generator = np.random.default_rng(seed)
    half = np.zeros(len(labels), np.bool_)
    for class_id in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == class_id))
        half[members[: (len(members) + 1) // 2]] = True
    return half
