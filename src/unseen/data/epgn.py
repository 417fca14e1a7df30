"""The layout in which E-PGN's data are passed on: `data.mat` beside `label.mat`.

CUB with sentence embeddings and FLO with features of its own reached GSMFlow, SDGZSL and others this way (Y. Yu et al.,
"Episode-Based Prototype Generating Network for Zero-Shot Learning", CVPR 2020). Other features and other embeddings than the
files of the same names in the xlsa17 layout have: figures on the two are not to be compared.

    data.mat    train_fea, test_seen_fea, test_unseen_fea (n, d); seen_pro (S, a), unseen_pro (U, a), attribute (S+U, a)
    label.mat   train_idx, which counts rows of seen_pro; test_seen_idex and test_unseen_idex, which count rows of attribute

All count from 1. As its users do, test labels are brought to the rows of seen_pro and unseen_pro by their rank, and features
are handed on as they are stored, unscaled. `att_train` and `train_label_new` say nothing that is not said elsewhere, and are
not read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import ClassTable, Dataset, Ids, Provenance, Split
from unseen.data.matfile import Limits, read_mat
from unseen.data.validate import validate
from unseen.data.xlsa17 import PROVENANCE_FILE, numbers_of, told_of, whole_numbers
from unseen.errors import DataError

FEATURE_FILE = "data.mat"
LABEL_FILE = "label.mat"
FEATURES = ("train_fea", "test_seen_fea", "test_unseen_fea")
PROTOTYPES = ("seen_pro", "unseen_pro")
LABELS = ("train_idx", "test_seen_idex", "test_unseen_idex")
FEATURES_SAID = f"{FEATURE_FILE} of E-PGN"
"""In the provenance of whatever was read here, and of what it was converted to."""


def read_epgn(folder: Path, limits: Limits | None = None) -> Dataset:
    """Read a folder with `data.mat` and `label.mat`.

    Args:
        folder: its name becomes the data set's name.
        limits: what parsing each file may cost; see `unseen.data.matfile.Limits`.

    Returns:
        Features as float32: training rows, then test rows of seen and of unseen classes. Classes: those of seen_pro, then those
        of unseen_pro, named 'class 001' and so on by their row in `attribute`. One split, named after its fingerprint.

    Raises:
        DataError: a file is missing, damaged, or does not fit the other.
        RunError: this machine cannot start the child process that parses, or has no room for what it unpacks.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds {FEATURE_FILE} and {LABEL_FILE}")
    feature_file, label_file = folder / FEATURE_FILE, folder / LABEL_FILE
    for path in (feature_file, label_file):
        if not path.exists():
            raise DataError(f"{folder} has no {path.name}; put it beside {(LABEL_FILE, FEATURE_FILE)[path == label_file]}")
    told = told_of(folder / PROVENANCE_FILE)
    stored = read_mat(label_file, LABELS, (), limits)
    train, test_seen, test_unseen = (whole_numbers(stored[key], key, label_file) for key in LABELS)
    content = read_mat(feature_file, (*FEATURES, *PROTOTYPES), ("attribute",), limits)
    parts = [
        _features(content, key, labels, feature_file)
        for key, labels in zip(FEATURES, (train, test_seen, test_unseen), strict=True)
    ]
    lengths = [part.shape[1] for part in parts]
    if len(set(lengths)) > 1:
        raise DataError(
            f"features in {feature_file} have {lengths} values a picture ({', '.join(FEATURES)}); give all the same"
        )
    seen_pro, unseen_pro = (_prototypes(content[key], key, feature_file) for key in PROTOTYPES)
    if seen_pro.shape[1] != unseen_pro.shape[1]:
        raise DataError(
            f"in {feature_file} 'seen_pro' has {seen_pro.shape[1]} values a class and 'unseen_pro' {unseen_pro.shape[1]}; "
            "give both the same embedding"
        )
    if train.min() < 1 or train.max() > len(seen_pro):
        raise DataError(
            f"'train_idx' in {label_file} runs from {train.min()} to {train.max()}, but it counts the rows of 'seen_pro' "
            f"from 1 to {len(seen_pro)}; store the rows of seen_pro"
        )
    seen_ids = _classes(test_seen, "test_seen_idex", seen_pro, "seen_pro", label_file)
    unseen_ids = _classes(test_unseen, "test_unseen_idex", unseen_pro, "unseen_pro", label_file)
    ids = np.concatenate([seen_ids, unseen_ids])
    if len(shared := np.intersect1d(seen_ids, unseen_ids)):
        raise DataError(
            f"class {shared[0]} is in both 'test_seen_idex' and 'test_unseen_idex' of {label_file}, which count the rows of "
            "'attribute'; give each class a row of its own there"
        )
    prototypes = np.concatenate([seen_pro, unseen_pro])
    if "attribute" in content:
        _check_order(numbers_of(content["attribute"], "attribute", feature_file), prototypes, ids, feature_file, label_file)
    labels = np.concatenate(
        [train - 1, np.searchsorted(seen_ids, test_seen), len(seen_ids) + np.searchsorted(unseen_ids, test_unseen)]
    )
    first, second, third = np.split(np.arange(len(labels)), np.cumsum([len(train), len(test_seen)]))
    split = Split.from_rows("", labels, train=first, test_seen=second, test_unseen=third)
    split = replace(split, name=f"epgn-{split.fingerprint[:8]}")
    dataset = Dataset(
        name=folder.resolve().name or "epgn",
        features=np.concatenate(parts),
        labels=labels,
        classes=ClassTable(names=tuple(f"class {i:0{len(str(ids.max()))}d}" for i in ids), embeddings=prototypes),
        splits={split.name: split},
        provenance=Provenance(
            source=f"{FEATURE_FILE} and {LABEL_FILE} in the layout of E-PGN, split {split.fingerprint[:16]}",
            feature_extractor=f"{told.get('feature_extractor', 'unknown')}; {FEATURES_SAID}, {lengths[0]} values a picture",
            embedding_source=f"seen_pro and unseen_pro of {FEATURE_FILE}, {prototypes.shape[1]} values a class, as stored",
            licence=told.get("licence", "unknown"),
        ),
    )
    try:
        return validate(dataset)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error


