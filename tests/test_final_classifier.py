"""The final classifier: which rows it is given, its gradient, its batches, where it converges to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from unseen import final_classifier, represented
from unseen.errors import Diverged, SettingsError
from unseen.final_classifier import (
    ClassifierRows,
    classifier_rows,
    fit_by_epoch,
    fit_final_classifier,
    fit_gaussian,
    fit_linear_softmax,
    represent,
)
from unseen.methods.base import ClassStreams, Streams
from unseen.methods.tfvaegan import TFVAEGAN, Hyperparameters
from unseen.recipe import Recipe
from unseen.represented import PartlyHeld, in_parts
from unseen.scaling import ScaledView

World = Callable[..., ScaledView]
IDS = torch.tensor([1, 4, 5, 9])


def make_rows(per_class: tuple[int, ...] = (9, 4, 6, 5), synthetic: int = 11, width: int = 5) -> ClassifierRows:
    """Overlapping Gaussian classes with ids IDS; the last two are synthetic."""
    generator = torch.Generator().manual_seed(0)
    labels = IDS.repeat_interleave(torch.tensor(per_class))
    means = torch.randn(10, width, generator=generator)
    features = means[labels] + 0.8 * torch.randn(len(labels), width, generator=generator)
    return ClassifierRows(features, labels, torch.rand(len(labels), generator=generator) + 0.5, synthetic)


def full_batch(**settings: Any) -> Recipe:
    return Recipe(**{"classifier_batch": 10**6, "classifier_lr": 0.05, "classifier_epochs": 30} | settings)


# ---------------------------------------------------------------------------------------------------------------- rows


@pytest.fixture
def trained(small_world: World) -> tuple[ScaledView, TFVAEGAN]:
    view = small_world()
    return view, TFVAEGAN(view, Hyperparameters(hidden=16), seed=0)


def test_rows_are_real_seen_ones_then_synthetic_unseen_ones(trained: tuple[ScaledView, TFVAEGAN]) -> None:
    view, method = trained
    rows = classifier_rows(method, view, 3, seed=5)
    assert rows.features.shape == (60 + 12, 24 + 8 + 16)
    assert rows.labels.tolist() == view.labels.tolist() + [2] * 3 + [5] * 3 + [9] * 3 + [14] * 3
    assert torch.equal(rows.features[:60, :24], view.features)
    made = method.sample(rows.labels[60:], ClassStreams(5, view.names, view.device))
    torch.testing.assert_close(rows.features[60:], method.represent(made), rtol=0, atol=1e-6)
    assert rows.weights.tolist() == [1.0] * 72
    alone = rows.only_synthetic()
    assert alone.labels.tolist() == rows.labels[60:].tolist()
    assert torch.equal(alone.features, rows.features[60:])
    assert alone.synthetic == rows.synthetic == 12


@pytest.mark.parametrize(("drawn", "made", "weight"), [(3, 3, 4.0), (8, 8, 1.5), (0, 12, 1.0), (12, 12, 1.0), (50, 12, 1.0)])
def test_of_many_rows_some_are_drawn_and_weigh_as_much(
    drawn: int, made: int, weight: float, trained: tuple[ScaledView, TFVAEGAN]
) -> None:
    view, method = trained
    rows = classifier_rows(method, view, 12, seed=5, drawn=drawn)
    fewer = classifier_rows(method, view, made, seed=5)
    assert torch.equal(rows.features, fewer.features)
    assert torch.equal(rows.labels, fewer.labels)
    assert rows.synthetic == 4 * made
    assert rows.weights.tolist() == [1.0] * 60 + [weight] * (4 * made)


@pytest.mark.parametrize("batch", [0, 10, 10**6])
def test_drawn_rows_are_learnt_from_in_as_many_steps_as_all(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And, under `classifier_batch=0`, in batches as large as the number that a class's rows count for."""
    steps: list[int] = []
    adam = torch.optim.Adam

    def counting(parameters: list[Tensor], *rest: Any, **named: Any) -> torch.optim.Optimizer:
        optimiser = adam(parameters, *rest, **named)
        optimiser.register_step_post_hook(lambda *_: steps.append(len(steps)))
        return optimiser

    monkeypatch.setattr(torch.optim, "Adam", counting)
    drawn = make_rows((9, 8, 4, 4), synthetic=8)
    drawn = replace(drawn, weights=torch.tensor([1.0] * 17 + [5.0] * 8))
    again = torch.cat([torch.arange(17), torch.arange(17, 25).repeat_interleave(5)])
    repeated = ClassifierRows(drawn.features[again], drawn.labels[again], torch.ones(57), 40)
    counts = []
    for rows in (drawn, repeated):
        steps.clear()
        fit_linear_softmax(rows, IDS, Recipe(classifier_epochs=2, classifier_batch=batch), seed=1)
        counts.append(len(steps))
    assert counts == [2 * {0: 3, 10: 6, 10**6: 1}[batch]] * 2


