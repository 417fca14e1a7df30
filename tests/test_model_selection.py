"""Folds by class hold whole classes out, in scikit-learn's own cross-validation too, and the scorers judge both kinds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    check_cv,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unseen.data import Dataset
from unseen.errors import DataError, SettingsError
from unseen.evaluation.folds import cut_folds
from unseen.model_selection import ClassFolds, harmonic_mean_scorer, seen_unseen_scorer

Rows = np.ndarray
ROWS = (1, 2, 4, 5, 9, 10, 12, 13, 20, 3)  # of the ten classes of `labels`


@pytest.fixture(scope="module")
def labels() -> Rows:
    """Ten classes of different sizes, rows shuffled; the labels are neither 0, 1, 2, … nor in their order."""
    return np.random.default_rng(3).permutation(np.repeat(np.array([7, -3, 40, 5, 11, 2, 100, 8, 61, 23]), ROWS))


def held_out(y: Rows, train: Rows) -> set[Any]:
    return set(y) - set(y[train])


# --- what is held out


@pytest.mark.parametrize("test_seen", [0.0, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("unseen", [0.2, 0.35, 1, 5, 8])
def test_a_fold_tests_on_whole_classes_and_a_share_of_the_others(labels: Rows, unseen: float, test_seen: float) -> None:
    folds = list(ClassFolds(4, unseen=unseen, test_seen=test_seen, random_state=1).split(None, labels))
    assert len(folds) == 4
    for train, test in folds:
        assert train.dtype == test.dtype == np.int64
        assert train.tolist() == sorted(train)
        assert test.tolist() == sorted(test)
        assert sorted([*train, *test]) == list(range(len(labels)))
        unseen_classes = held_out(labels, train)
        assert len(unseen_classes) == {0.2: 2, 0.35: 4}.get(unseen, unseen)  # round(3.5) is 4
        for label in set(labels) - unseen_classes:
            rows, tested = np.sum(labels == label), np.sum(labels[test] == label)
            assert tested == (max(1, int(test_seen * rows)) if rows > 1 and test_seen else 0), label


def test_folds_hold_out_different_classes_while_there_are_enough(labels: Rows) -> None:
    held = [label for train, _ in ClassFolds(5, random_state=0).split(None, labels) for label in held_out(labels, train)]
    assert sorted(held) == sorted(set(labels))  # 5 · 2 of 10: each class once
    held = [c for train, _ in ClassFolds(5, unseen=4, random_state=0).split(None, labels) for c in held_out(labels, train)]
    assert {held.count(label) for label in held} == {2}  # 5 · 4 of 10


def test_a_small_share_is_one_class_at_least() -> None:
    y = np.repeat([0, 1, 2], 4)
    for train, _ in ClassFolds(unseen=0.01, random_state=0).split(None, y):
        assert len(held_out(y, train)) == 1


def test_an_integer_repeats_the_folds_and_leaves_the_global_state_alone(labels: Rows) -> None:
    folds = ClassFolds(random_state=np.int64(4))
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    first, again = list(folds.split(None, labels)), list(folds.split(None, labels))
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert str(first) == str(again) == str(list(ClassFolds(random_state=4).split(None, labels)))
    assert str(first) != str(list(ClassFolds(random_state=5).split(None, labels)))


def test_other_random_states_are_scikit_learns(labels: Rows) -> None:
    def cut(state: Any) -> str:
        return str(list(ClassFolds(random_state=state).split(None, labels)))

    state = np.random.RandomState(0)
    assert cut(state) != cut(state)  # it moves on
    assert cut(np.random.RandomState(0)) == cut(np.random.RandomState(0))
    before = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(1)  # noqa: NPY002
        first, second = cut(None), cut(None)
        np.random.seed(1)  # noqa: NPY002
        assert cut(None) == first != second
    finally:
        np.random.set_state(before)  # noqa: NPY002


@pytest.mark.parametrize("groups", [0, 12])
def test_folds_are_those_of_the_blind_protocol(tiny_world: Callable[..., Dataset], groups: int) -> None:
    view = tiny_world(seen=24, unseen=6, groups=groups).training_view("main")
    wanted = round(len(view.seen) * len(view.unseen) / len(view.classes))
    group_names = np.array(view.classes.groups)[view.labels] if groups else None
    theirs = ClassFolds(3, unseen=wanted, random_state=8).split(view.features, view.labels, group_names)
    for fold, (train, test) in zip(cut_folds(view, 3, seed=8), theirs, strict=True):
        np.testing.assert_array_equal(fold.view.features, view.features[train])
        assert set(test) == {*fold.held_out.seen_rows, *fold.held_out.unseen_rows}


# --- what labels, rows and groups may be


def kinds_of_labels() -> Iterator[Any]:
    """The same thirty rows of six classes under other names that sort the same way, in other containers."""
    numbers = np.arange(30) * 7 % 6
    texts = [f"kind {n} <b>" for n in numbers]
    yield from (numbers.tolist(), numbers.astype(np.uint8), numbers / 4 - 1, texts, np.array(texts), np.array(texts, object))
    yield np.array(["2020-01-01"], "M8[D]") + numbers
    try:
        import pandas as pd
    except ImportError:
        return
    yield from (
        pd.Series(texts, index=range(90, 60, -1)),
        pd.Series(texts).astype("category"),
        pd.Series(numbers, dtype="Int64"),
    )


@pytest.mark.parametrize("y", list(kinds_of_labels()), ids=lambda y: f"{type(y).__name__}-{getattr(y, 'dtype', '')}")
def test_only_the_order_of_labels_counts(y: Any) -> None:
    expected = list(ClassFolds(random_state=2).split(np.zeros((30, 2)), np.arange(30) * 7 % 6))
    assert str(list(ClassFolds(random_state=2).split([[0]] * 30, y))) == str(expected)


def test_whole_groups_of_classes_stay_together() -> None:
    y = np.repeat([f"species {i}" for i in range(12)], 5)
    genus = {f"species {i}": f"genus {i // 3}" for i in range(12)}
    folds = list(ClassFolds(4, unseen=0.25, random_state=0).split(None, y, [genus[label] for label in y]))
    held = [{genus[label] for label in held_out(y, train)} for train, _ in folds]
    assert sorted(len(genera) for genera in held) == [1] * 4
    assert set.union(*held) == set(genus.values())
    for train, _ in folds:
        assert not {genus[label] for label in held_out(y, train)} & {genus[label] for label in y[train]}


def test_a_class_in_two_groups_is_refused() -> None:
    groups = ["a"] * 10 + ["b"] * 9 + ["a"]
    sentence = r"^class '3' has rows in the groups 'b' and 'a'; give all rows of a class the same group$"
    with pytest.raises(DataError, match=sentence):
        next(ClassFolds().split(None, np.repeat([0, 1, 2, 3], 5), groups))


# --- in scikit-learn


class NearestEmbedding(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Maps features to class embeddings by ridge regression and answers the class whose embedding is nearest.

    Knows the embeddings of all classes; `handicap` is added to the distance of seen ones.
    """

    def __init__(self, embeddings: Any = None, alpha: float = 1.0, handicap: float = 0.0) -> None:
        self.embeddings = embeddings
        self.alpha = alpha
        self.handicap = handicap

    def fit(self, X: Any, y: Any) -> NearestEmbedding:
        X, y = np.asarray(X), np.asarray(y)
        self.classes_ = np.array(sorted(self.embeddings))
        self.table_ = np.array([self.embeddings[c] for c in self.classes_])
        self.seen_classes_ = np.unique(y)
        targets = self.table_[np.searchsorted(self.classes_, y)]
        self.map_ = np.linalg.solve(X.T @ X + self.alpha * np.eye(X.shape[1]), X.T @ targets)
        return self

    def predict(self, X: Any) -> Rows:
        distance = np.linalg.norm((np.asarray(X) @ self.map_)[:, None] - self.table_, axis=2)
        return self.classes_[(distance + self.handicap * np.isin(self.classes_, self.seen_classes_)).argmin(axis=1)]


