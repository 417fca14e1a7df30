"""The layout of the action benchmarks: many splits of one data set, and every slip that we explain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from unseen import open_dataset
from unseen.data import Dataset
from unseen.data.actions import read_actions
from unseen.errors import DataError

pytestmark = pytest.mark.usefixtures("quick_reader")

Content = dict[str, Any]
NAMES = ("archery", "biking", "diving", "fencing", "juggling")


def videos() -> Content:
    """Twenty videos of five classes, d = 6."""
    rng = np.random.default_rng(3)
    return {
        "features": rng.random((6, 20), np.float32).astype(float),
        "labels": np.repeat(np.arange(1, 6), 4)[:, None].astype(float),
    }


def table(k: int) -> Content:
    """Split k: classes k and k + 1 (counted round) are unseen; of the others one video in four tests."""
    labels = np.repeat(np.arange(1, 6), 4)
    position = np.tile(np.arange(4), 5)
    unseen = np.isin(labels, [k % 5 + 1, (k + 1) % 5 + 1])
    rows = {
        "trainval_loc": np.flatnonzero(~unseen & (position < 3)),
        "test_seen_loc": np.flatnonzero(~unseen & (position == 3)),
        "test_unseen_loc": np.flatnonzero(unseen),
    }
    content: Content = {key: (value + 1).astype(np.uint16)[:, None] for key, value in rows.items()}
    content["att"] = np.random.default_rng(9).normal(size=(4, 5))
    content["allclasses_names"] = np.array(NAMES, dtype=object)[:, None]
    return content


def write(folder: Path, features: Content, tables: dict[str, Content]) -> Path:
    folder.mkdir()
    savemat(folder / "i3d.mat", features)
    for name, content in tables.items():
        (folder / name).mkdir()
        savemat(folder / name / "att_splits.mat", content)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three splits, whose order by name is not that by number."""
    return write(tmp_path / "hmdb_i3d", videos(), {f"split_{k}": table(k) for k in (10, 2, 1)})


def test_all_splits_are_read_in_order_of_number(folder: Path) -> None:
    found = open_dataset(str(folder))
    assert found.name == "hmdb_i3d"
    assert tuple(found.splits) == ("split_1", "split_2", "split_10")
    assert found.split().name == "split_1"
    assert found.classes.names == NAMES
    np.testing.assert_array_equal(found.features, videos()["features"].T.astype(np.float32))
    np.testing.assert_array_equal(found.classes.embeddings, table(1)["att"].T)
    for name, split in found.splits.items():
        stored = table(int(name.removeprefix("split_")))
        for part, key in (("train", "trainval_loc"), ("test_seen", "test_seen_loc"), ("test_unseen", "test_unseen_loc")):
            np.testing.assert_array_equal(getattr(split, part), stored[key].ravel().astype(int) - 1)
        assert len(split.unseen) == 2
    assert found.provenance.feature_extractor == "unknown; i3d.mat, 6 values a video"
    assert found.provenance.embedding_source == "att of split_1/att_splits.mat, 4 values a class, as stored"
    assert "3 split files" in found.provenance.source


def test_what_is_no_split_is_left_alone(folder: Path) -> None:
    (folder / "split_notes").mkdir()
    (folder / "videos").mkdir()
    (folder / "README").write_text("x")
    assert len(read_actions(folder).splits) == 3


@pytest.mark.parametrize("typed", ["split_2", "split_2/att_splits.mat"])
def test_one_split_is_opened_by_its_path(typed: str, folder: Path) -> None:
    found = open_dataset(str(folder / typed))
    assert tuple(found.splits) == ("split_2",)
    assert found.name == "hmdb_i3d"
    assert found.split().fingerprint == read_actions(folder).split("split_2").fingerprint


def test_manual_attributes_take_the_place_of_att_when_they_are_asked_for(folder: Path) -> None:
    manual = np.random.default_rng(4).integers(0, 2, size=(5, 9))
    np.save(folder / "ucf101_manual_att.npy", manual)
    without = open_dataset(str(folder))
    chosen = open_dataset(str(folder / "ucf101_manual_att.npy"))
    np.testing.assert_array_equal(without.classes.embeddings, table(1)["att"].T)
    np.testing.assert_array_equal(chosen.classes.embeddings, manual.astype(float))
    assert chosen.provenance.embedding_source == "ucf101_manual_att.npy, 9 values a class, as stored"
    assert chosen.splits.keys() == without.splits.keys()
    assert chosen.embeddings_fingerprint != without.embeddings_fingerprint


