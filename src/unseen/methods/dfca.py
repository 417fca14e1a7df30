"""DFCA: a conditional flow whose generated class prototypes are aligned with the real features and with their conditions.

Reference: H. Su, J. Li, K. Lu, L. Zhu, H. T. Shen, "Dual-Aligned Feature Confusion Alleviation for Generalized Zero-Shot
Learning", IEEE TCSVT 33(8), 2023. What the abstract leaves open follows the behaviour of the released code, and some of it is
inferred: docs/methods/dfca.md keeps the two apart.

    mapping  M: c → g, the condition          flow f: (x, g) ↦ z ~ N(0, I), and back: f⁻¹(z; g) = x̂
    condition classifier h: g → log-probabilities of classes          feature encoder E: x → e, of unit length
    x̃ⱼ = f⁻¹(0; M(cⱼ)), the prototype of seen class j, with mean μⱼ of its real features

    L = L_f(x + πε) + λ_cls L_cls + λ_v mean (x̃ⱼ − μⱼ)² + λ_c mean (E(x̃ⱼ) − M(cⱼ))²

    M learns from L_f and L_cls, f from L_f and both alignments, E from the second alignment, h from L_cls.

h and E serve training only: synthesis needs M and f, and the final classifier sees features as they are.

Symbols: d length of a feature, a of a class embedding, G of a condition, H width of the flow's subnetworks, K coupling blocks,
B batch, S and U seen and unseen classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.errors import RunError, SettingsError
from unseen.graph import Graph
from unseen.methods.base import (
    Choices,
    ClassStreams,
    Clock,
    Draw,
    Floats,
    Range,
    Streams,
    above_0,
    load_optimiser_state,
    optimiser_state,
    under,
)
from unseen.nn import learning
from unseen.nn.coupling import ConditionalFlow, initialise
from unseen.nn.flow import class_means, decay, encode, likelihood_loss, prototype_loss
from unseen.nn.learning import SLOPE, TINY, adam, descend
from unseen.nn.positioning import RelativePositioning, choose_anchors
from unseen.recipe import Recipe
from unseen.scaling import ScaledView


@dataclass(frozen=True)
class Hyperparameters:
    """In the paper's symbols where it has any; the defaults are AWA2's.

    Args:
        blocks: K.
        hidden: H; condition: G, which is E's width too.
        clamp: bound of a block's log-scales.
        batch_size: B.
        lr: of M and f; aid_lr: of h and of E.
        weight_decay: of M and f, added to the gradient.
        lr_decay, lr_decay_epochs: lr is multiplied by the one every so many of the other.
        pi: π, standard deviation of the noise added to real features.
        lambda_cls: weight of the condition classifier's loss. 0 leaves h out.
        lambda_v, lambda_c: weight of the visual alignment and of the condition alignment; 0 leaves E out.
        mapping: `anchored`, as in the released code, or `linear`: ReLU(Wc + b).
        anchor_classes: which classes the anchors are chosen from.
        cls_classes: which classes h tells apart. `all` looks at the embeddings of unseen classes, as the released code does.
        normalize_target: bring M(cⱼ) to unit length where E's output is compared with it; published: no, so that the term
            cannot reach 0 and acts on the direction only.
        align_z: prototypes from z = 0, as in the released code, or from a sample of N(0, I).
        align_classes: seen classes that are aligned in a step, drawn anew each time; 0 takes all, as published.
    """

    blocks: int = 3
    hidden: int = 2048
    condition: int = 1024
    clamp: float = 1.0
    batch_size: int = 256
    lr: float = 3e-4
    aid_lr: float = 1e-3
    weight_decay: float = 3e-6
    lr_decay: float = 0.92
    lr_decay_epochs: int = 15
    pi: float = 0.15
    lambda_cls: float = 0.01
    lambda_v: float = 4.1
    lambda_c: float = 1.0
    mapping: Literal["anchored", "linear"] = "anchored"
    anchor_classes: Literal["seen", "all"] = "seen"
    cls_classes: Literal["all", "seen"] = "all"
    normalize_target: bool = False
    align_z: Literal["zero", "sample"] = "zero"
    align_classes: int = 0

    def __post_init__(self) -> None:
        for name in ("blocks", "hidden", "condition", "batch_size", "lr_decay_epochs"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 1 or more")
        above_0(clamp=self.clamp, lr=self.lr, aid_lr=self.aid_lr, lr_decay=self.lr_decay)
        for name in ("weight_decay", "pi", "lambda_cls", "lambda_v", "lambda_c", "align_classes"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 0 or a number above it")
        for name, choices in (
            ("mapping", ("anchored", "linear")),
            ("anchor_classes", ("seen", "all")),
            ("cls_classes", ("all", "seen")),
            ("align_z", ("zero", "sample")),
        ):
            if getattr(self, name) not in choices:
                raise SettingsError(f"{name}={getattr(self, name)!r} is neither '{choices[0]}' nor '{choices[1]}'")

    @property
    def uses_unseen_embeddings(self) -> bool:
        """Training looks at the embeddings of unseen classes: h's among them, or the anchors'."""
        in_classifier = self.lambda_cls > 0 and self.cls_classes == "all"
        return in_classifier or (self.mapping == "anchored" and self.anchor_classes == "all")


_AWA2 = Hyperparameters()
_CUB = Hyperparameters(blocks=5, weight_decay=1e-5, lr_decay=0.8, pi=0.11, lambda_cls=2.0, lambda_v=1.0)
_FLO = Hyperparameters(blocks=5, weight_decay=1e-4, lr_decay=0.8, pi=0.03, lambda_cls=9.0, lambda_v=3.0)
_APY = Hyperparameters(
    blocks=5, batch_size=200, weight_decay=1e-6, lr_decay=0.55, pi=0.02, lambda_cls=1.0, lambda_v=3.0, anchor_classes="all"
)
# Published: 60 000 rows a class (aPY, from GSMFlow: 9000), all drawn. Here 2000 count for all: the same loss in expectation,
# without the memory.
_AWA_RECIPE = Recipe(epochs=500, synthetic=60_000, drawn=2000, classifier_epochs=30, classifier_batch=1200)

PRESETS: Mapping[str, tuple[Hyperparameters, Recipe]] = {
    # Published settings for ResNet-101 features, from the released run scripts. Features of CUB and FLO stay as they are.
    "awa1": (replace(_AWA2, lambda_cls=1.0, lambda_v=10.0), _AWA_RECIPE),
    "awa2": (_AWA2, _AWA_RECIPE),
    "cub": (
        _CUB,
        Recipe(scaling="none", epochs=600, synthetic=600, classifier_lr=0.01, classifier_epochs=30, classifier_batch=3000),
    ),
    "flo": (
        _FLO,
        Recipe(scaling="none", epochs=300, synthetic=3000, classifier_lr=0.005, classifier_epochs=30, classifier_batch=1000),
    ),
    "sun": (
        replace(_AWA2, lambda_cls=8.0, lambda_v=10.0),
        Recipe(epochs=500, synthetic=120, classifier_epochs=30, classifier_batch=1200),
    ),
    # No script of its own: GSMFlow's for this benchmark, with DFCA's two further terms at weight 1.
    "apy": (_APY, Recipe(epochs=600, synthetic=9000, drawn=2000, classifier_epochs=20, classifier_batch=1200)),
}

INFERRED = ("apy",)
"""Presets for which there is no script."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "flow alone": {"lambda_cls": 0.0, "lambda_v": 0.0, "lambda_c": 0.0},
    "+ condition classifier alone": {"lambda_v": 0.0, "lambda_c": 0.0},
    "+ visual alignment alone": {"lambda_cls": 0.0, "lambda_c": 0.0},
    "+ condition alignment alone": {"lambda_cls": 0.0, "lambda_v": 0.0},
}
"""Row of an ablation table → what it changes; the method as it is has all three."""


