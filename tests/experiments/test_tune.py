"""Tuning: what a trial is worth, what it may see, and that every way of stopping loses nothing."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import unseen

from unseen.asking import build_task
from unseen.data import Dataset
from unseen.errors import DataError, Diverged, MissingDependency, RunError, SettingsError
from unseen.evaluation import protocol, selection
from unseen.evaluation.protocol import choose
from unseen.evaluation.selection import Selection
from unseen.experiments import engines, jobs
from unseen.experiments.engines import Done
from unseen.experiments.jobs import Job, carry_out, write_failure
from unseen.experiments.tune import Trial, Tuning, best_of, carry_on, keep_best, open_search, plan, trials_of
from unseen.methods import METHODS, ClosedForm, Generative
from unseen.methods.base import Choices, Floats, Ints
from unseen.presets import preset_of, read_preset, write_preset
from unseen.runs import task_from
from unseen.storage import read_json

QUICK = {"hidden": "8", "batch_size": "16", "steps": "6", "classifier_epochs": "2", "latent": "3"}
Work = Callable[[Job, Path], str | None]


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """One scaling, one synthetic ratio and two final classifiers to choose from."""
    monkeypatch.setitem(METHODS, "tfvaegan", replace(METHODS["tfvaegan"], scalings=("minmax",)))  # type: ignore[arg-type]
    monkeypatch.setattr(selection, "SYNTHETIC_RATIOS", (2.0,))
    softmax, gaussian = ({"classifier": "softmax"}, {"classifier": "gaussian", "shrinkage": 0.1})
    monkeypatch.setattr(selection, "CLASSIFIERS", (softmax, gaussian))


class Here:
    """An engine that does the work in this process, when it is waited for.

    Args:
        work: does a job; says what became of the worker, if it was lost.
        last_first: of the jobs under way, ends the last one first.
    """

    def __init__(self, work: Work, out: Path, slots: int = 1, last_first: bool = False) -> None:
        self.slots, self.most, self.closed, self.submitted = slots, 0, False, 0
        self._work, self._out, self._last_first = work, out, last_first
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        self.submitted += 1
        self.most = max(self.most, len(self._jobs))

    def next_done(self) -> Done[Job]:
        job = self._jobs.pop() if self._last_first else self._jobs.popleft()
        return Done(job, self._work(job, self._out))

    def close(self) -> None:
        self.closed = True


def really(job: Job, out: Path) -> None:
    carry_out(job, out)


@pytest.fixture
def at_once(toy: Dataset) -> Work:
    """Work without training: what is chosen follows from the learning rate and the number of critic iterations."""

    def work(job: Job, out: Path) -> None:
        task = task_from(job.description, toy)
        settings = task.hyperparameters
        objective = 1 / (1 + (np.log10(settings.lr) + 4) ** 2) / settings.critic_iterations
        chosen = Selection("3 folds", {"gamma": 0.5}, float(objective), [{"gamma": 0.5, "H": float(objective)}])
        write_preset(job.folder(out) / "preset.json", preset_of(replace(task, selection=chosen), job.about["command"]))

    return work


def planned(data: Dataset, folder: Path, seed: int = 0, command: str = "unseen tune", **settings: str) -> Tuning:
    """All that can be searched but for `settings`."""
    return plan(data, str(folder), "first", "tfvaegan", seed, {**QUICK, **settings}, 1, command)


def tuned(tuning: Tuning, out: Path, work: Work, trials: int, slots: int = 1) -> list[Trial]:
    with open_search(tuning, out) as study:
        list(carry_on(tuning, study, out, Here(work, out, slots), trials, slots))
        return trials_of(tuning, study, out)


def briefly(data: Dataset, folder: Path) -> Tuning:
    """A search of what the work below depends on, as every value that is drawn is written to the disk."""
    tuning = planned(data, folder)
    return replace(tuning, search={name: tuning.search[name] for name in ("lr", "critic_iterations")})


def worth(trials: list[Trial]) -> list[tuple[dict[str, Any], float | None]]:
    """What was tried and what came of it, whatever the numbers."""
    return [(dict(trial.values), trial.objective) for trial in trials]


# --------------------------------------------------------------------------------------------------------- what is tried


def test_settings_that_the_user_gives_are_the_same_in_every_trial(
    toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work
) -> None:
    tuning = planned(toy, toy_folder, lr="0.05", a1="7")  # outside of what is searched
    assert {"lr", "a1"}.isdisjoint(tuning.search)
    for trial in tuned(tuning, tmp_path / "out", at_once, 4):
        settings = tuning.job(trial.values).description["hyperparameters"]
        assert (settings["lr"], settings["a1"], settings["hidden"]) == (0.05, 7.0, 8)
        assert tuning.job(trial.values).description["recipe"]["steps"] == 6


def test_a_search_begins_anew_with_the_full_length_where_a_preset_was_chosen_before() -> None:
    """The preset that comes with the package holds the choice for this very split: a quarter of the steps, perhaps."""
    from unseen.experiments.jobs import opened

    data = opened("emoji")
    task = plan(data, "emoji", "demo", "tfvaegan", 0, {}, 1, "").task
    assert build_task(data, "demo", "tfvaegan", "blind", 0, {}, None).selection is not None
    assert task.selection is None
    own = METHODS["tfvaegan"].default(len(data.split("demo").seen), data.features.shape[1], 1)[1]  # type: ignore[union-attr]
    assert task.recipe.steps == own.steps


@pytest.mark.parametrize("method", [m.name for m in METHODS.values() if isinstance(m, ClosedForm)])
def test_a_closed_form_needs_no_search(toy: Dataset, toy_folder: Path, method: str) -> None:
    with pytest.raises(SettingsError, match=f"'{method}' needs no search: `blind` tries all there is of .*scaling"):
        plan(toy, str(toy_folder), None, method, 0, {}, 1, "")


def test_what_cannot_be_searched_is_one_sentence(toy: Dataset, toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = METHODS["tfvaegan"]
    assert isinstance(entry, Generative)
    everything = {name: str(getattr(entry.default(8, 6, 4)[0], name)) for name in entry.search}
    with pytest.raises(SettingsError, match="train nothing"):
        planned(toy, toy_folder, steps="0")
    with pytest.raises(SettingsError, match="leave some of it out"):
        planned(toy, toy_folder, **everything)
    for search, words in (
        ({"lr": Floats(1.0, 2.0)}, r"lr=0\.001 is not in Floats.*; keep it by --set lr=0\.001"),
        ({}, "does not say what to search"),
        ({"wings": Ints(1, 2), "lr": Floats(1e-4, 1.0)}, "method 'tfvaegan' searches wings, which it does not have"),
    ):
        monkeypatch.setitem(METHODS, "tfvaegan", replace(entry, search=search))  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match=words):
            planned(toy, toy_folder)


# ------------------------------------------------------------------------------------------------------ what it is worth


@pytest.mark.usefixtures("few_candidates")
def test_a_trial_is_worth_what_blind_finds_with_its_settings(toy: Dataset, toy_folder: Path, tmp_path: Path) -> None:
    tuning = planned(toy, toy_folder)
    trials = tuned(tuning, tmp_path / "out", really, 2)
    for trial in trials:
        task = build_task(toy, "first", "tfvaegan", "blind", 0, QUICK, None)
        task = replace(task, hyperparameters=replace(task.hyperparameters, **trial.values), threads=1)
        assert choose(task)[0].selection.objective == trial.objective  # type: ignore[union-attr]
    assert trials[0].values == tuning.start
    assert trials[0].objective != trials[1].objective


def test_the_best_trial_becomes_a_preset_that_train_takes_without_choosing(
    toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = planned(toy, toy_folder, command="unseen tune tfvaegan toy")
    trials = tuned(tuning, tmp_path / "out", at_once, 12)
    best = best_of(trials)
    assert best is not None
    assert best.objective == max(trial.objective for trial in trials)  # type: ignore[type-var]
    assert best.objective > trials[0].objective  # type: ignore[operator]
    path = tmp_path / "out" / "preset.json"
    preset = read_preset(path)
    assert preset.command == "unseen tune tfvaegan toy"
    assert preset.selection.objective == best.objective
    assert preset.selection.chosen == {**best.values, "gamma": 0.5}
    assert preset.selection.chosen_on == "3 folds, hyper-parameters in 12 trials"
    assert [c["H"] for c in preset.selection.candidates] == [*(t.objective for t in trials), best.objective]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("chosen again")

    monkeypatch.setattr(protocol, "chosen", never)
    task = build_task(toy, "first", "tfvaegan", "blind", 5, {}, str(path))
    row = protocol.run(replace(task, threads=1)).row
    assert row["settings_from"] == "folds"
    assert {name: row["hyperparameters"][name] for name in best.values} == best.values
    assert row["hyperparameters"]["hidden"] == 8
    assert row["selection"]["objective"] == best.objective
    assert row["test_evaluations"] == 1


def test_of_equals_the_first_is_the_best() -> None:
    trials = [Trial(0, {}, None, "failed"), Trial(1, {}, 0.5, None), Trial(2, {}, 0.5, None), Trial(3, {}, 0.2, None)]
    assert best_of(trials) == trials[1]
    assert best_of(trials[:1]) is None


# ------------------------------------------------------------------------------------------------------- what it may see


@pytest.mark.usefixtures("few_candidates")
def test_it_cannot_touch_test_data(toy: Dataset, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the test rows, the trials and the preset are the same, bit for bit; and nothing may ask for them."""

    def refused(*_: object) -> None:
        raise AssertionError("test rows were asked for")

    def search(data: Dataset, name: str) -> tuple[Any, dict[str, Any]]:
        monkeypatch.setattr(jobs, "opened", lambda source: data)
        with monkeypatch.context() as patch:
            patch.setattr(Dataset, "test_rows", refused)
            trials = tuned(planned(data, toy_folder), tmp_path / name, really, 2)
        assert all(trial.objective is not None for trial in trials), trials
        return worth(trials), read_json(tmp_path / name / "preset.json")

    split = toy.split("first")

    def with_rows(rows: np.ndarray[Any, Any], value: float) -> Dataset:
        features = toy.features.copy()
        features[rows] = value
        return replace(toy, features=features)

    trials, preset = search(toy, "clean")
    hash_of_features = preset["chosen_for"].pop("features")
    for name, value in (("nan", np.nan), ("large", 1e30)):
        with np.errstate(all="ignore"):
            spoiled_trials, spoiled = search(with_rows(np.array([*split.test_seen, *split.test_unseen]), value), name)
        assert spoiled["chosen_for"].pop("features") != hash_of_features  # the poison was there
        assert spoiled_trials == trials
        assert spoiled == preset
    other, _ = search(with_rows(split.train[:1], 3.0), "training row")  # the comparison can fail
    assert other != trials


