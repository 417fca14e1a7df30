"""A fold is a data set of its own: nothing of the test rows or of the truly unseen classes is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from unseen.data import ClassTable, Dataset, Split, TrainingView
from unseen.errors import DataError
from unseen.evaluation.folds import Fold, cut_folds

World = Callable[..., Dataset]


def marked(world: Dataset) -> tuple[Dataset, TrainingView]:
    """The world with its row numbers as first feature, so that a row can be traced through every cut."""
    features = world.features.copy()
    features[:, 0] = np.arange(len(features))
    world = replace(world, features=features)
    return world, world.training_view("main")


def rows_of(fold: Fold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data-set rows that a fold trains on, holds out of its seen classes, and holds out as pseudo-unseen."""
    parts = (fold.view.features, fold.held_out.seen_features, fold.held_out.unseen_features)
    kept, seen, unseen = (part[:, 0].astype(np.int64) for part in parts)
    return kept, seen, unseen


def names(table: ClassTable, ids: np.ndarray) -> list[str]:
    return [table.names[i] for i in ids]


def test_rows_of_a_fold_are_the_training_rows_divided(tiny_world: World) -> None:
    world, view = marked(tiny_world())
    split = world.split("main")
    for fold in cut_folds(view, 3, seed=1):
        kept, seen, unseen = rows_of(fold)
        together = np.concatenate([kept, seen, unseen])
        assert sorted(together) == sorted(split.train)  # each once, and no test row
        assert not set(together) & {*split.test_seen, *split.test_unseen}


def test_labels_keep_their_names_through_the_cut(tiny_world: World) -> None:
    world, view = marked(tiny_world())
    for fold in cut_folds(view, 3, seed=1):
        kept, seen, unseen = rows_of(fold)
        table = fold.view.classes
        for rows, labels in (
            (kept, fold.view.labels),
            (seen, fold.held_out.seen_labels),
            (unseen, fold.held_out.unseen_labels),
        ):
            assert names(table, labels) == names(world.classes, world.labels[rows])
        assert set(fold.view.labels) == set(fold.view.seen) == set(fold.held_out.seen_labels)
        assert set(fold.held_out.unseen_labels) == set(fold.view.unseen)
        assert not set(fold.view.seen) & set(fold.view.unseen)


def test_truly_unseen_classes_are_absent_from_a_fold(tiny_world: World) -> None:
    world, view = marked(tiny_world())
    unseen = world.split("main").unseen
    for fold in cut_folds(view, 3, seed=1):
        assert not set(fold.view.classes.names) & set(names(world.classes, unseen))
        for embedding in world.classes.embeddings[unseen]:
            assert not (fold.view.classes.embeddings == embedding).all(axis=1).any()
        for name, embedding in zip(fold.view.classes.names, fold.view.classes.embeddings, strict=True):
            np.testing.assert_array_equal(embedding, world.classes.embeddings[world.classes.names.index(name)])


@pytest.mark.parametrize(("seen", "unseen", "wanted"), [(12, 4, 3), (40, 10, 8), (20, 20, 10), (30, 1, 2)])
def test_share_of_pseudo_unseen_classes_is_that_of_unseen_ones(tiny_world: World, seen: int, unseen: int, wanted: int) -> None:
    view = tiny_world(seen=seen, unseen=unseen, rows=4).training_view("main")
    folds = cut_folds(view, 3, seed=0)
    assert [len(fold.view.unseen) for fold in folds] == [wanted] * 3
    assert [len(fold.view.seen) for fold in folds] == [seen - wanted] * 3


def test_folds_hold_out_different_classes_while_there_are_enough(tiny_world: World) -> None:
    folds = cut_folds(tiny_world(seen=12, unseen=4).training_view("main"), 3, seed=0)
    held = [name for fold in folds for name in names(fold.view.classes, fold.view.unseen)]
    assert len(held) == len(set(held)) == 9
    folds = cut_folds(tiny_world(seen=12, unseen=12).training_view("main"), 3, seed=0)  # 3 · 6 of 12: each class in 1 or 2
    held = [name for fold in folds for name in names(fold.view.classes, fold.view.unseen)]
    assert {held.count(name) for name in held} <= {1, 2}
    assert len(set(held)) == 12


