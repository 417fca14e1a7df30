"""f-CLSWGAN: a conditional Wasserstein GAN of features, with a classification loss on what it makes.

Reference: Y. Xian, T. Lorenz, B. Schiele, Z. Akata, "Feature Generating Networks for Zero-Shot Learning", CVPR 2018. Where
the settings are from is told in docs/methods/clswgan.md. f-WGAN, its own base, is β = 0.

    generator G: [z, c] → x̂        critic D: [x, c] → score        classifier P: x → log P(y | x), trained before, then frozen
    min over G, max over D of  mean D(x, c) − mean D(x̂, c) − λP + β L_CLS

Symbols: d length of a feature, a of a class embedding, H hidden width, B batch.
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
from unseen.nn.critic import Critic, update_critic
from unseen.nn.learning import SLOPE, adam, descend, initialise
from unseen.recipe import Recipe
from unseen.scaling import ScaledView, Scaling


@dataclass(frozen=True)
class Hyperparameters:
    """In the paper's symbols; the defaults are CUB's.

    Args:
        hidden: H, width of generator and critic.
        batch_size: B.
        critic_iterations: critic updates for each generator update.
        lr: of generator and critic.
        beta: β, weight of the classification loss; 0 leaves the classifier out.
        penalty: λ, weight of the gradient penalty.
        latent: length of z; 0 makes it a, as published.
        pretraining_epochs, pretraining_lr: of the classifier, on real seen rows.
        sigma: standard deviation of the noise of `sample_noise`.
        embedding_noise: expected length of Gaussian noise added to c wherever it conditions G and D in training. Not in the
            paper.
        sample_noise: where features leave [0, 1], every synthetic feature is x̂ + σε rather than x̂, for the critic too. Not in
            the paper: with few noise dimensions the critic would else tell real from fake by their absence.
    """

    hidden: int = 4096
    batch_size: int = 64
    critic_iterations: int = 5
    lr: float = 1e-4
    beta: float = 0.01
    penalty: float = 10.0
    latent: int = 0
    pretraining_epochs: int = 50
    pretraining_lr: float = 1e-3
    sigma: float = 1.0
    embedding_noise: float = 0.0
    sample_noise: bool = False

    def __post_init__(self) -> None:
        for name in ("hidden", "batch_size", "critic_iterations", "pretraining_epochs"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 1 or more")
        above_0(lr=self.lr, pretraining_lr=self.pretraining_lr, sigma=self.sigma)
        for name in ("beta", "penalty", "latent", "embedding_noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 0 or a number above it")


SCALINGS: tuple[Scaling, ...] = ("minmax", "whitened")
"""What `blind` tries: with a third one its folds would take longer than minutes."""

PRESETS: Mapping[str, tuple[Hyperparameters, Recipe]] = {
    # For ResNet-101 features: the GZSL runs' flags, as other authors' scripts repeat them (see the page of this method).
    "awa1": (Hyperparameters(lr=1e-5), Recipe(epochs=30, synthetic=1800)),
    "awa2": (Hyperparameters(lr=1e-5), Recipe(epochs=30, synthetic=1800)),  # the paper has no AWA2: AWA1's
    "cub": (Hyperparameters(), Recipe(epochs=56, synthetic=300)),
    "flo": (Hyperparameters(beta=0.1), Recipe(epochs=80, synthetic=1200)),
    "sun": (Hyperparameters(lr=2e-4), Recipe(epochs=40, synthetic=400)),
}

PRESETS_FROM = "published, as scripts of others repeat it"
INFERRED = ("awa2",)
"""Presets of benchmarks that the paper has not."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {"f-WGAN": {"beta": 0.0}}
"""Row of an ablation table → what it changes."""

SEARCH: Mapping[str, Range] = {
    # Every preset's value lies inside. Left out are width, latent and batch, which say what a step may cost.
    "lr": Floats(1e-5, 5e-3, log=True),
    "beta": Floats(1e-3, 1.0, log=True),
    "penalty": Floats(1.0, 100.0, log=True),
    "critic_iterations": Ints(1, 5),
    "sigma": Floats(0.1, 3.0, log=True),
    "embedding_noise": Floats(0.0, 2.0),
    "sample_noise": Choices((True, False)),
}
"""Hyper-parameter → what `unseen tune` tries."""


