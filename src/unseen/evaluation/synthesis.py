"""A diagnosis: how what was synthesised for unseen classes lies to what they really look like.

The papers of this field claim that their features are as wide as real ones, lie where these lie, and keep the order of the
classes. Each claim is a number here, taken from the scaled features, before any final classifier.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from unseen.data.dataset import Ids
from unseen.evaluation.protocol import Outcome
from unseen.methods.base import ClassStreams, stream_seed

ROWS = 200
"""Synthetic rows drawn for each class."""


def synthesis_against_real(outcome: Outcome) -> dict[str, float | None] | None:
    """The figures of `compare` for the unseen classes of a run, None in place of nan; None where nothing is synthesised.

    It looks at test rows and their labels, to measure and for nothing else.
    """
    if outcome.trained is None:
        return None
    view, test = outcome.view, outcome.test
    classes = np.unique(test.unseen_labels)
    ids = torch.as_tensor(classes, device=view.device).repeat_interleave(ROWS)
    streams = ClassStreams(stream_seed(outcome.task.seed, "diagnosis"), view.names, view.device)
    synthetic = outcome.trained.sample(ids, streams).double().cpu().numpy()
    real = outcome.predictor.scaler.rows(test.unseen_features, view.device).double().cpu().numpy()
    found = compare(synthetic, ids.cpu().numpy(), real, test.unseen_labels, view.embeddings.double().cpu().numpy())
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def compare(
    synthetic: NDArray[np.float64],
    synthetic_labels: Ids,
    real: NDArray[np.float64],
    real_labels: Ids,
    embeddings: NDArray[np.float64],
) -> dict[str, float]:
    """How synthetic rows of some classes lie to real rows of the same.

    Args:
        synthetic, real: (n, d) and (m, d) rows with class ids; every class has both; embeddings: (C, a), by class id.

    Returns:
        variance_ratio: trace of the synthetic over that of the real within-class covariance, mean over classes with two real
            rows or more: 1 is right, less is the decay or collapse of variance that the papers speak of.
        mean_distance: from synthetic to real class mean, in units of the real class's radius (the root of that trace),
            mean over the same classes.
        nearest_own: share of classes whose synthetic mean is nearer to their own real mean than to that of any other.
        order_of_synthetic, order_of_real: Spearman's correlation between the pairwise distances of class means and those of
            class embeddings: how far the order of the embeddings is kept, and how far the world keeps it.
        order_kept: the same between synthetic and real class means.

        nan where there are too few classes or rows for a figure.
    """
    classes = np.unique(real_labels)
    of_synthetic = [synthetic[synthetic_labels == k] for k in classes]
    of_real = [real[real_labels == k] for k in classes]
    means, real_means = (np.stack([rows.mean(axis=0) for rows in groups]) for groups in (of_synthetic, of_real))
    traces = [(rows.var(axis=0, ddof=1).sum(), k) for k, rows in enumerate(of_real) if len(rows) > 1]
    varied = [(trace, k) for trace, k in traces if trace > 0]
    gaps = _distances(means, real_means)
    own = np.diagonal(gaps)
    between, between_real, between_embeddings = (
        _distances(x, x)[np.triu_indices(len(classes), k=1)] for x in (means, real_means, embeddings[classes])
    )
    return {
        "variance_ratio": _mean([of_synthetic[k].var(axis=0, ddof=1).sum() / trace for trace, k in varied]),
        "mean_distance": _mean([own[k] / trace**0.5 for trace, k in varied]),
        "nearest_own": float((gaps.argmin(axis=1) == np.arange(len(classes))).mean()),
        "order_of_synthetic": _rank_correlation(between, between_embeddings),
        "order_of_real": _rank_correlation(between_real, between_embeddings),
        "order_kept": _rank_correlation(between, between_real),
    }


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    distances: NDArray[np.float64] = np.sqrt(np.maximum(squared, 0))
    return distances


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """nan for fewer than three distances, or where all are equal."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
