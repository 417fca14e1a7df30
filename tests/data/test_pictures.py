"""Listing pictures: an order that depends on names alone, and a problem instead of an end for whatever is odd."""

from __future__ import annotations

import csv
import os
import sys
import unicodedata
from pathlib import Path

import pytest

from unseen.data.pictures import PictureTable, list_pictures
from unseen.errors import DataError, MissingDependency
from unseen.storage import csv_text


def put(path: Path | bytes, content: bytes = b"x") -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def problems(table: PictureTable) -> dict[str, str]:
    return {problem.path: problem.why for problem in table.problems}


def test_a_folder_lists_its_classes_in_the_order_of_names(tmp_path: Path) -> None:
    for path in ("b/2.jpg", "b/10.jpg", "a/deep/er/1.png", "a/0.png", "c/x"):
        put(tmp_path / path)
    table = list_pictures(tmp_path)
    assert list(zip(table.labels, table.paths, strict=True)) == [
        ("a", "a/0.png"),
        ("a", "a/deep/er/1.png"),
        ("b", "b/10.jpg"),
        ("b", "b/2.jpg"),
        ("c", "c/x"),
    ]
    assert table.problems == ()
    assert table.place(0) == str(tmp_path / "a" / "0.png")


def test_the_fingerprint_is_of_paths_and_labels_and_not_of_the_place(tmp_path: Path) -> None:
    for root in ("one", "two", "three"):
        put(tmp_path / root / "a" / "1.jpg")
    put(tmp_path / "three" / "a" / "2.jpg")
    one, two, three = (list_pictures(tmp_path / root).fingerprint for root in ("one", "two", "three"))
    assert one == two != three
    assert PictureTable(tmp_path, ("ab",), ("c",)).fingerprint != PictureTable(tmp_path, ("a",), ("bc",)).fingerprint


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    put(tmp_path / "a" / "in" / "1.jpg")
    put(tmp_path / "b" / "2.jpg")
    (tmp_path / "a" / "in" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "root").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "b" / "linked.jpg").symlink_to(tmp_path / "a" / "in" / "1.jpg")
    (tmp_path / "c" / "in").mkdir(parents=True)
    put(tmp_path / "elsewhere" / "3.jpg")
    (tmp_path / "c" / "in" / "folder").symlink_to(tmp_path / "elsewhere")
    table = list_pictures(tmp_path)
    assert table.paths == ("a/in/1.jpg", "b/2.jpg", "b/linked.jpg", "c/in/folder/3.jpg", "elsewhere/3.jpg")
    found = problems(table)
    assert set(found) == {"a/in/up", "a/root", "a/self", "a/gone.jpg"}
    assert "one above" in found["a/in/up"]
    assert "one above" in found["a/root"]
    assert "cannot be reached" in found["a/self"]
    assert "No such file" in found["a/gone.jpg"]


def test_a_link_to_the_pictures_or_above_is_no_class(tmp_path: Path) -> None:
    """It would be a class of the pictures of all others."""
    root = tmp_path / "deep" / "pictures"
    put(root / "a" / "1.jpg")
    put(tmp_path / "deep" / "other" / "2.jpg")
    (root / "up").symlink_to(Path("..") / "pictures")
    (root / "above").symlink_to(tmp_path)
    (root / "a" / "beside").symlink_to(tmp_path / "deep")
    (tmp_path / "way").symlink_to(root)
    for source in (root, tmp_path / "way"):
        table = list_pictures(source)
        assert table.paths == ("a/1.jpg",)
        found = problems(table)
        assert found["up"] == found["above"] == "is a link to the folder of the classes, or to one above, so it is no class"
        assert "one above" in found["a/beside"]
        assert set(found) == {"up", "above", "a/beside"}


