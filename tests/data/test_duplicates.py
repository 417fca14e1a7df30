"""Rows that training has seen, planted and found again, and compared with brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unseen.data import Dataset, Split, duplicates
from unseen.data.duplicates import Pair, exact_duplicates, find_duplicates


def planted(tiny: Dataset) -> tuple[Dataset, Split]:
    """Train rows 0, 1, 3, 4; row 2 is row 1 again, row 7 nearly lies on the line from the mean to row 4."""
    features = np.random.default_rng(8).normal(size=(12, 50)).astype(np.float32)
    centre = features[[0, 1, 3, 4]].astype(np.float64).mean(axis=0)
    features[2] = features[1]
    features[7] = centre + 3 * (features[4] - centre)
    features[7, 0] += 0.1
    return replace(tiny, features=features), tiny.split()


def test_exact_and_near_ones_are_found_and_told_apart(tiny: Dataset) -> None:
    world, split = planted(tiny)
    found = find_duplicates(world, split)
    assert found.exact == (Pair(2, 1, 1.0),)
    assert [(pair.test, pair.train) for pair in found.near] == [(7, 4)]
    assert 0.99 < found.near[0].cosine < 1
    assert (found.compared, found.tested) == (8, 8)


def test_blocks_give_what_brute_force_gives(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    world, split = planted(tiny)
    x = world.features.astype(np.float64)
    x = x - x[split.train].mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = x @ x[split.train].T
    expected = {row: (split.train[cosines[row].argmax()], cosines[row].max()) for row in (5, *range(6, 12))}
    for rows_at_once in (1, 3, 1024):
        monkeypatch.setattr(duplicates, "ROWS_AT_ONCE", rows_at_once)
        near = find_duplicates(world, split, threshold=-1.0).near
        assert {pair.test for pair in near} == set(expected)
        for pair in near:
            assert pair.train == expected[pair.test][0]
            assert pair.cosine == pytest.approx(expected[pair.test][1], abs=1e-5)
        assert [pair.cosine for pair in near] == sorted((pair.cosine for pair in near), reverse=True)


def test_with_too_many_pairs_test_rows_are_drawn_but_exact_ones_are_all_found(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, split = planted(tiny)
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 12)  # of 4 training rows: three test rows
    found = find_duplicates(world, split, threshold=-1.0)
    assert (found.compared, found.tested) == (3, 8)
    assert len(found.near) <= 3
    assert found.exact == (Pair(2, 1, 1.0),)


def test_minus_zero_is_zero_and_a_row_at_the_mean_is_like_none(tiny: Dataset) -> None:
    features = np.zeros((12, 2), np.float16)
    features[[0, 1, 3, 4]] = [[0, 1], [0, -1], [2, 0], [-2, 0]]  # their mean is 0
    features[2] = [-0.0, 1]
    features[5:] = 0
    world = replace(tiny, features=features)
    assert exact_duplicates(world, tiny.split()) == (Pair(2, 0, 1.0),)
    assert find_duplicates(world, tiny.split(), threshold=0.01).near == ()
