"""Tables of people: CSV as spreadsheets write it, and parquet. Some columns are text, all others are numbers.

Every other reader of tables takes from here what it has in common with this one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from unseen.errors import DataError, MissingDependency
from unseen.storage import text_of_cell

DELIMITERS = (",", ";", "\t")
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
"""Files that `read_table` reads."""
ROWS_AT_ONCE = 1024
LARGEST_CELL = 10_000_000
"""Characters in a cell of a CSV file."""

ALWAYS_UNPACKED = 2**30
"""Bytes that a parquet file may always have when it is unpacked."""
MOST_UNPACKED = 1000
"""Beyond that it may have so many bytes for each byte in the file."""


@dataclass(frozen=True)
class Table:
    """What a table holds.

    Args:
        texts: some columns by lower-case name, as they are.
        numbers: (n, k), all others.
    """

    texts: Mapping[str, list[str]]
    numbers: NDArray[Any]


def read_table(path: Path, texts: Sequence[str], required: Sequence[str], dtype: DTypeLike = np.float32) -> Table:
    """Read a CSV (UTF-8; commas, semicolons or tabs) or a parquet file.

    In a CSV, text that would begin as a formula does without the quote that keeps a spreadsheet from running it.

    Args:
        path: which of the two is told by its ending.
        texts: names of the columns that are text where they are there; upper and lower case do not matter. All others have
            to hold numbers; a parquet file may hold them in columns of lists of one length, too.
        required: those that have to be there.
        dtype: of the numbers.

    Raises:
        DataError: the file is missing, damaged, has no row, names a column twice, or holds in a column of numbers what is
            none; the sentence names the line and the column.
        MissingDependency: a parquet file, and pyarrow is not installed.
    """
    try:
        read = _read_parquet if path.suffix.lower() == ".parquet" else _read_csv
        table = read(path, texts, required, dtype)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; put the table there, or check the name") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or shown_text(str(error))}); check the file") from error
    absent = [column for column in required if column not in table.texts]
    if absent:
        raise DataError(f"{path} has no column {absent[0]!r}; name one column so, in the first line")
    if len(table.texts[required[0]]) == 0:
        raise DataError(f"{path} has no rows below its first line; fill the table")
    return table


def delimiter_of(head: str, required: Sequence[str]) -> str:
    """What stands between the cells: the mark with which the first line has the columns required, else a comma."""
    return next((mark for mark in DELIMITERS if set(required) <= set(_named(head, mark))), DELIMITERS[0])


@contextmanager
def cells_up_to(length: int) -> Iterator[None]:
    """Let csv read cells of so many characters, and refuse longer ones; what it allows is a setting of the whole process."""
    before = csv.field_size_limit(length)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def parquet_columns(path: Path) -> list[str]:
    """The names of a parquet file's columns; DataError where it is damaged."""
    _, parquet = pyarrow_of(path)
    with _damage_told(path), parquet.ParquetFile(path, memory_map=True) as file:
        return [str(name) for name in file.schema_arrow.names]


def parquet_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Some rows of a parquet file at a time, of these columns or of all.

    Raises:
        DataError: it is damaged, or unpacks to more than an honest file of its size does.
        MissingDependency: pyarrow is not installed.
    """
    _, parquet = pyarrow_of(path)
    # Mapped, or read ahead, all of a file would be in memory in the end.
    with _damage_told(path), parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
        most = max(ALWAYS_UNPACKED, MOST_UNPACKED * path.stat().st_size)
        groups = (file.metadata.row_group(k) for k in range(file.metadata.num_row_groups))
        size = 8 * sum(group.column(k).num_values for group in groups for k in range(group.num_columns))
        batches = file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns) if size <= most else iter(())
        unpacked = 0
        for batch in batches:
            unpacked += batch.nbytes
            if unpacked > most:
                break
            yield batch
    if size > most or unpacked > most:
        raise DataError(f"{path} unpacks to more than {most:,} bytes, which no table of its size does; write it anew")


def pyarrow_of(path: Path) -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet; MissingDependency, naming the path, where they are not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependency(f"{path} needs the package 'pyarrow'; run: pip install 'unseen[bench]'") from error
    return pa, pq


def shown_text(text: str) -> str:
    """Text out of a file, fit for a sentence in a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _read_csv(path: Path, texts: Sequence[str], required: Sequence[str], dtype: DTypeLike) -> Table:
    """With or without a byte order mark."""
    with cells_up_to(LARGEST_CELL), path.open(encoding="utf-8-sig", newline="") as file:
        line = 1
        try:
            head = file.read(LARGEST_CELL)
            mark = delimiter_of(head, required)
            file.seek(0)
            reader = csv.reader(file, delimiter=mark, strict=True)
            next(reader, None)
            columns = [text_of_cell(cell) for cell in _named(head, mark)]
            if not any(column in required for column in columns):
                shown = ", ".join(columns[:8])[:200] or "nothing"
                raise DataError(
                    f"{path} has no column {required[0]!r} in its first line (found {shown_text(shown)}); name one column so"
                )
            _check_columns(path, columns)
            kept = {column: columns.index(column) for column in texts if column in columns}
            numeric = [k for k in range(len(columns)) if k not in kept.values()]
            found: dict[str, list[str]] = {column: [] for column in kept}
            parts: list[NDArray[Any]] = []
            waiting: list[tuple[int, list[str]]] = []
            for cells in reader:
                line = reader.line_num
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(columns):
                    raise DataError(
                        f"line {line} of {path} has {len(cells)} cells where the first line has {len(columns)}; put text with "
                        "a comma or a line break in it into double quotes"
                    )
                for column, k in kept.items():
                    found[column].append(text_of_cell(cells[k]))
                waiting.append((line, [cells[k] for k in numeric]))
                if len(waiting) == ROWS_AT_ONCE:
                    parts.append(_floats(waiting, path, [columns[k] for k in numeric], dtype))
                    waiting = []
            parts.append(_floats(waiting, path, [columns[k] for k in numeric], dtype))
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text; save it as 'CSV UTF-8' (byte {error.start} cannot be read)") from error
        except csv.Error as error:
            raise DataError(f"{path} is not a CSV table after line {line} ({shown_text(str(error))}); save it again") from error
    return Table(found, np.concatenate(parts))


