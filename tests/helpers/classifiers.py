"""Classifiers that are fitted in a moment, and what it means that two are the same."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen import ZeroShotClassifier
from unseen.methods import METHODS, ClosedForm

NARROW: dict[str, Any] = {
    "hidden": 16, "half": 12, "refiner": 16, "warm_up": 1, "decoder_hidden": 16, "embedding_hidden": 16,
    "embedding_decoder_hidden": 16, "steps": 12, "batch_size": 16, "pretraining_epochs": 2,
}  # fmt: skip
BY_NAME = [name for name in METHODS if name != "tfvaegan-transductive"]
"""Methods that a classifier can have."""


def small(method: str = "tfvaegan", **settings: Any) -> ZeroShotClassifier:
    """The method with narrow networks and few steps, and nothing chosen on folds."""
    entry = METHODS[method]
    if isinstance(entry, ClosedForm):
        return ZeroShotClassifier(method, protocol="fixed", settings=settings or None, threads=1)
    known = {field.name for field in fields(entry.hyperparameters)} | {"steps"}
    chosen = {name: value for name, value in NARROW.items() if name in known} | settings
    return ZeroShotClassifier(method, settings=chosen, threads=1)


def same(one: ZeroShotClassifier, other: ZeroShotClassifier, X: NDArray[np.float32]) -> bool:
    """To the bit: labels, sides of γ, γ, temperature, prototypes, scores and probabilities."""
    here, there = one.fitted_, other.fitted_
    return (
        np.array_equal(one.classes_, other.classes_)
        and one.classes_.dtype == other.classes_.dtype
        and np.array_equal(one.seen_classes_, other.seen_classes_)
        and (here.gamma, here.temperature) == (there.gamma, there.temperature)
        and np.array_equal(here.prototypes, there.prototypes, equal_nan=True)
        and np.array_equal(one.decision_function(X), other.decision_function(X))
        and np.array_equal(one.predict_proba(X), other.predict_proba(X))
    )
