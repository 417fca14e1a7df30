"""Features that are no pictures: recordings of chords, and chords that nobody has played.

    python examples/own_table/make_tables.py OUT

writes two tables that could be anybody's own. `chords.csv` says of each of 24 chords, major and minor on every note, which of
the twelve notes are in it: a row a chord, a column a note. `takes.csv` has 20 takes of each chord: the chord's name and the
energy in 36 bands of its sound. A take has every note of its chord in some loudness and in some octave, the overtones of each,
a room that swallows some bands, and noise; all of it is made by arithmetic from one seed.

`README.md` goes on from there: no chord on D, F sharp or A is heard in training, yet a take of one is recognised by its notes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from unseen import UnseenError
from unseen.storage import csv_text, write_text

NOTES = ("C", "C sharp", "D", "D sharp", "E", "F", "F sharp", "G", "G sharp", "A", "A sharp", "B")
INTERVALS = {"major": (0, 4, 7), "minor": (0, 3, 7)}
BANDS, TAKES = 36, 20
OVERTONES = ((0, 1.0), (12, 0.5), (19, 0.35), (24, 0.25), (28, 0.2))
"""Semitones above the note, and loudness."""


def chords() -> dict[str, tuple[int, ...]]:
    """Name of a chord → its notes."""
    return {
        f"{note} {kind}": tuple((root + step) % 12 for step in steps)
        for kind, steps in INTERVALS.items()
        for root, note in enumerate(NOTES)
    }


def take(notes: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """(36,) the logarithm of the energy in each band, a semitone each, of one recording."""
    energy = np.full(BANDS, 0.02)
    for note in notes:
        start = note + 12 * int(rng.integers(2))
        loudness = float(rng.uniform(0.2, 1.5))
        for above, share in OVERTONES:
            if start + above < BANDS:
                energy[start + above] += loudness * share
    room = np.exp(0.8 * rng.normal(size=BANDS))
    noise = 0.4 * rng.random(BANDS)
    return np.log(room * energy + noise)


def main(arguments: list[str]) -> int:
    """Write both tables; the exit code."""
    if len(arguments) != 1:
        print("usage: python examples/own_table/make_tables.py OUT", file=sys.stderr)
        return 2
    out, rng = Path(arguments[0]), np.random.default_rng(0)
    named = chords()
    attributes = [[name, name.rpartition(" ")[2], *(int(k in notes) for k in range(12))] for name, notes in named.items()]
    takes = [[name, *take(notes, rng).round(4)] for name, notes in named.items() for _ in range(TAKES)]
    try:
        write_text(out / "chords.csv", csv_text(["name", "group", *NOTES], attributes))
        write_text(out / "takes.csv", csv_text(["label", *(f"band {band}" for band in range(BANDS))], takes))
    except UnseenError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{out / 'chords.csv'}: {len(attributes)} chords, {len(NOTES)} attributes")
    print(f"{out / 'takes.csv'}: {len(takes)} takes, {BANDS} bands")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
