"""A recipe with a value that cannot work is refused where it is made, in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from unseen.errors import SettingsError
from unseen.methods import with_settings
from unseen.methods.tfvaegan import Hyperparameters
from unseen.recipe import Recipe


def test_rows_per_class_are_given_or_follow_the_seen_classes() -> None:
    assert Recipe(synthetic=300, synthetic_ratio=4.0).rows_per_class(50.0) == 300
    assert Recipe(synthetic_ratio=4.0).rows_per_class(32.4) == 130
    assert Recipe(synthetic_ratio=4.0).rows_per_class(4.6) == 100
    assert Recipe(synthetic_ratio=0.01).rows_per_class(3.0) == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("scaling", "zscore"),  # would be whitened without a word
        ("classifier", "svm"),  # would be softmax without a word
        ("steps", -1),
        ("steps", 2.5),  # of a preset's file: training would end in a TypeError
        ("synthetic", 10**30),
        ("classifier_epochs", 2.5),
        ("epochs", -3),
        ("synthetic", -5),
        ("drawn", -1),
        ("synthetic_ratio", 0.0),
        ("shrinkage", 0.0),
        ("shrinkage", 1.5),
        ("classifier_lr", 0.0),
        ("classifier_lr", float("nan")),
        ("classifier_epochs", 0),
        ("classifier_batch", -1),
        ("classifier_decay", -0.1),
        ("gamma", float("nan")),
        ("gamma", float("inf")),
    ],
)
def test_value_that_cannot_work_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=rf"{setting}={value!r}.*; (give|there are) "):
        Recipe(**{setting: value})


def test_typed_settings_are_checked_too() -> None:
    with pytest.raises(SettingsError, match="scaling='zscore'"):
        with_settings(Hyperparameters(), Recipe(), {"scaling": "zscore"})
