"""A data set from features with labels and a table of classes, joined by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unseen.data.class_file import Classes
from unseen.data.collection import Collection
from unseen.data.dataset import ClassTable, Dataset, Ids, Provenance
from unseen.data.duplicates import exact_duplicates
from unseen.data.splitting import STAGES, TEST_SHARE, joined_name, make_splits, row_keys, written_otherwise
from unseen.data.validate import validate
from unseen.errors import DataError

SHOWN = 5
"""Names are listed up to this many."""


@dataclass(frozen=True)
class Built:
    """A valid data set, and what its builder should know about how it came about, one sentence each."""

    dataset: Dataset
    notes: tuple[str, ...]


class UnknownLabels(DataError):
    """Rows have labels that are no class."""


def build_dataset(
    collection: Collection,
    classes: Classes,
    *,
    name: str = "mine",
    split: str = "random",
    unseen: Sequence[str] = ("20%",),
    seed: int = 0,
    test_share: float = TEST_SHARE,
    draws: int = 1,
    stages: int = STAGES,
    drop_unknown: bool = False,
    source: str = "unknown",
    licence: str = "unknown",
) -> Built:
    """Join the rows' labels with the classes' names, and cut splits; the same input gives the same bits.

    Names are joined exactly: after Unicode NFC and without blanks at their ends, and case counts. A class without rows is
    unseen in every split and has nothing to test; rows whose label is no class are an error, or left out.

    Args:
        split, unseen, test_share, draws, stages, seed: see `make_splits`.
        drop_unknown: leave rows out whose label is no class, instead of raising.
        source, licence: of the pictures, for the data set's provenance.

    Raises:
        UnknownLabels: a label is no class.
        DataError: too few classes have rows, or the data set would not be valid.
        SettingsError: the splits asked for cannot be understood or cannot work.
    """
    notes: list[str] = []
    ids = join(collection.labels, classes.table)
    features, paths = collection.features, collection.paths
    if (unknown := ids < 0).any():
        labels = list(dict.fromkeys(label for label, absent in zip(collection.labels, unknown, strict=True) if absent))
        which = "a label" if len(labels) == 1 else f"one of {len(labels)} labels"
        have = "1 row has" if unknown.sum() == 1 else f"{unknown.sum()} rows have"
        told = f"{have} {which} that no class is named: {_listed(labels)}"
        if not drop_unknown:
            alike = written_otherwise(labels[0], classes.table.names)
            hint = f" ({labels[0][:60]!r} may be class {alike!r})" if alike else ""
            raise UnknownLabels(f"{told}{hint}; describe these classes too, or leave their rows out")
        if unknown.all():
            raise DataError(f"{told}; no row would be left")
        notes.append(f"{told}; they are left out")
        kept = np.flatnonzero(~unknown)
        features, ids, paths = features[kept], ids[kept], tuple(paths[row] for row in kept) if paths else ()
    if empty := [classes.table.names[position] for position in np.setdiff1d(np.arange(len(classes.table)), ids)]:
        notes.append(
            f"{len(empty)} classes have no row of features: {_listed(empty)}; they are unseen in every split, and nothing "
            "can be tested on them"
        )
    dataset = validate(
        Dataset(
            name=name,
            features=features,
            labels=ids,
            classes=classes.table,
            splits=make_splits(
                ids,
                classes.table,
                row_keys(features, paths),
                split,
                unseen,
                seed,
                test_share=test_share,
                draws=draws,
                stages=stages,
            ),
            provenance=Provenance(
                source=source,
                feature_extractor=collection.provenance,
                embedding_source=classes.source,
                licence=licence,
            ),
            paths=paths,
        )
    )
    for cut in dataset.splits.values():
        if shared := exact_duplicates(dataset, cut):
            notes.append(
                f"{len(shared)} test rows of split '{cut.name}' have the same features as a training row, so they test "
                "memory; see which with `unseen data check`"
            )
        if not len(cut.test_seen):
            notes.append(
                f"split '{cut.name}' holds out no row of a seen class, so no method can be scored on it, and `unseen train` "
                f"refuses it; build with --test-share above 0, such as {TEST_SHARE}"
            )
        elif missing := len(np.setdiff1d(cut.seen, ids[cut.test_seen])):
            notes.append(f"{missing} seen classes of split '{cut.name}' have one row only, which trains; nothing tests them")
    return Built(dataset, tuple(notes))


KINDS_OF_FOLDER = (
    ("features.json", "features", "give it to --features"),
    ("classes.json", "classes", "give it to --classes"),
    ("dataset.json", "a whole data set", "what it lacks can be told by `unseen data check`"),
    ("features.npy", "NumPy arrays", "Dataset.from_arrays makes a data set of them in Python"),
)
"""A file by which a folder is known, what it holds, and what to do with it instead."""


def refuse_other_folders(features: Path, classes: Path) -> None:
    """DataError where `features` or `classes` is a folder that holds something else, the other of the two perhaps."""
    for path, wanted in ((features, "features"), (classes, "classes")):
        try:
            found = [(what, advice) for file, what, advice in KINDS_OF_FOLDER if (path / file).exists()]
        except (OSError, ValueError):  # no name of a folder; the reader says so
            continue
        if found and wanted not in (what for what, _ in found):
            what, advice = found[0]
            raise DataError(f"{path} holds {what}, and --{wanted} takes {wanted}; {advice}")


def join(labels: Sequence[str], table: ClassTable) -> Ids:
    """(n,) the class of each label, −1 where there is none."""
    where = {joined_name(name): position for position, name in enumerate(table.names)}
    return np.array([where.get(joined_name(label), -1) for label in labels], np.int64)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:60]) for name in names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
