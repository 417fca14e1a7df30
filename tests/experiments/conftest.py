"""Jobs that take a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unseen.experiments.grid import Grid
from unseen.experiments.jobs import Job, carry_out, opened
from unseen.storage import read_json, write_json

QUICK = {"tfvaegan": {"hidden": "8", "steps": "12", "latent": "4", "classifier_epochs": "2"}}
MEASURED = ("seconds", "seconds_by_phase", "peak_memory")


@pytest.fixture
def quick_grid(toy_folder: Path) -> Callable[..., Grid]:
    """A grid over the toy data; `tfvaegan`, if it is in it, is narrow and short."""

    def build(*methods: str, **changes: Any) -> Grid:
        settings = {name: QUICK[name] for name in methods if name in QUICK}
        return Grid(methods, (str(toy_folder),), **{"settings": settings, **changes})

    return build


@pytest.fixture
def bench_folder(tmp_path: Path) -> Path:
    """An empty benchmark's folder."""
    write_json(tmp_path / "bench" / "bench.json", {"format": "unseen-bench", "version": 1, "commands": ["unseen bench"]})
    return tmp_path / "bench"


@pytest.fixture
def rows_of() -> Callable[[tuple[Job, ...], Path], dict[str, dict[str, Any]]]:
    """Carries jobs out here, one after the other; gives their rows by id, without what is measured."""

    def carry_all_out(jobs: tuple[Job, ...], out: Path) -> dict[str, dict[str, Any]]:
        for job in jobs:
            carry_out(job, out)
        rows = {job.id: read_json(job.folder(out) / "result.json") for job in jobs if job.kind == "run"}
        return {name: {k: v for k, v in row.items() if k not in MEASURED} for name, row in rows.items()}

    return carry_all_out


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No data set stays open from one test to the next."""
    opened.cache_clear()
    yield
    opened.cache_clear()