def default(classes: int, d: int, a: int) -> tuple[Hyperparameters, Recipe]:
    """Settings for data without a preset, so that a laptop finishes in minutes: as f-VAEGAN-D2's, but with the paper's five
    critic updates, more steps, as no reconstruction leads the generator here, and no noise on the embeddings, which did harm.

    Args:
        classes: seen classes; d: length of a feature; a: of an embedding.
    """
    hyperparameters = Hyperparameters(
        hidden=512 if d <= 1536 else 1024,
        lr=1e-3,
        latent=min(16, a),
        pretraining_epochs=20,
        sample_noise=True,
    )
    recipe = Recipe(
        scaling="whitened",
        centred=True,
        steps=min(2000, max(900, 6 * classes)),
        synthetic_ratio=10.0,
        classifier="gaussian",
        shrinkage=0.6,
        balanced=True,
    )
    return hyperparameters, recipe


# ------------------------------------------------------------------------------------------------------ network and loss


class Generator(nn.Module):
    """G: [z, c] → x̂; latent+a → H → d. It ends in a ReLU, as ResNet's features do; linearly where features leave [0, 1]."""

    def __init__(self, d: int, a: int, latent: int, hidden: int, unit_interval: bool) -> None:
        super().__init__()
        self.first = nn.Linear(latent + a, hidden)
        self.second = nn.Linear(hidden, d)
        self.unit_interval = unit_interval

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        out: Tensor = self.second(F.leaky_relu(self.first(torch.cat([z, c], dim=1)), SLOPE))
        return F.relu(out) if self.unit_interval else out


def classification_loss(classifier: nn.Linear, x: Tensor, place: Tensor) -> Tensor:
    """L_CLS = −mean log P(y | x) of a linear softmax over the seen classes.

    Args:
        x: (B, d); place: (B,) column of each row's class.
    """
    return F.cross_entropy(classifier(x), place)


# ------------------------------------------------------------------------------------------------------------- method


