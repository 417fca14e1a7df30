"""`unseen bench` and `unseen ablate` as typed, each in a process of its own, with real workers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from unseen.storage import read_json

PROGRAM = "import sys\nfrom unseen.cli import main\nsys.argv = ['unseen', *sys.argv[1:]]\nmain()"
SHORT = ("--set", "hidden=8", "--set", "latent=4", "--set", "steps=12", "--set", "classifier_epochs=2")


def unseen(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
        timeout=240,
    )
    assert said.returncode == code, said.stderr
    return said


def words(text: str) -> str:
    """Without the line breaks of a terminal."""
    return " ".join(text.split())


def test_bench_runs_prints_and_does_nothing_twice(toy_folder: Path, tmp_path: Path) -> None:
    command = ("bench", "--methods", "prototype,class-gaussian", "--datasets", toy_folder, "--splits", "all", "--seeds", 2)
    first = unseen(*command, "--out", tmp_path / "out")
    assert "8 runs, of which 0 are finished already" in first.stderr
    assert first.stderr.count(": done") == 8 + 4  # runs and choices
    for shown in (
        "toy, protocol blind, percent",
        "H minus that of class-gaussian on equal tasks",
        "Average rank in H, protocol blind",
        "How often test rows were scored",
        "results.csv",
        "report.html",
    ):
        assert shown in words(first.stdout)
    rows = json.loads(unseen(*command, "--out", tmp_path / "out", "--json").stdout)
    assert {(r["method"], r["split"], r["seed"]) for r in rows} == {
        (m, s, k) for m in ("prototype", "class-gaussian") for s in ("first", "second") for k in (0, 1)
    }
    table = pyarrow.parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert [(r["task"], r["H"], r["seconds_by_phase.selection"]) for r in table] == [
        (r["task"], r["H"], r["seconds_by_phase"]["selection"]) for r in rows
    ]
    again = unseen(*command, "--out", tmp_path / "out")
    assert "8 runs, of which 8 are finished already" in again.stderr
    assert again.stdout == first.stdout
    assert (tmp_path / "out" / "report.html").read_text().count('<tr data-protocol="0"') == 2
    commands = read_json(tmp_path / "out" / "bench.json")["commands"]
    assert [("--json" in line) for line in commands] == [False, True]


def test_a_file_and_options_contradict_each_other(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text('methods = "prototype"\ndatasets = "emoji"\n')
    said = unseen("bench", tmp_path / "grid.toml", "--seeds", 3, "--methods", "eszsl", code=2)
    assert words(said.stderr).endswith("says what to compare; leave out --methods, --seeds")
    assert unseen("bench", "--datasets", "emoji", code=2).stderr == "error: the grid names no methods; give at least one\n"


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--engine", "dask"), "there is no engine 'dask'; there are local, ray"),
        (("--workers", 0), "--workers and --threads must be 1 or more"),
        (("--address", "auto"), "--address is for --engine ray; leave it out"),
        (("--selection", "never"), "there is no selection 'never'; there are once, each-seed"),
    ],
)
def test_a_wrong_option_is_one_sentence(toy_folder: Path, tmp_path: Path, option: tuple[object, ...], sentence: str) -> None:
    said = unseen("bench", "--methods", "prototype", "--datasets", toy_folder, "--out", tmp_path / "out", *option, code=2)
    assert said.stderr.splitlines()[-1] == f"error: {sentence}"


def test_a_failed_run_leaves_the_others_and_is_told(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(
        f'methods = ["prototype", "tfvaegan"]\ndatasets = "{toy_folder}"\nprotocols = "fixed"\n'
        '[settings.tfvaegan]\nhidden = 8\nsteps = 30\nlr = 1e30\nscaling = "l2"\n'
    )
    said = unseen("bench", tmp_path / "grid.toml", "--out", tmp_path / "out", code=1)
    assert said.stderr.splitlines()[-1].startswith("error: 1 of 2 runs failed; the others are kept")
    assert re.search(r"failed: toy, first, tfvaegan, fixed, 0: .* lower the learning rate", words(said.stdout))
    assert "prototype" in said.stdout


def test_ablate_compares_every_row_with_the_whole_method(toy_folder: Path, tmp_path: Path) -> None:
    command = ("ablate", "tfvaegan", toy_folder, "--seeds", 2, *SHORT, "--out", tmp_path / "out")
    said = unseen(*command)
    shown = words(said.stdout)
    assert "H minus that of tfvaegan on equal tasks" in shown
    for row in ("f-VAEGAN-D2", "+ decoder in training", "+ feature transform"):
        assert f"tfvaegan, {row}" in shown
    assert re.search(r"width and steps of tfvaegan: 8 and (3|6|12); the same in all rows of a task", shown)
    assert unseen("ablate", "prototype", toy_folder, "--out", tmp_path / "no", code=2).stderr == (
        "error: method 'prototype' declares no ablations, so there is nothing to take from it; name one that does\n"
    )
