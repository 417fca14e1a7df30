"""TF-VAEGAN: a VAE-GAN whose semantic decoder is fed back into the generator and shown to the classifier.

Reference: S. Narayan, A. Gupta, F. S. Khan, C. G. M. Snoek, L. Shao, "Latent Embedding Feedback and Discriminative Features
for Zero-Shot Classification", ECCV 2020. Details that the paper leaves open (initialisation, the self-weighted
reconstruction, the adaptive penalty weight, the order of updates) follow the behaviour of its released code, as recorded in
docs/methods/tfvaegan.md. f-VAEGAN-D2 (Xian et al., CVPR 2019, inductive) is this file with decoder and feedback off.

    encoder  E: [x, c] → z        generator G: [z, c] (+ feedback) → x̂        critic D: [x, c] → score
    decoder Dec: x → ĉ, with hidden layer r                                  feedback F: r → f
    x₀ = G(z, c),  f = F(Dec.hidden(x₀)),  x̂ = G(z, c; a·f)

Symbols: d length of a feature, a of a class embedding and of z, H hidden width, B batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

import numpy as np
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
    under,
)
from unseen.methods.benchmarks import PUBLIC, Benchmark
from unseen.nn.critic import Critic, update_critic
from unseen.nn.learning import SLOPE, TINY, adam, descend, initialise
from unseen.nn.vaegan import Encoder, Generator, semantic_reconstruction, vae_loss
from unseen.recipe import Recipe
from unseen.scaling import ScaledView


@dataclass(frozen=True)
class Hyperparameters:
    """In the paper's symbols; the defaults are CUB's.

    Args:
        hidden: H, width of every network.
        batch_size: B.
        critic_iterations: critic (and decoder) updates for each generator update.
        lr: of encoder, generator and critic.
        decoder_lr, feedback_lr: of Dec and of F.
        gamma_D, gamma_G: weight of the critic's loss, and of the adversarial term in the generator's; gamma_G 0 leaves the
            critic out.
        beta: weight of the semantic reconstruction. 0 leaves the decoder out, and with it transform and feedback.
        a1, a2: weight of the feedback in training and in synthesis.
        feedback_loops: loops an epoch; the second one trains with feedback. 1 leaves the feedback module out.
        penalty: initial weight λ of the gradient penalty.
        adaptive_penalty: let λ follow the penalty (see `_adapt_penalty`).
        latent: length of z; 0 makes it a, as published.
        encoded_noise: fakes come from E(x, c) rather than from the prior.
        feedback_from: with `encoded_noise` off, whose hidden features feed the generator's update back: those of the
            `generated` feature itself, or those of the `reconstruction` of x, as the released code does (used for FLO only).
        freeze_decoder: Dec learns from real features alone.
        transform: the final classifier sees [x, ĉ, r] instead of x.
        sigma: standard deviation of the Gaussian reconstruction, where features leave [0, 1].
        embedding_noise: expected length of Gaussian noise added to the unit vector c wherever it conditions E, G and D in
            training. Not in the paper: it keeps G from learning the few seen embeddings by heart.
        sample_noise: under the Gaussian reconstruction, every synthetic feature is x̂ + σε, a sample of p(x | z), rather than
            its mean x̂: for the critic too, which would else tell real from fake by the noise. Not in the paper, whose
            features lie in [0, 1].
    """

    hidden: int = 4096
    batch_size: int = 64
    critic_iterations: int = 5
    lr: float = 1e-4
    decoder_lr: float = 1e-4
    feedback_lr: float = 1e-5
    gamma_D: float = 10.0
    gamma_G: float = 10.0
    beta: float = 0.01
    a1: float = 1.0
    a2: float = 1.0
    feedback_loops: int = 2
    penalty: float = 10.0
    adaptive_penalty: bool = True
    latent: int = 0
    encoded_noise: bool = True
    feedback_from: Literal["generated", "reconstruction"] = "generated"
    freeze_decoder: bool = False
    transform: bool = True
    sigma: float = 1.0
    embedding_noise: float = 0.0
    sample_noise: bool = False

    def __post_init__(self) -> None:
        if self.beta == 0 and (self.transform or self.feedback_loops > 1):
            raise SettingsError(
                "beta=0 leaves the decoder untrained, so transform and feedback have nothing to work on; "
                "set transform=false and feedback_loops=1 too"
            )
        for name in ("hidden", "batch_size", "critic_iterations", "feedback_loops"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 1 or more")
        above_0(lr=self.lr, decoder_lr=self.decoder_lr, feedback_lr=self.feedback_lr, sigma=self.sigma)
        for name in ("gamma_D", "gamma_G", "beta", "a1", "a2", "penalty", "latent", "embedding_noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 0 or a number above it")
        if self.feedback_from not in ("generated", "reconstruction"):
            raise SettingsError(f"feedback_from={self.feedback_from!r} is neither 'generated' nor 'reconstruction'")


_AWA2 = Hyperparameters(lr=1e-5, feedback_lr=1e-4, beta=0.1, a1=0.01, a2=0.01, freeze_decoder=True)
_FLO = Hyperparameters(a1=0.5, a2=0.5, encoded_noise=False)
_SUN = Hyperparameters(lr=1e-3, feedback_lr=1e-4, gamma_D=1.0, gamma_G=1.0, a1=0.1, a2=0.01)
_ACTIONS = Hyperparameters(beta=0.1)

PRESETS: Mapping[str, tuple[Hyperparameters, Recipe]] = {
    # Published settings for inductive learning on ResNet-101 features, from the released run scripts.
    "awa1": (_AWA2, Recipe(epochs=120, synthetic=1800)),  # no script of its own: AWA2's
    "awa2": (_AWA2, Recipe(epochs=120, synthetic=1800)),
    "cub": (Hyperparameters(), Recipe(epochs=300, synthetic=300)),
    "flo": (_FLO, Recipe(epochs=500, synthetic=1200)),
    "sun": (_SUN, Recipe(epochs=400, synthetic=400, classifier_lr=5e-4)),
    # The same for features of a network that was fine-tuned on the seen classes, from the scripts of the first release.
    "awa2-finetuned": (
        replace(_AWA2, lr=1e-4, feedback_lr=1e-5, decoder_lr=1e-5, gamma_D=1.0, gamma_G=1.0, beta=1.0, a1=0.1, a2=0.1),
        Recipe(epochs=800, synthetic=1800),
    ),
    "cub-finetuned": (Hyperparameters(feedback_lr=1e-4, beta=0.1), Recipe(epochs=300, synthetic=300)),
    "flo-finetuned": (_FLO, Recipe(epochs=500, synthetic=1200)),
    "sun-finetuned": (
        replace(_SUN, lr=1e-4, feedback_lr=1e-5, decoder_lr=1e-5, beta=1.0, encoded_noise=False),
        Recipe(epochs=400, synthetic=400, classifier_lr=5e-4),
    ),
    # Actions: I3D features, thirty splits to be averaged, a final classifier behind a gate. Named as their folders are.
    "ucf101_i3d": (_ACTIONS, Recipe(epochs=200, synthetic=600, classifier="ood")),
    "hmdb_i3d": (replace(_ACTIONS, feedback_lr=1e-4), Recipe(epochs=200, synthetic=1200, classifier="ood")),
}

INFERRED = ("awa1",)
"""Presets for which there is no script."""

MADE_FOR: Mapping[str, Benchmark] = {
    **PUBLIC,
    **{f"{name}-finetuned": benchmark for name, benchmark in PUBLIC.items()},
    "ucf101_i3d": Benchmark(115, feature=8192),  # manual attributes
    "hmdb_i3d": Benchmark(300, feature=8192),
}
"""Preset → the data that it is for."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    # The paper's own order: each row has one part more, and the method as it is adds the feedback.
    "f-VAEGAN-D2": {"beta": 0.0, "transform": False, "feedback_loops": 1},
    "+ decoder in training": {"transform": False, "feedback_loops": 1},
    "+ feature transform": {"feedback_loops": 1},
}
"""Row of an ablation table → what it changes."""

