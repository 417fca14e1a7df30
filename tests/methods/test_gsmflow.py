"""GSMFlow against its formulas: losses beside loops, whole iterations and the mining beside a plain transcription."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from plain_flow import PlainFlow, joined, parted
from plain_flow import class_means as plain_class_means
from torch import Tensor

import unseen.methods.gsmflow as module
from unseen.errors import SettingsError
from unseen.methods import find_method, with_settings
from unseen.methods.base import ClassStreams, Clock, Streams
from unseen.methods.gsmflow import (
    ABLATIONS,
    PRESETS,
    GSMFlow,
    Hyperparameters,
    RelationNetwork,
    default,
    entropy,
    mine,
    relation_loss,
)
from unseen.nn.flow import class_means, decay, encode, likelihood_loss, prototype_loss
from unseen.nn.positioning import choose_anchors
from unseen.scaling import ScaledView
from unseen.training import train

World = Callable[..., ScaledView]
SMALL = {"hidden": 8, "condition": 5, "batch_size": 16, "lr": 1e-2, "relation_hidden": 7, "relation_lr": 1e-2}
"""Narrow, and with learning rates at which a wrong update is seen at once."""
EPOCH = 4


def settings(**changes: object) -> Hyperparameters:
    """The default for small data without our own additions, narrow: 60 rows in four batches."""
    published = {"embedding_noise": 0.0, "prototype_classes": 0, "embedding_scale": 1.0, "mining_rate": 100.0, "lambda_H": 20.0}
    narrow = {**SMALL, **published, "relation_epochs": 2, "mining_steps": 3}
    return replace(default(60, 24, 8)[0], **{**narrow, **changes})  # type: ignore[arg-type]


class Batches:
    """Draws batches from a view, and remembers them."""

    def __init__(self, view: ScaledView, size: int = 16) -> None:
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


def double(view: ScaledView, s: Hyperparameters, seed: int = 1) -> GSMFlow:
    """The method in float64; torch's Adam keeps the parameters that it was given."""
    method = GSMFlow(view, s, seed).double()
    method.streams = RecordedStreams(seed)
    return method


def weights(method: GSMFlow) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in method.named_parameters()}


# ------------------------------------------------------------------------------------------- an iteration, written plainly


