"""The permutation test: in a world with signal, in one without, against the method it stands for, blind to test rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from unseen.data import Dataset, signal
from unseen.data.signal import _PreparedFold, permutation_test
from unseen.errors import DataError, SettingsError
from unseen.evaluation.folds import Fold, cut_folds
from unseen.methods.class_gaussian import ClassGaussian
from unseen.scaling import Scaler

World = Callable[..., Dataset]


def test_signal_is_found_where_it_is_and_not_where_it_is_not(tiny_world: World) -> None:
    world = tiny_world(noise=0.1, seen=20)
    found = permutation_test(world, permutations=99)
    assert found.carries
    assert found.p == pytest.approx(0.01)  # no permutation of 99 did as well: (1 + 0) / (1 + 99)
    assert found.accuracy > 0.6
    assert found.by_chance < 0.5
    assert found.classes == 20
    generator = np.random.default_rng(4)
    noise = replace(world, classes=replace(world.classes, embeddings=generator.normal(size=world.classes.embeddings.shape)))
    none = permutation_test(noise, permutations=99)
    assert not none.carries
    assert none.p > 0.05
    assert abs(none.accuracy - none.by_chance) < 0.2


def test_long_features_are_projected_and_tell_the_same(tiny_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(noise=0.1, seen=20, d=200)
    monkeypatch.setattr(signal, "MOST_DIMENSIONS", 100)
    shapes: list[int] = []
    prepared = signal._PreparedFold

    def watched(fold: Fold) -> signal._PreparedFold:
        shapes.append(fold.view.features.shape[1])
        return prepared(fold)

    monkeypatch.setattr(signal, "_PreparedFold", watched)
    assert permutation_test(world, permutations=19).carries
    assert shapes == [100, 100, 100]


def test_p_counts_permutations_that_do_as_well(tiny_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.2, 0.5, 0.9, *[0.1] * 16])
    monkeypatch.setattr(signal, "_accuracy", lambda folds, embeddings: next(values))
    found = permutation_test(tiny_world(), permutations=19)
    assert found.p == pytest.approx((1 + 2) / (1 + 19))
    assert found.by_chance == pytest.approx((0.2 + 0.5 + 0.9 + 16 * 0.1) / 19)


def test_so_few_permutations_that_no_embedding_could_pass_are_refused(tiny_world: World) -> None:
    world = tiny_world(noise=0.1)
    assert permutation_test(world, permutations=19).p == pytest.approx(0.05)
    for count in (1, 18):
        with pytest.raises(SettingsError, match=f"{count} permutations are too few to tell .* below 1 in {count + 1}; give 19"):
            permutation_test(world, permutations=count)


def test_it_is_class_gaussian_among_pseudo_unseen_classes(tiny_world: World) -> None:
    view = tiny_world(noise=0.6, seen=14).training_view()
    for fold in cut_folds(view, 3, 0):
        scaler = Scaler.fit(fold.view, "none", centred=True)
        scaled = scaler.view(fold.view, torch.device("cpu"))
        scores = (
            ClassGaussian().fit(scaled).only(scaled.unseen)(scaler.rows(fold.held_out.unseen_features, torch.device("cpu")))
        )
        mine = _PreparedFold(fold).scores(view.classes.embeddings[view.seen])
        theirs = 2 * scores.double().numpy()  # theirs is half of −‖x − μ‖², up to what is the same for all classes
        differences = (mine - mine[:, :1]) - (theirs - theirs[:, :1])
        assert np.abs(differences).max() < 1e-3 * np.abs(theirs).max()


def test_test_rows_and_unseen_embeddings_are_never_read(tiny_world: World) -> None:
    world = tiny_world()
    split = world.split()
    features, embeddings = world.features.copy(), world.classes.embeddings.copy()
    features[np.concatenate([split.test_seen, split.test_unseen])] = np.nan
    embeddings[split.unseen] = np.nan
    hidden = replace(world, features=features, classes=replace(world.classes, embeddings=embeddings))
    assert permutation_test(hidden, permutations=19) == permutation_test(world, permutations=19)


def test_large_tables_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "MOST_ROWS", 10)
    labels = np.repeat([0, 1, 2], [8, 3, 2])
    kept = signal._some_rows(labels, 0)
    assert np.bincount(labels[kept]).tolist() == [5, 3, 2]


def test_too_few_classes_are_a_sentence(tiny_world: World) -> None:
    with pytest.raises(DataError, match="4 seen classes are too few"):
        permutation_test(tiny_world(seen=4))
