"""Which job begins when, and what becomes of the others when one fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from unseen.errors import DataError, RunError
from unseen.experiments.bench import commands_of, open_folder, refuse_other_results, work_through
from unseen.experiments.engines import Done
from unseen.experiments.grid import Grid, expand
from unseen.experiments.jobs import FAILURE, Job, failure, write_failure
from unseen.storage import read_json, write_json

QuickGrid = Callable[..., Grid]


class Pretend:
    """An engine that does nothing but write that a job is done; first come, first served."""

    def __init__(self, out: Path, slots: int = 2, fail: str = "", lose: str = "") -> None:
        self.slots, self.out, self.fail, self.lose = slots, out, fail, lose
        self.begun: list[Job] = []
        self.most = 0
        self.closed = 0
        self._queue: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        self.begun.append(job)
        self._queue.append(job)
        self.most = max(self.most, len(self._queue))

    def next_done(self, seconds: float | None = None) -> Done[Job]:
        job = self._queue.popleft()
        if self.lose and self.lose in str(job):
            return Done(job, "its process died 3 times")
        if self.fail and self.fail in str(job):
            write_failure(job, self.out, "the loss is nan")
            return Done(job)
        (job.folder(self.out) / FAILURE).unlink(missing_ok=True)
        write_json(job.folder(self.out) / {"choose": "preset.json", "run": "result.json"}[job.kind], {})
        write_json(job.folder(self.out) / "task.json", {**job.description, "variant": job.variant})
        return Done(job)

    def close(self) -> None:
        self.closed += 1


def test_runs_wait_for_their_choice_and_follow_it_at_once(quick_grid: QuickGrid, bench_folder: Path) -> None:
    jobs = expand(quick_grid("prototype", "eszsl", splits=("all",), seeds=(0, 1)), "")
    engine = Pretend(bench_folder, slots=2)
    ended = [end.job for end in work_through(jobs, bench_folder, engine)]
    assert sorted(job.id for job in ended) == sorted(job.id for job in engine.begun) == sorted(job.id for job in jobs)
    assert engine.most == 2
    place = {job.id: k for k, job in enumerate(ended)}
    begun = {job.id: k for k, job in enumerate(engine.begun)}
    for job in jobs:
        if job.needs:
            assert begun[job.id] > begun[job.needs]
            assert place[job.id] > place[job.needs]
    assert [job.kind for job in engine.begun[:3]] == ["choose", "choose", "run"]
    assert engine.closed == 1


def test_only_what_is_not_done_is_begun(quick_grid: QuickGrid, bench_folder: Path) -> None:
    first = expand(quick_grid("prototype", seeds=(0,)), "")
    list(work_through(first, bench_folder, Pretend(bench_folder)))
    more = expand(quick_grid("prototype", seeds=(0, 1)), "")
    engine = Pretend(bench_folder)
    assert [end.job.description["seed"] for end in work_through(more, bench_folder, engine)] == [1]
    assert list(work_through(more, bench_folder, Pretend(bench_folder))) == []


def test_a_choice_that_only_finished_runs_need_is_not_made_again(quick_grid: QuickGrid, bench_folder: Path) -> None:
    jobs = expand(quick_grid("prototype"), "")
    list(work_through(jobs, bench_folder, Pretend(bench_folder)))
    (jobs[0].folder(bench_folder) / "preset.json").unlink()
    engine = Pretend(bench_folder)
    assert list(work_through(jobs, bench_folder, engine)) == []
    assert engine.begun == []


@pytest.mark.parametrize("how", ["fail", "lose"])
def test_a_failed_choice_fails_its_runs_and_no_others(quick_grid: QuickGrid, bench_folder: Path, how: str) -> None:
    jobs = expand(quick_grid("prototype", "eszsl", seeds=(0, 1)), "")
    why = {"fail": "the loss is nan", "lose": "its process died 3 times"}[how]
    engine = Pretend(bench_folder, **{how: "prototype, choice"})
    ended = {str(end.job): end.sentence for end in work_through(jobs, bench_folder, engine)}
    follows = f"choosing its settings failed: {why}"
    assert ended == {
        "toy, first, prototype, choice on folds": why,
        "toy, first, prototype, blind, seed 0": follows,
        "toy, first, prototype, blind, seed 1": follows,
        "toy, first, eszsl, choice on folds": None,
        "toy, first, eszsl, blind, seed 0": None,
        "toy, first, eszsl, blind, seed 1": None,
    }
    for job in jobs:
        assert failure(job, bench_folder) == ended[str(job)]
    healed = {str(end.job): end.sentence for end in work_through(jobs, bench_folder, Pretend(bench_folder))}
    assert healed == {name: None for name, sentence in ended.items() if sentence}
    assert all(failure(job, bench_folder) is None for job in jobs)


def test_a_worker_that_dies_after_its_work_was_done_lost_nothing(quick_grid: QuickGrid, bench_folder: Path) -> None:
    [job] = expand(quick_grid("prototype", protocols=("fixed",)), "")

    class Late(Pretend):
        def next_done(self, seconds: float | None = None) -> Done[Job]:
            return Done(super().next_done().job, "its process died 3 times")

    assert [end.sentence for end in work_through([job], bench_folder, Late(bench_folder))] == [None]


def test_a_worker_that_leaves_nothing_is_a_failure(
    quick_grid: QuickGrid, bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unseen.experiments.engines.SIGHT_SECONDS", 0.0)
    [job] = expand(quick_grid("prototype", protocols=("fixed",)), "")

    class Idle(Pretend):
        def next_done(self, seconds: float | None = None) -> Done[Job]:
            return Done(self._queue.popleft())

    [end] = work_through([job], bench_folder, Idle(bench_folder))
    assert end.sentence == "its worker ended without a result"


def test_the_engine_is_closed_when_the_work_is_stopped(quick_grid: QuickGrid, bench_folder: Path) -> None:
    engine = Pretend(bench_folder)
    work = work_through(expand(quick_grid("prototype", seeds=(0, 1)), ""), bench_folder, engine)
    next(work)
    work.close()  # type: ignore[attr-defined]
    assert engine.closed == 1


# --------------------------------------------------------------------------------------------------------------- folder


def test_a_folder_keeps_every_command_once(tmp_path: Path) -> None:
    for command in ("unseen bench a", "unseen bench b", "unseen bench a"):
        open_folder(tmp_path / "out", command)
    assert commands_of(tmp_path / "out") == ["unseen bench a", "unseen bench b"]


def test_a_folder_that_another_command_has_just_made_is_gone_on_with(tmp_path: Path) -> None:
    """As where many commands are begun at once: it holds bench.json under the name it is written under, and nothing else."""
    (tmp_path / ".bench.json.abc123").write_text("{")
    open_folder(tmp_path, "unseen bench a")
    assert commands_of(tmp_path) == ["unseen bench a"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    for path in (tmp_path / "file", tmp_path / "full"):
        with pytest.raises(RunError, match="holds no benchmark of ours"):
            open_folder(path, "")
    write_json(tmp_path / "old" / "bench.json", {"format": "unseen-bench", "version": 0, "commands": []})
    with pytest.raises(DataError, match="not a benchmark of this version"):
        open_folder(tmp_path / "old", "")


def test_a_result_with_other_settings_is_refused_before_anything_is_done(quick_grid: QuickGrid, bench_folder: Path) -> None:
    fixed = quick_grid("tfvaegan", "prototype", protocols=("fixed",), seeds=(0,))
    list(work_through(expand(fixed, ""), bench_folder, Pretend(bench_folder)))
    refuse_other_results(expand(fixed, ""), bench_folder)
    for changes in ({"seeds": (1,)}, {"protocols": ("blind",)}, {"splits": ("second",)}):
        refuse_other_results(expand(quick_grid("prototype", **{"protocols": ("fixed",), **changes}), ""), bench_folder)
    other = quick_grid("tfvaegan", protocols=("fixed",), settings={"tfvaegan": {"hidden": "9", "steps": "12"}})
    with pytest.raises(RunError, match="'toy, first, tfvaegan, fixed, seed 0' with other settings"):
        refuse_other_results(expand(other, ""), bench_folder)


def test_what_failed_says_which_job_it_was(quick_grid: QuickGrid, bench_folder: Path) -> None:
    jobs = expand(quick_grid("prototype"), "")
    write_failure(jobs[1], bench_folder, "a sentence")
    entry = read_json(jobs[1].folder(bench_folder) / FAILURE)
    assert entry == {
        "kind": "run",
        "variant": "",
        "dataset": "toy",
        "split": "first",
        "method": "prototype",
        "protocol": "blind",
        "seed": 0,
        "sentence": "a sentence",
        "error": None,
        "traceback": "",
    }
