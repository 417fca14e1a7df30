"""T1, S, U, H and AUSUC, per class, exactly as the field defines them.

Every generalized figure follows from three facts about a row: the best seen class, the best unseen class, and the margin
between their scores. A row is taken for its best seen class when the margin exceeds γ (calibrated stacking, Chao et al.,
ECCV 2016, eq. 5), else for its best unseen class. So γ moves a prediction only between these two, and the whole
seen-unseen curve is a sort of the margins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import Ids

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Decisions:
    """What a classifier thinks of n rows, reduced to what every generalized figure needs.

    Args:
        best_seen, best_unseen: (n,) class ids with the highest score among seen and among unseen classes.
        margin: (n,) score of the best seen class minus that of the best unseen class.
    """

    best_seen: Ids
    best_unseen: Ids
    margin: Array

    @staticmethod
    def from_scores(scores: NDArray[np.floating], seen: Ids, unseen: Ids) -> Decisions:
        """Reduce (n, C) scores; column c is the score of class c."""
        among_seen, among_unseen = scores[:, seen], scores[:, unseen]
        first, second = among_seen.argmax(axis=1), among_unseen.argmax(axis=1)
        rows = np.arange(len(scores))
        margin = among_seen[rows, first].astype(np.float64) - among_unseen[rows, second].astype(np.float64)
        return Decisions(seen[first], unseen[second], margin)

    def predict(self, gamma: float = 0.0) -> Ids:
        """(n,) class ids after γ, in units of the scores, is subtracted from the scores of seen classes."""
        return np.where(self.margin > gamma, self.best_seen, self.best_unseen)


def class_weights(labels: Ids) -> Array:
    """(n,) weights that give every class present the same say: Σ over a class is 1/number of classes; all sum to 1.

    A class without a row has no weight, so it is left out of the average instead of making it NaN.
    """
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return 1.0 / (counts[inverse] * len(counts))


def per_class_accuracy(labels: Ids, predicted: Ids) -> float:
    """Mean over classes of the share of each class's rows that are right (Xian et al., 2019, eq. 8)."""
    return float(class_weights(labels) @ (labels == predicted)) if len(labels) else float("nan")


