"""Features and the class name of each row: what `unseen features` writes and `unseen data build` reads.

A folder holds `features.safetensors` (the array `features`), `rows.csv` (path and label, in order of rows) and `features.json`
(the encoder, and the SHA-256 of both). Foreign tables are read as well.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import Floats
from unseen.data.npz import read_npz
from unseen.data.spreadsheets import SUFFIXES, read_table
from unseen.errors import DataError, RunError
from unseen.storage import (
    csv_text,
    fingerprint,
    read_arrays,
    read_json,
    replace_folder,
    stream_arrays,
    text_of_cell,
    write_json,
)

FORMAT = "unseen-features"
VERSION = 1
FILES = ("features.safetensors", "rows.csv", "features.json", "skipped.csv")
"""What such a folder may hold; `skipped.csv` is a list for people of what could not be encoded."""

UNKNOWN = "unknown"
WHOLE = "0/1"
"""What the encoder's `shard` is where the collection is no shard of a larger one; see `unseen.extraction.Shard`."""


@dataclass(frozen=True)
class Collection:
    """Rows of features with the names of their classes; not yet a data set, as nothing says what the classes are.

    Args:
        features: (n, d), float16, float32 or float64, possibly memory-mapped.
        labels: n class names, as the user wrote them.
        paths: n, as the user's table or folder had them, relative; or empty.
        provenance: one sentence of the encoder.
        encoder: its name, fingerprint and so on; empty for foreign tables.
    """

    features: Floats
    labels: tuple[str, ...]
    paths: tuple[str, ...] = ()
    provenance: str = UNKNOWN
    encoder: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.dtype.kind != "f" or 0 in self.features.shape:
            raise DataError(
                f"features have shape {self.features.shape} and dtype {self.features.dtype}, but a table of numbers with a "
                "fraction, one row an example, is expected; convert them to float32 and reshape them"
            )
        for what, column in (("labels", self.labels), ("paths", self.paths)):
            if len(column) != len(self.features) and (column or what == "labels"):
                raise DataError(f"there are {len(self.features)} rows of features but {len(column)} {what}; give one a row")
        if "" in self.labels:
            raise DataError(f"row {self.labels.index('')} has an empty label; give every row the name of its class")


def save_collection(collection: Collection, folder: Path) -> None:
    """Write such a folder, whole or not at all.

    Raises:
        DataError: `folder` holds something else.
        RunError: the disk refuses.
    """
    check_replaceable(folder, "features.json", FORMAT, FILES)
    rows = _rows_as_bytes(collection)

    def fill(temporary: Path) -> None:
        stream_arrays(temporary / "features.safetensors", {"features": collection.features})
        (temporary / "rows.csv").write_bytes(rows)
        write_json(
            temporary / "features.json",
            {
                "format": FORMAT,
                "version": VERSION,
                "provenance": collection.provenance,
                "encoder": dict(collection.encoder),
                "sha256": {"features": fingerprint(collection.features), "rows.csv": hashlib.sha256(rows).hexdigest()},
            },
        )

    replace_folder(folder, fill)


def load_collection(path: Path, *, shards: bool = False) -> Collection:
    """Read a folder that `save_collection` wrote, or a table of features.

    A CSV or parquet file has a column `label`, perhaps one `path`, and numbers in all others. An .npz or .safetensors file has
    an array `label` (or `labels`), perhaps one `path` (or `paths`), and the features in one array of two dimensions. Labels
    that are whole numbers are names like any other; a .safetensors file, which holds no text, may list in JSON, as its metadata
    `label_names`, what the numbers stand for.

    Args:
        shards: take a shard of a larger collection, too, which is no collection to build a data set of.

    Raises:
        DataError: nothing readable is there, it is damaged, or it is a shard; one sentence says what and where.
        MissingDependency: a parquet file, and pyarrow is not installed.
    """
    with existing(path):
        if path.is_dir():
            return _load_folder(path, shards)
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            return _load_table(path)
        if suffix == ".npz":
            return _from_arrays(path, read_npz(path), {})
        if suffix == ".safetensors":
            return _from_arrays(path, *read_arrays(path))
    raise DataError(
        f"{path} is no table of features; give a folder that `unseen features` wrote, .csv, .parquet, .npz or .safetensors"
    )


@contextmanager
def existing(path: Path) -> Iterator[None]:
    """What is done with a path that a user typed; afterwards it is certain to exist.

    Raises DataError where it does not, or no path can be such: a name too long, a NUL in it.
    """
    try:
        yield
        exists = path.exists()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"'{str(path)[:200]}' cannot be opened ({cause}); check the path") from error
    if not exists:
        raise DataError(f"{path} does not exist; check the name")


def check_replaceable(folder: Path, manifest: str, form: str, names: Sequence[str]) -> None:
    """Replacing a folder deletes what is in it: DataError unless it is empty, or of this format with these files alone."""
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        ours = folder.is_dir() and read_json(folder / manifest).get("format") == form
        foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in names) if ours else []
    except DataError:
        ours, foreign = False, []
    except OSError as error:
        raise RunError(f"cannot look into {folder} ({error.strerror}); choose another name, nothing was written") from error
    if not ours:
        raise DataError(f"{folder} exists and holds something else; choose another name, nothing was written")
    if foreign:
        raise DataError(f"{folder} would be replaced, but it also holds {foreign[0]!r}; move it or choose another name")


