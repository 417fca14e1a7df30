"""Validation folds for zero-shot learning: some seen classes play the unseen ones.

`train_loc`/`val_loc` of the public split files are not used for this, because they contain images of test_seen. A fold is
cut from the training rows alone, and the embeddings of the truly unseen classes are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

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


def cut_folds(view: TrainingView, count: int, seed: int) -> tuple[Fold, ...]:
    """Cut `count` folds. Pseudo-unseen classes are as large a share as the unseen ones are of all: U / (S + U).

    The seen classes are shuffled once and dealt out in turn, so folds hold out different classes as far as there are
    enough. Where the split is by group, whole groups are dealt out.

    Raises:
        DataError: there are too few seen classes to cut from.
    """
    seen, unseen = len(view.seen), len(view.unseen)
    if unseen == 0:
        raise DataError("the split has no unseen class, so there is nothing to learn to recognise; name some")
    wanted = max(2, round(seen * unseen / (seen + unseen)))
    if seen < 5 or seen - wanted < 2:
        raise DataError(
            f"{seen} seen classes are too few to cut validation folds with {wanted} of them held out; "
            "use --protocol fixed, or data with more seen classes"
        )
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(view.seen)
    if view.by_group and view.classes.groups:
        names = [view.classes.groups[i] for i in view.seen]
        order = generator.permutation(np.unique(names))
        shuffled = np.concatenate([view.seen[[name == group for name in names]] for group in order])
    folds = []
    for position in range(count):
        start = position * wanted if count * wanted <= seen else position * seen // count
        pseudo_unseen = np.sort(np.roll(shuffled, -start)[:wanted])
        if view.by_group and view.classes.groups:
            pseudo_unseen = _whole_groups(view, pseudo_unseen, seen - 2)
        folds.append(_cut(view, pseudo_unseen, generator))
    return tuple(folds)


def _whole_groups(view: TrainingView, classes: Ids, most: int) -> Ids:
    """The classes, completed to whole groups; the largest groups are dropped if too little would be left to learn from."""
    groups = sorted({view.classes.groups[i] for i in classes}, key=lambda g: (view.classes.groups.count(g), g))
    members = [[i for i in view.seen if view.classes.groups[i] == group] for group in groups]
    while sum(map(len, members)) > most and len(members) > 1:
        members.pop()
    return np.sort(np.concatenate(members)).astype(np.int64)


def _cut(view: TrainingView, pseudo_unseen: Ids, generator: np.random.Generator) -> Fold:
    fold_seen = np.setdiff1d(view.seen, pseudo_unseen)
    held_out: list[int] = []
    for class_id in fold_seen:
        rows = generator.permutation(np.flatnonzero(view.labels == class_id))
        held_out.extend(rows[: max(1, int(HELD_OUT_SHARE * len(rows))) if len(rows) > 1 else 0])
    seen_rows = np.sort(np.array(held_out, np.int64))
    unseen_rows = np.flatnonzero(np.isin(view.labels, pseudo_unseen))
    kept = np.setdiff1d(np.arange(len(view.labels)), np.concatenate([seen_rows, unseen_rows]))
    present = view.seen  # exactly the classes that have training rows, so no truly unseen class comes along
    return Fold(
        view=replace(
            view,
            features=view.features[kept],
            labels=np.searchsorted(present, view.labels[kept]),
            classes=view.classes.take(present),
            seen=np.searchsorted(present, fold_seen),
            unseen=np.searchsorted(present, pseudo_unseen),
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
