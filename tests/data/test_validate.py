"""The validator: everything that can be wrong with a data set, and the sentence it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unseen.data import Dataset, Split
from unseen.data.validate import comparable_name, validate
from unseen.errors import DataError

Change = Callable[[Dataset], Dataset]


def features(change: Callable[[Any], Any]) -> Change:
    return lambda data: replace(data, features=change(data.features))


def labels(change: Callable[[Any], Any]) -> Change:
    return lambda data: replace(data, labels=change(data.labels))


def table(**changes: Any) -> Change:
    """Class-table fields: a value, or a function of the old one."""

    def apply(data: Dataset) -> Dataset:
        new = {key: value(getattr(data.classes, key)) if callable(value) else value for key, value in changes.items()}
        return replace(data, classes=replace(data.classes, **new))

    return apply


def split(**changes: Any) -> Change:
    def apply(data: Dataset) -> Dataset:
        old = data.splits["only"]
        new = {key: value(getattr(old, key)) if callable(value) else value for key, value in changes.items()}
        return replace(data, splits={"only": replace(old, **new)})

    return apply


def pictures(**changes: Any) -> Change:
    return lambda data: replace(data, pictures=data.pictures and replace(data.pictures, **changes))


def rows(**index: list[int]) -> Change:
    """Other index arrays; seen and unseen classes follow from them."""

    def apply(data: Dataset) -> Dataset:
        old = data.splits["only"]
        parts = {
            part: np.array(index.get(part, getattr(old, part)), np.int64) for part in ("train", "test_seen", "test_unseen")
        }
        return replace(data, splits={"only": Split.from_rows("only", data.labels, **parts)})

    return apply


def put(array: Any, place: Any, value: Any) -> Any:
    changed = array.copy()
    changed[place] = value
    return changed


def shifted(by: int, dtype: Any = np.int64) -> Change:
    """All index arrays off by one, in a set where every number stays in range."""

    def apply(data: Dataset) -> Dataset:
        moved = {p: (getattr(data.splits["only"], p) + 1 + by).astype(dtype) for p in ("train", "test_seen", "test_unseen")}
        padded = replace(
            data,
            features=np.concatenate([data.features[:1], data.features, data.features[:1]]),
            labels=np.concatenate([[0], data.labels, [3]]),
            pictures=None,
        )
        index = Split.from_rows("only", padded.labels, **{part: array.astype(np.int64) for part, array in moved.items()})
        return replace(padded, splits={"only": replace(index, **moved)})

    return apply


def overlap_without_test_row(data: Dataset) -> Dataset:
    """Class 'cat' is called unseen and has a training row, but no unseen test row, and the seen list omits it."""
    old = data.splits["only"]
    return replace(
        data, splits={"only": replace(old, train=np.array([0, 1, 3, 4, 6]), test_unseen=np.arange(9, 12), by_group=False)}
    )


BAD: dict[str, tuple[Change, tuple[str, ...]]] = {
    # features
    "features 1-d": (features(np.ravel), ("features have shape (60,)", "transpose or reshape")),
    "no rows": (features(lambda x: x[:0]), ("features have shape (0, 5)", "non-empty")),
    "no columns": (features(lambda x: x[:, :0]), ("features have shape (12, 0)", "non-empty")),
    "features of whole numbers": (features(lambda x: x.astype(int)), ("features have dtype int64", "convert to float32")),
    "features complex": (features(lambda x: x * 1j), ("features have dtype complex64", "convert to float32")),
    "features long double": (features(lambda x: x.astype(np.longdouble)), ("features have dtype", "convert to float32")),
    "features transposed": (features(np.transpose), ("5 feature rows but 12 labels", "look transposed", "one label a row")),
    "NaN": (features(lambda x: put(x, (7, 2), np.nan)), ("features hold nan in row 7, column 2", "extract that row again")),
    "infinity": (features(lambda x: put(x, (11, 4), -np.inf)), ("features hold -inf in row 11, column 4", "leave it out")),
    "too large for float32": (
        features(lambda x: put(x.astype(np.float64), (3, 1), 1e300)),
        ("features hold 1e+300 in row 3, column 1", "extract that row again"),
    ),
    # labels
    "labels a column": (labels(lambda y: y[:, None]), ("labels have shape (12, 1)", "one whole number a row")),
    "labels with fractions": (labels(lambda y: y * 1.0), ("dtype float64", "one whole number a row")),
    "labels yes and no": (labels(lambda y: y > 1), ("dtype bool", "one whole number a row")),
    "labels too few": (labels(lambda y: y[:9]), ("12 feature rows but 9 labels", "one label a row")),
    "labels from 1": (labels(lambda y: y + 1), ("labels run from 1 to 4 for 4 classes", "count from 1; subtract 1")),
    "labels beyond": (labels(lambda y: put(y, 5, 9)), ("row 5 has label 9", "ids 0 to 3", "correct the label")),
    "labels below": (labels(lambda y: put(y, 5, -1)), ("row 5 has label -1", "ids 0 to 3")),
    # class table
    "embeddings transposed": (table(embeddings=np.transpose), ("4 class names but 3 class embeddings", "one row a class")),
    "embeddings square transposed or short": (
        table(embeddings=lambda e: np.ones((6, 4))),
        ("4 class names but 6 class embeddings", "look transposed"),
    ),
    "embeddings 1-d": (table(embeddings=np.ravel), ("class embeddings have shape (12,)", "one row a class")),
    "embeddings empty": (table(embeddings=lambda e: e[:, :0]), ("class embeddings have shape (4, 0)",)),
    "embeddings of whole numbers": (table(embeddings=lambda e: np.eye(4, dtype=int)), ("dtype int64", "convert to float32")),
    "embeddings of objects": (table(embeddings=lambda e: e.astype(object)), ("dtype object", "convert to float32")),
    "embedding NaN": (table(embeddings=lambda e: put(e, (2, 0), np.nan)), ("embedding of class 'cat' holds NaN", "again")),
    "embedding too large": (table(embeddings=lambda e: put(e, (2, 0), 1e300)), ("embedding of class 'cat' holds", "again")),
    "embedding zero": (
        table(embeddings=lambda e: put(e, [1, 3], 0)),
        ("embedding of class 'bee' (and of 1 more) is all zero", "describe the class"),
    ),
    "embeddings equal": (
        table(embeddings=lambda e: put(e, 3, e[0])),
        ("'ant' and 'dog' have identical embeddings", "describe them differently or merge"),
    ),
    "embeddings equal but for the sign of zero": (
        table(embeddings=lambda e: put(put(e, 0, [0.0, 1, 2]), 3, [-0.0, 1, 2])),
        ("'ant' and 'dog' have identical embeddings",),
    ),
    "names equal but for case": (table(names=("ant", "bee", "Bee", "dog")), ("'bee' and 'Bee'", "rename one or merge")),
    "names equal but for blanks": (table(names=("ant", "a  b", " a b ", "dog")), ("'a  b' and ' a b '", "same name")),
    "names equal but for Unicode form": (
        table(names=("Å", "bee", "A\u030a", "dog")),
        ("the same name once case, blanks and Unicode form are ignored", "rename one"),
    ),
    "names equal but for width": (table(names=("ant", "bee", "ｂｅｅ", "dog")), ("'bee' and 'ｂｅｅ'", "rename one")),
    "name empty": (table(names=("ant", "", "cat", "dog")), ("class 1 is named ''", "rename it")),
    "name blank": (table(names=("ant", "  ", "cat", "dog")), ("class 1 is named '  '", "rename it")),
    "name with a control character": (table(names=("ant", "b\x1bee", "cat", "dog")), ("class 1", "printable", "rename it")),
    "name with a lone surrogate": (table(names=("ant", "b\ud800", "cat", "dog")), ("class 1", "printable", "rename it")),
    "name too long": (table(names=("ant", "b" * 10_000, "cat", "dog")), ("class 1", "1 to 1000", "rename it")),
    "descriptions too few": (table(descriptions=("one",)), ("4 classes but 1 descriptions", "none at all")),
    "groups too few": (table(groups=("one", "two")), ("4 classes but 2 groups", "none at all")),
    # splits
    "no split": (lambda data: replace(data, splits={}), ("'tiny' has no split", "give at least one")),
    "split under another name": (
        lambda data: replace(data, splits={"other": data.splits["only"]}),
        ("'only'", "'other'", "one name"),
    ),
    "split without a name": (
        lambda data: replace(data, splits={"": replace(data.splits["only"], name="")}),
        ("split named ''", "printable", "rename it"),
    ),
    "data set without a name": (lambda data: replace(data, name=" "), ("data set", "' '", "printable", "rename it")),
    "index 2-d": (split(train=lambda i: i[:, None]), ("index array 'train' of split 'only'", "(4, 1)", "list of row numbers")),
    "index a mask": (split(test_seen=lambda i: np.ones(12, bool)), ("index array 'test_seen'", "bool", "list of row numbers")),
    "index with fractions": (split(test_unseen=lambda i: i * 1.0), ("index array 'test_unseen'", "float64")),
    "index beyond": (split(train=lambda i: put(i, 0, 99)), ("'train' of split 'only' names row 99", "0 to 11", "correct it")),
    "index negative": (split(train=lambda i: put(i, 0, -1)), ("'train' of split 'only' names row -1", "0 to 11")),
    "index from 1": (
        split(train=lambda i: i + 1, test_seen=lambda i: i + 1, test_unseen=lambda i: i + 1),
        ("'test_unseen' of split 'only' names row 12", "0 to 11", "count from 1, subtract 1"),
    ),
    "index one too large": (
        shifted(+1),
        ("row 7 in 'test_seen'", "is of class 'cat'", "one smaller", "count from 1; subtract 1"),
    ),
    "index one too large, unsigned": (shifted(+1, np.uint16), ("one smaller", "count from 1; subtract 1")),
    "index one too small": (shifted(-1), ("unseen classes have training rows", "one larger", "1 was subtracted twice")),
    "index one too small, unsigned": (shifted(-1, np.uint8), ("one larger", "1 was subtracted twice")),
    "row twice": (split(train=lambda i: np.append(i, 0)), ("'train' of split 'only' names row 0 more than once", "row once")),
    "row in train and test_seen": (
        split(test_seen=np.array([2, 4, 5])),
        ("row 4 is in both 'train' and 'test_seen' of split 'only'", "one of them only"),
    ),
    "no training row": (split(train=np.array([], np.int64)), ("split 'only' has no training row", "every seen class")),
    "no unseen class": (
        split(unseen=np.array([], np.int64), test_unseen=np.array([], np.int64)),
        ("split 'only' has no unseen class", "list"),
    ),
    "unseen class with training rows": (
        rows(train=[0, 1, 3, 4, 6, 7]),
        ("1 unseen classes have training rows in split 'only' (2 rows, for example 'cat')", "correct the split or the labels"),
    ),
    "unseen class with training rows, untested": (
        overlap_without_test_row,
        ("1 unseen classes have training rows in split 'only' (1 rows, for example 'cat')", "correct the split"),
    ),
    "class both seen and unseen": (
        split(seen=np.array([0, 1, 3])),
        ("'dog' is called both seen and unseen in split 'only'", "one"),
    ),
    "seen class without rows": (
        split(train=np.array([0, 1])),
        ("'bee' is called seen in split 'only' but has no training row", "call it unseen"),
    ),
    "seen ids beyond": (split(seen=np.array([0, 1, 4])), ("seen classes of split 'only' are not ids from 0 to 3",)),
    "unseen ids with fractions": (split(unseen=np.array([2.0, 3.0])), ("unseen classes of split 'only' are not ids",)),
    "unseen ids twice": (split(unseen=np.array([2, 3, 3])), ("unseen classes of split 'only'", "more than once")),
    "foreign row in test_seen": (
        split(test_seen=np.array([2, 5, 9]), test_unseen=np.array([6, 7, 8, 10, 11])),
        ("row 9 in 'test_seen' of split 'only' is of class 'dog'", "seen classes", "move the row"),
    ),
    "foreign row in test_unseen": (
        split(test_seen=np.array([2]), test_unseen=lambda i: np.append(i, 5)),
        ("row 5 in 'test_unseen' of split 'only' is of class 'bee'", "unseen classes", "move the row"),
    ),
    "by group without groups": (table(groups=()), ("split 'only' is by group", "no groups", "by_group")),
    "by group across groups": (
        table(groups=("small", "big", "big", "big")),
        ("split 'only' is by group", "'big' has seen classes ('bee') and unseen ones ('cat')", "whole groups"),
    ),
    # pictures
    "picture of no row": (pictures(rows=np.array([0, 12])), ("pictures", "row 12", "0 to 11")),
    "pictures without columns": (pictures(columns=0), ("pictures", "0 columns")),
    "pictures without size": (pictures(tile=-3), ("pictures", "-3 pixels")),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_in_one_sentence(case: str, tiny: Dataset) -> None:
    change, expected = BAD[case]
    with pytest.raises(DataError) as caught:
        validate(change(tiny))
    said = str(caught.value)
    for part in expected:
        assert part in said, said
    assert "\n" not in said
    assert len(said) < 400
    assert "; " in said, f"no next step: {said}"


def test_a_good_data_set_passes_unchanged(tiny: Dataset) -> None:
    assert validate(tiny) is tiny


@pytest.mark.parametrize(
    "change",
    [
        features(lambda x: x.astype(np.float16)),
        features(lambda x: x.astype(">f8")),
        features(np.asfortranarray),
        features(lambda x: put(x, (slice(None), 2), 0.5)),
        labels(lambda y: y.astype(np.uint8)),
        table(names=("<script>alert(1)</script>", "../../x", "🐕", "شجرة"), descriptions=(), embeddings=lambda e: -e),
        split(train=lambda i: i[::-1].astype(np.uint16), test_seen=np.array([], np.int64)),
        split(test_unseen=np.array([], np.int64), unseen=np.array([3, 2])),
        lambda data: replace(table(groups=())(data), splits=split(by_group=False)(data).splits, pictures=None),
    ],
)
def test_unusual_data_that_is_sound_passes(change: Change, tiny: Dataset) -> None:
    changed = change(tiny)
    assert validate(changed) is changed


def test_names_are_compared_as_readers_read() -> None:
    assert comparable_name(" Straße\u00a0 Ⅳ") == comparable_name("STRASSE iv")
    assert comparable_name("a b") != comparable_name("ab")


def test_the_first_bad_row_is_found_beyond_the_first_piece(monkeypatch: pytest.MonkeyPatch, tiny: Dataset) -> None:
    from unseen.data import validate as module

    monkeypatch.setattr(module, "BYTES_AT_ONCE", 2 * tiny.features[:1].nbytes)
    for row in range(12):
        with pytest.raises(DataError, match=f"in row {row}, column 4"):
            validate(features(lambda x, row=row: put(x, (row, 4), np.inf))(tiny))
