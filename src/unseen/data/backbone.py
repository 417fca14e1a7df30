"""Names of the classes that a backbone was trained with: a class among them is not unseen for the features.

No list is kept here. ImageNet-1k's names come with packages that people have for the backbones, and are read from their files
without importing them; for any other backbone the user gives a file.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unseen.data.validate import comparable_name
from unseen.storage import read_lines


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


def imagenet_names() -> BackboneNames | None:
    """ImageNet-1k's names from timm, else from torchvision; None where neither is installed, or has them no longer."""
    for package, read in (("timm", _of_timm), ("torchvision", _of_torchvision)):
        folder = _folder_of(package)
        if folder is None:
            continue
        try:
            labels = read(folder)
        except (OSError, ValueError, LookupError, SyntaxError):  # their files are theirs to move
            continue
        if labels:
            return _indexed(f"ImageNet-1k, as {package} has it", labels)
    return None


def saw_imagenet(feature_extractor: str) -> bool:
    """Whether a sentence about an encoder says ImageNet, or names what has always been trained on it first."""
    return re.search(r"imagenet|resnet|in1k|in21k|in22k", feature_extractor, re.IGNORECASE) is not None


def _folder_of(package: str) -> Path | None:
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    return Path(found.origin).parent if found is not None and found.origin else None


def _of_timm(folder: Path) -> list[str]:
    info = folder / "data" / "_info"
    lines = (info / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines if line.strip())
    return [lemmas[synset] for synset in (info / "imagenet_synsets.txt").read_text(encoding="utf-8").split()]


def _of_torchvision(folder: Path) -> list[str]:
    tree = ast.parse((folder / "models" / "_meta.py").read_text(encoding="utf-8"))
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "_IMAGENET_CATEGORIES" for target in statement.targets
        ):
            return [str(name) for name in ast.literal_eval(statement.value)]
    return []


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
