"""Comparing systems over several splits and seeds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

RESAMPLES = 10_000


def interval_over_splits(values: Mapping[Hashable, Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval of a figure measured on several splits with several seeds each.

    Splits are drawn with replacement, then seeds within each drawn split: seeds of one split share its test rows, so they
    are no independent evidence. Splits whose unseen classes overlap are not independent either, which no resampling mends;
    the interval is then too narrow, and whoever prints it says so.

    Args:
        values: split → one value a seed; for a comparison, the paired differences.

    Returns:
        The mean over splits of the mean over seeds, and the bounds.
    """
    generator = np.random.default_rng(seed)
    per_split = [np.asarray(v, np.float64) for v in values.values()]
    drawn = np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        chosen = generator.integers(len(per_split), size=len(per_split))
        drawn[k] = np.mean([per_split[i][generator.integers(len(per_split[i]), size=len(per_split[i]))].mean() for i in chosen])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean([v.mean() for v in per_split])), float(low), float(high)
