"""Lists of classes as people write them: what is read of which dialect, and what a stranger's file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from unseen import DataError, MissingDependency
from unseen.data.class_list import LONGEST_CELL, ClassList, class_list_of, read_class_list
from unseen.storage import csv_text, read_lines


def write(folder: Path, content: bytes | str, name: str = "classes.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def plain(listed: ClassList) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(entry.name, entry.group, entry.sentences) for entry in listed.classes]


FRUIT = [("apple", "fruit", ("a red fruit",)), ("crème brûlée", "dessert", ("sweet, burnt", "in a dish"))]
TABLE = 'Name{0}Group{0}Description\napple{0}fruit{0}a red fruit\ncrème brûlée{0}dessert{0}"sweet, burnt\r\nin a dish"\n'


@pytest.mark.parametrize(
    ("delimiter", "encoding"),
    [(",", "utf-8"), (",", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-16"), (";", "utf-8-sig"), (",", "utf-16")],
)
def test_every_dialect_says_the_same(tmp_path: Path, delimiter: str, encoding: str) -> None:
    listed = read_class_list(write(tmp_path, TABLE.format(delimiter).encode(encoding)))
    expected = [FRUIT[0], ("crème brûlée", "dessert", ("sweet, burnt", "in a dish"))]
    assert plain(listed) == expected
    assert listed.decimal_comma == (delimiter == ";")


def test_an_old_spreadsheets_code_page_is_read_and_shown(tmp_path: Path) -> None:
    path = write(tmp_path, TABLE.format(";").encode("cp1252"))
    with pytest.warns(UserWarning, match=r"was read as Windows-1252, so one of its lines is 'crème brûlée;dessert"):
        assert plain(read_class_list(path)) == FRUIT


def test_several_rows_columns_and_lines_are_sentences_of_one_class(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "description_2,name,description_1,wings\nbarks,dog, ,0\npurrs. Sleeps.,cat,  hunts   mice ,0\n\n,,,\n"
        "wags its tail, dog ,barks,0\n",
    )
    listed = read_class_list(path)
    assert plain(listed) == [
        ("dog", "", ("barks", "wags its tail")),
        ("cat", "", ("purrs. Sleeps.", "hunts mice")),  # full stops part nothing
    ]
    assert listed.columns == ("wings",)
    assert [row.columns for row in listed.classes[0].rows] == [{"wings": "0"}, {"wings": "0"}]


def test_names_in_either_unicode_form_are_one_class(tmp_path: Path) -> None:
    listed = read_class_list(write(tmp_path, "name,description\ne\u0301clair,long\n\u00e9clair ,sweet\n"))
    assert plain(listed) == [("éclair", "", ("long", "sweet"))]


def test_what_looks_like_a_formula_or_a_page_is_text(tmp_path: Path) -> None:
    listed = read_class_list(write(tmp_path, 'name,description\n"=HYPERLINK(""x"")",+1\n<script>,@me\n../../x,-\nNA,nan\n'))
    assert plain(listed) == [
        ('=HYPERLINK("x")', "", ("+1",)),
        ("<script>", "", ("@me",)),
        ("../../x", "", ("-",)),
        ("NA", "", ("nan",)),
    ]


def test_what_we_wrote_for_spreadsheets_is_read_as_it_was_meant(tmp_path: Path) -> None:
    rows = [("=cat", "-1"), ("'=dog", "+x"), ("-rf", "@me")]
    assert plain(read_class_list(write(tmp_path, csv_text(("name", "description"), rows)))) == [
        (name, "", (text,)) for name, text in rows
    ]


def test_a_column_that_is_blank_everywhere_is_none(tmp_path: Path) -> None:
    listed = read_class_list(write(tmp_path, "name;size;;\napple;1;;\n"))
    assert listed.columns == ("size",)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; give a table"),
        (b"\n \n", "is empty; give a table"),
        (b"name\n", "has no class below its header"),
        (b"class,description\napple,red\n", "has no column 'name' in its first line, but 'class,description'"),
        (b"name,Name\na,b\n", "two columns 'name'"),
        (b"name,size,SIZE\na,1,2\n", "two columns 'size'"),
        (b"name,\na,1\n", "no name for column 2"),
        (b"name,size\na,1\nb\n", "line 3 of .* has 1 cells, but the first line names 2 columns"),
        (b"name,size\na,1\nb,1,2\n", "line 3 of .* has 3 cells, but the first line names 2"),
        (b'name,description\na,"x\ny"\nc\n', "line 4 of .* has 1 cells"),
        (b"name,size\n ,1\n", "line 2 of .* has a blank name"),
        (b"name\na\xcc\x81b\n\xe2\x80\x8b\n", "line 3 of .* has the name '\\\\u200b', but a name has"),
        (b"name\n" + b"a" * 1001 + b"\n", "line 2 of .* 1 to 1000 printable characters"),
        (b"name\na\x00b\n", "line 2 of .* holds a NUL"),
        ("name\nab\n".encode("utf-16-le"), "line 1 of .* holds a NUL"),
        ("name\na\0b\n".encode("utf-16"), "holds a NUL"),
        (b"name\n\x81\xff\xfe\n", "in none of UTF-8, UTF-16 and Windows-1252"),
        (b'name,description\na,"never closed\nb,c\n', "line 2 of .* cannot be parted into cells"),
        (b"name\nApple\napple\n", "classes 'Apple' and 'apple' have the same name once case"),
        (b"name\nhot dog\nhot  dog\n", "have the same name once case, blanks"),
        ("name\nﬁg\nfig\n".encode(), "have the same name once case, blanks and Unicode form"),
        (b"name,group\na,x\na,y\n", "line 3 of .* puts class 'a' in group 'y', but an earlier one puts it in 'x'"),
        (b"name,group\na,x\nb,\n", "class 'b' of .* has no group, but others have"),
        (b"PAR1 name, no parquet\n", "has no column 'name' in its first line"),
    ],
)
def test_what_is_wrong_with_a_list_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=sentence) as caught:
        read_class_list(path)
    assert str(path) in str(caught.value) or "have the same name" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize(
    ("length", "sentence"),
    [
        (10_000_000, "cannot be parted into cells .*100,000 characters"),
        (LONGEST_CELL + 1, "holds 100,001 characters in column"),
    ],
)
def test_a_cell_as_long_as_a_book_is_refused(tmp_path: Path, length: int, sentence: str) -> None:
    with pytest.raises(DataError, match=f"line 2 of .* {sentence}"):
        read_class_list(write(tmp_path, "name,description\na," + "x" * length))


def test_places_that_hold_no_list_are_told(tmp_path: Path) -> None:
    for path, sentence in (
        (tmp_path / "none.csv", "does not exist"),
        (tmp_path, "cannot be read"),
        (Path("a\0b.csv"), "cannot be read"),
        (write(tmp_path, b"PAR1 is not enough", "x.parquet"), "is damaged or is not parquet"),
    ):
        with pytest.raises(DataError, match=sentence):
            read_class_list(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_a_device_without_an_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unseen.data.class_list.LARGEST_FILE", 2**20)
    with pytest.raises(DataError, match="/dev/zero is larger than 1 MiB, which no list of classes is"):
        read_class_list(Path("/dev/zero"))
    with pytest.raises(DataError, match="/dev/zero is larger than 10 MB, which no list of names is"):
        read_lines(Path("/dev/zero"))


def test_parquet_says_what_csv_says(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table(
        {
            "Name": ["apple", "crème brûlée"],
            "group": ["fruit", "dessert"],
            "description": [["a red fruit"], ["sweet, burnt", "in a dish"]],
            "sugar": pa.array([0.1, None]),
            "round": [True, False],
            "legs": [4, 0],
        }
    )
    path = tmp_path / "classes.parquet"
    parquet.write_table(table, path)
    listed = read_class_list(path)
    assert plain(listed) == FRUIT
    assert [entry.rows[0].columns for entry in listed.classes] == [
        {"sugar": "0.1", "round": "1", "legs": "4"},
        {"sugar": "", "round": "0", "legs": "0"},
    ]
    parquet.write_table(pa.table({"name": ["a"], "x": [{"deep": 1}]}), path)
    with pytest.raises(DataError, match=r"row 0 of .* holds a dict in column 'x'"):
        read_class_list(path)
    parquet.write_table(pa.table({"label": ["a"]}), path)
    with pytest.raises(DataError, match="has no column 'name', but 'label'"):
        read_class_list(path)


def test_a_missing_pyarrow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependency, match=r"x\.parquet needs the package 'pyarrow'; run: pip install 'unseen\[bench\]'"):
        read_class_list(write(tmp_path, b"PAR1", "x.parquet"))


def test_a_mapping_is_a_list_too() -> None:
    listed = class_list_of({"dog": ["barks", "wags"], "cat": "purrs", "cow": ""})
    assert plain(listed) == [("dog", "", ("barks", "wags")), ("cat", "", ("purrs",)), ("cow", "", ())]
    for wrong, sentence in (
        ({}, "has no class"),
        ({1: "x"}, "needs a text as its name"),
        ({"a": [1]}, "needs a text as its name"),
        ({"a": "\ud800"}, "holds what is no text"),
        ({"a": "\0"}, "holds what is no text"),
        ({" ": "x"}, "has a blank name"),
        ({"a": "x", "A": "y"}, "have the same name"),
    ):
        with pytest.raises(DataError, match=sentence):
            class_list_of(wrong)
