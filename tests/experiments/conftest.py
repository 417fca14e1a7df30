"""Jobs that take a second, and result rows that take none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unseen.experiments.grid import Grid
from unseen.experiments.jobs import Job, carry_out, opened
from unseen.experiments.results import read_oracles, read_rows
from unseen.storage import hash_of, read_json, write_json

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


# --- rows that nobody computed

Row = dict[str, Any]


def make_row(
    method: str = "tfvaegan",
    split: str = "main",
    seed: int = 0,
    H: float | None = 0.5,
    *,
    dataset: str = "birds",
    **fields: Any,
) -> Row:
    """A row with this H; U and S are as large, T1 is a little larger. Hashes follow from the names."""
    row: Row = {
        "method": method,
        "variant": "",
        "dataset": dataset,
        "split": split,
        "seed": seed,
        "protocol": "blind",
        "T1": None if H is None else min(1.0, H + 0.1),
        "U": H,
        "S": H,
        "H": H,
        "AUSUC": H,
        "H_without_gamma": H,
        "H_interval": None if H is None else [H - 0.01, H + 0.01],
        "gamma": 1.5,
        "leak_seen_to_unseen": 0.125,
        "leak_unseen_to_seen": 0.25,
        "test_pictures": 100,
        "hidden_width": None,
        "steps": 10,
        "seconds": 2.0,
        "seconds_by_phase": {"selection": 0.5, "training": 1.5},
        "peak_memory": 2**30,
        "threads": 1,
        "hyperparameters": {"lr": 0.001, "hidden": 512, "presets": ["a", "b"]},
        "recipe": {"scaling": "l2", "centred": True, "gamma": 1.5},
        "settings_from": "folds",
        "selection": None,
        "test_used_for_selection": False,
        "test_evaluations": 1,
        "split_hash": hash_of([dataset, split]),
        "features_hash": hash_of([dataset, "features"]),
        "embeddings_hash": hash_of([dataset, "embeddings"]),
        "labels_hash": hash_of([dataset, split, "labels"]),
        "feature_extractor": "a camera",
        "embedding_source": "a poet",
        "versions": {"torch": "2.13.0", "scikit-learn": "1.9.1"},
    }
    row |= fields
    return row | {"task": fields.get("task", hash_of(row)[:24])}


@pytest.fixture(scope="session")
def row() -> Callable[..., Row]:
    """`make_row`, for the tests."""
    return make_row


@pytest.fixture(scope="session")
def real_rows() -> list[Row]:
    """Rows that were measured, with oracles among them."""
    folder = Path(__file__).parents[2] / "benchmarks" / "results" / "comparison"
    oracles = [{**row, "task": f"{row['task']}-oracle"} for row in read_oracles(folder)]
    return [row for row in (*read_rows(folder), *oracles) if row["dataset"] == "grocery"]


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows into a benchmark's folder, each as a task's result; with `unseen`, split → names, its task.json too."""

    def write(rows: list[Row], unseen: dict[str, list[str]] | None = None) -> Path:
        for row in rows:
            folder = tmp_path / "bench" / "tasks" / row["task"]
            folder.mkdir(parents=True)
            (folder / "result.json").write_text(json.dumps(row))
            if unseen is not None:
                asked = {"format": "unseen-run", "split": row["split"], "unseen": unseen[row["split"]]}
                (folder / "task.json").write_text(json.dumps(asked))
        (tmp_path / "bench" / "tasks").mkdir(parents=True, exist_ok=True)
        return tmp_path / "bench"

    return write
