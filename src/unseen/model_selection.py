"""Cross-validation by class, for scikit-learn: what ordinary cross-validation cannot measure.

`KFold` and its kin divide rows, so every class has rows in training and nothing is unseen. `ClassFolds` holds whole classes
out of training, as the validation folds of the blind protocol do, and the scorers here judge both kinds of class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_consistent_length, check_random_state

from unseen.data.dataset import Ids
from unseen.errors import DataError, SettingsError
from unseen.evaluation.folds import deal
from unseen.evaluation.metrics import harmonic_mean, per_class_accuracy

__all__ = ["ClassFolds", "harmonic_mean_scorer", "seen_unseen_scorer"]


class ClassFolds(BaseCrossValidator):  # type: ignore[misc]  # scikit-learn has no types
    """Folds whose test rows are all rows of some classes, absent from training, and a share of each other class's rows.

    Usable as `cv` of `cross_validate`, `GridSearchCV` and the like, but not of `cross_val_predict`, which wants each row tested
    once. Score with `harmonic_mean_scorer`; plain accuracy counts rows of both kinds alike. Folds hold out different classes as
    far as there are enough.

    Args:
        n_splits: how many folds.
        unseen: which part of the classes each fold holds out: a share of them, or their number. A share is rounded to whole
            classes, to one at least.
        test_seen: share of the rows of each other class that go to test, rounded down, but one row at least; a class's only
            row stays in training. With 0 the folds test on unseen classes alone.
        random_state: the same int gives the same folds at each call. None draws from NumPy's global state.

    Raises:
        SettingsError: one of these values cannot work.
    """

    # Routes `groups` to `split` also where metadata routing is enabled, without set_split_request(groups=True).
    __metadata_request__split: ClassVar[dict[str, bool]] = {"groups": True}

    def __init__(self, n_splits: int = 3, *, unseen: float = 0.2, test_seen: float = 0.2, random_state: Any = None) -> None:
        if not _is_whole(n_splits) or n_splits < 1:
            raise SettingsError(f"n_splits is the number of folds, 1 or more, not {n_splits!r}")
        if not (unseen >= 1 if _is_whole(unseen) else _is_share(unseen) and unseen > 0):
            raise SettingsError(
                f"unseen is a share of the classes between 0 and 1, or their number, an integer of 1 or more, not {unseen!r}"
            )
        if not _is_share(test_seen):
            raise SettingsError(f"test_seen is a share of the rows of a class, from 0 to below 1, not {test_seen!r}")
        self.n_splits = n_splits
        self.unseen = unseen
        self.test_seen = test_seen
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """How many folds; the arguments are scikit-learn's and change nothing."""
        return int(self.n_splits)

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Ids, Ids]]:
        """Yield the training rows and the test rows of each fold, sorted; every row is in one of the two.

        Args:
            X: (n, …) anything with rows, of which only the number counts; or None.
            y: (n,) labels: numbers, texts, whatever `numpy.unique` can sort.
            groups: (n,) one value a row, the same for all rows of a class (its genus, its shelf): classes of one group are
                held out together, and a fold holds out as near to `unseen` classes as whole groups come.

        Raises:
            DataError: there are too few classes or rows, the groups are too large, or a class has rows in two of them.
            SettingsError: `random_state` is not what scikit-learn takes.
        """
        if y is None:
            raise DataError("ClassFolds divides rows by class, so it needs y, the label of each row")
        try:
            check_consistent_length(X, y, groups)
        except (TypeError, ValueError):
            raise DataError("X, y and groups must have the same number of rows, one label and one group a row") from None
        names, labels = _distinct(y, "y", "label")
        classes = np.arange(len(names))
        wanted = int(self.unseen) if _is_whole(self.unseen) else max(1, round(len(names) * self.unseen))
        if len(names) - wanted < 2:
            raise DataError(
                f"{len(names)} classes are too few to hold {wanted} of them out and learn from two others; "
                "give a smaller `unseen`, or data with more classes"
            )
        group_of = classes if groups is None else _group_of_each_class(names, labels, groups)
        count, share = self.get_n_splits(), float(self.test_seen)
        dealt = list(deal(labels, classes, group_of, self._generator(), count=count, wanted=wanted, share=share))
        if not all(len(fold.classes) for fold in dealt):
            raise DataError(
                f"the groups of the {len(names)} classes are too large to hold whole groups out and still learn from two "
                "classes; give smaller groups, or none"
            )
        if self.test_seen > 0 and not any(len(fold.seen_rows) for fold in dealt):
            raise DataError("no class has two rows, so none can be both learned and tested; give test_seen=0, or more rows")
        for fold in dealt:
            test = np.sort(np.concatenate([fold.seen_rows, fold.unseen_rows]))
            yield np.setdiff1d(np.arange(len(labels)), test), test

    def _generator(self) -> np.random.Generator:
        if _is_whole(self.random_state) and self.random_state >= 0:
            return np.random.default_rng(int(self.random_state))
        try:
            state = check_random_state(self.random_state)
        except ValueError:
            raise SettingsError(
                f"random_state is an integer of 0 or more, a numpy.random.RandomState or None, not {self.random_state!r}"
            ) from None
        return np.random.default_rng(state.randint(2**31))


