"""Nearest prototype: the plainest way to go from embeddings to features, and the floor for every other method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unseen.linear import LinearScores
from unseen.methods.base import above_0
from unseen.recipe import weight_of_few
from unseen.represented import in_parts
from unseen.scaling import ScaledView, Scaling


@dataclass(frozen=True)
class Prototype:
    """The class whose prototype is nearest in Euclidean distance: seen class means, unseen ones regressed.

    −‖x − μ‖² equals 2 xμ − ‖μ‖² up to a term that is the same for all classes, so the scores are linear in x.

    Args:
        ridge: λ of the regression of prototypes; see `class_prototypes`.
    """

    ridge: float = 0.3

    SCALINGS: ClassVar[tuple[Scaling, ...]] = ("minmax", "l2", "whitened")
    GRID: ClassVar[dict[str, tuple[float, ...]]] = {"ridge": (0.03, 0.1, 0.3, 1.0, 3.0)}

    def __post_init__(self) -> None:
        above_0(ridge=self.ridge)

    def fit(self, view: ScaledView) -> LinearScores:
        """Average seen classes, regress unseen ones."""
        means = class_prototypes(view, self.ridge)
        return LinearScores(2 * means.float(), -means.square().sum(dim=1).float())


def class_prototypes(view: ScaledView, ridge: float) -> Tensor:
    """(C, d) float64: class means of seen classes; for unseen ones a ridge regression from embedding to mean, and where such a
    class has a few rows, their mean by its weight (`unseen.recipe.weight_of_few`).

    With E the seen embeddings and M the seen means less their average m̄, an embedding c is mapped to
    m̄ + c Eᵀ (E Eᵀ + λI)⁻¹ M: the dual form, a system of as many equations as there are seen classes.
    """
    embeddings = view.embeddings.double()
    count = len(embeddings)
    sums = embeddings.new_zeros(count, view.features.shape[1])
    for numbers, x in in_parts(view.features):  # all at once would be copied in double precision
        sums.index_add_(0, view.labels[numbers], x.double())
    means = sums / torch.bincount(view.labels, minlength=count).clamp_min(1)[:, None]
    average = means[view.seen].mean(dim=0)
    kernel = embeddings[view.seen] @ embeddings[view.seen].T
    kernel = kernel + ridge * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    weights = torch.linalg.solve(kernel, means[view.seen] - average)
    means[view.unseen] = average + embeddings[view.unseen] @ embeddings[view.seen].T @ weights
    if view.examples is not None:
        few, labels = view.examples
        counts = torch.bincount(labels, minlength=count).double()
        classes = torch.unique(labels)
        own = means.new_zeros(means.shape).index_add_(0, labels, few.double())[classes] / counts[classes, None]
        means[classes] += weight_of_few(counts[classes, None]) * (own - means[classes])
    return means
