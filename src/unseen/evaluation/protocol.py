"""The three protocols: how settings are found, and when test rows are looked at.

* `blind`: choices are made on folds of the training rows (`unseen.evaluation.selection`), then one retraining on all of them,
  everything frozen, and test scores are computed once.
* `fixed`: settings are given, nothing is selected, the last step counts.
* `paper`: the best of all generator epochs and all classifier epochs *on the test rows*, T1 and H each at its own best, as
  the published systems report. Every such result says `test_used_for_selection`.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

import unseen
from unseen.data.dataset import Dataset, Ids, TestRows, TrainingView, TransductiveView
from unseen.errors import DataError, SettingsError
from unseen.evaluation.alone import module_alone
from unseen.evaluation.balance import domain_balance
from unseen.evaluation.best_on_test import BestOnTest
from unseen.evaluation.cost import Meter
from unseen.evaluation.metrics import (
    Decisions,
    SeenUnseenCurve,
    harmonic_mean,
    interval_of_h,
    per_class_accuracy,
)
from unseen.evaluation.predictor import Predictor, closed_form_predictor, conventional_by_epoch, generative_predictor
from unseen.evaluation.selection import OnChoice, Selection, select_closed_form, select_recipe
from unseen.final_classifier import classifier_rows, classifiers_by_epoch, represent
from unseen.methods import ClosedForm, Generative
from unseen.methods.base import GenerativeMethod, stream_seed
from unseen.methods.installed import supplied_by
from unseen.recipe import Recipe
from unseen.scaling import ScaledView, Scaler
from unseen.storage import hash_of
from unseen.training import Progress, Stage, steps_per_epoch, train, training_steps

Protocol = Literal["blind", "fixed", "paper"]
PROTOCOLS: tuple[Protocol, ...] = ("blind", "fixed", "paper")
PAPER_FILE = "paper.safetensors"
"""Where `paper` keeps the best so far, beside the checkpoint."""
COST_FILE = "cost.json"
"""Where a run counts its seconds while it goes on."""
TRAINING = "training on all seen rows"
SOLVING = "solving"
FITTING = "synthesising and fitting the final classifier"


@dataclass(frozen=True)
class Task:
    """One run, complete: everything that determines its result.

    Args:
        dataset, split: what to learn and be measured on.
        method: which method.
        hyperparameters: of the method; for a closed-form method an instance of it.
        recipe: what surrounds it; `blind` replaces the parts that it chooses.
        settings_from: `published` (a benchmark's preset; where its authors did not publish it so, who did, or `inferred`),
            `default` (with a word on why, where the data share but the name with a benchmark), `folds` (a preset that `blind`
            chose earlier; where that was elsewhere, `folds of another split` or `folds of other data`) or `user`.
        protocol, seed: as they say.
        selection: what `blind` chose earlier on this very split; given, nothing is chosen again.
        kept: of the recipe's settings that `blind` chooses, those of `KEPT` that shall stay as they are.
        device: where to compute.
        threads: of torch, which the last bits of a result depend on; whoever runs the task sees to it that there are so many.
    """

    dataset: Dataset
    split: str
    method: Generative | ClosedForm
    hyperparameters: Any
    recipe: Recipe
    settings_from: str
    protocol: Protocol
    seed: int
    selection: Selection | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = field(default_factory=torch.get_num_threads)
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Watch:
    """How a run tells of its progress and where it keeps unfinished work.

    Args:
        folder: for checkpoints and stored generators; None keeps nothing.
        on_phase: told what begins.
        on_progress: told how training goes.
        on_choice: told what a choice on folds says of the rows held out; None saves asking.
    """

    folder: Path | None = None
    on_phase: Callable[[str], None] = lambda phase: None
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_choice: OnChoice | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Args:
        task: with everything that was chosen.
        row: the result row: figures as fractions, and everything that says how they came about.
        predictor: the trained system.
        trained: the method, if it was trained; view: what it was trained on.
        decisions: on seen and on unseen test rows; conventional: (n,) T1's predictions on unseen test rows.
        curve: the seen–unseen curve.
        gamma: in units of the scores.
        test: the test rows.
    """

    task: Task
    row: dict[str, Any]
    predictor: Predictor
    trained: GenerativeMethod | None
    view: ScaledView
    decisions: tuple[Decisions, Decisions]
    conventional: Ids
    curve: SeenUnseenCurve
    gamma: float
    test: TestRows


def run(task: Task, watch: Watch | None = None) -> Outcome:
    """Carry out one task.

    Raises:
        SettingsError: the protocol does not fit the method or the data.
        DataError: the split has no test rows, or too few classes for folds.
        RunError: training went wrong.
    """
    watch = watch or Watch()
    check_protocol(task.method, task.protocol)
    split = task.dataset.split(task.split)
    if not len(split.test_seen) or not len(split.test_unseen):
        raise DataError(f"split '{split.name}' has no test rows of seen or of unseen classes, so nothing can be measured on it")
    meter = Meter(watch.folder / COST_FILE if watch.folder else None)
    watch = _counting(watch, meter)
    if task.protocol == "blind" and task.selection is None:
        with meter.phase("selection"):
            task = chosen(task, watch)
    view = task.dataset.training_view(task.split)
    if isinstance(task.method, ClosedForm):
        return _run_closed_form(task, view, meter, watch)
    if task.protocol == "paper":
        return _run_paper(task, view, meter, watch)
    return _run_generative(task, view, meter, watch)


def handed(task: Task, view: TrainingView) -> TrainingView | TransductiveView:
    """What training is handed: this view; a method that is transductive by name also gets the unlabelled rows."""
    return task.dataset.transductive_view(task.split) if is_transductive(task.method) else view


def is_transductive(method: Generative | ClosedForm) -> bool:
    """Whether training sees unlabelled test rows."""
    return isinstance(method, Generative) and method.transductive


def check_protocol(method: Generative | ClosedForm, protocol: str) -> Protocol:
    """The protocol of this name; raises SettingsError where there is none, or it does not fit the method."""
    found = next((p for p in PROTOCOLS if p == protocol), None)
    if found is None:
        raise SettingsError(f"there is no protocol '{protocol}'; there are {', '.join(PROTOCOLS)}")
    if protocol == "paper" and isinstance(method, ClosedForm):
        raise SettingsError(f"method '{method.name}' has no epochs to pick on the test rows; use --protocol blind or fixed")
    return found


def choose(task: Task, watch: Watch | None = None) -> tuple[Task, Meter]:
    """What `blind` chooses for a task on folds of its training rows; test rows are out of reach.

    Returns:
        The task with every choice and the record of it in it, and what choosing cost.

    Raises:
        DataError: the split has too few classes for folds.
        RunError: training went wrong.
    """
    watch = watch or Watch()
    meter = Meter(watch.folder / COST_FILE if watch.folder else None)
    with meter.phase("selection"):
        return chosen(task, _counting(watch, meter)), meter


def chosen(task: Task, watch: Watch, held_out: float | None = None) -> Task:
    """The task with what `blind` chooses for it, the cost not measured; see `choose`.

    Args:
        held_out: see `cut_folds`.
    """
    view = task.dataset.training_view(task.split)
    if isinstance(task.method, ClosedForm):
        watch.on_phase("choosing settings on folds")
        selection, solver, scaling, gamma = select_closed_form(
            view, task.method, task.recipe.centred, task.seed, task.device, held_out, on_choice=watch.on_choice
        )
        recipe = replace(task.recipe, scaling=scaling, gamma=gamma)
        return replace(task, hyperparameters=solver, recipe=recipe, selection=selection, settings_from="folds")
    with tempfile.TemporaryDirectory() as temporary:
        selection, recipe = select_recipe(
            view,
            task.method,
            task.hyperparameters,
            task.recipe,
            task.seed,
            task.device,
            folder=watch.folder / "selection" if watch.folder else Path(temporary),
            on_phase=watch.on_phase,
            on_progress=watch.on_progress,
            on_choice=watch.on_choice,
            held_out=held_out,
            kept=task.kept,
        )
    return replace(task, recipe=recipe, selection=selection)


def _turning(watch: Watch, meter: Meter) -> Callable[[Stage], None]:
    """Tell that a method's preparation begins, or is over, and count its time apart."""

    def on_stage(stage: Stage) -> None:
        watch.on_phase({"preparation": "preparation on all seen rows", "training": TRAINING}[stage])
        meter.turn_to(stage)

    return on_stage


def _counting(watch: Watch, meter: Meter) -> Watch:
    def on_progress(progress: Progress) -> None:
        meter.tick()
        watch.on_progress(progress)

    return replace(watch, on_progress=on_progress)


# -------------------------------------------------------------------------------------------------------- closed form


def _run_closed_form(task: Task, view: TrainingView, meter: Meter, watch: Watch) -> Outcome:
    watch.on_phase(SOLVING)
    with meter.phase("training"):
        scaler = Scaler.fit(view, task.recipe.scaling, task.recipe.centred)
        scaled = scaler.view(view, task.device)
        predictor = closed_form_predictor(scaler, scaled, task.hyperparameters.fit(scaled))
    return measure(task, predictor, None, scaled, meter)


# --------------------------------------------------------------------------------------------------- blind and fixed


def _run_generative(task: Task, view: TrainingView, meter: Meter, watch: Watch) -> Outcome:
    assert isinstance(task.method, Generative)
    recipe = task.recipe
    watch.on_phase(TRAINING)
    with meter.phase("training"):
        scaler = Scaler.fit(view, recipe.scaling, recipe.centred)
        scaled = scaler.view(handed(task, view), task.device)
        method = task.method.build(scaled, task.hyperparameters, stream_seed(task.seed, "method"))
        recipe = replace(recipe, steps=training_steps(recipe, task.method.schedule(task.hyperparameters), scaled))
        train(
            method,
            scaled,
            recipe.steps,
            stream_seed(task.seed, "training"),
            checkpoint=watch.folder / "checkpoint.safetensors" if watch.folder else None,
            on_progress=watch.on_progress,
            on_stage=_turning(watch, meter),
        )
    watch.on_phase(FITTING)
    with meter.phase("classifier"):
        count = recipe.rows_per_class(scaled.mean_seen_count)
        rows = classifier_rows(method, scaled, count, stream_seed(task.seed, "synthesis"), recipe.drawn)
        predictor = generative_predictor(scaler, scaled, method.represent, rows, recipe, stream_seed(task.seed, "classifier"))
    return measure(replace(task, recipe=recipe), predictor, method, scaled, meter)


# -------------------------------------------------------------------------------------------------------------- paper


def _run_paper(task: Task, view: TrainingView, meter: Meter, watch: Watch) -> Outcome:
    """Score the test rows after every classifier epoch of every generator epoch; keep the best H and, apart, the best T1.

    What is best so far is kept before each checkpoint. A training that goes on from an older one passes over the steps that
    were scored already: their draws depend on the seed and the step alone.
    """
    assert isinstance(task.method, Generative)
    recipe = task.recipe
    scaler = Scaler.fit(view, recipe.scaling, recipe.centred)
    scaled = scaler.view(handed(task, view), task.device)
    method = task.method.build(scaled, task.hyperparameters, stream_seed(task.seed, "method"))
    schedule = task.method.schedule(task.hyperparameters)
    steps = training_steps(recipe, schedule, scaled)
    epoch = schedule.loops * steps_per_epoch(scaled, schedule.batch_size)
    test = task.dataset.test_rows(task.split)
    count = recipe.rows_per_class(scaled.mean_seen_count)
    both = torch.cat([scaled.seen, scaled.unseen]).sort().values
    seen, unseen = scaled.seen.cpu().numpy(), scaled.unseen.cpu().numpy()
    x_seen, x_unseen = (scaler.rows(x, task.device) for x in (test.seen_features, test.unseen_features))
    snapshots = (*range(epoch, steps, epoch), steps)
    kept, checkpoint = (watch.folder / name if watch.folder else None for name in (PAPER_FILE, "checkpoint.safetensors"))
    best = BestOnTest.resume(kept, checkpoint, snapshots, task.device) if kept and checkpoint else BestOnTest()

    def score_epoch(step: int) -> None:
        if step <= best.scored_to:
            return
        watch.on_phase(f"scoring the test rows after step {step} (as published; they choose the result)")
        rows = classifier_rows(method, scaled, count, stream_seed(task.seed, f"synthesis {step}"), recipe.drawn)
        u_seen, u_unseen = represent(method, x_seen), represent(method, x_unseen)
        classifier_seed = stream_seed(task.seed, f"classifier {step}")
        for scores in classifiers_by_epoch(rows, both, recipe, classifier_seed):
            on_seen = Decisions.from_scores(scores(u_seen).cpu().numpy(), seen, unseen)
            on_unseen = Decisions.from_scores(scores(u_unseen).cpu().numpy(), seen, unseen)
            s = per_class_accuracy(test.seen_labels, on_seen.predict())
            u = per_class_accuracy(test.unseen_labels, on_unseen.predict())
            best.see_generalized(u, s, scores, step, method)
        for conventional in conventional_by_epoch(rows, scaled, scores, recipe, classifier_seed):
            predicted = unseen[conventional(u_unseen).argmax(dim=1).cpu().numpy()]
            best.see_conventional(per_class_accuracy(test.unseen_labels, predicted), predicted)
        best.scored_to = step
        if kept:
            best.save(kept)

    with meter.phase("training"):
        train(
            method,
            scaled,
            steps,
            stream_seed(task.seed, "training"),
            checkpoint=checkpoint,
            snapshots=snapshots,
            on_snapshot=score_epoch,
            on_progress=watch.on_progress,
            on_stage=_turning(watch, meter),
        )
    assert best.generalized is not None  # the last step is always scored
    method.load_state(best.networks)
    generalized = best.generalized
    predictor = Predictor(
        scaler=scaler,
        represent=method.represent,
        generalized=generalized,
        conventional=generalized.only(scaled.unseen),
        seen=seen,
        unseen=unseen,
        spread=1.0,
        device=task.device,
    )
    selection = Selection(
        chosen_on="the test rows",
        chosen={"step": best.step},
        objective=best.H,
        candidates=[{"step": steps, **best.last}],
        test_evaluations=best.evaluations,
    )
    task = replace(task, recipe=replace(recipe, steps=steps, gamma=0.0), selection=selection)
    return measure(task, predictor, method, scaled, meter, conventional=best.conventional)


# ------------------------------------------------------------------------------------------------------------ measure


def measure(
    task: Task,
    predictor: Predictor,
    trained: GenerativeMethod | None,
    view: ScaledView,
    meter: Meter,
    conventional: Ids | None = None,
) -> Outcome:
    """Look at the test rows, once, and write down everything that the figures depend on.

    Args:
        task: with the hyper-parameters, the recipe and the selection that `predictor` was made with.
        meter: what it cost so far.
        conventional: (n,) T1's predictions, where they come from another epoch than `predictor`.
    """
    begun = time.monotonic()
    hyperparameters, recipe, selection = task.hyperparameters, task.recipe, task.selection
    test = task.dataset.test_rows(task.split)
    on_seen, on_unseen = predictor.decide(test.seen_features), predictor.decide(test.unseen_features)
    curve = SeenUnseenCurve.of(on_seen, test.seen_labels, on_unseen, test.unseen_labels)
    gamma = recipe.gamma * predictor.spread
    if conventional is None:
        conventional = predictor.predict_unseen(test.unseen_features)
    seen_taken_for, unseen_taken_for = on_seen.predict(gamma), on_unseen.predict(gamma)
    S, U = per_class_accuracy(test.seen_labels, seen_taken_for), per_class_accuracy(test.unseen_labels, unseen_taken_for)
    alone = module_alone(trained, predictor, view, test)
    dataset, split = task.dataset, task.dataset.split(task.split)
    seconds = {**meter.seconds, "scoring": time.monotonic() - begun}
    row: dict[str, Any] = {
        "method": task.method.name,
        "dataset": dataset.name,
        "split": split.name,
        "seed": task.seed,
        "protocol": task.protocol,
        "T1": per_class_accuracy(test.unseen_labels, conventional),
        "U": U,
        "S": S,
        "H": harmonic_mean(S, U),
        "AUSUC": curve.area,
        "H_without_gamma": harmonic_mean(
            per_class_accuracy(test.seen_labels, on_seen.predict()), per_class_accuracy(test.unseen_labels, on_unseen.predict())
        ),
        "H_interval": interval_of_h(
            test.seen_labels, seen_taken_for == test.seen_labels, test.unseen_labels, unseen_taken_for == test.unseen_labels
        ),
        "gamma": recipe.gamma,
        **domain_balance(test.seen_labels, seen_taken_for, test.unseen_labels, unseen_taken_for, predictor.unseen),
        "test_pictures": len(test.seen_labels) + len(test.unseen_labels),
        "train_rows": len(view.labels),
        "seen_classes": len(view.seen),
        "unseen_classes": len(view.unseen),
        "chance_T1": 1 / len(view.unseen),
        "hidden_width": vars(hyperparameters).get("hidden"),
        "steps": recipe.steps if trained is not None else None,
        "seconds": sum(seconds.values()),
        "seconds_by_phase": seconds,
        "peak_memory": meter.peak_memory,
        "threads": task.threads,
        "hyperparameters": vars(hyperparameters).copy(),
        "recipe": asdict(recipe) if trained is not None else {k: getattr(recipe, k) for k in ("scaling", "centred", "gamma")},
        "settings_from": task.settings_from,
        "selection": asdict(selection) if selection else None,
        "test_used_for_selection": task.protocol == "paper",
        "test_evaluations": selection.test_evaluations if selection and selection.test_evaluations else 1,
        "module_alone": alone,
        "diagnostic_evaluations": int(alone is not None),
        "uses_unseen_embeddings": bool(trained is not None and trained.uses_unseen_embeddings),
        "transductive": is_transductive(task.method),
        "split_hash": split.fingerprint,
        "features_hash": dataset.features_fingerprint,
        "embeddings_hash": dataset.embeddings_fingerprint,
        "labels_hash": dataset.labels_fingerprint(split.name),
        "names_hash": dataset.names_fingerprint(split.name),
        "feature_extractor": dataset.provenance.feature_extractor,
        "embedding_source": dataset.provenance.embedding_source,
        "versions": versions(task.method.name),
        "device": str(task.device),
    }
    row["task_hash"] = task_hash(row)
    return Outcome(task, row, predictor, trained, view, (on_seen, on_unseen), conventional, curve, gamma, test)


def task_hash(row: Mapping[str, Any]) -> str:
    """Names a result by what determines it: equal hashes, equal figures, if a split's training rows stand in the same order.

    The split's hash leaves their order out, so that a public split is known in any file; batches are drawn by place.
    """
    keys = (
        "method",
        "split_hash",
        "features_hash",
        "embeddings_hash",
        "labels_hash",
        "names_hash",
        "seed",
        "protocol",
        "hyperparameters",
        "recipe",
        "device",
        "threads",
    )
    return hash_of({key: row[key] for key in keys})


def versions(method: str = "") -> dict[str, str]:
    """What the figures of a method are computed with; the distribution that supplies it is among it if it is not ours."""
    packages = {name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn")}
    ours = {"unseen": unseen.__version__, "python": platform.python_version(), "machine": platform.machine(), **packages}
    return supplied_by(method) | ours
