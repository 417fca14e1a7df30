"""class-Gaussian: every class a Gaussian, the means of unseen classes regressed from their embeddings. In closed form.

The yardstick of this library: it synthesises nothing and takes seconds, so a generative method has to beat it. The model is
a linear discriminant with a shared covariance; the regression of means is kernel ridge with a linear kernel, as in
S. Changpinyo et al., "Predicting Visual Exemplars of Unseen Classes for Zero-Shot Learning", ICCV 2017, simplified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from unseen.errors import SettingsError
from unseen.linear import LinearScores, discriminant
from unseen.methods.base import above_0
from unseen.methods.prototype import class_prototypes
from unseen.represented import PART
from unseen.scaling import SCALINGS, ScaledView, Scaling


@dataclass(frozen=True)
class ClassGaussian:
    """Scores x Σ⁻¹ μ_c − ½ μ_cᵀ Σ⁻¹ μ_c, with equal priors.

    Σ is the seen within-class covariance, shrunk: (1−s) Σ + s tr(Σ)/d · I. μ_c is the class mean of a seen class; for an
    unseen one it is predicted from the embedding, see `class_prototypes`.

    Args:
        ridge: λ of the regression of means.
        shrinkage: s.
    """

    ridge: float = 0.3
    shrinkage: float = 0.1

    SCALINGS: ClassVar[tuple[Scaling, ...]] = SCALINGS
    GRID: ClassVar[dict[str, tuple[float, ...]]] = {
        "ridge": (0.03, 0.1, 0.3, 1.0),
        "shrinkage": (0.03, 0.1, 0.3, 0.6, 1.0),
    }

    def __post_init__(self) -> None:
        above_0(ridge=self.ridge)
        if not 0 < self.shrinkage <= 1:
            raise SettingsError(f"shrinkage={self.shrinkage} cannot work; give a number above 0, at most 1")

    def fit(self, view: ScaledView) -> LinearScores:
        """Estimate means and covariance on the seen rows; the scores of all C classes are linear in x."""
        return self.fit_all(view, [self])[0]

    @staticmethod
    def fit_all(view: ScaledView, solvers: Sequence[ClassGaussian]) -> list[LinearScores]:
        """`fit` of each: the covariance is computed once, and one system solved for all that have a shrinkage in common."""
        means = {ridge: class_prototypes(view, ridge) for ridge in {solver.ridge for solver in solvers}}
        of_classes = next(iter(means.values()))  # those of seen classes know no ridge
        within = view.features.double()  # one large copy, changed where it is
        for part, labels in zip(torch.split(within, PART), torch.split(view.labels, PART), strict=True):
            part -= of_classes[labels]
        covariance = within.T @ within / max(1, len(within) - len(view.seen))
        fitted: dict[ClassGaussian, LinearScores] = {}
        for shrinkage in {solver.shrinkage for solver in solvers}:
            alike = [solver for solver in solvers if solver.shrinkage == shrinkage]
            scores = discriminant(torch.cat([means[solver.ridge] for solver in alike]), covariance, shrinkage)
            for solver, weight, bias in zip(alike, scores.weight.chunk(len(alike)), scores.bias.chunk(len(alike)), strict=True):
                fitted[solver] = LinearScores(weight, bias)
        return [fitted[solver] for solver in solvers]
