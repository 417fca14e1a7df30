"""How long a server takes to answer many clients: python benchmarks/serving.py → benchmarks/results/speed.jsonl.

`unseen serve` runs in a process of its own with its usual limits. 64 clients in another process, each on a connection that it
keeps, send one request after the other and wait for the answer; the clock of each begins with the request and stops with the
whole answer. Clients and server share the cores, so this is what one machine does by itself. `health` is the same without a
model: what HTTP takes. `features` sends one row, `change` the same while a class is added and removed all the time, and
`pictures` a JPEG of 640 × 480 pixels, which the packaged network makes features of.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from unseen import ZeroShotClassifier  # noqa: E402
from unseen.evaluation.protocol import versions  # noqa: E402

ROWS = ROOT / "benchmarks" / "results" / "speed.jsonl"
CLIENTS = 64
SECONDS, WARM_UP = 12.0, 2.0
CLASSES, WIDTH, ATTRIBUTES = 200, 1280, 85
Request = bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=("health", "features", "change", "pictures"), help="measure this alone")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fitted(rng).save(folder / "model")
        token = secrets.token_urlsafe()
        with serving(folder / "model", token) as port:
            row = json.dumps({"features": [rng.random(WIDTH).round(5).tolist()]}).encode()
            predict = post("/predict", "application/json", row)
            asked = {
                "health": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "features": predict,
                "change": predict,
                "pictures": post("/predict", "image/jpeg", jpeg(rng)),
            }
            told = json.dumps({"name": "okapi", "embedding": rng.normal(size=ATTRIBUTES).tolist()}).encode()
            for what, request in asked.items():
                if arguments.only in (None, what):
                    changes = (told, token) if what == "change" else None
                    tell(what, len(request), *asyncio.run(measured(port, request, changes)))


def fitted(rng: np.random.Generator) -> ZeroShotClassifier:
    """200 classes, of which 50 have no row, on features as wide as the packaged network's."""
    names = [f"class {k:03d}" for k in range(CLASSES)]
    embeddings = dict(zip(names, rng.normal(size=(CLASSES, ATTRIBUTES)), strict=True))
    y = np.repeat(names[:150], 8)
    X = rng.random((len(y), WIDTH), np.float32)
    model = ZeroShotClassifier("class-gaussian", protocol="fixed", image_encoder="efficientnet-lite0")
    return model.fit(X, y, classes=embeddings)


def jpeg(rng: np.random.Generator) -> bytes:
    """A picture of 640 × 480 pixels."""
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)).save(file, "JPEG", quality=85)
    return file.getvalue()


@contextmanager
def serving(model: Path, token: str) -> Iterator[int]:
    """The command in a process of its own; the port where it answers."""
    command = [sys.executable, "-c", "from unseen.cli import main; main()", "serve", str(model), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "UNSEEN_TOKEN": token})
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline().split("http://127.0.0.1:")[1].partition("/")[0])
    finally:
        server.terminate()
        server.wait(30)


def post(path: str, kind: str, body: bytes, *headers: str) -> Request:
    """A request as it goes over the line."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def measured(port: int, request: Request, changes: tuple[bytes, str] | None) -> tuple[list[float], float, int]:
    """Seconds of each answer after the warm-up, how long was measured, and how often classes changed meanwhile."""
    begun = time.perf_counter()
    end = begun + WARM_UP + SECONDS
    found: list[tuple[float, float]] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (now := time.perf_counter()) < end:
            await answered(reader, writer, request)
            found.append((now, time.perf_counter() - now))
        writer.close()

    async def change(told: bytes, token: str) -> int:
        bearer, count = f"Authorization: Bearer {token}", 0
        add = post("/classes", "application/json", told, bearer)
        remove = f"DELETE /classes/okapi HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            for each in (add, remove):
                await answered(reader, writer, each)
                count += 1
        writer.close()
        return count

    changing = asyncio.create_task(change(*changes)) if changes else None
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    count = await changing if changing else 0
    taken = [seconds for at, seconds in found if at - begun >= WARM_UP]
    return taken, time.perf_counter() - begun - WARM_UP, count


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> None:
    """Send, and read the whole answer."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    if status not in (200, 201):
        raise RuntimeError(f"the server answered {status}: {body.decode()}")


def tell(what: str, sent: int, seconds: list[float], measured_seconds: float, changes: int) -> None:
    """Print a row and keep it."""
    middle, late = np.percentile(seconds, [50, 99])
    row = {
        "what": f"unseen serve, {what}",
        "clients": CLIENTS,
        "classes": CLASSES,
        "bytes_sent": sent,
        "requests": len(seconds),
        "requests_per_second": len(seconds) / measured_seconds,
        "p50_seconds": middle,
        "p99_seconds": late,
        "max_seconds": max(seconds),
        "changes": changes,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "clock": "perf_counter",
        "command": f"python benchmarks/serving.py --only {what}",
        "versions": versions(),
    }
    print(
        f"{what}: {row['requests_per_second']:.0f} requests a second by {CLIENTS} clients on {row['cores']} cores, "
        f"p50 {1000 * middle:.0f} ms, p99 {1000 * late:.0f} ms"
        + (f", {changes} changes of classes meanwhile" if changes else "")
    )
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    with ROWS.open("a") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
