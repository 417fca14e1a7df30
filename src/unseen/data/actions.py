"""The layout of the action benchmarks: one feature file, and many random class splits that are averaged.

    ucf101_i3d/i3d.mat                    features (d, N), one column a video, and labels 1…C
    ucf101_i3d/split_1/att_splits.mat     att (a, C), trainval_loc, test_seen_loc, test_unseen_loc, all counted from 1
    ucf101_i3d/split_2/att_splits.mat     … 30 of them for UCF101 and for HMDB51
    ucf101_i3d/ucf101_manual_att.npy      manual attributes (C, a), for whoever wants them in place of the word vectors in att

So written by D. Mandal et al., "Out-of-distribution detection for generalized zero-shot action recognition", CVPR 2019, and
read by TF-VAEGAN. All splits have the same classes in the same order; what differs is which of them are seen.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import ClassTable, Dataset, Provenance, Split
from unseen.data.matfile import Limits, read_mat
from unseen.data.validate import validate
from unseen.data.xlsa17 import INDEX_ARRAYS, PROVENANCE_FILE, SPLIT_FILE, class_table, rows_of, split_of, told_of
from unseen.errors import DataError

FEATURE_FILE = "i3d.mat"
SPLIT_FOLDER = re.compile(r"split_(\d{1,6})")


def read_actions(
    folder: Path, only: str | None = None, embeddings: Path | None = None, limits: Limits | None = None
) -> Dataset:
    """Read a folder with `i3d.mat` and `split_1/att_splits.mat`, `split_2/att_splits.mat` and so on.

    Args:
        folder: its name becomes the data set's name.
        only: name of the one split folder to read; by default all are.
        embeddings: a `.npy` file with one row a class that takes the place of `att`.
        limits: what parsing each file may cost; see `unseen.data.matfile.Limits`.

    Returns:
        Features (N, d) as float32 where that holds every digit, else as stored; embeddings (C, a) as stored; and one split a
        folder, named as it is, in order of number.

    Raises:
        DataError: a file is missing, damaged, or does not fit the others; two splits are the same.
        RunError: this machine cannot start the child process that parses, or has no room for what it unpacks.
    """
    folder = Path(folder)
    feature_file, split_files = _files(folder, only)
    told = told_of(folder / PROVENANCE_FILE)
    tables = {path: read_mat(path, ("att", *INDEX_ARRAYS), ("allclasses_names",), limits) for path in split_files}
    features, labels = rows_of(read_mat(feature_file, ("features", "labels"), (), limits), feature_file)
    first = split_files[0]
    classes = class_table(tables[first], labels, feature_file, first)
    for path in split_files[1:]:
        _check_same(class_table(tables[path], labels, feature_file, path), classes, path, first)
    source = f"att of {first.parent.name}/{first.name}"
    if embeddings is not None:
        classes, source = replace(classes, embeddings=_manual(embeddings, len(classes))), embeddings.name
    splits: dict[str, Split] = {}
    for path in split_files:
        split = split_of(tables[path], labels - 1, feature_file, path)
        twin = next((name for name, other in splits.items() if other.fingerprint == split.fingerprint), None)
        if twin is not None:
            raise DataError(
                f"{path.parent} holds the same split as {twin}, so an average would count it twice; remove one of them"
            )
        splits[path.parent.name] = replace(split, name=path.parent.name)
    dataset = Dataset(
        name=folder.resolve().name or "actions",
        features=features,
        labels=labels - 1,
        classes=classes,
        splits=splits,
        provenance=Provenance(
            source=f"{FEATURE_FILE} and {len(splits)} split files in the layout of the action benchmarks",
            feature_extractor=f"{told.get('feature_extractor', 'unknown')}; {FEATURE_FILE}, {features.shape[1]} values a video",
            embedding_source=f"{source}, {classes.embeddings.shape[1]} values a class, as stored",
            licence=told.get("licence", "unknown"),
        ),
    )
    try:
        return validate(dataset)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error


def is_split_folder(folder: Path) -> bool:
    """Whether this is one split of a folder in this layout."""
    return bool(SPLIT_FOLDER.fullmatch(folder.name)) and (folder.parent / FEATURE_FILE).exists()


def _files(folder: Path, only: str | None) -> tuple[Path, list[Path]]:
    try:
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; give the folder that holds {FEATURE_FILE} and split_1")
        numbered = sorted((int(found[1]), entry) for entry in folder.iterdir() if (found := SPLIT_FOLDER.fullmatch(entry.name)))
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); check its permissions") from error
    if not (folder / FEATURE_FILE).exists():
        raise DataError(f"{folder} has no {FEATURE_FILE} beside its splits; put the feature file there under that name")
    split_files = [entry / SPLIT_FILE for _, entry in numbered if only in (None, entry.name)]
    if not split_files:
        raise DataError(
            f"{folder} has {FEATURE_FILE} but no split_1/{SPLIT_FILE}; put each split file into a folder split_1, split_2, …"
        )
    for path in split_files:
        if not path.exists():
            raise DataError(f"{path.parent} has no {SPLIT_FILE}; put the split file there or remove the folder")
    return folder / FEATURE_FILE, split_files


def _check_same(classes: ClassTable, expected: ClassTable, path: Path, first: Path) -> None:
    """An average over splits of different embeddings would be of no one method, so all must have the same."""
    what = None
    if classes.names != expected.names:
        what = "other class names"
    elif not np.array_equal(classes.embeddings, expected.embeddings):
        what = f"another 'att' ({classes.embeddings.shape[1]} x {len(classes)})"
    if what:
        raise DataError(
            f"{path} has {what} than {first.parent.name}/{first.name}; give all splits the same "
            "table, or open one split alone by its path"
        )


def _manual(path: Path, count: int) -> NDArray[Any]:
    """(C, a) embeddings of a `.npy` file."""
    try:
        # Mapped, so that a header that claims more than the file holds is refused before anything is reserved.
        stored = np.lib.format.open_memmap(path, mode="r")  # .npy alone, no pickle
        if stored.dtype.kind not in "buif":
            raise ValueError("no table of numbers")
        table = np.array(stored, dtype=stored.dtype if stored.dtype.kind == "f" else np.float64)
    except Exception as error:  # a damaged file makes numpy raise nearly anything
        cause = "".join(letter if letter.isprintable() else " " for letter in str(error))[:150]
        raise DataError(f"{path} is not a .npy file of numbers ({cause}); save the attributes with numpy.save") from error
    if table.ndim != 2 or table.shape[0] != count:
        transposed = " (it looks transposed)" if table.ndim == 2 and table.shape[1] == count else ""
        shape = " x ".join(str(length) for length in table.shape)
        raise DataError(f"{path} is {shape} for {count} classes{transposed}; store one row a class, in the order of the labels")
    return table
