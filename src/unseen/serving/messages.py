"""What goes in and comes out, as JSON: checked on the way in, and described by /openapi.json both ways."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from unseen.errors import DataError
from unseen.inference import Answers
from unseen.serving.served import Served, Snapshot


class _Message(BaseModel):
    # pydantic lists every mistake, and millions take gigabytes. So lists stop at the first, and `read` looks at unknown keys.
    model_config = ConfigDict(
        strict=True, extra="allow", populate_by_name=True, json_schema_extra={"additionalProperties": False}
    )


class FeatureRows(_Message):
    """Rows of numbers, as the model was fitted on."""

    features: Annotated[list[Annotated[list[float], FailFast()]], FailFast()] = Field(
        description="n rows of as many numbers as the model takes", examples=[[[0.1, 2.5, 0.0]]]
    )


class NewClass(_Message):
    """A class that has no example: its name, and what there is to know of it."""

    name: str = Field(min_length=1, examples=["okapi"])
    description: str | None = Field(None, examples=["a relative of the giraffe, brown, with striped legs"])
    embedding: Annotated[list[float] | None, FailFast()] = Field(
        None, description="instead, where classes were given as embeddings"
    )


class Guess(_Message):
    """A class and how probable it is."""

    class_: str = Field(alias="class", examples=["okapi"])
    probability: float = Field(examples=[0.83])
    seen: bool = Field(description="whether the model was shown examples of it", examples=[False])


class Answer(_Message):
    """What the model says of one row or picture."""

    class_: str | None = Field(alias="class", description="null where it is not sure enough to say", examples=["okapi"])
    confidence: float = Field(description="the probability of the most probable class", examples=[0.83])
    never_seen: bool = Field(description="whether it is taken for one of a class never seen", examples=[True])
    unseen_mass: float = Field(description="the probability of all classes together that were never seen", examples=[0.91])
    top: list[Guess] = Field(description="the most probable classes, the first one first")


class Predicted(_Message):
    """Answers, in the order of the rows, all by one revision of the model."""

    revision: str = Field(examples=["5f0c3a9be2d14477"])
    answers: list[Answer]


class KnownClass(_Message):
    """A class that can be answered."""

    name: str = Field(examples=["okapi"])
    seen: bool = Field(description="whether the model was shown examples of it", examples=[False])
    added: datetime | None = Field(description="when it was added to this server; null if it came with the model")


class Classes(_Message):
    """What the model knows, and what it takes."""

    revision: str = Field(examples=["5f0c3a9be2d14477"])
    takes: list[str] = Field(description="`features`, `pictures` or both", examples=[["features", "pictures"]])
    features: int | None = Field(description="numbers in a row", examples=[1280])
    new_classes: str | None = Field(
        description="what a new class is told by: `description` or `embedding`; null: none is taken"
    )
    why_not: str = Field(description="why no new classes are taken", examples=[""])
    classes: list[KnownClass]


class Changed(_Message):
    """The model after a change."""

    revision: str = Field(examples=["8e41d07c55aa9b12"])
    classes: int = Field(description="how many there are now", examples=[201])


class Health(_Message):
    """The server answers."""

    status: str = Field(examples=["ok"])
    revision: str = Field(examples=["5f0c3a9be2d14477"])


class Problem(_Message):
    """What is wrong, in one sentence."""

    detail: str = Field(examples=["row 0 has 3 numbers, and the model takes 1280; send rows as it was fitted on"])


M = TypeVar("M", bound=_Message)


def read(kind: type[M], body: bytes) -> M:
    """A message of this kind; DataError, about the first thing that is wrong with it."""
    try:
        message = kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:40]}" for part in first["loc"]).lstrip(".")
        what = " ".join(first["msg"].split())[:200]
        raise DataError(
            f"{where or 'the body'} is not as it should be: {what[:1].lower()}{what[1:]}; see /openapi.json"
        ) from None
    for key in message.model_extra or ():
        raise DataError(f"the body has an entry {key[:40]!r}, which is not asked for; see /openapi.json")
    return message


def feature_rows(body: bytes, width: int, most: int) -> NDArray[np.float32]:
    """(n, width) features of a JSON body; DataError where a row is of another length or holds what is no finite number."""
    rows = read(FeatureRows, body).features
    if not 1 <= len(rows) <= most:
        raise DataError(f"there are {len(rows)} rows, and 1 to {most} are taken at a time; send them in parts")
    for number, row in enumerate(rows):
        if len(row) != width:
            raise DataError(f"row {number} has {len(row)} numbers, and the model takes {width}; send rows as it was fitted on")
    with np.errstate(over="ignore"):
        features = np.array(rows, np.float64).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise DataError(f"row {bad[0]} holds what is no finite number; mend it or leave it out")
    return features


def predicted(snapshot: Snapshot, answers: Answers, top: int) -> dict[str, Any]:
    """`Predicted`, as plain values."""
    guesses = np.argsort(-answers.probabilities, axis=1, kind="stable")[:, :top]
    rows = []
    for row, name in enumerate(answers.names):
        best = [
            {
                "class": snapshot.names[k],
                "probability": float(answers.probabilities[row, k]),
                "seen": snapshot.seen[k],
            }
            for k in guesses[row].tolist()
        ]
        rows.append(
            {
                "class": name,
                "confidence": float(answers.confidence[row]),
                "never_seen": bool(answers.never_seen[row]),
                "unseen_mass": float(answers.unseen_mass[row]),
                "top": best,
            }
        )
    return {"revision": snapshot.revision, "answers": rows}


def known(served: Served, closed: str) -> dict[str, Any]:
    """`Classes`, as plain values.

    Args:
        closed: why nobody may add classes to this server; empty where somebody may.
    """
    snapshot = served.current
    why_not = served.why_not or closed
    return {
        "revision": snapshot.revision,
        "takes": [kind for kind, taken in (("features", served.takes_features), ("pictures", served.takes_pictures)) if taken],
        "features": served.width,
        "new_classes": None if why_not else served.told_by,
        "why_not": why_not,
        "classes": [
            {"name": name, "seen": seen, "added": snapshot.added[name].isoformat() if name in snapshot.added else None}
            for name, seen in zip(snapshot.names, snapshot.seen, strict=True)
        ],
    }