SEARCH: Mapping[str, Range] = {
    # Every published value lies inside, 0 apart. Widths, blocks and batch say what a step may cost; the decay of the learning
    # rate follows the length of a training.
    "lr": Floats(1e-4, 5e-3, log=True),
    "aid_lr": Floats(1e-4, 1e-2, log=True),
    "weight_decay": Floats(1e-7, 1e-2, log=True),
    "pi": Floats(0.01, 1.0, log=True),
    "lambda_cls": Floats(1e-3, 30.0, log=True),
    "lambda_v": Floats(0.1, 100.0, log=True),
    "lambda_c": Floats(0.01, 10.0, log=True),
    "mapping": Choices(("anchored", "linear")),
    "normalize_target": Choices((False, True)),
    "align_z": Choices(("zero", "sample")),
}
"""Hyper-parameter → what `unseen tune` tries."""


def default(classes: int, d: int, a: int) -> tuple[Hyperparameters, Recipe]:
    """Settings for data without a preset, so that a laptop finishes in minutes: narrow subnetworks, a few hundred steps.

    Args:
        classes: seen classes; d: length of a feature; a: of an embedding.
    """
    hyperparameters = Hyperparameters(
        hidden=256,
        condition=256,
        batch_size=64,
        lr=1e-3,
        lr_decay=1.0,
        lambda_cls=1.0,
        lambda_v=10.0,
        align_classes=64,
    )
    recipe = Recipe(
        scaling="whitened",
        centred=True,
        steps=min(2000, max(450, 3 * classes)),
        synthetic_ratio=10.0,
        classifier="gaussian",
        shrinkage=0.6,
        balanced=True,
    )
    return hyperparameters, recipe


