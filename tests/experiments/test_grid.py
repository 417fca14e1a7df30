"""What a grid comes to: which jobs, under which names."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unseen.data.dataset import Dataset
from unseen.data.opening import open_dataset
from unseen.errors import DataError, SettingsError
from unseen.experiments import jobs as jobs_module
from unseen.experiments.grid import Grid, expand, read_grid
from unseen.experiments.jobs import Job, opened
from unseen.methods import METHODS, ClosedForm

QuickGrid = Callable[..., Grid]


def runs(jobs: tuple[Job, ...]) -> list[Job]:
    return [job for job in jobs if job.kind == "run"]


def ids(grid: Grid, command: str = "unseen bench") -> set[str]:
    opened.cache_clear()  # the folder may hold something else now
    return {job.id for job in expand(grid, command)}


def test_every_combination_is_one_run_and_one_choice_serves_all_seeds(quick_grid: QuickGrid) -> None:
    jobs = expand(quick_grid("tfvaegan", "prototype", splits=("all",), seeds=(0, 1, 5)), "unseen bench")
    assert len({job.id for job in jobs}) == len(jobs)
    told = Counter((job.description["method"], job.description["split"], job.description["seed"]) for job in runs(jobs))
    assert told == Counter((m, s, k) for m in ("tfvaegan", "prototype") for s in ("first", "second") for k in (0, 1, 5))
    choices = {job.id: job for job in jobs if job.kind == "choose"}
    assert len(choices) == 4
    for job in runs(jobs):
        assert job.needs is not None
        for key in ("method", "split", "dataset", "hyperparameters"):
            assert choices[job.needs].description[key] == job.description[key]
    for job in jobs:  # a choice comes before the runs that need it
        assert job.needs is None or [j.id for j in jobs].index(job.needs) < jobs.index(job)


def test_a_table_is_whole_seed_by_seed(quick_grid: QuickGrid) -> None:
    seeds = [job.description["seed"] for job in runs(expand(quick_grid("prototype", "eszsl", seeds=(3, 1)), ""))]
    assert seeds == [3, 3, 1, 1]


def test_only_the_first_seed_is_shown_in_detail(quick_grid: QuickGrid) -> None:
    jobs = runs(expand(quick_grid("prototype", seeds=(3, 1)), ""))
    assert [job.showing for job in jobs] == [True, False]


def test_each_seed_may_choose_for_itself(quick_grid: QuickGrid) -> None:
    jobs = expand(quick_grid("prototype", seeds=(0, 1), selection_seed=None), "")
    assert [job.kind for job in jobs] == ["run", "run"]
    assert all(job.needs is None for job in jobs)


def test_closed_forms_have_no_paper_protocol_and_fixed_chooses_nothing(quick_grid: QuickGrid) -> None:
    jobs = expand(quick_grid("tfvaegan", "prototype", protocols=("paper", "fixed"), settings={}), "")
    assert [(job.kind, job.description["method"], job.description["protocol"]) for job in jobs] == [
        ("run", "tfvaegan", "paper"),
        ("run", "tfvaegan", "fixed"),
        ("run", "prototype", "fixed"),
    ]


def test_a_grid_that_comes_to_nothing_is_one_sentence(quick_grid: QuickGrid) -> None:
    with pytest.raises(SettingsError, match="closed-form methods have no `paper`"):
        expand(quick_grid("prototype", "eszsl", protocols=("paper",)), "")


def test_planning_opens_each_data_set_once(
    quick_grid: QuickGrid, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More data sets than stay open at a time: the next seed must not read the first of them again."""
    sources = tuple(str(tmp_path / name) for name in "abcd")
    for source in sources:
        replace(toy, name=Path(source).name).save(Path(source))
    read: list[str] = []
    monkeypatch.setattr(jobs_module, "open_dataset", lambda source: read.append(source) or open_dataset(source))
    jobs = expand(replace(quick_grid("prototype", seeds=(2, 0, 1), splits=("all",)), datasets=sources), "")
    assert read == list(sources)
    order = [(job.description["seed"], job.description["dataset"], job.description["split"]) for job in runs(jobs)]
    assert order == [(seed, name, split) for seed in (2, 0, 1) for name in "abcd" for split in ("first", "second")]


