"""The choices of `blind`: the best of what was tried, the same however often it is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unseen.asking import build_task
from unseen.calibration import HeldOutScores
from unseen.data import Dataset, TrainingView
from unseen.errors import Diverged, RunError, SettingsError
from unseen.evaluation import selection as module
from unseen.evaluation.metrics import harmonic_mean
from unseen.evaluation.protocol import Task
from unseen.evaluation.selection import Selection, select_closed_form, select_recipe
from unseen.recipe import Recipe
from unseen.runs import describe, task_from
from unseen.training import Progress

World = Callable[..., Dataset]
MakeTask = Callable[..., Task]

pytestmark = pytest.mark.usefixtures("few_candidates")


def select(
    task: Task,
    folder: Path,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> tuple[Selection, Recipe]:
    view = task.dataset.training_view(task.split)
    return select_recipe(
        view,
        task.method,  # type: ignore[arg-type]
        task.hyperparameters,
        task.recipe,
        task.seed,
        task.device,
        folder=folder,
        on_phase=on_phase,
        on_progress=on_progress,
        kept=task.kept,
    )


def test_best_candidate_is_chosen_and_all_are_recorded(
    tiny_world: World, tiny_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesise, counts = module.classifier_rows, set()

    def counting(method: Any, view: Any, rows_per_class: int, seed: int, drawn: int) -> Any:
        counts.add((rows_per_class, drawn))
        return synthesise(method, view, rows_per_class, seed, drawn)

    monkeypatch.setattr(module, "classifier_rows", counting)
    task = tiny_task(tiny_world(seen=8, unseen=3), scalings=("minmax", "l2"), synthetic=7, drawn=6)
    trained_up_to: list[int] = []
    chosen, recipe = select(task, tmp_path, lambda progress: trained_up_to.append(progress.step))
    assert trained_up_to.count(24) == 2 * 3  # one generator for each scaling and fold, whatever else is chosen
    # 2 scalings × 3 numbers of steps, then 2 synthetic ratios × 2 classifiers
    assert len(chosen.candidates) == 6 + 4
    assert {(c["scaling"], c["steps"]) for c in chosen.candidates[:6]} == {
        (s, n) for s in ("minmax", "l2") for n in (6, 12, 24)
    }
    assert chosen.objective == max(c["H"] for c in chosen.candidates)
    best = next(c for c in chosen.candidates if c["H"] == chosen.objective)
    assert chosen.chosen == {k: v for k, v in best.items() if k != "H"}
    assert all(getattr(recipe, name) == value for name, value in chosen.chosen.items())
    # A class has fewer than 25 rows in a fold, so 25 counts; the recipe's ratio is 2, and 1 and 4 are tried; 7 rows never
    assert counts == {(50, 6), (25, 6), (100, 6)}
    assert recipe.synthetic == 0
    assert chosen.test_evaluations == 0
    assert chosen.chosen_on == "3 folds of the training rows, holding out 2, 2, 2 seen classes"


@pytest.mark.parametrize(
    ("asked", "scalings", "classifiers"),
    [
        ({"scaling": "whitened"}, {"whitened"}, {"softmax", "gaussian"}),
        ({"classifier": "softmax"}, {"minmax", "l2"}, {"softmax"}),
        ({"scaling": "l2", "classifier": "gaussian"}, {"l2"}, {"gaussian"}),
    ],
)
def test_what_was_asked_for_is_kept_and_the_rest_is_chosen(
    tiny_world: World, tiny_task: MakeTask, tmp_path: Path, asked: dict[str, str], scalings: set[str], classifiers: set[str]
) -> None:
    task = tiny_task(tiny_world(seen=8, unseen=3), scalings=("minmax", "l2"), **asked)
    task = replace(task, kept=tuple(asked))
    chosen, recipe = select(task, tmp_path)
    assert {c["scaling"] for c in chosen.candidates} == scalings
    assert {c["classifier"] for c in chosen.candidates if "classifier" in c} == classifiers
    assert {c["steps"] for c in chosen.candidates} == {6, 12, 24}
    assert {c["synthetic_ratio"] for c in chosen.candidates if "synthetic_ratio" in c} == {1.0, 4.0}
    assert {name: getattr(recipe, name) for name in asked} == asked
    assert len({path.parent.name for path in tmp_path.glob("*/step24.safetensors")}) == 3 * len(scalings)


def test_what_is_kept_is_part_of_the_task(tiny_world: World) -> None:
    world = tiny_world()
    asked = {"scaling": "l2", "classifier": "gaussian"}
    task = build_task(world, "main", "tfvaegan", "blind", 0, asked, None)
    assert set(task.kept) == {"scaling", "classifier"}
    description = describe(task, "world", "")
    assert set(task_from(description, world).kept) == set(task.kept)
    recipe = build_task(world, "main", "tfvaegan", "fixed", 0, asked, None).recipe
    assert task.recipe == recipe, "what is not chosen is as fixed has it"
    plain = build_task(world, "main", "tfvaegan", "blind", 0, {"classifier": "ood"}, None)
    assert plain.kept == ()
    assert "kept" not in describe(plain, "world", ""), "names of older jobs stay"
    with pytest.raises(SettingsError, match="blind chooses scaling itself"):
        build_task(world, "main", "class-gaussian", "blind", 0, {"scaling": "l2"}, None)


def test_closed_form_tries_the_whole_grid_and_takes_the_best(tiny_world: World, tiny_task: MakeTask) -> None:
    task = tiny_task(tiny_world(seen=8, unseen=3, noise=2.0), method="class-gaussian")
    chosen, solver, scaling, gamma = select_closed_form(
        task.dataset.training_view("main"),
        task.method,  # type: ignore[arg-type]
        True,
        0,
        task.device,
    )
    assert len(chosen.candidates) == 3 * 4 * 5
    assert len({tuple(c[k] for k in ("scaling", "ridge", "shrinkage")) for c in chosen.candidates}) == 60
    best = max(chosen.candidates, key=lambda c: c["H"])
    assert chosen.objective == best["H"]
    assert (scaling, vars(solver), gamma) == (
        best["scaling"],
        {k: best[k] for k in ("ridge", "shrinkage")},
        best["gamma"],
    )
    assert chosen.chosen == {k: v for k, v in best.items() if k != "H"}


def mean_h(folds: list[HeldOutScores], gamma: float) -> float:
    """Mean H over folds of what is taken with this γ."""
    found = []
    for fold in folds:
        scores = fold.scores - gamma * fold.seen
        right = scores.argmax(axis=1) == fold.labels
        classes = [(fold.seen[c], right[fold.labels == c].mean()) for c in np.unique(fold.labels)]
        s, u = (np.mean([share for seen, share in classes if seen == kind]) for kind in (True, False))
        found.append(harmonic_mean(float(s), float(u)))
    return float(np.mean(found))


def check_scores(folds: list[HeldOutScores], chosen: Selection, view: TrainingView) -> None:
    """They are those that the choice was judged by, of rows that are what they are said to be."""
    assert len(folds) == 3
    assert mean_h(folds, chosen.chosen["gamma"]) == pytest.approx(chosen.objective)
    for fold in folds:
        assert np.array_equal(view.seen[fold.labels], view.labels[fold.rows])  # ids of a fold are places among the seen classes
        assert not set(np.flatnonzero(fold.seen)) & set(fold.labels[fold.of_unseen])


def test_the_scores_of_what_was_chosen_come_without_a_second_training(
    tiny_world: World, tiny_task: MakeTask, tmp_path: Path
) -> None:
    task = tiny_task(tiny_world(seen=8, unseen=3))
    view = task.dataset.training_view("main")
    steps: list[int] = []
    told: list[HeldOutScores] = []
    arguments = (view, task.method, task.hyperparameters, task.recipe, task.seed, task.device)
    chosen, _ = select_recipe(
        *arguments,  # type: ignore[arg-type]
        folder=tmp_path,
        on_phase=lambda phase: None,
        on_progress=lambda progress: steps.append(progress.step),
        on_choice=told.extend,
    )
    assert steps.count(24) == 3
    check_scores(told, chosen, view)


def test_the_scores_of_a_closed_form_choice(tiny_world: World, tiny_task: MakeTask) -> None:
    task = tiny_task(tiny_world(seen=8, unseen=3, noise=2.0), method="class-gaussian")
    view = task.dataset.training_view("main")
    told: list[HeldOutScores] = []
    chosen, *_ = select_closed_form(view, task.method, True, 0, task.device, on_choice=told.extend)  # type: ignore[arg-type]
    check_scores(told, chosen, view)


@pytest.fixture(scope="module")
def small_task(tiny_world: World, tiny_task: MakeTask) -> Task:
    """One scaling, 24 steps a fold."""
    return tiny_task(tiny_world(seen=8, unseen=3))


@pytest.fixture(scope="module")
def uninterrupted(
    small_task: Task, few_candidates: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Selection, Recipe]:
    """Where a selection of `small_task` was made in one go, and what it chose."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, *select(small_task, folder)


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("calls", [1, 2, 5, 8])
def test_interrupted_selection_comes_to_the_same_choice(
    small_task: Task, uninterrupted: tuple[Path, Selection, Recipe], tmp_path: Path, calls: int
) -> None:
    left = calls

    def until_killed(progress: Progress) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    with pytest.raises(Killed):
        select(small_task, tmp_path, until_killed)
    assert select(small_task, tmp_path) == uninterrupted[1:]