# ------------------------------------------------------------------------------------------------------- stopped, killed


class Killed(BaseException):
    """The process is gone: nothing that it would have done afterwards is done."""


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("when", ["before its work", "in its work", "after its work"])
def test_killed_and_gone_on_with_it_is_the_same_search(
    toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work, slots: int, when: str
) -> None:
    """With several at a time, too, as long as they end in the same order."""
    tuning = briefly(toy, toy_folder)
    whole = tuned(tuning, tmp_path / "whole", at_once, 12, slots)
    left = 11

    def killed(job: Job, out: Path) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            if when == "in its work":
                (job.folder(out) / "selection").mkdir(parents=True)
            if when == "after its work":
                at_once(job, out)
            raise Killed
        at_once(job, out)

    out = tmp_path / "killed"
    with pytest.raises(Killed):
        tuned(tuning, out, killed, 12, slots)
    under_way = 0

    def counted(job: Job, out: Path) -> None:
        nonlocal under_way
        under_way += 1
        at_once(job, out)

    assert worth(tuned(tuning, out, counted, 12, slots)) == worth(whole)
    assert under_way == 2 - (when == "after its work")  # the eleventh and the twelfth; work that was done is read
    assert worth(tuned(tuning, out, counted, 12, slots)) == worth(whole)
    assert under_way == 2 - (when == "after its work")  # nothing is missing, so nothing is done


