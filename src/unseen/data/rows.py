"""Rows of features to be answered, some at a time: from files larger than memory, or from a program that is still writing.

A table has a first line with the names of its columns, none of which is a number, or begins with a row. One column may be
called `id`, `path` or `name` and says what a row is called; `label` and `split` are left aside; all others are the features, in
their order. JSON lines are lists of numbers, or objects with `features` and perhaps one of the same three names. Arrays are
`.npy`, or one array of two dimensions in an `.npz` or `.safetensors` file. A row that cannot be read is told of, and the others
go on.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unseen.data.collection import load_collection
from unseen.data.npz import read_npz
from unseen.data.spreadsheets import DELIMITERS, LARGEST_CELL, cells_up_to, is_number, parquet_tables, shown_text
from unseen.data.tables import read_npy
from unseen.encoders.images import shown
from unseen.errors import DataError
from unseen.storage import let_go, read_arrays, text_of_cell

TABLES, LINES, ARRAYS = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson", ".json"), (".npy", ".npz", ".safetensors")
SUFFIXES = (*TABLES, *LINES, *ARRAYS, ".parquet")
"""Files that `rows_of_file` reads."""

NAMING, ASIDE = ("id", "path", "name"), ("label", "split")
ROWS_AT_ONCE = 1024
LONGEST_LINE = 2**24
"""Bytes of a line; what is longer is no row of features."""
AT_ONCE = 2**20

Complain = Callable[[str], None]
"""Is told, in one sentence each, of rows that are left out."""


@dataclass(frozen=True)
class Rows:
    """Some rows.

    Args:
        names: of each; its number, counted from 0, where it has none.
        x: (n, d) float32, finite.
    """

    names: Sequence[str | int]
    x: NDArray[np.float32]


def rows_of_file(path: Path, width: int, complain: Complain) -> Iterator[Rows]:
    """The rows of a file, or of a folder that `unseen features` wrote.

    Args:
        width: how many features a row has to have.

    Raises:
        DataError: it is missing, damaged, or holds rows of another width.
        MissingDependency: a parquet file, and pyarrow is not installed.
    """
    suffix, source = path.suffix.lower(), shown(path)
    if path.is_dir():
        collection = load_collection(path)
        yield from _of_array(collection.features, collection.paths, source, width, complain)
    elif suffix in ARRAYS:
        yield from _of_array(*_opened(path), source, width, complain)
    elif suffix == ".parquet":
        yield from _of_parquet(path, width, complain)
    else:
        try:
            with path.open("rb") as file:
                yield from rows_of_stream(file, source, width, complain)
        except OSError as error:
            raise DataError(f"{source} cannot be read ({error.strerror}); check the file") from error


def rows_of_stream(file: BinaryIO, source: str, width: int, complain: Complain) -> Iterator[Rows]:
    """The rows of a CSV table or of JSON lines, as soon as they come; which of the two, the first character says.

    Args:
        source: what the stream is called in sentences.
        width, complain, and raises: see `rows_of_file`.
    """
    lines = Lines(file, source)
    read = _of_json if lines.peek().lstrip().startswith(("[", "{")) else _of_csv
    counted = 0
    waiting: list[Parsed] = []
    for row in read(lines, source, width, complain):
        if row is not None:
            counted += 1
            if row.values is not None:
                waiting.append(row if row.name is not None else replace(row, name=counted - 1))
        if len(waiting) == ROWS_AT_ONCE or lines.dry:
            yield from _numbers(waiting, source, complain)
            waiting = []
    yield from _numbers(waiting, source, complain)


@dataclass(frozen=True)
class Parsed:
    """A row as it stands in a line: what it is called, if anything, and its values, if they can be used."""

    line: int
    name: str | int | None = None
    values: Sequence[Any] | None = None


class Lines:
    """The lines of a stream, as text.

    `number` counts those taken; `dry` says that the next one would perhaps have to be waited for.
    """

    def __init__(self, file: BinaryIO, source: str) -> None:
        self._file, self._source = file, source
        self._ready: deque[bytes] = deque()
        self._rest = b""
        self._ended = False
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        while self._ready or self._fill():
            text = self._decoded(self._ready.popleft())
            self.number += 1
            yield text

    @property
    def dry(self) -> bool:
        """Whether all that has arrived was taken."""
        return not self._ready

    def peek(self) -> str:
        """The first line that is not blank, which is still to be taken; empty where nothing comes."""
        while self._ready or self._fill():
            if (text := self._decoded(self._ready[0])).strip():
                return text
            self._ready.popleft()
            self.number += 1
        return ""

    def _fill(self) -> bool:
        """Wait for a line or more; whether any came."""
        read = getattr(self._file, "read1", self._file.read)
        while not self._ready and not self._ended:
            arrived = read(AT_ONCE)
            *whole, self._rest = (self._rest + arrived).split(b"\n")
            self._ready.extend(line + b"\n" for line in whole)
            if not arrived:
                self._ended = True
                self._ready.extend([self._rest] if self._rest else [])
            if max(len(self._rest), *map(len, whole), 0) > LONGEST_LINE:
                raise DataError(
                    f"{self._source} has a line of more than {LONGEST_LINE // 2**20} MiB, which no row of features is; check "
                    "what it is"
                )
        return bool(self._ready)

    def _decoded(self, line: bytes) -> str:
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self._source} is not UTF-8 text (line {self.number + 1}); save it as 'CSV UTF-8'") from error
        return text if self.number else text.removeprefix(codecs.BOM_UTF8.decode())


# ------------------------------------------------------------------------------------------------------------- text


def _of_csv(lines: Lines, source: str, width: int, complain: Complain) -> Iterator[Parsed | None]:
    """Rows of a table; None for a line that holds none."""
    line, count, naming, features = 0, 0, None, list[int]()
    with cells_up_to(LARGEST_CELL):
        try:
            mark = _mark(lines.peek(), width)
            for cells in csv.reader(iter(lines), delimiter=mark, strict=True):
                line = lines.number
                blank = not any(cell.strip() for cell in cells)
                if not count and not blank:
                    count, (naming, features) = len(cells), _layout(cells)
                    if len(features) != width:
                        raise DataError(
                            f"line {line} of {source} has {len(features)} columns of features "
                            f"({_shown(cells)}), and the model takes {width}; give it features as it learned "
                            "from, and call a column of names 'id'"
                        )
                    blank = not _is_row(cells)
                if blank:
                    yield None
                elif len(cells) != count:
                    complain(f"line {line} of {source} has {len(cells)} cells where the first has {count}; left out")
                    yield Parsed(line)
                else:
                    name = None if naming is None else text_of_cell(cells[naming])
                    yield Parsed(line, name, [cells[k] for k in features])
        except csv.Error as error:
            raise DataError(
                f"{source} is not a CSV table after line {line} ({shown_text(str(error))}); save it again"
            ) from error


def _mark(head: str, width: int) -> str:
    """What stands between the cells: what parts the first line into as many as are wanted, else into most."""
    fitting = (mark for mark in DELIMITERS if len(_layout(_cells(head, mark))[1]) == width)
    return next(fitting, max(DELIMITERS, key=head.count))


def _cells(line: str, mark: str) -> list[str]:
    """The cells of a line if this mark stood between them; not strict, as the mark is only tried."""
    return next(csv.reader([line], delimiter=mark), [])


def _shown(cells: Sequence[str]) -> str:
    return shown_text(", ".join(cell.strip() for cell in cells[:4]))[:80] + (", …" if len(cells) > 4 else "")


def _is_row(cells: Sequence[str]) -> bool:
    """Whether a first line is a row already. One number in it is enough: taken for names, it would be lost without a word.

    Numbers are names only beside one of the names that are known, or where they count the columns: 0, 1, 2, …
    """
    named = _lowered(cells)
    counting = named if named[0] else named[1:]
    counted = [[str(k + first) for k in range(len(counting))] for first in (0, 1)]
    if not {*NAMING, *ASIDE}.isdisjoint(named) or (len(cells) > 1 and counting in counted):
        return False
    return any(_of_numbers(cell) for cell in cells)


def _of_numbers(cell: str) -> bool:
    """Whether it is a number, or one with a decimal comma, or several between which another mark stands than was taken."""
    return all(is_number(part) for part in re.split("[,;\t]", cell))


def _lowered(cells: Sequence[str]) -> list[str]:
    return [text_of_cell(cell).strip().casefold() for cell in cells]


def _layout(cells: Sequence[str]) -> tuple[int | None, list[int]]:
    """Which column of a first line names the rows, if any, and which are features. The first may have no name, as pandas
    leaves that of its index."""
    if not cells or _is_row(cells):
        return None, list(range(len(cells)))
    named = _lowered(cells)
    naming = next((named.index(name) for name in NAMING if name in named), None if named[0] else 0)
    return naming, [k for k, name in enumerate(named) if k != naming and name not in (*NAMING, *ASIDE)]


def _of_json(lines: Lines, source: str, width: int, complain: Complain) -> Iterator[Parsed | None]:
    """Rows of JSON lines; None for a line that is blank."""
    for text in lines:
        line, name, problem = lines.number, None, ""
        if not text.strip():
            yield None
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value, problem = None, "is not JSON"
        if isinstance(value, dict):
            name = next((value[key] for key in NAMING if type(value.get(key)) in (int, str)), None)
            value = value.get("features")
        if not problem and not (isinstance(value, list) and all(type(number) in (int, float) for number in value)):
            problem = "is neither a list of numbers nor an object with such 'features'"
        elif not problem and len(value) != width:
            problem = f"has {len(value)} numbers, and the model takes {width}"
        if problem:
            complain(f"line {line} of {source} {problem}; left out")
        yield Parsed(line) if problem else Parsed(line, name, value)


def _numbers(rows: Sequence[Parsed], source: str, complain: Complain) -> Iterator[Rows]:
    """Rows of numbers, without those that hold something else."""
    try:
        x = np.array([row.values for row in rows], np.float64)
    except (ValueError, OverflowError):
        rows = [row for row in rows if _fit(row, source, complain)]
        x = np.array([row.values for row in rows], np.float64)
    if rows:
        yield from _finite([_name(row) for row in rows], x, [f"line {row.line}" for row in rows], source, complain)


def _name(row: Parsed) -> str | int:
    assert row.name is not None  # its number, if it has no other
    return row.name


def _fit(row: Parsed, source: str, complain: Complain) -> bool:
    """Whether it holds numbers alone; if not, that is told."""
    for cell in row.values or ():
        try:
            np.array([cell], np.float64)
        except (ValueError, OverflowError):
            said = shown_text(repr(cell)[:40]) if str(cell).strip() else "an empty cell"
            complain(f"line {row.line} of {source} holds {said} where a number is expected; left out")
            return False
    return True


# ----------------------------------------------------------------------------------------------------------- arrays


def _opened(path: Path) -> tuple[NDArray[Any], Sequence[str]]:
    """The features of a file, mapped, and the names of their rows if it has any."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return read_npy(path), ()
    arrays = read_npz(path) if suffix == ".npz" else read_arrays(path)[0]
    arrays = {name.casefold(): array for name, array in arrays.items()}
    tables = [name for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind in "fiu"]
    chosen = "features" if "features" in tables else tables[0] if len(tables) == 1 else None
    if chosen is None:
        held = shown_text(", ".join(arrays))[:100] or "nothing"
        raise DataError(f"{shown(path)} holds {held}; give a file with one array of two dimensions, or call it 'features'")
    names = next((arrays[name] for name in NAMING if name in arrays and arrays[name].dtype.kind in "Uiu"), None)
    if names is not None and names.shape != (len(arrays[chosen]),):
        raise DataError(f"{shown(path)} has names of shape {names.shape} for {len(arrays[chosen])} rows; give one a row")
    return arrays[chosen], () if names is None else [str(name) for name in names.tolist()]


