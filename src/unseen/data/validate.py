"""One validator for every reader: a data set that passes it can be trained on and measured honestly."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import ClassTable, Dataset, Split
from unseen.errors import DataError

BYTES_AT_ONCE = 2**26
"""Bytes of features looked at together, so that a memory-mapped file larger than memory can be checked."""

LONGEST_NAME = 1_000


def validate(dataset: Dataset) -> Dataset:
    """Return the data set if everything holds, else raise DataError with the first thing that does not.

    Raises:
        DataError: one sentence with what is wrong, where, and what to do.
    """
    _check_name("a data set", dataset.name)
    for what, text in vars(dataset.provenance).items():
        _check_text(f"the {what.replace('_', ' ')}", text)
    _check_shapes(dataset)
    check_class_table(dataset.classes)
    _check_labels(dataset)
    if not dataset.splits:
        raise DataError(f"data set '{dataset.name}' has no split; give at least one with training rows and unseen classes")
    for name, split in dataset.splits.items():
        if name != split.name:
            raise DataError(f"split '{split.name}' is listed as '{name}'; give it one name")
        _check_name("a split", split.name)
        _check_split(dataset, split)
    _check_finite(dataset)
    _check_paths(dataset)
    _check_pictures(dataset)
    return dataset


def comparable_name(name: str) -> str:
    """A name as a reader would compare it: Unicode NFKC, case-folded, blanks collapsed."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _check_text(what: str, text: str) -> None:
    """Lone surrogates come from bytes that are not UTF-8 and from escapes in JSON; no file could be written with them."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"{what} is not text in Unicode ({text[:40]!a}); write it anew")


def _check_name(what: str, name: str) -> None:
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise DataError(f"{what} named {name[:40]!r} needs a name of 1 to {LONGEST_NAME} printable characters; rename it")


def _check_shapes(dataset: Dataset) -> None:
    features, labels = dataset.features, dataset.labels
    if features.ndim != 2 or 0 in features.shape:
        raise DataError(
            f"features have shape {features.shape}, but a non-empty table with one row an example is expected; "
            "transpose or reshape them"
        )
    if not _is_float(features):
        raise DataError(f"features have dtype {features.dtype}, but numbers with a fraction are expected; convert to float32")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels have shape {labels.shape} and dtype {labels.dtype}, but one whole number a row is expected; "
            "give ids that count from 0"
        )
    if len(labels) != len(features):
        transposed = " (the features look transposed)" if features.shape[1] == len(labels) else ""
        raise DataError(f"there are {len(features)} feature rows but {len(labels)} labels{transposed}; give one label a row")


def check_class_table(table: ClassTable) -> None:
    """DataError unless there is one name and one embedding a class, all printable, finite and different."""
    embeddings = table.embeddings
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise DataError(f"class embeddings have shape {embeddings.shape}, but one row a class is expected; reshape them")
    if not _is_float(embeddings):
        raise DataError(
            f"class embeddings have dtype {embeddings.dtype}, but numbers with a fraction are expected; convert to float32"
        )
    if len(embeddings) != len(table):
        transposed = " (they look transposed)" if embeddings.shape[1] == len(table) else ""
        raise DataError(
            f"there are {len(table)} class names but {len(embeddings)} class embeddings{transposed}; give one row a class"
        )
    first_with: dict[str, str] = {}
    for position, name in enumerate(table.names):
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            shown = repr(name[:40])
            raise DataError(
                f"class {position} is named {shown}, but a name needs 1 to {LONGEST_NAME} printable characters; rename it"
            )
        key = comparable_name(name)
        if key in first_with:
            raise DataError(
                f"classes {first_with[key]!r} and {name!r} have the same name once case, blanks and Unicode form are "
                "ignored; rename one or merge them"
            )
        first_with[key] = name
    for what, column in (("descriptions", table.descriptions), ("groups", table.groups)):
        if column and len(column) != len(table):
            raise DataError(f"there are {len(table)} classes but {len(column)} {what}; give one a class or none at all")
        for name, text in zip(table.names, column, strict=False):
            _check_text(f"the {what.removesuffix('s')} of class {name!r}", text)
    bad = np.flatnonzero(~_finite(table.embeddings).all(axis=1))
    if len(bad):
        raise DataError(
            f"the embedding of class {_named(table, bad)} holds NaN, infinity or what float32 cannot hold; encode it again"
        )
    zero = np.flatnonzero(~table.embeddings.any(axis=1))
    if len(zero):
        raise DataError(f"the embedding of class {_named(table, zero)} is all zero, so it says nothing; describe the class")
    first_like: dict[bytes, int] = {}
    for position, row in enumerate(np.asarray(table.embeddings, np.float32) + 0.0):  # adding 0 turns -0 into 0
        original = first_like.setdefault(row.tobytes(), position)
        if original != position:
            raise DataError(
                f"classes {table.names[original]!r} and {table.names[position]!r} have identical embeddings, so nothing can "
                "tell them apart; describe them differently or merge them"
            )


def _check_labels(dataset: Dataset) -> None:
    labels, count = dataset.labels, len(dataset.classes)
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest >= 1 and highest == count:
        raise DataError(
            f"labels run from {lowest} to {highest} for {count} classes, so they count from 1; subtract 1 (ids count from 0)"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= count))
    if len(outside):
        row = int(outside[0])
        raise DataError(
            f"row {row} has label {int(labels[row])}, but the class table has ids 0 to {count - 1}; "
            "correct the label or add the class"
        )


def _check_split(dataset: Dataset, split: Split) -> None:
    rows, names = len(dataset.labels), dataset.classes.names
    for what, index in (("train", split.train), ("test_seen", split.test_seen), ("test_unseen", split.test_unseen)):
        where = f"index array '{what}' of split '{split.name}'"
        if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
            raise DataError(f"{where} has shape {index.shape} and dtype {index.dtype}; a list of row numbers is expected")
        outside = np.flatnonzero((index < 0) | (index >= rows))
        if len(outside):
            hint = "they count from 1, subtract 1" if int(index.min()) >= 1 and int(index.max()) == rows else "correct it"
            raise DataError(f"{where} names row {int(index[outside[0]])}, but rows run from 0 to {rows - 1}; {hint}")
        if len(np.unique(index)) != len(index):
            values, counts = np.unique(index, return_counts=True)
            raise DataError(f"{where} names row {int(values[counts > 1][0])} more than once; list each row once")
    for what, classes in (("seen", split.seen), ("unseen", split.unseen)):
        whole = classes.ndim == 1 and np.issubdtype(classes.dtype, np.integer)
        if not whole or (len(classes) and (classes.min() < 0 or classes.max() >= len(names))):
            raise DataError(f"the {what} classes of split '{split.name}' are not ids from 0 to {len(names) - 1}; correct them")
        if len(np.unique(classes)) != len(classes):
            raise DataError(f"the {what} classes of split '{split.name}' name a class more than once; list each once")
    if len(split.train) == 0:
        raise DataError(f"split '{split.name}' has no training row; it needs some of every seen class")
    if len(split.unseen) == 0:
        raise DataError(f"split '{split.name}' has no unseen class, so there is nothing to recognise; list at least one")
    _check_unseen_stay_unseen(dataset, split)
    without = np.setdiff1d(split.seen, dataset.labels[split.train])
    if len(without):
        raise DataError(
            f"class {names[int(without[0])]!r} is called seen in split '{split.name}' but has no training row; "
            "call it unseen or give it one"
        )
    for (what, index), (other, second) in (
        (("train", split.train), ("test_seen", split.test_seen)),
        (("train", split.train), ("test_unseen", split.test_unseen)),
        (("test_seen", split.test_seen), ("test_unseen", split.test_unseen)),
    ):
        shared = np.intersect1d(index, second)
        if len(shared):
            more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
            raise DataError(
                f"row {int(shared[0])}{more} is in both '{what}' and '{other}' of split "
                f"'{split.name}'; a row may be in one of them only"
            )
    for what, index, classes in (
        ("test_seen", split.test_seen, split.seen),
        ("test_unseen", split.test_unseen, split.unseen),
        ("train", split.train, split.seen),
    ):
        foreign = ~np.isin(dataset.labels[index], classes)
        if foreign.any():
            row = int(index[np.flatnonzero(foreign)[0]])
            raise DataError(
                f"row {row} in '{what}' of split '{split.name}' is of class {names[int(dataset.labels[row])]!r}, which is not "
                f"among the split's {'unseen' if what == 'test_unseen' else 'seen'} classes"
                + (_slip(dataset, split) or "; move the row or correct its label")
            )
    if split.by_group:
        _check_whole_groups(dataset.classes, split)


def _check_unseen_stay_unseen(dataset: Dataset, split: Split) -> None:
    labels, names = dataset.labels, dataset.classes.names
    trained = np.intersect1d(labels[split.train], split.unseen)
    if len(trained):
        count = int(np.isin(labels[split.train], trained).sum())
        raise DataError(
            f"{len(trained)} unseen classes have training rows in split '{split.name}' ({count} rows, for example "
            f"{names[int(trained[0])]!r})"
            + (_slip(dataset, split) or ", so they are not unseen; correct the split or the labels")
        )
    both = np.intersect1d(split.seen, split.unseen)
    if len(both):
        raise DataError(
            f"class {names[int(both[0])]!r} is called both seen and unseen in split '{split.name}'; make it one of them"
        )


def _slip(dataset: Dataset, split: Split) -> str | None:
    """The end of a sentence about classes on the wrong side, if index arrays that are off by one explain it."""
    labels = dataset.labels

    def clean(shift: int) -> bool:
        train, test_seen, test_unseen = (i.astype(np.int64) + shift for i in (split.train, split.test_seen, split.test_unseen))
        if not len(test_unseen) or any(
            len(i) and (i.min() < 0 or i.max() >= len(labels)) for i in (train, test_seen, test_unseen)
        ):
            return False
        return not np.isin(labels[test_unseen], labels[train]).any() and bool(np.isin(labels[test_seen], labels[train]).all())

    if clean(-1):
        return ", and all would be well if every row number were one smaller: the index arrays count from 1; subtract 1"
    if clean(1):
        return ", and all would be well if every row number were one larger: 1 was subtracted twice; add it back"
    return None


def _check_whole_groups(table: ClassTable, split: Split) -> None:
    if not table.groups:
        raise DataError(f"split '{split.name}' is by group, but the class table has no groups; add them or unset by_group")
    seen_of = {table.groups[i]: int(i) for i in reversed(split.seen)}
    for i in split.unseen:
        if (other := seen_of.get(table.groups[i])) is not None:
            raise DataError(
                f"split '{split.name}' is by group, but group {table.groups[i]!r} has seen classes ({table.names[other]!r}) "
                f"and unseen ones ({table.names[i]!r}); hold out whole groups or set by_group to false"
            )


def _check_finite(dataset: Dataset) -> None:
    rows = max(1, BYTES_AT_ONCE // dataset.features[:1].nbytes)
    for start in range(0, len(dataset.features), rows):
        finite = _finite(dataset.features[start : start + rows])
        if not finite.all():
            row, column = (int(v) for v in np.argwhere(~finite)[0])
            value = dataset.features[start + row, column]
            raise DataError(
                f"features hold {value} in row {start + row}, column {column}; extract that row again or leave it out"
            )


def _check_paths(dataset: Dataset) -> None:
    if dataset.paths and len(dataset.paths) != len(dataset.labels):
        raise DataError(f"there are {len(dataset.labels)} rows but {len(dataset.paths)} paths; give one a row or none at all")
    for row, path in enumerate(dataset.paths):
        if "\0" in path or any("\ud800" <= letter <= "\udfff" and not "\udc80" <= letter <= "\udcff" for letter in path):
            raise DataError(f"the path of row {row} is {path[:40]!r}, which no file can have; correct it")


def _check_pictures(dataset: Dataset) -> None:
    pictures, last = dataset.pictures, len(dataset.labels) - 1
    if pictures is None:
        return
    if pictures.tile < 1 or pictures.columns < 1:
        raise DataError(
            f"the pictures are {pictures.tile} pixels wide and stand in {pictures.columns} columns; give at least one of each"
        )
    rows = pictures.rows
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise DataError(f"the rows of the pictures have shape {rows.shape} and dtype {rows.dtype}; give a list of row numbers")
    outside = rows[(rows < 0) | (rows > last)]
    if len(outside):
        raise DataError(f"the pictures show row {int(outside[0])}, but rows run from 0 to {last}; correct the list")


def _is_float(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" and array.dtype.itemsize <= 8


def _finite(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values are finite in float32, in which everything is computed."""
    with np.errstate(over="ignore"):
        finite: NDArray[np.bool_] = np.isfinite(array if array.dtype.itemsize <= 4 else array.astype(np.float32))
    return finite


def _named(table: ClassTable, positions: NDArray[np.intp]) -> str:
    more = f" (and of {len(positions) - 1} more)" if len(positions) > 1 else ""
    return f"{table.names[int(positions[0])]!r}{more}"
