"""Whoever does the work, in whatever order, and whatever dies meanwhile: the rows are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE, Rows, holder, killing, rows_in, trains, until

from unseen import runs
from unseen.errors import MissingDependency, SettingsError
from unseen.experiments import bench
from unseen.experiments.bench import Ended, open_folder, work_through
from unseen.experiments.engines import TRIES, Done, LocalEngine, engine_named
from unseen.experiments.grid import Grid, expand, read_grid
from unseen.experiments.jobs import Job, carry_out, failure
from unseen.runs import in_use, locked
from unseen.storage import read_json

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and locks are POSIX")

QuickGrid = Callable[..., Grid]

GRID = """
methods = ["tfvaegan", "prototype"]
datasets = [{toy!r}]
protocols = ["fixed"]
[settings.tfvaegan]
hidden = 8
latent = 4
steps = {steps}
classifier_epochs = 2
"""


@pytest.fixture(scope="module")
def grid_file(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generative method that trains for some seconds, and a closed-form one."""
    path = tmp_path_factory.mktemp("grid") / "grid.toml"
    path.write_text(GRID.format(toy=str(toy_folder), steps=400))
    return path


@pytest.fixture(scope="module")
def jobs(grid_file: Path, toy_folder: Path) -> tuple[Job, ...]:
    """Those of the grid, and a choice with a run that needs it."""
    return expand(read_grid(grid_file), "") + expand(Grid(("prototype",), (str(toy_folder),)), "")


