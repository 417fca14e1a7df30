"""Lists of classes as people write them: a CSV or parquet table with a name a row, and words or numbers about it.

Nothing is encoded here. A class may stand in several rows and have several sentences; what is said of it is kept as text.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import ClassTable, Floats
from unseen.data.spreadsheets import DELIMITERS, parquet_batches, parquet_columns
from unseen.data.validate import LONGEST_NAME, comparable_name
from unseen.errors import DataError
from unseen.storage import text_of_cell

LARGEST_FILE = 2**28
"""Bytes; a list of classes that is larger is something else."""
LONGEST_CELL = 100_000
"""Characters; more than any encoder reads, so a longer cell is a mistake, often a quote that is never closed."""
MOST_ROWS = 1_000_000

DESCRIPTION = re.compile(r"description([ _]?\d+)?")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)
MISSING = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none", "-", "?"})
"""Cells, in lower case, that stand for a number nobody knows."""
LINE_BREAK = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Said:
    """One row of the list: what it says of its class.

    Args:
        sentences: its descriptions, none blank.
        columns: cells of the other columns by lower-case name, trimmed; may be blank.
        place: where it stands, for a sentence about a mistake.
    """

    sentences: tuple[str, ...]
    columns: Mapping[str, str]
    place: str


@dataclass(frozen=True)
class ListedClass:
    """A class of the list: its name, its group or "", and everything that is said of it, in order."""

    name: str
    group: str
    rows: tuple[Said, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """All descriptions, each once, in order."""
        return tuple(dict.fromkeys(sentence for row in self.rows for sentence in row.sentences))


@dataclass(frozen=True)
class ClassList:
    """The classes in order of first appearance, and the columns beside name, descriptions and group.

    Args:
        classes: at least one.
        columns: lower-case names, in order.
        decimal_comma: numbers are written 0,5: the parts between cells are semicolons.
        source: what the list is called in sentences.
    """

    classes: tuple[ListedClass, ...]
    columns: tuple[str, ...]
    decimal_comma: bool
    source: str

    def table(self, embeddings: Floats) -> ClassTable:
        """These classes with (C, a) embeddings, a row each; a description is the sentences, one a line. Not checked."""
        sentences = tuple("\n".join(entry.sentences) for entry in self.classes)
        groups = tuple(entry.group for entry in self.classes)
        return ClassTable(
            names=tuple(entry.name for entry in self.classes),
            embeddings=embeddings,
            descriptions=sentences if any(sentences) else (),
            groups=groups if any(groups) else (),
        )


def read_class_list(path: Path) -> ClassList:
    """Read a list of classes from a CSV or parquet file.

    Columns: `name`; `group`, if any; `description` or `description_1`, `description_2`, …, if any; others as they come. Upper
    and lower case do not matter in the first line. Every line of a description is a sentence of its own, a cell that holds no
    line break is one, however many full stops are in it; in a parquet file a cell may be a list of sentences. Rows of the same
    name, trimmed and in Unicode NFC, are about the same class.

    A CSV has commas, semicolons or tabs between its cells and is in UTF-8, or UTF-16 with its mark; else it is read as
    Windows-1252, as older spreadsheets write it, with a warning that shows what came of that. The quote that keeps a
    spreadsheet from running a cell as a formula is taken away.

    Raises:
        DataError: the file is missing, damaged or not such a table; the sentence names the line.
        MissingDependency: a parquet file, and pyarrow is not installed.
    """
    try:
        is_parquet = path.suffix.lower() == ".parquet"
        delimiter, lines = ("", _parquet_lines(path)) if is_parquet else _csv_lines(path, _content(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the name") from error
    except (OSError, ValueError) as error:  # a folder, no permission; a NUL in the name
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{str(path)[:200]!r} cannot be read ({cause}); give a CSV or parquet file") from error
    return _grouped(str(path), lines, decimal_comma=delimiter == ";")


def class_list_of(descriptions: Mapping[str, str | Sequence[str]]) -> ClassList:
    """A list of classes from names and what is said of each: a text, several, or a blank one where nothing is."""
    lines: list[tuple[str, list[str]]] = [("", ["name", "description"])]
    for name, said in descriptions.items():
        texts = [said] if isinstance(said, str) else list(said)
        if not all(isinstance(text, str) for text in (name, *texts)):
            raise DataError(f"class {str(name)[:40]!r} needs a text as its name and a text, or several, as its description")
        lines.append((f"class {name[:40]!r}", [name, "\n".join(texts)]))
    _refuse_look_alikes(descriptions)  # also those that trimming makes one: rows of a table may say more of a class, keys not
    return _grouped("the classes given", lines, decimal_comma=False)


# ------------------------------------------------------------------------------------------------------------- cells


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)  # a device says that it has no size, and may have no end
    if len(content) > LARGEST_FILE:
        raise DataError(f"{path} is larger than {LARGEST_FILE // 2**20} MiB, which no list of classes is; check the name")
    return content


def _csv_lines(path: Path, content: bytes) -> tuple[str, list[tuple[str, list[str]]]]:
    """The delimiter, and (place, cells) of every row that is not blank, the header first."""
    text = _decoded(path, content)
    header = ""
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines: list[tuple[str, list[str]]] = []
        begun = 0
        try:
            for cells in reader:
                place, begun = f"line {begun + 1} of {path}", reader.line_num
                cells = [text_of_cell(cell) for cell in cells]
                if any(cell.strip() for cell in cells):
                    lines.append((place, cells))
                    if len(lines) == 1 and "name" not in (cell.strip().casefold() for cell in cells):
                        break
            else:
                if lines:
                    return delimiter, lines
        except csv.Error as error:
            if lines or delimiter == DELIMITERS[-1]:
                raise DataError(
                    f"line {begun + 1} of {path} cannot be parted into cells ({error}); look for a quote that is never closed "
                    f"or a cell of more than {LONGEST_CELL:,} characters"
                ) from error
        header = header or text.strip().partition("\n")[0].strip()[:100]
    if not header:
        raise DataError(f"{path} is empty; give a table whose first line names its columns, one of them 'name'")
    raise DataError(f"{path} has no column 'name' in its first line, but {header!r}; name the columns there")


def _decoded(path: Path, content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    else:
        if (nul := content.find(0)) >= 0:
            line = content.count(b"\n", 0, nul) + 1
            raise DataError(f"line {line} of {path} holds a NUL, so it is no text; save the table as 'CSV UTF-8'")
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "cp1252":
            foreign = next(line for line in text.splitlines() if not line.isascii()).strip()
            warnings.warn(
                f"{path} is not UTF-8 and was read as Windows-1252, so one of its lines is {foreign[:60]!r}; if that is wrong, "
                "save it as 'CSV UTF-8'",
                stacklevel=2,
            )
        if "\0" in text:
            raise DataError(f"{path} holds a NUL, so it is no text; save the table as 'CSV UTF-8'")
        return text
    raise DataError(f"{path} is in none of UTF-8, UTF-16 and Windows-1252; save the table as 'CSV UTF-8'")


def _parquet_lines(path: Path) -> list[tuple[str, list[str]]]:
    names = parquet_columns(path)
    if "name" not in (name.strip().casefold() for name in names):
        raise DataError(f"{path} has no column 'name', but {', '.join(names)[:100]!r}; name one so")
    lines = [("", names)]
    for batch in parquet_batches(path):
        if len(lines) + len(batch) > MOST_ROWS:
            raise DataError(f"{path} has more than {MOST_ROWS:,} rows, which no list of classes has; check the name")
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            place = f"row {len(lines) - 1} of {path}"
            lines.append((place, [_cell(value, name, place) for name, value in zip(names, values, strict=True)]))
    return lines


def _cell(value: Any, column: str, place: str) -> str:
    """A parquet value as the text that a CSV would have: numbers in full, nothing for what is missing."""
    if value is None or value != value:
        return ""
    if isinstance(value, str | bool | int | float):
        return str(int(value)) if isinstance(value, bool) else str(value)
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return "\n".join(value)
    raise DataError(
        f"{place} holds a {type(value).__name__} in column {column[:40]!r}, where a text, a number or a list of texts is "
        "expected; correct it or leave the column out"
    )


# ----------------------------------------------------------------------------------------------------------- classes


def _grouped(source: str, lines: list[tuple[str, list[str]]], *, decimal_comma: bool) -> ClassList:
    """Rows of cells, the header first, to classes."""
    header, rows = [cell.strip().casefold() for cell in lines[0][1]], lines[1:]
    kept = [k for k, name in enumerate(header) if name or any(k < len(cells) and cells[k].strip() for _, cells in rows)]
    for k in kept:
        if not header[k] or header.index(header[k]) != k:
            what = f"two columns {header[k][:40]!r}" if header[k] else f"no name for column {k + 1}"
            raise DataError(f"{source} has {what} in its first line; give every column a name of its own")
    if not rows:
        raise DataError(f"{source} has no class below its header; give at least one")
    described = [k for k in kept if DESCRIPTION.fullmatch(header[k])]
    others = [k for k in kept if k not in described and header[k] not in ("name", "group")]
    groups: dict[str, str] = {}
    said: dict[str, list[Said]] = {}
    for place, cells in rows:
        if len(cells) != len(header):
            raise DataError(f"{place} has {len(cells)} cells, but the first line names {len(header)} columns; correct it")
        for k in kept:
            _check_cell(cells[k], header[k], place)
        name = _checked_name(cells[header.index("name")], place)
        said.setdefault(name, []).append(
            Said(
                sentences=tuple(sentence for k in described for sentence in _sentences(cells[k])),
                columns={header[k]: cells[k].strip() for k in others},
                place=place,
            )
        )
        group = " ".join(cells[header.index("group")].split()) if "group" in header else ""
        if group and groups.setdefault(name, group) != group:
            raise DataError(
                f"{place} puts class {name!r} in group {group[:40]!r}, but an earlier one puts it in {groups[name][:40]!r}; "
                "give it one group"
            )
    _refuse_look_alikes(said)
    if groups and (without := [name for name in said if name not in groups]):
        raise DataError(f"class {without[0]!r} of {source} has no group, but others have; give every class one, or none")
    return ClassList(
        classes=tuple(ListedClass(name, groups.get(name, ""), tuple(entries)) for name, entries in said.items()),
        columns=tuple(header[k] for k in others),
        decimal_comma=decimal_comma,
        source=source,
    )


def _sentences(cell: str) -> Iterator[str]:
    """Every line that is not blank, with its blanks collapsed."""
    return (" ".join(line.split()) for line in LINE_BREAK.split(cell) if line.strip())


def _checked_name(cell: str, place: str) -> str:
    name = unicodedata.normalize("NFC", cell.strip())
    if not name:
        raise DataError(f"{place} has a blank name; name the class or take the row away")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise DataError(
            f"{place} has the name {name[:40]!r}, but a name has 1 to {LONGEST_NAME} printable characters; rename it"
        )
    return name


def _check_cell(cell: str, column: str, place: str) -> None:
    if len(cell) > LONGEST_CELL:
        raise DataError(
            f"{place} holds {len(cell):,} characters in column {column[:40]!r}, and no encoder reads more than "
            f"{LONGEST_CELL:,}; shorten it"
        )
    if "\0" in cell or any("\ud800" <= character <= "\udfff" for character in cell):
        raise DataError(f"{place} holds what is no text in column {column[:40]!r} (a NUL or half a character); correct it")


def _refuse_look_alikes(names: Iterable[str]) -> None:
    first_with: dict[str, str] = {}
    for name in names:
        if (other := first_with.setdefault(comparable_name(name), name)) != name:
            raise DataError(
                f"classes {other!r} and {name!r} have the same name once case, blanks and Unicode form are ignored; write it "
                "in one way where they are the same class, else rename one"
            )


# -------------------------------------------------------------------------------------------------------- attributes


def attributes(listed: ClassList) -> tuple[NDArray[np.float64], str]:
    """(C, a) the numbers of all columns that hold numbers, as they are, and one sentence that names their columns.

    A column without any number is left out with a warning.

    Raises DataError when a class stands twice or lacks a number, or there is no column of numbers.
    """
    for entry in listed.classes:
        if len(entry.rows) > 1:
            raise DataError(
                f"class {entry.name!r} stands twice ({entry.rows[0].place} and {entry.rows[1].place}); attributes need one row "
                "a class, so merge them or rename one"
            )
    rows = [(entry.name, entry.rows[0]) for entry in listed.classes]
    columns: dict[str, list[float]] = {}
    texts = []
    for column in listed.columns:
        numbers = [_number(row.columns[column], listed.decimal_comma) for _, row in rows]
        if all(number is None for number in numbers):
            texts.append(column)
            continue
        for (name, row), number in zip(rows, numbers, strict=True):
            if number is None:
                cell = row.columns[column]
                what = "no number" if cell.casefold() in MISSING else f"{cell[:40]!r}, which is no number,"
                raise DataError(
                    f"class {name!r} has {what} in column {column[:40]!r} ({row.place}); fill it in or leave it out"
                )
        columns[column] = [number for number in numbers if number is not None]
    if not columns:
        raise DataError(
            f"{listed.source} has no column of numbers; add some, or let `unseen embed` make embeddings of its words, by an "
            "encoder other than attributes"
        )
    if texts:
        warnings.warn(f"columns left out because they hold no number: {', '.join(texts)[:200]}", stacklevel=3)
    return np.column_stack(list(columns.values())), f"{len(columns)} attributes as they are: {', '.join(columns)}"


def _number(cell: str, decimal_comma: bool) -> float | None:
    """The number in a cell, else None; not everything that Python would take for one (1_000, infinity)."""
    if decimal_comma and DECIMAL_COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    return float(cell) if NUMBER.fullmatch(cell) else None