@pytest.mark.parametrize("at_once", [1, 7, 20])
def test_chunks_do_not_change_the_rows(
    at_once: int, trained: tuple[ScaledView, TFVAEGAN], monkeypatch: pytest.MonkeyPatch
) -> None:
    view, method = trained
    whole = classifier_rows(method, view, 4, seed=5)
    monkeypatch.setattr(final_classifier, "ROWS_AT_ONCE", at_once)
    monkeypatch.setattr(represented, "PART", at_once + 2)
    parts = classifier_rows(method, view, 4, seed=5)
    torch.testing.assert_close(whole.features, parts.features, rtol=0, atol=1e-6)
    torch.testing.assert_close(represent(method, view.features), whole.features[:60], rtol=0, atol=1e-6)


@pytest.mark.parametrize("held", [0, 1, 37, 60, 66, 71])
def test_rows_that_are_not_held_are_the_same_rows(
    held: int, trained: tuple[ScaledView, TFVAEGAN], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Picked, in parts, and from the first synthetic one on; the numbers kept stay below the bound."""
    view, method = trained
    whole = classifier_rows(method, view, 3, seed=5)
    assert isinstance(whole.features, Tensor)
    monkeypatch.setattr(represented, "HELD_BYTES", held * 4 * 48)
    monkeypatch.setattr(represented, "PART", 7)
    rows = classifier_rows(method, view, 3, seed=5)
    assert isinstance(rows.features, PartlyHeld)
    assert rows.features.shape == (72, 48)
    assert rows.features.held.shape == (held, 48)
    assert rows.features.others.shape == (72 - held, 24)
    order = torch.randperm(72, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(rows.features[order], whole.features[order], rtol=0, atol=1e-6)
    torch.testing.assert_close(rows.features[order[:0]], whole.features[:0])
    parts = list(in_parts(rows.features))
    assert max(len(numbers) for numbers, _ in parts) == 7
    assert torch.equal(torch.cat([numbers for numbers, _ in parts]), torch.arange(72))
    torch.testing.assert_close(torch.cat([x for _, x in parts]), whole.features, rtol=0, atol=1e-6)
    synthetic = rows.only_synthetic()
    torch.testing.assert_close(synthetic.features[torch.arange(12)], whole.features[60:], rtol=0, atol=1e-6)
    ids = torch.cat([view.seen, view.unseen]).sort().values
    softmax = Recipe(classifier_epochs=3)
    for recipe, class_ids, pair in (
        (softmax, ids, (rows, whole)),
        (softmax, view.unseen, (synthetic, whole.only_synthetic())),
        (Recipe(classifier="gaussian", shrinkage=0.6), ids, (rows, whole)),
    ):
        ours, theirs = (fit_final_classifier(r, class_ids, recipe, 3) for r in pair)
        for a, b in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(b.abs().max()))


def test_rows_that_are_no_wider_than_features_are_all_held(
    trained: tuple[ScaledView, TFVAEGAN], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To keep them as features would save nothing."""
    view, method = trained
    monkeypatch.setattr(represented, "HELD_BYTES", 0)
    monkeypatch.setattr(method, "represent", lambda x: x[:, :24])
    assert isinstance(classifier_rows(method, view, 3, seed=5).features, Tensor)


def test_another_class_changes_no_row_of_the_others(trained: tuple[ScaledView, TFVAEGAN]) -> None:
    view, method = trained
    all_four = classifier_rows(method, view, 3, seed=5)
    fewer = classifier_rows(method, replace(view, unseen=view.unseen[[0, 3]]), 3, seed=5)
    for class_id in (2, 14):
        torch.testing.assert_close(
            all_four.features[all_four.labels == class_id], fewer.features[fewer.labels == class_id], rtol=0, atol=1e-6
        )
    other_seed = classifier_rows(method, view, 3, seed=6)
    assert torch.equal(all_four.features[:60], other_seed.features[:60])
    assert not torch.isclose(all_four.features[60:], other_seed.features[60:]).all(dim=1).any()


# ------------------------------------------------------------------------------------------------------------- gradient


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("balanced", [False, True])
def test_gradient_equals_autograd(decay: float, balanced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under plain descent one step is the gradient itself."""

    def descent(parameters: list[Tensor], lr: float, *_: object, **__: object) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr)

    monkeypatch.setattr(torch.optim, "Adam", descent)
    rows = make_rows()
    one, two = fit_by_epoch(
        rows, IDS, full_batch(classifier_lr=1.0, classifier_epochs=2, classifier_decay=decay, balanced=balanced), 3
    )
    weight, bias = one.weight.double().requires_grad_(), one.bias.double().requires_grad_()
    targets = torch.tensor([IDS.tolist().index(label) for label in rows.labels.tolist()])
    w = rows.weights.double()
    if balanced:
        w = w / torch.stack([w[targets == k].sum() for k in range(4)])[targets]
    losses = F.cross_entropy(rows.features.double() @ weight.T + bias, targets, reduction="none")
    loss = (w * losses).sum() / w.sum() + decay / 2 * weight.square().sum()
    for gradient, step in zip(
        torch.autograd.grad(loss, [weight, bias]), (one.weight - two.weight, one.bias - two.bias), strict=True
    ):
        torch.testing.assert_close(step.double(), gradient, rtol=1e-4, atol=1e-6)


def test_published_form_equals_the_textbook_loop() -> None:
    """nn.Linear with N(0, 0.02²), log-softmax, Adam (0.5, 0.999), batches as large as a class's synthetic rows."""
    rows = make_rows((9, 4, 6, 6), synthetic=12)
    rows = replace(rows, weights=torch.ones(25))
    fitted = fit_linear_softmax(rows, IDS, Recipe(classifier_epochs=3, classifier_lr=0.01), seed=8)
    streams = Streams(8, torch.device("cpu"))
    layer = torch.nn.Linear(5, 4)
    with torch.no_grad():
        layer.weight.copy_(0.02 * streams.normal("initial classifier", 4, 5))
        layer.bias.zero_()
    adam = torch.optim.Adam(layer.parameters(), 0.01, (0.5, 0.999))
    order: list[int] = []
    for _ in range(3 * 5):  # 25 rows in batches of 6: five an epoch
        while len(order) < 6:
            order += torch.randperm(25, generator=streams["row order"]).tolist()
        picked, order = order[:6], order[6:]
        adam.zero_grad()
        F.cross_entropy(layer(rows.features[picked]), torch.searchsorted(IDS, rows.labels[picked])).backward()
        adam.step()
    torch.testing.assert_close(fitted.weight, layer.weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fitted.bias, layer.bias.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("balanced", [False, True])
def test_weight_w_is_w_rows(balanced: bool) -> None:
    rows = make_rows()
    times = torch.arange(len(rows.labels)) % 3 + 1
    weighted = replace(rows, weights=times.float())
    again = torch.arange(len(times)).repeat_interleave(times)
    repeated = ClassifierRows(rows.features[again], rows.labels[again], torch.ones(len(again)), int(times[-11:].sum()))
    recipe = full_batch(balanced=balanced, classifier_decay=0.01)
    one, other = fit_linear_softmax(weighted, IDS, recipe, 2), fit_linear_softmax(repeated, IDS, recipe, 2)
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.bias, other.bias, rtol=1e-3, atol=1e-4)


def test_balanced_undoes_class_frequencies() -> None:
    """Rows of one class said twice over change nothing when every class counts the same."""
    rows = make_rows()
    more = torch.cat([torch.arange(len(rows.labels)), (rows.labels == 4).nonzero().flatten()])
    repeated = ClassifierRows(rows.features[more], rows.labels[more], rows.weights[more], 0)
    fits = {
        balanced: [fit_linear_softmax(r, IDS, full_batch(balanced=balanced), 2) for r in (rows, repeated)]
        for balanced in (False, True)
    }
    torch.testing.assert_close(fits[True][0].weight, fits[True][1].weight, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(fits[False][0].weight, fits[False][1].weight, atol=1e-2)


@pytest.mark.parametrize("weighted", [False, True])
def test_converges_to_the_solution_of_scikit_learn(weighted: bool) -> None:
    rows = make_rows()
    if not weighted:
        rows = replace(rows, weights=torch.ones_like(rows.weights))
    fitted = fit_linear_softmax(rows, IDS, full_batch(classifier_decay=0.1, classifier_lr=0.02, classifier_epochs=800), 1)
    expected = LogisticRegression(C=1 / (0.1 * float(rows.weights.sum())), tol=1e-10, max_iter=10_000).fit(
        rows.features.double().numpy(), rows.labels.numpy(), sample_weight=rows.weights.double().numpy()
    )
    assert expected.classes_.tolist() == IDS.tolist()
    np.testing.assert_allclose(fitted.weight, expected.coef_, atol=2e-3)
    bias = expected.intercept_ - expected.intercept_.mean()  # a constant added to all scores changes nothing
    np.testing.assert_allclose(fitted.bias - fitted.bias.mean(), bias, atol=2e-3)


# -------------------------------------------------------------------------------------------------------------- batches


class WatchedRows:
    """A matrix that remembers which of its rows were picked."""

    def __init__(self, features: Tensor) -> None:
        self.features, self.device, self.shape = features, features.device, features.shape
        self.picked: list[list[int]] = []

    def __getitem__(self, rows: Tensor) -> Tensor:
        self.picked.append(rows.tolist())
        return self.features[rows]


@pytest.mark.parametrize(("batch", "steps"), [(4, 6), (24, 1), (7, 4), (500, 1), (1, 24)])
def test_batches_are_full_and_go_through_all_rows(batch: int, steps: int) -> None:
    """24 rows: an epoch has ceil(24 / batch) steps, and every 24 picks are all rows once, across the ends of epochs."""
    rows = make_rows()
    watched = WatchedRows(rows.features)
    fit_linear_softmax(replace(rows, features=watched), IDS, Recipe(classifier_batch=batch, classifier_epochs=6), 4)  # type: ignore[arg-type]
    assert len(watched.picked) == 6 * steps
    assert {len(picked) for picked in watched.picked} == {min(batch, 24)}
    stream = [row for picked in watched.picked for row in picked]
    shuffles = [stream[start : start + 24] for start in range(0, len(stream) - 23, 24)]
    assert len(shuffles) >= 6
    assert all(sorted(shuffle) == list(range(24)) for shuffle in shuffles)
    assert len({tuple(shuffle) for shuffle in shuffles}) == len(shuffles)


def test_a_batch_is_as_large_as_a_class_s_synthetic_rows_unless_told() -> None:
    rows = make_rows((9, 4, 6, 6), synthetic=12)
    watched = WatchedRows(rows.features)
    fit_linear_softmax(replace(rows, features=watched), IDS, Recipe(classifier_epochs=1), 4)  # type: ignore[arg-type]
    assert {len(picked) for picked in watched.picked} == {6}


def test_input_is_never_written_to() -> None:
    rows = make_rows()
    kept = [tensor.clone() for tensor in (rows.features, rows.labels, rows.weights)]
    versions = [tensor._version for tensor in (rows.features, rows.labels, rows.weights)]
    for recipe in (Recipe(classifier_epochs=2), Recipe(balanced=True, classifier_epochs=2), Recipe(classifier="gaussian")):
        fit_final_classifier(rows, IDS, recipe, 0)
    for tensor, before, version in zip((rows.features, rows.labels, rows.weights), kept, versions, strict=True):
        assert torch.equal(tensor, before)
        assert tensor._version == version


def test_same_seed_same_bits_other_seed_other_bits() -> None:
    rows, recipe = make_rows(), Recipe(classifier_epochs=2)
    one, same, other = (fit_linear_softmax(rows, IDS, recipe, seed).weight for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_epochs_yield_classifiers_of_their_own() -> None:
    rows, recipe = make_rows(), Recipe(classifier_epochs=3, classifier_lr=0.1)
    by_epoch = list(fit_by_epoch(rows, IDS, recipe, 3))
    assert len(by_epoch) == 3
    for epochs, fitted in enumerate(by_epoch, start=1):
        alone = fit_linear_softmax(rows, IDS, replace(recipe, classifier_epochs=epochs), 3)
        assert torch.equal(fitted.weight, alone.weight)
        assert torch.equal(fitted.bias, alone.bias)


def test_scores_come_in_the_order_of_the_ids() -> None:
    rows = make_rows()
    rows = replace(rows, features=10 * F.one_hot(torch.searchsorted(IDS, rows.labels), 5).float())
    for recipe in (full_batch(), Recipe(classifier="gaussian")):
        fitted = fit_final_classifier(rows, IDS, recipe, 0)
        assert torch.equal(IDS[fitted(rows.features).argmax(dim=1)], rows.labels)


# ------------------------------------------------------------------------------------------------------------- gaussian


@pytest.mark.parametrize("synthetic", [11, 24])
def test_gaussian_scores_are_log_densities(synthetic: int) -> None:
    """Weighted means of all rows; covariance of the real rows alone, or of the synthetic ones where there are no others."""
    rows = make_rows(synthetic=synthetic)
    x, labels, weights = rows.features.double().numpy(), rows.labels.numpy(), rows.weights.double().numpy()
    means = {k: np.average(x[labels == k], axis=0, weights=weights[labels == k]) for k in IDS.tolist()}
    real = slice(None, len(x) - synthetic) if synthetic < len(x) else slice(None)
    scatter = sum(np.outer(row - means[k], row - means[k]) for row, k in zip(x[real], labels[real], strict=True))
    covariance = scatter / (len(x[real]) - len(set(labels[real])))
    shrunk = 0.8 * covariance + 0.2 * np.diag(np.diag(covariance))
    expected = np.stack([multivariate_normal(means[k], shrunk).logpdf(x) for k in IDS.tolist()], axis=1)
    scores = fit_gaussian(rows, IDS, Recipe(shrinkage=0.2))(rows.features).double().numpy()
    np.testing.assert_allclose(scores - scores[:, :1], expected - expected[:, :1], rtol=1e-4, atol=1e-4)


def test_spread_of_synthetic_rows_is_left_out_of_the_gaussian() -> None:
    rows = make_rows(per_class=(9, 4, 6, 6), synthetic=12)
    wide = rows.features.clone()
    for k in (5, 9):
        mine = rows.labels == k
        mean = (rows.weights[mine, None] * wide[mine]).sum(dim=0) / rows.weights[mine].sum()
        wide[mine] = mean + 50 * (wide[mine] - mean)
    one, other = fit_gaussian(rows, IDS, Recipe()), fit_gaussian(replace(rows, features=wide), IDS, Recipe())
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-3, atol=1e-3)


# --------------------------------------------------------------------------------------------------------------- recipe


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"scaling": "whitend"}, "scaling='whitend'.*minmax, l2, whitened"),
        ({"classifier": "svm"}, "classifier='svm'.*softmax.*gaussian"),
        ({"classifier_epochs": 0}, "classifier_epochs=0"),
        ({"classifier_batch": -1}, "classifier_batch=-1"),
        ({"classifier_lr": 0.0}, "classifier_lr=0"),
        ({"classifier_decay": -0.1}, "classifier_decay=-0.1"),
        ({"shrinkage": 0.0}, "shrinkage=0"),
        ({"shrinkage": 1.1}, "shrinkage=1.1"),
        ({"steps": -1}, "steps=-1"),
        ({"epochs": -1}, "epochs=-1"),
        ({"synthetic": -5}, "synthetic=-5"),
        ({"synthetic_ratio": 0.0}, "synthetic_ratio=0"),
        ({"gamma": float("nan")}, "gamma=nan"),
    ],
)
def test_a_recipe_that_cannot_work_gets_one_sentence(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Recipe(**settings)


def test_synthetic_count_follows_the_seen_classes_unless_given() -> None:
    assert Recipe(synthetic=7).rows_per_class(100) == 7
    assert Recipe(synthetic_ratio=0.5).rows_per_class(31) == 16
    assert Recipe(synthetic_ratio=0.001).rows_per_class(31) == 1


def test_scores_that_are_no_numbers_are_refused() -> None:
    """Else each row that is asked about later would look too large."""
    rows = make_rows()
    with pytest.raises(Diverged, match="the final classifier's scores are no numbers; lower classifier_lr"):
        fit_final_classifier(rows, torch.unique(rows.labels), Recipe(classifier="softmax", classifier_lr=1e38, synthetic=11), 0)
