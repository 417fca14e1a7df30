"""Words to class embeddings: GloVe's and word2vec's text files, read in passing and never as a whole."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unseen.errors import DataError
from unseen.storage import hash_of

LONGEST_LINE = 2**20
"""Bytes; a line of a file that is no text of word vectors may be the whole file."""
HEADER = re.compile(rb"\d+ \d+\s*")
WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
"""A word: letters and digits, with hyphens and apostrophes inside; an underscore parts words as a blank does."""
SHOWN_WORDS = 10
RULES = "words as written, else in lower case, else the parts about a hyphen; mean over words; l2-normalised; version 1"


class WordVectors:
    """Turn texts into the mean of their words' vectors, l2-normalised.

    The file has a word and its numbers on every line, parted by blanks; word2vec's first line, which counts both, may be there.
    A word is looked up as written, then in lower case, and one with hyphens then by its parts. Where a word has several lines,
    the first counts. The file is streamed, so it may be larger than memory.

    Reference: Pennington et al., "GloVe", EMNLP 2014; Mikolov et al., "Distributed Representations of Words", NeurIPS 2013.

    Args:
        file: the text file, unpacked.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def name(self) -> str:
        """What it is called in a data set's provenance: the file's name without its folder."""
        return f"word vectors {self.file.name}"

    @property
    def description(self) -> str:
        """One sentence for a data set's provenance."""
        return f"{self.name}, SHA-256 {self._sha256}; {RULES}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 that changes with the file's content or the rules, not with its name."""
        return hash_of([RULES, self._sha256])

    def encode(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """The embeddings of the texts, in their order.

        Returns:
            (n, d) float32, each row of length 1.

        Raises:
            DataError: words have no vector (all texts that lack one are named), or the file is missing or is no such file.
        """
        texts = list(texts)
        words = {text: tuple(WORD.findall(unicodedata.normalize("NFC", text))) for text in dict.fromkeys(texts)}
        wanted = {form for found in words.values() for word in found for forms in _spellings(word) for form in forms}
        vectors = self._look_up(wanted)
        lacking = {text: [word for word in found if _known(word, vectors) is None] for text, found in words.items()}
        if missing := [text for text, lost in lacking.items() if lost or not words[text]]:
            shown = ", ".join(
                f"{text[:40]!r} ({', '.join(lacking[text])[:60] or 'no word at all'})" for text in missing[:SHOWN_WORDS]
            )
            more = f" and {len(missing) - SHOWN_WORDS} more" if len(missing) > SHOWN_WORDS else ""
            raise DataError(
                f"{self.file} has no vector for words of {len(missing)} of {len(words)} texts: {shown}{more}; rename these "
                "classes to words that it has, or take a sentence encoder"
            )
        rows = []
        for text, found in words.items():
            known = [vectors[form] for word in found for form in _known(word, vectors) or ()]
            mean = np.mean(known, axis=0, dtype=np.float64)
            if not (length := float(np.linalg.norm(mean))) > 0:
                raise DataError(f"the vectors in {self.file} of {text[:40]!r} are all zero or cancel out; rename the class")
            rows.append((mean / length).astype(np.float32))
        by_text = dict(zip(words, rows, strict=True))
        return np.stack([by_text[text] for text in texts])

    def _look_up(self, wanted: set[str]) -> dict[str, NDArray[np.float64]]:
        encoded = {form.encode(): form for form in wanted}
        found: dict[str, NDArray[np.float64]] = {}
        width = 0
        for number, line in enumerate(self._lines(), 1):
            if number == 1 and HEADER.fullmatch(line):
                width = int(line.split()[1])
                continue
            if not width:
                width = max(0, len(line.split()) - 1)
            word = line.split(maxsplit=1)[0] if line.strip() else b""
            if word not in encoded and number > 2:
                continue
            try:
                cells = line.rsplit(maxsplit=width)  # a few words of large files have blanks inside
                if width < 1 or len(cells) != width + 1:
                    raise ValueError
                vector = np.array([float(cell) for cell in cells[1:]])
            except (ValueError, OverflowError):
                raise DataError(
                    f"line {number} of {self.file} is not a word with {width or 'its'} numbers, so it is no text file of word "
                    "vectors; unpack it, or convert word2vec's binary format first"
                ) from None
            form = encoded.get(cells[0].strip())
            if form is not None and form not in found:
                if not np.isfinite(vector).all():
                    raise DataError(f"line {number} of {self.file} holds NaN or infinity for {form[:40]!r}; correct the file")
                found[form] = vector
        if not width:
            raise DataError(f"{self.file} is empty; give a text file of word vectors")
        return found

    def _lines(self) -> Iterator[bytes]:
        try:
            with self.file.open("rb") as file:
                while line := file.readline(LONGEST_LINE):
                    if len(line) == LONGEST_LINE:
                        raise DataError(
                            f"{self.file} has a line of {LONGEST_LINE:,} bytes or more, so it is no text file of word "
                            "vectors; unpack it, or convert word2vec's binary format first"
                        )
                    yield line
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    @cached_property
    def _sha256(self) -> str:
        try:
            with self.file.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError | ValueError) -> DataError:
        cause = getattr(error, "strerror", None) or error
        return DataError(f"{str(self.file)[:200]!r} cannot be read ({cause}); give a text file of word vectors")


def _spellings(word: str) -> Iterator[tuple[str, ...]]:
    """The ways to look a word up, best first, each a tuple of forms that must all be there."""
    for spelled in dict.fromkeys((word, word.lower())):
        yield (spelled,)
    if "-" in word:
        yield tuple(word.split("-"))
        yield tuple(word.lower().split("-"))


def _known(word: str, vectors: dict[str, NDArray[np.float64]]) -> tuple[str, ...] | None:
    return next((forms for forms in _spellings(word) if all(form in vectors for form in forms)), None)
