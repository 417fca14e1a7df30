"""From what a user types after a command to a data set: a built-in name or a path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unseen.data.dataset import Dataset
from unseen.data.native import load
from unseen.errors import DataError

BUILT_IN = {"emoji": Path(__file__).parent / "emoji"}
"""Data sets that come with the package."""

BUNDLES = (".npz", ".safetensors")
TABLES = (".csv", ".parquet", ".npy")


@dataclass(frozen=True)
class Opened:
    """A data set, and in a few words what was found at the path."""

    dataset: Dataset
    found: str


def open_dataset(name_or_path: str) -> Dataset:
    """Open a built-in data set by name, or whatever a path leads to; see `find_dataset` for what that may be.

    Raises:
        DataError: nothing readable is there; the sentence says what was looked for.
    """
    return find_dataset(name_or_path).dataset


def find_dataset(name_or_path: str) -> Opened:
    """Open a built-in data set by name, or what a path leads to, and say what it is.

    A folder in the native format, in the layout of xlsa17, of E-PGN or of the action benchmarks, with tables (CSV, parquet)
    or NumPy arrays; or one file `.npz` or `.safetensors`. The path of a file in such a folder chooses: one split file of
    several, or the manual attributes of actions.

    Raises:
        DataError: nothing readable is there; the sentence says what was looked for.
        MissingDependency: parquet or MATLAB 7.3, without the package that reads it.
    """
    if name_or_path in BUILT_IN:
        return Opened(load(BUILT_IN[name_or_path]), f"the built-in data set '{name_or_path}'")
    try:
        if (opened := _open(Path(name_or_path).expanduser())) is not None:
            return opened
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL in it, '~nobody', a closed folder
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"'{name_or_path[:200]}' cannot be opened ({cause}); check the path") from error
    for file, what in (("features.json", "features alone"), ("classes.json", "classes alone")):
        if (Path(name_or_path).expanduser() / file).exists():
            raise DataError(
                f"'{name_or_path[:200]}' holds {what}; `unseen data build` makes a data set of features and classes"
            )
    raise DataError(
        f"'{name_or_path[:200]}' is neither a built-in data set ({', '.join(BUILT_IN)}) nor a folder with dataset.json, with "
        "res101.mat and att_splits.mat, with i3d.mat and split_1, with data.mat and label.mat, or with features.csv, .parquet "
        "or .npy, nor an .npz or .safetensors file; check the path"
    )


def _open(path: Path) -> Opened | None:
    if (path / "dataset.json").exists():
        return Opened(load(path), "a folder in unseen's own format")
    from unseen.data import actions, bundle, epgn, tables, xlsa17

    if path.suffix in BUNDLES and path.is_file():
        return Opened(bundle.read_bundle(path), f"a data set in one {path.suffix} file")
    if path.suffix in TABLES and path.stem == tables.FEATURES and path.is_file():
        return Opened(tables.read_tables(path.parent, path.suffix), _tables(path.suffix))
    if path.suffix == ".npy" and (path.parent / actions.FEATURE_FILE).exists():
        return Opened(actions.read_actions(path.parent, embeddings=path), ACTIONS)
    if path.suffix == ".mat" and path.is_file():
        if path.name in (epgn.FEATURE_FILE, epgn.LABEL_FILE):
            return Opened(epgn.read_epgn(path.parent), EPGN)
        if actions.is_split_folder(path.parent):
            return Opened(actions.read_actions(path.parent.parent, only=path.parent.name), ACTIONS)
        if path.name == xlsa17.FEATURE_FILE:
            return Opened(Dataset.from_xlsa17(path.parent), XLSA17)
        return Opened(Dataset.from_xlsa17(path.parent, splits=path.name), XLSA17)
    if (path / xlsa17.FEATURE_FILE).exists():
        return Opened(Dataset.from_xlsa17(path), XLSA17)
    if (path / actions.FEATURE_FILE).exists() or any(path.glob(f"split_*/{xlsa17.SPLIT_FILE}")):
        return Opened(actions.read_actions(path), ACTIONS)
    if actions.is_split_folder(path):
        return Opened(actions.read_actions(path.parent, only=path.name), ACTIONS)
    if (path / epgn.FEATURE_FILE).exists() or (path / epgn.LABEL_FILE).exists():
        return Opened(epgn.read_epgn(path), EPGN)
    for suffix in TABLES:
        if (path / f"{tables.FEATURES}{suffix}").exists():
            return Opened(tables.read_tables(path, suffix), _tables(suffix))
    if xlsa17.find_split_files(path):
        return Opened(Dataset.from_xlsa17(path), XLSA17)
    return None


XLSA17 = "the layout of xlsa17 (res101.mat and a split file)"
ACTIONS = "the layout of the action benchmarks (i3d.mat and split folders)"
EPGN = "the layout of E-PGN (data.mat and label.mat)"


def _tables(suffix: str) -> str:
    return "a folder of NumPy arrays (.npy)" if suffix == ".npy" else f"a folder of {suffix.removeprefix('.')} tables"
