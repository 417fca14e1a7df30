"""How well a method's representations agree with the class embeddings: measured, where papers assert it.

Five diagnoses of what a trained method makes of test rows of unseen classes. Their labels measure and choose nothing, and none
of it is a result: a method that shows its parts is asked for them after training, beside the protocol.

1. Attributes can be predicted: a ridge regression to embeddings, fitted on seen training rows.
2. Classes can be told apart: a probe fitted on half of the rows of each class and asked about the other half.
3. Classes are compact: spread within them relative to that between them.
4. Halves are independent: a fresh judge, fitted on seen training rows, cannot tell halves of one row from halves of two.
5. Synthetic rows lie where real ones do: distance of their class means relative to the spread around them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from unseen.data.dataset import Ids
from unseen.errors import DataError
from unseen.evaluation.metrics import class_weights, per_class_accuracy
from unseen.evaluation.oracle import halves
from unseen.evaluation.protocol import Outcome
from unseen.final_classifier import ROWS_AT_ONCE, ClassifierRows, fit_gaussian
from unseen.methods.base import ClassStreams, stream_seed
from unseen.recipe import Recipe

Array = NDArray[np.float64]

SYNTHETIC = 200
"""Synthetic rows of each unseen class whose mean stands for the generator's."""
COMPONENTS, JUDGE_STEPS, JUDGE_BATCH, REPEATS = 32, 300, 256, 10
"""Of the fresh judge: principal components of a half that it sees, steps, rows a step, pairings that it is asked about."""


@runtime_checkable
class ShowsParts(Protocol):
    """Optional verb of a method, for diagnoses alone."""

    def parts(self, x: Tensor) -> dict[str, Tensor]:
        """(n, d) features → name → (n, ·) what they become on the way to the classifier; `h_s` and `h_n` are the halves."""
        ...


def diagnose(outcome: Outcome, seed: int = 0) -> dict[str, Any] | None:
    """All five, for the feature x, the classifier's input u and every part that the method shows.

    None for a method that is solved in one formula and represents nothing.

    Args:
        outcome: of a method; trained on its view, it is asked about its test rows.
        seed: of the probe's halves, the synthetic rows and the judge.

    Returns:
        `attribute_cosine`, `attribute_r2`, `probe_accuracy`, `within_to_between` and `synthesis_gap`: representation → figure;
        `halves_told_apart`: the judge's accuracy, ½ for independent halves, or None where the method has no halves.

    Raises:
        DataError: fewer than two unseen classes have two test rows, so nothing varies within or between them.
    """
    method, view, test = outcome.trained, outcome.view, outcome.test
    if method is None:
        return None
    labels = test.unseen_labels
    enough = np.bincount(labels)[labels] > 1
    if len(np.unique(labels[enough])) < 2:
        raise DataError("a diagnosis needs two unseen classes with two test rows each, and this split has fewer")

    def seen_as(x: Tensor) -> dict[str, Tensor]:
        shown = [
            {"x": rows, **(method.parts(rows) if isinstance(method, ShowsParts) else {}), "u": method.represent(rows)}
            for rows in torch.split(x, ROWS_AT_ONCE)
        ]
        return {name: torch.cat([part[name] for part in shown]).cpu() for name in shown[0]}

    classes = torch.from_numpy(np.unique(labels)).to(view.device).repeat_interleave(SYNTHETIC)
    streams = ClassStreams(stream_seed(seed, "diagnosis"), view.names, view.device)
    embeddings = view.embeddings.double().cpu().numpy()
    trained_on = seen_as(view.features)
    asked = seen_as(outcome.predictor.scaler.rows(test.unseen_features, view.device))
    made = seen_as(method.sample(classes, streams))
    train_labels, made_labels = view.labels.cpu().numpy(), classes.cpu().numpy()

    def each(figure: Callable[[str], float]) -> dict[str, float]:
        return {name: figure(name) for name in asked}

    predicted = {
        name: attribute_prediction(
            trained_on[name].double().numpy(),
            embeddings[train_labels],
            asked[name].double().numpy(),
            embeddings[labels],
            labels,
        )
        for name in asked
    }
    split = {"h_s", "h_n"} <= asked.keys()
    return {
        "attribute_cosine": each(lambda name: predicted[name][0]),
        "attribute_r2": each(lambda name: predicted[name][1]),
        "probe_accuracy": each(lambda name: probe_accuracy(asked[name][enough], labels[enough], seed)),
        "within_to_between": each(lambda name: within_to_between(asked[name].double().numpy(), labels)),
        "halves_told_apart": told_apart(
            (trained_on["h_s"], trained_on["h_n"]), (asked["h_s"], asked["h_n"]), stream_seed(seed, "judge")
        )
        if split
        else None,
        "synthesis_gap": each(
            lambda name: synthesis_gap(
                asked[name][enough].double().numpy(), labels[enough], made[name].double().numpy(), made_labels
            )
        ),
    }


