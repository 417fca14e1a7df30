"""Run the comparisons of benchmarks/*.toml and write docs/results.md.

    python benchmarks/comparison.py [--data FOLDER] [--workers N] [--commit]

An ordinary benchmark (see docs/how-to/run-a-benchmark.md) whose folder is benchmarks/results/comparison; git keeps its results
and choices, not the weights. Resumable: what is finished is never computed again, also by another checkout with equal versions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from unseen.experiments.grid import Grid
    from unseen.experiments.results import Row

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "comparison"
GRIDS = tuple(
    ROOT / "benchmarks" / f"{name}.toml"
    for name in ("ablations", "ablations_awa1", "comparison", "comparison_full", "comparison_full_paper", "seeds")
)
"""In this order: the ablations make choices that the comparison takes, and say the most."""
RUNS = ROOT / "runs"
COMMAND = "make results"
ABOUT = """# Results

Written by `make results` (benchmarks/comparison.py) from benchmarks/results/comparison; do not edit. What is compared stands in
the files benchmarks/*.toml; how to read the tables, in
[Run a benchmark](how-to/run-a-benchmark.md#how-to-read-the-tables).

Protocol `blind`: settings chosen on three folds of the training rows, once a method and split, with seed 0, and taken by all
seeds; then one training on all rows, and one look at the test rows. Means are over splits of the mean over seeds.
On emoji's full splits scaling and kind of final classifier stay at a method's defaults (benchmarks/comparison_full.toml).
There and under `paper` there is one seed, as for the lineage but f-VAEGAN-D2; where else a method has not three on every split,
the column of runs says so.
Seconds are wall time, whatever else the machine did meanwhile, with the choice of settings counted to every run.
"""


def full(row: Row) -> bool:
    """Whether it is of one of the emoji's full splits, which have eight times the unseen classes of its `demo`."""
    return str(row.get("dataset")) == "emoji" and str(row.get("split")).startswith("full")


PARTS: dict[str, tuple[str, Callable[[Row], bool]]] = {
    "Grocery, the emoji's demo, and AwA1": ("report.html", lambda row: not full(row)),
    "The emoji's full splits": ("report-full.html", full),
}
"""Told apart, because a mean over splits of such different sizes says nothing. Heading → page with figures, and rows."""
BEFORE = """
The runs of this page were computed once before, in another form of the benchmark (to be found in the history of this file),
which looked at each of Grocery's test rows twelve times; no choice was made on any of these looks. Those made while defaults
were searched, and those that made us search again, are told of in [What was tried](tried.md#what-had-been-seen-before). On the
emoji's `full0` nine methods had been run under both protocols with training held to 600 steps, before folds showed
[what that costs](tried.md#fewer-steps-where-classes-are-many).
"""
AFTER = """
Every run is a line of [results.csv](results.csv); what it depends on stands in the folder of its task. `make results` writes
two pages with figures beside these folders, report.html and report-full.html: leaderboards, ranks and costs of all runs;
curves, confusions and planes of those that were made on the machine that writes them.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shared = Path(os.environ.get("UNSEEN_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=shared, help="holds grocery/, awa1-bow/ and xlsa17-splits/")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--commit", action="store_true", help="commit every finished run to git")
    parser.add_argument("--report-only", action="store_true", help="write the page from the results that are there")
    arguments = parser.parse_args()
    if not arguments.report_only:
        prepare(arguments.data)
        measure(arguments.workers, arguments.commit)
    keep_curves()
    write_page(ROOT / "docs" / "results.md")
    write_words(ROOT / "docs", ROOT / "README.md")
    write_table(ROOT / "docs" / "results.csv")
    write_reports()


def prepare(data: Path) -> None:
    """The data sets that are not built in, unless they are there."""
    grocery, rgsift = RUNS / "grocery", RUNS / "awa1-rgsift"
    awa1: list[str | Path] = [data / "awa1-bow", data / "xlsa17-splits" / "AWA1", rgsift, "rgsift"]
    commands: dict[Path, list[str | Path]] = {
        grocery: [ROOT / "examples" / "grocery" / "prepare.py", data / "grocery" / "grocery.npz", grocery],
        rgsift: [ROOT / "examples" / "awa1" / "prepare.py", *awa1],
    }
    for target, command in commands.items():
        if not (target / "dataset.json").exists():
            subprocess.run([sys.executable, *command], check=True)


def measure(workers: int | None, commit: bool) -> None:
    """Work through the grids, keeping each run as it ends."""
    from unseen.experiments.bench import open_folder, refuse_other_results, work_through
    from unseen.experiments.engines import engine_named
    from unseen.experiments.grid import expand, read_grid
    from unseen.experiments.jobs import carry_out

    os.chdir(ROOT)
    out = OUT.relative_to(ROOT)
    for path in GRIDS:
        jobs = expand(read_grid(path.relative_to(ROOT)), COMMAND)
        open_folder(out, COMMAND)
        refuse_other_results(jobs, out)
        engine = engine_named("local", carry_out, out, workers, threads=1, address=None)
        for end in work_through(jobs, out, engine):
            print(f"{end.job}: {end.sentence or 'done'}", flush=True)
            forget_this_machine(end.job.folder(out) / "task.json")
            if commit and not end.sentence:
                subprocess.run(["git", "add", str(OUT)], cwd=ROOT, check=True)
                subprocess.run(["git", "commit", "--quiet", "-m", f"Measure {end.job}", "--", str(OUT)], cwd=ROOT, check=True)


def forget_this_machine(path: Path) -> None:
    """Leave no path of this machine in what git keeps."""
    from unseen.data.opening import BUILT_IN
    from unseen.storage import read_json, write_json

    if path.exists() and (task := read_json(path))["source"] not in BUILT_IN:
        write_json(path, {**task, "source": os.path.relpath(task["source"], ROOT)})


def write_page(target: Path) -> None:
    """docs/results.md, from the stored results alone."""
    from unseen.experiments.overview import overview
    from unseen.experiments.results import read_rows

    rows = read_rows(OUT)
    data = {
        f"* **{row['dataset']}**: features {row['feature_extractor']}; embeddings {row['embedding_source']}": None
        for row in rows
    }
    versions = {", ".join(f"{name} {number}" for name, number in row["versions"].items()) for row in rows}
    lines = [
        ABOUT,
        *data,
        "",
        f"Versions: {'; '.join(sorted(versions))}; {rows[0]['device']}, {rows[0]['threads']} thread.",
        "",
    ]
    lines += [_cost(rows), ""]
    if unfinished := _unfinished(rows):
        lines += [unfinished, ""]
    for heading, (_, among) in PARTS.items():
        lines += [f"## {heading}", ""]
        for part in overview(OUT, among):
            lines += [markdown(part), ""] if isinstance(part, Table) else [f"{part[0].upper()}{part[1:]}.", ""]
    lines += [BEFORE, AFTER.strip()]
    target.write_text("\n".join(lines) + "\n")


def keep_curves() -> None:
    """What the words need of the runs' figures, which git does not keep."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import words

    words.keep_curves(OUT)


def write_words(docs: Path, readme: Path) -> None:
    """The pages that say in words what the figures mean, and the part of the README that does."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from words import write_pages

    write_pages(OUT, docs, readme)


def write_table(target: Path) -> None:
    """Every run, a line each; the folder that its task names holds everything else."""
    from unseen.experiments.results import LEADING, read_rows
    from unseen.storage import csv_text

    lines = ([*(row[name] for name in LEADING), bool(row.get("transductive")), row["seconds"]] for row in read_rows(OUT))
    target.write_text(csv_text([*LEADING, "transductive", "seconds"], lines))


def write_reports() -> None:
    """The pages with figures, beside the results; several megabytes that git does not keep.

    Figures of single runs (curves, confusions, planes) are those of runs that were made on this machine: git keeps none, and
    what is done is not done again.
    """
    from unseen.report.bench_assemble import write_bench_report

    for page, among in PARTS.values():
        print(f"page: {write_bench_report(OUT, COMMAND, OUT / page, among=among)}")


def _cost(rows: list[Row]) -> str:
    """How many hours the rows took, and what of that the ablations are."""

    def task(row: Row) -> tuple[object, ...]:
        return row["method"], row["dataset"], row["split"], row["seed"]

    ablated = {task(row) for row in rows if row["variant"]}
    of_ablations = [row for row in rows if task(row) in ablated and row["protocol"] == "blind"]
    return (
        f"All of it took {_hours(rows):.1f} hours of one core, a choice that several runs share counted once; "
        f"{_hours(of_ablations):.1f} of them are the ablations, with the whole methods and the choices that these rest on. "
        "What is told beside the figures (curves over synthetic rows, oracles, diagnoses) is not counted. "
        "The ablations are to stay under 24 hours of one core, twelve on a machine with two."
    )


def _hours(rows: list[Row]) -> float:
    """Of one core, a choice that several rows share counted once."""
    from unseen.storage import read_json

    choices: set[str] = set()
    seconds = 0.0
    for row in rows:
        chosen = read_json(OUT / "tasks" / row["task"] / "task.json")["selection_from"]
        choices |= {chosen} if chosen else set()
        seconds += sum(spent for phase, spent in row["seconds_by_phase"].items() if phase != "selection" or not chosen)
    seconds += sum(read_json(OUT / "selections" / chosen / "cost.json")["seconds"]["selection"] for chosen in choices)
    return float(seconds / 3600)


def _unfinished(rows: list[Row]) -> str:
    """Which share of the ablations is measured, as long as it is not all."""
    from unseen.experiments.grid import read_grid

    wanted = sum(_ablations_wanted(read_grid(path)) for path in GRIDS if path.stem.startswith("ablations"))
    done = sum(bool(row["variant"]) for row in rows)
    return f"Of the ablations {done} of {wanted} runs are measured so far." if done < wanted else ""


def _ablations_wanted(grid: Grid) -> int:
    from unseen.methods import METHODS, Generative

    tables = [method.ablations.keys() for name in grid.methods if isinstance(method := METHODS[name], Generative)]
    named = [table & set(grid.ablations) if isinstance(grid.ablations, tuple) else table for table in tables]
    splits = sum(map(len, grid.splits.values())) if isinstance(grid.splits, Mapping) and grid.splits else len(grid.datasets)
    return sum(map(len, named)) * splits * len(grid.seeds)


def markdown(table: Table) -> str:
    """A table for a terminal, as a section of a page."""
    heads = [str(column.header) for column in table.columns]
    rules = ["---:" if column.justify == "right" else "---" for column in table.columns]
    cells = zip(*(list(map(str, column.cells)) for column in table.columns), strict=True)
    lines = [heads, rules, *cells]
    return f"### {table.title}\n\n" + "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    main()
