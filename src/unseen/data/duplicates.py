"""Test rows that training has seen already: the same features, or nearly so."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import Dataset, Floats, Ids, Split

THRESHOLD = 0.95
"""Cosine, after the mean of the training rows is taken off, from which two rows are near duplicates."""

ROWS_AT_ONCE = 1024
"""Rows of either side compared together, so that memory does not grow with the table."""

MOST_PAIRS = 1_000_000_000
"""Beyond so many pairs of a training and a test row, as many test rows are drawn as keep to it."""


@dataclass(frozen=True)
class Pair:
    """A test row and the training row most like it.

    Args:
        cosine: of the two, centred; 1 where their features are the same.
    """

    test: int
    train: int
    cosine: float


@dataclass(frozen=True)
class Duplicates:
    """What of a split's test rows training has seen.

    Args:
        exact: pairs with the same features, in order of test rows.
        near: other pairs of at least `threshold`, the most alike first.
        threshold: see `THRESHOLD`.
        compared: how many of the test rows were compared for near ones.
        tested: how many there are.
    """

    exact: tuple[Pair, ...]
    near: tuple[Pair, ...]
    threshold: float
    compared: int
    tested: int


def exact_duplicates(dataset: Dataset, split: Split) -> tuple[Pair, ...]:
    """Test rows whose features are, to the bit, those of a training row; the first such one."""
    first: dict[bytes, int] = {}
    for row, digest in _digests(dataset.features, split.train):
        first.setdefault(digest, row)
    tested = np.sort(np.concatenate([split.test_seen, split.test_unseen]))
    found = ((row, first.get(digest)) for row, digest in _digests(dataset.features, tested))
    return tuple(Pair(row, twin, 1.0) for row, twin in found if twin is not None)


def find_duplicates(dataset: Dataset, split: Split, threshold: float = THRESHOLD, seed: int = 0) -> Duplicates:
    """Compare every test row of a split with every training row, in blocks.

    Each test row is paired with the one training row most like it. With more than `MOST_PAIRS` pairs the test rows compared
    are drawn; exact duplicates are looked for in all of them.
    """
    exact = exact_duplicates(dataset, split)
    tested = np.sort(np.concatenate([split.test_seen, split.test_unseen]))
    most = max(1, MOST_PAIRS // len(split.train))
    some = tested if len(tested) <= most else np.sort(np.random.default_rng(seed).choice(tested, most, replace=False))
    others = np.setdiff1d(some, [pair.test for pair in exact])
    centre = _mean(dataset.features, split.train)
    near: list[Pair] = []
    for start in range(0, len(others), ROWS_AT_ONCE):
        block = others[start : start + ROWS_AT_ONCE]
        best, twin = _most_alike(dataset.features, block, split.train, centre)
        alike = best >= threshold
        near += [
            Pair(int(row), int(other), float(c)) for row, other, c in zip(block[alike], twin[alike], best[alike], strict=True)
        ]
    near.sort(key=lambda pair: (-pair.cosine, pair.test))
    return Duplicates(exact, tuple(near), threshold, len(some), len(tested))


def _most_alike(features: Floats, block: Ids, train: Ids, centre: NDArray[np.float64]) -> tuple[NDArray[np.float32], Ids]:
    """For each row of the block the largest cosine and the training row that has it."""
    rows = _directions(features[block], centre)
    best, twin = np.full(len(block), -np.inf, np.float32), np.zeros(len(block), np.int64)
    for start in range(0, len(train), ROWS_AT_ONCE):
        others = train[start : start + ROWS_AT_ONCE]
        cosines = rows @ _directions(features[others], centre).T
        position = cosines.argmax(axis=1)
        here = cosines[np.arange(len(block)), position]
        better = here > best
        best[better], twin[better] = here[better], others[position[better]]
    return np.minimum(best, 1.0), twin


def _directions(rows: Floats, centre: NDArray[np.float64]) -> NDArray[np.float32]:
    centred = rows.astype(np.float64) - centre
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    directions: NDArray[np.float64] = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0)
    return directions.astype(np.float32)


def _mean(features: Floats, rows: Ids) -> NDArray[np.float64]:
    total = np.zeros(features.shape[1])
    for start in range(0, len(rows), ROWS_AT_ONCE):
        total += features[rows[start : start + ROWS_AT_ONCE]].astype(np.float64).sum(axis=0)
    return total / len(rows)


def _digests(features: Floats, rows: Ids) -> list[tuple[int, bytes]]:
    """(row, hash of its values); −0 counts as 0."""
    found = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        block = rows[start : start + ROWS_AT_ONCE]
        values = np.ascontiguousarray(features[block]) + 0.0  # of the array's own type; turns −0 into 0
        found += [(int(row), hashlib.sha256(value.tobytes()).digest()) for row, value in zip(block, values, strict=True)]
    return found
