"""The AwA1 example: counts become features, and rows stand in the order that the split file counts in."""

from __future__ import annotations

import bz2
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from unseen import open_dataset

SCRIPT = Path(__file__).parents[2] / "examples" / "awa1" / "prepare.py"
DESCRIPTORS = ("lss", "surf", "rgsift")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def counts(tmp_path: Path) -> dict[str, np.ndarray]:
    """Two folders like the real ones, of six rows, three classes and four words; some counts take more than a byte."""
    rng = np.random.default_rng(0)
    made = {name: rng.integers(0, 1000, size=(6, 4)).astype(np.uint16) for name in DESCRIPTORS}
    made["surf"][2] = 0
    for name, array in made.items():
        buffer = io.BytesIO()
        np.save(buffer, np.stack([array & 255, array >> 8]).astype(np.uint8))
        (tmp_path / f"{name}.npy.bz2").write_bytes(bz2.compress(buffer.getvalue()))
    np.save(tmp_path / "labels.npy", np.array([1, 1, 2, 2, 3, 3], np.uint8))
    names = np.empty((3, 1), object)
    names[:, 0] = ["antelope", "grizzly+bear", "seal"]
    savemat(
        tmp_path / "att_splits.mat",
        {"att": np.arange(1.0, 7).reshape(2, 3), "allclasses_names": names, "trainval_loc": np.array([[1], [3]])}
        | {"test_seen_loc": np.array([[2], [4]]), "test_unseen_loc": np.array([[5], [6]])},
    )
    return made


def test_features_are_roots_of_relative_counts(counts: dict[str, np.ndarray], tmp_path: Path) -> None:
    done = run(tmp_path, tmp_path, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    data = open_dataset(str(tmp_path / "out"))
    assert data.classes.names == ("antelope", "grizzly bear", "seal")
    assert np.array_equal(data.classes.embeddings, [[1, 4], [2, 5], [3, 6]])
    split = data.split("proposed")
    assert [list(part) for part in (split.train, split.test_seen, split.test_unseen)] == [[0, 2], [1, 3], [4, 5]]
    for row in range(6):
        for block, name in enumerate(DESCRIPTORS):
            total = int(counts[name][row].sum())
            for word in range(4):
                expected = (counts[name][row, word] / total) ** 0.5 if total else 0.0
                assert data.features[row, 4 * block + word] == pytest.approx(expected, rel=1e-3)


def test_a_descriptor_may_be_taken_alone(counts: dict[str, np.ndarray], tmp_path: Path) -> None:
    assert run(tmp_path, tmp_path, tmp_path / "all").returncode == 0
    assert run(tmp_path, tmp_path, tmp_path / "out", "rgsift").returncode == 0
    data = open_dataset(str(tmp_path / "out"))
    assert data.name == "awa1-rgsift"
    assert np.array_equal(data.features, open_dataset(str(tmp_path / "all")).features[:, 8:])
    assert (
        run(tmp_path, tmp_path, tmp_path / "no", "sift").stderr
        == "there is no descriptor 'sift'; there are lss, surf, rgsift\n"
    )


def test_what_is_missing_or_damaged_gets_one_sentence(counts: dict[str, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "surf.npy.bz2").write_bytes(b"no bzip2")
    done = run(tmp_path, tmp_path, tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path / 'surf.npy.bz2'} is damaged")
    assert done.stderr.count("\n") == 1
    (tmp_path / "lss.npy.bz2").unlink()
    assert "lss.npy.bz2 does not exist" in run(tmp_path, tmp_path, tmp_path / "out").stderr
    assert not (tmp_path / "out").exists()


def test_the_real_files_agree_with_the_proposed_split(shared_data: Path, tmp_path: Path) -> None:
    """A row's class decides in which part of the split it may stand: in the wrong order some would stand in another."""
    done = run(shared_data / "awa1-bow", shared_data / "xlsa17-splits" / "AWA1", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "19832 rows of 40 seen classes train, 4958 test; 5685 rows of 10 unseen classes test" in done.stdout
    data = open_dataset(str(tmp_path / "out"))
    split = data.split("proposed")
    unseen = {data.classes.names[k] for k in np.unique(data.labels[split.test_unseen])}
    assert unseen == {"bat", "blue whale", "bobcat", "dolphin", "giraffe", "horse", "rat", "seal", "sheep", "walrus"}
    assert not set(data.labels[split.train]) & set(data.labels[split.test_unseen])
    for block in np.split(data.features, 3, axis=1):
        lengths = np.square(block, dtype=np.float32).sum(axis=1)
        assert ((np.abs(lengths - 1) < 2e-3) | (lengths == 0)).all()
