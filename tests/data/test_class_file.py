"""Classes with embeddings: what is written comes back, tables of attributes are read, and each fault gets its sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from unseen.data import ClassTable
from unseen.data.class_file import Classes, load_classes, save_classes
from unseen.encoders import embed
from unseen.errors import DataError

SOME = Classes(
    table=ClassTable(("=cat", "Œuf"), np.array([[1, 0.5], [0, 2]]), ("a <b>cat</b>", ""), ("pet", "food")),
    source="a model, of the name",
    encoder={"name": "m", "prompt": "{name}"},
)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save_classes(SOME, tmp_path)
    save_classes(SOME, tmp_path)
    read = load_classes(tmp_path)
    assert (read.source, read.encoder) == (SOME.source, SOME.encoder)
    assert (read.table.names, read.table.descriptions, read.table.groups) == (
        SOME.table.names,
        SOME.table.descriptions,
        SOME.table.groups,
    )
    np.testing.assert_array_equal(read.table.embeddings, SOME.table.embeddings)
    assert read.table.embeddings.dtype == np.float64


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: save_file({"embeddings": np.eye(2)}, f / "embeddings.safetensors"), "checksum differs"),
        (lambda f: save_file({"other": np.eye(2)}, f / "embeddings.safetensors"), "is damaged"),
        (lambda f: (f / "embeddings.safetensors").unlink(), "does not exist"),
        (lambda f: (f / "classes.json").write_text((f / "classes.json").read_text().replace("Œuf", "egg")), "checksum differs"),
        (lambda f: (f / "classes.json").write_text("{}"), "does not describe"),
        (lambda f: (f / "classes.json").write_text('{"format": "unseen-classes", "version": 1}'), "is damaged"),
    ],
)
def test_damage_gets_one_sentence(tmp_path: Path, damage: Callable[[Path], object], sentence: str) -> None:
    save_classes(SOME, tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=sentence):
        load_classes(tmp_path)


def test_a_table_of_attributes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,furry,Group,legs,description\ncat,1,pet,4,soft\nÖl, 0,food,7,\n", encoding="utf-8")
    read = load_classes(tmp_path / "a.csv")
    assert read.table.names == ("cat", "Öl")
    assert read.table.groups == ("pet", "food")
    assert read.table.descriptions == ("soft", "")
    np.testing.assert_array_equal(read.table.embeddings, [[1, 4], [0, 7]])
    assert read.source == "2 attributes as they are: furry, legs"
    assert dict(read.encoder) == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,description\ncat,soft\n", "a.csv has no column of numbers; add some, or let `unseen embed`"),
        ("name,x\ncat,1\nCat,2\n", "classes 'cat' and 'Cat' have the same name"),
        ("name,x\ncat,nan\ndog,1\n", "class 'cat' has no number in column 'x' .line 2 of .*a.csv"),
        ("name,x\ncat,0\ndog,1\n", "a.csv: the embedding of class 'cat' is all zero"),
        ("name,x\ncat,1\ndog,1\n", "identical embeddings"),
        ("name,x\ncat,1\n,2\n", "line 3 of .*a.csv has a blank name"),
        ("name,x\ncat,1\ndog,soft\n", "class 'dog' has 'soft', which is no number, in column 'x'"),
    ],
)
def test_every_fault_of_a_table_gets_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        load_classes(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("content", "warning"),
    [
        ("Name;Group;tall;heavy;maker;description\ncat;pet;0,5;4;x;soft\n'=Öl;food;1;7;y;\n".encode(), "maker"),
        ("name,group,tall,heavy,description\ncat,pet,0.5,4,soft\n'=Öl,food,1,7,\n".encode("utf-16"), None),
        ("name;tall;heavy;group;description\n'=Öl;1;7;food;\ncat;0,5;4;pet;soft\n".encode("cp1252"), "read as Windows-1252"),
    ],
)
def test_a_table_is_read_as_the_command_embed_reads_it(tmp_path: Path, content: bytes, warning: str | None) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.warns(UserWarning, match=warning) if warning else nullcontext():
        read = load_classes(tmp_path / "a.csv")
    with pytest.warns(UserWarning, match=warning) if warning else nullcontext():
        made = embed(tmp_path / "a.csv", "attributes")
    assert (read.table.names, read.table.groups, read.table.descriptions, read.source) == (
        made.table.names,
        made.table.groups,
        made.table.descriptions,
        made.source,
    )
    np.testing.assert_array_equal(read.table.embeddings, made.table.embeddings)
    assert dict(zip(read.table.names, read.table.embeddings.tolist(), strict=True)) == {"cat": [0.5, 4], "=Öl": [1, 7]}


def test_what_is_not_valid_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 class names but 3 class embeddings"):
        save_classes(Classes(ClassTable(("a", "b"), np.eye(3)), "x"), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(DataError, match="no table of classes"):
        load_classes(Path(__file__))
    with pytest.raises(DataError, match="does not exist"):
        load_classes(tmp_path / "none")