@pytest.fixture(scope="module")
def species() -> tuple[Rows, Rows, dict[str, Rows], list[str]]:
    """Features, labels and embeddings of twelve species, ten rows each, and the genus of each row."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(12, 6))
    y = np.repeat([f"species {i:02d}" for i in range(12)], 10)
    X = (embeddings @ rng.normal(size=(6, 16))).repeat(10, axis=0) + 2.0 * rng.normal(size=(120, 16))
    table = dict(zip(sorted(set(y)), embeddings, strict=True))
    return X, y, table, [f"genus {i // 3}" for i in range(12) for _ in range(10)]


def by_hand(estimator: Any, X: Rows, y: Rows, folds: ClassFolds, groups: Any = None) -> list[tuple[float, float, float]]:
    """(S, U, H) of each fold, class by class and row by row."""
    out = []
    for train, test in folds.split(X, y, groups):
        predicted = sklearn.clone(estimator).fit(X[train], y[train]).predict(X[test])
        shares: dict[bool, list[float]] = {True: [], False: []}
        for label in sorted(set(y[test])):
            right = [p == label for p, t in zip(predicted, y[test], strict=True) if t == label]
            shares[label in y[train]].append(sum(right) / len(right))
        s, u = (sum(shares[kind]) / len(shares[kind]) for kind in (True, False))
        out.append((s, u, 2 * s * u / (s + u)))
    return out


def test_cross_validation_scores_are_those_computed_by_hand(species: Any) -> None:
    X, y, table, _ = species
    estimator, folds = NearestEmbedding(table), ClassFolds(random_state=0)
    expected = np.array(by_hand(estimator, X, y, folds))
    assert expected.min() > 0.2
    assert expected[:, :2].max() < 1  # so that agreement says something
    np.testing.assert_allclose(cross_val_score(estimator, X, y, cv=folds, scoring=harmonic_mean_scorer), expected[:, 2])
    scores = cross_validate(estimator, X, y, cv=folds, scoring=seen_unseen_scorer, return_train_score=True)
    np.testing.assert_allclose(np.column_stack([scores[f"test_{figure}"] for figure in "SUH"]), expected)
    assert np.isnan(scores["train_H"]).all()
    assert (scores["train_S"] > 0.5).all()
    several = cross_validate(estimator, X, y, cv=folds, scoring={"h": harmonic_mean_scorer, "plain": "accuracy"})
    np.testing.assert_allclose(several["test_h"], expected[:, 2])


def test_pandas_frames_work_too(species: Any) -> None:
    pd = pytest.importorskip("pandas")
    X, y, table, _ = species
    arguments: dict[str, Any] = {"cv": ClassFolds(random_state=0), "scoring": harmonic_mean_scorer}
    shuffled = np.random.default_rng(0).permutation(len(y))
    frame = pd.DataFrame(X, index=shuffled)
    np.testing.assert_array_equal(
        cross_val_score(NearestEmbedding(table), frame, pd.Series(y, index=shuffled), **arguments),
        cross_val_score(NearestEmbedding(table), X, y, **arguments),
    )


def test_a_grid_search_finds_what_serves_unseen_classes(species: Any) -> None:
    X, y, table, _ = species
    grid, folds = {"handicap": [-0.5, 0.0, 0.5, 1.0]}, ClassFolds(random_state=0)
    means = [np.mean(by_hand(NearestEmbedding(table, handicap=b), X, y, folds), axis=0)[2] for b in grid["handicap"]]
    assert len(set(means)) == 4
    search = GridSearchCV(NearestEmbedding(table), grid, cv=folds, scoring=harmonic_mean_scorer).fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], means)
    assert search.best_params_ == {"handicap": grid["handicap"][int(np.argmax(means))]}
    assert set(search.best_estimator_.seen_classes_) == set(y)  # refitted on all rows
    search = GridSearchCV(NearestEmbedding(table), grid, cv=folds, scoring=seen_unseen_scorer, refit="H").fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_H"], means)


def test_seen_classes_are_found_within_pipelines_and_searches(species: Any) -> None:
    X, y, table, _ = species
    pipeline = make_pipeline(StandardScaler(), NearestEmbedding(table))
    inner = GridSearchCV(
        pipeline,
        {"nearestembedding__alpha": [0.1, 10.0]},
        cv=ClassFolds(2, random_state=0),
        scoring=harmonic_mean_scorer,
    )
    folds = ClassFolds(2, random_state=1)
    for estimator in (pipeline, inner, make_pipeline(inner)):
        scores = cross_val_score(estimator, X, y, cv=folds, scoring=harmonic_mean_scorer)
        np.testing.assert_allclose(scores, [h for *_, h in by_hand(estimator, X, y, folds)])


@pytest.mark.parametrize("routing", [False, True])
def test_groups_reach_the_folds(species: Any, routing: bool) -> None:
    X, y, table, genus = species
    folds, estimator = ClassFolds(random_state=0), NearestEmbedding(table)
    expected = [h for *_, h in by_hand(estimator, X, y, folds, genus)]
    assert expected != [h for *_, h in by_hand(estimator, X, y, folds)]
    arguments: dict[str, Any] = {"cv": folds, "scoring": harmonic_mean_scorer}
    with sklearn.config_context(enable_metadata_routing=routing):
        given = {"params": {"groups": genus}} if routing else {"groups": genus}
        np.testing.assert_allclose(cross_val_score(estimator, X, y, **given, **arguments), expected)
        search = GridSearchCV(estimator, {"alpha": [1.0]}, **arguments).fit(X, y, groups=genus)
        np.testing.assert_allclose(search.cv_results_["mean_test_score"], np.mean(expected))
        assert search.n_splits_ == 3
    assert folds.get_metadata_routing().split.requests == GroupKFold().get_metadata_routing().split.requests


def test_rows_are_not_each_tested_once(species: Any) -> None:
    X, y, table, _ = species
    with pytest.raises(ValueError, match="only works for partitions"):
        cross_val_predict(NearestEmbedding(table), X, y, cv=ClassFolds(random_state=0))


def test_scikit_learn_takes_it_for_a_splitter() -> None:
    folds = ClassFolds(7, unseen=3, test_seen=0.25, random_state=1)
    assert check_cv(folds, [1, 2], classifier=True) is folds
    assert folds.get_n_splits([[1]], [1], [1]) == folds.get_n_splits() == 7
    assert eval(repr(folds), {"ClassFolds": ClassFolds}).__dict__ == folds.__dict__ == copy.deepcopy(folds).__dict__
    assert eval(repr(ClassFolds()), {"ClassFolds": ClassFolds}).__dict__ == {
        "n_splits": 3,
        "unseen": 0.2,
        "test_seen": 0.2,
        "random_state": None,
    }


# --- the scorers


class Answers(BaseEstimator):  # type: ignore[misc]
    """Answers with its rows."""

    def __init__(self, seen_classes_: Any = None) -> None:
        if seen_classes_ is not None:
            self.seen_classes_ = seen_classes_

    def predict(self, X: Any) -> Rows:
        return np.asarray(X)


def test_scores_are_those_computed_on_paper() -> None:
    y = ["ant", "ant", "ant", "ant", "bee", "bee", "cat", "cat", "dog", "owl"]
    x = ["ant", "ant", "ant", "cat", "bee", "ant", "cat", "bee", "dog", "ant"]
    # S: ant ¾, bee ½ → ⅝.  U: cat ½, dog 1, owl 0 → ½.  H = 2 · ⅝ · ½ / (⅝ + ½) = 5/9.
    for seen in (["ant", "bee"], ("bee", "ant", "never tested"), {"ant", "bee"}, np.array(["ant", "bee"], object)):
        scores = seen_unseen_scorer(Answers(seen), x, y)
        assert scores == pytest.approx({"S": 5 / 8, "U": 1 / 2, "H": 5 / 9})
        assert harmonic_mean_scorer(Answers(seen), x, np.array(y, object)) == pytest.approx(5 / 9)
    assert harmonic_mean_scorer(Answers([1]), [1, 1, 1], [1, 2, 3]) == 0  # U is 0
    assert harmonic_mean_scorer(Answers([1]), [2, 1, 1], [1, 2, 3]) == 0  # so are both


def test_a_mean_of_one_kind_is_no_harmonic_mean() -> None:
    with pytest.raises(DataError, match=r"none of these 2 rows is of a class that is unseen; .* ClassFolds"):
        harmonic_mean_scorer(Answers([1, 2]), [1, 2], [1, 2])
    with pytest.raises(DataError, match=r"none of these 2 rows is of a class that is seen; .* test_seen above 0"):
        harmonic_mean_scorer(Answers([5]), [1, 2], [1, 2])
    scores = seen_unseen_scorer(Answers([5]), [1, 1], [1, 2])
    assert scores == pytest.approx({"S": np.nan, "U": 0.5, "H": np.nan}, nan_ok=True)


def test_ordinary_folds_are_found_out(species: Any) -> None:
    X, y, table, _ = species
    with pytest.raises(DataError, match="is of a class that is unseen"):
        cross_val_score(
            NearestEmbedding(table),
            X,
            y,
            cv=KFold(shuffle=True, random_state=0),
            scoring=harmonic_mean_scorer,
            error_score="raise",
        )


def test_an_estimator_without_seen_classes_is_told_what_to_keep(species: Any) -> None:
    X, y, *_ = species
    estimator = make_pipeline(StandardScaler(), GaussianNB())
    sentence = "Pipeline does not say which classes it has seen; let fit store .* as seen_classes_"
    for scorer in (harmonic_mean_scorer, seen_unseen_scorer):
        with pytest.raises(SettingsError, match=sentence):
            scorer(estimator.fit(X, y), X, y)
    with pytest.warns(UserWarning, match=sentence):  # scikit-learn's own way, unless error_score="raise"
        assert np.isnan(cross_val_score(estimator, X, y, cv=ClassFolds(1), scoring=harmonic_mean_scorer)).all()


# --- mistakes


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"n_splits": 0}, "n_splits is the number of folds, 1 or more, not 0"),
        ({"n_splits": 2.0}, "not 2.0"),
        ({"n_splits": True}, "not True"),
        ({"unseen": 0}, "unseen is a share of the classes between 0 and 1, or their number, an integer of 1 or more, not 0"),
        ({"unseen": 0.0}, "not 0.0"),
        ({"unseen": 1.0}, "not 1.0"),
        ({"unseen": -0.5}, "not -0.5"),
        ({"unseen": float("nan")}, "not nan"),
        ({"unseen": "0.2"}, "not '0.2'"),
        ({"test_seen": 1.0}, "test_seen is a share of the rows of a class, from 0 to below 1, not 1.0"),
        ({"test_seen": -0.1}, "not -0.1"),
        ({"test_seen": None}, "not None"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        ClassFolds(**settings)


FOUR = np.repeat([0, 1, 2, 3], 5)


@pytest.mark.parametrize(
    ("settings", "y", "groups", "sentence"),
    [
        ({}, None, None, "needs y"),
        ({}, np.zeros((20, 2)), None, r"y must hold one label a row, and its shape is \(20, 2\)"),
        ({}, [[1], [1, 2]] * 10, None, "y must hold one label a row"),
        ({}, [None, "a"] * 10, None, "none missing and all of one kind"),
        ({}, [np.nan, 1.0] * 10, None, "y must hold one label a row, and some are missing"),
        ({}, FOUR[:19], None, "X, y and groups must have the same number of rows"),
        ({}, 5, None, "X, y and groups must have the same number of rows"),
        ({}, FOUR, np.zeros(3), "X, y and groups must have the same number of rows"),
        ({}, FOUR, [None, "a"] * 10, "groups must hold one group a row, none missing"),
        ({"unseen": 3}, FOUR, None, "4 classes are too few to hold 3 of them out and learn from two others; give a smaller"),
        ({"unseen": 0.9}, FOUR, None, "4 classes are too few to hold 4 of them out"),
        ({}, np.repeat([0, 1], 10), None, "2 classes are too few to hold 1 of them out"),
        ({}, FOUR, np.zeros(20), "the groups of the 4 classes are too large"),
        ({}, FOUR, FOUR == 0, None),  # a group of one and a group of three: the one can be held out
        ({}, np.arange(20), None, "no class has two rows.* give test_seen=0, or more rows"),
        ({"test_seen": 0}, np.arange(20), None, None),
        ({"random_state": "seed"}, FOUR, None, "random_state is an integer of 0 or more.* not 'seed'"),
        ({"random_state": -1}, FOUR, None, "not -1"),
    ],
)
def test_data_that_cannot_be_divided_are_refused_in_one_sentence(
    settings: dict[str, Any], y: Any, groups: Any, sentence: str | None
) -> None:
    folds = ClassFolds(**settings)
    if sentence is None:
        assert len(list(folds.split(np.zeros((20, 2)), y, groups))) == 3
    else:
        with pytest.raises((DataError, SettingsError), match=sentence) as caught:
            list(folds.split(np.zeros((20, 2)), y, groups))
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
