"""From a benchmark's folder to one tidy table: a line a task, a column a field, a type a column.

Fractions stay fractions from 0 to 1; percent are for pages and terminals.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unseen.errors import DataError, MissingDependency
from unseen.storage import csv_text, read_json, write_atomically, write_text

Row = dict[str, Any]
"""A result row, as `unseen.evaluation.protocol.measure` makes it."""
Scalar = str | int | float | bool | None

FIGURES = ("T1", "U", "S", "H", "AUSUC", "H_without_gamma")
TEXTS = (
    "dataset",
    "split",
    "method",
    "protocol",
    "split_hash",
    "features_hash",
    "embeddings_hash",
    "feature_extractor",
    "embedding_source",
)
MAY_BE_MISSING = ("peak_memory", "diagnostic_evaluations", "steps")
"""Whole numbers that not every row has."""
LEADING = ("task", "dataset", "split", "method", "variant", "protocol", "seed", *FIGURES)
"""Columns that come first; the others follow by name."""
CSV_FILE = "results.csv"
PARQUET_FILE = "results.parquet"
LARGEST_WHOLE = 2**53
"""Up to here a float says every whole number exactly."""


def read_rows(folder: Path) -> list[Row]:
    """The result rows of a benchmark's finished tasks, sorted by data set, split, method, variant, protocol, seed and task.

    Raises DataError when the folder is no benchmark's, or a result is damaged.
    """
    rows = [_read_row(path) for path in _task_files(folder, "result.json")]
    return sorted(
        rows, key=lambda row: tuple(row[k] for k in ("dataset", "split", "method", "variant", "protocol", "seed", "task"))
    )


def read_oracles(folder: Path) -> list[Row]:
    """The rows of the oracles that were made beside finished tasks: yardsticks, no results, so they are in no table of these.

    Raises DataError when a file is damaged.
    """
    return [_read_row(path) for path in _task_files(folder, "oracle.json") if (path.parent / "result.json").exists()]


def read_failures(folder: Path) -> list[Row]:
    """Tasks that failed and have not succeeded since, sorted: `task`, `sentence` (why), and which they are.

    Raises DataError when the folder is no benchmark's, or a file is damaged.
    """
    return [
        {"task": path.parent.name, **read_json(path)}
        for path in _task_files(folder, "failure.json")
        if not (path.parent / "result.json").exists()
    ]


def _task_files(folder: Path, name: str) -> list[Path]:
    tasks = folder / "tasks"
    try:
        if not tasks.is_dir():
            if (folder / "bench.json").exists():  # none of its runs has begun: they wait for a choice on folds
                return []
            raise DataError(f"{folder} is not a benchmark (it has no folder 'tasks'); give a folder that `unseen bench` wrote")
        return sorted(entry / name for entry in tasks.iterdir() if not entry.name.startswith(".") and (entry / name).exists())
    except OSError as error:
        raise DataError(f"{tasks} cannot be read ({error.strerror}); check its permissions") from error


def _read_row(path: Path) -> Row:
    row = {"variant": "", **read_json(path)}
    task = path.parent.name
    wrong = [name for name in (*TEXTS, "variant") if not isinstance(row.get(name), str)]
    wrong += [name for name in FIGURES if name not in row or not _is_fraction(row[name])]
    wrong += [name for name in ("seed", "test_evaluations") if type(row.get(name)) is not int]
    wrong += ["seconds"] if type(row.get("seconds")) not in (int, float) else []
    wrong += [name for name in MAY_BE_MISSING if type(row.get(name)) not in (int, type(None))]
    wrong += ["test_used_for_selection"] if not isinstance(row.get("test_used_for_selection"), bool) else []
    wrong += ["task"] if row.get("task", task) != task else []
    if wrong:
        raise DataError(
            f"{path} is damaged (it does not rightly say {', '.join(wrong)}); remove the folder {path.parent} and run its "
            "benchmark again"
        )
    return row | {"task": task}


def _is_fraction(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and -1e-9 <= value <= 1 + 1e-9)  # type: ignore[operator]


# ------------------------------------------------------------------------------------------------------------ flatten


def flatten(row: Mapping[str, Any]) -> dict[str, Scalar]:
    """A result row as one line of a table: every field of it, under one name each.

    Nested fields get dotted names (`seconds_by_phase.training`, `recipe.scaling`), an interval becomes `.low` and `.high`; of
    the candidates of a selection only their number is kept (the run folder has them all); any other list is JSON text.

    Raises DataError when two fields come to have the same name.
    """
    flat: dict[str, Scalar] = {}
    for name, value in _leaves("", row):
        if name in flat:
            raise DataError(f"a result has two fields that a table calls '{name}'; rename the setting with a dot in its name")
        flat[name] = value
    return flat


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{name}.{_encodable(str(key))}" if name else _encodable(str(key)), inner)
    elif name == "selection.candidates" and isinstance(value, list | tuple):
        yield name, len(value)
    elif name.endswith("interval") and _is_pair(value):
        yield f"{name}.low", value[0]
        yield f"{name}.high", value[1]
    elif value is None or isinstance(value, bool | int | float):
        yield name, value
    else:
        yield name, _encodable(value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(bound) in (int, float) for bound in value)


def _encodable(text: str) -> str:
    """JSON can hold half a surrogate pair, which no file can."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# ---------------------------------------------------------------------------------------------------------- one table


def columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Scalar]]:
    """The table of these rows: column → one value a row, None where a row has no such field, all others of one type.

    Whole numbers and others in one column become floats; what else is mixed becomes text, JSON where it was none. A column
    that is nested in some rows and missing in the others (`selection`) is left to its dotted names.
    """
    lines = [flatten(row) for row in rows]
    names = {name for line in lines for name in line}
    order = [name for name in LEADING if name in names] + sorted(names - set(LEADING))
    table = {name: _of_one_type([line.get(name) for line in lines]) for name in order}
    nested = {name[:dot] for name in names for dot, letter in enumerate(name) if letter == "."}
    return {name: column for name, column in table.items() if name not in nested or any(v is not None for v in column)}


def _of_one_type(column: Sequence[Scalar]) -> list[Scalar]:
    present = [value for value in column if value is not None]
    kinds = {type(value) for value in present}
    whole = [value for value in present if type(value) is int]
    if len(kinds) <= 1 and all(-(2**63) <= value < 2**63 for value in whole):
        return list(column)
    if kinds == {int, float} and all(abs(value) <= LARGEST_WHOLE for value in whole):
        return [None if value is None else float(value) for value in column]
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in column]


def write_table(folder: Path) -> None:
    """Write `results.csv` and `results.parquet` of a benchmark's finished tasks, each whole or not at all.

    Both hold the same. In the CSV a missing value and an empty text look the same, and text that a spreadsheet would run as a
    formula begins with a quote.

    Raises:
        DataError: see `read_rows`.
        RunError: the disk refuses.
        MissingDependency: pyarrow is not installed; the CSV is written, and no parquet file is there that contradicts it.
    """
    table = columns(read_rows(folder)) or {"task": []}
    write_text(folder / CSV_FILE, csv_text(list(table), zip(*table.values(), strict=True)))
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as missing:
        (folder / PARQUET_FILE).unlink(missing_ok=True)
        raise MissingDependency(
            f"{PARQUET_FILE} needs the package 'pyarrow', so only {CSV_FILE} was written; run: pip install 'unseen[bench]'"
        ) from missing
    types = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    arrays = {
        name: pyarrow.array(column, next((types[type(value)] for value in column if value is not None), pyarrow.string()))
        for name, column in table.items()
    }
    write_atomically(folder / PARQUET_FILE, lambda temporary: pyarrow.parquet.write_table(pyarrow.table(arrays), temporary))
