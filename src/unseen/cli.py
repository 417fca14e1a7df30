"""The command line: parse, call, print.

Exit codes: 0 done, 1 something is wrong with the data or the disk (one sentence says what), 2 the command or a setting was
typed wrongly, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

import unseen
from unseen.errors import DataError, MissingDependency, RunError, SettingsError, Stopped, UnseenError

LINE_SECONDS = 30.0
"""Where standard error is a file, a line of progress is written this often."""

SHOWN_TRIALS = 4
"""Of the best trials of a search, so many are printed."""

SHOWN_PROBLEMS = 10
"""Of the pictures that were left out, so many are named on the screen."""

if TYPE_CHECKING:
    from unseen.data import Dataset
    from unseen.evaluation.protocol import Watch
    from unseen.experiments.jobs import Job
    from unseen.experiments.study import Study
    from unseen.experiments.tune import Trial, Tuning
    from unseen.extraction import Speed
    from unseen.training import Progress

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=unseen.__doc__)
data_app = typer.Typer(no_args_is_help=True, help="Look at data sets.")
app.add_typer(data_app, name="data")
messages = Console(stderr=True)

DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="A built-in name (emoji), a folder or a file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting.")]
Threads = Annotated[int, typer.Option(help="Of each run; results depend on it in the last bits.")]
EngineName = Annotated[str, typer.Option(help="local or ray.")]
Workers = Annotated[int | None, typer.Option(help="Runs at a time; as many as there are cores if not given.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster that runs already.")]


def main() -> None:
    """Entry point: run the command and turn our errors into one sentence and an exit code."""
    warnings.showwarning = _show_warning
    terminate = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, wherever it comes
    try:
        app(standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:  # wrongly typed
        if sentence := error.format_message():
            _say(f"error: {sentence}", "bold red")
        sys.exit(2)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except (KeyboardInterrupt, typer.Abort, Stopped) as stop:
        _say(str(stop) or "stopped", "bold")
        sys.exit(130)
    except UnseenError as error:
        _say(f"error: {error}", "bold red")
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, terminate)


@app.command()
def train(
    dataset: DatasetName,
    method: Annotated[str, typer.Option(help="See `unseen methods`.")] = "tfvaegan",
    protocol: Annotated[str, typer.Option(help="blind, fixed or paper.")] = "blind",
    split: Annotated[str | None, typer.Option(help="The data set's first split if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    settings: Settings = None,
    preset: Annotated[str | None, typer.Option(help="A published preset by name (cub), or a preset file.")] = None,
    save_preset: Annotated[Path | None, typer.Option(help="Write what `blind` chose to this file.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="Folder for result, weights and page.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in RUN.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a method on a split, score it on the test rows, and keep the run."""
    from unseen.asking import build_task
    from unseen.data import open_dataset
    from unseen.data.opening import BUILT_IN
    from unseen.presets import preset_of, write_preset
    from unseen.runs import describe, oracle_row, run_in_folder

    if save_preset is not None and protocol != "blind":
        raise SettingsError("--save-preset keeps what `blind` chose, so it needs --protocol blind")
    data = open_dataset(dataset)
    task = build_task(data, split, method, protocol, seed, dict(_pairs(settings or [])), preset)
    folder = out or Path("runs") / _file_name(f"{data.name}-{task.split}-{method}-{protocol}-seed{seed}")
    command = _command()
    source = dataset if dataset in BUILT_IN else str(Path(dataset).expanduser().resolve())
    with _saying_how_to_go_on(folder):
        with _watching() as watch:
            outcome = run_in_folder(task, folder, describe(task, source, command), resume, watch)
        if save_preset is not None:
            write_preset(save_preset, preset_of(outcome.task, command))
        rows, page = [outcome.row], folder / "report.html"
        if outcome.trained is not None:
            try:
                rows.append(oracle_row(folder, outcome))
            except DataError as error:
                _say(f"note: {error}", "yellow")
        if not page.exists():
            _write_page(page, data, [outcome], rows, command)
    if as_json:
        print(json.dumps(outcome.row, ensure_ascii=False))
    else:
        _print_table(rows, f"{data.name}, split {task.split}, protocol {task.protocol}, seed {seed}")
        print(f"run: {folder}")
        if page.exists():
            print(f"page: {page}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `unseen train` wrote.")],
    dataset: Annotated[str | None, typer.Option("--data", metavar="DATASET", help="If it has moved since.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a finished run again from its weights; the data are found by path and checked by fingerprint."""
    from unseen.runs import evaluate as evaluate_run

    data = _data_of(run, dataset)
    outcome = evaluate_run(run, data)
    if as_json:
        print(json.dumps(outcome.row, ensure_ascii=False))
    else:
        _print_table([outcome.row], f"{run}, scored again")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the page goes.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Recognise emoji that nobody has shown a picture of: three methods on the embedded data, one table, one page."""
    from unseen.asking import build_task
    from unseen.data import open_dataset
    from unseen.evaluation.metrics import interval_of_difference
    from unseen.evaluation.protocol import run

    data = open_dataset("emoji")
    outcomes = []
    for method in ("eszsl", "class-gaussian", "tfvaegan"):
        with _watching(method) as watch, _one_thread():
            outcomes.append(run(build_task(data, "demo", method, "blind", seed, {}, None), watch))
    rows = [outcome.row for outcome in outcomes]
    _, yardstick, generative = outcomes
    low, high = interval_of_difference(
        generative.test.seen_labels,
        [o.decisions[0].predict(o.gamma) == o.test.seen_labels for o in (generative, yardstick)],
        generative.test.unseen_labels,
        [o.decisions[1].predict(o.gamma) == o.test.unseen_labels for o in (generative, yardstick)],
    )
    generative.row["against_class_gaussian"] = {
        "H_difference": generative.row["H"] - yardstick.row["H"],
        "interval": (low, high),
    }
    sentence = verdict(generative.row)
    page = _write_page(out / "report.html", data, outcomes, rows, _command(), sentence)
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    _print_table(rows, f"{data.name}, split demo: {rows[0]['unseen_classes']} unseen classes, protocol blind, seed {seed}")
    print(sentence)
    if page is not None:
        print(f"page: {page}")


@app.command()
def bench(
    grid: Annotated[Path | None, typer.Argument(metavar="[GRID.toml]", help="What to compare, instead of options.")] = None,
    methods: Annotated[list[str] | None, typer.Option(help="Names, parted by commas, or all of ours.")] = None,
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
    _bench(expand(chosen, _command()), out, engine, workers, address, chosen.threads, as_json)


@app.command()
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
    kept = dict(_pairs(settings or []))
    tuning = plan(data, dataset, split, method, seed, kept, threads, _command())
    out = out or Path("runs") / _file_name(f"{data.name}-{tuning.task.split}-{method}-tune-seed{seed}")
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


@app.command()
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
        settings={method: dict(_pairs(settings or []))},
        presets={} if preset is None else {method: preset},
        threads=threads,
        ablations=True,
    )
    _bench(expand(grid, _command()), out, engine, workers, address, threads, as_json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `unseen bench` wrote, finished or not.")],
    baseline: Annotated[
        str | None, typer.Option(metavar="METHOD", help="What the others are compared with; class-gaussian if it was run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; DIR/report.html if not given.")] = None,
) -> None:
    """Write the page of a benchmark: leaderboard, figures, ablations, costs, and where every number comes from."""
    from unseen.report.bench_assemble import write_bench_report

    print(f"page: {write_bench_report(folder, _command(), out, baseline)}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="A folder that `unseen train` or `save` wrote.")],
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="Where the graph goes.")],
    pictures: Annotated[bool, typer.Option("--pictures", help="Put the picture backbone in front.")] = False,
    risk: Annotated[
        float | None, typer.Option(help="Share of wrong answers to keep to by not answering; of a run that chose on folds.")
    ] = None,
    dataset: Annotated[str | None, typer.Option("--data", metavar="DATASET", help="If it has moved since.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained classifier as an ONNX graph, compared with torch before it is kept."""
    from dataclasses import asdict

    from unseen.encoders.images import ImageEncoder
    from unseen.export import NORM, export_onnx, unscaled
    from unseen.runs import open_run

    calibration = None
    if (run / "model.json").exists():
        import torch

        from unseen.saved import read_model

        if pictures or dataset is not None:
            raise SettingsError("a model does not say what its features are of; leave out --data and --pictures")
        state, _, _ = read_model(run, torch.device("cpu"))
        fitted, method = state.fitted, state.learned.method
        rows = unscaled(fitted.scaler.features, state.learned.rows)
    else:
        data = _data_of(run, dataset)
        if pictures and not data.provenance.feature_extractor.startswith(ImageEncoder.description):
            raise SettingsError(
                f"the features of data set '{data.name}' do not say that they come from {ImageEncoder.name} of this version, "
                "so it is not put in front of them; leave out --pictures"
            )
        opened = open_run(run, data)
        fitted, method, calibration = opened.fitted, opened.task.method.name, opened.calibration
        rows = data.training_view(opened.task.split).features
    parity = export_onnx(
        fitted,
        onnx,
        ImageEncoder() if pictures else None,
        rows=rows,
        method=method,
        calibration=calibration,
        risk=risk,
    )
    if calibration is None and fitted.temperature == 1:
        _say(f"note: nothing was chosen on folds in {run}, so its probabilities are not calibrated", "yellow")
    if as_json:
        print(json.dumps({"onnx": str(onnx), **asdict(parity), "norm": NORM}, ensure_ascii=False))
        return
    shown = f"{parity.rows} rows" + (f" and {parity.pictures} pictures" if parity.pictures else "")
    print(f"compared with torch on {shown}: scores {parity.scores:.1e}, probabilities {parity.probabilities:.1e}")
    print(f"graph: {onnx}")


@app.command(context_settings={"allow_interspersed_args": True})
def features(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="PICTURES | merge PART...",
            help="A folder with one sub-folder per class, or a .csv or .parquet of path and label; or shards to merge.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FEATURES", help="Folder for the features; go on there.")],
    encoder: Annotated[
        str, typer.Option(help="efficientnet-lite0, timm:NAME, open_clip:NAME or open_clip:NAME:TAG.")
    ] = "efficientnet-lite0",
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="A .safetensors file instead of the hub's.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Batches at a time; no result depends on it.")] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Only this one of N pieces, counted from 0.")] = None,
    engine: EngineName = "local",
    workers: Annotated[int | None, typer.Option(help="Of a Ray cluster that is started here.")] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Turn pictures into features; the same command goes on after a stop. `merge` puts shards together."""
    from unseen.encoders.backbones import EncoderChoice
    from unseen.encoders.images import shown as shown_path
    from unseen.extraction import ClusterChoice, Shard, extract, merge

    if engine not in ("local", "ray"):
        raise SettingsError(f"there is no engine '{engine}'; there are local, ray")
    if engine == "local" and (workers is not None or address is not None):
        raise SettingsError("--workers and --address are for --engine ray; leave them out")
    if device not in ("cpu", "cuda"):
        raise SettingsError(f"there is no device '{device}'; there are cpu, cuda")
    source, *parts = sources
    if str(source) == "merge":
        unused = (
            ("--shard", shard),
            ("--weights", weights),
            ("--threads", threads),
            ("--workers", workers),
            ("--address", address),
        )
        if given := [option for option, value in unused if value is not None]:
            raise SettingsError(f"merge puts finished shards together and takes no {given[0]}; leave it out")
        done = merge(parts, out)
    elif parts:
        raise SettingsError(
            f"one folder or table of pictures is expected, and {len(sources)} are given; to merge, type merge first"
        )
    else:
        choice = EncoderChoice(encoder, weights and weights.absolute(), device)
        cluster = ClusterChoice(address, workers) if engine == "ray" else None
        piece = Shard.parse(shard) if shard is not None else Shard()
        try:
            with _counting_pictures() as tell:
                done = extract(source, out, choice, shard=piece, threads=threads, cluster=cluster, on_progress=tell)
        except KeyboardInterrupt:
            raise Stopped(f"stopped; what is done is kept; to go on, type: {_command()}") from None
    if as_json:
        skipped = [{"path": shown_path(problem.path), "problem": problem.why} for problem in done.problems]
        print(json.dumps({"out": str(out), "rows": done.rows, "skipped": skipped}))
        return
    for problem in done.problems[:SHOWN_PROBLEMS]:
        _say(f"note: {shown_path(problem.path)} {problem.why}", "yellow")
    if (count := len(done.problems)) > SHOWN_PROBLEMS:
        _say(f"note: and {count - SHOWN_PROBLEMS} more, in {out / 'skipped.csv'}", "yellow")
    print(f"features: {out}{', which was there already' if done.before else ''}")
    print(f"{done.rows} pictures" + (f"; {count} entries left out or noted, see {out / 'skipped.csv'}" if count else ""))


@app.command()
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


@app.command("embed")
def embed_classes(
    classes: Annotated[
        Path, typer.Argument(metavar="CLASSES", help="CSV or parquet: name, and description, group, attributes.")
    ],
    out: Annotated[Path, typer.Option(metavar="EMBEDDINGS", help="Folder for the class embeddings.")],
    encoder: Annotated[
        str, typer.Option(help="minilm, st:NAME_OR_FOLDER, open_clip:NAME:TAG, open_clip:FOLDER, vectors:FILE or attributes.")
    ] = "minilm",
    prompt: Annotated[
        list[str] | None, typer.Option(help='As "a photo of a {name}. {description}"; several are averaged.')
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="Of open_clip:NAME: a safetensors file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn names and descriptions, or attributes, into class embeddings."""
    from unseen.data.class_file import check_place, save_classes
    from unseen.encoders import embed

    check_place(out)  # before minutes of encoding
    with _counting("texts") as watch:
        made = embed(classes, encoder, prompt or (), weights, watch)
    save_classes(made, out)
    count, length = made.table.embeddings.shape
    if as_json:
        about = {"embeddings": str(out), "classes": count, "embedding_length": length, "source": made.source}
        print(json.dumps({**about, "encoder": made.encoder}, ensure_ascii=False))
        return
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)  # columns are a stranger's
    console.print(f"{count} classes with embeddings of length {length}")
    console.print(f"made by: {made.source}")
    console.print(f"embeddings: {out}")


