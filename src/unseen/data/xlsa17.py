"""The layout in which the standard benchmarks are passed on: `res101.mat` beside `att_splits.mat`.

AWA1, AWA2, CUB, SUN, FLO and APY in the form of Xian et al., "Zero-Shot Learning - A Comprehensive Evaluation of the Good,
the Bad and the Ugly" (2017); every lab has such folders, and writes its own data sets that way.

Of the split file only `trainval_loc`, `test_seen_loc` and `test_unseen_loc` are used. Its `train_loc` and `val_loc`, meant
for tuning, are left alone, whether they are there or not: together they hold exactly the pictures of `trainval_loc` *and*
`test_seen_loc`, so whoever tunes on them has looked at test pictures (4,031 of AWA2's `train_loc` are such). Our validation
folds are cut from `trainval_loc` instead.

What is in `res101.mat` its name does not say: features of a ResNet-101 as it was trained on ImageNet, or fine-tuned on the
seen classes by one lab or another, which makes up to twenty points of difference, all go about under it and have 2048 values.
Who knows what they are writes it into `provenance.json` beside the file, and result rows repeat it:

    {"feature_extractor": "ResNet-101, not fine-tuned", "licence": "research use"}
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import ClassTable, Dataset, Floats, Ids, Provenance, Split
from unseen.data.matfile import Limits, read_mat
from unseen.data.validate import validate
from unseen.errors import DataError
from unseen.storage import read_json

FEATURE_FILE = "res101.mat"
SPLIT_FILE = "att_splits.mat"
PROVENANCE_FILE = "provenance.json"
PROVENANCE = ("feature_extractor", "licence")
INDEX_ARRAYS = ("trainval_loc", "test_seen_loc", "test_unseen_loc")


def read_xlsa17(folder: Path, splits: str | None = None, limits: Limits | None = None) -> Dataset:
    """Read a folder with `res101.mat` (features (d, N), labels 1…C) and `att_splits.mat` (att (a, C), index arrays 1…N).

    Args:
        folder: its name becomes the data set's name. Or a file in it: which of several split files to use.
        splits: name of the split file; by default `att_splits.mat`, or the only other `*_splits.mat` (CUB's
            sentences come as `sent_splits.mat`).
        limits: what parsing each file may cost; see `unseen.data.matfile.Limits`.

    Returns:
        Features (N, d) as float32 where that holds every digit, else as stored; embeddings (C, a) as stored (most of these
        files hold unit vectors, CUB's sentences do not: methods normalise), names from `allclasses_names` or, where a file has
        none (FLO), 'class 001' and so on. The one split is named after its file and its fingerprint, since revisions of the
        "proposed splits" go about under one name.

        The provenance says what `provenance.json` says, and in any case how long features and embeddings are.

    Raises:
        DataError: a file is missing, damaged, or does not fit the other.
        RunError: this machine cannot start the child process that parses, or has no room for what it unpacks.
    """
    folder = Path(folder)
    feature_file, split_file = _files(folder, splits)
    told = told_of(feature_file.parent / PROVENANCE_FILE)
    table = read_mat(split_file, ("att", *INDEX_ARRAYS), ("allclasses_names",), limits)
    pictures = read_mat(feature_file, ("features", "labels"), (), limits)
    return _assemble(feature_file, pictures, split_file, table, told)


def find_split_files(folder: Path) -> list[str]:
    """Names of the files in `folder` that look like a split file of this layout."""
    return sorted(entry.name for entry in folder.glob("*_splits.mat"))


def _files(folder: Path, splits: str | None) -> tuple[Path, Path]:
    try:
        if splits is None and folder.suffix == ".mat" and folder.is_file():
            folder, splits = folder.parent, None if folder.name == FEATURE_FILE else folder.name
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; give the folder that holds {FEATURE_FILE} and {SPLIT_FILE}")
        present = sorted(entry.name for entry in folder.iterdir())
        candidates = find_split_files(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); check its permissions") from error
    found = ", ".join(present[:8]) + (", …" if len(present) > 8 else "") if present else "nothing"
    if FEATURE_FILE not in present:
        raise DataError(f"{folder} has no {FEATURE_FILE} (found {found}); put the feature file there under that name")
    if splits is None:
        if SPLIT_FILE in candidates:
            splits = SPLIT_FILE
        elif len(candidates) == 1:
            splits = candidates[0]
        elif candidates:
            raise DataError(
                f"{folder} has several split files ({', '.join(candidates[:8])}) and none is {SPLIT_FILE}; "
                "give the path of the one to use"
            )
        else:
            raise DataError(f"{folder} has no {SPLIT_FILE} (found {found}); put the split file there under that name")
    return folder / FEATURE_FILE, folder / splits


def told_of(path: Path) -> dict[str, str]:
    """What somebody who knows wrote down about the feature file, if anybody did."""
    if not path.exists():
        return {}
    told = read_json(path)
    wrong = [
        k for k, v in told.items() if k not in PROVENANCE or not isinstance(v, str) or not v.strip() or not v.isprintable()
    ]
    if wrong:
        raise DataError(
            f"{path} may say {' and '.join(PROVENANCE)}, each in a line of text; what it says of "
            f"{', '.join(map(repr, wrong))[:200]} is something else, so correct it or remove it"
        )
    return told


def _assemble(
    feature_file: Path,
    pictures: dict[str, NDArray[Any]],
    split_file: Path,
    table: dict[str, NDArray[Any]],
    told: dict[str, str],
) -> Dataset:
    """Turn what the two files hold into a data set, or say which of them is wrong and how."""
    features, labels = rows_of(pictures, feature_file)
    classes = class_table(table, labels, feature_file, split_file)
    labels = labels - 1
    split = split_of(table, labels, feature_file, split_file)
    split = replace(split, name=f"{split_file.stem}-{split.fingerprint[:8]}")
    dataset = Dataset(
        name=feature_file.parent.resolve().name or "xlsa17",
        features=features,
        labels=labels,
        classes=classes,
        splits={split.name: split},
        provenance=Provenance(
            source=f"{feature_file.name} and {split_file.name} in the xlsa17 layout, split {split.fingerprint[:16]}",
            feature_extractor=f"{told.get('feature_extractor', 'unknown')}; "
            f"{feature_file.name}, {features.shape[1]} values a picture",
            embedding_source=f"att of {split_file.name}, {classes.embeddings.shape[1]} values a class, as stored",
            licence=told.get("licence", "unknown"),
        ),
    )
    try:
        return validate(dataset)
    except DataError as error:
        fits = not np.intersect1d(split.seen, split.unseen).size and np.isin(labels[split.test_seen], split.seen).all()
        named = len(np.unique(np.concatenate([split.train, split.test_seen, split.test_unseen])))
        mixed = (
            f" ({split_file.name} names {named} of the {len(labels)} pictures in {feature_file.name}: check that the two files "
            "belong together)"
        )
        raise DataError(f"{feature_file.parent}: {error}{mixed if named < len(labels) and not fits else ''}") from error


def rows_of(pictures: dict[str, NDArray[Any]], path: Path) -> tuple[Floats, Ids]:
    """Features (N, d) and labels (N,), still counted from 1, of the feature file at `path`."""
    labels = whole_numbers(pictures["labels"], "labels", path)
    return _features(pictures["features"], len(labels), path), labels


def class_table(table: dict[str, NDArray[Any]], labels: Ids, feature_file: Path, split_file: Path) -> ClassTable:
    """The classes of a split file, which the labels of a feature file count from 1."""
    embeddings = _embeddings(table["att"], split_file)
    names = _names(table.get("allclasses_names"), embeddings, int(labels.max()), split_file)
    if labels.min() < 1:
        raise DataError(
            f"labels in {feature_file} start at {labels.min()}, but this layout counts classes from 1; "
            "add 1 to every label if they count from 0"
        )
    if labels.max() > len(names):
        raise DataError(
            f"labels in {feature_file} go up to {labels.max()}, but 'att' in {split_file} has {len(names)} columns "
            "(one a class); check that the two files belong together"
        )
    return ClassTable(names=names, embeddings=embeddings)


def split_of(table: dict[str, NDArray[Any]], labels: Ids, feature_file: Path, split_file: Path) -> Split:
    """The split of a split file, still without a name. `labels` count from 0."""
    train, test_seen, test_unseen = _rows(table, len(labels), feature_file, split_file)
    return Split.from_rows("", labels, train=train, test_seen=test_seen, test_unseen=test_unseen)


def _features(stored: NDArray[Any], pictures: int, path: Path) -> Floats:
    """One column a picture as stored, one row a picture as returned."""
    numbers = numbers_of(stored, "features", path)
    if numbers.shape[1] != pictures:
        shape = f"{numbers.shape[0]} x {numbers.shape[1]}"
        if numbers.shape[0] == pictures:
            raise DataError(
                f"features in {path} are {shape} for {pictures} labels, so they have one row a picture where this layout has "
                "one column; transpose them"
            )
        raise DataError(f"features in {path} are {shape}, but there are {pictures} labels; give one column for every label")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and the validator names its row
        rounded = np.ascontiguousarray(numbers.T, dtype=np.float32)
    more_digits = np.isfinite(rounded).all() and (rounded != numbers.T).any()
    return np.ascontiguousarray(numbers.T) if more_digits else rounded


def _embeddings(stored: NDArray[Any], path: Path) -> Floats:
    """One column a class as stored, one row a class as returned; whole numbers (binary attributes) become float64."""
    numbers = numbers_of(stored, "att", path).T
    return np.ascontiguousarray(numbers, dtype=numbers.dtype if numbers.dtype.kind == "f" else np.float64)


def _names(stored: NDArray[Any] | None, embeddings: NDArray[Any], highest_label: int, path: Path) -> tuple[str, ...]:
    count, length = embeddings.shape
    shape = f"{length} x {count}"
    if stored is None:
        if highest_label == length != count:
            raise DataError(
                f"'att' in {path} is {shape} and the labels go up to {length}, so it has one row a class where this layout "
                "has one column; transpose it"
            )
        return tuple(f"class {number:0{len(str(count))}d}" for number in range(1, count + 1))
    if stored.dtype != object:
        raise DataError(f"'allclasses_names' in {path} holds {stored.dtype}, not names; store a cell array of strings")
    if len(stored) != count:
        transposed = " ('att' looks transposed: this layout has one column a class)" if len(stored) == length else ""
        raise DataError(
            f"{path} names {len(stored)} classes, but its 'att' is {shape}{transposed}; give one name and one column a class"
        )
    return tuple(str(name) for name in stored)


def _rows(table: dict[str, NDArray[Any]], pictures: int, feature_file: Path, path: Path) -> tuple[Ids, Ids, Ids]:
    """The three index arrays, counted from 0."""
    stored = [whole_numbers(table[key], key, path) for key in INDEX_ARRAYS]
    lowest = min(int(rows.min()) for rows in stored)
    highest = max(int(rows.max()) for rows in stored)
    if lowest < 1:
        raise DataError(
            f"the index arrays of {path} run from {lowest} to {highest}, but this layout counts pictures from 1 to {pictures}; "
            f"add 1 to {', '.join(INDEX_ARRAYS)} if they count from 0"
        )
    if highest > pictures:
        raise DataError(
            f"the index arrays of {path} name picture {highest}, but {feature_file.name} holds {pictures}; "
            "check that the two files belong together"
        )
    narrow = [key for key in INDEX_ARRAYS if table[key].dtype.itemsize == 2 and pictures > np.iinfo(table[key].dtype).max]
    if narrow:
        raise DataError(
            f"'{narrow[0]}' in {path} is stored as {table[narrow[0]].dtype}, too narrow to count {pictures} pictures, "
            "so row numbers were cut off; store it as double"
        )
    train, test_seen, test_unseen = (rows - 1 for rows in stored)
    return train, test_seen, test_unseen


def whole_numbers(stored: NDArray[Any], key: str, path: Path) -> Ids:
    """A column (or row) of whole numbers as int64. They are often uint16, so they are widened before any arithmetic."""
    numbers = numbers_of(stored, key, path)
    if 1 not in numbers.shape:
        shape = " x ".join(str(length) for length in numbers.shape)
        raise DataError(f"'{key}' in {path} is {shape}, but a single column is expected; check that it is the right file")
    if not (np.abs(numbers.astype(np.float64)) < 2**53).all() or (numbers != np.floor(numbers)).any():
        raise DataError(f"'{key}' in {path} holds something else than whole numbers; store whole numbers counted from 1")
    return numbers.reshape(-1).astype(np.int64)


def numbers_of(stored: NDArray[Any], key: str, path: Path) -> NDArray[Any]:
    """A non-empty table of real numbers, else a DataError."""
    if stored.dtype.kind not in "uif" or stored.ndim != 2 or stored.size == 0:
        shape = " x ".join(str(length) for length in stored.shape)
        raise DataError(f"'{key}' in {path} is {shape} of {stored.dtype}, but a table of numbers is expected; store that")
    return stored
