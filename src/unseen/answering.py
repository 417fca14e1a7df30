"""What `unseen predict` does: a model opened from wherever it is kept, and answers to rows or pictures, some at a time.

A model is a classifier's folder, a run, or an exported graph. The last needs ONNX Runtime alone: torch is imported where a
folder is opened, and nowhere else.
"""

from __future__ import annotations

import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unseen.data.pictures import pictures_below
from unseen.data.rows import SUFFIXES, Complain, Rows, rows_of_file, rows_of_stream
from unseen.encoders.images import ImageEncoder, cropped, shown, suffixes
from unseen.errors import DataError, MissingDependency, SettingsError, TooLarge
from unseen.extraction import cores, in_order
from unseen.inference import PICTURES_AT_ONCE, Answers, OnnxClassifier, answers_of

if TYPE_CHECKING:
    from unseen.calibration import Neighbours

NEAREST = 3
"""Classes of each kind that an explanation names."""


class Seeing(Protocol):
    """What turns pictures into what a model takes; a `PictureEncoder` does."""

    @property
    def batch_size(self) -> int:
        """Pictures at once."""

    def prepared(self, picture: str) -> NDArray[Any]:
        """One picture; DataError where it cannot be used."""

    def pooled(self, stacked: NDArray[Any]) -> NDArray[Any]:
        """Prepared pictures as (n, …) the model takes. Several threads may ask at a time."""


@dataclass(frozen=True)
class Model:
    """What answers rows.

    Args:
        names: C classes, in the order of the scores.
        width: features of a row; None where pictures are taken alone.
        answers: (n, d) rows, or what `seeing` makes of pictures → answers.
        seeing: what makes rows of pictures; raises an UnseenError where nothing does.
        calibrated: whether folds say what its probabilities are worth.
        explain: (n, d) rows and a number of classes → what they resemble; None where that is not known.
    """

    names: tuple[str, ...]
    width: int | None
    answers: Callable[[NDArray[Any]], Answers]
    seeing: Callable[[], Seeing]
    calibrated: bool
    explain: Callable[[NDArray[Any], int], Neighbours] | None = None


@dataclass(frozen=True)
class Answered:
    """Answers to some rows or pictures, with the names of these, and what they resemble if that was asked for."""

    inputs: Sequence[str | int]
    answers: Answers
    near: Neighbours | None


# -------------------------------------------------------------------------------------------------------------- models


def open_model(path: Path, risk: float | None = None, dataset: str | None = None, image_encoder: str | None = None) -> Model:
    """Open a model from the folder of a classifier or of a run, or from a `.onnx` file.

    Args:
        risk: share of wrong answers to keep to by not answering.
        dataset: of a run, if it has moved since.
        image_encoder: of a classifier, if its features were made by another than the packaged one.

    Raises:
        DataError: it is none of these, or is damaged, or no confidence keeps to the risk.
        SettingsError: it cannot say which confidence keeps to a risk.
        MissingDependency: a folder, and torch is not installed, or a graph without ONNX Runtime.
    """
    try:
        kind = next((name for name in ("model.json", "task.json") if (path / name).exists()), "")
        a_file = path.is_file()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(str(path)[:200])} cannot be opened ({cause}); check the path") from error
    if dataset is not None and kind != "task.json":
        raise SettingsError("--data says where the data set of a run is, and this is none; leave it out")
    if image_encoder is not None and kind != "model.json":
        raise SettingsError("--image-encoder says how a classifier of `unseen fit` sees, and this is none; leave it out")
    if a_file:
        return _of_graph(path, risk)
    if not kind:
        raise DataError(
            f"{shown(path)} is no model; give a folder that `unseen fit` or `unseen train` wrote, or a .onnx file that "
            "`unseen export` wrote"
        )
    try:
        return _of_classifier(path, risk, image_encoder) if kind == "model.json" else _of_run(path, risk, dataset)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"a folder such as {shown(path)} needs the package '{error.name}'; where that is installed, `unseen export "
            f"{shown(path)} --onnx FILE` makes a file of it that needs onnxruntime alone"
        ) from error