class CLSWGAN(nn.Module):
    """The method: built from a view, prepared by `prepare`, trained by `step`, asked by `sample` and `represent`."""

    loops = 1
    uses_unseen_embeddings = False

    def __init__(self, view: ScaledView, settings: Hyperparameters, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.batch_size = settings.batch_size
        self.embeddings = view.embeddings
        self.streams = Streams(seed, view.device)
        d, a, hidden = view.features.shape[1], view.embeddings.shape[1], settings.hidden
        self.latent = settings.latent or a
        self.generator = Generator(d, a, self.latent, hidden, view.unit_interval)
        self.critic = Critic(d, a, hidden)
        self.classifier = nn.Linear(d, len(view.seen)) if settings.beta > 0 else None
        self.to(view.device)
        for name, module in self.named_children():
            initialise(module, self.streams[f"initial {name}"])

        self.place = torch.zeros(len(view.embeddings), dtype=torch.int64, device=view.device)
        self.place[view.seen] = torch.arange(len(view.seen), device=view.device)
        self.class_list = torch.tensor([stream_seed(0, view.names[k]) for k in view.seen.tolist()], device=view.device)
        self.of_this_class_list = True
        self.no_rows = view.features[:0], view.labels[:0]

        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "generator": adam(self.generator, settings.lr),
            "critic": adam(self.critic, settings.lr),
        }
        self.preparation = 0
        if self.classifier is not None:
            self.preparation = settings.pretraining_epochs * math.ceil(len(view.labels) / settings.batch_size)
            self.optimisers["classifier"] = adam(self.classifier, settings.pretraining_lr)

    # -- preparation

    def prepare(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """The classifier learns to tell real seen rows; from then on it is left as it is."""
        assert self.classifier is not None
        x, y = draw()
        loss = classification_loss(self.classifier, x, self.place[y])
        descend(loss, self.optimisers["classifier"])
        return {"pre-trained": loss.detach()}

    def extra_rows(self) -> tuple[Tensor, Tensor]:
        """None: what is prepared is the classifier."""
        return self.no_rows

    # -- training

    def step(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """`critic_iterations` critic updates, each on a fresh batch; then the generator's, for the classes of the last one."""
        if not self.of_this_class_list:
            raise SettingsError(
                "these weights were trained with other classes, so they can only sample and represent; train anew"
            )
        s = self.settings
        log: dict[str, Tensor] = {}
        for _ in range(s.critic_iterations):
            x, y = draw()
            c = self._perturb(self.embeddings[y])
            with torch.no_grad():  # the critic's update never reaches the generator
                fake = self._fake(c, "critic")
            t = self.streams.uniform("penalty mixture", len(x), 1, dtype=x.dtype)
            log["penalty"], log["wasserstein"] = update_critic(
                self.critic, self.optimisers["critic"], x, fake, c, t, s.penalty, weight=1.0
            )
        return log | self._update_generator(c, self.place[y])

    def _update_generator(self, c: Tensor, place: Tensor) -> dict[str, Tensor]:
        """Minimise −mean D(x̂, c) + β L_CLS(x̂) over G; D and the classifier are frozen."""
        x_hat = self._fake(c, "generator")
        loss = -self.critic(x_hat, c).mean()
        log = {"adversarial": loss.detach()}
        if self.classifier is not None:
            classification = classification_loss(self.classifier, x_hat, place)
            loss = loss + self.settings.beta * classification
            log["classification"] = classification.detach()
        descend(loss, self.optimisers["generator"])
        return log

    # -- generation

    def _fake(self, c: Tensor, whose: str) -> Tensor:
        """x̂ of z from the prior; with `sample_noise`, x̂ + σε."""
        x_hat: Tensor = self.generator(self.streams.normal(f"{whose} noise", len(c), self.latent, dtype=c.dtype), c)
        if not self.settings.sample_noise or self.generator.unit_interval:
            return x_hat
        return x_hat + self.settings.sigma * self.streams.normal(f"{whose} output", *x_hat.shape, dtype=c.dtype)

    def _perturb(self, c: Tensor) -> Tensor:
        """c plus noise of expected length `embedding_noise`."""
        if self.settings.embedding_noise == 0:
            return c
        noise = self.streams.normal("embedding noise", *c.shape, dtype=c.dtype)
        length: float = self.settings.embedding_noise / c.shape[1] ** 0.5
        return c + length * noise

    @torch.no_grad()
    def sample(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, d): G(z, c), z from the prior."""
        c = self.embeddings[class_ids]
        x_hat: Tensor = self.generator(streams.normal(class_ids, self.latent).to(c.dtype), c)
        if self.settings.sample_noise and not self.generator.unit_interval:
            x_hat = x_hat + self.settings.sigma * streams.normal(class_ids, x_hat.shape[1]).to(c.dtype)
        return x_hat

    def represent(self, x: Tensor) -> Tensor:
        """The final classifier sees the features as they are."""
        return x

    def represent_in_graph(self, graph: Graph, x: str) -> str:
        """`represent` as a graph."""
        return x

    # -- checkpoints

    def state(self) -> dict[str, Tensor]:
        """Networks, optimisers and streams; the classifier, of no use after training, apart, with the classes that it tells."""
        return (
            {f"{_kept_under(name)}.{name}": value for name, value in self.state_dict().items()}
            | {"class_list": self.class_list}
            | {f"optimiser.{name}": value for name, value in optimiser_state(self.optimisers)}
            | {f"stream.{name}": value for name, value in self.streams.state().items()}
        )

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was taken. With other seen classes training cannot go on."""
        self.of_this_class_list = torch.equal(state.get("class_list", self.class_list), self.class_list)
        own = {name: value for name, value in self.state_dict().items() if _kept_under(name) == "preparation"}
        if self.of_this_class_list:
            own |= under("preparation.", state)
            load_optimiser_state(self.optimisers, under("optimiser.", state))
            self.streams.load_state(under("stream.", state))
        self.load_state_dict(own | under("network.", state))


def _kept_under(name: str) -> str:
    return "preparation" if name.startswith("classifier.") else "network"
