"""DFCA against its formulas: losses beside loops, whole iterations beside a plain transcription, and what each term reaches."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_flow import PlainFlow, class_means, joined, parted
from torch import Tensor

from unseen.errors import RunError, SettingsError
from unseen.methods import METHODS, Generative
from unseen.methods.base import ClassStreams, Clock, Streams
from unseen.methods.dfca import ABLATIONS, DFCA, PRESETS, Hyperparameters, classification_loss, condition_alignment, default
from unseen.methods.gsmflow import GSMFlow
from unseen.methods.gsmflow import Hyperparameters as GSMFlowHyperparameters
from unseen.nn.coupling import ConditionalFlow, initialise
from unseen.nn.flow import likelihood_loss
from unseen.nn.positioning import RelativePositioning, choose_anchors
from unseen.scaling import ScaledView
from unseen.training import train

World = Callable[..., ScaledView]
SMALL = Hyperparameters(
    blocks=2, hidden=7, condition=6, batch_size=16, lr=1e-2, aid_lr=2e-2, weight_decay=0.1,
    lr_decay=0.5, lr_decay_epochs=2, pi=0.2, lambda_cls=1.5, lambda_v=3.0, lambda_c=2.0,
)  # fmt: skip
"""Narrow, with rates and weights at which a wrong update is seen at once."""


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


def weights(method: DFCA) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in method.named_parameters()}


def run(view: ScaledView, settings: Hyperparameters, steps: int = 4, seed: int = 1) -> DFCA:
    method, draw = DFCA(view, settings, seed), Batches(view, settings.batch_size)
    for step in range(steps):
        method.step(draw, Clock(step, 2))
    return method


def network(name: str) -> str:
    return name.split(".")[0]


# ------------------------------------------------------------------------------------------------------------- losses


def test_classification_is_the_mean_surprise_at_ones_own_class() -> None:
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    surprise = 0.0
    for j, row in enumerate(logits.tolist()):
        surprise -= math.log(math.exp(row[j]) / sum(math.exp(v) for v in row)) / 4
    assert float(classification_loss(logits)) == pytest.approx(surprise, rel=1e-12)


def test_the_condition_alignment_is_a_mean_square() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    pairs = [(p, q) for ps, qs in zip(one.tolist(), other.tolist(), strict=True) for p, q in zip(ps, qs, strict=True)]
    expected = sum((p - q) ** 2 for p, q in pairs) / 15
    assert float(condition_alignment(one, other, normalize_target=False)) == pytest.approx(expected, rel=1e-12)
    unit = [[q / math.sqrt(sum(v * v for v in qs)) for q in qs] for qs in other.tolist()]
    expected = sum((p - q) ** 2 for ps, qs in zip(one.tolist(), unit, strict=True) for p, q in zip(ps, qs, strict=True)) / 15
    assert float(condition_alignment(one, other, normalize_target=True)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("normalize_target", [False, True])
def test_the_target_of_the_condition_alignment_is_taken_as_given(normalize_target: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    encoded, conditions = (torch.randn(3, 5, generator=generator).requires_grad_() for _ in range(2))
    reached = torch.autograd.grad(
        condition_alignment(encoded, conditions, normalize_target), [encoded, conditions], allow_unused=True
    )
    assert reached[0].any()
    assert reached[1] is None


def test_with_a_normalised_target_the_condition_alignment_is_one_minus_cosine() -> None:
    """‖e − g/‖g‖‖² = 2 − 2 cos for e of unit length, so it can reach 0; with the raw target it cannot."""
    g = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    e = F.normalize(g, dim=1)
    assert float(condition_alignment(e, g, normalize_target=True)) == pytest.approx(0, abs=1e-12)
    assert float(condition_alignment(e, g, normalize_target=False)) == pytest.approx((16 + 1) / 4)


# ------------------------------------------------------------------------------------------------- one iteration, plainly


class PlainTrainer:
    """The specification's section 2 with nothing shared: the plain flow, conditions for the rows, apart from them those of all
    classes, and once more those of the prototypes, two backward passes, Adam unfused."""

    def __init__(self, start: dict[str, Tensor], s: Hyperparameters, view: ScaledView) -> None:
        assert s.clamp == 1
        self.w, self.start = joined(start), start
        self.s, self.view = s, view
        self.flow = PlainFlow(self.w, view, s.blocks, "mapping")
        self.means = class_means(view)
        self.adams = {
            part: torch.optim.Adam(
                [v for n, v in self.w.items() if network(n) in parts], lr, betas, weight_decay=decay, foreach=False
            )
            for part, parts, lr, betas, decay in (
                ("flow", ("mapping", "flow"), s.lr, (0.9, 0.999), s.weight_decay),
                ("h", ("condition_classifier",), s.aid_lr, (0.5, 0.999), 0.0),
                ("E", ("feature_encoder",), s.aid_lr, (0.5, 0.999), 0.0),
            )
        }

    def weights(self) -> dict[str, Tensor]:
        return parted(self.w, self.start)

    def condition(self, c: Tensor) -> Tensor:
        if self.s.mapping == "linear":
            return (c @ self.w["mapping.linear.weight"].T + self.w["mapping.linear.bias"]).clamp(min=0)
        return self.flow.condition(c)

    def layer(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def step(self, x: Tensor, y: Tensor, draws: dict[str, list[Tensor]], lr: float) -> dict[str, Tensor]:
        s, view, d = self.s, self.view, x.shape[1]
        for value in self.w.values():
            value.grad = None

        z, log_determinant = self.flow.forward(x + s.pi * draws["perturbation"].pop(0), self.condition(view.embeddings[y]))
        likelihood = ((z**2).sum() / 2 - log_determinant.sum()) / d / len(x)
        classes = torch.cat([view.seen, view.unseen]) if s.cls_classes == "all" else view.seen
        logits = self.layer("condition_classifier.linear", self.condition(view.embeddings[classes]))
        classification = (logits.exp().sum(dim=1).log() - logits.diagonal()).sum() / len(classes)
        (likelihood + s.lambda_cls * classification).backward()  # type: ignore[no-untyped-call]

        with torch.no_grad():
            g = self.condition(view.embeddings[view.seen])
        z = draws["alignment noise"].pop(0) if s.align_z == "sample" else x.new_zeros(len(g), d)
        prototypes = self.flow.inverse(z, g)
        visual = ((prototypes - self.means) ** 2).sum() / d / len(g)
        e = self.layer("feature_encoder.first", prototypes)
        e = self.layer("feature_encoder.second", torch.where(e > 0, e, 0.2 * e))
        target = g / g.norm(dim=1, keepdim=True) if s.normalize_target else g
        aligned = ((e / e.norm(dim=1, keepdim=True) - target) ** 2).sum() / target.numel()
        (s.lambda_v * visual + s.lambda_c * aligned).backward()

        self.adams["flow"].param_groups[0]["lr"] = lr
        for adam in self.adams.values():
            adam.step()
        losses = {"likelihood": likelihood, "classification": classification, "visual": visual, "condition": aligned}
        return {name: value.detach() for name, value in losses.items()}


CASES = {
    "as published": SMALL,
    "fewer rows than classes": replace(SMALL, batch_size=5),
    "linear mapping, seen classes, normalised target, sampled z": replace(
        SMALL, mapping="linear", cls_classes="seen", normalize_target=True, align_z="sample"
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_iterations_equal_the_plain_transcription(case: str, small_world: World) -> None:
    s, view = CASES[case], small_world(dtype=torch.float64)
    method = DFCA(view, s, seed=1).double()
    with torch.no_grad():  # further from the identity than a flow begins, so that every part counts
        for parameter in method.flow.parameters():
            parameter.mul_(30)
    streams = method.streams = RecordedStreams(seed=1)
    draw = Batches(view, s.batch_size)
    plain = PlainTrainer(weights(method), s, view)
    # Two steps an epoch: the decay by ½ every second epoch is one epoch early, so from step 3 on, and again from step 7 on.
    for step, lr in ((0, 1e-2), (1, 1e-2), (2, 1e-2), (3, 5e-3), (7, 2.5e-3)):
        before = weights(method)
        log = method.step(draw, Clock(step, 2))
        losses = plain.step(*draw.drawn[-1], streams.drawn, lr)
        assert not any(streams.drawn.values()), "the transcription uses every draw"
        assert log.keys() == losses.keys()
        for name, value in losses.items():
            torch.testing.assert_close(log[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
        theirs = plain.weights()
        for name, value in weights(method).items():
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-9, msg=lambda m, n=name, t=step: f"{n}, {t}: {m}")
        moved = {network(name) for name, value in before.items() if (value - theirs[name]).abs().max() > 1e-4}
        assert moved == {"mapping", "flow", "condition_classifier", "feature_encoder"}


# ------------------------------------------------------------------------------------------------------- gradient routing


REACHES = {
    "likelihood": {"mapping", "flow"},
    "classification": {"mapping", "condition_classifier"},
    "visual": {"flow"},
    "condition": {"flow", "feature_encoder"},
}


@pytest.mark.parametrize(
    "changes", [{}, {"batch_size": 5}, {"normalize_target": True, "align_z": "sample"}, {"align_classes": 4}]
)
@pytest.mark.parametrize("mapping", ["anchored", "linear"])
def test_each_term_reaches_all_parameters_of_its_own_networks_and_no_other(
    mapping: str, changes: dict[str, Any], small_world: World
) -> None:
    view = small_world(dtype=torch.float64)
    method = DFCA(view, replace(SMALL, mapping=mapping, **changes), seed=1).double()
    losses = method._losses(*Batches(view, method.batch_size)())
    assert losses.keys() == REACHES.keys()
    names, parameters = zip(*method.named_parameters(), strict=True)
    for term, loss in losses.items():
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        touched = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None and gradient.any()}
        expected = {name for name in names if network(name) in REACHES[term]}
        if term in ("visual", "condition") and method.settings.align_z == "zero":
            expected.remove("flow.blocks.1.second.feature.weight")  # the first to meet z = 0, which it multiplies
        assert touched == expected, term
        connected = {network(name) for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
        assert connected == REACHES[term], term


def test_each_optimiser_moves_its_own_networks_only(small_world: World) -> None:
    view = small_world()
    method = DFCA(view, SMALL, seed=1)
    last = weights(method)
    order: list[set[str]] = []

    def after(*_: object) -> None:
        now = weights(method)
        order.append({network(name) for name in now if not torch.equal(now[name], last[name])})
        last.update(now)

    for optimiser in method.optimisers.values():
        optimiser.register_step_post_hook(after)
    method.step(Batches(view), Clock(0, 2))
    assert order == [{"mapping", "flow"}, {"feature_encoder"}, {"condition_classifier"}]


# --------------------------------------------------------------------------------------------------- terms switched off


def test_a_weight_of_0_leaves_its_term_out_and_its_network_unbuilt(small_world: World) -> None:
    view = small_world()
    for off, terms, networks in (
        ({"lambda_cls": 0.0}, {"likelihood", "visual", "condition"}, {"mapping", "flow", "feature_encoder"}),
        ({"lambda_v": 0.0}, {"likelihood", "classification", "condition"}, set(map(network, weights(run(view, SMALL, 0))))),
        ({"lambda_c": 0.0}, {"likelihood", "classification", "visual"}, {"mapping", "flow", "condition_classifier"}),
    ):
        method = DFCA(view, replace(SMALL, **off), seed=1)
        assert method.step(Batches(view), Clock(0, 2)).keys() == terms
        assert set(map(network, weights(method))) == networks


def test_all_weights_0_are_a_conditional_flow_bit_for_bit(small_world: World) -> None:
    view = small_world()
    method = run(view, replace(SMALL, lambda_cls=0.0, lambda_v=0.0, lambda_c=0.0, lr_decay=1.0))
    streams, draw = Streams(1, view.device), Batches(view)
    mapping = RelativePositioning(choose_anchors(view.embeddings[view.seen]), 6, streams["initial mapping"])
    flow = ConditionalFlow(24, 6, 7, 2)
    initialise(flow, streams["initial flow"])
    adam = torch.optim.Adam([*mapping.parameters(), *flow.parameters()], 1e-2, weight_decay=0.1, fused=True)
    for _ in range(4):
        x, y = draw()
        x = x + 0.2 * streams.normal("perturbation", *x.shape)
        place = torch.searchsorted(view.seen, y)
        adam.zero_grad()
        likelihood_loss(*flow(x, flow.terms(mapping(view.embeddings[view.seen])), place)).backward()
        adam.step()
    expected = {f"mapping.{n}": p for n, p in mapping.named_parameters()} | {f"flow.{n}": p for n, p in flow.named_parameters()}
    own = weights(method)
    assert own.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(own[name], value), name


@pytest.mark.parametrize("lambda_v", [3.0, 0.0])
def test_without_classifier_and_condition_alignment_it_is_gsmflow_bit_for_bit(lambda_v: float, small_world: World) -> None:
    """The conference version, with the same anchors; its prototype loss is the visual alignment."""
    view = small_world()
    ours = run(view, replace(SMALL, lambda_cls=0.0, lambda_c=0.0, lambda_v=lambda_v))
    settings = GSMFlowHyperparameters(
        blocks=2, hidden=7, condition=6, batch_size=16, lr=1e-2, weight_decay=0.1, lr_decay=0.5, lr_decay_epochs=2, pi=0.2,
        lambda_p=lambda_v, anchor_classes="seen", mining_steps=0,
    )  # fmt: skip
    gsmflow, draw = GSMFlow(view, settings, 1), Batches(view)
    for step in range(4):
        gsmflow.step(draw, Clock(step, 2))
    expected = {name.replace("positioning.", "mapping."): value for name, value in gsmflow.named_parameters()}
    assert weights(ours).keys() == expected.keys()
    for name, value in weights(ours).items():
        assert torch.equal(value, expected[name]), name
    ids = view.unseen.repeat_interleave(2)
    made = [method.sample(ids, ClassStreams(0, view.names, view.device)) for method in (ours, gsmflow)]
    assert torch.equal(*made)


def test_a_term_that_is_off_draws_nothing_and_changes_nothing_of_the_others(small_world: World) -> None:
    """Whatever is set of h or of E, without them M and f are the same bits; the order of the parts does not matter either."""
    view = small_world()
    for off, idle in (
        ({"lambda_cls": 0.0}, {"cls_classes": "seen"}),
        ({"lambda_c": 0.0}, {"normalize_target": True}),
        ({"lambda_v": 0.0, "lambda_c": 0.0}, {"align_z": "sample", "align_classes": 3}),
        ({"mapping": "linear"}, {"anchor_classes": "all"}),
    ):
        one, other = (weights(run(view, replace(SMALL, **off, **further))) for further in ({}, idle))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), off


def test_the_condition_alignment_alone_changes_the_flow_but_not_the_mapping_in_the_first_step(small_world: World) -> None:
    """M is reached through the likelihood only, which the alignment changes no sooner than in the second step."""
    view = small_world()
    base = replace(SMALL, lambda_v=0.0, lambda_cls=0.0)
    with_it, without = (weights(run(view, replace(base, lambda_c=weight), steps=1)) for weight in (5.0, 0.0))
    assert torch.equal(with_it["mapping.weight"], without["mapping.weight"])
    name = "flow.blocks.0.first.out.weight"
    assert not torch.equal(with_it[name], without[name])


# -------------------------------------------------------------------------------------------------------- parts of a step


def test_some_classes_at_a_time_are_drawn_anew_and_in_the_end_all(small_world: World) -> None:
    view = small_world()
    method = DFCA(view, replace(SMALL, align_classes=5), seed=1)
    drawn = [method._classes_to_align().tolist() for _ in range(40)]
    assert all(len(set(classes)) == 5 for classes in drawn)
    assert {place for classes in drawn for place in classes} == set(range(12))
    assert len({tuple(classes) for classes in drawn}) == 40
    for enough in (12, 100):
        all_of_them = run(view, replace(SMALL, align_classes=enough))
        expected = run(view, SMALL)
        assert all(torch.equal(value, weights(expected)[name]) for name, value in weights(all_of_them).items())


def test_training_looks_at_unseen_embeddings_only_where_it_says_so(small_world: World) -> None:
    for changes, looks in (
        ({}, True),
        ({"cls_classes": "seen"}, False),
        ({"lambda_cls": 0.0}, False),
        ({"lambda_cls": 0.0, "anchor_classes": "all"}, True),
        ({"lambda_cls": 0.0, "anchor_classes": "all", "mapping": "linear"}, False),
        ({"cls_classes": "seen", "anchor_classes": "all"}, True),
    ):
        settings = replace(SMALL, **changes)
        view = small_world()
        embeddings = view.embeddings.clone()
        embeddings[view.unseen] = F.normalize(torch.ones(4, 8) + torch.arange(4)[:, None] * embeddings[view.unseen], dim=1)
        methods = [run(v, settings) for v in (view, replace(view, embeddings=embeddings))]
        assert methods[0].uses_unseen_embeddings == settings.uses_unseen_embeddings == looks
        one, other = (weights(method) for method in methods)
        assert any(not torch.equal(one[name], other[name]) for name in one) == looks, changes


# ----------------------------------------------------------------------------------------------------- synthesis, classes


def test_a_sample_is_the_inverse_of_noise(small_world: World) -> None:
    view = small_world()
    method = run(view, SMALL, steps=20)
    ids = torch.tensor([9, 2, 9, 14])
    made = method.sample(ids, ClassStreams(4, view.names, view.device))
    z = ClassStreams(4, view.names, view.device).normal(ids, 24)
    with torch.no_grad():
        back, _ = method.flow(made, method.flow.terms(method.mapping(view.embeddings[ids])))
    torch.testing.assert_close(back, z, rtol=0, atol=1e-4)


def with_two_classes_more(view: ScaledView) -> ScaledView:
    """A table that has grown after training: one class in front of all others, one behind."""
    new = F.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    return replace(
        view,
        embeddings=torch.cat([new[:1], view.embeddings, new[1:]]),
        names=("first of all", *view.names, "last of all"),
        labels=view.labels + 1,
        seen=view.seen + 1,
        unseen=torch.cat([torch.tensor([0]), view.unseen + 1, torch.tensor([17])]),
    )


@pytest.mark.parametrize("part", ["network.", ""])
def test_classes_added_after_training_are_sampled_and_leave_the_others_alone(part: str, small_world: World) -> None:
    view = small_world()
    trained = run(view, SMALL, steps=10)
    more = with_two_classes_more(view)
    method = DFCA(more, SMALL, seed=2)
    method.load_state({name: value.clone() for name, value in trained.state().items() if name.startswith(part)})
    ids = torch.tensor([9, 2, 2, 14])
    expected = trained.sample(ids, ClassStreams(4, view.names, view.device))
    made = method.sample(torch.cat([ids + 1, torch.tensor([0, 17])]), ClassStreams(4, more.names, more.device))
    torch.testing.assert_close(made[:4], expected, rtol=0, atol=2e-6)
    assert made[4:].isfinite().all()
    assert torch.equal(method.mapping.anchors, trained.mapping.anchors)
    if part == "":  # h knows the classes of its training, and says so when it is asked to learn on
        assert torch.equal(method.condition_classifier.classes, view.embeddings[torch.cat([view.seen, view.unseen])])
        assert method.condition_classifier.linear.weight.shape == (16, 6)
        again = DFCA(view, SMALL, seed=3)
        again.load_state(method.state())
        draws = Batches(view), Batches(view)
        again.step(draws[0], Clock(10, 2))
        trained.step(draws[1], Clock(10, 2))
        assert all(torch.equal(value, weights(trained)[name]) for name, value in weights(again).items())
        with pytest.raises(RunError, match="other classes"):
            method.step(Batches(more), Clock(10, 2))


def test_synthesis_needs_neither_h_nor_e(small_world: World) -> None:
    method = run(small_world(), SMALL)
    assert {network(name.removeprefix("network.")) for name in method.state() if name.startswith("network.")} == {
        "mapping",
        "flow",
    }
    aids = {network(name.removeprefix("aid.")) for name in method.state() if name.startswith("aid.")}
    assert aids == {"condition_classifier", "feature_encoder"}


# ------------------------------------------------------------------------------------------------------- sizes, settings


ODD = {
    "one row a class": {"rows": 1},
    "a single row": {"seen": 1, "rows": 1},
    "one seen class": {"seen": 1},
    "two seen classes, one unseen": {"seen": 2, "unseen": 1},
    "two dimensions": {"d": 2},
    "embeddings of length 1": {"a": 1},
    "embeddings of length 0": {"zero": True},
}


@pytest.mark.parametrize("entry", ["dfca", "gsmflow"])
@pytest.mark.parametrize("odd", ODD)
def test_small_and_odd_data_are_learnt_from_and_synthesised(odd: str, entry: str) -> None:
    """By both methods with a flow: fewer classes than anchors, fewer rows than a batch, an odd d, one class at the mean."""
    size = {"seen": 5, "unseen": 2, "rows": 3, "d": 9, "a": 6, "zero": False, **ODD[odd]}
    generator = torch.Generator().manual_seed(0)
    seen, labels = torch.arange(size["seen"]), torch.arange(size["seen"]).repeat_interleave(size["rows"])
    unseen = torch.arange(len(seen), len(seen) + size["unseen"])
    embeddings = F.normalize(torch.randn(len(seen) + len(unseen), size["a"], generator=generator), dim=1)
    if size["zero"]:
        embeddings[[0, -1]] = 0
    features = torch.randn(len(labels), size["d"], generator=generator)
    view = ScaledView(features, labels, embeddings, tuple("abcdefg"[: len(embeddings)]), seen, unseen, False)
    method_of = METHODS[entry]
    assert isinstance(method_of, Generative)
    settings, _ = method_of.default(len(seen), size["d"], size["a"])
    narrow = {"hidden": 8, "condition": 4, "relation_hidden": 4, "relation_epochs": 2, "anchor_classes": "all", "lr": 1e-2}
    method: Any = method_of.build(view, replace(settings, **{k: v for k, v in narrow.items() if hasattr(settings, k)}), 1)
    before = {name: value.clone() for name, value in method.state().items() if name.startswith("network.flow")}
    train(method, view, 20, seed=0)  # stops at a loss that is not finite
    assert not any(torch.equal(value, method.state()[name]) for name, value in before.items())
    ids = view.unseen.repeat_interleave(3)
    made = method.sample(ids, ClassStreams(4, view.names, view.device))
    z = ClassStreams(4, view.names, view.device).normal(ids, size["d"])
    conditions = method.mapping(embeddings[ids]) if entry == "dfca" else method._conditions(method.embeddings[ids])
    with torch.no_grad():
        torch.testing.assert_close(method.flow(made, method.flow.terms(conditions))[0], z, rtol=0, atol=1e-4)
    assert (made - z).abs().max() > 0.01


def test_weights_start_as_published(small_world: World) -> None:
    method = DFCA(small_world(), Hyperparameters(hidden=256, condition=256), seed=1)
    spread = {"flow": 0.01, "feature_encoder": 0.02, "condition_classifier": math.sqrt(2 / (256 + 16))}
    for name, parameter in method.named_parameters():
        value, part = parameter.detach(), network(name)
        if part == "mapping":
            assert value.abs().max() <= 8**-0.5
        elif name.endswith("bias") and part != "flow":
            assert not value.any(), name
        elif value.numel() > 2000:
            assert float(value.std()) == pytest.approx(spread[part], rel=0.06), name
        else:
            assert value.any(), name


PUBLISHED = {
    # K, B, epochs, weight decay, γ, π, λ_v, λ_cls, synthetic, classifier's lr, epochs, batch
    "awa1": (3, 256, 500, 3e-6, 0.92, 0.15, 10, 1, 60_000, 0.001, 30, 1200),
    "awa2": (3, 256, 500, 3e-6, 0.92, 0.15, 4.1, 0.01, 60_000, 0.001, 30, 1200),
    "cub": (5, 256, 600, 1e-5, 0.8, 0.11, 1, 2, 600, 0.01, 30, 3000),
    "flo": (5, 256, 300, 1e-4, 0.8, 0.03, 3, 9, 3000, 0.005, 30, 1000),
    "sun": (3, 256, 500, 3e-6, 0.92, 0.15, 10, 8, 120, 0.001, 30, 1200),
    "apy": (5, 200, 600, 1e-6, 0.55, 0.02, 3, 1, 9000, 0.001, 20, 1200),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_published_ones(name: str) -> None:
    s, recipe = PRESETS[name]
    assert PUBLISHED[name] == (
        s.blocks, s.batch_size, recipe.epochs, s.weight_decay, s.lr_decay, s.pi, s.lambda_v, s.lambda_cls,
        recipe.synthetic, recipe.classifier_lr, recipe.classifier_epochs, recipe.classifier_batch,
    )  # fmt: skip
    assert (s.hidden, s.condition, s.clamp, s.lr, s.aid_lr, s.lr_decay_epochs) == (2048, 1024, 1, 3e-4, 1e-3, 15)
    assert (s.lambda_c, s.mapping, s.cls_classes, s.normalize_target, s.align_z) == (1, "anchored", "all", False, "zero")
    assert (s.align_classes, s.anchor_classes) == (0, "all" if name == "apy" else "seen")
    assert (recipe.centred, recipe.steps, recipe.classifier, recipe.classifier_decay) == (False, 0, "softmax", 0)
    assert (recipe.balanced, recipe.gamma) == (False, 0)
    assert recipe.scaling == ("none" if name in ("cub", "flo") else "minmax")
    assert recipe.drawn == (2000 if recipe.synthetic > 3000 else 0), "no matrix of half a million rows"


@pytest.mark.parametrize(("classes", "steps"), [(8, 450), (176, 528), (10**6, 2000)])
def test_defaults_follow_the_number_of_classes(classes: int, steps: int) -> None:
    settings, recipe = default(classes, 64, 16)
    assert recipe.steps == steps
    assert (settings.lambda_cls > 0, settings.lambda_v > 0, settings.lambda_c > 0) == (True, True, True)


def test_ablations_switch_off_all_but_one() -> None:
    left = []
    for changes in ABLATIONS.values():
        s = replace(default(40, 64, 16)[0], **changes)
        left.append([name for name in ("lambda_cls", "lambda_v", "lambda_c") if getattr(s, name) > 0])
    assert left == [[], ["lambda_cls"], ["lambda_v"], ["lambda_c"]]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"blocks": 0}, "blocks=0"),
        ({"hidden": 0}, "hidden=0"),
        ({"condition": 0}, "condition=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"lr_decay_epochs": 0}, "lr_decay_epochs=0"),
        ({"clamp": 0.0}, "clamp=0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"aid_lr": -1.0}, "aid_lr=-1"),
        ({"lr_decay": 0.0}, "lr_decay=0"),
        ({"weight_decay": -1.0}, "weight_decay=-1"),
        ({"pi": math.inf}, "pi=inf"),
        ({"lambda_cls": -1.0}, "lambda_cls=-1"),
        ({"lambda_v": math.nan}, "lambda_v=nan"),
        ({"lambda_c": -0.5}, "lambda_c=-0.5"),
        ({"align_classes": -1}, "align_classes=-1"),
        ({"mapping": "deep"}, "mapping='deep'"),
        ({"anchor_classes": "unseen"}, "anchor_classes='unseen'"),
        ({"cls_classes": "none"}, "cls_classes='none'"),
        ({"align_z": "one"}, "align_z='one'"),
    ],
)
def test_settings_that_cannot_work_get_one_sentence(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Hyperparameters(**settings)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
