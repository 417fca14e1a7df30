"""A small world, and an application on a port of its own."""

from __future__ import annotations

import copy
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image, ImageColor

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


class Colours:
    """A picture encoder that one can calculate in one's head: a feature is the mean colour, and then blanks."""

    name = description = fingerprint = "colours"
    dimension, batch_size = 10, 2

    def load(self) -> None:
        pass

    def prepared(self, picture: Any) -> NDArray[np.float32]:
        return np.asarray(picture, np.float32).mean(axis=(0, 1)) / 64

    def pooled(self, stacked: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.pad(stacked, ((0, 0), (0, self.dimension - 3)))


def seeing(classifier: ZeroShotClassifier) -> ZeroShotClassifier:
    """The classifier, with an encoder of pictures."""
    seeing = copy.copy(classifier)
    seeing.image_encoder, seeing.picture_encoder = "colours", Colours
    return seeing


class ColourWords:
    """A text encoder that understands colours: the direction of the mean of those that a text names, and a little more."""

    name = description = fingerprint = "colour words"

    def encode(self, texts: Iterable[str]) -> NDArray[np.float32]:
        rows = []
        for text in texts:
            words = re.findall(r"[a-z]+", text.lower())
            colours = [ImageColor.getrgb(word) for word in words if word in ImageColor.colormap]
            rest = sum(map(ord, "".join(words))) / 1e5
            rows.append([*np.mean(colours or [(128, 128, 128)], axis=0) / 64, rest])
        return np.array([row / np.linalg.norm(row) for row in np.array(rows)], np.float32)


def painter() -> ZeroShotClassifier:
    """A classifier of pictures in one colour, which learns further colours from their names."""
    rng = np.random.default_rng(2)
    seen = ("red", "lime", "blue", "cyan", "magenta", "yellow", "maroon", "teal", "purple", "olive", "salmon", "lightgreen")
    encoder, X, y = Colours(), [], []
    for colour in seen:
        for _ in range(12):
            shade = np.clip(np.array(ImageColor.getrgb(colour)) + rng.normal(0, 12, 3), 0, 255)
            X.append(encoder.pooled(encoder.prepared(np.full((2, 2, 3), shade))[None])[0])
            y.append(f"a {colour} thing")
    model = ZeroShotClassifier("class-gaussian", protocol="fixed", encoder=ColourWords(), threads=1)
    return seeing(model.fit(np.array(X), y, classes={f"a {colour} thing": f"it is {colour}" for colour in seen}))


def picture(
    colour: str | tuple[int, ...] = "orange", form: str = "PNG", size: tuple[int, int] = (8, 6), mode: str = "RGB"
) -> bytes:
    """A file with a picture in one colour."""
    file = BytesIO()
    Image.new(mode, size, colour).save(file, form)
    return file.getvalue()


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
