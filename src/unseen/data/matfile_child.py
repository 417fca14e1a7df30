"""Parse one MATLAB file and exit. `unseen.data.matfile` starts this file as a script; nothing imports it.

scipy's reader can take the whole interpreter down on a damaged file, ask for any amount of memory, or spin. So it does that
here, under limits, and what it made of the file leaves as numbers in a safetensors file and one line of JSON.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from typing import Any


def main() -> None:
    """Read the job from standard input, answer with one JSON object on standard output."""
    job = json.load(sys.stdin)
    _limit(int(job["memory_bytes"]), math.ceil(job["cpu_seconds"]))
    sys.path += [entry for entry in job["module_folders"] if entry not in sys.path]
    warnings.simplefilter("ignore")
    print(json.dumps(_answer(job)))


def _limit(memory_bytes: int, cpu_seconds: int) -> None:
    """Bound this process. Windows has no such limits; there the parent's clock alone stops a runaway."""
    try:
        import resource
    except ImportError:
        return
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_CORE, 0),  # a crash on a damaged file is expected and worth no dump
    ):
        _, hard = resource.getrlimit(kind)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (allowed, allowed))
        except (OSError, ValueError):  # macOS refuses RLIMIT_AS below what is mapped already
            continue


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    try:
        from numpy import ndarray
        from safetensors.numpy import save_file
        from scipy.io import loadmat, whosmat
    except ImportError as error:
        return {"problem": "start", "detail": str(error)}
    path, required, optional = job["path"], job["required"], job["optional"]
    if job["hdf5"]:
        return _answer_73(job, save_file)
    try:
        content = loadmat(path, appendmat=False, variable_names=[*required, *optional])
        wanted = {name: content[name] for name in (*required, *optional) if name in content}
        if not set(required) <= set(wanted):
            return {"problem": "missing", "found": sorted({str(entry[0]) for entry in whosmat(path, appendmat=False)})}
        arrays, texts = {}, {}
        for name, value in wanted.items():
            kind = value.dtype.kind if hasattr(value, "dtype") and hasattr(value, "reshape") else "?"
            if kind in "buif" and isinstance(value, ndarray):
                # MATLAB stores columns first, so the transposed array is the one that lies in one piece.
                arrays[name] = value.T.copy(order="C")
            elif kind in "OU" and (strings := _texts(value)) is not None:
                texts[name] = strings
            else:
                return {"problem": "kind", "name": name, "detail": _described(value)}
    except MemoryError:
        return {"problem": "memory"}
    except NotImplementedError:
        return {"problem": "damaged", "detail": "it says that it is of version 7.3, and is no HDF5 file"}
    except Exception as error:  # a damaged file makes scipy raise nearly anything
        return {"problem": "damaged", "detail": f"{type(error).__name__}: {error}"[:200]}
    return _leave(arrays, texts, job["answer"], save_file)


def _leave(arrays: dict[str, Any], texts: dict[str, list[str]], path: str, save_file: Any) -> dict[str, Any]:
    """Write the numbers where the parent looks for them, and answer with the texts."""
    try:
        save_file(arrays, path)
    except MemoryError:
        return {"problem": "memory"}
    except Exception as error:
        return {"problem": "write", "detail": str(error)}
    return {"texts": texts}