def test_more_trials_go_on_from_those_that_there_are(toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work) -> None:
    tuning = briefly(toy, toy_folder)
    whole = tuned(tuning, tmp_path / "whole", at_once, 13)
    fewer = tuned(tuning, tmp_path / "out", at_once, 11)
    more = tuned(replace(tuning, command="unseen tune --trials 13"), tmp_path / "out", at_once, 13)
    assert worth(fewer) == worth(whole[:11])
    assert worth(more) == worth(whole)
    assert read_json(tmp_path / "out" / "tune.json")["commands"] == ["unseen tune", "unseen tune --trials 13"]


def test_a_preset_that_a_killed_process_did_not_write_is_written(
    toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work
) -> None:
    tuning, out = briefly(toy, toy_folder), tmp_path / "out"
    tuned(tuning, out, at_once, 2)
    kept = (out / "preset.json").read_bytes()
    (out / "preset.json").unlink()
    with open_search(tuning, out) as study:
        keep_best(tuning, trials_of(tuning, study, out), out)
    assert (out / "preset.json").read_bytes() == kept


@pytest.mark.parametrize("last_first", [False, True])
def test_several_trials_are_under_way_at_a_time(
    toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work, last_first: bool
) -> None:
    tuning, out = briefly(toy, toy_folder), tmp_path / "out"
    for at_a_time, slots in ((3, 10_000), (10, 2)):
        engine = Here(at_once, out, slots, last_first)
        with open_search(tuning, out) as study:
            seen = [trial.number for trial in carry_on(tuning, study, out, engine, study.counted + 6, at_a_time)]
            trials = trials_of(tuning, study, out)
        assert engine.most == min(at_a_time, slots)
        assert engine.closed
        assert sorted(seen) == [trial.number for trial in trials[-6:]]
        assert (seen != sorted(seen)) is last_first
    for trial in trials:  # each was told what came of itself
        assert trial.objective == read_preset(tuning.job(trial.values).folder(out) / "preset.json").selection.objective


