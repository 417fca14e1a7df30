"""The line before the threads: bounded, in time, and empty again afterwards."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest
from small_server import until

from unseen.serving.line import Line, LineFull, TooLate


def test_the_line_is_as_long_as_it_may_be_and_no_longer() -> None:
    async def scene() -> list[int]:
        line, gate = Line("test", threads=2, waiting=3), threading.Event()

        def work(k: int) -> int:
            gate.wait(10)
            return k

        tasks = [asyncio.create_task(line.do(lambda k=k: work(k), 10)) for k in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(LineFull):
            await line.do(lambda: 5, 10)
        gate.set()
        done = await asyncio.gather(*tasks)
        assert await line.do(lambda: 6, 10) == 6, "there is room again"
        line.close()
        return done

    assert asyncio.run(scene()) == [0, 1, 2, 3, 4]


def test_work_that_waits_too_long_is_given_up_and_work_that_runs_keeps_its_place() -> None:
    begun, gate = [], threading.Event()

    async def scene() -> None:
        line = Line("test", threads=1, waiting=1)
        running = asyncio.create_task(line.do(lambda: gate.wait(10), 0.15))
        await asyncio.sleep(0.05)
        with pytest.raises(TooLate):
            await line.do(lambda: begun.append(1), 0.05)
        with pytest.raises(TooLate):
            await running
        assert line._inside == 1, "the thread is at work still"
        gate.set()
        await asyncio.to_thread(until, lambda: line._inside == 0)
        line.close()

    asyncio.run(scene())
    assert begun == []


def test_what_the_work_raises_comes_out_as_it_is() -> None:
    async def scene(error: Exception) -> None:
        line = Line("test", threads=1, waiting=1)

        def work() -> None:
            raise error

        try:
            await line.do(work, 5)
        finally:
            assert line._inside == 0
            line.close()

    for error in (ZeroDivisionError("x"), TimeoutError("the work's own")):
        with pytest.raises(type(error), match=str(error)):
            asyncio.run(scene(error))


def test_work_that_is_given_up_is_let_go_of_before_a_thread_comes_to_it() -> None:
    """It holds the body of a request."""

    class Body:
        pass

    async def scene() -> None:
        line, gate, body = Line("test", threads=1, waiting=1), threading.Event(), Body()
        held = weakref.ref(body)
        running = asyncio.create_task(line.do(lambda: gate.wait(10), 10))
        await asyncio.sleep(0.02)
        with pytest.raises(TooLate):
            await line.do(lambda body=body: body, 0.02)
        del body
        gc.collect()
        assert held() is None
        gate.set()
        assert await running
        line.close()

    asyncio.run(scene())


def test_work_that_ends_at_the_last_moment_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.12 on `asyncio.wait_for` may be too late though the work is done."""

    async def late(future: asyncio.Future[int], _: float) -> None:
        await future
        raise TimeoutError

    async def scene() -> int:
        line = Line("test", threads=1, waiting=1)
        try:
            return await line.do(lambda: 7, 1)
        finally:
            line.close()

    monkeypatch.setattr(asyncio, "wait_for", late)
    assert asyncio.run(scene()) == 7
