"""Run what `unseen export` wrote, with numpy and ONNX Runtime alone: no torch, no data set, no run.

Example:
    >>> classifier = OnnxClassifier("birds.onnx")  # doctest: +SKIP
    >>> classifier.predict(features).names  # doctest: +SKIP
    ['crested auklet', 'house wren']
"""

from __future__ import annotations

import hashlib
import importlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.errors import DataError, MissingDependency, TooLarge

__all__ = ["Answers", "OnnxClassifier"]

FORMAT, VERSION = "unseen-onnx", 1
ROWS_AT_ONCE, PICTURES_AT_ONCE = 4096, 32
"""Run together: bounds memory, not results."""
TAKES = {"features": ("tensor(float)", 1), "pictures": ("tensor(uint8)", 3)}
"""What a graph may take → its type, and how many dimensions one of them has."""


@dataclass(frozen=True)
class Answers:
    """What a classifier says of n rows.

    Args:
        names: of the class with the highest score; None where the confidence is below the threshold of an abstention.
        confidence: (n,) probability of that class.
        unseen_mass: (n,) probability of all classes together that were never seen.
        never_seen: (n,) whether a row is taken for one of a class never seen: `unseen_mass` is above a threshold found on
            folds or, where there is none, the class taken is one of them.
        scores, probabilities: (n, C), γ subtracted.
    """

    names: list[str | None]
    confidence: NDArray[np.float64]
    unseen_mass: NDArray[np.float64]
    never_seen: NDArray[np.bool_]
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]


def answers_of(
    scores: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    names: Sequence[str],
    seen: NDArray[np.bool_],
    flag_threshold: float | None,
    lowest: float = 0.0,
) -> Answers:
    """What scores and probabilities (n, C) of these classes say.

    Args:
        seen: (C,); flag_threshold: see `Answers.never_seen`.
        lowest: confidence below which no class is named.
    """
    taken = scores.argmax(axis=1)
    confidence = probabilities[np.arange(len(taken)), taken]
    mass = probabilities[:, ~seen].sum(axis=1)
    never_seen = ~seen[taken] if flag_threshold is None else mass > flag_threshold
    named = [names[c] if sure >= lowest else None for c, sure in zip(taken, confidence, strict=True)]
    return Answers(named, confidence, mass, never_seen, scores, probabilities)


def check_scored(scores: NDArray[np.float64], first: int = 0) -> None:
    """TooLarge unless the highest score of each row of (n, C) is a finite number; −∞ is that of a class never taken.

    Args:
        first: number of the first row among those that were given.
    """
    beyond = np.flatnonzero(~np.isfinite(scores.max(axis=1)))
    if len(beyond):
        raise TooLarge((beyond + first).tolist())


class OnnxClassifier:
    """An exported classifier, opened.

    Args:
        path: a file that `unseen export` wrote.
        threads: of ONNX Runtime; 0 leaves the choice to it.

    Raises:
        DataError: there is no such file, or it is damaged, foreign or newer.
        MissingDependency: onnxruntime is not installed.

    `names`, `seen` (C,), `gamma`, `temperature`, `flag_threshold`, `abstention` and `metadata` are what the file says; `takes`
    is `features` or `pictures`, and `shape` that of one of them. `sha256` is of the file's bytes.
    """

    def __init__(self, path: Path | str, threads: int = 0) -> None:
        self.path = Path(path)
        try:
            runtime = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise MissingDependency(
                "running an exported classifier needs the package 'onnxruntime'; run: pip install onnxruntime"
            ) from error
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); give a file that `unseen export` wrote") from error
        self.sha256 = hashlib.sha256(data).hexdigest()
        try:
            with (
                tempfile.TemporaryDirectory() as empty
            ):  # where weights would lie that a stranger's file names and does not hold
                options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
                self._session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            told = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # ONNX Runtime's own kinds
            raise DataError(f"{path} is damaged or is no ONNX file; export it again") from error
        if told.get("format") != FORMAT:
            raise DataError(f"{path} is no classifier of ours; give a file that `unseen export` wrote")
        try:
            if int(told["format_version"]) > VERSION:
                raise DataError(f"{path} was written by a newer version of unseen; install that, or export it again")
            self.metadata: dict[str, Any] = {
                name: json.loads(text) for name, text in told.items() if name not in ("format", "format_version")
            }
            [entered] = self._session.get_inputs()
            self.takes, self.shape = str(entered.name), tuple(entered.shape[1:])
            if (entered.type, len(self.shape)) != TAKES[self.takes] or not all(type(size) is int for size in self.shape):
                raise ValueError("it takes something else")
            self.names = tuple(map(str, self.metadata["names"]))
            self.seen: NDArray[np.bool_] = np.array(self.metadata["seen"], bool)
            self.gamma, self.temperature = float(self.metadata["gamma"]), float(self.metadata["temperature"])
            flagged, kept = self.metadata["flag_threshold"], self.metadata["abstention"]
            self.flag_threshold = None if flagged is None else float(flagged)
            self.abstention: dict[str, Any] | None = None
            if kept is not None:
                self.abstention = {**kept, "risk": float(kept["risk"]), "threshold": float(kept["threshold"])}
            made = {output.name: list(output.shape[1:]) for output in self._session.get_outputs()}
            if not [*self.seen.shape] == [len(self.names)] == made["scores"] == made["probabilities"]:
                raise ValueError("it names other classes than it scores")
        except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DataError(f"{path} is damaged ({type(error).__name__} in its metadata); export it again") from error

    def scores(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """(n, C) scores of features or pictures, γ subtracted."""
        return self._both(x)[0]

    def probabilities(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """(n, C) probabilities of features or pictures."""
        return self._both(x)[1]

    def predict(self, x: NDArray[Any]) -> Answers:
        """Everything at once.

        Args:
            x: (n, d) raw features, of any numeric type; or (n, 224, 224, 3) uint8 pictures, RGB, as
                `unseen.encoders.images.cropped` makes them. May be mapped from a disk.

        Raises DataError for rows of another shape or type, or that hold what is no finite number or are too large to be scored.
        """
        lowest = self.abstention["threshold"] if self.abstention else 0.0
        return answers_of(*self._both(x), self.names, self.seen, self.flag_threshold, lowest)

    def _both(self, x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        parts = [self._session.run(["scores", "probabilities"], {self.takes: part}) for part in self._parts(x)]
        scores, probabilities = (np.concatenate(side) for side in zip(*parts, strict=True))
        check_scored(scores)
        return scores, probabilities

    def _parts(self, x: NDArray[Any]) -> Iterator[NDArray[Any]]:
        x = np.asanyarray(x)
        pictures = self.takes == "pictures"
        if x.shape[1:] != self.shape or x.ndim != len(self.shape) + 1:
            wanted = ", ".join(map(str, self.shape))
            raise DataError(f"{self.path} takes {self.takes} of the shape (n, {wanted}), and these are {x.shape}")
        if x.dtype != np.uint8 if pictures else x.dtype.kind not in "fiu":
            raise DataError(f"{self.path} takes {self.takes} of {'uint8' if pictures else 'numbers'}, and these are {x.dtype}")
        at_once = PICTURES_AT_ONCE if pictures else ROWS_AT_ONCE
        for start in range(0, max(1, len(x)), at_once):
            part = np.ascontiguousarray(x[start : start + at_once], np.uint8 if pictures else np.float32)
            if not pictures and not np.isfinite(part).all():
                row = start + int(np.flatnonzero(~np.isfinite(part).all(axis=1))[0])
                raise DataError(f"row {row} holds what is no finite number; mend it or leave it out")
            yield part
