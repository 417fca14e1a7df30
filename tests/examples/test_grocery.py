"""The grocery example: its splits have the sizes they are known to have, and its protocol is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unseen import Dataset, open_dataset

SCRIPT = Path(__file__).parents[2] / "examples" / "grocery" / "prepare.py"

# train, test_seen, test_unseen rows; seen, unseen classes
SIZES = {
    "random0": (2399, 2074, 948, 65, 16),
    "random1": (2347, 1968, 1106, 65, 16),
    "random2": (2438, 2079, 904, 65, 16),
    "random3": (2341, 1992, 1088, 65, 16),
    "random4": (2360, 1982, 1079, 65, 16),
    "groups0": (2164, 1830, 1427, 61, 20),
    "groups1": (2286, 1951, 1184, 62, 19),
}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def source(shared_data: Path) -> Path:
    return shared_data / "grocery" / "grocery.npz"


@pytest.fixture(scope="module")
def prepared(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("grocery") / "out"
    done = run(source, out)
    assert (done.returncode, done.stderr) == (0, "")
    assert "random0: 2399 rows of 65 seen classes train, 2074 test; 948 rows of 16 unseen classes test" in done.stdout
    return open_dataset(str(out))


def test_sizes_of_the_splits(prepared: Dataset) -> None:
    assert prepared.features.shape == (5421, 1280)
    assert prepared.classes.embeddings.shape == (81, 384)
    assert list(prepared.splits) == list(SIZES)
    for name, wanted in SIZES.items():
        split = prepared.split(name)
        sizes = tuple(len(part) for part in (split.train, split.test_seen, split.test_unseen, split.seen, split.unseen))
        assert sizes == wanted
        assert sum(sizes[:3]) == 5421
        # every class of a split is trained or tested: no average runs over less than all of them
        assert len(np.unique(prepared.labels[split.train])) == len(np.unique(prepared.labels[split.test_seen])) == wanted[3]
        assert len(np.unique(prepared.labels[split.test_unseen])) == wanted[4]


def test_the_protocol_is_kept(prepared: Dataset, source: Path) -> None:
    with np.load(source, allow_pickle=False) as archive:
        part, unseen_random = archive["image_split"], archive["unseen_random"]
        np.testing.assert_array_equal(prepared.features, archive["features"])
        np.testing.assert_array_equal(prepared.classes.embeddings, archive["embedding_name_description"])
        assert prepared.classes.names == tuple(archive["class_names"])
    for split in prepared.splits.values():
        assert set(part[split.train]) == {"train", "val"}
        assert set(part[split.test_seen]) == {"test"}
        assert set(part[split.test_unseen]) == {"train", "val", "test"}
    for draw, unseen in enumerate(unseen_random):
        assert prepared.split(f"random{draw}").unseen.tolist() == sorted(unseen.tolist())
    assert len(np.unique(unseen_random)) == 55


def test_group_splits_hold_out_whole_groups(prepared: Dataset) -> None:
    groups = prepared.classes.groups
    assert len(set(groups)) == 43
    for split in prepared.splits.values():
        shared = {groups[i] for i in split.seen} & {groups[i] for i in split.unseen}
        assert split.by_group == split.name.startswith("groups")
        assert bool(shared) != split.by_group


def test_texts_and_provenance_are_filled(prepared: Dataset) -> None:
    assert np.median([len(text.split()) for text in prepared.classes.descriptions]) == 29
    assert prepared.provenance.licence == "MIT"
    assert "unknown" not in vars(prepared.provenance).values()
    assert prepared.attributions


def test_mistakes_get_a_sentence(tmp_path: Path) -> None:
    assert run("one").returncode == 2
    np.savez(tmp_path / "other.npz", features=np.eye(2))
    (tmp_path / "page.npz").write_text("<html>")
    for name, said in (("other", "lacks labels, image_split"), ("page", "is not an .npz file"), ("none", "does not exist")):
        done = run(tmp_path / f"{name}.npz", tmp_path / "out")
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
