"""A data set: features, labels, a class table, named splits, and where everything came from.

Training never sees a `Dataset`. It is handed a `TrainingView`, which holds the seen training rows and the class table and
nothing else; the test rows of a split leave through `test_rows`, which only the evaluation calls. A method that is transductive
by name is handed a `TransductiveView`: beside that, the features of the unseen test rows, and nothing else of them.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unseen.errors import DataError, SettingsError
from unseen.storage import fingerprint, hash_of

if TYPE_CHECKING:
    from unseen.data.describe import Description

Floats = NDArray[np.floating[Any]]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class ClassTable:
    """One row a class: its name, its embedding (length a) and, where known, a description and a group.

    Args:
        names: C names, all different.
        embeddings: (C, a) class embeddings: attributes, a sentence embedding, word vectors.
        descriptions: C texts, or empty.
        groups: C group names (a genus, a shelf), or empty; splits by group hold out whole groups.
    """

    names: tuple[str, ...]
    embeddings: Floats
    descriptions: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def take(self, ids: Ids) -> ClassTable:
        """The table of these classes alone, in this order."""
        return ClassTable(
            names=tuple(self.names[i] for i in ids),
            embeddings=self.embeddings[ids],
            descriptions=tuple(self.descriptions[i] for i in ids) if self.descriptions else (),
            groups=tuple(self.groups[i] for i in ids) if self.groups else (),
        )


@dataclass(frozen=True)
class Split:
    """Which rows train, which test, and which classes are seen and unseen.

    Args:
        name: what the user types after `--split`.
        train: rows of seen classes that training may use.
        test_seen: other rows of the same classes.
        test_unseen: rows of classes without a training row; empty where nobody has pictures of them yet.
        seen: class ids; by default those of the training rows.
        unseen: class ids; by default those of the unseen test rows.
        by_group: the unseen classes are whole groups, so validation folds hold out whole groups too.
    """

    name: str
    train: Ids
    test_seen: Ids
    test_unseen: Ids
    seen: Ids
    unseen: Ids
    by_group: bool = False

    @staticmethod
    def from_rows(
        name: str,
        labels: Ids,
        train: Ids,
        test_seen: Ids,
        test_unseen: Ids,
        unseen: Ids | None = None,
        by_group: bool = False,
    ) -> Split:
        """Build a split from its index arrays; seen and unseen classes follow from the labels there."""
        return Split(
            name=name,
            train=np.asarray(train, np.int64),
            test_seen=np.asarray(test_seen, np.int64),
            test_unseen=np.asarray(test_unseen, np.int64),
            seen=np.unique(labels[train]).astype(np.int64),
            unseen=np.unique(labels[test_unseen]).astype(np.int64) if unseen is None else np.asarray(unseen, np.int64),
            by_group=by_group,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the three index arrays and the two class lists, each sorted: the order of rows is no part of it."""
        parts = (self.train, self.test_seen, self.test_unseen, self.seen, self.unseen)
        return fingerprint(*(np.sort(part).astype(np.int64) for part in parts))


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from. Free text, except that result rows repeat it and comparisons rely on it."""

    source: str = "unknown"
    feature_extractor: str = "unknown"
    embedding_source: str = "unknown"
    licence: str = "unknown"


@dataclass(frozen=True)
class Pictures:
    """Small pictures for the report: square tiles of one sprite sheet, row by row.

    Args:
        sheet: the image file's bytes.
        media_type: for example `image/webp`.
        tile: side of a tile in pixels.
        columns: tiles per line of the sheet.
        rows: rows[k] is the data-set row shown by tile k.
    """

    sheet: bytes
    media_type: str
    tile: int
    columns: int
    rows: Ids

    @cached_property
    def place(self) -> Mapping[int, tuple[int, int]]:
        """Data-set row → (column, line) of its tile."""
        return {int(row): (k % self.columns, k // self.columns) for k, row in enumerate(self.rows)}

    @property
    def layout(self) -> dict[str, Any]:
        """What a file keeps of it besides the sheet and the rows."""
        return {"media_type": self.media_type, "tile": self.tile, "columns": self.columns}


@dataclass(frozen=True)
class TrainingView:
    """What training is handed: seen rows, the class table, and which classes are unseen. No test row, no way to one.

    Class ids here are local: they index `classes`, which holds the split's seen and unseen classes only.

    Args:
        features: (n, d) float32, seen training rows.
        labels: (n,) local class ids, all of them seen.
        classes: the local class table.
        seen, unseen: sorted local class ids.
        by_group: see Split.
    """

    features: NDArray[np.float32]
    labels: Ids
    classes: ClassTable
    seen: Ids
    unseen: Ids
    by_group: bool = False


@dataclass(frozen=True)
class TransductiveView:
    """A training view, and beside it features of unseen test rows, of which nothing else is known.

    Args:
        inductive: what training without them is handed.
        unlabelled: (m, d) float32, in an order that says nothing of classes or of places in a file.
    """

    inductive: TrainingView
    unlabelled: NDArray[np.float32]

    @staticmethod
    def of(inductive: TrainingView, features: NDArray[np.float32]) -> TransductiveView:
        """The view with these (m, d) features, in the order of their hashes: files often keep a class's rows together."""
        keys = [hashlib.sha256(row.tobytes()).digest() for row in features]
        return TransductiveView(inductive, features[sorted(range(len(keys)), key=keys.__getitem__)])