@data_app.command("info")
def data_info(dataset: DatasetName, as_json: AsJson = False) -> None:
    """Say what a data set holds, after checking it."""
    from unseen.data import open_dataset
    from unseen.data.known_splits import recognise

    data = open_dataset(dataset)
    info: dict[str, Any] = {
        "name": data.name,
        "rows": len(data.labels),
        "feature_length": data.features.shape[1],
        "classes": len(data.classes),
        "embedding_length": data.classes.embeddings.shape[1],
        "provenance": vars(data.provenance),
        "features_hash": data.features_fingerprint,
        "embeddings_hash": data.embeddings_fingerprint,
        "splits": [
            {
                "name": s.name,
                "seen": len(s.seen),
                "unseen": len(s.unseen),
                "train": len(s.train),
                "test_seen": len(s.test_seen),
                "test_unseen": len(s.test_unseen),
                "hash": s.fingerprint,
                "known": recognise(data, s.name),
            }
            for s in data.splits.values()
        ],
    }
    if as_json:
        print(json.dumps(info, ensure_ascii=False))
        return
    console = Console(markup=False, emoji=False, highlight=False)  # names are a stranger's
    console.print(
        f"{info['name']}: {info['rows']} rows of length {info['feature_length']}, {info['classes']} classes with embeddings of "
        f"length {info['embedding_length']}"
    )
    for key, value in info["provenance"].items():
        console.print(f"{key.replace('_', ' ')}: {value}")
    table = Table("split", "seen", "unseen", "train", "test_seen", "test_unseen", "fingerprint", box=None)
    for s in info["splits"]:
        numbers = [str(s[key]) for key in ("seen", "unseen", "train", "test_seen", "test_unseen")]
        table.add_row(Text(s["name"]), *numbers, s["hash"][:12])
    console.print(table)
    for known in dict.fromkeys(s["known"] for s in info["splits"]):
        named = [s["name"] for s in info["splits"] if s["known"] == known]
        console.print(f"{'split' if len(named) == 1 else 'splits'} {', '.join(named[:5])}{', …' * (len(named) > 5)}: {known}")


