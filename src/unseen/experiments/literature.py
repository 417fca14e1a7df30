"""Published results, each with its source and its setting, to stand beside runs in that very setting and no other.

With other features, other class embeddings or another split the same method is up to twenty points better or worse, so a
published figure is shown only beside runs of which it is known that all three are the same:

* the **split**, by its fingerprint;
* the **class embedding**, by its fingerprint, or in words (`embedding_source` begins with its name), or by its length where no
  other embedding of the benchmark has that length;
* the **features**, in words: `feature_extractor` begins with the features' name, up to a semicolon. Files named `res101.mat`
  look alike whether fine-tuned or not, so a reader cannot know; who has the files says so in `provenance.json` beside them
  (see `unseen.data.xlsa17`).

What is left out, and why, stands at the top of literature.toml.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from unseen.evaluation.metrics import harmonic_mean

TABLE = Path(__file__).with_name("literature.toml")
FEATURE_LENGTH = 2048
"""Of pooled ResNet-101 features, which all published rows are on."""


@dataclass(frozen=True)
class LiteratureRow:
    """One published result; figures are fractions.

    Args:
        method, dataset: whose, on what.
        features, embedding: with which inputs.
        selection: on what the epoch was chosen. `best epoch on test` makes figures too good, by some points.
        source: where the figures were read.
        T1: None where the source has none.
        U, S: as the source prints them, unless `note` says otherwise.
        note: corrections, and what the source leaves open.
    """

    method: str
    dataset: str
    features: str
    embedding: str
    selection: str
    source: str
    T1: float | None
    U: float
    S: float
    note: str

    @property
    def H(self) -> float:
        """Recomputed from U and S: several printed tables break the identity."""
        return harmonic_mean(self.S, self.U)


@lru_cache(maxsize=1)
def published() -> tuple[LiteratureRow, ...]:
    """All of them, as they stand in literature.toml."""
    return tuple(
        LiteratureRow(
            method=group["method"],
            dataset=result["dataset"],
            features=group["features"],
            embedding=result["embedding"],
            selection=group["selection"],
            source=group["source"],
            T1=result["T1"] / 100 if "T1" in result else None,
            U=result["U"] / 100,
            S=result["S"] / 100,
            note="; ".join(note for note in (result.get("note"), group.get("note")) if note),
        )
        for group in _table()["published"]
        for result in group["results"]
    )


def beside(row: Mapping[str, Any]) -> list[LiteratureRow]:
    """The published results that may stand beside a result row, best H first; none where anything about its data differs or is
    unknown (`why_none` says what).

    Args:
        row: a result row; of it count `split_hash`, `embeddings_hash`, `embedding_source` and `feature_extractor`.
    """
    benchmark = _benchmark(row)
    candidates = _with_embedding(benchmark, _embedding(row, benchmark)) if benchmark else []
    return sorted((r for r in candidates if _features_are(row, r.features)), key=lambda r: -r.H)


def why_none(row: Mapping[str, Any]) -> str | None:
    """Why no published result stands beside a row, in a sentence; None where some do, and where the data are no benchmark that
    results are known of."""
    nothing = f"no published result is shown beside {row['dataset']}, split {row['split']}: "
    benchmark = _benchmark(row)
    if benchmark is None:
        claimed = [b["name"] for b in _table()["benchmark"] if b["name"].casefold() == str(row["dataset"]).casefold()]
        return f"{nothing}they are on another split of {claimed[0]}, by its fingerprint" if claimed else None
    embedding = _embedding(row, benchmark)
    if embedding is None:
        known = " or ".join(entry["name"] for entry in benchmark["embeddings"])
        return f"{nothing}they are with {known}, which its class embedding ({row['embedding_source']}) is not known to be"
    if beside(row):
        return None
    kinds = dict.fromkeys(f'"{r.features}"' for r in _with_embedding(benchmark, embedding) if _named(r.features))
    return (
        f"{nothing}they are with features called {' or '.join(kinds)}, which its own ({row['feature_extractor']}) are not "
        "known to be; if you know it, let the data set's provenance say so (of .mat files: provenance.json beside them)"
    )


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text("utf-8"))


def _benchmark(row: Mapping[str, Any]) -> dict[str, Any] | None:
    return next((entry for entry in _table()["benchmark"] if entry["split"] == row["split_hash"]), None)


def _with_embedding(benchmark: Mapping[str, Any], embedding: str | None) -> list[LiteratureRow]:
    return [r for r in published() if (r.dataset, r.embedding) == (benchmark["name"], embedding)]


def _embedding(row: Mapping[str, Any], benchmark: Mapping[str, Any]) -> str | None:
    """Which of the benchmark's class embeddings the row is with, if any; a known fingerprint outweighs words."""
    source = str(row["embedding_source"])
    tests: tuple[Callable[[dict[str, Any]], bool], ...] = (
        lambda entry: entry.get("fingerprint") == row["embeddings_hash"],
        lambda entry: _begins_with(source, entry["name"]),
        lambda entry: "length" in entry and entry["length"] == _stated_length(source, "class"),
    )
    return next((str(entry["name"]) for test in tests for entry in benchmark["embeddings"] if test(entry)), None)


def _features_are(row: Mapping[str, Any], features: str) -> bool:
    extractor = str(row["feature_extractor"])
    fits = _stated_length(extractor, "picture") in (None, FEATURE_LENGTH)
    return fits and _named(features) and _begins_with(extractor, features)


def _stated_length(text: str, of: str) -> int | None:
    """As `unseen.data.xlsa17` states it."""
    stated = re.search(rf"\b(\d{{1,9}}) values a {of}\b", text)
    return int(stated[1]) if stated else None


def _named(features: str) -> bool:
    """Whether it is known which feature files these are; nobody can have the same ones otherwise."""
    return "not named" not in features


def _begins_with(text: str, name: str) -> bool:
    return " ".join(text.split(";")[0].split()).casefold() == name.casefold()
