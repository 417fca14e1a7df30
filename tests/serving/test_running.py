"""The running server: slow and broken clients, a full line, stopping, the address, the command."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_server import BEARER, TOKEN, World, run, until

from unseen import ZeroShotClassifier, cli
from unseen.serving import Limits, create_app
from unseen.serving.running import address, listening
from unseen.serving.served import Snapshot

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def body_of(world: World, rows: int = 1) -> bytes:
    return json.dumps({"features": world.X[:rows].tolist()}).encode()


def talk(place: tuple[str, int], *parts: bytes | float) -> tuple[int, dict[str, Any], float]:
    """Send bytes, and wait so many seconds in between; status, JSON and seconds until the server closed the connection."""
    begun = time.monotonic()
    with socket.create_connection(place, timeout=20) as connection:
        for part in parts:
            if isinstance(part, bytes):
                connection.sendall(part)
            else:
                time.sleep(part)
        answer = b""
        while more := connection.recv(65_536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body), time.monotonic() - begun


def post(place: tuple[str, int], body: bytes) -> tuple[int, dict[str, Any], dict[str, str]]:
    connection = http.client.HTTPConnection(*place, timeout=20)
    connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    content = json.loads(reply.read())
    connection.close()
    return reply.status, content, dict(reply.getheaders())


def test_a_slow_body_is_not_waited_for(world: World, classifier: ZeroShotClassifier) -> None:
    limits = Limits(body_seconds=0.3, head_seconds=0.3)
    body = body_of(world)
    with run(create_app(classifier, None, limits), limits) as place:
        length = HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
        for parts in ((length, body[:9]), (HEAD + b'Transfer-Encoding: chunked\r\n\r\n3\r\n{"f\r\n',)):
            status, content, seconds = talk(place, *parts)
            assert status == 408
            assert "not complete after 0.3 seconds" in content["detail"]
            assert seconds < 5, "the connection was given up too"
        assert post(place, body)[0] == 200


def test_a_head_that_never_ends_is_not_waited_for(world: World, classifier: ZeroShotClassifier) -> None:
    limits = Limits(head_seconds=0.3)
    with run(create_app(classifier, None, limits), limits) as place:
        for parts in ((), (b"POST /pre",), (HEAD, 0.1, b"X-More: 1\r\n", 0.1, b"X-More: 2\r\n")):
            status, content, seconds = talk(place, *parts)
            assert status == 408
            assert content == {"detail": "no request came in time; send it faster"}
            assert seconds < 5
        # One request after the other on a connection is no slow head, however long the connection lasts.
        connection = http.client.HTTPConnection(*place, timeout=20)
        for _ in range(5):
            connection.request("GET", "/healthz")
            assert json.loads(connection.getresponse().read())["status"] == "ok"
            time.sleep(0.15)
        connection.close()


def test_what_is_not_http_is_one_sentence(classifier: ZeroShotClassifier) -> None:
    with run(create_app(classifier, None)) as place:
        for nonsense in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a b\x00\r\n\r\n",
        ):
            status, content, _ = talk(place, nonsense)
            assert status == 400
            assert list(content) == ["detail"]
        broken = HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"
        assert talk(place, broken)[0] == 400
        without_host = b"GET /healthz HTTP/1.0\r\n\r\n"
        assert talk(place, without_host)[0] == 421


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(classifier: ZeroShotClassifier) -> None:
    """And after it, where its sender listens only then."""
    limits = Limits(body_bytes=1000, head_seconds=1)
    with run(create_app(classifier, None, limits), limits) as place:
        status, content, _ = talk(place, HEAD + b"Content-Length: 99999999999999999999\r\n\r\n")
        assert (status, content["detail"]) == (413, "the request is larger than 1000 bytes; send less at a time")
        assert post(place, b" " * 3_000_000)[0] == 413


def test_connections_are_bounded(world: World, classifier: ZeroShotClassifier) -> None:
    limits = Limits(connections=3)
    with run(create_app(classifier, None, limits), limits) as place:
        idle = [socket.create_connection(place) for _ in range(3)]
        until(lambda: talk(place)[0] == 503)
        with socket.create_connection(place) as connection:
            head = connection.recv(65_536).partition(b"\r\n\r\n")[0].decode().splitlines()
        assert head[0] == "HTTP/1.1 503 Service Unavailable"
        assert "retry-after: 1" in head
        for connection in idle:
            connection.close()
        until(lambda: post(place, body_of(world))[0] == 200)


def test_a_full_line_is_said_and_stays_short(
    world: World, classifier: ZeroShotClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at work and two in line; the others are told at once when to come back, and the page answers all the while."""
    gate, answered = threading.Event(), Snapshot.answers

    def slow(self: Snapshot, rows: Any) -> Any:
        gate.wait(10)
        return answered(self, rows)

    monkeypatch.setattr(Snapshot, "answers", slow)
    limits = Limits(threads=2, waiting=2)
    with run(create_app(classifier, None, limits), limits) as place:
        replies: list[tuple[int, dict[str, Any], dict[str, str]]] = []
        threads = [threading.Thread(target=lambda: replies.append(post(place, body_of(world)))) for _ in range(7)]
        for thread in threads:
            thread.start()
        until(lambda: len(replies) == 3)
        connection = http.client.HTTPConnection(*place, timeout=5)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        gate.set()
        for thread in threads:
            thread.join(10)
    assert sorted(status for status, _, _ in replies) == [200] * 4 + [503] * 3
    for status, content, headers in replies:
        if status == 503:
            assert "too many requests are waiting" in content["detail"]
            assert headers["retry-after"] == "1"


