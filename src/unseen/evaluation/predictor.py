"""A trained system as the evaluation sees it: raw features in, scores out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unseen.data.dataset import Ids, TestRows
from unseen.evaluation.metrics import Decisions, SeenUnseenCurve
from unseen.final_classifier import ClassifierRows, fit_by_epoch, fit_final_classifier
from unseen.gate import Scores
from unseen.linear import LinearScores
from unseen.recipe import Recipe
from unseen.represented import PART, Represent, Rows, in_parts
from unseen.scaling import ScaledView, Scaler


@dataclass(frozen=True)
class Predictor:
    """Scaler, representation and two classifiers.

    Args:
        scaler: fitted on the training rows.
        represent: scaled features → what the classifiers see.
        generalized: scores of all C classes.
        conventional: scores of the unseen classes, in ascending order of id: T1's own classifier.
        seen, unseen: class ids.
        spread: standard deviation of (max seen − max unseen) on the rows that the classifier was fitted on: the unit of γ.
        device: where scores are computed.
    """

    scaler: Scaler
    represent: Represent
    generalized: Scores
    conventional: LinearScores
    seen: Ids
    unseen: Ids
    spread: float
    device: torch.device

    def decide(self, features: NDArray[np.float32]) -> Decisions:
        """Best seen class, best unseen class and margin of raw (n, d) rows."""
        return self._decide(self._represented(features))

    def predict_unseen(self, features: NDArray[np.float32]) -> Ids:
        """Class ids of raw (n, d) rows when only unseen classes are possible."""
        parts = [self.conventional(u).argmax(dim=1).cpu().numpy() for u in self._represented(features)]
        predicted: Ids = self.unseen[np.concatenate(parts)]
        return predicted

    def curve(self, rows: RepresentedRows) -> SeenUnseenCurve:
        """The seen–unseen curve on these rows."""
        return SeenUnseenCurve.of(self._decide(rows.seen), rows.seen_labels, self._decide(rows.unseen), rows.unseen_labels)

    def _decide(self, represented: Iterable[Tensor]) -> Decisions:
        parts = [Decisions.from_scores(self.generalized(u).cpu().numpy(), self.seen, self.unseen) for u in represented]
        return Decisions(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("best_seen", "best_unseen", "margin")))

    def _represented(self, features: NDArray[np.float32]) -> Iterator[Tensor]:
        return _represented(features, self.scaler, self.represent, self.device)


@dataclass(frozen=True)
class RepresentedRows:
    """Held-out rows as classifiers see them: scaled and represented once, for all classifiers that are tried on them.

    Args:
        seen, unseen: rows, in parts; seen_labels, unseen_labels: their class ids.
    """

    seen: list[Tensor]
    seen_labels: Ids
    unseen: list[Tensor]
    unseen_labels: Ids

    @staticmethod
    def of(rows: TestRows, scaler: Scaler, represent: Represent, device: torch.device) -> RepresentedRows:
        seen, unseen = (list(_represented(x, scaler, represent, device)) for x in (rows.seen_features, rows.unseen_features))
        return RepresentedRows(seen, rows.seen_labels, unseen, rows.unseen_labels)


def _represented(features: NDArray[np.float32], scaler: Scaler, represent: Represent, device: torch.device) -> Iterator[Tensor]:
    starts = range(0, max(1, len(features)), PART)  # one empty part where there is no row
    return (represent(scaler.rows(features[s : s + PART], device)) for s in starts)


def as_they_are(x: Tensor) -> Tensor:
    """The representation that closed-form methods score: the scaled features themselves."""
    return x


def closed_form_predictor(scaler: Scaler, view: ScaledView, scores: LinearScores) -> Predictor:
    """A closed-form method's scores; T1 is their maximum over unseen classes. The spread is taken on the training rows."""
    return Predictor(
        scaler=scaler,
        represent=as_they_are,
        generalized=scores,
        conventional=scores.only(view.unseen),
        seen=view.seen.cpu().numpy(),
        unseen=view.unseen.cpu().numpy(),
        spread=spread_of_margin(scores, view.features, view.seen, view.unseen),
        device=view.device,
    )


def generative_predictor(
    scaler: Scaler,
    view: ScaledView,
    represent: Represent,
    rows: ClassifierRows,
    recipe: Recipe,
    seed: int,
    with_conventional: bool = True,
) -> Predictor:
    """Fit the final classifiers on represented rows: one over all classes and, for T1, one over the unseen classes.

    With the softmax, T1's is a classifier of its own, fitted on the synthetic rows. With the gaussian classifier a separate
    discriminant over the unseen classes has the same means and shares the covariance of the real rows, so it *is*
    `generalized.only(unseen)`, and nothing is fitted again.

    Args:
        rows: real seen and synthetic unseen rows.
        with_conventional: False saves fitting T1's classifier where nobody asks for it.
    """
    both = torch.cat([view.seen, view.unseen]).sort().values
    generalized = fit_final_classifier(rows, both, recipe, seed)
    conventional = generalized.only(view.unseen)
    if with_conventional:
        for fitted in conventional_by_epoch(rows, view, generalized, recipe, seed):
            conventional = fitted
    return Predictor(
        scaler=scaler,
        represent=represent,
        generalized=generalized,
        conventional=conventional,
        seen=view.seen.cpu().numpy(),
        unseen=view.unseen.cpu().numpy(),
        spread=spread_of_margin(generalized, rows.features, view.seen, view.unseen),
        device=view.device,
    )


def conventional_by_epoch(
    rows: ClassifierRows, view: ScaledView, generalized: Scores, recipe: Recipe, seed: int
) -> Iterable[LinearScores]:
    """T1's classifier over the unseen classes after each of its epochs, as `generative_predictor` says.

    Args:
        generalized: the classifier over all classes that was fitted on the same rows.
    """
    if recipe.classifier == "gaussian":
        return [generalized.only(view.unseen)]
    return fit_by_epoch(rows.only_synthetic(), view.unseen, recipe, seed)


def spread_of_margin(scores: Scores, x: Rows, seen: Tensor, unseen: Tensor) -> float:
    """Standard deviation of (max seen − max unseen) over rows x: the unit in which γ is stated.

    Args:
        seen, unseen: columns of the scores.
    """
    margins = []
    for _, part in in_parts(x):
        s = scores(part)
        margins.append(s[:, seen].amax(dim=1) - s[:, unseen].amax(dim=1))
    margin = torch.cat(margins)
    return max(float(margin.std()), 1e-12) if len(margin) > 1 else 1.0  # one row has no spread, and any unit will do
