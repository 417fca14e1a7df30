"""Run folders: a task that can be resumed, its result, and everything needed to score it again.

`task.json` says what was asked for; `result.json`, `weights.safetensors`, `history.jsonl`, `per_class.csv` and `report.html`
say what came out, `calibration.safetensors` what the folds' held-out rows say of its probabilities, where a choice was made on
folds, and `oracle.json` what real unseen rows would have brought. While the run goes on, `checkpoint.safetensors`,
`paper.safetensors` and `selection/` keep unfinished work.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unseen.calibration import Calibration, HeldOutScores, calibrate
from unseen.data.dataset import Dataset
from unseen.data.opening import open_dataset
from unseen.errors import DataError, RunError, SettingsError, UnseenError
from unseen.evaluation.by_class import per_class
from unseen.evaluation.cost import Meter
from unseen.evaluation.oracle import oracle
from unseen.evaluation.predictor import Predictor
from unseen.evaluation.protocol import COST_FILE, PAPER_FILE, Outcome, Task, Watch, handed, is_transductive, measure, run
from unseen.evaluation.selection import Selection
from unseen.fitted import Fitted
from unseen.gate import scores_of
from unseen.linear import LinearScores
from unseen.methods import ClosedForm, find_method
from unseen.methods.base import GenerativeMethod, under
from unseen.presets import identity
from unseen.recipe import Recipe
from unseen.scaling import ScaledView, Scaler
from unseen.storage import csv_text, read_arrays, read_json, write_arrays, write_json, write_text
from unseen.training import Progress

FORMAT = "unseen-run"
VERSION = 1
CALIBRATION = "calibration.safetensors"

FILES = (
    "task.json",
    "checkpoint.safetensors",
    PAPER_FILE,
    COST_FILE,
    "history.jsonl",
    "weights.safetensors",
    CALIBRATION,
    "per_class.csv",
    "result.json",
    "oracle.json",
    "figures.json",
    "failure.json",
    "report.html",
)


class Busy(RunError):
    """Another process works in the folder."""


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
        "threads": task.threads,
        **hashes(task.dataset, task.split),
        # absent elsewhere: names of jobs hash all of this
        **({"kept": list(task.kept)} if task.kept else {}),
        **({"transductive": True} if is_transductive(task.method) else {}),
    }


def hashes(dataset: Dataset, split: str) -> dict[str, str]:
    """What `presets.identity` says, as result rows name it."""
    return {f"{what}_hash": value for what, value in identity(dataset, split).items()}


def run_in_folder(
    task: Task,
    folder: Path,
    description: dict[str, Any],
    resume: bool,
    watch: Watch,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Carry out a task, keeping everything in `folder`. Of a run that is finished, the result is reported again.

    Args:
        folder: must not exist, or be empty, unless `resume`.
        resume: go on with the run that is there; its task must be this one.
        on_outcome: called when there is an outcome and before its row is written: may add to the row, and keep more files.

    Raises:
        Busy: the folder is in use.
        RunError: the folder belongs to another task, or cannot be written.
    """
    with _disk(folder):
        _check(folder, description, resume)
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        with _disk(folder):
            _check(folder, description, resume)  # again, now that nobody else can write
            for entry in filter(_left_over, list(folder.iterdir())):
                entry.unlink(missing_ok=True)
        write_json(folder / "task.json", description)
        if (folder / "result.json").exists():
            outcome = replace(evaluate(folder, task.dataset), row=read_json(folder / "result.json"))
        else:
            outcome = _carry_out(task, folder, watch, on_outcome)
        for name in ("checkpoint.safetensors", PAPER_FILE, COST_FILE):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "selection", ignore_errors=True)
        return outcome


