"""CADA-VAE against its formulas: every loss as a loop, and whole iterations beside a plain transcription in float64."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unseen.errors import SettingsError
from unseen.final_classifier import classifier_rows
from unseen.methods.base import ClassStreams, Clock, Streams
from unseen.methods.cadavae import (
    CADAVAE,
    PRESETS,
    Hyperparameters,
    alignment_loss,
    default,
    grown,
    kl_loss,
    reconstruction_loss,
)
from unseen.scaling import ScaledView

World = Callable[..., ScaledView]
NARROW = {"hidden": 16, "decoder_hidden": 14, "embedding_hidden": 12, "embedding_decoder_hidden": 10, "latent": 5}
SMALL = {**NARROW, "batch_size": 6, "lr": 1e-2}
"""Narrow, all widths different, and with a learning rate at which a wrong update is seen at once."""
EPOCH = 2


class Batches:
    """Draws batches from a view, and remembers them."""

    def __init__(self, view: ScaledView, size: int = 6) -> None:
        self.view, self.size = view, size
        self.generator = torch.Generator().manual_seed(3)
        self.drawn: list[tuple[Tensor, Tensor]] = []

    def __call__(self) -> tuple[Tensor, Tensor]:
        rows = torch.randperm(len(self.view.labels), generator=self.generator)[: self.size]
        self.drawn.append((self.view.features[rows], self.view.labels[rows]))
        return self.drawn[-1]


class RecordedStreams(Streams):
    """Streams that remember what they gave, by name, for the plain transcription to use once more."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, torch.device("cpu"))
        self.drawn: dict[str, list[Tensor]] = defaultdict(list)

    def normal(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        self.drawn[name].append(super().normal(name, *shape, dtype=dtype))
        return self.drawn[name][-1]


def weights(method: CADAVAE) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in method.named_parameters()}


# -------------------------------------------------------------------------------------------------------------- losses


def test_losses_equal_their_sums() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    v, w = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    manhattan = kl = wasserstein = 0.0
    for i in range(4):
        squares = 0.0
        for j in range(3):
            m, n = float(one[i, j]), float(other[i, j])
            sigma, tau = math.exp(float(v[i, j]) / 2), math.exp(float(w[i, j]) / 2)
            manhattan += abs(m - n)
            kl += (sigma**2 + m**2 - 1) / 2 - math.log(sigma)
            squares += (m - n) ** 2 + (sigma - tau) ** 2
        wasserstein += math.sqrt(squares)
    assert float(reconstruction_loss(one, other)) == pytest.approx(manhattan / 4, rel=1e-12)
    assert float(kl_loss(one, v)) == pytest.approx(kl / 4, rel=1e-12)
    assert float(alignment_loss(one, v, other, w)) == pytest.approx(wasserstein / 4, rel=1e-12)
    assert float(alignment_loss(other, w, one, v)) == pytest.approx(wasserstein / 4, rel=1e-12)


def test_posteriors_that_agree_have_a_finite_gradient() -> None:
    mean, log_variance = torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    loss = alignment_loss(mean, log_variance, mean.detach().clone(), log_variance.detach().clone())
    loss.backward()
    assert loss < 1e-5
    assert mean.grad is not None
    assert mean.grad.isfinite().all()


def test_published_weights_grow_as_the_paper_says() -> None:
    s = Hyperparameters()

    def beta(epoch: int) -> float:
        return grown(s.kl_rate, 0, s.kl_until, epoch)

    def gamma(epoch: int) -> float:
        return grown(s.cross_rate, s.cross_from, s.cross_until, epoch)

    def delta(epoch: int) -> float:
        return grown(s.alignment_rate, s.alignment_from, s.alignment_until, epoch)

    assert [gamma(e) for e in (0, 20, 21, 22, 75, 99)] == pytest.approx([0, 0, 0, 0.044, 54 * 0.044, 54 * 0.044])
    assert [delta(e) for e in (0, 6, 7, 22, 23, 99)] == pytest.approx([0, 0, 0.54, 16 * 0.54, 16 * 0.54, 16 * 0.54])
    assert [beta(e) for e in (0, 1, 90, 99)] == pytest.approx([0, 0.0026, 0.234, 0.234])
    assert (s.latent, s.batch_size, s.lr, s.hidden, s.decoder_hidden) == (64, 50, 1.5e-4, 1560, 1660)
    assert (s.embedding_hidden, s.embedding_decoder_hidden) == (1450, 665)
    for hyperparameters, recipe in PRESETS.values():
        assert hyperparameters == s
        assert (recipe.epochs, recipe.synthetic, recipe.scaling) == (100, 400, "minmax")


