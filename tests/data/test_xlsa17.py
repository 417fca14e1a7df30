"""The xlsa17 layout: the six real split files at full size, and every slip that we explain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from unseen import open_dataset
from unseen.data.known_splits import recognise
from unseen.data.xlsa17 import read_xlsa17
from unseen.errors import DataError

Content = dict[str, Any]

# The benchmarks as they are known: rows (train, test_seen, test_unseen), classes (seen, unseen), embedding length; then the
# feature length to simulate, and how the fingerprint of the split file begins (APY's follows from the labels made up below).
FACTS: dict[str, tuple[tuple[int, int, int], tuple[int, int], int, int, str]] = {
    "AWA1": ((19832, 4958, 5685), (40, 10), 85, 16, "3e78c711"),
    "AWA2": ((23527, 5882, 7913), (40, 10), 85, 16, "07b6030c"),
    "CUB": ((7057, 1764, 2967), (150, 50), 1024, 2048, "4ab816ad"),
    "SUN": ((10320, 2580, 1440), (645, 72), 102, 16, "6faa4100"),
    "FLO": ((5631, 1403, 1155), (82, 20), 1024, 16, "f7b0cc7b"),
    "APY": ((5932, 1483, 7924), (20, 12), 64, 16, "a72cd30b"),
}
LABELS = {
    "AWA1": "awa1-bow/labels.npy",
    "AWA2": "xlsa17-splits/AWA2/labels.npy",
    "CUB": "xlsa17-splits/CUB/labels_reconstructed_allclasses_order.npy",
    "SUN": "xlsa17-splits/SUN/labels_reconstructed.npy",
    "FLO": "xlsa17-splits/FLO/labels_reconstructed.npy",
}


def labels_of(name: str, shared_data: Path, table: Content) -> np.ndarray[Any, Any]:
    """The set's labels, counted from 1. APY has none: seen rows get classes 1…20 in turn, unseen ones 21…32."""
    if name in LABELS:
        return np.asarray(np.load(shared_data / LABELS[name]))
    seen = np.concatenate([table["trainval_loc"], table["test_seen_loc"]]).ravel().astype(int) - 1
    unseen = table["test_unseen_loc"].ravel().astype(int) - 1
    labels = np.zeros(len(seen) + len(unseen), np.uint8)
    labels[seen] = np.arange(len(seen)) % 20 + 1
    labels[unseen] = np.arange(len(unseen)) % 12 + 21
    return labels


@pytest.mark.parametrize("name", FACTS)
def test_the_six_benchmarks_at_full_size(name: str, tmp_path: Path, shared_data: Path) -> None:
    """The real split file and a feature file of the real size, through the real child process."""
    (split_file,) = (shared_data / "xlsa17-splits" / name).glob("*.mat")
    table = loadmat(split_file)
    labels = labels_of(name, shared_data, table)
    sizes, (seen, unseen), a, d, begins = FACTS[name]
    folder = tmp_path / name
    folder.mkdir()
    (folder / split_file.name).write_bytes(split_file.read_bytes())
    features = np.random.default_rng(0).random((d, len(labels)), np.float32)
    savemat(folder / "res101.mat", {"features": features, "labels": labels[:, None].astype(np.float64)})

    found = open_dataset(str(folder))

    split = found.split()
    assert found.name == name
    assert (len(split.train), len(split.test_seen), len(split.test_unseen)) == sizes
    assert (len(split.seen), len(split.unseen)) == (seen, unseen)
    assert found.classes.embeddings.shape == (seen + unseen, a)
    np.testing.assert_array_equal(found.classes.embeddings, table["att"].T)
    np.testing.assert_array_equal(found.features, features.T)
    np.testing.assert_array_equal(found.labels, labels.astype(np.int64) - 1)
    np.testing.assert_array_equal(split.train, table["trainval_loc"].ravel().astype(np.int64) - 1)
    assert {split.train.dtype, split.test_seen.dtype, split.test_unseen.dtype} == {np.dtype(np.int64)}
    stored = table.get("allclasses_names")
    if stored is None:
        assert found.classes.names[:2] == ("class 001", "class 002")
        assert found.classes.names[-1] == "class 102"
    else:
        assert found.classes.names == tuple(str(cell[0][0]) for cell in stored)
    assert split.name == f"{split_file.stem}-{begins}"
    assert split.fingerprint.startswith(begins)
    assert split.fingerprint[:16] in found.provenance.source
    assert recognise(found).startswith(f"same indices as {name} of xlsa17 split files as passed on in public repositories")


