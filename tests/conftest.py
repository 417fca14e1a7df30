"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from unseen.data import ClassTable, Dataset, Provenance, Split


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


@pytest.fixture(scope="session")
def toy() -> Dataset:
    """Eight seen and three unseen classes of twelve rows in six dimensions; each class mean follows from its embedding."""
    rng = np.random.default_rng(7)
    embeddings = rng.normal(size=(11, 4))
    labels = np.repeat(np.arange(11), 12)
    noise = 0.5 * rng.normal(size=(132, 6))
    features = (embeddings @ rng.normal(size=(4, 6)))[labels] + noise
    position = np.tile(np.arange(12), 11)
    splits = {
        name: Split.from_rows(
            name,
            labels,
            train=np.flatnonzero(np.isin(labels, seen) & (position < 9)),
            test_seen=np.flatnonzero(np.isin(labels, seen) & (position >= 9)),
            test_unseen=np.flatnonzero(~np.isin(labels, seen)),
        )
        for name, seen in (("first", np.arange(8)), ("second", np.arange(3, 11)))
    }
    return Dataset(
        name="toy",
        features=features.astype(np.float32),
        labels=labels,
        classes=ClassTable(names=tuple(f"class {letter}" for letter in "abcdefghijk"), embeddings=embeddings),
        splits=splits,
        provenance=Provenance(source="drawn", feature_extractor="none", embedding_source="none", licence="none"),
    )


@pytest.fixture(scope="session")
def toy_folder(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data set in the native format."""
    folder = tmp_path_factory.mktemp("data") / "toy"
    toy.save(folder)
    return folder