def attribute_prediction(fitted_on: Array, targets: Array, asked: Array, true: Array, labels: Ids) -> tuple[float, float]:
    """Mean cosine and R² of a ridge regression from representations to embeddings, every class counting the same.

    Columns are centred and brought to unit spread, and the penalty is the mean eigenvalue of XᵀX, so representations of any
    width and unit are shrunk alike.

    Args:
        fitted_on, targets: (n, k) and (n, a); asked, true: (m, k) and (m, a); labels: (m,) classes of what is asked.

    Returns:
        Cosines of predicted and true embeddings, averaged; 1 − error / spread of the true ones around their mean.
    """
    centre, spread = fitted_on.mean(axis=0), fitted_on.std(axis=0)
    live = spread > 0
    x, z = ((rows[:, live] - centre[live]) / spread[live] for rows in (fitted_on, asked))
    middle = targets.mean(axis=0)
    gram = x.T @ x + len(x) * np.eye(x.shape[1])  # each column has square length n
    predicted = middle + z @ np.linalg.solve(gram, x.T @ (targets - middle))
    weight = class_weights(labels)
    lengths = np.linalg.norm(predicted, axis=1) * np.linalg.norm(true, axis=1)
    cosine = (predicted * true).sum(axis=1) / np.maximum(lengths, 1e-12)
    error = weight @ np.square(predicted - true).sum(axis=1)
    around = weight @ np.square(true - weight @ true).sum(axis=1)
    return float(weight @ cosine), float(1 - error / around)


def probe_accuracy(x: Tensor, labels: Ids, seed: int) -> float:
    """Accuracy a class of the library's Gaussian discriminant, fitted on half the rows of each class and asked about the other.

    Then the halves change places. Every class needs two rows.

    Args:
        x: (n, k); labels: (n,).
    """
    first = halves(labels, seed)
    predicted = np.empty_like(labels)
    class_ids = torch.from_numpy(np.unique(labels))
    for fitted_on in (first, ~first):
        chosen = torch.from_numpy(labels[fitted_on])
        rows = ClassifierRows(x[fitted_on], chosen, torch.ones(len(chosen)), synthetic=0)
        scores = fit_gaussian(rows, class_ids, Recipe(shrinkage=0.5))
        predicted[~fitted_on] = class_ids[scores(x[~fitted_on]).argmax(dim=1)].numpy()
    return per_class_accuracy(labels, predicted)


def within_to_between(x: Array, labels: Ids) -> float:
    """Root mean square distance of two rows of one class, relative to that of two rows of different classes.

    From sums of squares, not from pairs: Σ over ordered pairs of ‖xᵢ − xⱼ‖² is 2n times the sum of squares around the mean.

    Args:
        x: (n, k); labels: (n,). Two rows of some class are needed, and two classes.
    """
    counts, within = _scatter(x, labels)
    total = 2 * len(x) * np.square(x - x.mean(axis=0)).sum()
    own_pairs = (counts * (counts - 1)).sum()
    own = (2 * counts * within).sum()
    other_pairs = len(x) * (len(x) - 1) - own_pairs
    return float(np.sqrt(own / own_pairs) / np.sqrt((total - own) / other_pairs))


