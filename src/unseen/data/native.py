"""The native format: a folder with `dataset.json` and safetensors files, memory-mapped and checksummed.

`dataset.json` holds names, descriptions, groups, splits by name, provenance and the SHA-256 of every array. The arrays are
`features` (in one or several files, in order of rows), `labels`, `embeddings`, for every split its index arrays and, where they
are known, `paths`: the bytes of all of them, a zero byte between each two.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import ClassTable, Dataset, Pictures, Provenance, Split
from unseen.data.validate import validate
from unseen.errors import DataError, RunError
from unseen.storage import fingerprint, read_arrays, read_json, replace_folder, stream_arrays, write_arrays, write_json

FORMAT = "unseen-dataset"
VERSION = 1
FEATURE_FILE = re.compile(r"features(-\d{1,9})?\.safetensors")
SPLIT_ARRAYS = ("train", "test_seen", "test_unseen", "seen", "unseen")


def save(dataset: Dataset, folder: Path, largest_file: int = 2**40) -> None:
    """Write `dataset` to `folder`, whole or not at all.

    Args:
        dataset: what to write; it is validated first.
        folder: replaced if it is an older data set of ours.
        largest_file: bytes; features are cut into several files below this size.

    Raises:
        DataError: the data set is not valid, or `folder` holds something else.
        RunError: the disk refuses.
    """
    validate(dataset)
    _check_replaceable(folder)
    arrays = _table(dataset)

    def fill(temporary: Path) -> None:
        rows = max(1, largest_file // dataset.features[:1].nbytes)
        files: list[str] = []
        for start in range(0, len(dataset.features), rows):
            files.append(f"features-{len(files)}.safetensors" if rows < len(dataset.features) else "features.safetensors")
            stream_arrays(temporary / files[-1], {"features": dataset.features[start : start + rows]})
        if dataset.pictures:
            (temporary / "pictures").write_bytes(dataset.pictures.sheet)
        write_arrays(temporary / "table.safetensors", arrays)
        write_json(temporary / "dataset.json", _manifest(dataset, arrays, files))

    replace_folder(folder, fill)


def save_new(dataset: Dataset, folder: Path) -> None:
    """`save`, except that a folder with another data set is left alone: what commands do, which may be typed twice.

    Raises:
        DataError: as `save`, or `folder` holds a data set that is not this one to the bit.
        RunError: the disk refuses.
    """
    validate(dataset)
    _check_replaceable(folder)
    if (folder / "dataset.json").exists():
        found = read_json(folder / "dataset.json")
        this = json.loads(json.dumps(_manifest(dataset, _table(dataset), [])))  # tuples become lists, as in the file
        if found | {"feature_files": []} != this:
            raise DataError(f"{folder} holds another data set; choose another name or remove it, nothing was written")
    save(dataset, folder)


def _table(dataset: Dataset) -> dict[str, NDArray[Any]]:
    """All arrays but the features."""
    arrays: dict[str, NDArray[Any]] = {"labels": dataset.labels, "embeddings": dataset.classes.embeddings}
    for position, split in enumerate(dataset.splits.values()):
        arrays |= {f"split{position}.{part}": getattr(split, part) for part in SPLIT_ARRAYS}
    if dataset.pictures:
        arrays["pictures.rows"] = dataset.pictures.rows
    if dataset.paths:
        arrays["paths"] = np.frombuffer("\0".join(dataset.paths).encode(errors="surrogateescape"), np.uint8)
    return arrays


def _manifest(dataset: Dataset, arrays: Mapping[str, NDArray[Any]], feature_files: list[str]) -> dict[str, Any]:
    """What `dataset.json` says."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": dataset.name,
        "feature_files": feature_files,
        "classes": {
            "names": dataset.classes.names,
            "descriptions": dataset.classes.descriptions,
            "groups": dataset.classes.groups,
        },
        "splits": [{"name": s.name, "by_group": s.by_group} for s in dataset.splits.values()],
        "provenance": vars(dataset.provenance),
        "attributions": dataset.attributions,
        "pictures": dataset.pictures
        and {**dataset.pictures.layout, "sha256": hashlib.sha256(dataset.pictures.sheet).hexdigest()},
        "sha256": {"features": dataset.features_fingerprint} | {k: fingerprint(v) for k, v in arrays.items()},
    }


