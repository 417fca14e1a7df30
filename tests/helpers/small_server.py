"""A small world, and an application on a port of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from unseen import ZeroShotClassifier
from unseen.serving import Limits, running

TOKEN = "a-token-for-the-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class World:
    """Fourteen classes whose means follow from their embeddings; ten of them have eight rows each, and two are not told yet."""

    def __init__(self, d: int = 10, a: int = 6) -> None:
        rng = np.random.default_rng(0)
        self.names = [f"kind {k:02d}" for k in range(14)]
        self.embeddings = dict(zip(self.names, rng.normal(size=(14, a)), strict=True))
        self.map = rng.normal(size=(a, d))
        self.seen, self.unseen, self.later = self.names[:10], self.names[10:12], self.names[12:]
        self.y = np.repeat(self.seen, 8)
        self.X = self.rows(self.y.tolist(), rng)

    def rows(self, y: list[str], rng: np.random.Generator) -> NDArray[np.float32]:
        means = np.array([self.embeddings[name] for name in y]) @ self.map
        return (means + 0.3 * rng.normal(size=means.shape)).astype(np.float32)

    def fitted(self) -> ZeroShotClassifier:
        told = {name: self.embeddings[name] for name in self.seen + self.unseen}
        return ZeroShotClassifier("class-gaussian", protocol="fixed", threads=1).fit(self.X, self.y, classes=told)


@contextmanager
def run(app: FastAPI, limits: Limits | None = None) -> Iterator[tuple[str, int]]:
    """The application on a free port, in a thread, as `unseen serve` runs it; stopped and waited for at the end."""
    ready = threading.Event()
    servers: list[uvicorn.Server] = []

    class Kept(running.Telling):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            servers.append(self)

    at = running.listening("127.0.0.1", 0)
    place = at.getsockname()[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "Telling", Kept)
        thread = threading.Thread(target=running.serve, args=(app, at, limits or Limits(), ready.set), daemon=True)
        thread.start()
        assert ready.wait(20)
    try:
        yield place
    finally:
        servers[0].should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is so; fail where it is not in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
