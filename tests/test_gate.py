"""The gated classifier against loops, and through the protocols."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unseen.asking import build_task
from unseen.data import Dataset
from unseen.errors import SettingsError
from unseen.evaluation import selection
from unseen.evaluation.metrics import Decisions
from unseen.evaluation.protocol import Outcome, Task, Watch, run
from unseen.final_classifier import (
    ClassifierRows,
    classifier_rows,
    fit_final_classifier,
    fit_gated_by_epoch,
    fit_linear_softmax,
)
from unseen.gate import (
    SEEN_A_BATCH,
    SYNTHETIC_A_BATCH,
    Detector,
    GatedScores,
    detector_loss,
    entropy,
    fit_detector,
    mean_entropy,
    scores_of,
)
from unseen.linear import LinearScores
from unseen.methods.base import Streams, stream_seed
from unseen.recipe import Recipe
from unseen.runs import describe, evaluate, run_in_folder

World = Callable[..., Dataset]
MakeTask = Callable[..., Task]

GENERATOR = torch.Generator().manual_seed(5)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def entropy_by_loops(logits: Tensor) -> list[float]:
    out = []
    for row in logits.double().tolist():
        total = sum(math.exp(v) for v in row)
        out.append(-sum(math.exp(v) / total * math.log(math.exp(v) / total) for v in row))
    return out


# ------------------------------------------------------------------------------------------------------ detector and loss


def test_entropy_is_that_of_the_softmax_row_by_row() -> None:
    logits = 3 * normal(7, 4)
    assert entropy(logits).tolist() == pytest.approx(entropy_by_loops(logits), abs=1e-6)
    assert float(entropy(torch.zeros(1, 5))) == pytest.approx(math.log(5))
    assert float(entropy(torch.tensor([[200.0, 0.0, 0.0]]))) == 0.0  # sure, and no NaN from 0 · log 0


def test_the_loss_is_the_published_sum_row_by_row() -> None:
    seen, synthetic, targets = 2 * normal(5, 4), normal(9, 4), torch.tensor([3, 0, 0, 2, 1])
    likelihoods = []
    for row, target in zip(seen.double().tolist(), targets.tolist(), strict=True):
        likelihoods.append(math.log(math.exp(row[target]) / sum(math.exp(v) for v in row)))
    expected = sum(entropy_by_loops(seen)) / 5 - sum(likelihoods) / 5 - sum(entropy_by_loops(synthetic)) / 9
    assert float(detector_loss(seen, targets, synthetic)) == pytest.approx(expected, abs=1e-6)


def test_training_equals_a_plain_transcription() -> None:
    """Three epochs over 150 seen and 40 synthetic rows: order of rows, batches, loss and Adam, all written out."""
    seen, targets, synthetic = normal(150, 6), torch.arange(150) % 4, 2 + normal(40, 6)
    *_, fitted = fit_detector(seen, targets, synthetic, classes=4, epochs=3, lr=1e-2, seed=8)

    streams = Streams(8, torch.device("cpu"))
    plain = Detector(6, 4)
    for layer in (plain.first, plain.second, plain.third):
        with torch.no_grad():
            layer.weight.normal_(0, 0.02, generator=streams["initial detector"])
            layer.bias.zero_()
    optimiser = torch.optim.Adam(plain.parameters(), 1e-2, (0.5, 0.999), foreach=False)
    waiting: dict[str, list[int]] = {"seen rows": [], "synthetic rows": []}

    def picked(name: str, count: int, size: int) -> list[int]:
        while len(waiting[name]) < size:
            waiting[name] += torch.randperm(count, generator=streams[name]).tolist()
        taken, waiting[name] = waiting[name][:size], waiting[name][size:]
        return taken

    for _ in range(3 * 3):  # ceil(150 / 64) = 3 batches an epoch
        real, made = picked("seen rows", 150, SEEN_A_BATCH), picked("synthetic rows", 40, min(40, SYNTHETIC_A_BATCH))
        p = torch.softmax(plain(seen[real]), dim=1)
        q = torch.softmax(plain(synthetic[made]), dim=1)
        loss = (
            -(p * p.log()).sum(dim=1).mean() - p[torch.arange(64), targets[real]].log().mean() + (q * q.log()).sum(dim=1).mean()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, value in plain.named_parameters():
        torch.testing.assert_close(fitted.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_it_learns_to_be_unsure_of_synthetic_rows() -> None:
    seen, targets = 3 * torch.eye(8)[torch.arange(160) % 4] + 0.3 * normal(160, 8), torch.arange(160) % 4
    synthetic = 3 * torch.eye(8)[4 + torch.arange(120) % 4] + 0.3 * normal(120, 8)
    *_, detector = fit_detector(seen, targets, synthetic, classes=4, epochs=20, lr=1e-3, seed=0)
    with torch.no_grad():
        assert float(entropy(detector(synthetic)).min()) > float(entropy(detector(seen)).max())


# -------------------------------------------------------------------------------------------------------- gate and experts


@pytest.fixture
def gated() -> GatedScores:
    """Classes 0, 2, 5 are seen, 1, 3 unseen; 4 is of neither."""
    torch.manual_seed(0)
    detector = Detector(6, 3)
    experts = LinearScores(normal(3, 6), normal(3)), LinearScores(normal(2, 6), normal(2))
    return GatedScores(detector, torch.tensor(1.0), experts, (torch.tensor([0, 2, 5]), torch.tensor([1, 3])), 6)


def test_decisions_are_those_of_gate_and_expert_row_by_row(gated: GatedScores) -> None:
    u = 4 * normal(200, 6)
    entropies = entropy_by_loops(gated.detector(u).detach())
    gated = replace(gated, threshold=torch.tensor(float(np.median(entropies))))
    decisions = Decisions.from_scores(gated(u).numpy(), np.array([0, 2, 5]), np.array([1, 3, 4]))
    for gamma in (0.0, 0.02, -0.02):  # γ raises what is asked of a seen row: less entropy
        expected = []
        for k, row in enumerate(u):
            kind = 0 if entropies[k] < float(gated.threshold) - gamma else 1
            scores = [float(w @ row + b) for w, b in zip(gated.experts[kind].weight, gated.experts[kind].bias, strict=True)]
            expected.append(int(gated.class_ids[kind][int(np.argmax(scores))]))
        near = np.abs(np.array(entropies) - float(gated.threshold) + gamma) < 1e-5
        assert (decisions.predict(gamma)[~near] == np.array(expected)[~near]).all()
        assert near.mean() < 0.05
    assert set(decisions.predict()) == {0, 1, 2, 3, 5}


def test_margin_is_what_the_entropy_falls_short_of_the_threshold_by(gated: GatedScores) -> None:
    u = normal(30, 6)
    scores = gated(u)
    margin = scores[:, [0, 2, 5]].amax(dim=1) - scores[:, [1, 3]].amax(dim=1)
    expected = [1.0 - h for h in entropy_by_loops(gated.detector(u).detach())]
    assert margin.tolist() == pytest.approx(expected, abs=1e-6)
    assert bool((scores[:, 4] == -torch.inf).all())


def test_unseen_classes_alone_are_the_unseen_expert(gated: GatedScores) -> None:
    alone = gated.only(torch.tensor([3, 4, 1]))
    u = normal(9, 6)
    torch.testing.assert_close(alone(u)[:, [2, 0]], gated.experts[1](u))
    assert bool((alone(u)[:, 1] == -torch.inf).all())


def test_what_is_stored_gives_the_same_scores(gated: GatedScores) -> None:
    u = normal(9, 6)
    again = scores_of({name: value.clone() for name, value in gated.tensors().items()})
    assert isinstance(again, GatedScores)
    assert torch.equal(again(u), gated(u))
    linear = gated.experts[0]
    assert torch.equal(scores_of(linear.tensors())(u), linear(u))


def some_rows(weight: float = 1.0) -> tuple[ClassifierRows, Tensor]:
    """Real rows of 0, 2, 5 and synthetic rows of 1, 3, and all class ids; 4 has none."""
    labels = torch.tensor([0, 2, 5]).repeat_interleave(20)
    made = torch.tensor([1, 3]).repeat_interleave(15)
    x = 3 * torch.eye(6)[torch.cat([labels, made])] + 0.5 * normal(90, 6)
    weights = torch.cat([torch.ones(60), torch.full((30,), weight)])
    return ClassifierRows(x, torch.cat([labels, made]), weights, 30), torch.arange(6)


def test_each_part_is_fitted_on_its_own_rows() -> None:
    rows, ids = some_rows()
    recipe = Recipe(classifier="ood", classifier_epochs=4)
    fitted = fit_final_classifier(rows, ids, recipe, 7)
    assert isinstance(fitted, GatedScores)
    unseen = fit_linear_softmax(rows.only_synthetic(), torch.tensor([1, 3]), recipe, 7)
    seen = fit_linear_softmax(
        ClassifierRows(rows.features[:60], rows.labels[:60], rows.weights[:60], 0),
        torch.tensor([0, 2, 5]),
        replace(recipe, classifier_batch=15),  # as many as there are synthetic rows a class
        7,
    )
    for expert, expected in zip(fitted.experts, (seen, unseen), strict=True):
        assert torch.equal(expert.weight, expected.weight)
        assert torch.equal(expert.bias, expected.bias)
    by_epoch = list(fit_gated_by_epoch(rows, ids, recipe, 7))
    assert len(by_epoch) == 8  # twice the experts'
    assert torch.equal(by_epoch[-1](rows.features), fitted(rows.features))
    assert not torch.equal(by_epoch[0](rows.features), fitted(rows.features))
    for scores in by_epoch:
        assert float(scores.threshold) == pytest.approx(np.mean(entropy_by_loops(scores.detector(rows.features[:60]).detach())))
        assert torch.equal(scores.threshold, mean_entropy(scores.detector, rows.features[:60]))


def test_labels_of_synthetic_rows_do_not_reach_the_detector() -> None:
    rows, ids = some_rows()
    recipe = Recipe(classifier="ood", classifier_epochs=2)
    swapped = replace(rows, labels=torch.cat([rows.labels[:60], rows.labels[60:].flip(0)]))
    one, other = (fit_final_classifier(r, ids, recipe, 7) for r in (rows, swapped))
    assert isinstance(one, GatedScores)
    assert isinstance(other, GatedScores)
    assert torch.equal(one.detector(rows.features), other.detector(rows.features))
    assert not torch.equal(one.experts[1].weight, other.experts[1].weight)


# ------------------------------------------------------------------------------------------------------------- protocols


def everything(outcome: Outcome) -> dict[str, bytes]:
    stored = {f"gate {name}": value.numpy().tobytes() for name, value in outcome.predictor.generalized.tensors().items()}
    return stored | {"chosen": repr((outcome.row["selection"], outcome.row["recipe"], outcome.row["gamma"])).encode()}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SYNTHETIC_RATIOS", (1.0, 4.0))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("protocol", ["fixed", "blind"])
def test_poisoned_test_rows_change_no_gate_and_no_threshold(protocol: str, tiny_world: World, tiny_task: MakeTask) -> None:
    world = tiny_world(seen=8, unseen=3)
    split = world.split("main")
    features = world.features.copy()
    features[[*split.test_seen, *split.test_unseen]] = 1e30
    outcomes = []
    for data in (world, replace(world, features=features)):
        with np.errstate(all="ignore"):
            outcomes.append(run(tiny_task(data, protocol, classifier="ood", steps=12, classifier_epochs=2)))
    assert everything(outcomes[0]) == everything(outcomes[1])
    row = outcomes[0].row
    assert row["recipe"]["classifier"] == "ood"
    assert row["test_evaluations"] == 1
    if protocol == "blind":
        assert {c.get("classifier", "ood") for c in row["selection"]["candidates"]} == {"ood"}
        assert row["gamma"] == row["selection"]["chosen"]["gamma"]


def test_a_run_is_scored_again_from_its_folder(tiny_world: World, tiny_task: MakeTask, tmp_path: Path) -> None:
    world = tiny_world(seen=8, unseen=3)
    task = tiny_task(world, classifier="ood", steps=12)
    outcome = run_in_folder(task, tmp_path / "run", describe(task, "here", "test"), False, Watch())
    again = evaluate(tmp_path / "run", world)
    for figure in ("T1", "U", "S", "H", "AUSUC", "H_interval"):
        assert again.row[figure] == outcome.row[figure]
    assert everything(again) == everything(outcome)


def test_t1_is_the_unseen_experts(tiny_world: World, tiny_task: MakeTask) -> None:
    outcome = run(tiny_task(tiny_world(), classifier="ood"))
    generalized, conventional = outcome.predictor.generalized, outcome.predictor.conventional
    assert isinstance(generalized, GatedScores)
    assert torch.equal(generalized.experts[1].weight, conventional.weight)
    u = outcome.predictor.represent(outcome.predictor.scaler.rows(outcome.test.unseen_features, torch.device("cpu")))
    best_unseen = generalized(u)[:, outcome.view.unseen].argmax(dim=1)
    assert torch.equal(best_unseen, conventional(u).argmax(dim=1))


def test_paper_takes_the_best_epoch_of_the_detector(tiny_world: World, tiny_task: MakeTask, tmp_path: Path) -> None:
    world = tiny_world(seen=8, unseen=3)
    task = tiny_task(world, "paper", classifier="ood", steps=6, classifier_epochs=2)
    outcome = run_in_folder(task, tmp_path / "run", describe(task, "here", "test"), False, Watch())
    # after each loop of an epoch: four epochs of the detector, two of T1's classifier
    scored = math.ceil(6 / (2 * math.ceil(outcome.row["train_rows"] / 32)))
    assert outcome.row["test_evaluations"] == scored * (4 + 2)
    assert outcome.row["H"] == evaluate(tmp_path / "run", world).row["H"]


def test_blind_is_asked_for_it_by_name(tiny_world: World) -> None:
    world = tiny_world()
    task = build_task(world, "main", "tfvaegan", "blind", 0, {"classifier": "ood"}, None)
    assert task.recipe.classifier == "ood"
    with pytest.raises(SettingsError, match="there is no classifier='odd'; there are softmax, gaussian, ood"):
        Recipe(classifier="odd")  # type: ignore[arg-type]


def test_the_detector_sees_rows_as_the_method_represents_them(tiny_world: World, tiny_task: MakeTask) -> None:
    outcome = run(tiny_task(tiny_world(), classifier="ood"))
    assert outcome.trained is not None
    rows = classifier_rows(outcome.trained, outcome.view, 20, stream_seed(0, "synthesis"))
    assert isinstance(outcome.predictor.generalized, GatedScores)
    assert outcome.predictor.generalized.detector.first.weight.shape[1] == rows.features.shape[1]
