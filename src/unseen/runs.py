"""Run folders: a task that can be resumed, its result, and everything needed to score it again.

`task.json` says what was asked for; `result.json`, `weights.safetensors`, `history.jsonl`, `per_class.csv` and `report.html`
say what came out. While the run goes on, `checkpoint.safetensors` and `selection/` keep unfinished work.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unseen.data.dataset import Dataset
from unseen.errors import DataError, RunError
from unseen.evaluation.predictor import Predictor
from unseen.evaluation.protocol import Outcome, Task, Watch, measure, run
from unseen.evaluation.selection import Selection
from unseen.linear import LinearScores
from unseen.methods import ClosedForm, find_method
from unseen.methods.base import GenerativeMethod
from unseen.presets import Preset, identity
from unseen.recipe import Recipe
from unseen.scaling import ScaledView, Scaler
from unseen.storage import read_arrays, read_json, write_arrays, write_json, write_text
from unseen.training import Progress

FORMAT = "unseen-run"
VERSION = 1


def describe(task: Task, source: str, command: str) -> dict[str, Any]:
    """A task as JSON. `source` is what the user typed for the data set, made absolute if it is a path."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "command": command,
        "source": source,
        "split": task.dataset.split(task.split).name,
        "method": task.method.name,
        "protocol": task.protocol,
        "seed": task.seed,
        "settings_from": task.settings_from,
        "hyperparameters": vars(task.hyperparameters),
        "recipe": asdict(task.recipe),
        "selection": asdict(task.selection) if task.selection else None,
        "device": str(task.device),
        "split_hash": task.dataset.split(task.split).fingerprint,
        "features_hash": task.dataset.features_fingerprint,
        "embeddings_hash": task.dataset.embeddings_fingerprint,
    }


def run_in_folder(task: Task, folder: Path, description: dict[str, Any], resume: bool, watch: Watch) -> Outcome:
    """Carry out a task, keeping everything in `folder`.

    Args:
        folder: must not exist, or be empty, unless `resume`.
        resume: go on with the run that is there; its task must be this one.

    Raises:
        RunError: the folder is in use, belongs to another task, or cannot be written.
    """
    _claim(folder, description, resume)
    with _locked(folder):
        history = History(folder / "history.jsonl")

        def on_phase(phase: str) -> None:
            history.phase = phase
            watch.on_phase(phase)

        def on_progress(progress: Progress) -> None:
            history.add(progress)
            watch.on_progress(progress)

        outcome = run(task, Watch(folder, on_phase, on_progress))
        history.close()
        write_arrays(folder / "weights.safetensors", weights_of(outcome), sealed=True)
        write_text(folder / "per_class.csv", per_class_csv(task.dataset, outcome))
        write_json(folder / "result.json", outcome.row)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        shutil.rmtree(folder / "selection", ignore_errors=True)
        return outcome


def _claim(folder: Path, description: dict[str, Any], resume: bool) -> None:
    there = (folder / "task.json").exists()
    if resume and there:
        before = read_json(folder / "task.json")
        ours = json.loads(json.dumps(description))
        different = sorted(k for k in ours if k != "command" and before.get(k) != ours[k])
        if different:
            raise RunError(
                f"the run in {folder} was started with another {', '.join(different)}; "
                "resume it with the same settings or choose another folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} already exists; choose another --out, or add --resume to go on with the run in it")
    write_json(folder / "task.json", description)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of the folder; the lock goes with the process, however it ends."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"another process is working in {folder}; wait for it or choose another folder") from error
        yield
    (folder / ".lock").unlink(missing_ok=True)


class History:
    """Losses as they come, one JSON object a line. After an interruption, lines that are done again replace the old ones."""

    def __init__(self, path: Path) -> None:
        self.phase = ""
        self._path = path
        self._lines: dict[tuple[str, int], str] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                    self._lines[entry["phase"], entry["step"]] = line
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a killed process may be half written
        self._file = path.open("a")

    def add(self, progress: Progress) -> None:
        """Append one line."""
        entry = {"phase": self.phase, "step": progress.step, "losses": {k: round(v, 6) for k, v in progress.losses.items()}}
        line = json.dumps(entry)
        self._lines[self.phase, progress.step] = line
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Write each step's last line once."""
        self._file.close()
        write_text(self._path, "".join(f"{line}\n" for line in self._lines.values()))


def weights_of(outcome: Outcome) -> dict[str, NDArray[Any]]:
    """Everything that scoring needs: scaler, networks, both classifiers and the unit of γ."""
    predictor = outcome.predictor
    tensors = {
        "generalized.weight": predictor.generalized.weight,
        "generalized.bias": predictor.generalized.bias,
        "conventional.weight": predictor.conventional.weight,
        "conventional.bias": predictor.conventional.bias,
    }
    if outcome.trained is not None:
        tensors |= {n: t for n, t in outcome.trained.state().items() if n.startswith("network.")}
    arrays: dict[str, NDArray[Any]] = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    return arrays | predictor.scaler.arrays() | {"spread": np.array([predictor.spread])}


