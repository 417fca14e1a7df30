"""BSeGN against its formulas: losses beside loops, a whole iteration beside a plain transcription, parts switched off."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.errors import SettingsError
from unseen.methods import METHODS
from unseen.methods.base import ClassStreams, Clock, ScoresAlone, Streams
from unseen.methods.bsegn import (
    ABLATIONS,
    BALANCES,
    PRESETS,
    BSeGN,
    Hyperparameters,
    Logits,
    balance_of_domains,
    contrastive,
    default,
    feature_to_semantic,
    semantic_to_feature,
)
from unseen.methods.tfvaegan import TFVAEGAN, without_decoder
from unseen.methods.tfvaegan import Hyperparameters as OfTFVAEGAN
from unseen.scaling import ScaledView

World = Callable[..., ScaledView]
SMALL = {"hidden": 16, "batch_size": 6, "lr": 1e-2, "cycle_lr": 1e-2, "fem_lr": 1e-2}
"""Narrow, and with learning rates at which a wrong update is seen at once."""
OFF = {"fem": False, "lambda_fem": 0.0, "lambda_bal": 0.0}
EPOCH = 3


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


def weights(method: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in method.named_parameters()}


def run(view: ScaledView, settings: Hyperparameters, steps: int = 2 * EPOCH) -> BSeGN:
    method, draw = BSeGN(view, settings, seed=1), Batches(view)
    for step in range(steps):
        method.step(draw, Clock(step, EPOCH))
    return method


def some_logits(dtype: torch.dtype = torch.float64) -> Logits:
    """Five seen and three unseen columns; labels repeat, and some classes are absent."""
    torch.manual_seed(0)
    seen, unseen = (3 * torch.randn(6, 8, dtype=dtype) for _ in range(2))
    return Logits(seen, torch.tensor([0, 0, 3, 4, 0, 3]), unseen, torch.tensor([6, 7, 6, 6, 7, 6]), seen_classes=5)


# ------------------------------------------------------------------------------------------------------------- losses


def test_feature_to_semantic_equals_its_loop_and_is_cross_entropy_over_all_classes() -> None:
    o = some_logits()
    halves = []
    for logits, labels in ((o.seen, o.y), (o.unseen, o.u)):
        terms = [
            math.log(sum(math.exp(v) for v in row)) - row[k] for row, k in zip(logits.tolist(), labels.tolist(), strict=True)
        ]
        halves.append(sum(terms) / len(terms))
    assert float(feature_to_semantic(o)) == pytest.approx(sum(halves) / 2, rel=1e-12)
    both = F.cross_entropy(torch.cat([o.seen, o.unseen]), torch.cat([o.y, o.u]))
    assert float(feature_to_semantic(o)) == pytest.approx(float(both), rel=1e-12)


def test_semantic_to_feature_equals_its_loop() -> None:
    o = some_logits()
    logits, labels = torch.cat([o.seen, o.unseen]).tolist(), torch.cat([o.y, o.u]).tolist()
    by_class = []
    for c in sorted(set(labels)):
        denominator = sum(math.exp(row[c]) for row in logits)
        shares = [math.log(math.exp(row[c]) / denominator) for row, label in zip(logits, labels, strict=True) if label == c]
        by_class.append(sum(shares) / len(shares))
    loss = semantic_to_feature(torch.tensor(logits, dtype=torch.float64), torch.tensor(labels))
    assert float(loss) == pytest.approx(-sum(by_class) / len(by_class), rel=1e-12)


def class_by_class(logits: Tensor, labels: Tensor) -> Tensor:
    """L_{s→f}, one class that is present after the other."""
    columns = [(logits[:, c], labels == c) for c in labels.unique()]
    return torch.stack([(column.logsumexp(dim=0) - column[own]).mean() for column, own in columns]).mean()


@pytest.mark.parametrize("classes", [1, 3, 40])
def test_semantic_to_feature_equals_the_loop_over_classes_and_so_does_its_gradient(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = (5 * torch.randn(30, 40, dtype=torch.float64, generator=generator)).requires_grad_()
    labels = torch.randint(classes, (30,), generator=generator)
    losses = semantic_to_feature(logits, labels), class_by_class(logits, labels)
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in losses), rtol=1e-9, atol=1e-15)


def test_semantic_to_feature_with_a_row_a_class_is_the_transposed_info_nce() -> None:
    logits = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([3, 0, 4, 1, 2])
    expected = F.cross_entropy(logits[:, order].T, torch.arange(5))
    torch.testing.assert_close(semantic_to_feature(logits, order), expected, rtol=1e-12, atol=0)


def test_eta_weighs_the_second_direction_and_0_does_not_compute_it(monkeypatch: pytest.MonkeyPatch) -> None:
    o = some_logits()
    first = feature_to_semantic(o)
    second = semantic_to_feature(torch.cat([o.seen, o.unseen]), torch.cat([o.y, o.u]))
    torch.testing.assert_close(contrastive(o, 0.7), first + 0.7 * second, rtol=1e-12, atol=0)
    monkeypatch.setattr("unseen.methods.bsegn.semantic_to_feature", lambda *_: pytest.fail("computed"))
    assert torch.equal(contrastive(o, 0.0), first)


def test_balances_equal_their_loops() -> None:
    o = some_logits()
    seen, unseen = o.seen.tolist(), o.unseen.tolist()

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    in_s, out_s = mean([max(row[:5]) for row in seen]), mean([max(row[5:]) for row in seen])
    in_u, out_u = mean([max(row[5:]) for row in unseen]), mean([max(row[:5]) for row in unseen])
    b1 = (in_s - in_u) ** 2 + (out_s - out_u) ** 2
    b2 = mean([(max(row[:5]) - max(row[5:])) ** 2 for row in seen + unseen])

    def share_of_seen(row: list[float]) -> float:
        return sum(math.exp(v) for v in row[:5]) / sum(math.exp(v) for v in row)

    b3 = (mean([1 - share_of_seen(row) for row in seen]) - mean([share_of_seen(row) for row in unseen])) ** 2
    q = mean([share_of_seen(row) for row in seen + unseen])
    b4 = q * math.log(q / 0.5) + (1 - q) * math.log((1 - q) / 0.5)
    for name, expected in {"B1": b1, "B2": b2, "B3": b3, "B4": b4}.items():
        assert float(BALANCES[name](o)) == pytest.approx(expected, rel=1e-10), name


def test_balance_is_0_for_symmetric_responses() -> None:
    """Every row of one domain answers as a row of the other does, its own classes and the other ones exchanged."""
    seen = torch.tensor([[3.0, 1.0, 0.5, 0.2], [2.0, 2.5, -1.0, 0.0]])
    o = Logits(seen, torch.tensor([0, 1]), seen[:, [2, 3, 0, 1]], torch.tensor([2, 3]), seen_classes=2)
    assert float(BALANCES["B1"](o)) == 0
    assert float(BALANCES["B2"](o)) == pytest.approx((2.5**2 + 2.5**2) / 2)
    assert float(BALANCES["B3"](o)) == pytest.approx(0, abs=1e-12)
    assert float(BALANCES["B4"](o)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["B3", "B4"])
def test_balances_of_probabilities_move_it_to_the_domain_that_gets_less(name: str) -> None:
    """All rows lean to seen classes: descent lowers the seen logits of unseen rows, and raises the unseen ones of seen rows."""
    seen = torch.tensor([[4.0, 0.0, 0.0, 0.0]], requires_grad=True)
    unseen = torch.tensor([[2.0, 0.0, 1.0, 0.0]], requires_grad=True)
    BALANCES[name](Logits(seen, torch.tensor([0]), unseen, torch.tensor([2]), seen_classes=2)).backward()
    assert seen.grad[0, 0] > 0 > seen.grad[0, 2]
    assert unseen.grad[0, 0] > 0 > unseen.grad[0, 2]


def test_balance_moves_both_domains_toward_each_other() -> None:
    seen = torch.tensor([[5.0, 0.0, 1.0, 0.0]], requires_grad=True)  # in 5, out 1
    unseen = torch.tensor([[3.0, 0.0, 2.0, 0.0]], requires_grad=True)  # in 2, out 3
    balance_of_domains(Logits(seen, torch.tensor([0]), unseen, torch.tensor([2]), seen_classes=2)).backward()
    assert torch.equal(seen.grad, torch.tensor([[6.0, 0.0, -4.0, 0.0]]))  # descent lowers in_s, raises out_s
    assert torch.equal(unseen.grad, torch.tensor([[4.0, 0.0, -6.0, 0.0]]))  # raises in_u, lowers out_u


# ----------------------------------------------------------------------------------- one whole iteration, written plainly


class PlainTrainer:
    """One iteration as sections 3 and 4 of the method's page state it: nothing batched together, autograd only."""

    def __init__(self, method: BSeGN, view: ScaledView) -> None:
        s = self.s = method.settings
        self.view, self.bernoulli = view, view.unit_interval
        self.w = {name: value.requires_grad_() for name, value in weights(method).items()}
        rates = {"encoder": s.lr, "generator": s.lr, "critic": s.lr, "regressor": s.cycle_lr, "fem": s.fem_lr}
        self.adam = {
            net: torch.optim.Adam(
                [value for name, value in self.w.items() if name.startswith(net)],
                lr=rate,
                betas=(0.9 if net == "encoder" else 0.5, 0.999),
                foreach=False,
            )
            for net, rate in rates.items()
            if any(name.startswith(net) for name in self.w)
        }
        used = [int(k) for k in [*view.seen, *view.unseen]]
        mean = sum(view.embeddings[k] for k in used) / len(used) if s.centre_phi else 0.0
        self.phi = {k: (view.embeddings[k] - mean) / (view.embeddings[k] - mean).norm() for k in used}

    def linear(self, x: Tensor, layer: str) -> Tensor:
        return x @ self.w[f"{layer}.weight"].T + self.w[f"{layer}.bias"]

    @staticmethod
    def lrelu(v: Tensor) -> Tensor:
        return torch.where(v > 0, v, 0.2 * v)

    def encode(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h = self.lrelu(self.linear(torch.cat([x, c], dim=1), "encoder.first"))
        h = self.lrelu(self.linear(h, "encoder.second"))
        return self.linear(h, "encoder.mean"), self.linear(h, "encoder.log_variance")

    def generate(self, z: Tensor, c: Tensor, observed: list[Tensor] | None = None) -> Tensor:
        out = self.linear(self.lrelu(self.linear(torch.cat([z, c], dim=1), "generator.first")), "generator.second")
        if self.bernoulli:
            return torch.sigmoid(out)
        return out + self.s.sigma * observed.pop(0) if observed is not None and self.s.sample_noise else out

    def criticise(self, x: Tensor, c: Tensor) -> Tensor:
        first = torch.cat([self.w["critic.visual.weight"], self.w["critic.semantic.weight"]], dim=1)
        h = self.lrelu(torch.cat([x, c], dim=1) @ first.T + self.w["critic.semantic.bias"])
        return self.linear(h, "critic.score")

    def regress(self, x: Tensor) -> Tensor:
        for layer in range(self.s.cycle_layers):
            x = self.lrelu(self.linear(x, f"regressor.hidden.{layer}"))
        out = self.linear(x, "regressor.out")
        return out / out.norm(dim=1, keepdim=True)

    @staticmethod
    def self_weighted(p: Tensor, c: Tensor) -> Tensor:
        return torch.stack([(d.abs() ** 3).sum() / (d**2).sum().sqrt() for d in p - c]).mean()

    def response(self, x: Tensor, k: int) -> Tensor:
        m = self.linear(self.lrelu(self.linear(x[None], "fem.first")), "fem.second")[0]
        return (m / m.norm()) @ self.phi[k] / self.s.tau

    def contrast(self, xs: Tensor, ys: Tensor, xu: Tensor, us: Tensor) -> tuple[Tensor, Tensor]:
        """L_con and, for the balance, the mean largest responses: in_s, out_s, in_u, out_u."""
        seen, unseen = self.view.seen.tolist(), self.view.unseen.tolist()
        rows = [(x, int(k)) for x, k in [*zip(xs, ys, strict=True), *zip(xu, us, strict=True)]]
        table = [{c: self.response(x, c) for c in seen + unseen} for x, _ in rows]
        labels = [k for _, k in rows]
        f_to_s = torch.stack(
            [torch.stack(list(row.values())).logsumexp(0) - row[k] for row, k in zip(table, labels, strict=True)]
        ).mean()
        anchors = []
        for c in sorted(set(labels)):
            everyone = torch.stack([row[c] for row in table]).logsumexp(0)
            anchors.append(torch.stack([everyone - row[c] for row, k in zip(table, labels, strict=True) if k == c]).mean())
        n = len(xs)

        def largest(part: list[dict[int, Tensor]], classes: list[int]) -> Tensor:
            return torch.stack([torch.stack([row[c] for c in classes]).max() for row in part]).mean()

        r = torch.stack(
            [largest(table[:n], seen), largest(table[:n], unseen), largest(table[n:], unseen), largest(table[n:], seen)]
        )
        return f_to_s + self.s.eta * torch.stack(anchors).mean(), r

    def descend(self, loss: Tensor, *nets: str) -> None:
        for value in self.w.values():
            value.grad = None
        loss.backward()
        for net in nets:
            self.adam[net].step()

    def unseen_labels(self, stream: str, rows: int, streams: Streams) -> Tensor:
        return self.view.unseen[torch.randint(len(self.view.unseen), (rows,), generator=streams[f"{stream} labels"])]

    def iteration(
        self, warm: bool, batches: list[tuple[Tensor, Tensor]], draws: dict[str, list[Tensor]], labels: Streams
    ) -> None:
        """`labels` is a second set of streams, of the same seed and state, to draw the unseen classes from."""
        s, embeddings, n = self.s, self.view.embeddings, len(batches[0][0])
        in_one_go = {name: list(draws.pop(name)[0].split(n)) for name in ("critic noise", "critic output") if draws.get(name)}
        perturbation = list(draws.pop("embedding noise")[0].split(n)) if s.embedding_noise else []
        conditions = []
        for x, y in batches:
            c = embeddings[y]
            conditions.append(c + s.embedding_noise * perturbation.pop(0) / math.sqrt(c.shape[1]) if s.embedding_noise else c)
            z = in_one_go["critic noise"].pop(0)
            if s.encoded_noise:
                m, v = self.encode(x, conditions[-1])
                z = m + torch.exp(v / 2) * z
            fake = self.generate(z, conditions[-1], in_one_go.get("critic output")).detach()
            t = draws["penalty mixture"].pop(0)
            xi = (t * x + (1 - t) * fake).requires_grad_()
            (inner,) = torch.autograd.grad(self.criticise(xi, conditions[-1]).sum(), xi, create_graph=True)
            distance = self.criticise(fake, conditions[-1]).mean() - self.criticise(x, conditions[-1]).mean()
            self.descend(s.gamma_adv * (distance + s.penalty * ((inner.norm(dim=1) - 1) ** 2).mean()), "critic")

        c, condition = embeddings[y], conditions[-1]
        self.descend(self.self_weighted(self.regress(x), c), "regressor")

        u = self.unseen_labels("fem", n, labels)
        fake_u = self.generate(draws["fem noise"].pop(0), embeddings[u], draws["fem output"]).detach()
        con, r = self.contrast(x, y, fake_u, u)
        self.descend(con + s.lambda_bal * ((r[0] - r[2]) ** 2 + (r[1] - r[3]) ** 2), "fem")

        m, v = self.encode(x, condition)
        z = m + torch.exp(v / 2) * draws["encoder noise"].pop(0)
        x_hat = self.generate(z, condition)
        if self.bernoulli:
            p = x_hat + 1e-12
            loss = -(x * p.log() + (1 - x) * (1 - p).log()).sum() / n
        else:
            loss = ((x_hat - x) ** 2).sum() / (2 * s.sigma**2) / n
        loss = loss + (-0.5 * (1 + v - m**2 - v.exp())).sum() / n
        if not s.encoded_noise:
            z = draws["generator noise"].pop(0)
        fake = self.generate(z, condition, draws["generator output"])
        u = self.unseen_labels("unseen", n, labels)
        fake_u = self.generate(draws["unseen noise"].pop(0), embeddings[u], draws["unseen output"])
        loss = loss - s.gamma_adv * self.criticise(fake, condition).mean()
        cycle = self.self_weighted(self.regress(fake), c) + self.self_weighted(self.regress(fake_u), embeddings[u])
        loss = loss + s.lambda_cyc * cycle
        if warm:
            con, r = self.contrast(fake, y, fake_u, u)
            balance = (r[0] - r[2]) ** 2 + (r[1] - r[3]) ** 2 if s.balance_in_generator else 0.0
            loss = loss + s.lambda_fem * (con + s.lambda_bal * balance)
        self.descend(loss, "encoder", "generator")


class PlainInBatches(PlainTrainer):
    """The same as a plain implementation would do it, to be timed: a domain's rows together, but a loop over classes, and no
    weights joined that only we store apart."""

    def criticise(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.lrelu(self.linear(c, "critic.semantic") + x @ self.w["critic.visual.weight"].T)
        return self.linear(h, "critic.score")

    def contrast(self, xs: Tensor, ys: Tensor, xu: Tensor, us: Tensor) -> tuple[Tensor, Tensor]:
        seen, classes = len(self.view.seen), [*self.view.seen.tolist(), *self.view.unseen.tolist()]
        phi, column = torch.stack([self.phi[k] for k in classes]), {k: i for i, k in enumerate(classes)}
        logits = []
        for x in (xs, xu):
            m = self.linear(self.lrelu(self.linear(x, "fem.first")), "fem.second")
            logits.append(m / m.norm(dim=1, keepdim=True) @ phi.T / self.s.tau)
        labels = [torch.tensor([column[int(k)] for k in own]) for own in (ys, us)]
        f_to_s = sum(F.cross_entropy(o, own) for o, own in zip(logits, labels, strict=True)) / 2
        s_to_f = class_by_class(torch.cat(logits), torch.cat(labels))
        parts = (logits[0][:, :seen], logits[0][:, seen:], logits[1][:, seen:], logits[1][:, :seen])
        return f_to_s + self.s.eta * s_to_f, torch.stack([part.amax(dim=1).mean() for part in parts])


def test_the_plain_forms_are_the_same(small_world: World) -> None:
    view = small_world(dtype=torch.float64)
    method = BSeGN(view, Hyperparameters(**SMALL), seed=1).double()
    x, y = Batches(view)()
    u = view.unseen[[0, 1, 2, 3, 0, 1]]
    rows = x, y, x.flip(0), u
    plain = [kind(method, view) for kind in (PlainTrainer, PlainInBatches)]
    for one, other in zip(*(p.contrast(*rows) for p in plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(p.criticise(x, view.embeddings[y]) for p in plain), rtol=1e-10, atol=1e-14)


CASES = {
    "cub": (replace(PRESETS["cub"][0], warm_up=1, **SMALL), True),
    "flo: fakes from the prior": (replace(PRESETS["flo"][0], warm_up=1, **SMALL), True),
    "sun, one hidden layer, φ not centred": (
        replace(PRESETS["sun"][0], warm_up=1, cycle_layers=1, centre_phi=False, tau=0.3, lambda_fem=1.0, **SMALL),
        True,
    ),
    "the balance in the generator too": (
        replace(PRESETS["cub"][0], warm_up=1, balance_in_generator=True, lambda_fem=1.0, **SMALL),
        True,
    ),
    "default: gaussian, short latent, noisy embeddings": (
        replace(default(60, 24, 8)[0], latent=5, sigma=0.7, warm_up=1, critic_iterations=2, lambda_fem=1.0, **SMALL),
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_iterations_equal_the_plain_transcription(case: str, small_world: World) -> None:
    settings, bernoulli = CASES[case]
    compare_with_the_plain(small_world(unit_interval=bernoulli, dtype=torch.float64), settings)


def one_unseen(view: ScaledView) -> ScaledView:
    return replace(view, unseen=view.unseen[:1])


def odd_lengths(view: ScaledView) -> ScaledView:
    return replace(view, features=view.features[:, :23], embeddings=F.normalize(view.embeddings[:, :7], dim=1))


def an_embedding_of_0(view: ScaledView) -> ScaledView:
    embeddings = view.embeddings.clone()
    embeddings[[int(view.seen[0]), int(view.unseen[0])]] = 0
    return replace(view, embeddings=embeddings)


def two_seen(view: ScaledView) -> ScaledView:
    rows = torch.isin(view.labels, view.seen[:2])
    return replace(view, features=view.features[rows], labels=view.labels[rows], seen=view.seen[:2])


@pytest.mark.parametrize("edge", [one_unseen, odd_lengths, an_embedding_of_0, two_seen])
def test_iterations_equal_the_plain_transcription_at_the_edges(
    edge: Callable[[ScaledView], ScaledView], small_world: World
) -> None:
    """Besides, classes with one row, an odd width, and batches of all rows, which are fewer than asked for."""
    view = small_world(dtype=torch.float64)
    view = replace(view, features=view.features[::4], labels=view.labels[::4])
    settings = replace(PRESETS["cub"][0], warm_up=1, **{**SMALL, "hidden": 17, "batch_size": 100}, critic_iterations=2)
    compare_with_the_plain(edge(view), settings, size=100)


def compare_with_the_plain(view: ScaledView, settings: Hyperparameters, size: int = 6) -> None:
    method = BSeGN(view, settings, seed=1).double()
    streams = method.streams = RecordedStreams(seed=1)
    labels = Streams(1, torch.device("cpu"))
    draw = Batches(view, size)
    plain = PlainTrainer(method, view)
    for step in (0, 1, EPOCH, EPOCH + 1):  # two iterations of the warm-up, then two with λ_fem
        before = weights(method)
        draw.drawn.clear()
        log = method.step(draw, Clock(step, EPOCH))
        assert ("through module" in log) == (step >= EPOCH)
        plain.iteration(step >= EPOCH, draw.drawn, streams.drawn, labels)
        assert not any(streams.drawn.values()), "the transcription uses every draw"
        streams.drawn.clear()
        for name, value in method.named_parameters():
            torch.testing.assert_close(value, plain.w[name], rtol=0, atol=1e-7, msg=lambda m, n=name, s=step: f"{n}, {s}: {m}")
        moved = {name.split(".")[0] for name, value in before.items() if (value - plain.w[name]).abs().max() > 1e-3}
        assert moved == {"encoder", "generator", "critic", "regressor", "fem"}, "the comparison would see a missing update"


# ------------------------------------------------------------------------------------------------- updates and their reach


def test_updates_come_in_order_and_move_only_their_own_network(small_world: World) -> None:
    view = small_world()
    method = BSeGN(view, Hyperparameters(warm_up=0, critic_iterations=2, **SMALL), seed=1)
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
    method.step(Batches(view), Clock(0, EPOCH))
    assert order == ["critic", "critic", "regressor", "fem", "encoder", "generator"]


def test_the_module_and_the_generator_leave_each_others_gradients_alone(small_world: World) -> None:
    view = small_world()
    method = BSeGN(view, Hyperparameters(warm_up=0, **SMALL), seed=1)
    assert method.fem is not None
    x, y = Batches(view)()

    def gradients(*networks: torch.nn.Module) -> list[Tensor | None]:
        return [p.grad for network in networks for p in network.parameters()]

    method._train_fem(method.fem, x, y)
    assert all(g is None for g in gradients(method.encoder, method.generator))
    of_module = [g.clone() for g in gradients(method.fem) if g is not None]
    log = method._train_generator(x, y, view.embeddings[y], method.fem)
    assert float(log["through module"]) > 0
    assert all(torch.equal(a, b) for a, b in zip(of_module, gradients(method.fem), strict=True))
    assert all(bool(g.any()) for g in gradients(method.generator) if g is not None)
    assert method.regressor is not None
    assert all(g is None for g in gradients(method.regressor))


def test_the_module_learns_from_real_seen_features_and_fresh_fakes_of_unseen_classes(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = small_world()
    method = BSeGN(view, Hyperparameters(**SMALL), seed=1)
    seen: list[tuple[Tensor, ...]] = []
    plain = method._logits
    monkeypatch.setattr(method, "_logits", lambda fem, *rows: (seen.append(rows), plain(fem, *rows))[1])
    draw = Batches(view)
    for step in range(2):
        method.step(draw, Clock(step, EPOCH))
    for (x, y, fake, u), batch in zip(seen, (draw.drawn[4], draw.drawn[9]), strict=True):  # the last of five a step
        assert torch.equal(x, batch[0])
        assert torch.equal(y, batch[1])
        assert torch.isin(u, view.unseen).all()
        assert not fake.requires_grad
    assert not torch.equal(seen[0][2], seen[1][2])


def test_unseen_classes_are_drawn_alike(small_world: World) -> None:
    view = small_world()
    drawn = BSeGN(view, Hyperparameters(**SMALL), seed=1)._draw_unseen("fem", 4000)
    counts = [int((drawn == k).sum()) for k in view.unseen]
    assert sum(counts) == 4000
    assert min(counts) > 880


# ---------------------------------------------------------------------------------------------------- parts switched off


@pytest.mark.parametrize("unit_interval", [True, False])
def test_without_module_and_cycle_it_is_the_vae_gan_bit_for_bit(unit_interval: bool, small_world: World) -> None:
    """The same networks, streams and updates as f-VAEGAN-D2 with a fixed λ."""
    view = small_world(unit_interval=unit_interval)
    shared = {"hidden": 16, "lr": 1e-2, "critic_iterations": 1, "embedding_noise": 0.3, "sample_noise": True}
    small = run(view, Hyperparameters(**OFF, mfim=False, lambda_cyc=0.0, **shared), 4)
    reference = TFVAEGAN(view, without_decoder(OfTFVAEGAN(adaptive_penalty=False, **shared)), seed=1)
    draw = Batches(view)
    for step in range(4):
        reference.step(draw, Clock(step, EPOCH))
    assert weights(small).keys() == weights(reference).keys()
    for name, value in weights(reference).items():
        assert torch.equal(value, weights(small)[name]), name
    ids = view.unseen.repeat_interleave(3)
    assert torch.equal(*(m.sample(ids, ClassStreams(0, view.names, view.device)) for m in (small, reference)))
    assert torch.equal(small.represent(view.features), view.features)


def test_weights_of_0_leave_the_generator_as_without_the_part(small_world: World) -> None:
    view = small_world()
    base = Hyperparameters(warm_up=0, **SMALL)

    def generator_of(**changes: object) -> dict[str, Tensor]:
        return {k: v for k, v in weights(run(view, replace(base, **changes))).items() if k.startswith(("gen", "enc", "cri"))}

    without = generator_of(**OFF)
    pairs = {
        "a module that the generator does not hear of": generator_of(lambda_fem=0.0),
        "its balance": generator_of(lambda_fem=0.0, lambda_bal=0.0),
        "a warm-up that never ends": generator_of(warm_up=10**6),
        "no levels for the classifier": generator_of(**OFF, mfim=False),
    }
    for what, other in pairs.items():
        assert all(torch.equal(without[name], other[name]) for name in without), what
    plain = generator_of(**OFF, lambda_cyc=0.0)
    other = generator_of(**OFF, lambda_cyc=0.0, mfim=False)
    assert all(torch.equal(plain[name], other[name]) for name in plain), "R is trained, and not heard of"
    for changes in ({}, OFF, {"cycle_unseen": False}):
        assert not torch.equal(generator_of(**changes)["generator.second.weight"], plain["generator.second.weight"])


def test_a_balance_of_weight_0_is_not_computed(small_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    view = small_world()
    common = {"balance_in_generator": True, "warm_up": 0, **SMALL}
    results = {}
    for kind in BALANCES:
        results[kind] = weights(run(view, Hyperparameters(balance=kind, lambda_bal=0.1, **common), 1))["fem.first.weight"]
        with monkeypatch.context() as patched:
            patched.setitem(BALANCES, kind, lambda *_: pytest.fail("computed"))
            off = run(view, Hyperparameters(balance=kind, lambda_bal=0.0, **common), 1)
        assert not torch.equal(results[kind], weights(off)["fem.first.weight"])
    assert len({tuple(w.flatten().tolist()) for w in results.values()}) == len(BALANCES), "each is a loss of its own"


def test_the_generator_hears_of_the_balance_only_if_asked_and_after_the_warm_up(small_world: World) -> None:
    view = small_world()
    base = Hyperparameters(warm_up=1, lambda_fem=1.0, lambda_bal=5.0, **SMALL)
    for steps, same in ((EPOCH, True), (EPOCH + 1, False)):
        off, on = (weights(run(view, replace(base, balance_in_generator=hears), steps)) for hears in (False, True))
        assert torch.equal(off["generator.second.weight"], on["generator.second.weight"]) is same
        assert torch.equal(off["fem.first.weight"], on["fem.first.weight"]), "M is trained before G"


@pytest.mark.parametrize(
    ("changes", "parts", "uses_unseen"),
    [
        ({}, {"encoder", "generator", "critic", "regressor", "fem"}, True),
        (OFF, {"encoder", "generator", "critic", "regressor"}, True),
        ({**OFF, "cycle_unseen": False}, {"encoder", "generator", "critic", "regressor"}, False),
        ({**OFF, "lambda_cyc": 0.0}, {"encoder", "generator", "critic", "regressor"}, False),
        ({**OFF, "lambda_cyc": 0.0, "mfim": False}, {"encoder", "generator", "critic"}, False),
        ({"gamma_adv": 0.0, "lambda_cyc": 0.0, "mfim": False}, {"encoder", "generator", "fem"}, True),
        ({"lambda_fem": 0.0, "cycle_unseen": False}, {"encoder", "generator", "critic", "regressor", "fem"}, True),
    ],
)
def test_settings_say_which_parts_there_are_and_whether_unseen_embeddings_train(
    changes: dict[str, object], parts: set[str], uses_unseen: bool, small_world: World
) -> None:
    view = small_world()
    embeddings = view.embeddings.clone()
    embeddings[view.unseen] = -embeddings[view.unseen].roll(1, dims=1)
    settings = Hyperparameters(**{**SMALL, **changes})
    method, other = (run(v, settings, 2) for v in (view, replace(view, embeddings=embeddings)))
    assert set(method.optimisers) == {name for name, _ in method.named_children()} == parts
    assert method.uses_unseen_embeddings is uses_unseen
    changed = any(not torch.equal(a, b) for a, b in zip(weights(method).values(), weights(other).values(), strict=True))
    assert changed is uses_unseen


def test_rows_of_the_ablation_are_those_of_the_page(small_world: World) -> None:
    whole, _ = default(60, 24, 8)
    everything = replace(whole, mfim_standardised=True, mfim_semantic=True, balance_in_generator=True)
    for base in (whole, everything):  # a row can be taken from any variant of the whole
        rows = {name.split()[0]: replace(base, **changes) for name, changes in ABLATIONS.items()}
        assert {name: (r.fem, r.lambda_bal > 0, r.lambda_fem > 0, r.mfim, r.cycle_unseen) for name, r in rows.items()} == {
            "A0": (False, False, False, False, True),
            "A1": (False, False, False, True, True),
            "A3": (True, False, True, False, True),
            "A4": (True, True, True, False, True),
            "A9": (True, True, True, True, False),
        }


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"fem": False}, "fem=false leaves out the module that lambda_fem"),
        ({"mfim": False, "mfim_semantic": True}, "mfim=false leaves nothing to standardise or extend"),
        ({"cycle_layers": 3}, "cycle_layers=3 cannot work; give 1 or 2"),
        ({"balance": "B5"}, "there is no balance='B5'; there are B1, B2, B3, B4"),
        ({"hidden": 1}, "hidden=1 cannot work"),
        ({"tau": 0.0}, "tau=0.0 cannot work"),
        ({"eta": -1.0}, "eta=-1.0 cannot work"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        Hyperparameters(**settings)


# ------------------------------------------------------------------------------------------------------- levels and scores


def test_the_classifier_sees_every_level(small_world: World) -> None:
    view = small_world()
    x = view.features
    for layers, width in ((1, 24 + 16 + 8), (2, 24 + 16 + 8 + 8)):
        method = run(view, Hyperparameters(cycle_layers=layers, **SMALL), 2)
        assert method.regressor is not None
        seen = method.represent(x)
        assert seen.shape == (60, width)
        assert torch.equal(seen[:, :24], x)
        h = x
        levels = [x]
        for layer in method.regressor.hidden:
            h = F.leaky_relu(h @ layer.weight.T + layer.bias, 0.2)
            levels.append(h)
        levels.append(F.normalize(h @ method.regressor.out.weight.T + method.regressor.out.bias, dim=1))
        torch.testing.assert_close(seen, torch.cat(levels, dim=1).detach(), rtol=1e-6, atol=1e-6)
        extended = run(view, Hyperparameters(cycle_layers=layers, mfim_semantic=True, **SMALL), 2).represent(x)
        assert torch.equal(extended[:, :width], seen)
        torch.testing.assert_close(extended[:, width:].norm(dim=1), torch.ones(60))


def test_standardised_levels_are_measured_on_seen_rows_after_every_training(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = small_world()
    settings = Hyperparameters(mfim_standardised=True, mfim_semantic=True, **SMALL)
    method, draw = BSeGN(view, settings, seed=1), Batches(view)
    monkeypatch.setattr("unseen.methods.bsegn.ROWS_AT_ONCE", 7)
    for step in range(3):
        method.step(draw, Clock(step, EPOCH))
        parts = method.represent(view.features).split([24, 16, 8, 8, 8], dim=1)
        for part in parts:
            assert float(part.mean()) == pytest.approx(0, abs=1e-5)
            assert float(part.std(correction=0)) == pytest.approx(1, abs=1e-5)
    other = BSeGN(view, settings, seed=2)
    other.load_state({k: v for k, v in method.state().items() if k.startswith("network.")})
    assert torch.equal(other.represent(view.features[:3]), method.represent(view.features[:3]))


def test_the_module_alone_scores_all_classes_by_its_logits(small_world: World) -> None:
    view = small_world()
    method = run(view, Hyperparameters(**SMALL))
    assert isinstance(method, ScoresAlone)
    represent, scores = method.alone()
    assert method.fem is not None
    x, y = view.features[:6], view.labels[:6]
    found = scores(represent(x))
    centre = view.embeddings.mean(dim=0)
    m = method.fem(x).detach()
    for row in range(6):
        for k in range(16):
            expected = F.cosine_similarity(m[row], view.embeddings[k] - centre, dim=0)
            assert float(found[row, k]) == pytest.approx(float(expected) / 0.1, abs=1e-4)
    u = view.unseen[[0, 1, 2, 3, 0, 1]]
    o = method._logits(method.fem, x, y, x, u)
    columns = torch.cat([view.seen, view.unseen])
    for logits in (o.seen, o.unseen):
        torch.testing.assert_close(logits, found[:, columns], rtol=1e-5, atol=1e-4)
    assert torch.equal(columns[o.y], y)
    assert torch.equal(columns[o.u], u)
    assert run(view, Hyperparameters(**OFF, **SMALL), 1).alone() is None


def test_the_mean_embedding_of_training_stays_when_classes_are_added(small_world: World) -> None:
    view = small_world()
    trained = run(view, Hyperparameters(**SMALL))
    more = replace(
        view,
        embeddings=torch.cat([view.embeddings, F.normalize(torch.ones(1, 8))]),
        names=(*view.names, "new"),
        unseen=torch.cat([view.unseen, torch.tensor([16])]),
    )
    other = BSeGN(more, trained.settings, seed=2)
    other.load_state(trained.state())
    before, after = (m.alone()[1].weight for m in (trained, other))
    assert torch.equal(after[:16], before)
    assert len(after) == 17


# ------------------------------------------------------------------------------------------------------ presets, the entry


def test_presets_are_those_of_the_specification() -> None:
    """Batch, learning rate, γ, critic updates, λ_cyc, encoded noise, λ_bal, λ_fem, warm-up; epochs, rows, classifier's rate."""
    common = {
        "batch_size": 64,
        "critic_iterations": 5,
        "tau": 0.1,
        "eta": 0.5,
        "lambda_bal": 1.0,
        "penalty": 10.0,
        "cycle_lr": 1e-4,
        "fem_lr": 1e-4,
        "hidden": 4096,
        "latent": 0,
        "embedding_noise": 0.0,
    }
    table = {
        "awa2": (1e-5, 10, 0.1, True, 0.1, 5, 120, 1800, 1e-3),
        "cub": (1e-4, 10, 0.01, True, 0.1, 10, 300, 300, 1e-3),
        "flo": (1e-4, 10, 0.01, False, 0.1, 10, 500, 1200, 1e-3),
        "sun": (1e-3, 1, 0.01, True, 0.01, 10, 400, 400, 5e-4),
        "apy": (1e-5, 10, 0.1, True, 0.1, 5, 120, 1000, 1e-3),
    }
    assert set(PRESETS) == set(table)
    for name, (h, recipe) in PRESETS.items():
        assert {key: getattr(h, key) for key in common} == common
        found = (h.lr, h.gamma_adv, h.lambda_cyc, h.encoded_noise, h.lambda_fem, h.warm_up)
        assert (*found, recipe.epochs, recipe.synthetic, recipe.classifier_lr) == table[name]
        assert (recipe.scaling, recipe.centred, recipe.classifier, h.mfim, h.fem) == ("minmax", False, "softmax", True, True)


def test_its_entry_says_that_it_is_re_created() -> None:
    assert "re-created" in METHODS["bsegn"].title