@data_app.command("convert")
def data_convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="Anything that holds a data set: see the page on formats.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Ends with .npz, .safetensors, .csv or .parquet, or a folder.")],
    to: Annotated[str | None, typer.Option(help="native, xlsa17, npz, safetensors, csv or parquet.")] = None,
    split: Annotated[str | None, typer.Option(help="Write this one alone; all if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read a data set in whatever format it is, and write it in another; what the other cannot hold is named."""
    from unseen.data.opening import find_dataset
    from unseen.data.writing import write_dataset

    opened = find_dataset(source)
    data = opened.dataset
    if not as_json:
        splits = f"{len(data.splits)} split{'s' * (len(data.splits) != 1)}"
        print(f"found {opened.found}: {len(data.labels):,} rows, {len(data.classes):,} classes, {splits}")
    written = write_dataset(data, target, to, split)
    if as_json:
        told = {"found": opened.found, "rows": len(data.labels), "classes": len(data.classes)}
        print(json.dumps({**told, "splits": list(data.splits), "written": written}, ensure_ascii=False))
    else:
        print(f"wrote {written}")


@data_app.command("build")
def data_build(
    features: Annotated[Path, typer.Option(help="What `unseen features` wrote, or a table of features with a column label.")],
    classes: Annotated[Path, typer.Option(help="What `unseen embed` wrote, or a table of names and attributes.")],
    out: Annotated[Path, typer.Option(help="The data set, a folder.")],
    split: Annotated[
        str, typer.Option(help="random, groups (whole ones), list (name them), or rollout (they arrive later, in stages).")
    ] = "random",
    unseen_classes: Annotated[
        list[str] | None,
        typer.Option(
            "--unseen", metavar="SHARE|NUMBER|NAMES", help="20% if not given; for list and rollout names, or a file of them."
        ),
    ] = None,
    seed: int = 0,
    name: Annotated[str | None, typer.Option(help="Of the data set; the folder's if not given.")] = None,
    test_share: Annotated[float, typer.Option(help="Of the rows of each seen class, held out as test_seen.")] = 0.2,
    draws: Annotated[int, typer.Option(help="Splits drawn, for random and groups.")] = 1,
    stages: Annotated[int, typer.Option(help="In which classes arrive, for rollout.")] = 3,
    drop_unknown: Annotated[bool, typer.Option("--drop-unknown", help="Leave rows out whose label is no class.")] = False,
    source: Annotated[str, typer.Option(help="Where the pictures come from, in a sentence.")] = "unknown",
    licence: Annotated[str, typer.Option(help="Of the pictures.")] = "unknown",
    as_json: AsJson = False,
) -> None:
    """Join features with class embeddings by name, cut splits, and write a data set."""
    from unseen.data.build import UnknownLabels, build_dataset, refuse_other_folders
    from unseen.data.class_file import load_classes
    from unseen.data.collection import load_collection
    from unseen.data.native import save_new

    refuse_other_folders(features, classes)
    try:
        built = build_dataset(
            load_collection(features),
            load_classes(classes),
            name=out.resolve().name if name is None else name,
            split=split,
            unseen=unseen_classes or ["20%"] if split != "list" else unseen_classes or [],
            seed=seed,
            test_share=test_share,
            draws=draws,
            stages=stages,
            drop_unknown=drop_unknown,
            source=source,
            licence=licence,
        )
    except UnknownLabels as error:
        raise DataError(f"{error} with --drop-unknown") from error
    save_new(built.dataset, out)
    for note in built.notes:
        _say(f"note: {note}", "yellow")
    if as_json:
        print(json.dumps(built.dataset.describe().facts | {"notes": built.notes}, ensure_ascii=False))
        return
    _print_text(str(built.dataset.describe()))
    print(f"data set: {out}")


@data_app.command("check")
def data_check(
    dataset: DatasetName,
    split: Annotated[str | None, typer.Option(help="The data set's first split if not given.")] = None,
    threshold: Annotated[float, typer.Option(help="Cosine from which two rows are near duplicates.")] = 0.95,
    permutations: Annotated[int, typer.Option(help="Shuffles of the embeddings, 19 or more; 0 leaves that test out.")] = 99,
    backbone_classes: Annotated[
        Path | None, typer.Option(help="A file of the labels that the features' network was trained with, one a line.")
    ] = None,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Say what to mend before training: duplicates, thin classes, neighbours, and whether the embeddings say anything."""
    from unseen.data import open_dataset
    from unseen.data.check import check_dataset

    report = check_dataset(
        open_dataset(dataset),
        split,
        threshold=threshold,
        permutations=permutations,
        backbone_classes=backbone_classes,
        seed=seed,
    )
    if as_json:
        print(json.dumps(report.facts, ensure_ascii=False))
    else:
        _print_text(str(report))


def _data_of(run: Path, dataset: str | None) -> Dataset:
    """The data set that a run names, or this one."""
    from unseen.data import open_dataset
    from unseen.runs import read_description

    source = dataset or read_description(run)["source"]
    try:
        return open_dataset(source)
    except DataError as error:
        raise DataError(f"{error}; if the data set of {run} has moved, name it by --data") from error


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

    open_folder(out, _command())
    refuse_other_results(jobs, out)
    runs = [job for job in jobs if job.kind == "run"]
    to_do = sum(not job.done(out) for job in runs)
    _say(f"{len(runs)} runs, of which {len(runs) - to_do} are finished already", "")
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
                _say(f"{ended} of {to_do}{left}; {end.job}: {how}", "red" if end.sentence else "")
        except KeyboardInterrupt:
            raise Stopped(f"stopped; what is done is kept; to go on, type: {_command()}") from None
    try:
        write_table(out)
    except MissingDependency as missing:
        _say(f"note: {missing}", "yellow")
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
            _say(f"{place}: {how}{so_far}", "red" if trial.sentence else "")
    except KeyboardInterrupt:
        raise Stopped(f"stopped; what is done is kept; to go on, type: {_command()}") from None


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


def _print_text(text: str) -> None:
    """Lines as long as they are; names are a stranger's."""
    Console(markup=False, emoji=False, highlight=False, soft_wrap=True).print(text)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _listed(names: list[str] | None) -> tuple[str, ...]:
    """Names from options that may be repeated or hold several, parted by commas."""
    return tuple(name for text in names or () for name in text.split(",") if name)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The demo's matrices are so small that a second thread brings nothing; with one, the figures are the same on any
    number of cores."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _pairs(settings: list[str]) -> Iterator[tuple[str, str]]:
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SettingsError(f"--set {text!r} is not of the form NAME=VALUE; write for example --set lr=0.001")
        yield name.strip(), value.strip()


def verdict(row: dict[str, Any]) -> str:
    """Whether the generative method of this row of the demo beat class-Gaussian, plainly."""
    points = 100 * row["against_class_gaussian"]["H_difference"]
    low, high = (100 * bound for bound in row["against_class_gaussian"]["interval"])
    interval = f"95 % interval of the difference over test pictures {low:+.1f} to {high:+.1f}"
    if low > 0:
        return f"TF-VAEGAN beat class-Gaussian by {points:.1f} points of H ({interval})."
    if high < 0:
        return f"TF-VAEGAN did not beat class-Gaussian: it is {-points:.1f} points of H below it ({interval})."
    word = "above" if points > 0 else "below"
    return f"TF-VAEGAN did not clearly beat class-Gaussian: it is {abs(points):.1f} points of H {word} it ({interval})."


def _print_table(rows: list[dict[str, Any]], caption: str) -> None:
    """Percent in tables, fractions everywhere else."""
    columns = ("method", "T1", "U", "S", "H", "95 % of H", "AUSUC", "H without γ", "pictures", "width", "steps", "seconds")
    table = Table(*columns, title=Text(caption), title_justify="left", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f}"

    for row in rows:
        interval = row["H_interval"]
        table.add_row(
            row["method"],
            *(percent(row[key]) for key in ("T1", "U", "S", "H")),
            "–" if interval is None else f"{percent(interval[0])}–{percent(interval[1])}",
            percent(row["AUSUC"]),
            percent(row["H_without_gamma"]),
            str(row["test_pictures"]),
            str(row["hidden_width"] or "–"),
            str(row["steps"] or "–"),
            f"{row['seconds']:.0f}",
        )
        if alone := row.get("module_alone"):
            figures = (percent(alone[key]) for key in ("T1", "U", "S", "H"))
            table.add_row("  its module alone", *figures, "–", percent(alone["AUSUC"]), percent(alone["H"]), *"––––")
    Console(width=max(120, Console().width)).print(table)


@contextmanager
def _watching(label: str = "") -> Iterator[Watch]:
    """Progress on standard error: phase, steps, losses, speed and time left."""
    from unseen.evaluation.protocol import Watch

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[losses]}"),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )
    prefix = f"{label}: " if label else ""
    with bar:
        line = bar.add_task(prefix, total=None, speed="", losses="")

        def on_phase(phase: str) -> None:
            nonlocal line
            bar.remove_task(line)  # a reset would keep the last phase's number of steps
            line = bar.add_task(prefix + phase, total=None, speed="", losses="")
            if not messages.is_terminal:
                messages.print(prefix + phase, highlight=False)

        last_line = time.monotonic()

        def on_progress(progress: Progress) -> None:
            nonlocal last_line
            speed = f"{progress.steps_per_second:.1f} steps/s, {progress.seconds_left:.0f} s left"
            losses = "  ".join(f"{name} {value:.3g}" for name, value in progress.losses.items())
            bar.update(line, completed=progress.step, total=progress.steps, speed=speed, losses=losses)
            if not messages.is_terminal and time.monotonic() - last_line >= LINE_SECONDS:
                last_line = time.monotonic()
                _say(f"{prefix}step {progress.step} of {progress.steps}, {speed}; {losses}", "")

        yield Watch(None, on_phase, on_progress)


@contextmanager
def _counting_pictures() -> Iterator[Callable[[Speed], None]]:
    """Progress on standard error: pictures done, pictures a second, time left."""
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )
    with bar:
        line = bar.add_task("pictures", total=None, speed="")
        last_line = time.monotonic()

        def tell(speed: Speed) -> None:
            nonlocal last_line
            told = f"{speed.per_second:.1f} pictures/s, {_duration(speed.seconds_left)} left"
            bar.update(line, completed=speed.done, total=speed.pictures, speed=told)
            over = speed.done == speed.pictures
            if not messages.is_terminal and (over or time.monotonic() - last_line >= LINE_SECONDS):
                last_line = time.monotonic()
                _say(f"{speed.done} of {speed.pictures} pictures, {told}", "")

        yield tell


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress on standard error: how many of how many, and the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=messages, transient=True, disable=not messages.is_terminal) as bar:
        line = bar.add_task(what, total=None)
        last_line = time.monotonic()

        def watch(done: int, total: int) -> None:
            nonlocal last_line
            bar.update(line, completed=done, total=total)
            if not messages.is_terminal and time.monotonic() - last_line >= LINE_SECONDS:
                last_line = time.monotonic()
                _say(f"{done} of {total} {what}", "")

        yield watch


