"""Run the application by uvicorn, until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from unseen.errors import SettingsError
from unseen.serving.limits import Limits


def serve(app: FastAPI, at: socket.socket, limits: Limits, ready: Callable[[], None] = lambda: None) -> None:
    """Answer until SIGTERM or Ctrl-C; then take no more requests, and finish those that are running.

    Args:
        at: where to listen, from `listening`; it is closed at the end.
        ready: called when the server answers.
    """
    config = uvicorn.Config(
        app,
        http=protocol(limits),
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=max(1, round(limits.stop_seconds)),
    )
    with suppress(KeyboardInterrupt):  # uvicorn repeats the signal when it is done
        Telling(config, ready).run(sockets=[at])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at this address; SettingsError where it cannot."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, UnicodeError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise SettingsError(f"port {port} of {host} is taken; choose another by --port, or 0 for any free one") from error
        cause = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"cannot listen at port {port} of {host} ({cause}); choose others by --host and --port") from error


class Telling(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        await super().startup(sockets)
        self._ready()


def protocol(limits: Limits) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with what it lacks: bounds on connections, on how long the head of a request may take, and
    on how long a client may take to read an answer, which is in memory until then."""

    class Bounded(H11Protocol):
        late: asyncio.TimerHandle | None = None
        unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                sentence = "there are too many connections; try again in a second"
                transport.write(_whole("503 Service Unavailable", sentence, "retry-after: 1\r\n"))
                transport.close()
                return
            self._await_request()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            if self.unread is not None:
                self.unread.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._await_reader()
            if self.cycle is None or self.cycle.response_complete:
                self._await_request()

        def send_400_response(self, msg: str) -> None:
            self.transport.write(_whole("400 Bad Request", "this is not HTTP; check what is sent here"))
            self.transport.close()

        def _await_reader(self) -> None:
            """From now on, what is written may take so long to be read. uvicorn writes no next answer before most of it is."""
            if self.unread is not None:
                self.unread.cancel()
                self.unread = None
            if self.transport.get_write_buffer_size():
                self.unread = self.loop.call_later(limits.answer_seconds, self._drop)

        def _drop(self) -> None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()

        def _await_request(self) -> None:
            """From now on, the rest of the last request and the head of the next may take so long."""
            self._stop_waiting()
            self.late = self.loop.call_later(limits.head_seconds, self._give_up)

        def _stop_waiting(self) -> None:
            if self.late is not None:
                self.late.cancel()
                self.late = None

        def _give_up(self) -> None:
            if self.conn.our_state is h11.IDLE:
                self.transport.write(_whole("408 Request Timeout", "no request came in time; send it faster"))
            self.transport.close()

    return Bounded


def _whole(status: str, sentence: str, more: str = "") -> bytes:
    """An answer for whom no application was asked; `more` are lines of its head."""
    body = json.dumps({"detail": sentence}).encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{more}\r\n"
    )
    return head.encode() + body


def address(at: socket.socket) -> str:
    """Where a listening socket can be reached, as a browser wants it."""
    name: tuple[Any, ...] = at.getsockname()
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(name[0], f"[{name[0]}]" if ":" in name[0] else name[0])
    return f"http://{host}:{name[1]}/"
