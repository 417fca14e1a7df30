"""A whole data set as tables in a folder: CSV, parquet, or NumPy's `.npy` beside a table of classes.

    features.csv    label, perhaps path, then one column a feature; or also a column `split` with train, test_seen or
                    test_unseen
    classes.csv     name, perhaps description, perhaps group, then one column for every value of the embedding
    splits.csv      split, part, row, class: one line for every row of train, test_seen and test_unseen (part), counted from
                    0, and for every class that is seen or unseen (part). Not needed where features.csv has a column `split`
    about.json      name, provenance, attributions, by_group (names of splits), dtypes; not needed

The parquet layout has the same three tables with the suffix `.parquet`, in which features and embeddings are one column of
lists each; one column a value is read too. Numbers in CSV are written so that they come back to the last bit. Text that a
spreadsheet would run as a formula begins with a quote in the file, which is taken away when it is read.

In the third layout, which is read only, numbers are in files of their own and may be larger than memory: features.npy,
labels.npy (ids that count from 0, or names), classes.csv or classes.parquet (or embeddings.npy, and class_names.npy if there
are names), and splits.csv, splits.parquet, or row numbers in train.npy, test_seen.npy and test_unseen.npy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from unseen.data.bundle import CLASS_ARRAYS, INDEX_ARRAYS, TEXTS, assemble
from unseen.data.dataset import Dataset, Split
from unseen.data.spreadsheets import pyarrow_of, read_table, shown_text
from unseen.data.validate import validate
from unseen.errors import DataError
from unseen.storage import csv_lines, read_json, replace_folder, write_json

FEATURES, CLASSES, SPLITS, ABOUT = "features", "classes", "splits", "about.json"
FEATURE_TEXTS, CLASS_TEXTS, SPLIT_TEXTS = (
    ("label", "split", "path"),
    ("name", "description", "group"),
    ("split", "part", "row", "class"),
)
ROWS_AT_ONCE = 1024


# --- writing


def write_tables(dataset: Dataset, folder: Path, suffix: str) -> None:
    """Write `dataset` as a folder of tables, whole or not at all; `folder` must not exist.

    Args:
        suffix: `.csv` or `.parquet`.

    Raises:
        DataError: the data set is not valid.
        MissingDependency: parquet needs pyarrow.
        RunError: the disk refuses.
    """
    validate(dataset)
    table = dataset.classes
    if suffix == ".parquet":
        pyarrow_of(folder)
    write = _write_parquet if suffix == ".parquet" else _write_csv
    class_texts = {"name": table.names}
    class_texts |= {"description": table.descriptions} if table.descriptions else {}
    class_texts |= {"group": table.groups} if table.groups else {}
    members = [line for split in dataset.splits.values() for line in _members(split, table.names)]
    columns = {key: tuple(line[k] for line in members) for k, key in enumerate(SPLIT_TEXTS)}
    about = {
        "name": dataset.name,
        "provenance": vars(dataset.provenance),
        "attributions": dataset.attributions,
        "by_group": [split.name for split in dataset.splits.values() if split.by_group],
        "dtypes": {"features": dataset.features.dtype.name, "embeddings": table.embeddings.dtype.name},
    }

    def fill(temporary: Path) -> None:
        texts = {"label": tuple(table.names[i] for i in dataset.labels.tolist())}
        texts |= {"path": dataset.paths} if can_hold_paths(dataset) else {}
        write(temporary / f"{FEATURES}{suffix}", texts, dataset.features, "feature")
        write(temporary / f"{CLASSES}{suffix}", class_texts, table.embeddings, "value")
        write(temporary / f"{SPLITS}{suffix}", columns, None, "")
        write_json(temporary / ABOUT, about)

    replace_folder(folder, fill)


def can_hold_paths(dataset: Dataset) -> bool:
    """Whether there are paths, and all of them are text: a file may be named by bytes that are none."""
    return bool(dataset.paths) and not any("\ud800" <= letter <= "\udfff" for path in dataset.paths for letter in path)


def _members(split: Split, names: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    for part in INDEX_ARRAYS:
        for row in getattr(split, part).tolist():
            yield split.name, part, str(row), ""
    for part in CLASS_ARRAYS:
        for i in getattr(split, part).tolist():
            yield split.name, part, "", names[i]


def _write_csv(path: Path, texts: Mapping[str, Sequence[str]], numbers: NDArray[Any] | None, what: str) -> None:
    count = len(next(iter(texts.values())))
    width = 0 if numbers is None else numbers.shape[1]

    def lines() -> Iterator[Sequence[object]]:
        for start in range(0, count, ROWS_AT_ONCE):
            block = [()] * ROWS_AT_ONCE if numbers is None else numbers[start : start + ROWS_AT_ONCE].tolist()
            for row, values in zip(range(start, min(start + ROWS_AT_ONCE, count)), block, strict=False):
                yield *(column[row] for column in texts.values()), *values

    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(csv_lines([*texts, *(f"{what} {k}" for k in range(width))], lines()))


def _write_parquet(path: Path, texts: Mapping[str, Sequence[str]], numbers: NDArray[Any] | None, what: str) -> None:
    pa, pq = pyarrow_of(path)
    fields = [(key, pa.string()) for key in texts]
    width = 0
    if numbers is not None:
        width = numbers.shape[1]
        fields.append((f"{what}s", pa.list_(pa.from_numpy_dtype(numbers.dtype.newbyteorder("=")), width)))
    schema = pa.schema(fields)
    count = len(next(iter(texts.values())))
    rows = max(1, 2**26 // max(1, width * 8))
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, max(count, 1), rows):
            columns = [pa.array(column[start : start + rows], pa.string()) for column in texts.values()]
            if numbers is not None:
                part = np.ascontiguousarray(numbers[start : start + rows])
                flat = pa.array(part.astype(part.dtype.newbyteorder("="), copy=False).reshape(-1))
                columns.append(pa.FixedSizeListArray.from_arrays(flat, width))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


# --- reading


def read_tables(folder: Path, suffix: str) -> Dataset:
    """Read a folder of tables.

    Args:
        suffix: of its features: `.csv`, `.parquet` or `.npy`.

    Raises:
        DataError: a table is missing, damaged, lacks a column, or does not fit the others.
        MissingDependency: parquet needs pyarrow.
    """
    about = read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}
    dtypes = about.get("dtypes") if isinstance(about.get("dtypes"), dict) else {}
    arrays: dict[str, NDArray[Any]] = {}
    told: dict[str, Any] = {key: about[key] for key in ("name", "provenance", "attributions") if key in about}
    if suffix == ".npy":
        arrays, texts = _npy_files(folder)
        told |= texts
    else:
        path = folder / f"{FEATURES}{suffix}"
        table = read_table(path, FEATURE_TEXTS, ("label",), _dtype(dtypes, "features", np.float32, folder))
        arrays |= {"features": table.numbers, "labels": _column(table.texts["label"])}
        arrays |= {"paths": _column(table.texts["path"])} if any(table.texts.get("path", ())) else {}
        arrays |= _parts(table.texts["split"], path) if "split" in table.texts else {}
    if (path_of_classes := _found(folder, CLASSES)) is not None:
        table = read_table(path_of_classes, CLASS_TEXTS, ("name",), _dtype(dtypes, "embeddings", np.float64, folder))
        arrays["embeddings"] = table.numbers
        told |= {"class_names": table.texts["name"]}
        told |= {key: table.texts[column] for key, column in TEXT_COLUMNS.items() if column in table.texts}
    elif "embeddings" not in arrays:
        raise DataError(
            f"{folder} has no {CLASSES}{'.csv' if suffix == '.npy' else suffix}; put a table there with the columns name, "
            "perhaps description and group, and one column for every attribute or value of the embedding"
        )
    if (path_of_splits := _found(folder, SPLITS)) is not None:
        if "labels" not in arrays:
            raise DataError(f"{folder} has no labels.npy; put one there with a class id or a class name for each row")
        found, names = _split_table(path_of_splits, tuple(told.get("class_names", ())))
        arrays = {key: array for key, array in arrays.items() if key not in (*INDEX_ARRAYS, *CLASS_ARRAYS)} | found
        told["split_names"] = names
        by_group = about.get("by_group") or ()
        arrays["by_group"] = np.array([isinstance(by_group, list) and name in by_group for name in names])
    return assemble(arrays, told, folder)


TEXT_COLUMNS = {"descriptions": "description", "groups": "group"}


def _split_table(path: Path, names: tuple[str, ...]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    table = read_table(path, SPLIT_TEXTS, ("split", "part"), np.float64)
    ids = {name: i for i, name in enumerate(names)}
    blank = [""] * len(table.texts["split"])
    lines = zip(*(table.texts.get(column, blank) for column in SPLIT_TEXTS), strict=True)
    members: dict[str, dict[str, list[int]]] = {}
    for number, (split, part, row, class_name) in enumerate(lines, 2):
        of_split = members.setdefault(split, {})
        if part in INDEX_ARRAYS and re.fullmatch(r"\d{1,15}", row):
            of_split.setdefault(part, []).append(int(row))
        elif part in CLASS_ARRAYS and class_name in ids:
            of_split.setdefault(part, []).append(ids[class_name])
        elif part in CLASS_ARRAYS:
            raise DataError(
                f"entry {number - 1} of {path} names the class {class_name[:80]!r}, which the class table lacks; add it"
            )
        elif part in INDEX_ARRAYS:
            raise DataError(f"entry {number - 1} of {path} names row {row[:40]!r}; give a row number that counts from 0")
        else:
            raise DataError(
                f"entry {number - 1} of {path} has part {part[:40]!r}; it is one of {', '.join((*INDEX_ARRAYS, *CLASS_ARRAYS))}"
            )
    arrays: dict[str, NDArray[Any]] = {}
    for position, of_split in enumerate(members.values()):
        told = {part: of_split.get(part, []) for part in INDEX_ARRAYS}
        told |= {part: of_split[part] for part in CLASS_ARRAYS if part in of_split}
        arrays |= {f"split{position}.{part}": np.array(values, np.int64) for part, values in told.items()}
    return arrays, list(members)


def _parts(cells: list[str], path: Path) -> dict[str, NDArray[Any]]:
    """Index arrays from a column that says of each row where it belongs; an empty cell is a row that is not used."""
    stranger = next((row for row, cell in enumerate(cells) if cell.strip() not in (*INDEX_ARRAYS, "")), None)
    if stranger is not None:
        raise DataError(
            f"row {stranger} of {path} has split {cells[stranger][:40]!r}; it is one of {', '.join(INDEX_ARRAYS)}, or empty"
        )
    stripped = np.array([cell.strip() for cell in cells])
    return {part: np.flatnonzero(stripped == part).astype(np.int64) for part in INDEX_ARRAYS}


def _npy_files(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    texts: dict[str, Any] = {}
    for name in ("features", "labels", "embeddings", *TEXTS, *INDEX_ARRAYS, *CLASS_ARRAYS):
        path = folder / f"{name}.npy"
        if not path.exists():
            continue
        array = read_npy(path)
        if name in TEXTS:
            texts[name] = array.tolist()
        else:
            arrays[name] = array
    return arrays, texts


def read_npy(path: Path) -> NDArray[Any]:
    """An array of numbers or of texts, mapped; a header that claims more than the file holds is refused.

    Raises DataError.
    """
    try:
        stored: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")  # .npy alone, no pickle
        if stored.dtype.kind not in "buifU":
            raise ValueError("neither numbers nor texts")
        return stored
    except Exception as error:  # a damaged file makes numpy raise nearly anything
        raise DataError(
            f"{path} is not a .npy file of numbers or texts ({shown_text(str(error))[:150]}); save it with numpy.save"
        ) from error


def _found(folder: Path, name: str) -> Path | None:
    """The table of this name, parquet if both are there."""
    return next((folder / f"{name}{suffix}" for suffix in (".parquet", ".csv") if (folder / f"{name}{suffix}").exists()), None)


def _column(texts: list[str]) -> NDArray[Any]:
    return np.array(texts, np.str_)


def _dtype(dtypes: Any, key: str, default: DTypeLike, folder: Path) -> np.dtype[Any]:
    told = dtypes.get(key) if isinstance(dtypes, dict) else None
    if told is None:
        return np.dtype(default)
    if told not in ("float16", "float32", "float64"):
        raise DataError(f"{folder / ABOUT} says that {key} are {str(told)[:40]!r}; it is one of float16, float32, float64")
    return np.dtype(told)
