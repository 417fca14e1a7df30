"""All that a fitted classifier is, as one value: replaced as a whole, so that no answer ever sees half of a change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.calibration import Calibration, Neighbours, explain
from unseen.class_rows import Made
from unseen.data.dataset import Ids
from unseen.errors import InputError, SettingsError
from unseen.fitted import Fitted
from unseen.given import alike, as_input_error, listed
from unseen.inference import Answers, answers_of, check_scored
from unseen.learned import Labels, Learned


@dataclass(frozen=True)
class State:
    """All that `fit` found.

    Args:
        classes: (C,) labels, sorted: the columns of the scores.
        fitted: what scores rows.
        learned: what further classes are learned from.
        settings_from: where the settings come from, as a result row says it.
        protocol: `blind` or `fixed`.
        encoder: name and fingerprint of the encoder that embedded descriptions; empty where embeddings were given, and None
            where nothing was, so that classes are one-hot.
        image_encoder: name and fingerprint of the encoder that made the features, as the folder says that was read; else None.
        made: what the next change of classes need not make again; neither saved nor pickled.
    """

    classes: Labels
    fitted: Fitted
    learned: Learned
    settings_from: str
    protocol: str
    encoder: Mapping[str, str] | None
    image_encoder: Mapping[str, str] | None = None
    made: Made | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "made": None}

    @property
    def calibration(self) -> Calibration | None:
        """What folds say of these classes; None where nothing was chosen on folds, or all classes are on one side of γ: there
        is no unit then in which γ and temperature could be stated."""
        seen = self.fitted.seen
        return None if seen.all() or not seen.any() else self.learned.calibration

    def answers(self, scores: NDArray[np.float64], risk: float | None) -> Answers:
        """What scores (n, C), γ subtracted, come to; see `ZeroShotClassifier.answers`."""
        calibration, lowest = self.calibration, 0.0
        if risk is not None:
            if not isinstance(risk, float | int | np.number):
                raise SettingsError(f"risk is a share above 0 and below 1, or None, not {str(risk)[:40]!r}")
            if calibration is None:
                raise InputError(
                    "a risk is kept to by what folds held out, and this classifier has no such rows of both seen and unseen "
                    "classes; fit it with protocol='blind' and classes on both sides, or leave the risk out"
                )
            with as_input_error():
                lowest = calibration.abstention(risk).threshold
        threshold = calibration.flag_threshold if calibration else None
        fitted = self.fitted
        return answers_of(scores, fitted.probabilities(scores), fitted.names, fitted.seen, threshold, lowest)

    def neighbours(self, rows: NDArray[np.float32], count: int, first: int = 0) -> Neighbours:
        """Of raw rows (n, d), of which the first has this number, by label; see `ZeroShotClassifier.explain`."""
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
            raise SettingsError(f"count is a whole number of 1 or more, not {str(count)[:40]!r}")
        represented = self.fitted.represent(rows).cpu().numpy()
        check_scored(np.abs(represented), first)
        assert self.fitted.prototypes is not None  # only a run's have none
        return explain(represented, self.fitted.prototypes, self.fitted.seen, count).labelled(self.classes)

    def known(self, labels: Labels) -> Ids:
        """Ids of these labels; InputError for one that is not answered, or twice."""
        learned = self.learned
        where = {label: k for k, label in enumerate(learned.classes.tolist()) if not learned.retired[k]}
        ids: dict[int, None] = {}
        for label in labels.tolist():
            if label not in where or not alike(labels, learned.classes):  # True is 1 to a dict
                raise InputError(f"there is no class {str(label)[:40]!r}; there are {listed(learned.answered)}")
            if where[label] in ids:
                raise InputError(f"class {str(label)[:40]!r} is given twice; give it once")
            ids[where[label]] = None
        return np.array(list(ids), np.int64)