def harmonic_mean_scorer(estimator: Any, X: Any, y: Any) -> float:
    """H of a fitted estimator on test rows of seen and unseen classes: pass it as `scoring` together with `ClassFolds`.

    See `seen_unseen_scorer`, which gives S and U as well, for what is asked of the estimator.

    Raises:
        DataError: there is no test row of a seen class, or of an unseen one, so H is not defined.
        SettingsError: the estimator does not say which classes it has seen.
    """
    scores = seen_unseen_scorer(estimator, X, y)
    for kind, figure in (("seen", "S"), ("unseen", "U")):
        if math.isnan(scores[figure]):
            raise DataError(
                f"H needs rows of seen and of unseen classes, and none of these {len(y)} rows is of a class that is {kind}; "
                "divide the rows with ClassFolds and a test_seen above 0"
            )
    return scores["H"]


def seen_unseen_scorer(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    """S, U and H of a fitted estimator, for `scoring` of `cross_validate` or, with refit="H", of `GridSearchCV`.

    Args:
        estimator: answers `predict` with any class it knows, seen or not. Its `seen_classes_` are the labels it had rows of;
            a pipeline is asked for those of its last step, a search for those of its best estimator.
        X: test rows.
        y: (n,) their labels; what is not in `seen_classes_` counts as unseen.

    Returns:
        {"S": …, "U": …, "H": …}, accuracies averaged over classes; NaN where no row speaks for it.

    Raises:
        SettingsError: the estimator does not say which classes it has seen.
    """
    labels, predicted = np.asarray(y), np.asarray(estimator.predict(X))
    of_seen = np.isin(labels, list(_seen_classes(estimator)))
    seen = per_class_accuracy(labels[of_seen], predicted[of_seen])
    unseen = per_class_accuracy(labels[~of_seen], predicted[~of_seen])
    undefined = math.isnan(seen) or math.isnan(unseen)
    return {"S": seen, "U": unseen, "H": math.nan if undefined else harmonic_mean(seen, unseen)}


def _seen_classes(estimator: Any) -> Any:
    asked = estimator
    while not hasattr(asked, "seen_classes_"):
        if hasattr(asked, "best_estimator_"):
            asked = asked.best_estimator_
        elif hasattr(asked, "steps"):
            asked = asked.steps[-1][1]
        else:
            raise SettingsError(
                f"{type(estimator).__name__} does not say which classes it has seen; "
                "let fit store the labels that it had rows of as seen_classes_"
            )
    return asked.seen_classes_


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < 1


def _distinct(values: Any, name: str, what: str) -> tuple[NDArray[Any], Ids]:
    """The different values, sorted, and for each row the number of its own."""
    try:
        rows = np.asarray(values)
        missing = bool(np.any(rows != rows))  # NaN
        distinct, inverse = np.unique(rows, return_inverse=True)
    except (TypeError, ValueError):  # None among texts, texts among numbers, lists of different lengths
        raise DataError(f"{name} must hold one {what} a row, none missing and all of one kind") from None
    if rows.ndim != 1:
        raise DataError(f"{name} must hold one {what} a row, and its shape is {rows.shape}")
    if missing:
        raise DataError(f"{name} must hold one {what} a row, and some are missing")
    return distinct, inverse.astype(np.int64)


def _group_of_each_class(names: NDArray[Any], labels: Ids, groups: Any) -> Ids:
    """(C,) group numbers. Raises DataError where the rows of a class have different ones."""
    distinct, group_of_row = _distinct(groups, "groups", "group")
    group_of = np.zeros(len(names), np.int64)
    group_of[labels] = group_of_row
    astray = np.flatnonzero(group_of[labels] != group_of_row)
    if len(astray):
        row = astray[0]
        one, other = (str(distinct[group]) for group in (group_of_row[row], group_of[labels[row]]))
        raise DataError(
            f"class {str(names[labels[row]])!r} has rows in the groups {one!r} and {other!r}; "
            "give all rows of a class the same group"
        )
    return group_of
