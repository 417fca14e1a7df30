"""How much a stranger may ask of a server."""

from __future__ import annotations

from dataclasses import dataclass

from unseen.errors import SettingsError

SHORTEST_TOKEN = 16
"""Characters; what is shorter can be guessed."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a server. What goes beyond them is refused in one sentence.

    Args:
        body_bytes: of one request, whether or not it says its length.
        held_bytes: of the bodies of all requests together.
        rows: of features in a request; pictures: in a request.
        pixels: of a picture, as its header says, before it is decoded.
        name, description: characters of a new class's.
        classes: that the model may have after an addition.
        threads: that predict; waiting: requests in line before them.
        changes: additions and removals in line; they happen one after the other.
        connections: at a time.
        head_seconds: from a connection, or the last answer on it, until the head of a request is complete.
        body_seconds: until a body is complete.
        predict_seconds: from the body until the answer, waiting in line included.
        answer_seconds: from when an answer is ready until its client has taken it.
        stop_seconds: that running requests have to be finished when the server is told to stop.
    """

    body_bytes: int = 16 * 2**20
    held_bytes: int = 256 * 2**20
    rows: int = 4096
    pictures: int = 32
    pixels: int = 50_000_000
    name: int = 200
    description: int = 4000
    classes: int = 10_000
    threads: int = 2
    waiting: int = 128
    changes: int = 8
    connections: int = 1000
    head_seconds: float = 15.0
    body_seconds: float = 30.0
    predict_seconds: float = 30.0
    answer_seconds: float = 30.0
    stop_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise SettingsError(f"the limit {name} is {value}; give more than 0")