def _of_array(features: NDArray[Any], names: Sequence[str], source: str, width: int, complain: Complain) -> Iterator[Rows]:
    if features.ndim == 1 and len(features) == width:  # one row
        features = features[None]
    if features.ndim != 2 or features.shape[1] != width or features.dtype.kind not in "fiu":
        raise DataError(
            f"{source} holds an array of {features.dtype} and shape {features.shape}, and the model takes numbers of shape "
            f"(n, {width}); give it the features that it learned from"
        )
    for start in range(0, len(features), ROWS_AT_ONCE):
        x = np.array(features[start : start + ROWS_AT_ONCE], np.float64)
        let_go(features)
        numbers = range(start, start + len(x))
        called: Sequence[str | int] = names[start : start + len(x)] if names else numbers
        yield from _finite(called, x, [f"row {row}" for row in numbers], source, complain)


def _of_parquet(path: Path, width: int, complain: Complain) -> Iterator[Rows]:
    source, start = shown(path), 0
    for table in parquet_tables(path, (*NAMING, *ASIDE), np.float64):
        x = table.numbers
        if x.shape[1] != width:
            raise DataError(
                f"{source} has {x.shape[1]} columns of features, and the model takes {width}; give it the features that it "
                "learned from, and call a column of names 'id'"
            )
        numbers = range(start, start + len(x))
        names: Sequence[str | int] = next((table.texts[name] for name in NAMING if name in table.texts), numbers)
        yield from _finite(names, x, [f"row {row}" for row in numbers], source, complain)
        start += len(x)


def _finite(
    names: Sequence[str | int], x: NDArray[np.float64], places: Sequence[str], source: str, complain: Complain
) -> Iterator[Rows]:
    """Rows in single precision, without those that hold what is no finite number there."""
    with np.errstate(over="ignore"):
        single = x.astype(np.float32)
    finite = np.asarray(np.isfinite(single).all(axis=1)).tolist()
    if not all(finite):
        for place, fine in zip(places, finite, strict=True):
            if not fine:
                complain(f"{place} of {source} holds what is no finite number; left out")
        single, names = single[finite], [name for name, fine in zip(names, finite, strict=True) if fine]
    if len(single):
        yield Rows(names, single)
