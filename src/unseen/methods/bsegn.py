"""BSeGN: a VAE-GAN trained together with a module that maps features to semantics and keeps seen and unseen in balance.

Reference: G.-S. Xie, X.-Y. Zhang, T.-Z. Xiang, F. Zhao, Z. Zhang, L. Shao, X. Li, "Leveraging Balanced Semantic Embedding for
Generative Zero-Shot Learning", IEEE TNNLS 34(11), 2023. Re-created from the abstract; the authors' code is not public. The
abstract names the parts and what each is for; every formula below is our reading of it, as docs/methods/bsegn.md tells.

    encoder  E: [x, c] → z        generator G: [z, c] → x̂        critic D: [x, c] → score
    cycle regressor R: x → ĉ, with hidden layers h₁, h₂          module M (the paper's FEM): x → m
    logits o_c(x) = cos(M(x), φ_c) / τ,  φ_c = n(c − mean of all c),  n(v) = v / ‖v‖

The final classifier sees Ψ(x) = [x, h₁, h₂, ĉ] (the paper's mFIM). Embeddings of unseen classes are used in training, their
features never: M learns from real seen features and from features that G makes of unseen classes in that very step.

Symbols: d length of a feature, a of a class embedding, H hidden width, B batch, C classes, S and U the seen and unseen ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.errors import SettingsError
from unseen.graph import Graph
from unseen.linear import LinearScores
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
from unseen.nn.critic import Critic, update_critic
from unseen.nn.learning import SLOPE, TINY, adam, descend, initialise
from unseen.nn.vaegan import Encoder, Generator, semantic_reconstruction, vae_loss
from unseen.recipe import Recipe
from unseen.scaling import ScaledView, Scaling

Balance = Literal["B1", "B2", "B3", "B4"]
ROWS_AT_ONCE = 4096
"""Rows of which the levels of Ψ are measured together: bounds memory, not results."""


@dataclass(frozen=True)
class Hyperparameters:
    """The defaults are CUB's. What the lineage does not fix is our choice: see docs/methods/bsegn.md.

    Args:
        hidden: H, width of E, G, D and of R's first layer; M and R's second layer have half of it.
        batch_size: B.
        critic_iterations: critic updates for each update of R, M and G.
        lr: of E, G and D.
        cycle_lr, fem_lr: of R and of M.
        gamma_adv: weight γ of the critic's loss and of the adversarial term in the generator's; 0 leaves the critic out.
        penalty: weight λ of the gradient penalty.
        lambda_cyc: weight of the cycle loss in the generator's. 0 removes it, and R too unless `mfim`.
        cycle_unseen: the cycle loss is asked of unseen fakes too. The critic never sees unseen pairs, so this is what keeps
            them true to their embeddings while M pushes them away from seen classes.
        cycle_layers: hidden layers of R, 1 or 2.
        fem: there is a module M. Without it, lambda_fem and lambda_bal must be 0 too.
        tau: temperature τ of M's logits.
        eta: weight η of the semantic-to-feature half of the contrastive loss.
        balance: `B1` matches mean responses of both domains, `B2` closes every row's own margin, `B3` matches the probability
            that leaks to the other domain, `B4` the share of both domains.
        lambda_bal: weight of the balance loss in M's objective.
        balance_in_generator: what G hears through M is all of M's objective, balance included.
        lambda_fem: weight of the contrastive loss through M in the generator's objective; 0 trains M without G's hearing of it.
        warm_up: epochs in which lambda_fem counts as 0, as M is still random.
        centre_phi: φ_c are the embeddings less their mean. Attributes have large cosines, which squeeze the softmax; without
            this take a smaller τ.
        mfim: the final classifier sees Ψ(x) instead of x.
        mfim_standardised: each level of Ψ is brought to mean 0 and standard deviation 1, over all its entries on seen rows.
        mfim_semantic: Ψ has n(M(x)) too.
        latent: length of z; 0 makes it a.
        encoded_noise: fakes of seen classes come from E(x, c) rather than from the prior.
        sigma: standard deviation of the Gaussian reconstruction, where features leave [0, 1].
        embedding_noise: expected length of Gaussian noise added to the unit vector c wherever it conditions E, G and D on
            seen rows in training. Not in the paper: it keeps G from learning the few seen embeddings by heart.
        sample_noise: under the Gaussian reconstruction, every synthetic feature is x̂ + σε rather than its mean x̂, for D, R
            and M too. Not in the paper, whose features lie in [0, 1].
    """

    hidden: int = 4096
    batch_size: int = 64
    critic_iterations: int = 5
    lr: float = 1e-4
    cycle_lr: float = 1e-4
    fem_lr: float = 1e-4
    gamma_adv: float = 10.0
    penalty: float = 10.0
    lambda_cyc: float = 0.01
    cycle_unseen: bool = True
    cycle_layers: int = 2
    fem: bool = True
    tau: float = 0.1
    eta: float = 0.5
    balance: Balance = "B1"
    lambda_bal: float = 1.0
    balance_in_generator: bool = False
    lambda_fem: float = 0.1
    warm_up: int = 10
    centre_phi: bool = True
    mfim: bool = True
    mfim_standardised: bool = False
    mfim_semantic: bool = False
    latent: int = 0
    encoded_noise: bool = True
    sigma: float = 1.0
    embedding_noise: float = 0.0
    sample_noise: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "critic_iterations"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 1 or more")
        if self.hidden < 2:
            raise SettingsError(f"hidden={self.hidden} cannot work; give 2 or more, as some layers have half of it")
        above_0(lr=self.lr, cycle_lr=self.cycle_lr, fem_lr=self.fem_lr, tau=self.tau, sigma=self.sigma)
        not_negative = ("gamma_adv", "penalty", "lambda_cyc", "eta", "lambda_bal", "lambda_fem", "warm_up", "latent")
        for name in (*not_negative, "embedding_noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 0 or a number above it")
        if self.cycle_layers not in (1, 2):
            raise SettingsError(f"cycle_layers={self.cycle_layers} cannot work; give 1 or 2")
        if self.balance not in get_args(Balance):
            raise SettingsError(f"there is no balance={self.balance!r}; there are {', '.join(get_args(Balance))}")
        if not self.fem and (self.lambda_fem or self.lambda_bal or self.mfim_semantic):
            raise SettingsError(
                "fem=false leaves out the module that lambda_fem, lambda_bal and mfim_semantic work on; "
                "set lambda_fem=0, lambda_bal=0 and mfim_semantic=false too"
            )
        if not self.mfim and (self.mfim_standardised or self.mfim_semantic):
            raise SettingsError(
                "mfim=false leaves nothing to standardise or extend; set mfim_standardised and mfim_semantic false"
            )


PRESETS: Mapping[str, tuple[Hyperparameters, Recipe]] = {
    # Width, rates, γ, cycle weight and lengths are TF-VAEGAN's on the same ResNet-101 features; aPY's, and whatever concerns
    # R's second layer, M, its losses and the warm-up, are our choice. Embeddings of unit length, not centred.
    "apy": (Hyperparameters(lr=1e-5, lambda_cyc=0.1, warm_up=5), Recipe(epochs=120, synthetic=1000)),
    "awa2": (Hyperparameters(lr=1e-5, lambda_cyc=0.1, warm_up=5), Recipe(epochs=120, synthetic=1800)),
    "cub": (Hyperparameters(), Recipe(epochs=300, synthetic=300)),
    "flo": (Hyperparameters(encoded_noise=False), Recipe(epochs=500, synthetic=1200)),
    "sun": (Hyperparameters(lr=1e-3, gamma_adv=1.0, lambda_fem=0.01), Recipe(epochs=400, synthetic=400, classifier_lr=5e-4)),
}

SCALINGS: tuple[Scaling, ...] = ("l2",)
"""What `blind` tries: on the folds of the emoji data better than whitened features, and each more costs its time again."""

_NO_MODULE: Mapping[str, Any] = {"fem": False, "lambda_fem": 0.0, "lambda_bal": 0.0, "mfim_semantic": False}
_NO_LEVELS: Mapping[str, Any] = {"mfim": False, "mfim_standardised": False, "mfim_semantic": False}

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    # A5 is the whole method.
    "A0 VAE-GAN + cycle": {**_NO_MODULE, **_NO_LEVELS},
    "A1 A0 + integrated levels": _NO_MODULE,
    "A3 A0 + contrastive module": {**_NO_LEVELS, "lambda_bal": 0.0},
    "A4 A3 + balance": _NO_LEVELS,
    "A9 whole, no cycle of unseen fakes": {"cycle_unseen": False},
}
"""Row of an ablation table → what it changes."""

SEARCH: Mapping[str, Range] = {
    # Every preset's value lies inside. Switches that make a row of the ablation of it are left out, and width, latent and
    # batch, which say what a step may cost.
    "lr": Floats(1e-5, 5e-3, log=True),
    "cycle_lr": Floats(1e-5, 5e-3, log=True),
    "fem_lr": Floats(1e-5, 5e-3, log=True),
    "gamma_adv": Floats(0.1, 100.0, log=True),
    "critic_iterations": Ints(1, 5),
    "lambda_cyc": Floats(1e-3, 10.0, log=True),
    "cycle_layers": Ints(1, 2),
    "tau": Floats(0.03, 0.3, log=True),
    "eta": Floats(0.0, 1.0),
    "lambda_bal": Floats(0.0, 5.0),
    "lambda_fem": Floats(1e-3, 10.0, log=True),
    "encoded_noise": Choices((True, False)),
    "sigma": Floats(0.1, 3.0, log=True),
    "embedding_noise": Floats(0.0, 2.0),
    "sample_noise": Choices((True, False)),
}
"""Hyper-parameter → what `unseen tune` tries."""


def default(classes: int, d: int, a: int) -> tuple[Hyperparameters, Recipe]:
    """Settings for data without a preset, so that a laptop finishes in minutes: the width follows d, the length the classes.

    As λ does not fall here, γ is a tenth of TF-VAEGAN's. Without [0, 1] the reconstruction is some hundreds large, beside
    which published weights of the cycle and of M change nothing; and a warm-up of ten epochs would last to the end.

    Args:
        classes: seen classes; d: length of a feature; a: of an embedding.
    """
    hyperparameters = Hyperparameters(
        hidden=512 if d <= 1536 else 1024,
        critic_iterations=1,
        lr=1e-3,
        cycle_lr=1e-3,
        fem_lr=1e-3,
        gamma_adv=1.0,
        lambda_cyc=3.0,
        lambda_fem=3.0,
        warm_up=1,
        latent=min(16, a),
        embedding_noise=1.0,
        sample_noise=True,
    )
    recipe = Recipe(
        scaling="l2",
        centred=True,
        steps=min(2000, max(900, 6 * classes)),
        synthetic_ratio=10.0,
        classifier="gaussian",
        shrinkage=0.6,
        balanced=True,
    )
    return hyperparameters, recipe


# ----------------------------------------------------------------------------------------------------------- networks


class CycleRegressor(nn.Module):
    """R: x → ĉ of unit length, through h₁ and h₂; d → H (→ H/2) → a."""

    def __init__(self, d: int, a: int, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [d, hidden, hidden // 2][: layers + 1]
        self.hidden = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.out = nn.Linear(widths[-1], a)

    def levels(self, x: Tensor) -> list[Tensor]:
        """h₁ (B, H), h₂ (B, H/2) if there is one, and ĉ (B, a)."""
        found = []
        for layer in self.hidden:
            x = F.leaky_relu(layer(x), SLOPE)
            found.append(x)
        return [*found, F.normalize(self.out(x), dim=1, eps=TINY)]

    def forward(self, x: Tensor) -> Tensor:
        return self.levels(x)[-1]


class SemanticModule(nn.Module):
    """M: x → n(m) of unit length; d → H/2 → a."""

    def __init__(self, d: int, a: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(d, hidden // 2)
        self.second = nn.Linear(hidden // 2, a)

    def forward(self, x: Tensor) -> Tensor:
        direction: Tensor = F.normalize(self.second(F.leaky_relu(self.first(x), SLOPE)), dim=1, eps=TINY)
        return direction


# ------------------------------------------------------------------------------------------------------------- losses


class Logits(NamedTuple):
    """M's logits of one step, with the columns of seen classes before those of unseen ones.

    Args:
        seen: (B, C) of features of seen classes; y: (B,) their columns.
        unseen: (B, C) of features of unseen classes; u: (B,) their columns.
        seen_classes: number of seen columns.
    """

    seen: Tensor
    y: Tensor
    unseen: Tensor
    u: Tensor
    seen_classes: int


def contrastive(o: Logits, eta: float) -> Tensor:
    """L_con = L_{f→s} + η L_{s→f}, with all C classes and all features of both domains as candidates."""
    loss = feature_to_semantic(o)
    if eta > 0:
        loss = loss + eta * semantic_to_feature(torch.cat([o.seen, o.unseen]), torch.cat([o.y, o.u]))
    return loss


def feature_to_semantic(o: Logits) -> Tensor:
    """L_{f→s} = −½ mean_{seen i} log softmax_c(o(x_i))[y_i] − ½ mean_{unseen j} log softmax_c(o(x_j))[u_j].

    Among the wrong classes of a seen feature is every unseen one, and the other way round.
    """
    return (F.cross_entropy(o.seen, o.y) + F.cross_entropy(o.unseen, o.u)) / 2


def semantic_to_feature(logits: Tensor, labels: Tensor) -> Tensor:
    """L_{s→f} = −mean over classes c present of (1/|P_c|) Σ_{i∈P_c} log [exp o_c(x_i) / Σ_j exp o_c(x_j)], P_c the rows of c.

    Each row contributes the entry of its own class, so the sum over i ∈ P_c and c is one over rows, of weight 1/|P_c|. The
    number of classes is the sum of these weights; nothing has a shape that depends on the labels.

    Args:
        logits: (n, C); labels: (n,) columns.
    """
    share = F.log_softmax(logits[:, labels], dim=0).diagonal()
    weight = 1 / (labels[:, None] == labels).sum(dim=1).to(logits.dtype)
    return -(weight * share).sum() / weight.sum()


class Responses(NamedTuple):
    """Each (B,): the largest logit among the classes of a row's own domain (`in`) and of the other one (`out`)."""

    in_s: Tensor
    out_s: Tensor
    in_u: Tensor
    out_u: Tensor


