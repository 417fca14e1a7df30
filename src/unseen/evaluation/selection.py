"""The choices of the `blind` protocol, made on folds of the training rows.

Each fold is scaled, trained and scored as a data set of its own. The objective is H on the folds' held-out rows, averaged,
with the best common γ; γ is measured in units of each fold's spread of margins.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unseen.calibration import HeldOutScores
from unseen.data.dataset import TrainingView, TransductiveView
from unseen.errors import Diverged
from unseen.evaluation.folds import Fold, cut_folds
from unseen.evaluation.metrics import SeenUnseenCurve, choose_gamma
from unseen.evaluation.predictor import Predictor, RepresentedRows, as_they_are, closed_form_predictor, generative_predictor
from unseen.final_classifier import classifier_rows
from unseen.methods import ClosedForm, Generative
from unseen.methods.base import ClosedFormMethod, FitsTogether, GenerativeMethod, stream_seed
from unseen.recipe import Recipe
from unseen.scaling import ScaledView, Scaler, Scaling
from unseen.storage import read_arrays, write_arrays
from unseen.training import Progress, Stage, train, training_steps

FOLDS = 3
STEP_SHARES = (0.25, 0.5, 1.0)
"""Shares of the recipe's steps after which a generator is stored; one of them becomes the number of steps."""
SYNTHETIC_RATIOS = (1.0, 4.0, 10.0)
"""Synthetic rows per unseen class, relative to the mean number of rows of a seen class."""
CLASSIFIERS: tuple[dict[str, Any], ...] = (
    *({"classifier": "softmax", "classifier_decay": decay} for decay in (0.0, 1e-3, 0.1, 1.0)),
    *({"classifier": "gaussian", "shrinkage": shrinkage} for shrinkage in (0.1, 0.3, 0.6, 0.9)),
)
"""Final classifiers and their regularisation."""
GATE: tuple[dict[str, Any], ...] = ({"classifier": "ood"},)
"""The only one where the recipe asks for it: γ, its threshold, is chosen all the same."""
CHOSEN = ("scaling", "synthetic", "synthetic_ratio", "classifier", "classifier_decay", "shrinkage", "gamma")
"""Recipe settings that are chosen here whatever they were, beside how many of the recipe's steps are taken."""
KEPT = ("scaling", "classifier")
"""Those of them that a user may ask for: they stay, and the others are chosen. Of a classifier its regularisation is."""


@dataclass(frozen=True)
class Selection:
    """What was chosen, on what, and what else was tried.

    Args:
        chosen_on: in words.
        chosen: setting → value.
        objective: mean H on the folds, with γ (for `paper`: H on the test rows).
        candidates: every combination tried, with its objective; before them, scalings that failed, with what went wrong.
            For `paper`, of all epochs that were scored, the last: what it would have reported without choosing on test rows.
        test_evaluations: how often test rows were scored to choose; 0 for `blind`.
    """

    chosen_on: str
    chosen: dict[str, Any]
    objective: float
    candidates: list[dict[str, Any]]
    test_evaluations: int = 0


OnChoice = Callable[[list[HeldOutScores]], None]
"""Told what the classifier that was chosen says of the rows that each fold held out: what probabilities are calibrated on."""


@dataclass(frozen=True)
class _Candidate:
    settings: dict[str, Any]
    gamma: float
    objective: float

    def record(self) -> dict[str, Any]:
        return {**self.settings, "gamma": self.gamma, "H": self.objective}


