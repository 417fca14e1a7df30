"""One piece of work of a benchmark: a choice on folds or a run, named by everything that determines what comes out.

    OUT/selections/<id>/   preset.json   what `blind` chose, as `unseen train --preset` takes it; cost.json
    OUT/tasks/<id>/        a run folder (see `unseen.runs`) and figures.json

Where a job failed there is failure.json instead, with one sentence. A job can be carried out by any process that sees OUT and
the data; two that try the same one at the same time do it once.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from threadpoolctl import threadpool_limits

from unseen.data.dataset import Dataset
from unseen.data.opening import open_dataset
from unseen.errors import DataError, RunError, Stopped, UnseenError
from unseen.evaluation.consistency import ShowsParts, diagnose
from unseen.evaluation.protocol import Outcome, Task, Watch, choose, versions
from unseen.evaluation.synthesis import synthesis_against_real
from unseen.experiments.details import details
from unseen.methods import ClosedForm
from unseen.presets import preset_of, read_preset, write_preset
from unseen.runs import Busy, describe, hashes, locked, oracle_row, run_in_folder, task_from
from unseen.storage import hash_of, read_json, write_json

FAILURE = "failure.json"
MARKERS = ("bench.json", "tune.json")
"""A folder for jobs holds one of these, written by the process that hands them out."""


@dataclass(frozen=True)
class Job:
    """A choice or a run.

    Args:
        kind: `choose` what `blind` chooses, once for several runs; or `run`.
        description: of the task (see `unseen.runs.describe`), without what is only chosen when `needs` is done.
        needs: id of the choice that this run rests on.
        variant: name of a row of an ablation table; changes: what it changes of the chosen hyper-parameters.
        showing: also keep what a report shows of one seed only: the plane, the curve over synthetic counts, the oracle.
        about: for readers, no part of the id: source of the data, command, names of the unseen classes.
    """

    kind: Literal["choose", "run"]
    description: Mapping[str, Any]
    needs: str | None = None
    variant: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    showing: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """SHA-256, shortened, of everything that determines what comes out: data, method, settings, seed, versions."""
        parts = {"kind": self.kind, "task": dict(self.description), "needs": self.needs}
        return hash_of({**parts, "variant": self.variant, "changes": dict(self.changes)})[:24]

    def folder(self, out: Path) -> Path:
        """Where it keeps everything."""
        return out / {"choose": "selections", "run": "tasks"}[self.kind] / self.id

    def done(self, out: Path) -> bool:
        """Whether its result is there."""
        return (self.folder(out) / {"choose": "preset.json", "run": "result.json"}[self.kind]).exists()

    def __str__(self) -> str:
        words = [self.description["dataset"], self.description["split"], self.description["method"]]
        words += [self.variant] if self.variant else []
        if self.kind == "choose":
            return ", ".join([*words, "choice on folds"])
        return ", ".join([*words, self.description["protocol"], f"seed {self.description['seed']}"])


def carry_out(job: Job, out: Path) -> bool:
    """Do the work of a job, or go on with it; what is finished is left alone. A failure is written down, not raised.

    Returns:
        Whether it came to its end. Where another process is at it, it is left alone.

    Raises:
        RunError: `out` is not to be seen from here.
        Stopped: Ctrl-C or SIGTERM stopped it; what was done is saved.
    """
    if not any((out / marker).exists() for marker in MARKERS):
        raise RunError(f"{out} cannot be seen from the machine that does the work; choose a folder that all machines share")
    return job.done(out) or _one_try(job, out)


def _one_try(job: Job, out: Path) -> bool:
    folder = job.folder(out)
    before = torch.get_num_threads()
    torch.set_num_threads(job.description["threads"])
    try:
        (folder / FAILURE).unlink(missing_ok=True)
        with threadpool_limits(job.description["threads"]):
            {"choose": _choose, "run": _run}[job.kind](job, out)
    except Busy:
        return False
    except Stopped:
        raise
    except UnseenError as error:
        write_failure(job, out, str(error), error)
    except Exception as error:
        sentence = f"an error inside unseen ({type(error).__name__}: {error}); please report it with {folder / FAILURE}"
        write_failure(job, out, sentence, error, traceback.format_exc())
    finally:
        torch.set_num_threads(before)
    return True


def write_failure(job: Job, out: Path, sentence: str, error: Exception | None = None, trace: str = "") -> None:
    """Keep why a job failed, and which job it is: there may be nothing else in its folder.

    Args:
        error: what was raised; None where the job's worker was lost.
    """
    names = ("dataset", "split", "method", "protocol", "seed")
    about = {"kind": job.kind, "variant": job.variant} | {name: job.description[name] for name in names}
    kind_of_error = type(error).__name__ if error else None
    write_json(job.folder(out) / FAILURE, {**about, "sentence": sentence, "error": kind_of_error, "traceback": trace})


def failure(job: Job, out: Path) -> str | None:
    """The sentence that says why a job failed, if it did and has not succeeded since."""
    path = job.folder(out) / FAILURE
    return None if job.done(out) or not path.exists() else str(read_json(path).get("sentence"))


def _choose(job: Job, out: Path) -> None:
    folder = job.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if job.done(out):
            return
        task, _ = choose(_task_of(job), Watch(folder))
        write_preset(folder / "preset.json", preset_of(task, job.about["command"]))
        shutil.rmtree(folder / "selection", ignore_errors=True)


def _run(job: Job, out: Path) -> None:
    folder = job.folder(out)
    task = _task_of(job)
    cost: Mapping[str, Any] = {"seconds": {}, "peak_memory": 0}
    if job.needs is not None:
        chosen = out / "selections" / job.needs
        preset = read_preset(chosen / "preset.json")
        cost = read_json(chosen / "cost.json")
        settings_from = "folds" if isinstance(task.method, ClosedForm) else task.settings_from
        task = replace(
            task,
            hyperparameters=preset.build(task.method),
            recipe=preset.recipe,
            selection=preset.selection,
            settings_from=settings_from,
        )
    task = replace(task, hyperparameters=replace(task.hyperparameters, **job.changes))

    def on_outcome(outcome: Outcome) -> None:
        row = outcome.row
        row |= {"task": job.id, "variant": job.variant}
        row["seconds_by_phase"] = {**cost["seconds"], **row["seconds_by_phase"]}
        row["seconds"] = sum(row["seconds_by_phase"].values())
        row["peak_memory"] = max(row["peak_memory"], cost["peak_memory"])
        figures = details(outcome, job.showing)
        row["diagnosis"] = synthesis_against_real(outcome)
        row["consistency"] = None
        if isinstance(outcome.trained, ShowsParts):
            with suppress(DataError):  # too few rows for it
                row["consistency"] = diagnose(outcome)
        diagnosed = sum(row[name] is not None for name in ("diagnosis", "consistency"))
        row["diagnostic_evaluations"] += len(figures["synthetic_counts"] or ()) + diagnosed
        write_json(folder / "figures.json", figures)
        if job.showing and outcome.trained is not None:
            with suppress(DataError):  # where no class can be halved there is none, and the run is a result still
                oracle_row(folder, outcome)

    description = describe(task, job.about["source"], job.about["command"])
    description |= {"task": job.id, "variant": job.variant, "selection_from": job.needs, "unseen": job.about["unseen"]}
    run_in_folder(task, folder, description, True, Watch(), on_outcome)


def _task_of(job: Job) -> Task:
    """What a job is about, refused where this machine or the data are not those that the job was made for."""
    if versions(job.description["method"]) != job.description["versions"]:
        raise RunError(
            "this machine has other versions of Python, the libraries or the method's package than the one that planned the "
            "benchmark; install the same on all machines"
        )
    task = task_from(job.description, _data_of(job))
    if task.device.type != job.description["device"]:
        raise RunError(
            "the benchmark was planned on a machine with a GPU, and this one has none to offer; use machines that have one, "
            "or set CUDA_VISIBLE_DEVICES= where you type the command"
        )
    return task


def _data_of(job: Job) -> Dataset:
    """The data of a job, opened once a process."""
    source, split = job.about["source"], job.description["split"]
    data = opened(source)
    if split not in data.splits or any(job.description[key] != value for key, value in hashes(data, split).items()):
        raise DataError(
            f"the data set {source} has changed since this benchmark was begun; give the original data, or start anew"
        )
    return data


@lru_cache(maxsize=2)
def opened(source: str) -> Dataset:
    """A data set by name or path, kept open for the next job."""
    return open_dataset(source)
