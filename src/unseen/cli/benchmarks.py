"""Commands for many runs: bench, tune, ablate, report; and what there is to compare, methods."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import unseen
from unseen.cli.options import (
    Address,
    AsJson,
    DatasetName,
    EngineName,
    Settings,
    Threads,
    Workers,
    command_line,
    file_name,
    pairs,
)
from unseen.cli.saying import say
from unseen.errors import MissingDependency, RunError, SettingsError, Stopped

if TYPE_CHECKING:
    from unseen.experiments.jobs import Job
    from unseen.experiments.study import Study
    from unseen.experiments.tune import Trial, Tuning

SHOWN_TRIALS = 4
"""Of the best trials of a search, so many are printed."""


def bench(
    grid: Annotated[Path | None, typer.Argument(metavar="[GRID.toml]", help="What to compare, instead of options.")] = None,
    methods: Annotated[
        list[str] | None, typer.Option(help="Names, parted by commas, or all of ours but prompting and transductive ones.")
    ] = None,
    datasets: Annotated[
        list[str] | None, typer.Option(help="A built-in name or a folder; give the option once for each data set.")
    ] = None,
    splits: Annotated[list[str] | None, typer.Option(help="Names, or all; each data set's first if not given.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many, from 0.")] = None,
    protocol: Annotated[list[str] | None, typer.Option(help="blind, fixed, paper.")] = None,
    selection: Annotated[str | None, typer.Option(help="once a split, or each-seed.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Of each run, 1 if not given; results depend on it in the last bits.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for everything; go on there.")] = Path("runs/bench"),
    engine: EngineName = "local",
    workers: Workers = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Run every method on every data set with every seed; go on where an earlier command stopped; one table, one page."""
    from unseen.experiments.grid import Grid, expand, methods_named, read_grid, selection_seed

    typed: dict[str, object] = {"methods": methods, "datasets": datasets, "splits": splits, "seeds": seeds}
    typed |= {"protocol": protocol, "selection": selection, "threads": threads}
    if grid is not None:
        if twice := [f"--{name}" for name, value in typed.items() if value is not None]:
            raise SettingsError(f"{grid} says what to compare; leave out {', '.join(twice)}")
        chosen = read_grid(grid)
    else:
        chosen = Grid(
            methods=methods_named(_listed(methods)),
            datasets=tuple(datasets or ()),
            splits=_listed(splits),
            seeds=tuple(range(1 if seeds is None else seeds)),
            protocols=_listed(protocol) or ("blind",),
            selection_seed=selection_seed(selection or "once"),
            threads=1 if threads is None else threads,
        )
    _bench(expand(chosen, command_line()), out, engine, workers, address, chosen.threads, as_json)


