"""The oracle learns from real unseen rows, and is scored on others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from unseen.data import Dataset
from unseen.errors import DataError
from unseen.evaluation import oracle as module
from unseen.evaluation.metrics import harmonic_mean
from unseen.evaluation.oracle import oracle
from unseen.evaluation.predictor import Predictor
from unseen.evaluation.protocol import Outcome, Task, run
from unseen.final_classifier import ClassifierRows, fit_gaussian
from unseen.recipe import Recipe

World = Callable[..., Dataset]
MakeTask = Callable[..., Task]

RECIPE = Recipe(scaling="l2", centred=True, classifier="gaussian")


@pytest.fixture(scope="module")
def untrained(tiny_world: World, tiny_task: MakeTask) -> Outcome:
    """A generator after one step: its synthetic rows know nothing of the unseen classes."""
    return run(tiny_task(tiny_world(seen=8, unseen=4), steps=1))


@pytest.mark.parametrize("classifier", ["softmax", "gaussian"])
def test_oracle_beats_an_untrained_generator(untrained: Outcome, classifier: str) -> None:
    recipe = replace(RECIPE, classifier=classifier, classifier_lr=0.01, classifier_epochs=40)
    row = oracle(untrained, recipe, seed=0)
    assert row["H"] > untrained.row["H"] + 0.3
    assert row["T1"] > 0.9
    assert row["H"] == harmonic_mean(row["S"], row["U"])


class Recording:
    """A fitted predictor that remembers which raw rows it was asked about."""

    def __init__(self, fitted: Predictor, asked: list[np.ndarray]) -> None:
        self._fitted, self._asked = fitted, asked

    def decide(self, features: np.ndarray) -> Any:
        self._asked.append(features)
        return self._fitted.decide(features)

    def predict_unseen(self, features: np.ndarray) -> Any:
        self._asked.append(features)
        return self._fitted.predict_unseen(features)


def test_oracle_never_scores_a_row_that_it_was_fitted_on(untrained: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = module.generative_predictor
    halves: list[tuple[ClassifierRows, list[np.ndarray]]] = []

    def recording(scaler: Any, view: Any, represent: Any, rows: ClassifierRows, *rest: Any) -> Any:
        halves.append((rows, []))
        return Recording(fit(scaler, view, represent, rows, *rest), halves[-1][1])

    monkeypatch.setattr(module, "generative_predictor", recording)
    oracle(untrained, RECIPE, seed=0)
    predictor, test = untrained.predictor, untrained.test

    def keys(features: np.ndarray) -> list[bytes]:
        return [row.numpy().tobytes() for row in predictor.represent(predictor.scaler.rows(features, torch.device("cpu")))]

    assert len(halves) == 2
    scored = []
    for rows, asked in halves:
        fitted_on = {row.numpy().tobytes() for row in rows.features}
        for features in asked:
            assert not fitted_on & set(keys(features))
        scored += keys(asked[0])  # the first question is about unseen rows
        learned = rows.labels[-rows.synthetic :].numpy()
        assert np.bincount(learned)[untrained.predictor.unseen].tolist() == [5] * 4  # half of ten rows a class
    assert sorted(scored) == sorted(keys(test.unseen_features))  # every row once


def test_oracle_says_that_it_is_no_result(untrained: Outcome) -> None:
    row = oracle(untrained, RECIPE, seed=0)
    assert row["method"] == "oracle (tfvaegan)"
    assert row["test_used_for_training"] is True
    assert row["task_hash"] != untrained.row["task_hash"]  # equal hashes mean equal figures
    assert row["leak_seen_to_unseen"] is None  # not the generator's
    assert row["leak_unseen_to_seen"] is row["leak_gap"] is row["imbalance"] is None
    assert row["recipe"]["classifier"] == "gaussian"
    assert row["recipe"]["gamma"] == row["gamma"] == 0.0
    assert row["seconds_by_phase"] == {"oracle": row["seconds"]}
    assert row["split_hash"] == untrained.row["split_hash"]
    json.dumps(row, allow_nan=False)


def thinned(world: Dataset, left: int, classes: int) -> Dataset:
    """The world with only so many test rows for each of its first so many unseen classes."""
    split = world.split("main")
    kept = [
        row
        for position, c in enumerate(split.unseen)
        for row in split.test_unseen[world.labels[split.test_unseen] == c][: left if position < classes else None]
    ]
    return replace(world, splits={"main": replace(split, test_unseen=np.array(kept, np.int64))})


@pytest.mark.parametrize("classifier", ["softmax", "gaussian"])
def test_class_with_a_single_test_row_is_left_out(tiny_world: World, tiny_task: MakeTask, classifier: str) -> None:
    """It cannot be learned from and scored; counting it as wrong would call a good classifier weak."""
    outcome = run(tiny_task(thinned(tiny_world(seen=8, unseen=4), 1, 2), steps=1))
    recipe = replace(RECIPE, classifier=classifier, classifier_lr=0.01, classifier_epochs=40)
    row = oracle(outcome, recipe, seed=0)
    assert row["T1"] > 0.9
    assert row["U"] > 0.7


def test_class_without_test_rows_is_never_taken(tiny_world: World, tiny_task: MakeTask) -> None:
    with pytest.warns(UserWarning, match="no test row"):
        outcome = run(tiny_task(thinned(tiny_world(seen=8, unseen=4), 0, 1), steps=1))
    row = oracle(outcome, RECIPE, seed=0)
    assert row["T1"] > 0.9
    assert row["U"] > 0.7


def test_oracle_without_a_class_to_halve_is_refused(tiny_world: World, tiny_task: MakeTask) -> None:
    outcome = run(tiny_task(thinned(tiny_world(seen=8, unseen=4), 1, 4), steps=1))
    with pytest.raises(DataError, match="no unseen class has two test rows"):
        oracle(outcome, RECIPE, seed=0)


def test_gaussian_classifier_never_takes_a_class_without_rows() -> None:
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    rows = ClassifierRows(x, torch.tensor([0, 1, 3] * 4), torch.ones(12), synthetic=0)
    scores = fit_gaussian(rows, torch.arange(4), RECIPE)(x)
    assert not scores.isnan().any()
    assert 2 not in scores.argmax(dim=1)
    without = fit_gaussian(replace(rows, labels=torch.tensor([0, 1, 2] * 4)), torch.arange(3), RECIPE)(x)
    torch.testing.assert_close(scores[:, [0, 1, 3]], without)
