"""Classes and their embeddings: what `unseen embed` writes and `unseen data build` reads.

A folder holds `embeddings.safetensors` (the array `embeddings`) and `classes.json` (names, descriptions, groups, the encoder,
and the SHA-256 of the embeddings). A table of attributes is read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unseen.data.class_list import attributes, read_class_list
from unseen.data.collection import check_replaceable, existing, read_manifest
from unseen.data.dataset import ClassTable
from unseen.data.spreadsheets import SUFFIXES
from unseen.data.validate import check_class_table
from unseen.errors import DataError
from unseen.storage import fingerprint, hash_of, read_arrays, read_json, replace_folder, write_arrays, write_json

FORMAT = "unseen-classes"
VERSION = 1
FILES = ("embeddings.safetensors", "classes.json")


@dataclass(frozen=True)
class Classes:
    """A class table, and where its embeddings come from.

    Args:
        table: names, embeddings, descriptions, groups.
        source: one sentence: encoder, version, prompt; `Provenance.embedding_source` of the data set.
        encoder: name, fingerprint, prompt and so on; empty for plain attributes.
    """

    table: ClassTable
    source: str
    encoder: Mapping[str, str] = field(default_factory=dict)


def save_classes(classes: Classes, folder: Path) -> None:
    """Write such a folder, whole or not at all.

    Raises:
        DataError: the table is not valid (names, one embedding a class, finite, all different), or `folder` holds something
            else, other embeddings included; the same ones are written again.
        RunError: the disk refuses.
    """
    check_class_table(classes.table)
    check_place(folder)
    table = classes.table
    texts = {"names": list(table.names), "descriptions": list(table.descriptions), "groups": list(table.groups)}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        **texts,
        "source": classes.source,
        "encoder": dict(classes.encoder),
        "sha256": {"embeddings": fingerprint(table.embeddings), "texts": hash_of(texts)},
    }
    if (folder / "classes.json").exists() and read_json(folder / "classes.json") != manifest:
        raise DataError(f"{folder} holds other embeddings; choose another name or remove it, nothing was written")

    def fill(temporary: Path) -> None:
        write_arrays(temporary / "embeddings.safetensors", {"embeddings": table.embeddings})
        write_json(temporary / "classes.json", manifest)

    replace_folder(folder, fill)


def check_place(folder: Path) -> None:
    """DataError if `folder` holds something else than what `save_classes` writes; RunError if it cannot be looked into."""
    check_replaceable(folder, "classes.json", FORMAT, FILES)


def load_classes(path: Path) -> Classes:
    """Read a folder that `save_classes` wrote, or a CSV or parquet table of attributes.

    A table is read as `unseen embed --encoder attributes` reads it; see `unseen.data.class_list`.

    Raises:
        DataError: nothing readable is there, it is damaged, or the table is not valid; one sentence says what and where.
        MissingDependency: a parquet file, and pyarrow is not installed.
    """
    with existing(path):
        if path.is_dir():
            return _load_folder(path)
        if path.suffix.lower() in SUFFIXES:
            return _load_table(path)
    raise DataError(f"{path} is no table of classes; give a folder that `unseen embed` wrote, .csv or .parquet")


def _load_folder(folder: Path) -> Classes:
    manifest = read_manifest(folder, "classes.json", FORMAT, VERSION)
    arrays, _ = read_arrays(folder / "embeddings.safetensors")
    try:
        embeddings = arrays["embeddings"]
        texts = {key: tuple(str(text) for text in manifest[key]) for key in ("names", "descriptions", "groups")}
        found = {"embeddings": fingerprint(embeddings), "texts": hash_of(texts)}
        if found != {key: manifest["sha256"][key] for key in found}:
            raise DataError(f"{folder} does not hold what was written (a checksum differs); restore the files")
        classes = Classes(
            table=ClassTable(texts["names"], embeddings, texts["descriptions"], texts["groups"]),
            source=str(manifest["source"]),
            encoder={str(key): str(value) for key, value in manifest["encoder"].items()},
        )
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{folder} is damaged ({cause}); restore it or embed the classes again") from error
    check_class_table(classes.table)
    return classes


def _load_table(path: Path) -> Classes:
    listed = read_class_list(path)
    embeddings, source = attributes(listed)
    table = listed.table(embeddings)
    try:
        check_class_table(table)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return Classes(table, source)