def told_apart(fitted_on: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor], seed: int) -> float:
    """Accuracy with which a fresh judge tells halves of one row from halves of two; ½ where they are independent.

    It sees the leading principal components of each half: of hundreds of dimensions it would learn the few rows by heart. Each
    has mean 0 and variance 1, also among the rows that are asked about: how halves go together is the question, and not where
    test rows lie, which on features whitened by few training rows is far from these.

    Args:
        fitted_on, asked: left and right halves of the same rows, (n, ·) each.
        seed: of the judge's weights, its batches and the pairings.
    """
    left, asked_left = _components(fitted_on[0], asked[0])
    right, asked_right = _components(fitted_on[1], asked[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = nn.Sequential(nn.Linear(left.shape[1] + right.shape[1], 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
        optimiser = torch.optim.AdamW(judge.parameters(), 3e-3, fused=True)
        for _ in range(JUDGE_STEPS):
            one, other = torch.randint(len(left), (2, JUDGE_BATCH))
            of_one, of_two = (judge(torch.cat([left[one], right[rows]], dim=1)) for rows in (one, other))
            loss = F.softplus(-of_one).mean() + F.softplus(of_two).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            hit = float((judge(torch.cat([asked_left, asked_right], dim=1)) > 0).double().mean())
            orders = [torch.randperm(len(asked_right)) for _ in range(REPEATS)]
            apart = torch.cat([judge(torch.cat([asked_left, asked_right[order]], dim=1)) for order in orders])
    return (hit + float((apart <= 0).double().mean())) / 2


def synthesis_gap(real: Array, labels: Ids, synthetic: Array, synthetic_labels: Ids) -> float:
    """Mean over classes of the distance between the mean of the real and of the synthetic rows, in pooled standard deviations.

    The variance is the sum over dimensions of that within classes, averaged over real and synthetic rows. A mean of n real rows
    is off by about 1/√n by itself.

    Args:
        real, synthetic: (n, k) and (m, k); labels, synthetic_labels: (n,) and (m,), all classes of the former in the latter.
            In both some class has two rows.
    """
    variances = []
    for x, y in ((real, labels), (synthetic, synthetic_labels)):
        counts, within = _scatter(x, y)
        variances.append(within.sum() / (len(x) - len(counts)))
    distances = [
        np.linalg.norm(real[labels == k].mean(axis=0) - synthetic[synthetic_labels == k].mean(axis=0))
        for k in np.unique(labels)
    ]
    return float(np.mean(distances) / np.sqrt(np.mean(variances)))


def _scatter(x: Array, labels: Ids) -> tuple[Array, Array]:
    """Of each class the number of rows and the sum of squared distances to its mean."""
    classes = [x[labels == k] for k in np.unique(labels)]
    counts = np.array([len(rows) for rows in classes], np.float64)
    return counts, np.array([np.square(rows - rows.mean(axis=0)).sum() for rows in classes])


def _components(fitted_on: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the leading principal components of the former, each of mean 0 and variance 1."""
    centre = fitted_on.mean(dim=0)
    _, lengths, directions = torch.linalg.svd(fitted_on - centre, full_matrices=False)
    leading = directions[:COMPONENTS][lengths[:COMPONENTS] > 1e-6 * lengths[0].clamp_min(1e-12)]
    one, other = ((rows - rows.mean(dim=0)) @ leading.T for rows in (fitted_on, asked))
    return one / one.std(dim=0).clamp_min(1e-12), other / other.std(dim=0).clamp_min(1e-12)
