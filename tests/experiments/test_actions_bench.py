"""Thirty splits of one action data set, through `unseen bench`: all are run, and averaged."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from unseen import open_dataset
from unseen.errors import SettingsError
from unseen.experiments.aggregate import summaries
from unseen.experiments.grid import Grid, expand, splits_of
from unseen.experiments.jobs import carry_out
from unseen.experiments.results import read_rows

SPLITS = tuple(f"split_{k}" for k in range(1, 31))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of eight videos in the layout of the action benchmarks, read and saved in the native format."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 8)
    embeddings = rng.normal(size=(10, 4))
    features = (embeddings @ rng.normal(size=(4, 6)))[labels] + 0.5 * rng.normal(size=(80, 6))
    root = tmp_path_factory.mktemp("data") / "ucf101_i3d"
    root.mkdir()
    savemat(root / "i3d.mat", {"features": features.T.astype(np.float32), "labels": labels[:, None] + 1})
    triples = rng.permutation(list(combinations(range(10), 3)))
    for name, held_out in zip(SPLITS, triples, strict=False):
        unseen = np.isin(labels, held_out)
        test = ~unseen & (np.arange(80) % 8 > 5)
        rows = {"trainval_loc": ~unseen & ~test, "test_seen_loc": test, "test_unseen_loc": unseen}
        content = {key: (np.flatnonzero(mask) + 1)[:, None] for key, mask in rows.items()}
        (root / name).mkdir()
        savemat(root / name / "att_splits.mat", {**content, "att": embeddings.T})
    with pytest.MonkeyPatch.context() as patch:
        # In this process: thirty-one interpreters would be started for files that nobody damaged.
        from scipy.io import loadmat

        def read(path: Path, required: Any, optional: Any = (), limits: Any = None) -> dict[str, Any]:
            return {k: v for k, v in loadmat(path).items() if k in (*required, *optional)}

        patch.setattr("unseen.data.actions.read_mat", read)
        open_dataset(str(root)).save(root.parent / "ucf101")
    return root.parent / "ucf101"


def test_all_takes_the_thirty_splits_in_order_and_names_are_accepted(folder: Path) -> None:
    everything = Grid(("prototype",), (str(folder),), ("all",))
    assert [split for _, split in splits_of(everything)] == list(SPLITS)
    some = Grid(("prototype",), (str(folder),), ("split_30", "split_2"))
    assert [split for _, split in splits_of(some)] == ["split_30", "split_2"]
    with pytest.raises(SettingsError, match=r"has no split split_31; it has split_1, split_2, .*split_30"):
        list(splits_of(Grid(("prototype",), (str(folder),), ("split_31",))))


def test_the_average_is_that_of_the_thirty_splits(folder: Path, bench_folder: Path) -> None:
    grid = Grid(("prototype",), (str(folder),), ("all",), protocols=("fixed",))
    jobs = expand(grid, "")
    assert len({job.id for job in jobs}) == 30
    for job in jobs:
        assert carry_out(job, bench_folder)
    rows = read_rows(bench_folder)
    assert {row["split"] for row in rows} == set(SPLITS)
    assert len({row["split_hash"] for row in rows}) == 30
    [summary] = summaries(rows)
    for figure in ("T1", "U", "S", "H", "AUSUC"):
        mean = sum(row[figure] for row in rows) / 30
        estimate = summary.figures[figure]
        assert estimate is not None
        assert estimate.mean == pytest.approx(mean, abs=1e-12)
        assert estimate.interval is not None
        assert estimate.interval[0] < mean < estimate.interval[1]
        assert estimate.over == "splits"
    assert len({row["H"] for row in rows}) > 10  # the splits do differ