def select_closed_form(
    view: TrainingView,
    method: ClosedForm,
    centred: bool,
    seed: int,
    device: torch.device,
    held_out: float | None = None,
    *,
    on_choice: OnChoice | None = None,
) -> tuple[Selection, ClosedFormMethod, Scaling, float]:
    """Try every scaling and every value of the method's grid. Returns the record, the solver, the scaling and γ.

    Args:
        on_choice: what was chosen is solved again for it.
        held_out: see `cut_folds`.
    """
    solver_type = method.hyperparameters
    folds = cut_folds(view, FOLDS, stream_seed(seed, "folds"), held_out)
    candidates: list[_Candidate] = []
    grid = [dict(zip(solver_type.GRID, values, strict=True)) for values in itertools.product(*solver_type.GRID.values())]
    for scaling in solver_type.SCALINGS:
        judged = zip(*(_judge_all(fold, scaling, centred, solver_type, grid, device) for fold in folds), strict=True)
        for settings, of_folds in zip(grid, judged, strict=True):
            gamma, objective = choose_gamma([curve for curve, _ in of_folds], [spread for _, spread in of_folds])
            candidates.append(_Candidate({"scaling": scaling, **settings}, gamma, objective))
    best = max(candidates, key=lambda candidate: candidate.objective)
    settings = {name: best.settings[name] for name in solver_type.GRID}
    if on_choice is not None:
        chosen = [
            (fold, *_solve_all(fold, best.settings["scaling"], centred, solver_type, [settings], device)) for fold in folds
        ]
        on_choice([_scores(fold, predictor, rows) for fold, rows, [predictor] in chosen])
    solver = solver_type(**settings)
    return _record(best, candidates, folds), solver, best.settings["scaling"], best.gamma


def _judge_all(
    fold: Fold,
    scaling: Scaling,
    centred: bool,
    solver_type: type[ClosedFormMethod],
    grid: list[dict[str, Any]],
    device: torch.device,
) -> list[tuple[SeenUnseenCurve, float]]:
    """For each of the settings the curve on the fold's held-out rows, and the spread of margins."""
    held_out, predictors = _solve_all(fold, scaling, centred, solver_type, grid, device)
    return [(predictor.curve(held_out), predictor.spread) for predictor in predictors]


def _solve_all(
    fold: Fold,
    scaling: Scaling,
    centred: bool,
    solver_type: type[ClosedFormMethod],
    grid: list[dict[str, Any]],
    device: torch.device,
) -> tuple[RepresentedRows, list[Predictor]]:
    """The fold's held-out rows, and what is solved with each of the settings."""
    scaler = Scaler.fit(fold.view, scaling, centred)
    view = scaler.view(fold.view, device)
    held_out = RepresentedRows.of(fold.held_out, scaler, as_they_are, device)
    solvers = [solver_type(**settings) for settings in grid]
    first = solvers[0]
    fitted = first.fit_all(view, solvers) if isinstance(first, FitsTogether) else [solver.fit(view) for solver in solvers]
    return held_out, [closed_form_predictor(scaler, view, scores) for scores in fitted]


def _scores(fold: Fold, predictor: Predictor, held_out: RepresentedRows) -> HeldOutScores:
    """What a fold's classifier says of its held-out rows, in units of the spread."""
    rows = fold.held_out
    parts = [predictor.generalized(u).double().cpu().numpy() for u in (*held_out.seen, *held_out.unseen)]
    return HeldOutScores(
        scores=np.concatenate(parts) / predictor.spread,
        labels=np.concatenate([rows.seen_labels, rows.unseen_labels]),
        seen=np.isin(np.arange(len(fold.view.classes.names)), predictor.seen),
        rows=np.concatenate([rows.seen_rows, rows.unseen_rows]),
    )