def test_two_trials_of_the_same_settings_both_end(toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work) -> None:
    tuning = replace(briefly(toy, toy_folder), search={"encoded_noise": Choices((True, False))})
    trials = tuned(tuning, tmp_path / "out", at_once, 6, slots=3)
    assert len(trials) == 6
    assert len(list((tmp_path / "out" / "selections").iterdir())) == 2


# ------------------------------------------------------------------------------------------------------------- failures


def test_a_trial_that_diverges_is_told_with_its_sentence_and_the_others_go_on(
    toy: Dataset, toy_folder: Path, tmp_path: Path, few_candidates: None
) -> None:
    tuning = replace(briefly(toy, toy_folder), search={"lr": Floats(1e20, 1e30, log=True)})
    tuning = replace(tuning, task=replace(tuning.task, hyperparameters=replace(tuning.task.hyperparameters, lr=1e25)))
    trials = tuned(tuning, tmp_path / "out", really, 2)
    assert [trial.objective for trial in trials] == [None, None]
    for trial in trials:
        assert "lower the learning rate" in str(trial.sentence)
        assert trial.record() == {"trial": trial.number, **trial.values, "failed": trial.sentence}
        assert not (tuning.job(trial.values).folder(tmp_path / "out") / "selection").exists()  # what was stored is no use
    assert not (tmp_path / "out" / "preset.json").exists()
    assert worth(tuned(tuning, tmp_path / "out", really, 2)) == worth(trials)  # they count


def failing(error: Exception | None, nth: int, otherwise: Work) -> Work:
    left = nth

    def work(job: Job, out: Path) -> str | None:
        nonlocal left
        left -= 1
        if left:
            return otherwise(job, out)
        if error is None:
            return "its process died 3 times"
        write_failure(job, out, str(error), error)
        return None

    return work


def test_settings_that_do_not_work_count_and_a_lost_worker_does_not(
    toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work
) -> None:
    tuning = briefly(toy, toy_folder)
    for name, error, sentence in (("bad", Diverged("it is nan"), "it is nan"), ("lost", None, "its process died 3 times")):
        trials = tuned(tuning, tmp_path / name, failing(error, 2, at_once), 4)
        assert [trial.sentence for trial in trials] == [None, sentence, None, None]
        assert [trial.objective is None for trial in trials] == [False, True, False, False]
        again = tuned(tuning, tmp_path / name, at_once, 4)
        assert len(again) == (4 if name == "bad" else 5)
        assert worth(again)[:4] == worth(trials)
        candidates = read_preset(tmp_path / name / "preset.json").selection.candidates
        assert candidates[1] == {"trial": 1, **trials[1].values, "failed": sentence}