def test_a_stratified_fifth_is_held_out(tiny_world: World) -> None:
    world = tiny_world(rows=30)  # 21 training rows a class
    for fold in cut_folds(world.training_view("main"), 3, seed=0):
        assert np.bincount(fold.held_out.seen_labels)[fold.view.seen].tolist() == [4] * len(fold.view.seen)
        assert np.bincount(fold.view.labels)[fold.view.seen].tolist() == [17] * len(fold.view.seen)


def test_folds_follow_the_seed_alone(tiny_world: World) -> None:
    view = tiny_world().training_view("main")

    def everything(seed: int) -> list[bytes]:
        folds = cut_folds(view, 3, seed)
        return [a.tobytes() for f in folds for a in (f.view.features, f.view.labels, f.view.unseen, f.held_out.seen_rows)]

    assert everything(5) == everything(5)
    assert everything(5) != everything(6)


@pytest.mark.parametrize(
    ("world", "seed", "expected"),
    [
        ({}, 0, "4b82cec9e102babd"),
        ({"rows": 30, "seen": 20, "unseen": 20}, 8_589_934_597, "32baeaa8367ec91b"),
        ({"seen": 24, "unseen": 6, "groups": 12}, 2, "3a9985a390f69243"),
        ({"seen": 9, "unseen": 5, "groups": 4, "rows": 3}, 3, "9b41e850d8af7aba"),
    ],
)
def test_folds_are_those_of_stored_results(tiny_world: World, world: dict[str, int], seed: int, expected: str) -> None:
    """Recorded before the dealing moved to a function of its own: stored runs must be repeatable."""
    _, view = marked(tiny_world(**world))
    digest = hashlib.sha256()
    for fold in cut_folds(view, 3, seed):
        held = fold.held_out
        for ids in (fold.view.labels, fold.view.seen, fold.view.unseen, held.seen_labels, held.unseen_labels):
            digest.update(ids.astype("<i8").tobytes())
        for rows in (*rows_of(fold), held.seen_rows, held.unseen_rows):
            digest.update(rows.astype("<i8").tobytes())
        digest.update("\n".join(fold.view.classes.names).encode())
    assert digest.hexdigest()[:16] == expected


def test_folds_do_not_depend_on_test_rows_or_unseen_embeddings(tiny_world: World) -> None:
    world = tiny_world()
    split = world.split("main")
    features, embeddings = world.features.copy(), world.classes.embeddings.copy()
    features[[*split.test_seen, *split.test_unseen]] = np.nan
    embeddings[split.unseen] += 1
    other = replace(world, features=features, classes=replace(world.classes, embeddings=embeddings))
    for ours, theirs in zip(*(cut_folds(w.training_view("main"), 3, 0) for w in (world, other)), strict=True):
        np.testing.assert_array_equal(ours.view.features, theirs.view.features)
        np.testing.assert_array_equal(ours.view.classes.embeddings, theirs.view.classes.embeddings)
        np.testing.assert_array_equal(ours.held_out.unseen_features, theirs.held_out.unseen_features)


def test_whole_groups_stay_together(tiny_world: World) -> None:
    view = tiny_world(seen=24, unseen=6, groups=10).training_view("main")
    assert view.by_group
    for fold in cut_folds(view, 3, seed=2):
        table = fold.view.classes
        assert not {table.groups[i] for i in fold.view.seen} & {table.groups[i] for i in fold.view.unseen}
        assert len(fold.view.unseen) == 6  # 24 · 6 / 30 is 4.8; groups hold three


def test_groups_are_ignored_where_the_split_is_not_by_group(tiny_world: World) -> None:
    view = replace(tiny_world(seen=24, unseen=6, groups=10).training_view("main"), by_group=False)
    divided = [
        {fold.view.classes.groups[i] for i in fold.view.seen} & {fold.view.classes.groups[i] for i in fold.view.unseen}
        for fold in cut_folds(view, 3, seed=2)
    ]
    assert any(divided)


