"""Scaling, against its definitions in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unseen.data.dataset import ClassTable, TrainingView
from unseen.errors import SettingsError
from unseen.scaling import SCALINGS, WHITENING_SHRINKAGE, EmbeddingScaler, FeatureScaler, Scaler, class_means

CPU = torch.device("cpu")


@pytest.fixture
def view() -> TrainingView:
    """5 seen classes (of 7) with unequal counts, d = 6, correlated dimensions of very different size."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 2, 3, 4, 6], [4, 9, 6, 12, 5])
    mixing = random.normal(size=(6, 6)) * np.array([0.01, 1, 5, 100, 1, 0.3])
    features = 10 * random.normal(size=(7, 6))[labels] + random.normal(size=(len(labels), 6)) @ mixing
    return TrainingView(
        features=features.astype(np.float32),
        labels=labels,
        classes=ClassTable(tuple("abcdefg"), random.normal(size=(7, 3)) + 2),
        seen=np.array([0, 2, 3, 4, 6]),
        unseen=np.array([1, 5]),
    )


def within_covariance(x: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    x = x.astype(np.float64)
    groups = [x[labels == k] for k in np.unique(labels)]
    scatter = sum((g - g.mean(axis=0)).T @ (g - g.mean(axis=0)) for g in groups)
    return scatter / (len(x) - len(groups))


def test_minmax_is_fitted_in_float64_and_never_clips(view: TrainingView) -> None:
    scaler = FeatureScaler.fit("minmax", view.features, view.labels)
    scaled = scaler(view.features)
    x = view.features.astype(np.float64)
    np.testing.assert_array_equal(scaled, ((x - x.min(axis=0)) * (1 / (x.max(axis=0) - x.min(axis=0)))).astype(np.float32))
    assert (scaled.min(axis=0) == 0).all()
    assert (scaled.max(axis=0) == 1).all()
    beyond = x.max(axis=0) + (x.max(axis=0) - x.min(axis=0))
    np.testing.assert_allclose(scaler(beyond[None].astype(np.float32)), 2, rtol=1e-5)


def test_minmax_keeps_digits_of_large_nearly_constant_columns() -> None:
    """In float32 the difference to the minimum would lose them before the division."""
    column = np.float32(16_777_216) + np.array([[0.0], [2.0], [4.0]], np.float32)
    scaled = FeatureScaler.fit("minmax", column, np.zeros(3, np.int64))(column)
    assert scaled.ravel().tolist() == [0, 0.5, 1]


def test_a_constant_column_maps_to_0(view: TrainingView) -> None:
    features = view.features.copy()
    features[:, 2] = 7
    scaler = FeatureScaler.fit("minmax", features, view.labels)
    assert not scaler(features)[:, 2].any()
    assert not scaler(features + 1)[:, 2].any()


def test_none_leaves_rows_as_they_are(view: TrainingView) -> None:
    assert np.array_equal(FeatureScaler.fit("none", view.features, view.labels)(view.features), view.features)
    assert not Scaler.fit(view, "none", False).view(view, torch.device("cpu")).unit_interval


def test_l2_rows_have_one_length_and_unit_spread(view: TrainingView) -> None:
    scaled = FeatureScaler.fit("l2", view.features, view.labels)(view.features)
    lengths = np.linalg.norm(scaled, axis=1)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)
    unit = view.features / np.linalg.norm(view.features.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(scaled / lengths[0], unit, atol=1e-6)
    assert np.trace(within_covariance(scaled, view.labels)) / 6 == pytest.approx(1, rel=1e-4)


def test_l2_of_a_zero_row_is_0(view: TrainingView) -> None:
    scaler = FeatureScaler.fit("l2", view.features, view.labels)
    assert not scaler(np.zeros((1, 6), np.float32)).any()


def test_whitening_makes_the_shrunk_within_class_covariance_the_identity(view: TrainingView) -> None:
    scaler = FeatureScaler.fit("whitened", view.features, view.labels)
    before = within_covariance(view.features, view.labels)
    shrunk = (1 - WHITENING_SHRINKAGE) * before + WHITENING_SHRINKAGE * np.trace(before) / 6 * np.eye(6)
    np.testing.assert_allclose(scaler.matrix @ shrunk @ scaler.matrix, np.eye(6), atol=1e-9)
    np.testing.assert_allclose(scaler.matrix, scaler.matrix.T, atol=1e-12)
    # And the rows really are moved by that matrix, around the mean of class means.
    expected = (view.features - class_means(view.features.astype(np.float64), view.labels).mean(axis=0)) @ scaler.matrix
    np.testing.assert_allclose(scaler(view.features), expected, rtol=1e-4, atol=1e-4)
    after = (1 - WHITENING_SHRINKAGE) * within_covariance(scaler(view.features), view.labels)
    after += WHITENING_SHRINKAGE * np.trace(before) / 6 * scaler.matrix @ scaler.matrix
    np.testing.assert_allclose(after, np.eye(6), atol=1e-4)


def test_whitening_works_with_fewer_rows_than_dimensions() -> None:
    random = np.random.default_rng(1)
    features, labels = random.normal(size=(8, 40)).astype(np.float32), np.repeat([0, 1], 4)
    scaled = FeatureScaler.fit("whitened", features, labels)(features)
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max() < 30  # the null space is not blown up


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("copies", [1, 3])
def test_classes_without_any_spread_do_not_blow_up(kind: str, copies: int) -> None:
    """One row a class, and three identical rows a class, whose mean is off by a rounding error."""
    rows = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32) * 10
    features, labels = np.repeat(rows, copies, axis=0), np.repeat(np.arange(5), copies)
    scaled = FeatureScaler.fit(kind, features, labels)(features)
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max() < 1e3


