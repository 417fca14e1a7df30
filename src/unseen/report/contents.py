"""What a report page is made of: plain data, numpy arrays and builtins, no model and no HTML.

Accuracies are fractions from 0 to 1 everywhere; the page shows them in percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Numbers = NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """The seen–unseen curve of one method.

    Args:
        method: its name.
        seen: (k,) accuracy on seen classes at each value of the calibration constant γ.
        unseen: (k,) accuracy on unseen classes at the same values.
        ausuc: the area under the curve.
        point: (S, U) where the method operates, with the γ that its protocol gave it.
    """

    method: str
    seen: Numbers
    unseen: Numbers
    ausuc: float
    point: tuple[float, float]


@dataclass(frozen=True)
class Projection:
    """Real and synthetic features of unseen classes in one plane.

    Args:
        xy: (m, 2) positions.
        labels: (m,) indices into `names`.
        synthetic: (m,) True where the row was made by the method, False where it was measured on a picture.
        names: the unseen classes.
        method: whose synthetic features these are.
    """

    xy: Numbers
    labels: Numbers
    synthetic: Numbers
    names: tuple[str, ...]
    method: str


@dataclass(frozen=True)
class Confusion:
    """What the test pictures of unseen classes were taken for, when every class could be answered.

    Args:
        method: its name.
        counts: (U, U + 1) pictures; rows are the true unseen classes, columns the same classes, then "a seen class".
        names: U class names.
        nearest_seen: U names: the seen class that each unseen class was taken for most often; "" where it never was.
    """

    method: str
    counts: Numbers
    names: tuple[str, ...]
    nearest_seen: tuple[str, ...]


@dataclass(frozen=True)
class PictureGuess:
    """One test picture of an unseen class, and what each method took it for.

    Args:
        tile: (column, row) of its thumbnail in the sheet, both from 0.
        truth: the class that it shows.
        guesses: for each method its name, the class it answered, whether that is right, whether it is a seen class.
    """

    tile: tuple[int, int]
    truth: str
    guesses: tuple[tuple[str, str, bool, bool], ...]


@dataclass(frozen=True)
class Gallery:
    """Thumbnails in one sheet, and which of them to show as what.

    Args:
        sheet: the bytes of one picture that holds all thumbnails in a grid.
        media_type: image/png, image/webp, image/jpeg, image/avif or image/gif.
        tile: width and height of a thumbnail in pixels.
        pictures: test pictures of unseen classes.
        seen_examples: tiles, as (column, row), with the names of the seen classes they show.
    """

    sheet: bytes
    media_type: str
    tile: int
    pictures: tuple[PictureGuess, ...]
    seen_examples: tuple[tuple[tuple[int, int], str], ...] = ()


@dataclass(frozen=True)
class Page:
    """All that the page shows; a part that is None or empty leaves its section out.

    Args:
        title: the heading.
        command: the command line that made the results.
        verdict: one sentence: what came out.
        dataset: name of the data set.
        split: name of the split.
        seen_names: classes with training rows.
        unseen: (name, description) of the classes without; the description may be empty.
        counts: rows in "train", "test_seen", "test_unseen".
        results: one row a method. Shown in the table: method, protocol, T1, U, S, H, H_without_gamma, H_interval (low,
            high), AUSUC, test_pictures, hidden_width, steps, seconds, test_used_for_selection; a missing or None value
            is a dash. Rows with `test_used_for_selection` or `oracle` true are marked and cannot be the best. Where
            `module_alone` holds figures, they stand in a line of their own below, which cannot be the best either. Every other
            key (hyper-parameters and where they come from, seed, hashes, versions) is listed below the table.
        curves: one a method.
        projection: of one method.
        confusion: of one method.
        gallery: pictures, where the data set has any.
        per_class: (class, whether it is unseen, test rows, method → accuracy).
        provenance: where the data come from.
        attributions: one sentence each: whose work is shown, under which licence.
        versions: of the programs that ran.
    """

    title: str
    command: str
    verdict: str
    dataset: str
    split: str
    seen_names: tuple[str, ...]
    unseen: tuple[tuple[str, str], ...]
    counts: Mapping[str, int]
    results: tuple[Mapping[str, object], ...]
    curves: tuple[Curve, ...]
    projection: Projection | None
    confusion: Confusion | None
    gallery: Gallery | None
    per_class: tuple[tuple[str, bool, int, Mapping[str, float]], ...]
    provenance: Mapping[str, str]
    attributions: tuple[str, ...]
    versions: Mapping[str, str]