SEARCH: Mapping[str, Range] = {
    # Every published value lies inside. gamma_D is left out: Adam divides it away again. So are switches that make another
    # method of it, and width, latent and batch, which say what a step may cost.
    "lr": Floats(1e-5, 5e-3, log=True),
    "decoder_lr": Floats(1e-5, 5e-3, log=True),
    "feedback_lr": Floats(1e-6, 1e-3, log=True),
    "gamma_G": Floats(0.1, 100.0, log=True),
    "beta": Floats(1e-3, 1.0, log=True),
    "a1": Floats(3e-3, 3.0, log=True),
    "a2": Floats(3e-3, 3.0, log=True),
    "critic_iterations": Ints(1, 5),
    "encoded_noise": Choices((True, False)),
    "freeze_decoder": Choices((False, True)),
    "sigma": Floats(0.1, 3.0, log=True),
    "embedding_noise": Floats(0.0, 2.0),
    "sample_noise": Choices((True, False)),
}
"""Hyper-parameter → what `unseen tune` tries."""

_OF_DECODER = ("decoder_lr", "feedback_lr", "beta", "a1", "a2", "freeze_decoder")

SEARCH_FVAEGAN: Mapping[str, Range] = {name: tried for name, tried in SEARCH.items() if name not in _OF_DECODER}
"""As `SEARCH`, for f-VAEGAN-D2."""


