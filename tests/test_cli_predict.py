"""`unseen predict`, as typed: every kind of model and of input, every format, and what strangers may put into them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Said, unseen

from unseen import ZeroShotClassifier, cli
from unseen.answering import Answered
from unseen.calibration import Neighbours
from unseen.cli import PACKAGES
from unseen.cli import answers as formats
from unseen.cli.answers import FORMATS, one_by_one
from unseen.data import Dataset
from unseen.inference import answers_of

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'images' is not installed")


@pytest.fixture(scope="module")
def classifier(toy: Dataset) -> ZeroShotClassifier:
    """Of the eight seen classes of the toy data, and three without rows; γ from folds."""
    view = toy.training_view()
    names = np.array(view.classes.names)
    known = ZeroShotClassifier("class-gaussian", protocol="blind")
    return known.fit(view.features, names[view.labels], classes=(list(names), view.classes.embeddings))


@pytest.fixture(scope="module")
def model(classifier: ZeroShotClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    classifier.save(folder)
    return folder


@pytest.fixture(scope="module")
def graph(model: Path) -> Path:
    path = model.parent / "model.onnx"
    said = unseen("export", model, "--onnx", path)
    assert said.code == 0, said.err
    return path


@pytest.fixture(scope="module")
def rows(toy: Dataset, model: Path) -> Path:
    path = model.parent / "rows.npy"
    np.save(path, toy.features)
    return path


def objects(said: Said) -> list[dict[str, Any]]:
    """Of the JSON lines of a command that went well."""
    assert said.code == 0, said.err
    return [json.loads(line) for line in said.out.splitlines()]


def uncalibrated(model: Path) -> str:
    """The note about a model of which no folds say what its probabilities are worth."""
    why = "nothing was chosen on folds, or no class is without an example"
    return f"note: in {model} {why}, so how sure it is is not calibrated"


# -------------------------------------------------------------------------------------------------------------- answers


def test_each_line_says_what_the_classifier_says(classifier: ZeroShotClassifier, toy: Dataset, model: Path, rows: Path) -> None:
    found = objects(unseen("predict", model, rows, "--top", 4))
    said = classifier.answers(toy.features)
    assert [each["input"] for each in found] == list(range(len(toy.features)))
    assert [each["class"] for each in found] == said.names
    assert [each["never_seen"] for each in found] == said.never_seen.tolist()
    assert 0 < sum(each["never_seen"] for each in found) < len(found)
    np.testing.assert_allclose([each["confidence"] for each in found], said.confidence, atol=1e-6)
    for each, shares, scores in zip(found, said.probabilities, said.scores, strict=True):
        best = np.argsort(-scores, kind="stable")[:4]
        assert [name for name, _ in each["top"]] == [classifier.classes_[c] for c in best]
        np.testing.assert_allclose([share for _, share in each["top"]], shares[best], atol=1e-6)
        assert "near" not in each


def test_a_graph_and_a_run_answer_like_a_folder(
    model: Path, graph: Path, rows: Path, toy: Dataset, toy_folder: Path, tmp_path: Path
) -> None:
    of_model, of_graph = objects(unseen("predict", model, rows)), objects(unseen("predict", graph, rows))
    for what in ("class", "never_seen"):
        assert [each[what] for each in of_model] == [each[what] for each in of_graph]
    np.testing.assert_allclose([each["confidence"] for each in of_model], [each["confidence"] for each in of_graph], atol=1e-5)
    assert unseen("train", toy_folder, "--method", "class-gaussian", "--out", tmp_path / "run").code == 0
    of_run = objects(unseen("predict", tmp_path / "run", rows))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    test = toy.test_rows()
    named = np.array([each["class"] for each in of_run])
    names = np.array(toy.classes.names)
    for kind, at, labels in (("S", test.seen_rows, test.seen_labels), ("U", test.unseen_rows, test.unseen_labels)):
        right = named[at] == names[labels]
        mean = np.mean([right[labels == label].mean() for label in np.unique(labels)])
        assert mean == pytest.approx(result[kind]), "the figures of the run come from the same answers"
    shutil.move(shutil.copytree(toy_folder, tmp_path / "data"), tmp_path / "moved")
    assert objects(unseen("predict", tmp_path / "run", rows, "--data", tmp_path / "moved")) == of_run


@pytest.mark.parametrize("form", FORMATS)
def test_in_every_format_a_note_says_that_nothing_was_calibrated(form: str, model: Path, toy: Dataset, tmp_path: Path) -> None:
    ZeroShotClassifier("class-gaussian", protocol="fixed").fit(toy.features, toy.labels).save(tmp_path / "fixed")
    asked = ("-", "--format", form)
    said = unseen("predict", tmp_path / "fixed", *asked, stdin=b"[1,2,3,4,5,6]")
    assert said.code == 0
    assert said.err == f"{uncalibrated(tmp_path / 'fixed')}\n"
    assert unseen("predict", model, *asked, stdin=b"[1,2,3,4,5,6]").err == ""


def test_a_risk_leaves_the_doubtful_without_a_name(
    classifier: ZeroShotClassifier, toy: Dataset, model: Path, rows: Path
) -> None:
    found = objects(unseen("predict", model, rows, "--risk", 0.5))
    said = classifier.answers(toy.features, risk=0.5)
    assert [each["class"] for each in found] == said.names
    doubtful = [k for k, name in enumerate(said.names) if name is None]
    as_csv = list(csv.DictReader(io.StringIO(unseen("predict", model, rows, "--risk", 0.5, "--format", "csv").out)))
    assert [k for k, each in enumerate(as_csv) if not each["class"]] == doubtful
    assert unseen("predict", model, rows, "--risk", 0).code != 0


def test_a_graph_keeps_to_the_risk_that_it_was_exported_with(graph: Path, rows: Path) -> None:
    said = unseen("predict", graph, rows, "--risk", 0.1).refused(2)
    assert said == f"{graph} was exported without --risk, and keeps to that; export it with --risk 0.1, or leave it out"


def test_an_explanation_names_what_lies_near(classifier: ZeroShotClassifier, toy: Dataset, model: Path, rows: Path) -> None:
    found = objects(unseen("predict", model, rows, "--explain", "--top", 0))
    near = classifier.explain(toy.features, 3)
    for k in (0, 60, 131):
        assert [name for name, _ in found[k]["near"]["seen"]] == near.seen[k].tolist()
        np.testing.assert_allclose([far for _, far in found[k]["near"]["seen"]], near.seen_distances[k], atol=1e-5)
        assert len(found[k]["near"]["unseen"]) == near.unseen.shape[1]
        assert "top" not in found[k]
    table = list(csv.DictReader(io.StringIO(unseen("predict", model, rows, "--explain", "--format", "csv").out)))
    assert [row["seen_1"] for row in table] == near.seen[:, 0].tolist()
    assert "    nearest seen: " in unseen("predict", model, rows, "--explain", "--format", "table").out


# --------------------------------------------------------------------------------------------------------------- inputs


def test_standard_input_is_read_as_a_file_is(model: Path, rows: Path, toy: Dataset) -> None:
    wanted = objects(unseen("predict", model, rows))
    table = "".join(",".join(map(repr, row)) + "\n" for row in toy.features.tolist())
    lines = "".join(json.dumps(row) + "\n" for row in toy.features.tolist())
    for text in (table, lines):
        assert objects(unseen("predict", model, "-", stdin=text.encode())) == wanted


def test_a_broken_row_is_told_of_and_the_command_ends_with_1(model: Path) -> None:
    said = unseen("predict", model, "-", stdin=b"[1,2,3,4,5,6]\n[1,2]\n[6,5,4,3,2,1]\n")
    assert [json.loads(line)["input"] for line in said.out.splitlines()] == [0, 2]
    assert (said.code, said.err.splitlines()) == (
        1,
        [
            "line 2 of standard input has 2 numbers, and the model takes 6; left out",
            "error: 1 of 3 could not be answered, see above",
        ],
    )


def test_a_row_that_is_too_large_is_told_of_and_the_others_are_answered(model: Path, toy: Dataset, tmp_path: Path) -> None:
    large = np.full(6, 3e38)
    given = np.tile(toy.features[:3], (500, 1))
    given[[0, 2, 1400]] = large
    np.save(tmp_path / "rows.npy", given)
    said = unseen("predict", model, tmp_path / "rows.npy")
    assert said.code == 1
    assert said.err.splitlines() == [
        *(f"row {k} is too large to be scored; left out" for k in (0, 2, 1400)),
        "error: 3 of 1500 could not be answered, see above",
    ]
    assert [json.loads(line)["input"] for line in said.out.splitlines()] == [k for k in range(1500) if k not in (0, 2, 1400)]
    alone = unseen("predict", model, "-", stdin=json.dumps({"id": "a\nb", "features": large.tolist()}).encode())
    assert (alone.code, alone.out) == (1, "")
    assert alone.err.startswith("row 'a\\nb' is too large to be scored; left out\n")


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_in_nothing_out(form: str, model: Path) -> None:
    said = unseen("predict", model, "-", "--format", form, stdin=b"")
    assert said.code == 0
    assert said.out.count("\n") == (form != "jsonl")  # the names of the columns
    assert said.err.splitlines()[-1] == "note: there is no row in it, so nothing is answered"


@pytest.mark.filterwarnings("always:1 file is no picture by its name")
def test_pictures_become_rows_by_the_packaged_network(tmp_path: Path) -> None:
    """Files of any depth, hidden ones left out; one that is no picture is told of."""
    image = pytest.importorskip("PIL.Image")
    from unseen.encoders import ImageEncoder

    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    names = ["a/b/1.png", "a/2.png", "=3\n\x1b[31m.png", "z.png", *(f"m/{k:02d}.png" for k in range(33))]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(rng.integers(0, 256, (8, 9, 3), np.uint8).repeat(9, 0)).save(folder / name)
    (folder / "a" / "no.png").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    (folder / "a" / "notes.txt").write_text("no picture, and none by its name")
    (folder / "m" / "loop").symlink_to(folder)
    features = ImageEncoder().encode(folder / name for name in sorted(names, key=os.fsencode))
    y = np.array([f"kind {k % 3}" for k in range(len(features))])
    known = ZeroShotClassifier("class-gaussian", settings={"gamma": 0.1}, image_encoder="efficientnet-lite0").fit(features, y)
    known.save(tmp_path / "model")

    said = unseen("predict", tmp_path / "model", folder)
    found = [json.loads(line) for line in said.out.splitlines()]
    assert [each["input"] for each in found] == sorted(names, key=os.fsencode)
    assert [each["class"] for each in found] == known.predict(features).tolist()
    assert said.code == 1
    assert said.err.splitlines() == [
        f"{folder / 'm' / 'loop'} is a link to a folder that was read already, or to one above; left out",
        "note: 1 file is no picture by its name (a/notes.txt); left aside",
        f"picture {folder / 'a' / 'no.png'} cannot be read (it is no picture of a known kind); convert it anew or leave it out",
        uncalibrated(tmp_path / "model"),
        f"error: 2 of {len(names) + 2} could not be answered, see above",
    ]
    assert "\x1b" not in said.out
    (folder / "m" / "loop").unlink()
    (folder / "a" / "no.png").unlink()
    without = unseen("predict", tmp_path / "model", folder)
    assert (without.code, without.out) == (0, said.out)
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "x.txt").touch()
    refused = unseen("predict", tmp_path / "model", tmp_path / "others").refused(1)
    assert refused == f"{tmp_path / 'others'} holds no file that is a picture by its name; check the path"

    [one] = objects(unseen("predict", tmp_path / "model", folder / "z.png"))
    assert (one["input"], one["class"]) == (str(folder / "z.png"), found[-1]["class"])

    from unseen.export import export_onnx

    export_onnx(known.fitted_, tmp_path / "p.onnx", ImageEncoder(), rows=features)
    (folder / "a" / "no.png").write_text("no picture")
    by_graph = unseen("predict", tmp_path / "p.onnx", folder)
    assert by_graph.err.splitlines()[:-1] == [*said.err.splitlines()[1:3], uncalibrated(tmp_path / "p.onnx")]
    assert [json.loads(line)["class"] for line in by_graph.out.splitlines()] == [each["class"] for each in found]
    np.save(tmp_path / "x.npy", features)
    assert unseen("predict", tmp_path / "p.onnx", tmp_path / "x.npy").refused(2).startswith("the model takes pictures, with")


# -------------------------------------------------------------------------------------------------------------- formats


HOSTILE = ["=HYPERLINK(1)", "two\nlines\x1b[31m", "tab\tand\ud800", "é" * 60, "@name"]


def hostile(inputs: list[str | int]) -> tuple[Answered, tuple[str, ...]]:
    """Answers about classes with such names."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(len(inputs), 5))
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    seen = np.array([True, False, True, False, True])
    near = Neighbours(*2 * (np.array(HOSTILE)[None].repeat(len(inputs), 0)[:, :2], np.ones((len(inputs), 2))))
    return Answered(inputs, answers_of(scores, shares, HOSTILE, seen, None, 0.4), near), tuple(HOSTILE)


