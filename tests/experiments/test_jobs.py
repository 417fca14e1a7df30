"""One job, carried out: what it writes, and that it is done once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unseen.asking import build_task
from unseen.data.dataset import Dataset
from unseen.evaluation.metrics import harmonic_mean
from unseen.evaluation.protocol import run
from unseen.experiments import jobs as module
from unseen.experiments.grid import Grid, expand
from unseen.experiments.jobs import FAILURE, Job, carry_out, failure, opened
from unseen.presets import read_preset
from unseen.storage import read_json

QuickGrid = Callable[..., Grid]
RowsOf = Callable[[tuple[Job, ...], Path], dict[str, dict[str, Any]]]
MEASURED = {"seconds", "seconds_by_phase", "peak_memory"}


def result(job: Job, out: Path) -> dict[str, Any]:
    return read_json(job.folder(out) / "result.json")


@pytest.mark.parametrize("method", ["tfvaegan", "class-gaussian"])
def test_a_choice_and_its_run_come_to_what_one_blind_run_does(
    quick_grid: QuickGrid, bench_folder: Path, rows_of: RowsOf, method: str
) -> None:
    grid = quick_grid(method)
    jobs = expand(grid, "unseen bench")
    [row] = rows_of(jobs, bench_folder).values()
    task = build_task(opened(grid.datasets[0]), None, method, "blind", 0, grid.settings.get(method, {}), None)
    alone = json.loads(json.dumps(run(replace(task, threads=1)).row))
    drawn = {"diagnostic_evaluations"}  # a benchmark also scores what its page draws
    assert {k: row[k] for k in alone.keys() - MEASURED - drawn} == {k: alone[k] for k in alone.keys() - MEASURED - drawn}
    assert row.keys() - alone.keys() == {"task", "variant", "diagnosis", "consistency"}
    assert (row["task"], row["variant"]) == (jobs[-1].id, "")


def test_what_choosing_cost_is_part_of_what_the_run_cost(quick_grid: QuickGrid, bench_folder: Path, rows_of: RowsOf) -> None:
    jobs = expand(quick_grid("prototype"), "")
    rows_of(jobs, bench_folder)
    cost = read_json(jobs[0].folder(bench_folder) / "cost.json")
    row = result(jobs[1], bench_folder)
    assert row["seconds_by_phase"].keys() == {"selection", "training", "scoring"}
    assert row["seconds_by_phase"]["selection"] == cost["seconds"]["selection"] > 0
    assert row["seconds"] == pytest.approx(sum(row["seconds_by_phase"].values()))
    assert row["peak_memory"] >= cost["peak_memory"] > 10_000_000


def test_a_choice_is_a_preset_that_train_takes(quick_grid: QuickGrid, bench_folder: Path, rows_of: RowsOf) -> None:
    grid = quick_grid("tfvaegan")
    choice, job = expand(grid, "unseen bench x")
    rows_of((choice, job), bench_folder)
    path = choice.folder(bench_folder) / "preset.json"
    assert read_preset(path).command == "unseen bench x"
    task = build_task(opened(grid.datasets[0]), None, "tfvaegan", "blind", 0, {}, str(path))
    assert task.selection is not None
    row = json.loads(json.dumps(run(replace(task, threads=1)).row))
    assert {k: row[k] for k in ("H", "AUSUC", "selection")} == {
        k: result(job, bench_folder)[k] for k in ("H", "AUSUC", "selection")
    }
    assert not (choice.folder(bench_folder) / "selection").exists()


def test_seeds_share_what_was_chosen(quick_grid: QuickGrid, bench_folder: Path, rows_of: RowsOf) -> None:
    one, other = rows_of(expand(quick_grid("tfvaegan", seeds=(0, 1)), ""), bench_folder).values()
    assert one["selection"] == other["selection"]
    assert one["recipe"] == other["recipe"]
    assert one["AUSUC"] != other["AUSUC"]


def test_an_ablation_row_differs_from_the_whole_by_what_it_declares(
    quick_grid: QuickGrid, bench_folder: Path, rows_of: RowsOf
) -> None:
    jobs = expand(quick_grid("tfvaegan", ablations=True), "")
    rows = rows_of(jobs, bench_folder)
    whole = next(row for row in rows.values() if not row["variant"])
    for job in jobs[2:]:
        row = rows[job.id]
        assert row["hyperparameters"] == whole["hyperparameters"] | dict(job.changes)
        for key in ("recipe", "selection", "steps", "hidden_width"):
            assert row[key] == whole[key]
        assert row["variant"] == job.variant
        assert row["AUSUC"] != whole["AUSUC"]


# -------------------------------------------------------------------------------------------------------------- details


def test_what_is_kept_for_the_report_agrees_with_the_row(quick_grid: QuickGrid, bench_folder: Path, rows_of: RowsOf) -> None:
    jobs = expand(quick_grid("tfvaegan", seeds=(0, 1)), "")
    rows_of(jobs, bench_folder)
    _, job, plain = jobs
    row, figures = result(job, bench_folder), read_json(job.folder(bench_folder) / "figures.json")
    unseen = [entry for entry in figures["per_class"] if entry[1]]
    assert np.mean([accuracy for *_, accuracy in unseen]) == pytest.approx(row["U"])
    assert np.mean([a for _, is_unseen, _, a in figures["per_class"] if not is_unseen]) == pytest.approx(row["S"])
    names = figures["confusion"]["names"]
    counts = np.zeros((3, 4), int)
    for true, answer, count in figures["confusion"]["cells"]:
        counts[true, answer] = count
    assert names == ["class i", "class j", "class k"]
    assert {n: counts[i, i] / counts[i].sum() for i, n in enumerate(names)} == pytest.approx({e[0]: e[3] for e in unseen})
    curve = figures["curve"]
    area = np.trapezoid(curve["unseen"], curve["seen"])
    assert abs(area) == pytest.approx(row["AUSUC"], abs=1e-4)  # 33 test rows: no point was left out
    assert len(figures["projection"]["xy"]) == len(figures["projection"]["labels"]) == 36 + 90
    own = [p for p in figures["synthetic_counts"] if p["per_class"] == 25]  # the quarter hundred of a small class
    assert len(figures["synthetic_counts"]) + 1 == row["diagnostic_evaluations"] > 2
    assert 0 <= row["diagnosis"]["nearest_own"] <= 1
    assert all(p["H"] == pytest.approx(harmonic_mean(p["S"], p["U"])) for p in figures["synthetic_counts"])
    chosen = row["recipe"]["synthetic_ratio"]
    if chosen == 1:
        assert own == [{"per_class": 25, **{k: row[k] for k in ("T1", "U", "S", "H")}}]
    assert (job.folder(bench_folder) / "oracle.json").exists()
    not_shown = read_json(plain.folder(bench_folder) / "figures.json")
    assert not_shown["projection"] is not_shown["synthetic_counts"] is None
    assert result(plain, bench_folder)["diagnostic_evaluations"] == 1, "how its synthetic rows lie to real ones"


def test_where_no_oracle_can_be_made_the_run_is_a_result_still(
    quick_grid: QuickGrid, toy: Dataset, bench_folder: Path, tmp_path: Path
) -> None:
    """An oracle learns from one test row of an unseen class and is scored on another; with one row a class there is none."""
    first = toy.splits["first"]
    of_class = toy.labels[first.test_unseen]
    few = np.array([first.test_unseen[np.flatnonzero(of_class == k)[0]] for k in first.unseen])
    replace(toy, splits={"first": replace(first, test_unseen=few)}).save(tmp_path / "few")
    [job] = expand(replace(quick_grid("tfvaegan", protocols=("fixed",)), datasets=(str(tmp_path / "few"),)), "")
    carry_out(job, bench_folder)
    assert failure(job, bench_folder) is None
    assert result(job, bench_folder)["test_evaluations"] == 1
    assert not (job.folder(bench_folder) / "oracle.json").exists()


def test_a_long_curve_is_thinned_and_keeps_its_ends(tiny_world: Callable[..., Dataset], tiny_task: Any) -> None:
    from unseen.experiments.details import CURVE_POINTS, details

    outcome = run(tiny_task(tiny_world(rows=60, noise=1.5), method="prototype"))
    assert len(outcome.curve.seen) > 2 * CURVE_POINTS
    curve = details(outcome, True)["curve"]
    assert len(curve["seen"]) == len(curve["unseen"]) == CURVE_POINTS
    for kind in ("seen", "unseen"):
        whole = getattr(outcome.curve, kind)
        assert (curve[kind][0], curve[kind][-1]) == pytest.approx((whole[0], whole[-1]), abs=1e-5)
    assert abs(np.trapezoid(curve["unseen"], curve["seen"])) == pytest.approx(outcome.curve.area, abs=0.01)


# ----------------------------------------------------------------------------------------------------------------- once


def test_what_is_done_is_not_done_again(
    quick_grid: QuickGrid, bench_folder: Path, rows_of: RowsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = expand(quick_grid("prototype"), "")
    assert not any(job.done(bench_folder) for job in jobs)
    rows_of(jobs, bench_folder)
    assert all(job.done(bench_folder) for job in jobs)
    monkeypatch.setattr(module, "_one_try", lambda *_: pytest.fail("begun again"))
    rows_of(jobs, bench_folder)


@pytest.mark.parametrize("kind", ["choose", "run"])
def test_what_another_process_works_on_is_left_alone(quick_grid: QuickGrid, bench_folder: Path, kind: str) -> None:
    jobs = expand(quick_grid("prototype"), "")
    job = next(job for job in jobs if job.kind == kind)
    if job.needs:
        assert carry_out(jobs[0], bench_folder)
    job.folder(bench_folder).mkdir(parents=True)
    with module.locked(job.folder(bench_folder)):
        assert not carry_out(job, bench_folder)
        assert not job.done(bench_folder)
        assert failure(job, bench_folder) is None
    assert carry_out(job, bench_folder)
    assert job.done(bench_folder)


# -------------------------------------------------------------------------------------------------------------- failure


def test_changed_data_are_a_failure_with_one_sentence(tmp_path: Path, toy: Dataset, bench_folder: Path) -> None:
    toy.save(tmp_path / "data")
    [job] = expand(Grid(("prototype",), (str(tmp_path / "data"),), protocols=("fixed",)), "")
    replace(toy, features=toy.features + 1).save(tmp_path / "data")
    opened.cache_clear()
    carry_out(job, bench_folder)
    assert "has changed since this benchmark was begun" in str(failure(job, bench_folder))
    entry = read_json(job.folder(bench_folder) / FAILURE)
    assert {
        "dataset": "toy",
        "split": "first",
        "method": "prototype",
        "protocol": "fixed",
        "seed": 0,
        "variant": "",
    }.items() <= (entry.items())
    toy.save(tmp_path / "data")
    opened.cache_clear()
    carry_out(job, bench_folder)
    assert job.done(bench_folder)
    assert failure(job, bench_folder) is None
    assert not (job.folder(bench_folder) / FAILURE).exists()


def test_other_versions_on_the_machine_that_works_are_a_failure(
    quick_grid: QuickGrid, bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = expand(quick_grid("prototype", protocols=("fixed",)), "")
    monkeypatch.setattr(module, "versions", lambda method: {"torch": "0"})
    carry_out(job, bench_folder)
    assert "install the same on all machines" in str(failure(job, bench_folder))


def test_a_job_planned_for_a_gpu_is_not_done_without_one(
    quick_grid: QuickGrid, bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name says what it was computed on."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    [job] = expand(quick_grid("prototype", protocols=("fixed",)), "")
    planned = replace(job, description={**job.description, "device": "cuda"})
    assert planned.id != job.id
    assert carry_out(planned, bench_folder)
    assert "planned on a machine with a GPU, and this one has none" in str(failure(planned, bench_folder))


def test_a_divergence_is_a_failure_and_a_bug_is_told_from_it(
    quick_grid: QuickGrid, bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"tfvaegan": {"hidden": "8", "steps": "30", "lr": "1e30", "scaling": "l2"}}
    [job] = expand(quick_grid("tfvaegan", protocols=("fixed",), settings=settings), "")
    carry_out(job, bench_folder)
    assert "lower the learning rate" in str(failure(job, bench_folder))

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(module, "run_in_folder", broken)
    carry_out(job, bench_folder)
    entry = read_json(job.folder(bench_folder) / FAILURE)
    assert "ZeroDivisionError: oh" in entry["sentence"]
    assert "in broken" in entry["traceback"]


def test_a_folder_that_the_worker_cannot_see_is_refused(quick_grid: QuickGrid, tmp_path: Path) -> None:
    [job] = expand(quick_grid("prototype", protocols=("fixed",)), "")
    with pytest.raises(module.RunError, match="choose a folder that all machines share"):
        carry_out(job, tmp_path / "elsewhere")


def test_a_method_that_shows_its_parts_is_asked_how_consistent_they_are(
    quick_grid: QuickGrid, bench_folder: Path, rows_of: RowsOf
) -> None:
    narrow = {"sddn": {"hidden": "16", "half": "8", "refiner": "16", "steps": "4"}}
    [row] = rows_of(expand(quick_grid("sddn", settings=narrow, protocols=("fixed",)), ""), bench_folder).values()
    assert row["consistency"]["attribute_cosine"].keys() == {"x", "x_hat", "h_s", "h_n", "u"}
    assert all(-1 <= value <= 1 for value in row["consistency"]["attribute_cosine"].values())
    assert 0 <= row["consistency"]["halves_told_apart"] <= 1
