"""A fitted classifier as a value: raw features in, scores of named classes out. What is saved, calibrated and exported."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unseen.gate import Scores
from unseen.inference import check_scored
from unseen.methods.base import GenerativeMethod
from unseen.scaling import Scaler


@dataclass(frozen=True)
class Fitted:
    """Scaler, representation and scores of all classes, with γ and the temperature that make probabilities of them.

    Args:
        scaler: raw features → scaled, fitted on the training rows.
        method: trained, and asked to `represent`; None of a closed-form method, which scores the scaled features themselves.
        scores: of represented rows, a column a class in the order of `names`; γ is not yet subtracted.
        names: C class names, in the order of the labels.
        seen: (C,) which classes are on the seen side of γ.
        gamma: subtracted from the scores of these, in their units; 0 where all classes are on one side.
        temperature: by which scores are divided before the softmax; 1 where nothing was calibrated.
        device: where scores are computed.
        prototypes: (C, d') of each class the mean of the represented rows that the classifier was fitted on, as it weighs them:
            real ones if it is seen, else synthetic ones and the few real ones that it has; NaN for a class without rows. None
            where nobody asked.
    """

    scaler: Scaler
    method: GenerativeMethod | None
    scores: Scores
    names: tuple[str, ...]
    seen: NDArray[np.bool_]
    gamma: float
    temperature: float = 1.0
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # a value, not a default that is shared and changed
    prototypes: NDArray[np.float32] | None = None

    @torch.no_grad()
    def represent(self, features: NDArray[np.float32]) -> Tensor:
        """Raw (n, d) rows → (n, d') what the scores are functions of; not finite where a row is too large."""
        with np.errstate(over="ignore"):
            x = self.scaler.rows(features, self.device)
        return x if self.method is None else self.method.represent(x)

    @torch.no_grad()
    def decide(self, features: NDArray[np.float32], first: int = 0) -> NDArray[np.float64]:
        """Raw (n, d) rows → (n, C) scores with γ subtracted from those of seen classes; the highest one names the class.

        Args:
            first: number of the first row among those that were given.

        Raises TooLarge for finite rows whose scores are not.
        """
        scores: NDArray[np.float64] = self.scores(self.represent(features)).double().cpu().numpy()
        check_scored(scores, first)
        scores[:, self.seen] -= self.gamma
        return scores

    def probabilities(self, decisions: NDArray[np.float64]) -> NDArray[np.float64]:
        """What `decide` says → (n, C) softmax of it over the temperature."""
        raised = (decisions - decisions.max(axis=1, keepdims=True)) / self.temperature
        shares: NDArray[np.float64] = np.exp(raised)
        shares /= shares.sum(axis=1, keepdims=True)
        return shares