def test_names_of_strangers_are_text_in_every_format() -> None:
    inputs: list[str | int] = ["=cmd()", "a\x1b]0;title\x07", "b\nc", "\udcff.png", 7]
    part, names = hostile(inputs)

    def lines(form: str) -> str:
        text = "".join(FORMATS[form](one_by_one(iter([part]), names, 3), 3))
        text.encode()  # nothing that no terminal and no file could take
        return text

    told = [json.loads(line) for line in lines("jsonl").splitlines()]
    assert [each["input"] for each in told] == inputs
    assert [each["class"] for each in told] == part.answers.names
    assert None in part.answers.names
    assert all(line.isprintable() for line in lines("jsonl").split("\n"))

    table = list(csv.reader(io.StringIO(lines("csv"), newline="")))
    assert len({len(row) for row in table}) == 1
    assert len(table) == len(inputs) + 1
    cells = [cell for row in table for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+", "\t")) or not cell.isprintable()]
    assert "'=HYPERLINK(1)" in cells

    shown = lines("table").split("\n")
    assert len(shown) == 1 + 3 * len(inputs) + 1  # a header, an answer and two lines of neighbours each, nothing behind
    assert all(line.isprintable() for line in shown)
    assert all("…" in line or "é" * 60 not in line for line in shown)


def test_the_columns_of_a_table_stand_below_each_other(model: Path, rows: Path) -> None:
    head, *lines = unseen("predict", model, rows, "--format", "table").out.splitlines()
    place = head.index("sure")
    assert all(float(line[place : place + 4]) <= 1 for line in lines)
    place = head.index("never seen")
    marked = [line[place : place + 10].strip() == "yes" for line in lines]
    assert marked == [each["never_seen"] for each in objects(unseen("predict", model, rows))]


def test_classes_that_are_never_taken_stay_last() -> None:
    scores = np.array([[-np.inf, 1.0, -np.inf, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert formats._best(scores, 4).tolist() == [[3, 1, 0, 2], [0, 1, 2, 3]]


@pytest.mark.parametrize(("name", "form"), [("a.csv", "csv"), ("a.jsonl", "jsonl"), ("a.txt", "table"), ("a", "jsonl")])
def test_a_file_is_written_as_its_ending_says(name: str, form: str, model: Path, rows: Path, tmp_path: Path) -> None:
    said = unseen("predict", model, rows, "--out", tmp_path / name)
    assert (said.code, said.out) == (0, f"answers: {tmp_path / name}\n")
    assert (tmp_path / name).read_bytes() == unseen("predict", model, rows, "--format", form).out.encode()


def test_a_file_is_written_whole_or_not_at_all(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"1,2,3,4,5,7\n" * 3000 + b"\xff\n")
    (tmp_path / "out.csv").write_text("before")
    said = unseen("predict", model, tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert said.refused(1).startswith(f"{tmp_path / 'in.csv'} is not UTF-8 text (line 3001)")
    assert (tmp_path / "out.csv").read_text() == "before"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.csv", "out.csv"]


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere", "ROWS"], 1, "nowhere is no model; give a folder that `unseen fit` or `unseen train` wrote, or a .onnx"),
        (["ROWS", "ROWS"], 1, "ROWS is damaged or is no ONNX file; export it again"),
        (["x\0y", "ROWS"], 2, "Invalid value for "),
        (["MODEL", "nowhere.csv"], 1, "nowhere.csv cannot be opened (No such file or directory); check the path"),
        (["MODEL", "x\x1b\0"], 1, r"x\x1b\x00 cannot be opened (embedded null byte); check the path"),
        (["MODEL", "MODEL"], 1, "MODEL is a model; give features or pictures to be answered"),
        (["MODEL", "EMPTY"], 1, "EMPTY holds no file, and so no picture; check the path"),
        (["MODEL", "PICTURE"], 1, "nothing says how pictures become the rows of this classifier; give it the name"),
        (["GRAPH", "PICTURE"], 2, "GRAPH takes features and no pictures; export it with --pictures, or make features by"),
        (["GRAPH", "ROWS", "--explain"], 2, "--explain needs the rows that were learned from, which only a folder of"),
        (["MODEL", "ROWS", "--format", "xml"], 2, "there is no format 'xml'; there are table, jsonl, csv"),
        (["MODEL", "ROWS", "--top", "-1"], 2, "--top -1 lists nothing; give 0 or more"),
        (["MODEL", "ROWS", "--data", "emoji"], 2, "--data says where the data set of a run is, and this is none; leave it out"),
        (["GRAPH", "ROWS", "--image-encoder", "x"], 2, "--image-encoder says how a classifier of `unseen fit` sees, and this"),
        (["MODEL", "ROWS", "--image-encoder", "x"], 2, "there is no encoder 'x'; there are efficientnet-lite0, timm:NAME and"),
        (
            ["MODEL", "ROWS", "--image-encoder", "efficientnet-lite0"],
            1,
            "efficientnet-lite0 makes 1280 numbers of a picture",
        ),
        (["MODEL", "ROWS", "--out", "ROWS/x"], 1, "cannot write ROWS/x: "),
        (["MODEL", "ROWS", "--out", "o.xyz"], 2, "--out 'o.xyz' does not say how to write; give .csv, .jsonl or .txt, or --f"),
    ],
)
def test_mistakes_get_one_sentence(
    words: list[str], code: int, said: str, model: Path, graph: Path, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty" / ".git").mkdir(parents=True)
    (tmp_path / "picture.png").write_text("no picture")
    places = {"MODEL": model, "GRAPH": graph, "ROWS": rows, "EMPTY": tmp_path / "empty", "PICTURE": tmp_path / "picture.png"}

    def placed(text: str) -> str:
        for name, place in places.items():
            text = text.replace(name, str(place))
        return text

    assert unseen("predict", *map(placed, words)).refused(code).startswith(placed(said))


def test_a_folder_that_cannot_be_opened_gets_one_sentence(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.listdir

    def refuse(path: Any) -> list[str]:
        if Path(path) == tmp_path:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("unseen.data.pictures.os.listdir", refuse)  # root may open everything
    said = unseen("predict", model, tmp_path).refused(1)
    assert said == f"{tmp_path} is a folder that cannot be opened (Permission denied); check its permissions"


# ------------------------------------------------------------------------------------------------------------ processes

WITHOUT = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "scipy", "sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusing())
"""
MAIN = "from unseen.cli import main\nmain()\n"


def process(*words: object, before: str = "", **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    program = [sys.executable, "-c", before + MAIN, *map(str, words)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_graph_needs_no_torch_and_a_folder_says_what_to_do_without(model: Path, graph: Path, rows: Path) -> None:
    out, err = process("predict", graph, rows, before=WITHOUT).communicate()
    assert (out, err) == (unseen("predict", graph, rows).out, "")
    out, err = process("predict", model, rows, before=WITHOUT).communicate()
    assert (out, err) == (
        "",
        f"error: a folder such as {model} needs the package 'torch'; where that is installed, `unseen export {model} "
        "--onnx FILE` makes a file of it that needs onnxruntime alone\n",
    )


def test_what_is_always_needed_is_named_where_it_is_not_installed(model: Path, toy_folder: Path, tmp_path: Path) -> None:
    for words in (
        ("fit", toy_folder, tmp_path / "new"),
        ("add", model, "okapi", "striped"),
        ("export", model, "--onnx", tmp_path / "m.onnx"),
    ):
        asked = process(*words, before=WITHOUT)
        out, err = asked.communicate()
        assert (asked.returncode, out) == (1, "")
        assert err in {
            f"error: this command needs the package '{module}'; install it: pip install {PACKAGES[module]}\n"
            for module in ("torch", "scipy", "sklearn")
        }
    assert not (tmp_path / "new").exists()


def test_an_export_without_onnx_says_what_to_install(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    said = unseen("export", model, "--onnx", tmp_path / "m.onnx").refused(1)
    assert said == "an ONNX graph needs the package 'onnx'; run: pip install onnx onnxruntime"


def test_all_that_is_always_needed_has_a_name_to_install() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert sorted(PACKAGES.values()) == sorted(need.split(">=")[0] for need in project["dependencies"])


def test_other_modules_that_are_missing_are_no_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'unseen.nothing'", name="unseen.nothing")

    monkeypatch.setattr(cli, "app", missing)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(ModuleNotFoundError):
        cli.main()


def test_a_closed_standard_input_gets_one_sentence(graph: Path) -> None:
    asked = process("predict", graph, "-", preexec_fn=lambda: os.close(0))
    said = "error: standard input is closed; write rows to it, or give a file\n"
    assert (*asked.communicate(), asked.returncode) == ("", said, 1)


def test_a_stream_is_answered_as_it_comes_and_stopped_by_ctrl_c(graph: Path) -> None:
    with process("predict", graph, "-", before=WITHOUT, stdin=subprocess.PIPE, bufsize=1) as asked:
        assert asked.stdin is not None
        assert asked.stdout is not None
        for row in (0, 1):
            asked.stdin.write("1,2,3,4,5,7\n")
            asked.stdin.flush()
            assert json.loads(asked.stdout.readline())["input"] == row
        asked.send_signal(signal.SIGINT)
        out, err = asked.communicate()
        assert (out, err, asked.returncode) == ("", "stopped\n", 130)


def test_who_reads_may_go_before_the_end(graph: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((20_000, 6), np.float32))
    with process("predict", graph, tmp_path / "x.npy") as asked:
        assert asked.stdout is not None
        assert asked.stdout.readline().startswith('{"input": 0')
        asked.stdout.close()
        assert asked.wait() == 1
        assert asked.stderr is not None
        assert asked.stderr.read() == ""


PEAK = """
import atexit
from pathlib import Path

def told():
    sys.stderr.write(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

atexit.register(told)
"""
"""`ru_maxrss` would count what the parent had in memory when it began."""


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
def test_memory_does_not_grow_with_the_rows(suffix: str, tmp_path: Path) -> None:
    """Ten times the rows: 11 MiB more of numbers alone."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    known = ZeroShotClassifier("class-gaussian", settings={"gamma": 0.1}).fit(rng.normal(size=(200, 64)) + y[:, None], y)
    known.save(tmp_path / "model")
    assert unseen("export", tmp_path / "model", "--onnx", tmp_path / "m.onnx").code == 0
    x = rng.integers(-9, 9, (5_000, 64)).astype(np.float32)
    peaks = []
    for times in (1, 10):
        path = tmp_path / f"{times}.{suffix}"
        many = np.tile(x, (times, 1))
        if suffix == "npy":
            np.save(path, many)
        elif suffix == "csv":
            text = "".join(",".join(map(str, row)) + "\n" for row in x.astype(int).tolist())
            path.write_text(text * times)
        else:
            pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            pq.write_table(pa.table({f"f{k}": many[:, k] for k in range(64)}), path, row_group_size=2_500)
        del many
        asked = process("predict", tmp_path / "m.onnx", path, "--top", 1, "--out", tmp_path / "out", before=WITHOUT + PEAK)
        _, err = asked.communicate()
        assert asked.returncode == 0, err
        with (tmp_path / "out").open() as file:
            assert sum(1 for _ in file) == 5_000 * times
        peaks.append(int(err.splitlines()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 5, peaks
