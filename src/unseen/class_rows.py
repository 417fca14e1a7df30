"""Rows for the final classifier of classes that come and go. Each class is synthesised by itself, so that its rows are the same
bits whichever others there are; so they need not be made again when others come, nor do the real ones.

Where all rows together take more than `HELD_BYTES`, nothing is kept and many classes are synthesised at once, as in runs, whose
classes stay (`final_classifier.classifier_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen.final_classifier import ClassifierRows, Within, classifier_rows, represent, row_weights
from unseen.methods.base import ClassStreams, GenerativeMethod, SamplesRepresented, stream_seed
from unseen.recipe import Recipe, weight_of_few
from unseen.represented import HELD_BYTES, PART
from unseen.scaling import ScaledView
from unseen.storage import fingerprint, hash_of

Key = tuple[str, bytes]
"""A class to synthesise: its name, which the noise depends on, and its embedding."""


@dataclass(frozen=True)
class Made:
    """What one final classifier was fitted on, for the next one.

    Args:
        real_of: the rows, and names of classes, that the real part was made of.
        real: (n, d') represented; real_means: (S, d') float64 of their classes; within: their spread, where it was asked for.
        synthetic: (k, d') represented rows of each class without rows, and their mean (d') in float64.
    """

    real_of: str
    real: Tensor
    real_means: Tensor
    within: Within | None
    synthetic: Mapping[Key, tuple[Tensor, Tensor]]


def rows_by_class(
    method: GenerativeMethod,
    view: ScaledView,
    recipe: Recipe,
    seed: int,
    examples: tuple[Tensor, Tensor],
    made: Made | None,
) -> tuple[ClassifierRows, Made | None]:
    """`classifier_rows`, and what the next fit may use again: none of rows that take more than `HELD_BYTES`.

    Args:
        recipe: with the number of synthetic rows of a class.
        examples: a few real rows (m, d) of unseen classes, and ids (m,); see `classifier_rows`.
        made: by the same method, recipe and seed, of other classes; None makes everything.
    """
    x_few, y_few = examples
    drawn = min(recipe.drawn or recipe.synthetic, recipe.synthetic)
    ids = view.unseen.repeat_interleave(drawn)
    labels = torch.cat([view.labels, ids, y_few])
    width = method.represent(view.features[:1]).shape[1]
    if 4 * len(labels) * width > HELD_BYTES:
        return classifier_rows(method, view, recipe.synthetic, seed, recipe.drawn, examples), None
    streams = ClassStreams(seed, view.names, view.device)
    classes, inverse = torch.unique(view.labels, return_inverse=True)
    real_of = f"{fingerprint(view.features.cpu().numpy(), inverse.cpu().numpy())} {hash_of([view.names[c] for c in classes])}"
    kept = made if made is not None and made.real_of == real_of else None
    features = torch.empty(len(labels), width, device=view.device)
    starts = range(len(view.labels), len(view.labels) + len(ids), drawn)
    real, few = features[: len(view.labels)], features[len(view.labels) + len(ids) :]
    if kept:
        real.copy_(kept.real)
    else:
        _represent(method, view.features, view.labels, streams, real)
    real_rows = ClassifierRows(real, view.labels, torch.ones_like(view.labels, dtype=torch.float32), 0)
    real_means = kept.real_means if kept else real_rows.means[1]
    within = kept.within if kept else real_rows.within if recipe.classifier == "gaussian" else None
    synthetic: dict[Key, tuple[Tensor, Tensor]] = {}
    for start, own in zip(starts, torch.split(ids, drawn) if len(ids) else (), strict=True):
        key = (view.names[own[0]], view.embeddings[own[0]].cpu().numpy().tobytes())
        block = features[start : start + drawn]
        if made is not None and key in made.synthetic:
            before, mean = made.synthetic[key]
            synthetic[key] = block.copy_(before), mean
        else:
            if isinstance(method, SamplesRepresented):
                block.copy_(method.sample_represented(own, streams))
            else:
                block.copy_(represent(method, method.sample(own, streams)))
            synthetic[key] = block, block.double().mean(dim=0)
    # Of streams of their own: how much noise was drawn for the class before depends on what was kept.
    _represent(method, x_few, y_few, ClassStreams(stream_seed(seed, "examples"), view.names, view.device), few)
    means = torch.stack([mean for _, mean in synthetic.values()]) if synthetic else real_means[:0]
    if len(y_few):
        share = weight_of_few(torch.bincount(y_few, minlength=len(view.names))[view.unseen].double())
        few_classes, few_means = ClassifierRows(few, y_few, torch.ones_like(y_few, dtype=torch.float32), 0).means
        place = torch.searchsorted(view.unseen, few_classes)
        means = means.clone()
        means[place] += share[place, None] * (few_means - means[place])
    with_rows = torch.cat([classes, view.unseen])
    order = torch.argsort(with_rows)
    rows = ClassifierRows(
        features=features,
        labels=labels,
        weights=row_weights(labels, len(view.labels), y_few, recipe.synthetic, drawn, len(view.names)),
        synthetic=len(ids) + len(y_few),
        known_means=(with_rows[order], torch.cat([real_means, means])[order]),
        known_within=within,
    )
    return rows, Made(real_of, real, real_means, within, synthetic)


def _represent(method: GenerativeMethod, x: Tensor, y: Tensor, streams: ClassStreams, into: Tensor) -> None:
    """Real rows (n, d) of classes (n,) as the final classifier is fitted on them."""
    if isinstance(method, SamplesRepresented):
        into.copy_(method.represent_for_fitting(x, y, streams))
        return
    for part, place in zip(torch.split(x, PART), torch.split(into, PART), strict=True):
        place.copy_(method.represent(part))
