"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

# The tests' matrices are so small that a second thread costs more than it brings, on a busy machine many times more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from unseen.data import ClassTable, Dataset, Pictures, Provenance, Split

if TYPE_CHECKING:
    from unseen.evaluation.protocol import Task
    from unseen.scaling import ScaledView


# A shell lets what it starts in the background ignore SIGINT, and what that starts inherits it; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


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


def make_tiny_task(
    world: Dataset,
    protocol: str = "fixed",
    method: str = "tfvaegan",
    *,
    seed: int = 0,
    split: str = "main",
    scalings: tuple[str, ...] = ("l2",),
    hidden: int = 16,
    **recipe: Any,
) -> Task:
    """A task that takes about a second: narrow networks, few steps, one scaling to choose from."""
    from dataclasses import replace

    from unseen.evaluation.protocol import Task
    from unseen.methods import ClosedForm, find_method
    from unseen.methods.tfvaegan import Hyperparameters
    from unseen.recipe import Recipe

    found = find_method(method)
    if isinstance(found, ClosedForm):
        return Task(world, split, found, found.hyperparameters(), replace(found.recipe, **recipe), "default", protocol, seed)
    settings = {
        "scaling": "l2",
        "centred": True,
        "steps": 24,
        "synthetic_ratio": 2.0,
        "classifier_epochs": 3,
        "classifier_batch": 64,
    } | recipe
    hyperparameters = Hyperparameters(
        hidden=hidden,
        batch_size=32,
        critic_iterations=2,
        lr=3e-3,
        decoder_lr=1e-3,
        latent=4,
        embedding_noise=0.2,
        sample_noise=True,
    )
    narrowed = replace(found, scalings=scalings)
    return Task(world, split, narrowed, hyperparameters, Recipe(**settings), "default", protocol, seed)


@pytest.fixture(scope="session")
def tiny_task() -> Callable[..., Task]:
    """`make_tiny_task`, for tests in folders below."""
    return make_tiny_task


@pytest.fixture(scope="session")
def small_world() -> Callable[..., ScaledView]:
    """Builds a tiny world of Gaussian classes whose means follow from their embeddings, scaled as methods see it.

    12 seen and 4 unseen classes, five rows each, d = 24, a = 8. Unseen ids lie between seen ones, so that a mistaken index
    shows. Rows of unseen classes come last, and only when asked for.
    """
    import torch
    import torch.nn.functional as F

    from unseen.scaling import ScaledView

    def build(unit_interval: bool = True, unseen_rows: bool = False, dtype: torch.dtype = torch.float32) -> ScaledView:
        generator = torch.Generator().manual_seed(7)
        unseen = torch.tensor([2, 5, 9, 14])
        seen = torch.tensor([i for i in range(16) if i not in unseen.tolist()])
        embeddings = F.normalize(torch.randn(16, 8, generator=generator), dim=1)
        means = 3 * embeddings @ torch.randn(8, 24, generator=generator)
        labels = torch.cat([seen, unseen]).repeat_interleave(5)
        features = means[labels] + 0.3 * torch.randn(len(labels), 24, generator=generator)
        if unit_interval:
            low, high = features[:60].amin(dim=0), features[:60].amax(dim=0)
            features = (features - low) / (high - low)
        if not unseen_rows:
            features, labels = features[:60], labels[:60]
        names = tuple(f"class {i}" for i in range(16))
        return ScaledView(features.to(dtype), labels, embeddings.to(dtype), names, seen, unseen, unit_interval)

    return build


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
