"""TF-VAEGAN, transductive: a second critic compares what is generated for unseen classes with unlabelled rows of them.

Reference: as `unseen.methods.tfvaegan`; the variant is f-VAEGAN-D2's (Xian et al., CVPR 2019), whose second, unconditional
critic gives the method its name. What is done each iteration follows the scripts of the first release of TF-VAEGAN.

    D₂: x → score      real: unlabelled rows of unseen classes      fake: G(z, c), z ~ N(0, I), c of a class drawn by the prior
    L_G gains  − γ_G2 · mean D₂(G(z, c)) + βR(Dec(G(z, c)), c)

The unlabelled rows are the test rows, so a result is not to be compared with an inductive one, and says what it is. How often
each unseen class occurs among them is not known either. The released scripts drew classes by the *true test labels*, and the
published figures rest on that; here it is a choice, `prior`, which reads no label.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unseen.errors import SettingsError
from unseen.graph import Graph
from unseen.linear import discriminant
from unseen.methods import tfvaegan
from unseen.methods.base import (
    Choices,
    ClassStreams,
    Clock,
    Draw,
    Floats,
    Range,
    load_optimiser_state,
    optimiser_state,
    stream_seed,
    under,
)
from unseen.nn.critic import Critic, update_critic
from unseen.nn.learning import adam, initialise
from unseen.nn.vaegan import semantic_reconstruction
from unseen.recipe import Recipe
from unseen.scaling import ScaledView

ROWS_A_CLASS = 100
"""Synthesised to estimate the prior."""
SHRINKAGE = 0.6
"""Of the covariance of the classifier that the prior is estimated with."""


@dataclass(frozen=True)
class Hyperparameters(tfvaegan.Hyperparameters):
    """Those of TF-VAEGAN, under their names, because settings are typed, searched and stored as one flat list; and further

    Args:
        gamma_D2, gamma_G2: weight of the second critic's loss, and of its term in the generator's; gamma_G2 0 leaves out
            everything that unseen rows and classes add, which makes it TF-VAEGAN.
        prior: how often each unseen class is drawn: `uniform`; `estimated` from the unlabelled rows by expectation–maximisation
            (`estimate_prior`), first uniform and anew after every epoch; or `given`.
        shares: with prior=given, the share of each unseen class by name, as JSON: {"otter": 0.3, "seal": 0.7}.
    """

    gamma_D2: float = 10.0
    gamma_G2: float = 10.0
    prior: Literal["uniform", "estimated", "given"] = "uniform"
    shares: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gamma_D2", "gamma_G2"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name}={getattr(self, name)} cannot work; give 0 or a number above it")
        if self.prior not in ("uniform", "estimated", "given"):
            raise SettingsError(f"there is no prior={self.prior!r}; there are uniform, estimated, given")
        if (self.prior == "given") != bool(self.shares):
            raise SettingsError("prior=given and shares need each other; give both or neither")
        if self.shares:
            _parsed(self.shares)


def _parsed(shares: str) -> dict[str, float]:
    """Class name → share; raises SettingsError for anything else."""
    try:
        entry = json.loads(shares)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict) or not all(
        type(share) in (int, float) and 0 <= share < math.inf for share in entry.values()
    ):
        raise SettingsError(
            f"shares={shares[:60]!r} is not JSON of class names and shares of 0 or more; give for example "
            '{"otter": 0.3, "seal": 0.7}'
        )
    return {name: float(share) for name, share in entry.items()}


def _preset(name: str, epochs: int = 0, **changes: Any) -> tuple[Hyperparameters, Recipe]:
    """The inductive preset of this name with a second critic."""
    inductive, recipe = tfvaegan.PRESETS[name]
    return Hyperparameters(**{**vars(inductive), **changes}), replace(recipe, epochs=epochs or recipe.epochs)


PRESETS: Mapping[str, tuple[Hyperparameters, Recipe]] = {
    # Published settings, from the scripts of the first release; the prior is not: theirs is that of the test labels.
    "awa1": _preset("awa1", epochs=800),  # no script of its own: AWA2's
    "awa2": _preset("awa2", epochs=800),
    "cub": _preset("cub", epochs=500),
    "flo": _preset("flo", encoded_noise=True),
    "sun": _preset("sun", epochs=800, gamma_D2=1.0, gamma_G2=1.0),
    "awa2-finetuned": _preset("awa2-finetuned", gamma_D2=1.0, gamma_G2=1.0),
    "cub-finetuned": _preset("cub-finetuned"),
    "flo-finetuned": _preset("flo-finetuned", encoded_noise=True),
    "sun-finetuned": _preset("sun-finetuned", gamma_D2=1.0, gamma_G2=1.0),
}

ABLATIONS: Mapping[str, Mapping[str, Any]] = {"without unlabelled rows": {"gamma_G2": 0.0}}
"""Row of an ablation table → what it changes."""

SEARCH: Mapping[str, Range] = {
    **tfvaegan.SEARCH,
    "gamma_G2": Floats(0.1, 100.0, log=True),
    "prior": Choices(("uniform", "estimated")),
}
"""Hyper-parameter → what `unseen tune` tries."""


def default(classes: int, d: int, a: int) -> tuple[Hyperparameters, Recipe]:
    """TF-VAEGAN's for data without a preset, with a second critic."""
    inductive, recipe = tfvaegan.default(classes, d, a)
    return Hyperparameters(**vars(inductive)), recipe


