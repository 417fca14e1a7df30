"""`blind`, `fixed` and `paper`: what each looks at, what its row says, and that it learns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unseen.data import Dataset
from unseen.errors import DataError, SettingsError
from unseen.evaluation import best_on_test
from unseen.evaluation import protocol as module
from unseen.evaluation.metrics import harmonic_mean
from unseen.evaluation.protocol import Outcome, Task, Watch, run
from unseen.evaluation.selection import Selection
from unseen.final_classifier import classifier_rows
from unseen.methods import METHODS, Generative
from unseen.methods.base import stream_seed
from unseen.recipe import Recipe
from unseen.runs import describe, evaluate, run_in_folder

World = Callable[..., Dataset]
MakeTask = Callable[..., Task]

TIMES = ("seconds", "seconds_by_phase", "peak_memory")


@pytest.fixture(scope="module")
def blind_task(tiny_world: World, tiny_task: MakeTask) -> Task:
    return tiny_task(tiny_world(seen=20, unseen=4, a=4, noise=0.2), "blind", steps=150, hidden=32)


@pytest.fixture(scope="module")
def blind(blind_task: Task, few_candidates: None) -> Outcome:
    return run(blind_task)


def per_class(labels: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean([(predicted[labels == c] == c).mean() for c in np.unique(labels)]))


# ------------------------------------------------------------------------------------------------------------- blind


def test_a_blind_run_learns_what_the_world_teaches(blind: Outcome) -> None:
    row = blind.row
    assert row["chance_T1"] == 0.25
    assert row["T1"] > 0.5
    assert row["H"] > 0.4  # chance is below 0.1: 24 classes
    assert row["AUSUC"] > 0.4


def test_figures_are_those_of_the_predictions(blind: Outcome) -> None:
    row, test = blind.row, blind.test
    gamma = row["gamma"] * blind.predictor.spread
    assert gamma == blind.gamma
    on_seen, on_unseen = (d.predict(gamma) for d in blind.decisions)
    assert row["S"] == pytest.approx(per_class(test.seen_labels, on_seen))
    assert row["U"] == pytest.approx(per_class(test.unseen_labels, on_unseen))
    assert row["H"] == harmonic_mean(row["S"], row["U"])
    assert row["T1"] == pytest.approx(per_class(test.unseen_labels, blind.conventional))
    assert set(blind.conventional) <= set(blind.predictor.unseen)
    plain = [
        per_class(labels, d.predict())
        for labels, d in zip((test.seen_labels, test.unseen_labels), blind.decisions, strict=True)
    ]
    assert row["H_without_gamma"] == pytest.approx(harmonic_mean(*plain))
    assert row["AUSUC"] == blind.curve.area
    assert blind.curve.at(gamma) == pytest.approx((row["S"], row["U"]))
    assert row["H_interval"][0] < row["H"] < row["H_interval"][1]
    unseen = blind.predictor.unseen
    shares = [np.isin(on_seen[test.seen_labels == c], unseen).mean() for c in np.unique(test.seen_labels)]
    assert row["leak_seen_to_unseen"] == pytest.approx(np.mean(shares))
    shares = [1 - np.isin(on_unseen[test.unseen_labels == c], unseen).mean() for c in np.unique(test.unseen_labels)]
    assert row["leak_unseen_to_seen"] == pytest.approx(np.mean(shares))
    assert row["leak_gap"] == pytest.approx(abs(row["leak_unseen_to_seen"] - row["leak_seen_to_unseen"]))
    assert row["imbalance"] == pytest.approx(abs(row["S"] - row["U"]))


def test_a_row_says_how_its_figures_came_about(blind: Outcome, blind_task: Task) -> None:
    row, world = blind.row, blind_task.dataset
    split = world.split("main")
    expected = {
        "method": "tfvaegan",
        "dataset": "tiny-world",
        "split": "main",
        "seed": 0,
        "protocol": "blind",
        "test_pictures": len(split.test_seen) + len(split.test_unseen),
        "train_rows": len(split.train),
        "seen_classes": 20,
        "unseen_classes": 4,
        "hidden_width": 32,
        "settings_from": "default",
        "hyperparameters": vars(blind_task.hyperparameters),
        "test_used_for_selection": False,
        "test_evaluations": 1,
        "uses_unseen_embeddings": False,
        "transductive": False,
        "split_hash": split.fingerprint,
        "features_hash": world.features_fingerprint,
        "embeddings_hash": world.embeddings_fingerprint,
        "feature_extractor": "a linear map",
        "embedding_source": "normal draws",
        "device": "cpu",
    }
    assert {key: row[key] for key in expected} == expected
    assert {"torch", "numpy", "python", "unseen"} <= row["versions"].keys()
    assert row["seconds"] == pytest.approx(sum(row["seconds_by_phase"].values()))
    assert row["seconds_by_phase"].keys() == {"selection", "training", "classifier", "scoring"}
    chosen = row["selection"]["chosen"]
    assert chosen.keys() >= {"scaling", "steps", "gamma"}
    assert all(row["recipe"][name] == value for name, value in chosen.items())
    assert row["steps"] == chosen["steps"]
    assert row["selection"]["test_evaluations"] == 0
    assert json.loads(json.dumps(row, allow_nan=False))["H"] == row["H"]


def test_a_task_hash_names_the_labels_too(tiny_world: World, tiny_task: MakeTask) -> None:
    world = tiny_world(seen=8, unseen=3)
    test, labels = world.split("main").test_unseen, world.labels.copy()
    one, other = test[0], test[labels[test] != labels[test[0]]][0]
    labels[[one, other]] = labels[[other, one]]
    ours, theirs = (run(tiny_task(data, method="eszsl")).row for data in (world, replace(world, labels=labels)))
    assert ours["split_hash"] == theirs["split_hash"]
    assert ours["labels_hash"] != theirs["labels_hash"]
    assert ours["task_hash"] != theirs["task_hash"]


def test_an_earlier_selection_is_reused(blind: Outcome, blind_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = Selection(**blind.row["selection"])
    recipe = Recipe(**blind.row["recipe"])

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("chosen again")

    monkeypatch.setattr(module, "select_recipe", refuse)
    again = run(replace(blind_task, recipe=recipe, selection=selection, settings_from="folds"))
    for key in ("T1", "U", "S", "H", "AUSUC", "gamma", "recipe", "selection", "task_hash"):
        assert again.row[key] == blind.row[key]


def test_the_same_run_gives_the_same_bits_even_when_it_is_killed_and_resumed(
    blind: Outcome, blind_task: Task, few_candidates: None, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    phases: list[str] = []

    def until_final_training(progress: object) -> None:
        if phases[-1] == "training on all seen rows":
            raise Killed

    with pytest.raises(Killed):
        run(blind_task, Watch(tmp_path, phases.append, until_final_training))
    again = run(blind_task, Watch(tmp_path))
    assert {k: v for k, v in again.row.items() if k not in TIMES} == {k: v for k, v in blind.row.items() if k not in TIMES}
    for kind in ("generalized", "conventional"):
        ours, theirs = getattr(blind.predictor, kind), getattr(again.predictor, kind)
        assert ours.weight.equal(theirs.weight)
        assert ours.bias.equal(theirs.bias)
    assert blind.trained is not None
    assert again.trained is not None
    state = again.trained.state()
    assert all(tensor.equal(state[name]) for name, tensor in blind.trained.state().items())


def test_a_preparation_is_told_of_and_counted_as_a_phase_of_its_own(
    tiny_world: World, tiny_task: MakeTask, few_candidates: None
) -> None:
    task = tiny_task(tiny_world(seen=9, unseen=3), "blind", steps=4)
    method = METHODS["gsmflow"]
    assert isinstance(method, Generative)
    settings = replace(method.default(9, 16, 6)[0], hidden=8, relation_hidden=8)
    task = replace(task, method=replace(method, scalings=("l2",)), hyperparameters=settings)
    phases: list[str] = []
    told: list[tuple[str, int]] = []
    outcome = run(task, Watch(None, phases.append, lambda progress: told.append((phases[-1], progress.steps))))
    fold = "choosing settings: l2 features, fold {} of 3"
    expected = [p for k in (1, 2, 3) for p in (fold.format(k), fold.format(k) + ", preparation", fold.format(k))]
    expected += ["choosing settings: final classifiers on the stored generators"]
    expected += ["training on all seen rows", "preparation on all seen rows", "training on all seen rows"]
    assert phases == [*expected, "synthesising and fitting the final classifier"]
    assert {phase for phase, _ in told} == set(expected) - {"choosing settings: final classifiers on the stored generators"}
    assert all((steps > 4) == ("preparation" in phase) for phase, steps in told)
    assert outcome.row["seconds_by_phase"].keys() == {"selection", "preparation", "training", "classifier", "scoring"}
    assert min(outcome.row["seconds_by_phase"].values()) > 0
    again = run(replace(outcome.task, protocol="paper", selection=None))
    assert again.row["seconds_by_phase"].keys() == {"preparation", "training", "scoring"}


def test_closed_form_under_blind_says_that_its_settings_come_from_folds(tiny_world: World, tiny_task: MakeTask) -> None:
    outcome = run(tiny_task(tiny_world(), "blind", "class-gaussian"))
    row = outcome.row
    assert row["settings_from"] == "folds"  # ridge and shrinkage were chosen there, so they are nobody's default
    assert {k: row["selection"]["chosen"][k] for k in ("ridge", "shrinkage")} == row["hyperparameters"]
    assert row["recipe"] == {
        "scaling": row["selection"]["chosen"]["scaling"],
        "centred": True,
        "gamma": row["selection"]["chosen"]["gamma"],
    }
    assert row["T1"] > 0.8
    assert row["steps"] is None


@pytest.mark.parametrize("method", ["class-gaussian", "tfvaegan"])
def test_gamma_is_in_units_of_the_spread_on_the_rows_of_the_classifier(
    tiny_world: World, tiny_task: MakeTask, method: str
) -> None:
    outcome = run(tiny_task(tiny_world(), "fixed", method, gamma=0.7))
    rows = outcome.view.features
    if outcome.trained is not None:  # real and synthetic rows
        count = 50  # twice 25, as a seen class of this world has fewer
        rows = classifier_rows(outcome.trained, outcome.view, count, stream_seed(0, "synthesis")).features
        assert len(rows) == len(outcome.view.features) + 4 * count
    scores = outcome.predictor.generalized(rows).numpy()
    seen, unseen = outcome.predictor.seen, outcome.predictor.unseen
    spread = (scores[:, seen].max(axis=1) - scores[:, unseen].max(axis=1)).std(ddof=1)
    assert outcome.predictor.spread == pytest.approx(spread, rel=1e-4)
    assert outcome.gamma == pytest.approx(0.7 * spread, rel=1e-4)


# ------------------------------------------------------------------------------------------------------------- fixed


@pytest.mark.parametrize("method", ["tfvaegan", "eszsl"])
def test_fixed_selects_nothing(tiny_world: World, tiny_task: MakeTask, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("folds were cut")

    monkeypatch.setattr("unseen.evaluation.selection.cut_folds", refuse)
    task = tiny_task(tiny_world(seen=8, unseen=3), "fixed", method, gamma=0.5)
    row = run(task).row
    assert row["selection"] is None
    assert row["test_evaluations"] == 1
    assert row["gamma"] == 0.5
    assert row["hyperparameters"] == vars(task.hyperparameters)
    assert row["test_used_for_selection"] is False
    if method == "tfvaegan":
        assert row["recipe"] == asdict(task.recipe)
        assert row["steps"] == 24


def test_training_of_no_step_is_refused(tiny_world: World, tiny_task: MakeTask) -> None:
    world = tiny_world(seen=8, unseen=3)
    for protocol in ("fixed", "paper", "blind"):
        with pytest.raises(SettingsError, match=r"steps=0 and epochs=0 .* --set steps="):
            run(tiny_task(world, protocol, steps=0, epochs=0))


# ------------------------------------------------------------------------------------------------------------- paper


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Every harmonic mean that the protocol computes, in order."""
    values: list[float] = []

    def listening(s: float, u: float) -> float:
        values.append(harmonic_mean(s, u))
        return values[-1]

    for computing in (module, best_on_test):
        monkeypatch.setattr(computing, "harmonic_mean", listening)
    return values