def read_manifest(folder: Path, name: str, form: str, version: int) -> dict[str, Any]:
    """The JSON object that describes a folder of this format; DataError where it is missing, foreign or newer."""
    manifest = read_json(folder / name)
    if manifest.get("format") != form:
        raise DataError(f"{folder / name} does not describe what unseen writes there; give a folder that it wrote")
    if manifest.get("version") != version:
        told = manifest.get("version")
        older = isinstance(told, int) and told < version
        advice = "make it again with this program" if older else "update unseen"
        raise DataError(
            f"{folder} is in version {str(told)[:20]} of its format and this program reads version {version}; {advice}"
        )
    return manifest


def _load_folder(folder: Path, shards: bool) -> Collection:
    manifest = read_manifest(folder, "features.json", FORMAT, VERSION)
    arrays, _ = read_arrays(folder / "features.safetensors")
    try:
        rows = (folder / "rows.csv").read_bytes()
    except OSError as error:
        raise DataError(f"{folder / 'rows.csv'} cannot be read ({error.strerror}); encode the pictures again") from error
    try:
        features = arrays["features"]
        checksums = {"features": fingerprint(features), "rows.csv": hashlib.sha256(rows).hexdigest()}
        for name, checksum in checksums.items():
            if checksum != manifest["sha256"][name]:
                raise DataError(f"{name} in {folder} is not what was written (its checksum differs); restore the files")
        lines = csv.reader(io.StringIO(rows.decode(errors="surrogateescape"), newline=""))
        columns: dict[str, list[str]] = {name: [] for name in next(lines)}
        for line in lines:
            for column, cell in zip(columns.values(), line, strict=True):
                column.append(text_of_cell(cell))
        encoder = {str(key): str(value) for key, value in manifest["encoder"].items()}
        if not shards and (shard := encoder.get("shard", WHOLE)) != WHOLE:
            raise DataError(
                f"{folder} holds shard {shard[:20]} of a collection; put all shards together with `unseen features merge` first"
            )
        return Collection(
            features=features,
            labels=tuple(columns["label"]),
            paths=tuple(columns.get("path", ())),
            provenance=str(manifest["provenance"]),
            encoder=encoder,
        )
    except (LookupError, TypeError, AttributeError, ValueError, StopIteration, csv.Error) as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{folder} is damaged ({cause}); restore it or encode the pictures again") from error


def _rows_as_bytes(collection: Collection) -> bytes:
    """File names that are not UTF-8 come from Python with their bytes in it as lone surrogates, and leave as these bytes."""
    if collection.paths:
        text = csv_text(("path", "label"), zip(collection.paths, collection.labels, strict=True))
    else:
        text = csv_text(("label",), ((label,) for label in collection.labels))
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise DataError(f"a path or label holds {error.object[error.start]!r}, which is no character; rename it") from error


def _load_table(path: Path) -> Collection:
    table = read_table(path, ("label", "path"), ("label",), np.float32)
    if not table.numbers.shape[1]:
        raise DataError(f"{path} has no column of numbers; a table of features has them beside the column 'label'")
    labels, paths = (tuple(text.strip() for text in table.texts.get(column, ())) for column in ("label", "path"))
    return Collection(table.numbers, labels, paths)


def _from_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Collection:
    arrays = {name.casefold(): array for name, array in arrays.items()}
    labels = arrays.pop("label", arrays.pop("labels", None))
    paths = arrays.pop("path", arrays.pop("paths", None))
    tables = [name for name, array in arrays.items() if array.ndim == 2]
    if labels is None or len(tables) != 1:
        raise DataError(
            f"{path} holds {', '.join(arrays)[:100] or 'nothing'}; a table of features has an array 'label' and one array "
            "of two dimensions with a row each"
        )
    names = _texts(path, "label", labels)
    if listed := metadata.get("label_names"):
        try:
            meant = dict(enumerate(json.loads(listed)))
            names = tuple(str(meant[int(name)]) for name in names)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise DataError(f"the metadata 'label_names' of {path} does not name every label; write it anew") from error
    features = arrays[tables[0]]
    if features.dtype.kind in "iu":
        features = features.astype(np.float32)
    return Collection(features, names, () if paths is None else _texts(path, "path", paths))


def _texts(path: Path, what: str, array: NDArray[Any]) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind not in "UiuS":
        raise DataError(
            f"array '{what}' of {path} has shape {array.shape} and dtype {array.dtype}; give one text or whole number a row"
        )
    if array.dtype.kind == "S":
        try:
            return tuple(value.decode().strip() for value in array.tolist())
        except UnicodeDecodeError as error:
            raise DataError(f"array '{what}' of {path} is not UTF-8; write it anew as text") from error
    return tuple(str(value).strip() for value in array.tolist())
