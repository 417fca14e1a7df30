"""CADA-VAE: a VAE of features and one of embeddings, aligned, and a classifier in the latent space that they share.

Reference: E. Schönfeld, S. Ebrahimi, S. Sinha, T. Darrell, Z. Akata, "Generalized Zero- and Few-Shot Learning via Aligned
Variational Autoencoders", CVPR 2019. Where the settings are from, and what differs from the released code, is
told in docs/methods/cadavae.md.

    features    E_x: x → N(μ_x, σ_x²), D_x: z → x̂            embeddings    E_c: c → N(μ_c, σ_c²), D_c: z → ĉ
    L = ‖x − D_x(z_x)‖₁ + ‖c − D_c(z_c)‖₁ + β KL             each VAE by itself
        + γ (‖x − D_x(z_c)‖₁ + ‖c − D_c(z_x)‖₁)              cross-alignment: each is decoded from the other's latent
        + δ √(‖μ_x − μ_c‖² + ‖σ_x − σ_c‖²)                   distribution alignment: Wasserstein distance of the posteriors

Symbols: d length of a feature, a of a class embedding, k of z, B batch. β, γ and δ grow with the epochs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
from unseen.nn.learning import TINY, descend
from unseen.recipe import Recipe
from unseen.scaling import ScaledView, Scaling


@dataclass(frozen=True)
class Hyperparameters:
    """The defaults are the paper's, for every benchmark.

    A weight that grows is `rate` times the epochs since `from`, counted up to `until`: 0 before, constant afterwards.

    Args:
        hidden, decoder_hidden: width of E_x and of D_x.
        embedding_hidden, embedding_decoder_hidden: width of E_c and of D_c.
        latent: k.
        batch_size: B.
        lr: of all networks.
        kl_rate, kl_until: of β, which grows from the first epoch.
        cross_rate, cross_from, cross_until: of γ; a rate of 0 leaves cross-alignment out.
        alignment_rate, alignment_from, alignment_until: of δ; a rate of 0 leaves distribution alignment out.
        embedding_noise: expected length of Gaussian noise added to c before E_c in training. Not in the paper.
    """

    hidden: int = 1560
    decoder_hidden: int = 1660
    embedding_hidden: int = 1450
    embedding_decoder_hidden: int = 665
    latent: int = 64
    batch_size: int = 50
    lr: float = 1.5e-4
    kl_rate: float = 0.0026
    kl_until: int = 90
    cross_rate: float = 0.044
    cross_from: int = 21
    cross_until: int = 75
    alignment_rate: float = 0.54
    alignment_from: int = 6
    alignment_until: int = 22
    embedding_noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("hidden", "decoder_hidden", "embedding_hidden", "embedding_decoder_hidden", "latent", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 1 or more")
        above_0(lr=self.lr)
        for name in ("kl_rate", "cross_rate", "cross_from", "alignment_rate", "alignment_from", "embedding_noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 0 or a number above it")
        for name, start in (("kl", 0), ("cross", self.cross_from), ("alignment", self.alignment_from)):
            until = getattr(self, f"{name}_until")
            if getattr(self, f"{name}_rate") > 0 and until <= start:
                raise SettingsError(f"{name}_until={until} leaves that weight 0; give more than {start}, or {name}_rate=0")


def _recipe(classifier_epochs: int) -> Recipe:
    """The published length and count. Balanced, as the paper's classifier sees equally many rows of all seen classes."""
    return Recipe(epochs=100, synthetic=400, balanced=True, classifier_epochs=classifier_epochs, classifier_batch=32)


SCALINGS: tuple[Scaling, ...] = ("minmax", "whitened")
"""What `blind` tries: with a third one its folds would take longer than minutes."""

PRESETS: Mapping[str, tuple[Hyperparameters, Recipe]] = {
    # For ResNet-101 features; the same for all but the classifier's epochs.
    "awa1": (Hyperparameters(), _recipe(33)),
    "awa2": (Hyperparameters(), _recipe(29)),
    "cub": (Hyperparameters(), _recipe(23)),
    "sun": (Hyperparameters(), _recipe(21)),
}

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "CA-VAE": {"alignment_rate": 0.0},
    "DA-VAE": {"cross_rate": 0.0},
}
"""Row of an ablation table → what it changes. The paper's own."""

