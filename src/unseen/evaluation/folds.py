"""Validation folds for zero-shot learning: some seen classes play the unseen ones.

`train_loc`/`val_loc` of the public split files are not used for this, because they contain images of test_seen. A fold is
cut from the training rows alone, and the embeddings of the truly unseen classes are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import Ids, TestRows, TrainingView
from unseen.errors import DataError

HELD_OUT_SHARE = 0.2
"""Share of the rows of fold-seen classes that play test_seen."""


@dataclass(frozen=True)
class Fold:
    """A complete small data set: what may be trained on, and rows held out of it.

    Args:
        view: fold-seen rows, and a class table of fold-seen and pseudo-unseen classes only.
        held_out: rows of the same two kinds of classes, with the ids of that table.
    """

    view: TrainingView
    held_out: TestRows


def cut_folds(view: TrainingView, count: int, seed: int, held_out: float | None = None) -> tuple[Fold, ...]:
    """Cut `count` folds. Pseudo-unseen classes are as large a share as the unseen ones are of all: U / (S + U).

    The seen classes are shuffled once and dealt out in turn, so folds hold out different classes as far as there are
    enough. Where the split is by group, whole groups are dealt out, as near to that share as they come.

    Args:
        held_out: another share of the seen classes, for who does not know yet which classes will be unseen.

    Raises:
        DataError: there are too few seen classes or rows to cut from, or the groups are too large.
    """
    seen, unseen = len(view.seen), len(view.unseen)
    if unseen == 0 and held_out is None:
        raise DataError("the split has no unseen class, so there is nothing to learn to recognise; name some")
    wanted = max(2, round(seen * (unseen / (seen + unseen) if held_out is None else held_out)))
    if seen < 5 or seen - wanted < 2:
        raise DataError(
            f"{seen} seen classes are too few to cut validation folds with {wanted} of them held out; "
            "use --protocol fixed, or data with more seen classes"
        )
    generator = np.random.default_rng(seed)
    group_of = np.array([view.classes.groups[i] for i in view.seen]) if view.by_group and view.classes.groups else view.seen
    folds = []
    for dealt in deal(view.labels, view.seen, group_of, generator, count=count, wanted=wanted, share=HELD_OUT_SHARE):
        if not len(dealt.classes):
            raise DataError(
                f"the groups of the {seen} seen classes are too large to hold whole groups out and still learn; "
                "use --protocol fixed, or a split that is not by group"
            )
        folds.append(_cut(view, dealt))
    if not any(len(fold.held_out.seen_labels) for fold in folds):
        raise DataError(
            "no seen class has two training rows, so validation folds cannot hold any out; "
            "use --protocol fixed, or give more rows"
        )
    return tuple(folds)


@dataclass(frozen=True)
class Deal:
    """What one fold holds out: all rows of some classes, and a share of the rows of each of the others.

    Args:
        classes: sorted ids of the classes held out; empty where every group is too large for that.
        unseen_rows: sorted rows of these classes.
        seen_rows: sorted rows held out of the other classes.
    """

    classes: Ids
    unseen_rows: Ids
    seen_rows: Ids


def deal(
    labels: Ids,
    classes: Ids,
    group_of: NDArray[Any],
    generator: np.random.Generator,
    *,
    count: int,
    wanted: int,
    share: float,
) -> Iterator[Deal]:
    """Shuffle the groups once and deal them out in turn: folds hold out different classes as far as there are enough.

    At least two classes stay, and a share of the rows of each is drawn: one at least, unless the class has no other row or
    the share is 0.

    Args:
        labels: (n,) class ids.
        classes: (C,) the different ones, sorted.
        group_of: (C,) each class's group; the class itself where it may be held out alone.
        count: how many folds.
        wanted: how many classes to hold out in each; with groups, as near to it as they come.
        share: of the rows of a class that stays; below 1.
    """
    waiting = [classes[group_of == group] for group in generator.permutation(np.unique(group_of))]
    for _ in range(count):
        taken, left = _take(waiting, wanted, most=len(classes) - 2)
        waiting = [*left, *taken]
        unseen = np.sort(np.concatenate(taken)) if taken else np.array([], np.int64)
        seen_rows = stratified_rows(labels, np.setdiff1d(classes, unseen), generator, share)
        yield Deal(unseen, np.flatnonzero(np.isin(labels, unseen)), seen_rows)


def stratified_rows(labels: Ids, classes: Ids, generator: np.random.Generator, share: float) -> Ids:
    """Sorted rows drawn from each of the classes: one at least, unless it has no other row or the share is 0."""
    drawn: list[int] = []
    for class_id in classes:
        rows = generator.permutation(np.flatnonzero(labels == class_id))
        drawn.extend(rows[: max(1, int(share * len(rows))) if len(rows) > 1 and share > 0 else 0])
    return np.sort(np.array(drawn, np.int64))


def _take(groups: list[Ids], wanted: int, most: int) -> tuple[list[Ids], list[Ids]]:
    """Groups from the front as long as they bring the number of classes nearer to `wanted`, and the groups left.

    Where every group is too large for that, the smallest one is taken if it has at most `most` classes.
    """
    taken: list[Ids] = []
    left: list[Ids] = []
    size = 0
    for group in groups:
        if abs(size + len(group) - wanted) < abs(size - wanted) and size + len(group) <= most:
            taken.append(group)
            size += len(group)
        else:
            left.append(group)
    if not taken:
        smallest = min(range(len(groups)), key=lambda i: len(groups[i]))
        if len(groups[smallest]) <= most:
            taken, left = [groups[smallest]], [*groups[:smallest], *groups[smallest + 1 :]]
    return taken, left


def _cut(view: TrainingView, dealt: Deal) -> Fold:
    seen_rows, unseen_rows = dealt.seen_rows, dealt.unseen_rows
    kept = np.setdiff1d(np.arange(len(view.labels)), np.concatenate([seen_rows, unseen_rows]))
    present = view.seen  # exactly the classes that have training rows, so no truly unseen class comes along
    return Fold(
        view=replace(
            view,
            features=view.features[kept],
            labels=np.searchsorted(present, view.labels[kept]),
            classes=view.classes.take(present),
            seen=np.searchsorted(present, np.setdiff1d(present, dealt.classes)),
            unseen=np.searchsorted(present, dealt.classes),
        ),
        held_out=TestRows(
            seen_features=view.features[seen_rows],
            seen_labels=np.searchsorted(present, view.labels[seen_rows]),
            unseen_features=view.features[unseen_rows],
            unseen_labels=np.searchsorted(present, view.labels[unseen_rows]),
            seen_rows=seen_rows,
            unseen_rows=unseen_rows,
        ),
    )
