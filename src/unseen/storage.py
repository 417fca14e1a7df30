"""Files that survive: written whole or not at all, checked when read, never pickled.

Arrays live in safetensors, everything else in JSON. A write goes to a temporary name in the same folder, is flushed to
the disk and renamed, so a reader sees the old file or the new one and a failed write never harms the last good file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import mmap
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unseen.errors import DataError, RunError

JSON_LIMIT = 64_000_000
"""Bytes of JSON accepted."""

LONGEST_LIST = 10_000_000
"""Bytes of a file of names."""

SEAL = "sha256"
"""Metadata key of the checksum of a sealed file of arrays."""

FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""How text begins that a spreadsheet would run, with the quotes that keep it from it."""

NUMPY_OF = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


CODE_OF = {np.dtype(numpy): code for code, numpy in NUMPY_OF.items()}


class BeingChanged(RunError):
    """Another process changes what is in the folder."""


def write_atomically(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a temporary file, then put it in the place of `path` in one step.

    Raises RunError, naming the path and the cause, when the disk is full, read-only or refuses; `path` is unharmed.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        fill(temporary)
        with temporary.open("r+b") as written:  # Windows syncs only what is open for writing
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        cause = getattr(error, "strerror", None) or error
        raise RunError(
            f"cannot write {path}: {cause}; nothing was changed, free some space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data`, atomically."""

    def fill(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, fill)


def read_lines(path: Path) -> list[str]:
    """The lines of a text in UTF-8 that are not blank, without blanks at their ends.

    Raises DataError when it is missing, is no text, or is longer than any list of names.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_LIST + 1)
        if len(data) > LONGEST_LIST:
            raise DataError(f"{path} is larger than {LONGEST_LIST // 1_000_000} MB, which no list of names is")
        return [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8; save it again so") from error
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({cause}); give a file with one name a line") from error


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV: None is an empty cell, numbers are written in full.

    Names are a stranger's, so text that a spreadsheet would run as a formula begins with a quote, and so does text that would
    look like that: taking one quote away from what `FORMULA` matches gives every text back.
    """
    return "".join(csv_lines(header, rows))


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """The lines of `csv_text` one after the other, for a table that is larger than memory."""
    yield f"{_csv_line(header)}\n"
    for cells in rows:
        yield f"{_csv_line(cells)}\n"


def text_of_cell(cell: str) -> str:
    """The text that `csv_text` wrote into this cell: without the quote that keeps a spreadsheet from running it."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO()
    quoted = [f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell for cell in cells]
    csv.writer(line).writerow(quoted)  # with its own \r\n as the end it quotes both where they stand in a cell
    return line.getvalue().removesuffix("\r\n")


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON with sorted keys, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises DataError when the file is missing, too large, not JSON, or not an object.
    """
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise DataError(f"{path} is larger than {JSON_LIMIT // 1_000_000} MB, which no file of ours is")
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the folder's name") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged or is not JSON ({type(error).__name__}); restore it or write it anew") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds a {type(value).__name__} where an object is expected; write it anew")
    return cast(dict[str, Any], value)


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None, *, sealed: bool = False
) -> None:
    """Write arrays as one safetensors file, atomically.

    Args:
        metadata: strings only.
        sealed: keep a checksum of everything in the file, which `read_arrays` then compares.
    """
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    kept = dict(metadata or {})
    if sealed:
        kept[SEAL] = _seal(contiguous, kept)
    write_atomically(path, lambda temporary: save_file(contiguous, temporary, kept or None))


def stream_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None, *, sealed: bool = False
) -> None:
    """`write_arrays` for arrays that are mapped from a disk and larger than memory: some rows at a time, atomically.

    The library copies every array whole. The layout is its own: the length of a JSON header, the header, the arrays.
    """
    kept = dict(metadata or {})
    if sealed:
        kept[SEAL] = _seal(arrays, kept)
    header: dict[str, object] = {"__metadata__": kept} if kept else {}
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))  # so that each is aligned
    position = 0
    for name in order:
        array, begin = arrays[name], position
        position += array.nbytes
        code = CODE_OF[array.dtype.newbyteorder("<")]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [begin, position]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                file.writelines(blocks(arrays[name]))

    write_atomically(path, fill)


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Map a safetensors file into memory: its arrays, read-only and not yet loaded, and its metadata.

    The library checks the header (sizes, types, offsets, overlaps) but would copy every array; the mapping is ours. A sealed
    file is read once to compare its checksum.

    Raises DataError when the file is missing, its header lies or its seal is broken: nothing outside the file is ever read.
    """
    try:
        with safe_open(path, framework="np") as checked:
            metadata = dict(checked.metadata() or {})
        body = np.memmap(path, np.uint8, mode="r")
        length = int.from_bytes(body[:8].tobytes(), "little")
        header = json.loads(body[8 : 8 + length].tobytes())
        arrays: dict[str, NDArray[Any]] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            stored = body[8 + length + begin : 8 + length + end]
            arrays[name] = stored.view(np.dtype(NUMPY_OF[entry["dtype"]])).reshape(entry["shape"])
        if (seal := metadata.pop(SEAL, None)) is not None and seal != _seal(arrays, metadata):
            raise ValueError("its checksum differs")
        return arrays, metadata
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the folder's name") from error
    except (OSError, SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise DataError(f"{path} is damaged or is not safetensors ({error}); restore it or write it anew") from error


def check_regular(folder: Path, names: Iterable[str]) -> None:
    """DataError where one of these entries of a stranger's folder is there and is no plain file: opening a pipe never ends,
    and a link leads out of the folder."""
    for name in names:
        try:
            mode = (folder / name).lstat().st_mode
        except OSError:  # missing, which whoever reads it says
            continue
        if not stat.S_ISREG(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "no plain file"
            raise DataError(f"{folder / name} is {kind}, and was not opened; put the file itself there")


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file alone, of which no array is read; empty where it has none or cannot be read."""
    try:
        with safe_open(path, framework="np") as checked:
            return dict(checked.metadata() or {})
    except (OSError, SafetensorError, ValueError):
        return {}