class PlainTrainer:
    """Step and preparation as the specification's 1 and 2 state them: the plain flow, all pairs of rows and classes, two
    backward passes, Adam unfused."""

    def __init__(self, start: dict[str, Tensor], s: Hyperparameters, view: ScaledView) -> None:
        self.w, self.start = joined(start), start
        self.s, self.view = s, replace(view, embeddings=s.embedding_scale * view.embeddings)
        view = self.view
        flow = [value for name, value in self.w.items() if not name.startswith("relation")]
        relation = [value for name, value in self.w.items() if name.startswith("relation")]
        self.adam = torch.optim.Adam(flow, lr=s.lr, weight_decay=s.weight_decay, foreach=False)
        if relation:
            self.relation_adam = torch.optim.Adam(relation, lr=s.relation_lr, weight_decay=s.relation_decay, foreach=False)
        self.flow = PlainFlow(self.w, view, s.blocks, "positioning")
        self.means = plain_class_means(view)

    def weights(self) -> dict[str, Tensor]:
        return parted(self.w, self.start)

    def condition(self, c: Tensor) -> Tensor:
        return self.flow.condition(c) if self.s.positioning else c

    def step(self, x: Tensor, y: Tensor, draws: dict[str, list[Tensor]], lr: float) -> None:
        s, embeddings = self.s, self.view.embeddings.clone()
        if s.embedding_noise:
            noise = draws["embedding noise"].pop(0)
            embeddings[self.view.seen] += s.embedding_scale * s.embedding_noise * noise / math.sqrt(noise.shape[1])
        if s.pi:
            noise = draws["perturbation"].pop(0)
            if s.dropout:
                noise = noise * (draws["perturbation mask"].pop(0) >= s.dropout)
            x = x + s.pi * noise
        for value in self.w.values():
            value.grad = None
        z, log_determinant = self.flow.forward(x, self.condition(embeddings[y]))
        ((0.5 * (z**2).sum() - log_determinant.sum()) / x.numel()).backward()  # type: ignore[no-untyped-call]
        if s.lambda_p:
            modes = self.flow.inverse(torch.zeros_like(self.means), self.condition(embeddings[self.view.seen]).detach())
            (s.lambda_p * ((modes - self.means) ** 2).sum() / modes.numel()).backward()
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()

    def relation_terms(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error, and mean entropy of the softmax over the classes of the batch."""
        present = y.unique()
        rows, classes = x[:, None].expand(-1, len(present), -1), self.view.embeddings[present].expand(len(x), -1, -1)
        pairs = torch.cat([rows, classes], dim=2)
        h = (pairs @ self.w["relation.visual.weight"].T + self.w["relation.semantic.bias"]).clamp(min=0)
        scores = torch.sigmoid(h @ self.w["relation.score.weight"][0] + self.w["relation.score.bias"])
        targets = (y[:, None] == present).to(x.dtype)
        shares = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        return ((scores - targets) ** 2).mean(), -(shares * shares.log()).sum(dim=1).mean()

    def train_relation(self, x: Tensor, y: Tensor) -> None:
        for value in self.w.values():
            value.grad = None
        self.relation_terms(x, y)[0].backward()  # type: ignore[no-untyped-call]
        self.relation_adam.step()

    def mine(self, x: Tensor, y: Tensor, rate: float) -> Tensor:
        for _ in range(self.s.mining_steps):
            x = x.detach().clone().requires_grad_()
            squared, unsure = self.relation_terms(x, y)
            (gradient,) = torch.autograd.grad(squared - self.s.lambda_H * unsure, x)
            x = x - rate * gradient
        return x.detach()


CASES = {
    "whole": settings(mining_steps=0),
    "flow alone": settings(**ABLATIONS["flow alone"]),
    "masked noise, decay": settings(
        mining_steps=0, pi=0.4, dropout=0.3, lambda_p=2.0, weight_decay=0.1, lr_decay=0.5, lr_decay_epochs=1
    ),
    "five blocks": settings(mining_steps=0, blocks=5),
    "noisy embeddings": settings(mining_steps=0, embedding_noise=0.7, embedding_scale=3.0),
}


@pytest.mark.parametrize("case", CASES)
def test_iterations_equal_the_plain_transcription(case: str, small_world: World) -> None:
    s = CASES[case]
    view = small_world(dtype=torch.float64)
    method, draw = double(view, s), Batches(view)
    assert isinstance(method.streams, RecordedStreams)
    plain = PlainTrainer(weights(method), s, view)
    for step, lr in ((0, s.lr), (1, s.lr * s.lr_decay), (4, s.lr * s.lr_decay), (5, s.lr * s.lr_decay**2)):
        before = weights(method)
        draw.drawn.clear()
        method.step(draw, Clock(step, EPOCH))
        [batch] = draw.drawn
        plain.step(*batch, method.streams.drawn, lr)
        assert not any(method.streams.drawn.values()), "the transcription uses every draw"
        theirs = plain.weights()
        for name, value in weights(method).items():
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
            assert (value - before[name]).abs().max() > 1e-4, "the comparison would see a missing update"


def test_preparation_equals_the_plain_transcription(small_world: World) -> None:
    """Relation training on ten rows of each draw, then every row mined once, in batches of ten."""
    s = settings(relation_batch=10, mining_rate=30.0, lambda_H=2.0, relation_decay=0.01, embedding_scale=1.5)
    view = small_world(dtype=torch.float64)
    keep = torch.arange(53)  # so the last batch has three rows
    view = replace(view, features=view.features[keep], labels=view.labels[keep])
    method, draw = double(view, s), Batches(view)
    plain = PlainTrainer(weights(method), s, view)
    assert method.relation_steps == 6 * 2
    assert method.preparation == 6 * 2 + 6
    for step in range(method.relation_steps):
        draw.drawn.clear()
        method.prepare(draw, Clock(step, EPOCH))
        plain.train_relation(*(part[:10] for part in draw.drawn[0]))
        theirs = plain.weights()
        for name, value in weights(method).items():
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    trained, drawn = weights(method), len(draw.drawn)
    for step in range(method.relation_steps, method.preparation):
        method.prepare(draw, Clock(step, EPOCH))
    assert len(draw.drawn) == drawn
    assert all(torch.equal(value, trained[name]) for name, value in weights(method).items()), "mining trains nothing"
    x, y = method.extra_rows()
    rows = method.mined_rows
    assert torch.equal(rows.sort().values, keep), "every row once"
    assert torch.equal(y, view.labels[rows])
    for part in rows.split(10):
        place = torch.isin(rows, part)
        expected = plain.mine(view.features[part], view.labels[part], 30.0 * len(part) / 10)
        torch.testing.assert_close(x[place], expected, rtol=0, atol=1e-10)
        assert (expected - view.features[part]).norm(dim=1).min() > 1e-3


# ------------------------------------------------------------------------------------------------------------- losses


def test_losses_are_their_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    z, log_determinant = torch.randn(6, 5, generator=generator).double(), torch.randn(6, generator=generator).double()
    expected = sum(float((z[i] ** 2).sum() / 2 - log_determinant[i]) for i in range(6)) / 30
    assert float(likelihood_loss(z, log_determinant)) == pytest.approx(expected, rel=1e-12)
    other = torch.randn(6, 5, generator=generator).double()
    expected = sum((float(z[i, j]) - float(other[i, j])) ** 2 for i in range(6) for j in range(5)) / 30
    assert float(prototype_loss(z, other)) == pytest.approx(expected, rel=1e-12)

    scores, place = torch.rand(6, 4, generator=generator).double(), torch.tensor([0, 3, 1, 1, 2, 0])
    expected = sum((float(scores[i, j]) - float(place[i] == j)) ** 2 for i in range(6) for j in range(4)) / 24
    assert float(relation_loss(scores, place)) == pytest.approx(expected, rel=1e-12)
    expected = 0.0
    for row in scores.tolist():
        total = sum(math.exp(score) for score in row)
        expected -= sum(math.exp(score) / total * math.log(math.exp(score) / total) for score in row) / 6
    assert float(entropy(scores)) == pytest.approx(expected, rel=1e-12)


def test_the_likelihood_is_that_of_the_change_of_variables(small_world: World) -> None:
    """exp of −d · (L_f + ½ log 2π) integrates to 1: by a fine grid, in two dimensions."""
    view = small_world(dtype=torch.float64)
    method = double(replace(view, features=view.features[:, :2]), settings(mining_steps=0))
    for parameter in method.parameters():
        parameter.data.mul_(20)  # far from the identity
    line = torch.linspace(-12, 12, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        conditions = method._conditions(view.embeddings[:1])
        z, log_determinant = encode(method.flow, grid, conditions, torch.zeros(len(grid), dtype=torch.int64))
        losses = torch.stack([likelihood_loss(z[i : i + 1], log_determinant[i : i + 1]) for i in range(0, len(grid), 61)])
        density = torch.exp(-z.square().sum(dim=1) / 2 + log_determinant) / (2 * math.pi)
    torch.testing.assert_close(torch.exp(-2 * losses) / (2 * math.pi), density[::61], rtol=1e-9, atol=0)
    assert float(density.sum() * 0.1**2) == pytest.approx(1.0, abs=1e-3)
    assert (z - grid).abs().max() > 0.5


@pytest.mark.parametrize("pairs", [1 << 24, 60, 1])
def test_factored_relation_scores_are_those_of_explicit_pairs(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients, however few hidden layers are kept."""
    monkeypatch.setitem(module.PAIRS_AT_ONCE, "cpu", pairs)
    generator = torch.Generator().manual_seed(2)
    network = RelationNetwork(5, 3, 4).double()
    network.initialise(generator)
    x = torch.randn(6, 5, generator=generator).double().requires_grad_()
    c = torch.randn(7, 3, generator=generator).double().requires_grad_()
    joint = torch.cat([network.visual.weight, network.semantic.weight], dim=1)
    pair = torch.cat([x[:, None].expand(6, 7, 5), c.expand(6, 7, 3)], dim=2)
    hidden = (pair @ joint.T + network.semantic.bias).clamp(min=0)
    explicit = torch.sigmoid(hidden @ network.score.weight[0] + network.score.bias)
    factored = network(x, c)
    torch.testing.assert_close(factored, explicit, rtol=0, atol=1e-12)
    wanted = [x, c, *network.parameters()]
    direction = torch.randn(6, 7, generator=generator).double()
    for ours, theirs in zip(
        torch.autograd.grad((factored * direction).sum(), wanted),
        torch.autograd.grad((explicit * direction).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        assert ours.abs().max() > 0


def test_the_relation_network_starts_as_torch_s_layers_over_pairs() -> None:
    """U(±1/√inputs), where the first layer's inputs are d + a; biases too."""
    network = RelationNetwork(30, 20, 400)
    network.initialise(torch.Generator().manual_seed(0))
    for name, parameter in network.named_parameters():
        bound = (400 if name.startswith("score") else 50) ** -0.5
        assert parameter.abs().max() <= bound, name
        if parameter.numel() > 1:
            assert parameter.abs().max() > 0.95 * bound, name


def test_mined_rows_are_less_sure_and_keep_their_class(small_world: World) -> None:
    view = small_world()
    s = settings(relation_epochs=100, relation_hidden=32, mining_rate=5.0, mining_steps=20, lambda_H=2.0)
    method, draw = GSMFlow(view, s, 0), Batches(view)
    for step in range(method.preparation):
        method.prepare(draw, Clock(step, EPOCH))
    assert method.relation is not None
    x, y = method.extra_rows()
    place = torch.searchsorted(view.seen, y)
    with torch.no_grad():
        before = method.relation(view.features[method.mined_rows], view.embeddings[view.seen])
        after = method.relation(x, view.embeddings[view.seen])
    assert relation_loss(before, place) < 0.03, "it has learnt something"
    assert entropy(after) > entropy(before) + 0.005
    assert (after.argmax(dim=1) == place).float().mean() > 0.8
    assert (x - view.features[method.mined_rows]).norm(dim=1).mean() > 0.1
    _, log = mine(method.relation, x, place, view.embeddings[view.seen], 0.0, 1, 1.0)
    assert float(log["mined entropy"]) == pytest.approx(float(entropy(after)), rel=1e-5)


def test_mining_without_entropy_descends_the_relation_loss_alone(small_world: World) -> None:
    """λ_H = 0: the same bits, and nothing of the entropy is computed."""
    view = small_world()
    s = settings(lambda_H=0.0)
    method, draw = GSMFlow(view, s, 0), Batches(view)
    logs = [method.prepare(draw, Clock(step, EPOCH)) for step in range(method.preparation)]
    assert not any("mined entropy" in log for log in logs)
    relation = method.relation
    assert relation is not None
    for part in method.mined_rows.split(s.rows_to_relate):
        x, (classes, place) = view.features[part], view.labels[part].unique(return_inverse=True)
        for _ in range(s.mining_steps):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(relation_loss(relation(x, view.embeddings[classes]), place), x)
            x = x.detach() - s.mining_rate * len(part) / s.rows_to_relate * gradient
        assert torch.equal(x, method.mined[torch.isin(method.mined_rows, part)])


# ------------------------------------------------------------------------------------------------------------- routing


def gradients(method: GSMFlow, loss: Tensor) -> dict[str, bool]:
    """Parameter → whether the loss reaches it."""
    found = torch.autograd.grad(loss, list(method.parameters()), allow_unused=True)
    return {name: g is not None and bool(g.any()) for (name, _), g in zip(method.named_parameters(), found, strict=True)}


def test_the_prototype_loss_reaches_the_flow_alone_and_the_likelihood_both(small_world: World) -> None:
    view = small_world()
    method = GSMFlow(view, settings(), 0)
    reached: dict[str, set[str]] = {}
    for term in ("likelihood", "prototypes"):
        loss: list[Tensor] = []
        original = getattr(module, {"likelihood": "likelihood_loss", "prototypes": "prototype_loss"}[term])

        def kept(*arguments: Tensor, original: Callable[..., Tensor] = original, loss: list[Tensor] = loss) -> Tensor:
            loss.append(original(*arguments))
            return loss[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, original.__name__, kept)
            patch.setattr(module, "descend", lambda *_: None)
            method.step(Batches(view), Clock(0, EPOCH))
        reached[term] = {name.split(".")[0] for name, there in gradients(method, loss[0]).items() if there}
    assert reached == {"likelihood": {"positioning", "flow"}, "prototypes": {"flow"}}


def test_each_stage_changes_its_own_networks(small_world: World) -> None:
    view = small_world()
    method, draw = GSMFlow(view, settings(), 0), Batches(view)
    start = weights(method)
    method.prepare(draw, Clock(0, EPOCH))
    prepared = weights(method)
    method.step(draw, Clock(0, EPOCH))
    trained = weights(method)

    def changed(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
        return {name.split(".")[0] for name in one if not torch.equal(one[name], other[name])}

    assert changed(start, prepared) == {"relation"}
    assert changed(prepared, trained) == {"flow", "positioning"}
    assert all(not torch.equal(start[name], trained[name]) for name in start), "every parameter learns"


@pytest.mark.parametrize(
    ("weight", "absent"),
    [
        ("embedding_noise", "embedding noise"),
        ("prototype_classes", "aligned classes"),
        ("pi", "perturbation"),
        ("lambda_p", "prototypes"),
        ("mining_steps", "relation"),
        ("dropout", "perturbation mask"),
    ],
)
def test_a_weight_of_0_removes_its_part_and_draws_nothing_for_it(weight: str, absent: str, small_world: World) -> None:
    """…and with mining left out, the method is the conference version bit for bit, whatever mining's other settings are."""
    view = small_world()
    s = settings(**{"dropout": 0.2, weight: 0})
    method, draw = GSMFlow(view, s, 0), Batches(view)
    logs = [method.prepare(draw, Clock(step, EPOCH)) for step in range(method.preparation)]
    logs += [method.step(draw, Clock(step, EPOCH)) for step in range(3)]
    assert not any(absent in log for log in logs)
    assert f"stream.{absent}" not in method.state()
    if weight == "mining_steps":
        assert method.preparation == 0
        assert not any("relation" in name or "mined" in name for name in method.state())
        other = GSMFlow(view, replace(s, lambda_H=7.0, relation_hidden=3, reference_quirks=True, relation_batch=4), 0)
        again = Batches(view)
        for step in range(3):
            other.step(again, Clock(step, EPOCH))
        assert all(torch.equal(value, other.state()[name]) for name, value in method.state().items())


def test_perturbation_of_no_size_is_no_perturbation(small_world: World) -> None:
    """A tiny π leads where π = 0 leads: nothing else hangs on it."""
    view = small_world(dtype=torch.float64)
    methods = [double(view, settings(mining_steps=0, pi=pi)) for pi in (0.0, 1e-9)]
    for method in methods:
        draw = Batches(view)
        for step in range(3):
            method.step(draw, Clock(step, EPOCH))
    for name, value in weights(methods[0]).items():
        torch.testing.assert_close(weights(methods[1])[name], value, rtol=0, atol=1e-6)


def test_prototypes_of_some_classes_estimate_those_of_all(small_world: World) -> None:
    """Fewer than all are drawn anew, without favour; as many as there are, or more, are all."""
    view = small_world(dtype=torch.float64)
    losses = {}
    for count in (0, 5, 12, 99):
        method = double(view, settings(mining_steps=0, prototype_classes=count))
        conditions = method._conditions(view.embeddings[view.seen]).detach()
        losses[count] = torch.stack([method._prototype_loss(conditions).detach() for _ in range(100)])
    assert torch.equal(losses[0], losses[12])
    assert torch.equal(losses[0], losses[99])
    assert losses[5].std() > 0
    assert float(losses[5].mean()) == pytest.approx(float(losses[0][0]), rel=0.05)


def test_the_mask_spares_the_stated_share_of_dimensions_for_a_whole_batch(small_world: World) -> None:
    view = small_world()
    method = GSMFlow(view, settings(mining_steps=0, dropout=0.25, pi=0.5), 0)
    spared = []
    for _ in range(100):
        moved = method._perturbed(view.features) - view.features
        still = (moved == 0).all(dim=0)
        assert torch.equal(still, (moved == 0).any(dim=0)), "one mask for all rows"
        assert float(moved[:, ~still].std()) == pytest.approx(0.5, rel=0.1)
        spared.append(float(still.float().mean()))
    assert sum(spared) / 100 == pytest.approx(0.25, abs=0.04)


# ----------------------------------------------------------------------------------------------- anchors, samples, schedule


def test_anchors_are_of_seen_classes_or_of_all(small_world: World) -> None:
    view = small_world()
    by_choice = {}
    for choice, classes in (("seen", view.seen), ("all", torch.arange(16))):
        method = GSMFlow(view, settings(anchor_classes=choice), 0)
        assert method.positioning is not None
        by_choice[choice] = method.positioning.anchors
        rows = {tuple(row.tolist()) for row in view.embeddings[classes]}
        assert all(tuple(row.tolist()) in rows for row in method.positioning.anchors)
        assert {tuple(r) for r in method.positioning.anchors.tolist()} == {
            tuple(r) for r in choose_anchors(view.embeddings[classes]).tolist()
        }
        assert method.uses_unseen_embeddings == (choice == "all")
    assert not torch.equal(by_choice["seen"], by_choice["all"])
    assert not GSMFlow(view, settings(anchor_classes="all", positioning=False), 0).uses_unseen_embeddings


def test_without_positioning_the_condition_is_the_embedding(small_world: World) -> None:
    view = small_world()
    method = GSMFlow(view, settings(positioning=False), 0)
    assert method._conditions(view.embeddings) is view.embeddings
    assert method.flow.blocks[0].first.condition.in_features == 8  # type: ignore[union-attr]


def test_samples_are_the_inverse_of_normal_draws_and_their_mode_is_the_prototype(small_world: World) -> None:
    view = small_world()
    method = GSMFlow(view, settings(mining_steps=0), 0)
    train(method, view, 60, 0)
    ids = torch.tensor([14, 2, 2, 9])
    made = method.sample(ids, ClassStreams(5, view.names, view.device))
    z = ClassStreams(5, view.names, view.device).normal(ids, 24)
    with torch.no_grad():
        found, _ = method.flow(made, method.flow.terms(method._conditions(view.embeddings[ids])))
    torch.testing.assert_close(found, z, rtol=0, atol=1e-4)
    assert (made - z).abs().max() > 0.1


def test_class_means_are_those_of_the_clean_rows(small_world: World) -> None:
    view = small_world()
    for place, k in enumerate(view.seen.tolist()):
        torch.testing.assert_close(class_means(view)[place], view.features[view.labels == k].mean(dim=0), rtol=0, atol=1e-6)
    fewer = replace(view, labels=torch.where(view.labels == view.seen[0], view.seen[1], view.labels))
    assert not class_means(fewer)[0].any(), "a class without rows has no NaN"


def test_conditions_are_computed_by_row_where_rows_are_fewer_than_classes(small_world: World) -> None:
    view = small_world(dtype=torch.float64)
    method = double(view, settings())
    conditions, place = method._conditions(view.embeddings), view.labels[:20]
    many = encode(method.flow, view.features[:20], conditions, place)
    few = [encode(method.flow, view.features[i : i + 5], conditions, place[i : i + 5]) for i in range(0, 20, 5)]
    for whole, parts in zip(many, zip(*few, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=1e-12)


def test_the_rate_decays_in_whole_epochs_the_first_time_one_early() -> None:
    found = [decay(0.5, 2, step, 3) for step in range(13)]
    assert found == [1, 1, 1, 1] + [0.5] * 6 + [0.25] * 3


def test_quirks_mine_what_relation_training_had_not_seen_and_train_with_its_batch(small_world: World) -> None:
    view = small_world()
    s = settings(relation_batch=7, reference_quirks=True, relation_epochs=4)
    method = GSMFlow(view, s, 0)
    # 60 rows: 3 full batches of 16 an epoch, 8 of 7. 13 relation steps end at the fifth of 8, so three are swept.
    assert method.relation_steps == 3 * 4 + 1
    assert method.preparation == 13 + 3
    assert len(method.extra_rows()[1]) == 21
    seen: list[int] = []
    original = method._perturbed
    method._perturbed = lambda x: seen.append(len(x)) or original(x)  # type: ignore[method-assign,func-returns-value]
    method.step(Batches(view), Clock(0, EPOCH))
    assert seen == [7]
    flo = replace(PRESETS["flo"][0], reference_quirks=True, hidden=2, condition=2, relation_hidden=2)
    rows = torch.zeros(5631, 4)
    big = replace(view, features=rows, labels=view.seen[torch.arange(5631) % 12])
    assert GSMFlow(big, flo, 0).preparation == 1261 + 44, "about 45 batches of 64, as the specification counted"


# ------------------------------------------------------------------------------------------------------------ settings


def test_presets_are_those_of_the_papers() -> None:
    """The tables of both versions, row by row."""
    journal = {
        "awa2": (3, 1000, 256, 3e-4, 3e-6, 0.92, 17, 0.15, 10, 50_000, 5e-3, 1200, 30, 50, 256, 3e-4, 3e-6, 100, 30, 20),
        "apy": (5, 600, 200, 3e-4, 1e-5, 0.55, 20, 0.02, 3, 9000, 1e-3, 1200, 20, 50, 200, 1e-3, 3e-6, 30, 20, 10),
        "cub": (3, 1500, 256, 1e-4, 3e-5, 0.8, 25, 0.05, 1, 600, 3e-3, 600, 50, 100, 256, 1e-4, 1e-6, 20, 20, 10),
        "flo": (3, 1000, 256, 1e-4, 1e-4, 0.8, 30, 0.1, 3, 3000, 5e-3, 1000, 30, 60, 64, 3e-4, 1e-6, 20, 20, 1),
    }
    conference = {
        "awa2": (3, 500, 256, 3e-4, 3e-6, 0.92, 15, 0.15, 10, 50_000, 1e-3, 1200, 30, "seen"),
        "apy": (5, 600, 200, 3e-4, 1e-6, 0.55, 15, 0.02, 3, 9000, 1e-3, 1200, 20, "all"),
        "cub": (5, 600, 256, 3e-4, 1e-5, 0.8, 15, 0.05, 1, 600, 0.01, 3000, 30, "seen"),
        "flo": (5, 300, 256, 3e-4, 1e-4, 0.8, 15, 0.07, 3, 3000, 5e-3, 1000, 30, "seen"),
    }
    for version, table in (("", journal), ("-mm21", conference)):
        for data, expected in table.items():
            h, r = PRESETS[data + version]
            found = (
                h.blocks, r.epochs, h.batch_size, h.lr, h.weight_decay, h.lr_decay, h.lr_decay_epochs, h.pi, h.lambda_p,
                r.synthetic, r.classifier_lr, r.classifier_batch, r.classifier_epochs,
            )  # fmt: skip
            assert found == expected[:13], data + version
            assert r.scaling == ("none" if data in ("cub", "flo") else "minmax"), data + version
            if version:
                assert (h.anchor_classes, h.mining_steps) == (expected[13], 0), data
            else:
                mining = (
                    h.relation_epochs, h.rows_to_relate, h.relation_lr, h.relation_decay,
                    h.mining_rate, h.mining_steps, h.lambda_H,
                )  # fmt: skip
                assert (*mining, h.anchor_classes) == (*expected[13:], "all"), data
            assert (h.condition, h.hidden, h.clamp, h.dropout, h.reference_quirks) == (1024, 2048, 1.0, 0.0, False)
            assert r.drawn == (2000 if r.synthetic > 3000 else 0), "no matrix of half a million rows"


def test_published_width_has_the_published_number_of_parameters(small_world: World) -> None:
    """16.79 million a block at d = 2048, by meta tensors."""
    with torch.device("meta"):
        flow = module.ConditionalFlow(2048, 1024, 2048, 3)
    assert sum(p.numel() for p in flow.parameters()) == 3 * 2 * ((1024 + 1024 + 1) * 2048 + 2049 * 2048)


def test_settings_that_cannot_work_are_refused() -> None:
    for changes, sentence in (
        ({"blocks": 0}, "blocks=0 cannot work; give 1 or more"),
        ({"relation_epochs": 0}, "relation_epochs=0 cannot work; give 1 or more"),
        ({"lr": 0.0}, "lr=0.0 cannot work"),
        ({"lambda_H": -1.0}, "lambda_H=-1.0 cannot work; give 0 or a number above it"),
        ({"pi": math.nan}, "pi=nan cannot work"),
        ({"dropout": 1.0}, "dropout=1.0 cannot work"),
        ({"embedding_scale": 0.0}, "embedding_scale=0.0 cannot work"),
        ({"embedding_scale": math.inf}, "embedding_scale=inf cannot work"),
        ({"anchor_classes": "unseen"}, "anchor_classes='unseen' is neither 'seen' nor 'all'"),
        ({"relation_batch": 300}, "relation_batch=300 is more than batch_size=256; give 0, or a smaller number"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            Hyperparameters(**changes)  # type: ignore[arg-type]
    assert Hyperparameters(relation_epochs=0, mining_steps=0).mining_steps == 0


def test_every_setting_can_be_typed() -> None:
    entry = find_method("gsmflow")
    hyperparameters, recipe = entry.default(60, 24, 8)  # type: ignore[union-attr]
    changed, _ = with_settings(hyperparameters, recipe, {"anchor_classes": "all", "positioning": "false", "mining_steps": "0"})
    assert (changed.anchor_classes, changed.positioning, changed.mining_steps) == ("all", False, 0)
