"""Hyper-parameters searched by Optuna. A trial is worth what `blind` finds with its settings: H on folds of the training rows.

    OUT/tune.json       what is tuned, and what was typed
        journal.log     the trials (see `unseen.experiments.study`)
        selections/     one folder a trial: what `blind` chose with its settings (see `unseen.experiments.jobs`)
        preset.json     the best one so far, as `unseen train --preset` takes it

A trial is a job that chooses on folds, so test rows are as far out of reach as for every other choice of `blind`. One process
draws the trials; workers that carry them out know of nothing but their job. After an interruption, trials that were under way
come first, so that with one at a time the search is what it would have been; with several at a time, what is drawn depends on
which of them end first.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen.asking import build_task
from unseen.data.dataset import Dataset
from unseen.errors import DataError, MissingDependency, RunError, SettingsError
from unseen.evaluation.protocol import Task
from unseen.experiments.bench import next_ended
from unseen.experiments.engines import Engine
from unseen.experiments.grid import choice_of
from unseen.experiments.jobs import FAILURE, Job, failure
from unseen.methods import ClosedForm, find_method
from unseen.methods.base import Range
from unseen.presets import read_preset, write_preset
from unseen.runs import locked
from unseen.storage import read_json, write_json
from unseen.training import training_steps

if TYPE_CHECKING:
    from unseen.experiments.study import Drawn, Study

FORMAT = "unseen-tune"
VERSION = 1
MARKER, PRESET = "tune.json", "preset.json"
NOT_ITS_FAULT = (DataError.__name__, RunError.__name__, MissingDependency.__name__)
"""Errors that a trial with any other settings would meet as well."""


@dataclass(frozen=True)
class Tuning:
    """What is tuned.

    Args:
        task: the settings that the search begins with, and all that its trials share.
        search: hyper-parameter → what is tried.
        source: of the data, as typed; command: what was typed.
    """

    task: Task
    search: Mapping[str, Range]
    source: str
    command: str

    @property
    def start(self) -> dict[str, Any]:
        """The values of the first trial."""
        return {name: getattr(self.task.hyperparameters, name) for name in self.search}

    def job(self, values: Mapping[str, Any]) -> Job:
        """The work of a trial. Raises SettingsError where the method refuses these values together."""
        task = replace(self.task, hyperparameters=replace(self.task.hyperparameters, **values))
        return choice_of(task, self.source, self.command)


@dataclass(frozen=True)
class Trial:
    """A trial that came to its end.

    Args:
        number: its name; numbers may be missing.
        values: of the hyper-parameters that are searched.
        objective: mean H on the folds, with γ; None where it failed.
        sentence: None, or why it failed.
    """

    number: int
    values: Mapping[str, Any]
    objective: float | None
    sentence: str | None

    def record(self) -> dict[str, Any]:
        """As a preset tells of it."""
        told = {"H": self.objective} if self.sentence is None else {"failed": self.sentence}
        return {"trial": self.number, **self.values, **told}


def refuse_untunable(method_name: str) -> None:
    """Raise SettingsError for a method that has nothing to search."""
    method = find_method(method_name)
    if isinstance(method, ClosedForm):
        tried = ", ".join((*method.hyperparameters.GRID, "scaling"))
        raise SettingsError(
            f"'{method_name}' needs no search: `blind` tries all there is of {tried} on the folds; "
            f"run `unseen train` with --method {method_name}"
        )
    if not method.search:
        raise SettingsError(f"method '{method_name}' does not say what to search; whoever wrote it can give it a `search`")


def plan(
    data: Dataset,
    source: str,
    split: str | None,
    method_name: str,
    seed: int,
    settings: Mapping[str, str],
    threads: int,
    command: str,
) -> Tuning:
    """What to tune: all that the method says can be searched, but for settings that the user gives.

    Args:
        split: by name; None takes the first.
        settings: name → value as typed, the same in every trial.

    Raises:
        SettingsError: there is nothing to search, or a name or a value that cannot be used.
    """
    refuse_untunable(method_name)
    task = replace(build_task(data, split, method_name, "blind", seed, settings, None, anew=True), threads=threads)
    assert not isinstance(task.method, ClosedForm)
    if unknown := task.method.search.keys() - vars(task.hyperparameters).keys():
        raise SettingsError(
            f"method '{method_name}' searches {', '.join(sorted(unknown))}, which it does not have; mend its entry"
        )
    training_steps(task.recipe, task.method.schedule(task.hyperparameters), data.training_view(task.split))  # refuses 0
    search = {name: tried for name, tried in task.method.search.items() if name not in settings}
    if not search:
        raise SettingsError(f"all that is searched for '{method_name}' is given by --set; leave some of it out")
    tuning = Tuning(task, search, source, command)
    for name, value in tuning.start.items():
        if value not in search[name]:
            raise SettingsError(f"{name}={value} is not in {search[name]}, which is searched; keep it by --set {name}={value}")
    return tuning


@contextmanager
def open_search(tuning: Tuning, out: Path) -> Iterator[Study]:
    """The trials in `out`, begun or gone on with; other processes are kept out meanwhile.

    Raises:
        MissingDependency: the extra `unseen[tune]` is not installed.
        RunError: the folder holds something else or another search, is in use, or cannot be written.
        DataError: its files are damaged.
    """
    try:
        from unseen.experiments.study import Study
    except ModuleNotFoundError as missing:
        raise MissingDependency("tuning needs Optuna, which is not installed; run: pip install 'unseen[tune]'") from missing
    if out.exists() and not (out / MARKER).exists() and (not out.is_dir() or any(not _ours(e) for e in out.iterdir())):
        raise RunError(f"{out} already exists and holds no search of ours; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    with locked(out):
        _note(tuning, out)
        yield Study(out / "journal.log", tuning.search, tuning.task.seed)


def _ours(entry: Path) -> bool:
    """All that there is where a process was killed before the folder was marked."""
    return entry.name == ".lock" or entry.name.startswith(f".{MARKER}.")


def _note(tuning: Tuning, out: Path) -> None:
    """Write down what is tuned, or see that it is what was tuned before."""
    job = tuning.job(tuning.start)
    search = {name: {"kind": type(tried).__name__, **asdict(tried)} for name, tried in tuning.search.items()}
    ours = json.loads(json.dumps({"task": dict(job.description), "search": search}))
    commands: list[str] = []
    if (out / MARKER).exists():
        before = read_json(out / MARKER)
        if before.get("format") != FORMAT or before.get("version") != VERSION:
            raise DataError(f"{out} is not a search of this version of unseen; choose another --out")
        try:
            commands = [str(command) for command in before["commands"]]
            different = [_different(before[part], ours[part]) for part in ("task", "search")]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{out / MARKER} is damaged; choose another --out") from error
        if any(different):
            names = ", ".join(dict.fromkeys(name for part in different for name in part))
            raise RunError(f"the search in {out} was begun with another {names}; give the same, or choose another --out")
    commands = list(dict.fromkeys([*commands, tuning.command]))
    write_json(out / MARKER, {"format": FORMAT, "version": VERSION, "commands": commands, "about": dict(job.about), **ours})


def _different(before: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in before.keys() | ours.keys() if before.get(key, ...) != ours.get(key, ...))


def carry_on(tuning: Tuning, study: Study, out: Path, engine: Engine[Job], trials: int, at_once: int) -> Iterator[Trial]:
    """Search until there are `trials`; yields them as they end, and keeps the best one's preset.

    On any interruption the engine is closed, which lets workers save what they have.

    Args:
        at_once: trials under way at a time, at most.

    Raises:
        RunError: a trial met something that others would meet too, such as a full disk. It is carried out again next time.
    """
    under_way: dict[int, Job] = {}
    try:
        left = study.take_up()
        study.begin_with(tuning.start)
        to_begin = trials - study.counted
        while to_begin > 0 or under_way:
            while to_begin > 0 and len(under_way) < min(at_once, engine.slots):
                drawn = left.pop(0) if left else study.draw()
                to_begin -= 1
                job = _job(tuning, drawn.values)
                if isinstance(job, str) or job.done(out):
                    yield _told(tuning, study, out, drawn.number, job)
                else:
                    engine.submit(job)
                    under_way[drawn.number] = job
            if under_way:
                ended = next_ended(engine, out).job
                number = next(number for number, job in under_way.items() if job.id == ended.id)
                yield _told(tuning, study, out, number, under_way.pop(number))
    finally:
        engine.close()


def _job(tuning: Tuning, values: Mapping[str, Any]) -> Job | str:
    """The work of a trial, or why the method refuses its values."""
    try:
        return tuning.job(values)
    except SettingsError as error:
        return str(error)


def _told(tuning: Tuning, study: Study, out: Path, number: int, job: Job | str) -> Trial:
    """Tell the study what came of a trial."""
    if isinstance(job, str):
        study.tell_bad(number)
    elif job.done(out):
        study.tell(number, read_preset(job.folder(out) / "preset.json").selection.objective)
    else:
        entry = read_json(job.folder(out) / FAILURE)
        if entry["error"] in NOT_ITS_FAULT:
            raise RunError(f"trial {number} could not be carried out: {entry['sentence']}; then type the same command again")
        shutil.rmtree(job.folder(out) / "selection", ignore_errors=True)
        if entry["error"] is None:  # its workers died
            study.tell_lost(number)
        else:
            study.tell_bad(number)
    trials = trials_of(tuning, study, out)
    keep_best(tuning, trials, out)
    return next(trial for trial in trials if trial.number == number)


def trials_of(tuning: Tuning, study: Study, out: Path) -> list[Trial]:
    """All trials that came to their end, in the order in which they were drawn."""
    return [
        Trial(drawn.number, drawn.values, drawn.objective, None if drawn.objective is not None else _why(tuning, out, drawn))
        for drawn in study.ended()
    ]


def _why(tuning: Tuning, out: Path, drawn: Drawn) -> str:
    job = _job(tuning, drawn.values)
    return job if isinstance(job, str) else failure(job, out) or "it was carried out again, as another trial"


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the highest objective, of equals the first; None where all failed."""
    worth = [trial for trial in trials if trial.objective is not None]
    return max(worth, key=lambda trial: trial.objective or 0.0, default=None)


def keep_best(tuning: Tuning, trials: Sequence[Trial], out: Path) -> Path | None:
    """Write the preset of the best trial, if there is one. It tells of the others too: they were tried on the same folds."""
    best = best_of(trials)
    if best is None:
        return None
    preset = read_preset(tuning.job(best.values).folder(out) / "preset.json")
    selection = replace(
        preset.selection,
        chosen_on=f"{preset.selection.chosen_on}, hyper-parameters in {len(trials)} trials",
        chosen={**best.values, **preset.selection.chosen},
        candidates=[*(trial.record() for trial in trials), *preset.selection.candidates],
    )
    write_preset(out / PRESET, replace(preset, selection=selection, command=tuning.command))
    return out / PRESET