def harmonic_mean(seen: float, unseen: float) -> float:
    """H = 2SU / (S + U), 0 where both are 0."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen > 0 else 0.0


@dataclass(frozen=True)
class SeenUnseenCurve:
    """S and U at every distinct value of γ, both ends included: from all rows taken for seen classes to none.

    Args:
        gamma: (k,) lower ends of the intervals of γ on which nothing changes; the first is −∞.
        seen, unseen: (k,) S and U there; S falls, U rises.
    """

    gamma: Array
    seen: Array
    unseen: Array

    @staticmethod
    def of(seen: Decisions, seen_labels: Ids, unseen: Decisions, unseen_labels: Ids) -> SeenUnseenCurve:
        """The curve of decisions on test rows of seen and of unseen classes."""
        # Raising γ past a row's margin moves the row from its best seen class to its best unseen class.
        lost = class_weights(seen_labels) * (seen.best_seen == seen_labels)
        won = class_weights(unseen_labels) * (unseen.best_unseen == unseen_labels)
        breakpoints, position = np.unique(np.concatenate([seen.margin, unseen.margin]), return_inverse=True)
        lost_at = np.bincount(position[: len(lost)], lost, len(breakpoints))
        won_at = np.bincount(position[len(lost) :], won, len(breakpoints))
        return SeenUnseenCurve(
            gamma=np.concatenate([[-np.inf], breakpoints]),
            seen=np.maximum(0.0, lost.sum() - np.concatenate([[0.0], np.cumsum(lost_at)])),
            unseen=np.concatenate([[0.0], np.cumsum(won_at)]),
        )

    @property
    def area(self) -> float:
        """AUSUC: trapezoids under U over S."""
        return float(np.sum((self.seen[:-1] - self.seen[1:]) * (self.unseen[:-1] + self.unseen[1:]) / 2))

    def at(self, gamma: NDArray[np.floating] | float) -> tuple[Array, Array]:
        """S and U for these values of γ."""
        index = np.searchsorted(self.gamma, gamma, side="right") - 1
        return self.seen[index], self.unseen[index]

    def harmonic_mean_at(self, gamma: NDArray[np.floating] | float) -> Array:
        """H for these values of γ."""
        seen, unseen = self.at(gamma)
        total = seen + unseen
        return np.divide(2 * seen * unseen, total, out=np.zeros_like(total), where=total > 0)


def choose_gamma(curves: list[SeenUnseenCurve], spreads: list[float]) -> tuple[float, float]:
    """The γ, in units of each fold's spread, with the highest mean H over folds, and that mean.

    γ is measured in the spread of the margin so that a value found on one fold means the same on another, whose scores may
    be larger. Where a whole range of γ is equally good, a value well inside is taken, as the least sensitive choice: halfway
    between the middles of its first and its last piece, where rows' margins, and 0, cut it into pieces. Where H is 0 for every
    γ none is better than 0.
    """
    grid = np.unique(np.concatenate([[0.0], *(c.gamma[1:] / s for c, s in zip(curves, spreads, strict=True))]))
    if len(grid) > 1:
        grid = np.concatenate([grid[:1], (grid[:-1] + grid[1:]) / 2, grid[-1:]])
    mean = np.mean([c.harmonic_mean_at(grid * s) for c, s in zip(curves, spreads, strict=True)], axis=0)
    best = float(mean.max())
    if best == 0:
        return 0.0, 0.0
    equal = np.flatnonzero(mean >= best - 1e-12)
    # only the run of equal values around the first one: a second run elsewhere has another middle
    end = equal[0] + int(np.argmin(np.append(np.diff(equal) == 1, False)))
    return float((grid[equal[0]] + grid[end]) / 2), best


def interval_of_h(
    seen_labels: Ids, seen_right: NDArray[np.bool_], unseen_labels: Ids, unseen_right: NDArray[np.bool_], seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of H over test rows, resampled within each class; the classes themselves stay.

    Drawing n rows with replacement from a class with share p right gives a binomial count, so no row is ever copied.
    """
    generator = np.random.default_rng(seed)

    def resampled(labels: Ids, right: NDArray[np.bool_]) -> Array:
        _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        share = np.bincount(inverse, right) / counts
        mean: Array = (generator.binomial(counts, share, (2000, len(counts))) / counts).mean(axis=1)
        return mean

    seen, unseen = resampled(seen_labels, seen_right), resampled(unseen_labels, unseen_right)
    total = seen + unseen
    h = np.divide(2 * seen * unseen, total, out=np.zeros_like(total), where=total > 0)
    low, high = np.quantile(h, [0.025, 0.975])
    return float(low), float(high)


def interval_of_difference(
    seen_labels: Ids,
    seen_right: list[NDArray[np.bool_]],
    unseen_labels: Ids,
    unseen_right: list[NDArray[np.bool_]],
    seed: int = 0,
) -> tuple[float, float]:
    """95 % bootstrap interval of H(first) − H(second) of two systems on the same test rows, resampled within each class.

    The same resampled rows count for both, so what makes a row easy or hard for either cancels.
    """
    generator = np.random.default_rng(seed)

    def resampled(labels: Ids, right: list[NDArray[np.bool_]]) -> Array:
        """(2, 2000) per-class accuracies of both systems."""
        _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        # A row is right for both, the first, the second or neither: within a class the four counts are multinomial.
        kind = 2 * right[0].astype(np.int64) + right[1]
        total = np.zeros((2, 2000))
        for class_id, count in enumerate(counts):
            shares = np.bincount(kind[inverse == class_id], minlength=4) / count
            drawn = generator.multinomial(count, shares, 2000) / count
            total += np.stack([drawn[:, 2] + drawn[:, 3], drawn[:, 1] + drawn[:, 3]])
        mean: Array = total / len(counts)
        return mean

    seen, unseen = resampled(seen_labels, seen_right), resampled(unseen_labels, unseen_right)
    total = seen + unseen
    h = np.divide(2 * seen * unseen, total, out=np.zeros_like(total), where=total > 0)
    low, high = np.quantile(h[0] - h[1], [0.025, 0.975])
    return float(low), float(high)
