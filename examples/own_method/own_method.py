"""A conditional VAE: the example of a method of one's own in docs/how-to/add-a-method.md.

    encoder  E: [x, c] → mean and log-variance of z          decoder G: [z, c] → x̂

Reference: K. Sohn, H. Lee, X. Yan, "Learning Structured Output Representation using Deep Conditional Generative Models",
NeurIPS 2015.

Symbols: d length of a feature x, a of a class embedding c, B batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.methods import Generative
from unseen.methods.base import (
    ClassStreams,
    Clock,
    Draw,
    Schedule,
    Streams,
    above_0,
    load_optimiser_state,
    optimiser_state,
    under,
)
from unseen.recipe import Recipe
from unseen.scaling import ScaledView


@dataclass(frozen=True)
class Hyperparameters:
    """Numbers, strings and booleans only: each can be typed as `--set NAME=VALUE`, and all are kept in the result row.

    Args:
        hidden: width of both networks.
        latent: length of z.
        batch_size: B.
        lr: of Adam.
        embedding_noise: expected length of Gaussian noise added to the unit vector c in training, so that G does not learn
            the few seen embeddings by heart.
    """

    hidden: int = 256
    latent: int = 16
    batch_size: int = 64
    lr: float = 1e-3
    embedding_noise: float = 1.0

    def __post_init__(self) -> None:
        above_0(hidden=self.hidden, latent=self.latent, batch_size=self.batch_size, lr=self.lr)


class CVAE(nn.Module):
    """Built from a view of the seen training rows, trained by `step`, asked by `sample` and `represent`."""

    loops = 1
    uses_unseen_embeddings = False

    def __init__(self, view: ScaledView, settings: Hyperparameters, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.batch_size = settings.batch_size
        self.embeddings = view.embeddings
        self.unit_interval = view.unit_interval
        self.streams = Streams(seed, view.device)  # whatever is drawn has a stream of its own
        d, a, hidden, latent = view.features.shape[1], view.embeddings.shape[1], settings.hidden, settings.latent
        self.encoder = nn.Sequential(nn.Linear(d + a, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent + a, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, d))
        self.to(view.device)
        for name, network in self.named_children():
            for layer in network.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight, generator=self.streams[f"initial {name}"])
                    nn.init.zeros_(layer.bias)
        self.optimisers = {"adam": torch.optim.Adam(self.parameters(), settings.lr)}

    def step(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """Minimise −log p(x | z, c) + KL(E(x, c) ‖ N(0, I)), summed over dimensions and averaged over rows.

        p is Bernoulli where features lie in [0, 1]. Elsewhere it is Gaussian with σ = 1: there the features are scaled so that
        they vary by some 1 within a class.
        """
        x, y = draw()
        c = self.embeddings[y]
        c = c + self.settings.embedding_noise / c.shape[1] ** 0.5 * self.streams.normal("embedding noise", *c.shape)
        mean, log_variance = self.encoder(torch.cat([x, c], dim=1)).chunk(2, dim=1)
        z = mean + torch.exp(log_variance / 2) * self.streams.normal("encoder noise", *mean.shape)
        out = self.decoder(torch.cat([z, c], dim=1))
        if self.unit_interval:
            reconstruction = F.binary_cross_entropy_with_logits(out, x, reduction="sum") / len(x)
        else:
            reconstruction = (out - x).square().sum() / 2 / len(x)
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum() / len(x)
        self.optimisers["adam"].zero_grad()
        (reconstruction + kl).backward()
        self.optimisers["adam"].step()
        return {"reconstruction": reconstruction.detach(), "kl": kl.detach()}  # no float(): the device is not waited for

    @torch.no_grad()
    def sample(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, d): z from the prior, then a draw from the Gaussian p(x | z, c), or the Bernoulli's mean."""
        z = streams.normal(class_ids, self.settings.latent)
        out: Tensor = self.decoder(torch.cat([z, self.embeddings[class_ids]], dim=1))
        return torch.sigmoid(out) if self.unit_interval else out + streams.normal(class_ids, out.shape[1])

    def represent(self, x: Tensor) -> Tensor:
        """The final classifier sees the features as they are."""
        return x

    def state(self) -> dict[str, Tensor]:
        """Networks, optimiser and streams; the entries named `network.…` are enough to sample."""
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


def default(classes: int, d: int, a: int) -> tuple[Hyperparameters, Recipe]:
    """Settings for data without a preset: so many seen classes, features of length d, embeddings of length a."""
    recipe = Recipe(
        scaling="whitened", centred=True, steps=1000, synthetic_ratio=10.0, classifier="gaussian", shrinkage=0.6, balanced=True
    )
    return Hyperparameters(latent=min(16, a)), recipe


ENTRY = Generative(
    name="cvae",
    title="conditional VAE",
    hyperparameters=Hyperparameters,
    build=CVAE,
    schedule=lambda settings: Schedule(settings.batch_size, CVAE.loops),
    default=default,
    presets={},  # published settings by benchmark, where there are any
    ablations={"no embedding noise": {"embedding_noise": 0.0}},  # rows of an ablation table, each by what it changes
)

CONTRACT = {  # what the contract test cannot know
    "reconstruction": "reconstruction",  # the logged term that says how well x is reconstructed
    "by_heart": {"hidden": 64},  # the 16 that tests give are too few to learn eight samples by heart in 300 steps
}
