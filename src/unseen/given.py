"""What people hand a classifier: rows and labels of any kind, and classes given in any of several ways."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_random_state

from unseen.data.dataset import Ids
from unseen.encoders.embedding import SentenceEncoder, embed, encoder_named
from unseen.encoders.images import ImageEncoder
from unseen.errors import DataError, InputError, SettingsError
from unseen.learned import Labels, Learned

ENCODES = ("encode", "name", "description", "fingerprint")
"""What an encoder of descriptions has."""
PICTURES = re.compile(rf"{re.escape(ImageEncoder.name)}|(timm|open_clip):.+")
"""The names of encoders of pictures, as `EncoderChoice` takes them."""
WHOLE, DECIMAL = re.compile(r"[+-]?[0-9]{1,19}"), re.compile(r"[+-]?([0-9]{1,300}\.?[0-9]{0,300}|\.[0-9]{1,300})")
"""How a number is typed as the name of a class: int() and float() also take underscores, blanks and digits of any script."""


def embedded(
    classes: Any, encoder: str | SentenceEncoder, learned: Learned | None = None, by: Mapping[str, str] | None = None
) -> tuple[Labels, NDArray[np.float64], Mapping[str, str] | None]:
    """Labels, embeddings (C, a), and name and fingerprint of the encoder, of classes given in any of the ways of `fit`.

    Args:
        encoder: of descriptions.
        learned: what they must fit to, and by: what its classes were embedded by, as a `State` says it.
    """
    labels, said = given_classes(classes)
    if not len(labels):
        raise InputError("no class is given; give at least one, by name")
    if learned is not None and by is None:
        raise InputError(
            "the classifier was fitted without `classes`, so nothing says what a description or an embedding means to it; "
            "fit it with classes=… first"
        )
    labels = labels if learned is None else like(labels, learned.classes)
    if isinstance(said, np.ndarray):
        if by:
            raise InputError(f"the classes were described in words and embedded by {by['name']}; give descriptions here too")
        width = said.shape[1] if learned is None else learned.embeddings.shape[1]
        if said.shape[1] != width:
            raise InputError(
                f"the embedding of class {str(labels[0])[:40]!r} has {said.shape[1]} numbers, but those of the others have "
                f"{width}; make it as they were made"
            )
        return labels, said, {}
    if learned is not None and not by:
        raise InputError(
            "the classes were given as embeddings, so a description cannot be compared with them; give an embedding of "
            f"{learned.embeddings.shape[1]} numbers"
        )
    _check_encoder(encoder)
    encoder = encoder_named(encoder) if isinstance(encoder, str) else encoder
    with as_input_error():
        made = embed(dict(zip((str(label) for label in labels), said, strict=True)), encoder)
    about = {"name": made.encoder["name"], "fingerprint": made.encoder["fingerprint"]}
    if by and about["fingerprint"] != by["fingerprint"]:
        raise InputError(
            f"the classes were embedded by another encoder ({by['name']}) than {about['name']}; give that one as `encoder`"
        )
    return labels, np.asarray(made.table.embeddings, np.float64), about


def given_classes(classes: Any) -> tuple[Labels, NDArray[np.float64] | list[Any]]:
    """Labels, and embeddings (C, a) or descriptions, of classes given in any of the ways of `fit`."""
    if hasattr(classes, "columns") and hasattr(classes, "index"):
        named = "name" in classes.columns and list(classes.index) == list(range(len(classes)))  # nobody set the index
        labels = list(classes["name"] if named else classes.index)
        numbers = classes.drop(columns=[c for c in ("name", "description", "group") if c in classes.columns])
        said: list[Any] = list(numbers.to_numpy() if numbers.shape[1] else classes.get("description", []))
    elif isinstance(classes, Mapping):
        labels, said = list(classes), list(classes.values())
    elif hasattr(classes, "to_dict") and hasattr(classes, "index"):  # a Series
        labels, said = list(classes.index), list(classes)
    elif isinstance(classes, tuple) and len(classes) == 2:
        labels, said = list(classes[0]), list(as_array(classes[1]))
    else:
        raise InputError(
            f"classes are given as {type(classes).__name__}; give a mapping from label to description or embedding, a "
            "Series or DataFrame with the labels as its index, or a pair (labels, embeddings)"
        )
    if len(labels) != len(said):
        raise InputError(f"there are {len(labels)} labels but {len(said)} embeddings or descriptions; give one a class")
    if len(set(labels)) < len(labels):
        twice = next(label for k, label in enumerate(labels) if label in labels[:k])
        raise InputError(f"class {str(twice)[:40]!r} is given twice; give it once")
    words = [_is_words(one) for one in said]
    if labels and all(words):
        return as_labels(labels), said
    nothing = [label for label, one in zip(labels, said, strict=True) if not isinstance(one, str) and np.isscalar(one)]
    nothing += [label for label, one in zip(labels, said, strict=True) if one is None or type(one).__name__ == "NAType"]
    if any(words) and nothing:  # None and NaN are what an empty cell is read as
        raise InputError(f"class {str(nothing[0])[:40]!r} has no description; give it one, or '' to go by its name alone")
    if any(words):
        raise InputError(
            f"class {str(labels[words.index(True)])[:40]!r} has a description and {str(labels[words.index(False)])[:40]!r} an "
            "embedding; give all of them one or the other"
        )
    rows: list[NDArray[np.float64]] = []
    for label, one in zip(labels, said, strict=True):
        try:
            row = np.asarray(as_array(one), np.float64)
        except (TypeError, ValueError):
            raise InputError(f"class {str(label)[:40]!r} has neither a description nor numbers; give it one of them") from None
        if row.ndim != 1 or not row.size or (rows and row.shape != rows[0].shape):
            wanted = f"{len(rows[0])} numbers, as the others have" if rows else "a row of numbers"
            raise InputError(f"the embedding of class {str(label)[:40]!r} has shape {row.shape}; give it {wanted}")
        rows.append(row)
    return as_labels(labels), np.array(rows)


def _is_words(said: Any) -> bool:
    return isinstance(said, str) or (
        isinstance(said, Sequence) and len(said) > 0 and all(isinstance(sentence, str) for sentence in said)
    )


def as_labels(labels: list[Any]) -> Labels:
    """Labels as an array: all texts, truth values, whole numbers (int64), or numbers of which some are not whole (float64)."""
    kinds = {_kind(label) for label in labels}
    if "" in kinds or len(kinds - {"whole", "decimal"}) + bool(kinds & {"whole", "decimal"}) > 1:
        raise InputError(f"labels are texts, or numbers, and not both or something else; correct {str(labels[0])[:40]!r}")
    for label in labels:
        if isinstance(label, str) and label.endswith("\0"):  # which NumPy takes away without a word
            raise InputError(f"class {label[:40]!r} ends with a NUL, and a name has printable characters alone; rename it")
    if not kinds & {"whole", "decimal"}:
        return np.array(labels)
    values = [int(label) if _kind(label) == "whole" else float(label) for label in labels]
    return _exactly(values, np.dtype(np.float64 if "decimal" in kinds else np.int64))


def _kind(label: Any) -> str:
    if isinstance(label, str):
        return "text"
    if isinstance(label, bool | np.bool_):
        return "truth"
    if isinstance(label, int | np.integer) and not isinstance(label, np.timedelta64):
        return "whole"
    return "decimal" if isinstance(label, float | np.floating) else ""


def _exactly(values: list[int | float], kind: np.dtype[Any]) -> Labels:
    """These numbers as int64 or float64; InputError where one would become another."""
    whole = kind.kind in "iu"
    for value in values:
        if isinstance(value, float) and not np.isfinite(value):
            raise InputError(f"label {value} is no number that can name a class; give another")
        if whole and int(value) != value:
            raise InputError(f"label {value} is no whole number like the others; give one")
        if not -(2**63) <= value < 2**63 if whole else isinstance(value, int) and not _is_decimal(value):
            raise InputError(f"label {str(value)[:40]} does not fit into 64 bits; give another")
    return np.array([int(value) if whole else float(value) for value in values], np.int64 if whole else np.float64)


def _is_decimal(value: int) -> bool:
    """Whether a whole number is one of float64."""
    try:
        return float(value) == value
    except OverflowError:
        return False


def like(labels: Labels, known: Labels) -> Labels:
    """New labels as numbers of the kind that the known ones have, so that these keep their type, and with it their names.

    Raises InputError where they are of another kind, or a number would become another.
    """
    if not alike(labels, known):
        raise InputError(
            f"class {str(labels[0])[:40]!r} is a {type(labels.tolist()[0]).__name__}, but the labels are like "
            f"{known.tolist()[0]!r}; give one of that kind"
        )
    return _exactly(labels.tolist(), known.dtype) if known.dtype.kind in "iuf" else labels


def alike(one: Labels, other: Labels) -> bool:
    """Whether labels of both can be the same: texts, truth values, or numbers."""
    kinds = {"U": "text", "O": "text", "b": "truth"}
    return kinds.get(one.dtype.kind, "number") == kinds.get(other.dtype.kind, "number")


def label_like(labels: Labels, name: str) -> Any:
    """A name as typed, as a label of the kind of these; InputError where they are numbers, and the name is none."""
    whole = labels.dtype.kind in "iu"
    if not whole and labels.dtype.kind != "f":
        return name
    if (WHOLE if whole else DECIMAL).fullmatch(name):
        label = int(name) if whole else float(name)
        if not whole or -(2**63) <= label < 2**63:
            return label
    kind = "whole number" if whole else "number"
    raise InputError(f"class {name[:40]!r} is no {kind}, as the labels of this classifier are; give one")


def distinct(y: Any) -> tuple[Labels, Ids]:
    """The labels that are in y, sorted, and for each row which of them is its; InputError where a row has none."""
    for row, label in enumerate(y if y.dtype == object else ()):
        if label is None:  # of NaN scikit-learn says so itself
            raise InputError(f"row {row} of y has no label, but None; give it one, or leave the row out")
    check_classification_targets(y)
    labels, ids = np.unique(y, return_inverse=True)
    return labels, ids


def _check_encoder(encoder: Any) -> None:
    if not isinstance(encoder, str) and (missing := [part for part in ENCODES if not hasattr(encoder, part)]):
        raise SettingsError(
            f"encoder is the name of one, or an object with {', '.join(ENCODES)}; {type(encoder).__name__} has no {missing[0]}"
        )


def seed_of(random_state: Any, settings: Any, preset: Any, encoder: Any, image_encoder: Any) -> int:
    """The integer that `random_state` is, or one drawn from what scikit-learn takes instead.

    Raises SettingsError for it and for the other arguments of the constructor, before anything is trained, where they are of
    a wrong type, or there is no such encoder of pictures.
    """
    if settings is not None and not (isinstance(settings, Mapping) and all(isinstance(name, str) for name in settings)):
        raise SettingsError(f"settings is a mapping from name to value, or None, not {str(settings)[:40]!r}")
    if not isinstance(preset, str | None):
        raise SettingsError(f"preset is a name or the path of a file, as text, or None, not {str(preset)[:40]!r}")
    _check_encoder(encoder)
    if image_encoder is not None and not (isinstance(image_encoder, str) and PICTURES.fullmatch(image_encoder)):
        raise SettingsError(
            f"image_encoder is {ImageEncoder.name}, timm:NAME, open_clip:NAME or None, not {str(image_encoder)[:40]!r}"
        )
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    try:
        return int(check_random_state(random_state).randint(2**31))
    except ValueError:
        raise SettingsError(
            f"random_state is a whole number, a numpy.random.RandomState or None, not {str(random_state)[:40]!r}"
        ) from None


def as_array(given: Any) -> Any:
    """A torch tensor as NumPy; all else as it is. Lists become arrays."""
    if hasattr(given, "detach"):
        given = given.detach().cpu()
        return (given.float() if given.dtype == torch.bfloat16 else given).numpy()
    return np.asarray(given) if isinstance(given, list | tuple) and not _ragged(given) else given


def _ragged(given: Sequence[Any]) -> bool:
    return len({np.shape(row) if not isinstance(row, list | tuple) else len(row) for row in given}) > 1


def listed(labels: Labels) -> str:
    """The first few, for a sentence."""
    return ", ".join(str(label)[:40] for label in labels[:5]) + (", …" if len(labels) > 5 else "")


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """scikit-learn's own complaints about X and y, as one line of ours."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        first = str(error).partition("\nZeroShotClassifier does not accept missing values")[0]  # its advice is other estimators
        raise InputError(" ".join(first.split()).removesuffix(".")) from error


@contextmanager
def as_input_error() -> Iterator[None]:
    """What the library finds wrong with classes, as an InputError."""
    try:
        yield
    except InputError:
        raise
    except DataError as error:
        raise InputError(str(error)) from error
