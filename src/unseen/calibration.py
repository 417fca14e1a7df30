"""How far a classifier can be trusted, found on rows that validation folds held out: never on test rows.

Everything here takes and returns arrays and knows nothing of methods. Held-out rows are of two kinds, of seen classes and of
classes that played unseen ones. Wherever rows are weighed, each kind counts half and each class within a kind alike, as H
does; where a bound needs rows that count alike, the larger kind is thinned instead.

Scores of different folds are made comparable by the unit in which γ is stated: a fold's scores are divided by the spread of its
margins, and so is the temperature. What is found here is multiplied by the spread of the classifier that is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import Ids
from unseen.errors import DataError, SettingsError
from unseen.evaluation.metrics import class_weights

__all__ = [
    "Abstention",
    "Calibration",
    "HeldOutScores",
    "Neighbours",
    "calibrate",
    "explain",
    "softmax",
    "subtract_gamma",
    "unseen_mass",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

COLDEST, HOTTEST = 1e-2, 1e2
"""Temperatures that are tried, in units of the spread. Where every row is right the best is 0, and the first is taken."""
COARSE, FINE = 81, 41
"""So many are tried in all, and between the two beside the best of these: half a per cent apart."""
BINS = 15
"""Of the expected calibration error: of equal width."""
CONFIDENCES: Array = 1 - np.logspace(0, -4, 41)
"""Thresholds that an abstention is chosen from, 0 to 0.9999, ten a decade of doubt. Fixed beforehand: the bound needs that."""


@dataclass(frozen=True)
class HeldOutScores:
    """What the chosen classifier of one fold says of the rows that the fold held out.

    Args:
        scores: (n, C) in units of the spread, γ not yet subtracted; −∞ for a class that is never taken.
        labels: (n,) columns of the true classes.
        seen: (C,) whether a column's class was seen in the fold.
        rows: (n,) which training rows these are; several folds may hold out the same one.
    """

    scores: Array
    labels: Ids
    seen: Mask
    rows: Ids

    @property
    def of_unseen(self) -> Mask:
        """(n,) whether a row's class played an unseen one."""
        return ~self.seen[self.labels]

    def without_gamma(self, gamma: float) -> Array:
        """(n, C) scores after γ, in units of the spread, is subtracted from those of seen classes."""
        return subtract_gamma(self.scores, self.seen, gamma)


@dataclass(frozen=True)
class Abstention:
    """From which confidence on an answer is given.

    Args:
        threshold: answer where the confidence is at least this.
        risk: share of wrong answers that was asked for; level: how sure one may be that it is not exceeded.
        bound: upper bound, at that level, of the share of wrong answers among those given.
        answered, wrong, rows: how many of so many held-out rows are answered, and wrongly.
    """

    threshold: float
    risk: float
    level: float
    bound: float
    answered: int
    wrong: int
    rows: int


