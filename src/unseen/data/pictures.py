"""Which pictures there are, and of what class: a folder with one sub-folder per class, or a table of path and label.

Nothing is opened here but folders and the table. What cannot be used is a problem on a list, not an end: a collection of a
million files always has some that are none.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import os
import stat
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from unseen.data.spreadsheets import cells_up_to, delimiter_of, parquet_batches, parquet_columns
from unseen.encoders.images import shown
from unseen.errors import DataError
from unseen.storage import text_of_cell

LONGEST_LABEL = 1_000
LARGEST_CELL = 100_000
"""Characters of a cell of a CSV table."""
HIDDEN = "is hidden"


@dataclass(frozen=True)
class Problem:
    """A picture, or what should be one, that was left out, and why.

    Args:
        path: relative to the table's root, as the system has it.
        why: a part of a sentence.
    """

    path: str
    why: str


@dataclass(frozen=True)
class PictureTable:
    """Paths and labels in an order that depends on nothing else.

    Args:
        root: what relative paths begin at.
        paths: n, as the system or the user's table has them.
        labels: n class names, in Unicode's composed form (NFC).
        problems: what was left out while listing.
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def place(self, row: int) -> str:
        """Where a row's picture is, from anywhere on this machine."""
        return os.path.join(os.getcwd(), self.root, self.paths[row])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of paths and labels in their order; where the root is does not matter."""
        digest = hashlib.sha256()
        for row in zip(self.paths, self.labels, strict=True):
            for text in map(os.fsencode, row):
                digest.update(len(text).to_bytes(8, "little") + text)
        return digest.hexdigest()


def list_pictures(source: Path) -> PictureTable:
    """The pictures of a folder or of a table (.csv, .parquet).

    Raises:
        DataError: there is no picture, or `source` is neither.
        MissingDependency: a parquet table needs pyarrow.
    """
    try:
        kind = source.stat().st_mode
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(source)} cannot be opened ({cause}); check the path") from error
    if stat.S_ISDIR(kind):
        table = _of_folder(source)
        hint = "give a folder that has one sub-folder per class, with the class's pictures in it"
    elif source.suffix.lower() in (".csv", ".tsv", ".txt"):
        table = _of_rows(source, _in_unicode(source, list(_csv_rows(source))))
        hint = "give one line per picture"
    elif source.suffix.lower() in (".parquet", ".pq"):
        table = _of_rows(source, _parquet_rows(source))
        hint = "give one row per picture"
    else:
        raise DataError(
            f"{shown(source)} is neither a folder nor a table; give a folder, or a .csv or .parquet of path and label"
        )
    if not table.paths:
        first = f" (left out: {shown(table.problems[0].path)}, which {table.problems[0].why})" if table.problems else ""
        raise DataError(f"{shown(source)} lists no picture{first}; {hint}")
    return table


def pictures_below(folder: Path) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    """All files below a folder, whatever their folders are called, and what was left out; hidden files count for nothing.

    Paths are relative to the folder, in the order of their bytes. Raises DataError where the folder cannot be opened.
    """
    problems: list[Problem] = []
    paths = sorted(_walk(folder, "", _folders_from(folder), problems), key=os.fsencode)
    if problems and problems[0].path == "":
        raise DataError(f"{shown(folder)} {problems[0].why}; check its permissions")
    return tuple(paths), tuple(problem for problem in problems if problem.why != HIDDEN)


def _of_folder(folder: Path) -> PictureTable:
    rows: list[tuple[str, str]] = []
    problems: list[Problem] = []
    spelled: dict[str, str] = {}
    above = _folders_from(folder)
    for name, mode, identity in _entries(folder, "", problems):
        if not stat.S_ISDIR(mode):
            problems.append(Problem(name, "lies beside the class folders, so it has no class"))
            continue
        if identity in above:
            problems.append(Problem(name, "is a link to the folder of the classes, or to one above, so it is no class"))
            continue
        label = unicodedata.normalize("NFC", name)
        if why := _unfit(label):
            problems.append(Problem(name, f"is a folder whose name no class can have: it {why}; its pictures are left out"))
            continue
        if spelled.setdefault(label, name) != name:
            problems.append(Problem(name, "is named as another folder in another Unicode form; both are taken as one class"))
        before = len(rows)
        rows += ((path, label) for path in _walk(folder, name, {*above, identity}, problems))
        if len(rows) == before:
            problems.append(Problem(name, "is a class folder without a picture"))
    rows.sort(key=lambda row: (row[1], os.fsencode(row[0])))
    return PictureTable(folder, tuple(path for path, _ in rows), tuple(label for _, label in rows), tuple(problems))


def _walk(root: Path, start: str, entered: set[tuple[int, int]], problems: list[Problem]) -> Iterator[str]:
    """Files below a class folder, links followed; each folder is entered once, so links that lead in circles end."""
    to_do = [start]
    while to_do:
        for path, mode, identity in _entries(root, to_do.pop(), problems):
            if stat.S_ISREG(mode):
                yield path
            elif not stat.S_ISDIR(mode):
                problems.append(Problem(path, "is no file but a pipe, a socket or a device"))
            elif identity in entered:
                problems.append(Problem(path, "is a link to a folder that was read already, or to one above"))
            else:
                entered.add(identity)
                to_do.append(path)


def _entries(root: Path, folder: str, problems: list[Problem]) -> list[tuple[str, int, tuple[int, int]]]:
    """Path, mode and identity of what a folder holds, without what is hidden; in the order of the names' bytes."""
    found = []
    try:
        names = sorted(os.listdir(os.path.join(root, folder)), key=os.fsencode)
    except OSError as error:
        problems.append(Problem(folder, f"is a folder that cannot be opened ({error.strerror})"))
        return []
    for name in names:
        path = os.path.join(folder, name)
        if name.startswith("."):
            problems.append(Problem(path, HIDDEN))
            continue
        try:
            about = os.stat(os.path.join(root, path))
        except OSError as error:
            problems.append(Problem(path, f"cannot be reached ({error.strerror})"))
            continue
        found.append((path, about.st_mode, (about.st_dev, about.st_ino)))
    return found


