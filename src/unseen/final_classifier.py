"""The ordinary classifier at the end, on real seen and synthetic unseen features: linear, or gated (`unseen.gate`).

Rows are assembled once into one matrix on the device; training picks batches from it by index and never permutes or copies
it. Of rows that are very wide as a method represents them only a part is kept so; the others are represented when picked.
Gradients of the published linear softmax are two matrix products, so no graph is built.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor

from unseen.errors import Diverged
from unseen.gate import DETECTOR_EPOCHS, GatedScores, Scores, fit_detector, mean_entropy
from unseen.linear import LinearScores, discriminant
from unseen.methods.base import ClassStreams, GenerativeMethod, SamplesRepresented, Streams, stream_seed
from unseen.recipe import Recipe, weight_of_few
from unseen.represented import PART, Rows, hold, in_parts
from unseen.scaling import ScaledView

ROWS_AT_ONCE = 16_384
"""Rows synthesised together: bounds memory, not results."""


@dataclass(frozen=True)
class Moments:
    """Class means and within-class covariance, in columns that were divided by their spread within classes.

    With columns of unit variance a shrinkage treats blocks of other units ([x, ĉ, r]) alike.

    Args:
        classes: (C,) ids that have rows, ascending.
        means: (C, d') float64; covariance: (d', d') float64; spread: (d',) what columns were divided by.
    """

    classes: Tensor
    means: Tensor
    covariance: Tensor
    spread: Tensor


@dataclass(frozen=True)
class Within:
    """The covariance within classes, in columns divided by their spread.

    Args:
        covariance: (d', d') float64; spread: (d',) float64, 1 of a column that does not vary.
    """

    covariance: Tensor
    spread: Tensor


@dataclass(frozen=True)
class ClassifierRows:
    """What a final classifier is fitted on.

    Args:
        features: (n, d') represented rows; labels: (n,) class ids; weights: (n,) how often each row counts.
        synthetic: number of rows at the end that are synthetic.
        known_means, known_within: what `means` and `within` are to be, where somebody knows it already.
    """

    features: Rows
    labels: Tensor
    weights: Tensor
    synthetic: int
    known_means: tuple[Tensor, Tensor] | None = None
    known_within: Within | None = None

    def only_real(self) -> ClassifierRows:
        """The real rows alone."""
        end = len(self.labels) - self.synthetic
        return ClassifierRows(self.features[:end], self.labels[:end], self.weights[:end], 0)

    def only_synthetic(self) -> ClassifierRows:
        """The synthetic rows alone: what the classifier over unseen classes (T1) is fitted on."""
        start = len(self.labels) - self.synthetic
        return ClassifierRows(self.features[start:], self.labels[start:], self.weights[start:], self.synthetic)

    @cached_property
    def means(self) -> tuple[Tensor, Tensor]:
        """Ids (C,), ascending, of the classes that have rows here, and the weighted means (C, d') of these, in float64."""
        if self.known_means is not None:
            return self.known_means
        classes, targets = torch.unique(self.labels, return_inverse=True)
        weights = self.weights.double()
        total = weights.new_zeros(len(classes)).index_add_(0, targets, weights)
        means = weights.new_zeros(len(classes), self.features.shape[1])
        for numbers, x in in_parts(self.features):
            means.index_add_(0, targets[numbers], x.double() * weights[numbers, None])
        means /= total[:, None]
        return classes, means

    @cached_property
    def within(self) -> Within:
        """The spread of real rows around the means of their classes, or of synthetic ones where there are no others."""
        if self.known_within is not None:
            return self.known_within
        classes, means = self.means
        targets, d = torch.searchsorted(classes, self.labels), means.shape[1]
        real = len(targets) - self.synthetic or len(targets)
        covariance = means.new_zeros(d, d)
        for numbers, x in in_parts(self.features, real):
            within = x.double() - means[targets[numbers]]
            covariance.addmm_(within.T, within)
        covariance /= max(1, real - len(torch.unique(targets[:real])))
        spread = covariance.diagonal().sqrt()
        spread = torch.where(spread > 0, spread, 1.0)
        covariance /= spread
        covariance /= spread[:, None]
        return Within(covariance, spread)

    @cached_property
    def moments(self) -> Moments:
        """What a linear discriminant needs of these rows, whatever its shrinkage; computed once.

        The spread of synthetic rows around their means is the generator's, not the world's, so it is left out of the
        covariance, unless there are no others.
        """
        (classes, means), within = self.means, self.within
        return Moments(classes, means / within.spread, within.covariance, within.spread.float())


def represent(method: GenerativeMethod, x: Tensor) -> Tensor:
    """`method.represent` in chunks."""
    return torch.cat([method.represent(part) for part in torch.split(x, PART)])


def classifier_rows(
    method: GenerativeMethod,
    view: ScaledView,
    rows_per_class: int,
    seed: int,
    drawn: int = 0,
    examples: tuple[Tensor, Tensor] | None = None,
) -> ClassifierRows:
    """Real seen rows, then `rows_per_class` synthetic rows of every unseen class, as the method represents them.

    Each class's noise is seeded by (seed, class name), so other classes may come and go without changing it.

    Args:
        drawn: where it is fewer than `rows_per_class` and not 0, so many are synthesised and weigh as much together.
        examples: a few real rows (m, d) of unseen classes and their class ids (m,): less than `FEW` a class. They stand behind
            the synthetic rows and count as such. With k of them, k / (k + `WORTH`) of the weight of their class is
            theirs; the detector of `ood`, which only tells real from synthetic, counts rows and not classes.
    """
    counted = rows_per_class
    if 0 < drawn < rows_per_class:
        rows_per_class = drawn
    ids = view.unseen.repeat_interleave(rows_per_class)
    streams = ClassStreams(seed, view.names, view.device)
    classes_at_once = max(1, ROWS_AT_ONCE // rows_per_class) * rows_per_class
    real = zip(torch.split(view.features, ROWS_AT_ONCE), torch.split(view.labels, ROWS_AT_ONCE), strict=True)
    x_few, y_few = (view.features[:0], ids[:0]) if examples is None else examples
    few = zip(torch.split(x_few, ROWS_AT_ONCE), torch.split(y_few, ROWS_AT_ONCE), strict=True) if len(y_few) else ()
    synthesised = torch.split(ids, classes_at_once) if len(ids) else ()
    labels = torch.cat([view.labels, ids, y_few])
    if isinstance(method, SamplesRepresented):  # what it draws is represented already
        parts = chain(
            (method.represent_for_fitting(x, y, streams) for x, y in real),
            (method.sample_represented(part, streams) for part in synthesised),
            (method.represent_for_fitting(x, y, streams) for x, y in few),
        )
        features = hold(lambda x: x, method.represent(view.features[:1]), parts, len(labels))
    else:
        made = (method.sample(part, streams) for part in synthesised)
        parts = chain((x for x, _ in real), made, (x for x, _ in few))
        features = hold(method.represent, view.features[:1], parts, len(labels))
    weights = row_weights(labels, len(view.labels), y_few, counted, rows_per_class, len(view.names))
    return ClassifierRows(features, labels, weights, len(ids) + len(y_few))


def row_weights(labels: Tensor, real: int, y_few: Tensor, counted: int, drawn: int, classes: int) -> Tensor:
    """(n,) how often each row counts: real rows, `drawn` synthetic ones of each unseen class, a few real ones of some of these.

    Args:
        labels: (n,) of all rows, of which the first `real` are real and the last (m,) `y_few`.
        counted: rows of an unseen class; classes: how many there are.
    """
    weights = torch.ones(len(labels), device=labels.device)
    count = torch.bincount(y_few, minlength=classes).float()
    share = weight_of_few(count)
    weights[real:] = counted / drawn * (1 - share[labels[real:]])
    weights[len(labels) - len(y_few) :] = counted * share[y_few] / count[y_few]
    return weights


def fit_final_classifier(rows: ClassifierRows, class_ids: Tensor, recipe: Recipe, seed: int) -> Scores:
    """Fit the classifier that the recipe names.

    Raises:
        Diverged: its scores are no numbers.
    """
    for fitted in classifiers_by_epoch(rows, class_ids, recipe, seed):
        last = fitted
    for _, first in in_parts(rows.features, 1):
        if not torch.isfinite(last(first).amax()):
            raise Diverged("the final classifier's scores are no numbers; lower classifier_lr or choose another scaling")
    return last


def classifiers_by_epoch(rows: ClassifierRows, class_ids: Tensor, recipe: Recipe, seed: int) -> Iterator[Scores]:
    """The classifier that the recipe names after each of its epochs, as `paper` scores it; the gaussian one has none."""
    if recipe.classifier == "gaussian":
        yield fit_gaussian(rows, class_ids, recipe)
    elif recipe.classifier == "ood":
        yield from fit_gated_by_epoch(rows, class_ids, recipe, seed)
    else:
        yield from fit_by_epoch(rows, class_ids, recipe, seed)


def fit_linear_softmax(rows: ClassifierRows, class_ids: Tensor, recipe: Recipe, seed: int) -> LinearScores:
    """Fit by Adam on the weighted mean of −log softmax, plus ½ decay ‖W‖².

    Args:
        rows: what to fit on; every label must be in `class_ids`.
        class_ids: sorted ids; the scores come in this order.
        recipe: learning rate, epochs, batch size, decay, balanced.
        seed: of the initial weights N(0, 0.02²) and the order of rows.
    """
    for fitted in fit_by_epoch(rows, class_ids, recipe, seed):
        last = fitted
    return last


def fit_by_epoch(rows: ClassifierRows, class_ids: Tensor, recipe: Recipe, seed: int) -> Iterator[LinearScores]:
    """`fit_linear_softmax`, yielding the classifier after each epoch (the `paper` protocol scores every one)."""
    streams = Streams(seed, rows.features.device)
    targets = torch.searchsorted(class_ids, rows.labels)
    count, width = rows.features.shape
    weights = rows.weights
    batch, batches = _batches(rows, recipe)
    if recipe.balanced:
        weights = weights / torch.zeros(len(class_ids), device=weights.device).index_add_(0, targets, weights)[targets]
    weight = 0.02 * streams.normal("initial classifier", len(class_ids), width)
    bias = torch.zeros(len(class_ids), device=weight.device)
    optimiser = torch.optim.Adam([weight, bias], recipe.classifier_lr, (0.5, 0.999), fused=True)
    gradient = torch.empty_like(weight)
    order = torch.empty(0, dtype=torch.int64, device=weight.device)
    for _ in range(recipe.classifier_epochs):
        for _ in range(batches):
            # An epoch's last batch is filled up from the next shuffle, so every batch is full.
            if len(order) < batch:
                order = torch.cat([order, torch.randperm(count, generator=streams["row order"], device=weight.device)])
            picked, order = order[:batch], order[batch:]
            x = rows.features[picked]
            share = weights[picked] / weights[picked].sum()
            error = torch.softmax(x @ weight.T + bias, dim=1)
            error[torch.arange(batch, device=weight.device), targets[picked]] -= 1
            error *= share[:, None]
            # into the gradient's own memory: a new matrix a batch costs as much as the products
            torch.mm(error.T, x, out=gradient)
            weight.grad = gradient.add_(weight, alpha=recipe.classifier_decay)
            bias.grad = error.sum(dim=0)
            optimiser.step()
        yield LinearScores(weight.clone(), bias.clone())


def _batches(rows: ClassifierRows, recipe: Recipe) -> tuple[int, int]:
    """Rows a batch, and batches an epoch: as many as if every row were there as often as it counts."""
    start = len(rows.labels) - rows.synthetic
    counted, synthetic = (max(1, round(float(part.double().sum()))) for part in (rows.weights, rows.weights[start:]))
    wanted = recipe.classifier_batch or max(1, synthetic // max(1, len(torch.unique(rows.labels[start:]))))
    return min(len(rows.labels), wanted), math.ceil(counted / min(counted, wanted))


def fit_gated_by_epoch(rows: ClassifierRows, class_ids: Tensor, recipe: Recipe, seed: int) -> Iterator[GatedScores]:
    """The gated classifier with its detector as it is after each epoch; its experts are softmaxes, fitted to their end.

    The seen expert is fitted on the real rows, the unseen expert on the synthetic ones: it is T1's classifier. The detector
    sees both kinds and no class of the latter.
    """
    real, synthetic = rows.only_real(), rows.only_synthetic()
    seen, unseen = torch.unique(real.labels), torch.unique(synthetic.labels)
    batch, _ = _batches(rows, recipe)
    experts = (
        fit_linear_softmax(real, seen, replace(recipe, classifier_batch=batch), seed),
        fit_linear_softmax(synthetic, unseen, recipe, seed),
    )
    detectors = fit_detector(
        real.features,
        torch.searchsorted(seen, real.labels),
        synthetic.features,
        classes=len(seen),
        epochs=DETECTOR_EPOCHS * recipe.classifier_epochs,
        lr=recipe.classifier_lr,
        seed=stream_seed(seed, "detector"),
    )
    columns = torch.searchsorted(class_ids, seen), torch.searchsorted(class_ids, unseen)
    for detector in detectors:
        yield GatedScores(detector, mean_entropy(detector, real.features), experts, columns, len(class_ids))


def fit_gaussian(rows: ClassifierRows, class_ids: Tensor, recipe: Recipe) -> LinearScores:
    """A linear discriminant: weighted class means, and the within-class covariance of the *real* rows, shrunk; equal priors.

    A class without rows is never taken: its score is −∞.

    Args:
        rows: what to fit on; if all are synthetic their own covariance is used.
        class_ids: sorted ids; the scores come in this order.
        recipe: shrinkage.
    """
    moments = rows.moments
    scores = discriminant(moments.means, moments.covariance, recipe.shrinkage)
    place = torch.searchsorted(class_ids, moments.classes)
    weight = scores.weight.new_zeros(len(class_ids), scores.weight.shape[1])
    bias = scores.bias.new_full((len(class_ids),), -torch.inf)
    return LinearScores(weight.index_copy_(0, place, scores.weight / moments.spread), bias.index_copy_(0, place, scores.bias))