@pytest.mark.usefixtures("few_candidates")
@pytest.mark.parametrize("classifier", ["softmax", "gaussian"])
def test_paper_takes_the_best_of_all_epochs_and_says_so(
    tiny_world: World, tiny_task: MakeTask, scored: list[float], classifier: str
) -> None:
    world = tiny_world(seen=8, unseen=3, noise=0.5)
    task = tiny_task(world, "paper", steps=0, epochs=4, classifier=classifier, classifier_epochs=3, gamma=0.3)
    row = run(task).row
    fits = 4 * (3 if classifier == "softmax" else 1)  # the gaussian classifier is solved, not trained
    tried = scored[:-2]  # the last two are computed for the row
    assert row["H"] == pytest.approx(max(tried))
    [last] = row["selection"]["candidates"]
    assert last["H"] == tried[-1] == harmonic_mean(last["S"], last["U"])
    assert last["step"] == row["steps"]
    assert len(set(tried)) > 1
    assert row["test_evaluations"] == 2 * fits  # generalized and conventional
    assert row["test_used_for_selection"] is True
    assert row["selection"]["chosen_on"] == "the test rows"
    assert row["selection"]["objective"] == pytest.approx(row["H"])
    assert row["gamma"] == 0.0
    assert row["H_without_gamma"] == row["H"]
    assert row["recipe"]["classifier"] == classifier
    json.dumps(row, allow_nan=False)