def test_an_answer_that_takes_too_long_is_given_up(
    world: World, classifier: ZeroShotClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(Snapshot, "answers", lambda *_: gate.wait(10))
    limits = Limits(predict_seconds=0.2)
    with run(create_app(classifier, None, limits), limits) as place:
        status, content, headers = post(place, body_of(world))
        gate.set()
    assert status == 503
    assert "no answer within 0.2 seconds" in content["detail"]
    assert headers["retry-after"] == "5"


def test_a_port_that_is_taken_or_an_address_that_is_not_here_is_one_sentence() -> None:
    from unseen.errors import SettingsError

    with listening("127.0.0.1", 0) as at:
        port = at.getsockname()[1]
        assert address(at) == f"http://127.0.0.1:{port}/"
        with pytest.raises(SettingsError, match=rf"^port {port} of 127\.0\.0\.1 is taken; choose another"):
            listening("127.0.0.1", port)
    for host in ("192.0.2.1", "no such host", "x" * 300):
        with pytest.raises(SettingsError, match=r"^cannot listen at port 8000 of"):
            listening(host, 8000)


@pytest.fixture
def server(model_folder: Path, tmp_path: Path) -> Any:
    """`server(*arguments)`: the command in a process of its own, and where it answers."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "token").chmod(0o600)
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], tuple[str, int]]:
        command = [
            sys.executable,
            "-c",
            "from unseen.cli import main; main()",
            "serve",
            str(model_folder),
            "--port",
            "0",
            *arguments,
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r" answers at http://127\.0\.0\.1:(\d+)/; stop with Ctrl-C$", line)
        assert found, line or process.communicate()[1]
        return process, ("127.0.0.1", int(found[1]))

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_and_finishes_what_runs_when_it_is_told_to_stop(
    how: signal.Signals, server: Any, world: World, model_folder: Path, tmp_path: Path
) -> None:
    process, place = server("--token-file", str(tmp_path / "token"), "--save")
    embedding = world.embeddings[world.later[0]].tolist()
    told = json.dumps({"name": world.later[0], "embedding": embedding}).encode()
    connection = http.client.HTTPConnection(*place, timeout=20)
    connection.request("POST", "/classes", told, {"Content-Type": "application/json", **BEARER})
    assert connection.getresponse().status == 201
    connection.close()
    assert world.later[0] in ZeroShotClassifier.load(model_folder).classes_

    body = body_of(world, 3)
    with socket.create_connection(place, timeout=20) as slow:
        slow.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:20])
        time.sleep(0.3)
        process.send_signal(how)
        time.sleep(0.5)
        assert process.poll() is None, "the request is still coming in"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place, timeout=5).close()
        slow.sendall(body[20:])
        answer = b""
        while more := slow.recv(65_536):
            answer += more
    assert answer.startswith(b"HTTP/1.1 200")
    expected = ZeroShotClassifier.load(model_folder).predict(world.X[:3])
    assert [one["class"] for one in json.loads(answer.partition(b"\r\n\r\n")[2])["answers"]] == expected.tolist()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def cli_says(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["unseen", "serve", *arguments])
    monkeypatch.setattr("warnings.showwarning", lambda *_: None)  # the command sets it; this puts it back
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0), capsys.readouterr().err


def test_what_is_wrong_with_the_command_is_one_sentence(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("UNSEEN_TOKEN", raising=False)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "short").write_text("short")
    (tmp_path / "short").chmod(0o600)
    model, free = str(model_folder), ["--port", "0"]
    with listening("127.0.0.1", 0) as at:
        port = str(at.getsockname()[1])
        cases = [
            ([model, "--port", port], 2, f"port {port} of 127.0.0.1 is taken"),
            ([str(tmp_path / "none"), *free], 1, "is not a folder"),
            ([str(tmp_path / "empty"), *free], 1, "empty is damaged or is no ONNX file"),
            ([model, *free, "--save"], 2, "nobody may add without a token"),
            ([model, *free, "--token-file", str(tmp_path / "none")], 2, "cannot be read"),
            ([model, *free, "--token-file", str(tmp_path / "empty")], 2, "is empty; put a token into it"),
            ([model, *free, "--token-file", str(tmp_path / "short")], 2, "16 or more printable ASCII"),
            ([model, *free, "--image-encoder", "nonsense"], 2, "there is no encoder 'nonsense'"),
        ]
        for arguments, code, said in cases:
            found = cli_says(arguments, monkeypatch, capsys)
            assert found[0] == code, found
            assert said in found[1]
            assert found[1].count("\n") == 1


def test_a_server_for_everybody_and_a_token_for_everybody_are_noted(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o644)
    monkeypatch.setattr("unseen.serving.running.serve", lambda *_, ready: ready())
    monkeypatch.setattr("warnings.showwarning", lambda *_: None)
    arguments = [
        "unseen",
        "serve",
        str(model_folder),
        "--port",
        "0",
        "--host",
        "0.0.0.0",
        "--token-file",
        str(tmp_path / "token"),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    cli.main()
    told = capsys.readouterr()
    assert "everybody who reaches 0.0.0.0 can ask this server, and the token is sent unencrypted" in told.err
    if os.name == "posix":
        assert "others on this machine may read" in told.err
    assert re.search(r"answers at http://127\.0\.0\.1:\d+/", told.out)


def test_rows_are_those_of_the_request(world: World, classifier: ZeroShotClassifier) -> None:
    """One connection, one request after the other, pipelined: replies come in order."""
    rng = np.random.default_rng(1)
    rows = world.rows([world.seen[0], world.seen[5]], rng)
    both = b"".join(
        HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
        for body in (json.dumps({"features": [row.tolist()]}).encode() for row in rows)
    )
    with run(create_app(classifier, None)) as place, socket.create_connection(place, timeout=20) as connection:
        connection.sendall(both)
        answer = b""
        while answer.count(b'"answers"') < 2:
            answer += connection.recv(65_536)
    named = re.findall(rb'"answers": \[\{"class": "([^"]*)"', answer)
    assert [name.decode() for name in named] == classifier.predict(rows).tolist()


def test_an_answer_that_nobody_reads_is_not_kept(world: World, classifier: ZeroShotClassifier) -> None:
    """Its reader has gone silent; who reads slowly but in time gets all of it."""
    limits = Limits(answer_seconds=1.0)
    body = json.dumps({"features": world.X[:1].tolist() * 4096}).encode()
    asked = HEAD.replace(b"/predict", b"/predict?top=100") + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def received(place: tuple[str, int], silent: float) -> tuple[int, int]:
        """Bytes of the answer that came, and that it has."""
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            connection.settimeout(20)
            connection.connect(place)
            connection.sendall(asked)
            answer = connection.recv(10_000)
            length = int(re.search(rb"content-length: (\d+)", answer)[1])  # type: ignore[index]
            begun = len(answer.partition(b"\r\n\r\n")[2])
            time.sleep(silent)
            with suppress(ConnectionResetError):
                while begun < length and (more := connection.recv(1_000_000)):
                    begun += len(more)
        return begun, length

    with run(create_app(classifier, None, limits), limits) as place:
        came, length = received(place, 0.2)
        assert came == length > 2_000_000
        came, length = received(place, 2.0)
        assert came < length
        assert post(place, body_of(world))[0] == 200


def test_the_head_alone_has_no_body(classifier: ZeroShotClassifier) -> None:
    with run(create_app(classifier, None)) as place, socket.create_connection(place, timeout=20) as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while more := connection.recv(65_536):
            answer += more
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")
