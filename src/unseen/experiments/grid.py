"""What to compare, and the jobs that it comes to."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from unseen.asking import build_task
from unseen.data.opening import BUILT_IN
from unseen.errors import DataError, SettingsError
from unseen.evaluation.protocol import PROTOCOLS, Task, is_transductive, versions
from unseen.experiments.jobs import Job, opened
from unseen.methods import METHODS, ClosedForm, Generative, find_method
from unseen.runs import describe
from unseen.training import training_steps

ALL = "all"


@dataclass(frozen=True)
class Grid:
    """Every method on every split of every data set, with every seed, under every protocol.

    Args:
        methods: by name.
        datasets: built-in names and folders.
        splits: names, of which each data set is taken with those that it has; or `all`; empty takes each one's first. Or, by
            data set (as named in `datasets`), either of these.
        seeds: of the runs.
        protocols: blind, fixed, paper. Closed-form methods have no `paper`, and are left out of it.
        selection_seed: `blind` chooses once a method and split, with this seed, for all seeds; None: anew with each seed, which
            costs as much again with each.
        settings: method → name → value, as `--set` takes them.
        presets: method → the name of a published preset, or a file.
        threads: of torch, for each job: results depend on it in the last bits.
        ablations: also run the rows of each method's ablation table, all or those with these names. They rest on the settings
            that were chosen for the whole method, and train as long.

    Raises SettingsError where something is missing or does not exist.
    """

    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    splits: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    seeds: tuple[int, ...] = (0,)
    protocols: tuple[str, ...] = ("blind",)
    selection_seed: int | None = 0
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    presets: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    ablations: bool | tuple[str, ...] = False

    def __post_init__(self) -> None:
        for name in ("methods", "datasets", "seeds", "protocols"):
            if not getattr(self, name):
                raise SettingsError(f"the grid names no {name}; give at least one")
        for method in (*self.methods, *self.settings, *self.presets):
            find_method(method)
        for protocol in self.protocols:
            if protocol not in PROTOCOLS:
                raise SettingsError(f"there is no protocol '{protocol}'; there are {', '.join(PROTOCOLS)}")
        for name in ("settings", "presets"):
            if idle := getattr(self, name).keys() - set(self.methods):
                raise SettingsError(f"the grid has {name} for {', '.join(sorted(idle))}, which is not among its methods")
        if isinstance(self.splits, Mapping) and (unknown := self.splits.keys() - set(self.datasets)):
            raise SettingsError(f"the grid has splits for {', '.join(sorted(unknown))}, which is not among its data sets")
        if self.ablations:
            if "paper" in self.protocols:
                raise SettingsError(
                    "`paper` would score some rows of an ablation table more often than others; use blind or fixed"
                )
            rows = {row for method in self.methods for row in _ablations_of(method, self.ablations)}
            if isinstance(self.ablations, tuple) and (unknown := set(self.ablations) - rows):
                raise SettingsError(f"no method of the grid has an ablation {', '.join(map(repr, sorted(unknown)))}")
        if self.threads < 1:
            raise SettingsError(f"threads={self.threads} cannot work; give 1 or more")


def methods_named(names: tuple[str, ...]) -> tuple[str, ...]:
    """These, or for `all` every inductive method that comes with unseen and fits any data: what it stands for depends on no
    other package and on no data set. A transductive method trains on test rows, so it is run only when asked for by name."""
    return tuple(name for name, method in METHODS.items() if _fits_any(method)) if names == (ALL,) else names


def _fits_any(method: Generative | ClosedForm) -> bool:
    return not is_transductive(method) and not (isinstance(method, ClosedForm) and method.refuse)


def read_grid(path: Path) -> Grid:
    """A grid from a TOML file whose keys are the fields of `Grid`; `seeds` may be a number, `methods` and `splits` "all".

    Paths in `datasets` and `presets` are relative to the file.

    Raises:
        DataError: the file is missing or no TOML.
        SettingsError: a key or a value cannot be used.
    """
    try:
        entry = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not TOML ({error}); mend it there") from error
    try:
        return _grid_from(entry, path.parent)
    except (TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f"{path} does not describe a grid ({error}); see docs/how-to/run-a-benchmark.md") from error


def _grid_from(entry: dict[str, Any], beside: Path) -> Grid:
    known = Grid.__dataclass_fields__.keys() | {"selection"}
    if unknown := entry.keys() - known:
        raise ValueError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(sorted(known - {'selection_seed'}))}")
    for kind in ("settings", "presets"):
        if not isinstance(entry.get(kind, {}), dict):
            raise TypeError(f"{kind} is no table")
    for method, table in entry.get("settings", {}).items():
        if not isinstance(table, dict):
            raise TypeError(f"settings.{method} is no table")
    if type(entry.get("threads", 1)) is not int:
        raise TypeError("threads is no whole number")

    def resolved(name: str) -> str:
        return name if name in BUILT_IN else str(beside / Path(name).expanduser())

    def preset(method: str, name: object) -> str:
        if not isinstance(name, str):
            raise TypeError(f"presets.{method} is no text")
        published = getattr(find_method(method), "presets", {})
        return name if name in published else str(beside / Path(name).expanduser())

    splits = entry.get("splits", [])
    seeds = entry.get("seeds", 1)
    if type(seeds) is not int and not (isinstance(seeds, list) and all(type(seed) is int for seed in seeds)):
        raise TypeError("seeds is neither a number nor a list of numbers")
    return Grid(
        methods=methods_named(_texts(entry.get("methods", []), "methods")),
        datasets=tuple(resolved(name) for name in _texts(entry.get("datasets", []), "datasets")),
        splits={resolved(k): _texts(v, "splits") for k, v in splits.items()}
        if isinstance(splits, dict)
        else _texts(splits, "splits"),
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
        protocols=_texts(entry.get("protocols", ["blind"]), "protocols"),
        selection_seed=selection_seed(entry.get("selection", "once")),
        settings={m: {k: _as_typed(v) for k, v in table.items()} for m, table in entry.get("settings", {}).items()},
        presets={method: preset(method, name) for method, name in entry.get("presets", {}).items()},
        threads=entry.get("threads", 1),
        ablations=rows if isinstance(rows := entry.get("ablations", False), bool) else _texts(rows, "ablations"),
    )


def selection_seed(selection: str) -> int | None:
    """`once`: chosen with seed 0 for all seeds; `each-seed`: anew with each.

    Raises SettingsError for any other word.
    """
    if selection not in ("once", "each-seed"):
        raise SettingsError(f"there is no selection {selection!r}; there are once, each-seed")
    return 0 if selection == "once" else None


def _texts(value: object, name: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return tuple(value)
    raise TypeError(f"{name} is neither a text nor a list of texts")


def _as_typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def expand(grid: Grid, command: str) -> tuple[Job, ...]:
    """The jobs of a grid, choices before the runs that need them; seed by seed, so that a table is whole early on.

    Raises:
        DataError: a data set cannot be opened.
        SettingsError: a split that no data set has, settings that cannot work, or nothing to run.
    """
    by_seed: dict[int, list[Job]] = {seed: [] for seed in grid.seeds}
    for source, split in splits_of(grid):  # outermost, so that each data set is read once
        for seed in by_seed:
            for protocol in grid.protocols:
                for name in grid.methods:
                    if protocol == "paper" and isinstance(find_method(name), ClosedForm):
                        continue
                    settings = grid.settings.get(name, {})
                    task = build_task(opened(source), split, name, protocol, seed, settings, grid.presets.get(name))
                    task = replace(task, threads=grid.threads)
                    variants = {"": {}, **_ablations_of(name, grid.ablations)}
                    showing = seed == grid.seeds[0]
                    by_seed[seed] += jobs_of(task, source, grid.selection_seed, command, showing=showing, variants=variants)
    jobs: dict[str, Job] = {}
    for job in chain.from_iterable(by_seed.values()):
        jobs.setdefault(job.id, job)
    if not jobs:
        raise SettingsError("closed-form methods have no `paper`, so nothing is left to run; give another protocol or method")
    return tuple(jobs.values())


def _ablations_of(name: str, rows: bool | tuple[str, ...]) -> Mapping[str, Mapping[str, Any]]:
    """The rows of the method's table, all or those with these names."""
    if not rows:
        return {}
    method = find_method(name)
    if isinstance(method, ClosedForm) or not method.ablations:
        raise SettingsError(f"method '{name}' declares no ablations, so there is nothing to take from it; name one that does")
    if isinstance(rows, tuple):
        return {row: changes for row, changes in method.ablations.items() if row in rows}
    return method.ablations