def test_the_settings_that_the_page_gives_for_the_codes_schedule_end_where_it_ends() -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods" / "cadavae.md").read_text()
    changed: dict[str, Any] = {
        name: float(value) for name, value in re.findall(r"--set ((?:kl|cross|alignment)_\w+)=([\d.]+)", page)
    }
    s = replace(Hyperparameters(), **changed)
    assert grown(s.kl_rate, 0, int(s.kl_until), 93) == pytest.approx(0.25, abs=1e-4)
    assert grown(s.cross_rate, s.cross_from, s.cross_until, 75) == pytest.approx(2.37, abs=1e-3)
    assert grown(s.alignment_rate, s.alignment_from, s.alignment_until, 22) == pytest.approx(8.13, abs=1e-9)


def test_default_weights_end_in_the_published_proportion_to_the_reconstruction() -> None:
    s, recipe = default(30, 1024, 300)
    last = 10**6
    assert grown(s.kl_rate, 0, s.kl_until, last) == pytest.approx(0.234 / 2)
    assert grown(s.cross_rate, s.cross_from, s.cross_until, last) == pytest.approx(54 * 0.044)
    assert grown(s.alignment_rate, s.alignment_from, s.alignment_until, last) == pytest.approx(16 * 0.54 / 2)
    assert max(s.kl_until, s.cross_until, s.alignment_until) < 10
    assert recipe.steps == 1000


# ----------------------------------------------------------------------------------- one whole iteration, written plainly


class PlainTrainer:
    """One iteration as the paper states it: autograd and torch's plain AMSGrad."""

    def __init__(self, start: dict[str, Tensor], s: Hyperparameters, embeddings: Tensor) -> None:
        self.w = {name: value.clone().requires_grad_() for name, value in start.items()}
        self.s, self.embeddings = s, embeddings
        self.adam = torch.optim.Adam(self.w.values(), lr=s.lr, betas=(0.9, 0.999), eps=1e-8, amsgrad=True, foreach=False)

    def linear(self, x: Tensor, layer: str) -> Tensor:
        return x @ self.w[f"{layer}.weight"].T + self.w[f"{layer}.bias"]

    def encode(self, x: Tensor, net: str) -> tuple[Tensor, Tensor]:
        h = self.linear(x, f"{net}.first").clamp_min(0)
        return self.linear(h, f"{net}.mean"), self.linear(h, f"{net}.log_variance")

    def decode(self, z: Tensor, net: str) -> Tensor:
        return self.linear(self.linear(z, f"{net}.first").clamp_min(0), f"{net}.second")

    def iteration(self, epoch: int, batch: tuple[Tensor, Tensor], draws: dict[str, list[Tensor]]) -> None:
        s, (x, y) = self.s, batch
        c = told = self.embeddings[y]
        if s.embedding_noise:
            told = c + s.embedding_noise * draws["embedding noise"].pop(0) / math.sqrt(c.shape[1])
        (m, v), (n, w) = self.encode(x, "encoder"), self.encode(told, "embedding_encoder")
        z_x = m + torch.exp(v / 2) * draws["feature latent"].pop(0)
        z_c = n + torch.exp(w / 2) * draws["embedding latent"].pop(0)
        beta = s.kl_rate * min(epoch, s.kl_until)
        gamma = s.cross_rate * max(0, min(epoch, s.cross_until) - s.cross_from)
        delta = s.alignment_rate * max(0, min(epoch, s.alignment_until) - s.alignment_from)
        total = x.new_zeros(())
        for i in range(len(x)):
            total = total + (x[i] - self.decode(z_x, "decoder")[i]).abs().sum()
            total = total + (c[i] - self.decode(z_c, "embedding_decoder")[i]).abs().sum()
            total = total + gamma * (x[i] - self.decode(z_c, "decoder")[i]).abs().sum()
            total = total + gamma * (c[i] - self.decode(z_x, "embedding_decoder")[i]).abs().sum()
            total = total - 0.5 * beta * (1 + v[i] - m[i] ** 2 - v[i].exp()).sum()
            total = total - 0.5 * beta * (1 + w[i] - n[i] ** 2 - w[i].exp()).sum()
            spreads = (v[i].exp().sqrt() - w[i].exp().sqrt()) ** 2
            total = total + delta * (((m[i] - n[i]) ** 2).sum() + spreads.sum()).sqrt()
        self.adam.zero_grad()
        (total / len(x)).backward()
        self.adam.step()