def default(classes: int, d: int, a: int) -> tuple[Hyperparameters, Recipe]:
    """Settings for data without a preset, so that a laptop finishes in minutes: the width follows d, the length the classes.

    The map from embedding to feature has one point a seen class, so its training grows with their number: six steps each,
    at least 450 and at most 2000.

    Args:
        classes: seen classes; d: length of a feature; a: of an embedding.
    """
    hyperparameters = Hyperparameters(
        hidden=512 if d <= 1536 else 1024,
        critic_iterations=1,
        lr=1e-3,
        decoder_lr=1e-3,
        feedback_lr=1e-4,
        a1=0.1,
        a2=0.1,
        latent=min(16, a),
        embedding_noise=1.0,
        sample_noise=True,
    )
    recipe = Recipe(
        scaling="whitened",
        centred=True,
        steps=min(2000, max(450, 6 * classes)),
        synthetic_ratio=10.0,
        classifier="gaussian",
        shrinkage=0.6,
        balanced=True,
    )
    return hyperparameters, recipe


def default_fvaegan(classes: int, d: int, a: int) -> tuple[Hyperparameters, Recipe]:
    """As `default`, for f-VAEGAN-D2."""
    hyperparameters, recipe = default(classes, d, a)
    return without_decoder(hyperparameters), recipe


def without_decoder(settings: Hyperparameters) -> Hyperparameters:
    """f-VAEGAN-D2, inductive: no decoder, so no transform and no feedback either."""
    return replace(settings, beta=0.0, transform=False, feedback_loops=1)


# ----------------------------------------------------------------------------------------------------------- networks


