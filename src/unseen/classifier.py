"""The face of the library: a scikit-learn classifier that knows classes by what is said of them, and learns new ones later."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from unseen.asking import build_task
from unseen.calibration import Calibration, HeldOutScores, Neighbours, calibrate
from unseen.data.dataset import ClassTable, Dataset, Provenance, Split
from unseen.data.validate import check_class_table
from unseen.encoders.embedding import SentenceEncoder
from unseen.encoders.images import ImageEncoder
from unseen.errors import DataError, InputError, SettingsError
from unseen.evaluation.protocol import FITTING, SOLVING, TRAINING, Task, Watch, chosen, is_transductive
from unseen.fitted import Fitted
from unseen.given import alike, as_array, as_input_error, as_labels, distinct, embedded, in_one_sentence, seed_of
from unseen.inference import Answers
from unseen.learned import Labels, Learned, learn
from unseen.methods import ClosedForm
from unseen.state import State

if TYPE_CHECKING:
    from unseen.encoders.backbones import PictureEncoder

__all__ = ["InputError", "ZeroShotClassifier"]

HELD_OUT_CLASSES = 0.2
"""Share of the classes with rows that plays the unseen ones where `blind` chooses: however many unseen classes there are,
because these come and go."""
TOGETHER = 512
"""Rows answered together: few enough for the processor's cache, which makes it quicker, and for any memory."""


class ZeroShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier whose classes need no example: a name with a description, or an embedding, is enough.

    `fit` trains a generator on the classes that have rows, synthesises rows of those that have none, and fits an ordinary
    classifier on both. `add_classes` repeats the last two, which takes seconds.

    Args:
        method: name of a method that is not transductive (`unseen methods` lists them).
        protocol: `fixed` takes the defaults for the size of the data and trains once. `blind` also chooses scaling, length,
            final classifier and γ on folds of the classes that have rows; it trains a generative method once more for every
            fold and scaling. `auto`, the default, is `fixed` for a generative method: synthetic rows make it recognise
            unseen classes without γ, and a first answer should not wait for nine trainings; choose `blind` before you rely on
            it. For a closed-form method, which would hardly ever name an unseen class without a γ from folds and takes
            seconds, `auto` is `blind`, unless there are settings or a preset, or too few classes to cut folds.
        settings: hyper-parameters and parts of the recipe by name, as `unseen train --set` takes them.
        preset: the name of one of the method's presets, or the path of a file that `--save-preset` wrote.
        encoder: of descriptions: what `unseen embed --encoder` takes, or an object with `encode` (a list of n texts → (n, d)
            numbers), `name`, `description` and `fingerprint` (texts; the last changes with whatever changes embeddings).
        image_encoder: the name of the encoder that made the features of pictures, as `unseen features --encoder` takes it; it
            says how pictures become rows where they are to be answered, and `fit` has no use for it.
        random_state: the same integer gives the same classifier, to the bit on one machine. None draws one.
        device: `cpu` or `cuda`; None takes a GPU where there is one.
        threads: of the processor while fitting; None leaves them. The last bits of a result depend on it.

    Attributes:
        classes_: (C,) labels that can be answered, sorted.
        seen_classes_, unseen_classes_: those on the seen side of γ, and the others.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> bird = ZeroShotClassifier().fit(X, y, classes={"wren": "a small …", "okapi": "a striped …"})  # doctest: +SKIP
        >>> bird.add_classes({"quokka": "a small brown marsupial that seems to smile"}).predict(X)  # doctest: +SKIP
    """

    def __init__(
        self,
        method: str = "tfvaegan",
        *,
        protocol: str = "auto",
        settings: Mapping[str, Any] | None = None,
        preset: str | None = None,
        encoder: str | SentenceEncoder = "minilm",
        image_encoder: str | None = None,
        random_state: Any = 0,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.method = method
        self.protocol = protocol
        self.settings = settings
        self.preset = preset
        self.encoder = encoder
        self.image_encoder = image_encoder
        self.random_state = random_state
        self.device = device
        self.threads = threads

    # -- learning

    def fit(self, X: Any, y: Any, classes: Any = None, watch: Watch | None = None) -> ZeroShotClassifier:
        """Learn from rows and from what is said of classes.

        Rows are kept in float16, scaled, because further classes are learned from them; and where the method is generative as
        the final classifier sees them, in float32 and up to 1 GiB, for the next change of classes. While training, other
        copies take up to four times the size of X in float32; X itself, mapped from a disk, is not copied.

        Args:
            X: (n, d) features: NumPy (float16 to float64, mapped or not), pandas, torch.
            y: (n,) labels: texts or whole numbers.
            classes: all classes that may be answered, those of y among them: a mapping from label to embedding, or from label
                to description (a text or several), a Series likewise; a DataFrame with the labels as its index (or as its
                column `name`, where nobody set an index), and numbers or a column `description`; or a pair (labels,
                embeddings). None: the classes of y, told apart only by being different, so that none can be added later.
            watch: its `on_phase` and `on_progress` are told how far it is; for who does not want to wait in silence.

        Raises:
            InputError: X, y or the classes do not fit together, or hold what cannot be learned from.
            SettingsError: a name or a value that does not exist or cannot work.
            RunError: training went wrong.
        """
        with in_one_sentence():
            X, y = validate_data(self, as_array(X), as_array(y), dtype=np.float32)
            seen, ids = distinct(y)
        seed = seed_of(self.random_state, self.settings, self.preset, self.encoder, self.image_encoder)
        if len(seen) < 2:
            raise InputError(f"y has rows of 1 class ({str(seen[0])[:40]!r}), and learning needs two classes or more")
        if classes is None:
            labels, embeddings, encoder = seen, np.eye(len(seen)), None
        else:
            labels, embeddings, encoder = embedded(classes, self.encoder)
            seen = as_labels(seen.tolist())
            if (missing := np.setdiff1d(seen, labels) if alike(seen, labels) else seen).size:
                raise InputError(f"y has label {str(missing[0])[:40]!r}, which is not among the classes given; add it to them")
            order = np.argsort(labels, kind="stable")
            labels, embeddings = labels[order], embeddings[order]
            ids = np.searchsorted(labels, seen)[ids]
        table = ClassTable(tuple(str(label) for label in labels), embeddings)
        with as_input_error():
            check_class_table(table)
        rows, unseen = np.arange(len(X)), np.setdiff1d(np.arange(len(labels)), ids)
        split = Split("all rows", rows, rows[:0], rows[:0], np.unique(ids), unseen)
        one_model = Provenance(feature_extractor="the user's", embedding_source="the user's")  # `prompting` is chosen by name
        data = Dataset("given", X, ids.astype(np.int64), table, {split.name: split}, one_model)
        watch = watch or Watch()
        with self._threads():
            task, calibration = self._task(data, seed, watch)
            view = data.training_view()
            closed_form = isinstance(task.method, ClosedForm)
            watch.on_phase(SOLVING if closed_form else TRAINING)
            learned = learn(
                view, labels, task.method, task.hyperparameters, task.recipe, seed, task.device, on_progress=watch.on_progress
            )
            learned = replace(learned, calibration=calibration)
            if not closed_form:
                watch.on_phase(FITTING)
            fitted, made = learned.fit(task.device)
        self._state = State(labels, fitted, learned, task.settings_from, task.protocol, encoder, made=made)
        return self

    def add_classes(self, classes: Any) -> ZeroShotClassifier:
        """Learn classes that have no row: synthesise them, and fit the final classifier again. The generator stays as it is.

        The result is, to the bit, what `fit` would have given with these classes from the start, in whatever order they come,
        unless the method's training looks at unseen classes; then a warning says so. γ keeps its value in units of the spread
        of (max seen − max unseen), and is scaled with the spread of the new classifier.

        Args:
            classes: as in `fit`, in the same space.

        Raises:
            InputError: no class, a class that is known, colliding names, embeddings of another length or the same as another's.
        """
        state = self._refittable("add")
        labels, embeddings, _ = embedded(classes, self.encoder, state.learned, state.encoder)
        learned = state.learned
        known = np.isin(labels, learned.classes)
        if known.any():
            label = labels[known][0]
            if label in learned.answered:
                raise InputError(f"class {str(label)[:40]!r} is known already; give it to update_classes, or rename it")
            raise InputError(
                f"class {str(label)[:40]!r} was trained on rows and removed, so it cannot come back without them; fit anew"
            )
        with as_input_error():
            return self._become(state, learned.with_classes(labels, embeddings), "add")

    def update_classes(self, classes: Any) -> ZeroShotClassifier:
        """Give classes that the generator was not trained on another description or embedding.

        Args, equality, γ: see `add_classes`.

        Raises InputError: for a class that is not known, or that the generator was trained on with the embedding it has.
        """
        state = self._refittable("update")
        labels, embeddings, _ = embedded(classes, self.encoder, state.learned, state.encoder)
        ids = state.known(labels)
        trained = ids[state.learned.trained[ids]]
        if len(trained):
            raise InputError(
                f"the generator was trained on rows of class {state.learned.names[trained[0]][:40]!r} with the embedding that "
                "it has; fit anew to change it"
            )
        changed = state.learned.embeddings.copy()
        changed[ids] = embeddings
        with as_input_error():
            check_class_table(ClassTable(state.learned.names, changed))
            return self._become(state, replace(state.learned, embeddings=changed), "update")

    def remove_classes(self, classes: Any) -> ZeroShotClassifier:
        """Answer these classes no more.

        Where they had no rows, the result is what `fit` would have given without them, unless the method's training looked at
        unseen classes; then a warning says so. Rows of the others leave the final classifier; generator and scaling, which have
        seen them, stay, and the label cannot be added again.

        Args:
            classes: labels, or one.

        Raises InputError: a label is unknown or given twice, or too few would be left.
        """
        state = self._refittable("remove")
        given = [classes] if isinstance(classes, str) or not np.iterable(classes) else list(classes)
        if not given:
            raise InputError("no class is given to be removed; name one")
        ids = state.known(as_labels(given))
        left = state.learned.without_classes(ids)
        if left.seen.sum() < 2:
            raise InputError("fewer than two classes with rows would be left, and the final classifier needs them; keep some")
        return self._become(state, left, "remove")

    def learn_examples(self, X: Any, y: Any) -> ZeroShotClassifier:
        """Use rows of known classes that came after `fit`; generator, scaling and γ's unit rule stay as they are.

        A class without rows moves from synthetic to real ones: of its weight in the final classifier k / (k + 3) is that of
        k rows (`unseen.recipe.weight_of_few`), and the rest its synthetic rows'. With the 25th (`FEW`) it has real rows only,
        and leaves the unseen side of γ. Closed-form methods, which synthesise nothing, move the class's mean likewise; ESZSL,
        which knows no means, takes the rows as they are. Rows of a class on the seen side join its others. The order in which
        rows come changes nothing.

        Args:
            X: (m, d); y: (m,) labels of known classes.

        Raises InputError: X is not like the rows of the fit, or a label is unknown.
        """
        state = self._refittable("learn examples of")
        with in_one_sentence():
            X, y = validate_data(self, as_array(X), as_array(y), dtype=np.float32, reset=False)
            labels, ids = distinct(y)
        return self._become(state, state.learned.with_examples(X, state.known(labels)[ids]), "learn examples of")

    # -- answering

    def predict(self, X: Any) -> Labels:
        """(n, d) → (n,) labels. Looked at some hundred rows at a time: a mapped file is never copied whole.

        Raises InputError, as whatever answers rows: X is not like the rows of the fit, or has a row that is too large to be
        scored.
        """
        state = self._fitted()
        best = [part.argmax(axis=1) for part in self._decisions(X, state)]
        predicted: Labels = state.classes[np.concatenate(best)]
        return predicted

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """(n, d) → (n, C) scores with γ subtracted from seen classes; of two classes, (n,) the second's minus the first's."""
        state = self._fitted()
        scores = np.concatenate(list(self._decisions(X, state)))
        return scores[:, 1] - scores[:, 0] if len(state.classes) == 2 else scores

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(n, d) → (n, C) softmax of the scores with γ, over the temperature, which is 1 where nothing was calibrated."""
        state = self._fitted()
        return np.concatenate([state.fitted.probabilities(part) for part in self._decisions(X, state)])

    def answers(self, X: Any, *, risk: float | None = None) -> Answers:
        """All that there is to say of rows (n, d): classes, how sure, and whether it is one that was never seen.

        That is so where the probability of all unseen classes together is above a threshold found on folds; without folds,
        where the class taken is one of them.

        Args:
            risk: name no class where the confidence is below the one from which on, on the rows that folds held out, at most
                this share of answers was wrong, by a bound at 95 % (`unseen.calibration.choose_abstention`).

        Raises InputError: there were no folds, or no confidence keeps to the risk.
        """
        state = self._fitted()
        return state.answers(np.concatenate(list(self._decisions(X, state))), risk)

    def explain(self, X: Any, count: int = 3) -> Neighbours:
        """What rows (n, d) resemble: labels and distances of the seen classes whose mean row lies nearest in represented space,
        and of the unseen classes whose mean synthetic row, mixed with few real ones, does: `count` of each, or all there are.

        Closed-form methods synthesise nothing, so an unseen class is never near there until it has rows.
        """
        state = self._fitted()
        found = [state.neighbours(rows, count, first) for first, rows in self._parts(X)]
        return Neighbours(*(np.concatenate([getattr(part, side.name) for part in found]) for side in fields(Neighbours)))

    @property
    def classes_(self) -> Labels:
        """(C,) labels that can be answered, sorted."""
        return self._fitted().classes

    @property
    def seen_classes_(self) -> Labels:
        """Those on the seen side of γ: they had rows in `fit`, or have got enough since."""
        state = self._fitted()
        seen: Labels = state.classes[state.fitted.seen]
        return seen

    @property
    def unseen_classes_(self) -> Labels:
        """The others."""
        state = self._fitted()
        unseen: Labels = state.classes[~state.fitted.seen]
        return unseen

    @property
    def fitted_(self) -> Fitted:
        """What scores rows, as one value: for calibration and export."""
        return self._fitted().fitted

    @property
    def calibration_(self) -> Calibration | None:
        """What folds say of probabilities; None where nothing was chosen on folds, or all classes are on one side of γ."""
        return self._fitted().calibration

    @property
    def told_by_(self) -> str | None:
        """How further classes are told: by `description` or by `embedding`; None where it can learn none."""
        state = self._fitted()
        if state.encoder is None or not len(state.learned.rows):
            return None
        return "description" if state.encoder else "embedding"

    def picture_encoder(self) -> PictureEncoder:
        """The encoder that turns pictures into rows, `image_encoder`, ready; the same one each time.

        Raises InputError: nobody named one, or it is another than the one that the classifier was saved with.
        """
        from unseen.seeing import picture_encoder

        return picture_encoder(self.image_encoder, self._fitted().image_encoder, self.n_features_in_)

    # -- saving

    def save(self, path: Path | str, *, inference_only: bool = False) -> None:
        """Write a folder that `load` reads, whole or not at all. An older model of ours in its place is replaced.

        Args:
            inference_only: leave out the training rows, most of its size; classes can then no longer be added.

        Raises:
            DataError: the folder holds something else, or rows, and this classifier, saved for inference only, none.
            RunError: the disk refuses.
        """
        from unseen.saved import write_model
        from unseen.seeing import told_of

        state = self._fitted()
        state = replace(state, image_encoder=told_of(self.image_encoder, state.image_encoder))
        asked = {name: getattr(self, name) for name in ("method", "protocol", "settings", "preset", "random_state", "threads")}
        asked["encoder"] = self.encoder if isinstance(self.encoder, str) else None
        features = {"count": int(self.n_features_in_), "names": [str(n) for n in getattr(self, "feature_names_in_", ())]}
        write_model(Path(path), state, asked, features, inference_only)

    @staticmethod
    def load(
        path: Path | str,
        *,
        device: str | None = None,
        encoder: str | SentenceEncoder | None = None,
        image_encoder: str | None = None,
    ) -> ZeroShotClassifier:
        """Read what `save` wrote. Nothing in the folder is run, and no file is read that it names.

        Args:
            device: as in the constructor.
            encoder: of further descriptions. Needed where it was another than `minilm`, because a stranger's folder shall not
                say what is loaded; it must be the same, which its fingerprint shows.
            image_encoder: the same for pictures, and for those not made by `efficientnet-lite0`.

        Raises DataError: the folder is missing, damaged, foreign, newer than this version, or holds more than it should.
        """
        from unseen.saved import read_model

        state, asked, features = read_model(Path(path), _device(device))
        if encoder is None:
            encoder = "minilm"
        told = state.image_encoder
        ours = ImageEncoder.name if told is not None and told["name"] == ImageEncoder.name else None
        asked |= {"encoder": encoder, "image_encoder": image_encoder or ours, "device": device}
        loaded = ZeroShotClassifier(**asked)
        loaded.n_features_in_ = features["count"]
        if features["names"]:
            loaded.feature_names_in_ = np.array(features["names"], object)
        loaded._state = state
        if image_encoder is not None:
            loaded.picture_encoder()  # whether it is the same shows now, and not with the first picture
        return loaded

    # -- inside

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_state")

    def _fitted(self) -> State:
        check_is_fitted(self)
        return self._state

    def _refittable(self, verb: str) -> State:
        state = self._fitted()
        if not len(state.learned.rows):
            raise InputError(
                f"this classifier was saved with inference_only=True, so it cannot {verb} classes; load a full one"
            )
        return state

    def _become(self, state: State, learned: Learned, verb: str) -> ZeroShotClassifier:
        with self._threads():
            fitted, made = learned.fit(state.fitted.device, state.made)
        would_look = fitted.method is not None and fitted.method.uses_unseen_embeddings
        if verb != "learn examples of" and (learned.used_unseen_embeddings or would_look):
            warnings.warn(
                f"training {learned.method} with these settings looks at the classes without rows, and it was not repeated, so "
                f"this is not what a fit with the classes it now has would give; fit anew for that",
                stacklevel=3,
            )
        self._state = replace(state, classes=learned.answered, fitted=fitted, learned=learned, made=made)
        return self

    @contextmanager
    def _threads(self) -> Iterator[None]:
        if self.threads is None:
            yield
            return
        if not isinstance(self.threads, int) or self.threads < 1:
            raise SettingsError(f"threads is a whole number of 1 or more, or None, not {self.threads!r}")
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with threadpool_limits(self.threads):
                yield
        finally:
            torch.set_num_threads(before)

    def _task(self, data: Dataset, seed: int, watch: Watch) -> tuple[Task, Calibration | None]:
        """Settings as the command line finds them, and what `blind` chooses; `auto` decided."""
        if self.protocol not in ("auto", "blind", "fixed"):
            raise SettingsError(f"protocol is auto, blind or fixed, not {self.protocol!r}")
        settings = {name: str(value) for name, value in (self.settings or {}).items()}
        asked = "fixed" if self.protocol == "auto" else self.protocol
        task = build_task(data, None, self.method, asked, seed, settings, self.preset)
        task = replace(task, device=_device(self.device))
        closed_form = isinstance(task.method, ClosedForm)
        if is_transductive(task.method):
            raise SettingsError(
                f"method '{self.method}' trains on unlabelled rows of the classes to be recognised, which fit does not "
                "take; choose another, or use `unseen train`"
            )
        if closed_form and self.protocol == "auto" and not settings and self.preset is None:
            try:
                return _chosen_on_folds(replace(task, protocol="blind"), watch)
            except DataError:  # too few classes or rows for folds
                return task, None
        return (task, None) if asked == "fixed" or task.selection else _chosen_on_folds(task, watch)

    def _decisions(self, X: Any, state: State) -> Iterator[NDArray[np.float64]]:
        """Scores with γ, of some hundred rows at a time."""
        return (state.fitted.decide(rows, first) for first, rows in self._parts(X))

    def _parts(self, X: Any) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Checked rows, some hundred at a time, with the number of the first."""
        X = as_array(X)
        count = X.shape[0] if getattr(X, "ndim", 0) == 2 else 0
        for start in range(0, max(1, count), TOGETHER):
            place = slice(start, start + TOGETHER)
            part = X if count <= TOGETHER else X.iloc[place] if hasattr(X, "iloc") else X[place]
            with in_one_sentence(), np.errstate(invalid="ignore"):  # scikit-learn adds all numbers up, which may be too much
                rows: NDArray[np.float32] = validate_data(self, part, dtype=np.float32, reset=False)
            yield start, rows


def _chosen_on_folds(task: Task, watch: Watch) -> tuple[Task, Calibration]:
    """With what `blind` chooses, and what the rows say that the folds held out: there is no test row here to look at."""
    held_out: list[HeldOutScores] = []
    task = chosen(task, replace(watch, folder=None, on_choice=held_out.extend), HELD_OUT_CLASSES)
    return task, calibrate(held_out, task.recipe.gamma)


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise SettingsError(f"there is no device {name!r}; give cpu, cuda or None") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device='cuda', but torch finds no GPU here; give cpu or None")
    return device
