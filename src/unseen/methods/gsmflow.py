"""GSMFlow: a conditional flow that keeps generated classes where, as wide as and in the order that the real ones are.

References: Z. Chen, Y. Luo, S. Wang, R. Qiu, J. Li, Z. Huang, "Mitigating Generation Shifts for Generalized Zero-Shot
Learning", ACM MM 2021; Z. Chen, Y. Luo, S. Wang, J. Li, Z. Huang, "GSMFlow: Generation Shifts Mitigating Flow for Generalized
Zero-Shot Learning", IEEE TMM 2022. What the abstracts leave open follows the behaviour of the released codes, as recorded in
docs/methods/gsmflow.md.

    relative positioning  g: c → Σₘ ReLU(Wₘ(c − vₘ) + bₘ)          flow f: (x, g) ↦ z ~ N(0, I), and back: f⁻¹(z; g) = x̂
    relation network      r: (x, c) → [0, 1], whether they belong together (journal version only)

    first    train r; then move copies of the training rows to where r is least sure of them, their class kept (mining)
    then     L = L_f(x + πε) + λ_p mean (x̃_c − μ_c)²,  x rows original ∪ mined,  x̃_c = f⁻¹(0; g(c)) the mode of seen class c

Three shifts and their remedies: *semantic inconsistency*, the condition enters every coupling; *variance collapse*, the
perturbation πε and the mined rows; *structure disorder*, relative positioning. The conference version is this file without
mining.

Symbols: d length of a feature, a of a class embedding, G of a condition, H hidden width, K coupling blocks, B batch, S seen
classes, μ_c mean of the real rows of class c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unseen.errors import SettingsError
from unseen.graph import Graph
from unseen.methods.base import (
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
from unseen.methods.benchmarks import EPGN, Benchmark
from unseen.nn.coupling import ConditionalFlow, initialise
from unseen.nn.flow import class_means, decay, encode, likelihood_loss, prototype_loss
from unseen.nn.learning import descend
from unseen.nn.positioning import RelativePositioning, choose_anchors
from unseen.recipe import Recipe
from unseen.scaling import ScaledView

PAIRS_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Hidden units of the relation network held at once, rows × classes × width, by device: bounds memory, not results. A processor
is faster with no more than its cache holds, though it computes them again for the gradient."""


