"""What a transductive run may know of the test rows, and that everything made of it says what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unseen.asking import build_task
from unseen.data import Dataset
from unseen.data.dataset import TransductiveView
from unseen.errors import SettingsError
from unseen.evaluation.protocol import Outcome, Task, Watch, run
from unseen.experiments.grid import Grid, expand, methods_named
from unseen.methods import METHODS
from unseen.methods.tfvaegan_transductive import Hyperparameters
from unseen.report.assemble import page_of
from unseen.report.page import render
from unseen.runs import describe, evaluate, run_in_folder

World = Callable[..., Dataset]
MakeTask = Callable[..., Task]

pytestmark = pytest.mark.usefixtures("few_candidates")

NAME = "tfvaegan-transductive"


@pytest.fixture
def task_of(tiny_task: MakeTask) -> MakeTask:
    """A short transductive task."""

    def make(world: Dataset, protocol: str = "fixed", **changes: object) -> Task:
        task = tiny_task(world, protocol, NAME, steps=12)
        return replace(task, hyperparameters=Hyperparameters(**{**vars(task.hyperparameters), **changes}))

    return make


def everything_learned(outcome: Outcome) -> dict[str, bytes]:
    """Every bit that the run learned or chose."""
    predictor, trained = outcome.predictor, outcome.trained
    assert trained is not None
    learned = {f"scaler {name}": array.tobytes() for name, array in predictor.scaler.arrays().items()}
    for name, scores in (("generalized", predictor.generalized), ("conventional", predictor.conventional)):
        learned |= {f"{name} {part}": tensor.numpy().tobytes() for part, tensor in scores.tensors().items()}
    learned |= {name: tensor.numpy().tobytes() for name, tensor in trained.state().items()}
    chosen = {key: outcome.row[key] for key in ("selection", "recipe", "hyperparameters", "gamma", "steps")}
    return learned | {"spread": str(predictor.spread).encode(), "chosen": repr(chosen).encode()}


def with_permuted_labels(world: Dataset) -> Dataset:
    """The unseen test labels among themselves in another order: as many of each class, and other rows."""
    rows = world.split("main").test_unseen
    labels = world.labels.copy()
    labels[rows] = np.random.default_rng(5).permutation(labels[rows])
    assert (labels != world.labels).mean() > 0.05
    return replace(world, labels=labels)


def with_another_prior(world: Dataset) -> Dataset:
    """All unseen test rows but one of each class are of the first unseen class."""
    rows = world.split("main").test_unseen
    labels, unseen = world.labels.copy(), world.split("main").unseen
    labels[rows] = unseen[0]
    labels[rows[: len(unseen)]] = unseen
    return replace(world, labels=labels)


# -------------------------------------------------------------------------------------------------------------- poison


@pytest.mark.parametrize("prior", ["uniform", "estimated"])
@pytest.mark.parametrize("protocol", ["fixed", "blind"])
def test_labels_of_unseen_test_rows_reach_nothing_that_is_learned(
    prior: str, protocol: str, tiny_world: World, task_of: MakeTask
) -> None:
    world = tiny_world(seen=8, unseen=3)
    clean = run(task_of(world, protocol, prior=prior))
    for spoil in (with_permuted_labels, with_another_prior):
        spoiled = run(task_of(spoil(world), protocol, prior=prior))
        assert everything_learned(spoiled) == everything_learned(clean)
        assert spoiled.row["labels_hash"] != clean.row["labels_hash"]  # the poison was there
    if prior == "estimated":
        assert not torch.equal(clean.trained.prior, torch.full((3,), 1 / 3, dtype=torch.float64))  # type: ignore[union-attr]


def test_the_order_of_test_rows_in_the_file_says_nothing(tiny_world: World, task_of: MakeTask) -> None:
    """Files keep the rows of a class together."""
    world = tiny_world(seen=8, unseen=3)
    split = world.split("main")
    by_class = split.test_unseen[np.argsort(world.labels[split.test_unseen], kind="stable")]
    ordered = replace(world, splits={"main": replace(split, test_unseen=by_class)})
    assert everything_learned(run(task_of(ordered))) == everything_learned(run(task_of(world)))


def test_features_of_unseen_test_rows_do_reach_training(tiny_world: World, task_of: MakeTask) -> None:
    """The comparisons above can fail."""
    world = tiny_world(seen=8, unseen=3)
    features = world.features.copy()
    features[world.split("main").test_unseen[0], 0] += 1
    assert everything_learned(run(task_of(replace(world, features=features)))) != everything_learned(run(task_of(world)))


def test_seen_test_rows_reach_nothing(tiny_world: World, task_of: MakeTask) -> None:
    world = tiny_world(seen=8, unseen=3)
    features = world.features.copy()
    features[world.split("main").test_seen] = np.nan
    with np.errstate(all="ignore"):
        spoiled = run(task_of(replace(world, features=features)))
    assert everything_learned(spoiled) == everything_learned(run(task_of(world)))


def test_folds_see_no_unseen_test_row(tiny_world: World, task_of: MakeTask) -> None:
    """What is chosen under blind is chosen on rows of seen classes alone, transductive or not."""
    world = tiny_world(seen=8, unseen=3)
    features = world.features.copy()
    features[world.split("main").test_unseen] += 1
    clean, moved = (run(task_of(data, "blind")) for data in (world, replace(world, features=features)))
    assert clean.row["selection"] == moved.row["selection"]
    assert everything_learned(clean) != everything_learned(moved)  # the training after it does see them


def test_a_fold_hands_out_the_rows_that_play_the_unseen_ones(tiny_world: World, task_of: MakeTask) -> None:
    world = tiny_world(seen=8, unseen=3)
    task, handed = task_of(world, "blind"), []

    def build(view, hyperparameters, seed):  # type: ignore[no-untyped-def]
        handed.append(view)
        return task.method.build(view, hyperparameters, seed)  # type: ignore[union-attr]

    run(replace(task, method=replace(task.method, build=build)))
    training = len(world.split("main").train)
    *of_folds, last = handed
    assert len(last.unlabelled) == len(world.split("main").test_unseen)
    assert len(of_folds) > 3
    for view in of_folds:
        assert len(view.labels) + len(view.unlabelled) < training
        assert len(view.names) == 8  # no unseen class


def test_the_view_holds_the_features_and_nothing_else_of_the_unseen_rows(tiny_world: World) -> None:
    world = tiny_world()
    view, inductive, rows = world.transductive_view("main"), world.training_view("main"), world.split("main").test_unseen
    assert set(vars(view)) == {"inductive", "unlabelled"}
    for name in ("features", "labels", "seen", "unseen"):
        np.testing.assert_array_equal(getattr(view.inductive, name), getattr(inductive, name))
    np.testing.assert_array_equal(np.unique(view.unlabelled, axis=0), np.unique(world.features[rows], axis=0))
    assert not np.array_equal(view.unlabelled, world.features[rows])
    again = TransductiveView.of(inductive, world.features[np.random.default_rng(1).permutation(rows)])
    np.testing.assert_array_equal(again.unlabelled, view.unlabelled)


# -------------------------------------------------------------------------------------------------------------- labels


def test_row_description_and_page_say_that_it_is_transductive(
    tiny_world: World, tiny_task: MakeTask, task_of: MakeTask, tmp_path: Path
) -> None:
    pytest.importorskip("plotly")
    world = tiny_world(seen=8, unseen=3)
    outcomes = []
    for name, task in (("ours", task_of(world)), ("inductive", tiny_task(world, steps=12))):
        outcomes.append(run_in_folder(task, tmp_path / name, describe(task, "here", "test"), False, Watch()))
    ours, inductive = outcomes
    assert ours.row["transductive"] is True
    assert ours.row["uses_unseen_embeddings"] is True
    assert inductive.row["transductive"] is False
    for file in ("task.json", "result.json"):
        assert json.loads((tmp_path / "ours" / file).read_text())["transductive"] is True
    assert "transductive" not in json.loads((tmp_path / "inductive" / "task.json").read_text())  # names of jobs hash it
    again = evaluate(tmp_path / "ours", world)
    assert again.row["transductive"] is True
    assert [again.row[f] for f in ("T1", "U", "S", "H")] == [ours.row[f] for f in ("T1", "U", "S", "H")]

    page = page_of(world, [inductive, ours], [inductive.row, ours.row], "test")
    assert "; transductive: training saw the unseen test rows, without labels." in page.verdict
    html = render(page)
    assert html.count('<span class="flag">transductive</span>') == 1
    assert "transductive" not in page_of(world, [inductive], [inductive.row], "test").verdict


def test_it_is_run_only_where_it_is_asked_for_by_name(toy_folder: Path) -> None:
    assert NAME in METHODS
    assert NAME not in methods_named(("all",))
    assert methods_named((NAME,)) == (NAME,)
    jobs = expand(Grid((NAME, "tfvaegan"), (str(toy_folder),), protocols=("fixed",)), "")
    assert [job.description.get("transductive", False) for job in jobs] == [True, False]


def test_a_given_prior_is_for_the_split_and_not_for_its_folds(tiny_world: World, task_of: MakeTask) -> None:
    world = tiny_world(seen=8, unseen=3)
    shares = json.dumps({world.classes.names[i]: n + 1 for n, i in enumerate(world.split("main").unseen)})
    outcome = run(task_of(world, prior="given", shares=shares))
    assert outcome.trained.prior.tolist() == pytest.approx([1 / 6, 1 / 3, 1 / 2])  # type: ignore[union-attr]
    published = run(task_of(world, "paper", prior="given", shares=shares))
    assert published.trained.prior.tolist() == pytest.approx([1 / 6, 1 / 3, 1 / 2])  # type: ignore[union-attr]
    with pytest.raises(SettingsError, match="use prior=given with --protocol fixed or paper"):
        run(task_of(world, "blind", prior="given", shares=shares))
    typed = build_task(world, "main", NAME, "fixed", 0, {"prior": "given", "shares": shares}, None)
    assert typed.hyperparameters.shares == shares
