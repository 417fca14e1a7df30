"""Public split files are recognised by their indices, and what differs from them is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat

from unseen.data import ClassTable, Dataset, Split
from unseen.data.known_splits import FILE, known_splits, packed, recognise, unpacked
from unseen.storage import fingerprint

COUNTS = {
    "APY": (5932, 1483, 7924),
    "AWA1": (19832, 4958, 5685),
    "AWA2": (23527, 5882, 7913),
    "CUB": (7057, 1764, 2967),
    "FLO": (5631, 1403, 1155),
    "SUN": (10320, 2580, 1440),
}


def like(benchmark: str) -> Dataset:
    """A data set with the rows of a known split; every row of a part has one class."""
    codes = next(known.codes for known in known_splits() if known.benchmark == benchmark)
    labels = (codes == 3).astype(np.int64)
    parts = [np.random.default_rng(0).permutation(np.flatnonzero(codes == code)) for code in (1, 2, 3)]
    split = Split.from_rows("any name", labels, *parts)
    return Dataset(
        "renamed", np.ones((len(codes), 1), np.float32), labels, ClassTable(("a", "b"), np.eye(2)), {"any name": split}
    )


@given(st.lists(st.integers(0, 3), max_size=99))
def test_codes_come_back(codes: list[int]) -> None:
    assert unpacked(packed(np.array(codes, np.uint8)), len(codes)).tolist() == codes


def test_the_file_holds_the_six_benchmarks_and_is_small() -> None:
    assert FILE.stat().st_size < 100_000
    assert {known.benchmark: tuple(np.bincount(known.codes, minlength=4)[1:].tolist()) for known in known_splits()} == COUNTS
    assert not any((known.codes == 0).any() for known in known_splits())
    stored = json.loads(FILE.read_text())["splits"]
    for entry, known in zip(stored, known_splits(), strict=True):
        for code, key in enumerate(("trainval_loc", "test_seen_loc", "test_unseen_loc"), 1):
            assert entry["sha256"][key] == fingerprint(np.flatnonzero(known.codes == code).astype(np.int64))
    text = FILE.read_text().lower()
    assert "v1" not in text.split('"parts"')[0]
    assert "proposed split" not in text


@pytest.mark.parametrize("benchmark", COUNTS)
def test_the_file_is_what_the_split_files_say(benchmark: str, shared_data: Path) -> None:
    (path,) = (shared_data / "xlsa17-splits" / benchmark).glob("*_splits.mat")
    table = loadmat(path)
    entry = next(e for e in json.loads(FILE.read_text())["splits"] if e["set"] == benchmark)
    for key in ("trainval_loc", "test_seen_loc", "test_unseen_loc", "train_loc", "val_loc"):
        assert entry["sha256"][key] == fingerprint(np.sort(table[key].ravel().astype(np.int64)) - 1)


@pytest.mark.parametrize("benchmark", COUNTS)
def test_the_same_indices_in_any_order_are_recognised(benchmark: str) -> None:
    said = recognise(like(benchmark))
    assert said.startswith(f"same indices as {benchmark} of xlsa17 split files as passed on in public repositories (")
    assert "_splits.mat, SHA-256 " in said
    assert "\n" not in said


def test_rows_that_differ_are_named_and_counted() -> None:
    data = like("FLO")
    split = data.split()
    train = np.sort(split.train)
    moved = replace(split, name="moved", train=train[3:], test_seen=np.concatenate([split.test_seen, train[:2]]))
    said = recognise(replace(data, splits={"moved": moved}), "moved")
    rows = ", ".join(map(str, train[:3]))
    assert said.startswith(f"differs from every known split in these rows: {rows} (3 of 8,189 rows, counted from 0, are")
    assert "the nearest, FLO of" in said
    assert "1 from train to no part, 2 from train to test_seen)" in said
    assert "another order" not in said


def test_the_same_rows_in_another_order_are_suspected() -> None:
    """As E-PGN's files have them: training rows first."""
    data = like("CUB")
    rows = [np.arange(7057), np.arange(7057, 8821), np.arange(8821, 11788)]
    labels = (np.arange(11788) >= 8821).astype(np.int64)
    ordered = Split.from_rows("any name", labels, *rows)
    said = recognise(replace(data, labels=labels, splits={"any name": ordered}))
    assert "nearest, CUB of" in said
    assert "the rows may only be in another order)" in said


def test_another_number_of_rows_matches_nothing(tiny: Dataset) -> None:
    said = recognise(tiny)
    assert said.startswith("differs from every known split, as none has 12 rows (APY 15,339, AWA1 30,475,")