def test_train_loc_and_val_loc_of_real_files_would_leak(shared_data: Path) -> None:
    """The reason why the reader leaves them alone: together they are trainval_loc and test_seen_loc."""
    for name in FACTS:
        if name == "APY":
            continue
        (split_file,) = (shared_data / "xlsa17-splits" / name).glob("*.mat")
        table = {key: value.ravel() for key, value in loadmat(split_file).items() if key.endswith("_loc")}
        np.testing.assert_array_equal(
            np.union1d(table["train_loc"], table["val_loc"]), np.union1d(table["trainval_loc"], table["test_seen_loc"])
        )
        assert len(np.intersect1d(table["train_loc"], table["test_seen_loc"])) > 0


# --- a small benchmark, and what can be wrong with it


def small() -> tuple[Content, Content]:
    """Twelve pictures of four classes, classes 3 and 4 unseen: features (d=5, N=12), att (a=3, C=4), all counted from 1."""
    rng = np.random.default_rng(3)
    labels = np.repeat([1, 2, 3, 4], 3)[:, None]
    pictures = {"features": rng.random((5, 12), np.float32).astype(np.float64), "labels": labels.astype(np.float64)}
    rows = {"trainval_loc": [1, 2, 4, 5], "test_seen_loc": [3, 6], "test_unseen_loc": [7, 8, 9, 10, 11, 12]}
    table: Content = {key: np.array(value, np.uint16)[:, None] for key, value in rows.items()}
    table |= {"att": rng.random((3, 4)), "original_att": rng.random((3, 4)) * 100}
    table["allclasses_names"] = np.array(["ant", "bee", "cat", "dog"], dtype=object)[:, None]
    return pictures, table


def write(folder: Path, pictures: Content, table: Content, split_file: str = "att_splits.mat") -> Path:
    folder.mkdir(exist_ok=True)
    savemat(folder / "res101.mat", pictures)
    savemat(folder / split_file, table)
    return folder


def test_no_digit_is_lost(tmp_path: Path, quick_reader: None) -> None:
    pictures, table = small()
    assert read_xlsa17(write(tmp_path / "exact", pictures, table)).features.dtype == np.float32
    pictures["features"][2, 7] = 0.1  # no number of float32
    found = read_xlsa17(write(tmp_path / "tiny", pictures, table)).features
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, pictures["features"].T)
    pictures["features"][2, 7] = 1e39  # beyond float32, in which every method computes
    with pytest.raises(DataError, match="inf in row 7, column 2"):
        read_xlsa17(write(tmp_path / "beyond", pictures, table))


def test_a_file_of_the_folder_chooses(tmp_path: Path, quick_reader: None) -> None:
    pictures, table = small()
    folder = write(tmp_path / "tiny", pictures, table, "one_splits.mat")
    table["trainval_loc"] = np.array([[1], [4]], np.uint16)
    write(folder, pictures, table, "other_splits.mat")
    with pytest.raises(DataError, match=r"several split files .* and none is att_splits.mat; give the path of the one to use"):
        read_xlsa17(folder)
    assert read_xlsa17(folder / "one_splits.mat").split().train.tolist() == [0, 1, 3, 4]
    assert read_xlsa17(folder / "other_splits.mat").split().train.tolist() == [0, 3]
    assert read_xlsa17(folder, "other_splits.mat").split().train.tolist() == [0, 3]
    with pytest.raises(DataError, match="several split files"):
        read_xlsa17(folder / "res101.mat")


def test_a_small_benchmark_is_read_as_meant(tmp_path: Path, quick_reader: None) -> None:
    pictures, table = small()
    found = read_xlsa17(write(tmp_path / "tiny", pictures, table))
    assert found.name == "tiny"
    assert found.features.dtype == np.float32
    assert found.features.flags.c_contiguous
    np.testing.assert_array_equal(found.features, pictures["features"].T.astype(np.float32))
    np.testing.assert_array_equal(found.classes.embeddings, table["att"].T)
    assert found.classes.names == ("ant", "bee", "cat", "dog")
    assert found.split().train.tolist() == [0, 1, 3, 4]
    assert found.split().unseen.tolist() == [2, 3]


