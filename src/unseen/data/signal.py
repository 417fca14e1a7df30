"""Do the class embeddings say anything about the features? Asked of the training rows alone, before anything is trained.

Some seen classes play the unseen ones, as in validation. class-Gaussian predicts their means from their embeddings and
classifies their rows among them. Then the embeddings are shuffled among the classes and the same is done again, many times:
what accuracy remains is chance. Reference: Ojala & Garriga, "Permutation Tests for Studying Classifier Performance", JMLR 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import Dataset, Ids
from unseen.errors import SettingsError
from unseen.evaluation.folds import Fold, cut_folds

FOLDS = 3
PERMUTATIONS = 99
MOST_ROWS = 20_000
"""Training rows looked at; of more, as many of each class as keep to it are drawn."""
MOST_DIMENSIONS = 2048
"""Longer features are projected at random to so many dimensions, which keeps distances nearly and the time within bounds."""
SIGNIFICANT = 0.05
FEWEST = 19
"""Permutations: p is at least 1 / (1 + permutations), so fewer cannot tell, whatever the embeddings say."""


@dataclass(frozen=True)
class Signal:
    """How well embeddings predict the features of classes without a training row, and how well shuffled ones do.

    Args:
        accuracy: per-class accuracy among the pseudo-unseen classes, averaged over folds.
        by_chance: the same with shuffled embeddings, averaged over permutations.
        p: (1 + permutations at least as accurate) / (1 + permutations).
        classes: how many training classes the folds are cut from.
    """

    accuracy: float
    by_chance: float
    p: float
    permutations: int
    classes: int

    @property
    def carries(self) -> bool:
        """Better than chance, and not by luck."""
        return self.p <= SIGNIFICANT and self.accuracy > self.by_chance


def permutation_test(dataset: Dataset, split: str | None = None, permutations: int = PERMUTATIONS, seed: int = 0) -> Signal:
    """Test a split's training rows; no test row and no embedding of an unseen class is read.

    Raises:
        DataError: there are too few seen classes to cut folds from.
        SettingsError: there are too few permutations to tell anything.
    """
    check_permutations(permutations)
    chosen = dataset.split(split)
    rows = _some_rows(dataset.labels[chosen.train], seed)
    thinner = replace(dataset, splits={chosen.name: replace(chosen, train=chosen.train[rows])})
    view = thinner.training_view(chosen.name)
    generator = np.random.default_rng(seed)
    if (d := view.features.shape[1]) > MOST_DIMENSIONS:
        projection = generator.standard_normal((d, MOST_DIMENSIONS), np.float32) / np.float32(MOST_DIMENSIONS**0.5)
        view = replace(view, features=view.features @ projection)
    folds = [_PreparedFold(fold) for fold in cut_folds(view, FOLDS, seed)]
    embeddings = view.classes.embeddings[view.seen].astype(np.float64)
    accuracy = _accuracy(folds, embeddings)
    shuffled = [_accuracy(folds, embeddings[generator.permutation(len(embeddings))]) for _ in range(permutations)]
    at_least = sum(value >= accuracy - 1e-12 for value in shuffled)
    by_chance = float(np.mean(shuffled)) if shuffled else float("nan")
    return Signal(accuracy, by_chance, (1 + at_least) / (1 + permutations), permutations, len(view.seen))


def check_permutations(permutations: int) -> None:
    """SettingsError for fewer than can tell anything."""
    if permutations < FEWEST:
        raise SettingsError(
            f"{permutations} permutations are too few to tell anything, as p cannot fall below 1 in {permutations + 1}; give "
            f"{FEWEST} or more"
        )


def _accuracy(folds: Sequence[_PreparedFold], embeddings: NDArray[np.float64]) -> float:
    return float(np.mean([fold.accuracy(embeddings) for fold in folds]))


class _PreparedFold:
    """All of class-Gaussian on a fold that does not depend on the embeddings, so that a permutation takes milliseconds.

    In features whitened by the within-class covariance it is the nearest mean. Measured from the average of the fold-seen
    means, let M (S, d) be these means and A (U, S) the weights that the regression gives them: a pseudo-unseen mean is A M, and
    −‖x − A M‖² is 2 x MᵀAᵀ − diag(A M Mᵀ Aᵀ) and a term that is the same for all classes. So x Mᵀ and M Mᵀ are all it takes.
    """

    def __init__(self, fold: Fold) -> None:
        from unseen.scaling import FeatureScaler, class_means

        view, held_out = fold.view, fold.held_out
        scaler = FeatureScaler.fit("whitened", view.features, view.labels)
        means = class_means(scaler(view.features).astype(np.float64), view.labels)
        self.seen, self.unseen = view.seen, view.unseen
        self.labels: Ids = np.searchsorted(view.unseen, held_out.unseen_labels)
        average = means.mean(axis=0)
        centred = means - average
        self.rows = (scaler(held_out.unseen_features).astype(np.float64) - average) @ centred.T
        self.gram = centred @ centred.T

    def accuracy(self, embeddings: NDArray[np.float64]) -> float:
        """Mean over the pseudo-unseen classes of the share of their rows that is put among them rightly."""
        predicted = self.scores(embeddings).argmax(axis=1)
        counts = np.bincount(self.labels, minlength=len(self.unseen))
        right = np.bincount(self.labels, weights=predicted == self.labels, minlength=len(self.unseen))
        return float(np.mean(right / counts))

    def scores(self, embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
        """(rows, pseudo-unseen classes); a higher one is likelier."""
        from unseen.methods.class_gaussian import ClassGaussian
        from unseen.scaling import EmbeddingScaler

        e = EmbeddingScaler.fit(embeddings, self.seen, centred=True)(embeddings).astype(np.float64)
        kernel = e[self.seen] @ e[self.seen].T + ClassGaussian.ridge * np.eye(len(self.seen))
        weights = np.linalg.solve(kernel, e[self.seen] @ e[self.unseen].T).T
        scores: NDArray[np.float64] = 2 * self.rows @ weights.T - np.einsum("us,st,ut->u", weights, self.gram, weights)
        return scores


def _some_rows(labels: Ids, seed: int) -> Ids:
    """All rows, or of each class as many as keep to `MOST_ROWS`, two at least."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(labels) <= MOST_ROWS:
        return np.arange(len(labels))
    low, high = 2, int(counts.max())
    while low < high:  # the largest number a class that keeps to it
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(counts, middle).sum() <= MOST_ROWS else (low, middle - 1)
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(np.flatnonzero(labels == class_id))[:low] for class_id in classes]
    return np.sort(np.concatenate(drawn))
