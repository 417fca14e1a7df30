"""Commands for one run: train, evaluate, demo, export."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unseen.cli.options import AsJson, DatasetName, Settings, command_line, file_name, pairs
from unseen.cli.saying import say, watching
from unseen.errors import DataError, MissingDependency, SettingsError, Stopped


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
    task = build_task(data, split, method, protocol, seed, dict(pairs(settings or [])), preset)
    folder = out or Path("runs") / file_name(f"{data.name}-{task.split}-{method}-{protocol}-seed{seed}")
    command = command_line()
    source = dataset if dataset in BUILT_IN else str(Path(dataset).expanduser().resolve())
    with _saying_how_to_go_on(folder):
        with watching() as watch:
            outcome = run_in_folder(task, folder, describe(task, source, command), resume, watch)
        if save_preset is not None:
            write_preset(save_preset, preset_of(outcome.task, command))
        rows, page = [outcome.row], folder / "report.html"
        if outcome.trained is not None:
            try:
                rows.append(oracle_row(folder, outcome))
            except DataError as error:
                say(f"note: {error}", "yellow")
        if not page.exists():
            _write_page(page, data, [outcome], rows, command)
    if as_json:
        print(json.dumps(outcome.row, ensure_ascii=False))
    else:
        _print_table(rows, f"{data.name}, split {task.split}, protocol {task.protocol}, seed {seed}")
        print(f"run: {folder}")
        if page.exists():
            print(f"page: {page}")


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `unseen train` wrote.")],
    dataset: Annotated[str | None, typer.Option("--data", metavar="DATASET", help="If it has moved since.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a finished run again from its weights; the data are found by path and checked by fingerprint."""
    from unseen.runs import data_of
    from unseen.runs import evaluate as evaluate_run

    data = data_of(run, dataset)
    outcome = evaluate_run(run, data)
    if as_json:
        print(json.dumps(outcome.row, ensure_ascii=False))
    else:
        _print_table([outcome.row], f"{run}, scored again")


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
        with watching(method) as watch, _one_thread():
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
    page = _write_page(out / "report.html", data, outcomes, rows, command_line(), sentence)
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    _print_table(rows, f"{data.name}, split demo: {rows[0]['unseen_classes']} unseen classes, protocol blind, seed {seed}")
    print(sentence)
    if page is not None:
        print(f"page: {page}")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="A folder that `unseen train` or `save` wrote.")],
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="Where the graph goes.")],
    pictures: Annotated[bool, typer.Option("--pictures", help="Put the picture backbone in front.")] = False,
    risk: Annotated[
        float | None, typer.Option(help="Share of wrong answers to keep to by not answering; where a choice was made on folds.")
    ] = None,
    dataset: Annotated[str | None, typer.Option("--data", metavar="DATASET", help="If it has moved since.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained classifier as an ONNX graph, compared with torch before it is kept."""
    from dataclasses import asdict

    from unseen.encoders.images import ImageEncoder
    from unseen.evaluation.protocol import is_transductive
    from unseen.export import NORM, export_onnx, unscaled
    from unseen.runs import data_of, open_run

    calibration, transductive = None, False  # what `fit` makes never is
    if (run / "model.json").exists():
        import torch

        from unseen.saved import read_model

        if dataset is not None:
            raise SettingsError("a model has its rows with it; leave out --data")
        state, _, _ = read_model(run, torch.device("cpu"))
        ours = {"name": ImageEncoder.name, "fingerprint": ImageEncoder().fingerprint}
        if pictures and state.image_encoder != ours:
            raise SettingsError(
                f"the model in {run} does not say that its features come from {ImageEncoder.name} of this version, so it is "
                "not put in front of them; fit it with that image_encoder, or leave out --pictures"
            )
        fitted, method, calibration = state.fitted, state.learned.method, state.calibration
        rows = unscaled(fitted.scaler.features, state.learned.rows)
    else:
        data = data_of(run, dataset)
        if pictures and not data.provenance.feature_extractor.startswith(ImageEncoder.description):
            raise SettingsError(
                f"the features of data set '{data.name}' do not say that they come from {ImageEncoder.name} of this version, "
                "so it is not put in front of them; leave out --pictures"
            )
        opened = open_run(run, data)
        fitted, method, calibration = opened.fitted, opened.task.method.name, opened.calibration
        transductive = is_transductive(opened.task.method)
        rows = data.training_view(opened.task.split).features
    parity = export_onnx(
        fitted,
        onnx,
        ImageEncoder() if pictures else None,
        rows=rows,
        method=method,
        transductive=transductive,
        calibration=calibration,
        risk=risk,
    )
    if calibration is None:
        say(f"note: nothing was chosen on folds in {run}, so its probabilities are not calibrated", "yellow")
    if as_json:
        print(json.dumps({"onnx": str(onnx), **asdict(parity), "norm": NORM}, ensure_ascii=False))
        return
    shown = f"{parity.rows} rows" + (f" and {parity.pictures} pictures" if parity.pictures else "")
    print(f"compared with torch on {shown}: scores {parity.scores:.1e}, probabilities {parity.probabilities:.1e}")
    print(f"graph: {onnx}")


@contextmanager
def _saying_how_to_go_on(folder: Path) -> Iterator[None]:
    """Add to a stop what to type to go on with what is saved in the folder."""
    try:
        yield
    except (KeyboardInterrupt, Stopped) as stop:
        if not (folder / "task.json").exists():
            raise
        command = command_line() if "--resume" in sys.argv else f"{command_line()} --resume"
        raise Stopped(f"{str(stop) or 'stopped'}; to go on, type: {command}") from stop


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
    from unseen.experiments.aggregate import marked

    columns = ("method", "T1", "U", "S", "H", "95 % of H", "AUSUC", "H without γ", "pictures", "width", "steps", "seconds")
    table = Table(*columns, title=Text(caption), title_justify="left", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f}"

    for row in map(marked, rows):
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


def _write_page(path: Path, *contents: Any) -> Path | None:
    """`write_report`, except that without the packages that make the page a result is a result still."""
    from unseen.report.assemble import write_report

    try:
        return write_report(path, *contents)
    except MissingDependency as missing:
        say(f"note: {missing}", "yellow")
        return None
