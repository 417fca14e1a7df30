"""Settings as files: what `blind` chose on the folds of a split, with the command that made it.

A preset that was chosen on the very split it is used on (same features, embeddings, rows and labels) is taken as that split's
selection; anywhere else it is only a starting point.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unseen.data.dataset import Dataset
from unseen.errors import DataError, SettingsError
from unseen.evaluation.protocol import Task
from unseen.evaluation.selection import Selection
from unseen.methods import ClosedForm, Generative
from unseen.recipe import Recipe
from unseen.storage import read_json, write_json

SHIPPED = Path(__file__).parent / "methods" / "presets"
FORMAT = "unseen-preset"


@dataclass(frozen=True)
class Preset:
    """Hyper-parameters and recipe, and where they were chosen.

    Args:
        method: name of the method they belong to.
        hyperparameters: by name.
        recipe: what surrounds the method.
        selection: what was chosen and from what.
        chosen_for: hashes of features, embeddings, split, labels and class names.
        command: what made the file.
    """

    method: str
    hyperparameters: dict[str, Any]
    recipe: Recipe
    selection: Selection
    chosen_for: dict[str, str]
    command: str

    def fits(self, dataset: Dataset, split: str) -> bool:
        """Whether the choices were made on this very split of this very data."""
        return self.chosen_for == identity(dataset, split)

    def build(self, method: Generative | ClosedForm) -> Any:
        """The method's hyper-parameters as it takes them.

        Raises SettingsError when the preset belongs to another method or another version of it.
        """
        if self.method != method.name:
            raise SettingsError(f"the preset is for method '{self.method}', not for '{method.name}'; choose another")
        for name, value in self.hyperparameters.items():
            kind = type(getattr(method.hyperparameters, name, value))  # of the field's default
            if kind in (bool, int, float, str) and type(value) is not kind and (type(value), kind) != (int, float):
                raise SettingsError(f"the preset's {name}={value!r} must be {kind.__name__} for '{method.name}'; make it anew")
        try:
            return method.hyperparameters(**self.hyperparameters)
        except TypeError as error:
            raise SettingsError(f"the preset does not fit this version of '{method.name}' ({error}); make it anew") from error


def identity(dataset: Dataset, split: str) -> dict[str, str]:
    """Hashes of everything that a choice on folds depends on, but for the order of training rows."""
    return {
        "features": dataset.features_fingerprint,
        "embeddings": dataset.embeddings_fingerprint,
        "split": dataset.split(split).fingerprint,
        "labels": dataset.labels_fingerprint(split),
        "names": dataset.names_fingerprint(split),
    }


def preset_of(task: Task, command: str) -> Preset:
    """What `blind` chose for a task, as a preset."""
    assert task.selection is not None
    return Preset(
        method=task.method.name,
        hyperparameters=vars(task.hyperparameters).copy(),
        recipe=task.recipe,
        selection=task.selection,
        chosen_for=identity(task.dataset, task.split),
        command=command,
    )


def write_preset(path: Path, preset: Preset) -> None:
    """Write a preset as JSON, atomically."""
    write_json(path, {"format": FORMAT, **asdict(preset)})


def read_preset(path: Path) -> Preset:
    """Read a preset.

    Raises DataError when the file is missing, foreign or damaged.
    """
    entry = read_json(path)
    try:
        if entry.pop("format") != FORMAT:
            raise KeyError("format")
        for name, kind in (("method", str), ("hyperparameters", dict), ("recipe", dict), ("chosen_for", dict)):
            if not isinstance(entry[name], kind):
                raise TypeError(f"'{name}' is a {type(entry[name]).__name__}")
        selection = Selection(**entry["selection"])
        if not isinstance(selection.chosen, dict) or not isinstance(selection.candidates, list):
            raise TypeError("'selection' does not say what was chosen and tried")
        known = {f.name for f in fields(Recipe)}
        if unknown := set(entry["recipe"]) - known:
            raise KeyError(f"unknown recipe setting {', '.join(sorted(unknown))}")
        return Preset(**{**entry, "recipe": Recipe(**entry["recipe"]), "selection": selection})
    except (KeyError, TypeError, SettingsError) as error:
        raise DataError(f"{path} is not a preset of this version ({error}); make it anew with --save-preset") from error


def shipped_preset(method: str, dataset: Dataset, split: str) -> Preset | None:
    """The preset that comes with the package for this method on this very split, if there is one."""
    for path in sorted(SHIPPED.glob(f"*-{method}.json")):
        if json.loads(path.read_text())["chosen_for"]["split"] == dataset.split(split).fingerprint:
            preset = read_preset(path)
            if preset.method == method and preset.fits(dataset, split):
                return preset
    return None
