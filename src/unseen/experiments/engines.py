"""Who does the work: processes of this machine, or a Ray cluster. Both answer two verbs, `submit` and `next_done`.

An engine knows nothing of benchmarks. What it is given is called once in a process of its own, with files as the only result;
where that process dies, it is called again, which is safe because every job goes on where it was.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from unseen.errors import MissingDependency, RunError, SettingsError, Stopped, UnseenError

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

TRIES = 3
"""How often a job is given to a worker before its death is taken for the job's own fault."""
GRACE_SECONDS = 30.0
"""How long workers that are told to stop may take to save what they have."""
BUSY_CODE = 75
"""Exit code of a process that left its job alone; by custom "try again later"."""
KNOCK_SECONDS = 5.0
"""How long the machine of a Ray cluster may take to answer."""
GPU_SHARE = 0.25
"""Of a GPU, for each job on a Ray cluster that was planned for one: networks over features do not fill a GPU."""
LOOK_SECONDS = 0.5
"""How often files that are not seen yet are looked for."""
SIGHT_SECONDS = 90.0
"""How long another machine's file may take to be seen here: on a shared disk (NFS), what was not there is remembered for up to
a minute."""


class Work(Protocol):
    """All that an engine wants to know of a job."""

    @property
    def description(self) -> Mapping[str, Any]:
        """`device` is what it was planned for."""
        ...


W = TypeVar("W", bound=Work)
Call = Callable[[W, Path], bool]
"""What is done with a job; False where it was left alone, because another process is at it."""


@dataclass(frozen=True)
class Done(Generic[W]):
    """A job that came back.

    Args:
        lost: None, or what became of the workers that it was given to.
        busy: it was left alone, because another process is at it.
    """

    job: W
    lost: str | None = None
    busy: bool = False


class Engine(Protocol[W]):
    """Takes jobs and gives them back done, in any order."""

    @property
    def slots(self) -> int:
        """Jobs that are worth having submitted at a time."""
        ...

    def submit(self, job: W) -> None:
        """Begin a job as soon as a worker is free."""
        ...

    def next_done(self, seconds: float | None = None) -> Done[W] | None:
        """Wait for a job to end, at most so long; None where none has, and it is worth asking again."""
        ...

    def close(self) -> None:
        """Stop what still runs, letting it save what it has."""
        ...


class LocalEngine(Generic[W]):
    """A fresh process for each job, a few at a time.

    The processes fork from a server that has torch loaded and has computed nothing, so they begin at once, and what one job had
    in memory is never counted for another. They go when this process goes, however it ends.

    Args:
        call: importable by name.
        workers: processes at a time.
    """

    def __init__(self, call: Call[W], out: Path, workers: int) -> None:
        self.slots = workers
        self._call, self._out = call, out
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["unseen.experiments.jobs"])
        self._waiting: deque[tuple[W, int]] = deque()
        self._running: dict[int, tuple[ForkServerProcess, W, int]] = {}

    def submit(self, job: W) -> None:
        self._waiting.append((job, 1))
        self._begin()

    def next_done(self, seconds: float | None = None) -> Done[W] | None:
        self._begin()
        ended = wait([process.sentinel for process, _, _ in self._running.values()], seconds)
        for sentinel in [s for s in self._running if s in ended]:
            process, job, tries = self._running.pop(sentinel)
            process.join()
            code = process.exitcode
            process.close()
            if code in (0, BUSY_CODE):
                return Done(job, busy=code == BUSY_CODE)
            if tries == TRIES:
                return Done(job, lost=f"its process died {TRIES} times, the last time with {_cause(code)}")
            self._waiting.append((job, tries + 1))
        return None

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


def _work(call: Call[W], job: W, out: Path) -> None:
    """What a worker process does."""
    threading.Thread(target=_go_with_parent, daemon=True).start()
    try:
        raise SystemExit(0 if call(job, out) else BUSY_CODE)
    except (Stopped, KeyboardInterrupt):
        raise SystemExit(130) from None
    except UnseenError as error:
        raise SystemExit(f"error: {error}") from None


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


