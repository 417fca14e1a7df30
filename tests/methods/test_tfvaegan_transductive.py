"""The transductive TF-VAEGAN against a plain transcription, its prior against loops."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.errors import SettingsError
from unseen.methods import METHODS, tfvaegan, with_settings
from unseen.methods.base import ClassStreams, Clock, Streams
from unseen.methods.tfvaegan_transductive import (
    PRESETS,
    ROWS_A_CLASS,
    Hyperparameters,
    TransductiveTFVAEGAN,
    default,
    estimate_prior,
)
from unseen.nn.critic import Critic
from unseen.recipe import Recipe
from unseen.scaling import ScaledView

World = Callable[..., ScaledView]
SMALL = {"hidden": 16, "batch_size": 6, "lr": 1e-2, "decoder_lr": 1e-2, "feedback_lr": 1e-2}
EPOCH = 3
"""Steps of one loop: steps 0–2 are loop 0, steps 3–5 loop 1."""


def transductive(world: World, **options: object) -> ScaledView:
    """The small world with its unseen rows unlabelled beside it; twice as many of the first unseen class."""
    whole = world(unseen_rows=True, **options)
    labelled = world(**options)
    unseen = whole.features[len(labelled.labels) :]
    return replace(labelled, unlabelled=torch.cat([unseen, unseen[:5] + 0.01]))


class Batches:
    """Draws batches of six from a view, and remembers them."""

    def __init__(self, view: ScaledView) -> None:
        self.view, self.generator = view, torch.Generator().manual_seed(3)
        self.drawn: list[tuple[Tensor, Tensor]] = []

    def __call__(self) -> tuple[Tensor, Tensor]:
        rows = torch.randperm(len(self.view.labels), generator=self.generator)[:6]
        self.drawn.append((self.view.features[rows], self.view.labels[rows]))
        return self.drawn[-1]


# ----------------------------------------------------------------------------------- one whole iteration, written plainly


class Plain:
    """One iteration as the specification's 3.8 states it, on copies of the networks: autograd only, nothing fused."""

    def __init__(self, method: TransductiveTFVAEGAN, seed: int) -> None:
        self.net = deepcopy(method)
        part, s = self.net.inductive, method.settings
        assert self.net.critic is not None
        nets = {
            "encoder": (part.encoder, s.lr), "generator": (part.generator, s.lr), "critic": (part.critic, s.lr),
            "decoder": (part.decoder, s.decoder_lr), "feedback": (part.feedback, s.feedback_lr),
            "second": (self.net.critic, s.lr),
        }  # fmt: skip
        self.adam = {
            name: torch.optim.Adam(net.parameters(), rate, (0.9 if name == "encoder" else 0.5, 0.999), foreach=False)
            for name, (net, rate) in nets.items()
        }
        self.s, self.lam, self.streams = s, s.penalty, Streams(seed, torch.device("cpu"))

    def descend(self, loss: Tensor, *names: str) -> None:
        for parameter in self.net.parameters():
            parameter.grad = None
        loss.backward()
        for name in names:
            self.adam[name].step()

    def normal(self, name: str, *shape: int) -> Tensor:
        return self.streams.normal(name, *shape, dtype=torch.float64)

    def penalty(self, critic: Critic, x: Tensor, fake: Tensor, c: Tensor, stream: str) -> Tensor:
        t = self.streams.uniform(stream, len(x), 1, dtype=torch.float64)
        xi = (t * x + (1 - t) * fake).requires_grad_()
        (inner,) = torch.autograd.grad(critic(xi, c).sum(), xi, create_graph=True)
        return ((inner.norm(dim=1) - 1) ** 2).mean()

    def generate(self, z: Tensor, c: Tensor, loop: int) -> Tensor:
        part = self.net.inductive
        if loop == 0:
            return part.generator(z, c)
        r = part.decoder.hidden(part.generator(z, c)).detach()
        return part.generator(z, c, self.s.a1 * part.feedback(r))

    def of_unseen(self, stream: str, loop: int) -> tuple[Tensor, Tensor]:
        view, prior = self.net.view, self.net.prior
        drawn = torch.multinomial(prior, 6, replacement=True, generator=self.streams[f"{stream} classes"])
        c = condition = view.embeddings[torch.stack([view.unseen[k] for k in drawn])]
        if self.s.embedding_noise:
            condition = c + self.s.embedding_noise * self.normal(f"{stream} embedding noise", *c.shape) / math.sqrt(c.shape[1])
        out = self.generate(self.normal(f"{stream} noise", 6, self.net.inductive.latent), condition, loop)
        if self.s.sample_noise and not view.unit_interval:
            out = out + self.s.sigma * self.normal(f"{stream} output", *out.shape)
        return out, c

    @staticmethod
    def reconstruction(p: Tensor, c: Tensor) -> Tensor:
        return torch.stack([((a - b).abs() ** 3).sum() / (a - b).norm() for a, b in zip(p, c, strict=True)]).mean()

    def iteration(self, loop: int, batches: list[tuple[Tensor, Tensor]]) -> None:
        s, part, penalties = self.s, self.net.inductive, []
        for x, y in batches:
            c = condition = part.embeddings[y]
            if s.embedding_noise:
                condition = c + s.embedding_noise * self.normal("embedding noise", *c.shape) / math.sqrt(c.shape[1])
            self.descend(s.beta * self.reconstruction(part.decoder(x), c), "decoder")
            z = self.normal("critic noise", 6, part.latent)
            if s.encoded_noise:
                m, v = part.encoder(x, condition)
                z = m + torch.exp(v / 2) * z
            fake = self.generate(z, condition, loop).detach()
            if s.sample_noise and not self.net.view.unit_interval:
                fake = fake + s.sigma * self.normal("critic output", *fake.shape)
            penalty = self.penalty(part.critic, x, fake, condition, "penalty mixture")
            distance = part.critic(fake, condition).mean() - part.critic(x, condition).mean()
            self.descend(s.gamma_D * (distance + self.lam * penalty), "critic")
            penalties.append(penalty.item())
        second, nothing = self.net.critic, torch.zeros(6, 1, dtype=torch.float64)
        for _ in batches:
            rows = torch.randperm(len(self.net.unlabelled), generator=self.streams["unlabelled rows"])[:6]
            real, (fake, _) = self.net.unlabelled[rows], self.of_unseen("unseen critic", loop)
            fake = fake.detach()
            penalty = self.penalty(second, real, fake, nothing, "unseen penalty mixture")
            distance = second(fake, nothing).mean() - second(real, nothing).mean()
            self.descend(s.gamma_D2 * (distance + self.lam * penalty), "second")
            penalties.append(penalty.item())
        assert len(penalties) == 2 * s.critic_iterations
        g = sum(penalties) / len(penalties)
        self.lam *= 1.1 if g > 1.05 else 1 / 1.1 if g < 1.001 else 1

        m, v = part.encoder(x, condition)
        x_hat = self.generate(m + torch.exp(v / 2) * self.normal("encoder noise", *m.shape), condition, loop)
        if self.net.view.unit_interval:
            p = x_hat + 1e-12
            loss = -(x * p.log() + (1 - x) * (1 - p).log()).sum() / 6
        else:
            loss = ((x_hat - x) ** 2).sum() / (2 * s.sigma**2) / 6
        loss = loss + (-0.5 * (1 + v - m**2 - v.exp())).sum() / 6
        if not s.encoded_noise:
            x_hat = self.generate(self.normal("generator noise", *m.shape), condition, loop)
        fake = x_hat
        if s.sample_noise and not self.net.view.unit_interval:
            fake = x_hat + s.sigma * self.normal("generator output", *x_hat.shape)
        loss = loss - s.gamma_G * part.critic(fake, condition).mean() + s.beta * self.reconstruction(part.decoder(fake), c)
        made, of_unseen = self.of_unseen("unseen generator", loop)
        loss = loss - s.gamma_G2 * second(made, nothing).mean() + s.beta * self.reconstruction(part.decoder(made), of_unseen)
        names = ["encoder", "generator", *(["feedback"] if loop else []), *([] if s.freeze_decoder else ["decoder"])]
        self.descend(loss, *names)


