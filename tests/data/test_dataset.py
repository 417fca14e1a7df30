"""The data set: what training is handed, what the evaluation is handed, and how both are numbered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unseen.data import ClassTable, Dataset, Split, TrainingView
from unseen.errors import SettingsError


@pytest.fixture
def partial(tiny: Dataset) -> Dataset:
    """A split that leaves class 'bee' out and lists rows and classes in no order: local ids differ from the table's."""
    split = Split.from_rows("some", tiny.labels, np.array([7, 1, 0]), np.array([8, 2]), np.array([11, 10]), np.array([3]))
    return replace(tiny, splits={"some": split})


def arrays_in(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    """Every array that can be reached from a value by its fields and by the memory that its arrays are views of."""
    if isinstance(value, np.ndarray):
        yield value
        yield from arrays_in(value.base)
    elif is_dataclass(value):
        for field in fields(value):
            yield from arrays_in(getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from arrays_in(item)


def test_a_view_holds_the_training_rows_and_local_ids(partial: Dataset) -> None:
    view = partial.training_view()
    np.testing.assert_array_equal(view.features, partial.features[[7, 1, 0]])
    assert view.classes.names == ("ant", "cat", "dog")
    assert view.labels.tolist() == [1, 0, 0]
    assert (view.seen.tolist(), view.unseen.tolist()) == ([0, 1], [2])
    np.testing.assert_array_equal(view.classes.embeddings, partial.classes.embeddings[[0, 2, 3]])
    assert view.classes.descriptions == ("an ant", "a <b>cat</b>", "Ænima 🐕")
    assert view.classes.groups == ("small", "big", "big")
    assert view.by_group is False


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_no_test_row_can_be_reached_from_a_view(tiny: Dataset, tmp_path: Path, mapped: bool, dtype: Any) -> None:
    """With every test row NaN the view is the same to the bit, and no array in it shares memory with the features."""
    whole = replace(tiny, features=tiny.features.astype(dtype))
    poisoned = replace(whole, features=whole.features.copy())
    tested = np.concatenate([tiny.split().test_seen, tiny.split().test_unseen])
    poisoned.features[tested] = np.nan
    if mapped:
        whole.save(tmp_path / "d")
        whole = Dataset.load(tmp_path / "d")
    view, other = whole.training_view(), poisoned.training_view()
    ours, theirs = list(arrays_in(view)), list(arrays_in(other))
    assert len(ours) >= len(fields(TrainingView)) - 2
    for array in ours:
        assert not np.may_share_memory(array, whole.features)
        assert array.size <= max(len(tiny.split().train) * 5, 12)
    for field in ("features", "labels", "seen", "unseen"):
        assert getattr(view, field).tobytes() == getattr(other, field).tobytes()
    assert np.isfinite(np.concatenate([array.ravel().astype(float) for array in theirs])).all()
    assert view.features.dtype == np.float32
    assert not any(isinstance(getattr(view, field.name), (Dataset, Split)) for field in fields(view))


def test_a_view_can_be_written_to_without_harm(tiny: Dataset) -> None:
    before = tiny.features_fingerprint, tiny.embeddings_fingerprint
    view = tiny.training_view()
    view.features[:] = 0
    view.classes.embeddings[:] = 0
    changed = replace(tiny)  # drops the cached fingerprints
    assert (changed.features_fingerprint, changed.embeddings_fingerprint) == before


def test_test_rows_are_numbered_like_the_view(partial: Dataset) -> None:
    rows = partial.test_rows()
    np.testing.assert_array_equal(rows.seen_features, partial.features[[8, 2]])
    np.testing.assert_array_equal(rows.unseen_features, partial.features[[11, 10]])
    assert rows.seen_labels.tolist() == [1, 0]
    assert rows.unseen_labels.tolist() == [2, 2]
    assert (rows.seen_rows.tolist(), rows.unseen_rows.tolist()) == ([8, 2], [11, 10])


def test_classes_without_test_rows_are_named(tiny: Dataset) -> None:
    split = replace(tiny.split(), test_seen=np.array([2]), test_unseen=np.array([9]))
    with pytest.warns(UserWarning, match="have no test row") as caught:
        replace(tiny, splits={"only": split}).test_rows()
    said = sorted(str(warning.message) for warning in caught)
    assert said == [
        "1 seen classes have no test row in split 'only' and are left out of the averages: bee",
        "1 unseen classes have no test row in split 'only' and are left out of the averages: cat",
    ]


def test_the_first_split_is_the_default_and_another_name_is_a_sentence(tiny: Dataset) -> None:
    second = replace(tiny.split(), name="second")
    two = replace(tiny, splits={**tiny.splits, "second": second})
    assert two.split() is tiny.splits["only"]
    assert two.split("second") is second
    with pytest.raises(SettingsError, match="data set 'tiny' has no split 'third'; it has only, second"):
        two.split("third")


def test_seen_and_unseen_follow_from_the_rows(tiny: Dataset) -> None:
    split = Split.from_rows("s", tiny.labels, [4, 0], [1], [11])  # type: ignore[arg-type]  # lists will be given
    assert (split.seen.tolist(), split.unseen.tolist()) == ([0, 1], [3])
    assert {getattr(split, part).dtype for part in ("train", "test_seen", "test_unseen", "seen", "unseen")} == {
        np.dtype(np.int64)
    }


def test_the_fingerprint_of_a_split_is_that_of_its_sets(tiny: Dataset) -> None:
    split = tiny.split()
    assert replace(split, name="x", train=split.train[::-1], unseen=split.unseen[::-1]).fingerprint == split.fingerprint
    assert replace(split, train=split.train.astype(np.uint16)).fingerprint == split.fingerprint
    for other in (
        replace(split, train=split.test_seen, test_seen=split.train),
        replace(split, train=split.train[1:]),
        replace(split, unseen=split.unseen[1:]),
    ):
        assert other.fingerprint != split.fingerprint


def test_a_class_table_can_be_taken_apart() -> None:
    table = ClassTable(("a", "b", "c"), np.eye(3))
    taken = table.take(np.array([2, 0]))
    assert (taken.names, taken.descriptions, taken.groups) == (("c", "a"), (), ())
    np.testing.assert_array_equal(taken.embeddings, np.eye(3)[[2, 0]])


def test_pictures_know_their_place(tiny: Dataset) -> None:
    assert tiny.pictures is not None
    assert tiny.pictures.place == {0: (0, 0), 7: (1, 0), 11: (0, 1)}


def test_labels_are_fingerprinted_for_the_rows_of_a_split_alone(tiny: Dataset) -> None:
    split = tiny.split()
    ours = tiny.labels_fingerprint(split.name)
    used = np.concatenate([split.train, split.test_seen, split.test_unseen])

    def with_labels(rows: np.ndarray[Any, Any]) -> str:
        labels = tiny.labels.copy()
        labels[rows] = labels[rows[::-1]]
        return replace(tiny, labels=labels).labels_fingerprint(split.name)

    first, other = used[0], used[tiny.labels[used] != tiny.labels[used[0]]][0]
    assert with_labels(np.array([first, other])) != ours
    shuffled = replace(split, train=split.train[::-1], test_unseen=split.test_unseen[::-1])
    assert replace(tiny, splits={split.name: shuffled}).labels_fingerprint(split.name) == ours  # order is no part of it
    assert replace(tiny, labels=tiny.labels.astype(np.int32)).labels_fingerprint(split.name) == ours
    fewer = replace(tiny, splits={split.name: replace(split, train=split.train[1:])})
    labels = tiny.labels.copy()
    labels[split.train[0]] = other
    unused = replace(fewer, labels=labels)
    assert unused.labels_fingerprint(split.name) == fewer.labels_fingerprint(split.name)


def test_groups_are_fingerprinted_where_folds_depend_on_them(tiny: Dataset) -> None:
    split = replace(tiny.split(), by_group=False)
    tiny = replace(tiny, splits={split.name: split})
    regrouped = replace(tiny, classes=replace(tiny.classes, groups=tuple(f"{g}?" for g in tiny.classes.groups)))
    assert tiny.labels_fingerprint(split.name) == regrouped.labels_fingerprint(split.name)
    by_group = {split.name: replace(split, by_group=True)}
    ours, theirs = (replace(data, splits=by_group).labels_fingerprint(split.name) for data in (tiny, regrouped))
    assert ours != theirs
    assert ours != tiny.labels_fingerprint(split.name)


def test_the_class_table_of_a_split_is_that_of_its_view(partial: Dataset) -> None:
    table, of_view = partial.class_table("some"), partial.training_view("some").classes
    assert (table.names, table.descriptions, table.groups) == (of_view.names, of_view.descriptions, of_view.groups)
    np.testing.assert_array_equal(table.embeddings, of_view.embeddings)
