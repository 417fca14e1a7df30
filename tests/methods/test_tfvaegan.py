"""TF-VAEGAN against its formulas: every fast form beside a plain one, and whole iterations beside a plain transcription."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.errors import SettingsError
from unseen.methods import find_method
from unseen.methods.base import ClassStreams, Clock, Streams
from unseen.methods.tfvaegan import (
    PRESETS,
    TFVAEGAN,
    Decoder,
    Feedback,
    Hyperparameters,
    default,
    default_fvaegan,
    without_decoder,
)
from unseen.nn.critic import Critic
from unseen.nn.vaegan import Encoder, Generator, semantic_reconstruction, vae_loss
from unseen.scaling import ScaledView

World = Callable[..., ScaledView]
SMALL = {"hidden": 16, "batch_size": 6, "lr": 1e-2, "decoder_lr": 1e-2, "feedback_lr": 1e-2}
"""Narrow, and with learning rates at which a wrong update is seen at once."""
EPOCH = 3
"""Steps of one loop in these tests: steps 0–2 are loop 0, steps 3–5 loop 1."""
LOOP_0, LOOP_1 = Clock(0, EPOCH), Clock(EPOCH, EPOCH)


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


def weights(method: TFVAEGAN) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in method.named_parameters()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name in one.keys() & other.keys():
        assert torch.equal(one[name], other[name]), name


# ----------------------------------------------------------------------------------- one whole iteration, written plainly


class PlainTrainer:
    """One iteration of the method as the specification's 3.1 to 3.3 state it: nothing fused, nothing skipped, autograd only."""

    def __init__(self, start: dict[str, Tensor], s: Hyperparameters, embeddings: Tensor, bernoulli: bool) -> None:
        self.w = {name: value.clone().requires_grad_() for name, value in start.items()}
        self.s, self.embeddings, self.bernoulli, self.lam = s, embeddings, bernoulli, s.penalty
        rates = {"encoder": s.lr, "generator": s.lr, "critic": s.lr, "decoder": s.decoder_lr, "feedback": s.feedback_lr}
        self.adam = {
            net: torch.optim.Adam(
                [value for name, value in self.w.items() if name.startswith(net)],
                lr=rate,
                betas=(0.9 if net == "encoder" else 0.5, 0.999),
                eps=1e-8,
                foreach=False,
            )
            for net, rate in rates.items()
        }

    def linear(self, x: Tensor, layer: str) -> Tensor:
        return x @ self.w[f"{layer}.weight"].T + self.w[f"{layer}.bias"]

    @staticmethod
    def lrelu(v: Tensor) -> Tensor:
        return torch.where(v > 0, v, 0.2 * v)

    def encode(self, x: Tensor, c: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.lrelu(self.linear(torch.cat([x, c], dim=1), "encoder.first"))
        h = self.lrelu(self.linear(h, "encoder.second"))
        m, v = self.linear(h, "encoder.mean"), self.linear(h, "encoder.log_variance")
        return m + torch.exp(v / 2) * eps, m, v

    def generate(self, z: Tensor, c: Tensor, f: Tensor | None = None, alpha: float = 0.0) -> Tensor:
        h = self.lrelu(self.linear(torch.cat([z, c], dim=1), "generator.first"))
        if f is not None:
            h = h + alpha * f
        out = self.linear(h, "generator.second")
        return torch.sigmoid(out) if self.bernoulli else out

    def criticise(self, x: Tensor, c: Tensor) -> Tensor:
        first = torch.cat([self.w["critic.visual.weight"], self.w["critic.semantic.weight"]], dim=1)
        h = self.lrelu(torch.cat([x, c], dim=1) @ first.T + self.w["critic.semantic.bias"])
        return self.linear(h, "critic.score")

    def decode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r = self.lrelu(self.linear(x, "decoder.first"))
        q = self.linear(r, "decoder.second")
        return q / q.norm(dim=1, keepdim=True), r

    def feed_back(self, x0: Tensor) -> Tensor:
        r = self.decode(x0)[1].detach()
        return self.lrelu(self.linear(self.lrelu(self.linear(r, "feedback.first")), "feedback.second"))

    @staticmethod
    def reconstruction_of_embedding(p: Tensor, c: Tensor) -> Tensor:
        total = p.new_zeros(())
        for i in range(len(p)):
            delta = p[i] - c[i]
            total = total + (delta.abs() ** 3).sum() / (delta**2).sum().sqrt()
        return total / len(p)

    def descend(self, loss: Tensor, *nets: str) -> None:
        for value in self.w.values():
            value.grad = None
        loss.backward()
        for net in nets:
            self.adam[net].step()

    def generate_in(self, loop: int, z: Tensor, c: Tensor, fed_back: Tensor | None = None) -> Tensor:
        if loop == 0:
            return self.generate(z, c)
        x0 = self.generate(z, c) if fed_back is None else fed_back
        return self.generate(z, c, self.feed_back(x0), self.s.a1)

    def iteration(self, loop: int, batches: list[tuple[Tensor, Tensor]], draws: dict[str, list[Tensor]]) -> None:
        s, penalties = self.s, []
        for x, y in batches:
            c = condition = self.embeddings[y]
            if s.embedding_noise:
                condition = c + s.embedding_noise * draws["embedding noise"].pop(0) / math.sqrt(c.shape[1])
            self.descend(s.beta * self.reconstruction_of_embedding(self.decode(x)[0], c), "decoder")

            z = draws["critic noise"].pop(0)
            if s.encoded_noise:
                z = self.encode(x, condition, z)[0]
            fake = self.generate_in(loop, z, condition).detach()
            if s.sample_noise and not self.bernoulli:
                fake = fake + s.sigma * draws["critic output"].pop(0)
            t = draws["penalty mixture"].pop(0)
            xi = (t * x + (1 - t) * fake).requires_grad_()
            (inner,) = torch.autograd.grad(self.criticise(xi, condition).sum(), xi, create_graph=True)
            penalty = ((inner.norm(dim=1) - 1) ** 2).mean()
            penalties.append(penalty.item())
            distance = self.criticise(fake, condition).mean() - self.criticise(x, condition).mean()
            self.descend(s.gamma_D * (distance + self.lam * penalty), "critic")

        g = sum(penalties) / len(penalties)
        if g > 1.05:
            self.lam *= 1.1
        elif g < 1.001:
            self.lam /= 1.1

        z, m, v = self.encode(x, condition, draws["encoder noise"].pop(0))
        x_hat = self.generate_in(loop, z, condition)
        if self.bernoulli:
            p = x_hat + 1e-12
            loss = -(x * p.log() + (1 - x) * (1 - p).log()).sum() / len(x)
        else:
            loss = ((x_hat - x) ** 2).sum() / (2 * s.sigma**2) / len(x)
        loss = loss + (-0.5 * (1 + v - m**2 - v.exp())).sum() / len(x)
        if not s.encoded_noise:
            fed_back = x_hat if s.feedback_from == "reconstruction" else None
            x_hat = self.generate_in(loop, draws["generator noise"].pop(0), condition, fed_back)
        fake = x_hat
        if s.sample_noise and not self.bernoulli:
            fake = x_hat + s.sigma * draws["generator output"].pop(0)
        loss = loss - s.gamma_G * self.criticise(fake, condition).mean()
        loss = loss + s.beta * self.reconstruction_of_embedding(self.decode(fake)[0], c)
        nets = ["encoder", "generator"]
        if loop == 1:
            nets.append("feedback")
        if not s.freeze_decoder:
            nets.append("decoder")
        self.descend(loss, *nets)


CASES = {
    "cub": (replace(PRESETS["cub"][0], **SMALL), True),
    "awa2: frozen decoder": (replace(PRESETS["awa2"][0], **SMALL), True),
    "flo: feedback from the generated": (replace(PRESETS["flo"][0], **SMALL), True),
    "flo: feedback from the reconstruction": (replace(PRESETS["flo"][0], feedback_from="reconstruction", **SMALL), True),
    "sun: gamma 1": (replace(PRESETS["sun"][0], **SMALL), True),
    "default: gaussian, short latent, noisy embeddings": (
        replace(default(60, 24, 8)[0], latent=5, sigma=0.7, **SMALL),
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_iterations_of_both_loops_equal_the_plain_transcription(case: str, small_world: World) -> None:
    settings, bernoulli = CASES[case]
    view = small_world(unit_interval=bernoulli, dtype=torch.float64)
    method = TFVAEGAN(view, settings, seed=1).double()
    streams = method.streams = RecordedStreams(seed=1)
    draw = Batches(view)
    plain = PlainTrainer(weights(method), settings, view.embeddings, bernoulli)
    for step in (0, 1, EPOCH, EPOCH + 1):  # two iterations of loop 0, then two of loop 1
        before = weights(method)
        draw.drawn.clear()
        method.step(draw, Clock(step, EPOCH))
        assert len(draw.drawn) == settings.critic_iterations
        plain.iteration(step // EPOCH, draw.drawn, streams.drawn)
        assert not any(streams.drawn.values()), "the transcription uses every draw"
        streams.drawn.clear()
        for name, value in method.named_parameters():
            torch.testing.assert_close(value, plain.w[name], rtol=0, atol=1e-10, msg=lambda m, n=name, s=step: f"{n}, {s}: {m}")
        assert float(method.penalty_weight) == pytest.approx(plain.lam, rel=1e-12)
        moved = {name.split(".")[0] for name, value in before.items() if (value - plain.w[name]).abs().max() > 1e-3}
        expected = {"encoder", "generator", "critic", "decoder"} | ({"feedback"} if step >= EPOCH else set())
        assert moved == expected, "the comparison would see a missing update"


def test_shared_parts_leave_the_method_as_it_was(small_world: World) -> None:
    """Recorded when all its parts were still in one file: six steps through both loops."""
    settings, _ = CASES["default: gaussian, short latent, noisy embeddings"]
    view = small_world(unit_interval=False, dtype=torch.float64)
    method = TFVAEGAN(view, settings, seed=1).double()
    draw = Batches(view)
    for step in range(2 * EPOCH):
        method.step(draw, Clock(step, EPOCH))
    sizes = {name: sum(float(p.detach().abs().sum()) for p in net.parameters()) for name, net in method.named_children()}
    recorded = {
        "encoder": 25.247213841707214,
        "generator": 21.612039490018375,
        "critic": 28.66722084010069,
        "decoder": 14.44422233576206,
        "feedback": 13.518350444347652,
    }
    assert sizes == pytest.approx(recorded, rel=1e-6)


def test_the_two_readings_of_feedback_without_encoded_noise_differ(small_world: World) -> None:
    view = small_world()
    after = []
    for reading in ("generated", "reconstruction"):
        method = TFVAEGAN(view, replace(PRESETS["flo"][0], feedback_from=reading, **SMALL), seed=1)
        method.step(Batches(view), LOOP_0)
        method.step(Batches(view), LOOP_1)
        after.append(weights(method))
    assert torch.equal(after[0]["critic.visual.weight"], after[1]["critic.visual.weight"])  # only the generator's step differs
    assert not torch.equal(after[0]["generator.second.weight"], after[1]["generator.second.weight"])


def test_decoder_of_a_zero_row_is_finite() -> None:
    decoder = Decoder(d=4, a=3, hidden=5)
    for parameter in decoder.parameters():
        nn.init.zeros_(parameter)
    x = torch.ones(2, 4)
    semantic_reconstruction(decoder(x), F.normalize(torch.ones(2, 3), dim=1)).backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in decoder.parameters())


# ------------------------------------------------------------------------------------------------------ order of updates


def spy_on_updates(method: TFVAEGAN) -> list[str]:
    """The names of the networks in the order of their optimisers' steps; a step that moves another network fails."""
    order: list[str] = []
    last = weights(method)

    def moved() -> set[str]:
        now = weights(method)
        networks = {name.split(".")[0] for name in now if not torch.equal(now[name], last[name])}
        last.update(now)
        return networks

    for network, optimiser in method.optimisers.items():

        def before(*_: object, name: str = network) -> None:
            assert moved() == set(), f"something moved before the step of {name}"

        def after(*_: object, name: str = network) -> None:
            assert moved() == {name}
            order.append(name)

        optimiser.register_step_pre_hook(before)
        optimiser.register_step_post_hook(after)
    return order


@pytest.mark.parametrize("freeze_decoder", [False, True])
def test_updates_come_in_the_order_of_the_paper_and_move_only_their_own_network(
    freeze_decoder: bool, small_world: World
) -> None:
    view = small_world()
    method = TFVAEGAN(view, Hyperparameters(freeze_decoder=freeze_decoder, **SMALL), seed=1)
    order = spy_on_updates(method)
    last = [] if freeze_decoder else ["decoder"]
    method.step(Batches(view), LOOP_0)
    assert order == ["decoder", "critic"] * 5 + ["encoder", "generator", *last]
    order.clear()
    method.step(Batches(view), LOOP_1)
    assert order == ["decoder", "critic"] * 5 + ["encoder", "generator", "feedback", *last]


def test_only_loop_1_trains_with_feedback(small_world: World) -> None:
    """More than two loops add plain ones, and the order repeats every epoch."""
    view = small_world()
    method = TFVAEGAN(view, Hyperparameters(feedback_loops=3, **SMALL), seed=1)
    order = spy_on_updates(method)
    steps_with_feedback = []
    for step in range(12):
        order.clear()
        method.step(Batches(view), Clock(step, 2))
        if "feedback" in order:
            steps_with_feedback.append(step)
    assert steps_with_feedback == [2, 3, 8, 9]


def test_no_gradient_passes_the_feedback_to_the_decoder_or_the_first_pass(small_world: World) -> None:
    view = small_world(dtype=torch.float64)
    method = TFVAEGAN(view, Hyperparameters(**SMALL), seed=1).double()
    z, c = torch.randn(5, 8, dtype=torch.float64), view.embeddings[:5]
    x_hat = method.generate(z, c, 0.7)
    first = method.generator.first.weight
    through_all = torch.autograd.grad(x_hat.square().sum(), [first, *method.decoder.parameters()], allow_unused=True)
    assert all(gradient is None for gradient in through_all[1:])
    f = method.feedback(method.decoder.hidden(method.generator(z, c))).detach()
    second_pass_alone = torch.autograd.grad(method.generator(z, c, 0.7 * f).square().sum(), first)[0]
    torch.testing.assert_close(through_all[0], second_pass_alone, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------------- λ, streams, ablations


@pytest.mark.parametrize(
    ("penalty", "factor"),
    [(1.06, 1.1), (1.05, 1), (1.02, 1), (1.001, 1), (1.0009, 1 / 1.1), (0.3, 1 / 1.1), (7.0, 1.1)],
)
def test_penalty_weight_follows_the_penalty(penalty: float, factor: float, small_world: World) -> None:
    method = TFVAEGAN(small_world(), Hyperparameters(**SMALL), seed=1).double()
    method._adapt_penalty(torch.tensor(penalty, dtype=torch.float64))
    assert float(method.penalty_weight) == pytest.approx(10 * factor, rel=1e-14)


def test_a_penalty_weight_that_was_given_whole_falls_like_any_other(small_world: World) -> None:
    """λ = 10 of a Python call or a preset's JSON is no integer: each step would round it down, to 0 in the end."""
    method = TFVAEGAN(small_world(), Hyperparameters(**{**SMALL, "penalty": 10}), seed=1)
    for _ in range(20):
        method._adapt_penalty(torch.tensor(0.3))
    assert float(method.penalty_weight) == pytest.approx(10 / 1.1**20, rel=1e-5)


def test_penalty_weight_is_never_reset(small_world: World) -> None:
    """It decays by the same factor through both loops while the penalty is small."""
    view = small_world()
    method = TFVAEGAN(view, Hyperparameters(**SMALL | {"lr": 1e-6}), seed=1)
    logs = [method.step(Batches(view), Clock(step, 2)) for step in range(6)]
    assert all(float(log["penalty"]) < 1.001 for log in logs)
    assert [float(log["lambda"]) for log in logs] == pytest.approx([10 / 1.1**n for n in range(1, 7)], rel=1e-5)


def test_penalty_weight_follows_the_mean_of_all_critic_updates(small_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    view = small_world()
    method = TFVAEGAN(view, Hyperparameters(**SMALL), seed=1)
    penalties = iter([2.0, 2.0, 0.9, 0.9, 0.9])
    monkeypatch.setattr(method, "_update_critic", lambda *_: (torch.tensor(next(penalties)), torch.tensor(0.0)))
    log = method.step(Batches(view), LOOP_0)
    assert float(log["penalty"]) == pytest.approx(1.34)
    assert float(log["lambda"]) == pytest.approx(11)


def test_penalty_weight_can_be_held(small_world: World) -> None:
    view = small_world()
    method = TFVAEGAN(view, Hyperparameters(adaptive_penalty=False, penalty=3.0, **SMALL), seed=1)
    assert float(method.step(Batches(view), LOOP_0)["lambda"]) == 3.0


def run(view: ScaledView, settings: Hyperparameters, steps: int = 2 * EPOCH) -> TFVAEGAN:
    method, draw = TFVAEGAN(view, settings, seed=1), Batches(view)
    for step in range(steps):
        method.step(draw, Clock(step, EPOCH))
    return method


def test_feedback_of_weight_0_is_no_feedback(small_world: World) -> None:
    view = small_world()
    full = run(view, Hyperparameters(a1=0.0, a2=0.0, **SMALL))
    smaller = run(view, Hyperparameters(a1=0.0, a2=0.0, feedback_loops=1, **SMALL))
    assert smaller.feedback is None
    assert_same(weights(full), weights(smaller))
    untrained = TFVAEGAN(view, Hyperparameters(**SMALL), seed=1)
    assert torch.equal(full.feedback.first.weight, untrained.feedback.first.weight)
    ids = view.unseen.repeat_interleave(3)
    assert torch.equal(
        full.sample(ids, ClassStreams(0, view.names, view.device)),
        smaller.sample(ids, ClassStreams(0, view.names, view.device)),
    )


def test_a_part_switched_off_leaves_the_others_draws_alone(small_world: World) -> None:
    view = small_world()
    full = run(view, Hyperparameters(**SMALL), steps=0)
    small = run(view, without_decoder(Hyperparameters(**SMALL)), steps=0)
    assert small.decoder is None
    assert small.feedback is None
    assert_same(weights(full), weights(small))  # the same initial weights
    full, small = (
        run(view, settings, steps=1) for settings in (Hyperparameters(**SMALL), without_decoder(Hyperparameters(**SMALL)))
    )
    for name in ("critic.visual.weight", "critic.score.weight"):  # five updates on the same fakes, batches and mixtures
        assert torch.equal(full.state_dict()[name], small.state_dict()[name])
    assert not torch.equal(full.generator.second.weight, small.generator.second.weight)  # β R reached the generator


def test_a_frozen_decoder_does_not_depend_on_the_rest(small_world: World) -> None:
    view = small_world()
    base = Hyperparameters(freeze_decoder=True, **SMALL)
    expected = run(view, base)
    for settings in (replace(base, gamma_G=0.0), replace(base, a1=0.3), replace(base, encoded_noise=False)):
        other = run(view, settings)
        assert_same(dict(expected.decoder.state_dict()), dict(other.decoder.state_dict()))
        assert not torch.equal(expected.generator.second.weight, other.generator.second.weight)


def test_everything_off_is_a_conditional_vae(small_world: World) -> None:
    """γ_G = 0 and β = 0 leave L_vae alone, bit for bit."""
    view = small_world()
    settings = replace(without_decoder(Hyperparameters(**SMALL)), gamma_G=0.0)
    method = run(view, settings)
    assert list(method.optimisers) == ["encoder", "generator"]
    encoder, generator = Encoder(24, 8, 8, 16), Generator(24, 8, 8, 16, unit_interval=True)
    start = run(view, settings, steps=0)
    encoder.load_state_dict(start.encoder.state_dict())
    generator.load_state_dict(start.generator.state_dict())
    optimisers = [
        torch.optim.Adam(encoder.parameters(), 1e-2, (0.9, 0.999), fused=True),
        torch.optim.Adam(generator.parameters(), 1e-2, (0.5, 0.999), fused=True),
    ]
    streams, draw = Streams(1, view.device), Batches(view)
    for _ in range(2 * EPOCH):
        for _ in range(5):
            x, y = draw()
        c = view.embeddings[y]
        mean, log_variance = encoder(x, c)
        z = mean + torch.exp(log_variance / 2) * streams.normal("encoder noise", *mean.shape)
        for optimiser in optimisers:
            optimiser.zero_grad()
        vae_loss(generator(z, c), x, mean, log_variance, None).backward()
        for optimiser in optimisers:
            optimiser.step()
    assert_same(dict(method.encoder.state_dict()), dict(encoder.state_dict()))
    assert_same(dict(method.generator.state_dict()), dict(generator.state_dict()))


def test_fvaegan_is_tfvaegan_with_the_decoder_off(small_world: World) -> None:
    view = small_world()
    entry = find_method("fvaegan")
    by_name = entry.build(view, replace(entry.default(60, 24, 8)[0], hidden=16), 1)
    by_settings = TFVAEGAN(view, replace(default(60, 24, 8)[0], hidden=16, beta=0.0, transform=False, feedback_loops=1), seed=1)
    for method in (by_name, by_settings):
        method.step(Batches(view), LOOP_0)
    assert by_name.state().keys() == by_settings.state().keys()
    assert_same(by_name.state(), by_settings.state())
    assert not {name.split(".")[1] for name in by_name.state() if name.startswith("network.")} & {"decoder", "feedback"}
    assert by_name.represent(view.features) is view.features


# ---------------------------------------------------------------------------------------------- synthesis, representation


def test_a_sample_is_one_feedback_pass_from_the_prior(small_world: World) -> None:
    view = small_world()
    method = run(view, Hyperparameters(a2=0.6, **SMALL))
    ids = torch.tensor([9, 2, 9, 14])
    made = method.sample(ids, ClassStreams(4, view.names, view.device))
    assert not made.requires_grad
    z, c = ClassStreams(4, view.names, view.device).normal(ids, method.latent), view.embeddings[ids]
    with torch.no_grad():
        f = method.feedback(method.decoder.hidden(method.generator(z, c)))
        torch.testing.assert_close(made, method.generator(z, c, 0.6 * f), rtol=0, atol=0)
        assert not torch.allclose(made, method.generator(z, c), atol=1e-4)


def test_sample_noise_has_the_width_of_the_gaussian_reconstruction(small_world: World) -> None:
    view = small_world(unit_interval=False)
    ids = view.unseen.repeat_interleave(500)
    made = {
        noisy: run(view, replace(default(60, 24, 8)[0], **SMALL, sigma=0.4, sample_noise=noisy), steps=1).sample(
            ids, ClassStreams(0, view.names, view.device)
        )
        for noisy in (False, True)
    }
    noise = made[True] - made[False]
    assert float(noise.std()) == pytest.approx(0.4, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    bernoulli = small_world()
    made_there = [
        run(bernoulli, Hyperparameters(**SMALL, sample_noise=noisy), steps=1).sample(
            ids, ClassStreams(0, view.names, view.device)
        )
        for noisy in (False, True)
    ]
    assert torch.equal(*made_there)  # features in [0, 1] need none


def test_represent_joins_feature_predicted_embedding_and_hidden_layer(small_world: World) -> None:
    view = small_world()
    method = run(view, Hyperparameters(**SMALL))
    u = method.represent(view.features)
    x, predicted, r = u.split([24, 8, 16], dim=1)
    assert torch.equal(x, view.features)
    expected = F.leaky_relu(F.linear(x, method.decoder.first.weight, method.decoder.first.bias), 0.2)
    torch.testing.assert_close(r, expected)
    q = F.linear(r, method.decoder.second.weight, method.decoder.second.bias)
    torch.testing.assert_close(predicted, q / q.norm(dim=1, keepdim=True))


def test_embedding_noise_has_the_stated_length_and_spares_the_targets_of_the_decoder(small_world: World) -> None:
    view = small_world()
    quiet, noisy = (TFVAEGAN(view, Hyperparameters(embedding_noise=n, **SMALL), seed=1) for n in (0.0, 0.5))
    c = view.embeddings[view.labels]
    assert quiet.perturb(c) is c
    added = torch.cat([noisy.perturb(c) - c for _ in range(30)])
    assert float(added.square().sum(dim=1).mean().sqrt()) == pytest.approx(0.5, rel=0.03)
    frozen = [run(view, Hyperparameters(embedding_noise=n, freeze_decoder=True, **SMALL)) for n in (0.0, 0.5)]
    assert_same(*(dict(method.decoder.state_dict()) for method in frozen))
    assert not torch.equal(frozen[0].critic.visual.weight, frozen[1].critic.visual.weight)


# ------------------------------------------------------------------------------------------------------- sizes, settings


def millions(module: nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 2)


@pytest.mark.parametrize(
    ("preset", "a", "published"),
    [
        ("awa2", 85, [9.47, 9.09, 8.74, 8.74, 33.56]),
        ("cub", 312, [12.62, 10.95, 9.67, 9.67, 33.56]),
        ("flo", 1024, [25.17, 16.78, 12.59, 12.59, 33.56]),
    ],
)
def test_networks_have_the_published_number_of_parameters(preset: str, a: int, published: list[float]) -> None:
    s = PRESETS[preset][0]
    latent = s.latent or a
    with torch.device("meta"):
        networks = [
            Encoder(2048, a, latent, s.hidden),
            Generator(2048, a, latent, s.hidden, unit_interval=True),
            Critic(2048, a, s.hidden),
            Decoder(2048, a, s.hidden),
            Feedback(s.hidden),
        ]
    assert [millions(network) for network in networks] == published


def test_z_is_as_long_as_the_embedding_unless_told(small_world: World) -> None:
    view = small_world()
    assert TFVAEGAN(view, Hyperparameters(**SMALL), seed=1).generator.first.in_features == 8 + 8
    assert TFVAEGAN(view, Hyperparameters(latent=3, **SMALL), seed=1).generator.first.in_features == 3 + 8


def test_weights_start_as_published(small_world: World) -> None:
    method = TFVAEGAN(small_world(), Hyperparameters(hidden=256), seed=1)
    for name, parameter in method.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.numel() > 2000:
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.1), name
            assert abs(float(parameter.detach().mean())) < 0.002, name


PUBLISHED = {
    # epochs, synthetic, lr, feedback_lr, decoder_lr, classifier_lr, γ_D, γ_G, β, a1, a2, encoded noise, frozen decoder
    "awa2": (120, 1800, 1e-5, 1e-4, 1e-4, 1e-3, 10, 10, 0.1, 0.01, 0.01, True, True),
    "cub": (300, 300, 1e-4, 1e-5, 1e-4, 1e-3, 10, 10, 0.01, 1, 1, True, False),
    "flo": (500, 1200, 1e-4, 1e-5, 1e-4, 1e-3, 10, 10, 0.01, 0.5, 0.5, False, False),
    "sun": (400, 400, 1e-3, 1e-4, 1e-4, 5e-4, 1, 1, 0.01, 0.1, 0.01, True, False),
    "awa2-finetuned": (800, 1800, 1e-4, 1e-5, 1e-5, 1e-3, 1, 1, 1, 0.1, 0.1, True, True),
    "cub-finetuned": (300, 300, 1e-4, 1e-4, 1e-4, 1e-3, 10, 10, 0.1, 1, 1, True, False),
    "flo-finetuned": (500, 1200, 1e-4, 1e-5, 1e-4, 1e-3, 10, 10, 0.01, 0.5, 0.5, False, False),
    "sun-finetuned": (400, 400, 1e-4, 1e-5, 1e-5, 5e-4, 1, 1, 1, 0.1, 0.01, False, False),
    "ucf101_i3d": (200, 600, 1e-4, 1e-5, 1e-4, 1e-3, 10, 10, 0.1, 1, 1, True, False),
    "hmdb_i3d": (200, 1200, 1e-4, 1e-4, 1e-4, 1e-3, 10, 10, 0.1, 1, 1, True, False),
}
GATED = ("ucf101_i3d", "hmdb_i3d")


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_published_ones(name: str) -> None:
    s, recipe = PRESETS[name]
    assert PUBLISHED[name] == (
        recipe.epochs, recipe.synthetic, s.lr, s.feedback_lr, s.decoder_lr, recipe.classifier_lr, s.gamma_D, s.gamma_G,
        s.beta, s.a1, s.a2, s.encoded_noise, s.freeze_decoder,
    )  # fmt: skip
    common = (
        s.hidden,
        s.batch_size,
        s.critic_iterations,
        s.feedback_loops,
        s.penalty,
        s.adaptive_penalty,
        s.latent,
        s.transform,
    )
    assert common == (4096, 64, 5, 2, 10, True, 0, True)
    assert (s.embedding_noise, s.sample_noise) == (0, False)
    classifier = "ood" if name in GATED else "softmax"
    assert (recipe.scaling, recipe.centred, recipe.steps, recipe.classifier) == ("minmax", False, 0, classifier)
    assert (recipe.classifier_epochs, recipe.classifier_batch, recipe.classifier_decay) == (25, 0, 0)
    assert (recipe.balanced, recipe.gamma) == (False, 0)


def test_awa1_takes_the_settings_of_awa2() -> None:
    assert PRESETS["awa1"] == PRESETS["awa2"]


@pytest.mark.parametrize(("classes", "d", "a", "steps"), [(40, 512, 300, 450), (100, 2048, 8, 600), (10**6, 8192, 5, 2000)])
def test_defaults_follow_the_sizes_of_the_data(classes: int, d: int, a: int, steps: int) -> None:
    for settings, recipe in (default(classes, d, a), default_fvaegan(classes, d, a)):
        assert settings.hidden == (512 if d == 512 else 1024)
        assert 1 <= settings.latent <= a
        assert recipe.steps == steps


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"beta": 0.0}, "beta=0"),
        ({"beta": 0.0, "transform": False}, "feedback_loops=1"),
        ({"beta": 0.0, "feedback_loops": 1}, "transform=false"),
        ({"beta": -1.0}, "beta=-1"),
        ({"beta": math.nan}, "beta=nan"),
        ({"hidden": 0}, "hidden=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"critic_iterations": 0}, "critic_iterations=0"),
        ({"feedback_loops": 0}, "feedback_loops=0"),
        ({"latent": -1}, "latent=-1"),
        ({"lr": 0.0}, "lr=0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"lr": math.inf}, "lr=inf"),
        ({"decoder_lr": -1e-4}, "decoder_lr=-0.0001"),
        ({"feedback_lr": 0.0}, "feedback_lr=0"),
        ({"sigma": 0.0}, "sigma=0"),
        ({"gamma_G": -1.0}, "gamma_G=-1"),
        ({"gamma_G": math.nan}, "gamma_G=nan"),
        ({"gamma_D": -1.0}, "gamma_D=-1"),
        ({"penalty": -1.0}, "penalty=-1"),
        ({"a1": math.nan}, "a1=nan"),
        ({"a2": math.inf}, "a2=inf"),
        ({"embedding_noise": -0.1}, "embedding_noise=-0.1"),
        ({"feedback_from": "both"}, "feedback_from='both'"),
    ],
)
def test_settings_that_cannot_work_get_one_sentence(settings: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Hyperparameters(**settings)
    sentence = str(caught.value)
    assert named in sentence
    assert "\n" not in sentence
