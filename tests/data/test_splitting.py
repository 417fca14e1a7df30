"""Splits of one's own data: exact counts, whole groups, stages, and what does not depend on the order of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unseen.data import ClassTable, Dataset, Split
from unseen.data.splitting import STAGES, make_splits, row_keys
from unseen.data.validate import validate
from unseen.errors import DataError, SettingsError

NAMES = tuple("jihgfedcba")  # not in alphabetical order, so that ids and ranks differ
COUNTS = (10, 10, 10, 10, 10, 4, 2, 1, 10, 10)  # of j, i, h, g, f, e, d, c, b, a


def table(groups: tuple[str, ...] = (), names: tuple[str, ...] = NAMES) -> ClassTable:
    return ClassTable(names, np.random.default_rng(0).normal(size=(len(names), 3)), groups=groups)


def rows(counts: tuple[int, ...] = COUNTS) -> tuple[np.ndarray, list[str]]:
    """Labels in a mixed order, and a key each that says its class and number."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    seen = dict.fromkeys(range(len(counts)), 0)
    keys = []
    for label in labels.tolist():
        keys.append(f"{label}/{seen[label]}")
        seen[label] += 1
    return labels, keys


def cut(kind: str, *unseen: str, seed: int = 0, classes: ClassTable | None = None, **more: Any) -> dict[str, Split]:
    labels, keys = rows()
    splits = make_splits(labels, classes or table(), keys, kind, unseen, seed, **more)
    features = np.random.default_rng(2).random((len(labels), 4), np.float32)
    validate(Dataset("x", features, labels, classes or table(), splits))
    return splits


@pytest.mark.parametrize(("asked", "count"), [("20%", 2), ("0.2", 2), ("25%", 3), ("1%", 1), ("3", 3), (" 30 % ", 3)])
def test_random_holds_out_as_many_classes_as_asked(asked: str, count: int) -> None:
    (split,) = cut("random", asked).values()
    assert split.name == "random0"
    assert (len(split.unseen), len(split.seen)) == (count, 10 - count)


def test_a_fifth_of_each_seen_class_is_held_out_and_one_at_least_of_two() -> None:
    labels, _ = rows()
    (split,) = cut("list", "j").values()
    held_out = np.bincount(labels[split.test_seen], minlength=10)
    assert held_out.tolist() == [0, 2, 2, 2, 2, 1, 1, 0, 2, 2]  # int(0.2 · 10) = 2, max(1, int(0.2 · 4)) = 1; c has one row
    assert np.bincount(labels[split.train], minlength=10).tolist() == [0, 8, 8, 8, 8, 3, 1, 1, 8, 8]
    assert labels[split.test_unseen].tolist() == [0] * 10
    (none,) = cut("list", "j", test_share=0.0).values()
    assert len(none.test_seen) == 0
    assert len(none.train) == 67