def _folders_from(folder: Path) -> set[tuple[int, int]]:
    """The identities of a folder and of those above it, each of which holds all of it."""
    whole = folder.resolve()
    found = set()
    for place in (whole, *whole.parents):
        with suppress(OSError):  # of another user perhaps, and then no link leads there either
            about = place.stat()
            found.add((about.st_dev, about.st_ino))
    return found


def _of_rows(source: Path, cells: Iterable[tuple[str, str]]) -> PictureTable:
    """Paths are relative to the table's folder, unless they are whole."""
    known: dict[str, str] = {}
    problems: list[Problem] = []
    for path, label in cells:
        label = unicodedata.normalize("NFC", label.strip())
        if not path.strip() or "\0" in path:
            problems.append(Problem(path.replace("\0", "\ufffd"), "is no path"))
        elif why := _unfit(label):
            problems.append(Problem(path, f"has a label that no class can have: it {why}"))
        elif path in known:
            other = "" if known[path] == label else f", with the label '{known[path]}', which is kept"
            problems.append(Problem(path, f"is listed before{other}"))
        else:
            known[path] = label
    return PictureTable(source.parent, tuple(known), tuple(known.values()), tuple(problems))


def _unfit(label: str) -> str:
    """What keeps a text from being a class name, if anything does."""
    if not label.strip():
        return "is blank"
    if len(label) > LONGEST_LABEL:
        return f"is longer than {LONGEST_LABEL} characters"
    if _not_utf_8(label):
        return "is not UTF-8"
    return "" if label.isprintable() else "holds characters that cannot be printed"


def _in_unicode(source: Path, rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is not UTF-8 in a table is Windows-1252, of which a warning tells, except paths that name a file as they are.

    A table that has UTF-8 as well is damaged here and there, and nothing in it is read otherwise.
    """

    def foreign(path: str) -> bool:
        return _not_utf_8(path) and not os.path.lexists(os.path.join(source.parent, path))

    odd = (cell for path, label in rows for cell in (label, path) if _not_utf_8(cell) and (cell is label or foreign(cell)))
    if (example := next(odd, None)) is None:
        return rows
    if any(not cell.isascii() and not _not_utf_8(cell) for row in rows for cell in row):
        return rows
    try:
        read = [(_windows_1252(path) if foreign(path) else path, _windows_1252(label)) for path, label in rows]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown(source)} is in none of UTF-8, UTF-16 and Windows-1252; save the table as 'CSV UTF-8'"
        ) from error
    warnings.warn(
        f"{shown(source)} is not UTF-8 and was read as Windows-1252, so one of its cells is {_windows_1252(example)[:60]!r}; "
        "if that is wrong, save it as 'CSV UTF-8'",
        stacklevel=3,
    )
    return read


def _not_utf_8(text: str) -> bool:
    """Whether it holds bytes, which are kept as lone surrogates."""
    return not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text)


def _windows_1252(text: str) -> str:
    return text.encode(errors="surrogateescape").decode("cp1252")


def _csv_rows(source: Path) -> Iterator[tuple[str, str]]:
    """Without the quotes that keep a spreadsheet from running a cell, as our own tables have them."""
    try:
        with source.open("rb") as file:
            marked = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding, errors = ("utf-16", "strict") if marked else ("utf-8-sig", "surrogateescape")
        with cells_up_to(LARGEST_CELL), source.open(encoding=encoding, errors=errors, newline="") as file:
            head = file.read(LARGEST_CELL)
            file.seek(0)
            lines = csv.reader(file, delimiter=delimiter_of(head, ("path", "label")), strict=True)
            path, label = _columns(source, [cell.strip().lower() for cell in next(lines, [])])
            for cells in lines:
                if cells:
                    yield (*(text_of_cell(cells[i]) if i < len(cells) else "" for i in (path, label)),)  # type: ignore[misc]
    except (OSError, csv.Error, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(source)} is damaged or is no CSV ({cause}); write it anew, as UTF-8") from error


def _columns(source: Path, header: list[str]) -> tuple[int, int]:
    for name in ("path", "label"):
        if header.count(name) != 1:
            there = ", ".join(repr(cell[:40]) for cell in header[:8])
            how = "has no column" if name not in header else "has several columns"
            raise DataError(f"{shown(source)} {how} '{name}' (its first line: {there}); name the columns path and label")
    return header.index("path"), header.index("label")


def _parquet_rows(source: Path) -> Iterator[tuple[str, str]]:
    names = parquet_columns(source)
    columns = [names[i] for i in _columns(source, [name.strip().lower() for name in names])]
    for batch in parquet_batches(source, columns):
        parts = [batch.column(name).to_pylist() for name in columns]
        for path, label in zip(*parts, strict=True):
            yield "" if path is None else str(path), "" if label is None else str(label)
