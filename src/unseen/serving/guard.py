"""What stands before every request: whom it is for, who sends it, how much of it there is, and how long it takes to come.

A server on one's own machine is reached by any page that one's browser shows. Three things keep such a page out. A name that
somebody else's DNS turned to this machine is not answered (`Host`). A page from elsewhere may not send anything (`Origin`,
`Sec-Fetch-Site`), and can read nothing, as no answer allows it to (CORS). And JSON has to be called JSON, which a form cannot.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unseen.serving.limits import Limits

ALWAYS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer that does not set its own."""

LONGEST_LENGTH = 20
"""Digits of a Content-Length; Python reads no number of thousands."""


def reply(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON in ASCII: it holds neither NaN, nor half a character that some class name may have."""
    return Response(json.dumps(content, allow_nan=False).encode(), status, headers, "application/json")


def refusal(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """What every error looks like."""
    return reply({"detail": sentence}, status, headers)


class Guard:
    """The application inside, for requests that may come in.

    Args:
        names: under which the server may be asked for, beside `localhost` and any IP address, which no DNS can turn.
    """

    def __init__(self, app: ASGIApp, limits: Limits, names: Iterable[str]) -> None:
        self._app = app
        self._limits = limits
        self._names = {"localhost", *(name.lower() for name in names)}
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        if refused := self._refused(scope["method"], Headers(scope=scope)):
            await refused(scope, receive, with_headers)
            return
        body = Body(self, receive, self._limits)
        try:
            await self._app(scope, body.receive, with_headers)
        finally:
            self._held -= body.length

    def hold(self, more: int) -> None:
        """Count bytes that are now in memory; HTTPException where they would be too many."""
        if self._held + more > self._limits.held_bytes:
            raise HTTPException(503, "too much is being sent at the moment; try again in a second", {"Retry-After": "1"})
        self._held += more

    def _refused(self, method: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return refusal(
                421,
                f"this server is not asked for as {host[:100]!r}; use its address, localhost, or a name given by --allow-host",
            )
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        foreign = origin is not None and _place(origin) != host.lower()
        if foreign or (method not in ("GET", "HEAD") and site not in ("same-origin", "none")):
            return refusal(403, "a page from elsewhere may not ask this server; open the server's own page")
        length = headers.get("content-length", "0")
        if length.isdecimal() and (len(length) > LONGEST_LENGTH or int(length) > self._limits.body_bytes):
            return refusal(413, _too_large(self._limits))
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._names:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Body:
    """A request's body on its way in: no larger, and no longer on its way, than the limits say."""

    def __init__(self, guard: Guard, receive: Receive, limits: Limits) -> None:
        self.length = 0
        self._guard = guard
        self._receive = receive
        self._limits = limits
        self._until = asyncio.get_running_loop().time() + limits.body_seconds
        self._complete = False

    async def receive(self) -> Message:
        """The next part; HTTPException, which is answered as any other, where it is one too many or too late."""
        if self._complete:  # then only the client's leaving is waited for
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(
                408, f"the request was not complete after {self._limits.body_seconds:g} seconds; send it faster, or less"
            ) from None
        more = len(message.get("body", b""))
        if self.length + more > self._limits.body_bytes:
            raise HTTPException(413, _too_large(self._limits))
        self._guard.hold(more)
        self.length += more
        self._complete = not message.get("more_body", False)
        return message


def _too_large(limits: Limits) -> str:
    return f"the request is larger than {limits.body_bytes} bytes; send less at a time"


def _place(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