@pytest.mark.parametrize("step", [6, 12, 24])
def test_death_while_a_generator_is_stored_loses_nothing(
    small_task: Task,
    uninterrupted: tuple[Path, Selection, Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    write = module.write_arrays

    def dying(path: Path, *rest: Any, **options: Any) -> None:
        if path.name == f"step{step}.safetensors" and "fold1" in str(path):
            raise Killed
        write(path, *rest, **options)

    monkeypatch.setattr(module, "train", partial(module.train, checkpoint_seconds=0.0))  # after every look at the losses
    monkeypatch.setattr(module, "write_arrays", dying)
    with pytest.raises(Killed):
        select(small_task, tmp_path)
    monkeypatch.setattr(module, "write_arrays", write)
    assert select(small_task, tmp_path) == uninterrupted[1:]


def test_finished_folds_are_not_trained_again(small_task: Task, uninterrupted: tuple[Path, Selection, Recipe]) -> None:
    folder, *expected = uninterrupted
    again: list[Progress] = []
    assert select(small_task, folder, again.append) == tuple(expected)
    assert again == []


def test_epochs_become_steps_of_the_whole_training_set(tiny_world: World, tiny_task: MakeTask, tmp_path: Path) -> None:
    """Folds differ in size, so an epoch is as long as on all training rows: steps are chosen, not epochs."""
    world = tiny_world(seen=8, unseen=3, rows=20)  # 14 training rows a class …
    split = world.split("main")
    thin = np.isin(world.labels[split.train], split.seen[:3])
    few = [r for c in split.seen[:3] for r in split.train[world.labels[split.train] == c][:4]]  # … and 4 of three classes
    world = replace(world, splits={"main": replace(split, train=np.concatenate([split.train[~thin], few]))})
    task = tiny_task(world, steps=0, epochs=2)
    chosen, recipe = select(task, tmp_path)
    rows, loops = 5 * 14 + 3 * 4, 2
    most = 2 * loops * -(-rows // 32)
    assert {c["steps"] for c in chosen.candidates} == {round(most * share) for share in (0.25, 0.5, 1)}
    assert recipe.steps == chosen.chosen["steps"]


def diverging(monkeypatch: pytest.MonkeyPatch, *where: tuple[str, int]) -> None:
    """Let the training of these scalings and folds end in a loss that is not finite."""
    train = module.train

    def training(method: Any, view: Any, *rest: Any, checkpoint: Path, **options: Any) -> None:
        if any(checkpoint.parent.name == f"{scaling}-fold{fold}" for scaling, fold in where):
            raise Diverged(f"the loss of {checkpoint.parent.name} is inf")
        train(method, view, *rest, checkpoint=checkpoint, **options)

    monkeypatch.setattr(module, "train", training)


def test_a_scaling_that_diverges_on_a_fold_is_recorded_and_the_others_are_judged(
    tiny_world: World, tiny_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task(tiny_world(seen=8, unseen=3), scalings=("minmax", "l2"))
    expected, _ = select(replace(task, method=replace(task.method, scalings=("l2",))), tmp_path / "l2 alone")
    diverging(monkeypatch, ("minmax", 1))
    chosen, recipe = select(task, tmp_path / "both")
    assert recipe.scaling == "l2"
    assert chosen.candidates == [{"scaling": "minmax", "failed": "the loss of minmax-fold1 is inf"}, *expected.candidates]
    assert replace(chosen, candidates=expected.candidates) == expected
    assert select(task, tmp_path / "both")[0] == chosen  # resumed


def test_a_selection_in_which_everything_diverges_is_a_sentence(
    tiny_world: World, tiny_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task(tiny_world(seen=8, unseen=3), scalings=("minmax", "l2"))
    diverging(monkeypatch, ("minmax", 2), ("l2", 0))
    with pytest.raises(RunError, match=r"every scaling \(minmax, l2\); with minmax: the loss of minmax-fold2 is inf$"):
        select(task, tmp_path)


def test_a_disk_that_refuses_is_no_failed_scaling(
    tiny_world: World, tiny_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: Any, **__: Any) -> None:
        raise RunError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(module, "write_arrays", full)
    with pytest.raises(RunError, match=r"^cannot write"):
        select(tiny_task(tiny_world(seen=8, unseen=3), scalings=("minmax", "l2")), tmp_path)


def test_rows_are_synthesised_once_for_all_classifiers(
    small_task: Task, uninterrupted: tuple[Path, Selection, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, *expected = uninterrupted
    synthesise, made = module.classifier_rows, []
    monkeypatch.setattr(module, "classifier_rows", lambda *args: made.append(args) or synthesise(*args))
    assert select(small_task, folder) == tuple(expected)
    # 3 numbers of steps, then 2 synthetic ratios, on 3 folds
    assert len(made) == (3 + 2) * 3


def test_nothing_is_built_to_count_steps(
    small_task: Task, uninterrupted: tuple[Path, Selection, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, *expected = uninterrupted
    built: list[int] = []

    def building(view: Any, hyperparameters: Any, seed: int) -> Any:
        built.append(len(view.labels))
        return small_task.method.build(view, hyperparameters, seed)  # type: ignore[union-attr]

    task = replace(small_task, method=replace(small_task.method, build=building))
    assert select(task, folder) == tuple(expected)
    whole = len(small_task.dataset.split("main").train)
    assert whole not in built