class Decoder(nn.Module):
    """Dec: x → ĉ of unit length, and its hidden layer r; d → H → a."""

    def __init__(self, d: int, a: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(d, hidden)
        self.second = nn.Linear(hidden, a)

    def hidden(self, x: Tensor) -> Tensor:
        """r (B, H)."""
        return F.leaky_relu(self.first(x), SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.hidden(x))

    def predict(self, r: Tensor) -> Tensor:
        """ĉ (B, a) from the hidden layer."""
        prediction: Tensor = F.normalize(self.second(r), dim=1, eps=TINY)
        return prediction


class Feedback(nn.Module):
    """F: r → f; H → H → H, both activated."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(hidden, hidden)
        self.second = nn.Linear(hidden, hidden)

    def forward(self, r: Tensor) -> Tensor:
        f: Tensor = F.leaky_relu(self.second(F.leaky_relu(self.first(r), SLOPE)), SLOPE)
        return f


# ------------------------------------------------------------------------------------------------------------- method


class Companion(Protocol):
    """What a larger method adds to an iteration of this one: critic updates before λ, and terms in the generator's loss."""

    def update_critics(self, with_feedback: bool) -> list[Tensor]:
        """Update further critics; returns the unweighted penalties, which λ follows too."""
        ...

    def generator_terms(self, with_feedback: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """What is added to the loss of encoder, generator, feedback and decoder, and what to log of it."""
        ...


class TFVAEGAN(nn.Module):
    """The method: built from a view, trained by `step`, asked by `sample` and `represent`."""

    uses_unseen_embeddings = False
    penalty_weight: Tensor

    def __init__(self, view: ScaledView, settings: Hyperparameters, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.batch_size = settings.batch_size
        self.loops = settings.feedback_loops
        self.embeddings = view.embeddings
        self.streams = Streams(seed, view.device)
        d, a, hidden = view.features.shape[1], view.embeddings.shape[1], settings.hidden
        self.latent = settings.latent or a
        self.encoder = Encoder(d, a, self.latent, hidden)
        self.generator = Generator(d, a, self.latent, hidden, view.unit_interval)
        self.critic = Critic(d, a, hidden) if settings.gamma_G > 0 else None
        self.decoder = Decoder(d, a, hidden) if settings.beta > 0 else None
        self.feedback = Feedback(hidden) if settings.feedback_loops > 1 else None
        self.register_buffer("penalty_weight", torch.tensor(float(settings.penalty)))
        self.to(view.device)
        for name, module in self.named_children():
            initialise(module, self.streams[f"initial {name}"])

        # The encoder keeps Adam's default betas in the released code; easy to miss.
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "encoder": adam(self.encoder, settings.lr, beta1=0.9),
            "generator": adam(self.generator, settings.lr),
        }
        if self.critic is not None:
            self.optimisers["critic"] = adam(self.critic, settings.lr)
        if self.decoder is not None:
            self.optimisers["decoder"] = adam(self.decoder, settings.decoder_lr)
        if self.feedback is not None:
            self.optimisers["feedback"] = adam(self.feedback, settings.feedback_lr)

    # -- training

    def step(self, draw: Draw, clock: Clock, companion: Companion | None = None) -> dict[str, Tensor]:
        """`critic_iterations` critic and decoder updates, each on a fresh batch; λ; then the generator's, on the last batch.

        Loop 0 of an epoch trains without feedback, loop 1 with it.

        Args:
            companion: what a larger method, of which this one is a part, adds to the iteration.
        """
        with_feedback = (clock.step // clock.steps_per_epoch) % self.settings.feedback_loops == 1
        penalties = []
        log: dict[str, Tensor] = {}
        for _ in range(self.settings.critic_iterations):
            x, y = draw()
            c = self.embeddings[y]
            condition = self.perturb(c)
            if self.decoder is not None:
                log["decoder"] = self._update_decoder(self.decoder, x, c)
            if self.critic is not None:
                fake = self._fake_for_critic(x, condition, with_feedback)
                penalty, log["wasserstein"] = self._update_critic(self.critic, x, fake, condition)
                penalties.append(penalty)
        if companion is not None:
            penalties += companion.update_critics(with_feedback)
        if penalties:
            log["penalty"] = torch.stack(penalties).mean()
            if self.settings.adaptive_penalty:
                self._adapt_penalty(log["penalty"])
            log["lambda"] = self.penalty_weight.clone()
        return log | self._update_generator(x, c, condition, with_feedback, companion)

    def _update_decoder(self, decoder: Decoder, x: Tensor, c: Tensor) -> Tensor:
        """Minimise βR(Dec(x), c) on real features."""
        loss = self.settings.beta * semantic_reconstruction(decoder(x), c)
        descend(loss, self.optimisers["decoder"])
        return loss.detach()

    @torch.no_grad()
    def _fake_for_critic(self, x: Tensor, c: Tensor, with_feedback: bool) -> Tensor:
        """One fake per row. The critic's update never reaches the generator, so no graph is built."""
        noise = self.streams.normal("critic noise", len(x), self.latent, dtype=x.dtype)
        if self.settings.encoded_noise:
            mean, log_variance = self.encoder(x, c)
            noise = mean + torch.exp(log_variance / 2) * noise
        return self.observed(self.generate(noise, c, self.settings.a1 if with_feedback else 0.0), "critic output")

    def _update_critic(self, critic: Critic, x: Tensor, fake: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Minimise γ_D · (mean D(x̂) − mean D(x) + λP)."""
        t = self.streams.uniform("penalty mixture", len(x), 1, dtype=x.dtype)
        return update_critic(critic, self.optimisers["critic"], x, fake, c, t, self.penalty_weight, self.settings.gamma_D)

    @torch.no_grad()
    def _adapt_penalty(self, penalty: Tensor) -> None:
        """λ ← 1.1 λ where P > 1.05, λ / 1.1 where P < 1.001; tensors throughout, so the device is never waited for."""
        weight = self.penalty_weight
        weight.copy_(torch.where(penalty > 1.05, weight * 1.1, torch.where(penalty < 1.001, weight / 1.1, weight)))

    def _update_generator(
        self, x: Tensor, c: Tensor, condition: Tensor, with_feedback: bool, companion: Companion | None
    ) -> dict[str, Tensor]:
        """Minimise L_vae − γ_G · mean D(x̂, c) + βR(Dec(x̂), c) over E, G and, in the feedback loop, F; D is frozen.

        Dec steps on the last term too, unless frozen. The feedback latent is detached, so that term alone reaches Dec and
        one backward pass serves both. `condition` is c, perturbed where `embedding_noise` asks for it.
        """
        s = self.settings
        a1 = s.a1 if with_feedback else 0.0
        mean, log_variance = self.encoder(x, condition)
        z = mean + torch.exp(log_variance / 2) * self.streams.normal("encoder noise", *mean.shape, dtype=x.dtype)
        x_hat = self.generate(z, condition, a1)
        vae = vae_loss(x_hat, x, mean, log_variance, None if self.generator.unit_interval else s.sigma)
        if not s.encoded_noise:
            prior = self.streams.normal("generator noise", *mean.shape, dtype=x.dtype)
            fed_back = x_hat.detach() if s.feedback_from == "reconstruction" else None
            x_hat = self.generate(prior, condition, a1, fed_back)
        loss, log = vae, {"vae": vae.detach()}
        fake = self.observed(x_hat, "generator output")
        if self.critic is not None:
            adversarial = -self.critic(fake, condition).mean()
            loss = loss + s.gamma_G * adversarial
            log["adversarial"] = adversarial.detach()
        if self.decoder is not None:
            semantic = semantic_reconstruction(self.decoder(fake), c)
            loss = loss + s.beta * semantic
            log["semantic"] = semantic.detach()
        if companion is not None:
            more, of_more = companion.generator_terms(with_feedback)
            loss, log = loss + more, log | of_more
        names = ["encoder", "generator"]
        if a1 != 0:
            names.append("feedback")
        if self.decoder is not None and not s.freeze_decoder:
            names.append("decoder")
        descend(loss, *(self.optimisers[name] for name in names))
        return log

    # -- generation

    def perturb(self, c: Tensor, stream: str = "embedding noise") -> Tensor:
        """c plus noise of expected length `embedding_noise`."""
        if self.settings.embedding_noise == 0:
            return c
        noise = self.streams.normal(stream, *c.shape, dtype=c.dtype)
        length: float = self.settings.embedding_noise / c.shape[1] ** 0.5
        return c + length * noise

    def observed(self, x_hat: Tensor, stream: str) -> Tensor:
        """A sample of p(x | z) where `sample_noise` asks for it, else x̂ itself."""
        if not self.settings.sample_noise or self.generator.unit_interval:
            return x_hat
        return x_hat + self.settings.sigma * self.streams.normal(stream, *x_hat.shape, dtype=x_hat.dtype)

    def generate(self, z: Tensor, c: Tensor, weight: float, fed_back: Tensor | None = None) -> Tensor:
        """G(z, c), or with feedback of this weight G(z, c; a·F(Dec.hidden(x₀))).

        x₀ is G(z, c) unless `fed_back` is given. The paper stops the gradient at the hidden features, so the first pass
        builds no graph, and neither G nor Dec learns through it.
        """
        if weight == 0 or self.decoder is None or self.feedback is None:
            return cast(Tensor, self.generator(z, c))
        with torch.no_grad():
            r = self.decoder.hidden(self.generator(z, c) if fed_back is None else fed_back)
        return cast(Tensor, self.generator(z, c, weight * self.feedback(r)))

    @torch.no_grad()
    def sample(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, d): z from the prior, one feedback pass of weight a2."""
        c = self.embeddings[class_ids]
        z = streams.normal(class_ids, self.latent).to(c.dtype)
        x_hat = self.generate(z, c, self.settings.a2)
        if self.settings.sample_noise and not self.generator.unit_interval:
            x_hat = x_hat + self.settings.sigma * streams.normal(class_ids, x_hat.shape[1]).to(c.dtype)
        return x_hat

    @torch.no_grad()
    def represent(self, x: Tensor) -> Tensor:
        """(n, d) → (n, d + a + H): [x, ĉ, r]; x alone without `transform`."""
        if self.decoder is None or not self.settings.transform:
            return x
        r = self.decoder.hidden(x)
        return torch.cat([x, self.decoder.predict(r), r], dim=1)

    def represent_in_graph(self, graph: Graph, x: str) -> str:
        """`represent` as a graph."""
        if self.decoder is None or not self.settings.transform:
            return x
        r = graph.leaky_relu(graph.linear(x, self.decoder.first), SLOPE)
        predicted = graph.unit_rows(graph.linear(r, self.decoder.second), np.array(TINY, np.float32))
        return graph.side_by_side([x, predicted, r])

    # -- checkpoints

    def state(self) -> dict[str, Tensor]:
        """Networks, λ, optimisers and streams."""
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
