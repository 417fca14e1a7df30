"""The diagnoses against brute force, on worlds where the answer is known, and of whole methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from unseen.data import Dataset
from unseen.errors import DataError
from unseen.evaluation.consistency import (
    attribute_prediction,
    diagnose,
    probe_accuracy,
    synthesis_gap,
    told_apart,
    within_to_between,
)
from unseen.evaluation.protocol import Outcome, Task, run
from unseen.methods import METHODS, Generative
from unseen.methods.sddn import Hyperparameters

World = Callable[..., Dataset]
MakeTask = Callable[..., Task]
LABELS = np.array([3, 7, 7, 3, 7, 9])


def test_attribute_prediction_is_that_of_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    x, targets = rng.normal(2, 5, (20, 3)), rng.normal(size=(20, 2))
    asked, true = rng.normal(2, 5, (6, 3)), rng.normal(size=(6, 2))
    cosine, r2 = attribute_prediction(x, targets, asked, true, LABELS)

    unit = (x - x.mean(axis=0)) / x.std(axis=0)
    weights = np.linalg.inv(unit.T @ unit + np.trace(unit.T @ unit) / 3 * np.eye(3)) @ unit.T @ (targets - targets.mean(axis=0))
    predicted = (asked - x.mean(axis=0)) / x.std(axis=0) @ weights + targets.mean(axis=0)
    of_class = {k: [i for i in range(6) if LABELS[i] == k] for k in (3, 7, 9)}
    cosines = [float(p @ t / np.linalg.norm(p) / np.linalg.norm(t)) for p, t in zip(predicted, true, strict=True)]
    assert cosine == pytest.approx(np.mean([np.mean([cosines[i] for i in rows]) for rows in of_class.values()]))
    middle = np.mean([true[rows].mean(axis=0) for rows in of_class.values()], axis=0)
    error, around = (
        np.mean([np.mean([((true[i] - other[i]) ** 2).sum() for i in rows]) for rows in of_class.values()])
        for other in (predicted, np.tile(middle, (6, 1)))
    )
    assert r2 == pytest.approx(1 - error / around)


def test_attributes_are_predicted_from_what_holds_them_and_in_any_unit() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(40, 3))
    holds, noise = a @ rng.normal(size=(3, 8)), rng.normal(size=(40, 8))
    labels = np.arange(20) % 10

    def asked(x: np.ndarray) -> tuple[float, float]:
        return attribute_prediction(x[:20], a[:20], x[20:], a[20:], labels)

    assert asked(holds)[0] > 0.85
    assert asked(holds)[1] > 0.5
    assert asked(noise)[0] < 0.4
    assert asked(noise)[1] < 0.2
    assert asked(1e3 * holds + 5) == pytest.approx(asked(holds))
    dead = np.concatenate([holds, np.ones((40, 2))], axis=1)
    assert asked(dead) == pytest.approx(asked(holds)), "a column that does not vary says nothing"


def test_spread_is_that_of_explicit_pairs() -> None:
    x = np.random.default_rng(0).normal(size=(6, 4))
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    own, other = ([((x[i] - x[j]) ** 2).sum() for i, j in pairs if (LABELS[i] == LABELS[j]) == same] for same in (True, False))
    assert within_to_between(x, LABELS) == pytest.approx((np.mean(own) / np.mean(other)) ** 0.5)
    assert within_to_between(7 * x + 3, LABELS) == pytest.approx(within_to_between(x, LABELS))


def test_gap_is_the_distance_of_means_in_deviations() -> None:
    real, synthetic = np.array([[0.0, 0], [2, 0], [9, 9], [9, 13]]), np.array([[1.0, 3], [1, 3], [9, 11], [13, 11]])
    labels = np.array([4, 4, 6, 6])
    # Means (1, 0) and (9, 11) against (1, 3) and (11, 11); within classes 2 + 8 of 2 free rows, and 8 of 2.
    assert synthesis_gap(real, labels, synthetic, labels) == pytest.approx((3 + 2) / 2 / ((5 + 4) / 2) ** 0.5)


def test_probe_learns_what_is_there_and_is_asked_about_other_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = np.arange(60) % 5 + 3
    classes = torch.randn(9, 6, generator=generator)[labels]
    noise = torch.randn(60, 6, generator=generator)
    assert probe_accuracy(4 * classes + noise, labels, seed=0) > 0.9
    assert probe_accuracy(noise, labels, seed=0) < 0.45
    assert probe_accuracy(torch.eye(60), labels, seed=0) < 0.45, "a row learnt by heart is of no use"


def test_a_fresh_judge_finds_what_halves_share() -> None:
    """Though each half by itself is the same whether together or apart."""
    generator = torch.Generator().manual_seed(0)
    left, noise = torch.randn(400, 6, generator=generator), torch.randn(400, 6, generator=generator)
    dependent = 3 + 10 * torch.tanh(left @ torch.randn(6, 6, generator=generator))
    global_state = torch.random.get_rng_state()

    def accuracy(right: torch.Tensor, scale: float = 1.0, shift: float = 0.0) -> float:
        asked = scale * left[300:] + shift, scale * right[300:] - shift
        return told_apart((left[:300], right[:300]), asked, seed=0)

    assert accuracy(noise) == pytest.approx(0.5, abs=0.06)
    assert accuracy(dependent, scale=5.0, shift=100.0) > 0.85, "wherever the rows that are asked about lie"
    assert torch.equal(torch.random.get_rng_state(), global_state)


@pytest.fixture(scope="module")
def of_sddn(tiny_world: World, tiny_task: MakeTask) -> Outcome:
    entry = METHODS["sddn"]
    assert isinstance(entry, Generative)
    narrow = Hyperparameters(hidden=16, half=5, refiner=7, latent=4, batch_size=12, lr=1e-3, warm_up=1)
    task = tiny_task(tiny_world(seen=8, unseen=4), steps=30)
    return run(replace(task, method=entry, hyperparameters=narrow))


def test_a_method_that_shows_its_parts_is_diagnosed_in_each(of_sddn: Outcome) -> None:
    found = diagnose(of_sddn)
    assert found == diagnose(of_sddn)
    halves = found.pop("halves_told_apart")
    assert 0 <= halves <= 1
    for figure, of_part in found.items():
        assert list(of_part) == ["x", "x_hat", "h_s", "h_n", "u"], figure
        assert np.isfinite(list(of_part.values())).all(), figure
    scaler, test = of_sddn.predictor.scaler, of_sddn.test
    x = scaler.rows(test.unseen_features, torch.device("cpu"))
    assert found["within_to_between"]["u"] == pytest.approx(
        within_to_between(of_sddn.predictor.represent(x).double().numpy(), test.unseen_labels)
    )
    assert found["attribute_cosine"]["x"] > 0.6, "in this world features follow from embeddings"
    assert found["probe_accuracy"]["x"] > 0.9


def test_parts_are_those_that_the_classifier_sees(of_sddn: Outcome) -> None:
    method: Any = of_sddn.trained
    x = of_sddn.view.features
    parts = method.parts(x)
    assert torch.equal(method.represent(x)[:, :5], parts["h_s"])
    assert parts["h_n"].shape == (len(x), 5)
    assert not torch.equal(parts["h_n"], parts["h_s"])
    assert torch.equal(parts["x_hat"], method.student(x)[-1])
    assert not any(part.requires_grad for part in parts.values())


def test_other_methods_are_diagnosed_in_what_they_represent(tiny_world: World, tiny_task: MakeTask) -> None:
    found = diagnose(run(tiny_task(tiny_world(), steps=1)))
    assert found["halves_told_apart"] is None
    assert list(found["probe_accuracy"]) == ["x", "u"]
    assert found["synthesis_gap"]["x"] > 1, "after one step the generator knows no class"


def test_a_method_that_represents_nothing_is_not_diagnosed(tiny_world: World, tiny_task: MakeTask) -> None:
    assert diagnose(run(tiny_task(tiny_world(), method="prototype"))) is None


def test_too_few_rows_get_one_sentence(of_sddn: Outcome) -> None:
    first = [int(np.flatnonzero(of_sddn.test.unseen_labels == k)[0]) for k in np.unique(of_sddn.test.unseen_labels)]
    few = replace(
        of_sddn.test, unseen_features=of_sddn.test.unseen_features[first], unseen_labels=of_sddn.test.unseen_labels[first]
    )
    with pytest.raises(DataError, match="two unseen classes with two test rows"):
        diagnose(replace(of_sddn, test=few))