def test_optional_parts_make_no_difference(tmp_path: Path, quick_reader: None) -> None:
    """train_loc, val_loc, original_att and foreign variables are not read; the order of rows is no part of the split's name."""
    pictures, table = small()
    plain = read_xlsa17(write(tmp_path / "plain", pictures, table))
    more = table | {"train_loc": np.array([[1], [3]]), "val_loc": np.array([[4]]), "note": "x", "nested": {"a": 1}}
    more["trainval_loc"] = more["trainval_loc"][::-1].astype(np.float64).T
    del more["original_att"]
    other = read_xlsa17(write(tmp_path / "more", pictures | {"image_files": np.array(["a"], dtype=object)}, more))
    assert other.splits.keys() == plain.splits.keys()
    assert other.features_fingerprint == plain.features_fingerprint
    del table["allclasses_names"]
    unnamed = read_xlsa17(write(tmp_path / "unnamed", pictures, table))
    assert unnamed.classes.names == ("class 1", "class 2", "class 3", "class 4")


def test_another_split_gets_another_name(tmp_path: Path, quick_reader: None) -> None:
    pictures, table = small()
    one = read_xlsa17(write(tmp_path / "a", pictures, table))
    table["trainval_loc"], table["test_seen_loc"] = table["trainval_loc"][[0, 1, 2]], np.array([[3], [5], [6]], np.uint16)
    two = read_xlsa17(write(tmp_path / "a", pictures, table))
    assert one.splits.keys().isdisjoint(two.splits)


def test_binary_attributes_stored_as_whole_numbers_become_floats(tmp_path: Path, quick_reader: None) -> None:
    pictures, table = small()
    table["att"] = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0]], np.uint8)
    found = read_xlsa17(write(tmp_path / "a", pictures, table))
    assert found.classes.embeddings.dtype == np.float64
    np.testing.assert_array_equal(found.classes.embeddings, table["att"].T)


def test_the_sentence_split_file_is_found_alone_or_by_path(tmp_path: Path, quick_reader: None) -> None:
    pictures, table = small()
    folder = write(tmp_path / "CUB", pictures, table, "sent_splits.mat")
    assert open_dataset(str(folder)).split().name.startswith("sent_splits-")
    write(folder, pictures, table | {"att": table["att"] * 2})
    assert open_dataset(str(folder)).split().name.startswith("att_splits-")
    by_path = open_dataset(str(folder / "sent_splits.mat"))
    np.testing.assert_array_equal(by_path.classes.embeddings, table["att"].T)
    (folder / "att_splits.mat").rename(folder / "other_splits.mat")
    with pytest.raises(DataError, match=r"several split files \(other_splits.mat, sent_splits.mat\)"):
        open_dataset(str(folder))


def _set(part: str, key: str, change: Callable[[Any], Any]) -> Callable[[Content, Content], None]:
    def apply(pictures: Content, table: Content) -> None:
        content = pictures if part == "pictures" else table
        content[key] = change(content[key])

    return apply


def _zero_based_rows(pictures: Content, table: Content) -> None:
    for key in ("trainval_loc", "test_seen_loc", "test_unseen_loc"):
        table[key] = table[key] - 1


def _double_shift(pictures: Content, table: Content) -> None:
    """Rows counted from 0 in a set whose first picture is unused: every number is in range and wrong by one."""
    pictures["labels"] = np.array([1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4], float)[:, None]
    rows = {"trainval_loc": [2, 3, 5, 6], "test_seen_loc": [4, 7], "test_unseen_loc": [8, 9, 10, 11, 12]}
    table |= {key: np.array(value, np.uint16)[:, None] - 1 for key, value in rows.items()}


def _unnamed_transposed(pictures: Content, table: Content) -> None:
    del table["allclasses_names"]
    table["att"] = table["att"].T


def _delete(part: str, key: str) -> Callable[[Content, Content], None]:
    def apply(pictures: Content, table: Content) -> None:
        del (pictures if part == "pictures" else table)[key]

    return apply


