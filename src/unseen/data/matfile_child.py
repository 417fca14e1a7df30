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
        return {"problem": "v7.3"}
    except Exception as error:  # a damaged file makes scipy raise nearly anything
        return {"problem": "damaged", "detail": f"{type(error).__name__}: {error}"[:200]}
    try:
        save_file(arrays, job["answer"])
    except MemoryError:
        return {"problem": "memory"}
    except Exception as error:
        return {"problem": "write", "detail": str(error)}
    return {"texts": texts}


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