@dataclass(frozen=True)
class TestRows:
    """Rows to score, once, after training: seen and unseen, with local class ids and their rows in the data set."""

    __test__ = False  # the name is the field's; pytest need not collect it

    seen_features: NDArray[np.float32]
    seen_labels: Ids
    unseen_features: NDArray[np.float32]
    unseen_labels: Ids
    seen_rows: Ids
    unseen_rows: Ids


@dataclass(frozen=True)
class Dataset:
    """Features of many pictures (or anything else), their labels, a class table, and named splits.

    Args:
        name: short name, part of every result row.
        features: (n, d), any float type, possibly memory-mapped.
        labels: (n,) ids into `classes`.
        classes: the class table.
        splits: by name; the first is the default.
        provenance: where it all comes from.
        pictures: thumbnails for the report, if any.
        attributions: lines that must be shown wherever the pictures are.
        paths: n, where each row came from, relative and as the user had it; or empty. Shown, and never opened.
    """

    name: str
    features: Floats
    labels: Ids
    classes: ClassTable
    splits: Mapping[str, Split]
    provenance: Provenance = field(default_factory=Provenance)
    pictures: Pictures | None = None
    attributions: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @cached_property
    def features_fingerprint(self) -> str:
        """SHA-256 of the features."""
        return fingerprint(self.features)

    @cached_property
    def embeddings_fingerprint(self) -> str:
        """SHA-256 of the class embeddings."""
        return fingerprint(self.classes.embeddings)

    def labels_fingerprint(self, split: str | None = None) -> str:
        """SHA-256 of the labels of a split's rows and, where folds hold out whole groups, of its classes' groups.

        Like the split's own fingerprint it does not depend on the order of rows.
        """
        chosen = self.split(split)
        rows = np.sort(np.concatenate([chosen.train, chosen.test_seen, chosen.test_unseen]))
        groups = self.class_table(split).groups if chosen.by_group else None
        return hash_of([fingerprint(self.labels[rows].astype(np.int64)), groups])

    def names_fingerprint(self, split: str | None = None) -> str:
        """SHA-256 of the names of a split's classes, in order: each class's synthesis is seeded by its name."""
        return hash_of(self.class_table(split).names)

    def split(self, name: str | None = None) -> Split:
        """The split of this name, or the first one.

        Raises SettingsError, listing the names, when there is none of this name.
        """
        if name is None:
            return next(iter(self.splits.values()))
        if name not in self.splits:
            raise SettingsError(f"data set '{self.name}' has no split '{name}'; it has {', '.join(self.splits)}")
        return self.splits[name]

    def class_table(self, split: str | None = None) -> ClassTable:
        """The split's seen and unseen classes, in the order of local class ids."""
        return self.classes.take(self._classes_of(self.split(split)))

    def training_view(self, split: str | None = None) -> TrainingView:
        """Everything training may know of this split."""
        chosen = self.split(split)
        taken = self._classes_of(chosen)
        every = np.array_equal(chosen.train, np.arange(len(self.features)))  # then nothing is copied
        return TrainingView(
            features=np.asarray(self.features if every else self.features[chosen.train], np.float32),
            labels=np.searchsorted(taken, self.labels[chosen.train]),
            classes=self.class_table(split),
            seen=np.searchsorted(taken, np.sort(chosen.seen)),
            unseen=np.searchsorted(taken, np.sort(chosen.unseen)),
            by_group=chosen.by_group,
        )

    def transductive_view(self, split: str | None = None) -> TransductiveView:
        """`training_view`, and the features of the unseen test rows: for methods that are transductive by name alone.

        Their labels are not read. Which classes are unseen is known of a split anyway.
        """
        rows = self.split(split).test_unseen
        return TransductiveView.of(self.training_view(split), np.asarray(self.features[rows], np.float32))

    def test_rows(self, split: str | None = None) -> TestRows:
        """The rows to score; called by the evaluation alone.

        Warns about seen or unseen classes without a test row: they cannot count in an average over classes.
        """
        chosen = self.split(split)
        taken = self._classes_of(chosen)
        for kind, classes, rows in (("seen", chosen.seen, chosen.test_seen), ("unseen", chosen.unseen, chosen.test_unseen)):
            absent = np.setdiff1d(classes, self.labels[rows])
            if len(absent):
                shown = ", ".join(self.classes.names[i] for i in absent[:5]) + (", …" if len(absent) > 5 else "")
                warnings.warn(
                    f"{len(absent)} {kind} classes have no test row in split '{chosen.name}' and are left out of "
                    f"the averages: {shown}",
                    stacklevel=2,
                )
        return TestRows(
            seen_features=np.asarray(self.features[chosen.test_seen], np.float32),
            seen_labels=np.searchsorted(taken, self.labels[chosen.test_seen]),
            unseen_features=np.asarray(self.features[chosen.test_unseen], np.float32),
            unseen_labels=np.searchsorted(taken, self.labels[chosen.test_unseen]),
            seen_rows=chosen.test_seen,
            unseen_rows=chosen.test_unseen,
        )

    @staticmethod
    def _classes_of(split: Split) -> Ids:
        return np.union1d(split.seen, split.unseen).astype(np.int64)

    @staticmethod
    def from_arrays(
        X: Any,
        y: Any,
        classes: Any,
        *,
        splits: Iterable[Split] = (),
        split: str = "random",
        unseen: str | float | Sequence[str] = "20%",
        seed: int = 0,
        name: str = "mine",
        paths: Sequence[str] = (),
        provenance: Provenance | None = None,
    ) -> Dataset:
        """A data set from arrays or pandas tables in memory, or mapped from a file and then not copied.

        Args:
            X: (n, d) features: a NumPy array or a DataFrame. float16, float32 and float64 stay what they are; whole numbers
                become float32.
            y: n class names, or ids that count from 0 in the order of `classes`.
            classes: a `ClassTable`; a mapping from name to embedding, or to description, which all-MiniLM-L6-v2 then embeds;
                a DataFrame with the names as its index, numbers, and perhaps columns `description` and `group`; or the path of
                what `unseen embed` wrote, or of a table of attributes.
            splits: `Split`s of your own; without any, some are cut as `unseen data build` does:
            split: random, groups, list or rollout; see `unseen.data.splitting.make_splits`.
            unseen: a share ("20%", 0.2), a number of classes, or names (for list and rollout).
            seed: of the cut; the same input and seed give the same bits.
            paths: n, where each row came from, for `unseen data check` to show.

        What its builder should know is told as warnings: classes without a row, test rows that training has too.

        Raises:
            DataError: the arrays do not fit together, or hold what cannot be trained on; one sentence says where.
            SettingsError: the splits asked for cannot be understood or cannot work.
        """
        from unseen.data.arrays import from_arrays

        return from_arrays(X, y, classes, splits, split, unseen, seed, name, paths, provenance)

    @staticmethod
    def from_folder(
        folder: Path | str,
        classes: Any,
        *,
        split: str = "random",
        unseen: str | float | Sequence[str] = "20%",
        seed: int = 0,
        name: str | None = None,
    ) -> Dataset:
        """A data set from pictures, one sub-folder a class, through EfficientNet-Lite0.

        For many pictures use `unseen features`, which can be stopped and goes on. Files that are no pictures are left out; a
        warning each tells of the first, and one how many more there are.

        Args:
            folder: its sub-folders are named as the classes are.
            classes, split, unseen, seed: as for `from_arrays`.
            name: the folder's if not given.

        Raises:
            DataError: there is no picture, or as for `from_arrays`.
            SettingsError: as for `from_arrays`.
            MissingDependency: the extra `images` is not installed.
        """
        from unseen.data.arrays import from_folder

        return from_folder(Path(folder), classes, split, unseen, seed, name)

    def describe(self) -> Description:
        """Sizes and balance of classes, of every split: to be printed, or `.facts` for programs. No feature is read."""
        from unseen.data.describe import Description

        return Description.of(self)

    @staticmethod
    def load(path: Path | str) -> Dataset:
        """Read whatever `path` leads to: a folder in the native format, or another that `unseen.data.opening` lists.

        Raises:
            DataError: nothing readable is there, or it is damaged; one sentence says what and where.
        """
        from unseen.data.opening import BUILT_IN, open_dataset

        if str(path) in BUILT_IN:  # a path is no built-in name
            if not Path(path).exists():
                raise DataError(
                    f"there is no folder {str(path)!r} here; the built-in data set of that name is opened by "
                    f"unseen.open_dataset({str(path)!r})"
                )
            path = f"./{path}"
        return open_dataset(str(path))

    @staticmethod
    def from_xlsa17(path: Path | str, splits: str | None = None) -> Dataset:
        """Read a folder with `res101.mat` and `att_splits.mat`, MATLAB version 5 to 7.3; see `unseen.data.xlsa17`.

        Args:
            path: the folder, or the split file in it to use.
            splits: name of the split file, if it is another than `att_splits.mat`.

        Raises:
            DataError: a file is missing, damaged, or does not fit the other.
            MissingDependency: version 7.3 needs h5py.
        """
        from unseen.data.xlsa17 import read_xlsa17

        return read_xlsa17(Path(path).expanduser(), splits)

    def save(self, path: Path | str) -> None:
        """Write a folder in the native format, whole or not at all; see `unseen.data.native`.

        An older data set of ours at `path` is replaced, and nothing else is.
        """
        from unseen.data.native import save

        save(self, Path(path))