# ---------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": (1,), "selection_seed": 1},
        {"protocols": ("fixed",)},
        {"settings": {"tfvaegan": {"hidden": "9", "steps": "12"}}},
        {"settings": {"tfvaegan": {"hidden": "8", "steps": "13"}}},
        {"presets": {"tfvaegan": "cub"}},
        {"threads": 2},
        {"splits": ("second",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_determines_a_result_is_in_the_name(quick_grid: QuickGrid, change: dict[str, Any]) -> None:
    grid = quick_grid("tfvaegan", settings={"tfvaegan": {"hidden": "8", "steps": "12"}})
    assert ids(grid).isdisjoint(ids(replace(grid, **change)))


def test_another_seed_is_another_run_of_the_same_choice(quick_grid: QuickGrid) -> None:
    one, other = (expand(quick_grid("prototype", seeds=(seed,)), "") for seed in (0, 1))
    assert one[0].id == other[0].id
    assert one[1].id != other[1].id


def changed_features(data: Dataset) -> Dataset:
    features = data.features.copy()
    features[data.splits["first"].train[0], 0] += 1
    return replace(data, features=features)


def changed_embeddings(data: Dataset) -> Dataset:
    return replace(data, classes=replace(data.classes, embeddings=data.classes.embeddings + 1))


def changed_labels(data: Dataset) -> Dataset:
    labels = data.labels.copy()
    first = data.splits["first"]
    row = first.train[0]
    labels[row] = next(c for c in first.seen if c != labels[row])
    return replace(data, labels=labels)


def changed_name(data: Dataset) -> Dataset:
    return replace(data, classes=replace(data.classes, names=("renamed", *data.classes.names[1:])))


def changed_split(data: Dataset) -> Dataset:
    first = data.splits["first"]
    return replace(data, splits={**data.splits, "first": replace(first, train=first.train[1:])})


@pytest.mark.parametrize("change", [changed_features, changed_embeddings, changed_labels, changed_name, changed_split])
def test_other_data_are_other_jobs(tmp_path: Path, toy: Dataset, change: Callable[[Dataset], Dataset]) -> None:
    toy.save(tmp_path / "data")
    grid = Grid(("prototype",), (str(tmp_path / "data"),))
    before = ids(grid)
    change(toy).save(tmp_path / "data")
    assert before.isdisjoint(ids(grid))


def test_neither_the_command_nor_the_place_nor_the_order_is_in_the_name(tmp_path: Path, toy_folder: Path) -> None:
    shutil.copytree(toy_folder, tmp_path / "moved")
    here = Grid(("prototype", "eszsl"), (str(toy_folder),), seeds=(0, 1))
    there = Grid(("eszsl", "prototype"), (str(tmp_path / "moved"),), seeds=(1, 0))
    assert ids(here, "unseen bench --seeds 2") == ids(there, "unseen bench GRID.toml")


def test_other_versions_are_other_jobs(quick_grid: QuickGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    from unseen.experiments import grid as module

    before = ids(quick_grid("prototype"))
    monkeypatch.setattr(module, "versions", lambda method: {"torch": "0"})
    assert before.isdisjoint(ids(quick_grid("prototype")))


# ------------------------------------------------------------------------------------------------------------ ablations


def test_ablation_rows_rest_on_the_choice_for_the_whole_method(quick_grid: QuickGrid) -> None:
    jobs = expand(quick_grid("tfvaegan", seeds=(0, 1), ablations=True), "")
    declared = METHODS["tfvaegan"].ablations  # type: ignore[union-attr]
    assert [job.kind for job in jobs].count("choose") == 1
    assert {job.needs for job in runs(jobs)} == {jobs[0].id}
    assert [job.variant for job in runs(jobs)] == 2 * ["", *declared]
    assert {job.variant: dict(job.changes) for job in runs(jobs)} == {"": {}, **declared}


def test_rows_of_an_ablation_table_can_be_named(quick_grid: QuickGrid) -> None:
    jobs = expand(quick_grid("tfvaegan", ablations=("f-VAEGAN-D2",)), "")
    assert [job.variant for job in runs(jobs)] == ["", "f-VAEGAN-D2"]


def test_ablation_rows_train_as_long_as_the_whole_method(quick_grid: QuickGrid) -> None:
    """An epoch of TF-VAEGAN is two passes; of its row without feedback, one."""
    jobs = expand(quick_grid("tfvaegan", settings={"tfvaegan": {"epochs": "3"}}, protocols=("fixed",), ablations=True), "")
    rows = -(-len(opened(jobs[0].about["source"]).split("first").train) // 64)
    assert {job.description["recipe"]["steps"] for job in jobs} == {3 * 2 * rows}


# ---------------------------------------------------------------------------------------------------------------- files


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_says_the_same_as_options(tmp_path: Path, toy_folder: Path) -> None:
    shutil.copytree(toy_folder, tmp_path / "toy")
    path = write(
        tmp_path / "grid.toml",
        """
        methods = ["tfvaegan", "eszsl"]
        datasets = ["toy", "emoji"]
        seeds = 2
        protocols = ["blind", "fixed"]
        selection = "each-seed"
        threads = 3
        [splits]
        toy = "all"
        emoji = ["full1", "full0"]
        [settings.tfvaegan]
        hidden = 128
        transform = true
        lr = 1e-4
        [presets]
        tfvaegan = "cub"
        """,
    )
    toy = str(tmp_path / "toy")
    assert read_grid(path) == Grid(
        methods=("tfvaegan", "eszsl"),
        datasets=(toy, "emoji"),
        splits={toy: ("all",), "emoji": ("full1", "full0")},
        seeds=(0, 1),
        protocols=("blind", "fixed"),
        selection_seed=None,
        settings={"tfvaegan": {"hidden": "128", "transform": "true", "lr": "0.0001"}},
        presets={"tfvaegan": "cub"},
        threads=3,
    )
    assert read_grid(write(path, 'methods = "all"\ndatasets = "toy"\nseeds = [4, 2]')) == Grid(
        tuple(name for name in METHODS if name not in ("prompting", "tfvaegan-transductive")), (toy,), seeds=(4, 2)
    )  # prompting does not fit any data, and the other is asked for by name


def test_a_presets_file_stands_beside_the_grids(tmp_path: Path) -> None:
    """As a data set does; the name of a published preset stays a name, even where a file is called the same."""
    (tmp_path / "cub").touch()
    text = "methods = ['tfvaegan', 'fvaegan']\ndatasets = 'emoji'\n[presets]\ntfvaegan = 'tuned/preset.json'\nfvaegan = 'cub'"
    assert read_grid(write(tmp_path / "grid.toml", text)).presets == {
        "tfvaegan": str(tmp_path / "tuned" / "preset.json"),
        "fvaegan": "cub",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("methods = [", "is not TOML"),
        ("datasets = ['emoji']", "names no methods"),
        ("methods = 'all'", "names no datasets"),
        ("methods = 'alchemy'\ndatasets = 'emoji'", "there is no method 'alchemy'"),
        ("methods = 3\ndatasets = 'emoji'", "methods is neither a text nor a list of texts"),
        ("methods = 'all'\ndatasets = 'emoji'\nseeds = 'two'", "seeds is neither a number nor a list"),
        ("methods = 'all'\ndatasets = 'emoji'\nseeds = true", "seeds is neither a number nor a list"),
        ("methods = 'all'\ndatasets = 'emoji'\nseeds = 0", "names no seeds"),
        ("methods = 'all'\ndatasets = 'emoji'\nprotocols = ['best']", "there is no protocol 'best'"),
        ("methods = 'all'\ndatasets = 'emoji'\nselection = 'often'", "there is no selection 'often'"),
        ("methods = 'all'\ndatasets = 'emoji'\nseed = 3", "there is no seed"),
        ("methods = 'all'\ndatasets = 'emoji'\nsettings = 3", "settings is no table"),
        ("methods = 'eszsl'\ndatasets = 'emoji'\n[settings.tfvaegan]\nlr = 1", "settings for tfvaegan"),
        ("methods = 'eszsl'\ndatasets = 'emoji'\n[splits]\ntoy = 'all'", "splits for"),
        ("methods = 'eszsl'\ndatasets = 'emoji'\nthreads = 0", "threads=0 cannot work"),
        ("methods = 'eszsl'\ndatasets = 'emoji'\nthreads = 1.5", "threads is no whole number"),
        ("methods = 'tfvaegan'\ndatasets = 'emoji'\nablations = 1", "ablations is neither a text nor a list of texts"),
        (
            "methods = 'tfvaegan'\ndatasets = 'emoji'\nablations = ['wings']",
            "no method of the grid has an ablation 'wings'",
        ),
        ("methods = 'tfvaegan'\ndatasets = 'emoji'\nsettings = {tfvaegan = 3}", "settings.tfvaegan is no table"),
        ("methods = 'tfvaegan'\ndatasets = 'emoji'\nseeds = 1.5", "seeds is neither a number nor a list"),
        ("methods = 'tfvaegan'\ndatasets = 'emoji'\n[presets]\ntfvaegan = 3", "presets.tfvaegan is no text"),
        ("methods = 'eszsl'\ndatasets = 'emoji'\nablations = true", "declares no ablations"),
        ("methods = 'tfvaegan'\ndatasets = 'emoji'\nablations = true\nprotocols = 'paper'", "use blind or fixed"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises((DataError, SettingsError), match=words) as refusal:
        read_grid(write(tmp_path / "grid.toml", text))
    assert len(str(refusal.value).splitlines()) == 1


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="check the path"):
        read_grid(tmp_path / "none.toml")


# --------------------------------------------------------------------------------------------------------------- splits


def test_each_data_set_takes_part_with_the_splits_that_it_has(quick_grid: QuickGrid) -> None:
    both = quick_grid("prototype", splits=("first", "demo"))
    both = replace(both, datasets=(*both.datasets, "emoji"))
    found = {(job.description["dataset"], job.description["split"]) for job in expand(both, "")}
    assert found == {("toy", "first"), ("emoji", "demo")}


@pytest.mark.parametrize("splits", [("third",), ("first", "third"), "by data set"])
def test_a_split_that_is_not_there_is_one_sentence(quick_grid: QuickGrid, toy_folder: Path, splits: Any) -> None:
    if splits == "by data set":
        splits = {str(toy_folder): ("first", "third")}
    with pytest.raises(SettingsError, match="third"):
        expand(quick_grid("prototype", splits=splits), "")


def test_all_methods_can_be_planned_on_one_data_set(quick_grid: QuickGrid) -> None:
    jobs = expand(quick_grid(*METHODS), "")
    assert {job.description["method"] for job in jobs} == set(METHODS)
    assert any(isinstance(METHODS[job.description["method"]], ClosedForm) for job in jobs)