# ----------------------------------------------------------------------------------------------------------- networks


class LinearMapping(nn.Module):
    """M: c → ReLU(Wc + b); a → G. Weights begin as U(±1/√a), as in torch's linear layers."""

    def __init__(self, a: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.Linear(a, width, device=generator.device)
        for parameter in self.linear.parameters():
            nn.init.uniform_(parameter, -(a**-0.5), a**-0.5, generator=generator)

    def forward(self, c: Tensor) -> Tensor:
        return F.relu(self.linear(c))


class ConditionClassifier(nn.Module):
    """h: g → logits of the classes that it was made for; G → n.

    It keeps the embeddings of these classes: a model trained before classes were added goes on to know its own.

    Args:
        classes: (n, a) embeddings, seen classes first.
    """

    classes: Tensor

    def __init__(self, classes: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("classes", classes.clone())
        self.linear = nn.Linear(width, len(classes))

    def forward(self, g: Tensor) -> Tensor:
        out: Tensor = self.linear(g)
        return out


class FeatureEncoder(nn.Module):
    """E: x → e of unit length; d → G → G."""

    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(d, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.second(F.leaky_relu(self.first(x), SLOPE)), dim=1, eps=TINY)


# ------------------------------------------------------------------------------------------------------------- losses


def classification_loss(logits: Tensor) -> Tensor:
    """L_cls = −mean over classes j of log softmax(h(M(cⱼ)))ⱼ; (n, n) logits, row j of class j."""
    return -F.log_softmax(logits, dim=1).diagonal().mean()


def condition_alignment(encoded: Tensor, conditions: Tensor, normalize_target: bool) -> Tensor:
    """L_calign = mean over classes and dimensions of (E(x̃ⱼ) − M(cⱼ))², M(cⱼ) taken as given; both (n, G)."""
    target = conditions.detach()
    if normalize_target:
        target = F.normalize(target, dim=1, eps=TINY)
    return (encoded - target).square().mean()


# ------------------------------------------------------------------------------------------------------------- method


class DFCA(nn.Module):
    """The method: built from a view, trained by `step`, asked by `sample` and `represent`."""

    loops = 1

    def __init__(self, view: ScaledView, settings: Hyperparameters, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.batch_size = settings.batch_size
        self.uses_unseen_embeddings = settings.uses_unseen_embeddings
        self.embeddings = view.embeddings
        self.streams = Streams(seed, view.device)
        self.d, a = view.features.shape[1], view.embeddings.shape[1]
        self.seen_count = len(view.seen)
        self.place = torch.zeros(len(view.embeddings), dtype=torch.int64, device=view.device)
        self.place[view.seen] = torch.arange(self.seen_count, device=view.device)
        self.means = class_means(view)

        self.mapping = self._build_mapping(view, a)
        self.flow = ConditionalFlow(self.d, settings.condition, settings.hidden, settings.blocks, settings.clamp)
        self.feature_encoder = FeatureEncoder(self.d, settings.condition) if settings.lambda_c > 0 else None
        self.to(view.device)
        initialise(self.flow, self.streams["initial flow"])
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "flow": torch.optim.Adam(
                [*self.mapping.parameters(), *self.flow.parameters()],
                settings.lr,
                weight_decay=settings.weight_decay,
                fused=True,
            )
        }
        if self.feature_encoder is not None:
            learning.initialise(self.feature_encoder, self.streams["initial feature encoder"])
            self.optimisers["feature_encoder"] = adam(self.feature_encoder, settings.aid_lr)

        listed = view.seen
        if settings.lambda_cls > 0 and settings.cls_classes == "all":
            listed = torch.cat([view.seen, view.unseen])
        self.listed = view.embeddings[listed]
        self.knows_classes = True
        self.condition_classifier: ConditionClassifier | None = None
        if settings.lambda_cls > 0:
            self._classify(self.listed)

    def _build_mapping(self, view: ScaledView, a: int) -> nn.Module:
        generator = self.streams["initial mapping"]
        if self.settings.mapping == "linear":
            return LinearMapping(a, self.settings.condition, generator)
        classes = view.seen
        if self.settings.anchor_classes == "all":
            classes = torch.cat([view.seen, view.unseen])
        return RelativePositioning(choose_anchors(view.embeddings[classes]), self.settings.condition, generator)

    def _classify(self, classes: Tensor) -> None:
        """A fresh h for the classes of these embeddings."""
        h = ConditionClassifier(classes, self.settings.condition).to(classes.device)
        nn.init.xavier_normal_(h.linear.weight, generator=self.streams["initial condition classifier"])
        nn.init.zeros_(h.linear.bias)
        self.condition_classifier = h
        self.optimisers["condition_classifier"] = adam(h, self.settings.aid_lr)

    # -- training

    def step(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """One update of all networks: a single backward pass of the weighted sum, as no term reaches what is not its own."""
        if not self.knows_classes:
            raise RunError("this model was trained with other classes: it can synthesise, but it cannot be trained any further")
        s = self.settings
        losses = self._losses(*draw())
        weights = {"classification": s.lambda_cls, "visual": s.lambda_v, "condition": s.lambda_c}
        loss = losses["likelihood"]
        for name, weight in weights.items():
            if name in losses:
                loss = loss + weight * losses[name]
        self.optimisers["flow"].param_groups[0]["lr"] = s.lr * decay(
            s.lr_decay, s.lr_decay_epochs, clock.step, clock.steps_per_epoch
        )
        descend(loss, *self.optimisers.values())
        return {name: value.detach() for name, value in losses.items()}

    def _losses(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Every term whose weight is not 0, unweighted. All conditions are computed once and serve all of them."""
        s = self.settings
        conditions = self.mapping(self.listed)  # seen classes first
        if s.pi > 0:
            x = x + s.pi * self.streams.normal("perturbation", *x.shape, dtype=x.dtype)
        losses = {"likelihood": likelihood_loss(*encode(self.flow, x, conditions[: self.seen_count], self.place[y]))}
        if self.condition_classifier is not None:
            losses["classification"] = classification_loss(self.condition_classifier(conditions))
        if s.lambda_v > 0 or s.lambda_c > 0:
            classes = self._classes_to_align()
            given = conditions.detach()[classes]  # the alignments train the flow to follow M, not M to follow the flow
            prototypes = self.flow.inverse(self._latent(given), self.flow.terms(given))
            if s.lambda_v > 0:
                losses["visual"] = prototype_loss(prototypes, self.means[classes])
            if self.feature_encoder is not None:
                losses["condition"] = condition_alignment(self.feature_encoder(prototypes), given, s.normalize_target)
        return losses

    def _classes_to_align(self) -> Tensor:
        """Places of seen classes: all, or `align_classes` of them drawn anew."""
        count, device = self.settings.align_classes, self.means.device
        if not 0 < count < self.seen_count:
            return torch.arange(self.seen_count, device=device)
        return torch.randperm(self.seen_count, generator=self.streams["aligned classes"], device=device)[:count]

    def _latent(self, conditions: Tensor) -> Tensor:
        """z of the prototypes, one for each condition."""
        if self.settings.align_z == "zero":
            return conditions.new_zeros(len(conditions), self.d)
        return self.streams.normal("alignment noise", len(conditions), self.d, dtype=conditions.dtype)

    # -- generation

    @torch.no_grad()
    def sample(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, d): f⁻¹(z; M(c)), z from the prior; not clipped to the range of real features."""
        classes, place = torch.unique(class_ids, return_inverse=True)
        c = self.embeddings[classes]
        z = streams.normal(class_ids, self.d).to(c.dtype)
        return self.flow.inverse(z, self.flow.terms(self.mapping(c)), place)

    def represent(self, x: Tensor) -> Tensor:
        """The final classifier sees the features as they are."""
        return x

    def represent_in_graph(self, graph: Graph, x: str) -> str:
        """`represent` as a graph."""
        return x

    # -- checkpoints

    def state(self) -> dict[str, Tensor]:
        """Networks, optimisers and streams. h and E, which serve training only, are not among the `network.…` entries."""
        networks = {name: value for name, value in self.state_dict().items() if name.startswith(("mapping.", "flow."))}
        aids = {name: value for name, value in self.state_dict().items() if name not in networks}
        return (
            {f"network.{name}": value for name, value in networks.items()}
            | {f"aid.{name}": value for name, value in aids.items()}
            | {f"optimiser.{name}": value for name, value in optimiser_state(self.optimisers)}
            | {f"stream.{name}": value for name, value in self.streams.state().items()}
        )

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was taken. h keeps the classes of its training, whichever there are now."""
        aids = under("aid.", state)
        classes = aids.get("condition_classifier.classes", self.listed)
        self.knows_classes = classes.shape == self.listed.shape and torch.allclose(classes, self.listed, atol=1e-5)
        if not self.knows_classes and self.condition_classifier is not None:
            self._classify(classes.clone())
        self.load_state_dict({**self.state_dict(), **under("network.", state), **aids})
        load_optimiser_state(self.optimisers, under("optimiser.", state))
        self.streams.load_state(under("stream.", state))