def responses(o: Logits) -> Responses:
    """in_s = max_{c∈S} o_c(x), out_s = max_{c∈U} o_c(x) of seen rows; in_u = max_{c∈U}, out_u = max_{c∈S} of unseen ones."""
    s = o.seen_classes
    return Responses(
        o.seen[:, :s].amax(dim=1), o.seen[:, s:].amax(dim=1), o.unseen[:, s:].amax(dim=1), o.unseen[:, :s].amax(dim=1)
    )


def balance_of_domains(o: Logits) -> Tensor:
    """B1: (E in_s − E in_u)² + (E out_s − E out_u)². Both domains answer alike on average, however many classes each has."""
    r = responses(o)
    loss: Tensor = (r.in_s.mean() - r.in_u.mean()).square() + (r.out_s.mean() - r.out_u.mean()).square()
    return loss


def balance_of_rows(o: Logits) -> Tensor:
    """B2: E (max_{c∈S} o_c − max_{c∈U} o_c)² over rows of both domains. It opposes telling them apart: take a small weight."""
    r = responses(o)
    return torch.cat([r.in_s - r.out_s, r.in_u - r.out_u]).square().mean()


def balance_of_leaks(o: Logits) -> Tensor:
    """B3: (E_seen Σ_{c∈U} p_c − E_unseen Σ_{c∈S} p_c)², p the softmax over all C classes."""
    s = o.seen_classes
    seen_to_unseen = o.seen.softmax(dim=1)[:, s:].sum(dim=1).mean()
    unseen_to_seen = o.unseen.softmax(dim=1)[:, :s].sum(dim=1).mean()
    return (seen_to_unseen - unseen_to_seen).square()


