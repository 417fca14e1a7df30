"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unseen.data import ClassTable, Dataset, Pictures, Provenance, Split


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data, from UNSEEN_DATA or beside the repository; without it a test skips, in CI it fails."""
    folder = Path(os.environ.get("UNSEEN_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        reason = f"no real data in {folder}; set UNSEEN_DATA to the folder that holds it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


def make_tiny_world(
    seed: int = 0,
    *,
    seen: int = 12,
    unseen: int = 4,
    rows: int = 10,
    d: int = 16,
    a: int = 6,
    noise: float = 0.25,
    groups: int = 0,
    pictures: bool = False,
) -> Dataset:
    """A world whose features follow from the embeddings: a class mean is a linear map of its embedding, rows scatter around.

    Unseen and seen classes are interleaved in the table and rows are shuffled, so that an id or a row taken for another is
    noticed. Of each seen class seven tenths of the rows train. With `groups`, classes fall into so many groups and the
    unseen classes are whole groups. With `pictures`, every row has a thumbnail.
    """
    rng = np.random.default_rng(seed)
    count = seen + unseen
    embeddings = rng.normal(size=(count, a))
    means = embeddings @ rng.normal(size=(a, d)) / a**0.5
    labels = rng.permutation(np.repeat(np.arange(count), rows))
    features = (means[labels] + noise * rng.normal(size=(len(labels), d))).astype(np.float32)
    group_of = np.arange(count) % groups if groups else np.arange(count)
    unseen_groups = rng.permutation(np.unique(group_of))
    if groups:
        cumulated = np.cumsum([np.sum(group_of == g) for g in unseen_groups])
        is_unseen = np.isin(group_of, unseen_groups[: int(np.argmax(cumulated >= unseen)) + 1])
    else:
        is_unseen = np.isin(np.arange(count), unseen_groups[:unseen])
    train = [r for c in np.flatnonzero(~is_unseen) for r in np.flatnonzero(labels == c)[: max(1, 7 * rows // 10)]]
    of_seen = np.flatnonzero(~is_unseen[labels])
    split = Split.from_rows(
        "main",
        labels,
        train=rng.permutation(np.array(train)),
        test_seen=np.setdiff1d(of_seen, train),
        test_unseen=np.flatnonzero(is_unseen[labels]),
        by_group=bool(groups),
    )
    return Dataset(
        name="tiny-world",
        features=features,
        labels=labels,
        classes=ClassTable(
            names=tuple(f"class {i}" for i in range(count)),
            embeddings=embeddings,
            groups=tuple(f"group {g}" for g in group_of) if groups else (),
        ),
        splits={"main": split},
        provenance=Provenance(feature_extractor="a linear map", embedding_source="normal draws"),
        pictures=Pictures(b"sheet", "image/png", 8, 7, rng.permutation(len(labels))) if pictures else None,
    )


@pytest.fixture(scope="session")
def tiny_world() -> Callable[..., Dataset]:
    """`make_tiny_world`, for tests in folders below."""
    return make_tiny_world
