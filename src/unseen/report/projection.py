"""Real and synthetic features of the unseen classes in one plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unseen.errors import DataError
from unseen.report.contents import Projection

if TYPE_CHECKING:
    from unseen.evaluation.protocol import Outcome

ROWS = 600
"""Rows of each kind, real and synthetic, that a plane holds at most: more take minutes and show no more."""

SYNTHETIC_SHOWN = 30
"""Synthetic rows a class that are made for a plane."""

COMPONENTS = 50
"""Principal components that t-SNE works on, as its authors advise."""

FEWEST_FOR_TSNE = 8
"""With fewer rows a neighbourhood means nothing, and the first two principal components are drawn instead."""


def plane_of(outcome: Outcome) -> Projection | None:
    """The plane of a run's unseen test rows and of what its method makes of their class embeddings; None for closed forms."""
    if outcome.trained is None:
        return None
    from unseen.methods.base import ClassStreams  # with torch, which a page of stored figures needs no more than a plane

    view, unseen = outcome.view, outcome.predictor.unseen
    ids = view.unseen.repeat_interleave(SYNTHETIC_SHOWN)
    made = outcome.trained.sample(ids, ClassStreams(outcome.row["seed"], view.names, view.device))
    return project(
        outcome.predictor.scaler.features(outcome.test.unseen_features),
        np.searchsorted(unseen, outcome.test.unseen_labels),
        made.cpu().numpy(),
        np.searchsorted(unseen, ids.cpu().numpy()),
        seed=outcome.row["seed"],
        names=[view.names[i] for i in unseen],
        method=outcome.row["method"],
    )


def project(
    real: ArrayLike,
    real_labels: ArrayLike,
    synthetic: ArrayLike,
    synthetic_labels: ArrayLike,
    seed: int,
    *,
    names: Sequence[str],
    method: str,
    rows: int = ROWS,
) -> Projection:
    """Place real and synthetic features in one plane: PCA to 50 components, then t-SNE on both kinds together.

    Both kinds go through one projection, so that a synthetic feature lies on the real ones only where the generator put
    it there. Of each kind at most `rows` rows are taken, spread evenly over its classes (a class with fewer rows gives
    what it has), drawn from a stream of (seed, kind, label), so that the order of the classes does not matter. The same
    arguments give the same bits on the same machine with the same versions: the computation runs on one thread.

    Args:
        real: (n, d) features of test pictures of unseen classes.
        real_labels: (n,) indices into `names`.
        synthetic: (m, d) features that the method made for these classes.
        synthetic_labels: (m,) indices into `names`.
        seed: of the row choice; t-SNE starts from the first two components, whatever the seed.
        names: the unseen classes.
        method: whose synthetic features these are.
        rows: at most this many of each kind.

    Returns:
        The plane: the kept real rows first, then the kept synthetic ones, each in the order given.

    Raises:
        DataError: shapes or labels do not fit together, there is nothing to draw, or a feature is not finite.

    Reference: L. van der Maaten and G. Hinton, Visualizing data using t-SNE, JMLR 9, 2008; scikit-learn's Barnes-Hut form.
    """
    kept = [
        _at_most(_table(features, labels, kind, len(names)), rows, seed, number)
        for number, (kind, features, labels) in enumerate(
            [("real", real, real_labels), ("synthetic", synthetic, synthetic_labels)]
        )
    ]
    (real_rows, real_ids), (synthetic_rows, synthetic_ids) = kept
    if real_rows.shape[1] != synthetic_rows.shape[1]:
        raise DataError(
            f"real features have {real_rows.shape[1]} columns but synthetic ones {synthetic_rows.shape[1]}; "
            "project both in the same representation"
        )
    together = np.concatenate([real_rows, synthetic_rows])
    if len(together) == 0:
        raise DataError("there are neither real nor synthetic features to project; give at least one row")
    return Projection(
        xy=_plane(together, seed),
        labels=np.concatenate([real_ids, synthetic_ids]),
        synthetic=np.arange(len(together)) >= len(real_rows),
        names=tuple(names),
        method=method,
    )


Rows = tuple[NDArray[np.float32], NDArray[np.int64]]


def _table(features: ArrayLike, labels: ArrayLike, kind: str, classes: int) -> Rows:
    x, y = np.asarray(features, dtype=np.float32), np.asarray(labels, dtype=np.int64)
    if x.ndim != 2 or y.shape != (len(x),):
        raise DataError(f"{kind} features have shape {x.shape} and labels {y.shape}; give (rows, d) and one label a row")
    if len(y) and (y.min() < 0 or y.max() >= classes):
        raise DataError(f"{kind} labels run from {y.min()} to {y.max()}, but there are {classes} class names; index into them")
    return x, y


def _at_most(table: Rows, rows: int, seed: int, kind: int) -> Rows:
    """At most `rows` of the rows, as even over the classes as their sizes allow, in their old order."""
    x, y = table
    classes, sizes = np.unique(y, return_counts=True)
    if sizes.sum() > rows:
        sizes = _shares(sizes, rows)
    chosen = [
        np.random.default_rng([seed, kind, int(label)]).permutation(np.flatnonzero(y == label))[:size]
        for label, size in zip(classes, sizes, strict=True)
    ]
    keep = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
    if not np.isfinite(x[keep]).all():
        raise DataError(f"{('real', 'synthetic')[kind]} features hold NaN or infinity; look at what made them")
    return x[keep], y[keep]


def _shares(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """How many rows each class gives: the level k with Σ min(size, k) ≤ total < Σ min(size, k + 1), rest to the first."""
    level = 0
    while np.minimum(sizes, level + 1).sum() <= total:
        level += 1
    shares: NDArray[np.int64] = np.minimum(sizes, level)
    larger = np.flatnonzero(sizes > level)[: total - shares.sum()]
    shares[larger] += 1
    return shares


def _plane(x: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    # Imported here, because `unseen.report` is imported by programs that never project.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if not np.ptp(x, axis=0).any():  # one point, however often: t-SNE would divide by its spread
        return np.zeros((len(x), 2))
    components = min(COMPONENTS, *x.shape)
    # Several threads add up in another order, and so to other bits, than one does; and where other programs are running too,
    # they wait for each other at every step: four times the time of one thread, on two busy cores.
    with threadpool_limits(limits=1):
        reduced: NDArray[Any] = PCA(components, svd_solver="full").fit_transform(x.astype(np.float64))
        if len(x) < FEWEST_FOR_TSNE or components < 2:
            return np.pad(reduced, ((0, 0), (0, max(0, 2 - components))))[:, :2]
        perplexity = min(30.0, (len(x) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
        plane: NDArray[np.float64] = tsne.fit_transform(reduced).astype(np.float64)
    return plane
