"""What a report draws of one run, kept beside its row when the run ends, so that a report never opens a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from unseen.evaluation.by_class import confusion, per_class
from unseen.evaluation.protocol import Outcome
from unseen.evaluation.synthetic_counts import figures_by_synthetic_count
from unseen.report.projection import plane_of

FORMAT = "unseen-figures"
VERSION = 1
CURVE_POINTS = 201


def details(outcome: Outcome, showing: bool) -> dict[str, Any]:
    """As JSON: the seen–unseen curve, accuracy by class, confusion among unseen classes; when `showing`, also the plane of real
    and synthetic features and the curve over synthetic counts, which take longer."""
    method, names = outcome.row["method"], outcome.view.names
    counts, nearest = confusion(
        outcome.decisions[1].predict(outcome.gamma),
        outcome.test.unseen_labels,
        outcome.predictor.seen,
        outcome.predictor.unseen,
    )
    points = np.unique(np.linspace(0, len(outcome.curve.seen) - 1, CURVE_POINTS).round().astype(int))
    return {
        "format": FORMAT,
        "version": VERSION,
        "curve": {
            "seen": _rounded(outcome.curve.seen[points]),
            "unseen": _rounded(outcome.curve.unseen[points]),
        },
        "per_class": [[name, unseen, rows, accuracy[method]] for name, unseen, rows, accuracy in per_class([outcome])],
        "confusion": {
            "names": [names[i] for i in outcome.predictor.unseen],
            "cells": [[int(t), int(a), int(counts[t, a])] for t, a in np.argwhere(counts)],
            "nearest_seen": ["" if i is None else names[i] for i in nearest],
        },
        "projection": _plane(outcome) if showing else None,
        "synthetic_counts": (figures_by_synthetic_count(outcome) or None) if showing else None,
    }


def _plane(outcome: Outcome) -> dict[str, Any] | None:
    plane = plane_of(outcome)
    if plane is None:
        return None
    return {
        "xy": np.round(plane.xy, 2).tolist(),
        "labels": plane.labels.tolist(),
        "synthetic": plane.synthetic.tolist(),
        "names": list(plane.names),
    }


def _rounded(values: np.ndarray[Any, Any]) -> list[float]:
    return [float(v) for v in np.round(values, 5)]