def test_the_same_pictures_fall_in_the_same_parts_whatever_the_order() -> None:
    labels, keys = rows()
    row_order = np.random.default_rng(5).permutation(len(labels))
    class_order = np.random.default_rng(6).permutation(10)
    groups = tuple("pqrst"[i // 2] for i in range(10))
    other = table(groups).take(class_order)
    moved = np.argsort(class_order)[labels[row_order]]
    for kind, unseen in (("random", "30%"), ("groups", "40%"), ("list", "a,d"), ("rollout", "4")):
        draws = 2 if kind in ("random", "groups") else 1
        one = make_splits(labels, table(groups), keys, kind, (unseen,), 3, draws=draws)
        two = make_splits(moved, other, [keys[row] for row in row_order], kind, (unseen,), 3, draws=draws)
        assert list(one) == list(two)
        for name, split in one.items():
            for part in ("train", "test_seen", "test_unseen"):
                assert {keys[row] for row in getattr(split, part)} == {keys[row_order[row]] for row in getattr(two[name], part)}
            assert {NAMES[i] for i in split.unseen} == {other.names[i] for i in two[name].unseen}


def test_the_seed_decides_and_draws_differ() -> None:
    assert cut("random", "3", seed=1)["random0"].fingerprint == cut("random", "3", seed=1)["random0"].fingerprint
    assert len({cut("random", "3", seed=seed)["random0"].fingerprint for seed in range(5)}) == 5
    drawn = [set(split.unseen.tolist()) for split in cut("random", "3", draws=3).values()]
    assert len(set.union(*drawn)) == 9  # three times three classes, none twice while there are enough


def test_groups_are_held_out_whole() -> None:
    groups = ("p", "p", "q", "q", "q", "r", "r", "s", "s", "t")
    for seed in range(5):
        for split in cut("groups", "30%", seed=seed, classes=table(groups), draws=2).values():
            assert split.by_group
            assert not {groups[i] for i in split.unseen} & {groups[i] for i in split.seen}
            assert 2 <= len(split.unseen) <= 4
    for none in ((), ("",) * 10):
        with pytest.raises(DataError, match="the classes have no groups"):
            cut("groups", "20%", classes=table(none))
    with pytest.raises(DataError, match="class 'i' has no group"):
        cut("groups", "20%", classes=table(("p", " ", *"qqqqrrrr")))
    with pytest.raises(DataError, match="every group is too large"):
        cut("groups", "20%", classes=table(("p",) * 10))


def test_listed_classes_in_any_way_that_names_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\n\n b \n", encoding="utf-8-sig")
    expected = {8, 9}
    for unseen in (("a", "b"), ("b,a",), (" a ", "b"), (str(tmp_path / "names.txt"),), (str(tmp_path / "names.txt"), "a")):
        assert set(cut("list", *unseen)["list"].unseen.tolist()) == expected
    odd = table(names=("20%", "a,b", *NAMES[:7], "caf\u00e9"))  # names that look like something else
    assert cut("list", "20%", "a,b", "cafe\u0301", classes=odd)["list"].unseen.tolist() == [0, 1, 9]


def test_rollout_lets_classes_arrive_and_trains_on_the_same_rows() -> None:
    splits = cut("rollout", "b", "j,a", "d", stages=3)
    assert [sorted(NAMES[i] for i in split.unseen) for split in splits.values()] == [
        ["b", "j"],
        ["a", "b", "j"],
        ["a", "b", "d", "j"],
    ]
    assert list(splits) == ["rollout0", "rollout1", "rollout2"]
    first, *others = splits.values()
    assert sorted(NAMES[i] for i in first.seen) == ["c", "e", "f", "g", "h", "i"]
    for other in others:
        np.testing.assert_array_equal(other.train, first.train)
        np.testing.assert_array_equal(other.test_seen, first.test_seen)
    assert [len(split.test_unseen) for split in splits.values()] == [20, 30, 32]
    drawn = cut("rollout", "40%", stages=2)
    assert [len(split.unseen) for split in drawn.values()] == [2, 4]
    assert set(drawn["rollout0"].unseen) < set(drawn["rollout1"].unseen)


def test_classes_without_rows_are_unseen_everywhere_and_arrive_last() -> None:
    names = (*NAMES, "new", "newer")
    labels, keys = rows()
    groups = (*"ppqqqrrsst", "t", "u")
    cuts = {
        kind: make_splits(labels, table(groups, names), keys, kind, unseen, 0, stages=2 if kind == "rollout" else STAGES)
        for kind, unseen in (("random", ("20%",)), ("groups", ("2",)), ("list", ("a",)), ("rollout", ("b", "j")))
    }
    for kind in ("random", "groups", "list"):
        (split,) = cuts[kind].values()
        assert {10, 11} <= set(split.unseen.tolist())
    (random,) = cuts["random"].values()
    assert len(random.unseen) == 4  # 20 % of the ten that have rows, and the two that have none
    (grouped,) = cuts["groups"].values()
    assert 9 in grouped.unseen  # a is in the group of 'new'
    assert [sorted(s.unseen.tolist()) for s in cuts["rollout"].values()] == [[0, 8], [0, 8, 10, 11]]
    (only,) = make_splits(labels, table(names=names), keys, "random", ("0",), 0).values()
    assert only.unseen.tolist() == [10, 11]
    assert len(only.test_unseen) == 0


@pytest.mark.parametrize(
    ("kind", "unseen", "more", "sentence"),
    [
        ("odd", ("20%",), {}, "no kind of split 'odd'; there are random, groups, list, rollout"),
        ("random", ("a",), {}, "neither a share such as 20% nor a number.*--split list"),
        ("random", ("120%",), {}, "--unseen '120%' leaves no class seen; give a share below 100%"),
        ("random", ("100 %",), {}, "--unseen '100 %' leaves no class seen"),
        (
            "random",
            ("1.0",),
            {},
            "--unseen '1.0' leaves no class seen; give a share below 100%, such as 20%, or a whole number",
        ),
        ("groups", ("-1",), {}, "--unseen '-1' is below 0; give a share such as 20% or a number of classes"),
        ("list", ("a",), {"draws": 2}, "--draws is for random and groups; leave it out with --split list"),
        ("rollout", ("a", "b", "c"), {"draws": 2}, "--draws is for random and groups"),
        ("random", ("20%",), {"stages": 2}, "--stages is for rollout; leave it out with --split random"),
        ("list", ("a",), {"stages": 4}, "--stages is for rollout"),
        ("random", ("20%", "3"), {}, "neither a share"),
        ("random", ("0",), {}, "no class would be unseen"),
        ("random", ("20%",), {"test_share": 1.0}, "a share of 1.0"),
        ("random", ("20%",), {"draws": 0}, "at least one draw"),
        ("random", ("20%",), {"seed": -1}, "seed -1 is negative"),
        ("list", (), {}, "no class is named"),
        ("rollout", ("a", "b"), {"stages": 3}, "2 classes cannot arrive in 3 stages"),
    ],
)
def test_settings_that_cannot_work(kind: str, unseen: tuple[str, ...], more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        cut(kind, *unseen, **more)


@pytest.mark.parametrize(
    ("kind", "unseen", "sentence"),
    [
        ("random", ("9",), "10 classes have rows, of which 9 would be unseen"),
        ("list", NAMES[:9], "1 classes with rows would stay seen"),
        ("list", ("A",), "unseen class 'A' is not among the 10 classes; write it 'a'"),
        ("list", ("zebra",), "'zebra' is not among the 10 classes, and there is no such file; check how it is written"),
        ("list", ("here/none.txt",), "'here/none.txt' is not among the 10 classes, and there is no such file"),
        ("list", ("a,zebra",), "'zebra' is not among the 10 classes; check how it is written"),
    ],
)
def test_classes_that_are_not_there_or_too_few(kind: str, unseen: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        cut(kind, *unseen)


def test_rows_are_known_by_path_else_by_features() -> None:
    features = np.array([[1, 2], [3, 4]], np.float32)
    assert row_keys(features, ("a", "b")) == ("a", "b")
    by_features = row_keys(features, ("a", "a"))  # a path that stands twice identifies nothing
    assert by_features == row_keys(features, ())
    assert row_keys(features[::-1], ()) == by_features[::-1]
