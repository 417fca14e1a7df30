"""Linear scores: what every closed-form method and every final classifier comes down to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unseen.scaling import NO_SPREAD


@dataclass(frozen=True)
class LinearScores:
    """Scores x Wᵀ + b.

    Args:
        weight: (C, d); bias: (C,).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) → (n, C) scores; a higher one is likelier."""
        return x @ self.weight.T + self.bias

    def only(self, class_ids: Tensor) -> LinearScores:
        """The scores of these classes, in this order."""
        return LinearScores(self.weight[class_ids], self.bias[class_ids])

    def tensors(self) -> dict[str, Tensor]:
        """Name → tensor, for a saved model."""
        return {"weight": self.weight, "bias": self.bias}


def discriminant(means: Tensor, covariance: Tensor, shrinkage: float) -> LinearScores:
    """Scores x Σ⁻¹ μ_c − ½ μ_cᵀ Σ⁻¹ μ_c of Gaussian classes with equal priors.

    Args:
        means: (C, d) float64; covariance: (d, d), shrunk here to (1−s) Σ + s tr(Σ)/d · I. Where nothing varies within
            classes it is I, which makes the nearest mean the likeliest class.
        shrinkage: s, above 0 and at most 1.
    """
    d = means.shape[1]
    average = covariance.trace() / d
    if average <= NO_SPREAD * means.square().mean():
        shrunk = torch.eye(d, dtype=means.dtype, device=means.device)
    else:
        shrunk = (1 - shrinkage) * covariance
        shrunk.diagonal().add_(shrinkage * average)
    weight = torch.linalg.solve(shrunk, means.T).T
    return LinearScores(weight.float(), (-0.5 * (weight * means).sum(dim=1)).float())