def test_a_start_whose_worker_was_lost_is_tried_again(toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work) -> None:
    tuning = briefly(toy, toy_folder)
    tuned(tuning, tmp_path / "out", failing(None, 1, at_once), 2)
    trials = tuned(tuning, tmp_path / "out", at_once, 2)
    assert [trial.values == tuning.start for trial in trials] == [True, False, True]
    assert trials[2].objective is not None


@pytest.mark.parametrize("error", [RunError("cannot write: disk full"), DataError("too few classes")], ids=["disk", "data"])
def test_what_is_no_trials_fault_stops_the_search_and_is_tried_again(
    toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work, error: Exception
) -> None:
    tuning = briefly(toy, toy_folder)
    whole = tuned(tuning, tmp_path / "whole", at_once, 5)
    with pytest.raises(RunError, match=f"trial 2 could not be carried out: {error}; then type the same command again"):
        tuned(tuning, tmp_path / "out", failing(error, 3, at_once), 5)
    assert worth(tuned(tuning, tmp_path / "out", at_once, 5)) == worth(whole)


def test_values_that_the_method_refuses_together_are_told_without_work(
    toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work
) -> None:
    tuning = briefly(toy, toy_folder)
    task = replace(
        tuning.task, hyperparameters=replace(tuning.task.hyperparameters, beta=0.0, transform=False, feedback_loops=1)
    )
    search = {"feedback_loops": Ints(1, 2), "lr": tuning.search["lr"]}
    tuning = replace(tuning, task=task, search=search)
    trials = tuned(tuning, tmp_path / "out", at_once, 8)
    assert {trial.values["feedback_loops"] for trial in trials} == {1, 2}
    for trial in trials:
        refused = trial.values["feedback_loops"] == 2
        assert (trial.objective is None) is refused
        assert ("nothing to work on" in str(trial.sentence)) is refused


# ------------------------------------------------------------------------------------------------------------ the folder


def test_another_search_in_the_same_folder_is_refused(toy: Dataset, toy_folder: Path, tmp_path: Path, at_once: Work) -> None:
    tuning, out = planned(toy, toy_folder), tmp_path / "out"
    tuned(tuning, out, at_once, 2)
    before = (out / "tune.json").read_bytes()
    features = toy.features.copy()
    features[0] += 1
    others = {
        "seed": planned(toy, toy_folder, seed=1),
        "split, split_hash": plan(toy, str(toy_folder), "second", "tfvaegan", 0, QUICK, 1, ""),
        "hyperparameters, method": plan(toy, str(toy_folder), "first", "fvaegan", 0, QUICK, 1, ""),
        "features_hash": planned(replace(toy, features=features), toy_folder),
        "recipe": planned(toy, toy_folder, steps="7"),
        "hyperparameters": planned(toy, toy_folder, hidden="9"),
        "lr": replace(tuning, search={**tuning.search, "lr": Floats(1e-5, 1.0)}),
        "a1": replace(tuning, search={k: v for k, v in tuning.search.items() if k != "a1"}),
        "threads": replace(tuning, task=replace(tuning.task, threads=2)),
    }
    for names, other in others.items():
        with pytest.raises(RunError, match="was begun with another") as refusal, open_search(other, out):
            pass
        assert set(names.split(", ")) <= set(str(refusal.value).partition("another ")[2].partition(";")[0].split(", "))
        assert "\n" not in str(refusal.value)
    assert (out / "tune.json").read_bytes() == before
    moved = tmp_path / "moved"
    shutil.copytree(toy_folder, moved)
    with open_search(planned(toy, moved), out) as study:  # the same data in another place
        assert study.counted == 2