CASES = {
    "published, early": (replace(PRESETS["cub"][0], **SMALL), (0, 1, 7)),
    "published, late": (replace(PRESETS["cub"][0], **SMALL), (23, 60, 99)),
    "default": (replace(default(60, 24, 8)[0], **SMALL), (0, 2, 5, 20)),
    "CA-VAE": (Hyperparameters(**SMALL, alignment_rate=0.0), (0, 80)),  # type: ignore[arg-type]
    "DA-VAE": (Hyperparameters(**SMALL, cross_rate=0.0), (0, 80)),  # type: ignore[arg-type]
    "no KL": (Hyperparameters(**SMALL, kl_rate=0.0), (0, 80)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", CASES)
def test_iterations_equal_the_plain_transcription(case: str, small_world: World) -> None:
    settings, epochs = CASES[case]
    view = small_world(unit_interval=False, dtype=torch.float64)
    method = CADAVAE(view, settings, seed=1).double()
    streams = method.streams = RecordedStreams(seed=1)
    draw = Batches(view)
    start = weights(method)
    plain = PlainTrainer(start, settings, view.embeddings)
    for epoch in epochs:
        method.step(draw, Clock(epoch * EPOCH + 1, EPOCH))
        plain.iteration(epoch, draw.drawn[-1], streams.drawn)
        assert not any(streams.drawn.values()), "the transcription uses every draw"
        for name, value in method.named_parameters():
            torch.testing.assert_close(value, plain.w[name], rtol=0, atol=1e-9, msg=lambda m, n=name, e=epoch: f"{n}, {e}: {m}")
    assert len(draw.drawn) == len(epochs)
    assert all((start[name] - plain.w[name]).abs().max() > 1e-3 for name in start)


@pytest.mark.parametrize(("switch", "term"), [("alignment_rate", "distance"), ("cross_rate", "crossed"), ("kl_rate", "kl")])
def test_a_rate_of_0_leaves_its_term_out_and_the_rest_as_it_is(switch: str, term: str, small_world: World) -> None:
    """Before its weight begins to grow, the term changes nothing: bit for bit the method without it."""
    view = small_world()
    late = {"kl_until": 90, "cross_from": 21, "alignment_from": 6}
    both = [CADAVAE(view, Hyperparameters(**SMALL, **late, **rate), seed=1) for rate in ({}, {switch: 0.0})]  # type: ignore[arg-type]
    logs = [method.step(Batches(view), Clock(0, EPOCH)) for method in both]
    assert logs[0].keys() - logs[1].keys() == {term}
    one, other = (weights(method) for method in both)
    assert all(torch.equal(one[name], other[name]) for name in one)
    for method in both:
        method.step(Batches(view), Clock(30 * EPOCH, EPOCH))
    one, other = (weights(method) for method in both)
    assert not all(torch.equal(one[name], other[name]) for name in one)


# ------------------------------------------------------------------------------------------------- what the classifier sees


def test_the_classifier_is_fitted_on_draws_of_both_posteriors_and_asked_about_means(small_world: World) -> None:
    view = small_world()
    method = CADAVAE(view, Hyperparameters(**SMALL), seed=1)  # type: ignore[arg-type]
    count = 400
    many = replace(view, features=view.features.repeat(count, 1), labels=view.labels.repeat(count))
    rows = classifier_rows(method, many, count, seed=5)
    assert rows.features.shape == (60 * count + 4 * count, 5)
    assert torch.equal(rows.labels, torch.cat([many.labels, view.unseen.repeat_interleave(count)]))
    with torch.no_grad():
        of_x, of_c = method.encoder(view.features), method.embedding_encoder(view.embeddings[view.unseen])
    assert torch.equal(method.represent(view.features), of_x[0])
    for drawn, (mean, log_variance) in (
        (rows.features[: 60 * count].view(count, 60, 5), of_x),
        (rows.features[60 * count :].view(4, count, 5).transpose(0, 1), of_c),
    ):
        spread = (log_variance / 2).exp()
        assert ((drawn.mean(dim=0) - mean) / spread).abs().max() < 5 / count**0.5
        assert (drawn.std(dim=0) / spread - 1).abs().max() < 0.2


def test_features_are_decoded_from_the_same_latents(small_world: World) -> None:
    view = small_world()
    method = CADAVAE(view, Hyperparameters(**SMALL), seed=1)  # type: ignore[arg-type]
    ids = view.unseen.repeat_interleave(3)
    latents = method.sample_represented(ids, ClassStreams(2, view.names, view.device))
    assert latents.shape == (12, 5)
    with torch.no_grad():
        decoded = method.decoder(latents)
    assert torch.equal(method.sample(ids, ClassStreams(2, view.names, view.device)), decoded)


def test_a_weight_that_is_off_may_end_before_it_begins() -> None:
    off = Hyperparameters(kl_rate=0.0, kl_until=0, cross_rate=0.0, cross_until=20, alignment_rate=0.0, alignment_from=30)
    assert off.cross_until < off.cross_from


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"latent": 0}, "latent=0 cannot work; give 1 or more"),
        ({"lr": 0.0}, "lr=0.0 cannot work; give a finite number above 0"),
        ({"cross_rate": -1.0}, "cross_rate=-1.0 cannot work; give 0 or a number above it"),
        ({"cross_until": 21}, "cross_until=21 leaves that weight 0; give more than 21, or cross_rate=0"),
        ({"kl_until": 0}, "kl_until=0 leaves that weight 0; give more than 0, or kl_rate=0"),
        ({"alignment_from": 30}, "alignment_until=22 leaves that weight 0; give more than 30, or alignment_rate=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Hyperparameters(**wrong)  # type: ignore[arg-type]
    assert str(caught.value) == sentence