def _answer_73(job: dict[str, Any], save_file: Any) -> dict[str, Any]:
    """Version 7.3 is HDF5: arrays lie transposed, and a cell array is a table of references to what is in its cells."""
    try:
        import h5py
    except ImportError:
        return {"problem": "h5py"}
    arrays, texts = {}, {}
    try:
        with h5py.File(job["path"], "r") as file:
            for name in (*job["required"], *job["optional"]):
                if name not in file.keys():  # noqa: SIM118 - `in file` would follow a path
                    continue
                # Such files can point at others on this machine, whose content would then pass for features.
                if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                    return {"problem": "kind", "name": name, "detail": "a link to somewhere else"}
                entry = file[name]
                if not isinstance(entry, h5py.Dataset):
                    kind = "a sparse matrix" if "MATLAB_sparse" in entry.attrs else "a struct"
                    return {"problem": "kind", "name": name, "detail": kind}
                if entry.external or entry.is_virtual:
                    return {"problem": "kind", "name": name, "detail": "a reference to another file"}
                kind = entry.attrs.get("MATLAB_class", b"")
                kind = kind.decode() if isinstance(kind, bytes) else str(kind)
                if kind == "cell" or kind == "char" or entry.dtype.kind == "O":
                    strings = _texts_73(file, entry, kind, h5py)
                    if strings is None:
                        detail = "a cell array of something else than text"
                        return {"problem": "kind", "name": name, "detail": detail}
                    texts[name] = strings
                elif entry.dtype.kind in "buif":
                    value = entry[()]
                    if "MATLAB_empty" in entry.attrs:
                        value = value[:0].reshape(0, 0)
                    elif entry.ndim < 2:  # written by h5py by hand: one column
                        value = value.reshape(1, -1)
                    arrays[name] = value.astype(value.dtype.newbyteorder("="), order="C")
                else:
                    detail = "complex" if entry.dtype.kind in "cV" else "something else than numbers"
                    return {"problem": "kind", "name": name, "detail": detail}
            if not set(job["required"]) <= {*arrays, *texts}:
                return {"problem": "missing", "found": sorted(str(key) for key in list(file.keys())[:100] if key[:1] != "#")}
    except MemoryError:
        return {"problem": "memory"}
    except Exception as error:  # a damaged file makes the library raise nearly anything
        text = " ".join(str(error).split())
        if "unable to allocate" in text.lower() or "memory" in text.lower():
            return {"problem": "memory"}
        return {"problem": "damaged", "detail": f"{type(error).__name__}: {text}"[:200]}
    return _leave(arrays, texts, job["answer"], save_file)


def _texts_73(file: Any, entry: Any, kind: str, h5py: Any) -> list[str] | None:
    """The strings of a cell array, or of a character table; None if it holds anything else."""
    if "MATLAB_empty" in entry.attrs:
        return []
    if kind == "char":
        return [_utf16(column) for column in entry[()].T.reshape(-1, entry.shape[0])]
    found = []
    for reference in entry[()].T.reshape(-1):  # the cells of a column, as the file lies transposed
        if isinstance(reference, bytes | str):  # strings that a program other than MATLAB wrote as such
            found.append(reference.decode() if isinstance(reference, bytes) else reference)
            continue
        cell = file[reference] if isinstance(reference, h5py.Reference) and reference else None
        if not isinstance(cell, h5py.Dataset) or cell.external or cell.is_virtual or cell.dtype.kind not in "u":
            return None
        found.append("" if "MATLAB_empty" in cell.attrs else _utf16(cell[()].reshape(-1)))
    return [text.strip() for text in found]


def _utf16(codes: Any) -> str:
    return str(codes.astype("<u2").tobytes().decode("utf-16-le", "replace")).strip()


def _texts(value: Any) -> list[str] | None:
    """The strings of a cell array of strings or of a padded character table; None if it holds anything else."""
    found = []
    for entry in value.reshape(-1):
        text = entry
        while getattr(text, "size", None) == 1 and hasattr(text, "reshape"):
            text = text.reshape(-1)[0] if text.ndim else text.item()
        if getattr(text, "size", None) == 0 and text.dtype.kind == "U":
            text = ""
        if not isinstance(text, str):
            return None
        found.append(str(text).strip())
    return found


def _described(value: Any) -> str:
    """What the user stored instead of numbers or strings, in a word or two."""
    if type(value).__module__.startswith("scipy.sparse"):
        return "a sparse matrix"
    dtype = getattr(value, "dtype", None)
    return {"c": "complex", "O": "a cell array of something else than text", "V": "a struct"}.get(
        getattr(dtype, "kind", ""), f"a {type(value).__name__}"
    )


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # what a damaged file left in memory need not survive an orderly end