def select_recipe(
    view: TrainingView,
    method: Generative,
    hyperparameters: Any,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    *,
    folder: Path,
    on_phase: Callable[[str], None],
    on_progress: Callable[[Progress], None],
    on_choice: OnChoice | None = None,
    held_out: float | None = None,
    kept: Collection[str] = (),
) -> tuple[Selection, Recipe]:
    """Choose scaling and steps, then synthetic count and final classifier, each with its γ.

    The generator is trained once per fold and scaling and stored after some of its steps; everything else is chosen on what
    was stored. An interrupted selection goes on where it was.

    Args:
        folder: keeps checkpoints and stored generators.
        on_choice: for it, what was chosen is synthesised and fitted again on the stored generators; nothing is trained again.
        held_out: see `cut_folds`.
        kept: which of `KEPT` are as the recipe says, without a choice.

    Raises:
        Diverged: training does, on a fold of every scaling. One that does is recorded, and the others are judged.
    """
    folds = cut_folds(view, FOLDS, stream_seed(seed, "folds"), held_out)
    steps = _steps_to_store(view, method, hyperparameters, recipe)
    tried_scalings = (recipe.scaling,) if "scaling" in kept else method.scalings
    stored = {
        (scaling, number): _StoredGenerators(
            fold, number, scaling, method, hyperparameters, recipe.centred, steps, seed, device, folder
        )
        for scaling in tried_scalings
        for number, fold in enumerate(folds)
    }
    failed: dict[Scaling, str] = {}
    for (scaling, number), generators in stored.items():
        if scaling in failed:
            continue
        phase = f"choosing settings: {scaling} features, fold {number + 1} of {FOLDS}"
        on_phase(phase)
        try:
            generators.train(on_progress, partial(_tell_stage, on_phase, phase))
        except Diverged as error:
            failed[scaling] = str(error)
    scalings = [scaling for scaling in tried_scalings if scaling not in failed]
    if not scalings:
        scaling, sentence = next(iter(failed.items()))
        raise Diverged(f"training on the folds failed with every scaling ({', '.join(failed)}); with {scaling}: {sentence}")

    def judge(settings: dict[str, Any], classifiers: Iterable[dict[str, Any]] = ({},)) -> Iterator[_Candidate]:
        """One candidate for each classifier; rows are synthesised once for all of them."""
        tried = [replace(recipe, synthetic=0, **settings, **classifier) for classifier in classifiers]
        folds_judged = [stored[tried[0].scaling, number].curves(tried) for number in range(FOLDS)]
        for classifier, judged in zip(classifiers, zip(*folds_judged, strict=True), strict=True):
            gamma, objective = choose_gamma([curve for curve, _ in judged], [spread for _, spread in judged])
            yield _Candidate({**settings, **classifier}, gamma, objective)

    on_phase("choosing settings: final classifiers on the stored generators")
    first = [c for scaling in scalings for step in steps for c in judge({"scaling": scaling, "steps": step})]
    generator = max(first, key=lambda candidate: candidate.objective).settings
    classifiers = GATE if recipe.classifier == "ood" else CLASSIFIERS
    if "classifier" in kept:
        classifiers = tuple(c for c in classifiers if c["classifier"] == recipe.classifier)
    second = [c for ratio in SYNTHETIC_RATIOS for c in judge({**generator, "synthetic_ratio": ratio}, classifiers)]
    candidates = [*first, *second]
    best = max(candidates, key=lambda candidate: candidate.objective)
    chosen = replace(recipe, **best.settings, gamma=best.gamma, synthetic=0)
    if on_choice is not None:
        on_choice([stored[chosen.scaling, number].scores(chosen) for number in range(FOLDS)])
    return _record(best, candidates, folds, failed), chosen


def _tell_stage(on_phase: Callable[[str], None], phase: str, stage: Stage) -> None:
    on_phase(f"{phase}, preparation" if stage == "preparation" else phase)


def _steps_to_store(view: TrainingView, method: Generative, hyperparameters: Any, recipe: Recipe) -> tuple[int, ...]:
    """The same steps in every fold: an epoch is one of all training rows, though folds are smaller and differ in size."""
    most = training_steps(recipe, method.schedule(hyperparameters), view)
    return tuple(sorted({max(1, round(share * most)) for share in STEP_SHARES}))


