"""NumPy's `.npz` files, without pickle, and without unpacking more into memory than a file of that size can honestly hold.

`numpy.load` copies every array and believes what a header declares. Here what is not compressed is mapped, as it lies in the
file in one piece, and what is compressed is measured first.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.spreadsheets import shown_text
from unseen.errors import DataError
from unseen.storage import blocks, let_go, write_atomically

ALWAYS_UNPACKED = 2**28
"""Bytes that the compressed arrays of a file may always have together, however well they were compressed."""

MOST_UNPACKED = 200
"""Beyond that, so many bytes for each byte in the file; features that are mostly zero reach a tenth of that."""

MOST_ARRAYS = 10_000


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays uncompressed, some rows at a time, atomically; the same arrays make the same bytes."""

    def fill(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                header = {"descr": array.dtype.newbyteorder("<").str, "fortran_order": False, "shape": array.shape}
                entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
                with archive.open(entry, "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    for block in blocks(array):
                        member.write(block)

    write_atomically(path, fill)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file: mapped where they are stored as they are, else unpacked.

    Raises:
        DataError: the file is missing, damaged, holds Python objects, or declares more than such a file can hold.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            names = [entry.filename.removesuffix(".npy") for entry in members]
            if len(members) > MOST_ARRAYS or len(set(names)) < len(names):
                raise ValueError("it lists more arrays than it can hold, or one twice")
            # Together, and measured by the file itself: what its list of contents says may be as false as all the rest.
            room = max(ALWAYS_UNPACKED, MOST_UNPACKED * path.stat().st_size)
            arrays: dict[str, NDArray[Any]] = {}
            for name, entry in zip(names, members, strict=True):
                arrays[name] = _array(path, archive, entry, room)
                room -= arrays[name].nbytes if entry.compress_type != zipfile.ZIP_STORED else 0
            return arrays
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the name") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory; save it with numpy.savez, uncompressed, which is mapped") from error
    except Exception as error:  # a damaged file makes zipfile and numpy raise nearly anything
        cause = shown_text(f"{type(error).__name__}: {error}")[:150]
        raise DataError(f"{path} is damaged or is not an .npz file ({cause}); save it again with numpy.savez") from error


def _array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, room: int) -> NDArray[Any]:
    shown = shown_text(entry.filename)[:60]
    with archive.open(entry) as member:
        shape, fortran, dtype = _header(member)
        begin = member.tell()
        if dtype.hasobject:
            raise DataError(
                f"'{shown}' in {path} holds Python objects, which are never read, as reading them can run a program; "
                "store numbers, and texts as text (dtype str)"
            )
        if dtype.kind not in "buifU":
            raise DataError(f"'{shown}' in {path} holds {str(dtype)[:60]}, but numbers or texts are expected; store those")
        size = math.prod(shape) * dtype.itemsize
        if size != entry.file_size - begin:
            raise DataError(
                f"'{shown}' in {path} declares {size:,} bytes and holds {entry.file_size - begin:,}; save it again with "
                "numpy.savez"
            )
        if size == 0:
            return np.empty(shape, dtype)
        if entry.compress_type == zipfile.ZIP_STORED:
            return _mapped(path, entry, begin, shape, fortran, dtype)
        if size > room:
            raise DataError(
                f"'{shown}' in {path} would unpack to {size:,} bytes, with which the file's arrays take far more room than "
                "features of its size do; if that is meant, save it with numpy.savez, uncompressed"
            )
        raw = np.empty(size, np.uint8)
        filled = 0
        while filled < size:
            part = member.read(min(2**24, size - filled))
            if not part:
                raise ValueError("it ends too early")
            raw[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
            filled += len(part)
        member.read(1)  # at its end the checksum is compared
    return raw.view(dtype).reshape(shape, order="F" if fortran else "C")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if any(length < 0 for length in shape):
        raise ValueError("a length is negative")
    return shape, fortran, dtype


def _mapped(
    path: Path, entry: zipfile.ZipInfo, begin: int, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """An array that is stored as it is, mapped; its checksum is compared, as mapping alone would not."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        local = file.read(30)
        name_length, extra_length = struct.unpack_from("<HH", local, 26)
        offset = entry.header_offset + 30 + name_length + extra_length
    if entry.compress_size != entry.file_size or offset + entry.file_size > path.stat().st_size:
        raise ValueError("an array reaches beyond the end of the file")
    whole = np.memmap(path, np.uint8, mode="r", offset=offset, shape=(entry.file_size,))
    checksum = 0
    for start in range(0, len(whole), 2**24):
        checksum = zlib.crc32(whole[start : start + 2**24].data, checksum)
        let_go(whole)
    if checksum != entry.CRC:
        raise ValueError(f"the checksum of {entry.filename[:60]} differs")
    return whole[begin:].view(dtype).reshape(shape, order="F" if fortran else "C")
