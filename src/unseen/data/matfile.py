"""MATLAB files, version 5 to 7.3, parsed where a crash does no harm: in a child process under limits.

scipy's reader dies of some damaged files (of 1,800 mutants of an uncompressed one, 30 ended the interpreter with a
segmentation fault), runs for long on others and trusts the sizes that a file claims. So a file is read by a second
interpreter with a memory, a CPU and a wall-clock limit; arrays come back through a safetensors file in a private folder.
Version 7.3 is HDF5, whose library deserves no more trust; it is read by h5py, under the same limits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.errors import DataError, MissingDependency, RunError, UnseenError
from unseen.storage import read_arrays

CHILD = Path(__file__).with_name("matfile_child.py")


@dataclass(frozen=True)
class Limits:
    """What reading one file may cost. Each limit is a constant plus a share that grows with the file.

    Args:
        seconds: wall clock and CPU time, starting the interpreter included.
        seconds_per_megabyte: more of both for every 10⁶ bytes of file (a network disk, compressed doubles).
        memory_bytes: address space; an interpreter with scipy takes about 0.4 GB of it.
        memory_per_byte: more for every byte of file: compressed numbers grow by 2 to 4 and are held three times while
            they are unpacked, typed and written.
    """

    seconds: float = 9.0
    seconds_per_megabyte: float = 0.2
    memory_bytes: int = 2 * 2**30
    memory_per_byte: float = 24.0


def read_mat(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), limits: Limits | None = None
) -> dict[str, NDArray[Any]]:
    """Read named variables of a MATLAB file, version 5 to 7.3; the last needs h5py.

    Args:
        path: the file.
        required: variables that must be there.
        optional: variables that are returned if they are there.
        limits: what the reading may cost; see `Limits` for the defaults.

    Returns:
        For every variable found its array in MATLAB's orientation: numbers as they are stored, texts (cell arrays of
        strings, character tables) as a 1-d object array of `str` without blanks around them.

    Raises:
        DataError: there is no such file, it is damaged, too costly to read, or lacks a variable.
        MissingDependency: it is of version 7.3, and h5py is not installed.
        RunError: this machine cannot start the child or has no room for what it unpacks.
    """
    limits = limits or Limits()
    size, hdf5 = _size_and_kind(path)
    seconds = limits.seconds + limits.seconds_per_megabyte * size / 1e6
    memory = int(limits.memory_bytes + limits.memory_per_byte * size)
    try:
        private = tempfile.TemporaryDirectory(prefix="unseen-mat-", ignore_cleanup_errors=True)
    except OSError as error:
        raise RunError(f"cannot make a temporary folder ({error.strerror}); set TMPDIR to one with free space") from error
    with private as folder:
        unpacked = Path(folder) / "arrays.safetensors"
        job = {
            "path": str(path.absolute()),
            "required": list(required),
            "optional": list(optional),
            "answer": str(unpacked),
            "hdf5": hdf5,
            "memory_bytes": memory,
            "cpu_seconds": seconds,
            "module_folders": [entry for entry in sys.path if Path(entry).is_absolute()],
        }
        answer = _ask_child(path, job, seconds)
        if "problem" in answer:
            raise _explained(path, answer, required, memory)
        mapped, _ = read_arrays(unpacked)
        # Copied, because the folder goes away; transposed back, see the child.
        found: dict[str, NDArray[Any]] = {name: np.array(array).T for name, array in mapped.items()}
        del mapped
    for name, texts in answer["texts"].items():
        found[name] = np.array(texts, dtype=object)
    return found


def _size_and_kind(path: Path) -> tuple[int, bool]:
    """Bytes, and whether it is of version 7.3."""
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder where a MATLAB file is expected; move the folder or rename it")
        if not path.exists():
            raise DataError(f"{path} does not exist; check the name")
        if not path.is_file():
            raise DataError(f"{path} is not an ordinary file; give a MATLAB file")
        with path.open("rb") as file:
            head = file.read(520)
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if not head:
        raise DataError(f"{path} is empty; download or save it again")
    return size, head.startswith(b"MATLAB 7.3") or b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:])


def _ask_child(path: Path, job: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Let the child do the job, whatever becomes of it, and return its answer."""
    try:
        child = _run_child(json.dumps(job), seconds)
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"{path} is damaged, or this machine is very busy: reading it took more than {seconds:.0f} seconds; "
            "try again, then download or save it again"
        ) from error
    except OSError as error:
        raise RunError(f"cannot start a second Python to read {path} ({error.strerror}); check the installation") from error
    try:
        answer = json.loads(child.stdout)
    except ValueError as error:
        raise _damaged(path, f"its reader {_end(child.returncode)}") from error
    if not isinstance(answer, dict):
        raise _damaged(path, "its reader answered nonsense")
    return answer


def _run_child(job: str, seconds: float) -> subprocess.CompletedProcess[bytes]:
    """Run the child to its end: our own interpreter, isolated (-I) from environment and current folder."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # every further one would reserve address space
    return subprocess.run(
        [sys.executable, "-I", str(CHILD)],
        input=job.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=seconds,
        env=os.environ | one_thread,
        check=False,
    )


def _explained(path: Path, answer: dict[str, Any], required: Sequence[str], memory: int) -> UnseenError:
    problem = answer["problem"]
    if problem == "missing":
        found = [_printable(name) for name in answer["found"]]
        absent = ", ".join(f"'{name}'" for name in required if name not in found) or "a variable that can be read"
        shown = (", ".join(found[:12]) + (", …" if len(found) > 12 else ""))[:300] or "nothing"
        return DataError(
            f"{path} lacks {absent}: expected {', '.join(required)}, found {shown}; check that it is the right file"
        )
    if problem == "kind":
        return DataError(
            f"'{answer['name']}' in {path} is {answer['detail']}, but a full table of real numbers or a cell array of strings "
            "is expected; convert it and save the file again"
        )
    if problem == "h5py":
        return MissingDependency(
            f"{path} is a MATLAB 7.3 file, which needs h5py; install it with: pip install 'unseen[mat73]', or save the file "
            "with save(…, '-v7')"
        )
    if problem == "memory":
        return DataError(
            f"{path} is damaged or too large: reading its {path.stat().st_size / 1e6:,.1f} MB asked for more than "
            f"{memory / 1e9:.1f} GB of memory; download or save it again"
        )
    if problem == "write":
        return RunError(
            f"cannot unpack {path} into {tempfile.gettempdir()} ({answer['detail']}); set TMPDIR to a folder with free space"
        )
    if problem == "start":
        return RunError(f"cannot read {path}: {answer['detail']}; install scipy and safetensors again")
    return _damaged(path, answer["detail"])


def _damaged(path: Path, how: str) -> DataError:
    return DataError(f"{path} is damaged or is not a MATLAB file ({_printable(how)}); download or save it again")


def _printable(text: str) -> str:
    """Text that came out of a file, fit for a sentence in a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _end(code: int) -> str:
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with code {code}"