def _with(row: int, column: int, value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = array.copy()
        array[row, column] = value
        return array

    return change


SLIPS: dict[str, tuple[Callable[[Content, Content], None], tuple[str, ...]]] = {
    "features in rows": (
        _set("pictures", "features", np.transpose),
        ("features in", "12 x 5", "one row a picture", "transpose"),
    ),
    "fewer features than labels": (
        _set("pictures", "features", lambda x: x[:, :9]),
        ("5 x 9", "12 labels", "one column for every label"),
    ),
    "labels from 0": (
        _set("pictures", "labels", lambda y: y - 1),
        ("labels in", "start at 0", "counts classes from 1", "add 1"),
    ),
    "labels beyond att": (
        _set("pictures", "labels", lambda y: y + 1),
        ("go up to 5", "has 4 columns", "belong together"),
    ),
    "labels with fractions": (_set("pictures", "labels", lambda y: y + 0.5), ("'labels'", "whole numbers")),
    "labels NaN": (_set("pictures", "labels", _with(3, 0, np.nan)), ("'labels'", "whole numbers")),
    "labels a table": (_set("pictures", "labels", lambda y: np.eye(4)), ("'labels'", "4 x 4", "a single column")),
    "labels as names": (
        _set("pictures", "labels", lambda y: np.array(["ant", "bee"], dtype=object)[:, None]),
        ("'labels'", "of numbers is expected"),
    ),
    "NaN feature": (_set("pictures", "features", _with(2, 7, np.nan)), ("features hold nan in row 7, column 2", "extract")),
    "feature beyond float32": (_set("pictures", "features", _with(2, 7, 1e300)), ("inf in row 7, column 2",)),
    "rows from 0": (_zero_based_rows, ("index arrays", "from 0 to 11", "counts pictures from 1 to 12", "add 1")),
    "rows off by one inside": (_double_shift, ("unseen classes have training rows", "1 was subtracted twice")),
    "rows beyond the pictures": (
        _set("table", "test_unseen_loc", lambda r: r + 1),
        ("name picture 13", "res101.mat holds 12", "belong together"),
    ),
    "rows twice": (
        _set("table", "trainval_loc", lambda r: np.concatenate([r, r[:1]])),
        ("'train'", "row 0 more than once"),
    ),
    "rows in two arrays": (
        _set("table", "test_seen_loc", lambda r: np.array([[1], [3], [6]], np.uint16)),
        ("row 0", "both 'train' and 'test_seen'"),
    ),
    "unseen class in training": (
        _set("table", "trainval_loc", lambda r: np.append(r, [[9]], axis=0)),
        ("1 unseen classes have training rows", "'cat'", "correct the split"),
    ),
    "no rows": (_set("table", "test_unseen_loc", lambda r: r[:0]), ("'test_unseen_loc'", "0 x", "of numbers is expected")),
    "att in rows": (
        _set("table", "att", np.transpose),
        ("names 4 classes", "'att' is 4 x 3", "looks transposed", "one column a class"),
    ),
    "att in rows, unnamed": (_unnamed_transposed, ("'att'", "4 x 3", "one row a class", "transpose it")),
    "names too few": (
        _set("table", "allclasses_names", lambda n: n[:2]),
        ("names 2 classes", "'att' is 3 x 4", "one name"),
    ),
    "names are numbers": (
        _set("table", "allclasses_names", lambda n: np.eye(4)),
        ("'allclasses_names'", "cell array of strings"),
    ),
    "names twice": (
        _set("table", "allclasses_names", lambda n: np.array(["ant", "Bee", "bee ", "dog"], dtype=object)[:, None]),
        ("'Bee' and 'bee'", "same name"),
    ),
    "zero embedding": (_set("table", "att", lambda a: a * [1, 1, 1, 0]), ("'dog'", "all zero")),
    "no att": (_delete("table", "att"), ("att_splits.mat lacks 'att'", "expected att, trainval_loc", "found allclasses_names")),
    "no labels": (_delete("pictures", "labels"), ("res101.mat lacks 'labels'", "found features")),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_are_explained_in_one_sentence(slip: str, tmp_path: Path, quick_reader: None) -> None:
    change, expected = SLIPS[slip]
    pictures, table = small()
    change(pictures, table)
    folder = write(tmp_path / "tiny", pictures, table)
    with pytest.raises(DataError) as caught:
        read_xlsa17(folder)
    for part in (*expected, str(folder), "; "):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_uint16_rows_in_a_set_too_large_for_them_are_refused(tmp_path: Path, quick_reader: None) -> None:
    """MATLAB cuts 70,000 off at 65,535 without a word."""
    count = 70_000
    labels = np.where(np.arange(count) < 60_000, 1, 2)[:, None]
    rows = {"trainval_loc": np.arange(1, 50_001), "test_seen_loc": np.arange(50_001, 60_001), "test_unseen_loc": [65_535]}
    table: Content = {key: np.array(value, np.uint16)[:, None] for key, value in rows.items()} | {"att": np.eye(2)}
    folder = write(tmp_path / "large", {"features": np.ones((1, count), np.float32), "labels": labels}, table)
    with pytest.raises(DataError, match=r"'trainval_loc' in .* is stored as uint16, too narrow to count 70000 pictures"):
        read_xlsa17(folder)


def test_a_number_that_is_none_is_not_blamed_on_the_split_file(tmp_path: Path, quick_reader: None) -> None:
    pictures, table = small()
    pictures["features"][1, 3] = np.nan
    table["trainval_loc"] = table["trainval_loc"][:-1]  # one row unused, as in many public files
    with pytest.raises(DataError, match=r"nan in row 3, column 1[^(]*$"):
        read_xlsa17(write(tmp_path / "tiny", pictures, table))


def test_files_of_two_sets_are_suspected(tmp_path: Path, quick_reader: None) -> None:
    """AWA1's split file beside AWA2's features: every number is in range, and nothing fits."""
    pictures, table = small()
    pictures["features"] = np.random.default_rng(0).random((5, 14), np.float32)
    pictures["labels"] = np.repeat([1, 2, 3, 4], [5, 3, 3, 3])[:, None]
    folder = write(tmp_path / "mixed", pictures, table)
    with pytest.raises(
        DataError, match=r"names 12 of the 14 pictures in res101\.mat: check that the two files belong together"
    ):
        read_xlsa17(folder)


def test_missing_files_and_folders(tmp_path: Path, quick_reader: None) -> None:
    pictures, table = small()
    folder = write(tmp_path / "tiny", pictures, table)
    (folder / "notes").touch()
    with pytest.raises(DataError, match=r"notes is not a folder; give the folder that holds"):
        read_xlsa17(folder / "notes")
    (folder / "notes").unlink()
    (folder / "res101.mat").unlink()
    with pytest.raises(DataError, match=r"has no res101\.mat \(found att_splits\.mat\); put the feature file there"):
        open_dataset(str(folder))
    (folder / "res101.mat").mkdir()
    with pytest.raises(DataError, match=r"res101\.mat is a folder where a MATLAB file is expected"):
        read_xlsa17(folder)
    (folder / "att_splits.mat").unlink()
    with pytest.raises(DataError, match=r"has no att_splits\.mat \(found res101\.mat\)"):
        read_xlsa17(folder)


def test_what_the_features_are_is_unknown_until_somebody_says_so(tmp_path: Path, quick_reader: None) -> None:
    pictures, table = small()
    folder = write(tmp_path / "tiny", pictures, table)
    silent = read_xlsa17(folder)
    assert silent.provenance.feature_extractor == "unknown; res101.mat, 5 values a picture"
    assert silent.provenance.embedding_source == "att of att_splits.mat, 3 values a class, as stored"
    assert silent.provenance.licence == "unknown"
    (folder / "provenance.json").write_text('{"feature_extractor": "ResNet-101, not fine-tuned", "licence": "research use"}')
    told = read_xlsa17(folder)
    assert told.provenance.feature_extractor == "ResNet-101, not fine-tuned; res101.mat, 5 values a picture"
    assert told.provenance.licence == "research use"
    assert told.provenance.embedding_source == silent.provenance.embedding_source
    assert told.features_fingerprint == silent.features_fingerprint
    assert told.splits.keys() == silent.splits.keys()


@pytest.mark.parametrize(
    "content",
    [
        '{"features": "ResNet"}',
        '{"licence": 3}',
        '{"licence": " "}',
        '{"licence": "a\\nb"}',
        '{"embedding_source": "x"}',
        "no JSON",
    ],
)
def test_a_wrong_provenance_is_one_sentence(content: str, tmp_path: Path, quick_reader: None) -> None:
    folder = write(tmp_path / "tiny", *small())
    (folder / "provenance.json").write_text(content)
    with pytest.raises(DataError, match=r"provenance\.json (may say feature_extractor and licence|is damaged)") as caught:
        read_xlsa17(folder)
    assert "\n" not in str(caught.value)
