"""E-PGN's layout: a small data set read as meant, and every slip that we explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from unseen import open_dataset
from unseen.data.dataset import Provenance
from unseen.data.epgn import has_epgn_features, read_epgn
from unseen.data.writing import write_dataset
from unseen.errors import DataError

pytestmark = pytest.mark.usefixtures("quick_reader")

Content = dict[str, Any]

SEEN, UNSEEN = [1, 3, 4], [2, 5]
"""Rows of `attribute`, counted from 1."""


def small() -> tuple[Content, Content]:
    """Five classes, 2 and 5 unseen: seven training pictures, five of seen and four of unseen classes to test, d = 6, a = 3."""
    rng = np.random.default_rng(3)
    attribute = rng.normal(size=(5, 3))
    sizes = {"train_fea": 7, "test_seen_fea": 5, "test_unseen_fea": 4}
    data: Content = {key: 40 * rng.normal(size=(count, 6)) for key, count in sizes.items()}
    data |= {"attribute": attribute, "seen_pro": attribute[np.array(SEEN) - 1], "unseen_pro": attribute[np.array(UNSEEN) - 1]}
    label: Content = {
        "train_idx": np.array([2, 1, 3, 3, 1, 2, 1], np.uint8)[:, None],  # rows of seen_pro
        "test_seen_idex": np.array([4, 1, 3, 3, 1], np.uint16)[:, None],  # rows of attribute, as are those of
        "test_unseen_idex": np.array([5, 2, 2, 5], float)[None],
        "train_label_new": np.zeros((7, 3)),
    }
    data["att_train"] = data["seen_pro"][label["train_idx"][:, 0].astype(int) - 1]
    return data, label


def write(folder: Path, data: Content, label: Content) -> Path:
    folder.mkdir(exist_ok=True)
    savemat(folder / "data.mat", data)
    savemat(folder / "label.mat", label)
    return folder


def test_every_picture_meets_the_prototype_that_its_users_give_it(tmp_path: Path) -> None:
    """Against the labels as their users read them, picture by picture."""
    data, label = small()
    found = open_dataset(str(write(tmp_path / "FLO", data, label)))
    split, names = found.split(), found.classes.names
    assert found.name == "FLO"
    assert names == ("class 1", "class 3", "class 4", "class 2", "class 5")
    assert (split.seen.tolist(), split.unseen.tolist()) == ([0, 1, 2], [3, 4])
    assert split.name == f"epgn-{split.fingerprint[:8]}"

    for k, row in enumerate(split.train):
        np.testing.assert_array_equal(found.features[row], data["train_fea"][k].astype(np.float32))  # as stored, unscaled
        np.testing.assert_array_equal(found.classes.embeddings[found.labels[row]], data["att_train"][k])
    for part, rows in (("seen", split.test_seen), ("unseen", split.test_unseen)):
        for k, row in enumerate(rows):
            class_id = int(label[f"test_{part}_idex"].ravel()[k])
            np.testing.assert_array_equal(found.features[row], data[f"test_{part}_fea"][k].astype(np.float32))
            np.testing.assert_array_equal(found.classes.embeddings[found.labels[row]], data["attribute"][class_id - 1])
            assert names[found.labels[row]] == f"class {class_id}"
    assert found.features.dtype == np.float32
    assert found.provenance.feature_extractor == "unknown; data.mat of E-PGN, 6 values a picture"
    assert found.provenance.embedding_source == "seen_pro and unseen_pro of data.mat, 3 values a class, as stored"


@pytest.mark.parametrize("typed", ["", "data.mat", "label.mat"])
def test_the_folder_or_either_file_opens_it(typed: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "CUB", *small())
    assert open_dataset(str(folder / typed)).splits.keys() == read_epgn(folder).splits.keys()


def test_what_nobody_needs_may_be_missing(tmp_path: Path) -> None:
    data, label = small()
    whole = read_epgn(write(tmp_path / "whole", data, label))
    for key in ("attribute", "att_train"):
        del data[key]
    del label["train_label_new"]
    bare = read_epgn(write(tmp_path / "bare", data, label))
    assert bare.features_fingerprint == whole.features_fingerprint
    assert bare.embeddings_fingerprint == whole.embeddings_fingerprint
    assert bare.splits.keys() == whole.splits.keys()


def test_a_table_of_all_classes_in_other_units_proves_nothing(tmp_path: Path) -> None:
    data, label = small()
    data["attribute"] = data["attribute"][::-1] * 2
    assert len(read_epgn(write(tmp_path / "a", data, label)).classes) == 5


def test_the_provenance_is_told_beside_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", *small())
    (folder / "provenance.json").write_text('{"feature_extractor": "ResNet-101, fine-tuned", "licence": "research use"}')
    told = read_epgn(folder).provenance
    assert (told.feature_extractor, told.licence) == (
        "ResNet-101, fine-tuned; data.mat of E-PGN, 6 values a picture",
        "research use",
    )


def test_it_is_known_again_after_a_conversion(tmp_path: Path) -> None:
    """A preset for these features is for no others, and the other way round."""
    found = read_epgn(write(tmp_path / "FLO", *small()))
    assert has_epgn_features(found)
    write_dataset(found, tmp_path / "flo.npz")
    with pytest.warns(UserWarning, match="has no place for"):
        write_dataset(found, tmp_path / "again", to="xlsa17")
    for name in ("flo.npz", "again"):
        assert has_epgn_features(open_dataset(str(tmp_path / name)))
    assert not has_epgn_features(replace(found, provenance=Provenance("data.mat", "ResNet-101; res101.mat", "E-PGN")))


def _set(key: str, change: Callable[[Any], Any]) -> Callable[[Content, Content], None]:
    def apply(data: Content, label: Content) -> None:
        content = data if key in data else label
        content[key] = change(content[key])

    return apply


def _delete(key: str) -> Callable[[Content, Content], None]:
    def apply(data: Content, label: Content) -> None:
        del (data if key in data else label)[key]

    return apply


def _nan(x: Any) -> Any:
    x = x.copy()
    x[1, 2] = np.nan
    return x


SLIPS: dict[str, tuple[Callable[[Content, Content], None], tuple[str, ...]]] = {
    "features in columns": (
        _set("train_fea", np.transpose),
        ("'train_fea'", "6 x 7 for 7 labels", "one column a picture", "transpose it"),
    ),
    "fewer features than labels": (
        _set("test_seen_fea", lambda x: x[:3]),
        ("'test_seen_fea'", "3 x 6 for 5 labels", "belong together"),
    ),
    "features of two lengths": (
        _set("test_unseen_fea", lambda x: x[:, :4]),
        ("[6, 6, 4] values a picture", "give all the same"),
    ),
    "embeddings of two lengths": (
        _set("unseen_pro", lambda x: x[:, :2]),
        ("'seen_pro' has 3 values a class and 'unseen_pro' 2", "same embedding"),
    ),
    "training labels from 0": (_set("train_idx", lambda y: y - 1), ("'train_idx'", "from 0 to 2", "from 1 to 3")),
    "training labels of all classes": (
        _set("train_idx", lambda y: np.array(SEEN)[y.astype(int) - 1]),
        ("'train_idx'", "from 1 to 4", "counts the rows of 'seen_pro' from 1 to 3"),
    ),
    "test labels from 0": (
        _set("test_seen_idex", lambda y: y - 1),
        ("'test_seen_idex'", "starts at 0", "counts classes from 1", "add 1"),
    ),
    "a seen class without a test picture": (
        _set("test_seen_idex", lambda y: np.array([4, 1, 1, 1, 1])),
        ("names 2 classes", "'seen_pro' in data.mat has 3 rows", "nothing says which row is whose"),
    ),
    "unseen_pro in columns": (
        _set("unseen_pro", np.transpose),
        ("'unseen_pro'", "same embedding"),
    ),
    "unseen labels count anew": (
        _set("test_unseen_idex", lambda y: np.array([2, 1, 1, 2])),
        ("class 1 is in both", "a row of its own"),
    ),
    "prototypes in another order": (
        _set("seen_pro", lambda x: x[[1, 0, 2]]),
        ("row 1 of 'seen_pro' and 'unseen_pro'", "row 3 of 'attribute'", "make it class 1", "order of the labels"),
    ),
    "labels with fractions": (_set("train_idx", lambda y: y + 0.5), ("'train_idx'", "whole numbers")),
    "labels one-hot": (_set("train_idx", lambda y: np.eye(7)), ("'train_idx'", "7 x 7", "a single column")),
    "labels as names": (
        _set("train_idx", lambda y: np.array(["ant", "bee"], dtype=object)[:, None]),
        ("'train_idx'", "of numbers is expected"),
    ),
    "NaN feature": (_set("test_seen_fea", _nan), ("features hold nan in row 8, column 2",)),
    "two classes alike": (
        _set("seen_pro", lambda x: x[[0, 0, 2]]),
        ("identical embeddings", "tell them apart"),
    ),
    "no seen_pro": (_delete("seen_pro"), ("data.mat lacks 'seen_pro'", "expected train_fea")),
    "no train_idx": (_delete("train_idx"), ("label.mat lacks 'train_idx'", "found test_seen_idex")),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_are_explained_in_one_sentence(slip: str, tmp_path: Path) -> None:
    change, expected = SLIPS[slip]
    data, label = small()
    if slip == "two classes alike":
        del data["attribute"]
    change(data, label)
    folder = write(tmp_path / "tiny", data, label)
    with pytest.raises(DataError) as caught:
        read_epgn(folder)
    for part in (*expected, str(folder), "; "):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["data.mat", "label.mat"])
def test_a_file_that_is_missing_or_damaged(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny", *small())
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 3])
    with pytest.raises(DataError, match=rf"{name} is damaged or is not a MATLAB file"):
        open_dataset(str(folder))
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"has no {name}; put it beside (data|label)\.mat"):
        open_dataset(str(folder))
    with pytest.raises(DataError, match=r"is not a folder; give the folder that holds data\.mat and label\.mat"):
        read_epgn(folder / "none")
