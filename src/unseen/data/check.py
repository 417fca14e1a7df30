"""A report on a data set that a person can act on, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data.backbone import imagenet_names, names_from, saw_imagenet
from unseen.data.dataset import Dataset, Floats, Ids, Split
from unseen.data.describe import FEW, Description, listed
from unseen.data.duplicates import THRESHOLD, Duplicates, Pair, find_duplicates
from unseen.data.known_splits import known_splits, recognise
from unseen.data.signal import FEWEST, PERMUTATIONS, Signal, check_permutations, permutation_test
from unseen.errors import DataError, SettingsError

CLOSEST = 3
"""Seen classes named beside an unseen one."""
WORST = 10
"""Pairs of near duplicates listed; as many of exact ones."""
SHOWN_CLASSES = 20
"""Unseen classes in the printed list: those with the closest seen class. JSON has all."""
MOSTLY = 0.2
"""Share of the test rows with a near duplicate beyond which the threshold is too low for these features."""
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Neighbours:
    """An unseen class, and the seen ones most like it: (name, cosine), the closest first.

    Args:
        by_embedding: cosine of the embeddings, less the mean of the seen ones.
        by_features: cosine of the class means, less the mean of the seen ones; empty where the class has no test row.
    """

    unseen: str
    by_embedding: tuple[tuple[str, float], ...]
    by_features: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Check:
    """What was looked at, and what came out.

    Args:
        known_split: which public split file the split has the indices of, in a sentence.
        backbone: (unseen class, label of the backbone) for the names that are in both; None where it cannot be told.
        backbone_told: where the labels come from, or why it cannot be told.
        signal: None where it cannot be told.
        signal_told: the result in a sentence.
        findings: one sentence each, with what to do; empty where all is well.
    """

    description: Description
    known_split: str
    duplicates: Duplicates
    worst: tuple[dict[str, Any], ...]
    neighbours: tuple[Neighbours, ...]
    backbone: tuple[tuple[str, str], ...] | None
    backbone_told: str
    signal: Signal | None
    signal_told: str
    findings: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """Everything, as JSON has it; cosines and accuracies as fractions."""
        found = self.duplicates
        return self.description.facts | {
            "known_split": self.known_split,
            "duplicates": {
                "exact": len(found.exact),
                "near": len(found.near),
                "threshold": found.threshold,
                "test_rows_compared": found.compared,
                "test_rows": found.tested,
                "worst": list(self.worst),
            },
            "closest_seen": [asdict(entry) for entry in self.neighbours],
            "in_backbone": {
                "names": None
                if self.backbone is None
                else [{"unseen": ours, "label": theirs} for ours, theirs in self.backbone],
                "told": self.backbone_told,
            },
            "signal": (None if self.signal is None else asdict(self.signal) | {"carries": self.signal.carries}),
            "signal_told": self.signal_told,
            "findings": list(self.findings),
        }

    def __str__(self) -> str:
        return "\n".join(self.lines())

    @property
    def _may_be_public(self) -> bool:
        """Whether some public split file has as many rows; of other data nobody wants to read that it is none of these."""
        return any(len(known.codes) == self.description.rows for known in known_splits())

    def lines(self) -> list[str]:
        """For people."""
        found = self.duplicates
        some = (
            "" if found.compared == found.tested else f" ({found.compared:,} of {found.tested:,} test rows drawn and compared)"
        )
        told = [
            str(self.description),
            *((f"  {self.known_split}",) if self._may_be_public else ()),
            "",
            f"duplicates: {len(found.exact):,} test rows have exactly the features of a training row, {len(found.near):,} more "
            f"are nearly alike (cosine of at least {found.threshold:g} after the mean of the training rows is taken off){some}",
            *(
                f"  {pair['cosine']:.3f}  {pair['test']} ({pair['test_class']}, {pair['part']})  and  {pair['train']} "
                f"({pair['train_class']})"
                for pair in self.worst
            ),
            "",
            "closest seen classes, by embedding and by the mean of the features (cosines, less the mean of the seen classes):",
        ]
        told += [
            f"  {entry.unseen}: {_near(entry.by_embedding)}; {_near(entry.by_features) or 'no test row'}"
            for entry in sorted(self.neighbours, key=lambda entry: -entry.by_embedding[0][1])[:SHOWN_CLASSES]
        ]
        if len(self.neighbours) > SHOWN_CLASSES:
            told.append(f"  … and {len(self.neighbours) - SHOWN_CLASSES} more unseen classes, less close; --json has all")
        told += ["", f"backbone: {self.backbone_told}", "", f"signal: {self.signal_told}", ""]
        untested = "" if self.signal else ", but whether the embeddings say anything was not tested"
        told += ["to act on:", *(f"  * {sentence}" for sentence in self.findings)] if self.findings else []
        told += [] if self.findings else [f"nothing to act on{untested}"]
        return told


def check_dataset(
    dataset: Dataset,
    split: str | None = None,
    *,
    threshold: float = THRESHOLD,
    permutations: int = PERMUTATIONS,
    backbone_classes: Path | None = None,
    seed: int = 0,
) -> Check:
    """Look at a split: sizes, duplicates, neighbours, the backbone's own labels, and whether the embeddings say anything.

    Duplicates and neighbours look at test rows, because that is what is asked; the permutation test does not. Nothing is
    chosen by any of it.

    Args:
        split: the first one if not given.
        threshold: cosine from which rows are near duplicates; see `find_duplicates`.
        permutations: of the embeddings among the classes, 19 or more; 0 leaves the test out.
        backbone_classes: a file of the backbone's training labels, one a line.

    Raises:
        SettingsError: there is no such split, or an argument cannot work.
        DataError: the file of labels cannot be read.
    """
    if not -1 <= threshold <= 1:
        raise SettingsError(f"a cosine of {threshold} cannot be reached; give a threshold up to 1, such as {THRESHOLD}")
    if seed < 0:
        raise SettingsError(f"seed {seed} is negative; give a whole number from 0")
    if permutations < 0:
        raise SettingsError(f"{permutations} permutations cannot be made; give {FEWEST} or more, or 0 for none")
    if permutations:
        check_permutations(permutations)
    chosen = dataset.split(split)
    description = Description.of(dataset, [chosen.name])
    duplicates = find_duplicates(dataset, chosen, threshold, seed)
    backbone, backbone_told = _backbone(dataset, chosen, backbone_classes)
    signal, signal_told = _signal(dataset, chosen.name, permutations, seed)
    return Check(
        description=description,
        known_split=recognise(dataset, chosen.name),
        duplicates=duplicates,
        worst=tuple(_told(dataset, chosen, pair) for pair in (*duplicates.exact[:WORST], *duplicates.near[:WORST])),
        neighbours=_neighbours(dataset, chosen),
        backbone=backbone,
        backbone_told=backbone_told,
        signal=signal,
        signal_told=signal_told,
        findings=(
            *_findings(description, duplicates, backbone, signal),
            *((f"{signal_told}: add seen classes or rows, or choose another split",) if permutations and not signal else ()),
        ),
    )


def _findings(
    description: Description,
    duplicates: Duplicates,
    backbone: tuple[tuple[str, str], ...] | None,
    signal: Signal | None,
) -> Iterable[str]:
    split = description.splits[0]
    if duplicates.exact:
        yield (
            f"{len(duplicates.exact)} test rows have exactly the features of a training row, so they test memory: take one of "
            "each two out of the collection and build again"
        )
    if len(duplicates.near) > MOSTLY * duplicates.compared:
        yield (
            f"{len(duplicates.near)} of {duplicates.compared} test rows are nearly like a training row, so rows of one class "
            "are alike throughout and likeness tells no duplicates: raise --threshold until few are left, and look at those"
        )
    elif duplicates.near:
        yield (
            f"{len(duplicates.near)} test rows are nearly like a training row: look at the pairs above, and put pictures "
            "of one thing or one scene on one side"
        )
    if split.few_rows:
        yield f"{len(split.few_rows)} seen classes have fewer than {FEW} training rows ({listed(split.few_rows)}): add some"
    if split.seen_without_test:
        yield f"{len(split.seen_without_test)} seen classes have no test row and do not count in S: give each a second row"
    if split.unseen_without_test:
        yield (
            f"{len(split.unseen_without_test)} unseen classes have no test row, so nothing is known of how well they are "
            "recognised: add rows of them, or rely on the others"
        )
    if backbone:
        yield (
            f"{len(backbone)} unseen classes are among the labels that the backbone was trained with "
            f"({listed([ours for ours, _ in backbone])}), so their pictures are not new to it: hold out others, or say so "
            "beside the figures"
        )
    if signal is not None and not signal.carries:
        yield (
            "the embeddings do not predict features better than shuffled ones do: check that each class has its own "
            "description, describe what is visible, or add seen classes"
        )


def _backbone(dataset: Dataset, split: Split, given: Path | None) -> tuple[tuple[tuple[str, str], ...] | None, str]:
    extractor = dataset.provenance.feature_extractor
    if given is not None:
        names = names_from(given)
    elif not saw_imagenet(extractor):
        return None, (
            "what the features' backbone was trained with is not known, so it cannot be told whether an unseen class was among "
            "it; give its labels with --backbone-classes FILE"
        )
    else:
        names = imagenet_names()
    found = tuple(names.among([dataset.classes.names[i] for i in np.sort(split.unseen)]))
    shown = ": " + ", ".join(ours if ours == theirs else f"{ours} ({theirs})" for ours, theirs in found) if found else ""
    return found, f"{len(found)} of {len(split.unseen)} unseen classes are among its training labels ({names.source}){shown}"


def _signal(dataset: Dataset, split: str, permutations: int, seed: int) -> tuple[Signal | None, str]:
    what = "your descriptions" if any(dataset.classes.descriptions) else "your class embeddings"
    if permutations == 0:
        return None, f"whether {what} carry signal was not tested"
    try:
        signal = permutation_test(dataset, split, permutations, seed)
    except DataError as error:
        reason = str(error).partition("; use --protocol")[0]  # which is for training
        return None, f"whether {what} carry signal cannot be told: {reason}"
    verdict = f"{what} carry signal" if signal.carries else f"{what} show no sign of signal"
    return signal, (
        f"{verdict}: {100 * signal.accuracy:.0f} % against {100 * signal.by_chance:.0f} % by chance "
        f"(p = {signal.p:.2g}, {signal.permutations} permutations; training classes held out in turn, no test row used)"
    )


def _neighbours(dataset: Dataset, split: Split) -> tuple[Neighbours, ...]:
    seen, unseen = np.sort(split.seen), np.sort(split.unseen)
    names = dataset.classes.names
    embeddings = np.asarray(dataset.classes.embeddings, np.float64)
    by_embedding = _cosines(embeddings[unseen], embeddings[seen])
    with_rows = np.isin(unseen, dataset.labels[split.test_unseen])
    by_features = _cosines(
        _means(dataset.features, dataset.labels, split.test_unseen, unseen[with_rows]),
        _means(dataset.features, dataset.labels, split.train, seen),
    )
    of_class = dict(zip(unseen[with_rows].tolist(), by_features, strict=True))

    def closest(cosines: NDArray[np.float64]) -> tuple[tuple[str, float], ...]:
        order = np.argsort(-cosines, kind="stable")[:CLOSEST]
        return tuple((names[seen[k]], round(float(cosines[k]), 4)) for k in order)

    return tuple(
        Neighbours(names[i], closest(by_embedding[k]), closest(of_class[int(i)]) if int(i) in of_class else ())
        for k, i in enumerate(unseen)
    )


def _cosines(of: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K, S) cosines after the mean of `among` is taken off; 0 with what is that mean itself."""
    centre = among.mean(axis=0)
    directions = []
    for rows in (of - centre, among - centre):
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        directions.append(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0))
    cosines: NDArray[np.float64] = directions[0] @ directions[1].T
    return cosines