def test_paper_picks_t1_and_h_each_at_its_own_best(
    tiny_world: World, tiny_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unseen.evaluation.metrics import per_class_accuracy

    values: list[float] = []

    def listening(labels: np.ndarray, predicted: np.ndarray) -> float:
        values.append(per_class_accuracy(labels, predicted))
        return values[-1]

    monkeypatch.setattr(module, "per_class_accuracy", listening)
    task = tiny_task(tiny_world(seen=8, unseen=3, noise=0.5), "paper", steps=0, epochs=3, classifier_epochs=2)
    row = run(task).row
    an_epoch = 2 * 2 + 2  # S and U of two classifier epochs, then T1 of two
    conventional = [v for start in range(0, 3 * an_epoch, an_epoch) for v in values[start + 4 : start + 6]]
    generalized = [
        harmonic_mean(values[start + i], values[start + i + 1]) for start in range(0, 3 * an_epoch, an_epoch) for i in (0, 2)
    ]
    assert row["T1"] == pytest.approx(max(conventional))
    assert row["H"] == pytest.approx(max(generalized))
    [last] = row["selection"]["candidates"]
    assert (last["T1"], last["S"], last["U"]) == (conventional[-1], *values[3 * an_epoch - 4 : 3 * an_epoch - 2])


@pytest.mark.parametrize("classifier", ["softmax", "gaussian"])
def test_t1_has_one_meaning_under_every_protocol(tiny_world: World, tiny_task: MakeTask, classifier: str) -> None:
    """Where paper has nothing to pick from, its T1 is that of fixed: the same classifier on the same draws."""
    world = tiny_world(seen=8, unseen=4, noise=1.2)
    one_epoch = {"steps": 4, "classifier": classifier, "classifier_epochs": 1, "classifier_lr": 0.05}
    fixed = run(tiny_task(world, "fixed", **one_epoch))
    rows = classifier_rows(fixed.trained, fixed.view, 50, stream_seed(0, "synthesis 4"))
    recipe = Recipe(**fixed.row["recipe"])
    expected = module.generative_predictor(
        fixed.predictor.scaler, fixed.view, fixed.trained.represent, rows, recipe, stream_seed(0, "classifier 4")
    )
    paper = run(tiny_task(world, "paper", **one_epoch))
    np.testing.assert_array_equal(paper.conventional, expected.predict_unseen(fixed.test.unseen_features))
    among_unseen = expected.decide(fixed.test.unseen_features).best_unseen
    assert np.array_equal(paper.conventional, among_unseen) is (classifier == "gaussian")


def test_paper_scores_the_last_step_too(tiny_world: World, tiny_task: MakeTask) -> None:
    phases: list[str] = []
    task = tiny_task(tiny_world(seen=8, unseen=3), "paper", steps=10, classifier_epochs=1)  # an epoch is 4 steps here
    run(task, Watch(None, phases.append))
    assert [int(p.split("after step ")[1].split()[0]) for p in phases] == [4, 8, 10]


def test_a_paper_run_scored_again_from_its_folder_gives_the_same_figures(
    tiny_world: World, tiny_task: MakeTask, tmp_path: Path
) -> None:
    world = tiny_world(seen=8, unseen=3, noise=0.5)
    task = tiny_task(world, "paper", steps=0, epochs=4, classifier_epochs=3)
    description = describe(task, "tiny", "unseen train tiny")
    first = run_in_folder(task, tmp_path / "run", description, False, Watch()).row
    again = evaluate(tmp_path / "run", world).row
    for key in ("T1", "U", "S", "H", "AUSUC", "test_evaluations"):
        assert again[key] == first[key]
    assert again["selection"] == first["selection"]


# ----------------------------------------------------------------------------------------------------- what is refused


def test_what_cannot_be_run_is_refused_in_one_sentence(tiny_world: World, tiny_task: MakeTask) -> None:
    world = tiny_world(seen=8, unseen=3)
    with pytest.raises(SettingsError, match="no protocol 'honest'; there are blind, fixed, paper"):
        run(tiny_task(world, "honest"))
    with pytest.raises(SettingsError, match="'eszsl' has no epochs"):
        run(tiny_task(world, "paper", "eszsl"))
    empty = replace(world.split("main"), test_unseen=np.array([], np.int64))
    with pytest.raises(DataError, match="no test rows"):
        run(tiny_task(replace(world, splits={"main": empty})))


def test_a_class_without_test_rows_is_left_out_of_every_figure(tiny_world: World, tiny_task: MakeTask) -> None:
    world = tiny_world()
    split = world.split("main")
    gone = [int(split.seen[2]), int(split.unseen[1])]
    thinned = replace(
        split,
        test_seen=split.test_seen[world.labels[split.test_seen] != gone[0]],
        test_unseen=split.test_unseen[world.labels[split.test_unseen] != gone[1]],
    )
    task = tiny_task(replace(world, splits={"main": thinned}), method="class-gaussian")
    with pytest.warns(UserWarning, match="no test row") as caught:
        row = run(task).row
    assert sorted(str(w.message).split(": ")[1] for w in caught) == sorted(world.classes.names[c] for c in gone)
    assert row["S"] == pytest.approx(1.0)  # separable: the absent classes would pull these down
    assert row["U"] == pytest.approx(1.0)
    assert row["unseen_classes"] == 4  # it could still be answered
    json.dumps(row, allow_nan=False)