SEARCH: Mapping[str, Range] = {
    # Every preset's value lies inside. Left out are when weights grow, which only shifts them, and widths, latent and batch,
    # which say what a step may cost.
    "lr": Floats(1e-5, 5e-3, log=True),
    "kl_rate": Floats(1e-5, 0.3, log=True),
    "cross_rate": Floats(1e-3, 4.0, log=True),
    "alignment_rate": Floats(0.01, 50.0, log=True),
    "embedding_noise": Floats(0.0, 2.0),
}
"""Hyper-parameter → what `unseen tune` tries."""


def default(classes: int, d: int, a: int) -> tuple[Hyperparameters, Recipe]:
    """Settings for data without a preset, so that a laptop finishes in minutes: narrow networks, and weights that grow as far
    as the published ones within nine epochs.

    The reconstruction is a sum over d, so β and δ are in proportion to d: else the latents of short features collapse.

    Args:
        classes: seen classes; d: length of a feature; a: of an embedding.
    """
    share = d / 2048
    hyperparameters = Hyperparameters(
        hidden=512,
        decoder_hidden=512,
        embedding_hidden=256,
        embedding_decoder_hidden=256,
        lr=1e-3,
        kl_rate=0.026 * share,
        kl_until=9,
        cross_rate=0.396,
        cross_from=2,
        cross_until=8,
        alignment_rate=4.32 * share,
        alignment_from=1,
        alignment_until=3,
        embedding_noise=1.0,
    )
    recipe = Recipe(
        scaling="whitened",
        centred=True,
        steps=min(2000, max(1000, 6 * classes)),
        synthetic_ratio=10.0,
        classifier="gaussian",
        shrinkage=0.6,
        balanced=True,
    )
    return hyperparameters, recipe


# ------------------------------------------------------------------------------------------------------ networks, losses


class Encoder(nn.Module):
    """E_x or E_c: → mean and log-variance of z; inputs → H → k, k."""

    def __init__(self, inputs: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.first(x))
        return self.mean(h), self.log_variance(h)


class Decoder(nn.Module):
    """D_x or D_c: z → what was encoded; k → H → outputs."""

    def __init__(self, latent: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(latent, hidden)
        self.second = nn.Linear(hidden, outputs)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.second(F.relu(self.first(z)))
        return out


def reconstruction_loss(decoded: Tensor, target: Tensor) -> Tensor:
    """‖x − x̂‖₁, mean over rows."""
    return (decoded - target).abs().sum() / len(target)


def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, I)), mean over rows."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum() / len(mean)