def _seal(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    return hash_of([{name: fingerprint(array) for name, array in arrays.items()}, dict(metadata)])


def fingerprint(*arrays: NDArray[Any]) -> str:
    """SHA-256 over dtype, shape and values of the arrays in order; the same on every machine."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.newbyteorder('<').str}{array.shape}".encode())
        for block in blocks(array):
            digest.update(block)
    return digest.hexdigest()


def blocks(array: NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of an array, little-endian and in order of rows, some 16 MB at a time: it may be larger than memory."""
    rows = array if array.ndim else array.reshape(1)
    step = max(1, 2**24 // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        part = np.ascontiguousarray(part.astype(part.dtype.newbyteorder("<"), copy=False))
        if part.size:
            yield part.reshape(-1).view(np.uint8).data
            let_go(array)


def let_go(array: NDArray[Any]) -> None:
    """Forget what of a file was read into memory through this array, if it maps one to read it; it is read again when asked
    for. A mapped file that is gone through once would else fill the memory that others could use."""
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and getattr(array, "mode", "") == "r" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def hash_of(value: object) -> str:
    """SHA-256 of a JSON value in its canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a new folder beside `path`, then put it in its place; on failure `path` is as it was.

    Folders cannot be exchanged in one step everywhere. A process killed between the two renames leaves no `path`, and the old
    folder whole beside it under a name that begins with `.` and the folder's name.

    Raises RunError, naming the path and the cause, when the disk refuses.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = _place_of(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name[:80]}.", dir=place.parent))
        fill(temporary)
        temporary.chmod(0o755)
        _sync_folder(temporary)
        if place.exists():
            _exchange(temporary, place)
        else:
            temporary.replace(place)
        _sync_folder(place.parent)
    except OSError as error:
        raise RunError(
            f"cannot write the folder {path}: {error.strerror or error}; nothing was changed, "
            "free some space or choose another place"
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def alone(manifest: Path) -> Iterator[None]:
    """Keep a second process from changing the folder of this file meanwhile: one of the two changes would be lost.

    Raises BeingChanged, at once, when another one does. Where there is no such file nothing is kept.
    """
    import fcntl

    try:
        opened = manifest.open()
    except (OSError, ValueError):  # reading it says so
        yield
        return
    with opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            replaced = os.fstat(opened.fileno()).st_ino != manifest.stat().st_ino
        except OSError:  # it is locked, or being replaced at this moment
            replaced = True
        if replaced:
            raise BeingChanged(f"another command is changing {manifest.parent}; wait for it, and try again")
        yield


def _place_of(path: Path) -> Path:
    """The same place from the root. A way that begins in the folder there, or leads through it (`.`, `../d`, `d/../d`), ends as
    soon as that folder is put aside. A link at its end is not followed: the link is what is replaced."""
    named = path.name not in ("", "..")
    return path.parent.resolve(strict=True) / path.name if named else path.resolve(strict=True)


def _exchange(new: Path, path: Path) -> None:
    """Put the folder `new` where the folder `path` is and remove the old one, or leave `path` as it was and raise OSError."""
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.old.", dir=path.parent))
    old = aside / path.name
    try:
        path.replace(old)
        try:
            new.replace(path)
        except OSError:
            old.replace(path)
            raise
    finally:
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _sync_folder(path: Path) -> None:
    """Make a rename durable; not every file system lets a folder be opened for that."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
