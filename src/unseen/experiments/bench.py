"""From jobs to results: who may begin when, and what is told while it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unseen.errors import DataError, RunError
from unseen.experiments.engines import Done, Engine, wait_to_see
from unseen.experiments.jobs import FAILURE, Job, failure, write_failure
from unseen.runs import in_use
from unseen.storage import read_json, write_json

FORMAT = "unseen-bench"
VERSION = 1
BUSY_SECONDS = 0.5
"""How often jobs that other processes are at are looked at."""


@dataclass(frozen=True)
class Ended:
    """A job that came to its end.

    Args:
        sentence: None, or why it failed.
    """

    job: Job
    sentence: str | None


def open_folder(out: Path, command: str) -> None:
    """Make `out` a benchmark's folder, or go on with the one that it is, and note the command.

    Raises:
        RunError: it holds something else, or cannot be written.
    """
    marker = out / "bench.json"
    commands: list[str] = []
    if marker.exists():
        commands = commands_of(out)
    elif out.exists() and (not out.is_dir() or any(not _marker(entry) for entry in out.iterdir())):
        raise RunError(f"{out} already exists and holds no benchmark of ours; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    write_json(marker, {"format": FORMAT, "version": VERSION, "commands": list(dict.fromkeys([*commands, command]))})


def _marker(entry: Path) -> bool:
    """Whether it is bench.json, perhaps under the name it has while another process writes it at this moment."""
    return entry.name.removeprefix(".").startswith("bench.json")


def refuse_other_results(jobs: Sequence[Job], out: Path) -> None:
    """Check, before anything is done, that no result in `out` is one of these runs with other settings or versions: a table
    could not tell the two apart.

    Raises RunError, naming the first such result.
    """
    ours = {job.id for job in jobs}
    planned = {_place(job.description, job.variant): job for job in jobs if job.kind == "run"}
    for path in sorted((out / "tasks").glob("*/result.json")):
        if path.parent.name not in ours:
            task = read_json(path.parent / "task.json")
            job = planned.get(_place(task, task.get("variant", "")))
            if job is not None:
                raise RunError(
                    f"{out} already holds a result for '{job}' with other settings or versions; choose another --out"
                )


def _place(task: Mapping[str, Any], variant: str) -> tuple[Any, ...]:
    keys = ("method", "protocol", "seed", "split_hash", "features_hash", "embeddings_hash", "labels_hash")
    return *(task.get(key) for key in keys), variant


def commands_of(out: Path) -> list[str]:
    """What was typed to make this benchmark.

    Raises DataError when the folder is no benchmark of ours.
    """
    entry = read_json(out / "bench.json")
    commands = entry.get("commands")
    if entry.get("format") != FORMAT or entry.get("version") != VERSION or not isinstance(commands, list):
        raise DataError(f"{out} is not a benchmark of this version of unseen; give a folder that `unseen bench` wrote")
    return [str(command) for command in commands]


def work_through(jobs: Sequence[Job], out: Path, engine: Engine[Job]) -> Iterator[Ended]:
    """Carry out jobs that are not done yet, each as soon as what it needs is there; yields them as they end.

    Several processes that do this with the same `out`, on one machine or on many, share the work: each takes what no other is
    at. A run whose choice failed fails with it; what failed before is tried again. On any interruption the engine is closed,
    which lets workers save what they have.
    """
    by_id = {job.id: job for job in jobs}
    runs = [job for job in jobs if job.kind == "run" and not job.done(out)]
    ready = [by_id[i] for i in dict.fromkeys(job.needs for job in runs if job.needs) if not by_id[i].done(out)]
    waiting: dict[str, list[Job]] = {job.id: [] for job in ready}
    for job in runs:
        (waiting[job.needs] if job.needs and job.needs in waiting else ready).append(job)
    failed_before = {job.id for job in (*ready, *runs) if failure(job, out)}
    at_work = 0

    def settled(ended: Ended) -> Iterator[Ended]:
        yield ended
        followers = waiting.pop(ended.job.id, [])
        if ended.sentence is None:
            ready[:0] = followers
            return
        for follower in followers:
            because = f"choosing its settings failed: {ended.sentence}"
            write_failure(follower, out, because)
            yield Ended(follower, because)

    try:
        while ready or at_work:
            slots = engine.slots
            for job in list(ready):
                if at_work >= slots:
                    break
                elsewhere = job.done(out) or (job.id not in failed_before and failure(job, out) is not None)
                if not elsewhere and in_use(job.folder(out)):
                    continue
                ready.remove(job)
                if elsewhere:
                    yield from settled(Ended(job, failure(job, out)))
                else:
                    (job.folder(out) / FAILURE).unlink(missing_ok=True)
                    engine.submit(job)
                    at_work += 1
            if not at_work:
                time.sleep(BUSY_SECONDS if ready else 0.0)
                continue
            done = engine.next_done(BUSY_SECONDS if ready else None)
            if done is not None:
                at_work -= 1
                if done.busy:
                    ready.append(done.job)
                else:
                    yield from settled(_ended(done, out))
    finally:
        engine.close()


def next_ended(engine: Engine[Job], out: Path) -> Ended:
    """Wait for a job to end. One that another process is at, such as a worker that was taken for lost, is submitted again."""
    while (done := engine.next_done()) is None or done.busy:
        if done is not None:
            time.sleep(BUSY_SECONDS)
            engine.submit(done.job)
    return _ended(done, out)


def _ended(done: Done[Job], out: Path) -> Ended:
    """What became of a job. One whose workers were lost has failed, unless its work was done by then."""
    job = done.job
    wait_to_see(lambda: bool(job.done(out) or done.lost or failure(job, out)))
    if not job.done(out) and (done.lost or failure(job, out) is None):
        write_failure(job, out, done.lost or "its worker ended without a result")
    return Ended(job, failure(job, out))
