"""f-CLSWGAN against its formulas: whole iterations beside a plain transcription in float64."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unseen.errors import SettingsError
from unseen.methods.base import ClassStreams, Clock, Streams
from unseen.methods.clswgan import CLSWGAN, PRESETS, Generator, Hyperparameters, classification_loss, default
from unseen.scaling import ScaledView

World = Callable[..., ScaledView]
SMALL = {"hidden": 16, "batch_size": 6, "lr": 1e-2, "pretraining_epochs": 2, "pretraining_lr": 1e-2}
"""Narrow, and with learning rates at which a wrong update is seen at once."""


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

    def uniform(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        self.drawn[name].append(super().uniform(name, *shape, dtype=dtype))
        return self.drawn[name][-1]


def weights(method: CLSWGAN) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in method.named_parameters()}


class PlainTrainer:
    """The method as the paper states it: nothing fused, nothing skipped, autograd only, the classifier's loss a loop."""

    def __init__(self, start: dict[str, Tensor], s: Hyperparameters, view: ScaledView) -> None:
        self.w = {name: value.clone().requires_grad_() for name, value in start.items()}
        self.s, self.view = s, view
        self.seen = view.seen.tolist()
        rates = {"generator": s.lr, "critic": s.lr, "classifier": s.pretraining_lr}
        self.adam = {
            net: torch.optim.Adam(
                [value for name, value in self.w.items() if name.startswith(net)],
                lr=rate, betas=(0.5, 0.999), eps=1e-8, foreach=False,
            )
            for net, rate in rates.items()
            if any(name.startswith(net) for name in start)
        }  # fmt: skip

    @staticmethod
    def lrelu(v: Tensor) -> Tensor:
        return torch.where(v > 0, v, 0.2 * v)

    def linear(self, x: Tensor, layer: str) -> Tensor:
        return x @ self.w[f"{layer}.weight"].T + self.w[f"{layer}.bias"]

    def generate(self, z: Tensor, c: Tensor, output: Tensor | None) -> Tensor:
        out = self.linear(self.lrelu(self.linear(torch.cat([z, c], dim=1), "generator.first")), "generator.second")
        if self.view.unit_interval:
            return torch.where(out > 0, out, 0 * out)
        return out if output is None else out + self.s.sigma * output

    def criticise(self, x: Tensor, c: Tensor) -> Tensor:
        first = torch.cat([self.w["critic.visual.weight"], self.w["critic.semantic.weight"]], dim=1)
        h = self.lrelu(torch.cat([x, c], dim=1) @ first.T + self.w["critic.semantic.bias"])
        return self.linear(h, "critic.score")

    def classify(self, x: Tensor, y: Tensor) -> Tensor:
        total = x.new_zeros(())
        for row, label in zip(x, y.tolist(), strict=True):
            scores = [row @ w + b for w, b in zip(self.w["classifier.weight"], self.w["classifier.bias"], strict=True)]
            own = scores[self.seen.index(label)]
            total = total - torch.log(torch.exp(own) / sum(torch.exp(s) for s in scores))
        return total / len(x)

    def descend(self, loss: Tensor, net: str) -> None:
        for value in self.w.values():
            value.grad = None
        loss.backward()
        self.adam[net].step()

    def iteration(self, batches: list[tuple[Tensor, Tensor]], draws: dict[str, list[Tensor]]) -> None:
        s = self.s

        def output(name: str) -> Tensor | None:
            return draws[name].pop(0) if s.sample_noise and not self.view.unit_interval else None

        for x, y in batches:
            c = self.view.embeddings[y]
            if s.embedding_noise:
                c = c + s.embedding_noise * draws["embedding noise"].pop(0) / math.sqrt(c.shape[1])
            fake = self.generate(draws["critic noise"].pop(0), c, output("critic output")).detach()
            t = draws["penalty mixture"].pop(0)
            xi = (t * x + (1 - t) * fake).requires_grad_()
            (inner,) = torch.autograd.grad(self.criticise(xi, c).sum(), xi, create_graph=True)
            penalty = ((inner.norm(dim=1) - 1) ** 2).mean()
            distance = self.criticise(fake, c).mean() - self.criticise(x, c).mean()
            self.descend(distance + s.penalty * penalty, "critic")
        x_hat = self.generate(draws["generator noise"].pop(0), c, output("generator output"))
        loss = -self.criticise(x_hat, c).mean()
        if s.beta:
            loss = loss + s.beta * self.classify(x_hat, y)
        self.descend(loss, "generator")