def _of_classifier(path: Path, risk: float | None, image_encoder: str | None) -> Model:
    from unseen.classifier import ZeroShotClassifier

    classifier = ZeroShotClassifier.load(path, image_encoder=image_encoder)

    def answers(x: NDArray[Any]) -> Answers:
        with _columns_by_place():
            return classifier.answers(x, risk=risk)

    def explain(x: NDArray[Any], count: int) -> Neighbours:
        with _columns_by_place():
            return classifier.explain(x, count)

    return Model(
        names=tuple(str(label) for label in classifier.classes_),
        width=int(classifier.n_features_in_),
        answers=answers,
        seeing=classifier.picture_encoder,
        calibrated=classifier.calibration_ is not None,
        explain=explain,
    )


@contextmanager
def _columns_by_place() -> Iterator[None]:
    """scikit-learn warns where a classifier that learned from a DataFrame is given an array."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        yield


def _of_run(path: Path, risk: float | None, dataset: str | None) -> Model:
    from unseen.runs import data_of, open_run

    data = data_of(path, dataset)
    opened = open_run(path, data)
    fitted, calibration = opened.fitted, opened.calibration
    if risk is not None and calibration is None:
        raise SettingsError(
            f"a risk is kept to by what folds held out, and the run {shown(path)} has no such rows; leave it out"
        )
    lowest = calibration.abstention(risk).threshold if calibration is not None and risk is not None else 0.0
    threshold = calibration.flag_threshold if calibration is not None else None

    def answers(x: NDArray[Any]) -> Answers:
        scores = fitted.decide(x)
        return answers_of(scores, fitted.probabilities(scores), fitted.names, fitted.seen, threshold, lowest)

    def seeing() -> Seeing:
        if not data.provenance.feature_extractor.startswith(ImageEncoder.description):
            raise SettingsError(
                f"the features of data set '{data.name}' do not say that they come from {ImageEncoder.name} of this version, "
                "so pictures cannot be made into such; give features"
            )
        return _ready(ImageEncoder(threads=1))

    return Model(fitted.names, len(fitted.scaler.features.centre), answers, seeing, calibration is not None)


def _of_graph(path: Path, risk: float | None) -> Model:
    classifier = OnnxClassifier(path)
    kept = classifier.abstention["risk"] if classifier.abstention else None
    if risk is not None and risk != kept:
        raise SettingsError(
            f"{shown(path)} was exported {'without --risk' if kept is None else f'with --risk {kept:g}'}, and keeps to that; "
            f"export it with --risk {risk:g}, or leave it out"
        )
    pictures = classifier.takes == "pictures"

    def seeing() -> Seeing:
        if not pictures:
            raise SettingsError(
                f"{shown(path)} takes features and no pictures; export it with --pictures, or make features by "
                "`unseen features`"
            )
        return _Cropping()

    width = None if pictures else int(classifier.shape[0])
    return Model(classifier.names, width, classifier.predict, seeing, classifier.metadata.get("calibrated") is True)


class _Cropping:
    """For a graph with the backbone in front, which takes pictures of one size."""

    batch_size = PICTURES_AT_ONCE

    def prepared(self, picture: str) -> NDArray[Any]:
        return cropped(picture)

    def pooled(self, stacked: NDArray[Any]) -> NDArray[Any]:
        return stacked


def _ready(encoder: ImageEncoder) -> ImageEncoder:
    encoder.load()
    return encoder


# --------------------------------------------------------------------------------------------------------------- inputs


def answered(model: Model, source: str, complain: Complain, explain: bool = False) -> Iterator[Answered]:
    """Answers to all that a source holds, some at a time and in its order.

    Args:
        source: a file of features, a picture, a folder of either, or `-` for standard input; see `unseen.data.rows`.
        complain: told in one sentence each of rows and pictures that are left out.
        explain: say what each resembles, too.

    Raises:
        DataError: there is nothing readable, or it holds other features than the model takes.
        SettingsError: the model does not take what the source holds, or cannot explain.
    """
    if explain and model.explain is None:
        raise SettingsError(
            "--explain needs the rows that were learned from, which only a folder of `unseen fit` has; leave it out"
        )
    for rows in _given(model, source, complain):
        yield from _answered(model, rows, complain, explain)


def _answered(model: Model, rows: Rows, complain: Complain, explain: bool) -> Iterator[Answered]:
    """Answers to those of these rows that are not too large to be scored."""
    try:
        answers = model.answers(rows.x)
    except TooLarge as error:
        for k in error.rows:
            complain(f"row {repr(rows.names[k])[:80]} is too large to be scored; left out")
        left = np.setdiff1d(np.arange(len(rows.names)), error.rows)
        if len(left):
            yield from _answered(model, Rows([rows.names[k] for k in left], rows.x[left]), complain, explain)
        return
    near = model.explain(rows.x, NEAREST) if explain and model.explain else None
    yield Answered(rows.names, answers, near)


def _given(model: Model, source: str, complain: Complain) -> Iterator[Rows]:
    if source == "-":
        if sys.stdin is None:
            raise DataError("standard input is closed; write rows to it, or give a file")
        return rows_of_stream(sys.stdin.buffer, "standard input", _width(model), complain)
    path = Path(source)
    try:
        kind = path.stat().st_mode
        held = [name for name in NO_PICTURES if (path / name).exists()] if stat.S_ISDIR(kind) else []
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(source[:200])} cannot be opened ({cause}); check the path") from error
    if (path.suffix.lower() in SUFFIXES and not stat.S_ISDIR(kind)) or "features.json" in held:
        return rows_of_file(path, _width(model), complain)
    if held:
        raise DataError(f"{shown(path)} is {NO_PICTURES[held[0]]}; give features or pictures to be answered")
    if stat.S_ISFIFO(kind):
        return _piped(path, _width(model), complain)
    if not stat.S_ISDIR(kind):
        return _seen(model.seeing(), Path(), (source,), complain)
    paths, problems = pictures_below(path)
    if not paths:
        raise DataError(f"{shown(path)} holds no file, and so no picture; check the path")
    for problem in problems:
        complain(f"{shown(path / problem.path)} {problem.why}; left out")
    encoder, known = model.seeing(), suffixes()
    pictures = [name for name in paths if os.path.splitext(name)[1].lower() in known]
    if not pictures:
        raise DataError(f"{shown(path)} holds no file that is a picture by its name; check the path")
    if len(pictures) < len(paths):
        _tell_of_others(sorted({*paths} - {*pictures}, key=os.fsencode))
    return _seen(encoder, path, pictures, complain)


def _tell_of_others(paths: Sequence[str]) -> None:
    said = "1 file is no picture by its name" if len(paths) == 1 else f"{len(paths)} files are no pictures by their names"
    warnings.warn(f"{said} ({shown(paths[0])}{', …' if len(paths) > 1 else ''}); left aside", stacklevel=2)


NO_PICTURES = {
    "features.json": "a folder of features",
    "dataset.json": "a data set",
    "classes.json": "a folder of class embeddings",
    "model.json": "a model",
    "task.json": "a run",
}
"""A file by which a folder is known → what it is."""


def _width(model: Model) -> int:
    if model.width is None:
        raise SettingsError("the model takes pictures, with the backbone in front, and no features; give it pictures")
    return model.width


def _piped(path: Path, width: int, complain: Complain) -> Iterator[Rows]:
    with path.open("rb") as file:
        yield from rows_of_stream(file, shown(path), width, complain)


def _seen(encoder: Seeing, root: Path, paths: Sequence[str], complain: Complain) -> Iterator[Rows]:
    """Pictures as rows. Ours runs on one thread, so several batches go at a time; a network of torch takes all threads."""
    size = encoder.batch_size
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    threads = cores() if isinstance(encoder, ImageEncoder | _Cropping) else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of every somewhat odd picture
        for rows, problems in in_order(partial(_looked_at, encoder, root), batches, threads):
            for problem in problems:
                complain(problem)
            if len(rows.names):
                yield rows


def _looked_at(encoder: Seeing, root: Path, paths: Sequence[str]) -> tuple[Rows, list[str]]:
    """The rows of those pictures that can be used, and a sentence on each of the others."""
    names: list[str] = []
    prepared: list[NDArray[Any]] = []
    problems: list[str] = []
    for path in paths:
        try:
            prepared.append(encoder.prepared(os.path.join(root, path)))
            names.append(path)
        except DataError as error:
            problems.append(str(error))
    if not prepared:
        return Rows((), np.empty((0, 0), np.float32)), problems
    rows = encoder.pooled(np.stack(prepared))
    finite = np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
    problems += [f"picture {shown(names[k])} gives features that are not finite; leave it out" for k in np.flatnonzero(~finite)]
    return Rows([names[k] for k in np.flatnonzero(finite)], rows[finite]), problems
