"""From raw features and embeddings to what methods train on. Everything here is fitted on seen training rows alone.

Three scalings of features: `minmax` to [0, 1] per dimension, as the published systems do; `l2`, rows of one length;
`whitened` by the seen within-class covariance, shrunk by a tenth. The mean within-class variance of a dimension is then 1 after
`l2`, and after `whitened` somewhat below 1 on the rows it was fitted on, above on others where rows are few. Both leave [0, 1],
so generators then end linearly and reconstruct under a Gaussian instead of a Bernoulli. A fourth, `none`, leaves features as
they are, as some published presets do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unseen.data.dataset import Ids, TrainingView, TransductiveView
from unseen.errors import SettingsError

Scaling = Literal["minmax", "l2", "whitened", "none"]
SCALINGS: tuple[Scaling, ...] = ("minmax", "l2", "whitened")
"""What `blind` tries where a method does not say otherwise."""
KNOWN: tuple[Scaling, ...] = (*SCALINGS, "none")

WHITENING_SHRINKAGE = 0.1
"""Share of the average variance mixed into the covariance before it is inverted: with fewer rows than dimensions the
covariance is singular."""

ROWS_AT_ONCE, ROWS_MULTIPLIED = 64, 2**16
"""Scaled together by factors, for the processor's cache, and by a matrix: bounds memory. The first changes no bit."""

NO_SPREAD = 1e-24
"""A within-class variance below this share of the mean square is rounding error: float32 rows differ by more or not at all."""


