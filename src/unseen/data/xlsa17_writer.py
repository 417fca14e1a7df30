"""Write the layout that every lab's code reads: `res101.mat` beside `att_splits.mat`, MATLAB version 5.

    res101.mat       features (d, n) float64 · labels (n, 1) uint16, 1…C · image_files (n, 1) cell of strings
    att_splits.mat   att (a, C) float64 · allclasses_names (C, 1) cell of strings
                     trainval_loc, test_seen_loc, test_unseen_loc, train_loc, val_loc: (k, 1) uint16, 1…n

Public loaders subtract 1 from the row numbers and index with what they get, so these have to be whole numbers (uint16 as in
the files that go about, uint32 where there are more rows). `image_files` has the rows' paths where the data set knows them,
else 'row 1' and so on. There is no `original_att`, since a data set knows its embeddings as they are, and not what they were
made of.

`train_loc` and `val_loc` share `trainval_loc` out by class, so that the classes of `val_loc` can play unseen ones. Unlike in
the files that go about, neither has a row of `test_seen_loc`: tuning on them looks at no test row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import Dataset, Ids, Split
from unseen.data.validate import validate
from unseen.data.xlsa17 import FEATURE_FILE, PROVENANCE_FILE, SPLIT_FILE
from unseen.errors import DataError
from unseen.storage import replace_folder, write_json

LARGEST_ARRAY = 2**31 - 1
"""Bytes that an array in a MATLAB file of version 5 may have."""


def write_xlsa17(dataset: Dataset, folder: Path, splits: Sequence[str] | None = None) -> tuple[str, ...]:
    """Write `dataset` to `folder`, whole or not at all; `folder` must not exist.

    Args:
        splits: which ones; all if not given. One split goes into `att_splits.mat`, of several each into a file that ends
            with `_splits.mat` and begins with its name.

    Returns:
        The names of the split files.

    Raises:
        DataError: the data set is not valid, its features are too large for the format, or a split has an empty part.
        RunError: the disk refuses.
    """
    from scipy.io import savemat

    validate(dataset)
    chosen = [dataset.split(name) for name in splits or dataset.splits]
    _check_fits(dataset, chosen)
    files = dict(zip(_file_names([split.name for split in chosen]), chosen, strict=True))

    def fill(temporary: Path) -> None:
        rows = len(dataset.labels)
        savemat(
            temporary / FEATURE_FILE,
            {
                "features": np.asarray(dataset.features, np.float64).T,
                "labels": _column(dataset.labels + 1, len(dataset.classes)),
                "image_files": _cells(
                    [path.encode("utf-8", "backslashreplace").decode() for path in dataset.paths]
                    or [f"row {number}" for number in range(1, rows + 1)]
                ),
            },
        )
        for file, split in files.items():
            train, val = _halves(dataset, split)
            parts = {
                "trainval_loc": split.train,
                "test_seen_loc": split.test_seen,
                "test_unseen_loc": split.test_unseen,
                "train_loc": train,
                "val_loc": val,
            }
            savemat(
                temporary / file,
                {
                    "att": np.asarray(dataset.classes.embeddings, np.float64).T,
                    "allclasses_names": _cells(dataset.classes.names),
                    **{key: _column(index + 1, rows) for key, index in parts.items()},
                },
            )
        told = {
            "feature_extractor": _line(dataset.provenance.feature_extractor),
            "licence": _line(dataset.provenance.licence),
        }
        if told := {key: text for key, text in told.items() if text and text != "unknown"}:
            write_json(temporary / PROVENANCE_FILE, told)

    replace_folder(folder, fill)
    return tuple(files)


def _check_fits(dataset: Dataset, splits: Sequence[Split]) -> None:
    rows, length = dataset.features.shape
    if (size := 8 * rows * length) > LARGEST_ARRAY:
        raise DataError(
            f"{rows:,} rows of {length:,} features take {size / 1e9:.1f} GB as doubles, and a MATLAB file of version 5 ends at "
            "2.1 GB; convert to .npz or .safetensors instead, nothing was written"
        )
    for split in splits:
        for part in ("test_seen", "test_unseen"):
            if not len(getattr(split, part)):
                raise DataError(
                    f"split '{split.name}' has no {part} row, and loaders of the xlsa17 layout stop at an empty {part}_loc; "
                    "choose another format, nothing was written"
                )


def _halves(dataset: Dataset, split: Split) -> tuple[Ids, Ids]:
    """Training rows of most seen classes, and of the others: as large a share as the unseen classes are of all.

    Which ones follows from the split alone. Where it is by group, the others are whole groups as far as that is possible.
    """
    seen = np.sort(split.seen)
    wanted = min(len(seen) - 1, max(1, round(len(seen) * len(split.unseen) / (len(seen) + len(split.unseen)))))
    rng = np.random.default_rng(int(split.fingerprint[:16], 16))
    groups = dataset.classes.groups
    held: list[int] = []
    if split.by_group and groups:
        for group in rng.permutation(sorted({groups[i] for i in seen})):
            members = [int(i) for i in seen if groups[i] == group]
            held += members if len(held) + len(members) <= wanted else []
    held = held or rng.permutation(seen)[:wanted].tolist()
    is_held = np.isin(dataset.labels[split.train], held)
    return split.train[~is_held], split.train[is_held]


def _file_names(splits: Sequence[str]) -> list[str]:
    """File names of splits, whose names are a stranger's."""
    if len(splits) == 1:
        return [SPLIT_FILE]
    safe = [re.sub(r"[^\w.+-]+", "_", name).lstrip(".")[:60] or "split" for name in splits]
    folded = [name.casefold() for name in safe]
    again = ["" if folded.count(name) == 1 else f"_{position}" for position, name in enumerate(folded, 1)]
    return [f"{name}{again[position - 1]}_splits.mat" for position, name in enumerate(safe, 1)]


def _column(numbers: Ids, most: int) -> NDArray[Any]:
    return numbers.astype(np.uint16 if most <= np.iinfo(np.uint16).max else np.uint32)[:, None]


def _cells(texts: Sequence[str]) -> NDArray[np.object_]:
    column = np.empty((len(texts), 1), object)
    column[:, 0] = texts
    return column


def _line(text: str) -> str:
    """Text that `provenance.json` may hold: one printable line."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
