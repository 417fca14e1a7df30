"""Names, descriptions and attributes to a class table: what `unseen embed` does.

A class's embedding depends on what is said of this class, the encoder and the prompts, and on nothing else: not on the order of
rows, and not on which other classes are in the list.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unseen.data.class_file import Classes
from unseen.data.class_list import ClassList, ListedClass, Said, attributes, class_list_of, read_class_list
from unseen.data.dataset import Floats
from unseen.data.validate import check_class_table
from unseen.encoders.foreign_text import OpenClipTextEncoder, SentenceTransformerEncoder
from unseen.encoders.text import TextEncoder
from unseen.encoders.word_vectors import WordVectors
from unseen.errors import DataError, SettingsError
from unseen.storage import hash_of

WITH_DESCRIPTION, WITHOUT = "{name}. {description}", "{name}"
"""The prompts of a class with and without a description, if the user gives none."""
FIELD = re.compile(r"\{([^{}]*)\}")
RULES = "distinct texts of a class averaged, l2-normalised; version 1"


class SentenceEncoder(Protocol):
    """What turns texts into numbers."""

    @property
    def name(self) -> str:
        """A short name."""

    @property
    def description(self) -> str:
        """One sentence for a data set's provenance."""

    @property
    def fingerprint(self) -> str:
        """Changes with everything that changes embeddings."""

    def encode(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """(n, d) float32, a row a text, each of length 1 and dependent on its text alone. The texts are a list, unless somebody
        watches how many were taken."""


def embed(
    classes: Path | str | Mapping[str, str | Sequence[str]],
    encoder: str | SentenceEncoder = "minilm",
    prompts: Sequence[str] = (),
    weights: str | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> Classes:
    """Turn names and descriptions, or attributes, into class embeddings.

    Every prompt is filled in for every sentence of a class; the distinct texts are encoded one by one, averaged and
    l2-normalised. Without prompts a class with descriptions is "{name}. {description}" for each of them, one without is
    "{name}", and word vectors take names alone. Underscores in names are read as blanks.

    Args:
        classes: a CSV or parquet file (see `unseen.data.class_list.read_class_list`), or {name: description}, where a
            description is a text, several, or a blank one.
        encoder: `minilm`, `st:NAME_OR_FOLDER`, `open_clip:NAME:TAG`, `open_clip:NAME`, `open_clip:FOLDER`, `vectors:FILE`,
            `attributes`, or an encoder. With `attributes`, the embedding is the numbers of all columns that hold numbers, as
            they are.
        prompts: templates with {name}, {description}, {group} or any other column in braces.
        weights: of `open_clip:NAME`: a safetensors file.
        watch: told how many texts are encoded, and of how many.

    Raises:
        DataError: what is given is damaged, a class lacks what a prompt or the attributes need, or two classes get the same
            embedding.
        SettingsError: no such encoder, or a prompt that cannot be filled in.
        MissingDependency: the encoder's packages are not installed.

    Example:
        >>> made = embed({"apple": "a red fruit", "submarine": "a boat under water"})  # doctest: +SKIP
        >>> made.table.embeddings.shape  # doctest: +SKIP
        (2, 384)
    """
    if encoder == "attributes" and (prompts or weights):
        raise SettingsError("--encoder attributes takes the numbers as they are; leave out --prompt and --weights")
    chosen = None if encoder == "attributes" else encoder_named(encoder, weights) if isinstance(encoder, str) else encoder
    listed = read_class_list(Path(classes).expanduser()) if isinstance(classes, str | Path) else class_list_of(classes)
    embeddings: Floats
    if chosen is None:
        embeddings, source = attributes(listed)
        about: dict[str, str] = {}
    else:
        prompts = tuple(prompts) or ((WITHOUT,) if isinstance(chosen, WordVectors) else ())
        _check_prompts(prompts, listed)
        embeddings = _encoded([_texts(entry, prompts) for entry in listed.classes], chosen, watch)
        how = " and ".join(f'"{prompt}"' for prompt in prompts) or f'"{WITH_DESCRIPTION}", or "{WITHOUT}" without description'
        source = f"{chosen.description}; of {how}; {RULES}"
        about = {
            "name": chosen.name,
            "description": chosen.description,
            "prompts": json.dumps(prompts or (WITH_DESCRIPTION, WITHOUT), ensure_ascii=False),
            "fingerprint": hash_of([RULES, chosen.fingerprint, prompts]),
        }
    table = listed.table(embeddings)
    check_class_table(table)
    return Classes(table, source, about)


def encoder_named(name: str, weights: str | None = None) -> SentenceEncoder:
    """The encoder of this name; nothing is loaded yet. SettingsError where there is none, or it takes no `weights`."""
    kind, _, what = name.partition(":")
    if weights is not None and kind != "open_clip":
        raise SettingsError(f"--weights is for --encoder open_clip:NAME, and {name[:100]!r} has its own; leave it out")
    if name == "minilm":
        return TextEncoder()
    if what and kind == "st":
        return SentenceTransformerEncoder(what)
    if what and kind == "open_clip":
        return OpenClipTextEncoder(what, weights)
    if what and kind == "vectors":
        return WordVectors(Path(what).expanduser())
    raise SettingsError(
        f"there is no encoder {name[:100]!r}; give minilm, st:NAME_OR_FOLDER, open_clip:NAME:TAG, open_clip:FOLDER, "
        "vectors:FILE or attributes"
    )


# ------------------------------------------------------------------------------------------------------------- texts


def _check_prompts(prompts: Sequence[str], listed: ClassList) -> None:
    """SettingsError for a prompt that says nothing of a class or asks for what no column holds; a note on unused columns."""
    known = ("name", "description", "group", *listed.columns)
    asked = set()
    for prompt in prompts:
        if not prompt.isprintable():
            raise SettingsError(f"--prompt {prompt[:100]!r} holds what cannot be printed; write it as one line of text")
        fields = [field.strip().casefold() for field in FIELD.findall(prompt)]
        if not fields or re.search(r"[{}]", FIELD.sub("", prompt)):
            raise SettingsError(
                f"--prompt {prompt[:100]!r} needs columns in braces, as in 'a photo of a {{name}}. {{description}}'"
            )
        if foreign := [field for field in fields if field not in known]:
            raise SettingsError(
                f"--prompt {prompt[:100]!r} asks for {foreign[0][:40]!r}, but {listed.source} has {', '.join(known)[:200]}"
            )
        asked.update(fields)
    if unused := [column for column in listed.columns if column not in asked]:
        warnings.warn(
            f"columns not used: {', '.join(unused)[:200]}; a prompt can name them, and --encoder attributes takes numbers",
            stacklevel=3,
        )


def _texts(entry: ListedClass, prompts: Sequence[str]) -> tuple[str, ...]:
    """The distinct texts of a class, sorted: the last bits of a sum depend on its order."""
    texts = set()
    for prompt in prompts or (WITH_DESCRIPTION if entry.sentences else WITHOUT,):
        describing = "description" in (field.strip().casefold() for field in FIELD.findall(prompt))
        if describing and not entry.sentences:
            raise DataError(f"class {entry.name!r} has no description, which the prompt {prompt[:100]!r} asks for; describe it")
        for row in entry.rows:
            texts |= {_filled(prompt, entry, row, sentence) for sentence in (row.sentences if describing else ("",))}
    return tuple(sorted(texts))


def _filled(prompt: str, entry: ListedClass, row: Said, sentence: str) -> str:
    def cell(match: re.Match[str]) -> str:
        field = match.group(1).strip().casefold()
        own = {
            "name": " ".join(entry.name.replace("_", " ").split()) or entry.name,
            "description": sentence,
            "group": entry.group,
        }
        if not (text := (own | dict(row.columns))[field]):
            raise DataError(
                f"class {entry.name!r} has nothing in column {field[:40]!r} ({row.place}), which the prompt {prompt[:100]!r} "
                "asks for; fill it in"
            )
        return text

    return FIELD.sub(cell, prompt)


def _encoded(
    texts: Sequence[Sequence[str]], encoder: SentenceEncoder, watch: Callable[[int, int], None] | None
) -> NDArray[np.float32]:
    """One row a class, the mean of its texts' embeddings on the unit sphere."""
    distinct = list(dict.fromkeys(text for of_class in texts for text in of_class))

    def watched(watch: Callable[[int, int], None]) -> Iterator[str]:
        for position, text in enumerate(distinct):
            watch(position, len(distinct))
            yield text

    encoded = np.asarray(encoder.encode(distinct if watch is None else watched(watch)), np.float64)
    if encoded.ndim != 2 or len(encoded) != len(distinct):
        raise DataError(f"encoder {encoder.name} made numbers of shape {encoded.shape} of {len(distinct)} texts; correct it")
    row_of = dict(zip(distinct, encoded, strict=True))
    means = [np.mean([row_of[text] for text in of_class], axis=0) for of_class in texts]
    lengths = [float(np.sqrt(np.square(mean).sum())) for mean in means]
    return np.stack([mean / (length or 1.0) for mean, length in zip(means, lengths, strict=True)]).astype(np.float32)