CASES = {
    "cub": (replace(PRESETS["cub"][0], **SMALL), True),
    "flo: beta 0.1": (replace(PRESETS["flo"][0], **SMALL), True),
    "a classification loss that shows": (Hyperparameters(**{**SMALL, "beta": 2.0, "critic_iterations": 2}), True),
    "f-WGAN": (Hyperparameters(**{**SMALL, "beta": 0.0}), True),
    "default: linear, short latent, noisy samples; and noisy embeddings": (
        replace(default(60, 24, 8)[0], **{**SMALL, "latent": 5, "sigma": 0.7, "embedding_noise": 1.0}),
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_preparation_and_iterations_equal_the_plain_transcription(case: str, small_world: World) -> None:
    settings, unit_interval = CASES[case]
    view = small_world(unit_interval=unit_interval, dtype=torch.float64)
    method = CLSWGAN(view, settings, seed=1).double()
    streams = method.streams = RecordedStreams(seed=1)
    draw = Batches(view)
    start = weights(method)
    plain = PlainTrainer(start, settings, view)
    assert method.preparation == (2 * 10 if settings.beta else 0)  # two epochs of 60 rows in sixes
    for step in range(min(3, method.preparation)):
        method.prepare(draw, Clock(step, 10))
        plain.descend(plain.classify(*draw.drawn[-1]), "classifier")
    for step in range(3):
        draw.drawn.clear()
        method.step(draw, Clock(step, 10))
        assert len(draw.drawn) == settings.critic_iterations
        plain.iteration(draw.drawn, streams.drawn)
        assert not any(streams.drawn.values()), "the transcription uses every draw"
        for name, value in method.named_parameters():
            torch.testing.assert_close(value, plain.w[name], rtol=0, atol=1e-10, msg=lambda m, n=name, s=step: f"{n}, {s}: {m}")
    moved = {name.split(".")[0] for name in start if (start[name] - plain.w[name]).abs().max() > 1e-3}
    assert moved == {"generator", "critic"} | ({"classifier"} if settings.beta else set())


def test_classification_loss_of_a_known_classifier() -> None:
    """Scores (1, 0) and (0, 2): the first row is of class 0, the second of class 0 too."""
    classifier = nn.Linear(2, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        classifier.bias.zero_()
    loss = classification_loss(classifier, torch.eye(2), torch.tensor([0, 0]))
    expected = (-math.log(math.e / (math.e + 1)) - math.log(1 / (1 + math.e**2))) / 2
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)


def test_generator_ends_as_features_do() -> None:
    torch.manual_seed(0)
    z, c = torch.randn(50, 3), torch.randn(50, 2)
    ends = {}
    for unit_interval in (True, False):
        torch.manual_seed(1)
        ends[unit_interval] = Generator(d=7, a=2, latent=3, hidden=5, unit_interval=unit_interval)(z, c)
    assert (ends[False] < 0).any()
    assert torch.equal(ends[True], ends[False].clamp_min(0))


def prepared(view: ScaledView, **changes: float) -> CLSWGAN:
    method = CLSWGAN(view, Hyperparameters(**{**SMALL, **changes}), seed=1)  # type: ignore[arg-type]
    draw = Batches(view)
    for step in range(method.preparation):
        method.prepare(draw, Clock(step, 10))
    return method


def test_the_classifier_learns_before_and_rests_in_training(small_world: World) -> None:
    view = small_world()
    method = prepared(view, pretraining_epochs=20)
    assert method.classifier is not None
    right = view.seen[method.classifier(view.features).argmax(dim=1)] == view.labels
    assert right.float().mean() > 0.9
    before = {name: value.clone() for name, value in method.classifier.state_dict().items()}
    order: list[str] = []
    for name, optimiser in method.optimisers.items():
        optimiser.register_step_post_hook(lambda *_, n=name: order.append(n))
    method.step(Batches(view), Clock(0, 10))
    assert order == ["critic"] * 5 + ["generator"]
    assert all(torch.equal(value, before[name]) for name, value in method.classifier.state_dict().items())


def test_without_the_classification_loss_nothing_is_prepared_and_the_rest_is_the_same(small_world: World) -> None:
    """The critic's updates of the first step come before the term has any effect: bit for bit those of f-WGAN."""
    view = small_world()
    both = [prepared(view, beta=beta) for beta in (0.0, 0.5)]
    assert both[0].preparation == 0
    assert both[0].classifier is None
    logs = [method.step(Batches(view), Clock(0, 10)) for method in both]
    assert logs[0].keys() == logs[1].keys() - {"classification"}
    one, other = (weights(method) for method in both)
    assert all(torch.equal(one[name], other[name]) for name in one if name.startswith("critic."))
    assert not torch.equal(one["generator.second.weight"], other["generator.second.weight"])


def test_noise_of_samples_is_sigma_wide_and_only_off_the_unit_interval(small_world: World) -> None:
    for unit_interval in (True, False):
        view = small_world(unit_interval=unit_interval)
        quiet, noisy = (
            CLSWGAN(view, Hyperparameters(**SMALL, sigma=3.0, sample_noise=noise), seed=1)  # type: ignore[arg-type]
            for noise in (False, True)
        )
        ids = view.unseen.repeat_interleave(200)
        made = [method.sample(ids, ClassStreams(0, view.names, view.device)) for method in (quiet, noisy)]
        spread = float((made[1] - made[0]).std())
        assert spread == 0 if unit_interval else spread == pytest.approx(3.0, rel=0.02)


def test_weights_of_other_classes_sample_but_are_not_trained_on(small_world: World) -> None:
    view = small_world()
    method = prepared(view)
    fewer = replace(view, seen=view.seen[:-1], labels=view.labels.clamp_max(int(view.seen[-2])))
    other = CLSWGAN(fewer, Hyperparameters(**SMALL), seed=2)  # type: ignore[arg-type]
    other.load_state(method.state())
    ids = view.unseen.repeat_interleave(3)
    made = [m.sample(ids, ClassStreams(0, view.names, view.device)) for m in (method, other)]
    assert torch.equal(*made)
    with pytest.raises(SettingsError, match=r"^these weights were trained with other classes, .*; train anew$"):
        other.step(Batches(fewer), Clock(0, 10))


def test_published_settings() -> None:
    for hyperparameters, recipe in PRESETS.values():
        assert (hyperparameters.hidden, hyperparameters.latent, hyperparameters.penalty) == (4096, 0, 10.0)
        assert hyperparameters.critic_iterations == 5
        assert (recipe.scaling, recipe.centred) == ("minmax", False)
    assert {name: preset[0].beta for name, preset in PRESETS.items() if preset[0].beta != 0.01} == {"flo": 0.1}


def test_presets_are_those_of_the_gzsl_runs() -> None:
    """Not of the ZSL runs, which have other counts for FLO (300) and SUN (100), and a classifier's rate of 5e-4 for SUN."""
    published = {
        "awa1": (1e-5, 30, 1800), "awa2": (1e-5, 30, 1800), "cub": (1e-4, 56, 300),
        "flo": (1e-4, 80, 1200), "sun": (2e-4, 40, 400),
    }  # fmt: skip
    assert {name: (h.lr, recipe.epochs, recipe.synthetic) for name, (h, recipe) in PRESETS.items()} == published
    assert {(recipe.classifier_lr, recipe.classifier_epochs) for _, recipe in PRESETS.values()} == {(1e-3, 25)}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"hidden": 0}, "hidden=0 cannot work; give 1 or more"),
        ({"pretraining_epochs": 0}, "pretraining_epochs=0 cannot work; give 1 or more"),
        ({"lr": 0.0}, "lr=0.0 cannot work; give a finite number above 0"),
        ({"sigma": float("nan")}, "sigma=nan cannot work; give a finite number above 0"),
        ({"beta": -0.1}, "beta=-0.1 cannot work; give 0 or a number above it"),
        ({"penalty": float("inf")}, "penalty=inf cannot work; give 0 or a number above it"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Hyperparameters(**wrong)  # type: ignore[arg-type]
    assert str(caught.value) == sentence