def _check_replaceable(folder: Path) -> None:
    """Replacing a folder deletes what is in it, so it has to be a data set of ours and nothing else."""
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        ours = folder.is_dir() and read_json(folder / "dataset.json").get("format") == FORMAT
        present = sorted(entry.name for entry in folder.iterdir()) if ours else []
    except DataError:
        ours = False
    except OSError as error:
        raise RunError(f"cannot look into {folder} ({error.strerror}); choose another name, nothing was written") from error
    if not ours:
        raise DataError(f"{folder} exists and is not a data set of ours; choose another name, nothing was written")
    for name in present:
        if name not in ("dataset.json", "table.safetensors", "pictures") and not FEATURE_FILE.fullmatch(name):
            raise DataError(
                f"{folder} would be replaced, but it also holds {name!r}, which no data set of ours holds; "
                "move it or choose another name, nothing was written"
            )


def load(folder: Path) -> Dataset:
    """Read a data set that `save` wrote; features stay on disk until they are used.

    Raises:
        DataError: the folder is missing, foreign, newer than this version, damaged, or not valid.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds dataset.json")
    manifest = read_json(folder / "dataset.json")
    if manifest.get("format") != FORMAT:
        raise DataError(f"{folder / 'dataset.json'} does not describe a data set of ours; give a folder that unseen wrote")
    if manifest.get("version") != VERSION:
        version = str(manifest.get("version"))[:20]
        raise DataError(
            f"{folder} is in version {version} of the format and this program reads version {VERSION}; update unseen"
        )
    try:
        return validate(_assemble(folder, manifest))
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, OSError) as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{folder / 'dataset.json'} is damaged ({cause}); restore it or build the data set again") from error


def _assemble(folder: Path, manifest: dict[str, Any]) -> Dataset:
    for name in manifest["feature_files"]:
        if not FEATURE_FILE.fullmatch(name):
            raise DataError(
                f"{folder / 'dataset.json'} names {name[:100]!r} as a file of features, but those are called "
                "features.safetensors or features-0.safetensors and lie beside it; it was not read"
            )
    parts = [read_arrays(folder / name)[0]["features"] for name in manifest["feature_files"]]
    features = parts[0] if len(parts) == 1 else np.concatenate(parts)
    arrays, _ = read_arrays(folder / "table.safetensors")
    for name, array in {"features": features, **arrays}.items():
        if fingerprint(array) != manifest["sha256"][name]:
            raise DataError(f"array '{name}' in {folder} is not what was written (its checksum differs); restore the files")
    pictures = None
    if manifest["pictures"]:
        entry = manifest["pictures"]
        try:
            sheet = (folder / "pictures").read_bytes()
        except OSError as error:
            raise DataError(f"{folder / 'pictures'} cannot be read ({error.strerror}); restore the files") from error
        if hashlib.sha256(sheet).hexdigest() != entry["sha256"]:
            raise DataError(f"the pictures in {folder} are not what was written (their checksum differs); restore the files")
        pictures = Pictures(sheet, str(entry["media_type"]), int(entry["tile"]), int(entry["columns"]), arrays["pictures.rows"])
    classes = manifest["classes"]
    splits = {}
    for position, entry in enumerate(manifest["splits"]):
        index = {part: arrays[f"split{position}.{part}"] for part in SPLIT_ARRAYS}
        splits[str(entry["name"])] = Split(name=str(entry["name"]), by_group=bool(entry["by_group"]), **index)
    return Dataset(
        name=str(manifest["name"]),
        features=features,
        labels=arrays["labels"],
        classes=ClassTable(
            names=tuple(str(n) for n in classes["names"]),
            embeddings=arrays["embeddings"],
            descriptions=tuple(str(n) for n in classes["descriptions"]),
            groups=tuple(str(n) for n in classes["groups"]),
        ),
        splits=splits,
        provenance=Provenance(**{key: str(value) for key, value in manifest["provenance"].items()}),
        pictures=pictures,
        attributions=tuple(str(line) for line in manifest["attributions"]),
        paths=tuple(arrays["paths"].tobytes().decode(errors="surrogateescape").split("\0")) if "paths" in arrays else (),
    )
