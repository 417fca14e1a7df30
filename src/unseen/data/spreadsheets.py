"""Tables of people: CSV as spreadsheets write it, and parquet. Some columns are text, all others are numbers."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import Floats
from unseen.errors import DataError, MissingDependency
from unseen.storage import text_of_cell

DELIMITERS = ",;\t"
"""Parts between the cells of a CSV: the one that its first line has most of."""

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
"""Files that `read_table` reads."""


@dataclass(frozen=True)
class Table:
    """A table with its columns of text apart from its numbers.

    Args:
        texts: by lower-case name, n cells each, trimmed.
        numbers: (n, k), float32 where every column of numbers is float32 or shorter, else float64.
        number_names: k names, as the file has them.
    """

    texts: Mapping[str, tuple[str, ...]]
    numbers: Floats
    number_names: tuple[str, ...]


def read_table(path: Path, texts: Sequence[str]) -> Table:
    """Read a CSV (UTF-8; commas, semicolons or tabs) or a parquet file.

    In a CSV, text that would begin as a formula does without the quote that keeps a spreadsheet from running it.

    Args:
        path: which of the two is told by its ending.
        texts: names of the columns that are text where they are there; upper and lower case do not matter. All others have
            to hold numbers; a parquet file may hold them in one column of lists of one length, too.

    Raises:
        DataError: the file is missing, damaged, has no row, names a column twice, or holds in a column of numbers what is
            none; the sentence names the line and the column.
        MissingDependency: a parquet file, and pyarrow is not installed.
    """
    try:
        table = _read_parquet(path, texts) if path.suffix.lower() == ".parquet" else _read_csv(path, texts)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the name") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8 ({error}); save it again as 'CSV UTF-8'") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); check the file") from error
    if not len(table.numbers):
        raise DataError(f"{path} has no row below its header; give at least one")
    return table


def _read_csv(path: Path, texts: Sequence[str]) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        delimiter = max(DELIMITERS, key=first.count)
        lines = _filled(csv.reader(file, delimiter=delimiter))
        header = next(lines, None)
        if header is None:
            raise DataError(f"{path} is empty; give a table whose first line names its columns")
        names = [name.strip() for name in header[1]]
        where = _text_columns(path, names, texts)
        numbered = [k for k in range(len(names)) if k not in where]
        cells: dict[int, list[str]] = {k: [] for k in where}
        rows: list[NDArray[np.float64]] = []
        for line, row in lines:
            if len(row) != len(names):
                raise DataError(f"line {line} of {path} has {len(row)} cells, but its header names {len(names)}; correct it")
            for k in where:
                cells[k].append(text_of_cell(row[k].strip()))
            try:
                rows.append(np.array([float(row[k]) for k in numbered]))
            except ValueError:
                bad = next(k for k in numbered if not _is_number(row[k]))
                raise DataError(
                    f"line {line} of {path} holds {row[bad][:40]!r} in column {names[bad][:40]!r}, where a number is expected; "
                    f"correct it, or leave the column out (columns of text are called {', '.join(texts)})"
                ) from None
    return Table(
        {where[k]: tuple(column) for k, column in cells.items()},
        np.array(rows).reshape(len(rows), len(numbered)),
        tuple(names[k] for k in numbered),
    )


def _filled(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not blank."""
    for row in reader:
        if any(cell.strip() for cell in row):
            yield reader.line_num, row


def _read_parquet(path: Path, texts: Sequence[str]) -> Table:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingDependency(f"reading {path} needs the package 'pyarrow'; run: pip install 'unseen[bench]'") from error
    import pyarrow

    if not path.exists():
        raise FileNotFoundError(path)
    try:
        table = parquet.ParquetFile(path).read()  # not read_table: it would add columns from the names of folders
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged or is not parquet ({' '.join(str(error).split())[:200]}); write it anew") from error
    names = [str(name).strip() for name in table.column_names]
    where = _text_columns(path, names, texts)
    cells: dict[str, tuple[str, ...]] = {}
    columns: list[NDArray[Any]] = []
    number_names: list[str] = []
    for k, name in enumerate(names):
        column = table.column(k)
        if k in where:
            if column.null_count and where[k] == texts[0]:
                raise DataError(f"column {name!r} of {path} has {column.null_count} empty cells; fill them or drop the rows")
            cells[where[k]] = tuple("" if value is None else str(value).strip() for value in column.to_pylist())
            continue
        numbers = _numbers(path, name, column, pyarrow)
        columns.append(numbers)
        number_names += [name] if numbers.shape[1] == 1 else [f"{name}{position}" for position in range(numbers.shape[1])]
    short = all(column.dtype.itemsize <= 4 and column.dtype.kind == "f" for column in columns)
    numbers = np.concatenate(columns, axis=1) if columns else np.empty((table.num_rows, 0))
    return Table(cells, numbers.astype(np.float32 if short and columns else np.float64, copy=False), tuple(number_names))


def _numbers(path: Path, name: str, column: Any, pyarrow: Any) -> NDArray[Any]:
    """(n, 1) of a column of numbers, (n, k) of one that holds lists of k."""
    kind, refusal = column.type, None
    width = 1
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        lengths = set(pyarrow.compute.list_value_length(column).to_pylist()) if len(column) else {0}
        if len(lengths) != 1 or None in lengths:
            refusal = "lists of several lengths"
        else:
            width = next(iter(lengths))
            column, kind = pyarrow.compute.list_flatten(column), kind.value_type
    if refusal is None and not (pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind)):
        refusal = f"{str(kind)[:40]} values"
    if refusal is None and column.null_count:
        refusal = f"{column.null_count} empty cells"
    if refusal is not None:
        raise DataError(
            f"column {name[:40]!r} of {path} holds {refusal}, where numbers are expected; correct it or leave it out"
        )
    values: NDArray[Any] = column.to_numpy()
    return values.reshape(-1, width)


def _text_columns(path: Path, names: Sequence[str], texts: Sequence[str]) -> dict[int, str]:
    """Position → lower-case name of the columns of text; DataError where a name stands twice or the first one is not there."""
    lowered = [name.casefold() for name in names]
    for position, name in enumerate(lowered):
        if not name or name in lowered[:position]:
            what = f"two columns {names[position][:40]!r}" if name else f"no name for column {position + 1}"
            raise DataError(f"{path} has {what} in its first line; give every column a name of its own")
    if texts[0] not in lowered:
        shown = ", ".join(names)[:100]
        raise DataError(f"{path} has no column '{texts[0]}' in its first line, but {shown!r}; name the columns there")
    return {position: name for position, name in enumerate(lowered) if name in texts}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
