"""Fewer things to choose from, so that a selection takes a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def few_candidates() -> Iterator[None]:
    """Two synthetic ratios and two final classifiers instead of three and seven."""
    from unseen.evaluation import selection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "SYNTHETIC_RATIOS", (1.0, 4.0))
        patch.setattr(
            selection,
            "CLASSIFIERS",
            ({"classifier": "softmax", "classifier_decay": 1e-3}, {"classifier": "gaussian", "shrinkage": 0.1}),
        )
        yield