def test_links_between_folders_do_not_multiply(tmp_path: Path) -> None:
    """Twenty folders, each with two links to the next: a million ways to the last one."""
    for level in range(20):
        (tmp_path / "a" / str(level)).mkdir(parents=True)
        for way in ("left", "right"):
            (tmp_path / "a" / str(level) / way).symlink_to(tmp_path / "a" / str(level + 1))
    put(tmp_path / "a" / "20" / "1.jpg")
    assert len(list_pictures(tmp_path)) == 1


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_odd_names_are_taken_as_they_are(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    names = [
        b"\xff\xfe.jpg",
        b"a\nb.jpg",
        b"-rf.jpg",
        b"=1+1.jpg",
        b" .jpg",
        "é.jpg".encode(),
        unicodedata.normalize("NFD", "é.jpg").encode(),
    ]
    for name in names:
        put(os.path.join(root, b"a", name))
    table = list_pictures(tmp_path)
    assert sorted(os.fsencode(path) for path in table.paths) == sorted(b"a/" + name for name in names)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_of_classes_are_composed_and_the_unfit_are_left_out(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    for folder in ("café", unicodedata.normalize("NFD", "café"), "-dash", "x\ny", "\u202eevil"):
        put(os.path.join(root, folder.encode(), b"1.jpg"))
    put(os.path.join(root, b"\xff", b"1.jpg"))
    (tmp_path / "empty").mkdir()
    table = list_pictures(tmp_path)
    assert table.labels == ("-dash", "café", "café")
    found = problems(table)
    assert "both are taken as one class" in found["café"] or "both are taken" in found[unicodedata.normalize("NFD", "café")]
    for name in ("x\ny", "\u202eevil"):
        assert "cannot be printed" in found[name]
    assert "it is not UTF-8" in found["\udcff"]
    assert found["empty"] == "is a class folder without a picture"


def test_what_has_no_class_or_is_hidden_or_no_file_is_listed(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.jpg")
    put(tmp_path / "README.txt")
    put(tmp_path / ".git" / "x.jpg")
    put(tmp_path / "a" / "._1.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    table = list_pictures(tmp_path)
    assert table.paths == ("a/1.jpg",)
    assert problems(table) == {
        ".git": "is hidden",
        "README.txt": "lies beside the class folders, so it has no class",
        "a/._1.jpg": "is hidden",
        "a/pipe.jpg": "is no file but a pipe, a socket or a device",
    }


@pytest.mark.parametrize(
    "text",
    [
        'path,label\na.jpg,cat\n"b,c.jpg",dog\n',
        '\ufeffLabel;PATH;more\ncat;a.jpg;1\ndog;"b,c.jpg";2\n\n',
        "label\tpath\r\ncat\ta.jpg\r\ndog\tb,c.jpg\r\n",
    ],
)
def test_tables_in_the_ways_that_spreadsheets_write_them(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text, newline="")
    table = list_pictures(tmp_path / "t.csv")
    assert (table.paths, table.labels) == (("a.jpg", "b,c.jpg"), ("cat", "dog"))
    assert table.place(1) == str(tmp_path / "b,c.jpg")


SHOPS = "path;label\nbrûlée.jpg;crème\nplain.jpg;Öl\n"


def test_a_table_of_an_older_spreadsheet_is_read_with_a_note(tmp_path: Path) -> None:
    """As `unseen embed` reads it: the two are joined by the names of the classes."""
    (tmp_path / "t.csv").write_bytes(SHOPS.encode("cp1252"))
    with pytest.warns(UserWarning, match=r"was read as Windows-1252, .* 'crème'; if that is wrong, save it as 'CSV UTF-8'"):
        table = list_pictures(tmp_path / "t.csv")
    assert list(zip(table.paths, table.labels, strict=True)) == [("brûlée.jpg", "crème"), ("plain.jpg", "Öl")]
    (tmp_path / "u.csv").write_bytes(SHOPS.replace(";", "\t").encode("utf-16"))
    unicode = list_pictures(tmp_path / "u.csv")
    assert (unicode.paths, unicode.labels) == (table.paths, table.labels)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_paths_that_are_not_utf_8_are_what_is_there(tmp_path: Path) -> None:
    """Bytes where a file has them for its name, as in our own tables; else Windows-1252."""
    (tmp_path / "t.csv").write_bytes("path,label\nbrûlée.jpg,a\nd\xe9j\xe0.jpg,a\n".encode("cp1252"))
    put(os.path.join(os.fsencode(tmp_path), b"d\xe9j\xe0.jpg"))
    with pytest.warns(UserWarning, match="'brûlée.jpg'"):
        assert list_pictures(tmp_path / "t.csv").paths == ("brûlée.jpg", "d\udce9j\udce0.jpg")
    put(os.path.join(os.fsencode(tmp_path), "brûlée.jpg".encode("cp1252")))
    assert list_pictures(tmp_path / "t.csv").paths == ("br\udcfbl\udce9e.jpg", "d\udce9j\udce0.jpg")


def test_one_damaged_label_does_not_change_how_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("path,label\n1.jpg,crème\n2.jpg,cr".encode() + b"\xe8me\n")
    table = list_pictures(tmp_path / "t.csv")
    assert (table.paths, table.labels) == (("1.jpg",), ("crème",))
    assert problems(table) == {"2.jpg": "has a label that no class can have: it is not UTF-8"}


def test_the_list_of_a_collection_is_a_table_of_pictures(tmp_path: Path) -> None:
    """Its cells have the quotes that keep a spreadsheet from running them."""
    rows = [("=dog/00.png", "=dog"), ("-rf.png", "cat")]
    (tmp_path / "rows.csv").write_text(csv_text(("path", "label"), rows), newline="")
    table = list_pictures(tmp_path / "rows.csv")
    assert list(zip(table.paths, table.labels, strict=True)) == rows


def test_reading_a_table_leaves_the_limit_of_the_process(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (tmp_path / "t.csv").write_text("path,label\na.jpg,cat\n")
    list_pictures(tmp_path / "t.csv")
    assert csv.field_size_limit() == before


def test_a_parquet_table_says_the_same(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"size": [1, 2, 3], "Label": ["cat", "dog", None], "path": ["a.jpg", "b.jpg", "c.jpg"]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = list_pictures(tmp_path / "t.parquet")
    assert (table.paths, table.labels) == (("a.jpg", "b.jpg"), ("cat", "dog"))
    assert problems(table) == {"c.jpg": "has a label that no class can have: it is blank"}


def test_a_row_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\na.jpg,cat\na.jpg,cat\nb.jpg,dog\nb.jpg,cat\n,cat\nc.jpg\n")
    table = list_pictures(tmp_path / "t.csv")
    assert (table.paths, table.labels) == (("a.jpg", "b.jpg"), ("cat", "dog"))
    assert [(problem.path, problem.why) for problem in table.problems] == [
        ("a.jpg", "is listed before"),
        ("b.jpg", "is listed before, with the label 'dog', which is kept"),
        ("", "is no path"),
        ("c.jpg", "has a label that no class can have: it is blank"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"file,class\na,b\n", "has no column 'path' (its first line: 'file', 'class')"),
        ("t.csv", b"path,path,label\na,b,c\n", "has several columns 'path'"),
        ("t.csv", b"", "has no column 'path'"),
        ("t.csv", b"path,label\n", "lists no picture; give one line per picture"),
        ("t.csv", b"path,label\n,cat\n", "lists no picture (left out: , which is no path)"),
        ("t.csv", b"path,label\na,\xe8\x81\n", "is in none of UTF-8, UTF-16 and Windows-1252; save the table as 'CSV UTF-8'"),
        ("t.csv", b"\xff\xfep\0a", "is damaged or is no CSV"),
        ("t.csv", b'path,label\n"a,b\n', "is damaged or is no CSV"),
        ("t.csv", b"path,label\n" + b"a" * 200_000 + b",b\n", "is damaged or is no CSV (field larger"),
        ("t.parquet", b"PAR1 nothing", "is damaged or is not parquet"),
        ("t.xlsx", b"x", "is neither a folder nor a table"),
    ],
)
def test_tables_that_are_none_get_a_sentence(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as refusal:
        list_pictures(tmp_path / name)
    assert said in str(refusal.value)


def test_folders_that_are_none_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        list_pictures(tmp_path / "nowhere")
    with pytest.raises(DataError, match="lists no picture; give a folder that has one sub-folder per class"):
        list_pictures(tmp_path)
    put(tmp_path / "1.jpg")
    with pytest.raises(DataError, match=r"left out: 1\.jpg, which lies beside"):
        list_pictures(tmp_path)


def test_a_missing_pyarrow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"")
    with pytest.raises(MissingDependency, match="pyarrow"):
        list_pictures(tmp_path / "t.parquet")
