"""A whole data set in one file: `.npz` or `.safetensors`.

    features            (n, d) floats
    labels              (n,) class ids that count from 0; in .npz also (n,) class names
    embeddings          (C, a) floats, one row a class
    class_names         (C,) texts; without them classes are called 'class 1' and so on
    descriptions        (C,) texts, or nothing
    groups              (C,) texts, or nothing
    split_names         (S,) texts; the arrays of the first split are called split0.train, split0.test_seen, …
    split0.train        row numbers that count from 0; so test_seen, test_unseen. Also (n,) booleans
    split0.seen         class ids; so unseen. Without them they follow from the rows
    by_group            (S,) booleans, or nothing
    paths               where each row came from: the bytes of all, a zero byte between each two; in .npz also (n,) texts
    name, provenance, attributions, pictures

Who writes such a file by hand may leave out `split0.` and `split_names` if there is one split: `numpy.savez("mine.npz",
features=…, labels=…, embeddings=…, class_names=…, train=…, test_seen=…, test_unseen=…)` is a data set.

In `.npz` all of these are arrays, the texts of dtype str, and the last line is one JSON text `about`; nothing is pickled.
In `.safetensors` the numbers are arrays and every text is JSON in the metadata, under the same names. Both are written some
rows at a time, and features are mapped when they are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import ClassTable, Dataset, Ids, Pictures, Provenance, Split
from unseen.data.npz import read_npz, write_npz
from unseen.data.spreadsheets import shown_text
from unseen.data.validate import validate
from unseen.errors import DataError
from unseen.storage import read_arrays, stream_arrays

INDEX_ARRAYS = ("train", "test_seen", "test_unseen")
CLASS_ARRAYS = ("seen", "unseen")
TEXTS = ("class_names", "descriptions", "groups", "split_names")
ABOUT = ("name", "provenance", "attributions", "pictures")
REQUIRED = ("features", "labels", "embeddings")


def write_bundle(dataset: Dataset, path: Path) -> None:
    """Write `dataset` as one file, `.npz` or `.safetensors` by its suffix, whole or not at all.

    Raises:
        DataError: the data set is not valid, or a text ends with a character that the format cannot keep.
        RunError: the disk refuses.
    """
    validate(dataset)
    arrays = _numbers(dataset)
    table = dataset.classes
    texts = {
        "class_names": table.names,
        "descriptions": table.descriptions,
        "groups": table.groups,
        "split_names": tuple(dataset.splits),
    }
    about = {
        "name": dataset.name,
        "provenance": vars(dataset.provenance),
        "attributions": dataset.attributions,
        "pictures": dataset.pictures and dataset.pictures.layout,
    }
    if path.suffix == ".safetensors":
        stream_arrays(path, arrays, {key: json.dumps(value) for key, value in {**texts, **about}.items()}, sealed=True)
        return
    for what, column in texts.items():
        for text in column:
            if text.endswith("\0"):
                raise DataError(f"one of the {what} ends with a NUL, which .npz would cut off; remove it")
    named = {key: np.array(column, np.str_) for key, column in texts.items() if column}
    write_npz(path, {**arrays, **named, "about": np.array(json.dumps(about))})


def read_bundle(path: Path) -> Dataset:
    """Read a file in this layout; features stay on disk where they are stored as they are.

    Raises:
        DataError: it is missing, damaged, lacks something, or is not valid.
    """
    if path.suffix == ".safetensors":
        arrays, metadata = read_arrays(path)
        told = {key: _json(text, key, path) for key, text in metadata.items() if key in (*TEXTS, *ABOUT)}
    else:
        stored = read_npz(path)
        arrays = {key: array for key, array in stored.items() if key not in (*TEXTS, "about")}
        told = {key: stored[key].tolist() for key in TEXTS if key in stored}
        if "about" in stored:
            about = _json("".join(str(text) for text in stored["about"].reshape(-1)[:1]), "about", path)
            told |= about if isinstance(about, dict) else {}
    return assemble(arrays, told, path)


def assemble(arrays: Mapping[str, NDArray[Any]], told: Mapping[str, Any], path: Path) -> Dataset:
    """Turn arrays and texts under the names above into a data set, or say in one sentence what is wrong with them.

    Args:
        arrays: numbers, and labels perhaps as names.
        told: what is text; all of it may be missing.
        path: named in sentences; without its suffix the data set's name, if it is not told.
    """
    absent = [key for key in REQUIRED if key not in arrays]
    if absent:
        found = ", ".join(sorted(arrays)[:12]) or "nothing"
        raise DataError(
            f"{path} lacks {', '.join(absent)}: a data set has features, labels, embeddings, and train, test_seen and "
            f"test_unseen; found {shown_text(found)[:300]}; add what is missing"
        )
    embeddings = _floats(arrays["embeddings"])
    names = _texts(told, "class_names", path) or tuple(
        f"class {number:0{len(str(len(embeddings)))}d}" for number in range(1, len(embeddings) + 1)
    )
    labels = labels_of(arrays["labels"], names, path)
    splits = _splits(arrays, _texts(told, "split_names", path), labels, path)
    try:
        dataset = Dataset(
            name=str(told.get("name") or path.stem),
            features=arrays["features"],
            labels=labels,
            classes=ClassTable(names, embeddings, _texts(told, "descriptions", path), _texts(told, "groups", path)),
            splits=splits,
            provenance=Provenance(**{key: str(value) for key, value in (told.get("provenance") or {}).items()}),
            pictures=_pictures(arrays, told),
            attributions=tuple(str(line) for line in told.get("attributions") or ()),
            paths=_paths(arrays),
        )
    except (TypeError, AttributeError, LookupError, ValueError) as error:
        raise DataError(f"what {path} says about itself is damaged ({shown_text(str(error))[:150]}); write it anew") from error
    try:
        return validate(dataset)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def labels_of(stored: NDArray[Any], names: tuple[str, ...], path: Path) -> Ids:
    """(n,) class ids, of ids in any dtype or of class names."""
    if stored.ndim == 2 and 1 in stored.shape:
        stored = stored.reshape(-1)
    if stored.dtype.kind == "U":
        ids = {name: position for position, name in enumerate(names)}
        strangers = [row for row, name in enumerate(stored.reshape(-1).tolist()) if name not in ids]
        if strangers:
            raise DataError(
                f"row {strangers[0]} of {path} has label {stored.reshape(-1)[strangers[0]].item()[:80]!r}, which is not among "
                f"the {len(names)} class names; correct the label or add the class"
            )
        return np.array([ids[name] for name in stored.reshape(-1).tolist()], np.int64).reshape(stored.shape)
    if stored.dtype.kind == "f" and (not np.isfinite(stored).all() or (stored != np.floor(stored)).any()):
        raise DataError(f"labels in {path} hold something else than whole numbers; give class ids that count from 0")
    return stored.astype(np.int64)


def _numbers(dataset: Dataset) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "features": dataset.features,
        "labels": dataset.labels,
        "embeddings": dataset.classes.embeddings,
    }
    for position, split in enumerate(dataset.splits.values()):
        arrays |= {f"split{position}.{part}": getattr(split, part) for part in (*INDEX_ARRAYS, *CLASS_ARRAYS)}
    if dataset.paths:
        arrays["paths"] = np.frombuffer("\0".join(dataset.paths).encode(errors="surrogateescape"), np.uint8)
    arrays["by_group"] = np.array([split.by_group for split in dataset.splits.values()])
    if dataset.pictures:
        arrays["pictures.rows"] = dataset.pictures.rows
        arrays["pictures.sheet"] = np.frombuffer(dataset.pictures.sheet, np.uint8)
    return arrays


def _splits(arrays: Mapping[str, NDArray[Any]], names: tuple[str, ...], labels: Ids, path: Path) -> dict[str, Split]:
    """The splits, named or numbered; or the one that has no name."""
    prefixes = {f"split{position}.": name for position, name in enumerate(names)}
    if not names:
        prefixes = {"": "split"} if "train" in arrays else {"split0.": "split0"} if "split0.train" in arrays else {}
    if not prefixes:
        raise DataError(
            f"{path} has no split; add row numbers train, test_seen and test_unseen, or let Dataset.from_arrays make a "
            "split in Python"
        )
    by_group = arrays.get("by_group", np.zeros(len(prefixes), bool)).reshape(-1)
    splits: dict[str, Split] = {}
    for position, (prefix, name) in enumerate(prefixes.items()):
        absent = [f"{prefix}{part}" for part in INDEX_ARRAYS if f"{prefix}{part}" not in arrays]
        if absent or position >= len(by_group):
            raise DataError(f"split {name[:80]!r} of {path} lacks {', '.join(absent) or 'its by_group'}; add it")
        rows = {part: _rows(arrays[f"{prefix}{part}"], f"{prefix}{part}", len(labels), path) for part in INDEX_ARRAYS}
        told = [part for part in CLASS_ARRAYS if f"{prefix}{part}" in arrays]
        classes = {part: _whole(arrays[f"{prefix}{part}"], f"{prefix}{part}", path) for part in told}
        if not classes.keys() >= set(CLASS_ARRAYS):
            inside = {part: index[(index >= 0) & (index < len(labels))] for part, index in rows.items()}
            classes = {
                "seen": np.unique(labels[inside["train"]]).astype(np.int64),
                "unseen": np.unique(labels[inside["test_unseen"]]).astype(np.int64),
            } | classes
        splits[name] = Split(name=name, by_group=bool(by_group[position]), **rows, **classes)
    return splits


def _rows(stored: NDArray[Any], key: str, count: int, path: Path) -> Ids:
    """Row numbers, of numbers or of a boolean for every row."""
    if stored.dtype.kind == "b":
        if stored.reshape(-1).shape != (count,):
            raise DataError(f"'{key}' in {path} has {stored.size} booleans for {count} rows; give one a row, or row numbers")
        return np.flatnonzero(stored).astype(np.int64)
    return _whole(stored, key, path)


def _whole(stored: NDArray[Any], key: str, path: Path) -> Ids:
    if stored.size == 0:
        return np.array([], np.int64)
    if stored.dtype.kind not in "iuf" or (stored.dtype.kind == "f" and not (stored == np.floor(stored)).all()):
        raise DataError(f"'{key}' in {path} holds {stored.dtype}, not whole numbers; give numbers that count from 0")
    return stored.reshape(-1).astype(np.int64) if stored.ndim == 2 and 1 in stored.shape else stored.astype(np.int64)


def _floats(stored: NDArray[Any]) -> NDArray[Any]:
    """Binary attributes, often stored as whole numbers, as floats."""
    return stored.astype(np.float64) if stored.dtype.kind in "bui" else stored


def _pictures(arrays: Mapping[str, NDArray[Any]], told: Mapping[str, Any]) -> Pictures | None:
    entry = told.get("pictures")
    if not entry:
        return None
    sheet, rows = arrays["pictures.sheet"].tobytes(), np.asarray(arrays["pictures.rows"])
    return Pictures(sheet, str(entry["media_type"]), int(entry["tile"]), int(entry["columns"]), rows)


def _paths(arrays: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    if (stored := arrays.get("paths")) is None:
        return ()
    if stored.dtype.kind == "U":
        return tuple(stored.reshape(-1).tolist())
    if stored.dtype != np.uint8:
        raise ValueError("its paths are numbers")
    return tuple(stored.tobytes().decode(errors="surrogateescape").split("\0"))


def _texts(told: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    column = told.get(key) or ()
    if not isinstance(column, list | tuple) or not all(isinstance(text, str) for text in column):
        raise DataError(f"'{key}' in {path} is not a list of texts; store one text a class or split")
    return tuple(column)


def _json(text: str, key: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{key}' in {path} is not JSON ({type(error).__name__}); write the file anew") from error