class RayEngine(Generic[W]):
    """A Ray cluster: one that runs already, by its address, or one on this machine.

    All its machines must see `out` and the data under the same paths, and have the same versions installed. A fresh process for
    each job, as on one machine. A job that was planned for a GPU asks for a share of one: otherwise Ray would give it to a
    machine that has none, or all jobs to the first of several.

    Args:
        call: importable by name.
        address: of the cluster: HOST:PORT, or `auto` on a machine that belongs to it; None starts one on this machine.
        workers: of a cluster that is started here, jobs at a time; on another one Ray decides.
        threads: CPUs that a job takes.

    Raises:
        MissingDependency: the extra `unseen[ray]` is not installed.
        RunError: there is no cluster at this address.
    """

    def __init__(self, call: Call[W], out: Path, address: str | None, workers: int, threads: int) -> None:
        try:
            import ray
        except ModuleNotFoundError as missing:
            raise MissingDependency(
                "--engine ray needs Ray, which is not installed; run: pip install 'unseen[ray]'"
            ) from missing
        if address is not None:
            _knock(address)
        self._ray: Any = ray
        self._out, self._threads = out.absolute(), threads
        self._running: dict[Any, tuple[W, int]] = {}
        self._noted: set[float] = set()
        own = {"num_cpus": workers * threads, "include_dashboard": False, "object_store_memory": 100 * 2**20}
        with ExitStack() as to_undo:
            # Ray tells of lost workers on standard output, where nothing but results belongs.
            to_undo.enter_context(redirect_stdout(sys.stderr))
            to_undo.callback(ray.shutdown)
            on_sigterm = signal.getsignal(signal.SIGTERM)
            try:
                self._ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if address else own))
            except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
                raise RunError(
                    f"the Ray cluster at {address or 'this machine'} cannot be used ({_line(error)}); check that it runs, that "
                    "this machine belongs to it, and that RAY_AUTH_MODE is here what it is there"
                ) from error
            finally:
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGTERM, on_sigterm)  # Ray would end this process there and then
            self._to_undo = to_undo.pop_all()
        self._remote: Any = ray.remote(max_retries=0, max_calls=1)(call)

    @property
    def slots(self) -> int:
        """Twice what the cluster can do at present: no machine waits for us, and a cluster that can grow is asked to."""
        return max(2, 2 * int(self._ray.cluster_resources().get("CPU", 0) // self._threads))

    def submit(self, job: W) -> None:
        self._begin(job, 1)

    def next_done(self, seconds: float | None = None) -> Done[W] | None:
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        for reference in ended:
            job, tries = self._running.pop(reference)
            try:
                return Done(job, busy=not self._ray.get(reference))
            except self._ray.exceptions.RayTaskError as error:  # raised by the call, which keeps a job's failures to itself
                if not isinstance(error.cause, Stopped):
                    raise RunError(f"a worker cannot work ({_line(error.cause)}); what is done is kept") from None
                how = "it was told to stop"
            except self._ray.exceptions.RayError as error:
                how = _line(error)
            if tries == TRIES:
                return Done(job, lost=f"its worker was lost {TRIES} times; the last time: {how}")
            self._begin(job, tries + 1)
        return None

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=GRACE_SECONDS)
        self._running.clear()
        self._to_undo.close()

    def _begin(self, job: W, tries: int) -> None:
        gpus = GPU_SHARE if job.description["device"] == "cuda" else 0.0
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(m.get("CPU", 0) >= self._threads and m.get("GPU", 0) >= gpus for m in machines) and gpus not in self._noted:
            self._noted.add(gpus)
            needs = f"{self._threads} CPUs{' and a GPU' if gpus else ''}"
            warnings.warn(f"no machine of the Ray cluster has {needs}; such jobs wait until one joins", stacklevel=2)
        remote = self._remote.options(num_cpus=self._threads, num_gpus=gpus)
        self._running[remote.remote(job, self._out)] = job, tries


def _knock(address: str) -> None:
    """Refuse an address where nobody answers, which Ray would try for minutes.

    Raises:
        SettingsError: it is no address.
        RunError: nobody answers.
    """
    address = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise SettingsError(f"--address {address} is neither HOST:PORT nor auto; run this on a machine of the cluster")
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RunError(f"no Ray cluster answers at {address} ({error}); start one by: ray start --head") from error


def _line(error: BaseException) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def engine_named(name: str, call: Call[W], out: Path, workers: int | None, threads: int, address: str | None) -> Engine[W]:
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


def wait_to_see(there: Callable[[], bool]) -> None:
    """Wait until the files of jobs that came back are seen here, too, at most as long as a shared disk may take."""
    patience = time.monotonic() + SIGHT_SECONDS
    while not there() and time.monotonic() < patience:
        time.sleep(LOOK_SECONDS)


def workers_here(threads: int) -> int:
    """As many jobs at a time as this machine's cores allow at `threads` each; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)
