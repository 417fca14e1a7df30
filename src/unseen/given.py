"""What people hand a classifier: rows and labels of any kind, and classes given in any of several ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unseen.encoders.embedding import SentenceEncoder, embed, encoder_named
from unseen.errors import DataError
from unseen.learned import Labels, Learned


class InputError(DataError, ValueError, TypeError):
    """What was given cannot be learned from or classified; also what scikit-learn expects to be raised then."""


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
    if learned is not None and not alike(labels, learned.classes):
        raise InputError(
            f"class {str(labels[0])[:40]!r} is a {type(labels.tolist()[0]).__name__}, but the labels are like "
            f"{learned.classes.tolist()[0]!r}; give one of that kind"
        )
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
        labels = list(classes.index)
        numbers = classes.drop(columns=[c for c in ("description", "group") if c in classes.columns])
        said: list[Any] = list(numbers.to_numpy() if numbers.shape[1] else classes.get("description", []))
    elif isinstance(classes, Mapping):
        labels, said = list(classes), list(classes.values())
    elif isinstance(classes, tuple) and len(classes) == 2:
        labels, said = list(classes[0]), list(as_array(classes[1]))
    else:
        raise InputError(
            f"classes are given as {type(classes).__name__}; give a mapping from label to description or embedding, a "
            "DataFrame with the labels as its index, or a pair (labels, embeddings)"
        )
    if len(labels) != len(said):
        raise InputError(f"there are {len(labels)} labels but {len(said)} embeddings or descriptions; give one a class")
    if len(set(labels)) < len(labels):
        twice = next(label for k, label in enumerate(labels) if label in labels[:k])
        raise InputError(f"class {str(twice)[:40]!r} is given twice; give it once")
    words = [_is_words(one) for one in said]
    if labels and all(words):
        return as_labels(labels), said
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
    """Labels as an array, all texts or all numbers."""
    kinds = {"text" if isinstance(label, str) else "number" for label in labels}
    if len(kinds) > 1 or not all(isinstance(label, str | int | float | np.number) for label in labels):
        raise InputError(f"labels are texts, or numbers, and not both or something else; correct {str(labels[0])[:40]!r}")
    return np.array(labels)


def alike(one: Labels, other: Labels) -> bool:
    """Whether labels of both can be the same: texts, or numbers."""
    return (one.dtype.kind in "UO") == (other.dtype.kind in "UO")


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
