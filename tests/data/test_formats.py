"""Every format both ways: what comes back is what was written, and every dialect or damage has its sentence."""

from __future__ import annotations

import csv
import json
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from scipy.io import loadmat

from unseen.data import ClassTable, Dataset, Provenance, Split, open_dataset
from unseen.data import npz as npz_module
from unseen.data.npz import read_npz, write_npz
from unseen.data.opening import find_dataset
from unseen.data.writing import FORMATS, write_dataset
from unseen.errors import DataError, MissingDependency, SettingsError
from unseen.storage import FORMULA, read_arrays, stream_arrays

Change = Callable[[Path], None]
WHOLE = ("native", "npz", "safetensors", "csv", "parquet")
SUFFIX = {"npz": ".npz", "safetensors": ".safetensors", "csv": ".csv", "parquet": ".parquet"}


@pytest.fixture
def several(tiny: Dataset) -> Dataset:
    """The tiny data set without pictures, with a second split that calls a class unseen without having a row of it."""
    empty = np.array([], np.int64)
    second = Split("a <b>/../\n"[:-1], np.array([4, 3]), np.array([5]), empty, np.array([1]), np.array([3, 0]))
    return replace(tiny, pictures=None, splits={**tiny.splits, second.name: second})


def write(dataset: Dataset, folder: Path, to: str, **options: Any) -> Path:
    path = folder / f"d{SUFFIX.get(to, '')}"
    write_dataset(dataset, path, to, **options)
    return path