class Payload:
    """Would run on being unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was read",))


def _not_numbers(path: Path) -> None:
    np.save(path, np.array(["a", "b"]))


def _pickle(path: Path) -> None:
    np.save(path, np.array([Payload()], dtype=object), allow_pickle=True)


def _text(path: Path) -> None:
    path.write_text("1, 2, 3")


def _archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.eye(5))


def _claims_more(path: Path) -> None:
    np.save(path, np.eye(5))
    path.write_bytes(path.read_bytes().replace(b"'shape': (5, 5)", b"'shape': (5,99)"))


def _cut(path: Path) -> None:
    np.save(path, np.eye(5))
    path.write_bytes(path.read_bytes()[:-8])


DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "texts": (_not_numbers, "is not a .npy file of numbers"),
    "a pickle": (_pickle, "is not a .npy file of numbers"),
    "an archive": (_archive, "is not a .npy file of numbers"),
    "cut off": (_cut, "is not a .npy file of numbers"),
    "a header of another size": (_claims_more, "is not a .npy file of numbers"),
    "empty": (lambda path: path.touch(), "is not a .npy file of numbers"),
    "no numpy": (_text, "is not a .npy file of numbers"),
    "columns": (lambda path: np.save(path, np.ones((9, 5))), r"9 x 5 for 5 classes \(it looks transposed\); store one row a"),
    "too few": (lambda path: np.save(path, np.ones((4, 9))), "4 x 9 for 5 classes; store one row a class"),
    "a line": (lambda path: np.save(path, np.ones(5)), "is 5 for 5 classes; store one row a class"),
    "NaN": (lambda path: np.save(path, np.full((5, 2), np.nan)), "embedding of class 'archery' .* holds NaN"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_manual_attributes_that_cannot_be_used_are_one_sentence(kind: str, folder: Path) -> None:
    make, expected = DAMAGED[kind]
    make(folder / "manual.npy")
    with pytest.raises(DataError, match=expected) as caught:
        open_dataset(str(folder / "manual.npy"))
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


def _set(key: str, change: Callable[[Any], Any]) -> Callable[[Content, dict[str, Content]], None]:
    """Change the feature file, or the table of the last split."""

    def apply(features: Content, tables: dict[str, Content]) -> None:
        content = features if key in features else tables["split_2"]
        content[key] = change(content[key])

    return apply


def _twin(features: Content, tables: dict[str, Content]) -> None:
    tables["split_2"] = tables["split_1"]


def _rows_from_0(features: Content, tables: dict[str, Content]) -> None:
    for key in ("trainval_loc", "test_seen_loc", "test_unseen_loc"):
        tables["split_2"][key] = tables["split_2"][key] - 1


SLIPS: dict[str, tuple[Callable[[Content, dict[str, Content]], None], tuple[str, ...]]] = {
    "another att in one split": (
        _set("att", lambda a: a[:, ::-1]),
        ("split_2", "another 'att' (4 x 5) than split_1/att_splits.mat", "open one split alone by its path"),
    ),
    "other names in one split": (
        _set("allclasses_names", lambda n: n[::-1]),
        ("split_2", "other class names than split_1/att_splits.mat"),
    ),
    "the same split twice": (_twin, ("split_2 holds the same split as split_1", "count it twice", "remove one")),
    "rows from 0": (_rows_from_0, ("split_2", "from 0 to 19", "counts pictures from 1 to 20", "add 1")),
    "rows beyond the videos": (
        _set("test_unseen_loc", lambda r: r + 20),
        ("split_2", "i3d.mat holds 20", "belong together"),
    ),
    "a row twice": (
        _set("test_seen_loc", lambda r: np.concatenate([r, r[:1]])),
        ("'test_seen' of split 'split_2'", "more than once"),
    ),
    "a training row of an unseen class": (
        _set("trainval_loc", lambda r: np.append(r, [[9]], axis=0)),
        ("split 'split_2'", "unseen classes have training rows"),
    ),
    "features in rows": (_set("features", np.transpose), ("i3d.mat are 20 x 6", "one row a picture", "transpose")),
    "labels from 0": (_set("labels", lambda y: y - 1), ("i3d.mat start at 0", "add 1")),
    "labels beyond att": (_set("labels", lambda y: y + 1), ("go up to 6", "has 5 columns")),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_are_explained_in_one_sentence(slip: str, tmp_path: Path) -> None:
    change, expected = SLIPS[slip]
    features, tables = videos(), {"split_1": table(1), "split_2": table(2)}
    change(features, tables)
    folder = write(tmp_path / "ucf101_i3d", features, tables)
    with pytest.raises(DataError) as caught:
        read_actions(folder)
    for part in (*expected, str(folder), "; "):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(folder: Path) -> None:
    (folder / "split_2" / "att_splits.mat").rename(folder / "att_splits.mat")
    with pytest.raises(DataError, match=r"split_2 has no att_splits\.mat; put the split file there or remove the folder"):
        open_dataset(str(folder))
    (folder / "i3d.mat").rename(folder / "features.mat")
    (folder / "att_splits.mat").unlink()
    with pytest.raises(DataError, match=r"has no i3d\.mat beside its splits; put the feature file there"):
        open_dataset(str(folder))
    with pytest.raises(DataError, match=r"is not a folder; give the folder that holds i3d\.mat and split_1"):
        read_actions(folder / "i3d.mat")
    for name in ("split_1", "split_2", "split_10"):
        (folder / name).rename(folder / f"old_{name}")
    (folder / "features.mat").rename(folder / "i3d.mat")
    with pytest.raises(DataError, match=r"has i3d\.mat but no split_1/att_splits\.mat; put each split file into a folder"):
        open_dataset(str(folder))


def test_thirty_splits_are_all_there(tmp_path: Path) -> None:
    """As many as the benchmarks have; each is drawn, so that no two are the same."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(1, 9), 3)
    tables = {}
    while len(tables) < 30:
        unseen = np.isin(labels, rng.permutation(8)[:3] + 1)
        test = ~unseen & (rng.random(24) < 0.3)
        rows = {"trainval_loc": ~unseen & ~test, "test_seen_loc": test, "test_unseen_loc": unseen}
        if not test.any() or len(np.unique(labels[rows["trainval_loc"]])) < 5:
            continue
        content: Content = {key: (np.flatnonzero(mask) + 1)[:, None] for key, mask in rows.items()}
        tables[f"split_{len(tables) + 1}"] = content | {"att": np.eye(8)}
    features = {"features": rng.random((4, 24), np.float32), "labels": labels[:, None]}
    found: Dataset = read_actions(write(tmp_path / "ucf101_i3d", features, tables))
    assert tuple(found.splits) == tuple(f"split_{k}" for k in range(1, 31))
    assert found.classes.names[0] == "class 1"
