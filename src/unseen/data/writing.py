"""Write a data set in one of the formats of the field, and say what the format cannot hold."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

from unseen.data.dataset import Dataset
from unseen.data.native import save_new
from unseen.errors import DataError, SettingsError

FORMATS = ("native", "xlsa17", "npz", "safetensors", "csv", "parquet")


def write_dataset(dataset: Dataset, path: Path | str, to: str | None = None, split: str | None = None) -> str:
    """Write `dataset` to `path`, whole or not at all.

    What the format has no place for is named in one warning; nothing is left out in silence.

    Args:
        path: must not exist, except that it may hold this very data set in the native format.
        to: one of `FORMATS`; by default the suffix of `path` says it: `.npz`, `.safetensors`, `.csv` or `.parquet` (the last
            two are folders of tables), and without one of these it is the native format.
        split: the one split to write, by name; by default all are.

    Returns:
        What was written, in a few words.

    Raises:
        SettingsError: there is no such format or split, or it contradicts the suffix.
        DataError: the data set is not valid, does not fit into the format, or something else is at `path`.
        MissingDependency: parquet needs pyarrow.
        RunError: the disk refuses.
    """
    path = Path(path)
    format_ = _format(path, to)
    if split is not None:
        dataset = _only(dataset, split)
    if format_ == "native":
        save_new(dataset, path)
        return f"{path}, a folder in unseen's own format"
    if path.exists() or path.is_symlink():
        raise DataError(f"{path} exists; choose another name or remove it, nothing was written")
    if format_ == "xlsa17":
        from unseen.data.xlsa17_writer import write_xlsa17

        files = write_xlsa17(dataset, path)
        _warn_of(_lost_in_xlsa17(dataset), "the xlsa17 layout")
        written = f"{path}, res101.mat and {', '.join(files[:3])}{f' and {len(files) - 3} more' if len(files) > 3 else ''}"
        return written + (" (one file a split: open one by its path, or choose one by --split)" if len(files) > 1 else "")
    if format_ in ("npz", "safetensors"):
        from unseen.data.bundle import write_bundle

        if path.suffix != f".{format_}":
            raise SettingsError(f"a data set in {format_} is one file; give it a name that ends with .{format_}")
        write_bundle(dataset, path)
        return f"{path}, one file"
    from unseen.data.tables import can_hold_paths, write_tables

    write_tables(dataset, path, f".{format_}")
    lost = ["the pictures for reports"] if dataset.pictures else []
    lost += ["paths that are no text"] if dataset.paths and not can_hold_paths(dataset) else []
    _warn_of(lost, f"the layout of {format_} tables")
    return f"{path}, a folder of {format_} tables"


def _format(path: Path, to: str | None) -> str:
    of_suffix = path.suffix.removeprefix(".") if path.suffix.removeprefix(".") in FORMATS[2:] else None
    if to is not None and to not in FORMATS:
        raise SettingsError(f"there is no format {to[:40]!r}; it is one of {', '.join(FORMATS)}")
    if to is not None and of_suffix is not None and to != of_suffix:
        raise SettingsError(f"{path.name} ends with .{of_suffix}, and {to} was asked for; give another name, or no --to")
    if to is None and path.suffix == ".mat":
        raise SettingsError(f"{path.name} is one file, and the xlsa17 layout is a folder of two; give a folder and --to xlsa17")
    if to is None and of_suffix is None and re.fullmatch(r"\.\w*[^\W\d]\w*", path.suffix):
        raise SettingsError(
            f"{path.name} ends with {path.suffix}, which no format has; give a name that ends with .npz, .safetensors, .csv or "
            ".parquet, or with none of these; a folder of that name is written with --to native"
        )
    return to or of_suffix or "native"


def _only(dataset: Dataset, split: str) -> Dataset:
    chosen = dataset.split(split)
    return replace(dataset, splits={chosen.name: chosen})


def _warn_of(lost: list[str], where: str) -> None:
    if lost:
        listed = lost[0] if len(lost) == 1 else f"{', '.join(lost[:-1])} and {lost[-1]}"
        warnings.warn(f"{where} has no place for {listed}; they were left out", stacklevel=3)


def _lost_in_xlsa17(dataset: Dataset) -> list[str]:
    """What reading the files again does not bring back, in words."""
    lost = []
    if any(dataset.classes.descriptions):
        lost.append("descriptions")
    if any(dataset.classes.groups):
        lost.append("groups")
    if any(split.by_group for split in dataset.splits.values()):
        lost.append("which splits are by group (by_group)")
    if any(name != name.strip() for name in dataset.classes.names):
        lost.append("blanks around class names")
    if any(set(split.unseen.tolist()) - set(dataset.labels[split.test_unseen].tolist()) for split in dataset.splits.values()):
        lost.append("unseen classes without a test row")
    if {dataset.provenance.source, dataset.provenance.embedding_source} - {"unknown"}:
        lost.append("the source of data and embeddings")
    if len(dataset.splits) == 1:
        lost.append("the name of the split")
    if dataset.features.dtype.itemsize > 4:
        lost.append("digits of features beyond float32 for our own reader")
    if dataset.paths:
        lost.append("paths for our own reader, though image_files has them")
    if dataset.pictures:
        lost.append("the pictures for reports")
    return lost