@dataclass(frozen=True)
class Hyperparameters:
    """In the paper's symbols where it has any; the defaults are those of the journal version on AWA2.

    Args:
        blocks: K.
        hidden: H; condition: G.
        clamp: bound of a block's log-scales.
        batch_size: B.
        lr, weight_decay: of f and g; the decay is added to the gradient.
        lr_decay, lr_decay_epochs: lr is multiplied by the one every so many of the other.
        pi: π, standard deviation of the noise added to real features.
        dropout: share of dimensions that get no noise, drawn anew for each batch.
        lambda_p: weight of the prototype loss.
        prototype_classes: seen classes in a step's prototype loss, drawn anew each time; 0 takes all, as published.
        positioning: relative positioning; without it the condition is the embedding itself, times `embedding_scale`.
        anchor_classes: which classes the anchors are chosen from. `all` looks at the embeddings of unseen classes.
        relation_epochs, relation_lr, relation_decay: training of r.
        relation_batch: rows with which r is trained and which are mined together; 0 takes `batch_size`, the most it may be.
        relation_hidden: width of r.
        mining_steps: L, gradient steps on each copy of a training row; 0 leaves out mining, and with it r.
        mining_rate: η, of these steps. Large, as the gradient is one of a mean over a batch.
        lambda_H: weight of the entropy that mining maximises.
        embedding_scale: c is multiplied by this wherever g and r see it, and f where there is no g. Not in the papers: the
            entries of a unit vector are so small that a short training hardly notices them.
        embedding_noise: expected length of Gaussian noise added to the unit vector c wherever it conditions f in training. Not
            in the papers: it keeps f from learning the few seen embeddings by heart.
        reference_quirks: mine as the released code happens to: its sweep goes on where relation training stopped in a pass over
            the data, so what that pass had seen is left out, as are incomplete batches; an epoch of r has as many steps as
            `batch_size` rows fit into the data, however few r takes at a time, and one step follows; and the flow then
            trains with `relation_batch` rows at a time.
    """

    blocks: int = 3
    hidden: int = 2048
    condition: int = 1024
    clamp: float = 1.0
    batch_size: int = 256
    lr: float = 3e-4
    weight_decay: float = 3e-6
    lr_decay: float = 0.92
    lr_decay_epochs: int = 17
    pi: float = 0.15
    dropout: float = 0.0
    lambda_p: float = 10.0
    prototype_classes: int = 0
    positioning: bool = True
    anchor_classes: Literal["seen", "all"] = "all"
    relation_epochs: int = 50
    relation_batch: int = 0
    relation_lr: float = 3e-4
    relation_decay: float = 3e-6
    relation_hidden: int = 2048
    mining_steps: int = 30
    mining_rate: float = 100.0
    lambda_H: float = 20.0
    embedding_scale: float = 1.0
    embedding_noise: float = 0.0
    reference_quirks: bool = False

    def __post_init__(self) -> None:
        positive = ("blocks", "hidden", "condition", "batch_size", "lr_decay_epochs", "relation_hidden")
        for name in (*positive, *(("relation_epochs",) if self.mining_steps else ())):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 1 or more")
        above_0(
            clamp=self.clamp,
            lr=self.lr,
            lr_decay=self.lr_decay,
            relation_lr=self.relation_lr,
            mining_rate=self.mining_rate,
            embedding_scale=self.embedding_scale,
        )
        not_negative = ("weight_decay", "pi", "lambda_p", "prototype_classes", "embedding_noise")
        for name in (*not_negative, "relation_decay", "relation_batch", "mining_steps", "lambda_H"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 0 or a number above it")
        if not 0 <= self.dropout < 1:
            raise SettingsError(f"dropout={self.dropout} cannot work; give 0 or more, and less than 1")
        if self.anchor_classes not in ("seen", "all"):
            raise SettingsError(f"anchor_classes={self.anchor_classes!r} is neither 'seen' nor 'all'")
        if self.relation_batch > self.batch_size:
            raise SettingsError(
                f"relation_batch={self.relation_batch} is more than batch_size={self.batch_size}; give 0, or a smaller number"
            )

    @property
    def rows_to_relate(self) -> int:
        """`relation_batch`, or what 0 stands for."""
        return self.relation_batch or self.batch_size

    @property
    def uses_unseen_embeddings(self) -> bool:
        """Training looks at the embeddings of unseen classes: the anchors may be theirs."""
        return self.positioning and self.anchor_classes == "all"


_AWA2 = Hyperparameters()
_APY = Hyperparameters(
    blocks=5, batch_size=200, weight_decay=1e-5, lr_decay=0.55, lr_decay_epochs=20, pi=0.02, lambda_p=3.0,
    relation_lr=1e-3, mining_rate=30.0, mining_steps=20, lambda_H=10.0,
)  # fmt: skip
_CUB = Hyperparameters(
    lr=1e-4, weight_decay=3e-5, lr_decay=0.8, lr_decay_epochs=25, pi=0.05, lambda_p=1.0,
    relation_epochs=100, relation_lr=1e-4, relation_decay=1e-6, mining_rate=20.0, mining_steps=20, lambda_H=10.0,
)  # fmt: skip
_FLO = Hyperparameters(
    lr=1e-4, weight_decay=1e-4, lr_decay=0.8, lr_decay_epochs=30, pi=0.1, lambda_p=3.0,
    relation_epochs=60, relation_batch=64, relation_decay=1e-6, mining_rate=20.0, mining_steps=20, lambda_H=1.0,
)  # fmt: skip
# The conference version: no mining.
_AWA2_MM21 = Hyperparameters(lr_decay_epochs=15, anchor_classes="seen", mining_steps=0)
_APY_MM21 = Hyperparameters(
    blocks=5, batch_size=200, weight_decay=1e-6, lr_decay=0.55, lr_decay_epochs=15, pi=0.02, lambda_p=3.0, mining_steps=0
)
_CUB_MM21 = Hyperparameters(
    blocks=5, weight_decay=1e-5, lr_decay=0.8, lr_decay_epochs=15, pi=0.05, lambda_p=1.0, anchor_classes="seen", mining_steps=0
)
_FLO_MM21 = Hyperparameters(
    blocks=5, weight_decay=1e-4, lr_decay=0.8, lr_decay_epochs=15, pi=0.07, lambda_p=3.0, anchor_classes="seen", mining_steps=0
)
# Published: 9000 to 50 000 rows a class, all drawn. Here 2000 count for all: the same loss in expectation, without the memory.
_APY_RECIPE = Recipe(epochs=600, synthetic=9000, drawn=2000, classifier_epochs=20, classifier_batch=1200)
_SUN_RECIPE = Recipe(epochs=500, synthetic=120, classifier_epochs=30, classifier_batch=1200)


def _awa(epochs: int, classifier_lr: float) -> Recipe:
    return Recipe(
        epochs=epochs,
        synthetic=50_000,
        drawn=2000,
        classifier_lr=classifier_lr,
        classifier_epochs=30,
        classifier_batch=1200,
    )


PRESETS: Mapping[str, tuple[Hyperparameters, Recipe]] = {
    # Published settings for ResNet-101 features, from the released run scripts: first those of the journal version. No script
    # for AWA1, which takes AWA2's, nor for SUN: a related method's lengths, and AWA2's mining. Features of CUB and FLO stay as
    # they are.
    "awa1": (_AWA2, _awa(1000, 5e-3)),
    "awa2": (_AWA2, _awa(1000, 5e-3)),
    "apy": (_APY, _APY_RECIPE),
    "cub": (
        _CUB,
        Recipe(scaling="none", epochs=1500, synthetic=600, classifier_lr=3e-3, classifier_epochs=50, classifier_batch=600),
    ),
    "flo": (
        _FLO,
        Recipe(scaling="none", epochs=1000, synthetic=3000, classifier_lr=5e-3, classifier_epochs=30, classifier_batch=1000),
    ),
    "sun": (replace(_AWA2, lr_decay_epochs=15), _SUN_RECIPE),
    "awa1-mm21": (_AWA2_MM21, _awa(500, 1e-3)),
    "awa2-mm21": (_AWA2_MM21, _awa(500, 1e-3)),
    "apy-mm21": (_APY_MM21, _APY_RECIPE),
    "cub-mm21": (
        _CUB_MM21,
        Recipe(scaling="none", epochs=600, synthetic=600, classifier_lr=0.01, classifier_epochs=30, classifier_batch=3000),
    ),
    "flo-mm21": (
        _FLO_MM21,
        Recipe(scaling="none", epochs=300, synthetic=3000, classifier_lr=5e-3, classifier_epochs=30, classifier_batch=1000),
    ),
    "sun-mm21": (_AWA2_MM21, _SUN_RECIPE),
}

INFERRED = ("awa1", "sun", "awa1-mm21", "sun-mm21")
"""Presets for which there is no script."""

MADE_FOR: Mapping[str, Benchmark] = {**EPGN, **{f"{name}-mm21": benchmark for name, benchmark in EPGN.items()}}
"""Preset → the data that it is for."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    # Each row has one part more; the method as it is adds mining.
    "flow alone": {"positioning": False, "pi": 0.0, "lambda_p": 0.0, "mining_steps": 0},
    "+ relative positioning": {"pi": 0.0, "lambda_p": 0.0, "mining_steps": 0},
    "+ visual perturbation": {"lambda_p": 0.0, "mining_steps": 0},
    "+ prototype loss": {"mining_steps": 0},
}
"""Row of an ablation table → what it changes."""

SEARCH: Mapping[str, Range] = {
    # Every published value lies inside. Widths, blocks, batch and the lengths of the preparation say what a training may cost;
    # the decay of the learning rate follows its length.
    "lr": Floats(1e-5, 1e-2, log=True),
    "weight_decay": Floats(1e-7, 1e-2, log=True),
    "pi": Floats(0.01, 2.0, log=True),
    "lambda_p": Floats(0.1, 300.0, log=True),
    "embedding_noise": Floats(0.0, 2.0),
    "relation_lr": Floats(1e-5, 1e-2, log=True),
    "mining_rate": Floats(1.0, 1e6, log=True),
    "lambda_H": Floats(0.1, 50.0, log=True),
}
"""Hyper-parameter → what `unseen tune` tries."""


def default(classes: int, d: int, a: int) -> tuple[Hyperparameters, Recipe]:
    """Settings for data without a preset, so that a laptop finishes in minutes: narrow networks, a few thousand steps.

    The flow fits the seen class means slowly: on folds of Grocery, and of the emoji data with whitened features, H rises up
    to the last of these steps. Where fewer are better, `blind` takes fewer.

    Args:
        classes: seen classes; d: length of a feature; a: of an embedding.
    """
    hyperparameters = Hyperparameters(
        blocks=1,
        hidden=256,
        condition=256,
        batch_size=64,
        lr=1e-3,
        lr_decay=1.0,
        lambda_p=1.0,
        prototype_classes=64,
        anchor_classes="seen",
        relation_epochs=30,
        relation_lr=5e-4,
        relation_hidden=256,
        mining_steps=10,
        mining_rate=3e4,
        lambda_H=1.0,
        embedding_scale=5.0,
        embedding_noise=1.0,
    )
    recipe = Recipe(
        scaling="whitened",
        centred=True,
        steps=min(3000, max(2000, 6 * classes)),
        synthetic_ratio=10.0,
        classifier="gaussian",
        shrinkage=0.6,
        balanced=True,
    )
    return hyperparameters, recipe


# ----------------------------------------------------------------------------------------------------------- networks


class RelationNetwork(nn.Module):
    """r: (x, c) → σ(w · ReLU(Vx + Wc + b) + b′); d, a → H → 1, for all pairs of rows and classes.

    Weights for x and for c are stored apart, so a row and a class are multiplied by them once, not once for every pair.
    """

    def __init__(self, d: int, a: int, hidden: int) -> None:
        super().__init__()
        self.visual = nn.Linear(d, hidden, bias=False)
        self.semantic = nn.Linear(a, hidden)
        self.score = nn.Linear(hidden, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """U(±1/√inputs), as torch's linear layers; the first layer has d + a inputs."""
        first = self.visual.in_features + self.semantic.in_features
        bounds = {"visual": first, "semantic": first, "score": self.score.in_features}
        for name, parameter in self.named_parameters():
            bound = bounds[name.split(".")[0]] ** -0.5
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, d) rows and (n, a) embeddings → (B, n)."""
        return self.compare(self.visual(x), self.semantic(c))

    def compare(self, rows: Tensor, classes: Tensor) -> Tensor:
        """First layers' outputs (B, H) and (n, H) → (B, n). Hidden layers that are too many to keep are computed again for
        the gradient."""
        at_once = PAIRS_AT_ONCE.get(rows.device.type, PAIRS_AT_ONCE["cuda"])
        chunks = min(len(classes), math.ceil(rows.numel() * len(classes) / at_once))
        if chunks <= 1:
            return torch.sigmoid(self._pairs(rows, classes))
        parts = [checkpoint(self._pairs, rows, part, use_reentrant=False) for part in classes.tensor_split(chunks)]
        return torch.sigmoid(torch.cat(parts, dim=1))

    def _pairs(self, rows: Tensor, classes: Tensor) -> Tensor:
        out: Tensor = self.score(F.relu(rows[:, None] + classes)).squeeze(2)
        return out


# ------------------------------------------------------------------------------------------------------------- losses


def relation_loss(scores: Tensor, place: Tensor) -> Tensor:
    """Mean over rows i and classes j of (r_ij − Y_ij)², Y the one-hot labels.

    Args:
        scores: (B, n) r of each row with each class of the batch; place: (B,) column of its own class.
    """
    return (scores - F.one_hot(place, scores.shape[1])).square().mean()


def entropy(scores: Tensor) -> Tensor:
    """Mean over rows of the entropy of softmax over the scores (B, n), in nats."""
    log_share = F.log_softmax(scores, dim=1)
    return -(log_share.exp() * log_share).sum(dim=1).mean()


def mine(
    relation: RelationNetwork, x: Tensor, place: Tensor, classes: Tensor, rate: float, steps: int, weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """x after `steps` of plain gradient descent on relation_loss − weight · entropy: rows near a boundary, on their own side.

    Args:
        x: (B, d); place: (B,) column of each row's class; classes: (n, a) embeddings of the classes in the batch.

    Returns:
        (B, d), and the terms as they were before the last step; without entropy where its weight is 0.
    """
    of_classes = relation.semantic(classes).detach()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        scores = relation.compare(relation.visual(x), of_classes)
        terms = {"mined relation": relation_loss(scores, place)}
        objective = terms["mined relation"]
        if weight > 0:
            terms["mined entropy"] = entropy(scores)
            objective = objective - weight * terms["mined entropy"]
        (gradient,) = torch.autograd.grad(objective, x)
        x = x.detach() - rate * gradient
    return x, {name: value.detach() for name, value in terms.items()}


# ------------------------------------------------------------------------------------------------------------- method


class GSMFlow(nn.Module):
    """The method: built from a view, prepared by `prepare`, trained by `step`, asked by `sample` and `represent`."""

    loops = 1

    def __init__(self, view: ScaledView, settings: Hyperparameters, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.batch_size = settings.batch_size
        self.uses_unseen_embeddings = settings.uses_unseen_embeddings
        self.embeddings = view.embeddings if settings.embedding_scale == 1 else settings.embedding_scale * view.embeddings
        self.seen = view.seen
        self.features, self.labels = view.features, view.labels
        self.streams = Streams(seed, view.device)
        self.d, a = view.features.shape[1], view.embeddings.shape[1]
        self.place = torch.zeros(len(view.embeddings), dtype=torch.int64, device=view.device)
        self.place[view.seen] = torch.arange(len(view.seen), device=view.device)
        self.means = class_means(view)

        self.positioning: RelativePositioning | None = None
        if settings.positioning:
            classes = view.seen if settings.anchor_classes == "seen" else torch.cat([view.seen, view.unseen])
            anchors = choose_anchors(self.embeddings[classes])
            self.positioning = RelativePositioning(anchors, settings.condition, self.streams["initial mapping"])
        condition = settings.condition if settings.positioning else a
        self.flow = ConditionalFlow(self.d, condition, settings.hidden, settings.blocks, settings.clamp).to(view.device)
        initialise(self.flow, self.streams["initial flow"])
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "flow": torch.optim.Adam(self.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True)
        }
        self.relation: RelationNetwork | None = None
        self.preparation = 0
        if settings.mining_steps:
            self._plan_preparation(a)

    def _plan_preparation(self, a: int) -> None:
        """The relation network, how long it is trained, and which rows are mined in which order."""
        s, n = self.settings, len(self.labels)
        self.relation = RelationNetwork(self.d, a, s.relation_hidden).to(self.labels.device)
        self.relation.initialise(self.streams["initial relation"])
        self.optimisers["relation"] = torch.optim.Adam(
            self.relation.parameters(), s.relation_lr, weight_decay=s.relation_decay, fused=True
        )
        whole = math.ceil(n / s.rows_to_relate)
        self.relation_steps, sweep = whole * s.relation_epochs, whole
        if s.reference_quirks:
            whole = max(1, n // s.rows_to_relate)
            self.relation_steps = max(1, n // s.batch_size) * s.relation_epochs + 1
            sweep = whole - self.relation_steps % whole
        self.preparation = self.relation_steps + sweep
        order = torch.randperm(n, generator=self.streams["mining order"], device=self.labels.device)
        self.mined_rows = order[: sweep * s.rows_to_relate]
        self.mined = torch.zeros_like(self.features[self.mined_rows])

    # -- preparation

    def prepare(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """Train the relation network; then, frozen, let it mine every training row once, or what `reference_quirks` leaves."""
        assert self.relation is not None
        if clock.step < self.relation_steps:
            return self._train_relation(self.relation, draw)
        return self._mine(self.relation, clock.step - self.relation_steps)

    def _train_relation(self, relation: RelationNetwork, draw: Draw) -> dict[str, Tensor]:
        """Minimise `relation_loss` against the classes that the batch happens to hold."""
        x, y = (part[: self.settings.rows_to_relate] for part in draw())
        classes, place = torch.unique(y, return_inverse=True)
        loss = relation_loss(relation(x, self.embeddings[classes]), place)
        descend(loss, self.optimisers["relation"])
        return {"relation": loss.detach()}

    def _mine(self, relation: RelationNetwork, number: int) -> dict[str, Tensor]:
        """Move one batch of copies. The rate is one of full batches, so rows of a smaller one go as far as the others."""
        s = self.settings
        part = slice(number * s.rows_to_relate, (number + 1) * s.rows_to_relate)
        rows = self.mined_rows[part]
        classes, place = torch.unique(self.labels[rows], return_inverse=True)
        rate = s.mining_rate * len(rows) / s.rows_to_relate
        x = self.features[rows]
        self.mined[part], log = mine(relation, x, place, self.embeddings[classes], rate, s.mining_steps, s.lambda_H)
        return log | {"moved": (self.mined[part] - x).norm(dim=1).mean()}

    def extra_rows(self) -> tuple[Tensor, Tensor]:
        """The mined rows, with the classes of those they were copied from."""
        return self.mined, self.labels[self.mined_rows]

    # -- training

    def step(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """One update of flow and positioning by L_f + λ_p L_p, with one backward pass for both."""
        s = self.settings
        x, y = draw()
        if s.reference_quirks and s.mining_steps:
            x, y = x[: s.rows_to_relate], y[: s.rows_to_relate]
        conditions = self._conditions(self._noisy(self.embeddings[self.seen]))
        loss = likelihood_loss(*encode(self.flow, self._perturbed(x), conditions, self.place[y]))
        log = {"likelihood": loss.detach()}
        if s.lambda_p > 0:
            prototypes = self._prototype_loss(conditions.detach())
            loss = loss + s.lambda_p * prototypes
            log["prototypes"] = prototypes.detach()
        self.optimisers["flow"].param_groups[0]["lr"] = s.lr * decay(
            s.lr_decay, s.lr_decay_epochs, clock.step, clock.steps_per_epoch
        )
        descend(loss, self.optimisers["flow"])
        return log

    def _prototype_loss(self, conditions: Tensor) -> Tensor:
        """L_p. The flow learns to put its modes right, not the conditions (S, G) to suit them, so these are detached."""
        means, count, classes = self.means, self.settings.prototype_classes, len(conditions)
        if 0 < count < classes:
            picked = torch.randperm(classes, generator=self.streams["aligned classes"], device=means.device)[:count]
            conditions, means = conditions[picked], means[picked]
        modes = self.flow.inverse(torch.zeros_like(means), self.flow.terms(conditions))
        return prototype_loss(modes, means)

    def _noisy(self, c: Tensor) -> Tensor:
        """Embeddings c (S, a), each with noise `embedding_noise` times as long as they: one draw a class and step."""
        s = self.settings
        if s.embedding_noise == 0:
            return c
        length: float = s.embedding_scale * s.embedding_noise / c.shape[1] ** 0.5
        return c + length * self.streams.normal("embedding noise", *c.shape, dtype=c.dtype)

    def _perturbed(self, x: Tensor) -> Tensor:
        """x + π m ⊙ ε, with one mask m for the batch."""
        s = self.settings
        if s.pi == 0:
            return x
        noise = s.pi * self.streams.normal("perturbation", *x.shape, dtype=x.dtype)
        if s.dropout > 0:
            noise = noise * (self.streams.uniform("perturbation mask", x.shape[1], dtype=x.dtype) >= s.dropout)
        return x + noise

    def _conditions(self, c: Tensor) -> Tensor:
        """(n, a) embeddings → (n, G); without relative positioning the (scaled) embeddings themselves."""
        if self.positioning is None:
            return c
        conditions: Tensor = self.positioning(c)
        return conditions

    # -- generation

    @torch.no_grad()
    def sample(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, d): f⁻¹(z; g(c)), z from the prior; not clipped to the range of real features."""
        classes, place = torch.unique(class_ids, return_inverse=True)
        c = self.embeddings[classes]
        z = streams.normal(class_ids, self.d).to(c.dtype)
        return self.flow.inverse(z, self.flow.terms(self._conditions(c)), place)

    def represent(self, x: Tensor) -> Tensor:
        """The final classifier sees the features as they are."""
        return x

    def represent_in_graph(self, graph: Graph, x: str) -> str:
        """`represent` as a graph."""
        return x

    # -- checkpoints

    def state(self) -> dict[str, Tensor]:
        """Networks, mined rows, optimisers and streams. The relation network, of no use any more, is no `network.…` entry."""
        networks = self.state_dict()
        relation = {name: networks.pop(name) for name in list(networks) if name.startswith("relation.")}
        mined = {"mined.features": self.mined, "mined.rows": self.mined_rows} if self.preparation else {}
        return (
            {f"network.{name}": value for name, value in networks.items()}
            | {f"preparation.{name}": value for name, value in (relation | mined).items()}
            | {f"optimiser.{name}": value for name, value in optimiser_state(self.optimisers)}
            | {f"stream.{name}": value for name, value in self.streams.state().items()}
        )

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was taken."""
        preparation = under("preparation.", state)
        if self.preparation and preparation:
            self.mined.copy_(preparation.pop("mined.features"))
            self.mined_rows = preparation.pop("mined.rows").clone()
        self.load_state_dict({**self.state_dict(), **under("network.", state), **preparation})
        load_optimiser_state(self.optimisers, under("optimiser.", state))
        self.streams.load_state(under("stream.", state))