def tune(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="See `unseen methods`.")],
    dataset: DatasetName,
    split: Annotated[str | None, typer.Option(help="The data set's first split if not given.")] = None,
    trials: Annotated[int, typer.Option(help="Settings to try, those of earlier commands in DIR included.")] = 30,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for everything; go on there.")] = None,
    engine: EngineName = "local",
    workers: Workers = None,
    address: Address = None,
    threads: Threads = 1,
    save_preset: Annotated[Path | None, typer.Option(help="Write the best settings to this file, too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search a method's hyper-parameters on folds of the training rows; the best become a preset for `unseen train`."""
    from unseen.data import open_dataset
    from unseen.experiments.tune import best_of, keep_best, open_search, plan, refuse_untunable, trials_of
    from unseen.presets import read_preset, write_preset

    if trials < 1:
        raise SettingsError(f"--trials {trials} tries nothing; give 1 or more")
    refuse_untunable(method)
    data = open_dataset(dataset)
    kept = dict(pairs(settings or []))
    tuning = plan(data, dataset, split, method, seed, kept, threads, command_line())
    out = out or Path("runs") / file_name(f"{data.name}-{tuning.task.split}-{method}-tune-seed{seed}")
    with open_search(tuning, out) as study:
        if study.counted < trials:
            _search(tuning, study, out, trials, engine, workers, address)
        ended = trials_of(tuning, study, out)
        preset = keep_best(tuning, ended, out)
    best = best_of(ended)
    if best is None or preset is None:
        raise RunError(f"none of {len(ended)} trials succeeded; the first: {ended[0].sentence}")
    if save_preset is not None:
        write_preset(save_preset, read_preset(preset))
        preset = save_preset
    words = ["unseen", "train", dataset, "--method", method, "--split", tuning.task.split, "--preset", str(preset)]
    start = next((trial for trial in reversed(ended) if trial.values == tuning.start), None)  # one that was lost came before
    if as_json:
        about = {"method": method, "dataset": data.name, "split": tuning.task.split, "seed": seed, "preset": str(preset)}
        told = {"best": best.record(), "start": start and start.record(), "trials": [trial.record() for trial in ended]}
        print(json.dumps({**about, **told, "command": shlex.join(words)}, ensure_ascii=False))
        return
    _print_trials(ended, best, start, f"{data.name}, split {tuning.task.split}, {method}, seed {seed}")
    print(f"preset: {preset}")
    print(f"to use it: {shlex.join(words)}")


def ablate(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="One that declares ablations.")],
    dataset: DatasetName,
    splits: Annotated[list[str] | None, typer.Option(help="Names, or all; the data set's first if not given.")] = None,
    seeds: Annotated[int, typer.Option(help="How many, from 0.")] = 1,
    protocol: Annotated[str, typer.Option(help="blind or fixed.")] = "blind",
    settings: Settings = None,
    preset: Annotated[str | None, typer.Option(help="A published preset by name (cub), or a preset file.")] = None,
    threads: Threads = 1,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for everything; go on there.")] = Path("runs/ablation"),
    engine: EngineName = "local",
    workers: Workers = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Measure what each part of a method brings: settings are chosen once, for the whole method, and taken by every row."""
    from unseen.experiments.grid import Grid, expand

    grid = Grid(
        methods=(method,),
        datasets=(dataset,),
        splits=_listed(splits),
        seeds=tuple(range(seeds)),
        protocols=(protocol,),
        settings={method: dict(pairs(settings or []))},
        presets={} if preset is None else {method: preset},
        threads=threads,
        ablations=True,
    )
    _bench(expand(grid, command_line()), out, engine, workers, address, threads, as_json)


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `unseen bench` wrote, finished or not.")],
    baseline: Annotated[
        str | None, typer.Option(metavar="METHOD", help="What the others are compared with; class-gaussian if it was run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; DIR/report.html if not given.")] = None,
) -> None:
    """Write the page of a benchmark: leaderboard, figures, ablations, costs, and where every number comes from."""
    from unseen.report.bench_assemble import write_bench_report

    print(f"page: {write_bench_report(folder, command_line(), out, baseline)}")


def methods(as_json: AsJson = False) -> None:
    """List the methods, ours and those of other installed distributions."""
    from unseen.methods import Generative, all_methods
    from unseen.methods.installed import supplied_by

    entries: list[dict[str, Any]] = [
        {
            "name": m.name,
            "title": m.title,
            "kind": ("transductive" if m.transductive else "generative") if isinstance(m, Generative) else "closed form",
            "presets": list(m.presets) if isinstance(m, Generative) else [],
            "presets_from": m.presets_from if isinstance(m, Generative) and m.presets else None,
            "presets_inferred": list(m.inferred) if isinstance(m, Generative) else [],
            "supplied_by": supplied_by(m.name) or {"unseen": unseen.__version__},
        }
        for m in all_methods().values()
    ]
    if as_json:
        print(json.dumps(entries))
        return
    table = Table("name", "title", "kind", "presets, published unless said", "supplied by", box=None)
    for entry in entries:
        supplier = ", ".join(f"{name} {number}" for name, number in entry["supplied_by"].items())
        presets = ", ".join(f"{name} (inferred)" if name in entry["presets_inferred"] else name for name in entry["presets"])
        if entry["presets_from"] not in (None, "published"):
            presets += f": {entry['presets_from']}"
        cells = (entry["name"], entry["title"], entry["kind"], presets, supplier)
        table.add_row(*map(Text, cells))  # a stranger's title is no markup
    Console(width=max(120, Console().width)).print(table)


def _bench(
    jobs: tuple[Job, ...],
    out: Path,
    engine_name: str,
    workers: int | None,
    address: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Work through jobs, telling how it goes, then write and print what is in the folder."""
    from unseen.experiments.bench import open_folder, refuse_other_results, work_through
    from unseen.experiments.engines import engine_named
    from unseen.experiments.jobs import carry_out
    from unseen.experiments.overview import overview
    from unseen.experiments.results import read_rows, write_table

    open_folder(out, command_line())
    refuse_other_results(jobs, out)
    runs = [job for job in jobs if job.kind == "run"]
    to_do = sum(not job.done(out) for job in runs)
    say(f"{len(runs)} runs, of which {len(runs) - to_do} are finished already", "")
    failed = 0
    if to_do:
        begun, ended = time.monotonic(), 0
        engine = engine_named(engine_name, carry_out, out, workers, threads, address)
        try:
            for end in work_through(jobs, out, engine):
                ended += end.job.kind == "run"
                failed += end.job.kind == "run" and end.sentence is not None
                left = f", about {(time.monotonic() - begun) / ended * (to_do - ended) / 60:.0f} min left" if ended else ""
                how = f"failed: {end.sentence}" if end.sentence else "done"
                say(f"{ended} of {to_do}{left}; {end.job}: {how}", "red" if end.sentence else "")
        except KeyboardInterrupt:
            raise Stopped(f"stopped; what is done is kept; to go on, type: {command_line()}") from None
    try:
        write_table(out)
    except MissingDependency as missing:
        say(f"note: {missing}", "yellow")
    if as_json:
        print(json.dumps(read_rows(out), ensure_ascii=False))
    else:
        console = Console(width=max(120, Console().width), markup=False, emoji=False, highlight=False)
        for part in overview(out):
            console.print(part, soft_wrap=isinstance(part, str))
        print(f"results: {out / 'results.csv'}")
    if (page := _write_bench_page(out)) and not as_json:
        print(f"page: {page}")
    if failed:
        raise RunError(f"{failed} of {len(runs)} runs failed; the others are kept, and the same command tries these again")


def _search(
    tuning: Tuning, study: Study, out: Path, trials: int, engine_name: str, workers: int | None, address: str | None
) -> None:
    """Try what is missing, telling how it goes."""
    from unseen.experiments.engines import engine_named, workers_here
    from unseen.experiments.jobs import carry_out
    from unseen.experiments.tune import best_of, carry_on, trials_of

    threads = tuning.task.threads
    begun, before = time.monotonic(), study.counted
    engine = engine_named(engine_name, carry_out, out, workers, threads, address)
    try:
        for number, trial in enumerate(carry_on(tuning, study, out, engine, trials, workers or workers_here(threads)), 1):
            best = best_of(trials_of(tuning, study, out))
            left = (time.monotonic() - begun) / number * (trials - before - number)
            how = f"failed: {trial.sentence}" if trial.objective is None else f"H {100 * trial.objective:.1f} on the folds"
            so_far = f", best so far {100 * best.objective:.1f}" if best and best.objective is not None else ""
            place = f"{before + number} of {trials}, about {left / 60:.0f} min left; trial {trial.number}"
            say(f"{place}: {how}{so_far}", "red" if trial.sentence else "")
    except KeyboardInterrupt:
        raise Stopped(f"stopped; what is done is kept; to go on, type: {command_line()}") from None


def _print_trials(trials: list[Trial], best: Trial, start: Trial | None, caption: str) -> None:
    """The best trials beside the one that the search began with: a column each, as there are many settings."""
    ranked = sorted((trial for trial in trials if trial.objective is not None), key=lambda trial: -(trial.objective or 0.0))
    shown = [("best", best), *((f"{place}.", trial) for place, trial in enumerate(ranked[1:SHOWN_TRIALS], 2))]
    if start is not None:
        shown.append(("start", start))
    table = Table("", *(heading for heading, _ in shown), title=Text(caption), title_justify="left", box=None, pad_edge=False)
    columns = [trial for _, trial in shown]
    table.add_row("trial", *(str(trial.number) for trial in columns))
    table.add_row("H on the folds", *("failed" if t.objective is None else f"{100 * t.objective:.1f}" for t in columns))
    for name in best.values:
        table.add_row(name, *(_short(trial.values[name]) for trial in columns))
    for column in table.columns[1:]:
        column.justify = "right"
    Console(width=max(120, Console().width)).print(table)
    failed = sum(trial.objective is None for trial in trials)
    print(f"{len(trials)} trials, of which {failed} failed" if failed else f"{len(trials)} trials")
    if start is not None and start.objective is not None and best.objective is not None:
        gain = 100 * (best.objective - start.objective)
        print(f"the best is {gain:.1f} points of H above the start, on the folds that chose it; test rows were not looked at")


def _write_bench_page(folder: Path) -> Path | None:
    """The page of a benchmark, without which its tables are tables still."""
    from unseen.report.bench_assemble import write_bench_report

    try:
        return write_bench_report(folder, command_line())
    except MissingDependency as missing:
        say(f"note: {missing}", "yellow")
        return None


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _listed(names: list[str] | None) -> tuple[str, ...]:
    """Names from options that may be repeated or hold several, parted by commas."""
    return tuple(name for text in names or () for name in text.split(",") if name)
