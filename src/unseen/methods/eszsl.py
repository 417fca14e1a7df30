"""ESZSL: a bilinear map between features and class embeddings, in one formula.

Reference: B. Romera-Paredes, P. H. S. Torr, "An Embarrassingly Simple Approach to Zero-Shot Learning", ICML 2015, eq. 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.linear import LinearScores
from unseen.methods.base import above_0
from unseen.scaling import ScaledView, Scaling


@dataclass(frozen=True)
class ESZSL:
    """V = (XᵀX + γI)⁻¹ XᵀY S (SᵀS + λI)⁻¹; the score of class c for x is x V c.

    X (n, d) are seen features, Y (n, |seen|) is 1 for a row's class and −1 elsewhere, S (|seen|, a) are seen embeddings.

    Args:
        feature_ridge: γ, on the features' side.
        embedding_ridge: λ, on the embeddings' side.
    """

    feature_ridge: float = 1.0
    embedding_ridge: float = 1.0

    SCALINGS: ClassVar[tuple[Scaling, ...]] = ("minmax", "l2")
    GRID: ClassVar[dict[str, tuple[float, ...]]] = {
        "feature_ridge": (1.0, 100.0, 1e4, 1e6),
        "embedding_ridge": (0.01, 0.1, 1.0, 10.0, 100.0),
    }

    def __post_init__(self) -> None:
        above_0(feature_ridge=self.feature_ridge, embedding_ridge=self.embedding_ridge)

    def fit(self, view: ScaledView) -> LinearScores:
        """Solve for V on the seen rows; the scores of all C classes are linear in x."""
        return self.fit_all(view, [self])[0]

    @staticmethod
    def fit_all(view: ScaledView, solvers: Sequence[ESZSL]) -> list[LinearScores]:
        """`fit` of each: products of X are computed once, and one system solved for all that have γ in common."""
        view = with_examples_among_rows(view)
        x, embeddings = view.features.double(), view.embeddings.double()
        s = embeddings[view.seen]
        d, a = x.shape[1], s.shape[1]
        y = 2 * F.one_hot(torch.searchsorted(view.seen, view.labels), len(view.seen)).double() - 1
        products, targets = x.T @ x, (x.T @ y @ s).T
        fitted: dict[ESZSL, LinearScores] = {}
        for feature_ridge in {solver.feature_ridge for solver in solvers}:
            alike = [solver for solver in solvers if solver.feature_ridge == feature_ridge]
            ridges = [s.T @ s + solver.embedding_ridge * torch.eye(a, dtype=x.dtype, device=x.device) for solver in alike]
            right: Tensor = torch.cat([torch.linalg.solve(ridge, targets) for ridge in ridges])
            gram = products + feature_ridge * torch.eye(d, dtype=x.dtype, device=x.device)
            for solver, v in zip(alike, torch.linalg.solve(gram, right.T).chunk(len(alike), dim=1), strict=True):
                fitted[solver] = LinearScores((v @ embeddings.T).T.float(), torch.zeros(len(embeddings), device=x.device))
        return [fitted[solver] for solver in solvers]


def with_examples_among_rows(view: ScaledView) -> ScaledView:
    """A view whose few rows of unseen classes are rows like all others: this method knows no mean that they could change."""
    if view.examples is None:
        return view
    x, y = view.examples
    seen = torch.unique(torch.cat([view.seen, y]))
    return replace(view, features=torch.cat([view.features, x]), labels=torch.cat([view.labels, y]), seen=seen, examples=None)
