"""Names of the classes that a backbone was trained with: a class among them is not unseen for the features.

Those of ImageNet-1k are kept beside this file (`tools/imagenet_classes.py` wrote them); for any other backbone the user gives a
file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unseen.data.validate import comparable_name
from unseen.storage import read_lines

IMAGENET = Path(__file__).parent / "imagenet_classes.txt"
"""One class a line, synonyms parted by commas; see NOTICE for WordNet's licence."""


@dataclass(frozen=True)
class BackboneNames:
    """What the backbone's training labels are called.

    Args:
        source: where the names come from, for people.
        names: by comparable name, as the source writes them; synonyms stand for themselves.
    """

    source: str
    names: dict[str, str]

    def among(self, classes: Sequence[str]) -> list[tuple[str, str]]:
        """(class, the backbone's name) for the classes whose name, or its plural, is one of these."""
        found = ((name, self.names.get(_key(name))) for name in classes)
        return [(name, theirs) for name, theirs in found if theirs is not None]


def names_from(path: Path) -> BackboneNames:
    """One label a line; commas part synonyms.

    Raises DataError when the file is missing, too long or no text.
    """
    return _indexed(str(path), read_lines(path))


def imagenet_names() -> BackboneNames:
    """ImageNet-1k's classes, with synonyms."""
    return _indexed("ImageNet-1k, as WordNet names its classes", IMAGENET.read_text(encoding="utf-8").splitlines())


def saw_imagenet(feature_extractor: str) -> bool:
    """Whether a sentence about an encoder says ImageNet, or names what has always been trained on it first."""
    return re.search(r"imagenet|resnet|in1k|in21k|in22k", feature_extractor, re.IGNORECASE) is not None


def _indexed(source: str, labels: Sequence[str]) -> BackboneNames:
    names: dict[str, str] = {}
    for label in labels:
        for synonym in label.split(","):
            if synonym.strip():
                names.setdefault(_key(synonym), synonym.strip())
    return BackboneNames(source, names)


def _key(name: str) -> str:
    """As a reader compares names, with hyphens and underscores as blanks and without a plural's s."""
    key = comparable_name(re.sub(r"[-_]+", " ", name))
    return key.removesuffix("s") if len(key) > 3 and not key.endswith("ss") else key