def test_a_folder_that_cannot_be_used_is_one_sentence(toy: Dataset, toy_folder: Path, tmp_path: Path) -> None:
    tuning = planned(toy, toy_folder)

    def refused(out: Path, kind: type[Exception], words: str) -> None:
        with pytest.raises(kind, match=words) as refusal, open_search(tuning, out):
            pass
        assert "\n" not in str(refusal.value)

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep")
    refused(tmp_path / "other", RunError, "holds no search of ours")
    refused(tmp_path / "other" / "mine.txt", RunError, "holds no search of ours")
    refused(tmp_path / "other" / "mine.txt" / "deep", RunError, "cannot write")
    assert [entry.name for entry in (tmp_path / "other").iterdir()] == ["mine.txt"]
    (tmp_path / "busy").mkdir()  # by a process that was killed at once
    for name in (".lock", ".tune.json.k3h2"):
        (tmp_path / "busy" / name).write_text("")
    with open_search(tuning, tmp_path / "busy"):
        refused(tmp_path / "busy", RunError, "another process is working in")
    for content in ('{"format": "unseen-bench"}', '{"format": "unseen-tune", "version": 1}', "[]", ""):
        (tmp_path / "busy" / "tune.json").write_text(content)
        refused(tmp_path / "busy", DataError, "busy")


def test_without_optuna_it_says_what_to_install(
    toy: Dataset, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "unseen.experiments.study", raising=False)
    with pytest.raises(MissingDependency, match=r"pip install 'unseen\[tune\]'"):  # noqa: SIM117
        with open_search(planned(toy, toy_folder), tmp_path / "out"):
            pass
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------- the command


def engine_of(work: Work) -> Callable[..., Here]:
    def engine_named(name: str, call: object, out: Path, *_: object) -> Here:
        return Here(work, out)

    return engine_named


def test_the_command_prints_the_best_beside_the_start_and_how_to_use_it(
    toy_folder: Path, tmp_path: Path, at_once: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "engine_named", engine_of(at_once))
    out, kept = tmp_path / "out", tmp_path / "my presets" / "best.json"
    words = ("tune", "tfvaegan", toy_folder, "--trials", 3, "--out", out, "--set", "hidden=8", "--save-preset", kept)
    code, said, told = unseen(*words)
    assert code == 0
    assert kept.read_bytes() == (out / "preset.json").read_bytes()
    assert [line.partition(",")[0] for line in told.splitlines()] == ["1 of 3", "2 of 3", "3 of 3"]
    best = max(c["H"] for c in read_preset(kept).selection.candidates)
    assert f"best so far {100 * best:.1f}" in told.splitlines()[-1]
    [headings] = [line.split() for line in said.splitlines() if "start" in line.split()]
    cells = {line.split("  ")[0]: line.split()[-len(headings) :] for line in said.splitlines() if "  " in line}
    assert headings == ["best", "2.", "3.", "start"]
    figures = cells["H on the folds"]
    assert figures[:3] == sorted(figures[:3], key=float, reverse=True)
    assert figures[0] == f"{100 * best:.1f}"
    assert figures[3] == figures[cells["trial"].index("0")]
    assert cells["lr"][3] == "0.001"
    assert "hidden" not in cells
    [command] = [line.removeprefix("to use it: ") for line in said.splitlines() if line.startswith("to use it: ")]
    wanted = ["unseen", "train", str(toy_folder), "--method", "tfvaegan", "--split", "first", "--preset", str(kept)]
    assert shlex.split(command) == wanted
    assert unseen(*words, "--json")[1:] == (json_of(out, kept, command), "")  # nothing is missing; nothing else is said


def json_of(out: Path, kept: Path, command: str) -> str:
    trials = [c for c in read_preset(out / "preset.json").selection.candidates if "trial" in c]
    best = max(trials, key=lambda trial: trial["H"])
    about = {"method": "tfvaegan", "dataset": "toy", "split": "first", "seed": 0, "preset": str(kept)}
    order = ["trial", *METHODS["tfvaegan"].search, "H"]  # type: ignore[union-attr]
    best, *trials = ({name: trial[name] for name in order} for trial in (best, *trials))
    return json.dumps({**about, "best": best, "start": trials[0], "trials": trials, "command": command}) + "\n"