def _carry_out(task: Task, folder: Path, watch: Watch, on_outcome: Callable[[Outcome], None]) -> Outcome:
    with closing(History(folder / "history.jsonl")) as history:

        def on_phase(phase: str) -> None:
            history.phase = phase
            watch.on_phase(phase)

        def on_progress(progress: Progress) -> None:
            history.add(progress)
            watch.on_progress(progress)

        held_out: list[HeldOutScores] = []
        outcome = run(task, Watch(folder, on_phase, on_progress, held_out.extend))
    write_arrays(folder / "weights.safetensors", weights_of(outcome), sealed=True)
    if held_out:
        write_arrays(folder / CALIBRATION, calibrate(held_out, outcome.task.recipe.gamma).arrays(), sealed=True)
    write_text(folder / "per_class.csv", per_class_csv(outcome))
    on_outcome(outcome)
    write_json(folder / "result.json", outcome.row)  # last: a run with a result is finished
    return outcome


def _check(folder: Path, description: dict[str, Any], resume: bool) -> None:
    """Refuse a folder that holds anything but this very run, and without `resume` that too."""
    # In this order: another process may begin the same run at this moment, and writes task.json before anything else.
    taken = folder.exists() and (not folder.is_dir() or any(not _ours(entry) for entry in folder.iterdir()))
    if not (folder / "task.json").exists():
        if taken:
            raise RunError(f"{folder} already exists and holds no run of ours; choose another --out")
        return
    if not resume:
        raise RunError(f"{folder} already exists; choose another --out, or add --resume to go on with the run in it")
    before = read_description(folder)
    ours = json.loads(json.dumps(description))
    # The data may have moved: what counts is in their hashes.
    different = sorted(key for key in ours if key not in ("command", "source") and before.get(key) != ours[key])
    if different:
        raise RunError(
            f"the run in {folder} was started with another {', '.join(different)}; "
            "resume it with the same settings or choose another folder"
        )


def _left_over(entry: Path) -> bool:
    """A temporary file of a process that was killed while it wrote one of ours."""
    return entry.name.startswith(tuple(f".{name}." for name in FILES))


