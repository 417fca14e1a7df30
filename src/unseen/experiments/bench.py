"""From jobs to results: who may begin when, and what is told while it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unseen.errors import DataError, RunError
from unseen.experiments.engines import Engine
from unseen.experiments.jobs import Job, failure, write_failure
from unseen.storage import read_json, write_json

FORMAT = "unseen-bench"
VERSION = 1


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
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} already exists and holds no benchmark of ours; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    write_json(marker, {"format": FORMAT, "version": VERSION, "commands": list(dict.fromkeys([*commands, command]))})


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
                    f"{out} already holds a result for '{job}', protocol {job.description['protocol']}, with other settings or "
                    "versions; choose another --out"
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


def work_through(jobs: Sequence[Job], out: Path, engine: Engine) -> Iterator[Ended]:
    """Carry out jobs that are not done yet, each as soon as what it needs is there; yields them as they end.

    A run whose choice failed fails with it. On any interruption the engine is closed, which lets workers save what they have.
    """
    by_id = {job.id: job for job in jobs}
    runs = [job for job in jobs if job.kind == "run" and not job.done(out)]
    needed = [by_id[i] for i in dict.fromkeys(job.needs for job in runs if job.needs) if not by_id[i].done(out)]
    waiting: dict[str, list[Job]] = {job.id: [] for job in needed}
    ready = list(needed)
    for job in runs:
        if job.needs in waiting:
            waiting[job.needs].append(job)
        else:
            ready.append(job)
    at_work = 0
    try:
        while ready or at_work:
            while ready and at_work < engine.slots:
                engine.submit(ready.pop(0))
                at_work += 1
            ended = next_ended(engine, out)
            at_work -= 1
            yield ended
            followers = waiting.pop(ended.job.id, [])
            if ended.sentence is None:
                ready = [*followers, *ready]
            else:
                for follower in followers:
                    write_failure(follower, out, f"choosing its settings failed: {ended.sentence}")
                    yield Ended(follower, f"choosing its settings failed: {ended.sentence}")
    finally:
        engine.close()


def next_ended(engine: Engine, out: Path) -> Ended:
    """Wait for a job to end. A job whose workers were lost has failed, unless its work was done by then."""
    done = engine.next_done()
    if done.job.done(out):
        return Ended(done.job, None)
    if done.lost or failure(done.job, out) is None:
        write_failure(done.job, out, done.lost or "its worker ended without a result")
    return Ended(done.job, failure(done.job, out))