def _means(features: Floats, labels: Ids, rows: Ids, classes: Ids) -> NDArray[np.float64]:
    """(K, d) means of these classes, sorted by id, over these rows, all of which are theirs; read block by block."""
    sums = np.zeros((len(classes), features.shape[1]))
    position = np.searchsorted(classes, labels[rows])
    for start in range(0, len(rows), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        np.add.at(sums, position[block], features[rows[block]].astype(np.float64))
    means: NDArray[np.float64] = sums / np.bincount(position, minlength=len(classes))[:, None]
    return means


def _told(dataset: Dataset, split: Split, pair: Pair) -> dict[str, Any]:
    names, labels = dataset.classes.names, dataset.labels
    return {
        "cosine": round(pair.cosine, 4),
        "test": _place(dataset, pair.test),
        "test_row": pair.test,
        "test_class": names[labels[pair.test]],
        "part": "test_unseen" if pair.test in split.test_unseen else "test_seen",
        "train": _place(dataset, pair.train),
        "train_row": pair.train,
        "train_class": names[labels[pair.train]],
    }


def _place(dataset: Dataset, row: int) -> str:
    """Where a row comes from; a file may be named by any bytes, so what cannot be printed is escaped."""
    if not dataset.paths:
        return f"row {row}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in dataset.paths[row])


def _near(neighbours: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{name} {cosine:.2f}" for name, cosine in neighbours)