@dataclass(frozen=True)
class FeatureScaler:
    """x ↦ ((x / length) − centre) · matrix, with the parts that the scaling uses.

    Args:
        kind: which scaling.
        centre: (d,) subtracted.
        matrix: (d,) factors per dimension, or (d, d).
    """

    kind: Scaling
    centre: NDArray[np.float64]
    matrix: NDArray[np.float64]

    @staticmethod
    def fit(kind: Scaling, features: NDArray[np.float32], labels: Ids) -> FeatureScaler:
        """Fit in float64 on training rows.

        Args:
            features: (n, d).
            labels: (n,) class ids; not used by `minmax`.

        Raises SettingsError for a kind that does not exist.
        """
        if kind not in KNOWN:
            raise SettingsError(f"there is no scaling '{kind}'; there are {', '.join(KNOWN)}")
        d = features.shape[1]
        if kind == "none":
            return FeatureScaler(kind, np.zeros(d), np.ones(d))
        if kind == "minmax":
            low, high = features.min(axis=0).astype(np.float64), features.max(axis=0).astype(np.float64)
            span = high - low  # a constant column maps to 0
            return FeatureScaler(kind, low, np.divide(1.0, span, out=np.zeros(d), where=span > 0))
        x = features.astype(np.float64)  # of rows that are many, the one large copy beside its squares
        if kind == "l2":
            for part in _in_parts(len(x), ROWS_AT_ONCE):
                x[part] = _unit_rows(x[part])
        means = class_means(x, labels)
        classes, inverse = np.unique(labels, return_inverse=True)
        mean_square = np.square(x).mean()
        within = x
        for part in _in_parts(len(x), ROWS_AT_ONCE):
            within[part] -= means[inverse[part]]
        freedom = max(1, len(x) - len(classes))
        average = float(np.square(within).sum()) / (freedom * d)
        if average <= NO_SPREAD * mean_square:  # one row a class, or the same one again
            average = 1.0
        if kind == "l2":
            return FeatureScaler(kind, np.zeros(d), np.full(d, average**-0.5))
        covariance = (1 - WHITENING_SHRINKAGE) * (within.T @ within / freedom)
        covariance[np.diag_indices(d)] += WHITENING_SHRINKAGE * average
        values, vectors = np.linalg.eigh(covariance)
        return FeatureScaler(kind, means.mean(axis=0), (vectors / np.sqrt(values)) @ vectors.T)

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale (n, d) rows; rows outside the training range are not clipped."""
        scaled = np.empty(features.shape, np.float32)
        by_factors = self.matrix.ndim == 1
        for part in _in_parts(len(features), ROWS_AT_ONCE if by_factors else ROWS_MULTIPLIED):
            x = features[part].astype(np.float64)
            if self.kind == "l2":
                x = _unit_rows(x)
            x -= self.centre
            scaled[part] = np.multiply(x, self.matrix, out=x) if by_factors else x @ self.matrix
        return scaled


@dataclass(frozen=True)
class EmbeddingScaler:
    """c ↦ (c − centre) / ‖c − centre‖. `centre` is the mean of the seen classes' embeddings, or 0 as published."""

    centre: NDArray[np.float64]

    @staticmethod
    def fit(embeddings: NDArray[np.floating], seen: Ids, centred: bool) -> EmbeddingScaler:
        """Fit on seen classes only, so that training does not depend on which classes are unseen."""
        e = embeddings.astype(np.float64)
        return EmbeddingScaler(e[seen].mean(axis=0) if centred else np.zeros(e.shape[1]))

    def __call__(self, embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scale (C, a) embeddings to unit length."""
        return _unit_rows(embeddings.astype(np.float64) - self.centre).astype(np.float32)


@dataclass(frozen=True)
class ScaledView:
    """A `TrainingView`, scaled and on the device: all that a method may know.

    Args:
        features: (n, d) scaled seen rows.
        labels: (n,) class ids.
        embeddings: (C, a) of unit length.
        names: C class names.
        seen, unseen: class ids.
        unit_interval: features lie in [0, 1], so a sigmoid output with binary cross-entropy fits them.
        unlabelled: (m, d) scaled unseen test rows; of a `TransductiveView` alone.
        examples: a few scaled rows (m, d) of unseen classes, and ids (m,) of these; of a classifier that was given them later.
    """

    features: Tensor
    labels: Tensor
    embeddings: Tensor
    names: tuple[str, ...]
    seen: Tensor
    unseen: Tensor
    unit_interval: bool
    unlabelled: Tensor | None = None
    examples: tuple[Tensor, Tensor] | None = None

    @property
    def device(self) -> torch.device:
        return self.features.device

    @property
    def mean_seen_count(self) -> float:
        """Mean number of training rows of a seen class."""
        return len(self.labels) / len(self.seen)


@dataclass(frozen=True)
class Scaler:
    """Both scalers of a training run; test rows pass through the same one."""

    features: FeatureScaler
    embeddings: EmbeddingScaler

    @staticmethod
    def fit(view: TrainingView, kind: Scaling, centred: bool) -> Scaler:
        """Fit on the view's rows and its seen classes."""
        return Scaler(
            FeatureScaler.fit(kind, view.features, view.labels),
            EmbeddingScaler.fit(view.classes.embeddings, view.seen, centred),
        )

    def view(self, view: TrainingView | TransductiveView, device: torch.device) -> ScaledView:
        """Scale a view and put it on the device."""
        if isinstance(view, TransductiveView):
            return replace(self.view(view.inductive, device), unlabelled=self.rows(view.unlabelled, device))
        return ScaledView(
            features=self.rows(view.features, device),
            labels=torch.from_numpy(view.labels).to(device),
            embeddings=torch.from_numpy(self.embeddings(view.classes.embeddings)).to(device),
            names=view.classes.names,
            seen=torch.from_numpy(view.seen).to(device),
            unseen=torch.from_numpy(view.unseen).to(device),
            unit_interval=self.features.kind == "minmax",
        )

    def rows(self, features: NDArray[np.float32], device: torch.device) -> Tensor:
        """Scale rows and put them on the device."""
        return torch.from_numpy(self.features(features)).to(device)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Name → array, for a saved model."""
        return {
            "scaler.centre": self.features.centre,
            "scaler.matrix": self.features.matrix,
            "scaler.embedding_centre": self.embeddings.centre,
        }

    @staticmethod
    def from_arrays(kind: Scaling, arrays: Mapping[str, NDArray[np.float64]]) -> Scaler:
        """The scaler whose `arrays` these are."""
        return Scaler(
            FeatureScaler(kind, arrays["scaler.centre"], arrays["scaler.matrix"]),
            EmbeddingScaler(arrays["scaler.embedding_centre"]),
        )


def class_means(x: NDArray[np.float64], labels: Ids) -> NDArray[np.float64]:
    """(K, d) means of the classes present, in ascending order of id."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, inverse, x)
    return sums / counts[:, None]


def _in_parts(count: int, at_once: int) -> Iterator[slice]:
    return (slice(start, start + at_once) for start in range(0, count, at_once))


def _unit_rows(x: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return unit
