"""A diagnosis: what a part of a method says by itself, without synthesis and final classifier.

BSeGN's module scores all classes. Its own figures tell what it does for the balance of seen and unseen classes before generator
and classifier have their say.
"""

from __future__ import annotations

from dataclasses import replace

from unseen.data.dataset import TestRows
from unseen.evaluation.balance import domain_balance, margin_balance
from unseen.evaluation.metrics import SeenUnseenCurve, harmonic_mean, per_class_accuracy
from unseen.evaluation.predictor import Predictor
from unseen.methods.base import GenerativeMethod, ScoresAlone
from unseen.scaling import ScaledView


def module_alone(
    trained: GenerativeMethod | None, predictor: Predictor, view: ScaledView, test: TestRows
) -> dict[str, float] | None:
    """T1, U, S, H, AUSUC, `domain_balance` and `margin_balance` of the method's own module, with γ = 0; None where it has none.

    Args:
        predictor: of the whole system: the module sees features scaled as it does.
    """
    found = trained.alone() if isinstance(trained, ScoresAlone) else None
    if found is None:
        return None
    represent, scores = found
    alone = replace(predictor, represent=represent, generalized=scores, conventional=scores.only(view.unseen))
    on_seen, on_unseen = alone.decide(test.seen_features), alone.decide(test.unseen_features)
    taken_for = on_seen.predict(), on_unseen.predict()
    S, U = per_class_accuracy(test.seen_labels, taken_for[0]), per_class_accuracy(test.unseen_labels, taken_for[1])
    return {
        "T1": per_class_accuracy(test.unseen_labels, on_unseen.best_unseen),
        "U": U,
        "S": S,
        "H": harmonic_mean(S, U),
        "AUSUC": SeenUnseenCurve.of(on_seen, test.seen_labels, on_unseen, test.unseen_labels).area,
        **domain_balance(test.seen_labels, taken_for[0], test.unseen_labels, taken_for[1], predictor.unseen),
        **margin_balance(test.seen_labels, on_seen, test.unseen_labels, on_unseen),
    }
