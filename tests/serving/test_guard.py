"""Whom a server answers: not a name turned to it by somebody else's DNS, not another page, not a flood."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from small_server import BEARER, World
from starlette.testclient import TestClient

from unseen.serving import Limits

Served = Callable[..., TestClient]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "192.0.2.7", "birds.example:80"]
)
def test_a_server_answers_to_addresses_to_localhost_and_to_names_it_was_given(host: str, served: Served) -> None:
    client = served(names=["Birds.Example"])
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "localhost@evil.example", "[", "evil:x", "a b"],
)
def test_a_server_answers_to_no_other_name(host: str, served: Served) -> None:
    client = served(names=["birds.example"])
    for method, path in (("GET", "/"), ("GET", "/classes"), ("POST", "/predict"), ("DELETE", "/classes/a")):
        reply = client.request(method, path, headers={"Host": host, **BEARER})
        assert reply.status_code == 421
        assert "is not asked for as" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8000"}, 200),
        ({"Origin": "https://localhost:8000"}, 200),  # a proxy speaks TLS
        ({"Origin": "http://localhost"}, 403),
        ({"Origin": "http://localhost:8001"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://localhost:8000.evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_another_page_may_send_nothing(headers: dict[str, str], status: int, served: Served, world: World) -> None:
    rows = {"features": world.X[:1].tolist()}
    reply = served().post("/predict", json=rows, headers={"Host": "localhost:8000", **headers})
    assert reply.status_code == status
    assert not any(name.lower().startswith("access-control") for name in reply.headers)


def test_a_link_from_elsewhere_opens_the_page(served: Served) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert served().get("/", headers=headers).status_code == 200


def test_a_preflight_is_granted_nothing(served: Served) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    reply = served().options("/predict", headers=headers)
    assert reply.status_code == 403
    assert not any(name.lower().startswith("access-control") for name in reply.headers)


@pytest.mark.parametrize("path", ["/", "/healthz", "/nothing"])
def test_every_answer_is_kept_from_other_pages_and_from_caches(path: str, served: Served) -> None:
    headers = served().get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_a_body_is_as_large_as_it_may_be_and_no_larger(served: Served, world: World) -> None:
    """Whether its length is said, or shows only as it comes."""
    client = served(limits=Limits(body_bytes=1000))
    headers = {"Content-Type": "application/json"}
    small = b'{"features": [[0,0,0,0,0,0,0,0,0,0]]}'.ljust(1000)

    def parts(body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    assert client.post("/predict", content=small, headers=headers).status_code == 200
    assert client.post("/predict", content=parts(small), headers=headers).status_code == 200
    for body in (small + b" ", parts(small + b" ")):
        refused = client.post("/predict", content=body, headers=headers)
        assert refused.status_code == 413
        assert refused.json() == {"detail": "the request is larger than 1000 bytes; send less at a time"}


def test_all_bodies_together_take_no_more_memory_than_they_may(served: Served) -> None:
    """And what was held is given back: the second request finds as much room as the first."""
    client = served(limits=Limits(held_bytes=500))
    headers = {"Content-Type": "application/json"}
    body = b'{"features": [[0,0,0,0,0,0,0,0,0,0]]}'
    for _ in range(3):
        assert client.post("/predict", content=body.ljust(500), headers=headers).status_code == 200
        refused = client.post("/predict", content=body.ljust(501), headers=headers)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"


def test_a_length_of_thousands_of_digits_is_too_large(served: Served) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": "9" * 5000}
    assert served().post("/predict", content=b"{}", headers=headers).status_code == 413
