"""Saved classifiers: a folder with `model.json` and `model.safetensors`, read without running or opening anything they name.

The JSON holds the checksum of every array, and one of itself. Both files are read whole or not at all, and a folder with any
other file, or an entry that this version does not know, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

import unseen
from unseen.data.collection import check_replaceable, read_manifest
from unseen.data.dataset import ClassTable
from unseen.data.validate import check_class_table
from unseen.errors import DataError, UnseenError
from unseen.fitted import Fitted
from unseen.gate import scores_of
from unseen.learned import Learned
from unseen.methods import find_method
from unseen.recipe import Recipe
from unseen.scaling import Scaler
from unseen.storage import fingerprint, hash_of, read_arrays, replace_folder, write_arrays, write_json

if TYPE_CHECKING:
    from unseen.classifier import State

FORMAT = "unseen-classifier"
VERSION = 1
MANIFEST, ARRAYS = "model.json", "model.safetensors"
ENTRIES = frozenset(
    {
        *("format", "version", "unseen", "sha256", "asked", "features", "labels", "encoder", "settings_from", "protocol"),
        *("method", "hyperparameters", "recipe", "seed", "gamma", "temperature", "inference_only"),
    }
)
ASKED = frozenset({"method", "protocol", "settings", "preset", "random_state", "threads", "encoder"})
KINDS: Mapping[str, type] = {"text": str, "object": str, "int64": int, "float64": float, "bool": bool}
"""How labels are kept → what each of them is in JSON."""


def write_model(
    folder: Path, state: State, asked: Mapping[str, Any], features: Mapping[str, Any], inference_only: bool
) -> None:
    """Write a folder, whole or not at all. See `ZeroShotClassifier.save`.

    Args:
        asked: the arguments of the constructor; features: how many, and their names.
    """
    check_replaceable(folder, MANIFEST, FORMAT, (MANIFEST, ARRAYS))
    learned, fitted = state.learned, state.fitted
    keep = 0 if inference_only else None
    arrays: dict[str, NDArray[Any]] = {
        **learned.scaler.arrays(),
        **{name: tensor.numpy() for name, tensor in learned.networks.items()},
        **{f"scores.{name}": tensor.detach().cpu().numpy() for name, tensor in fitted.scores.tensors().items()},
        "embeddings": learned.embeddings,
        "trained": learned.trained,
        "retired": learned.retired,
        "seen": fitted.seen,
        "rows": learned.rows[:keep],
        "labels": learned.labels[:keep],
        "examples": learned.examples[:keep],
        "of_examples": learned.of_examples[:keep],
    }
    kind = {"U": "text", "O": "object", "b": "bool", "f": "float64"}.get(learned.classes.dtype.kind, "int64")
    random = asked["random_state"]
    settings = asked["settings"]
    entry: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "unseen": unseen.__version__,
        "asked": {
            **asked,
            "settings": None if settings is None else {name: str(value) for name, value in settings.items()},
            "random_state": int(random) if isinstance(random, int | np.integer) else learned.seed,
        },
        "features": dict(features),
        "labels": {"kind": kind, "values": learned.classes.tolist()},
        "encoder": None if state.encoder is None else dict(state.encoder),
        "settings_from": state.settings_from,
        "protocol": state.protocol,
        "method": learned.method,
        "hyperparameters": vars(learned.hyperparameters),
        "recipe": asdict(learned.recipe),
        "seed": learned.seed,
        "gamma": fitted.gamma,
        "temperature": fitted.temperature,
        "inference_only": inference_only or not len(learned.rows),
    }
    checksums = {name: fingerprint(array) for name, array in arrays.items()}

    def fill(temporary: Path) -> None:
        write_arrays(temporary / ARRAYS, arrays)
        write_json(temporary / MANIFEST, {**entry, "sha256": {"arrays": checksums, "entries": hash_of([entry, checksums])}})

    replace_folder(folder, fill)


def read_model(folder: Path, device: torch.device) -> tuple[State, dict[str, Any], dict[str, Any]]:
    """What `write_model` was given, its `State` on this device.

    Raises DataError when the folder is missing, foreign, newer than this version, damaged, or holds more than a model.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that `save` wrote")
    manifest = read_manifest(folder, MANIFEST, FORMAT, VERSION)
    more = sorted(entry.name for entry in folder.iterdir() if entry.name not in (MANIFEST, ARRAYS))
    if more:
        raise DataError(f"{folder} also holds {more[0][:100]!r}, which no model of ours holds; nothing was read, take it away")
    if unknown := sorted(manifest.keys() - ENTRIES):
        raise DataError(f"{folder / MANIFEST} asks for {unknown[0][:100]!r}, which no model of ours does; nothing was done")
    arrays, _ = read_arrays(folder / ARRAYS)
    try:
        checksums = manifest["sha256"]["arrays"]
        entry = {name: value for name, value in manifest.items() if name != "sha256"}
        if manifest["sha256"]["entries"] != hash_of([entry, checksums]):
            raise DataError(f"{folder / MANIFEST} is not what was written (its checksum differs); restore the files")
        for name in sorted(checksums.keys() | arrays.keys()):
            if name not in arrays or name not in checksums or fingerprint(arrays[name]) != checksums[name]:
                raise DataError(f"array {name!r} in {folder} is not what was written (its checksum differs); restore the files")
        return _assembled(manifest, {name: np.array(array) for name, array in arrays.items()}, device)
    except DataError:
        raise
    except (
        UnseenError,
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        MemoryError,
    ) as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"the model in {folder} is damaged ({cause}); restore it or save it again") from error


