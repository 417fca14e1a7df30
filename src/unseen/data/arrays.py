"""A data set from what is in memory: NumPy arrays, pandas tables, a folder of pictures. See `Dataset.from_arrays`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.build import build_dataset, join
from unseen.data.class_file import Classes, load_classes
from unseen.data.collection import Collection, load_collection
from unseen.data.dataset import ClassTable, Dataset, Floats, Provenance, Split
from unseen.data.validate import check_class_table, validate
from unseen.errors import DataError

SHOWN_PROBLEMS = 5
"""Pictures that are left out are warned of one by one up to this many, of what may be a great many."""


def from_arrays(
    X: Any,
    y: Any,
    classes: Any,
    splits: Iterable[Split],
    split: str,
    unseen: str | float | Sequence[str],
    seed: int,
    name: str,
    paths: Sequence[str],
    provenance: Provenance | None,
) -> Dataset:
    """See `Dataset.from_arrays`."""
    described = as_classes(classes)
    if hasattr(X, "index") and hasattr(y, "index") and hasattr(y, "reindex") and not X.index.equals(y.index):
        raise DataError("X and y have different indexes, so their rows may not belong together; align them with y.loc[X.index]")
    known = provenance or Provenance(embedding_source=described.source)
    collection = Collection(_features(X), _labels(y, described.table), tuple(map(str, paths)), known.feature_extractor)
    own = {cut.name: cut for cut in splits}
    if own:
        ids = join(collection.labels, described.table)
        if (ids < 0).any():
            raise DataError(
                f"row {int(np.argmin(ids))} has label {collection.labels[np.argmin(ids)]!r}, which is no class; add it"
            )
        return validate(Dataset(name, collection.features, ids, described.table, own, known, paths=collection.paths))
    built = build_dataset(
        collection,
        Classes(described.table, known.embedding_source),
        name=name,
        split=split,
        unseen=_asked(unseen),
        seed=seed,
        source=known.source,
        licence=known.licence,
    )
    for note in built.notes:
        warnings.warn(note, stacklevel=3)
    return built.dataset


def from_folder(
    folder: Path, classes: Any, split: str, unseen: str | float | Sequence[str], seed: int, name: str | None
) -> Dataset:
    """See `Dataset.from_folder`."""
    from unseen.encoders.backbones import EncoderChoice
    from unseen.encoders.images import shown
    from unseen.extraction import extract

    described = as_classes(classes)  # before the pictures, which take long
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "features"
        problems = extract(folder, place, EncoderChoice()).problems
        for problem in problems[:SHOWN_PROBLEMS]:
            warnings.warn(f"left out: {shown(problem.path)}, which {problem.why}", stacklevel=3)
        if (more := len(problems) - SHOWN_PROBLEMS) > 0:
            warnings.warn(f"left out: {more} more; `unseen features` keeps the whole list, in skipped.csv", stacklevel=3)
        written = load_collection(place)
        collection = replace(written, features=np.array(written.features))  # the file that it maps goes
    built = build_dataset(
        collection,
        described,
        name=folder.resolve().name if name is None else name,
        split=split,
        unseen=_asked(unseen),
        seed=seed,
    )
    for note in built.notes:
        warnings.warn(note, stacklevel=3)
    return built.dataset


def as_classes(given: Any) -> Classes:
    """From any of the ways in which classes can be given to a checked table; see `Dataset.from_arrays`.

    Raises DataError when it is none of them, or the table is not valid.
    """
    if isinstance(given, Classes):
        classes = given
    elif isinstance(given, ClassTable):
        classes = Classes(given, "unknown")
    elif isinstance(given, str | Path):
        return load_classes(Path(given))
    elif isinstance(given, Mapping):
        classes = _of_mapping(given)
    elif hasattr(given, "columns") and hasattr(given, "index"):
        classes = _of_frame(given)
    else:
        raise DataError(
            f"classes are given as {type(given).__name__}; give a ClassTable, a mapping from name to embedding or description, "
            "a DataFrame with the names as its index, or a path"
        )
    check_class_table(classes.table)
    return classes


def _of_mapping(given: Mapping[Any, Any]) -> Classes:
    if given and all(isinstance(text, str) for text in given.values()):
        from unseen.encoders.embedding import embed

        return embed(given)
    names = tuple(str(name).strip() for name in given)
    try:
        embeddings = np.array([np.asarray(vector, np.float64) for vector in given.values()])
    except (ValueError, TypeError) as error:
        raise DataError("the classes' embeddings are not numbers of one length; give each class as many") from error
    return Classes(ClassTable(names, embeddings), "unknown")


def _of_frame(frame: Any) -> Classes:
    texts = {
        key: tuple("" if blank else str(text) for text, blank in zip(frame[key], frame[key].isna(), strict=True))
        for key in ("description", "group")
        if key in frame.columns
    }
    return Classes(
        ClassTable(
            names=tuple(str(name).strip() for name in frame.index),
            embeddings=_features(frame.drop(columns=list(texts)), "class embeddings"),
            descriptions=texts.get("description", ()),
            groups=texts.get("group", ()),
        ),
        "unknown",
    )


def _features(X: Any, what: str = "features") -> Floats:
    """The array itself where it is one of floating-point numbers, mapped or not; else a copy in float32 or float64."""
    array: NDArray[Any] = X.to_numpy() if hasattr(X, "to_numpy") else np.asanyarray(X)
    if array.dtype.kind in "iub":
        return array.astype(np.float32)
    if array.dtype.kind == "O":  # a table with a column of another type than the others
        try:
            return array.astype(np.float64)
        except (ValueError, TypeError) as error:
            raise DataError(f"{what} hold something else than numbers ({error}); leave those columns out") from error
    return array


def _labels(y: Any, table: ClassTable) -> tuple[str, ...]:
    array = np.asarray(y)
    if array.ndim != 1:
        raise DataError(f"y has shape {array.shape}, but one class name or id a row is expected; flatten it")
    if array.dtype.kind in "iu":
        outside = np.flatnonzero((array < 0) | (array >= len(table)))
        if len(outside):
            row = int(outside[0])
            raise DataError(
                f"row {row} has label {int(array[row])}, but there are {len(table)} classes, with ids from 0; correct it, or "
                "give names"
            )
        return tuple(table.names[i] for i in array)
    if array.dtype.kind in "fcb":
        raise DataError(f"y has dtype {array.dtype}; give class names, or ids as whole numbers")
    for row, label in enumerate(array):
        if not isinstance(label, str):
            raise DataError(f"row {row} has {label!r} for a label; give the name of its class")
    return tuple(str(label) for label in array)


def _asked(unseen: str | float | Sequence[str]) -> tuple[str, ...]:
    if isinstance(unseen, str):
        return (unseen,)
    if isinstance(unseen, int | float):
        return (f"{unseen:.9f}" if isinstance(unseen, float) else str(unseen),)
    return tuple(str(name) for name in unseen)