@dataclass(frozen=True)
class Calibration:
    """What held-out rows of all folds say, with γ and the temperature applied.

    Args:
        gamma, temperature: in units of the spread of margins.
        confidence: (n,) probability of the class taken; right: (n,) whether it is the true one.
        unseen_mass: (n,) probability of all unseen classes together; of_unseen: (n,) whether the true class played one.
        weights: (n,) what each row counts; all sum to 1.
        rows: (n,) which training rows these are.
    """

    gamma: float
    temperature: float
    confidence: Array
    right: Mask
    unseen_mass: Array
    of_unseen: Mask
    weights: Array
    rows: Ids

    @property
    def error(self) -> float:
        """Expected calibration error of the confidences."""
        return expected_calibration_error(self.confidence, self.right, self.weights)

    @cached_property
    def flag_threshold(self) -> float:
        """The probability of all unseen classes above which a row is said to be of a class never seen."""
        return choose_flag_threshold(self.unseen_mass, self.of_unseen, self.weights)

    def abstention(self, risk: float, level: float = 0.95) -> Abstention:
        """`choose_abstention` on these rows, each counted once however many folds held it out."""
        _, first = np.unique(self.rows, return_index=True)
        return choose_abstention(self.confidence[first], self.right[first], self.of_unseen[first], risk, level)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name → array, for a saved model."""
        return {
            "gamma": np.array([self.gamma]),
            "temperature": np.array([self.temperature]),
            **{name: getattr(self, name) for name in _PER_ROW},
        }

    @staticmethod
    def of(arrays: Mapping[str, NDArray[Any]]) -> Calibration:
        """The calibration whose `arrays` these are. Raises KeyError where some are missing."""
        per_row = {name: np.array(arrays[name]) for name in _PER_ROW}
        return Calibration(float(arrays["gamma"][0]), float(arrays["temperature"][0]), **per_row)


_PER_ROW = ("confidence", "right", "unseen_mass", "of_unseen", "weights", "rows")


def calibrate(folds: Sequence[HeldOutScores], gamma: float) -> Calibration:
    """Fit the temperature after γ was subtracted, and judge the held-out rows with both.

    Args:
        folds: of the classifier that was chosen.
        gamma: chosen on the same folds, in units of the spread.

    Raises DataError where the folds held out no row of one of the two kinds.
    """
    scores = [fold.without_gamma(gamma) for fold in folds]
    weights = [balanced_weights(fold.labels, fold.of_unseen) / len(folds) for fold in folds]
    of_unseen = np.concatenate([fold.of_unseen for fold in folds])
    if of_unseen.all() or not of_unseen.any():
        raise DataError("the folds held out no rows of one of the two kinds, seen and unseen, so nothing can be calibrated")
    total = sum(float(w.sum()) for w in weights)
    weights = [w / total for w in weights]
    temperature = fit_temperature(scores, [fold.labels for fold in folds], weights)
    probabilities = [softmax(s, temperature) for s in scores]
    return Calibration(
        gamma=gamma,
        temperature=temperature,
        confidence=np.concatenate([p.max(axis=1) for p in probabilities]),
        right=np.concatenate([p.argmax(axis=1) == fold.labels for p, fold in zip(probabilities, folds, strict=True)]),
        unseen_mass=np.concatenate([unseen_mass(p, fold.seen) for p, fold in zip(probabilities, folds, strict=True)]),
        of_unseen=of_unseen,
        weights=np.concatenate(weights),
        rows=np.concatenate([fold.rows for fold in folds]),
    )


# ------------------------------------------------------------------------------------------- scores and probabilities


def subtract_gamma(scores: NDArray[np.floating], seen: Mask, gamma: float) -> Array:
    """(n, C) scores less γ, in their own unit, in the columns of seen classes; float64."""
    return scores.astype(np.float64) - gamma * seen


def softmax(scores: NDArray[np.floating], temperature: float = 1.0) -> Array:
    """(n, C) scores → probabilities at this temperature; a score of −∞ gets none."""
    heated = scores.astype(np.float64) / temperature
    powers = np.exp(heated - heated.max(axis=1, keepdims=True))
    probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def unseen_mass(probabilities: Array, seen: Mask) -> Array:
    """(n,) probability of all unseen classes together."""
    mass: Array = probabilities[:, ~seen].sum(axis=1)
    return mass


# -------------------------------------------------------------------------------------------------------- temperature


def balanced_weights(labels: Ids, of_unseen: Mask) -> Array:
    """(n,) weights: rows of each kind sum to ½, each class within a kind has the same part; all of one kind where the other
    has no row."""
    weights = np.zeros(len(labels))
    kinds = [kind for kind in (of_unseen, ~of_unseen) if kind.any()]
    for kind in kinds:
        weights[kind] = class_weights(labels[kind]) / len(kinds)
    return weights


def fit_temperature(scores: Sequence[Array], labels: Sequence[Ids], weights: Sequence[Array]) -> float:
    """The temperature at which Σ weight · (confidence − right)² is least (Brier, 1950), between `COLDEST` and `HOTTEST`.

    Which class is taken does not depend on it, so only the confidences do. The likelihood of the labels (Guo et al., ICML 2017)
    would do as well but for rows far out: where a class has a handful of rows, a single held-out one can have scores a hundred
    spreads wide, and the likelihood then made every answer look like a guess. Here a row costs 1 at most.

    Args:
        scores: (n, C) of each fold, γ subtracted; labels: (n,) columns; weights: (n,).
    """
    right = [s.argmax(axis=1) == y for s, y in zip(scores, labels, strict=True)]

    def loss(temperature: float) -> float:
        confidences = [softmax(s, temperature).max(axis=1) for s in scores]
        return sum(float(w @ np.square(c - r)) for c, r, w in zip(confidences, right, weights, strict=True))

    coarse = np.geomspace(COLDEST, HOTTEST, COARSE)
    best = int(np.argmin([loss(temperature) for temperature in coarse]))
    fine = np.geomspace(coarse[max(best - 1, 0)], coarse[min(best + 1, COARSE - 1)], FINE)
    return float(fine[np.argmin([loss(temperature) for temperature in fine])])


def expected_calibration_error(confidence: Array, right: Mask, weights: Array | None = None, bins: int = BINS) -> float:
    """Σ over bins of weight · |accuracy − mean confidence| (Naeini et al., AAAI 2015); bin k holds (k/bins, (k+1)/bins].

    Args:
        confidence: (n,) in [0, 1]; right: (n,); weights: (n,) that sum to 1, all alike if not given.
    """
    if weights is None:
        weights = np.full(len(confidence), 1 / max(1, len(confidence)))
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(place, weights * (right - confidence), bins)).sum())


# --------------------------------------------------------------------------------------------------- flag and abstention


def choose_flag_threshold(mass: Array, of_unseen: Mask, weights: Array) -> float:
    """The threshold of best balanced accuracy for "of an unseen class where the mass is above it".

    Where a whole interval is equally good its middle is taken; of several, the lowest.

    Args:
        mass: (n,) probability of all unseen classes; of_unseen: (n,); weights: (n,), normalised here within each kind.
    """
    values, place = np.unique(mass, return_inverse=True)
    kinds = [np.bincount(place, weights * kind, len(values)) for kind in (of_unseen, ~of_unseen)]
    of_unseen_at, of_seen_at = (kind / kind.sum() if kind.sum() > 0 else kind for kind in kinds)
    # A threshold at values[k] flags what lies above it; before the first value everything is flagged.
    gain = np.concatenate([[0.0], np.cumsum(of_seen_at - of_unseen_at)])
    edges = np.concatenate([[0.0], values, [1.0]])
    best = gain >= gain.max() - 1e-12
    first = int(np.argmax(best))
    after = first + int(np.argmin(np.append(best[first:], False)))
    return float((edges[first] + edges[after]) / 2)


def choose_abstention(
    confidence: Array, right: Mask, of_unseen: Mask, risk: float, level: float = 0.95, seed: int = 0
) -> Abstention:
    """The lowest threshold at which the share of wrong answers among those given is at most `risk`, with a bound for it.

    Learn then test (Angelopoulos et al., 2021): each of `CONFIDENCES` is tested by the exact upper bound of a binomial share
    (Clopper and Pearson, 1934) at level 1 − (1 − level)/k, k thresholds together (Bonferroni). With probability `level` no
    threshold whose bound is at most `risk` exceeds it. This holds for rows drawn as the held-out ones are, as many of seen as
    of unseen classes, and a classifier that is fixed beforehand. But the folds' classifiers, chosen on these very rows, stand
    for the one that is kept, and rows of one class are alike: for other classes the bound is a guide and no guarantee.

    Args:
        confidence: (n,) probability of the class taken; right: (n,); of_unseen: (n,).
        risk: above 0, below 1; level: of all bounds together.
        seed: of which rows of the larger kind are counted.

    Raises:
        SettingsError: risk or level is no share.
        DataError: no threshold reaches the risk.
    """
    for name, share in (("risk", risk), ("level", level)):
        if not 0 < share < 1:
            raise SettingsError(f"{name}={share} cannot work; give a share above 0 and below 1")
    kept = thinned(of_unseen, seed)
    confidence, right = confidence[kept], right[kept]
    each = 1 - (1 - level) / len(CONFIDENCES)
    lowest, at = 1.0, 0.0
    for threshold in CONFIDENCES:
        given = confidence >= threshold
        answered, wrong = int(given.sum()), int((given & ~right).sum())
        bound = upper_bound(wrong, answered, each)
        if bound <= risk:
            return Abstention(float(threshold), risk, level, bound, answered, wrong, len(kept))
        if bound < lowest:
            lowest, at = bound, float(threshold)
    raise DataError(
        f"no confidence keeps the share of wrong answers at {risk:g} or below with {level:.0%} certainty; the least that "
        f"{len(kept)} held-out rows can promise is {lowest:.3f}, from confidence {at:.4f} on: ask for that, or give more rows"
    )


def thinned(of_unseen: Mask, seed: int) -> Ids:
    """Sorted rows, as many of seen as of unseen classes: all of the smaller kind, of the larger a draw without replacement."""
    kinds = [np.flatnonzero(of_unseen), np.flatnonzero(~of_unseen)]
    count = min(map(len, kinds))
    generator = np.random.default_rng(seed)
    return np.sort(np.concatenate([generator.permutation(kind)[:count] for kind in kinds]))


def upper_bound(wrong: int, answered: int, level: float) -> float:
    """Clopper and Pearson's one-sided upper bound of a binomial share; 1 where nothing was answered."""
    from scipy.stats import beta

    return float(beta.ppf(level, wrong + 1, answered - wrong)) if wrong < answered else 1.0


