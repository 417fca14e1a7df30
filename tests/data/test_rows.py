"""Rows to be answered: the same from every kind of file, as soon as they come, and without those that cannot be read."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unseen.data import rows as rows_module
from unseen.data.collection import Collection, save_collection
from unseen.data.npz import write_npz
from unseen.data.rows import Rows, rows_of_file, rows_of_stream
from unseen.errors import DataError
from unseen.storage import let_go, write_arrays

X = np.arange(6, dtype=np.float32).reshape(2, 3) / 4 - 0.5
IDS = ("a wren", "=okapi")


def read(path: Path, width: int = 3) -> tuple[list[str | int], np.ndarray, list[str]]:
    """Names, rows and complaints of a whole file."""
    complaints: list[str] = []
    return (*together(rows_of_file(path, width, complaints.append), width), complaints)


def typed(text: str | bytes, width: int = 3) -> tuple[list[str | int], np.ndarray, list[str]]:
    """The same of what stands on standard input."""
    complaints: list[str] = []
    data = text if isinstance(text, bytes) else text.encode()
    return (*together(rows_of_stream(io.BytesIO(data), "it", width, complaints.append), width), complaints)


def together(parts: object, width: int) -> tuple[list[str | int], np.ndarray]:
    listed: list[Rows] = list(parts)  # type: ignore[call-overload]
    assert all(len(part.names) == len(part.x) > 0 and part.x.dtype == np.float32 for part in listed)
    return [name for part in listed for name in part.names], np.concatenate([np.empty((0, width)), *(p.x for p in listed)])


def as_parquet(path: Path, columns: dict[str, object]) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), path)


def by_column() -> dict[str, object]:
    return {f"f{k}": X[:, k] for k in range(3)}


FILES: dict[str, Callable[[Path], object]] = {
    "plain.npy": lambda path: np.save(path, X.astype(np.float64)),
    "columns.npy": lambda path: np.save(path, np.asfortranarray(X)),
    "one.npz": lambda path: write_npz(path, {"anything": X}),
    "named.npz": lambda path: np.savez_compressed(path, features=X, other=X[:1], id=np.array(IDS)),
    "one.safetensors": lambda path: write_arrays(path, {"features": X.astype(np.float16), "other": X[:, :2]}),
    "table.csv": lambda path: path.write_text("f0,f1,f2\n-0.5,-0.25,0\n0.25,0.5,0.75\n"),
    "named.csv": lambda path: path.write_text("f0;label;f1;ID;f2\n-0.5;x;-0.25;a wren;0\n\n0.25;y;0.5;'=okapi;0.75\n"),
    "marked.csv": lambda path: path.write_bytes(
        b"\xef\xbb\xbfpath\tf0\tf1\tf2\r\na wren\t-.5\t-.25\t0\r\n=okapi\t.25\t.5\t.75"
    ),
    "indexed.csv": lambda path: path.write_text(",0,1,2\na wren,-0.5,-0.25,0\n=okapi,0.25,0.5,0.75\n"),
    "counted.csv": lambda path: path.write_text("0,1,2\n-0.5,-0.25,0\n0.25,0.5,0.75\n"),
    "bare.csv": lambda path: path.write_text("-0.5,-0.25,0\n0.25,0.5,0.75\n"),
    "lists.jsonl": lambda path: path.write_text("[-0.5,-0.25,0]\n\n[0.25, 0.5, 7.5e-1]"),
    "named.jsonl": lambda path: path.write_text(
        "".join(json.dumps({"name": name, "features": x.tolist()}) + "\n" for name, x in zip(IDS, X, strict=True))
    ),
    "columns.parquet": lambda path: as_parquet(path, by_column()),
    "named.parquet": lambda path: as_parquet(path, {"id": list(IDS), "label": ["x", "y"], "features": X.tolist()}),
    "collection": lambda path: save_collection(Collection(X, ("x", "y"), IDS, "by hand"), path),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_holds_the_same_rows(name: str, tmp_path: Path) -> None:
    FILES[name](tmp_path / name)
    names, x, complaints = read(tmp_path / name)
    np.testing.assert_array_equal(x, X)
    has_names = "named" in name or name in ("marked.csv", "indexed.csv", "collection")
    assert (names, complaints) == (list(IDS) if has_names else [0, 1], [])


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("jsonl")])
def test_every_kind_of_file_is_refused_where_the_model_takes_other_rows(name: str, tmp_path: Path) -> None:
    FILES[name](tmp_path / name)
    with pytest.raises(DataError, match=rf"{name} .*the model takes (numbers of shape \(n, )?4\b"):
        read(tmp_path / name, 4)


def test_many_rows_come_some_at_a_time_and_are_numbered_through(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2500, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    parts = list(rows_of_file(tmp_path / "x.npy", 3, pytest.fail))
    assert [len(part.x) for part in parts] == [1024, 1024, 452]
    text = "".join(",".join(map(repr, row)) + "\n" for row in x.tolist())
    for names, found, _ in (typed(text), read(tmp_path / "x.npy")):
        np.testing.assert_array_equal(found, x)
        assert names == list(range(2500))


BAD = """id,f0,f1,f2
a,1,2,3
b,1,2
c,1,nan,3
d,1,,3
e,1,2,\x1b[31mred
f,1e39,2,3
g,4,5,6
"""


def test_rows_that_cannot_be_read_are_told_of_and_the_others_go_on() -> None:
    names, x, complaints = typed(BAD)
    assert names == ["a", "g"]
    np.testing.assert_array_equal(x, [[1, 2, 3], [4, 5, 6]])
    assert sorted(complaints) == [
        "line 3 of it has 3 cells where the first has 4; left out",
        "line 4 of it holds what is no finite number; left out",
        "line 5 of it holds an empty cell where a number is expected; left out",
        "line 6 of it holds '\\x1b[31mred' where a number is expected; left out",
        "line 7 of it holds what is no finite number; left out",
    ]
    numbers, _, _ = typed(BAD.replace("id,f0,f1,f2\n", "").replace("a,1", "1.5").replace("g,4", "4"))
    assert numbers == [0, 6], "what is left out is counted, so that numbers are places in the file"


def test_odd_lines_of_json_are_told_of_and_the_others_go_on() -> None:
    odd = ["{", "[1,2]", "[1,true,3]", '[1,"2",3]', "[1,[2],3]", "[1,NaN,3]", "[1,1e400,3]", f"[1,{10**400},3]", '{"id":1}']
    odd += ["7", "null", "[" * 100_000, f"[{'9' * 5000},2,3]"]
    names, x, complaints = typed("[1,2,3]\n" + "\n".join(odd) + '\n{"id": 7, "features": [4,5,6]}\n')
    assert names == [0, 7]
    np.testing.assert_array_equal(x, [[1, 2, 3], [4, 5, 6]])
    assert len(complaints) == len(odd)
    assert {said.split(" of it ")[0] for said in complaints} == {f"line {k + 2}" for k in range(len(odd))}
    assert "line 3 of it has 2 numbers, and the model takes 3; left out" in complaints


def test_arrays_are_left_out_of_row_by_row(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, 2, 3], [1, np.inf, 3], [4, 5, 6]]))
    names, _, complaints = read(tmp_path / "x.npy")
    assert names == [0, 2]
    assert complaints == [f"row 1 of {tmp_path / 'x.npy'} holds what is no finite number; left out"]


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("NA,2,3", "'NA'"),
        ("1,,3", "an empty cell"),
        (",2,3", "an empty cell"),
        ("NA,nan,x", "'NA'"),
        ("inf,NA,NA", "'NA'"),
        ("0;1;2,5", "'2,5'"),
        ("NA\t1.5\t2", "'NA'"),
    ],
)
def test_a_first_row_with_a_number_in_it_is_no_line_of_names(first: str, said: str, tmp_path: Path) -> None:
    mark = next(mark for mark in "\t;," if mark in first)
    text = first + "\n" + mark.join("456") + "\n"
    (tmp_path / "x.csv").write_text(text)
    for names, x, complaints in (typed(text), read(tmp_path / "x.csv")):
        assert names == [1]
        np.testing.assert_array_equal(x, [[4, 5, 6]])
        [complaint] = complaints
        assert complaint.startswith("line 1 of ")
        assert complaint.endswith(f" holds {said} where a number is expected; left out")


def test_a_row_of_numbers_between_which_another_mark_stands_is_no_line_of_names() -> None:
    for text, width in (("1.5;2.5\n", 1), ("1,919\n", 1), ("1,919;2,5\n", 2)):
        names, _, complaints = typed(text, width)
        assert (names, len(complaints)) == ([], 1)


@pytest.mark.parametrize("header", ["id,400,410,420", "400,410,420,label", "nAme,nan,f1,f2", ",1,2,3", "Path,0,1,2"])
def test_numbers_are_names_where_they_count_or_stand_beside_a_name_that_is_known(header: str) -> None:
    cells = ["4", "5", "6"]
    cells.insert(3 if header.endswith("label") else 0, "a")
    names, x, complaints = typed(f"{header}\n{','.join(cells)}\n")
    assert (names, complaints) == ([0 if header.endswith("label") else "a"], [])
    np.testing.assert_array_equal(x, [[4, 5, 6]])


@pytest.mark.parametrize("text", ["", "\n\n \n", "f0,f1,f2\n", "id,f0,f1,f2\r\n"])
def test_nothing_is_no_rows(text: str) -> None:
    assert typed(text)[0] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("f0,f1\n1,2\n", "line 1 of it has 2 columns of features (f0, f1), and the model takes 3; give it features"),
        ("\n1,2,3,4,5\n", "line 2 of it has 5 columns of features (1, 2, 3, 4, …), and the model takes 3;"),
        ('f0,f1,f2\n1,2,"3\n', "it is not a CSV table after line 1 (unexpected end of data); save it again"),
        (b"f0,f1,f2\n1,2,3\n1,\xff,3\n", "it is not UTF-8 text (line 3); save it as 'CSV UTF-8'"),
        ("f0,f1,f2\n1,2,3\n1,2,\0\x1b[31m\n", ""),
        ("x" * 200_000 + ",f1\n1,2\n", "line 1 of it has 2 columns of features (xxx"),
    ],
)
def test_what_is_no_table_of_this_model_gets_one_sentence(text: str | bytes, said: str) -> None:
    if not said:  # a NUL: told of as a cell, or refused, whichever Python's csv does
        _, x, complaints = typed(text)
        assert (len(x), len(complaints)) == (1, 1)
        assert complaints[0].isprintable()
        return
    with pytest.raises(DataError) as raised:
        typed(text)
    assert str(raised.value).startswith(said)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


def test_a_line_without_an_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "LONGEST_LINE", 2**21)
    taken = 0

    class Endless(io.RawIOBase):
        def read1(self, size: int) -> bytes:
            nonlocal taken
            taken += size
            assert taken < 2**23
            return b"7" * size

    with pytest.raises(DataError, match="it has a line of more than 2 MiB, which no row of features is"):
        list(rows_of_stream(Endless(), "it", 3, pytest.fail))  # type: ignore[arg-type]


@pytest.mark.parametrize("lines", [("f0,f1,f2\n", "1,2,3\n", "\n4,5,6\n"), ("[1,2,3]\n\n", "[4,5,6]\n")])
def test_a_row_is_answered_before_the_next_one_is_written(lines: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as file, open(writing, "wb", buffering=0) as pipe:
        rows = rows_of_stream(file, "it", 3, pytest.fail)
        for line in lines[:-1]:
            pipe.write(line.encode())
        pipe.write(b"[" if lines[0][0] == "[" else b"4")  # half a row more
        np.testing.assert_array_equal(next(rows).x, [[1, 2, 3]])
        pipe.write(lines[-1].lstrip("\n")[1:].encode())
        np.testing.assert_array_equal(next(rows).x, [[4, 5, 6]])


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        (
            "x.npy",
            lambda path: np.save(path, np.array(["a"] * 3)),
            "holds an array of <U1 and shape (1, 3), and the model takes",
        ),
        ("x.npy", lambda path: path.write_bytes(b"\x93NUMPY junk"), "is not a .npy file of numbers or texts"),
        ("x.npz", lambda path: write_npz(path, {"a": X, "b": X}), "holds a, b; give a file with one array of two dimensions"),
        ("x.npz", lambda path: write_npz(path, {"a": X, "id": np.arange(5)}), "has names of shape (5,) for 2 rows; give one"),
        ("x.safetensors", lambda path: path.write_bytes(b"\xff" * 64), "is damaged or is not safetensors"),
        ("x.parquet", lambda path: path.write_bytes(b"PAR1"), "is damaged or is not parquet"),
        ("x.parquet", lambda path: as_parquet(path, {"a": [1.0], "b": ["x"], "c": [2.0]}), "column 'b' of "),
        ("x.csv", lambda path: path.mkdir(), ""),
        ("none.csv", lambda path: None, "cannot be read (No such file or directory); check the file"),
    ],
)
def test_a_damaged_file_gets_one_sentence(
    name: str, make: Callable[[Path], object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / name)
    with pytest.raises(DataError) as raised:
        read(tmp_path / name)
    assert said in str(raised.value)
    assert str(raised.value).isprintable()


def test_letting_go_of_a_mapped_file_changes_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    for mode in ("r", "c", "r+"):
        mapped = np.lib.format.open_memmap(tmp_path / "x.npy", mode=mode)
        if mode == "c":
            mapped[0, 0] = 9  # kept in memory alone
        before = np.array(mapped)
        let_go(mapped)
        let_go(mapped[:1])
        np.testing.assert_array_equal(mapped, before)
    let_go(X)
