"""From what a user types after a command to a data set: a built-in name or a path."""

from __future__ import annotations

from pathlib import Path

from unseen.data.dataset import Dataset
from unseen.data.native import load
from unseen.errors import DataError

BUILT_IN = {"emoji": Path(__file__).parent / "emoji"}
"""Data sets that come with the package."""


def open_dataset(name_or_path: str) -> Dataset:
    """Open a built-in data set by name, a native folder, or one in the layout of xlsa17, of E-PGN or of the action benchmarks.

    The path of a file in such a folder chooses: one split file of several, or the manual attributes of actions.

    Raises:
        DataError: nothing readable is there; the sentence says what was looked for.
    """
    if name_or_path in BUILT_IN:
        return load(BUILT_IN[name_or_path])
    try:
        path = Path(name_or_path).expanduser()
        if (path / "dataset.json").exists():
            return load(path)
        from unseen.data import actions, epgn, xlsa17

        if path.suffix == ".npy" and (path.parent / actions.FEATURE_FILE).exists():
            return actions.read_actions(path.parent, embeddings=path)
        if path.suffix == ".mat" and path.is_file():
            if path.name in (epgn.FEATURE_FILE, epgn.LABEL_FILE):
                return epgn.read_epgn(path.parent)
            if actions.is_split_folder(path.parent):
                return actions.read_actions(path.parent.parent, only=path.parent.name)
            return xlsa17.read_xlsa17(path.parent, splits=path.name)
        if (path / xlsa17.FEATURE_FILE).exists():
            return xlsa17.read_xlsa17(path)
        if (path / actions.FEATURE_FILE).exists() or any(path.glob(f"split_*/{xlsa17.SPLIT_FILE}")):
            return actions.read_actions(path)
        if actions.is_split_folder(path):
            return actions.read_actions(path.parent, only=path.name)
        if (path / epgn.FEATURE_FILE).exists() or (path / epgn.LABEL_FILE).exists():
            return epgn.read_epgn(path)
        if xlsa17.find_split_files(path):
            return xlsa17.read_xlsa17(path)
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL in it, '~nobody', a closed folder
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"'{name_or_path[:200]}' cannot be opened ({cause}); check the path") from error
    raise DataError(
        f"'{name_or_path[:200]}' is neither a built-in data set ({', '.join(BUILT_IN)}) nor a folder with dataset.json, with "
        "res101.mat and att_splits.mat, with i3d.mat and split_1, or with data.mat and label.mat; check the path"
    )