@contextmanager
def _saying_how_to_go_on(folder: Path) -> Iterator[None]:
    """Add to a stop what to type to go on with what is saved in the folder."""
    try:
        yield
    except (KeyboardInterrupt, Stopped) as stop:
        if not (folder / "task.json").exists():
            raise
        command = _command() if "--resume" in sys.argv else f"{_command()} --resume"
        raise Stopped(f"{str(stop) or 'stopped'}; to go on, type: {command}") from stop


def _write_page(path: Path, *contents: Any) -> Path | None:
    """`write_report`, except that without the packages that make the page a result is a result still."""
    from unseen.report.assemble import write_report

    try:
        return write_report(path, *contents)
    except MissingDependency as missing:
        _say(f"note: {missing}", "yellow")
        return None


def _write_bench_page(folder: Path) -> Path | None:
    """The page of a benchmark, without which its tables are tables still."""
    from unseen.report.bench_assemble import write_bench_report

    try:
        return write_bench_report(folder, _command())
    except MissingDependency as missing:
        _say(f"note: {missing}", "yellow")
        return None


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _say(f"note: {message}", "yellow")


def _say(text: str, style: str) -> None:
    messages.print(text, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _file_name(text: str) -> str:
    """Text, which may hold a stranger's data set's name, as the name of a folder here and nowhere else."""
    return re.sub(r"[^\w.+-]+", "_", text).lstrip(".")


def _command() -> str:
    return shlex.join(["unseen", *sys.argv[1:]])
