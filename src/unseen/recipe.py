"""What surrounds a generative method: scaling, training length, synthesis and final classifier, as one plain value.

A published preset states a recipe beside its hyper-parameters; `blind` chooses parts of one on folds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from unseen.errors import SettingsError
from unseen.scaling import KNOWN, Scaling

FEW = 25
"""Rows below which a class's mean is mostly noise; real rows cannot be had at will, synthetic ones can."""
COUNTABLE = 2**31
"""Counts stay below this."""
WORTH = 3
"""Real rows of a class that weigh as much as all that is known of it without them. Each of the first few pictures tells much
more than its share of `FEW`: docs/which-method.md has what folds of training rows say of it."""


def weight_of_few(count: Tensor) -> Tensor:
    """k real rows of an unseen class, fewer than `FEW` → k / (k + `WORTH`), their share of the weight of the class."""
    return count / (count + WORTH)


@dataclass(frozen=True)
class Recipe:
    """Everything around a method that a result depends on.

    Args:
        scaling: of the features.
        centred: subtract the seen classes' mean embedding before the embeddings are scaled to unit length.
        steps: training iterations; 0 takes `epochs`.
        epochs: the paper's epochs; a nominal length, as batches are independent draws.
        synthetic: rows synthesised per unseen class; 0 takes `synthetic_ratio`.
        synthetic_ratio: the same, relative to the mean number of training rows of a seen class, or to `FEW` where there are
            fewer.
        drawn: at most so many of these rows are synthesised; each then counts for several, so that the classifier's loss stays
            that of all of them in expectation, and its steps as many. 0 synthesises all.
        classifier: `softmax` as published; `gaussian`, a linear discriminant on the same rows; or `ood`, as published for
            actions: a detector sends each row to a softmax over the seen or to one over the unseen classes (`unseen.gate`).
        balanced: every class counts the same in the softmax's loss, however many rows it has; weights are normalised within a
            batch, so with one row at a time it changes nothing.
        shrinkage: of the gaussian classifier's covariance.
        classifier_lr, classifier_epochs, classifier_batch: Adam on the final linear softmax, or on both experts and, for
            twice as many epochs, the detector; batch 0 takes the number of synthetic rows per class, as published.
        classifier_decay: weight of ½‖W‖² in the classifier's mean loss.
        gamma: subtracted from the scores of seen classes, in units of the spread of the margin (max seen − max unseen)
            on the classifier's training rows.

    Raises:
        SettingsError: a value cannot work.
    """

    scaling: Scaling = "minmax"
    centred: bool = False
    steps: int = 0
    epochs: int = 0
    synthetic: int = 0
    synthetic_ratio: float = 1.0
    drawn: int = 0
    classifier: Literal["softmax", "gaussian", "ood"] = "softmax"
    balanced: bool = False
    shrinkage: float = 0.1
    classifier_lr: float = 1e-3
    classifier_epochs: int = 25
    classifier_batch: int = 0
    classifier_decay: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in (("scaling", KNOWN), ("classifier", ("softmax", "gaussian", "ood"))):
            if getattr(self, name) not in choices:
                raise SettingsError(f"there is no {name}={getattr(self, name)!r}; there are {', '.join(choices)}")
        for name in ("steps", "epochs", "synthetic", "drawn", "classifier_epochs", "classifier_batch"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) < COUNTABLE):
                raise SettingsError(f"{name}={getattr(self, name)!r} cannot work; give a whole number below {COUNTABLE}")
        for name in ("steps", "epochs", "synthetic", "drawn", "classifier_batch", "classifier_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 0 or a number above it")
        for name in ("synthetic_ratio", "classifier_lr", "classifier_epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give a number above 0")
        if not 0 < self.shrinkage <= 1:
            raise SettingsError(f"shrinkage={self.shrinkage} cannot work; give a number above 0, at most 1")
        if not math.isfinite(self.gamma):
            raise SettingsError(f"gamma={self.gamma} cannot work; give a finite number")

    def rows_per_class(self, mean_seen_count: float) -> int:
        """Synthetic rows of each unseen class in the classifier's loss."""
        return self.synthetic or max(1, round(self.synthetic_ratio * max(mean_seen_count, FEW)))