def _ours(entry: Path) -> bool:
    return entry.name in (".lock", "failure.json") or _left_over(entry)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of the folder; the lock goes with the process, however it ends.

    Raises Busy when another process holds it.
    """
    path = folder / ".lock"
    with _disk(folder):
        lock = path.open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A lock on a file that its last holder has just removed keeps nobody out.
            busy = not path.exists() or os.fstat(lock.fileno()).st_ino != path.stat().st_ino
        except BlockingIOError:
            busy = True
        except OSError as error:
            raise RunError(f"{folder} cannot be locked ({error.strerror}); choose a folder on another disk") from error
        if busy:
            raise Busy(f"another process is working in {folder}; wait for it or choose another folder")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def in_use(folder: Path) -> bool:
    """Whether another process holds the folder's lock."""
    try:
        with (folder / ".lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock, or none that can be asked: who wants to work there will find out
        return False
    return False


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """A disk that refuses is a sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; free some space or choose another folder") from error


class History:
    """Losses as they come, one JSON object a line. After an interruption, lines that are done again replace the old ones."""

    def __init__(self, path: Path) -> None:
        self.phase = ""
        self._path = path
        self._lines: dict[str, dict[int, str]] = {}
        with _disk(path):
            for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
                try:
                    entry = json.loads(line)
                    self._lines.setdefault(entry["phase"], {})[int(entry["step"])] = line
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a killed process may be half written
            self._write()
            self._file = path.open("a")

    def add(self, progress: Progress) -> None:
        """Append one line."""
        entry = {"phase": self.phase, "step": progress.step, "losses": {k: round(v, 6) for k, v in progress.losses.items()}}
        line = json.dumps(entry)
        self._lines.setdefault(self.phase, {})[progress.step] = line
        with _disk(self._path):
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        """Write each step's last line once, in order."""
        with _disk(self._path):
            self._file.close()
        self._write()

    def _write(self) -> None:
        lines = (steps[step] for steps in self._lines.values() for step in sorted(steps))
        write_text(self._path, "".join(f"{line}\n" for line in lines))


def weights_of(outcome: Outcome) -> dict[str, NDArray[Any]]:
    """Everything that scoring needs: scaler, networks, both classifiers and the unit of γ.

    Under `paper` T1 comes from another epoch than H, whose networks are gone, so its predictions are kept as they are.
    """
    predictor = outcome.predictor
    tensors = {
        f"{name}.{part}": tensor
        for name, scores in (("generalized", predictor.generalized), ("conventional", predictor.conventional))
        for part, tensor in scores.tensors().items()
    }
    if outcome.trained is not None:
        tensors |= {n: t for n, t in outcome.trained.state().items() if n.startswith("network.")}
    arrays: dict[str, NDArray[Any]] = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    if outcome.row["protocol"] == "paper":
        arrays["conventional.predictions"] = outcome.conventional
    return arrays | predictor.scaler.arrays() | {"spread": np.array([predictor.spread])}


def oracle_row(folder: Path, outcome: Outcome) -> dict[str, Any]:
    """The oracle's row of a finished run of a generative method, from `oracle.json`; made and kept there if it is not yet.

    Raises DataError when there is no class to halve, or the file is damaged.
    """
    path = folder / "oracle.json"
    if not path.exists():
        write_json(path, oracle(outcome, Recipe(**outcome.row["recipe"]), outcome.row["seed"]))
    row = read_json(path)
    if not outcome.row.keys() <= row.keys():
        raise DataError(f"{path} is not the oracle of this run; remove it, and it is made anew")
    return row


def per_class_csv(outcome: Outcome) -> str:
    """A table: class, seen or unseen, test rows, accuracy. Names that a spreadsheet would run as a formula are quoted."""
    return csv_text(
        ["class", "kind", "test_rows", "accuracy"],
        (
            [name, "unseen" if unseen else "seen", rows, f"{accuracies[outcome.row['method']]:.6f}"]
            for name, unseen, rows, accuracies in sorted(per_class([outcome]), key=lambda entry: entry[1])  # seen first
        ),
    )


@dataclass(frozen=True)
class OpenedRun:
    """A finished run, trained as it was.

    Args:
        task: with everything that was chosen.
        predictor, trained, view: as an `Outcome` has them.
        calibration: from the folds; None where nothing was chosen on folds, or long ago.
        arrays: all that is kept of the weights; stored: the result row.
    """

    task: Task
    predictor: Predictor
    trained: GenerativeMethod | None
    view: ScaledView
    calibration: Calibration | None
    arrays: Mapping[str, NDArray[Any]]
    stored: Mapping[str, Any]

    @property
    def fitted(self) -> Fitted:
        """The run's classifier as a value; its temperature is 1 where nothing was calibrated."""
        spread, names = self.predictor.spread, self.view.names
        return Fitted(
            scaler=self.predictor.scaler,
            method=self.trained,
            scores=self.predictor.generalized,
            names=names,
            seen=np.isin(np.arange(len(names)), self.predictor.seen),
            gamma=self.task.recipe.gamma * spread,
            temperature=self.calibration.temperature * spread if self.calibration else 1.0,
            device=self.predictor.device,
        )


def evaluate(folder: Path, dataset: Dataset) -> Outcome:
    """Score a finished run again, from its weights, on the data set it names.

    Under `paper`, T1 comes from another epoch than the weights; its stored predictions are counted again.

    Raises:
        DataError: the data are not those of the run, or the folder is damaged or unfinished.
    """
    opened = open_run(folder, dataset)
    with _belonging_together(folder):
        cost = Meter()
        cost.seconds = {p: float(spent) for p, spent in opened.stored["seconds_by_phase"].items() if p != "scoring"}
        conventional = opened.arrays.get("conventional.predictions")
        return measure(opened.task, opened.predictor, opened.trained, opened.view, cost, conventional=conventional)


def open_run(folder: Path, dataset: Dataset) -> OpenedRun:
    """A finished run from its weights, on the data set it names; test rows are not scored.

    Raises:
        DataError: the data are not those of the run, or the folder is damaged or unfinished.
    """
    description = read_description(folder)
    if not (folder / "result.json").exists():
        raise DataError(f"the run in {folder} is not finished; go on with it by `unseen train … --out {folder} --resume`")
    stored = read_json(folder / "result.json")
    found = hashes(dataset, description["split"]) if description["split"] in dataset.splits else {}
    for key in ("split_hash", "features_hash", "embeddings_hash", "labels_hash", "names_hash"):
        if found.get(key) != stored.get(key):
            raise DataError(
                f"the {key.removesuffix('_hash')} of data set '{dataset.name}' are not those that the run in {folder} was made "
                "with; give the original data"
            )
    arrays, _ = read_arrays(folder / "weights.safetensors")
    try:
        find_method(description["method"])
    except SettingsError as error:  # it came, perhaps, from a package that is gone
        raise DataError(f"the run in {folder} cannot be scored: {error}") from error
    with _belonging_together(folder):
        recipe = {**description["recipe"], **stored["recipe"]}  # a closed-form method's row holds only what it uses
        task = task_from({**stored, "method": description["method"], "recipe": recipe}, dataset)
        calibration = None
        if (folder / CALIBRATION).exists():
            calibration = Calibration.of(read_arrays(folder / CALIBRATION)[0])
        return OpenedRun(task, *_restore(task, arrays), calibration, arrays, stored)


def data_of(folder: Path, dataset: str | None) -> Dataset:
    """The data set that a run names, or this one; DataError where it is not there any more."""
    source = dataset or read_description(folder)["source"]
    try:
        return open_dataset(source)
    except DataError as error:
        raise DataError(f"{error}; if the data set of {folder} has moved, name it by --data") from error


@contextmanager
def _belonging_together(folder: Path) -> Iterator[None]:
    """Files that contradict each other are a sentence."""
    try:
        yield
    except (UnseenError, KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"the files of the run in {folder} are damaged or do not belong together ({cause}); restore them or train again"
        ) from error


def read_description(folder: Path) -> dict[str, Any]:
    """`task.json` of a run folder.

    Raises DataError when the folder is no run of ours.
    """
    description = read_json(folder / "task.json")
    if description.get("format") != FORMAT or description.get("version") != VERSION:
        raise DataError(f"{folder} is not a run of this version of unseen; give a folder that `unseen train` wrote")
    if not all(isinstance(description.get(key), str) for key in ("source", "split", "method")):
        raise DataError(f"{folder / 'task.json'} is damaged (it does not say what was run); restore it or train again")
    return description


def task_from(entry: Mapping[str, Any], dataset: Dataset) -> Task:
    """The task that a description or a result row tells of, on this data set.

    Raises:
        SettingsError: a setting cannot work, or the method is not known here.
        KeyError, TypeError: the entry is damaged or of another version.
    """
    method = find_method(entry["method"])
    return Task(
        dataset=dataset,
        split=entry["split"],
        method=method,
        hyperparameters=method.hyperparameters(**entry["hyperparameters"]),
        recipe=Recipe(**entry["recipe"]),
        settings_from=entry["settings_from"],
        protocol=entry["protocol"],
        seed=entry["seed"],
        selection=Selection(**entry["selection"]) if entry["selection"] else None,
        device=torch.device("cuda" if entry["device"] == "cuda" and torch.cuda.is_available() else "cpu"),
        threads=entry["threads"],
        kept=tuple(entry.get("kept", ())),
    )


def _restore(task: Task, arrays: Mapping[str, NDArray[Any]]) -> tuple[Predictor, GenerativeMethod | None, ScaledView]:
    scaler = Scaler.from_arrays(task.recipe.scaling, arrays)
    view = scaler.view(handed(task, task.dataset.training_view(task.split)), task.device)
    tensors = {name: torch.tensor(array, device=task.device) for name, array in arrays.items()}
    trained = None
    if not isinstance(task.method, ClosedForm):
        trained = task.method.build(view, task.hyperparameters, 0)
        trained.load_state({name: tensor for name, tensor in tensors.items() if name.startswith("network.")})
    predictor = Predictor(
        scaler=scaler,
        represent=trained.represent if trained is not None else lambda x: x,
        generalized=scores_of(under("generalized.", tensors)),
        conventional=LinearScores(tensors["conventional.weight"], tensors["conventional.bias"]),
        seen=view.seen.cpu().numpy(),
        unseen=view.unseen.cpu().numpy(),
        spread=float(arrays["spread"][0]),
        device=task.device,
    )
    return predictor, trained, view
