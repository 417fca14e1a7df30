"""What a classifier keeps so that it can learn further classes: a trained generator, rows of classes that have some, and all
embeddings. The final classifier follows from it, so classes may come, go and move, and get rows, without training again.

Three rules make the order in which that happens no part of the result. Classes are known by name and stand in the order of
their labels; the noise of each is seeded by its name; rows that come later are ordered by class and bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unseen.calibration import Calibration
from unseen.class_rows import Made, rows_by_class
from unseen.data.dataset import ClassTable, Ids, TrainingView
from unseen.data.validate import check_class_table
from unseen.encoders.text import one_thread
from unseen.errors import SettingsError
from unseen.evaluation.predictor import spread_of_margin
from unseen.final_classifier import ClassifierRows, fit_final_classifier
from unseen.fitted import Fitted
from unseen.gate import Scores
from unseen.linear import LinearScores
from unseen.methods import ClosedForm, Generative, find_method
from unseen.methods.base import GenerativeMethod, stream_seed
from unseen.recipe import FEW, Recipe
from unseen.scaling import ScaledView, Scaler
from unseen.training import Progress, train, training_steps

Labels = NDArray[Any]
"""Class labels as the user has them: texts or numbers."""


@dataclass(frozen=True)
class Learned:
    """A trained method, and everything else that its final classifier follows from.

    Args:
        method: its name; hyperparameters, recipe, seed: what it was trained with. The recipe's `steps` and `synthetic` are
            those of the fit, so they do not change with the classes.
        scaler: fitted on the rows of the fit.
        networks: the entries `network.…` of its state; empty of a closed-form method.
        classes: (C,) different labels, sorted; embeddings: (C, a) float64, as given.
        trained: (C,) classes that had rows when the method was trained.
        retired: (C,) those of them that are no longer answered: their rows are kept, but not used.
        rows: (n, d) scaled rows of the fit in float16, as they are saved; in float32 where float16 cannot hold one. None are
            left where a classifier was saved for inference only.
        labels: (n,) ids of their classes.
        examples, of_examples: (m, d) and (m,): the same of rows that came later, by class and bytes.
        calibration: what folds of the rows of the fit say, in units of the spread; None where nothing was chosen on folds.
        used_unseen_embeddings: whether training looked at classes without rows. A method that is built again says only whether
            it would, with the classes that there are by then.
    """

    method: str
    hyperparameters: Any
    recipe: Recipe
    seed: int
    scaler: Scaler
    networks: Mapping[str, Tensor]
    classes: Labels
    embeddings: NDArray[np.float64]
    trained: NDArray[np.bool_]
    retired: NDArray[np.bool_]
    rows: NDArray[np.floating]
    labels: Ids
    examples: NDArray[np.floating]
    of_examples: Ids
    calibration: Calibration | None = None
    used_unseen_embeddings: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The labels as text: what streams are seeded by."""
        return tuple(str(label) for label in self.classes)

    @property
    def answered(self) -> Labels:
        """The labels that are not retired."""
        return self.classes[~self.retired]

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(C,) classes on the seen side of γ: answered, and trained on rows or with `FEW` that came later."""
        count = np.bincount(self.of_examples, minlength=len(self.classes))
        seen: NDArray[np.bool_] = (self.trained | (count >= FEW)) & ~self.retired
        return seen

    # -- classes come, go and move

    def with_classes(self, classes: Labels, embeddings: NDArray[np.float64]) -> Learned:
        """With these new classes, none of which is known, and whose labels are of the same kind (`unseen.given.like`).

        Raises DataError for names that collide, and embeddings that are not valid or the same as another's.
        """
        wider = self.classes.dtype if self.classes.dtype == object else np.result_type(self.classes, classes)
        together = np.concatenate([self.classes.astype(wider), classes.astype(wider)])
        order = np.argsort(together, kind="stable")
        place = np.argsort(order)
        new = np.zeros(len(classes), bool)
        changed = replace(
            self,
            classes=together[order],
            embeddings=np.concatenate([self.embeddings, embeddings])[order],
            trained=np.concatenate([self.trained, new])[order],
            retired=np.concatenate([self.retired, new])[order],
            labels=place[self.labels],
            of_examples=place[self.of_examples],
        )
        check_class_table(ClassTable(changed.names, changed.embeddings))
        return changed

    def without_classes(self, ids: Ids) -> Learned:
        """Without these classes. Those that the generator was trained on are retired: it needs them where it is built again."""
        retired = self.retired.copy()
        retired[ids] = True
        kept = self.trained | ~retired
        place = np.cumsum(kept) - 1
        examples = ~retired[self.of_examples]
        return replace(
            self,
            classes=self.classes[kept],
            embeddings=self.embeddings[kept],
            trained=self.trained[kept],
            retired=retired[kept],
            labels=place[self.labels],
            examples=self.examples[examples],
            of_examples=place[self.of_examples[examples]],
        )

    def with_examples(self, features: NDArray[np.float32], ids: Ids) -> Learned:
        """With these raw rows (m, d) of classes ids (m,) as well."""
        limit = np.finfo(self.rows.dtype).max  # beyond it where the rows of the fit were within it: an outlier
        rows = np.clip(self.scaler.features(features), -limit, limit).astype(self.rows.dtype)
        together = np.concatenate([self.examples, rows])
        labels = np.concatenate([self.of_examples, ids])
        order = sorted(range(len(labels)), key=lambda row: (labels[row], together[row].tobytes()))
        return replace(self, examples=together[order], of_examples=labels[order])

    # -- what follows from it

    def build(self, device: torch.device) -> GenerativeMethod | None:
        """The trained method with the embeddings of all classes; None where the method is closed-form.

        Only networks are put back, into a method that is built from a row of zeros a class: rows are no part of them.
        """
        entry = find_method(self.method)
        if isinstance(entry, ClosedForm):
            return None
        seen = np.flatnonzero(self.trained)
        blank = torch.zeros(len(seen), len(self.scaler.features.centre), device=device)
        view = self._view(blank, torch.from_numpy(seen).to(device), np.arange(len(self.classes)), seen)
        method = entry.build(view, self.hyperparameters, stream_seed(self.seed, "method"))
        method.load_state({name: tensor.to(device) for name, tensor in self.networks.items()})
        return method

    def fit(self, device: torch.device, made: Made | None = None) -> tuple[Fitted, Made | None]:
        """Synthesise the classes without rows, and fit the final classifier; or solve, where the method is closed-form.

        γ is the recipe's and the temperature the calibration's, in units of the spread of (max seen − max unseen) over the rows
        of *this* classifier, so both are scaled anew with every change of classes; where all classes are on one side there is
        no such unit, γ is 0 and the temperature 1. Which side a class is on, `seen` says.

        Args:
            made: what an earlier fit with other classes made; it saves time and changes no bit.
        """
        seen = self.seen
        columns = np.flatnonzero(~self.retired)
        method = self.build(device)
        further, used = seen[self.of_examples], ~self.retired[self.labels]
        x, y = _on(device, (self.rows, self.labels, used), (self.examples, self.of_examples, further))
        few = _on(device, (self.examples, self.of_examples, ~further))
        if method is None:
            place = torch.from_numpy(np.cumsum(~self.retired) - 1).to(device)
            view = self._view(x, place[y], columns, np.flatnonzero(seen[columns]))
            solved = self.hyperparameters.fit(replace(view, examples=(few[0], place[few[1]])) if len(few[1]) else view)
            # Not a transposed view, whose products differ in their last bits from those of what is saved.
            scores: Scores = LinearScores(solved.weight.contiguous(), solved.bias.contiguous())
            x, y = torch.cat([x, few[0]]), torch.cat([y, few[1]])
            rows = ClassifierRows(x, y, torch.ones(len(y), device=device), synthetic=0)
        else:
            view = self._view(x, y, np.arange(len(self.classes)), np.flatnonzero(seen))
            view = replace(view, unseen=torch.from_numpy(np.flatnonzero(~seen & ~self.retired)).to(device))
            seed, recipe = stream_seed(self.seed, "synthesis"), self.recipe
            rows, made = rows_by_class(method, view, recipe, seed, few, None if method.uses_unseen_embeddings else made)
            if not len(view.unseen):  # then nothing has to be told apart by a gate, nor says how large a batch is
                kind = "softmax" if recipe.classifier == "ood" else recipe.classifier
                recipe = replace(recipe, classifier=kind, classifier_batch=recipe.classifier_batch or recipe.synthetic)
            ids = torch.from_numpy(columns).to(device)
            # A softmax takes thousands of small steps: threads share them hardly quicker, on a busy machine many times slower.
            with nullcontext() if recipe.classifier == "gaussian" else one_thread():
                scores = fit_final_classifier(rows, ids, recipe, stream_seed(self.seed, "classifier"))
        sides = [torch.from_numpy(np.flatnonzero(side[columns])).to(device) for side in (seen, ~seen)]
        calibration = self.calibration
        needed = all(len(side) for side in sides) and (self.recipe.gamma or calibration)
        unit = spread_of_margin(scores, rows.features, *sides) if needed else 0.0
        fitted = Fitted(
            scaler=self.scaler,
            method=method,
            scores=scores,
            names=tuple(str(label) for label in self.classes[columns]),
            seen=seen[columns],
            gamma=self.recipe.gamma * unit,
            temperature=calibration.temperature * unit if calibration and unit else 1.0,
            device=device,
            prototypes=_prototypes(rows, len(self.classes))[columns],
        )
        return fitted, made

    def _view(self, x: Tensor, y: Tensor, ids: Ids, seen: Ids) -> ScaledView:
        """Of the classes with these ids: rows x, y; `seen`, like y, counts in them, and the others are unseen."""
        embeddings = torch.from_numpy(self.scaler.embeddings(self.embeddings[ids]))
        return ScaledView(
            features=x,
            labels=y,
            embeddings=embeddings.to(x.device),
            names=tuple(str(label) for label in self.classes[ids]),
            seen=torch.from_numpy(seen).to(x.device),
            unseen=torch.from_numpy(np.setdiff1d(np.arange(len(ids)), seen)).to(x.device),
            unit_interval=self.scaler.features.kind == "minmax",
        )


def learn(
    view: TrainingView,
    classes: Labels,
    entry: Generative | ClosedForm,
    hyperparameters: Any,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Learned:
    """Train a method on a view, whose classes have these labels.

    Raises SettingsError where training needs unseen classes, and there is none.
    """
    scaler = Scaler.fit(view, recipe.scaling, recipe.centred)
    networks: dict[str, Tensor] = {}
    used = False
    if isinstance(entry, ClosedForm):
        rows = as_kept(scaler.features(view.features))
    else:
        scaled = scaler.view(view, device)
        method = entry.build(scaled, hyperparameters, stream_seed(seed, "method"))
        used = method.uses_unseen_embeddings
        if used and not len(view.unseen):
            raise SettingsError(
                f"training {entry.name} with these settings looks at classes without rows, and none is given; give some at the "
                "beginning, or choose another method"
            )
        steps = training_steps(recipe, entry.schedule(hyperparameters), scaled)
        train(method, scaled, steps, stream_seed(seed, "training"), on_progress=on_progress)
        recipe = replace(recipe, steps=steps, synthetic=recipe.rows_per_class(scaled.mean_seen_count))
        networks = {name: t.detach().cpu() for name, t in method.state().items() if name.startswith("network.")}
        rows = as_kept(scaled.features.cpu().numpy())
    trained = np.zeros(len(classes), bool)
    trained[view.seen] = True
    return Learned(
        method=entry.name,
        hyperparameters=hyperparameters,
        recipe=recipe,
        seed=seed,
        scaler=scaler,
        networks=networks,
        classes=classes,
        embeddings=np.asarray(view.classes.embeddings, np.float64),
        trained=trained,
        retired=np.zeros(len(classes), bool),
        rows=rows,
        labels=view.labels,
        examples=rows[:0],
        of_examples=view.labels[:0],
        used_unseen_embeddings=used,
    )


def _prototypes(rows: ClassifierRows, count: int) -> NDArray[np.float32]:
    """(count, d') means of represented rows, as the final classifier weighs them; NaN for a class that has none."""
    classes, means = rows.means
    prototypes = np.full((count, means.shape[1]), np.nan, np.float32)
    prototypes[classes.cpu().numpy()] = means.cpu().numpy()
    return prototypes


def as_kept(scaled: NDArray[np.float32]) -> NDArray[np.floating]:
    """Scaled rows as a classifier keeps and saves them: in float16, unless one does not fit. Rounding here, before the first
    final classifier is fitted, makes one that was saved and read the same as one that was not.

    A row fits where its largest number is one that float16 has with all digits; then no other is off by more than 2⁻¹¹ of it.
    """
    largest = np.maximum(scaled.max(axis=1), -scaled.min(axis=1))
    half = np.finfo(np.float16)
    fits = (largest == 0) | ((largest >= half.smallest_normal) & (largest <= half.max))
    return scaled.astype(np.float16) if fits.all() else scaled


def _on(device: torch.device, *parts: tuple[NDArray[np.floating], Ids, NDArray[np.bool_]]) -> tuple[Tensor, Tensor]:
    """Rows and labels, of each part those that the mask says, in float32: copied once."""
    counts = [int(mask.sum()) for _, _, mask in parts]
    x = np.empty((sum(counts), parts[0][0].shape[1]), np.float32)
    start = 0
    for (rows, _, mask), count in zip(parts, counts, strict=True):
        x[start : start + count] = rows if mask.all() else rows[mask]
        start += count
    labels = np.concatenate([labels[mask] for _, labels, mask in parts])
    return torch.from_numpy(x).to(device), torch.from_numpy(labels).to(device)
