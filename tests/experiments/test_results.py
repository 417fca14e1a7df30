"""The tidy table: nothing of a row is lost on the way into it and out again."""

from __future__ import annotations

import csv
import errno
import importlib.util
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from unseen.errors import DataError, MissingDependency, RunError
from unseen.experiments.results import columns, flatten, read_failures, read_rows, write_table
from unseen.storage import FORMULA

Row = dict[str, Any]


def stored_parquet(folder: Path) -> list[Row]:
    lines: list[Row] = parquet.read_table(folder / "results.parquet").to_pylist()
    return lines


def unquoted(cell: str) -> str:
    """The text that was written as this cell."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def stored_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- reading a folder


def test_rows_come_sorted_whatever_order_the_folders_are_in(row: Callable[..., Row], bench: Callable[..., Path]) -> None:
    rows = [
        row(method, split, seed, dataset=dataset)
        for dataset in ("birds", "cars")
        for split in ("a", "b")
        for method in ("eszsl", "tfvaegan")
        for seed in (0, 2, 10)
    ]
    shuffled = random.Random(1).sample(rows, len(rows))
    found = read_rows(bench(shuffled))
    assert found == rows
    assert [r["seed"] for r in found[:3]] == [0, 2, 10]  # as numbers, not as text


def test_what_older_results_do_not_say_is_filled_in(row: Callable[..., Row], bench: Callable[..., Path]) -> None:
    old = row(task="abc")
    folder = bench([old])
    (folder / "tasks" / "abc" / "result.json").write_text(json.dumps({k: old[k] for k in old.keys() - {"variant", "task"}}))
    (folder / "tasks" / ".abc.copied").mkdir()
    (folder / "tasks" / ".abc.copied" / "result.json").write_text("half of it")
    (folder / "tasks" / "only-begun").mkdir()
    assert read_rows(folder) == [old]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"H": 51.3}, "does not rightly say H"),
        ({"H": "0.5", "seed": 1.5}, "does not rightly say H, seed"),
        ({"T1": True}, "does not rightly say T1"),
        ({"split_hash": None}, "does not rightly say split_hash"),
        ({"test_used_for_selection": 0}, "does not rightly say test_used_for_selection"),
        ({"task": "another"}, "does not rightly say task"),
        ({"seconds": True}, "does not rightly say seconds"),
        ({"peak_memory": "much"}, "does not rightly say peak_memory"),
        ({"diagnostic_evaluations": "6"}, "does not rightly say diagnostic_evaluations"),
        ({"steps": 1.5}, "does not rightly say steps"),
    ],
)
def test_a_damaged_result_is_one_sentence(change: Row, says: str, row: Callable[..., Row], bench: Callable[..., Path]) -> None:
    folder = bench([row(task="abc")])
    path = folder / "tasks" / "abc" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=says) as caught:
        read_rows(folder)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_json_and_what_is_no_benchmark_is_refused(row: Callable[..., Row], bench: Callable[..., Path]) -> None:
    folder = bench([row(task="abc")])
    (folder / "tasks" / "abc" / "result.json").write_text('{"H": NaN}')
    with pytest.raises(DataError, match=r"result\.json is damaged or is not JSON"):
        read_rows(folder)
    with pytest.raises(DataError, match=r"abc is not a benchmark .* give a folder that `unseen bench` wrote"):
        read_rows(folder / "tasks" / "abc")


def test_a_benchmark_that_still_chooses_has_no_rows_yet(tmp_path: Path) -> None:
    """Its runs wait for a choice on folds, so none of them has begun."""
    (tmp_path / "bench.json").write_text('{"format": "unseen-bench"}')
    (tmp_path / "selections").mkdir()
    assert read_rows(tmp_path) == read_failures(tmp_path) == []


def test_failures_are_told_with_what_they_say(row: Callable[..., Row], bench: Callable[..., Path]) -> None:
    folder = bench([row(task="done")], {"main": ["owl"]})
    for task in ("b-early", "a-late"):
        (folder / "tasks" / task).mkdir()
        (folder / "tasks" / task / "failure.json").write_text('{"sentence": "the disk is full", "seed": 3}')
    (folder / "tasks" / "done" / "failure.json").write_text('{"sentence": "an earlier try"}')
    assert read_failures(folder) == [
        {"task": "a-late", "sentence": "the disk is full", "seed": 3},
        {"task": "b-early", "sentence": "the disk is full", "seed": 3},
    ]


# --- flat


def test_flat_names_and_values() -> None:
    nested = {
        "H": 0.5,
        "H_interval": (0.4, 0.6),
        "recipe": {"scaling": "l2", "steps": None, "empty": {}},
        "selection": {"chosen": {"gamma": 1.5}, "candidates": [{"H": 0.1}, {"H": 0.2}]},
        "hyperparameters": {"betas": [0.5, 0.999], "names": ["ß", 1]},
        "half": "\ud800",
    }
    assert flatten(nested) == {
        "H": 0.5,
        "H_interval.low": 0.4,
        "H_interval.high": 0.6,
        "recipe.scaling": "l2",
        "recipe.steps": None,
        "recipe.empty": "{}",
        "selection.chosen.gamma": 1.5,
        "selection.candidates": 2,
        "hyperparameters.betas": "[0.5, 0.999]",
        "hyperparameters.names": '["ß", 1]',
        "half": "\\ud800",
    }


def test_every_field_of_real_rows_survives(real_rows: list[Row]) -> None:
    """Each leaf is found under its own name, and there is nothing else; of candidates their number."""

    def count(value: Any) -> int:
        if isinstance(value, dict):
            return sum(1 if name == "candidates" else count(inner) for name, inner in value.items())
        return len(value) if isinstance(value, list) else 1

    for real in real_rows:
        flat = flatten(real)
        assert len(flat) == count(real)
        assert flat["seconds_by_phase.scoring" if "scoring" in real["seconds_by_phase"] else "seconds"] is not None
        assert flat["versions.scikit-learn"] == real["versions"]["scikit-learn"]
        assert flat["H"] == real["H"]


def test_two_fields_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match=r"two fields that a table calls 'a\.b'"):
        flatten({"a": {"b": 1}, "a.b": 2})


# --- one type a column


def test_a_column_has_one_type() -> None:
    rows = [
        {"whole": 1, "number": 1, "large": 2**60, "huge": 2**70, "mixed": 1, "flag": True, "missing": None, "some": None},
        {"whole": 2, "number": 0.5, "large": 0.5, "huge": 1, "mixed": "one", "flag": False, "missing": None, "some": {"x": 1}},
        {"number": None, "mixed": True},
    ]
    table = columns(rows)
    assert table == {
        "whole": [1, 2, None],
        "number": [1.0, 0.5, None],
        "large": [str(2**60), "0.5", None],  # a float would not say it exactly
        "huge": [str(2**70), "1", None],
        "mixed": ["1", "one", "true"],
        "flag": [True, False, None],
        "missing": [None, None, None],
        "some.x": [None, 1, None],  # and no column 'some' beside it
    }
    assert all(len({type(v) for v in column if v is not None}) <= 1 for column in table.values())


def test_columns_that_identify_a_task_come_first(row: Callable[..., Row]) -> None:
    names = list(columns([row()]))
    assert names[:8] == ["task", "dataset", "split", "method", "variant", "protocol", "seed", "T1"]
    assert names[13:] == sorted(names[13:])


# --- files


HOSTILE = ["=HYPERLINK('x')", "+1", "-2", "@a", "<b>", 'a "b", c', "line\nbreak\rreturn", "'=x", "ナ", "\x00", ""]


def test_both_files_come_back_as_they_were(real_rows: list[Row], row: Callable[..., Row], bench: Callable[..., Path]) -> None:
    rows = real_rows + [row(dataset=name or "none", split=name, H=None, task=f"h{k}") for k, name in enumerate(HOSTILE)]
    folder = bench(rows)
    write_table(folder)
    lines, back = [flatten(r) for r in read_rows(folder)], stored_parquet(folder)
    table = columns(read_rows(folder))
    assert len(back) == len(rows)
    assert back == [{name: column[k] for name, column in table.items()} for k in range(len(rows))]
    for line, stored in zip(lines, back, strict=True):
        assert {k: v for k, v in line.items() if v is not None} == {k: v for k, v in stored.items() if v is not None}
        assert stored["H"] is None or type(stored["H"]) is float
        assert type(stored["seed"]) is int

    def as_text(value: Any) -> str:
        return "" if value is None else str(value)

    told = stored_csv(folder)
    assert [{k: unquoted(v) for k, v in line.items()} for line in told] == [
        {k: as_text(v) for k, v in line.items()} for line in back
    ]
    assert [float(line["H"]) for line in told if line["H"]] == [r["H"] for r in read_rows(folder) if r["H"] is not None]
    assert not any(line["split"].startswith(("=", "+", "-", "@")) for line in told)


def test_a_benchmark_without_a_result_has_an_empty_table(bench: Callable[..., Path]) -> None:
    folder = bench([])
    write_table(folder)
    assert (folder / "results.csv").read_text() == "task\n"
    assert stored_parquet(folder) == []


def test_without_pyarrow_the_csv_is_written_and_nothing_contradicts_it(
    row: Callable[..., Row], bench: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bench([row()])
    (folder / "results.parquet").write_text("of an earlier table")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"pip install 'unseen\[bench\]'"):
        write_table(folder)
    assert len(stored_csv(folder)) == 1
    assert not (folder / "results.parquet").exists()


def test_a_full_disk_harms_no_table(
    row: Callable[..., Row], bench: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bench([row()])
    write_table(folder)
    before = {name: (folder / name).read_bytes() for name in ("results.csv", "results.parquet")}

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parquet, "write_table", no_space)
    with pytest.raises(RunError, match=r"results\.parquet: No space left on device"):
        write_table(folder)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert sorted(entry.name for entry in folder.iterdir()) == ["results.csv", "results.parquet", "tasks"]


def test_the_committed_table_says_which_runs_are_transductive(
    bench: Callable[..., Path], row: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of runs from before rows said so."""
    path = Path(__file__).parents[2] / "benchmarks" / "comparison.py"
    spec = importlib.util.spec_from_file_location("comparison", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rows = [row("eszsl"), row("tfvaegan", transductive=False), row("tfvaegan-transductive", transductive=True)]
    monkeypatch.setattr(script, "OUT", bench(rows))
    script.write_table(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        said = {line["method"]: line["transductive"] for line in csv.DictReader(file)}
    assert said == {"eszsl": "False", "tfvaegan": "False", "tfvaegan-transductive": "True"}