# ------------------------------------------------------------------------------------------------------------ explain


@dataclass(frozen=True)
class Neighbours:
    """What lies nearest to each of n rows, nearest first.

    Args:
        seen, unseen: (n, k) class ids, or labels: whose real mean, and whose synthetic prototype, it is.
        seen_distances, unseen_distances: (n, k) Euclidean, in represented space.
    """

    seen: NDArray[Any]
    seen_distances: Array
    unseen: NDArray[Any]
    unseen_distances: Array

    def labelled(self, labels: NDArray[Any]) -> Neighbours:
        """The same with labels (C,) in place of ids."""
        return replace(self, seen=labels[self.seen], unseen=labels[self.unseen])


def explain(rows: NDArray[np.floating], prototypes: NDArray[np.floating], seen: Mask, count: int = 3) -> Neighbours:
    """The nearest means of seen classes and the nearest synthetic prototypes of unseen ones.

    Args:
        rows: (n, d') represented.
        prototypes: (C, d') of each class the mean of its real represented rows if it is seen, else of its synthetic ones; NaN
            for a class without rows, which is never near.
        seen: (C,); count: how many of each kind, or as many as there are.
    """
    known = np.isfinite(prototypes).all(axis=1)
    found = [_nearest(rows, prototypes, np.flatnonzero(known & kind), count) for kind in (seen, ~seen)]
    return Neighbours(*found[0], *found[1])


def _nearest(rows: NDArray[np.floating], prototypes: NDArray[np.floating], classes: Ids, count: int) -> tuple[Ids, Array]:
    """(n, k) ids of these classes and their distances; equally near ones in the order of their ids."""
    x, of_classes = rows.astype(np.float64), prototypes[classes].astype(np.float64)
    squares = np.stack([np.square(x - prototype).sum(axis=1) for prototype in of_classes], axis=1) if len(classes) else None
    if squares is None:
        return np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0))
    order = np.argsort(squares, axis=1, kind="stable")[:, :count]
    return classes[order], np.sqrt(np.take_along_axis(squares, order, axis=1))
