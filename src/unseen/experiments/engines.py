"""Who does the work: processes of this machine, or a Ray cluster. Both answer two verbs, `submit` and `next_done`.

An engine knows nothing of benchmarks. What it is given is called once in a process of its own, with files as the only result;
where that process dies, it is called again, which is safe because every job goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unseen.errors import MissingDependency, RunError, SettingsError, Stopped

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from unseen.experiments.jobs import Job

Call = Callable[["Job", Path], None]
TRIES = 3
"""How often a job is given to a worker before its death is taken for the job's own fault."""
GRACE_SECONDS = 30.0
"""How long workers that are told to stop may take to save what they have."""


@dataclass(frozen=True)
class Done:
    """A job that came back.

    Args:
        lost: None, or what became of the workers that it was given to.
    """

    job: Job
    lost: str | None = None


class Engine(Protocol):
    """Takes jobs and gives them back done, in any order."""

    slots: int
    """Jobs that are worth having submitted at a time."""

    def submit(self, job: Job) -> None:
        """Begin a job as soon as a worker is free."""
        ...

    def next_done(self) -> Done:
        """Wait for a job to end."""
        ...

    def close(self) -> None:
        """Stop what still runs, letting it save what it has."""
        ...


class LocalEngine:
    """A fresh process for each job, a few at a time.

    The processes fork from a server that has torch loaded and has computed nothing, so they begin at once, and what one job had
    in memory is never counted for another. They go when this process goes, however it ends.

    Args:
        call: what to do with a job and `out`; importable by name.
        workers: processes at a time.
    """

    def __init__(self, call: Call, out: Path, workers: int) -> None:
        self.slots = workers
        self._call, self._out = call, out
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["unseen.experiments.jobs"])
        self._waiting: deque[tuple[Job, int]] = deque()
        self._running: dict[int, tuple[ForkServerProcess, Job, int]] = {}

    def submit(self, job: Job) -> None:
        self._waiting.append((job, 1))
        self._begin()

    def next_done(self) -> Done:
        while True:
            self._begin()
            ended = wait([process.sentinel for process, _, _ in self._running.values()])
            for sentinel in [s for s in self._running if s in ended]:
                process, job, tries = self._running.pop(sentinel)
                process.join()
                code = process.exitcode
                process.close()
                if code == 0:
                    return Done(job)
                if tries == TRIES:
                    return Done(job, f"its process died {TRIES} times, the last time with {_cause(code)}")
                self._waiting.append((job, tries + 1))

    def close(self) -> None:
        self._waiting.clear()
        for process, _, _ in self._running.values():
            process.terminate()
        patience = time.monotonic() + GRACE_SECONDS
        for process, _, _ in self._running.values():
            process.join(max(0.0, patience - time.monotonic()))
            process.kill()
        self._running.clear()

    def _begin(self) -> None:
        while self._waiting and len(self._running) < self.slots:
            job, tries = self._waiting.popleft()
            process = self._context.Process(target=_work, args=(self._call, job, self._out))
            process.start()
            self._running[process.sentinel] = process, job, tries


def _work(call: Call, job: Job, out: Path) -> None:
    """What a worker process does."""
    threading.Thread(target=_go_with_parent, daemon=True).start()
    try:
        call(job, out)
    except (Stopped, KeyboardInterrupt):
        raise SystemExit(130) from None


def _go_with_parent() -> None:
    """End this process when the one that wanted its work is gone: as by SIGTERM, which saves what is done."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _cause(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "SIGKILL, as where the machine has too little memory; use fewer --workers"
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


class RayEngine:
    """A Ray cluster: one that runs already, by its address, or one on this machine.

    All its machines must see `out` and the data under the same paths, and have the same versions installed. Ray gives a job to
    another worker where the first one, or its machine, is lost.

    Args:
        call: what to do with a job and `out`; importable by name.
        address: of the cluster, for example `auto` or `ray://head:10001`; None starts one on this machine.
        workers: of a cluster that is started here, jobs at a time; on another one Ray decides.
        threads: CPUs that a job takes.

    Raises:
        MissingDependency: the extra `unseen[ray]` is not installed.
        RunError: there is no cluster at this address.
    """

    def __init__(self, call: Call, out: Path, address: str | None, workers: int, threads: int) -> None:
        try:
            import ray
        except ModuleNotFoundError as missing:
            raise MissingDependency(
                "--engine ray needs Ray, which is not installed; run: pip install 'unseen[ray]'"
            ) from missing
        self._ray: Any = ray
        try:
            if address is None:
                ray.init(address="local", num_cpus=workers * threads, include_dashboard=False, log_to_driver=False)
            else:
                ray.init(address=address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise RunError(f"there is no Ray cluster at {address} ({error}); start one by `ray start --head`") from error
        self.slots = 10_000  # Ray queues better than we would
        self._out = out.resolve()
        # max_calls=1: a fresh process for each job, as on one machine.
        self._remote: Any = ray.remote(num_cpus=threads, max_retries=TRIES - 1, max_calls=1)(call)
        self._running: dict[Any, Job] = {}

    def submit(self, job: Job) -> None:
        self._running[self._remote.remote(job, self._out)] = job

    def next_done(self) -> Done:
        [reference], _ = self._ray.wait(list(self._running), num_returns=1)
        job = self._running.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            return Done(job, f"its worker failed: {str(error.cause).splitlines()[0]}")
        except self._ray.exceptions.RayError as error:
            return Done(job, f"its workers were lost {TRIES} times ({type(error).__name__})")
        return Done(job)

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=GRACE_SECONDS)
        self._running.clear()
        self._ray.shutdown()


def engine_named(name: str, call: Call, out: Path, workers: int | None, threads: int, address: str | None) -> Engine:
    """The engine that a user asked for.

    Args:
        workers: jobs at a time; None takes as many as this machine's cores allow at `threads` each.

    Raises SettingsError where there is no such engine or a number cannot work.
    """
    if (workers is not None and workers < 1) or threads < 1:
        raise SettingsError("--workers and --threads must be 1 or more")
    workers = workers or workers_here(threads)
    if name == "local":
        if address is not None:
            raise SettingsError("--address is for --engine ray; leave it out")
        return LocalEngine(call, out, workers)
    if name == "ray":
        return RayEngine(call, out, address, workers, threads)
    raise SettingsError(f"there is no engine '{name}'; there are local, ray")


def workers_here(threads: int) -> int:
    """As many jobs at a time as this machine's cores allow at `threads` each; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)
