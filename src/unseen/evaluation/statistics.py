"""Comparing systems over several splits and seeds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from math import lcm

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000


def interval_over_splits(values: Mapping[Hashable, Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval of a figure measured on several splits with several seeds each.

    Splits are drawn with replacement, then seeds within each drawn split: seeds of one split share its test rows, so they
    are no independent evidence. Splits whose unseen classes overlap are not independent either, which no resampling mends;
    the interval is then too narrow, and whoever prints it says so. Of a single split only the seeds are drawn.

    Args:
        values: split → one value a seed; for a comparison, the paired differences.

    Returns:
        The mean over splits of the mean over seeds, and the bounds.
    """
    per_split = [np.asarray(v, np.float64) for v in values.values()]
    drawn = _shares(tuple(len(v) for v in per_split), seed) @ np.concatenate(per_split)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean([v.mean() for v in per_split])), float(low), float(high)


@lru_cache(maxsize=4)
def _shares(lengths: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """(RESAMPLES, values) what each value counts for in each resample; a row sums to 1.

    It depends on the number of seeds of each split alone, so a table of many figures draws once. Where splits have different
    numbers of seeds, a seed is drawn below their least common multiple and taken modulo the split's own number, which is as
    even a draw, and lets the splits of all resamples be drawn at once.
    """
    splits, most, seeds = len(lengths), max(lengths), np.array(lengths)
    below = np.tile([splits] * splits + [lcm(*lengths)] * splits * most, (RESAMPLES, 1))
    draws = np.random.default_rng(seed).integers(below)
    chosen = draws[:, :splits, None]
    of_split = draws[:, splits:].reshape(RESAMPLES, splits, most) % seeds[chosen]
    share = np.where(np.arange(most) < seeds[chosen], 1 / (splits * seeds[chosen]), 0.0)
    first = np.concatenate([[0], np.cumsum(seeds)[:-1]])
    cell = np.arange(RESAMPLES)[:, None, None] * seeds.sum() + first[chosen] + of_split
    counted: NDArray[np.float64] = np.bincount(cell.ravel(), share.ravel(), RESAMPLES * int(seeds.sum())).astype(np.float64)
    return counted.reshape(RESAMPLES, -1)
