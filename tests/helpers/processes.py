"""What tests of workers do with them: wait, look who works, kill; and compare what came out."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from unseen.experiments.jobs import Job
from unseen.storage import read_json

T = TypeVar("T")
Rows = dict[str, dict[str, Any]]
PATIENCE = 120.0
"""Seconds within which something must have happened, on a machine that does much else."""
LOOK_SECONDS = 0.02


def rows_in(out: Path, jobs: tuple[Job, ...]) -> Rows:
    """Result rows by id, without what is measured."""
    rows = {job.id: read_json(job.folder(out) / "result.json") for job in jobs if job.kind == "run"}
    return {i: {k: v for k, v in row.items() if not k.startswith(("seconds", "peak_memory"))} for i, row in rows.items()}


def until(fact: Callable[[], T]) -> T:
    """Wait for something to be true; what it is."""
    patience = time.monotonic() + PATIENCE
    while not (found := fact()):
        assert time.monotonic() < patience, "nothing happened"
        time.sleep(LOOK_SECONDS)
    return found


def holder(folder: Path) -> int | None:
    """The process, another one than this, that works in a benchmark's folder: it has locked it."""
    try:
        inode = (folder / ".lock").stat().st_ino
    except FileNotFoundError:
        return None
    for line in Path("/proc/locks").read_text().splitlines():
        _, kind, _, _, pid, file, *_ = line.split()
        if kind == "FLOCK" and file.endswith(f":{inode}") and int(pid) != os.getpid():
            return int(pid)
    return None


def trains(folder: Path) -> bool:
    """Whether steps were taken in a run's folder."""
    history = folder / "history.jsonl"
    return history.exists() and history.stat().st_size > 0


@contextmanager
def killing(folder: Path, times: int) -> Iterator[list[int]]:
    """Kill whoever works in a folder, so many times; gives the processes that were killed."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while len(killed) < times and not over.is_set():
            if (pid := holder(folder)) and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(LOOK_SECONDS)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield killed
    finally:
        over.set()
        watcher.join()