def _assembled(
    manifest: dict[str, Any], arrays: dict[str, NDArray[Any]], device: torch.device
) -> tuple[State, dict[str, Any], dict[str, Any]]:
    from unseen.classifier import State

    if manifest["asked"].keys() != ASKED or manifest["asked"]["method"] != manifest["method"]:
        raise ValueError("it was made by another constructor")
    entry = find_method(manifest["method"])
    kind, values = manifest["labels"]["kind"], manifest["labels"]["values"]
    if not all(type(value) is KINDS[kind] for value in values):
        raise ValueError(f"labels are not all of kind {kind}")
    classes = np.array(values, {"text": np.str_, "object": object}.get(kind, kind))
    recipe = Recipe(**manifest["recipe"])
    learned = Learned(
        method=entry.name,
        hyperparameters=entry.hyperparameters(**manifest["hyperparameters"]),
        recipe=recipe,
        seed=manifest["seed"],
        scaler=Scaler.from_arrays(recipe.scaling, arrays),
        networks={name: torch.from_numpy(array) for name, array in arrays.items() if name.startswith("network.")},
        classes=classes,
        **{name: arrays[name] for name in ("embeddings", "trained", "retired", "rows", "labels", "examples", "of_examples")},
    )
    check_class_table(ClassTable(learned.names, learned.embeddings))
    _check_shapes(learned, arrays["seen"], manifest["features"]["count"])
    scores = scores_of({name: torch.from_numpy(array).to(device) for name, array in _of_scores(arrays).items()})
    fitted = Fitted(
        scaler=learned.scaler,
        method=learned.build(device),
        scores=scores,
        names=tuple(str(label) for label in learned.answered),
        seen=arrays["seen"],
        gamma=float(manifest["gamma"]),
        temperature=float(manifest["temperature"]),
        device=device,
    )
    if not fitted.temperature > 0:
        raise ValueError(f"its temperature is {fitted.temperature}")
    fitted.decide(np.zeros((1, manifest["features"]["count"]), np.float32))  # arrays of a stranger may not fit together
    if manifest["inference_only"]:
        learned = replace(learned, rows=learned.rows[:0])
    encoder = manifest["encoder"]
    state = State(learned.answered, fitted, learned, manifest["settings_from"], manifest["protocol"], encoder)
    return state, manifest["asked"], manifest["features"]


def _of_scores(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays of the final classifier, by the names that `scores_of` takes."""
    return {name.removeprefix("scores."): array for name, array in arrays.items() if name.startswith("scores.")}


def _check_shapes(learned: Learned, seen: NDArray[np.bool_], width: int) -> None:
    """ValueError where arrays do not fit together: what no checksum of a stranger says."""
    count = len(learned.classes)
    fitting = (
        learned.trained.shape == learned.retired.shape == (count,)
        and learned.trained.dtype == learned.retired.dtype == seen.dtype == np.bool_
        and seen.shape == (len(learned.answered),)
        and (np.sort(learned.classes) == learned.classes).all()
        and learned.scaler.features.centre.shape == (width,)
    )
    for rows, labels in ((learned.rows, learned.labels), (learned.examples, learned.of_examples)):
        fitting = fitting and rows.shape == (len(labels), width) and labels.dtype == np.int64
        fitting = fitting and bool(((labels >= 0) & (labels < count)).all())
    if not fitting:
        raise ValueError("its arrays do not fit together")
