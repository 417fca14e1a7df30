"""Synthetic against real rows: figures with known answers, and a loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from unseen.data import Dataset
from unseen.evaluation.protocol import Task, run
from unseen.evaluation.synthesis import compare, synthesis_against_real

World = Callable[..., Dataset]
MakeTask = Callable[..., Task]


def clouds(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of classes 1, 2, 4 and 7, their ids, and an embedding for each of 8 classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1, 2, 4, 7], 30))
    return 5 * rng.normal(size=(8, 3))[labels] + rng.normal(size=(120, 3)), labels, rng.normal(size=(8, 5))


def test_real_rows_against_themselves() -> None:
    rows, labels, embeddings = clouds()
    found = compare(rows, labels, rows, labels, embeddings)
    assert found["variance_ratio"] == pytest.approx(1)
    assert found["mean_distance"] == pytest.approx(0, abs=1e-6)
    assert found["nearest_own"] == 1
    assert found["order_kept"] == pytest.approx(1)
    assert found["order_of_synthetic"] == found["order_of_real"]


def test_narrower_shifted_and_swapped_rows_are_noticed() -> None:
    rows, labels, embeddings = clouds()
    means = {k: rows[labels == k].mean(axis=0) for k in (1, 2, 4, 7)}
    centre = np.stack([means[k] for k in labels])
    narrow = compare(centre + 0.5 * (rows - centre), labels, rows, labels, embeddings)
    assert narrow["variance_ratio"] == pytest.approx(0.25)
    assert narrow["mean_distance"] == pytest.approx(0, abs=1e-6)
    shifted = compare(rows + np.array([3.0, 0, 0]), labels, rows, labels, embeddings)
    radii = [rows[labels == k].var(axis=0, ddof=1).sum() ** 0.5 for k in means]
    assert shifted["mean_distance"] == pytest.approx(np.mean([3 / radius for radius in radii]))
    assert shifted["order_kept"] == pytest.approx(1)
    swapped = np.select([labels == 1, labels == 2], [2, 1], labels)
    assert compare(rows, swapped, rows, labels, embeddings)["nearest_own"] == 0.5


def test_order_is_a_rank_correlation_of_distances() -> None:
    rows, labels, embeddings = clouds(1)
    ids = [1, 2, 4, 7]
    means = {k: rows[labels == k].mean(axis=0) for k in ids}
    pairs = [(i, j) for i in ids for j in ids if i < j]
    ranks = [
        np.argsort(np.argsort([np.linalg.norm(x[i] - x[j]) for i, j in pairs])) for x in (means, dict(enumerate(embeddings)))
    ]
    expected = np.corrcoef(ranks)[0, 1]
    assert compare(rows, labels, rows, labels, embeddings)["order_of_real"] == pytest.approx(expected)


def test_too_little_to_compare_is_nan_and_no_error() -> None:
    rows, labels = np.array([[0.0, 1], [2, 2]]), np.array([0, 1])
    found = compare(rows, labels, rows, labels, np.eye(2))
    assert np.isnan([found["variance_ratio"], found["mean_distance"], found["order_kept"]]).all()
    assert found["nearest_own"] == 1


def test_a_run_is_compared_on_its_unseen_classes(tiny_world: World, tiny_task: MakeTask) -> None:
    """In a world that is linear in the embeddings a trained generator comes nearer to the real means than an untrained one."""
    world = tiny_world(seen=12, unseen=4)
    short, long = (synthesis_against_real(run(tiny_task(world, steps=steps))) for steps in (1, 400))
    assert short is not None
    assert long is not None
    assert long["mean_distance"] < short["mean_distance"]
    closed = run(tiny_task(world, "fixed", "prototype"))
    assert synthesis_against_real(closed) is None


def test_rows_of_other_classes_say_nothing(tiny_world: World, tiny_task: MakeTask) -> None:
    world = tiny_world(seen=8, unseen=3)
    outcome = run(tiny_task(world, steps=2))
    other = replace(outcome, test=replace(outcome.test, seen_features=outcome.test.seen_features + 1))
    assert synthesis_against_real(outcome) == synthesis_against_real(other)