def has_epgn_features(dataset: Dataset) -> bool:
    """Whether the features are known to be those of E-PGN's files, in whatever format they are now."""
    return FEATURES_SAID in dataset.provenance.feature_extractor


def _features(content: dict[str, NDArray[Any]], key: str, labels: Ids, path: Path) -> NDArray[np.float32]:
    """One row a picture, as stored."""
    numbers = numbers_of(content[key], key, path)
    if len(numbers) != len(labels):
        shape = " x ".join(str(length) for length in numbers.shape)
        cause = (
            "one column a picture where this layout has one row; transpose it"
            if numbers.shape[1] == len(labels)
            else (f"another number of rows; check that {FEATURE_FILE} and {LABEL_FILE} belong together")
        )
        raise DataError(f"'{key}' in {path} is {shape} for {len(labels)} labels, so it has {cause}")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and the validator names its row
        return np.ascontiguousarray(numbers, dtype=np.float32)


def _prototypes(stored: NDArray[Any], key: str, path: Path) -> NDArray[np.float64]:
    """(K, a): binary attributes and those of single precision become float64 too, so that all compare."""
    return np.ascontiguousarray(numbers_of(stored, key, path), dtype=np.float64)


def _classes(labels: Ids, key: str, prototypes: NDArray[Any], table: str, path: Path) -> Ids:
    """The class ids of these test labels in ascending order: row k of the table belongs to the k-th of them.

    Raises DataError where there are not as many as the table has rows: which row is whose could then only be guessed.
    """
    ids: Ids = np.unique(labels)
    if len(ids) != len(prototypes):
        transposed = f" ('{table}' looks transposed)" if len(ids) == prototypes.shape[1] else ""
        raise DataError(
            f"'{key}' in {path} names {len(ids)} classes, but '{table}' in {FEATURE_FILE} has {len(prototypes)} rows"
            f"{transposed}, so nothing says which row is whose; give every class of the table a test picture"
        )
    if ids[0] < 1:
        raise DataError(f"'{key}' in {path} starts at {ids[0]}, but this layout counts classes from 1; add 1 to every label")
    return ids


def _check_order(
    attribute: NDArray[Any], prototypes: NDArray[np.float64], ids: Ids, feature_file: Path, label_file: Path
) -> None:
    """Refuse labels that contradict the table of all classes: `attribute`, which they count, in the order of another one.

    Some of these files scale `attribute` otherwise than the two tables; then nothing can be said.
    """
    if attribute.shape != prototypes.shape:
        return
    at = {row.tobytes(): position for position, row in enumerate(np.ascontiguousarray(attribute, np.float64))}
    own = [at.get(row.tobytes()) for row in prototypes]
    for row, (position, class_id) in enumerate(zip(own, ids, strict=True)):
        if position is not None and None not in own and position != class_id - 1:
            raise DataError(
                f"row {row + 1} of 'seen_pro' and 'unseen_pro' in {feature_file} is row {position + 1} of 'attribute', but the "
                f"labels in {label_file} make it class {class_id}; bring the tables into the order of the labels"
            )
