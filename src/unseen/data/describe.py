"""What a data set holds, in numbers: sizes, and how rows fall to classes in each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unseen.data.dataset import Dataset, Ids, Split

FEW = 5
"""Training rows below which a seen class is listed: its mean and spread are then hardly known."""

SHOWN = 5
"""Names are listed in a sentence up to this many."""


@dataclass(frozen=True)
class SplitFacts:
    """How rows fall to the classes of a split.

    Args:
        seen, unseen: numbers of classes.
        train, test_seen, test_unseen: numbers of rows.
        rows_per_seen_class: fewest, median and most training rows of a seen class.
        few_rows: seen classes with fewer than `FEW` training rows.
        seen_without_test, unseen_without_test: classes that cannot count in an average.
        in_neither: classes of the table that are neither seen nor unseen here.
        fingerprint: see `Split.fingerprint`.
    """

    name: str
    seen: int
    unseen: int
    train: int
    test_seen: int
    test_unseen: int
    by_group: bool
    rows_per_seen_class: tuple[int, float, int]
    few_rows: tuple[str, ...]
    seen_without_test: tuple[str, ...]
    unseen_without_test: tuple[str, ...]
    in_neither: tuple[str, ...]
    fingerprint: str

    @staticmethod
    def of(dataset: Dataset, split: Split) -> SplitFacts:
        """Count. No feature is read."""
        count = len(dataset.classes)
        training = np.bincount(dataset.labels[split.train], minlength=count)[split.seen]

        def named(ids: Ids) -> tuple[str, ...]:
            return tuple(dataset.classes.names[i] for i in np.sort(ids))

        return SplitFacts(
            name=split.name,
            seen=len(split.seen),
            unseen=len(split.unseen),
            train=len(split.train),
            test_seen=len(split.test_seen),
            test_unseen=len(split.test_unseen),
            by_group=split.by_group,
            rows_per_seen_class=(int(training.min()), float(np.median(training)), int(training.max())),
            few_rows=named(split.seen[training < FEW]),
            seen_without_test=named(np.setdiff1d(split.seen, dataset.labels[split.test_seen])),
            unseen_without_test=named(np.setdiff1d(split.unseen, dataset.labels[split.test_unseen])),
            in_neither=named(np.setdiff1d(np.arange(count), np.union1d(split.seen, split.unseen))),
            fingerprint=split.fingerprint,
        )

    def lines(self) -> list[str]:
        """For people."""
        low, median, high = self.rows_per_seen_class
        told = [
            f"split {self.name}: {self.seen} seen and {self.unseen} unseen classes{', by group' if self.by_group else ''}; "
            f"{self.train:,} rows train, {self.test_seen:,} test seen classes and {self.test_unseen:,} unseen ones",
            f"  a seen class has {low:,} to {high:,} training rows, {median:,g} in the middle",
        ]
        for what, names in (
            (f"seen classes with fewer than {FEW} training rows", self.few_rows),
            ("seen classes without a test row", self.seen_without_test),
            ("unseen classes without a test row", self.unseen_without_test),
            ("classes of other splits alone", self.in_neither),
        ):
            if names:
                told.append(f"  {len(names)} {what}: {listed(names)}")
        return told


@dataclass(frozen=True)
class Description:
    """What `Dataset.describe()` returns; printing it is for people, `facts` for programs."""

    name: str
    rows: int
    feature_length: int
    feature_type: str
    classes: int
    embedding_length: int
    descriptions: bool
    groups: int
    provenance: Mapping[str, str]
    splits: tuple[SplitFacts, ...]

    @staticmethod
    def of(dataset: Dataset, splits: Sequence[str] | None = None) -> Description:
        """Describe all splits, or these. No feature is read."""
        return Description(
            name=dataset.name,
            rows=len(dataset.labels),
            feature_length=dataset.features.shape[1],
            feature_type=str(dataset.features.dtype),
            classes=len(dataset.classes),
            embedding_length=dataset.classes.embeddings.shape[1],
            descriptions=any(dataset.classes.descriptions),
            groups=len(set(dataset.classes.groups)),
            provenance=dict(vars(dataset.provenance)),
            splits=tuple(SplitFacts.of(dataset, dataset.split(name)) for name in (splits or dataset.splits)),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return asdict(self)

    def __str__(self) -> str:
        groups = f" in {self.groups:,} groups" if self.groups else ""
        texts = " and descriptions" if self.descriptions else ""
        told = [
            f"{self.name}: {self.rows:,} rows of {self.feature_length:,} features ({self.feature_type}), {self.classes:,} "
            f"classes{groups} with embeddings of length {self.embedding_length:,}{texts}",
            *(f"{key.replace('_', ' ')}: {value}" for key, value in self.provenance.items() if value != "unknown"),
        ]
        told += [line for split in self.splits for line in split.lines()]
        return "\n".join("".join(letter if letter.isprintable() else " " for letter in line) for line in told)


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, not too many."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
