"""Features with labels: what is written comes back, foreign tables are read, and each fault gets its sentence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from unseen.data.collection import Collection, load_collection, save_collection
from unseen.errors import DataError
from unseen.storage import csv_text

HOSTILE = Collection(
    features=np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float16),
    labels=("=SUM(A1)", "'=a", '<b>ö,\n"x"</b>', "'"),
    paths=("a/\udcff.png", "../b", "-1", "c d/e.jpg"),  # the first is a file name that is not UTF-8
    provenance="an encoder",
    encoder={"name": "x", "fingerprint": "f"},
)


def test_what_is_saved_comes_back_mapped_and_a_spreadsheet_sees_no_formula(tmp_path: Path) -> None:
    save_collection(HOSTILE, tmp_path / "made")
    read = load_collection(tmp_path / "made")
    assert (read.labels, read.paths, read.provenance, read.encoder) == (
        HOSTILE.labels,
        HOSTILE.paths,
        HOSTILE.provenance,
        HOSTILE.encoder,
    )
    np.testing.assert_array_equal(read.features, HOSTILE.features)
    assert read.features.dtype == np.float16
    assert isinstance(read.features, np.memmap)
    assert b"\r\n-1," not in (tmp_path / "made/rows.csv").read_bytes()
    assert b"'=SUM(A1)" in (tmp_path / "made/rows.csv").read_bytes()


def test_without_paths_and_over_an_older_one(tmp_path: Path) -> None:
    save_collection(HOSTILE, tmp_path)
    (tmp_path / "skipped.csv").write_text("path,why\n")
    save_collection(Collection(np.eye(2), ("a", "b")), tmp_path)
    read = load_collection(tmp_path)
    assert (read.labels, read.paths, read.provenance, dict(read.encoder)) == (("a", "b"), (), "unknown", {})
    assert not (tmp_path / "skipped.csv").exists()  # it was the list of another collection


def test_a_part_of_a_collection_is_taken_only_where_parts_are_wanted(tmp_path: Path) -> None:
    """A data set of a third of the pictures looks like one of all."""
    for shard in ("0/3", "2/3", "0/1"):
        save_collection(replace(HOSTILE, encoder={"name": "x", "shard": shard}), tmp_path / shard.replace("/", "-"))
    with pytest.raises(DataError, match=r"0-3 holds shard 0/3 .* `unseen features merge` first"):
        load_collection(tmp_path / "0-3")
    assert load_collection(tmp_path / "2-3", shards=True).labels == HOSTILE.labels
    assert load_collection(tmp_path / "0-1").labels == HOSTILE.labels


def rewrite(folder: Path, rows: bytes) -> None:
    """Other rows, with a checksum that agrees."""
    manifest = json.loads((folder / "features.json").read_text())
    manifest["sha256"]["rows.csv"] = hashlib.sha256(rows).hexdigest()
    (folder / "features.json").write_text(json.dumps(manifest))
    (folder / "rows.csv").write_bytes(rows)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "rows.csv").write_bytes(b"path,label\na,b\n"), "rows.csv in .* checksum differs"),
        (lambda f: rewrite(f, b""), "is damaged"),
        (lambda f: rewrite(f, b"path,label\na\n"), "is damaged"),
        (lambda f: rewrite(f, b"path,label\na,b\n"), "4 rows of features but 1 labels"),
        (lambda f: (f / "rows.csv").unlink(), "rows.csv cannot be read"),
        (lambda f: save_file({"features": np.ones((4, 2), np.float16)}, f / "features.safetensors"), "features in .* checksum"),
        (lambda f: save_file({"other": np.ones((4, 2))}, f / "features.safetensors"), "is damaged"),
        (lambda f: (f / "features.safetensors").write_bytes(b"\x08"), "is damaged or is not safetensors"),
        (lambda f: (f / "features.json").write_text("{}"), "does not describe"),
        (
            lambda f: (f / "features.json").write_text('{"format": "unseen-features", "version": 9}'),
            "version 9 .* update unseen",
        ),
        (lambda f: (f / "features.json").write_text('{"format": "unseen-features", "version": 1}'), "is damaged"),
    ],
)
def test_damage_gets_one_sentence(tmp_path: Path, damage: Callable[[Path], object], sentence: str) -> None:
    save_collection(HOSTILE, tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=sentence):
        load_collection(tmp_path)


def test_nothing_of_others_is_replaced(tmp_path: Path) -> None:
    save_collection(HOSTILE, tmp_path / "made")
    (tmp_path / "made/thesis.tex").write_text("mine")
    with pytest.raises(DataError, match=r"also holds 'thesis.tex'"):
        save_collection(HOSTILE, tmp_path / "made")
    with pytest.raises(DataError, match="holds something else"):
        save_collection(HOSTILE, tmp_path)
    assert (tmp_path / "made/thesis.tex").read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "label,x,y,Path\n cat ,1,2,p\n\ndog,3e0,-4,\n",
        "x;path;y;label\n1;p;2;cat\n3;;-4;dog",
        "Label\tpath\tx\ty\ncat\tp\t1\t2\ndog\t\t3\t-4",
    ],
)
def test_csv_as_spreadsheets_write_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.csv").write_text(text, encoding="utf-8-sig")
    read = load_collection(tmp_path / "table.csv")
    assert (read.labels, read.paths) == (("cat", "dog"), ("p", ""))
    np.testing.assert_array_equal(read.features, [[1, 2], [3, -4]])
    assert read.features.dtype == np.float32


def test_a_table_that_we_wrote_for_spreadsheets_is_read_as_it_was_meant(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv_text(("label", "x"), [("=cat", 1.0), ("'dog", 2.0), ("-1", 3.0)]))
    assert load_collection(tmp_path / "a.csv").labels == ("=cat", "'dog", "-1")


def test_parquet_of_columns_and_of_lists(tmp_path: Path) -> None:
    columns = {"x": pa.array([1.5, 2.5], pa.float32()), "label": ["cat", "dog"]}
    pq.write_table(pa.table(columns | {"y": pa.array([3, 4], pa.int8())}), tmp_path / "a.parquet")
    lists = pa.FixedSizeListArray.from_arrays(pa.array([1.5, 3, 2.5, 4], pa.float32()), 2)
    pq.write_table(pa.table({"label": pa.array(["cat", "dog"]).dictionary_encode(), "f": lists}), tmp_path / "b.parquet")
    for name in ("a.parquet", "b.parquet"):
        read = load_collection(tmp_path / name)
        assert read.labels == ("cat", "dog")
        np.testing.assert_array_equal(read.features, np.array([[1.5, 3], [2.5, 4]], np.float32))


def test_npz_and_safetensors(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.eye(2, dtype=np.float32), labels=np.array(["cat", "dog"]), path=np.array(["p", "q"]))
    save_file({"x": np.eye(2, dtype=np.float32), "label": np.array([7, 0])}, tmp_path / "b.safetensors")
    names = {"label_names": json.dumps(["dog", "cat"])}
    save_file({"x": np.eye(2, dtype=np.float32), "label": np.array([1, 0])}, tmp_path / "c.safetensors", names)
    assert load_collection(tmp_path / "a.npz").labels == ("cat", "dog")
    assert load_collection(tmp_path / "a.npz").paths == ("p", "q")
    assert load_collection(tmp_path / "b.safetensors").labels == ("7", "0")
    assert load_collection(tmp_path / "c.safetensors").labels == ("cat", "dog")
    save_file({"x": np.eye(2), "label": np.array([-1, 0])}, tmp_path / "d.safetensors", names)
    with pytest.raises(DataError, match="does not name every label"):
        load_collection(tmp_path / "d.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"", "no column 'label' in its first line .found nothing"),
        ("a.csv", b"label,x\n", "no rows below"),
        ("a.csv", b"class,x\na,1\n", "no column 'label'"),
        ("a.csv", b"label,x,X\na,1,2\n", "two columns 'x'; remove one or rename it"),
        ("a.csv", b"label,x,\na,1,2\n", "no name for column 3"),
        ("a.csv", b"label,x\na,1\nb,1,2\n", "line 3 .* has 3 cells"),
        ("a.csv", b"label,x\n\na,1\nb,one\n", "column 'x' of .* is 'one' in line 4"),
        ("a.csv", b"label,x\n , \nb,\n", "column 'x' of .* is empty in line 3"),
        ("a.csv", b"label;x\na;1,5\n", "column 'x' of .* is '1,5' in line 2, .* write a point"),
        ("a.csv", b"label\na\n", "no column of numbers"),
        ("a.csv", b"label,x\n ,1\n", "row 0 has an empty label"),
        ("a.csv", b"label,x\n\xff,1\n", "is not UTF-8 text"),
        ("a.csv", b'label,x\n"a,1\n', "is not a CSV table after line"),
        ("a.parquet", b"PAR1", "not parquet"),
        ("a.npz", b"PK", "not an .npz"),
        ("a.safetensors", b"PK", "not safetensors"),
        ("a.xlsx", b"PK", "no table of features"),
    ],
)
def test_every_fault_of_a_table_gets_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        load_collection(tmp_path / name)


def test_no_pickle_and_no_missing_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(2), label=np.array(["a", {}], object))
    with pytest.raises(DataError, match="Python objects"):
        load_collection(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.eye(2), y=np.eye(2), label=np.array(["a", "b"]))
    with pytest.raises(DataError, match="x, y; a table of features has"):
        load_collection(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", x=np.eye(2), label=np.array([0.5, 1]))
    with pytest.raises(DataError, match="one text or whole number a row"):
        load_collection(tmp_path / "c.npz")
    for suffix in ("", ".csv", ".parquet", ".npz", ".safetensors"):
        with pytest.raises(DataError, match="does not exist"):
            load_collection(tmp_path / f"none{suffix}")
    with pytest.raises(DataError, match="cannot be opened"):
        load_collection(Path("a\0b.csv"))


def test_a_collection_has_a_label_a_row() -> None:
    with pytest.raises(DataError, match="2 rows of features but 1 labels"):
        Collection(np.eye(2), ("a",))
    with pytest.raises(DataError, match="but 1 paths"):
        Collection(np.eye(2), ("a", "b"), ("p",))
    with pytest.raises(DataError, match="dtype int64"):
        Collection(np.eye(2, dtype=np.int64), ("a", "b"))
