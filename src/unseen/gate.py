"""A final classifier in two stages: a detector says whether a row is of a seen class, then one of two experts names the class.

Reference: D. Mandal et al., "Out-of-Distribution Detection for Generalized Zero-Shot Action Recognition", CVPR 2019, as
TF-VAEGAN evaluates actions by it. The detector is a network over the seen classes, taught to be sure of real seen rows and
unsure of synthetic unseen ones; a row of which it is unsure, by the entropy of its answer, goes to the unseen expert.

Here the three are one function from a row to scores of all classes, so that whatever works on scores works on it: the best seen
class is the seen expert's, the best unseen class the unseen expert's, and the margin between the two is what the entropy falls
short of the threshold by. γ, which is subtracted from seen scores, then *is* the threshold: 0 is the published one, the mean
entropy of real seen training rows, and another one is chosen where every γ is, on folds.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.linear import LinearScores
from unseen.methods.base import Streams, under
from unseen.nn.learning import adam, descend, initialise
from unseen.represented import Rows, in_parts

HIDDEN = 512
SEEN_A_BATCH = SYNTHETIC_A_BATCH = 64
"""Real seen rows, and synthetic unseen ones, in each batch of the detector."""
DETECTOR_EPOCHS = 2
"""Epochs of the detector for each of the experts': 50 for 25, as published."""


class Detector(nn.Module):
    """u → 512 → 512 → logits of the seen classes."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, HIDDEN)
        self.second = nn.Linear(HIDDEN, HIDDEN)
        self.third = nn.Linear(HIDDEN, classes)

    def forward(self, u: Tensor) -> Tensor:
        out: Tensor = self.third(F.relu(self.second(F.relu(self.first(u)))))
        return out


def entropy(logits: Tensor) -> Tensor:
    """(n, S) logits → (n,) −Σ p log p of their softmax, in nats."""
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def detector_loss(seen: Tensor, targets: Tensor, synthetic: Tensor) -> Tensor:
    """mean entropy(seen) − mean log p(target) − mean entropy(synthetic), of logits (n, S), ids (n,) and logits (m, S)."""
    return entropy(seen).mean() + F.cross_entropy(seen, targets) - entropy(synthetic).mean()


def fit_detector(
    seen: Rows, targets: Tensor, synthetic: Rows, *, classes: int, epochs: int, lr: float, seed: int
) -> Iterator[Detector]:
    """The detector after each of its epochs. An epoch goes through as many batches as the seen rows fill.

    Args:
        seen: (n, k) real rows; targets: (n,) their classes, 0 to `classes` − 1; synthetic: (m, k) rows of unseen classes.
        lr: of Adam.
        seed: of the initial weights N(0, 0.02²) and of the order of rows.
    """
    streams = Streams(seed, seen.device)
    detector = Detector(seen.shape[1], classes).to(seen.device)
    initialise(detector, streams["initial detector"])
    optimiser = adam(detector, lr)
    of_seen = _batches(len(seen), SEEN_A_BATCH, streams["seen rows"])
    of_synthetic = _batches(len(synthetic), SYNTHETIC_A_BATCH, streams["synthetic rows"])
    for _ in range(epochs):
        for _ in range(math.ceil(len(seen) / SEEN_A_BATCH)):
            real, made = next(of_seen), next(of_synthetic)
            logits = detector(torch.cat([seen[real], synthetic[made]]))
            descend(detector_loss(logits[: len(real)], targets[real], logits[len(real) :]), optimiser)
        yield copy.deepcopy(detector)


def _batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches without end: one shuffle after the other, each batch full where there are as many rows."""
    size = min(size, count)
    order = torch.empty(0, dtype=torch.int64, device=generator.device)
    while True:
        if len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=generator, device=generator.device)])
        yield order[:size]
        order = order[size:]


@dataclass(frozen=True)
class GatedScores:
    """Scores of all classes by a detector and two experts.

    Args:
        detector: logits of the seen classes.
        threshold: (), the entropy below which a row is taken for one of a seen class, in nats.
        experts: of the seen and of the unseen classes.
        class_ids: ids of these, both ascending: columns of the scores.
        width: how many columns there are; a class of neither expert is never taken.
    """

    detector: Detector
    threshold: Tensor
    experts: tuple[LinearScores, LinearScores]
    class_ids: tuple[Tensor, Tensor]
    width: int

    @torch.no_grad()
    def __call__(self, u: Tensor) -> Tensor:
        """(n, k) → (n, C) scores, in double precision: adding the margin must not make an expert's near ties equal.

        The best unseen class has 0, the best seen class `threshold` − entropy; the others lie as far below as the expert puts
        their log-probabilities.
        """
        scores = torch.full((len(u), self.width), -torch.inf, dtype=torch.float64, device=u.device)
        margin = self.threshold.double() - entropy(self.detector(u).double())
        for expert, ids, best in zip(self.experts, self.class_ids, (margin, torch.zeros_like(margin)), strict=True):
            own = expert(u).double()
            scores[:, ids] = own - own.amax(dim=1, keepdim=True) + best[:, None]
        return scores

    def only(self, class_ids: Tensor) -> LinearScores:
        """The unseen expert alone, for these unseen classes in this order; one that it does not know is never taken."""
        expert, known = self.experts[1], self.class_ids[1]
        at = torch.searchsorted(known, class_ids).clamp_max(len(known) - 1)
        return LinearScores(expert.weight[at], torch.where(known[at] == class_ids, expert.bias[at], -torch.inf))

    def tensors(self) -> dict[str, Tensor]:
        """Name → tensor: all that `of` needs."""
        stored = {f"detector.{name}": value for name, value in self.detector.state_dict().items()}
        for kind, expert, ids in zip(("seen", "unseen"), self.experts, self.class_ids, strict=True):
            stored |= {f"{kind}.{name}": value for name, value in expert.tensors().items()} | {f"{kind}.ids": ids}
        return stored | {"threshold": self.threshold, "width": torch.tensor(self.width)}

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> GatedScores:
        """The scores whose `tensors` these are."""
        weights = under("detector.", tensors)
        detector = Detector(weights["first.weight"].shape[1], len(weights["third.bias"])).to(tensors["threshold"].device)
        detector.load_state_dict(weights)
        parts = [under(f"{kind}.", tensors) for kind in ("seen", "unseen")]
        experts = [LinearScores(part["weight"], part["bias"]) for part in parts]
        return GatedScores(
            detector, tensors["threshold"], (experts[0], experts[1]), (parts[0]["ids"], parts[1]["ids"]), int(tensors["width"])
        )


@torch.no_grad()
def mean_entropy(detector: Detector, u: Rows) -> Tensor:
    """(), over rows (n, k): of real seen training rows it is the published threshold."""
    return torch.cat([entropy(detector(part)) for _, part in in_parts(u)]).mean()


Scores = LinearScores | GatedScores
"""What a final classifier says of all classes."""


def scores_of(tensors: Mapping[str, Tensor]) -> Scores:
    """The scores whose `tensors` these are, of either kind."""
    if "threshold" in tensors:
        return GatedScores.of(tensors)
    return LinearScores(tensors["weight"], tensors["bias"])