def splits_of(grid: Grid) -> Iterator[tuple[str, str]]:
    """(data set, split) pairs.

    Raises SettingsError where a data set has none of the named splits, or no data set has one of them.
    """
    found: set[str] = set()
    for source in grid.datasets:
        own = opened(source).splits
        wanted = grid.splits.get(source, ()) if isinstance(grid.splits, Mapping) else grid.splits
        if wanted == (ALL,):
            taken: Iterable[str] = own
        elif not wanted:
            taken = [next(iter(own))]
        else:
            taken = [split for split in wanted if split in own]
            if not taken or (isinstance(grid.splits, Mapping) and set(wanted) - own.keys()):
                raise SettingsError(f"data set {source} has no split {', '.join(wanted)}; it has {', '.join(own)}")
        found |= set(taken)
        yield from ((source, split) for split in taken)
    if not isinstance(grid.splits, Mapping) and (absent := set(grid.splits) - found - {ALL}):
        raise SettingsError(f"no data set of the grid has the split {', '.join(sorted(absent))}; check the name")


def jobs_of(
    task: Task,
    source: str,
    selection_seed: int | None,
    command: str,
    *,
    showing: bool,
    variants: Mapping[str, Mapping[str, Any]],
) -> Iterator[Job]:
    """The runs of a task, and before them the choice that they rest on, where there is one for several.

    Args:
        selection_seed: see `Grid`.
        variants: name → changes of what was chosen; the task as it is has the name "" and none.
    """
    about = _about(task, source, command)
    if selection_seed is None and len(variants) > 1:
        selection_seed = task.seed
    needs = None
    if task.protocol == "blind" and task.selection is None and selection_seed is not None:
        chosen = choice_of(replace(task, seed=selection_seed), source, command)
        needs = chosen.id
        yield chosen
    elif len(variants) > 1:
        task = _with_steps(task)
    for variant, changes in variants.items():
        yield Job("run", _description(task), needs, variant, changes, showing and not variant, about)


def choice_of(task: Task, source: str, command: str) -> Job:
    """What `blind` chooses for a task, as a job of its own."""
    return Job("choose", _description(task), about=_about(task, source, command))


def _with_steps(task: Task) -> Task:
    """Its epochs counted in steps: a variant that passes over the data fewer times an epoch would train for less."""
    assert isinstance(task.method, Generative)
    schedule = task.method.schedule(task.hyperparameters)
    steps = training_steps(task.recipe, schedule, task.dataset.training_view(task.split))
    return replace(task, recipe=replace(task.recipe, steps=steps))


def _description(task: Task) -> dict[str, Any]:
    description = describe(task, "", "")
    del description["source"], description["command"]
    return description | {"dataset": task.dataset.name, "versions": versions(task.method.name)}


def _about(task: Task, source: str, command: str) -> dict[str, Any]:
    source = source if source in BUILT_IN else str(Path(source).expanduser().resolve())
    unseen = [task.dataset.classes.names[i] for i in task.dataset.split(task.split).unseen]
    return {"source": source, "command": command, "unseen": unseen}