class TransductiveTFVAEGAN(nn.Module):
    """A TF-VAEGAN, and beside it the second critic and the prior; samples and represents as that does."""

    def __init__(self, view: ScaledView, settings: Hyperparameters, seed: int) -> None:
        super().__init__()
        if view.unlabelled is None:
            raise SettingsError("the transductive method needs the unlabelled rows of a TransductiveView; hand it one")
        self.settings, self.view, self.seed = settings, view, seed
        self.unlabelled = view.unlabelled
        self.uses_unseen_embeddings = settings.gamma_G2 > 0
        self.inductive = tfvaegan.TFVAEGAN(view, settings, seed)
        self.batch_size, self.loops, self.streams = self.inductive.batch_size, self.inductive.loops, self.inductive.streams
        self.optimisers = dict(self.inductive.optimisers)
        self.critic = None
        if settings.gamma_G2 > 0:
            # Unconditional: a critic whose condition is always 0.
            self.critic = Critic(view.features.shape[1], 1, settings.hidden).to(view.device)
            initialise(self.critic, self.streams["initial unseen critic"])
            self.optimisers["unseen_critic"] = adam(self.critic, settings.lr)
        count = len(view.unseen)
        start = _given(settings.shares, view) if settings.prior == "given" else torch.full((count,), 1 / count)
        # Of these unseen classes alone, so no part of the network, which samples others as well.
        self.prior = start.to(view.device, torch.float64)

    # -- training

    def step(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """TF-VAEGAN's iteration, in which the second critic is updated as often, after the first, on unlabelled rows.

        λ weights both penalties and follows the mean of all.
        """
        if self.critic is None:
            return self.inductive.step(draw, clock)
        if self.settings.prior == "estimated" and clock.step and clock.step % (clock.steps_per_epoch * self.loops) == 0:
            self.prior = self._estimated()
        return self.inductive.step(draw, clock, companion=self) | {"largest share": self.prior.max()}

    @torch.no_grad()
    def update_critics(self, with_feedback: bool) -> list[Tensor]:
        """Minimise γ_D2 · (mean D₂(x̂) − mean D₂(x) + λP) as often as the first critic, each time on fresh rows."""
        assert self.critic is not None
        penalties = []
        for _ in range(self.settings.critic_iterations):
            real = self._draw_unlabelled()
            fake, _ = self._fake("unseen critic", with_feedback)
            t = self.streams.uniform("unseen penalty mixture", len(real), 1, dtype=real.dtype)
            weight, lam = self.settings.gamma_D2, self.inductive.penalty_weight
            penalty, _ = update_critic(
                self.critic, self.optimisers["unseen_critic"], real, fake, _nothing(real), t, lam, weight
            )
            penalties.append(penalty)
        return penalties

    def generator_terms(self, with_feedback: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """−γ_G2 · mean D₂(x̂) + βR(Dec(x̂), c) of features x̂ generated for unseen classes c."""
        assert self.critic is not None
        fake, c = self._fake("unseen generator", with_feedback)
        adversarial = -self.critic(fake, _nothing(fake)).mean()
        loss, log = self.settings.gamma_G2 * adversarial, {"adversarial unseen": adversarial.detach()}
        if self.inductive.decoder is not None:
            semantic = semantic_reconstruction(self.inductive.decoder(fake), c)
            loss = loss + self.settings.beta * semantic
            log["semantic unseen"] = semantic.detach()
        return loss, log

    def _draw_unlabelled(self) -> Tensor:
        """A batch of distinct unlabelled rows."""
        x = self.unlabelled
        return x[torch.randperm(len(x), generator=self.streams["unlabelled rows"], device=x.device)[: self.batch_size]]

    def _fake(self, stream: str, with_feedback: bool) -> tuple[Tensor, Tensor]:
        """As many features of unseen classes, drawn by the prior, as a batch of unlabelled rows has; and their embeddings."""
        count = min(self.batch_size, len(self.unlabelled))
        drawn = torch.multinomial(self.prior, count, replacement=True, generator=self.streams[f"{stream} classes"])
        c = self.inductive.embeddings[self.view.unseen[drawn]]
        condition = self.inductive.perturb(c, f"{stream} embedding noise")
        z = self.streams.normal(f"{stream} noise", count, self.inductive.latent, dtype=c.dtype)
        x_hat = self.inductive.generate(z, condition, self.settings.a1 if with_feedback else 0.0)
        return self.inductive.observed(x_hat, f"{stream} output"), c

    # -- the prior

    @torch.no_grad()
    def _estimated(self) -> Tensor:
        """(U,) shares of the unseen classes among the unlabelled rows, as the generator stands.

        The posteriors are those of Gaussian classes: means of synthetic rows, within-class covariance of real seen ones.
        """
        view = self.view
        ids = view.unseen.repeat_interleave(ROWS_A_CLASS)
        names = ClassStreams(stream_seed(self.seed, "prior"), view.names, view.device)
        made = self.inductive.sample(ids, names).double()
        means = made.reshape(len(view.unseen), ROWS_A_CLASS, -1).mean(dim=1)
        scores = discriminant(means, self._within, SHRINKAGE)
        return estimate_prior(torch.softmax(scores(self.unlabelled.float()).double(), dim=1))

    @cached_property
    def _within(self) -> Tensor:
        """(d, d) covariance of the seen rows around their class means, in float64."""
        x = self.view.features.double()
        _, at, counts = torch.unique(self.view.labels, return_inverse=True, return_counts=True)
        means = torch.zeros(len(counts), x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, at, x) / counts[:, None]
        rest = x - means[at]
        covariance: Tensor = rest.T @ rest / max(1, len(x) - len(counts))
        return covariance

    # -- generation and checkpoints

    def sample(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, d), as TF-VAEGAN."""
        return self.inductive.sample(class_ids, streams)

    def represent(self, x: Tensor) -> Tensor:
        """(n, d) → (n, d'), as TF-VAEGAN."""
        return self.inductive.represent(x)

    def represent_in_graph(self, graph: Graph, x: str) -> str:
        """`represent` as a graph."""
        return self.inductive.represent_in_graph(graph, x)

    def state(self) -> dict[str, Tensor]:
        """Networks, λ, prior, optimisers and streams."""
        return (
            {f"network.{name}": value for name, value in self.state_dict().items()}
            | {f"optimiser.{name}": value for name, value in optimiser_state(self.optimisers)}
            | {f"stream.{name}": value for name, value in self.streams.state().items()}
            | {"prior": self.prior}
        )

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was taken."""
        self.load_state_dict(under("network.", state))
        load_optimiser_state(self.optimisers, under("optimiser.", state))
        self.streams.load_state(under("stream.", state))
        self.prior = state.get("prior", self.prior).to(self.prior.device)


def estimate_prior(posteriors: Tensor, tolerance: float = 1e-7, most: int = 1000) -> Tensor:
    """Shares of the classes among rows, by expectation–maximisation started uniform; no label is needed.

    Reference: M. Saerens, P. Latinne, C. Decaestecker, "Adjusting the Outputs of a Classifier to New a Priori Probabilities",
    Neural Computation 2002.

    Args:
        posteriors: (n, U) p(class | row) of a classifier for which all classes are equally frequent.
        tolerance: ends when no share moves further than this.
        most: so many rounds at most.
    """
    shares = posteriors.new_full((posteriors.shape[1],), 1 / posteriors.shape[1])
    for _ in range(most):
        joint = posteriors * shares
        moved = (joint / joint.sum(dim=1, keepdim=True).clamp_min(torch.finfo(joint.dtype).tiny)).mean(dim=0)
        moved = moved / moved.sum()
        done = bool((moved - shares).abs().max() <= tolerance)
        shares = moved
        if done:
            break
    return shares


def _given(shares: str, view: ScaledView) -> Tensor:
    """(U,) the shares that were typed, in the order of class ids and made to sum to 1."""
    typed, unseen = _parsed(shares), [view.names[i] for i in view.unseen.tolist()]
    unlike = [name for name in unseen if name not in typed] or [name for name in typed if name not in unseen]
    if unlike:
        raise SettingsError(
            f"shares must name the unseen classes and no others, unlike {unlike[0][:60]!r}; the classes that play unseen ones "
            "on folds have no shares, so use prior=given with --protocol fixed or paper"
        )
    found = torch.tensor([typed[name] for name in unseen], dtype=torch.float64)
    if float(found.sum()) == 0:
        raise SettingsError("shares are all 0; give at least one class a share above 0")
    return found / found.sum()


def _nothing(x: Tensor) -> Tensor:
    """The condition of a critic that has none."""
    return x.new_zeros(len(x), 1)