@pytest.fixture(scope="module")
def expected(jobs: tuple[Job, ...], tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Rows of jobs that were done here, one after the other."""
    out = tmp_path_factory.mktemp("plain") / "bench"
    open_folder(out, "")
    assert all(carry_out(job, out) for job in jobs)
    return rows_in(out, jobs)


def work(jobs: tuple[Job, ...], out: Path, workers: int) -> dict[str, str | None]:
    """Work through jobs with processes; what each came to."""
    open_folder(out, "")
    ends = list(work_through(jobs, out, LocalEngine(carry_out, out, workers)))
    assert len({end.job.id for end in ends}) == len(ends)
    return {end.job.id: end.sentence for end in ends}


# ----------------------------------------------------------------------------------------------------- processes of ours


def test_rows_do_not_depend_on_workers_order_or_a_worker_that_was_killed(
    jobs: tuple[Job, ...], expected: Rows, tmp_path: Path
) -> None:
    long = jobs[0]
    with killing(long.folder(tmp_path / "one"), 1) as killed:
        assert set(work(jobs, tmp_path / "one", 1).values()) == {None}
    assert len(killed) == 1
    assert rows_in(tmp_path / "one", jobs) == expected
    assert set(work(jobs[::-1], tmp_path / "two", 2).values()) == {None}
    assert rows_in(tmp_path / "two", jobs) == expected


def test_a_job_that_kills_every_worker_fails_alone(toy_folder: Path, jobs: tuple[Job, ...], tmp_path: Path) -> None:
    """And with it the runs that need it; no other."""
    settings = {"tfvaegan": {"hidden": "8", "steps": "10000000"}}
    choice, run = expand(Grid(("tfvaegan",), (str(toy_folder),), settings=settings), "")
    with killing(choice.folder(tmp_path / "bench"), TRIES) as killed:
        ends = work((choice, run, *jobs[1:]), tmp_path / "bench", 2)
    assert len(killed) == TRIES
    lost = ends.pop(choice.id)
    assert lost is not None
    assert lost.startswith(f"its process died {TRIES} times, the last time with SIGKILL")
    assert ends.pop(run.id) == f"choosing its settings failed: {lost}"
    assert failure(choice, tmp_path / "bench") == lost
    assert failure(run, tmp_path / "bench") == f"choosing its settings failed: {lost}"
    assert ends == {job.id: None for job in jobs[1:]}


def test_peak_memory_is_that_of_the_job_alone(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    """Not of what this process, or a job before it, once had."""
    much = bytearray(2**30)
    much[:: 2**12] = b"x" * len(much[:: 2**12])
    work(jobs[1:2], tmp_path / "bench", 1)
    assert 2**26 < read_json(jobs[1].folder(tmp_path / "bench") / "result.json")["peak_memory"] < len(much)


# ------------------------------------------------------------------------------------------------------- a real command


def command(grid_file: Path, out: Path) -> subprocess.Popen[str]:
    """`unseen bench`, as from a shell: its own process group, which Ctrl-C reaches as a whole."""
    words = [Path(sys.executable).with_name("unseen"), "bench", grid_file, "--out", out, "--workers", "2"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_ctrl_c_saves_and_two_commands_at_once_go_on_from_there(
    grid_file: Path, jobs: tuple[Job, ...], expected: Rows, tmp_path: Path
) -> None:
    out, long, own = tmp_path / "bench", jobs[0], jobs[:2]
    with command(grid_file, out) as first:
        until(lambda: trains(long.folder(out)))
        os.killpg(first.pid, signal.SIGINT)
        said = first.communicate(timeout=PATIENCE)[1]
    assert first.returncode == 130
    assert "Traceback" not in said
    assert "what is done is kept; to go on, type: unseen bench" in said.splitlines()[-1]
    assert (long.folder(out) / "checkpoint.safetensors").exists()
    assert not long.done(out)
    assert not in_use(long.folder(out))
    with command(grid_file, out) as second:
        assert set(work(own, out, 1).values()) <= {None}
        assert second.wait(PATIENCE) == 0
    assert rows_in(out, own) == {job.id: expected[job.id] for job in own}


def test_when_the_command_is_killed_its_workers_save_and_go(
    grid_file: Path, jobs: tuple[Job, ...], expected: Rows, tmp_path: Path
) -> None:
    out, long, own = tmp_path / "bench", jobs[0], jobs[:2]
    with command(grid_file, out) as first:
        until(lambda: trains(long.folder(out)))
        worker = holder(long.folder(out))
        assert worker is not None
        first.kill()
    until(lambda: not Path(f"/proc/{worker}").exists())
    until(lambda: not in_use(long.folder(out)))
    assert (long.folder(out) / "checkpoint.safetensors").exists()
    assert not long.done(out)
    assert work(own, out, 2)[long.id] is None
    assert rows_in(out, own) == {job.id: expected[job.id] for job in own}


# ---------------------------------------------------------------------------------------------------- who does what when


class Here:
    """An engine that does a job when it is submitted, in this very process, and remembers which."""

    slots = 1

    def __init__(self, out: Path, before: Callable[[Job], None] = lambda job: None) -> None:
        self.begun: list[Job] = []
        self.closed = False
        self._out, self._before = out, before

    def submit(self, job: Job) -> None:
        self._before(job)
        self._busy = not carry_out(job, self._out)
        self.begun.append(job)

    def next_done(self, seconds: float | None = None) -> Done[Job]:
        return Done(self.begun[-1], busy=self._busy)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def many(quick_grid: QuickGrid) -> tuple[Job, ...]:
    """Six quick runs that need nothing."""
    return expand(quick_grid("prototype", protocols=("fixed",), seeds=tuple(range(6))), "")


def test_a_job_that_another_process_is_at_is_left_for_later(
    many: tuple[Job, ...], bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "BUSY_SECONDS", 0.001)
    folder = many[0].folder(bench_folder)
    folder.mkdir(parents=True)
    engine = Here(bench_folder)
    with locked(folder):
        ending = work_through(many, bench_folder, engine)
        assert [next(ending).job for _ in many[1:]] == list(many[1:])
    assert list(ending) == [Ended(many[0], None)]
    assert engine.begun == [*many[1:], many[0]]
    assert engine.closed


def test_a_job_that_another_process_begins_at_the_same_moment_is_left_for_later(
    many: tuple[Job, ...], bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock was free when it was looked at, and is held when the worker wants it."""
    monkeypatch.setattr(bench, "BUSY_SECONDS", 0.001)
    lock = locked(many[0].folder(bench_folder))
    many[0].folder(bench_folder).mkdir(parents=True)

    def before(job: Job) -> None:
        if job == many[0] and job not in engine.begun:
            lock.__enter__()
        if job == many[3]:
            lock.__exit__(None, None, None)

    engine = Here(bench_folder, before)
    ends = list(work_through(many, bench_folder, engine))
    assert engine.begun == [many[0], *many[1:], many[0]]
    assert [end.job for end in ends] == [*many[1:], many[0]]
    assert {end.sentence for end in ends} == {None}


def test_a_folder_that_another_process_fills_at_this_moment_is_no_strangers(
    many: tuple[Job, ...], bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has written task.json and more since the folder was looked at first."""
    job, folder, is_ours = many[0], many[0].folder(bench_folder), runs._ours
    assert carry_out(job, bench_folder)
    for entry in folder.iterdir():
        entry.rename(bench_folder / entry.name)

    def while_looking(entry: Path) -> bool:
        if entry.name == "history.jsonl":
            (bench_folder / "task.json").rename(folder / "task.json")
        return is_ours(entry)

    (folder / "history.jsonl").touch()
    monkeypatch.setattr(runs, "_ours", while_looking)
    assert carry_out(job, bench_folder)
    assert failure(job, bench_folder) is None


def test_what_another_process_did_meanwhile_is_told_and_not_begun(many: tuple[Job, ...], bench_folder: Path) -> None:
    """Done or failed; but what had failed before is tried again."""
    broken = replace(many[4], description={**many[4].description, "features_hash": "other"})
    failed_before = replace(many[5], description={**many[5].description, "labels_hash": "other"})
    carry_out(failed_before, bench_folder)
    several = (*many[:4], broken, failed_before)

    def before(job: Job) -> None:
        if job == many[0]:
            assert carry_out(many[2], bench_folder)
            carry_out(broken, bench_folder)

    engine = Here(bench_folder, before)
    ends = {end.job.id: end.sentence for end in work_through(several, bench_folder, engine)}
    assert engine.begun == [many[0], many[1], many[3], failed_before]
    assert [ends[job.id] for job in many[:4]] == [None] * 4
    assert "has changed" in str(ends[broken.id])
    assert "has changed" in str(ends[failed_before.id])


def test_two_that_work_at_once_do_each_job_once(
    many: tuple[Job, ...], bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Path] = []
    carry_out_inside = runs._carry_out

    def counted(task: Any, folder: Path, *rest: Any) -> Any:
        done.append(folder)
        return carry_out_inside(task, folder, *rest)

    monkeypatch.setattr(runs, "_carry_out", counted)
    monkeypatch.setattr(bench, "BUSY_SECONDS", 0.001)
    told: list[list[Ended]] = [[], []]
    begin = threading.Barrier(2)

    def take_part(number: int) -> None:
        begin.wait()
        told[number] = list(work_through(many, bench_folder, Here(bench_folder)))

    threads = [threading.Thread(target=take_part, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(job.folder(bench_folder) for job in many)
    for ends in told:
        assert {end.job.id: end.sentence for end in ends} == {job.id: None for job in many}


def test_a_result_that_is_seen_late_is_waited_for(
    many: tuple[Job, ...], bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a shared disk, where another machine's file may not be seen at once."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        carry_out(many[0], bench_folder)

    class Elsewhere(Here):
        def submit(self, job: Job) -> None:
            self._busy = False
            self.begun.append(job)

    monkeypatch.setattr(bench.time, "sleep", sleep)
    assert list(work_through(many[:1], bench_folder, Elsewhere(bench_folder))) == [Ended(many[0], None)]
    assert len(slept) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("local", 0, 1, None), "must be 1 or more"),
        (("local", 1, 0, None), "must be 1 or more"),
        (("local", 1, 1, "auto"), "leave it out"),
        (("dask", 1, 1, None), "there are local, ray"),
    ],
)
def test_an_engine_that_cannot_be_is_one_sentence(words: tuple[str, int, int, str | None], sentence: str) -> None:
    name, workers, threads, address = words
    with pytest.raises(SettingsError, match=sentence):
        engine_named(name, carry_out, Path(), workers, threads, address)


def test_without_the_extra_ray_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"run: pip install 'unseen\[ray\]'"):
        engine_named("ray", carry_out, Path(), 1, 1, None)


def test_as_many_processes_as_the_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert engine_named("local", carry_out, Path(), None, 4, None).slots == 1
    assert engine_named("local", carry_out, Path(), None, 2, None).slots == 3
    assert engine_named("local", carry_out, Path(), None, 8, None).slots == 1
    assert engine_named("local", carry_out, Path(), 5, 2, None).slots == 5
