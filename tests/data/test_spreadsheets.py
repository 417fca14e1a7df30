"""The reader of tables that all others share: what parquet files may unpack to, and where the limit is kept."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from unseen.data import spreadsheets
from unseen.data.class_list import read_class_list
from unseen.data.collection import load_collection
from unseen.data.pictures import list_pictures
from unseen.data.spreadsheets import cells_up_to, delimiter_of
from unseen.errors import DataError

pa = pytest.importorskip("pyarrow")


@pytest.mark.parametrize("many", ["rows", "values"])
def test_a_parquet_bomb_is_one_sentence_to_every_reader(many: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of one value over and over take next to nothing on disk; long texts and long lists are in one row."""
    from pyarrow import parquet

    rows = 3 if many == "values" else 5000
    text = "a" * (60_000 if many == "values" else 1)
    columns = {
        "label": [text] * rows,
        "path": [text] * rows,
        "name": [text] * rows,
        "x": pa.array([[0.0] * (50_000 if many == "values" else 1)] * rows),
    }
    for name, wanted in (("features", ("label", "x")), ("classes", ("name", "x")), ("pictures", ("label", "path"))):
        parquet.write_table(pa.table({key: columns[key] for key in wanted}), tmp_path / f"{name}.parquet", compression="zstd")
    assert all(path.stat().st_size < 10_000 for path in tmp_path.iterdir())
    monkeypatch.setattr(spreadsheets, "ALWAYS_UNPACKED", 30_000)
    monkeypatch.setattr(spreadsheets, "MOST_UNPACKED", 3)
    for read, name in ((load_collection, "features"), (read_class_list, "classes"), (list_pictures, "pictures")):
        with pytest.raises(DataError, match=r"unpacks to more than [\d,]+ bytes, which no table of its size does") as caught:
            read(tmp_path / f"{name}.parquet")
        assert "\n" not in str(caught.value)


def test_the_limit_of_a_cell_is_put_back() -> None:
    before = csv.field_size_limit()
    with cells_up_to(17), pytest.raises(csv.Error, match="field larger than field limit"):
        next(csv.reader(["a" * 18]))
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("head", "mark"),
    [
        ("label,a;b;c\n", ","),
        ('"Label";"a,b,c"\n', ";"),
        ("x y\tLABEL\n1,2\t3", "\t"),
        ("x;y\n", ","),
    ],
)
def test_the_mark_is_the_one_that_gives_the_columns_required(head: str, mark: str) -> None:
    assert delimiter_of(head, ("label",)) == mark
