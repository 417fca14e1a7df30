"""`unseen data build` and `unseen data check`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Said, unseen

from unseen.data import ClassTable, Dataset
from unseen.data.class_file import Classes, save_classes
from unseen.data.collection import Collection, save_collection


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """FEATURES and EMBEDDINGS of twelve classes whose features follow from the embeddings; 'kiwi' has no row."""
    names = [*(f"[red]fruit {letter}[/]" for letter in "abcdefghijkl"), "kiwi"]  # markup to whoever prints it carelessly
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(13, 5))
    labels = np.repeat(np.arange(12), 10)
    features = (embeddings @ generator.normal(size=(5, 30)))[labels] + 0.8 * generator.normal(size=(120, 30))
    paths = tuple(f"{label}/{row}.jpg" for row, label in enumerate(labels))
    texts = ("something to eat",) * 13
    collection = Collection(features.astype(np.float32), tuple(names[i] for i in labels), paths, "an encoder")
    save_collection(collection, tmp_path / "FEATURES")
    save_classes(Classes(ClassTable(tuple(names), embeddings, texts), "sentences"), tmp_path / "EMBEDDINGS")
    return tmp_path


def test_what_is_no_data_set_yet_is_told_apart(made: Path) -> None:
    for name, what in (("FEATURES", "features alone"), ("EMBEDDINGS", "classes alone")):
        code, out, err = unseen("data", "check", made / name)
        assert (code, out) == (1, "")
        assert err == f"error: '{made / name}' holds {what}; `unseen data build` makes a data set of features and classes\n"


def build(made: Path, *words: object) -> Said:
    return unseen(
        "data", "build", "--features", made / "FEATURES", "--classes", made / "EMBEDDINGS", "--out", made / "fruit", *words
    )


def test_build_then_check(made: Path) -> None:
    code, out, err = build(made, "--source", "a market", "--licence", "CC0")
    assert code == 0, err
    assert err.replace("\n", " ").startswith("note: 1 classes have no row of features: 'kiwi'; they are unseen in every split")
    lines = out.splitlines()
    assert lines[0] == "fruit: 120 rows of 30 features (float32), 13 classes with embeddings of length 5 and descriptions"
    assert lines[5] == "split random0: 10 seen and 3 unseen classes; 80 rows train, 20 test seen classes and 20 unseen ones"
    assert lines[-1] == f"data set: {made / 'fruit'}"
    data = Dataset.load(made / "fruit")
    assert data.provenance.source == "a market"
    code, out, err = unseen("data", "check", made / "fruit", "--permutations", "19", "--threshold", "0.999")
    assert code == 0, err
    assert "your descriptions carry signal: " in out
    assert "(p = 0.05, 19 permutations" in out
    assert "  [red]fruit " in out  # as it is called, not in red
    assert "  * 1 unseen classes have no test row" in out


def test_as_json(made: Path) -> None:
    code, out, err = build(made, "--split", "rollout", "--unseen", "6", "--stages", "2", "--json", "--seed", "3")
    assert code == 0, err
    built = json.loads(out)
    assert [(s["name"], s["seen"], s["unseen"]) for s in built["splits"]] == [("rollout0", 6, 4), ("rollout1", 6, 7)]
    assert len(built["notes"]) == 1
    code, out, err = unseen("data", "check", made / "fruit", "--split", "rollout1", "--permutations", "0", "--json")
    assert code == 0, err
    checked = json.loads(out)
    assert [s["name"] for s in checked["splits"]] == ["rollout1"]
    assert len(checked["closest_seen"]) == 7
    assert checked["duplicates"]["exact"] == 0


def test_the_same_command_writes_the_same_bytes(made: Path) -> None:
    written = []
    for _ in range(2):
        assert build(made, "--split", "random", "--draws", "3", "--unseen", "25%")[0] == 0
        written.append({entry.name: entry.read_bytes() for entry in sorted((made / "fruit").iterdir())})
    assert written[0] == written[1]


def test_tables_instead_of_folders_and_named_classes(made: Path) -> None:
    (made / "features.csv").write_text("label,x,y\n" + "".join(f"c{i % 6},{i},{i * i % 7}\n" for i in range(36)))
    (made / "classes.csv").write_text("name,group,p,q\n" + "".join(f"c{i},g{i // 2},{i},{i * i}\n" for i in range(1, 6)))
    words = ("data", "build", "--features", made / "features.csv", "--classes", made / "classes.csv", "--out", made / "t")
    code, out, err = unseen(*words, "--split", "list", "--unseen", "c1,c2")
    assert (code, out) == (1, "")
    assert err == (
        "error: 6 rows have a label that no class is named: 'c0'; describe these classes too, or leave their rows "
        "out with --drop-unknown\n"
    )
    assert not (made / "t").exists()
    code, out, err = unseen(*words, "--split", "list", "--unseen", "c1,c2", "--drop-unknown", "--name", "own", "--json")
    assert code == 0, err
    assert json.loads(out)["name"] == "own"
    assert json.loads(out)["splits"][0]["unseen"] == 2
    code, out, err = unseen(*words, "--split", "groups", "--drop-unknown", "--json", "--unseen", "2", "--out", made / "g")
    assert code == 0, err
    (split,) = json.loads(out)["splits"]
    assert split["by_group"]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--split", "odd"), 2, "no kind of split 'odd'"),
        (("--unseen", "kiwi"), 2, "neither a share such as 20% nor a number of classes"),
        (("--split", "list"), 2, "no class is named"),
        (("--split", "groups"), 1, "the classes have no groups"),
        (("--split", "list", "--unseen", "plum"), 1, "unseen class 'plum' is not among the 13 classes"),
        (("--name", "a\nb"), 1, "a data set named"),
    ],
)
def test_refusals_are_one_sentence_and_write_nothing(made: Path, words: tuple[str, ...], code: int, sentence: str) -> None:
    got, out, err = build(made, *words)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert err.startswith("error: ")
    assert sentence in err
    assert not (made / "fruit").exists()


def test_folders_that_are_something_else_are_told_apart(made: Path) -> None:
    def refused(features: Path, classes: Path) -> str:
        code, out, err = unseen("data", "build", "--features", features, "--classes", classes, "--out", made / "x")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert not (made / "x").exists()
        return err

    f, e = made / "FEATURES", made / "EMBEDDINGS"
    assert refused(e, f) == f"error: {e} holds classes, and --features takes features; give it to --classes\n"
    assert refused(f, f) == f"error: {f} holds features, and --classes takes classes; give it to --features\n"
    assert build(made)[0] == 0
    sentence = "holds a whole data set, and --features takes features; what it lacks can be told by `unseen data check`"
    assert f"{made / 'fruit'} {sentence}" in refused(made / "fruit", e)
    (made / "arrays").mkdir()
    np.save(made / "arrays/features.npy", np.ones((3, 2)))
    assert "holds NumPy arrays, and --features takes features; Dataset.from_arrays makes" in refused(made / "arrays", e)
    assert "cannot be opened" in refused(Path("x" * 300), e)


def test_another_data_set_is_not_replaced(made: Path) -> None:
    assert build(made)[0] == 0
    before = Dataset.load(made / "fruit").split().fingerprint
    code, out, err = build(made, "--seed", "1")
    assert (code, out) == (1, "")
    sentence = f"error: {made / 'fruit'} holds another data set; choose another name or remove it, nothing was written"
    assert err.splitlines() == [sentence]
    assert Dataset.load(made / "fruit").split().fingerprint == before


def test_nothing_of_others_is_replaced(made: Path) -> None:
    (made / "fruit").mkdir()
    (made / "fruit/thesis.tex").write_text("mine")
    code, _, err = build(made)
    assert code == 1
    assert "is not a data set of ours" in err
    assert (made / "fruit/thesis.tex").read_text() == "mine"
