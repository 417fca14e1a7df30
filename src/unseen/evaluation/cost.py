"""What a run costs: seconds by phase and the most memory at once, kept across interruptions."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unseen.errors import DataError
from unseen.storage import read_json, write_json

KEEP_EVERY = 10.0
"""Seconds: while training tells its progress, so much of the count is lost at most when the process is killed. Phases without
progress, as the fitting of classifiers, are lost whole."""


class Meter:
    """Counts seconds by phase; with a file, what earlier processes spent on the same run is counted too.

    Args:
        path: where the count is kept; None keeps none.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._memory = 0
        self._path = path
        self._phase: str | None = None
        self._since = self._kept = time.monotonic()
        if path is not None and path.exists():
            try:
                before = read_json(path)
                self.seconds = {str(phase): float(spent) for phase, spent in before["seconds"].items()}
                self._memory = int(before["peak_memory"])
            except (DataError, KeyError, AttributeError, TypeError, ValueError):
                pass  # a count is not worth a run

    @property
    def peak_memory(self) -> int:
        """Bytes that this process, or an earlier one of the run, had in memory at most; data and libraries included."""
        return max(self._memory, peak_memory())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside to `name`, however it ends."""
        self._phase, self._since = name, time.monotonic()
        try:
            yield
        finally:
            self._count()
            self._phase = None
            self._keep()

    def turn_to(self, name: str) -> None:
        """Inside a phase: count what follows to `name`."""
        self._count()
        self._phase = name

    def tick(self) -> None:
        """Keep the count, now and then: to be called whenever something has been done."""
        if self._phase is not None and time.monotonic() - self._kept > KEEP_EVERY:
            self._count()
            self._keep()

    def _count(self) -> None:
        assert self._phase is not None
        now = time.monotonic()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._since = now

    def _keep(self) -> None:
        self._kept = time.monotonic()
        if self._path is not None:
            write_json(self._path, {"seconds": self.seconds, "peak_memory": self.peak_memory})


def peak_memory() -> int:
    """The most bytes that this process has had in memory."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # macOS counts bytes