class _StoredGenerators:
    """The generator of one fold and scaling, as it was after each of some steps."""

    def __init__(
        self,
        fold: Fold,
        number: int,
        scaling: Scaling,
        method: Generative,
        hyperparameters: Any,
        centred: bool,
        steps: tuple[int, ...],
        seed: int,
        device: torch.device,
        folder: Path,
    ) -> None:
        self._fold = fold
        self._seed = stream_seed(seed, f"fold {number}")
        self._scaler = Scaler.fit(fold.view, scaling, centred)
        # Transductive: the rows of the classes that play the unseen ones, never those of the truly unseen ones.
        view = TransductiveView.of(fold.view, fold.held_out.unseen_features) if method.transductive else fold.view
        self._view: ScaledView = self._scaler.view(view, device)
        self._method, self._hyperparameters = method, hyperparameters
        self._steps = steps
        self._path = folder / f"{scaling}-fold{number}"

    def _build(self) -> GenerativeMethod:
        return self._method.build(self._view, self._hyperparameters, stream_seed(self._seed, "method"))

    def _stored(self, step: int) -> Path:
        return self._path / f"step{step}.safetensors"

    def train(self, on_progress: Callable[[Progress], None], on_stage: Callable[[Stage], None]) -> None:
        """Train up to the last step and store; goes on where an earlier process stopped."""
        if self._stored(self._steps[-1]).exists():
            return

        trained = self._build()

        def store(step: int) -> None:
            networks = {n: t.cpu().numpy() for n, t in trained.state().items() if n.startswith("network.")}
            write_arrays(self._stored(step), networks, sealed=True)

        checkpoint = self._path / "checkpoint.safetensors"
        train(
            trained,
            self._view,
            self._steps[-1],
            stream_seed(self._seed, "training"),
            checkpoint=checkpoint,
            snapshots=self._steps,
            on_snapshot=store,
            on_progress=on_progress,
            on_stage=on_stage,
        )
        checkpoint.unlink(missing_ok=True)

    def curves(self, recipes: list[Recipe]) -> list[tuple[SeenUnseenCurve, float]]:
        """For each recipe the seen–unseen curve on the fold's held-out rows, and the spread of margins.

        Args:
            recipes: alike but for the final classifier, so that one synthesis does for all; its rows are then let go.
        """
        return [(predictor.curve(held_out), predictor.spread) for predictor, held_out in self._predictors(recipes)]

    def scores(self, recipe: Recipe) -> HeldOutScores:
        """What this recipe's classifier says of the fold's held-out rows."""
        [(predictor, held_out)] = self._predictors([recipe])
        return _scores(self._fold, predictor, held_out)

    def _predictors(self, recipes: list[Recipe]) -> Iterator[tuple[Predictor, RepresentedRows]]:
        mean = self._view.mean_seen_count
        [(steps, per_class, drawn)] = {(recipe.steps, recipe.rows_per_class(mean), recipe.drawn) for recipe in recipes}
        arrays, _ = read_arrays(self._stored(steps))
        generator = self._build()
        generator.load_state({name: torch.tensor(array, device=self._view.device) for name, array in arrays.items()})
        rows = classifier_rows(generator, self._view, per_class, stream_seed(self._seed, "synthesis"), drawn)
        held_out = RepresentedRows.of(self._fold.held_out, self._scaler, generator.represent, self._view.device)
        seed = stream_seed(self._seed, "classifier")
        for recipe in recipes:
            predictor = generative_predictor(
                self._scaler, self._view, generator.represent, rows, recipe, seed, with_conventional=False
            )
            yield predictor, held_out


def _record(
    best: _Candidate, candidates: list[_Candidate], folds: tuple[Fold, ...], failed: Mapping[Scaling, str] | None = None
) -> Selection:
    failures = [{"scaling": scaling, "failed": sentence} for scaling, sentence in (failed or {}).items()]
    held_out = ", ".join(str(len(fold.view.unseen)) for fold in folds)
    return Selection(
        chosen_on=f"{len(folds)} folds of the training rows, holding out {held_out} seen classes",
        chosen={**best.settings, "gamma": best.gamma},
        objective=best.objective,
        candidates=[*failures, *(candidate.record() for candidate in candidates)],
    )
