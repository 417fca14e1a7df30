"""What a module says by itself, in the row of a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from unseen.data import Dataset
from unseen.evaluation.alone import module_alone
from unseen.evaluation.oracle import oracle
from unseen.evaluation.protocol import Outcome, Task, run
from unseen.methods import METHODS
from unseen.methods.bsegn import Hyperparameters
from unseen.recipe import Recipe


@pytest.fixture(scope="module")
def outcome_of(tiny_world: Callable[..., Dataset]) -> Callable[..., Outcome]:
    world = tiny_world()

    def carry_out(**changes: Any) -> Outcome:
        settings = Hyperparameters(hidden=16, batch_size=32, critic_iterations=1, lr=3e-3, fem_lr=1e-2, latent=4, **changes)
        recipe = Recipe(scaling="l2", centred=True, steps=60, classifier_epochs=2)
        return run(Task(world, "main", METHODS["bsegn"], settings, recipe, "default", "fixed", 0))

    return carry_out


def test_figures_of_a_module_alone_are_those_of_its_cosines(outcome_of: Callable[..., Outcome]) -> None:
    outcome = outcome_of()
    test, view, trained = outcome.test, outcome.view, outcome.trained
    predicted, among_unseen, margin = {}, {}, {}
    for kind, features in (("seen", test.seen_features), ("unseen", test.unseen_features)):
        x = outcome.predictor.scaler.rows(features, torch.device("cpu"))
        embeddings = view.embeddings - view.embeddings.mean(dim=0)
        with torch.no_grad():
            cosines = trained.fem(x) @ torch.nn.functional.normalize(embeddings, dim=1).T
        predicted[kind] = cosines.argmax(dim=1).numpy()
        margin[kind] = ((cosines[:, view.seen].amax(dim=1) - cosines[:, view.unseen].amax(dim=1)) / 0.1).numpy()
        among_unseen[kind] = view.unseen[cosines[:, view.unseen].argmax(dim=1)].numpy()

    def mean_of_classes(labels: np.ndarray, right: np.ndarray) -> float:
        return float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))

    seen, unseen = test.seen_labels, test.unseen_labels
    S, U = mean_of_classes(seen, predicted["seen"] == seen), mean_of_classes(unseen, predicted["unseen"] == unseen)
    found = outcome.row["module_alone"]
    assert found["S"] == pytest.approx(S)
    assert found["U"] == pytest.approx(U)
    assert found["H"] == pytest.approx(2 * S * U / (S + U))
    assert found["T1"] == pytest.approx(mean_of_classes(unseen, among_unseen["unseen"] == unseen))
    into_unseen = np.isin(predicted["seen"], view.unseen.numpy())
    into_seen = np.isin(predicted["unseen"], view.seen.numpy())
    assert found["leak_seen_to_unseen"] == pytest.approx(mean_of_classes(seen, into_unseen))
    assert found["leak_unseen_to_seen"] == pytest.approx(mean_of_classes(unseen, into_seen))
    assert found["imbalance"] == pytest.approx(abs(S - U))
    of_seen, of_unseen = mean_of_classes(seen, margin["seen"]), mean_of_classes(unseen, -margin["unseen"])
    assert found["margin_seen"] == pytest.approx(of_seen, rel=1e-4), "in the module's logits, as in the history of losses"
    assert found["margin_unseen"] == pytest.approx(of_unseen, rel=1e-4)
    assert found["margin_gap"] == pytest.approx(abs(of_seen - of_unseen), rel=1e-4)
    assert S > 0.5, "it has learned something"
    assert outcome.row["diagnostic_evaluations"] == 1
    row = oracle(outcome, outcome.task.recipe, 0)
    assert row["module_alone"] is None, "an oracle is about the classifier"


def test_it_is_no_part_of_rows_without_a_module(outcome_of: Callable[..., Outcome]) -> None:
    outcome = outcome_of(fem=False, lambda_fem=0.0, lambda_bal=0.0)
    assert outcome.row["module_alone"] is None
    assert outcome.row["diagnostic_evaluations"] == 0
    assert module_alone(None, outcome.predictor, outcome.view, outcome.test) is None