def with_groups(view: TrainingView, sizes: list[int]) -> TrainingView:
    """The view with its seen classes in groups of these sizes; unseen ones in one of their own."""
    groups = ["unseen"] * len(view.classes)
    for class_id, group in zip(view.seen, np.repeat(np.arange(len(sizes)), sizes), strict=True):
        groups[class_id] = f"group {group}"
    return replace(view, by_group=True, classes=replace(view.classes, groups=tuple(groups)))


def test_uneven_groups_come_near_the_wanted_share(tiny_world: World) -> None:
    # 40 seen and 10 unseen classes: 8 of 40 should play unseen. Completing a slice of 8 to whole groups could hold out 22.
    view = with_groups(tiny_world(seen=40, unseen=10, rows=4).training_view("main"), [11, 1, 2, 9, 1, 1, 3, 7, 2, 3])
    for seed in range(10):
        for fold in cut_folds(view, 3, seed):
            assert 5 <= len(fold.view.unseen) <= 13


def test_a_single_group_cannot_be_held_out(tiny_world: World) -> None:
    view = with_groups(tiny_world().training_view("main"), [12])
    with pytest.raises(DataError, match=r"groups .* too large .*--protocol fixed"):
        cut_folds(view, 3, 0)


def test_too_few_classes_are_refused_in_one_sentence(tiny_world: World) -> None:
    with pytest.raises(DataError, match=r"4 seen classes are too few .* use --protocol fixed"):
        cut_folds(tiny_world(seen=4, unseen=2).training_view("main"), 3, 0)
    with pytest.raises(DataError, match=r"6 seen classes are too few .* with 5 of them held out"):
        cut_folds(tiny_world(seen=6, unseen=30, rows=3).training_view("main"), 3, 0)


def test_no_unseen_class_is_refused(tiny_world: World) -> None:
    view = replace(tiny_world().training_view("main"), unseen=np.array([], np.int64))
    with pytest.raises(DataError, match="no unseen class"):
        cut_folds(view, 3, 0)


def test_one_row_a_class_is_refused(tiny_world: World) -> None:
    # Nothing of a fold's seen classes could be held out, S would be 0 for every candidate, and the choice arbitrary.
    with pytest.raises(DataError, match="no seen class has two training rows"):
        cut_folds(tiny_world(rows=2).training_view("main"), 3, 0)


@pytest.mark.parametrize("name", ["AWA2", "CUB", "SUN"])
def test_the_public_validation_lists_would_leak_and_our_folds_do_not(shared_data: Path, name: str) -> None:
    """`train_loc` and `val_loc` of the public split files hold images of test_seen (specification 1.6)."""
    found = sorted(p for p in (shared_data / "xlsa17-splits").rglob("*.mat") if name.lower() in str(p).lower())
    if not found:
        pytest.skip(f"no split file of {name} here")
    arrays = loadmat(found[0])
    rows = {k: np.asarray(arrays[f"{k}_loc"]).ravel().astype(np.int64) - 1 for k in ("trainval", "test_seen", "test_unseen")}
    trap = np.concatenate([np.asarray(arrays[f"{k}_loc"]).ravel().astype(np.int64) - 1 for k in ("train", "val")])
    assert set(trap) == {*rows["trainval"], *rows["test_seen"]}
    count = max(map(max, rows.values())) + 1
    embeddings = np.asarray(arrays["att"]).T
    # The split files hold no labels, so rows take classes of the right number in turn.
    unseen_count = {"AWA2": 10, "CUB": 50, "SUN": 72}[name]
    labels = np.arange(count) % (len(embeddings) - unseen_count)
    labels[rows["test_unseen"]] = len(embeddings) - 1 - np.arange(len(rows["test_unseen"])) % unseen_count
    split = Split.from_rows("gzsl", labels, rows["trainval"], rows["test_seen"], rows["test_unseen"])
    features = np.arange(count, dtype=np.float32)[:, None]
    data = Dataset(name, features, labels, ClassTable(tuple(map(str, range(len(embeddings)))), embeddings), {"gzsl": split})
    for fold in cut_folds(data.training_view(), 3, 0):
        used = {*np.concatenate(rows_of(fold))}
        assert used == set(rows["trainval"])
        assert not used & set(rows["test_seen"])
