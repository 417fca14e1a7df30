"""From what a user types after a command to a data set: a built-in name or a path."""

from __future__ import annotations

from pathlib import Path

from unseen.data.dataset import Dataset
from unseen.data.native import load
from unseen.errors import DataError

BUILT_IN = {"emoji": Path(__file__).parent / "emoji"}
"""Data sets that come with the package."""


def open_dataset(name_or_path: str) -> Dataset:
    """Open a built-in data set by name, a native folder, or a folder in the xlsa17 layout (or one split file in it).

    Raises:
        DataError: nothing readable is there; the sentence says what was looked for.
    """
    if name_or_path in BUILT_IN:
        return load(BUILT_IN[name_or_path])
    try:
        path = Path(name_or_path).expanduser()
        if (path / "dataset.json").exists():
            return load(path)
        if path.suffix == ".mat" and path.is_file():
            from unseen.data.xlsa17 import read_xlsa17

            return read_xlsa17(path.parent, splits=path.name)
        if (path / "res101.mat").exists() or any(path.glob("*_splits.mat")):
            from unseen.data.xlsa17 import read_xlsa17

            return read_xlsa17(path)
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL in it, '~nobody', a closed folder
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"'{name_or_path[:200]}' cannot be opened ({cause}); check the path") from error
    raise DataError(
        f"'{name_or_path[:200]}' is neither a built-in data set ({', '.join(BUILT_IN)}) nor a folder with dataset.json or with "
        "res101.mat and att_splits.mat; check the path"
    )
