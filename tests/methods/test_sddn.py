"""SDDN against its formulas: every fast form beside a plain one, and whole iterations beside a plain transcription."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.errors import SettingsError
from unseen.methods import METHODS
from unseen.methods.base import ClassStreams, Clock, Streams
from unseen.methods.sddn import (
    ABLATIONS,
    PRESETS,
    SDDN,
    Hyperparameters,
    Pyramid,
    Relation,
    Student,
    cross_covariance,
    default,
    dependence,
    discrimination_loss,
    feature_loss,
    generation_loss,
    permuted,
    relation_cross_entropy,
    relation_loss,
    shares,
    soft_label_loss,
)
from unseen.scaling import ScaledView

World = Callable[..., ScaledView]
SMALL: dict[str, Any] = {"hidden": 16, "half": 5, "refiner": 7, "latent": 4, "batch_size": 12, "lr": 1e-2, "warm_up": 1}
"""Narrow, and with a learning rate at which a wrong update is seen at once."""
EPOCH = 2
"""Steps of an epoch in these tests."""


class Batches:
    """Draws batches from a view, and remembers them."""

    def __init__(self, view: ScaledView, size: int = 12) -> None:
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


def weights(method: SDDN) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in method.named_parameters()}


def parts_of(names: Any) -> set[str]:
    return {name.split(".")[0] for name in names}


def build(view: ScaledView, seed: int = 1, **changes: Any) -> SDDN:
    return SDDN(view, Hyperparameters(**{**SMALL, **changes}), seed)


def run(view: ScaledView, steps: int = 2 * EPOCH + 1, **changes: Any) -> SDDN:
    method, draw = build(view, **changes), Batches(view)
    for step in range(steps):
        method.step(draw, Clock(step, EPOCH))
    return method


# ----------------------------------------------------------------------------------- one whole iteration, written plainly


def phi(v: Tensor) -> Tensor:
    return torch.where(v > 0, v, 0.2 * v)


class PlainTrainer:
    """One iteration of the method as the specification's section 3 states it, with one Adam and one backward pass over the sum
    of all losses: real, rebuilt and synthetic rows each by themselves, classes and pairs one by one."""

    def __init__(self, method: SDDN, view: ScaledView, s: Hyperparameters) -> None:
        self.w = {name: value.clone().requires_grad_() for name, value in weights(method).items()}
        self.running = {name: value.clone() for name, value in method.named_buffers() if "running" in name}
        self.view, self.s, self.bounded = view, s, view.unit_interval
        self.streams = Streams(1, view.device)  # for orders and classes
        judges = [value for name, value in self.w.items() if "judge" in name]
        others = [value for name, value in self.w.items() if "judge" not in name]
        adam = {"lr": s.lr, "betas": (0.9, 0.999), "weight_decay": s.weight_decay, "foreach": False}
        self.main = torch.optim.Adam(others, **adam)
        self.of_judges = torch.optim.Adam(judges, **adam) if judges else None

    def linear(self, x: Tensor, layer: str, frozen: bool = False) -> Tensor:
        weight, bias = self.w[f"{layer}.weight"], self.w.get(f"{layer}.bias")
        if frozen:
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        return x @ weight.T + (0 if bias is None else bias)

    def out(self, v: Tensor) -> Tensor:
        return phi(v) if self.bounded else v

    def drop(self, h: Tensor, name: str, rate: float) -> Tensor:
        if rate == 0:
            return h
        keep = self.draws[name].pop(0) >= rate
        return torch.where(keep, h / (1 - rate), torch.zeros_like(h))

    def normalise(self, h: Tensor, layer: str, training: bool) -> Tensor:
        mean, variance = self.running[f"{layer}.running_mean"], self.running[f"{layer}.running_var"]
        if training:
            batch_mean, batch_variance = h.mean(dim=0), h.var(dim=0, unbiased=False)
            mean.copy_(0.9 * mean + 0.1 * batch_mean.detach())
            variance.copy_(0.9 * variance + 0.1 * h.detach().var(dim=0, unbiased=True))
            mean, variance = batch_mean, batch_variance
        h = (h - mean) / torch.sqrt(variance + 1e-5)
        return h * self.w[f"{layer}.weight"] + self.w[f"{layer}.bias"]

    def generate(self, z: Tensor, a: Tensor, training: bool) -> Tensor:
        def drop(h: Tensor) -> Tensor:
            return self.drop(h, "generator dropout", self.s.generator_dropout) if training else h

        h = phi(drop(self.linear(torch.cat([z, a], dim=1), "generator.first")))
        h = drop(self.normalise(self.linear(h, "generator.second"), "generator.second_norm", training))
        h = phi(drop(self.normalise(self.linear(h, "generator.third"), "generator.third_norm", training)))
        return self.out(self.linear(h, "generator.last"))

    def student(self, x: Tensor, frozen: bool = False) -> tuple[list[Tensor], Tensor]:
        first = phi(self.linear(x, "student.first", frozen))
        second = phi(self.linear(first, "student.second", frozen))
        refined = self.out(x + self.linear(second, "student.shift", frozen))
        return [first, second, refined], self.linear(refined, "student_head", frozen)

    def teacher(self, levels: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        if self.s.teacher == "mlp":
            one = phi(self.linear(torch.cat(levels, dim=1), "teacher.out.0"))
            two = phi(self.linear(one, "teacher.out.1"))
            taught = [one, two, self.out(self.linear(two, "teacher.out.2"))]
            return taught, self.linear(taught[2], "teacher_head")
        omega, nu = self.w["teacher.omega"].clamp_min(0), self.w["teacher.nu"].clamp_min(0)
        lateral = [phi(self.linear(levels[i], f"teacher.lateral.{i}")) for i in range(3)]
        u = [lateral[0], lateral[1], lateral[2]]
        for i in (1, 0):
            share = omega[i] / omega[i].sum()
            mixed = share[0] * lateral[i] + share[1] * self.linear(u[i + 1], f"teacher.lower.{i}")
            u[i] = phi(self.linear(mixed, f"teacher.down.{i}"))
        t = u[0]
        taught = [phi(self.linear(t, "teacher.out.0"))]
        for i in (1, 2):
            share = nu[i - 1] / nu[i - 1].sum()
            mixed = share[0] * lateral[i] + share[1] * u[i]
            mixed = mixed + share[2] * self.linear(taught[i - 1], f"teacher.raise_.{i - 1}")
            last = self.linear(phi(self.linear(mixed, f"teacher.up.{i - 1}")), f"teacher.out.{i}")
            taught.append(self.out(last) if i == 2 else phi(last))
        return taught, self.linear(taught[2], "teacher_head")

    def soft_labels(self, taught: Tensor, own: Tensor) -> Tensor:
        temperature = self.s.temperature
        p, q = (torch.softmax(v / temperature, dim=1) for v in (taught.detach(), own))
        return temperature**2 * (p * (p.log() - q.log())).sum()

    def layers(self, h: Tensor, part: str) -> Tensor:
        return self.linear(phi(self.linear(h, f"{part}.first")), f"{part}.second")

    def decode(self, h: Tensor, stream: str) -> Tensor:
        hidden = self.drop(phi(self.linear(h, "visual_decoder.first")), stream, self.s.autoencoder_dropout)
        return self.linear(hidden, "visual_decoder.second")

    def iteration(self, x: Tensor, y: Tensor, step: int, draws: dict[str, list[Tensor]]) -> None:
        s, self.draws, epoch, rows = self.s, draws, step // EPOCH, len(x)
        a = condition = self.view.embeddings[y]
        if s.embedding_noise:
            condition = a + s.embedding_noise * draws["embedding noise"].pop(0) / math.sqrt(a.shape[1])

        # 3.1
        h = phi(self.linear(torch.cat([x, condition], dim=1), "encoder.first"))
        h = phi(self.drop(self.linear(h, "encoder.second"), "encoder dropout", s.encoder_dropout))
        h = self.linear(h, "encoder.third")
        mean, variance = self.linear(h, "encoder.mean"), torch.log(1 + self.linear(h, "encoder.variance").exp())
        x_tilde = self.generate(mean + variance.sqrt() * draws["encoder noise"].pop(0), condition, training=True)
        kl = 0.5 * (variance + mean**2 - 1 - variance.log()).sum() / rows
        scale = 1.0 if self.bounded else 1 / (2 * s.sigma**2)
        loss = scale * ((x_tilde - x) ** 2).sum() / rows + min(1.0, s.kappa0 * epoch) * kl

        # 3.2
        kinds = [(x, y, True), (x_tilde.detach(), y, True)]
        refined = [x, x_tilde.detach()]
        if s.lambda_sd:
            if s.unseen_rows and epoch >= s.warm_up:
                count = round(rows * len(self.view.unseen) / len(self.view.seen))
                picked = torch.randint(len(self.view.unseen), (count,), generator=self.streams["unseen classes"])
                classes = self.view.unseen[picked]
                made = self.generate(draws["unseen noise"].pop(0), self.view.embeddings[classes], training=False).detach()
                if s.sample_noise and not self.bounded:
                    made = made + s.sigma * draws["unseen output"].pop(0)
                kinds.append((made, classes, s.heads == "all"))
            table = self.view.seen.tolist() + (self.view.unseen.tolist() if s.unseen_rows and s.heads == "all" else [])
            total, labelled = sum(len(z) for z, _, _ in kinds), sum(len(z) for z, _, has in kinds if has)
            refined = []
            for z, classes, has_label in kinds:
                levels, logits = self.student(z)
                taught, taught_logits = self.teacher([level.detach() for level in levels] if s.detach_teacher else levels)
                refined.append(levels[2])
                if has_label:
                    own = torch.tensor([table.index(k) for k in classes.tolist()])
                    for scores in (logits, taught_logits):
                        likelihood = torch.log_softmax(scores, dim=1)[torch.arange(len(own)), own]
                        loss = loss - s.lambda_sd * likelihood.sum() / labelled
                loss = loss + s.lambda_sd * s.alpha * self.soft_labels(taught_logits, logits) / total
                for own, other in zip(levels, taught, strict=True):
                    n_own = own / own.norm(dim=1, keepdim=True)
                    n_other = (other / other.norm(dim=1, keepdim=True)).detach()
                    loss = loss + s.lambda_sd * s.beta * ((n_own - n_other) ** 2).sum() / total
                if z is x and s.lambda_cg:
                    frozen = self.student(x_tilde, frozen=True)[1]
                    loss = loss + s.lambda_cg * self.soft_labels(taught_logits, frozen) / rows
            if s.detach_refiner:
                refined = [x_hat.detach() for x_hat in refined]

        # 3.3 to 3.5
        if s.lambda_rec:
            noisy = a + s.attribute_noise * draws["attribute noise"].pop(0)
            g, clean = (self.layers(v, "semantic_encoder") for v in (noisy, a))
            h = phi(self.linear(torch.cat(refined[:2]), "visual_encoder.only"))
            h = self.drop(h, "visual encoder dropout", s.autoencoder_dropout)
            h_s, h_n = h[:, : s.half], h[:, s.half :]
            back = self.decode(h, "visual decoder dropout")
            twice = torch.cat([x, x])
            loss = loss + s.lambda_rec * ((back - twice) ** 2).mean()
            loss = loss + s.lambda_rec * ((self.layers(g, "semantic_decoder") - a) ** 2).mean()
            if s.lambda_rel:
                loss = loss + s.lambda_rel * self.relation(h_s, clean[:, : s.half], y)
            if s.lambda_m:
                predicted = self.layers(h_s.detach() if s.detach_predictor else h_s, "predictor")
                target = clean[:, : s.half].detach()
                loss = loss + s.lambda_m * ((predicted - torch.cat([target, target])) ** 2).mean()
            if s.lambda_cross:
                g_n = torch.cat([g[:, s.half :]] * 2)
                crossed = self.layers(torch.cat([predicted, g_n], dim=1), "semantic_decoder")
                loss = loss + s.lambda_cross * ((crossed - torch.cat([a, a])) ** 2).mean()
                swapped = torch.cat([torch.cat([g[:, : s.half]] * 2), h_n], dim=1)
                loss = loss + s.lambda_cross * ((self.decode(swapped, "crossed dropout") - twice) ** 2).mean()
            ramp = s.lambda_tc * min(1.0, s.rho0 * epoch)
            if s.lambda_tc and s.independence == "covariance":
                for latent in (h, g):
                    left, right = ((half - half.mean(dim=0)) / math.sqrt(len(latent) - 1) for half in latent.chunk(2, dim=1))
                    loss = loss + ramp * ((left.T @ right) ** 2).sum()
            elif s.lambda_tc and step % (s.dis_step + 1) == 0:
                self.train_judges(h.detach(), g.detach())
            elif s.lambda_tc:
                for latent, judge in ((h, "visual_judge"), (g, "semantic_judge")):
                    logits = self.layers(latent, judge)
                    loss = loss + ramp * (logits[:, 0] - logits[:, 1]).mean()
        for value in self.w.values():
            value.grad = None
        loss.backward()
        self.main.step()

    def relation(self, h_s: Tensor, g_s: Tensor, y: Tensor) -> Tensor:
        """Every row beside every class of the batch, as one long list of pairs."""
        present = y.unique().tolist()
        of_class = [g_s[y.tolist().index(k)] if self.s.relate_to == "latent" else self.view.embeddings[k] for k in present]
        first = torch.cat([self.w["relation.visual.weight"], self.w["relation.semantic.weight"]], dim=1)
        rows = h_s[:, None].expand(-1, len(present), -1)
        pairs = torch.cat([rows, torch.stack(of_class)[None].expand(len(h_s), -1, -1)], dim=2).flatten(0, 1)
        hidden = torch.relu(pairs @ first.T + self.w["relation.semantic.bias"])
        scores = self.linear(hidden, "relation.score").reshape(len(h_s), len(present))
        own = torch.tensor([present.index(int(k)) for k in y] * (len(h_s) // len(y)))
        if self.s.relation_loss == "softmax":
            return -torch.log_softmax(scores, dim=1)[torch.arange(len(own)), own].mean()
        return ((torch.sigmoid(scores) - F.one_hot(own, len(present))) ** 2).mean()

    def train_judges(self, h: Tensor, g: Tensor) -> None:
        assert self.of_judges is not None
        loss = h.new_zeros(())
        for latent, name in ((h, "visual"), (g, "semantic")):
            orders = [torch.randperm(len(latent), generator=self.streams[f"{name} permutation"]) for _ in range(2)]
            mixed = torch.cat([latent[orders[0], : self.s.half], latent[orders[1], self.s.half :]], dim=1)
            for rows, target in ((latent, 0), (mixed, 1)):
                logits = self.layers(rows, f"{name}_judge")
                loss = loss - self.s.lambda_dis * torch.log_softmax(logits, dim=1)[:, target].mean()
        for value in self.w.values():
            value.grad = None
        loss.backward()
        self.of_judges.step()


EVENTFUL = {"dis_step": 1, "kappa0": 0.3, "rho0": 0.4, "lambda_tc": 0.7, "weight_decay": 1e-3}
CASES: dict[str, tuple[Hyperparameters, bool]] = {
    "awa2": (replace(PRESETS["awa2"][0], **SMALL, **EVENTFUL), True),
    "cub": (replace(PRESETS["cub"][0], **SMALL), True),
    "default": (replace(default(60, 24, 8)[0], **SMALL, sigma=0.7), False),
    "every alternative": (
        Hyperparameters(
            **SMALL, **EVENTFUL, teacher="mlp", heads="seen", relate_to="embedding", detach_teacher=True,
            detach_predictor=True, detach_refiner=True, lambda_cross=0.6, autoencoder_dropout=0.3,
        ),
        True,
    ),
    "crossed, in linear features": (Hyperparameters(**SMALL, **EVENTFUL, lambda_cross=0.6), False),
    "softmax and covariance": (
        Hyperparameters(**SMALL, **EVENTFUL, relation_loss="softmax", independence="covariance", sample_noise=True), False
    ),
} | {row: (replace(Hyperparameters(**SMALL, **EVENTFUL), **changes), True) for row, changes in ABLATIONS.items()}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_iterations_equal_the_plain_transcription(case: str, small_world: World) -> None:
    settings, bounded = CASES[case]
    view = small_world(unit_interval=bounded, dtype=torch.float64)
    method = SDDN(view, settings, seed=1).double()
    streams = method.streams = RecordedStreams(seed=1)
    draw = Batches(view)
    plain = PlainTrainer(method, view, settings)
    for step in range(2 * EPOCH):
        before = weights(method)
        draw.drawn.clear()
        method.step(draw, Clock(step, EPOCH))
        [(x, y)] = draw.drawn
        plain.iteration(x, y, step, streams.drawn)
        assert not any(streams.drawn.values()), "the transcription uses every draw"
        streams.drawn.clear()
        for name, value in method.named_parameters():  # Adam enlarges rounding where a gradient is 0 but for that
            torch.testing.assert_close(value, plain.w[name], rtol=0, atol=1e-7, msg=lambda m, n=name, s=step: f"{n}, {s}: {m}")
        for name, value in method.named_buffers():
            if name in plain.running:
                torch.testing.assert_close(value, plain.running[name], rtol=0, atol=1e-9)
        moved = parts_of(name for name, value in before.items() if (value - plain.w[name]).abs().max() > 1e-3)
        judged = step % (settings.dis_step + 1) == 0
        expected = parts_of(before) - (set() if judged else {"visual_judge", "semantic_judge"})
        assert moved == expected, "the comparison would see a missing update"


def test_a_vae_gan_generates_under_the_same_rest(small_world: World) -> None:
    """Critic, then one step of the others; classes, rows and x̃ of the rest are as with any generator."""
    view = small_world()
    method, draw = build(view, generator="vaegan", critic_iterations=3), Batches(view)
    before = weights(method)
    assert {"penalty", "wasserstein", "vae", "adversarial", "cross-entropy"} <= method.step(draw, Clock(0, EPOCH)).keys()
    assert len(draw.drawn) == 3
    # The critic's last bias cancels between real and fake.
    same = [name for name, value in method.named_parameters() if torch.equal(value, before[name])]
    assert same == ["critic.score.bias"]
    x_tilde = method.sample(view.unseen, ClassStreams(0, view.names, view.device))
    assert ((x_tilde >= 0) & (x_tilde <= 1)).all(), "it ends in a sigmoid"


# ----------------------------------------------------------------------------------------- what each term and part reaches


REACHES: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    # Term → settings to compare, and the networks whose gradients differ.
    "L_cg": ({"lambda_cg": 0.1}, {"lambda_cg": 0.3}, {"encoder", "generator"}),
    "L_SD": ({"lambda_sd": 1.0}, {"lambda_sd": 2.0}, {"student", "student_head", "teacher", "teacher_head"}),
    "L_soft": ({"alpha": 1.0}, {"alpha": 2.0}, {"student", "student_head"}),
    "L_feat": ({"beta": 1.0}, {"beta": 2.0}, {"student"}),
    "teacher's cross-entropy": ({"detach_teacher": False}, {"detach_teacher": True}, {"student"}),
    "L_rec": (
        {"lambda_rec": 1.0},
        {"lambda_rec": 2.0},
        {"student", "visual_encoder", "visual_decoder", "semantic_encoder", "semantic_decoder"},
    ),
    "L_rec, refiner detached": (
        {"lambda_rec": 1.0, "detach_refiner": True},
        {"lambda_rec": 2.0, "detach_refiner": True},
        {"visual_encoder", "visual_decoder", "semantic_encoder", "semantic_decoder"},
    ),
    "L_rel": ({"lambda_rel": 5.0}, {"lambda_rel": 9.0}, {"student", "visual_encoder", "semantic_encoder", "relation"}),
    "L_M": ({"lambda_m": 0.1}, {"lambda_m": 0.3}, {"student", "visual_encoder", "predictor"}),
    "L_M, detached": (
        {"lambda_m": 0.1, "detach_predictor": True},
        {"lambda_m": 0.3, "detach_predictor": True},
        {"predictor"},
    ),
    "L_cross": (
        {"lambda_cross": 0.5},
        {"lambda_cross": 0.9},
        {"student", "visual_encoder", "visual_decoder", "semantic_encoder", "semantic_decoder", "predictor"},
    ),
    "L_rel, softmax": (
        {"lambda_rel": 5.0, "relation_loss": "softmax"},
        {"lambda_rel": 9.0, "relation_loss": "softmax"},
        {"student", "visual_encoder", "semantic_encoder", "relation"},
    ),
    "L_tc": (
        {"lambda_tc": 0.5, "rho0": 1.0},
        {"lambda_tc": 0.9, "rho0": 1.0},
        {"student", "visual_encoder", "semantic_encoder"},
    ),
    "L_tc, covariance": (
        {"lambda_tc": 0.5, "rho0": 1.0, "independence": "covariance"},
        {"lambda_tc": 0.9, "rho0": 1.0, "independence": "covariance"},
        {"student", "visual_encoder", "semantic_encoder"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("term", REACHES)
def test_a_term_reaches_these_networks_and_no_other(term: str, small_world: World) -> None:
    view = small_world(dtype=torch.float64)
    gradients = []
    for changes in REACHES[term][:2]:
        method = build(view, **changes).double()
        method.step(Batches(view), Clock(2 * EPOCH + 1, EPOCH))  # past the warm-up; it is not the judges' turn
        gradients.append({name: p.grad for name, p in method.named_parameters() if p.grad is not None})
    one, other = gradients
    assert one.keys() == other.keys()
    assert not parts_of(one) & {"visual_judge", "semantic_judge"}
    assert (
        parts_of(name for name in one if not torch.allclose(one[name], other[name], rtol=1e-9, atol=1e-13)) == REACHES[term][2]
    )


def test_the_judges_step_moves_them_alone_and_replaces_the_term(small_world: World) -> None:
    view = small_world()
    method = build(view, dis_step=2)
    logs = [method.step(Batches(view), Clock(step, EPOCH)) for step in range(7)]
    assert ["judges" in log for log in logs] == [True, False, False, True, False, False, True]
    assert ["dependence" in log for log in logs] == [False, True, True, False, True, True, False]
    one, other = (build(view, lambda_dis=value).double() for value in (0.3, 0.6))
    grads = []
    for judged in (one, other):
        judged.embeddings = judged.embeddings.double()
        x, y = Batches(view)()
        judged.step(lambda x=x, y=y: (x.double(), y), Clock(0, EPOCH))
        grads.append({name: p.grad for name, p in judged.named_parameters()})
    assert parts_of(n for n in grads[0] if not torch.equal(grads[0][n], grads[1][n])) == {"visual_judge", "semantic_judge"}


def test_nothing_reaches_the_generator_but_its_own_terms(small_world: World) -> None:
    """With λ_cg = 0 it is, bit for bit, the generator alone."""
    view = small_world()
    whole = run(view, lambda_cg=0.0)
    alone = run(view, **ABLATIONS["B0 generator alone"])
    assert list(alone.optimisers) == ["main"]
    assert parts_of(weights(alone)) == {"encoder", "generator"}
    for name, value in alone.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
    assert alone.represent(view.features) is view.features
    assert not torch.equal(run(view).generator.last.weight, alone.generator.last.weight), "λ_cg reaches it"


WITHOUT: dict[str, tuple[dict[str, Any], set[str], set[str]]] = {
    # Weight of 0 → networks that are not built, terms that are not computed.
    "distillation": ({"lambda_sd": 0.0, "lambda_cg": 0.0}, {"student", "teacher", "student_head", "teacher_head"},
                     {"cross-entropy", "soft labels", "features", "kept soft labels"}),
    "coupling": ({"lambda_cg": 0.0}, set(), {"kept soft labels"}),
    "soft labels": ({"alpha": 0.0}, set(), {"soft labels"}),
    "features": ({"beta": 0.0}, set(), {"features"}),
    "relation": ({"lambda_rel": 0.0}, {"relation"}, {"relation"}),
    "prediction": ({"lambda_m": 0.0, "fusion": "F0"}, {"predictor"}, {"prediction"}),
    "independence": ({"lambda_tc": 0.0}, {"visual_judge", "semantic_judge"}, {"dependence", "judges"}),
    "judges": ({"independence": "covariance"}, {"visual_judge", "semantic_judge"}, {"judges"}),
}  # fmt: skip


@pytest.mark.parametrize("part", WITHOUT)
def test_a_weight_of_0_leaves_the_part_out_and_the_others_draws_alone(part: str, small_world: World) -> None:
    view = small_world()
    changes, networks, terms = WITHOUT[part]
    whole, smaller = build(view), build(view, **changes)
    assert parts_of(weights(whole)) - parts_of(weights(smaller)) == networks
    shared = weights(smaller)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in shared.items()), "the same initial weights"
    logs = [
        {t for step in range(4) for t in m.step(draw, Clock(step, EPOCH))}
        for m, draw in ((whole, Batches(view)), (smaller, Batches(view)))
    ]
    assert logs[0] - logs[1] == terms
    drawn = [{name: s.get_state() for name, s in m.streams._generators.items()} for m in (whole, smaller)]
    assert all(torch.equal(state, drawn[0][name]) for name, state in drawn[1].items())


@pytest.mark.parametrize("weight", ["alpha", "beta", "lambda_cg", "lambda_cross"])
def test_a_weight_near_0_is_near_the_smaller_method(weight: str, small_world: World) -> None:
    """So nothing but the term goes with it. (Whole parts that go are among the cases of the transcription.)"""
    view = small_world(dtype=torch.float64)
    grads = []
    for value in (0.0, 1e-13):
        method = build(view, **{weight: value}).double()
        method.step(Batches(view), Clock(1, EPOCH))
        grads.append({name: p.grad for name, p in method.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, value in grads[0].items():
        torch.testing.assert_close(value, grads[1][name], rtol=1e-8, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


# ----------------------------------------------------------------------------------------------------------------- losses


def test_generation_loss_equals_its_sums() -> None:
    x_tilde, x = [[0.2, -0.9], [0.5, 0.4]], [[0.0, 1.0], [0.3, 0.6]]
    mean, log_variance = [[0.5], [-1.0]], [[0.1], [-0.7]]
    kl = sum(0.5 * (math.exp(v) + m**2 - 1 - v) for (m,), (v,) in zip(mean, log_variance, strict=True))
    squares = sum((p - t) ** 2 for ps, ts in zip(x_tilde, x, strict=True) for p, t in zip(ps, ts, strict=True))
    tensors = [torch.tensor(values, dtype=torch.float64) for values in (x_tilde, x, mean, log_variance)]
    loss, reconstruction = generation_loss(*tensors, kappa=0.3, sigma=0.5**0.5)
    assert float(reconstruction) == pytest.approx(squares / 2)
    assert float(loss) == pytest.approx((squares + 0.3 * kl) / 2)
    assert float(generation_loss(*tensors, kappa=0.0, sigma=2.0)[0]) == pytest.approx(squares / 16)


def test_soft_labels_equal_their_divergence_and_teach_one_way() -> None:
    torch.manual_seed(0)
    taught, own = (torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = soft_label_loss(taught, own, 3.0)
    expected = 0.0
    for i in range(4):
        p, q = (torch.softmax(v[i] / 3.0, dim=0).tolist() for v in (taught, own))
        expected += 9 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert taught.grad is None
    assert own.grad is not None
    assert soft_label_loss(own + 7.0, own, 3.0).item() == pytest.approx(0, abs=1e-14)


def test_feature_loss_is_0_for_proportional_features_and_teaches_one_way() -> None:
    torch.manual_seed(0)
    own = tuple(torch.randn(4, width, dtype=torch.float64, requires_grad=True) for width in (3, 3, 6))
    taught = tuple(torch.randn(4, width, dtype=torch.float64, requires_grad=True) for width in (3, 3, 6))
    loss = feature_loss(taught, own)
    expected = 0.0
    for t, f in zip(taught, own, strict=True):
        for i in range(4):
            expected += ((f[i] / f[i].norm() - t[i] / t[i].norm()) ** 2).sum().item() / 4
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert all(t.grad is None for t in taught)
    assert all(f.grad is not None for f in own)
    factors = torch.tensor([[0.1], [1.0], [3.0], [20.0]], dtype=torch.float64)
    assert feature_loss(tuple(factors * f for f in own), own).item() == pytest.approx(0, abs=1e-24)


def test_distillation_sends_nothing_into_the_teacher(small_world: World) -> None:
    """Its own cross-entropy alone trains it, so without that its gradient would be 0."""
    view = small_world(dtype=torch.float64)
    method = build(view).double()
    levels = method.student(view.features)
    taught = method.teacher(*levels)
    loss = soft_label_loss(method.teacher_head(taught[-1]), method.student_head(levels[-1]), 4.0) + feature_loss(taught, levels)
    of_teacher = [*method.teacher.parameters(), *method.teacher_head.parameters()]
    assert all(g is None for g in torch.autograd.grad(loss, of_teacher, allow_unused=True))


def test_relation_scores_equal_those_of_explicit_pairs() -> None:
    torch.manual_seed(0)
    relation = Relation(5, 3, 7).double()
    h_s, g = torch.randn(6, 5, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    first = torch.cat([relation.visual.weight, relation.semantic.weight], dim=1)
    scores = relation(h_s, g)
    assert scores.shape == (6, 4)
    for i in range(6):
        for c in range(4):
            hidden = torch.relu(first @ torch.cat([h_s[i], g[c]]) + relation.semantic.bias)
            expected = relation.score.weight[0] @ hidden + relation.score.bias[0]
            torch.testing.assert_close(scores[i, c], expected, rtol=1e-12, atol=1e-12)


def test_relation_loss_is_that_over_the_classes_of_the_batch() -> None:
    """Columns of one class repeat, as its g_s does."""
    torch.manual_seed(0)
    y = torch.tensor([4, 2, 4, 4, 9])
    classes = [2, 4, 9]
    of_class = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    scores = of_class[:, [classes.index(int(k)) for k in y]]
    loss = relation_loss(scores, y)
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(10):
        for column, c in enumerate(classes):
            expected = expected + (torch.sigmoid(of_class[i, column]) - float(y[i % 5] == c)) ** 2 / 30
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, plain = (torch.autograd.grad(value, of_class, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-15)


def test_relation_cross_entropy_is_that_over_the_classes_of_the_batch() -> None:
    """So a constant score costs log K, however many rows each of the K classes has."""
    torch.manual_seed(0)
    y = torch.tensor([4, 2, 4, 4, 9])
    classes = [2, 4, 9]
    of_class = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    columns = [classes.index(int(k)) for k in y]
    loss = relation_cross_entropy(of_class[:, columns], y)
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(10):
        expected = expected - torch.log(of_class[i, columns[i % 5]].exp() / of_class[i].exp().sum()) / 10
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, plain = (torch.autograd.grad(value, of_class, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-15)
    constant = torch.full((10, 5), 7.0, dtype=torch.float64)
    assert float(relation_cross_entropy(constant, y)) == pytest.approx(math.log(3))


def test_cross_covariance_is_that_of_the_halves_and_knows_no_marginals() -> None:
    torch.manual_seed(0)
    h = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(3):
        for j in range(3, 6):
            a, b = (h[:, k] - h[:, k].sum() / 7 for k in (i, j))
            expected = expected + ((a * b).sum() / 6) ** 2
    loss = cross_covariance(h)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, plain = (torch.autograd.grad(value, h, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(cross_covariance(h + torch.arange(6.0)), loss)
    assert cross_covariance(h[:1]).item() == 0, "one row"


def test_a_shift_of_the_marginals_lowers_the_judges_term_and_not_the_covariance(small_world: World) -> None:
    """Why L_tc can fall without end: a judge that lags behind is outrun by moving all rows, which makes no half more
    independent of the other. What it says of permuted rows falls as far."""
    view = small_world(dtype=torch.float64)
    method = build(view).double()
    judge = method.visual_judge
    h = method.visual_encoder(view.features).detach()
    apart = permuted(h, torch.Generator().manual_seed(0))
    downhill = h.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(dependence(judge(downhill)), downhill)
    shift = -1e3 * gradient.mean(dim=0)
    with torch.no_grad():
        together, separate = (float(dependence(judge(v + shift)) - dependence(judge(v))) for v in (h, apart))
    assert together < -10
    assert separate == pytest.approx(together, rel=0.1)
    torch.testing.assert_close(cross_covariance(h + shift), cross_covariance(h))


def test_permutation_leaves_marginals_and_takes_halves_apart() -> None:
    h = torch.arange(80.0).reshape(20, 4)
    mixed = permuted(h, torch.Generator().manual_seed(0))
    for half, original in zip(mixed.chunk(2, dim=1), h.chunk(2, dim=1), strict=True):
        assert torch.equal(half[half[:, 0].argsort()], original)
        assert not torch.equal(half, original)
    together = (mixed[:, 0] == mixed[:, 2] - 2).sum()
    assert together < 5


def test_judges_losses_equal_their_formulas() -> None:
    torch.manual_seed(0)
    joint, apart = (torch.randn(6, 2, dtype=torch.float64) for _ in range(2))
    expected = F.cross_entropy(joint, torch.zeros(6, dtype=torch.long)) + F.cross_entropy(
        apart, torch.ones(6, dtype=torch.long)
    )
    torch.testing.assert_close(discrimination_loss(joint, apart), expected, rtol=1e-12, atol=0)
    assert float(dependence(joint)) == pytest.approx(sum(float(r[0] - r[1]) for r in joint) / 6)
    p = torch.softmax(joint, dim=1)
    assert float(dependence(joint)) == pytest.approx(float((p[:, 0] / p[:, 1]).log().mean()))


def test_shares_are_positive_and_sum_to_1() -> None:
    torch.testing.assert_close(shares(torch.tensor([[3.0, 1.0], [-2.0, 4.0]])), torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
    dead = torch.zeros(1, 3, requires_grad=True)
    shares(dead).sum().backward()
    assert dead.grad.isfinite().all()


# ------------------------------------------------------------------------------------------------- networks, representation


@pytest.mark.parametrize("unit_interval", [True, False])
def test_refinement_begins_as_the_feature_itself(unit_interval: bool, small_world: World) -> None:
    view = small_world(unit_interval)
    refined = build(view, fusion="F5").represent(view.features)
    assert torch.equal(refined, F.leaky_relu(view.features, 0.2) if unit_interval else view.features)
    if unit_interval:
        assert torch.equal(refined, view.features)


def test_networks_have_the_specified_sizes() -> None:
    """d = 2048: the student has about 13 million parameters, the self-teacher between 20 and 25."""
    with torch.device("meta"):
        student, teacher = Student(2048, 2048, True), Pyramid((2048, 2048, 2048), 1024, True)
    assert sum(p.numel() for p in student.parameters()) == 3 * (2048**2 + 2048)
    assert 20e6 < sum(p.numel() for p in teacher.parameters()) < 25e6


def test_widths_follow_the_hidden_one(small_world: World) -> None:
    method = build(small_world(), hidden=256, half=30)
    shapes = {name: tuple(p.shape) for name, p in method.named_parameters() if name.endswith("weight")}
    assert shapes["encoder.first.weight"] == (256, 24 + 8)
    assert shapes["encoder.third.weight"] == (128, 256)
    assert shapes["generator.last.weight"] == (24, 256)
    assert shapes["teacher.lateral.0.weight"] == (128, 7)
    assert shapes["visual_encoder.only.weight"] == (60, 24)
    assert shapes["visual_decoder.first.weight"] == (256, 60)
    assert shapes["semantic_encoder.first.weight"] == (128, 8)
    assert shapes["semantic_decoder.second.weight"] == (8, 128)
    assert shapes["relation.semantic.weight"] == (256, 30)
    assert shapes["predictor.first.weight"] == (256, 30)
    assert shapes["visual_judge.first.weight"] == (64, 60)


def test_represent_joins_what_the_fusion_names(small_world: World) -> None:
    view = small_world()
    method = run(view, fusion="F4")
    u = method.represent(view.features)
    h_s, predicted, x_hat = u.split([5, 5, 24], dim=1)
    hidden = view.features
    for layer in (method.student.first, method.student.second):
        hidden = F.leaky_relu(hidden @ layer.weight.T + layer.bias, 0.2)
    expected = F.leaky_relu(view.features + hidden @ method.student.shift.weight.T + method.student.shift.bias, 0.2)
    torch.testing.assert_close(x_hat, expected)
    encoder = method.visual_encoder.only
    torch.testing.assert_close(h_s, F.leaky_relu(x_hat @ encoder.weight.T + encoder.bias, 0.2)[:, :5])
    torch.testing.assert_close(predicted, method.predictor(h_s))
    for fusion, part in (("F0", h_s), ("F2", u[:, :10]), ("F5", x_hat)):
        method.settings = replace(method.settings, fusion=fusion)
        assert torch.equal(method.represent(view.features), part)


def test_a_sample_does_not_depend_on_the_others_of_its_call(small_world: World) -> None:
    """The normalisations go by what they remember from training."""
    view = small_world()
    method = run(view)
    made = method.sample(view.unseen, ClassStreams(0, view.names, view.device))
    for row, k in enumerate(view.unseen):
        alone = method.sample(k[None], ClassStreams(0, view.names, view.device))
        torch.testing.assert_close(made[row : row + 1], alone, rtol=0, atol=1e-6)


def test_sample_noise_has_the_width_of_the_gaussian_reconstruction(small_world: World) -> None:
    view = small_world(unit_interval=False)
    ids = view.unseen.repeat_interleave(500)
    made = {
        noisy: build(view, sigma=0.4, sample_noise=noisy).sample(ids, ClassStreams(0, view.names, view.device))
        for noisy in (False, True)
    }
    assert float((made[True] - made[False]).std()) == pytest.approx(0.4, rel=0.02)


# ----------------------------------------------------------------------------------------------- unseen rows, heads, classes


def test_unseen_classes_join_after_the_warm_up_and_in_proportion(small_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    view = small_world()
    method, draw = build(view, warm_up=2), Batches(view)
    rows: list[int] = []
    student = method.student.forward
    monkeypatch.setattr(method.student, "forward", lambda x: rows.append(len(x)) or student(x))
    for step in range(3 * EPOCH):
        method.step(draw, Clock(step, EPOCH))
    # Real and rebuilt rows in one pass with the synthetic ones (12 · 4/12), then the coupling's of x̃.
    assert rows == [24, 12] * 4 + [28, 12] * 2
    assert set(method._unseen_rows(torch.float32)[1].tolist()) <= set(view.unseen.tolist())


def test_a_batch_of_all_rows_brings_as_many_of_an_unseen_class(small_world: World) -> None:
    """60 rows of 12 seen classes: five of each of the four unseen ones, though 64 a batch were asked for."""
    assert build(small_world(), batch_size=64).unseen_count == 20


@pytest.mark.parametrize(
    ("changes", "uses", "width"),
    [
        ({}, True, 16),
        ({"heads": "seen"}, True, 12),
        ({"unseen_rows": False}, False, 12),
        (dict(ABLATIONS["B3 + disentanglement, fused"]), False, 0),
    ],
)
def test_unseen_embeddings_are_used_where_the_settings_say_so(
    changes: dict[str, Any], uses: bool, width: int, small_world: World
) -> None:
    view = small_world()
    embeddings = view.embeddings.clone()
    embeddings[view.unseen] = -embeddings[view.unseen]
    methods = [run(v, **changes) for v in (view, replace(view, embeddings=embeddings))]
    assert methods[0].uses_unseen_embeddings == uses
    assert any(not torch.equal(value, weights(methods[1])[name]) for name, value in weights(methods[0]).items()) == uses
    head = methods[0].student_head
    assert (0 if head is None else head.out_features) == width


def test_a_view_without_unseen_classes_trains(small_world: World) -> None:
    view = small_world()
    without = replace(view, unseen=view.unseen[:0])
    method = run(without)
    assert not method.uses_unseen_embeddings
    inductive = run(view, unseen_rows=False)
    assert all(torch.equal(value, weights(inductive)[name]) for name, value in weights(method).items())


@pytest.mark.parametrize("unit_interval", [True, False])
def test_the_smallest_world_trains(unit_interval: bool) -> None:
    """Two seen classes of one row each, one unseen class, odd d, an embedding of zeros, a batch larger than there are rows."""
    generator = torch.Generator().manual_seed(0)
    view = ScaledView(
        features=torch.rand(2, 5, generator=generator),
        labels=torch.tensor([0, 2]),
        embeddings=torch.stack([torch.zeros(3), *F.normalize(torch.randn(2, 3, generator=generator), dim=1)]),
        names=("a", "b", "c"),
        seen=torch.tensor([0, 2]),
        unseen=torch.tensor([1]),
        unit_interval=unit_interval,
    )
    for settings in (default(2, 5, 3)[0], Hyperparameters(**SMALL, **EVENTFUL)):
        method, draw = SDDN(view, settings, seed=0), Batches(view)
        for step in range(12):
            assert all(value.isfinite() for value in method.step(draw, Clock(step, 1)).values())
        made = method.sample(torch.tensor([1, 1, 0]), ClassStreams(0, view.names, view.device))
        assert method.represent(made).isfinite().all()


def test_another_class_list_samples_and_represents_but_does_not_train(small_world: World) -> None:
    view = small_world()
    state = {name: value.clone() for name, value in run(view).state().items()}
    for other_view in (
        replace(view, names=tuple(f"other {name}" for name in view.names)),
        replace(view, unseen=view.unseen[:2]),
    ):
        other = build(other_view, seed=2)
        other.load_state(state)
        assert torch.equal(other.represent(view.features), run(view).represent(view.features))
        with pytest.raises(SettingsError, match="other classes"):
            other.step(Batches(view), Clock(0, EPOCH))


def test_a_state_of_other_settings_is_refused(small_world: World) -> None:
    view = small_world()
    state = run(view, steps=1).state()
    for changes in ({"half": 6}, {"lambda_m": 0.0, "fusion": "F0"}, {"lambda_sd": 0.0, "lambda_cg": 0.0}, {"teacher": "mlp"}):
        with pytest.raises(RuntimeError):
            build(view, **changes).load_state(state)


# --------------------------------------------------------------------------------------------------------------- settings


SPECIFIED = {
    # lr, half, λ_rel, λ_tc, λ_dis, dis_step, κ₀, ρ₀, dropout of E, G and E_v, decay,
    # epochs, synthetic, classifier lr and epochs, warm-up
    "awa2": (3e-5, 1024, 0.5, 1, 0.3, 2, 0.01, 0.001, 0.4, 0.5, 0.2, 1e-6, 220, 5000, 0.003, 50, 10),
    "cub": (1e-4, 2048, 5, 0.003, 0.3, 3, 0.001, 0.0001, 0.1, 0.1, 0, 1e-8, 600, 1000, 0.002, 50, 30),
    "cub-sentence": (1e-4, 312, 3, 0.3, 0.3, 2, 0.02, 0.001, 0.4, 0.5, 0.2, 1e-6, 400, 1200, 0.005, 50, 20),
    "flo": (1e-4, 2048, 3, 0.1, 0.1, 3, 0.001, 0.001, 0.4, 0.4, 0.2, 1e-6, 400, 1200, 0.003, 50, 20),
    "flo-epgn": (1e-4, 1024, 15, 1, 3, 2, 0.01, 0.001, 0.4, 0.4, 0.2, 1e-6, 400, 1200, 0.005, 50, 20),
    "sun": (3e-4, 2048, 30, 0.3, 0.5, 3, 0.001, 0.0003, 0.4, 0.2, 0.4, 1e-6, 400, 400, 0.001, 50, 20),
    "apy": (1e-4, 128, 0.1, 1, 1, 2, 0.02, 0.001, 0.4, 0.5, 0.2, 1e-6, 400, 1200, 0.005, 20, 20),
}


def test_presets_are_those_of_the_specification() -> None:
    assert PRESETS.keys() == SPECIFIED.keys()
    for name, (s, recipe) in PRESETS.items():
        assert SPECIFIED[name] == (
            s.lr, s.half, s.lambda_rel, s.lambda_tc, s.lambda_dis, s.dis_step, s.kappa0, s.rho0, s.encoder_dropout,
            s.generator_dropout, s.autoencoder_dropout, s.weight_decay, recipe.epochs, recipe.synthetic,
            recipe.classifier_lr, recipe.classifier_epochs, s.warm_up,
        ), name  # fmt: skip
        assert (s.hidden, s.refiner, s.latent, s.batch_size, s.generator, s.fusion) == (2048, 0, 20, 64, "cvae", "F2")
        assert (s.temperature, s.alpha, s.beta, s.lambda_sd, s.lambda_rec) == (4, 1, 1, 1, 1)
        assert (s.lambda_cg, s.lambda_m, s.lambda_cross, s.attribute_noise) == (0.1, 0.1, 0, 0.02)
        assert (s.unseen_rows, s.heads, s.teacher, s.relate_to) == (True, "all", "pyramid", "latent")
        assert (s.relation_loss, s.independence) == ("squares", "judges")
        assert not any((s.detach_teacher, s.detach_predictor, s.detach_refiner, s.embedding_noise, s.sample_noise))
        assert (recipe.centred, recipe.steps, recipe.classifier) == (False, 0, "softmax")
        assert recipe.scaling == ("none" if name in ("cub-sentence", "flo-epgn") else "minmax"), name
        assert recipe.classifier_batch == 512


@pytest.mark.parametrize("name", ["cub-sentence", "flo-epgn"])
def test_presets_for_unscaled_features_keep_the_published_reconstruction(name: str) -> None:
    """‖x̃ − x‖², not half of it, though the features leave [0, 1]."""
    rng = torch.Generator().manual_seed(0)
    x_tilde, x = torch.rand(2, 4, 3, generator=rng) * 9
    nothing = torch.zeros(4, 2)
    loss, _ = generation_loss(x_tilde, x, nothing, nothing, 1.0, PRESETS[name][0].sigma)
    assert float(loss) == pytest.approx(sum(float(v) ** 2 for v in (x_tilde - x).flatten()) / 4, rel=1e-5)


def test_ablations_add_part_by_part(small_world: World) -> None:
    view = small_world()
    whole = parts_of(weights(build(view)))
    generation = {"encoder", "generator"}
    distillation = {"student", "student_head", "teacher", "teacher_head"}
    built = {row.split()[0]: parts_of(weights(build(view, **changes))) for row, changes in ABLATIONS.items()}
    assert list(built) == ["B0", "B1", "B2", "B3", "B5a", "B5b", "B6", "B7", "B8"]
    assert built["B0"] == generation
    assert built["B1"] == generation | distillation
    assert built["B2"] == whole - distillation - {"predictor"}
    assert built["B3"] == whole - distillation
    assert built["B5a"] == built["B5b"] == built["B8"] == whole
    assert built["B6"] == whole - {"relation"}
    assert built["B7"] == whole - {"visual_judge", "semantic_judge"}
    assert METHODS["sddn"].ablations is ABLATIONS


@pytest.mark.parametrize(("classes", "d", "a", "steps"), [(40, 512, 300, 450), (200, 2048, 8, 1600), (10**6, 8192, 5, 2000)])
def test_defaults_follow_the_sizes_of_the_data(classes: int, d: int, a: int, steps: int) -> None:
    settings, recipe = default(classes, d, a)
    assert settings.hidden == (256 if d == 512 else 512)
    assert settings.half == (512 if d == 512 else 1024)
    assert (settings.relation_loss, settings.independence) == ("softmax", "covariance")
    assert 1 <= settings.latent <= a
    assert recipe.steps == steps


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"hidden": 0}, "hidden=0"),
        ({"half": 0}, "half=0"),
        ({"dis_step": 0}, "dis_step=0"),
        ({"refiner": -1}, "refiner=-1"),
        ({"lr": math.nan}, "lr=nan"),
        ({"temperature": 0.0}, "temperature=0"),
        ({"sigma": 0.0}, "sigma=0"),
        ({"lambda_tc": -1.0}, "lambda_tc=-1"),
        ({"beta": math.inf}, "beta=inf"),
        ({"generator_dropout": 1.0}, "generator_dropout=1.0"),
        ({"encoder_dropout": -0.1}, "encoder_dropout=-0.1"),
        ({"fusion": "F1"}, "F0, F2, F4, F5"),
        ({"generator": "flow"}, "cvae, vaegan"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"relation_loss": "ce"}, "squares, softmax"),
        ({"independence": "none"}, "judges, covariance"),
        ({"heads": "some"}, "all, seen"),
        ({"lambda_sd": 0.0}, "lambda_cg=0"),
        ({"lambda_rec": 0.0}, "fusion=F5"),
        ({"lambda_rec": 0.0, "fusion": "F5"}, "lambda_rel=0"),
        ({"lambda_m": 0.0}, "fusion=F0"),
        ({"lambda_m": 0.0, "fusion": "F0", "lambda_cross": 1.0}, "lambda_cross=0"),
    ],
)
def test_settings_that_cannot_work_get_one_sentence(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Hyperparameters(**settings)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
