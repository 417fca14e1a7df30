"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# The tests' matrices are so small that a second thread costs more than it brings, on a busy machine many times more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from unseen.scaling import ScaledView


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