def test_stopped_by_the_user_it_says_how_to_go_on(
    toy_folder: Path, tmp_path: Path, at_once: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(job: Job, out: Path) -> None:
        raise KeyboardInterrupt

    words = ("tune", "fvaegan", toy_folder, "--trials", 2, "--out", tmp_path / "out")
    monkeypatch.setattr(engines, "engine_named", engine_of(stopped))
    assert unseen(*words) == (
        130,
        "",
        f"stopped; what is done is kept; to go on, type: {shlex.join(['unseen', *map(str, words)])}\n",
    )
    monkeypatch.setattr(engines, "engine_named", engine_of(at_once))
    code, said, _ = unseen(*words, "--json")
    assert code == 0
    assert [trial["trial"] for trial in json.loads(said)["trials"]] == [0, 1]


def test_where_every_trial_failed_it_says_so(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(job: Job, out: Path) -> None:
        write_failure(job, out, "it is nan", Diverged("it is nan"))

    monkeypatch.setattr(engines, "engine_named", engine_of(fails))
    code, said, told = unseen("tune", "tfvaegan", toy_folder, "--trials", 2, "--out", tmp_path / "out")
    assert (code, said) == (1, "")
    assert told.splitlines()[-1] == "error: none of 2 trials succeeded; the first: it is nan"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("alchemy", "DATA"), "there is no method 'alchemy'"),
        (
            ("class-gaussian", "DATA"),
            "'class-gaussian' needs no search: `blind` tries all there is of ridge, shrinkage, scaling",
        ),
        (("tfvaegan", "DATA", "--trials", "0"), "--trials 0 tries nothing; give 1 or more"),
        (("tfvaegan", "DATA", "--split", "third"), "data set 'toy' has no split 'third'"),
        (("tfvaegan", "DATA", "--set", "depth=3"), "there is no setting 'depth'"),
        (("tfvaegan", "DATA", "--set", "gamma=1"), "blind chooses gamma itself; leave it out"),
        (("tfvaegan", "DATA", "--workers", "0"), "--workers and --threads must be 1 or more"),
        (("tfvaegan", "DATA", "--threads", "0"), "--workers and --threads must be 1 or more"),
        (("tfvaegan", "DATA", "--engine", "steam"), "there is no engine 'steam'; there are local, ray"),
        (("tfvaegan",), "Missing argument 'DATASET'."),
    ],
)
def test_what_is_typed_wrongly_is_one_sentence(toy_folder: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    typed_words = [str(toy_folder) if word == "DATA" else word for word in words]
    code, out, told = unseen("tune", *typed_words, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert told.startswith(f"error: {said}")
    assert told.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_killed_with_two_workers_the_command_goes_on(toy_folder: Path, tmp_path: Path) -> None:
    """SIGKILL while trials are under way: their workers go too, and the same command finishes what was begun."""
    settings = [word for name, value in QUICK.items() for word in ("--set", f"{name}={value}")]
    words = ["tune", "tfvaegan", str(toy_folder), "--trials", "3", "--workers", "2", "--out", str(tmp_path / "out"), *settings]
    program = [sys.executable, "-W", "error", "-c", "from unseen.cli import main; main()", *words]
    journal = tmp_path / "out" / "journal.log"

    def told() -> int:
        """Trials of which the journal says what came."""
        lines = journal.read_text().splitlines() if journal.exists() else []
        return sum('"op_code":6' in line and '"state":1' in line for line in lines)

    with subprocess.Popen(program, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while not told() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 1 <= told() < 3
    ended = {entry.name for entry in (tmp_path / "out" / "selections").glob("*/preset.json")}
    assert ended
    said = subprocess.run([*program, "--json"], capture_output=True, text=True, check=True)
    answer = json.loads(said.stdout)
    assert len(answer["trials"]) == 3
    assert told() == 3
    values = [{k: v for k, v in trial.items() if k not in ("trial", "H")} for trial in answer["trials"]]
    assert len({json.dumps(v, sort_keys=True) for v in values}) == 3
    assert len(list((tmp_path / "out" / "selections").iterdir())) == 3  # no trial was begun twice under other values
    assert answer["best"]["H"] == max(trial["H"] for trial in answer["trials"]) >= answer["start"]["H"]
    assert "Traceback" not in said.stderr