def assert_same(found: Dataset, expected: Dataset) -> None:
    """Everything, to the last bit, the dtype and the order of rows."""
    for one, other in (
        (found.features, expected.features),
        (found.labels, expected.labels),
        (found.classes.embeddings, expected.classes.embeddings),
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    for part in ("names", "descriptions", "groups"):
        assert getattr(found.classes, part) == getattr(expected.classes, part)
    assert list(found.splits) == list(expected.splits)
    for name, split in expected.splits.items():
        for part in ("train", "test_seen", "test_unseen", "seen", "unseen"):
            np.testing.assert_array_equal(getattr(found.splits[name], part), getattr(split, part))
        assert found.splits[name].by_group == split.by_group
    assert (found.name, found.provenance) == (expected.name, expected.provenance)
    assert found.attributions == expected.attributions
    assert found.paths == expected.paths
    assert (found.pictures is None) == (expected.pictures is None)
    if found.pictures is not None and expected.pictures is not None:
        assert found.pictures.sheet == expected.pictures.sheet
        assert found.pictures.rows.tolist() == expected.pictures.rows.tolist()
        assert found.pictures.media_type == expected.pictures.media_type


# --- both ways


@pytest.mark.parametrize("to", WHOLE)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_whole_data_set_comes_back(several: Dataset, tmp_path: Path, to: str, dtype: str) -> None:
    table = replace(several.classes, embeddings=several.classes.embeddings.astype(dtype))
    written = replace(several, features=several.features.astype(dtype), classes=table)
    assert_same(open_dataset(str(write(written, tmp_path, to))), written)


HOSTILE_PATHS = ("=1+1", "'x", "a,b", 'c"', " d ", "ü/鳥.png", "-rf", "../e", "f\ng", "", "h\ti", "a\udcff.png")


@pytest.mark.parametrize("to", WHOLE)
def test_paths_come_back_or_are_named(several: Dataset, tmp_path: Path, to: str) -> None:
    as_text = replace(several, paths=(*HOSTILE_PATHS[:-1], "j"))
    assert_same(open_dataset(str(write(as_text, tmp_path, to))), as_text)
    as_bytes = replace(several, paths=HOSTILE_PATHS)
    tables = to in ("csv", "parquet")
    with pytest.warns(UserWarning, match="no place for paths that are no text") if tables else nullcontext():
        path = write(as_bytes, tmp_path / "again", to)
    assert open_dataset(str(path)).paths == (() if tables else HOSTILE_PATHS)


def test_paths_as_people_write_them_in_npz(several: Dataset, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **plain(several), paths=np.array([f"{k}.jpg" for k in range(12)]))
    assert open_dataset(str(tmp_path / "d.npz")).paths[11] == "11.jpg"
    for wrong, said in ((np.arange(12), "its paths are numbers"), (np.array(["x"]), "12 rows but 1 paths")):
        np.savez(tmp_path / "d.npz", **plain(several), paths=wrong)
        with pytest.raises(DataError, match=said):
            open_dataset(str(tmp_path / "d.npz"))


@pytest.mark.parametrize("to", ["npz", "safetensors"])
def test_pictures_come_back_from_one_file(tiny: Dataset, tmp_path: Path, to: str) -> None:
    assert_same(open_dataset(str(write(tiny, tmp_path, to))), tiny)


@pytest.mark.parametrize("to", ["csv", "parquet"])
def test_pictures_that_tables_cannot_hold_are_named(tiny: Dataset, tmp_path: Path, to: str) -> None:
    with pytest.warns(UserWarning, match="no place for the pictures for reports; they were left out"):
        path = write(tiny, tmp_path, to)
    assert_same(open_dataset(str(path)), replace(tiny, pictures=None))


@pytest.mark.parametrize("to", ["npz", "safetensors"])
def test_features_stay_on_disk(several: Dataset, tmp_path: Path, to: str) -> None:
    found = open_dataset(str(write(several, tmp_path, to)))
    assert isinstance(found.features, np.memmap) or isinstance(found.features.base, np.memmap)
    # and are written from there without having been read whole
    assert_same(open_dataset(str(write(found, tmp_path / "again", "native"))), several)


def test_the_same_data_make_the_same_bytes(several: Dataset, tmp_path: Path) -> None:
    for to in ("npz", "safetensors", "csv"):
        first, second = write(several, tmp_path / "1", to), write(several, tmp_path / "2", to)
        for one, other in zip(sorted(first.rglob("*")) or [first], sorted(second.rglob("*")) or [second], strict=True):
            assert one.read_bytes() == other.read_bytes()


def test_numpy_alone_reads_what_npz_holds(several: Dataset, tmp_path: Path) -> None:
    with np.load(write(several, tmp_path, "npz"), allow_pickle=False) as found:
        np.testing.assert_array_equal(found["features"], several.features)
        assert found["class_names"].tolist() == list(several.classes.names)
        np.testing.assert_array_equal(found["split0.train"], several.splits["only"].train)


def test_what_is_streamed_is_what_the_library_writes(several: Dataset, tmp_path: Path) -> None:
    arrays = {"x": several.features, "y": np.arange(3, dtype=np.uint8), "z": np.eye(2, dtype=">f8"), "e": np.zeros((0, 2))}
    stream_arrays(tmp_path / "ours", arrays, {"note": "ä"})
    save_file(
        {k: np.ascontiguousarray(v, v.dtype.newbyteorder("<")) for k, v in arrays.items()}, tmp_path / "theirs", {"note": "ä"}
    )
    ours, theirs = load_file(tmp_path / "ours"), load_file(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
    assert read_arrays(tmp_path / "ours")[1] == {"note": "ä"}


HOSTILE = [
    "=1+1",
    "'=1",
    "''@x",
    "-x",
    "+1",
    'a,"b";c',
    "'plain",
    "a'b",
    '"',
    "x\ty",
    "ünï 鳥 🐕",
    "<script>",
    "3",
    ",",
    "a\rb",
    "a\nb",
]
printable = st.text(min_size=1, max_size=9).filter(lambda t: t.strip() and t.isprintable())
free = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
single = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("to", WHOLE)
def test_hostile_names_and_extreme_numbers_come_back(to: str) -> None:
    """Formulas, quotes, line breaks, 5e-324 and -0.0: to the last character and bit."""

    @settings(max_examples=15, deadline=None)
    @given(
        st.lists(st.one_of(st.sampled_from([t for t in HOSTILE if t.isprintable()]), printable), min_size=2, max_size=2),
        st.lists(st.one_of(st.sampled_from(HOSTILE), free), min_size=2, max_size=2),
        st.lists(single, min_size=6, max_size=6),
        st.lists(st.floats(-1e38, 1e38), min_size=2, max_size=2),
    )
    def check(names: list[str], texts: list[str], features: list[float], values: list[float]) -> None:
        names = [f"{names[0]}1", f"{names[1]}2"]
        written = Dataset(
            name=names[0],
            features=np.array(features, np.float32).reshape(3, 2),
            labels=np.array([0, 0, 1]),
            classes=ClassTable(tuple(names), np.array([[values[0], 1.0], [values[1], 2.0]]), tuple(texts), tuple(texts[::-1])),
            splits={names[1]: Split.from_rows(names[1], np.array([0, 0, 1]), np.array([1]), np.array([0]), np.array([2]))},
            provenance=Provenance(source=texts[0], licence=names[1]),
        )
        with tempfile.TemporaryDirectory() as folder:
            assert_same(open_dataset(str(write(written, Path(folder), to))), written)

    check()


def test_no_cell_of_a_csv_is_a_formula(several: Dataset, tmp_path: Path) -> None:
    names = ("=1+1", "-bee", "@cat", "+dog")
    written = replace(
        several, classes=replace(several.classes, names=names, descriptions=names, groups=("=a", "=a", "=b", "=b"))
    )
    folder = write(written, tmp_path, "csv")
    for path in folder.glob("*.csv"):
        with path.open(newline="") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert not [
            c for c in cells if FORMULA.match(c) and not c.startswith("'") and not c.lstrip("-+.").replace(".", "").isdigit()
        ]
    assert open_dataset(str(folder)).classes.names == names


# --- xlsa17


def test_xlsa17_has_what_public_loaders_index(several: Dataset, tmp_path: Path) -> None:
    """The lines that every loader has: subtract 1, squeeze, index; a row number that is no integer would stop there."""
    one = replace(several, splits={"only": several.splits["only"]})
    with pytest.warns(UserWarning, match="no place for descriptions, groups, which splits are by group"):
        folder = write(one, tmp_path, "xlsa17")
    pictures, table = loadmat(folder / "res101.mat"), loadmat(folder / "att_splits.mat")
    assert pictures["features"].dtype == pictures["features"].dtype == table["att"].dtype == np.float64
    assert pictures["features"].shape == (5, 12)
    assert (pictures["labels"].shape, pictures["image_files"].shape) == ((12, 1), (12, 1))
    feature, label = pictures["features"].T, pictures["labels"].astype(int).squeeze() - 1
    np.testing.assert_array_equal(feature.astype(np.float32), one.features)
    np.testing.assert_array_equal(label, one.labels)
    np.testing.assert_array_equal(table["att"].T, one.classes.embeddings)
    assert [str(cell[0][0]) for cell in table["allclasses_names"]] == list(one.classes.names)
    for key, rows in (
        ("trainval", one.split().train),
        ("test_seen", one.split().test_seen),
        ("test_unseen", one.split().test_unseen),
    ):
        stored = table[f"{key}_loc"]
        assert (stored.dtype, stored.shape) == (np.uint16, (len(rows), 1))
        np.testing.assert_array_equal(feature[stored.squeeze() - 1], one.features[rows])
    train, val = (table[key].ravel().astype(int) - 1 for key in ("train_loc", "val_loc"))
    assert sorted([*train, *val]) == sorted(one.split().train)
    assert not set(label[train]) & set(label[val])
    assert len(val) > 0 < len(train)


def test_xlsa17_names_the_files_of_rows_where_they_are_known(several: Dataset, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="paths for our own reader, though image_files has them"):
        folder = write(replace(several, paths=HOSTILE_PATHS), tmp_path, "xlsa17", split="only")
    stored = [str(cell[0][0]) if cell[0].size else "" for cell in loadmat(folder / "res101.mat")["image_files"]]
    assert stored == [*HOSTILE_PATHS[:-1], "a\\udcff.png"]


def test_xlsa17_reads_back_identical(several: Dataset, tmp_path: Path, quick_reader: None) -> None:
    with pytest.warns(UserWarning, match="xlsa17 layout has no place"):
        folder = write(several, tmp_path, "xlsa17", split="only")
    found = Dataset.from_xlsa17(folder)
    assert found.features_fingerprint == several.features_fingerprint
    np.testing.assert_array_equal(found.labels, several.labels)
    np.testing.assert_array_equal(found.classes.embeddings, several.classes.embeddings)
    assert found.classes.names == several.classes.names
    assert found.split().fingerprint == several.splits["only"].fingerprint
    np.testing.assert_array_equal(found.split().train, several.splits["only"].train)
    assert found.provenance.feature_extractor == "none; res101.mat, 5 values a picture"
    assert Dataset.load(folder).features_fingerprint == found.features_fingerprint
    with pytest.warns(UserWarning, match="the source of data and embeddings and the name of the split; they were"):
        again = write(found, tmp_path / "again", "xlsa17")
    for name in ("res101.mat", "att_splits.mat"):
        first, second = loadmat(folder / name), loadmat(again / name)
        for key in (key for key in first if key[0] != "_"):
            np.testing.assert_array_equal(first[key], second[key])


def test_several_splits_become_several_files(tiny: Dataset, tmp_path: Path, quick_reader: None) -> None:
    """Their names are a stranger's and become no path."""
    only = tiny.splits["only"]
    splits = {name: replace(only, name=name) for name in ("../a/b", ".._a_b", "A:B", "a?b", "=x")}
    with pytest.warns(UserWarning, match="no place for"):
        folder = write(replace(tiny, splits=splits), tmp_path, "xlsa17")
    assert sorted(entry.name for entry in folder.iterdir() if entry.name.endswith("_splits.mat")) == [
        "A_B_3_splits.mat", "_a_b_1_splits.mat", "_a_b_2_splits.mat", "_x_splits.mat", "a_b_4_splits.mat"
    ]  # fmt: skip
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]
    assert open_dataset(str(folder / "_x_splits.mat")).split().fingerprint == only.fingerprint


def test_what_xlsa17_cannot_hold_at_all_is_refused(several: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no test_unseen row, and loaders .* nothing was written"):
        write(several, tmp_path, "xlsa17")
    large = replace(several, features=np.broadcast_to(np.float32(0), (2**17, 2**12)), labels=np.resize(several.labels, 2**17))
    with pytest.raises(DataError, match=r"131,072 rows of 4,096 features take 4.3 GB .* convert to .npz or .safetensors"):
        write(large, tmp_path, "xlsa17", split="only")
    assert list(tmp_path.iterdir()) == []


# --- what is typed


def test_formats_follow_from_the_suffix_and_contradictions_are_sentences(several: Dataset, tmp_path: Path) -> None:
    for name, found in (("a.npz", "one .npz file"), ("b.csv", "csv tables"), ("c", "unseen's own format")):
        write_dataset(several, tmp_path / name)
        assert found in find_dataset(str(tmp_path / name)).found
    for name, to, said in (
        ("x.npz", "csv", "ends with .npz, and csv was asked for"),
        ("x", "npz", "give it a name that ends with .npz"),
        ("x", "mat", r"no format 'mat'; it is one of native, xlsa17"),
        ("x.mat", None, "give a folder and --to xlsa17"),
        ("x.h5", None, r"x\.h5 ends with \.h5, which no format has; .* a folder of that name is written with --to native"),
        ("x.ZIP", None, r"ends with \.ZIP, which no format has"),
    ):
        with pytest.raises(SettingsError, match=said):
            write_dataset(several, tmp_path / name, to)
    with pytest.raises(SettingsError, match="has no split 'none'"):
        write_dataset(several, tmp_path / "x.npz", split="none")
    assert not (tmp_path / "x").exists()
    write_dataset(several, tmp_path / "mine.v2", "native")
    write_dataset(several, tmp_path / "mine.2024")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.npz", "b.csv", "c", "mine.2024", "mine.v2"]


@pytest.mark.parametrize("to", [to for to in FORMATS if to != "native"])
def test_nothing_is_overwritten(several: Dataset, tmp_path: Path, to: str) -> None:
    path = tmp_path / f"d{SUFFIX.get(to, '')}"
    path.write_text("precious")
    with pytest.raises(DataError, match="exists; choose another name or remove it, nothing was written"):
        write(several, tmp_path, to)
    assert path.read_text() == "precious"


def test_another_data_set_is_not_replaced_and_the_same_one_is_written_again(several: Dataset, tmp_path: Path) -> None:
    path = write(several, tmp_path, "native")
    before = {entry.name: entry.read_bytes() for entry in path.iterdir()}
    changes: tuple[dict[str, Any], ...] = (
        {"features": several.features + 1},
        {"name": "other"},
        {"provenance": Provenance(source="elsewhere")},
        {"splits": {"only": several.splits["only"]}},
        {"paths": ()} if several.paths else {"paths": tuple(map(str, range(len(several.labels))))},
    )
    for change in changes:
        with pytest.raises(DataError, match="d holds another data set; choose another name or remove it, nothing was written"):
            write(replace(several, **change), tmp_path, "native")
        assert {entry.name: entry.read_bytes() for entry in path.iterdir()} == before
    write(open_dataset(str(path)), tmp_path, "native")
    assert {entry.name: entry.read_bytes() for entry in path.iterdir()} == before


def test_one_split_of_several(several: Dataset, tmp_path: Path) -> None:
    assert list(open_dataset(str(write(several, tmp_path, "npz", split="only"))).splits) == ["only"]


# --- dialects that are read


def plain(several: Dataset) -> dict[str, Any]:
    split = several.splits["only"]
    arrays = {"features": several.features, "labels": several.labels, "embeddings": several.classes.embeddings}
    return arrays | {part: getattr(split, part) for part in ("train", "test_seen", "test_unseen")}


def _name_labels(arrays: dict[str, Any], several: Dataset) -> None:
    arrays["class_names"] = np.array(several.classes.names)
    arrays["labels"] = np.array([several.classes.names[i] for i in several.labels])


def _masks(arrays: dict[str, Any], several: Dataset) -> None:
    for part in ("train", "test_seen", "test_unseen"):
        arrays[part] = np.isin(np.arange(12), arrays[part])


NPZ_DIALECTS: dict[str, Callable[[dict[str, Any], Dataset], object]] = {
    "ids and rows": lambda arrays, several: None,
    "names as labels": _name_labels,
    "boolean masks": _masks,
    "a column of labels": lambda arrays, several: arrays.update(labels=arrays["labels"][:, None].astype(np.float64)),
    "binary attributes": lambda arrays, several: arrays.update(embeddings=np.eye(4, dtype=np.uint8)),
    "big-endian": lambda arrays, several: arrays.update(features=arrays["features"].astype(">f4")),
    "columns first": lambda arrays, several: arrays.update(features=np.asfortranarray(arrays["features"])),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dialect", NPZ_DIALECTS)
def test_npz_as_people_write_it(several: Dataset, tmp_path: Path, dialect: str, compressed: bool) -> None:
    arrays = plain(several)
    NPZ_DIALECTS[dialect](arrays, several)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "mine.npz", **arrays)
    found = open_dataset(str(tmp_path / "mine.npz"))
    np.testing.assert_array_equal(found.features, several.features)
    np.testing.assert_array_equal(found.labels, several.labels)
    assert found.split().fingerprint == several.splits["only"].fingerprint
    assert found.name == "mine"
    assert found.classes.names == (
        several.classes.names if dialect == "names as labels" else ("class 1", "class 2", "class 3", "class 4")
    )


def test_safetensors_without_our_metadata(several: Dataset, tmp_path: Path) -> None:
    save_file(plain(several), tmp_path / "mine.safetensors")
    found = open_dataset(str(tmp_path / "mine.safetensors"))
    assert found.split().fingerprint == several.splits["only"].fingerprint
    assert found.provenance.licence == "unknown"


ROWS = "label,split,x,y\nant,train,1,2\nant,test_seen,0.5,-1e-3\nbee,train,3,4\ncat,test_unseen,5,6\nbee,,0,0\n"
NAMES = "name,a,b\nant,1,0\nbee,0,1\ncat,1,1\n"


def tables(folder: Path, features: str | bytes = ROWS, classes: str | bytes = NAMES, splits: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("features", features), ("classes", classes), ("splits", splits)):
        if content is not None:
            (folder / f"{name}.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


CSV_DIALECTS: dict[str, tuple[str | bytes, str | bytes]] = {
    "plain": (ROWS, NAMES),
    "byte order mark": (b"\xef\xbb\xbf" + ROWS.encode(), b"\xef\xbb\xbf" + NAMES.encode()),
    "semicolons": (ROWS.replace(",", ";"), NAMES.replace(",", ";")),
    "tabs": (ROWS.replace(",", "\t"), NAMES),
    "Windows": (ROWS.replace("\n", "\r\n"), NAMES.replace("\n", "\r\n")),
    "no last line break, blank lines": (ROWS.replace("\n", "\n\n").strip(), NAMES.strip()),
    "quoted": (ROWS.replace("ant", '"ant"').replace("0.5", '"0.5"'), NAMES.replace("name", '"name"')),
    "capital letters": (ROWS.replace("label", "Label "), NAMES.replace("name", "NAME")),
    "other order": ("\n".join(",".join(reversed(line.split(","))) for line in ROWS.split())[:-1] + "\n", NAMES),
}
CSV_DIALECTS["other order"] = (
    "y,label,x,split\n2,ant,1,train\n-1e-3,ant,0.5,test_seen\n4,bee,3,train\n6,cat,5,test_unseen\n0,bee,0,\n",
    NAMES,
)


@pytest.mark.parametrize("dialect", CSV_DIALECTS)
def test_csv_as_people_write_it(tmp_path: Path, dialect: str) -> None:
    found = open_dataset(str(tables(tmp_path / "mine", *CSV_DIALECTS[dialect])))
    expected = [[1, 2], [0.5, -1e-3], [3, 4], [5, 6], [0, 0]]
    order = [1, 0] if dialect == "other order" else [0, 1]
    np.testing.assert_array_equal(found.features, np.array(expected, np.float32)[:, order])
    assert found.labels.tolist() == [0, 0, 1, 2, 1]
    assert found.split().train.tolist() == [0, 2]
    assert found.split().test_unseen.tolist() == [3]
    assert found.split().unseen.tolist() == [2]
    assert open_dataset(str(tmp_path / "mine" / "features.csv")).name == found.name == "mine"


def test_parquet_with_one_column_a_value(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, text in (("features", ROWS), ("classes", NAMES)):
        lines = list(csv.DictReader(text.splitlines()))
        numeric = set(lines[0]) - {"label", "split", "name"}
        columns = {key: [float(line[key]) if key in numeric else line[key] or None for line in lines] for key in lines[0]}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    found, same = open_dataset(str(tmp_path)), open_dataset(str(tables(tmp_path / "csv")))
    assert found.features_fingerprint == same.features_fingerprint
    assert found.split().fingerprint == same.split().fingerprint


@pytest.mark.parametrize("how", ["tables", "arrays", "names"])
def test_pairs_of_npy_files(several: Dataset, tmp_path: Path, how: str) -> None:
    arrays = plain(several)
    if how == "names":
        _name_labels(arrays, several)
    if how == "tables":
        write_dataset(several, tmp_path / "t.csv")
        for name in ("classes.csv", "splits.csv", "about.json"):
            (tmp_path / name).write_bytes((tmp_path / "t.csv" / name).read_bytes())
        arrays = {key: arrays[key] for key in ("features", "labels")}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    found = find_dataset(str(tmp_path))
    assert found.found == "a folder of NumPy arrays (.npy)"
    if how == "tables":
        assert_same(found.dataset, several)
    assert found.dataset.features_fingerprint == several.features_fingerprint
    assert found.dataset.split().fingerprint == several.splits["only"].fingerprint
    assert isinstance(found.dataset.features, np.memmap)


# --- damage: npz


def _bomb(path: Path) -> None:
    """A gigabyte of zeros in a megabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("features.npy", "w") as member:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**16, 2**11)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(2**5):
            member.write(bytes(2**24))


def _many_small_bombs(path: Path) -> None:
    """None of which is large by itself."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(5):
            with archive.open(f"x{number}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (2**26,)})
                member.write(bytes(2**26))


def _declares(shape: tuple[int, ...]) -> Change:
    def write_it(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive, archive.open("features.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
            member.write(bytes(64))

    return write_it


def _objects(path: Path) -> None:
    np.savez(path, features=np.array([{"a": 1}, None], object))


def _flipped(path: Path) -> None:
    write_npz(path, {"features": np.ones((999, 99))})
    data = bytearray(path.read_bytes())
    data[data.rindex(np.float64(1).tobytes())] ^= 1
    path.write_bytes(data)


def _beyond(path: Path) -> None:
    """The list at the end says that the array begins elsewhere."""
    write_npz(path, {"features": np.ones((3, 3))})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 42, 100)
    path.write_bytes(data)


def _twice(path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("x.npy", b"1")
        archive.writestr("x.npy", b"2")


DAMAGED_NPZ: dict[str, tuple[Change, str]] = {
    "empty": (lambda p: p.write_bytes(b"") and None, "is damaged or is not an .npz file"),
    "a page": (lambda p: p.write_text("<!DOCTYPE html>" * 50) and None, "is damaged or is not an .npz file"),
    "cut": (
        lambda p: (np.savez(p, x=np.ones(99)), p.write_bytes(p.read_bytes()[:300]))[0],
        "is damaged or is not an .npz file",
    ),
    "bomb": (_bomb, r"'features.npy' in .* would unpack to 536,870,912 bytes, with which"),
    "many small bombs": (_many_small_bombs, r"'x4.npy' in .* would unpack to 67,108,864 bytes, with which"),
    "declared shape": (_declares((2**40, 2**10)), r"declares 4,503,599,627,370,496 bytes and holds 64"),
    "overflowing shape": (_declares((2**62, 2**62)), r"declares [\d,]{40,} bytes and holds 64"),
    "negative shape": (_declares((-1, 16)), "is damaged .*negative"),
    "objects": (_objects, "holds Python objects, which are never read"),
    "complex": (lambda p: np.savez(p, features=np.ones(3) * 1j), "holds complex128, but numbers or texts"),
    "flipped bit": (_flipped, "checksum of features.npy differs"),
    "moved": (_beyond, "is damaged"),
    "named twice": (_twice, "one twice"),
    "no .npy header": (lambda p: zipfile.ZipFile(p, "w").writestr("x.npy", b"hello"), "is damaged"),
}


@pytest.mark.parametrize("how", DAMAGED_NPZ)
def test_npz_that_is_damaged_is_one_sentence(how: str, tmp_path: Path) -> None:
    damage, said = DAMAGED_NPZ[how]
    path = tmp_path / "d.npz"
    damage(path)
    with pytest.raises(DataError, match=said) as caught:
        open_dataset(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["deflated", "stored"])
def test_mutants_of_npz_give_arrays_or_our_error(how: str, tmp_path: Path) -> None:
    arrays = {"features": np.arange(12.0).reshape(3, 4), "names": np.array(["ant", "bee"])}
    write_npz(tmp_path / "m.npz", arrays)
    if how == "deflated":
        np.savez_compressed(tmp_path / "m.npz", **arrays)
    original, refused = (tmp_path / "m.npz").read_bytes(), 0
    for seed in range(150):
        rng, data = np.random.default_rng(seed), bytearray(original)
        for _ in range(rng.integers(1, 5)):
            data[int(rng.integers(len(data)))] = rng.integers(256)
        (tmp_path / "m.npz").write_bytes(data)
        try:
            for name, array in read_npz(tmp_path / "m.npz").items():
                assert array.size <= 12, name
        except DataError:
            refused += 1
    assert refused > 75


def test_compressed_arrays_larger_than_a_piece_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz_module, "ALWAYS_UNPACKED", 0)
    stored = np.random.default_rng(0).random((5000, 500))
    np.savez_compressed(tmp_path / "m.npz", x=stored)
    np.testing.assert_array_equal(read_npz(tmp_path / "m.npz")["x"], stored)


# --- damage: what a data set in one file lacks or contradicts

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no features": ({"features": None}, "lacks features: a data set has features, labels, embeddings"),
    "no embeddings": ({"embeddings": None}, "lacks embeddings"),
    "no split": ({"train": None}, "has no split; add row numbers train, test_seen and test_unseen, or let Dataset.from_arrays"),
    "half a split": ({"test_seen": None}, "lacks test_seen; add it"),
    "features of whole numbers": ({"features": np.ones((12, 5), np.uint8)}, "dtype uint8, but numbers with a fraction"),
    "features transposed": ({"features": np.ones((5, 12), np.float32)}, "look transposed"),
    "labels from 1": ({"labels": np.repeat([1, 2, 3, 4], 3)}, "count from 1; subtract 1"),
    "labels with fractions": ({"labels": np.full(12, 0.5)}, "something else than whole numbers"),
    "mask too short": ({"train": np.ones(3, bool)}, "'train' in .* has 3 booleans for 12 rows"),
    "rows with fractions": ({"train": np.array([0.5])}, "'train' in .* holds float64, not whole numbers"),
    "rows outside": ({"train": np.array([99])}, "names row 99, but rows run from 0 to 11"),
    "unseen class in training": ({"train": np.array([0, 6])}, "correct the split"),
    "NaN": ({"features": np.full((12, 5), np.nan)}, "features hold nan in row 0, column 0"),
}


@pytest.mark.parametrize("to", [".npz", ".safetensors"])
@pytest.mark.parametrize("how", WRONG)
def test_what_is_wrong_in_one_file_is_one_sentence(several: Dataset, how: str, to: str, tmp_path: Path) -> None:
    change, said = WRONG[how]
    arrays = {key: array for key, array in (plain(several) | change).items() if array is not None}
    path = tmp_path / f"d{to}"
    if to == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    with pytest.raises(DataError, match=said) as caught:
        open_dataset(str(path))
    assert "\n" not in str(caught.value)


def test_labels_that_are_no_class_and_texts_that_are_none(several: Dataset, tmp_path: Path) -> None:
    arrays = plain(several)
    _name_labels(arrays, several)
    arrays["labels"] = np.array(["eel", *arrays["labels"][1:]])
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=r"row 0 of .*d.npz has label 'eel', which is not among the 4 class names"):
        open_dataset(str(tmp_path / "d.npz"))
    for about in (
        "{",
        "[1]",
        '{"provenance": 3}',
        '{"provenance": {"x": "y"}}',
        '{"pictures": {"tile": 1}}',
        '{"attributions": 3}',
    ):
        np.savez(tmp_path / "d.npz", **plain(several), about=np.array(about))
        if about == "[1]":
            continue
        with pytest.raises(DataError, match=r"is not JSON|says about itself is damaged") as caught:
            open_dataset(str(tmp_path / "d.npz"))
        assert "\n" not in str(caught.value)
    save_file(plain(several), tmp_path / "d.safetensors", {"class_names": json.dumps([1, 2, 3, 4])})
    with pytest.raises(DataError, match=r"'class_names' in .* is not a list of texts"):
        open_dataset(str(tmp_path / "d.safetensors"))


def test_a_changed_byte_in_our_safetensors_is_noticed(several: Dataset, tmp_path: Path) -> None:
    path = write(several, tmp_path, "safetensors")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="its checksum differs"):
        open_dataset(str(path))


# --- damage: tables

DAMAGED_CSV: dict[str, tuple[dict[str, Any], str]] = {
    "no classes": ({"classes": None}, "has no classes.csv; put a table there with the columns name"),
    "empty": ({"features": ""}, r"features.csv has no column 'label' in its first line \(found nothing\)"),
    "no first line": ({"features": "ant,1,2\nbee,2,3\n"}, r"no column 'label' in its first line \(found ant, 1, 2\)"),
    "first line only": ({"features": "label,split,x\n"}, "has no rows below its first line"),
    "not UTF-8": ({"classes": "name,a\näpfel,1\n".encode("latin-1")}, "is not UTF-8 text; save it as 'CSV UTF-8'"),
    "UTF-16": ({"features": ROWS.encode("utf-16")}, "is not UTF-8 text"),
    "ragged": ({"features": ROWS + "ant,train,1\n"}, "line 7 of .* has 3 cells where the first line has 4"),
    "comma in a name": ({"classes": NAMES.replace("bee", "bee, honey")}, "line 3 of .* into double quotes"),
    "open quote": ({"features": ROWS + '"ant,train,1,2\n'}, "is not a CSV table after line"),
    "a word": ({"features": ROWS.replace("0.5", "many")}, "column 'x' of .* is 'many' in line 3, where a number is expected"),
    "decimal comma": ({"features": ROWS.replace(",", ";").replace("0.5", "0,5")}, "write a point, not a comma"),
    "empty cell": ({"features": ROWS.replace("0.5", "")}, "column 'x' of .* is empty in line 3, where a number is expected"),
    "NaN": ({"features": ROWS.replace("0.5", "nan")}, "features hold nan in row 1, column 0"),
    "infinite": ({"features": ROWS.replace("0.5", "1e999")}, "features hold inf in row 1, column 0"),
    "label unknown": ({"features": ROWS.replace("bee", "eel")}, "row 2 of .* has label 'eel', which is not among the 3"),
    "class twice": ({"classes": NAMES + "Ant,5,5\n"}, "have the same name once case"),
    "column twice": ({"classes": "name,name,a\nx,y,1\n"}, "two columns 'name'; remove one"),
    "split unknown": ({"features": ROWS.replace("test_seen", "val")}, "row 1 of .* has split 'val'; it is one of train"),
    "no split": ({"features": "label,x\nant,1\nbee,2\ncat,3\n"}, "has no split; add row numbers"),
    "no numbers": ({"classes": "name\nant\nbee\ncat\n"}, r"class embeddings have shape \(3, 0\)"),
    "part unknown": ({"splits": "split,part,row\na,val,1\n"}, "entry 1 of .* has part 'val'; it is one of train"),
    "row unknown": ({"splits": "split,part,row\na,train,-1\n"}, "entry 1 of .* names row '-1'; give a row number"),
    "row outside": ({"splits": "split,part,row\na,train,1\na,test_unseen,99\n"}, "names row 99, but rows run from 0 to 4"),
    "class unknown": ({"splits": "split,part,row,class\na,unseen,,eel\n"}, "entry 1 of .* names the class 'eel'"),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGED_CSV)
def test_csv_that_is_wrong_is_one_sentence(how: str, tmp_path: Path) -> None:
    content, said = DAMAGED_CSV[how]
    folder = tables(tmp_path / "d", **content) if content.get("classes", "") is not None else tables(tmp_path / "d")
    if content.get("classes", "") is None:
        (folder / "classes.csv").unlink()
    with pytest.raises(DataError, match=said) as caught:
        open_dataset(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_about_that_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    for about in ('{"dtypes": {"features": "object"}}', "{", "[]", '{"provenance": []}\n'[:-1].replace("[]", "7")):
        folder = tables(tmp_path / "d")
        (folder / "about.json").write_text(about)
        with pytest.raises(DataError) as caught:
            open_dataset(str(folder))
        assert "\n" not in str(caught.value)


def _parquet(column: Any, **more: Any) -> Change:
    def damage(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"label": ["ant", "ant"], "features": column, **more}), folder / "features.parquet")

    return damage


def _cut(folder: Path) -> None:
    path = folder / "features.parquet"
    path.write_bytes(path.read_bytes()[:-20])


DAMAGED_PARQUET: dict[str, tuple[Change, str]] = {
    "cut": (_cut, "is damaged or is not parquet"),
    "a page": (lambda f: (f / "features.parquet").write_text("<html>") and None, "is damaged or is not parquet"),
    "empty": (lambda f: (f / "features.parquet").write_bytes(b"") and None, "is damaged or is not parquet"),
    "lists of two lengths": (_parquet([[1.0, 2.0], [1.0]]), "have different lengths"),
    "an empty cell": (_parquet([[1.0], None]), "has an empty cell where a number is expected"),
    "an empty value": (_parquet([[1.0], [None]]), "has an empty value where a number is expected"),
    "texts": (_parquet(["a", "b"]), "holds string, where a number is expected"),
    "no label": (lambda f: (f / "features.parquet").write_bytes((f / "classes.parquet").read_bytes()) and None, "'label'"),
    "labels of numbers with a fraction": (
        _parquet([1.0, 2.0], split=[0.5, 1.5]),
        "column 'split' of .* something else than text",
    ),
}


@pytest.mark.parametrize("how", DAMAGED_PARQUET)
def test_parquet_that_is_wrong_is_one_sentence(several: Dataset, how: str, tmp_path: Path) -> None:
    damage, said = DAMAGED_PARQUET[how]
    folder = write(several, tmp_path, "parquet")
    damage(folder)
    with pytest.raises(DataError, match=said) as caught:
        open_dataset(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def _npy(name: str, value: Any) -> Change:
    return lambda folder: np.save(folder / name, value, allow_pickle=True)


DAMAGED_NPY: dict[str, tuple[Change, str]] = {
    "no labels": (lambda f: (f / "labels.npy").unlink(), "lacks labels"),
    "no classes": (lambda f: (f / "embeddings.npy").unlink(), "has no classes.csv"),
    "no split": (lambda f: (f / "train.npy").unlink(), "has no split"),
    "labels too few": (_npy("labels.npy", np.arange(3)), "12 feature rows but 3 labels"),
    "labels from 1": (_npy("labels.npy", np.repeat([1, 2, 3, 4], 3)), "count from 1"),
    "objects": (_npy("labels.npy", np.array([None, 1], object)), "labels.npy is not a .npy file of numbers or texts"),
    "cut": (lambda f: (f / "features.npy").write_bytes((f / "features.npy").read_bytes()[:150]) and None, "is not a .npy file"),
    "empty": (lambda f: (f / "features.npy").write_bytes(b"") and None, "is not a .npy file"),
}


@pytest.mark.parametrize("how", DAMAGED_NPY)
def test_pairs_of_npy_files_that_are_wrong_are_one_sentence(several: Dataset, how: str, tmp_path: Path) -> None:
    for name, array in plain(several).items():
        np.save(tmp_path / f"{name}.npy", array)
    damage, said = DAMAGED_NPY[how]
    damage(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        open_dataset(str(tmp_path))
    assert "\n" not in str(caught.value)


# --- larger than memory

IN_LITTLE_MEMORY = """
import resource, sys, warnings
from pathlib import Path
import numpy as np
from unseen.data.opening import open_dataset
from unseen.data.writing import write_dataset
folder = Path(sys.argv[1])
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
limit = int(status["VmData"].split()[0]) * 1024 + 80_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones(100_000_000, np.uint8)
except MemoryError:
    pass
else:
    sys.exit("the limit does not hold here")
data = open_dataset(str(folder))
for name in ("a.npz", "b.safetensors", "c"):
    write_dataset(data, folder / name)
    data = open_dataset(str(folder / name))
print(data.features.shape, data.features_fingerprint)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no limits of this kind here")
def test_features_larger_than_memory_are_read_and_written(several: Dataset, tmp_path: Path) -> None:
    """126 MB of features go through three formats with less memory than that."""
    for name, array in plain(several).items():
        np.save(tmp_path / f"{name}.npy", array)
    features = np.lib.format.open_memmap(tmp_path / "features.npy", "w+", np.float32, (12, 2**21 + 2**19))
    features[:, :5] = several.features
    del features
    done = subprocess.run([sys.executable, "-c", IN_LITTLE_MEMORY, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(12, 2621440) ")


def test_parquet_without_pyarrow_names_the_package(several: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(several, tmp_path, "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for command in (lambda: open_dataset(str(path)), lambda: write_dataset(several, tmp_path / "again.parquet")):
        with pytest.raises(MissingDependency, match=r"parquet needs the package 'pyarrow'; run: pip install 'unseen\[bench\]'"):
            command()
    assert [entry.name for entry in tmp_path.iterdir()] == ["d.parquet"]


def test_a_path_is_no_built_in_name(several: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    several.save("emoji")
    assert_same(Dataset.load("emoji"), several)
    assert len(open_dataset("emoji").classes) > 100
    with pytest.raises(DataError, match="check the path"):
        Dataset.load("none")
    monkeypatch.chdir(tmp_path / "emoji")
    with pytest.raises(DataError, match=r"no folder 'emoji' here; the built-in .* opened by unseen.open_dataset\('emoji'\)"):
        Dataset.load("emoji")