def per_class_csv(dataset: Dataset, outcome: Outcome) -> str:
    """A table: class, seen or unseen, test rows, accuracy. Names that a spreadsheet would run as a formula are quoted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "kind", "test_rows", "accuracy"])
    for name, unseen, rows, accuracy in per_class(dataset, outcome):
        safe = f"'{name}" if name[0] in "=+-@\t" else name
        writer.writerow([safe, "unseen" if unseen else "seen", rows, f"{accuracy:.6f}"])
    return text.getvalue()


def per_class(dataset: Dataset, outcome: Outcome) -> list[tuple[str, bool, int, float]]:
    """(class, is unseen, test rows, accuracy with γ) for every class with a test row."""
    out = []
    names = dataset.training_view(outcome.row["split"]).classes.names
    on_seen, on_unseen = outcome.decisions
    for unseen, decisions, labels in (
        (False, on_seen, outcome.test.seen_labels),
        (True, on_unseen, outcome.test.unseen_labels),
    ):
        right = decisions.predict(outcome.gamma) == labels
        for class_id in np.unique(labels):
            of_class = labels == class_id
            out.append((names[class_id], unseen, int(of_class.sum()), float(right[of_class].mean())))
    return out


def evaluate(folder: Path, dataset: Dataset) -> Outcome:
    """Score a finished run again, from its weights, on the data set it names.

    Raises:
        DataError: the data are not those of the run, or the folder is damaged or unfinished.
    """
    description = read_description(folder)
    if not (folder / "result.json").exists():
        raise DataError(f"the run in {folder} is not finished; go on with it by `unseen train … --out {folder} --resume`")
    stored = read_json(folder / "result.json")
    split = dataset.split(description["split"])
    for what, found in (
        ("features_hash", dataset.features_fingerprint),
        ("embeddings_hash", dataset.embeddings_fingerprint),
        ("split_hash", split.fingerprint),
    ):
        if found != stored[what]:
            raise DataError(
                f"the data set's {what.removesuffix('_hash')} are not those that the run in {folder} was made with; "
                "give the original data"
            )
    method = find_method(description["method"])
    recipe = Recipe(**{**description["recipe"], **stored["recipe"]})
    settings = _settings(method, stored["hyperparameters"])
    selection = Selection(**stored["selection"]) if stored["selection"] else None
    task = Task(
        dataset, split.name, method, settings, recipe, stored["settings_from"], stored["protocol"], stored["seed"], selection
    )
    arrays, _ = read_arrays(folder / "weights.safetensors")
    try:
        predictor, trained, view = _restore(task, recipe, arrays)
    except (KeyError, RuntimeError) as error:
        raise DataError(
            f"{folder / 'weights.safetensors'} does not belong to this run ({error}); restore the folder"
        ) from error
    return measure(task, predictor, trained, view, settings, recipe, selection, stored["seconds_by_phase"])


def read_description(folder: Path) -> dict[str, Any]:
    """`task.json` of a run folder.

    Raises DataError when the folder is no run of ours.
    """
    description = read_json(folder / "task.json")
    if description.get("format") != FORMAT or description.get("version") != VERSION:
        raise DataError(f"{folder} is not a run of this version of unseen; give a folder that `unseen train` wrote")
    return description


def _settings(method: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(method, ClosedForm):
        return method.hyperparameters(**values)
    return method.default(1, 1, 1)[0].__class__(**values)


def _restore(
    task: Task, recipe: Recipe, arrays: Mapping[str, NDArray[Any]]
) -> tuple[Predictor, GenerativeMethod | None, ScaledView]:
    scaler = Scaler.from_arrays(recipe.scaling, arrays)
    view = scaler.view(task.dataset.training_view(task.split), task.device)
    tensors = {name: torch.tensor(array, device=task.device) for name, array in arrays.items()}
    trained = None
    if not isinstance(task.method, ClosedForm):
        trained = task.method.build(view, task.hyperparameters, 0)
        trained.load_state({name: tensor for name, tensor in tensors.items() if name.startswith("network.")})
    predictor = Predictor(
        scaler=scaler,
        represent=trained.represent if trained is not None else lambda x: x,
        generalized=LinearScores(tensors["generalized.weight"], tensors["generalized.bias"]),
        conventional=LinearScores(tensors["conventional.weight"], tensors["conventional.bias"]),
        seen=view.seen.cpu().numpy(),
        unseen=view.unseen.cpu().numpy(),
        spread=float(arrays["spread"][0]),
        device=task.device,
    )
    return predictor, trained, view


def preset_of(outcome: Outcome, dataset: Dataset, command: str) -> Preset:
    """What a `blind` run chose, as a preset."""
    row = outcome.row
    return Preset(
        method=row["method"],
        hyperparameters=row["hyperparameters"],
        recipe=replace(Recipe(), **row["recipe"]),
        selection=Selection(**row["selection"]),
        chosen_for=identity(dataset, row["split"]),
        command=command,
    )
