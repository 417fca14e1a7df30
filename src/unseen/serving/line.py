"""Work in a few threads, with a line of bounded length before them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class LineFull(Exception):
    """As many wait as may."""


class TooLate(Exception):
    """The work was not done in time. What had begun goes on to its end, and its result is dropped."""


class Line:
    """A pool of threads that takes a bounded number of pieces of work.

    Args:
        name: of the threads.
        threads: that work.
        waiting: pieces of work that may wait for one.
    """

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most = threads + waiting
        self._inside = 0
        self._counting = threading.Lock()

    async def do(self, work: Callable[[], T], seconds: float | None) -> T:
        """The result of the work, or what it raised.

        Raises:
            LineFull: at once, instead of waiting.
            TooLate: after so many seconds. Work that had not begun is given up.
        """
        with self._counting:
            if self._inside >= self._most:
                raise LineFull
            self._inside += 1
        held = [work]  # the pool keeps what it was given, also what was given up, until a thread comes to it
        future = self._pool.submit(lambda: held.pop()())
        future.add_done_callback(self._leave)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError as error:
            if future.done() and not future.cancelled():
                return future.result()  # it was done at the last moment, or the error is its own
            raise TooLate from error
        finally:
            held.clear()

    def close(self) -> None:
        """Take no more work; what waits is given up."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _leave(self, _: Future[Any]) -> None:
        with self._counting:
            self._inside -= 1
