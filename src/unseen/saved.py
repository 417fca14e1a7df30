"""Saved classifiers: a folder with `model.json` and `model.safetensors`, read without running or opening anything they name.

The JSON holds the checksum of every array, and one of itself. Both files are read whole or not at all, and a folder with any
other file, or an entry that this version does not know, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import unseen
from unseen.calibration import Calibration
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
from unseen.state import State
from unseen.storage import (
    check_regular,
    fingerprint,
    hash_of,
    read_arrays,
    read_json,
    replace_folder,
    write_arrays,
    write_json,
)

FORMAT = "unseen-classifier"
VERSION = 2
MANIFEST, ARRAYS = "model.json", "model.safetensors"
ENTRIES = frozenset(
    {
        *("format", "version", "unseen", "sha256", "asked", "features", "labels", "encoder", "image_encoder"),
        *("settings_from", "protocol", "calibrated"),
        *("method", "hyperparameters", "recipe", "seed", "used_unseen_embeddings", "gamma", "temperature", "inference_only"),
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
    check_regular(folder, (MANIFEST, ARRAYS))
    check_replaceable(folder, MANIFEST, FORMAT, (MANIFEST, ARRAYS))
    learned, fitted = state.learned, state.fitted
    there = folder / MANIFEST
    if not inference_only and not len(learned.rows) and there.exists() and read_json(there).get("inference_only") is False:
        raise DataError(
            f"{folder} holds a classifier with the rows that it learns further classes from, and this one has none; choose "
            "another name, or say inference_only=True to give them up"
        )
    assert fitted.prototypes is not None  # only a run's have none
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
        "prototypes": fitted.prototypes,
    }
    if learned.calibration is not None:
        arrays |= {f"calibration.{name}": array for name, array in learned.calibration.arrays().items()}
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
        "image_encoder": None if state.image_encoder is None else dict(state.image_encoder),
        "calibrated": learned.calibration is not None,
        "settings_from": state.settings_from,
        "protocol": state.protocol,
        "method": learned.method,
        "hyperparameters": vars(learned.hyperparameters),
        "recipe": asdict(learned.recipe),
        "seed": learned.seed,
        "used_unseen_embeddings": learned.used_unseen_embeddings,
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
    check_regular(folder, (MANIFEST, ARRAYS))
    said = read_json(folder / MANIFEST)
    if said.get("format") == FORMAT and not isinstance(said.get("version"), int):
        raise DataError(f"{folder / MANIFEST} is damaged (its version is no number); restore it or save the model again")
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
        calibration=Calibration.of(_under("calibration.", arrays)) if manifest["calibrated"] else None,
        embeddings=arrays["embeddings"],
        trained=arrays["trained"],
        retired=arrays["retired"],
        rows=arrays["rows"],
        labels=arrays["labels"],
        examples=arrays["examples"],
        of_examples=arrays["of_examples"],
    )
    check_class_table(ClassTable(learned.names, learned.embeddings))
    _check_shapes(learned, arrays["seen"], manifest["features"]["count"])
    method = learned.build(device)
    looks = method is not None and method.uses_unseen_embeddings  # what a folder goes by that is older than the entry
    learned = replace(learned, used_unseen_embeddings=bool(manifest.get("used_unseen_embeddings", looks)))
    scores = scores_of({name: torch.from_numpy(array).to(device) for name, array in _under("scores.", arrays).items()})
    fitted = Fitted(
        scaler=learned.scaler,
        method=method,
        scores=scores,
        names=tuple(str(label) for label in learned.answered),
        seen=arrays["seen"],
        gamma=float(manifest["gamma"]),
        temperature=float(manifest["temperature"]),
        device=device,
        prototypes=arrays["prototypes"],
    )
    if not 0 < fitted.temperature < np.inf:
        raise ValueError(f"its temperature is {fitted.temperature}")
    blank = np.zeros((1, manifest["features"]["count"]), np.float32)
    represented = fitted.represent(blank)  # arrays of a stranger may not fit together
    if fitted.scores(represented).shape[1] != len(fitted.names):
        raise ValueError("its scores do not fit together with its classes")
    if any(np.isnan(array).any() for array in _under("scores.", arrays).values()):
        raise ValueError("its scores are no numbers")
    if arrays["prototypes"].shape != (len(fitted.names), represented.shape[1]):
        raise ValueError("its prototypes do not fit together with its classes")
    if manifest["inference_only"]:
        learned = replace(learned, rows=learned.rows[:0])
    encoder = manifest["encoder"]
    seeing = manifest["image_encoder"]
    if seeing is not None and not all(isinstance(seeing[key], str) for key in ("name", "fingerprint")):
        raise ValueError("it names no image encoder")
    state = State(learned.answered, fitted, learned, manifest["settings_from"], manifest["protocol"], encoder, seeing)
    return state, manifest["asked"], manifest["features"]


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


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
    if learned.calibration is not None:
        told = learned.calibration.arrays()
        count = len(told["confidence"])
        numbers = all(np.isfinite(array).all() for array in told.values())
        fitting = fitting and numbers and all(len(array) in (1, count) and array.ndim == 1 for array in told.values())
        fitting = fitting and learned.calibration.temperature > 0 and told["right"].dtype == told["of_unseen"].dtype == np.bool_
    if not fitting:
        raise ValueError("its arrays do not fit together")