def test_class_means_follow_ascending_ids() -> None:
    x = np.array([[1.0], [2.0], [4.0], [9.0]])
    np.testing.assert_array_equal(class_means(x, np.array([7, 3, 3, 5])), [[3.0], [9.0], [1.0]])


@pytest.mark.parametrize("kind", SCALINGS)
def test_only_training_rows_and_seen_embeddings_are_fitted_on(kind: str, view: TrainingView) -> None:
    """Embeddings of unseen classes may be anything, and rows scored later change nothing."""
    scaler = Scaler.fit(view, kind, centred=True)
    embeddings = view.classes.embeddings.copy()
    embeddings[view.unseen] = 1e6
    other = Scaler.fit(replace(view, classes=replace(view.classes, embeddings=embeddings)), kind, centred=True)
    for name, array in scaler.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name])
    before = {name: array.copy() for name, array in scaler.arrays().items()}
    scaler.rows(1e3 * view.features, CPU)
    for name, array in scaler.arrays().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("kind", SCALINGS)
def test_scaling_leaves_its_input_alone_and_treats_rows_one_by_one(kind: str, view: TrainingView) -> None:
    given = view.features.copy()
    scaler = FeatureScaler.fit(kind, view.features, view.labels)
    together = scaler(view.features)
    np.testing.assert_array_equal(view.features, given)
    alone = np.concatenate([scaler(row[None]) for row in view.features])
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-6)


def test_embeddings_are_centred_by_seen_classes_and_then_of_unit_length(view: TrainingView) -> None:
    e = view.classes.embeddings
    plain = EmbeddingScaler.fit(e, view.seen, centred=False)(e)
    np.testing.assert_allclose(plain, e / np.linalg.norm(e, axis=1, keepdims=True), rtol=1e-6)
    moved = e - np.mean([e[k] for k in view.seen], axis=0)
    centred = EmbeddingScaler.fit(e, view.seen, centred=True)(e)
    np.testing.assert_allclose(centred, moved / np.linalg.norm(moved, axis=1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("kind", SCALINGS)
def test_the_view_says_what_was_done(kind: str, view: TrainingView) -> None:
    scaler = Scaler.fit(view, kind, centred=True)
    scaled = scaler.view(view, CPU)
    np.testing.assert_array_equal(scaled.features, scaler.features(view.features))
    np.testing.assert_array_equal(scaled.embeddings, scaler.embeddings(view.classes.embeddings))
    assert scaled.features.dtype == scaled.embeddings.dtype == torch.float32
    assert scaled.unit_interval == (kind == "minmax")
    assert (scaled.seen.tolist(), scaled.unseen.tolist()) == ([0, 2, 3, 4, 6], [1, 5])
    assert scaled.names == tuple("abcdefg")
    assert scaled.mean_seen_count == 36 / 5


@pytest.mark.parametrize("kind", SCALINGS)
def test_a_stored_scaler_scales_alike(kind: str, view: TrainingView) -> None:
    scaler = Scaler.fit(view, kind, centred=True)
    again = Scaler.from_arrays(kind, scaler.arrays())
    np.testing.assert_array_equal(again.features(view.features), scaler.features(view.features))
    np.testing.assert_array_equal(again.embeddings(view.classes.embeddings), scaler.embeddings(view.classes.embeddings))


def test_an_unknown_scaling_is_not_taken_for_another(view: TrainingView) -> None:
    with pytest.raises(SettingsError, match=r"'whitend'.*minmax, l2, whitened"):
        FeatureScaler.fit("whitend", view.features, view.labels)
