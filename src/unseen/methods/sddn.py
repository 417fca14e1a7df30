"""SDDN: features refined by self-distillation, then split into halves, one of which agrees with the semantics.

Reference: X. Liu, C. Wang, G. Yang, C. Wang, Y. Long, J. Liu, Z. Zhang, "Leveraging Self-Distillation and Disentanglement
Network to Enhance Visual-Semantic Feature Consistency in Generalized Zero-Shot Learning", Electronics 2024, 13(10), 1977.
Re-created from the abstract and the headings; the authors' code is not public. What is known, what comes from related work
(SDGZSL, FRSKD) and what is inferred is told apart in docs/methods/sddn.md.

    generation        encoder E: [x, a] → z         generator G: [z, a] → x̃
    self-distillation student S: x → F₁, F₂, F₃ = x̂          self-teacher T: F₁, F₂, F₃ → T₁, T₂, T₃
    disentanglement   E_v: x̂ → [h_s, h_n], D_v back; E_a: a → [g_s, g_n], D_a back; relation Q(h_s, g_s); predictor M: h_s → ŝ
    classifier input  [h_s, M(h_s)] of x̂

Symbols: d length of a feature, a of a class embedding, C classes, S and U the seen and unseen ones, B batch, H hidden width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from unseen.errors import SettingsError
from unseen.graph import Graph
from unseen.methods.base import (
    Choices,
    ClassStreams,
    Clock,
    Draw,
    Floats,
    Ints,
    Range,
    Streams,
    above_0,
    load_optimiser_state,
    optimiser_state,
    stream_seed,
    under,
)
from unseen.methods.benchmarks import EPGN, PUBLIC, Benchmark
from unseen.nn import vaegan
from unseen.nn.critic import Critic, update_critic
from unseen.nn.learning import SLOPE, TINY, descend, initialise
from unseen.recipe import Recipe
from unseen.scaling import ScaledView, Scaling

Drop = Callable[[Tensor], Tensor]
"""Dropout that draws from a named stream. Networks that are given none are not in training."""


@dataclass(frozen=True)
class Hyperparameters:
    """In the symbols of docs/methods/sddn.md; the defaults are CUB's with attributes.

    Args:
        hidden: H, width of E, G, D_v and Q; half of it is that of T, E_a and D_a, a quarter that of the independence
            discriminators.
        half: width of each of h_s, h_n, g_s, g_n.
        refiner: width of F₁ and F₂; 0 makes it d.
        latent: length of z.
        batch_size: B.
        lr, weight_decay: of every network.
        generator: `cvae`, or `vaegan`: f-VAEGAN's encoder, generator and critic, with the next four settings.
        critic_iterations: critic updates for each other update.
        gamma_D, gamma_G: weight of the critic's loss, and of the adversarial term in the generator's.
        penalty: weight of the gradient penalty.
        encoder_dropout, generator_dropout, autoencoder_dropout: of E, of G, and of E_v and D_v.
        kappa0: the weight of the KL term grows by this much an epoch, up to 1 (`cvae`).
        lambda_cg: what G(z, a) keeps of the self-teacher's soft labels.
        lambda_sd: self-distillation; 0 leaves S and T out, and x̂ is x.
        alpha, beta: in it, distillation of soft labels and of features.
        temperature: K of the soft labels.
        unseen_rows: distil on synthetic rows of unseen classes too, once `warm_up` epochs are over.
        warm_up: in epochs.
        heads: classes that S and T tell apart: `all`, or `seen`, where synthetic unseen rows add no cross-entropy.
        teacher: `pyramid`, or `mlp` on [F₁, F₂, F₃].
        detach_teacher: T's cross-entropy stops at T.
        lambda_rec: reconstruction of x and a from their halves; 0 leaves the disentanglement out.
        lambda_cross: the same with semantic halves exchanged.
        lambda_rel: semantic relation matching.
        relation_loss: of Q's scores: `squares` of their sigmoids' errors, as SDGZSL has it, or the `softmax` over the classes
            of the batch, in which the one true class does not drown among many.
        relate_to: Q compares h_s with the `latent` g_s or with the `embedding` itself, as SDGZSL does.
        lambda_m: training of M; 0 leaves M out.
        detach_predictor: M's loss stops at M.
        lambda_tc: independence of the halves; 0 leaves it out.
        independence: by discriminators, the `judges`, or as squared cross-`covariance`, which cannot fall below 0 and takes a
            lambda_tc of another size, as it is a sum over pairs of dimensions.
        rho0: lambda_tc grows by this share an epoch, up to 1.
        lambda_dis: weight of the discriminators' own loss.
        dis_step: steps with the independence term for each step of the discriminators.
        detach_refiner: what follows S does not reach it.
        attribute_noise: standard deviation of the noise on each number of a before E_a.
        fusion: what the classifier sees: `F0` h_s, `F2` [h_s, M(h_s)], `F4` [h_s, M(h_s), x̂], `F5` x̂.
        sigma: standard deviation of the Gaussian reconstruction, where features leave [0, 1].
        embedding_noise: expected length of Gaussian noise added to a where it conditions E and G. Not in the paper.
        sample_noise: where features leave [0, 1], a synthetic one is x̃ + σε rather than x̃. Not in the paper.
    """

    hidden: int = 2048
    half: int = 2048
    refiner: int = 0
    latent: int = 20
    batch_size: int = 64
    lr: float = 1e-4
    weight_decay: float = 1e-8
    generator: Literal["cvae", "vaegan"] = "cvae"
    critic_iterations: int = 5
    gamma_D: float = 10.0
    gamma_G: float = 10.0
    penalty: float = 10.0
    encoder_dropout: float = 0.1
    generator_dropout: float = 0.1
    autoencoder_dropout: float = 0.0
    kappa0: float = 0.001
    lambda_cg: float = 0.1
    lambda_sd: float = 1.0
    alpha: float = 1.0
    beta: float = 1.0
    temperature: float = 4.0
    unseen_rows: bool = True
    warm_up: int = 30
    heads: Literal["all", "seen"] = "all"
    teacher: Literal["pyramid", "mlp"] = "pyramid"
    detach_teacher: bool = False
    lambda_rec: float = 1.0
    lambda_cross: float = 0.0
    lambda_rel: float = 5.0
    relation_loss: Literal["squares", "softmax"] = "squares"
    relate_to: Literal["latent", "embedding"] = "latent"
    lambda_m: float = 0.1
    detach_predictor: bool = False
    lambda_tc: float = 0.003
    independence: Literal["judges", "covariance"] = "judges"
    rho0: float = 0.0001
    lambda_dis: float = 0.3
    dis_step: int = 3
    detach_refiner: bool = False
    attribute_noise: float = 0.02
    fusion: Literal["F0", "F2", "F4", "F5"] = "F2"
    sigma: float = 1.0
    embedding_noise: float = 0.0
    sample_noise: bool = False

    def __post_init__(self) -> None:
        for name in ("hidden", "half", "latent", "batch_size", "critic_iterations", "dis_step"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 1 or more")
        above_0(lr=self.lr, temperature=self.temperature, sigma=self.sigma)
        for name in (
            "refiner", "weight_decay", "gamma_D", "gamma_G", "penalty", "kappa0", "lambda_cg", "lambda_sd", "alpha", "beta",
            "warm_up", "lambda_rec", "lambda_cross", "lambda_rel", "lambda_m", "lambda_tc", "rho0", "lambda_dis",
            "attribute_noise", "embedding_noise",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 0 or a number above it")
        for name in ("encoder_dropout", "generator_dropout", "autoencoder_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 0 or a number above it, below 1")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingsError(f"there is no {name}={getattr(self, name)!r}; there are {', '.join(choices)}")
        if self.generator == "cvae" and self.batch_size == 1:
            raise SettingsError("batch_size=1 cannot work, as G normalises over the batch; give 2 or more, or generator=vaegan")
        if self.lambda_sd == 0 and self.lambda_cg > 0:
            raise SettingsError(
                "lambda_sd=0 leaves out the self-teacher, whose soft labels lambda_cg needs; set lambda_cg=0 too"
            )
        if self.lambda_rec == 0 and (
            self.fusion != "F5" or any((self.lambda_cross, self.lambda_rel, self.lambda_m, self.lambda_tc))
        ):
            raise SettingsError(
                "lambda_rec=0 leaves the disentanglement out; set lambda_cross=0, lambda_rel=0, lambda_m=0, lambda_tc=0 "
                "and fusion=F5 too"
            )
        if self.lambda_m == 0 and (self.fusion in ("F2", "F4") or self.lambda_cross > 0):
            raise SettingsError("lambda_m=0 leaves the predictor M untrained; set fusion=F0 or F5 and lambda_cross=0 too")


_CHOICES = {
    "generator": ("cvae", "vaegan"),
    "heads": ("all", "seen"),
    "teacher": ("pyramid", "mlp"),
    "relation_loss": ("squares", "softmax"),
    "relate_to": ("latent", "embedding"),
    "independence": ("judges", "covariance"),
    "fusion": ("F0", "F2", "F4", "F5"),
}


def _softmax(epochs: int, synthetic: int, lr: float, classifier_epochs: int = 50, scaling: Scaling = "minmax") -> Recipe:
    return Recipe(
        scaling=scaling,
        epochs=epochs,
        synthetic=synthetic,
        classifier_lr=lr,
        classifier_epochs=classifier_epochs,
        classifier_batch=512,
    )


def _preset(
    dropout: tuple[float, float, float], kappa0: float, rho0: float, weight_decay: float = 1e-6, **others: Any
) -> Hyperparameters:
    encoder, generator, autoencoder = dropout
    return Hyperparameters(
        encoder_dropout=encoder,
        generator_dropout=generator,
        autoencoder_dropout=autoencoder,
        kappa0=kappa0,
        rho0=rho0,
        weight_decay=weight_decay,
        **{"warm_up": 20, **others},
    )


_LOW, _MIDDLE = (0.4, 0.5, 0.2), (0.4, 0.4, 0.2)
_SQUARES = 0.5**0.5
"""The σ with which ½ ‖x̃ − x‖² / σ² is ‖x̃ − x‖²."""

PRESETS: Mapping[str, tuple[Hyperparameters, Recipe]] = {
    # SDDN's own settings are unknown. These are SDGZSL's, from its released scripts for features that were not fine-tuned; what
    # SDGZSL has not (self-distillation, M) is as in the defaults above, and the classifier's batch is ours. Embeddings are not
    # centred: `att` as stored, which in the public files has unit length already.
    "awa2": (
        _preset(_LOW, 0.01, 0.001, lr=3e-5, half=1024, lambda_rel=0.5, lambda_tc=1.0, lambda_dis=0.3, dis_step=2, warm_up=10),
        _softmax(220, 5000, 0.003),
    ),
    "cub": (Hyperparameters(), _softmax(600, 1000, 0.002)),  # 312 attributes
    "cub-sentence": (  # this and flo-epgn: E-PGN's data.mat, whose features stay as they are
        _preset(_LOW, 0.02, 0.001, half=312, lambda_rel=3.0, lambda_tc=0.3, lambda_dis=0.3, dis_step=2, sigma=_SQUARES),
        _softmax(400, 1200, 0.005, scaling="none"),
    ),
    "flo": (  # features of the public split files
        _preset(_MIDDLE, 0.001, 0.001, half=2048, lambda_rel=3.0, lambda_tc=0.1, lambda_dis=0.1, dis_step=3),
        _softmax(400, 1200, 0.003),
    ),
    "flo-epgn": (
        _preset(_MIDDLE, 0.01, 0.001, half=1024, lambda_rel=15.0, lambda_tc=1.0, lambda_dis=3.0, dis_step=2, sigma=_SQUARES),
        _softmax(400, 1200, 0.005, scaling="none"),
    ),
    "sun": (
        _preset((0.4, 0.2, 0.4), 0.001, 0.0003, lr=3e-4, half=2048, lambda_rel=30.0, lambda_tc=0.3, lambda_dis=0.5, dis_step=3),
        _softmax(400, 400, 0.001),
    ),
    "apy": (
        _preset(_LOW, 0.02, 0.001, half=128, lambda_rel=0.1, lambda_tc=1.0, lambda_dis=1.0, dis_step=2),
        _softmax(400, 1200, 0.005, classifier_epochs=20),
    ),
}

MADE_FOR: Mapping[str, Benchmark] = {**PUBLIC, "cub-sentence": EPGN["cub"], "flo-epgn": EPGN["flo"]}
"""Preset → the data that it is for."""

SCALINGS: tuple[Scaling, ...] = ("whitened",)
"""What `blind` tries: with a second one its folds would take longer than minutes."""

_NO_DISTILLATION: Mapping[str, Any] = {"lambda_sd": 0.0, "lambda_cg": 0.0}
_NO_DISENTANGLEMENT: Mapping[str, Any] = {
    "lambda_rec": 0.0, "lambda_cross": 0.0, "lambda_rel": 0.0, "lambda_m": 0.0, "lambda_tc": 0.0, "fusion": "F5",
}  # fmt: skip

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    # B4 is the whole method.
    "B0 generator alone": {**_NO_DISTILLATION, **_NO_DISENTANGLEMENT},
    "B1 + self-distillation": _NO_DISENTANGLEMENT,
    "B2 + disentanglement": {**_NO_DISTILLATION, "lambda_cross": 0.0, "lambda_m": 0.0, "fusion": "F0"},
    "B3 + disentanglement, fused": _NO_DISTILLATION,
    "B5a whole, no soft labels": {"alpha": 0.0},
    "B5b whole, no feature distillation": {"beta": 0.0},
    "B6 whole, no relation matching": {"lambda_rel": 0.0},
    "B7 whole, no independence": {"lambda_tc": 0.0},
    "B8 whole, distilled on seen classes only": {"unseen_rows": False},
}
"""Row of an ablation table → what it changes."""

SEARCH: Mapping[str, Range] = {
    # Every preset's value lies inside. Left out are switches that make another method of it, lambda_dis, which Adam divides
    # away again, and widths, latent and batch, which say what a step may cost.
    "lr": Floats(1e-5, 5e-3, log=True),
    "lambda_sd": Floats(0.03, 3.0, log=True),
    "alpha": Floats(0.03, 10.0, log=True),
    "beta": Floats(0.03, 30.0, log=True),
    "lambda_cg": Floats(0.0, 1.0),
    "warm_up": Ints(0, 30),
    "lambda_rel": Floats(0.03, 100.0, log=True),
    "lambda_m": Floats(0.01, 3.0, log=True),
    "lambda_tc": Floats(1e-6, 3.0, log=True),
    "rho0": Floats(1e-4, 0.1, log=True),
    "kappa0": Floats(1e-3, 1.0, log=True),
    "encoder_dropout": Floats(0.0, 0.5),
    "generator_dropout": Floats(0.0, 0.5),
    "autoencoder_dropout": Floats(0.0, 0.5),
    "sigma": Floats(0.1, 3.0, log=True),
    "embedding_noise": Floats(0.0, 2.0),
    "sample_noise": Choices((True, False)),
}
"""Hyper-parameter → what `unseen tune` tries."""


def default(classes: int, d: int, a: int) -> tuple[Hyperparameters, Recipe]:
    """Settings for data without a preset, so that a laptop finishes in minutes: narrow networks, short ramps.

    A few hundred steps are few epochs where rows are many: unseen rows join after the first, or they would hardly ever.

    Args:
        classes: seen classes; d: length of a feature; a: of an embedding.
    """
    hyperparameters = Hyperparameters(
        hidden=256 if d <= 1536 else 512,
        half=min(1024, max(256, d)),
        refiner=128,
        latent=min(16, a),
        lr=1e-3,
        weight_decay=1e-6,
        kappa0=0.1,
        rho0=0.02,
        lambda_rel=1.0,
        relation_loss="softmax",  # of the published squares nothing is learnt where a batch has many classes
        lambda_tc=1e-5,
        independence="covariance",  # E_v and E_a outrun the judges, whose term then falls without end
        warm_up=1,
        embedding_noise=1.0,
        sample_noise=True,
    )
    recipe = Recipe(
        scaling="whitened",
        centred=True,
        steps=min(2000, max(450, 8 * classes)),
        synthetic_ratio=10.0,
        classifier="gaussian",
        shrinkage=0.6,
        balanced=True,
    )
    return hyperparameters, recipe


# ------------------------------------------------------------------------------------------------------ generation


class Encoder(nn.Module):
    """E: [x, a] → mean and log-variance of z; d+a → H → H → bottleneck → latent, latent. The variance is a softplus."""

    def __init__(self, d: int, a: int, latent: int, hidden: int) -> None:
        super().__init__()
        bottleneck = min(128, hidden)
        self.first = nn.Linear(d + a, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.third = nn.Linear(hidden, bottleneck)
        self.mean = nn.Linear(bottleneck, latent)
        self.variance = nn.Linear(bottleneck, latent)

    def forward(self, x: Tensor, a: Tensor, drop: Drop) -> tuple[Tensor, Tensor]:
        h = F.leaky_relu(self.first(torch.cat([x, a], dim=1)), SLOPE)
        h = self.third(F.leaky_relu(drop(self.second(h)), SLOPE))
        return self.mean(h), torch.log(F.softplus(self.variance(h)) + TINY)


class Generator(nn.Module):
    """G: [z, a] → x̃; latent+a → H → H → H → d, two of the layers normalised over the batch.

    In training it is given a dropout and normalises by the batch; else by what it remembers, row by row.
    """

    def __init__(self, d: int, a: int, latent: int, hidden: int, unit_interval: bool) -> None:
        super().__init__()
        self.first = nn.Linear(latent + a, hidden)
        self.second = nn.Linear(hidden, hidden, bias=False)  # the normalisation has one
        self.second_norm = nn.BatchNorm1d(hidden)
        self.third = nn.Linear(hidden, hidden, bias=False)
        self.third_norm = nn.BatchNorm1d(hidden)
        self.last = nn.Linear(hidden, d)
        self.unit_interval = unit_interval

    def forward(self, z: Tensor, a: Tensor, drop: Drop | None = None) -> Tensor:
        self.train(drop is not None)
        drop = drop or _all
        h = F.leaky_relu(drop(self.first(torch.cat([z, a], dim=1))), SLOPE)
        h = drop(self.second_norm(self.second(h)))
        h = F.leaky_relu(drop(self.third_norm(self.third(h))), SLOPE)
        return _like_features(self.last(h), self.unit_interval)


def _all(h: Tensor) -> Tensor:
    return h


def _like_features(out: Tensor, unit_interval: bool) -> Tensor:
    """Features in [0, 1] are mostly small and positive, which suits a leaky ReLU; others take either sign."""
    return F.leaky_relu(out, SLOPE) if unit_interval else out


def generation_loss(
    x_tilde: Tensor, x: Tensor, mean: Tensor, log_variance: Tensor, kappa: float, sigma: float
) -> tuple[Tensor, Tensor]:
    """L_gen = mean over rows of ½ ‖x̃ − x‖² / σ² + κ KL(E(x, a) ‖ N(0, I)); also its reconstruction alone.

    In [0, 1] σ² = ½ gives ‖x̃ − x‖², as SDGZSL has it.
    """
    reconstruction = (x_tilde - x).square().sum() / (2 * sigma**2) / len(x)
    kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum() / len(x)
    return reconstruction + kappa * kl, reconstruction


# ------------------------------------------------------------------------------------------------- self-distillation


class Student(nn.Module):
    """S: x → F₁, F₂ and F₃ = x̂, the refined feature; d → r → r → d, the last added to x. Begins with x̂ = x."""

    def __init__(self, d: int, width: int, unit_interval: bool) -> None:
        super().__init__()
        self.first = nn.Linear(d, width)
        self.second = nn.Linear(width, width)
        self.shift = nn.Linear(width, d)
        self.unit_interval = unit_interval

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = F.leaky_relu(self.first(x), SLOPE)
        second = F.leaky_relu(self.second(first), SLOPE)
        return first, second, _like_features(x + self.shift(second), self.unit_interval)


class Pyramid(nn.Module):
    """T: (F₁, F₂, F₃) → (T₁, T₂, T₃), a pyramid from the last level down and up again.

        ℓᵢ = φ(Aᵢ Fᵢ)
        down: u₃ = ℓ₃,  uᵢ = φ(Bᵢ(ω₁ℓᵢ + ω₂ Uᵢ uᵢ₊₁))
        up:   t₁ = u₁,  tᵢ = φ(B'ᵢ(ν₁ℓᵢ + ν₂uᵢ + ν₃ Vᵢ Tᵢ₋₁)),  Tᵢ = φ(Oᵢ tᵢ)

    ω and ν are learnt, at least 0 and of sum 1 at each level. A level's output feeds the next, so the last one's
    cross-entropy trains them all.
    """

    def __init__(self, widths: tuple[int, int, int], width: int, unit_interval: bool) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Linear(w, width) for w in widths)
        self.lower = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.raise_ = nn.ModuleList(nn.Linear(w, width) for w in widths[:2])
        self.up = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(width, w) for w in widths)
        self.omega = nn.Parameter(torch.ones(2, 2))
        self.nu = nn.Parameter(torch.ones(2, 3))
        self.unit_interval = unit_interval

    def forward(self, first: Tensor, second: Tensor, third: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        l1, l2, l3 = (F.leaky_relu(layer(f), SLOPE) for layer, f in zip(self.lateral, (first, second, third), strict=True))
        omega, nu = shares(self.omega), shares(self.nu)
        u2 = F.leaky_relu(self.down[1](omega[1, 0] * l2 + omega[1, 1] * self.lower[1](l3)), SLOPE)
        u1 = F.leaky_relu(self.down[0](omega[0, 0] * l1 + omega[0, 1] * self.lower[0](u2)), SLOPE)
        taught1 = F.leaky_relu(self.out[0](u1), SLOPE)
        t2 = F.leaky_relu(self.up[0](nu[0, 0] * l2 + nu[0, 1] * u2 + nu[0, 2] * self.raise_[0](taught1)), SLOPE)
        taught2 = F.leaky_relu(self.out[1](t2), SLOPE)
        t3 = F.leaky_relu(self.up[1]((nu[1, 0] + nu[1, 1]) * l3 + nu[1, 2] * self.raise_[1](taught2)), SLOPE)  # u₃ = ℓ₃
        return taught1, taught2, _like_features(self.out[2](t3), self.unit_interval)


class Perceptron(nn.Module):
    """T as three layers on [F₁, F₂, F₃], which give T₁, T₂ and T₃ in turn: what the pyramid is compared with."""

    def __init__(self, widths: tuple[int, int, int], width: int, unit_interval: bool) -> None:
        super().__init__()
        inputs = (sum(widths), *widths[:2])
        self.out = nn.ModuleList(nn.Linear(before, after) for before, after in zip(inputs, widths, strict=True))
        self.unit_interval = unit_interval

    def forward(self, first: Tensor, second: Tensor, third: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        taught1 = F.leaky_relu(self.out[0](torch.cat([first, second, third], dim=1)), SLOPE)
        taught2 = F.leaky_relu(self.out[1](taught1), SLOPE)
        return taught1, taught2, _like_features(self.out[2](taught2), self.unit_interval)


def shares(weights: Tensor) -> Tensor:
    """ReLU of each row, divided by its sum."""
    positive = F.relu(weights)
    return positive / positive.sum(dim=1, keepdim=True).clamp_min(TINY)


def soft_label_loss(taught: Tensor, own: Tensor, temperature: float) -> Tensor:
    """L_soft = K² KL(softmax(taught / K) ‖ softmax(own / K)), mean over rows; what is taught gets no gradient."""
    target = F.log_softmax(taught.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(F.log_softmax(own / temperature, dim=1), target, reduction="batchmean", log_target=True)


def feature_loss(taught: tuple[Tensor, ...], own: tuple[Tensor, ...]) -> Tensor:
    """L_feat = Σᵢ ‖n(Fᵢ) − n(Tᵢ)‖², n to unit length, mean over rows; what is taught gets no gradient."""
    unit = (
        F.normalize(f, dim=1, eps=TINY) - F.normalize(t.detach(), dim=1, eps=TINY) for t, f in zip(taught, own, strict=True)
    )
    return torch.stack([difference.square().sum(dim=1).mean() for difference in unit]).sum()


# --------------------------------------------------------------------------------------------------- disentanglement


class VisualEncoder(nn.Module):
    """E_v: x̂ → [h_s, h_n]; d → 2·half."""

    def __init__(self, d: int, half: int) -> None:
        super().__init__()
        self.only = nn.Linear(d, 2 * half)

    def forward(self, x_hat: Tensor, drop: Drop = _all) -> Tensor:
        return drop(F.leaky_relu(self.only(x_hat), SLOPE))


class Layers(nn.Module):
    """One hidden layer: D_v 2·half → H → d, E_a a → H/2 → 2·half, D_a back, M half → H → half, P_v and P_a 2·half → H/4 → 2."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, outputs)

    def forward(self, h: Tensor, drop: Drop = _all) -> Tensor:
        out: Tensor = self.second(drop(F.leaky_relu(self.first(h), SLOPE)))
        return out


class Relation(nn.Module):
    """Q before its sigmoid: (h_s, g) → score; half + half → H → 1.

    The first layer is split, W[h, g] = W_h h + W_g g, so its products are made once a row and once a class, not once a pair.
    A softmax over classes takes no notice of the last bias, so there it has none.
    """

    def __init__(self, half: int, semantic: int, hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.visual = nn.Linear(half, hidden, bias=False)
        self.semantic = nn.Linear(semantic, hidden)
        self.score = nn.Linear(hidden, 1, bias=bias)

    def forward(self, h_s: Tensor, g: Tensor) -> Tensor:
        """(n, half) and (K, ·) → (n, K)."""
        out: Tensor = self.score(F.relu(self.visual(h_s)[:, None] + self.semantic(g)[None])).squeeze(2)
        return out


def relation_loss(scores: Tensor, y: Tensor) -> Tensor:
    """L_rel = mean over rows i and classes c of the batch of (q_ic − 1[y_i = c])², q = sigmoid(score).

    Each of the B columns is the class of a row, so that shapes do not depend on how many classes a batch has. A class
    with m rows has m columns, and each of them weighs 1/m.

    Args:
        scores: (kB, B) of k sets of rows with labels y, before the sigmoid; y: (B,).
    """
    same = (y[:, None] == y[None]).to(scores.dtype)
    weight = 1 / same.sum(dim=0)
    squares = (torch.sigmoid(scores) - same.repeat(len(scores) // len(y), 1)).square()
    return (squares * weight).sum() / (len(scores) * weight.sum())


def relation_cross_entropy(scores: Tensor, y: Tensor) -> Tensor:
    """L_rel the other way: mean over rows i of −log softmax_c(score_ic) at c = y_i, over the classes of the batch.

    Args:
        scores, y: as `relation_loss` takes them.
    """
    same = y[:, None] == y[None]
    among = torch.logsumexp(scores - same.sum(dim=0).to(scores.dtype).log(), dim=1)  # m columns of a class weigh 1/m each
    own = scores.reshape(-1, len(y), len(y)).diagonal(dim1=1, dim2=2)  # row i's class is that of column i
    return among.mean() - own.mean()


def permuted(h: Tensor, generator: torch.Generator) -> Tensor:
    """h^π: the two halves of the rows, each in a random order of its own, which leaves their marginals as they are."""
    left, right = h.chunk(2, dim=1)
    orders = [torch.randperm(len(h), generator=generator, device=h.device) for _ in range(2)]
    return torch.cat([left[orders[0]], right[orders[1]]], dim=1)


def dependence(logits: Tensor) -> Tensor:
    """L_tc = mean(P(h)₀ − P(h)₁): the log of how much likelier the halves are together than apart."""
    return (logits[:, 0] - logits[:, 1]).mean()


def cross_covariance(h: Tensor) -> Tensor:
    """‖Cov(h_s, h_n)‖²_F of the rows h = [h_s, h_n], Cov = H_sᵀ H_n / (B − 1) for centred halves.

    By products of rows with rows, B × B, instead of the half × half matrix: ‖H_sᵀ H_n‖² = Σ (H_s H_sᵀ) ∘ (H_n H_nᵀ).
    """
    centred = h - h.mean(dim=0)
    left, right = centred.chunk(2, dim=1)
    return ((left @ left.T) * (right @ right.T)).sum() / max(1, len(h) - 1) ** 2


def discrimination_loss(joint: Tensor, apart: Tensor) -> Tensor:
    """CE(P(h), 0) + CE(P(h^π), 1), each a mean over rows."""
    return (F.softplus(joint[:, 1] - joint[:, 0]) + F.softplus(apart[:, 0] - apart[:, 1])).mean()


# ----------------------------------------------------------------------------------------------------------- method


class SDDN(nn.Module):
    """The method: built from a view, trained by `step`, asked by `sample` and `represent`.

    Only `KEPT` is needed after training. The rest, the heads over the class list of training among it, is saved apart.
    """

    KEPT = ("generator", "student", "visual_encoder", "predictor")
    loops = 1

    def __init__(self, view: ScaledView, settings: Hyperparameters, seed: int) -> None:
        super().__init__()
        s = self.settings = settings
        self.batch_size = s.batch_size
        self.embeddings = view.embeddings
        self.unseen = view.unseen
        self.unit_interval = view.unit_interval
        self.streams = Streams(seed, view.device)
        d, a = view.features.shape[1], view.embeddings.shape[1]

        distils, disentangles, adversarial = s.lambda_sd > 0, s.lambda_rec > 0, s.generator == "vaegan"
        # About as many rows of an unseen class as of a seen one.
        rows = min(s.batch_size, len(view.labels))
        self.unseen_count = max(1, round(rows * len(view.unseen) / len(view.seen))) if len(view.unseen) else 0
        self.uses_unseen_embeddings = distils and s.unseen_rows and self.unseen_count > 0
        classes = torch.cat([view.seen, view.unseen]) if self.uses_unseen_embeddings and s.heads == "all" else view.seen
        self.column = torch.full((len(view.names),), -1, device=view.device)
        self.column[classes] = torch.arange(len(classes), device=view.device)
        self.class_list = torch.tensor([stream_seed(0, view.names[k]) for k in classes.tolist()], device=view.device)
        self.of_this_class_list = True

        of_encoder, of_generator = (vaegan.Encoder, vaegan.Generator) if adversarial else (Encoder, Generator)
        self.encoder = of_encoder(d, a, s.latent, s.hidden)
        self.generator = of_generator(d, a, s.latent, s.hidden, view.unit_interval)
        self.critic = Critic(d, a, s.hidden) if adversarial else None

        width = s.refiner or d
        of_teacher = Pyramid if s.teacher == "pyramid" else Perceptron
        half_hidden = max(1, s.hidden // 2)
        self.student = Student(d, width, view.unit_interval) if distils else None
        self.student_head = nn.Linear(d, len(classes)) if distils else None
        self.teacher = of_teacher((width, width, d), half_hidden, view.unit_interval) if distils else None
        self.teacher_head = nn.Linear(d, len(classes)) if distils else None

        latent = 2 * s.half
        related = s.half if s.relate_to == "latent" else a
        judge = max(1, s.hidden // 4)
        self.visual_encoder = VisualEncoder(d, s.half) if disentangles else None
        self.visual_decoder = Layers(latent, s.hidden, d) if disentangles else None
        self.semantic_encoder = Layers(a, half_hidden, latent) if disentangles else None
        self.semantic_decoder = Layers(latent, half_hidden, a) if disentangles else None
        self.relation = Relation(s.half, related, s.hidden, s.relation_loss == "squares") if s.lambda_rel > 0 else None
        self.predictor = Layers(s.half, s.hidden, s.half) if s.lambda_m > 0 else None
        judged = s.lambda_tc > 0 and s.independence == "judges"
        self.visual_judge = Layers(latent, judge, 2) if judged else None
        self.semantic_judge = Layers(latent, judge, 2) if judged else None

        self.to(view.device)
        parts = dict(self.named_children())
        for name, module in parts.items():
            published = adversarial and name in ("encoder", "generator", "critic")
            (initialise if published else _initialise)(module, self.streams[f"initial {name}"])
        if self.student is not None:
            nn.init.zeros_(self.student.shift.weight)

        def adam(parameters: list[Any], beta1: float = 0.9) -> torch.optim.Optimizer:
            return torch.optim.Adam(parameters, s.lr, (beta1, 0.999), weight_decay=s.weight_decay, fused=True)

        def of(*names: str) -> list[Any]:
            return [p for name in names for p in parts[name].parameters()]

        apart = {"critic", "visual_judge", "semantic_judge"} | ({"generator"} if adversarial else set())
        self.optimisers = {"main": adam(of(*(name for name in parts if name not in apart)))}
        if adversarial:
            self.optimisers["main"].add_param_group({"params": of("generator"), "betas": (0.5, 0.999)})
            self.optimisers["critic"] = adam(of("critic"), beta1=0.5)
        if judged:
            self.optimisers["judges"] = adam(of("visual_judge", "semantic_judge"))
        if self.uses_unseen_embeddings:
            for name in ("unseen classes", "unseen noise", "unseen output"):
                _ = self.streams[name]  # first drawn from after the warm-up, yet every checkpoint has them

    # -- training

    def step(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """Critic, if there is one; generation; self-distillation; disentanglement; then one backward pass and one Adam step.

        Every (dis_step + 1)-th step trains the judges of independence, and the others minimise it instead.
        """
        if not self.of_this_class_list:
            raise SettingsError(
                "these weights were trained with other classes, so they can only sample and represent; train anew"
            )
        epoch = clock.step // clock.steps_per_epoch
        log: dict[str, Tensor] = {}
        x, y = draw() if self.critic is None else self._update_critic(self.critic, draw, log)

        x_tilde, loss = self._generation(x, self._perturb(self.embeddings[y]), epoch, log)
        if self.student is not None or self.visual_encoder is not None:
            loss = loss + self._consistency(x, x_tilde, y, clock, log)
        descend(loss, self.optimisers["main"])
        return log

    def _consistency(self, x: Tensor, x_tilde: Tensor, y: Tensor, clock: Clock, log: dict[str, Tensor]) -> Tensor:
        """λ_cg L_cg + λ_sd L_SD, and what follows of the halves. None of it but L_cg reaches E and G."""
        s = self.settings
        rows = torch.cat([x, x_tilde.detach()])
        loss = x.new_zeros(())
        if self.student is not None:
            x_hat, taught, distillation = self._distillation(rows, y, clock.step // clock.steps_per_epoch, log)
            loss = loss + s.lambda_sd * distillation
            if s.lambda_cg > 0:
                kept = soft_label_loss(taught[: len(x)], self._frozen_logits(x_tilde), s.temperature)
                loss, log["kept soft labels"] = loss + s.lambda_cg * kept, kept.detach()
            rows = x_hat.detach() if s.detach_refiner else x_hat
        if self.visual_encoder is not None:
            loss = loss + self._disentanglement(rows, x, y, clock, log)
        return loss

    def _update_critic(self, critic: Critic, draw: Draw, log: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """`critic_iterations` updates, each on a fresh batch. Returns the last one."""
        for _ in range(self.settings.critic_iterations):
            x, y = draw()
            a = self._perturb(self.embeddings[y])
            with torch.no_grad():
                fake = self._observed(self.generator(self._noise("critic noise", x), a), "critic output")
            t = self.streams.uniform("penalty mixture", len(x), 1, dtype=x.dtype)
            log["penalty"], log["wasserstein"] = update_critic(
                critic, self.optimisers["critic"], x, fake, a, t, self.settings.penalty, self.settings.gamma_D
            )
        return x, y

    def _generation(self, x: Tensor, a: Tensor, epoch: int, log: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The reconstruction x̃ of x, and L_gen; of a VAE-GAN L_vae − γ_G mean D(G(z, a), a), z from the prior."""
        s = self.settings
        if self.critic is None:
            mean, log_variance = self.encoder(x, a, self._dropout("encoder dropout", s.encoder_dropout))
        else:
            mean, log_variance = self.encoder(x, a)
        z = mean + torch.exp(log_variance / 2) * self._noise("encoder noise", x)
        if self.critic is None:
            x_tilde = self.generator(z, a, self._dropout("generator dropout", s.generator_dropout))
            kappa, sigma = min(1.0, s.kappa0 * epoch), _SQUARES if self.unit_interval else s.sigma
            loss, reconstruction = generation_loss(x_tilde, x, mean, log_variance, kappa, sigma)
            log["reconstruction"] = reconstruction.detach()
            return x_tilde, loss
        x_tilde = self.generator(z, a)
        loss = vaegan.vae_loss(x_tilde, x, mean, log_variance, None if self.unit_interval else s.sigma)
        log["vae"] = loss.detach()
        if s.gamma_G > 0:
            fake = self._observed(self.generator(self._noise("generator noise", x), a), "generator output")
            adversarial = -self.critic(fake, a).mean()
            loss = loss + s.gamma_G * adversarial
            log["adversarial"] = adversarial.detach()
        return x_tilde, loss

    def _distillation(self, seen_rows: Tensor, y: Tensor, epoch: int, log: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """L_SD = CE(p_S, y) + CE(p_T, y) + α L_soft + β L_feat on real, rebuilt and synthetic unseen rows, in one pass.

        Args:
            seen_rows: (2B, d), real then rebuilt; y: (B,).

        Returns:
            x̂ and the self-teacher's logits of the seen rows; L_SD.
        """
        assert self.student is not None
        assert self.student_head is not None
        assert self.teacher is not None
        assert self.teacher_head is not None
        s = self.settings
        rows, targets = seen_rows, self.column[y].repeat(2)
        if self.uses_unseen_embeddings and epoch >= s.warm_up:
            unseen_rows, classes = self._unseen_rows(seen_rows.dtype)
            rows = torch.cat([seen_rows, unseen_rows])
            if s.heads == "all":
                targets = torch.cat([targets, self.column[classes]])
        levels = self.student(rows)
        logits = self.student_head(levels[-1])
        taught = self.teacher(*(level.detach() for level in levels) if s.detach_teacher else levels)
        taught_logits = self.teacher_head(taught[-1])

        labelled = len(targets)
        cross_entropy = F.cross_entropy(logits[:labelled], targets) + F.cross_entropy(taught_logits[:labelled], targets)
        loss, log["cross-entropy"] = cross_entropy, cross_entropy.detach()
        if s.alpha > 0:
            soft = soft_label_loss(taught_logits, logits, s.temperature)
            loss, log["soft labels"] = loss + s.alpha * soft, soft.detach()
        if s.beta > 0:
            features = feature_loss(taught, levels)
            loss, log["features"] = loss + s.beta * features, features.detach()
        return levels[-1][: len(seen_rows)], taught_logits[: len(seen_rows)], loss

    def _frozen_logits(self, x_tilde: Tensor) -> Tensor:
        """p_S of x̃ before its softmax, for the coupling, whose gradient passes through S and stops at none of its weights."""
        assert self.student is not None
        assert self.student_head is not None
        frozen = [{name: p.detach() for name, p in part.named_parameters()} for part in (self.student, self.student_head)]
        x_hat = functional_call(self.student, frozen[0], (x_tilde,))[-1]
        logits: Tensor = functional_call(self.student_head, frozen[1], (x_hat,))
        return logits

    @torch.no_grad()
    def _unseen_rows(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Synthetic rows of unseen classes drawn with equal chance, and these classes. G is asked as after training."""
        picked = torch.randint(
            len(self.unseen), (self.unseen_count,), generator=self.streams["unseen classes"], device=self.unseen.device
        )
        classes = self.unseen[picked]
        noise = self.streams.normal("unseen noise", self.unseen_count, self.settings.latent, dtype=dtype)
        return self._observed(self.generator(noise, self.embeddings[classes]), "unseen output"), classes

    def _disentanglement(self, rows: Tensor, x: Tensor, y: Tensor, clock: Clock, log: dict[str, Tensor]) -> Tensor:
        """λ_rec L_rec + λ_cross L_cross + λ_rel L_rel + λ_m L_M + λ_tc ρ(t) L_tc; the judges' own step where it is their turn.

        Args:
            rows: (2B, d) x̂, real then rebuilt; x: (B, d) what both are to be reconstructed to; y: (B,).
        """
        assert self.visual_encoder is not None
        assert self.visual_decoder is not None
        assert self.semantic_encoder is not None
        assert self.semantic_decoder is not None
        s, a = self.settings, self.embeddings[y]
        h = self.visual_encoder(rows, self._dropout("visual encoder dropout", s.autoencoder_dropout))
        # Once with noise, for the autoencoder, and once without: the g_s of the classes that Q and M refer to.
        noisy = a + s.attribute_noise * self.streams.normal("attribute noise", *a.shape, dtype=a.dtype)
        g, g_clean = self.semantic_encoder(torch.cat([noisy, a])).chunk(2)
        h_s, h_n = h.chunk(2, dim=1)
        g_s_clean = g_clean[:, : s.half]

        decoder_dropout = self._dropout("visual decoder dropout", s.autoencoder_dropout)
        reconstruction = F.mse_loss(self.visual_decoder(h, decoder_dropout), x.repeat(2, 1))
        reconstruction = reconstruction + F.mse_loss(self.semantic_decoder(g), a)
        loss, log["halves rebuilt"] = s.lambda_rec * reconstruction, reconstruction.detach()
        if self.relation is not None:
            scores = self.relation(h_s, g_s_clean if s.relate_to == "latent" else a)
            related = relation_loss(scores, y) if s.relation_loss == "squares" else relation_cross_entropy(scores, y)
            loss, log["relation"] = loss + s.lambda_rel * related, related.detach()
        if self.predictor is not None:
            predicted = self.predictor(h_s.detach() if s.detach_predictor else h_s)
            semantic = F.mse_loss(predicted, g_s_clean.detach().repeat(2, 1))
            loss, log["prediction"] = loss + s.lambda_m * semantic, semantic.detach()
            if s.lambda_cross > 0:
                g_s, g_n = (half.repeat(2, 1) for half in g.chunk(2, dim=1))
                crossed = F.mse_loss(self.semantic_decoder(torch.cat([predicted, g_n], dim=1)), a.repeat(2, 1))
                swapped = self.visual_decoder(
                    torch.cat([g_s, h_n], dim=1), self._dropout("crossed dropout", s.autoencoder_dropout)
                )
                crossed = crossed + F.mse_loss(swapped, x.repeat(2, 1))
                loss, log["crossed"] = loss + s.lambda_cross * crossed, crossed.detach()
        if s.lambda_tc > 0 and (tied := self._dependence(h, g, clock, log)) is not None:
            rho = min(1.0, s.rho0 * (clock.step // clock.steps_per_epoch))
            loss, log["dependence"] = loss + s.lambda_tc * rho * tied, tied.detach()
        return loss

    def _dependence(self, h: Tensor, g: Tensor, clock: Clock, log: dict[str, Tensor]) -> Tensor | None:
        """L_tc of the halves; None where it is the judges' turn, who learn instead."""
        if self.visual_judge is None or self.semantic_judge is None:
            return cross_covariance(h) + cross_covariance(g)
        if clock.step % (self.settings.dis_step + 1) == 0:
            log["judges"] = self._update_judges(self.visual_judge, self.semantic_judge, h.detach(), g.detach())
            return None
        return dependence(self.visual_judge(h)) + dependence(self.semantic_judge(g))

    def _update_judges(self, visual: Layers, semantic: Layers, h: Tensor, g: Tensor) -> Tensor:
        """P_v and P_a learn to tell halves of one row from halves of two."""
        loss = discrimination_loss(visual(h), visual(permuted(h, self.streams["visual permutation"])))
        loss = loss + discrimination_loss(semantic(g), semantic(permuted(g, self.streams["semantic permutation"])))
        descend(self.settings.lambda_dis * loss, self.optimisers["judges"])
        return loss.detach()

    # -- draws

    def _dropout(self, stream: str, rate: float) -> Drop:
        """Dropout of this rate from this stream; nothing is drawn at rate 0."""

        def drop(h: Tensor) -> Tensor:
            return h * (self.streams.uniform(stream, *h.shape, dtype=h.dtype) >= rate) / (1 - rate)

        return drop if rate > 0 else _all

    def _noise(self, stream: str, like: Tensor) -> Tensor:
        """z from the prior, one for each row of `like`."""
        return self.streams.normal(stream, len(like), self.settings.latent, dtype=like.dtype)

    def _perturb(self, a: Tensor) -> Tensor:
        """a plus noise of expected length `embedding_noise`."""
        if self.settings.embedding_noise == 0:
            return a
        noise = self.streams.normal("embedding noise", *a.shape, dtype=a.dtype)
        length: float = self.settings.embedding_noise / a.shape[1] ** 0.5
        return a + length * noise

    def _observed(self, x_tilde: Tensor, stream: str) -> Tensor:
        """A sample of p(x | z) where `sample_noise` asks for it, else x̃ itself."""
        if not self.settings.sample_noise or self.unit_interval:
            return x_tilde
        return x_tilde + self.settings.sigma * self.streams.normal(stream, *x_tilde.shape, dtype=x_tilde.dtype)

    # -- generation

    @torch.no_grad()
    def sample(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, d): G(z, a), z from the prior."""
        a = self.embeddings[class_ids]
        x_tilde: Tensor = self.generator(streams.normal(class_ids, self.settings.latent).to(a.dtype), a)
        if self.settings.sample_noise and not self.unit_interval:
            x_tilde = x_tilde + self.settings.sigma * streams.normal(class_ids, x_tilde.shape[1]).to(a.dtype)
        return x_tilde

    @torch.no_grad()
    def represent(self, x: Tensor) -> Tensor:
        """(n, d) → (n, half) F0: h_s; (n, 2 half) F2: [h_s, M(h_s)]; (n, 2 half + d) F4: [h_s, M(h_s), x̂]; (n, d) F5: x̂."""
        x_hat: Tensor = x if self.student is None else self.student(x)[-1]
        if self.visual_encoder is None or self.settings.fusion == "F5":
            return x_hat
        h_s: Tensor = self.visual_encoder(x_hat)[:, : self.settings.half]
        if self.predictor is None or self.settings.fusion == "F0":
            return h_s
        parts = [h_s, self.predictor(h_s)]
        return torch.cat([*parts, x_hat] if self.settings.fusion == "F4" else parts, dim=1)

    def represent_in_graph(self, graph: Graph, x: str) -> str:
        """`represent` as a graph."""
        if self.student is not None:
            h = graph.leaky_relu(graph.linear(x, self.student.first), SLOPE)
            h = graph.leaky_relu(graph.linear(h, self.student.second), SLOPE)
            x = graph.node("Add", x, graph.linear(h, self.student.shift))
            x = graph.leaky_relu(x, SLOPE) if self.unit_interval else x
        if self.visual_encoder is None or self.settings.fusion == "F5":
            return x
        h_s = graph.columns(graph.leaky_relu(graph.linear(x, self.visual_encoder.only), SLOPE), 0, self.settings.half)
        if self.predictor is None or self.settings.fusion == "F0":
            return h_s
        predicted = graph.linear(graph.leaky_relu(graph.linear(h_s, self.predictor.first), SLOPE), self.predictor.second)
        return graph.side_by_side([h_s, predicted, x] if self.settings.fusion == "F4" else [h_s, predicted])

    @torch.no_grad()
    def parts(self, x: Tensor) -> dict[str, Tensor]:
        """(n, d) → `x_hat` (n, d), `h_s` and `h_n` (n, half), as far as they are built; for diagnoses."""
        shown: dict[str, Tensor] = {}
        if self.student is not None:
            x = shown["x_hat"] = self.student(x)[-1]
        if self.visual_encoder is not None:
            shown["h_s"], shown["h_n"] = self.visual_encoder(x).chunk(2, dim=1)
        return shown

    # -- checkpoints

    def state(self) -> dict[str, Tensor]:
        """What is needed to sample and represent as `network.…`; the other networks, class list, optimisers and streams."""
        return (
            {f"{self._kept_under(name)}.{name}": value for name, value in self.state_dict().items()}
            | {"class_list": self.class_list}
            | {f"optimiser.{name}": value for name, value in optimiser_state(self.optimisers)}
            | {f"stream.{name}": value for name, value in self.streams.state().items()}
        )

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was taken.

        With another class list only what samples and represents is taken over, and training cannot go on.
        """
        class_list = state.get("class_list", self.class_list)
        self.of_this_class_list = torch.equal(class_list, self.class_list)
        others = {name: value for name, value in self.state_dict().items() if self._kept_under(name) == "training"}
        if self.of_this_class_list:
            others |= under("training.", state)
            load_optimiser_state(self.optimisers, under("optimiser.", state))
            self.streams.load_state(under("stream.", state))
        self.load_state_dict(others | under("network.", state))

    def _kept_under(self, name: str) -> str:
        return "network" if name.split(".")[0] in self.KEPT else "training"


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Weights N(0, 2 / (1.04 n)) for n inputs, which a leaky ReLU of slope 0.2 keeps at one size; biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, SLOPE, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
