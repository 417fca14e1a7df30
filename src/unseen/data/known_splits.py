"""Say whether a split has the same indices as one of the public split files.

Revisions of the "proposed splits" go about under the same names, and two points of difference between two papers have come
from that. So a split is compared with files that lie before us, and named after them: which file, from where, and its
SHA-256. Nothing here says 'v1' or 'v2': which revision a file is was not established for any of them.

`known_splits.json` beside this file is written by `tools/known_splits.py`.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import Dataset, Ids, Split
from unseen.storage import read_json

FILE = Path(__file__).with_name("known_splits.json")
PARTS = ("train", "test_seen", "test_unseen")
SHOWN = 5
"""So many rows that differ are named."""


@dataclass(frozen=True)
class KnownSplit:
    """A public split file.

    Args:
        benchmark: for example AWA2.
        name: of the benchmark, and of the file it is from.
        codes: (n,) for every row 0 (in no part), or 1 to 3 (in train, test_seen, test_unseen).
    """

    benchmark: str
    name: str
    codes: NDArray[np.uint8]


@cache
def known_splits() -> tuple[KnownSplit, ...]:
    """All split files that are known here."""
    stored = read_json(FILE)
    return tuple(
        KnownSplit(
            benchmark=entry["set"],
            name=f"{entry['set']} of {stored['source']} ({entry['file']}, SHA-256 {entry['file_sha256'][:12]})",
            codes=unpacked(entry["parts"], entry["rows"]),
        )
        for entry in stored["splits"]
    )


def recognise(dataset: Dataset, split: str | None = None) -> str:
    """One sentence: which public split file this split has the indices of, or where it differs from the nearest one.

    Args:
        split: its name; the first one if not given.
    """
    chosen = dataset.split(split)
    codes = codes_of(chosen, len(dataset.labels))
    candidates = [known for known in known_splits() if len(known.codes) == len(codes)]
    if not candidates:
        names = ", ".join(f"{known.benchmark} {len(known.codes):,}" for known in known_splits())
        return f"differs from every known split, as none has {len(codes):,} rows ({names})"
    nearest = min(candidates, key=lambda known: int((known.codes != codes).sum()))
    differing = np.flatnonzero(nearest.codes != codes)
    if not len(differing):
        return f"same indices as {nearest.name}"
    return f"differs from every known split in these rows: {_difference(codes, nearest, differing)}"


def codes_of(split: Split, rows: int) -> NDArray[np.uint8]:
    """(n,) for every row 0, or 1 to 3 for the part it is in."""
    codes = np.zeros(rows, np.uint8)
    for code, part in enumerate(PARTS, 1):
        codes[getattr(split, part)] = code
    return codes


def packed(codes: NDArray[np.uint8]) -> str:
    """Codes 0 to 3 as text: four to a byte, compressed, base64."""
    four = np.concatenate([codes, np.zeros(-len(codes) % 4, np.uint8)]).reshape(-1, 4)
    return base64.b64encode(zlib.compress((four << np.array([0, 2, 4, 6], np.uint8)).sum(axis=1, dtype=np.uint8), 9)).decode()


def unpacked(text: str, rows: int) -> NDArray[np.uint8]:
    """The codes that `packed` made a text of."""
    four = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return ((four[:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3).reshape(-1)[:rows].astype(np.uint8)


def _difference(codes: NDArray[np.uint8], nearest: KnownSplit, differing: Ids) -> str:
    rows = ", ".join(str(row) for row in differing[:SHOWN].tolist()) + (", …" if len(differing) > SHOWN else "")
    called = ("no part", *PARTS)
    pairs, counts = np.unique(np.stack([nearest.codes[differing], codes[differing]]), axis=1, return_counts=True)
    moves = [
        f"{count:,} from {called[a]} to {called[b]}" for (a, b), count in zip(pairs.T.tolist(), counts.tolist(), strict=True)
    ]
    same_counts = np.array_equal(np.bincount(codes, minlength=4), np.bincount(nearest.codes, minlength=4))
    order = "; as each part has as many rows as there, the rows may only be in another order" if same_counts else ""
    return (
        f"{rows} ({len(differing):,} of {len(codes):,} rows, counted from 0, are elsewhere than in the nearest, "
        f"{nearest.name}: {', '.join(moves)}{order})"
    )