def balance_of_shares(o: Logits) -> Tensor:
    """B4: KL([E Σ_{c∈S} p_c, E Σ_{c∈U} p_c] ‖ [½, ½]), E over rows of both domains, of which there are as many."""
    p = torch.cat([o.seen, o.unseen]).softmax(dim=1).mean(dim=0)
    shares = torch.stack([p[: o.seen_classes].sum(), p[o.seen_classes :].sum()])
    return torch.xlogy(shares, 2 * shares).sum()


BALANCES: Mapping[Balance, Callable[[Logits], Tensor]] = {
    "B1": balance_of_domains,
    "B2": balance_of_rows,
    "B3": balance_of_leaks,
    "B4": balance_of_shares,
}
"""L_bal by the setting `balance`."""


# ------------------------------------------------------------------------------------------------------------- method


class BSeGN(nn.Module):
    """The method: built from a view, trained by `step`, asked by `sample`, `represent` and, to diagnose, `alone`."""

    loops = 1
    centre: Tensor
    level_mean: Tensor
    level_deviation: Tensor

    def __init__(self, view: ScaledView, settings: Hyperparameters, seed: int) -> None:
        super().__init__()
        s = self.settings = settings
        self.batch_size = s.batch_size
        self.uses_unseen_embeddings = s.fem or (s.lambda_cyc > 0 and s.cycle_unseen)
        self.features, self.embeddings = view.features, view.embeddings
        self.unseen = view.unseen
        self.streams = Streams(seed, view.device)
        d, a = view.features.shape[1], view.embeddings.shape[1]
        self.latent = s.latent or a
        self.encoder = Encoder(d, a, self.latent, s.hidden)
        self.generator = Generator(d, a, self.latent, s.hidden, view.unit_interval)
        self.critic = Critic(d, a, s.hidden) if s.gamma_adv > 0 else None
        self.regressor = CycleRegressor(d, a, s.hidden, s.cycle_layers) if s.lambda_cyc > 0 or s.mfim else None
        self.fem = SemanticModule(d, a, s.hidden) if s.fem else None
        self.to(view.device)
        for name, module in self.named_children():
            initialise(module, self.streams[f"initial {name}"])
        rates = {"encoder": s.lr, "generator": s.lr, "critic": s.lr, "regressor": s.cycle_lr, "fem": s.fem_lr}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            name: adam(module, rates[name], beta1=0.9 if name == "encoder" else 0.5) for name, module in self.named_children()
        }

        # Columns of M's logits: seen classes first, so that both maxima of the balance are slices.
        order = torch.cat([view.seen, view.unseen])
        self.seen_classes, self.order = len(view.seen), order
        self.column = torch.zeros(len(view.embeddings), dtype=torch.int64, device=view.device)
        self.column[order] = torch.arange(len(order), device=view.device)
        if s.fem and s.centre_phi:
            # Of the classes of training: it stays when other classes are added later.
            self.register_buffer("centre", view.embeddings[order].mean(dim=0))
        self.phi = self._semantics()[order]
        if s.mfim_standardised:
            levels = 1 + s.cycle_layers + 1 + s.mfim_semantic
            self.register_buffer("level_mean", torch.zeros(levels, device=view.device))
            self.register_buffer("level_deviation", torch.ones(levels, device=view.device))
        self._levels_measured = False

    # -- training

    def step(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """`critic_iterations` critic updates, each on a fresh batch; on the last batch R, M, and then G with E.

        Nothing that makes the critic's fakes changes between its updates, so they are made in one pass.
        """
        s = self.settings
        rounds = s.critic_iterations if self.critic is not None else 1
        batches = [draw() for _ in range(rounds)]
        x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        condition = self._perturb(self.embeddings[y])
        log: dict[str, Tensor] = {}
        if self.critic is not None:
            log |= self._train_critic(self.critic, x, condition, rounds)
        (x, y), condition = batches[-1], condition[-len(batches[-1][1]) :]
        if self.regressor is not None:
            log |= self._train_regressor(self.regressor, x, self.embeddings[y])
        if self.fem is not None:
            log |= self._train_fem(self.fem, x, y)
        warm = clock.step // clock.steps_per_epoch >= s.warm_up
        return log | self._train_generator(x, y, condition, self.fem if warm and s.lambda_fem > 0 else None)

    def _train_critic(self, critic: Critic, x: Tensor, c: Tensor, rounds: int) -> dict[str, Tensor]:
        """Minimise γ · (mean D(x̂) − mean D(x) + λP), on each of the batches that x and c hold one after the other."""
        s = self.settings
        found = []
        for real, fake, condition in zip(*(t.chunk(rounds) for t in (x, self._fake_for_critic(x, c), c)), strict=True):
            mixture = self.streams.uniform("penalty mixture", len(real), 1, dtype=x.dtype)
            found.append(
                update_critic(critic, self.optimisers["critic"], real, fake, condition, mixture, s.penalty, s.gamma_adv)
            )
        return {"wasserstein": found[-1][1], "penalty": torch.stack([penalty for penalty, _ in found]).mean()}

    @torch.no_grad()
    def _fake_for_critic(self, x: Tensor, c: Tensor) -> Tensor:
        """One fake per row, without graph."""
        noise = self.streams.normal("critic noise", len(x), self.latent, dtype=x.dtype)
        if self.settings.encoded_noise:
            mean, log_variance = self.encoder(x, c)
            noise = mean + torch.exp(log_variance / 2) * noise
        return self._observed(self.generator(noise, c), "critic output")

    def _train_regressor(self, regressor: CycleRegressor, x: Tensor, c: Tensor) -> dict[str, Tensor]:
        """Minimise L_R = ℓ(R(x), c) on real features; ℓ is `semantic_reconstruction`."""
        loss = semantic_reconstruction(regressor(x), c)
        descend(loss, self.optimisers["regressor"])
        self._levels_measured = False
        return {"regressor": loss.detach()}

    def _train_fem(self, fem: SemanticModule, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Minimise L_M = L_con + λ_bal L_bal on real seen features and as many fakes of unseen classes, made just now.

        The margins that are logged say by how much each domain prefers its own classes: balanced means alike.
        """
        s = self.settings
        u = self._draw_unseen("fem", len(x))
        with torch.no_grad():
            noise = self.streams.normal("fem noise", len(x), self.latent, dtype=x.dtype)
            fake = self._observed(self.generator(noise, self.embeddings[u]), "fem output")
        o = self._logits(fem, x, y, fake, u)
        balance = BALANCES[s.balance](o) if s.lambda_bal > 0 else None
        loss = con = contrastive(o, s.eta)
        log = {"contrastive": con.detach()}
        if balance is not None:
            loss = loss + s.lambda_bal * balance
            log["balance"] = balance.detach()
        descend(loss, self.optimisers["fem"])
        self._levels_measured = False
        r = Responses(*(response.detach().mean() for response in responses(o)))
        return log | {"margin of seen": r.in_s - r.out_s, "margin of unseen": r.in_u - r.out_u}

    def _train_generator(self, x: Tensor, y: Tensor, condition: Tensor, fem: SemanticModule | None) -> dict[str, Tensor]:
        """Minimise L_V − γ mean D(x̂ˢ, c) + λ_cyc L_cyc + λ_fem L_con(x̂ˢ ∪ x̂ᵘ) over E and G; D, R and M are frozen.

        L_cyc = ℓ(R(x̂ˢ), c_y) + ℓ(R(x̂ᵘ), c_u). With `balance_in_generator`, L_con + λ_bal L_bal is in the place of L_con. All
        features are made in one pass.

        Args:
            condition: embeddings of y, perturbed where `embedding_noise` asks for it.
            fem: None where λ_fem is 0 or still counts as 0.
        """
        s, rows = self.settings, len(x)
        mean, log_variance = self.encoder(x, condition)
        z = [mean + torch.exp(log_variance / 2) * self.streams.normal("encoder noise", *mean.shape, dtype=x.dtype)]
        conditions = [condition]
        if not s.encoded_noise:
            z.append(self.streams.normal("generator noise", *mean.shape, dtype=x.dtype))
            conditions.append(condition)
        with_unseen = fem is not None or (s.lambda_cyc > 0 and s.cycle_unseen)
        if with_unseen:
            u = self._draw_unseen("unseen", rows)
            z.append(self.streams.normal("unseen noise", *mean.shape, dtype=x.dtype))
            conditions.append(self.embeddings[u])
        made = self.generator(torch.cat(z), torch.cat(conditions)).split(rows)
        fake = self._observed(made[0 if s.encoded_noise else 1], "generator output")
        loss = vae_loss(made[0], x, mean, log_variance, None if self.generator.unit_interval else s.sigma)
        log = {"vae": loss.detach()}
        if self.critic is not None:
            adversarial = -self.critic(fake, condition).mean()
            loss = loss + s.gamma_adv * adversarial
            log["adversarial"] = adversarial.detach()
        if with_unseen:
            fake_unseen = self._observed(made[-1], "unseen output")
        if self.regressor is not None and s.lambda_cyc > 0:
            if s.cycle_unseen:
                of_seen, of_unseen = self.regressor(torch.cat([fake, fake_unseen])).split(rows)
                cycle = semantic_reconstruction(of_seen, self.embeddings[y])
                cycle = cycle + semantic_reconstruction(of_unseen, self.embeddings[u])
            else:
                cycle = semantic_reconstruction(self.regressor(fake), self.embeddings[y])
            loss = loss + s.lambda_cyc * cycle
            log["cycle"] = cycle.detach()
        if fem is not None:
            o = self._logits(fem, fake, y, fake_unseen, u)
            through = contrastive(o, s.eta)
            if s.balance_in_generator and s.lambda_bal > 0:
                through = through + s.lambda_bal * BALANCES[s.balance](o)
            loss = loss + s.lambda_fem * through
            log["through module"] = through.detach()
        descend(loss, self.optimisers["encoder"], self.optimisers["generator"])
        return log

    def _logits(self, fem: SemanticModule, x: Tensor, y: Tensor, x_unseen: Tensor, u: Tensor) -> Logits:
        """o_c(x) = cos(M(x), φ_c) / τ of both domains."""
        o = fem(torch.cat([x, x_unseen])) @ self.phi.T / self.settings.tau
        return Logits(o[: len(x)], self.column[y], o[len(x) :], self.column[u], self.seen_classes)

    def _semantics(self) -> Tensor:
        """(C, a): φ_c of every class, by id."""
        if not self.settings.fem or not self.settings.centre_phi:
            return self.embeddings
        return F.normalize(self.embeddings - self.centre, dim=1, eps=TINY)

    def _draw_unseen(self, stream: str, rows: int) -> Tensor:
        """(rows,) unseen class ids, each as likely."""
        generator = self.streams[f"{stream} labels"]
        return self.unseen[torch.randint(len(self.unseen), (rows,), generator=generator, device=self.unseen.device)]

    def _perturb(self, c: Tensor) -> Tensor:
        """c plus noise of expected length `embedding_noise`."""
        if self.settings.embedding_noise == 0:
            return c
        noise = self.streams.normal("embedding noise", *c.shape, dtype=c.dtype)
        length: float = self.settings.embedding_noise / c.shape[1] ** 0.5
        return c + length * noise

    def _observed(self, x_hat: Tensor, stream: str) -> Tensor:
        """A sample of p(x | z) where `sample_noise` asks for it, else x̂ itself."""
        if not self.settings.sample_noise or self.generator.unit_interval:
            return x_hat
        return x_hat + self.settings.sigma * self.streams.normal(stream, *x_hat.shape, dtype=x_hat.dtype)

    # -- generation

    @torch.no_grad()
    def sample(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, d): z from the prior."""
        c = self.embeddings[class_ids]
        x_hat: Tensor = self.generator(streams.normal(class_ids, self.latent).to(c.dtype), c)
        if self.settings.sample_noise and not self.generator.unit_interval:
            x_hat = x_hat + self.settings.sigma * streams.normal(class_ids, x_hat.shape[1]).to(c.dtype)
        return x_hat

    @torch.no_grad()
    def represent(self, x: Tensor) -> Tensor:
        """(n, d) → Ψ(x), (n, d + H + H/2 + a): [x, h₁, h₂, ĉ]; x alone without `mfim`."""
        if not self.settings.mfim:
            return x
        levels = self._levels(x)
        if self.settings.mfim_standardised:
            self._measure_levels()
            levels = [(f - m) / s for f, m, s in zip(levels, self.level_mean, self.level_deviation, strict=True)]
        return torch.cat(levels, dim=1)

    def represent_in_graph(self, graph: Graph, x: str) -> str:
        """`represent` as a graph."""
        if not self.settings.mfim:
            return x
        assert self.regressor is not None
        tiny, levels = np.array(TINY, np.float32), [x]
        for layer in self.regressor.hidden:
            levels.append(graph.leaky_relu(graph.linear(levels[-1], cast(nn.Linear, layer)), SLOPE))
        levels.append(graph.unit_rows(graph.linear(levels[-1], self.regressor.out), tiny))
        if self.fem is not None and self.settings.mfim_semantic:
            h = graph.leaky_relu(graph.linear(x, self.fem.first), SLOPE)
            levels.append(graph.unit_rows(graph.linear(h, self.fem.second), tiny))
        if self.settings.mfim_standardised:
            self._measure_levels()
            levels = [
                graph.node("Div", graph.node("Sub", f, graph.constant(m)), graph.constant(s))
                for f, m, s in zip(levels, self.level_mean, self.level_deviation, strict=True)
            ]
        return graph.side_by_side(levels)

    def _levels(self, x: Tensor) -> list[Tensor]:
        assert self.regressor is not None
        extra = [self.fem(x)] if self.fem is not None and self.settings.mfim_semantic else []
        return [x, *self.regressor.levels(x), *extra]

    @torch.no_grad()
    def _measure_levels(self) -> None:
        """Mean and standard deviation of each level of Ψ over seen training rows, unless R and M are as they were then."""
        if self._levels_measured:
            return
        total = square = torch.zeros(len(self.level_mean), dtype=torch.float64, device=self.features.device)
        for part in torch.split(self.features, ROWS_AT_ONCE):
            levels = [f.double() for f in self._levels(part)]
            total = total + torch.stack([f.mean(dim=1).sum() for f in levels])
            square = square + torch.stack([f.square().mean(dim=1).sum() for f in levels])
        mean = total / len(self.features)
        deviation = (square / len(self.features) - mean.square()).clamp_min(0).sqrt()
        self.level_mean.copy_(mean)
        self.level_deviation.copy_(torch.where(deviation > 0, deviation, 1.0))
        self._levels_measured = True

    def alone(self) -> tuple[Callable[[Tensor], Tensor], LinearScores] | None:
        """What M says without synthesis: the map x → n(M(x)), and of its values the logits o_c(x) of all classes."""
        if self.fem is None:
            return None
        semantics = self._semantics() / self.settings.tau
        return torch.no_grad()(self.fem), LinearScores(semantics, torch.zeros(len(semantics), device=semantics.device))

    # -- checkpoints

    def state(self) -> dict[str, Tensor]:
        """Networks, mean embedding, measured levels, optimisers and streams."""
        if self.settings.mfim_standardised:
            self._measure_levels()
        return (
            {f"network.{name}": value for name, value in self.state_dict().items()}
            | {f"optimiser.{name}": value for name, value in optimiser_state(self.optimisers)}
            | {f"stream.{name}": value for name, value in self.streams.state().items()}
        )

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was taken."""
        self.load_state_dict(under("network.", state))
        self.phi = self._semantics()[self.order]
        self._levels_measured = True
        load_optimiser_state(self.optimisers, under("optimiser.", state))
        self.streams.load_state(under("stream.", state))