CASES = {
    "cub": (replace(PRESETS["cub"][0], **SMALL), True),
    "awa2: frozen decoder": (replace(PRESETS["awa2"][0], **SMALL), True),
    "sun: gammas 1": (replace(PRESETS["sun"][0], **SMALL), True),
    "sun-finetuned: fakes from the prior": (replace(PRESETS["sun-finetuned"][0], **SMALL), True),
    "default: gaussian, noisy": (
        replace(default(60, 24, 8)[0], latent=5, sigma=0.7, gamma_D2=3.0, gamma_G2=2.0, **SMALL),
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_iterations_of_both_loops_equal_the_plain_transcription(case: str, small_world: World) -> None:
    settings, bernoulli = CASES[case]
    view = transductive(small_world, unit_interval=bernoulli, dtype=torch.float64)
    method = TransductiveTFVAEGAN(view, settings, seed=1).double()
    plain = Plain(method, seed=1)
    draw = Batches(view)
    for step in (0, 1, EPOCH, EPOCH + 1):
        before = deepcopy(method.critic.state_dict())
        draw.drawn.clear()
        log = method.step(draw, Clock(step, EPOCH))
        plain.iteration(step // EPOCH, draw.drawn)
        assert {"adversarial unseen", "semantic unseen", "largest share"} <= log.keys()
        for (name, value), other in zip(method.named_parameters(), plain.net.parameters(), strict=True):
            torch.testing.assert_close(value, other, rtol=0, atol=1e-10, msg=lambda m, n=name, s=step: f"{n}, {s}: {m}")
        assert float(method.inductive.penalty_weight) == pytest.approx(plain.lam, rel=1e-12)
        assert (method.critic.visual.weight - before["visual.weight"]).abs().max() > 1e-3


def test_without_the_second_critic_it_is_tf_vaegan_bit_for_bit(small_world: World) -> None:
    view = transductive(small_world)
    settings = Hyperparameters(gamma_G2=0.0, **SMALL)
    ours = TransductiveTFVAEGAN(view, settings, seed=1)
    theirs = tfvaegan.TFVAEGAN(view, tfvaegan.Hyperparameters(**SMALL), seed=1)
    draws = Batches(view), Batches(view)
    for step in range(2 * EPOCH):
        log, other = ours.step(draws[0], Clock(step, EPOCH)), theirs.step(draws[1], Clock(step, EPOCH))
        assert log.keys() == other.keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[f"inductive.{name}"], value), name
    ids = view.unseen.repeat_interleave(3)
    samples = [m.sample(ids, ClassStreams(0, view.names, view.device)) for m in (ours, theirs)]
    assert torch.equal(*samples)
    assert not ours.uses_unseen_embeddings
    assert TransductiveTFVAEGAN(view, Hyperparameters(**SMALL), seed=1).uses_unseen_embeddings


def test_unlabelled_rows_leave_the_draws_of_the_others_alone(small_world: World) -> None:
    """Batches, initial weights and the first critic of the first step are those of TF-VAEGAN."""
    view = transductive(small_world)
    ours = TransductiveTFVAEGAN(view, Hyperparameters(**SMALL), seed=1)
    theirs = tfvaegan.TFVAEGAN(view, tfvaegan.Hyperparameters(**SMALL), seed=1)
    ours.step(Batches(view), Clock(0, EPOCH))
    theirs.step(Batches(view), Clock(0, EPOCH))
    assert torch.equal(ours.inductive.critic.visual.weight, theirs.critic.visual.weight)
    assert not torch.equal(ours.inductive.generator.second.weight, theirs.generator.second.weight)


# ------------------------------------------------------------------------------------------------------------- the prior


def em_by_loops(posteriors: list[list[float]], rounds: int) -> list[float]:
    classes = len(posteriors[0])
    shares = [1 / classes] * classes
    for _ in range(rounds):
        total = [0.0] * classes
        for row in posteriors:
            joint = [p * w for p, w in zip(row, shares, strict=True)]
            for k in range(classes):
                total[k] += joint[k] / sum(joint)
        shares = [v / len(posteriors) for v in total]
    return shares


def mixture(shares: list[float], count: int = 4000) -> tuple[Tensor, Tensor]:
    """Posteriors under equal shares of draws from Gaussians at 0, 2, 4 … in these shares; and the shares that were drawn."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor(shares), count, replacement=True, generator=generator)
    x = 2.0 * labels + torch.randn(count, generator=generator)
    likelihood = torch.exp(-0.5 * (x[:, None] - 2.0 * torch.arange(len(shares))) ** 2).double()
    return likelihood / likelihood.sum(dim=1, keepdim=True), torch.bincount(labels, minlength=len(shares)) / count


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_rounds_are_those_of_the_loops(rounds: int) -> None:
    posteriors, _ = mixture([0.5, 0.1, 0.4], count=60)
    found = estimate_prior(posteriors, most=rounds)
    assert found.tolist() == pytest.approx(em_by_loops(posteriors.tolist(), rounds), abs=1e-12)


def test_the_first_round_starts_uniform() -> None:
    posteriors, _ = mixture([0.5, 0.1, 0.4], count=60)
    torch.testing.assert_close(estimate_prior(posteriors, most=1), posteriors.mean(dim=0))


@pytest.mark.parametrize("shares", [[0.6, 0.3, 0.1], [0.25, 0.25, 0.5], [1 / 3, 1 / 3, 1 / 3], [0.9, 0.0, 0.1]])
def test_shares_of_a_known_mixture_are_found(shares: list[float]) -> None:
    """Nearer than counting the classifier's answers comes, whose classes overlap."""
    posteriors, true = mixture(shares)
    found = estimate_prior(posteriors)
    assert float(found.sum()) == pytest.approx(1)
    assert float((found - true).abs().max()) < 0.035
    if max(shares) > 0.4:
        counted = torch.bincount(posteriors.argmax(dim=1), minlength=3) / len(posteriors)
        assert float((found - true).abs().sum()) < float((counted - true).abs().sum())


def test_no_round_lowers_the_likelihood_of_the_rows() -> None:
    posteriors, _ = mixture([0.7, 0.1, 0.2], count=300)
    likelihoods = [float((posteriors @ estimate_prior(posteriors, most=n, tolerance=0.0)).log().sum()) for n in range(1, 30)]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(likelihoods))
    assert likelihoods[-1] > likelihoods[0]


def test_rows_that_are_sure_are_counted() -> None:
    posteriors = F.one_hot(torch.tensor([0, 0, 2, 0]), 4).double()
    assert estimate_prior(posteriors).tolist() == [0.75, 0.0, 0.25, 0.0]


def test_the_estimate_finds_which_class_has_more_unlabelled_rows(small_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a generator that knows the class means; the first unseen class has ten rows, the others five."""
    view = transductive(small_world, unit_interval=False)
    whole = small_world(unit_interval=False, unseen_rows=True)
    method = TransductiveTFVAEGAN(view, Hyperparameters(prior="estimated", **SMALL), seed=1)
    means = torch.stack([whole.features[whole.labels == k].mean(dim=0) for k in range(16)])
    asked = defaultdict(int)

    def sample(ids: Tensor, streams: ClassStreams) -> Tensor:
        for k in ids.tolist():
            asked[k] += 1
        return means[ids] + 0.3 * streams.normal(ids, means.shape[1])

    monkeypatch.setattr(method.inductive, "sample", sample)
    assert method._estimated().tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.01)
    assert asked == dict.fromkeys(view.unseen.tolist(), ROWS_A_CLASS)


def test_the_prior_is_estimated_anew_after_every_epoch(small_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    view = transductive(small_world)
    method = TransductiveTFVAEGAN(view, Hyperparameters(prior="estimated", critic_iterations=1, **SMALL), seed=1)
    assert method.prior.tolist() == [0.25] * 4
    estimates = iter([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    monkeypatch.setattr(method, "_estimated", lambda: torch.tensor(next(estimates), dtype=torch.float64))
    draw = Batches(view)
    largest = [float(method.step(draw, Clock(step, EPOCH))["largest share"]) for step in range(5 * EPOCH)]
    assert largest == [0.25] * 2 * EPOCH + [0.4] * 2 * EPOCH + [0.7] * EPOCH


@pytest.mark.parametrize("prior", ["uniform", "given"])
def test_no_other_prior_ever_moves(prior: str, small_world: World) -> None:
    view = transductive(small_world)
    shares = {view.names[k]: float(n + 1) for n, k in enumerate(view.unseen.tolist())}
    settings = Hyperparameters(prior=prior, shares=json.dumps(shares) if prior == "given" else "", **SMALL)  # type: ignore[arg-type]
    method = TransductiveTFVAEGAN(view, settings, seed=1)
    expected = [0.25] * 4 if prior == "uniform" else [0.1, 0.2, 0.3, 0.4]
    for step in range(3 * EPOCH):
        method.step(Batches(view), Clock(step, EPOCH))
        assert method.prior.tolist() == pytest.approx(expected)


def test_classes_are_drawn_as_often_as_the_prior_says(small_world: World) -> None:
    view = transductive(small_world)
    shares = dict(zip([view.names[k] for k in view.unseen.tolist()], [3, 0, 1, 0], strict=True))
    settings = Hyperparameters(prior="given", shares=json.dumps(shares), **SMALL)
    method = TransductiveTFVAEGAN(view, settings, seed=1)
    drawn = torch.cat([method._fake("unseen critic", False)[1] for _ in range(300)])
    counts = [int((drawn == view.embeddings[k]).all(dim=1).sum()) for k in view.unseen.tolist()]
    assert sum(counts) == 1800
    assert counts[1] == counts[3] == 0
    assert counts[0] / 1800 == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prior": "true"}, "there is no prior='true'; there are uniform, estimated, given"),
        ({"prior": "given"}, "need each other"),
        ({"shares": '{"a": 1}'}, "need each other"),
        ({"prior": "estimated", "shares": '{"a": 1}'}, "need each other"),
        ({"prior": "given", "shares": "0.5, 0.5"}, "is not JSON of class names and shares"),
        ({"prior": "given", "shares": "[0.5, 0.5]"}, "is not JSON of class names and shares"),
        ({"prior": "given", "shares": '{"a": -1}'}, "is not JSON of class names and shares"),
        ({"prior": "given", "shares": '{"a": NaN}'}, "is not JSON of class names and shares"),
        ({"prior": "given", "shares": '{"a": true}'}, "is not JSON of class names and shares"),
        ({"prior": "given", "shares": "[" * 100_000}, "is not JSON of class names and shares"),
        ({"gamma_D2": "-1"}, "gamma_D2=-1"),
        ({"gamma_G2": "inf"}, "gamma_G2=inf"),
        ({"beta": "0"}, "beta=0"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as caught:
        with_settings(Hyperparameters(), Recipe(), settings)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({"class 2": 1}, "unlike 'class 5'"),
        ({"class 2": 1, "class 5": 1, "class 9": 1, "class 14": 1, "class 3": 1}, "unlike 'class 3'"),
        ({"class 2": 0, "class 5": 0, "class 9": 0, "class 14": 0}, "shares are all 0"),
    ],
)
def test_shares_that_do_not_fit_the_unseen_classes(shares: dict[str, float], sentence: str, small_world: World) -> None:
    with pytest.raises(SettingsError, match=sentence):
        TransductiveTFVAEGAN(
            transductive(small_world), Hyperparameters(prior="given", shares=json.dumps(shares), **SMALL), seed=1
        )


def test_a_view_without_unlabelled_rows_is_refused(small_world: World) -> None:
    with pytest.raises(SettingsError, match="needs the unlabelled rows of a TransductiveView"):
        TransductiveTFVAEGAN(small_world(), Hyperparameters(**SMALL), seed=1)


PUBLISHED = {
    # epochs, γ_D2 and γ_G2, encoded noise; the rest as the inductive preset of the same name
    "awa1": (800, 10, True),
    "awa2": (800, 10, True),
    "cub": (500, 10, True),
    "flo": (500, 10, True),
    "sun": (800, 1, True),
    "awa2-finetuned": (800, 1, True),
    "cub-finetuned": (300, 10, True),
    "flo-finetuned": (500, 10, True),
    "sun-finetuned": (400, 1, False),
}


def test_presets_are_the_published_ones_with_a_prior_that_reads_no_label() -> None:
    assert PRESETS.keys() == PUBLISHED.keys()
    for name, (epochs, gamma, encoded) in PUBLISHED.items():
        settings, recipe = PRESETS[name]
        inductive, other = tfvaegan.PRESETS[name]
        assert (recipe.epochs, settings.gamma_D2, settings.gamma_G2, settings.encoded_noise) == (epochs, gamma, gamma, encoded)
        assert (settings.prior, settings.shares) == ("uniform", "")
        same = {n: v for n, v in vars(settings).items() if n in vars(inductive) and n != "encoded_noise"}
        assert same == {n: v for n, v in vars(inductive).items() if n != "encoded_noise"}
        assert replace(recipe, epochs=1) == replace(other, epochs=1)


def test_it_is_entered_as_transductive_and_no_other_is() -> None:
    assert [name for name, entry in METHODS.items() if getattr(entry, "transductive", False)] == ["tfvaegan-transductive"]
    assert "transductive" in METHODS["tfvaegan-transductive"].title
