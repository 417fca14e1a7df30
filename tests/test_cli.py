"""Every command, as typed: what it prints where, what it leaves in the run folder, and how it refuses."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from bench_folder import make_bench
from commands import Said, unseen
from rich.console import Console

from unseen import ZeroShotClassifier, methods, runs
from unseen.cli import saying
from unseen.data import Dataset, open_dataset
from unseen.inference import OnnxClassifier
from unseen.methods import METHODS, Generative
from unseen.recipe import Recipe
from unseen.report import assemble
from unseen.storage import read_arrays, write_arrays, write_json

QUICK = ("--set", "hidden=8", "--set", "batch_size=16", "--set", "steps=6", "--set", "classifier_epochs=2")
FIGURES = ("T1", "U", "S", "H", "AUSUC", "H_without_gamma")
RUN_FILES = ["history.jsonl", "per_class.csv", "report.html", "result.json", "task.json", "weights.safetensors"]
GENERATIVE_FILES = sorted([*RUN_FILES, "oracle.json"])


def files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not draw the page: most tests look at something else, and t-SNE takes a while."""

    def write_nothing(path: Path, *_: object) -> Path:
        path.write_text("page")
        return path

    monkeypatch.setattr(assemble, "write_report", write_nothing)


@pytest.fixture(scope="module")
def finished(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A finished run of TF-VAEGAN and what was said. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return folder, unseen("train", toy_folder, "--protocol", "fixed", "--seed", 3, *QUICK, "--out", folder, "--json")


@pytest.fixture
def a_copy(finished: tuple[Path, Said], tmp_path: Path) -> Path:
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


# --- train


def test_train_prints_one_json_object_and_talks_on_standard_error(finished: tuple[Path, Said], toy: Dataset) -> None:
    folder, said = finished
    row = said.json
    assert "training on all seen rows" in said.err
    assert row == json.loads((folder / "result.json").read_text())
    assert {"method": "tfvaegan", "dataset": "toy", "split": "first", "seed": 3, "protocol": "fixed"}.items() <= row.items()
    assert all(0 <= row[key] <= 1 for key in FIGURES)  # fractions
    assert row["H"] == pytest.approx(2 * row["U"] * row["S"] / (row["U"] + row["S"]) if row["U"] + row["S"] else 0)
    assert row["seconds"] > 0
    assert row["seconds"] == pytest.approx(sum(row["seconds_by_phase"].values()))
    assert (row["steps"], row["hidden_width"], row["recipe"]["classifier_epochs"]) == (6, 8, 2)
    assert row["settings_from"] == "user (batch_size, classifier_epochs, hidden, steps), else default"
    assert row["selection"] is None
    assert (row["test_used_for_selection"], row["test_evaluations"]) == (False, 1)
    assert row["features_hash"] == toy.features_fingerprint
    assert row["embeddings_hash"] == toy.embeddings_fingerprint
    assert row["split_hash"] == toy.split("first").fingerprint
    assert row["labels_hash"] == toy.labels_fingerprint("first")
    assert {"torch", "numpy", "unseen", "python"} <= row["versions"].keys()
    assert row["device"] in ("cpu", "cuda")
    assert row["test_pictures"] == 8 * 3 + 3 * 12


def test_a_run_folder_holds_result_weights_history_classes_and_page(finished: tuple[Path, Said]) -> None:
    folder, said = finished
    assert files(folder) == GENERATIVE_FILES
    assert "<table" in (folder / "report.html").read_text()
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [(entry["phase"], entry["step"]) for entry in history] == [("training on all seen rows", 6)]
    assert {"vae", "wasserstein", "decoder"} <= history[0]["losses"].keys()
    with (folder / "per_class.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 11
    for kind, figure in (("seen", "S"), ("unseen", "U")):
        mean = np.mean([float(line["accuracy"]) for line in table if line["kind"] == kind])
        assert mean == pytest.approx(said.json[figure], abs=1e-5)
    task = json.loads((folder / "task.json").read_text())
    assert task["command"].startswith("unseen train ")
    assert Path(task["source"]).is_absolute()


@pytest.mark.usefixtures("no_page")
def test_the_table_is_in_percent(toy_folder: Path, tmp_path: Path) -> None:
    said = unseen("train", toy_folder, "--method", "class-gaussian", "--protocol", "fixed", "--out", tmp_path / "r")
    row = json.loads((tmp_path / "r" / "result.json").read_text())
    assert said.code == 0
    [line] = [line for line in said.out.splitlines() if line.startswith("class-gaussian")]
    assert line.split()[1:5] == [f"{100 * row[key]:.1f}" for key in ("T1", "U", "S", "H")]
    assert row["H"] > 0.2  # and the data can be learned
    assert f"run: {tmp_path / 'r'}" in said.out
    assert f"page: {tmp_path / 'r' / 'report.html'}" in said.out


@pytest.mark.usefixtures("no_page")
def test_without_out_the_run_goes_under_runs_whatever_the_data_are_called(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And markup in names is printed, not obeyed."""
    name = "../[/b] :cat: x"
    splits = {"[/i]": replace(toy.split("first"), name="[/i]")}
    replace(toy, name=name, splits=splits).save(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    said = unseen("train", "data", "--method", "eszsl", "--protocol", "fixed")
    assert said.code == 0, said.err
    assert name in said.out
    assert files(tmp_path) == ["data", "runs"]
    [run] = files(tmp_path / "runs")
    assert run.endswith("-eszsl-fixed-seed0")
    info = unseen("data", "info", "data").out
    assert name in info
    assert "[/i]" in info


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("method", ["eszsl", "class-gaussian", "prototype"])
def test_closed_forms_under_blind_say_what_they_chose_and_from_what(toy_folder: Path, tmp_path: Path, method: str) -> None:
    said = unseen("train", toy_folder, "--method", method, "--split", "second", "--out", tmp_path / "r", "--json")
    row = said.json
    assert (row["method"], row["split"], row["protocol"]) == (method, "second", "blind")
    assert row["selection"]["chosen_on"].startswith("3 folds of the training rows")
    assert row["selection"]["test_evaluations"] == 0
    assert unseen("evaluate", tmp_path / "r", "--json").json["H"] == row["H"]


@pytest.mark.usefixtures("no_page")
def test_blind_keeps_its_choices_as_a_preset_that_trains_once(toy_folder: Path, tmp_path: Path) -> None:
    blind = unseen("train", toy_folder, *QUICK, "--save-preset", tmp_path / "p.json", "--out", tmp_path / "a", "--json")
    row = blind.json
    assert files(tmp_path / "a") == sorted([*GENERATIVE_FILES, runs.CALIBRATION])  # no checkpoint, no stored generator
    keys = [(e["phase"], e["step"]) for e in map(json.loads, (tmp_path / "a" / "history.jsonl").read_text().splitlines())]
    assert len(keys) == len(set(keys))
    assert len({phase for phase, _ in keys}) == 3 * 3 + 1
    again = unseen("train", toy_folder, "--preset", tmp_path / "p.json", "--out", tmp_path / "b", "--json").json
    assert "choosing" in blind.err
    assert again["settings_from"] == "folds"
    assert again["selection"] == row["selection"]
    assert {key: again[key] for key in FIGURES} == {key: row[key] for key in FIGURES}


def test_a_preset_is_refused_before_anything_is_trained_where_nothing_is_chosen(toy_folder: Path, tmp_path: Path) -> None:
    said = unseen("train", toy_folder, "--protocol", "fixed", "--save-preset", tmp_path / "p", "--out", tmp_path / "r", *QUICK)
    assert "--save-preset keeps what `blind` chose" in said.refused(2)
    assert files(tmp_path) == []


def test_a_published_preset_and_the_paper_protocol_are_labelled_and_scored_again_alike(
    toy_folder: Path, tmp_path: Path, no_page: None
) -> None:
    words = ("--preset", "sun", "--protocol", "paper", *QUICK, "--set", "steps=40", "--set", "synthetic=5")
    row = unseen("train", toy_folder, *words, "--out", tmp_path / "r", "--json").json
    assert row["test_used_for_selection"]
    assert row["test_evaluations"] > 1
    assert row["settings_from"].endswith("else published")
    again = unseen("evaluate", tmp_path / "r", "--json").json
    assert {key: again[key] for key in FIGURES} == {key: row[key] for key in FIGURES}


def test_without_the_extra_for_pages_the_result_is_kept_and_the_page_can_come_later(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("train", toy_folder, "--method", "class-gaussian", "--protocol", "fixed", "--out", tmp_path / "r")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "jinja2", None)
        said = unseen(*run)
    assert said.code == 0
    assert "note: the report page needs 'jinja2'" in said.err
    assert "class-gaussian" in said.out
    assert "page:" not in said.out
    assert "report.html" not in files(tmp_path / "r")
    assert f"page: {tmp_path / 'r' / 'report.html'}" in unseen(*run, "--resume").out
    assert "<table" in (tmp_path / "r" / "report.html").read_text()


def test_one_row_an_unseen_class_is_no_reason_to_fail(toy: Dataset, tmp_path: Path) -> None:
    """The oracle has nothing to halve then."""
    split = toy.split("first")
    first = split.test_unseen[np.unique(toy.labels[split.test_unseen], return_index=True)[1]]
    replace(toy, splits={"first": replace(split, test_unseen=first)}).save(tmp_path / "data")
    words = ("--protocol", "fixed", *QUICK, "--set", "classifier=softmax")
    said = unseen("train", tmp_path / "data", *words, "--out", tmp_path / "r", "--json")
    assert 0 <= said.json["U"] <= 1
    assert "note: no unseen class has two test rows" in said.err
    assert files(tmp_path / "r") == RUN_FILES


# --- export


@pytest.mark.usefixtures("no_page")
def test_a_run_is_exported_with_what_its_folds_say(toy_folder: Path, tmp_path: Path) -> None:
    run, graph = tmp_path / "r", tmp_path / "m.onnx"
    unseen("train", toy_folder, "--method", "class-gaussian", "--out", run, "--json")
    said = unseen("export", run, "--onnx", graph, "--risk", 0.5, "--json").json
    assert said["rows"] == 64 + 8 * 9
    assert max(said["scores"], said["probabilities"]) <= 1e-5
    opened, kept = OnnxClassifier(graph), runs.open_run(run, open_dataset(toy_folder))
    assert kept.calibration is not None
    assert opened.temperature == kept.calibration.temperature * kept.predictor.spread != 1
    assert opened.gamma == kept.task.recipe.gamma * kept.predictor.spread
    assert (opened.flag_threshold, opened.metadata["calibrated"]) == (kept.calibration.flag_threshold, True)
    test = kept.task.dataset.test_rows("first")
    taken = [opened.names.index(name) for name in OnnxClassifier(graph).predict(test.unseen_features).names if name]
    assert set(taken) <= set(range(11))
    assert opened.scores(test.unseen_features).argmax(axis=1).tolist() == (
        kept.predictor.decide(test.unseen_features).predict(opened.gamma).tolist()
    )
    told = unseen("export", run, "--onnx", graph).out
    assert told.splitlines()[0].startswith("compared with torch on 136 rows: scores ")
    assert told.splitlines()[1] == f"graph: {graph}"
    assert "do not say that they come from efficientnet-lite0" in unseen("export", run, "--onnx", graph, "--pictures").refused(
        2
    )
    (run / runs.CALIBRATION).write_bytes(b"damaged")
    assert "are damaged" in unseen("export", run, "--onnx", graph).refused(1)


def test_a_run_without_folds_is_exported_uncalibrated(finished: tuple[Path, Said], tmp_path: Path) -> None:
    folder, said = finished
    exported = unseen("export", folder, "--onnx", tmp_path / "m.onnx", "--json")
    assert "so its probabilities are not calibrated" in exported.err
    opened = OnnxClassifier(tmp_path / "m.onnx")
    assert (opened.temperature, opened.flag_threshold, opened.abstention) == (1.0, None, None)
    assert opened.metadata["method"] == said.json["method"]
    assert "a risk is kept to" in unseen("export", folder, "--onnx", tmp_path / "m.onnx", "--risk", 0.1).refused(2)


def test_a_graph_says_whether_its_training_saw_test_rows(
    finished: tuple[Path, Said], toy_folder: Path, tmp_path: Path, no_page: None
) -> None:
    words = ("--method", "tfvaegan-transductive", "--protocol", "fixed", *QUICK, "--out", tmp_path / "r")
    assert unseen("train", toy_folder, *words).code == 0
    for folder, transductive in ((tmp_path / "r", True), (finished[0], False)):
        assert unseen("export", folder, "--onnx", tmp_path / "m.onnx").code == 0
        assert OnnxClassifier(tmp_path / "m.onnx").metadata["transductive"] is transductive


def test_a_saved_model_is_exported(toy: Dataset, tmp_path: Path) -> None:
    names = np.array(toy.classes.names)
    view = toy.training_view("first")
    described = dict(zip(names, toy.classes.embeddings, strict=True))
    model = ZeroShotClassifier("class-gaussian").fit(view.features, np.array(view.classes.names)[view.labels], described)
    model.save(tmp_path / "model")
    said = unseen("export", tmp_path / "model", "--onnx", tmp_path / "m.onnx", "--json").json
    assert said["rows"] == 64 + 8 * 9  # the rows that the model keeps are compared, too
    features = np.asarray(toy.features)
    answers = OnnxClassifier(tmp_path / "m.onnx").predict(features)
    assert answers.names == model.predict(features).tolist()
    assert answers.probabilities == pytest.approx(model.predict_proba(features), abs=1e-5)
    sentence = unseen("export", tmp_path / "model", "--onnx", tmp_path / "m.onnx", "--pictures").refused(2)
    assert "fit it with that image_encoder, or leave out --pictures" in sentence


# --- an existing run


def test_an_existing_run_is_refused_and_a_finished_one_reported_again(
    finished: tuple[Path, Said], a_copy: Path, toy_folder: Path
) -> None:
    run = ("train", toy_folder, "--protocol", "fixed", "--seed", 3, *QUICK, "--out", a_copy)
    before = {name: (a_copy / name).read_bytes() for name in RUN_FILES if name != "task.json"}
    assert unseen(*run).refused(1) == (
        f"{a_copy} already exists; choose another --out, or add --resume to go on with the run in it"
    )
    again = unseen(*run, "--resume", "--json")
    assert again.json == finished[1].json
    assert "training" not in again.err  # nothing is done again
    assert {name: (a_copy / name).read_bytes() for name in before} == before
    assert files(a_copy) == GENERATIVE_FILES


@pytest.mark.usefixtures("no_page")
def test_the_oracle_is_kept_and_told_again(
    finished: tuple[Path, Said], a_copy: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("train", toy_folder, "--protocol", "fixed", "--seed", 3, *QUICK, "--out", a_copy, "--resume")
    kept = (a_copy / "oracle.json").read_bytes()
    row = json.loads(kept)
    assert (row["method"], row["test_used_for_training"]) == ("oracle (tfvaegan)", True)

    def told(said: Said) -> list[str]:
        assert said.code == 0, said.err
        [line] = [line for line in said.out.splitlines() if line.startswith("oracle (tfvaegan)")]
        return line.removeprefix("oracle (tfvaegan)").split()[:4]

    figures = [f"{100 * row[key]:.1f}" for key in ("T1", "U", "S", "H")]
    (a_copy / "oracle.json").unlink()
    assert told(unseen(*run)) == figures  # and the page was there already
    again = json.loads((a_copy / "oracle.json").read_text())
    assert {k: v for k, v in again.items() if "seconds" not in k and k != "peak_memory"} == {
        k: v for k, v in row.items() if "seconds" not in k and k != "peak_memory"
    }

    def refuse(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(runs, "oracle", refuse)
    assert told(unseen(*run)) == figures
    for damaged in (b"{", b"{}"):
        (a_copy / "oracle.json").write_bytes(damaged)
        said = unseen(*run)
        assert said.code == 0
        assert f"note: {a_copy / 'oracle.json'} " in said.err


def test_resuming_something_else_is_refused(a_copy: Path, toy: Dataset, toy_folder: Path, tmp_path: Path) -> None:
    start, end = ("train",), ("--protocol", "fixed", *QUICK, "--out", a_copy, "--resume")
    for changed, said in (
        ((toy_folder, "--seed", 4), "seed"),
        ((toy_folder, "--seed", 3, "--set", "hidden=9"), "hyperparameters"),
        ((toy_folder, "--seed", 3, "--set", "gamma=0.5"), "recipe, settings_from"),
        ((toy_folder, "--seed", 3, "--split", "second"), "split, split_hash"),
        ((toy_folder, "--seed", 3, "--method", "fvaegan"), "hyperparameters, method"),
    ):
        sentence = unseen(*start, changed[0], *end[:2], *changed[1:3], *end[2:], *changed[3:]).refused(1)
        assert sentence.startswith(f"the run in {a_copy} was started with another {said};")
    other = toy.features.copy()
    other[0, 0] += 1
    replace(toy, features=other).save(tmp_path / "other")
    sentence = unseen(*start, tmp_path / "other", "--seed", 3, *end).refused(1)
    assert "was started with another features_hash;" in sentence
    labels, split = toy.labels.copy(), toy.split("first")
    one, other = (split.train[toy.labels[split.train] == c][0] for c in (4, 5))  # training rows of both splits
    labels[[one, other]] = labels[[other, one]]
    replace(toy, labels=labels).save(tmp_path / "relabelled")
    sentence = unseen(*start, tmp_path / "relabelled", "--seed", 3, *end).refused(1)
    assert "was started with another labels_hash;" in sentence


def test_data_that_have_moved_are_still_the_data(a_copy: Path, toy: Dataset, tmp_path: Path) -> None:
    toy.save(tmp_path / "moved")
    run = ("train", tmp_path / "moved", "--protocol", "fixed", "--seed", 3, *QUICK, "--out", a_copy, "--resume", "--json")
    assert unseen(*run).json["seed"] == 3
    assert json.loads((a_copy / "task.json").read_text())["source"] == str(tmp_path / "moved")


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_a_folder_that_is_no_run_is_refused_and_left_alone(toy_folder: Path, tmp_path: Path, resume: tuple[str, ...]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for name in ("mine", "file"):
        said = unseen("train", toy_folder, "--method", "eszsl", "--out", tmp_path / name, *resume)
        assert said.refused(1) == f"{tmp_path / name} already exists and holds no run of ours; choose another --out"
    assert files(tmp_path / "mine") == ["thesis.tex"]


def test_a_folder_that_cannot_be_is_a_sentence(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        sentence = unseen("train", toy_folder, "--method", "eszsl", "--out", folder).refused(1)
        assert sentence.startswith(f"cannot write {folder}: ")


@pytest.mark.usefixtures("no_page")
def test_a_run_that_was_killed_before_it_began_can_begin(toy_folder: Path, tmp_path: Path) -> None:
    run = ("train", toy_folder, "--method", "eszsl", "--protocol", "fixed", "--out", tmp_path / "r")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ".lock").touch()
    (tmp_path / "r" / ".task.json.abc123").touch()
    assert unseen(*run).code == 0
    assert files(tmp_path / "r") == RUN_FILES


# --- evaluate


def test_evaluate_gives_the_figures_of_the_run(finished: tuple[Path, Said]) -> None:
    folder, said = finished
    row, again = said.json, unseen("evaluate", folder, "--json").json
    for key in row.keys() - {"seconds", "seconds_by_phase", "peak_memory"}:
        assert again[key] == row[key], key
    table = unseen("evaluate", folder).out
    assert f"{100 * row['H']:.1f}" in table
    assert "scored again" in table


def test_a_result_of_a_transductive_method_says_it(
    toy_folder: Path, tmp_path: Path, no_page: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its name: that of another package's method is its author's choice."""
    method = METHODS["tfvaegan-transductive"]
    assert isinstance(method, Generative)
    monkeypatch.setattr(methods, "METHODS", {"stranger": replace(method, name="stranger")})
    words = ("train", toy_folder, "--method", "stranger", "--protocol", "fixed", *QUICK, "--out", tmp_path / "r")
    assert "\nstranger (transductive) " in unseen(*words).out
    assert "\nstranger (transductive) " in unseen("evaluate", tmp_path / "r").out
    assert unseen("evaluate", tmp_path / "r", "--json").json["method"] == "stranger"


def test_evaluate_really_uses_the_weights(a_copy: Path, finished: tuple[Path, Said]) -> None:
    arrays = dict(read_arrays(a_copy / "weights.safetensors")[0])
    arrays["generalized.bias"] = np.zeros_like(arrays["generalized.bias"])
    arrays["generalized.bias"][0] = 1e6  # now everything is class a
    os.unlink(a_copy / "weights.safetensors")  # the mapped file may not be written over
    write_arrays(a_copy / "weights.safetensors", {name: np.array(array) for name, array in arrays.items()})
    again = unseen("evaluate", a_copy, "--json").json
    assert (again["U"], again["S"]) == (0, 1 / 8)


def test_evaluate_refuses_data_that_have_changed(toy: Dataset, tmp_path: Path, no_page: None) -> None:
    toy.save(tmp_path / "data")
    words = ("train", tmp_path / "data", "--method", "eszsl", "--protocol", "fixed", "--out", tmp_path / "r")
    assert unseen(*words).code == 0
    features, embeddings = toy.features.copy(), toy.classes.embeddings.copy()
    features[0] *= 2
    embeddings[0] *= 2
    split = replace(toy.split("first"), test_seen=toy.split("first").test_seen[1:])
    labels = toy.labels.copy()
    one, other = (split.train[toy.labels[split.train] == c][0] for c in (4, 5))  # training rows of both splits
    labels[[one, other]] = labels[[other, one]]
    for changed, what in (
        (replace(toy, labels=labels), "labels"),
        (replace(toy, features=features), "features"),
        (replace(toy, classes=replace(toy.classes, embeddings=embeddings)), "embeddings"),
        (replace(toy, splits={"first": split}), "split"),
        (replace(toy, splits={"second": toy.split("second")}), "split"),
    ):
        changed.save(tmp_path / "data")
        assert unseen("evaluate", tmp_path / "r").refused(1) == (
            f"the {what} of data set 'toy' are not those that the run in {tmp_path / 'r'} was made with; give the original data"
        )
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    gone = unseen("evaluate", tmp_path / "r").refused(1)
    assert gone.endswith(f"if the data set of {tmp_path / 'r'} has moved, name it by --data")
    toy.save(tmp_path / "elsewhere")
    found = unseen("evaluate", tmp_path / "r", "--data", tmp_path / "elsewhere", "--json").json
    assert found["H"] == json.loads((tmp_path / "r" / "result.json").read_text())["H"]


def test_evaluate_refuses_what_is_no_finished_run(a_copy: Path, tmp_path: Path, toy_folder: Path) -> None:
    assert "task.json does not exist" in unseen("evaluate", tmp_path / "nowhere").refused(1)
    (a_copy / "result.json").unlink()
    assert f"the run in {a_copy} is not finished; go on with it" in unseen("evaluate", a_copy).refused(1)


# --- damaged run folders

DAMAGED_RESULTS: tuple[Any, ...] = (
    {},
    {"recipe": None},
    {"recipe": {"depth": 3}},
    {"recipe": {"gamma": "much"}},
    {"recipe": {"scaling": "nothing"}},
    {"hyperparameters": []},
    {"hyperparameters": {"hidden": 9}},
    {"hyperparameters": {"depth": 9}},
    {"hyperparameters": {"beta": 0}},
    {"selection": {"H": 1}},
    {"seconds_by_phase": {"training": "long"}},
)


def test_a_damaged_result_is_a_sentence(a_copy: Path, finished: tuple[Path, Said]) -> None:
    row = finished[1].json
    for changes in DAMAGED_RESULTS:
        write_json(a_copy / "result.json", row | changes if changes else {})
        unseen("evaluate", a_copy).refused(1)
    for content in (b"", b"{", b"[]", b"\xff", b'{"recipe": NaN}'):
        (a_copy / "result.json").write_bytes(content)
        assert f"{a_copy / 'result.json'} " in unseen("evaluate", a_copy).refused(1)


def test_damaged_weights_are_a_sentence(a_copy: Path, toy_folder: Path) -> None:
    path = a_copy / "weights.safetensors"
    arrays = {name: np.array(array) for name, array in read_arrays(path)[0].items()}
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for content in (b"", whole[:-1], whole[:1000], b"PK\x03\x04" + whole, bytes(flipped)):
        path.write_bytes(content)
        assert f"{path} is damaged" in unseen("evaluate", a_copy).refused(1)
    second = "network.generator.second.weight"
    for changed in (
        {k: v for k, v in arrays.items() if k != "generalized.bias"},
        {k: v for k, v in arrays.items() if k != second},
        arrays | {second: arrays[second].T},
        arrays | {"generalized.weight": arrays["generalized.weight"][:, :3]},
        arrays | {"spread": np.zeros(0)},
        arrays | {"scaler.centre": np.zeros(5)},
    ):
        write_arrays(path, changed)
        assert "are damaged or do not belong together" in unseen("evaluate", a_copy).refused(1)
    path.unlink()
    assert f"{path} does not exist" in unseen("evaluate", a_copy).refused(1)


def test_a_damaged_task_is_a_sentence_also_for_a_resume(a_copy: Path, toy_folder: Path) -> None:
    task = json.loads((a_copy / "task.json").read_text())
    for content in (
        b"",
        b"[1]",
        b'"unseen-run"',
        json.dumps({"format": "other"}).encode(),
        json.dumps({**task, "version": 99}).encode(),
        json.dumps({**task, "source": 3}).encode(),
        json.dumps({**task, "split": None}).encode(),
        json.dumps({**task, "method": "alchemy"}).encode(),
        json.dumps({**task, "recipe": 3}).encode(),
    ):
        (a_copy / "task.json").write_bytes(content)
        unseen("evaluate", a_copy).refused(1)
        unseen("train", toy_folder, "--protocol", "fixed", "--seed", 3, *QUICK, "--out", a_copy, "--resume").refused(1)


# --- data info, methods, demo


def test_data_info_tells_sizes_splits_and_where_it_comes_from(toy_folder: Path, toy: Dataset) -> None:
    info = unseen("data", "info", toy_folder, "--json").json
    assert (info["name"], info["rows"], info["feature_length"]) == ("toy", 132, 6)
    assert (info["classes"], info["embedding_length"]) == (11, 4)
    assert info["features_hash"] == toy.features_fingerprint
    first = {"name": "first", "seen": 8, "unseen": 3, "train": 72, "test_seen": 24, "test_unseen": 36}
    known = info["splits"][0].pop("known")
    assert info["splits"][0] == first | {"hash": toy.split("first").fingerprint}
    assert known.startswith("differs from every known split, as none has 132 rows")
    said = unseen("data", "info", toy_folder).out
    assert "splits first, second: differs from every known split, as none has 132 rows" in said
    assert "toy: 132 rows of length 6, 11 classes with embeddings of length 4" in said
    assert "feature extractor: none" in said


def test_data_convert_says_what_it_found_and_wrote_and_what_was_lost(toy_folder: Path, toy: Dataset, tmp_path: Path) -> None:
    said = unseen("data", "convert", toy_folder, tmp_path / "toy.npz")
    assert said.code == 0, said.err
    assert said.out == (
        f"found a folder in unseen's own format: 132 rows, 11 classes, 2 splits\nwrote {tmp_path / 'toy.npz'}, one file\n"
    )
    assert said.err == ""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        told = unseen(
            "data", "convert", tmp_path / "toy.npz", tmp_path / "mat", "--to", "xlsa17", "--split", "second", "--json"
        )
        several = unseen("data", "convert", toy_folder, tmp_path / "two", "--to", "xlsa17")
    assert told.json["found"] == "a data set in one .npz file"
    assert told.err == (
        "note: the xlsa17 layout has no place for the source of data and embeddings and the name of the split; "
        "they were left out\n"
    )
    back = unseen("data", "info", tmp_path / "mat", "--json").json
    assert back["splits"][0]["hash"] == toy.split("second").fingerprint
    assert back["features_hash"] == toy.features_fingerprint
    assert "first_splits.mat, second_splits.mat (one file a split" in several.out


def test_data_convert_refuses_in_one_sentence(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_text("precious")
    assert "exists; choose another name" in unseen_refused(toy_folder, tmp_path / "x.npz", 1)
    assert "no format 'zip'" in unseen_refused(toy_folder, tmp_path / "y", 2, "--to", "zip")
    assert "has no split 'third'" in unseen_refused(toy_folder, tmp_path / "y", 2, "--split", "third")
    assert "is damaged or is not an .npz file" in unseen_refused(tmp_path / "x.npz", tmp_path / "y", 1)
    assert (tmp_path / "x.npz").read_text() == "precious"
    assert not (tmp_path / "y").exists()


def unseen_refused(source: Path, target: Path, code: int, *options: str) -> str:
    """The one sentence; what was found may be said before."""
    said = unseen("data", "convert", source, target, *options)
    return said._replace(out="" if said.out.startswith("found ") or not said.out else said.out).refused(code)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError("Unable to allocate 7.45 EiB for an array"),
    ],
)
def test_too_little_memory_is_one_sentence(
    toy_folder: Path, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def large(*_: object) -> None:
        raise error

    monkeypatch.setattr(Dataset, "training_view", large)
    said = unseen("train", toy_folder, "--out", tmp_path / "r").refused(1)
    assert said == "there is not enough memory; lower what is large, as synthetic, hidden, batch_size or the data"


def test_methods_is_an_array() -> None:
    entries = unseen("methods", "--json").json
    first = ["eszsl", "class-gaussian", "prototype", "prompting", "clswgan", "cadavae", "fvaegan", "tfvaegan"]
    assert [entry["name"] for entry in entries[:8]] == first
    assert [entry["kind"] for entry in entries[:8]] == 4 * ["closed form"] + 4 * ["generative"]
    assert "cub" in entries[7]["presets"]
    assert [entry["presets_from"] for entry in entries[:4]] == 4 * [None]
    assert [entry["presets_from"] for entry in entries[4:8]] == [
        "published, as scripts of others repeat it",
        "published",
        "published for TF-VAEGAN, which it is a part of",
        "published",
    ]
    told = unseen("methods").out
    assert "nearest prototype" in told
    for name, whose in (("bsegn", "TF-VAEGAN"), ("sddn", "SDGZSL")):
        [entry] = [entry for entry in entries if entry["name"] == name]
        assert entry["presets_from"] == f"inferred, but for what {whose} published"
        assert whose in told.split(f" {name} ")[1], "re-created methods say it in the table too"


# --- progress


def test_progress_tells_step_speed_time_left_and_losses_on_a_terminal_and_in_a_file(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_page: None
) -> None:
    words = ("train", toy_folder, "--protocol", "fixed", *QUICK, "--set", "steps=20")
    monkeypatch.setattr(saying, "LINE_SECONDS", 0)
    said = unseen(*words, "--out", tmp_path / "file")
    assert re.search(r"^step 10 of 20, [\d.]+ steps/s, \d+ s left; .*vae [\d.]+", said.err, re.MULTILINE)
    assert re.search(r"^step 20 of 20, [\d.]+ steps/s, 0 s left; ", said.err, re.MULTILINE)
    terminal = StringIO()
    monkeypatch.setattr(saying, "messages", Console(file=terminal, force_terminal=True, width=200, color_system=None))
    update = saying.Bar.update
    monkeypatch.setattr(saying.Bar, "update", lambda *args, **fields: update(*args, refresh=True, **fields))  # at once
    said = unseen(*words, "--out", tmp_path / "terminal")
    assert said.err == ""
    shown = terminal.getvalue()
    assert " 0/20" not in shown  # the phases around the training do not wear its steps
    for pattern in (r"training on all seen rows", r"20/20", r"[\d.]+ steps/s, 0 s left", r"vae [\d.]+"):
        assert re.search(pattern, shown), pattern


# --- typed wrongly


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--method", "alchemy"),
            "there is no method 'alchemy'; there are eszsl, class-gaussian, prototype, prompting, clswgan",
        ),
        (("--protocol", "honest"), "there is no protocol 'honest'; there are blind, fixed, paper"),
        (("--split", "third"), "data set 'toy' has no split 'third'; it has first, second"),
        (("--preset", "mnist"), "'mnist' is neither a preset of 'tfvaegan' (awa1, awa2, cub, flo, sun, "),
        (("--set", "depth=3"), "there is no setting 'depth'; there are a1, a2, "),
        (("--set", "hidden"), "--set 'hidden' is not of the form NAME=VALUE; write for example --set lr=0.001"),
        (("--set", "=3"), "--set '=3' is not of the form NAME=VALUE"),
        (("--set", "hidden=wide"), "setting hidden='wide' is not a whole number; give for example hidden="),
        (("--set", "hidden=8.5"), "setting hidden='8.5' is not a whole number"),
        (("--set", "lr=fast"), "setting lr='fast' is not a number"),
        (("--set", "transform=perhaps"), "setting transform='perhaps' is not true or false"),
        (("--set", "hidden=0"), "hidden=0 cannot work; give 1 or more"),
        (("--set", "lr=nan"), "lr=nan cannot work"),
        (("--set", "scaling=log"), "there is no scaling='log'; there are minmax, l2, whitened"),
        (("--set", "classifier=tree"), "there is no classifier='tree'; there are softmax, gaussian"),
        (("--set", "steps=-1"), "steps=-1 cannot work; give 0 or a number above it"),
        (("--set", "steps=0", "--protocol", "fixed"), "steps=0 and epochs=0 train nothing"),
        (("--set", "classifier_epochs=0"), "classifier_epochs=0 cannot work"),
        (("--set", "shrinkage=1.5"), "shrinkage=1.5 cannot work; give a number above 0, at most 1"),
        (("--set", "gamma=inf", "--protocol", "fixed"), "gamma=inf cannot work"),
        (("--set", "classifier_decay=-1"), "classifier_decay=-1.0 cannot work"),
        (("--set", "shrinkage=0.5"), "blind chooses shrinkage itself; leave it out, or give it with --protocol fixed"),
        (("--set", "gamma=1", "--set", "synthetic=5"), "blind chooses gamma, synthetic itself"),
        (("--method", "eszsl", "--set", "embedding_ridge=2"), "blind chooses embedding_ridge itself"),
        (("--method", "eszsl", "--set", "steps=5", "--protocol", "fixed"), "method 'eszsl' has no use for steps; leave it out"),
        (("--set", "gamma=1", "--protocol", "paper"), "paper measures without a γ, as published; leave gamma out"),
        (("--set", "epochs=2", "--set", "steps=5"), "steps goes before epochs, which would change nothing"),
        (("--set", "synthetic=2147483648", "--protocol", "fixed"), "synthetic=2147483648 cannot work; give a whole"),
        (("--seed", "one"), "Invalid value for '--seed'"),
        (("--frobnicate",), "No such option: --frobnicate"),
        (("--method", "eszsl", "--protocol", "paper"), "has no epochs to pick on the test rows"),
    ],
)
def test_what_is_typed_wrongly_is_one_sentence_and_exit_code_2(
    toy_folder: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in unseen("train", toy_folder, "--out", tmp_path / "r", *words).refused(2)


def test_missing_words_are_exit_code_2() -> None:
    assert unseen("train").refused(2) == "Missing argument 'DATASET'."
    assert "No such command" in unseen("tarin").refused(2)
    bare = unseen()
    assert (bare.code, bare.err) == (2, "")
    assert "evaluate" in bare.out


def test_data_that_are_not_there_are_exit_code_1(tmp_path: Path) -> None:
    for command in (("train",), ("data", "info")):
        assert "is neither a built-in data set (emoji) nor a folder" in unseen(*command, tmp_path / "no").refused(1)


@pytest.mark.usefixtures("no_page")
def test_a_loss_that_is_not_finite_is_exit_code_1(toy_folder: Path, tmp_path: Path) -> None:
    words = ("train", toy_folder, "--protocol", "fixed", *QUICK, "--set", "lr=1e30", "--out", tmp_path / "r")
    assert "of the loss is" in unseen(*words).refused(1)
    assert "result.json" not in files(tmp_path / "r")


# --- the program itself


def test_help_is_for_readers_and_loads_no_torch() -> None:
    program = (
        "import sys\nfrom unseen.cli import main\n"
        "for words in ([], ['train'], ['demo'], ['evaluate'], ['data', 'info'], ['methods'], ['tune']):\n"
        "    sys.argv = ['unseen', *words, '--help']\n    main()\n"
        "assert not {'torch', 'sklearn', 'scipy'} & sys.modules.keys(), 'heavy'\n"
        "sys.argv = ['unseen', 'data', 'info', 'nowhere']\n"
        "try: main()\nexcept SystemExit as e: assert e.code == 1\n"
        "assert not {'torch', 'sklearn', 'scipy'} & sys.modules.keys(), 'heavy'\n"
    )
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert "recognise classes that you have no example of" in done.stdout
    for word in ("--save-preset", "--resume", "Recognise emoji", "DATASET", "RUN", "--json"):
        assert word in done.stdout
    assert "parse, call, print" not in done.stdout


def test_a_reader_who_has_seen_enough_is_no_error(toy_folder: Path) -> None:
    program = "import sys\nfrom unseen.cli import main\nsys.argv = ['unseen', 'data', 'info', sys.argv[1]]\nmain()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(toy_folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


# --- the demo


@pytest.fixture
def small_demo(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo on the toy data, with settings that take a second."""
    entry = METHODS["tfvaegan"]
    assert isinstance(entry, Generative)

    def default(rows: int, d: int, a: int) -> tuple[Any, Recipe]:
        settings, recipe = entry.default(rows, d, a)
        return replace(settings, hidden=8, batch_size=16), replace(recipe, steps=4, classifier_epochs=2)

    monkeypatch.setitem(cast(dict[str, Any], METHODS), "tfvaegan", replace(entry, default=default, scalings=("minmax",)))
    demo = replace(toy, splits={"demo": replace(toy.split("first"), name="demo")})
    monkeypatch.setattr("unseen.data.open_dataset", {"emoji": demo}.__getitem__)


@pytest.mark.usefixtures("small_demo", "no_page")
def test_demo_prints_one_table_one_verdict_and_the_page(tmp_path: Path) -> None:
    said = unseen("demo", "--out", tmp_path)
    assert said.code == 0, said.err
    assert "3 unseen classes, protocol blind, seed 0" in said.out
    lines = [line.split() for line in said.out.splitlines()]
    [head] = [line for line in lines if line[:1] == ["method"]]
    assert {"T1", "U", "S", "H", "AUSUC", "95", "pictures", "width", "steps", "seconds"} <= set(head)
    assert [line[0] for line in lines if line and line[0] in METHODS] == ["eszsl", "class-gaussian", "tfvaegan"]
    assert said.out.splitlines()[-2].startswith("TF-VAEGAN ")
    assert "beat class-Gaussian" in said.out.splitlines()[-2]
    assert said.out.splitlines()[-1] == f"page: {tmp_path / 'report.html'}"


@pytest.mark.usefixtures("small_demo")
def test_demo_prints_one_json_array_and_does_without_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    monkeypatch.setitem(sys.modules, "plotly", None)
    said = unseen("demo", "--out", tmp_path, "--seed", 1, "--json")
    assert [(row["method"], row["seed"], row["protocol"]) for row in said.json] == [
        ("eszsl", 1, "blind"),
        ("class-gaussian", 1, "blind"),
        ("tfvaegan", 1, "blind"),
    ]
    assert "note: the report page needs 'plotly" in said.err
    assert files(tmp_path) == []


def test_report_writes_the_page_of_a_bench_and_says_where(tmp_path: Path) -> None:
    folder = make_bench(tmp_path / "bench", ("eszsl", "class-gaussian"), {"birds": (6, 3)}, seeds=1)
    said = unseen("report", folder)
    assert (said.code, said.out, said.err) == (0, f"page: {folder / 'report.html'}\n", "")
    html = (folder / "report.html").read_text()
    assert "H less that of class-gaussian" in html
    assert f"unseen report {folder}" in html
    elsewhere = tmp_path / "pages" / "mine.html"
    assert unseen("report", folder, "--out", elsewhere, "--baseline", "eszsl").out == f"page: {elsewhere}\n"
    assert "H less that of eszsl" in elsewhere.read_text()


def test_report_refuses_what_is_no_bench_and_a_baseline_that_was_not_run(tmp_path: Path) -> None:
    assert "is not a benchmark" in unseen("report", tmp_path / "nothing").refused(1)
    folder = make_bench(tmp_path / "bench", ("eszsl",), {"birds": (6, 3)}, seeds=1)
    assert "no result of dfca to compare with" in unseen("report", folder, "--baseline", "dfca").refused(2)