def _named(head: str, mark: str) -> list[str]:
    """The names of the columns if this mark stood between them; not strict, as the mark is only tried."""
    return [cell.strip().casefold() for cell in next(csv.reader(io.StringIO(head, newline=""), delimiter=mark), [])]


def _check_columns(path: Path, names: Sequence[str]) -> None:
    for position, name in enumerate(names):
        if not name:
            raise DataError(f"{path} has no name for column {position + 1} in its first line; name it or take it away")
        if name in names[:position]:
            raise DataError(f"{path} has two columns {name[:40]!r}; remove one or rename it")


def _floats(rows: list[tuple[int, list[str]]], path: Path, columns: Sequence[str], dtype: DTypeLike) -> NDArray[Any]:
    """The numbers of some rows, of which each comes with its line in the file."""
    if not rows or not columns:
        return np.empty((len(rows), len(columns)), dtype)
    try:
        numbers = np.array([cells for _, cells in rows], dtype=np.float64)
    except ValueError as error:
        line, k, cell = next((n, k, cell) for n, cells in rows for k, cell in enumerate(cells) if not is_number(cell))
        comma = re.fullmatch(r"\s*[+-]?\d+,\d+\s*", cell)
        hint = "write a point, not a comma, before the fraction" if comma else "write a number, or leave the column out"
        said = "is empty" if not cell.strip() else f"is {cell[:40]!r}"
        raise DataError(
            f"column {columns[k][:40]!r} of {path} {said} in line {line}, where a number is expected; {hint}"
        ) from error
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and the validator names its row
        return numbers.astype(dtype)


def is_number(cell: str) -> bool:
    """Whether a cell holds a number, of any size, or what stands for none."""
    try:
        np.array([cell], dtype=np.float64)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path, texts: Sequence[str], required: Sequence[str], dtype: DTypeLike) -> Table:
    columns = parquet_columns(path)
    if required[0] not in (name.strip().casefold() for name in columns):
        shown = shown_text(", ".join(columns[:8]))[:200] or "nothing"
        raise DataError(f"{path} has no column {required[0]!r} (found {shown}); name one column so")
    tables = list(parquet_tables(path, texts, dtype))
    if not tables:
        return Table({required[0]: []}, np.empty((0, 0), dtype))
    found = {name: [text for table in tables for text in table.texts[name]] for name in tables[0].texts}
    return Table(found, np.concatenate([table.numbers for table in tables]))


def parquet_tables(path: Path, texts: Sequence[str], dtype: DTypeLike = np.float32) -> Iterator[Table]:
    """Some rows of a parquet file at a time; see `read_table`, of which nothing is required here."""
    lowered = [name.strip().casefold() for name in parquet_columns(path)]
    _check_columns(path, lowered)
    kept = {name: lowered.index(name) for name in texts if name in lowered}
    numeric = [k for k in range(len(lowered)) if k not in kept.values()]
    widths = set()
    for batch in parquet_batches(path):
        found: dict[str, list[str]] = {}
        for name, k in kept.items():
            values = batch.column(k).to_pylist()
            if any(not isinstance(value, str | int) and value is not None for value in values):
                raise DataError(f"column {name!r} of {path} holds something else than text; store strings")
            found[name] = ["" if value is None else str(value) for value in values]
        numbers = _matrix(batch, numeric, path, dtype)
        widths.add(numbers.shape[1])
        if len(widths) > 1:
            raise DataError(f"the lists in {path} have different lengths; make them one length")
        yield Table(found, numbers)


def _matrix(batch: Any, columns: Sequence[int], path: Path, dtype: DTypeLike) -> NDArray[Any]:
    """One column of lists, or one column a value, as (n, k)."""
    parts = []
    for k in columns:
        name, column = str(batch.schema.names[k])[:40], batch.column(k)
        if column.null_count:
            raise DataError(f"column {name!r} of {path} has an empty cell where a number is expected; fill it")
        if hasattr(column, "flatten") and hasattr(column.type, "value_type"):
            values = column.flatten()
            if values.null_count:
                raise DataError(f"column {name!r} of {path} has an empty value where a number is expected; fill it")
            fixed = hasattr(column.type, "list_size")
            if not fixed and len(set(column.value_lengths().to_pylist())) > 1:
                raise DataError(f"the lists in column {name!r} of {path} have different lengths; make them one length")
            part = values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
        else:
            part = column.to_numpy(zero_copy_only=False).reshape(-1, 1)
        if part.dtype.kind not in "buif":
            raise DataError(f"column {name!r} of {path} holds {column.type}, where a number is expected; remove it")
        with np.errstate(over="ignore"):
            parts.append(part.astype(dtype))
    return np.concatenate(parts, axis=1) if parts else np.empty((len(batch), 0), dtype)


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, DataError):
        raise
    except Exception as error:  # Arrow has many kinds, of which not all are its own
        cause = " ".join(shown_text(str(error)).split())[:150]
        raise DataError(f"{path} is damaged or is not parquet ({cause}); write it anew") from error
