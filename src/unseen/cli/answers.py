"""How answers are written: a table for people, JSON lines and CSV for programs. Line by line, so that streams stay streams.

Names of classes and of inputs are a stranger's: in a table they are kept to one line of what can be printed, in CSV they are no
formulas.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size

from unseen.answering import Answered
from unseen.storage import csv_lines

if TYPE_CHECKING:
    from unseen.calibration import Neighbours

DIGITS = 6
"""Of a probability or a distance, after the point; in a table two."""
WIDEST = 40
"""Columns of a name in a table; a longer one is cut."""


@dataclass(frozen=True)
class Answer:
    """What is said of one row or picture; all numbers rounded.

    Args:
        name: of the class taken; None where the confidence is too low.
        top: classes and probabilities, most probable first.
        near: what it resembles: kind (`seen`, `unseen`) → classes and distances, nearest first.
    """

    input: str | int
    name: str | None
    confidence: float
    never_seen: bool
    top: tuple[tuple[str, float], ...]
    near: Mapping[str, tuple[tuple[str, float], ...]]


def one_by_one(parts: Iterator[Answered], names: tuple[str, ...], top: int) -> Iterator[list[Answer]]:
    """Answers of each part, a value each; `top` classes beside the one taken, of these names."""
    for part in parts:
        said = part.answers
        best = _best(said.scores, top)
        shares = np.round(np.take_along_axis(said.probabilities, best, axis=1), DIGITS).tolist()
        listed = [[names[c] for c in row] for row in best.tolist()]
        yield [
            Answer(
                input=name,
                name=said.names[k],
                confidence=confidence,
                never_seen=never_seen,
                top=tuple(zip(listed[k], shares[k], strict=True)),
                near={} if part.near is None else _near(part.near, k),
            )
            for k, (name, confidence, never_seen) in enumerate(
                zip(part.inputs, np.round(said.confidence, DIGITS).tolist(), said.never_seen.tolist(), strict=True)
            )
        ]


def _best(scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """(n, count) columns of the highest scores, highest first; of equal ones the first, as in the answer itself."""
    left = np.maximum(scores, np.finfo(np.float64).min)  # a class that is never taken comes before those taken already
    columns = np.empty((len(scores), min(count, scores.shape[1])), np.int64)
    for place in range(columns.shape[1]):
        columns[:, place] = left.argmax(axis=1)
        np.put_along_axis(left, columns[:, place : place + 1], -np.inf, axis=1)
    return columns


def _near(near: Neighbours, k: int) -> dict[str, tuple[tuple[str, float], ...]]:
    sides = {"seen": (near.seen, near.seen_distances), "unseen": (near.unseen, near.unseen_distances)}
    return {
        kind: tuple((str(label), round(float(d), DIGITS)) for label, d in zip(labels[k], far[k], strict=True))
        for kind, (labels, far) in sides.items()
    }


# ------------------------------------------------------------------------------------------------------------- formats


def as_json_lines(answers: Iterator[list[Answer]], top: int) -> Iterator[str]:
    """An object a line: input, class, confidence, never_seen, top, and near where it was asked for."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    for part in answers:
        for answer in part:
            told: dict[str, Any] = {
                "input": answer.input,
                "class": answer.name,
                "confidence": answer.confidence,
                "never_seen": answer.never_seen,
            }
            told |= {"top": answer.top} if top else {}
            told |= {"near": dict(answer.near)} if answer.near else {}
            line = encode(told)
            yield f"{line if line.isprintable() else json.dumps(told)}\n"


def as_csv(answers: Iterator[list[Answer]], top: int) -> Iterator[str]:
    """A table with a line of names first, and as many columns for each answer."""
    first = next(answers, [])
    header = ["input", "class", "confidence", "never_seen"]
    header += [name for k in range(top) for name in (f"class_{k + 1}", f"probability_{k + 1}")]
    sides = {kind: len(near) for kind, near in first[0].near.items()} if first else {}
    header += [
        name for kind, count in sides.items() for k in range(count) for name in (f"{kind}_{k + 1}", f"{kind}_distance_{k + 1}")
    ]

    def cells(answer: Answer) -> list[object]:
        start = [answer.input, answer.name, answer.confidence, "yes" if answer.never_seen else "no"]
        more = chain(*answer.top, *chain(*answer.near.values()))
        return [plain(cell) if isinstance(cell, str) else cell for cell in chain(start, more)]

    yield from csv_lines(header, (cells(answer) for part in chain([first], answers) for answer in part))


def as_table(answers: Iterator[list[Answer]], top: int) -> Iterator[str]:
    """Columns for people, as wide as the first answers need; a class never seen is marked. Nothing waits for the end."""
    first = next(answers, [])
    called = _width("input", (str(answer.input) for answer in first))
    named = _width("class", (name for answer in first for name in (answer.name or "", *(n for n, _ in answer.top))))
    others = max(0, top - 1)
    head = [_cell("input", called), _cell("class", named), "sure", "never seen"]
    head += [_cell("or" if k == 0 else "", named + 5) for k in range(others)]
    yield f"{'  '.join(head).rstrip()}\n"
    for answer in chain.from_iterable(chain([first], answers)):
        cells = [_cell(str(answer.input), called), _cell("–" if answer.name is None else answer.name, named)]
        cells += [f"{answer.confidence:4.2f}", f"{'yes' if answer.never_seen else '':10}"]
        cells += [f"{_cell(name, named)} {p:4.2f}" for name, p in answer.top[1 : top or 1]]
        yield f"{'  '.join(cells).rstrip()}\n"
        for kind, near in answer.near.items():
            if near:
                listed = ", ".join(f"{plain(name)} {distance:.2f}" for name, distance in near)
                yield f"    nearest {kind}: {listed}\n"


def plain(text: str) -> str:
    """Text on one line, whatever is in it."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _width(title: str, texts: Iterator[str]) -> int:
    return min(WIDEST, max([cell_len(title), *(cell_len(plain(text)) for text in texts)]))


def _cell(text: str, width: int) -> str:
    """Text on one line in so many columns of a terminal."""
    text = plain(text)
    return set_cell_size(text, width) if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


FORMATS: Mapping[str, Callable[[Iterator[list[Answer]], int], Iterator[str]]] = {
    "table": as_table,
    "jsonl": as_json_lines,
    "csv": as_csv,
}
"""By name: answers, and how many of the most probable classes each has → lines."""