def alignment_loss(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """2-Wasserstein distance √(‖μ − μ'‖² + ‖σ − σ'‖²) of two diagonal Gaussians, mean over rows."""
    of_means = (mean - other_mean).square().sum(dim=1)
    of_spreads = ((log_variance / 2).exp() - (other_log_variance / 2).exp()).square().sum(dim=1)
    return (of_means + of_spreads).clamp_min(TINY).sqrt().mean()


def grown(rate: float, start: int, until: int, epoch: int) -> float:
    """rate · (epoch − start), at least 0 and no further than at `until`."""
    return rate * min(max(epoch - start, 0), until - start)


# ------------------------------------------------------------------------------------------------------------- method


class CADAVAE(nn.Module):
    """The method: built from a view, trained by `step`, asked by `sample` and `represent`.

    The final classifier sees latents: μ_x of what is to be recognised, and for its own rows draws of both posteriors.
    """

    loops = 1
    uses_unseen_embeddings = False

    def __init__(self, view: ScaledView, settings: Hyperparameters, seed: int) -> None:
        super().__init__()
        s = self.settings = settings
        self.batch_size = s.batch_size
        self.embeddings = view.embeddings
        self.streams = Streams(seed, view.device)
        d, a = view.features.shape[1], view.embeddings.shape[1]
        self.encoder = Encoder(d, s.hidden, s.latent)
        self.decoder = Decoder(s.latent, s.decoder_hidden, d)
        self.embedding_encoder = Encoder(a, s.embedding_hidden, s.latent)
        self.embedding_decoder = Decoder(s.latent, s.embedding_decoder_hidden, a)
        self.to(view.device)
        for name, module in self.named_children():
            _initialise(module, self.streams[f"initial {name}"])
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.Adam(self.parameters(), s.lr, amsgrad=True, fused=True)
        }

    # -- training

    def step(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """One update of all four networks by the whole loss."""
        s, epoch = self.settings, clock.step // clock.steps_per_epoch
        x, y = draw()
        c = self.embeddings[y]
        of_x, of_c = self.encoder(x), self.embedding_encoder(self._perturb(c))
        z_x, z_c = self._draw(of_x, "feature latent"), self._draw(of_c, "embedding latent")

        features, embeddings = reconstruction_loss(self.decoder(z_x), x), reconstruction_loss(self.embedding_decoder(z_c), c)
        loss = features + embeddings
        log = {"features": features.detach(), "embeddings": embeddings.detach()}
        if s.kl_rate > 0:
            kl = kl_loss(*of_x) + kl_loss(*of_c)
            loss = loss + grown(s.kl_rate, 0, s.kl_until, epoch) * kl
            log["kl"] = kl.detach()
        if s.cross_rate > 0:
            crossed = reconstruction_loss(self.decoder(z_c), x) + reconstruction_loss(self.embedding_decoder(z_x), c)
            loss = loss + grown(s.cross_rate, s.cross_from, s.cross_until, epoch) * crossed
            log["crossed"] = crossed.detach()
        if s.alignment_rate > 0:
            distance = alignment_loss(*of_x, *of_c)
            loss = loss + grown(s.alignment_rate, s.alignment_from, s.alignment_until, epoch) * distance
            log["distance"] = distance.detach()
        descend(loss, self.optimisers["all"])
        return log

    def _perturb(self, c: Tensor) -> Tensor:
        """c plus noise of expected length `embedding_noise`."""
        if self.settings.embedding_noise == 0:
            return c
        noise = self.streams.normal("embedding noise", *c.shape, dtype=c.dtype)
        length: float = self.settings.embedding_noise / c.shape[1] ** 0.5
        return c + length * noise

    def _draw(self, posterior: tuple[Tensor, Tensor], stream: str) -> Tensor:
        """z = μ + σε."""
        mean, log_variance = posterior
        return mean + torch.exp(log_variance / 2) * self.streams.normal(stream, *mean.shape, dtype=mean.dtype)

    # -- generation

    @torch.no_grad()
    def sample(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, d): D_x(z), z from the embedding's posterior."""
        out: Tensor = self.decoder(self.sample_represented(class_ids, streams))
        return out

    @torch.no_grad()
    def sample_represented(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, k): z from the embedding's posterior."""
        return _drawn(self.embedding_encoder(self.embeddings[class_ids]), class_ids, streams)

    @torch.no_grad()
    def represent(self, x: Tensor) -> Tensor:
        """(n, d) → (n, k): μ_x."""
        mean: Tensor = self.encoder(x)[0]
        return mean

    def represent_in_graph(self, graph: Graph, x: str) -> str:
        """`represent` as a graph."""
        return graph.linear(graph.relu(graph.linear(x, self.encoder.first)), self.encoder.mean)

    @torch.no_grad()
    def represent_for_fitting(self, x: Tensor, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n, d) → (n, k): z from the feature's posterior."""
        return _drawn(self.encoder(x), class_ids, streams)

    # -- checkpoints

    def state(self) -> dict[str, Tensor]:
        """Networks, optimiser and streams."""
        return (
            {f"network.{name}": value for name, value in self.state_dict().items()}
            | {f"optimiser.{name}": value for name, value in optimiser_state(self.optimisers)}
            | {f"stream.{name}": value for name, value in self.streams.state().items()}
        )

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was taken."""
        self.load_state_dict(under("network.", state))
        load_optimiser_state(self.optimisers, under("optimiser.", state))
        self.streams.load_state(under("stream.", state))


def _drawn(posterior: tuple[Tensor, Tensor], class_ids: Tensor, streams: ClassStreams) -> Tensor:
    """z = μ + σε, ε from the streams of the rows' classes."""
    mean, log_variance = posterior
    return mean + torch.exp(log_variance / 2) * streams.normal(class_ids, mean.shape[1]).to(mean.dtype)


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Weights U(±½ √(6 / (inputs + outputs))), half of Glorot's; biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, gain=0.5, generator=generator)
            nn.init.zeros_(layer.bias)
