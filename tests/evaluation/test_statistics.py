"""The bootstrap over splits and seeds means what its docstring says, and draws what the printed tables were made with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pytest

from unseen.evaluation import statistics
from unseen.evaluation.statistics import interval_over_splits


def one_by_one(values: Mapping[Hashable, Sequence[float]], resamples: int, seed: int = 0) -> tuple[float, float, float]:
    """The definition, resample after resample: splits with replacement, then seeds of each drawn split."""
    generator = np.random.default_rng(seed)
    per_split = [np.asarray(v, np.float64) for v in values.values()]
    drawn = np.empty(resamples)
    for k in range(resamples):
        chosen = generator.integers(len(per_split), size=len(per_split))
        drawn[k] = np.mean([per_split[i][generator.integers(len(per_split[i]), size=len(per_split[i]))].mean() for i in chosen])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean([v.mean() for v in per_split])), float(low), float(high)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> int:
    """As many as one by one is quick for; the tables that were drawn for others are forgotten before and after."""
    statistics._shares.cache_clear()
    monkeypatch.setattr(statistics, "RESAMPLES", 500)
    yield 500
    statistics._shares.cache_clear()


@pytest.mark.parametrize(("splits", "seeds"), [(5, 3), (1, 4), (4, 1), (1, 1), (3, 7)])
def test_equal_numbers_of_seeds_are_drawn_as_one_by_one(splits: int, seeds: int, few_resamples: int) -> None:
    values = {f"split {k}": np.random.default_rng(k).random(seeds) for k in range(splits)}
    for seed in (0, 3):
        expected = one_by_one(values, few_resamples, seed)
        np.testing.assert_allclose(interval_over_splits(values, seed), expected, rtol=0, atol=1e-12)


def test_unequal_numbers_of_seeds_have_the_same_distribution() -> None:
    """Other draws than one by one, so the bounds agree as far as chance lets them."""
    values = {k: np.random.default_rng(k).normal(k, 1.0, size) for k, size in enumerate((3, 1, 5, 4))}
    mean, low, high = interval_over_splits(values)
    reference = one_by_one(values, 4000, seed=1)
    assert mean == pytest.approx(np.mean([np.mean(v) for v in values.values()]))
    assert (low, high) == pytest.approx(reference[1:], abs=0.08)
    assert high - low > 1.5


def test_every_resample_weighs_splits_evenly_and_seeds_evenly_within_them() -> None:
    """With one split of many seeds and one of few, each split counts for half on average, each seed for its part of that."""
    shares = statistics._shares((4, 1), 0)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    np.testing.assert_allclose(shares.mean(axis=0), [0.125, 0.125, 0.125, 0.125, 0.5], atol=0.01)
    assert set(np.unique(shares[:, 4])) == {0.0, 0.5, 1.0}  # its only seed comes each time that the split is drawn
