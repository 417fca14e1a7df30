"""Features and classes become a data set: joined by name, and every surplus on either side is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unseen.data import ClassTable, Dataset
from unseen.data.build import build_dataset
from unseen.data.class_file import Classes
from unseen.data.collection import Collection
from unseen.errors import DataError


def collection(names: str = "abcdefgh", rows: int = 5, **more: tuple[str, ...]) -> Collection:
    labels = tuple(name for name in names for _ in range(rows))
    features = np.random.default_rng(0).random((len(labels), 4), np.float32)
    return Collection(features, labels, provenance="an encoder", **more)


def classes(*names: str) -> Classes:
    return Classes(ClassTable(names, np.random.default_rng(1).normal(size=(len(names), 3))), "another encoder")


def test_join_is_exact_but_for_unicode_form_and_blanks_at_the_ends() -> None:
    features = np.eye(8, dtype=np.float16)
    labels = ("cafe\u0301", " b", "c", "d", "e", "caf\u00e9 ", "b", "c")
    built = build_dataset(Collection(features, labels), classes("e", "d", "c", " b ", "caf\u00e9"), unseen=("1",))
    assert built.dataset.labels.tolist() == [4, 3, 2, 1, 0, 4, 3, 2]
    assert built.dataset.features is features
    assert built.dataset.provenance.embedding_source == "another encoder"


def test_rows_of_unknown_classes_are_an_error_or_left_out() -> None:
    given = collection("abcdeFG", paths=tuple(f"p{i}" for i in range(35)))
    with pytest.raises(
        DataError,
        match=r"10 rows have one of 2 labels that no class is named: 'F', 'G' \('F' may be class 'f'\); describe these classes "
        "too, or leave their rows out$",
    ):
        build_dataset(given, classes(*"abcdef"))
    built = build_dataset(given, classes(*"abcde"), drop_unknown=True, unseen=("1",))
    assert len(built.dataset.labels) == 25
    assert built.dataset.paths == tuple(f"p{i}" for i in range(25))
    np.testing.assert_array_equal(built.dataset.features, given.features[:25])
    assert built.notes == ("10 rows have one of 2 labels that no class is named: 'F', 'G'; they are left out",)
    with pytest.raises(DataError, match="no row would be left"):
        build_dataset(given, classes("x", "y"), drop_unknown=True)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("abcdeF", "5 rows have a label that no class is named: 'F'"),
        ("abcdeFG", "10 rows have one of 2 labels that no class is named: 'F', 'G'"),
    ],
)
def test_labels_that_are_no_class_are_counted_in_english(labels: str, told: str) -> None:
    assert build_dataset(collection(labels), classes(*"abcde"), drop_unknown=True).notes[0] == f"{told}; they are left out"
    one = Collection(np.random.default_rng(1).random((6, 4), np.float32), ("a", "b", "c", "a", "b", "x"))
    with pytest.raises(DataError, match=r"^1 row has a label that no class is named: 'x';"):
        build_dataset(one, classes(*"abc"))


def test_a_data_set_that_cannot_be_scored_says_so_when_it_is_built() -> None:
    built = build_dataset(collection("abcde"), classes(*"abcde"), unseen=("1",), test_share=0)
    assert built.notes == (
        "split 'random0' holds out no row of a seen class, so no method can be scored on it, and `unseen train` refuses it; "
        "build with --test-share above 0, such as 0.2",
    )


def test_classes_without_rows_are_unseen_and_told() -> None:
    built = build_dataset(collection("abcde"), classes(*"abcdexyz"), unseen=("1",))
    split = built.dataset.split()
    assert {5, 6, 7} < set(split.unseen.tolist())
    assert len(split.unseen) == 4
    assert built.notes[0].startswith("3 classes have no row of features: 'x', 'y', 'z'; they are unseen in every split")


def test_duplicates_across_train_and_test_and_classes_of_one_row_are_told() -> None:
    given = collection("abcde", rows=2)
    features = given.features.copy()
    features[1] = features[0]  # of class a, one trains and one tests
    built = build_dataset(Collection(features, (*given.labels[:-1], "f")), classes(*"abcdef"), split="list", unseen=("b",))
    assert built.notes == (
        "1 test rows of split 'list' have the same features as a training row, so they test memory; see which with "
        "`unseen data check`",
        "2 seen classes of split 'list' have one row only, which trains; nothing tests them",
    )


def test_the_same_input_gives_the_same_bits_and_survives_saving(tmp_path: Path) -> None:
    given = collection(paths=(*(f"x/{i}.png" for i in range(39)), "odd \udcff\n.png"))
    for name in ("one", "two"):
        build_dataset(given, classes(*"abcdefgh"), split="rollout", unseen=("40%",), seed=3).dataset.save(tmp_path / name)
    for file in ("dataset.json", "table.safetensors", "features.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    read = Dataset.load(tmp_path / "one")
    assert read.paths == given.paths
    assert list(read.splits) == ["rollout0", "rollout1", "rollout2"]


def test_what_no_file_can_hold_is_refused() -> None:
    with pytest.raises(DataError, match=r"the source is not text in Unicode \('a\\udcff'\)"):
        build_dataset(collection(), classes(*"abcdefgh"), source="a\udcff")
    table = ClassTable(tuple("abcdefgh"), np.eye(8), ("\ud800",) * 8)
    with pytest.raises(DataError, match="the description of class 'a' is not text"):
        build_dataset(collection(), Classes(table, "x"))


def test_paths_that_cannot_be_are_refused(tiny: Dataset, tmp_path: Path) -> None:
    for paths, sentence in (
        (("a",), "12 rows but 1 paths"),
        (("a\0b",) * 12, "path of row 0"),
        (("\ud800",) * 12, "path of row 0"),
    ):
        with pytest.raises(DataError, match=sentence):
            replace(tiny, paths=paths).save(tmp_path / "x")
