"""Methods of other distributions: found by entry point, imported only when asked for, and harmless when broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unseen.data import Dataset
from unseen.errors import DataError, SettingsError
from unseen.evaluation.protocol import Task, Watch
from unseen.experiments.grid import Grid, expand
from unseen.methods import METHODS, ClosedForm, all_methods, find_method
from unseen.methods.installed import supplied_by
from unseen.methods.prototype import Prototype
from unseen.recipe import Recipe
from unseen.runs import describe, evaluate, run_in_folder

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_method"
GLIDER = """
from unseen.methods import ClosedForm
from unseen.methods.prototype import Prototype
ENTRY = ClosedForm("glider", "a [/b] glider", Prototype)
"""
BEFORE = all_methods()
"""Ours, and what may be installed here."""
Install = Callable[..., Path]


def declare(site: Path, distribution: str, version: str, points: str) -> None:
    """What an installer leaves of a distribution's metadata."""
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(points)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a module and the distribution that declares a method in it, for the length of a test."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(
        text: str = GLIDER, points: str = "glider = wings:ENTRY", distribution: str = "my-wings", site: Path = tmp_path
    ) -> Path:
        declare(site, distribution, "1.2", f"[unseen.methods]\n{points}\n")
        (site / "wings.py").write_text(text)
        return site

    yield install
    sys.modules.pop("wings", None)


def only_noted(wanted: str) -> None:
    """Listing leaves ours and gives this note."""
    with warnings.catch_warnings(record=True, action="always") as noted:
        assert all_methods() == BEFORE
    assert [str(note.message) for note in noted] == [wanted]


def test_an_installed_method_is_found_listed_after_ours_and_named_with_its_version(install: Install) -> None:
    install(
        points="glider = wings:ENTRY\nballoon = wings:BALLOON", text=GLIDER + "BALLOON = ClosedForm('balloon', 'B', Prototype)"
    )
    assert find_method("glider") == ClosedForm("glider", "a [/b] glider", Prototype)
    assert list(all_methods()) == [*METHODS, *sorted({"balloon", "glider", *BEFORE} - METHODS.keys())]
    assert supplied_by("glider") == {"my-wings": "1.2"}
    assert supplied_by("eszsl") == {}
    assert supplied_by("nowhere") == {}


def test_nothing_is_imported_for_ours_nor_for_a_name_that_nobody_has(install: Install) -> None:
    install()
    assert find_method("eszsl") is METHODS["eszsl"]
    with pytest.raises(SettingsError, match=r"^there is no method 'glide'; there are eszsl, .*tfvaegan, .*glider\b"):
        find_method("glide")
    assert "wings" not in sys.modules


@pytest.mark.parametrize(
    ("text", "value", "sentence"),
    [
        ("import no_such_thing", "wings:ENTRY", "cannot be loaded (ModuleNotFoundError: No module named 'no_such_thing')"),
        ("raise OSError('one\\ntwo')", "wings:ENTRY", "cannot be loaded (OSError: one)"),
        ("import sys; sys.exit()", "wings:ENTRY", "cannot be loaded (SystemExit: no reason given)"),
        ("ENTRY =", "wings:ENTRY", "cannot be loaded (SyntaxError: invalid syntax (wings.py, line 1))"),
        ("", "wings:ENTRY", "cannot be loaded (AttributeError: module 'wings' has no attribute 'ENTRY')"),
        ("", "no one", "cannot be loaded (AttributeError: "),
        ("ENTRY = 3", "wings:ENTRY", "is of type int (wings:ENTRY); name a Generative or a ClosedForm in its entry point"),
        (GLIDER, "wings:ClosedForm", "is of type type (wings:ClosedForm); name a Generative"),
        (GLIDER.replace("glider", "kite"), "wings:ENTRY", "calls itself 'kite'; give entry point and entry one name"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_a_note_when_listed(
    install: Install, text: str, value: str, sentence: str
) -> None:
    install(text, f"glider = {value}")
    with pytest.raises(SettingsError) as caught:
        find_method("glider")
    said = str(caught.value)
    assert said.startswith(f"method 'glider' supplied by my-wings 1.2 {sentence}")
    assert "\n" not in said
    only_noted(said)


@pytest.mark.parametrize("name", ["../glider", "a glider", "*", ".", "-g", "Ä"])
def test_a_name_that_cannot_be_part_of_a_path_is_refused_unseen(install: Install, name: str) -> None:
    install(points=f"{name} = wings:ENTRY")
    sentence = f"my-wings 1.2 calls a method '{name}'; a name has letters, digits, '-', '_', '.' only; rename it"
    with pytest.raises(SettingsError) as caught:
        find_method(name)
    assert str(caught.value) == sentence
    only_noted(sentence)
    assert "wings" not in sys.modules


def test_ours_cannot_be_replaced(install: Install) -> None:
    install(points="eszsl = wings:ENTRY")
    assert find_method("eszsl") is METHODS["eszsl"]
    only_noted("the method 'eszsl' supplied by my-wings 1.2 is not used: one of ours has that name; rename it")
    assert "wings" not in sys.modules
    with pytest.raises(SettingsError) as caught:
        find_method("glider")
    assert str(caught.value).count("eszsl") == 1


def test_two_distributions_with_one_name_are_both_refused(install: Install) -> None:
    install()
    install(distribution="your-wings")
    sentence = "method 'glider' is supplied by my-wings 1.2 and by your-wings 1.2; uninstall all but one of them"
    with pytest.raises(SettingsError) as caught:
        find_method("glider")
    assert str(caught.value) == sentence
    only_noted(sentence)


def test_a_distribution_that_lies_twice_on_the_path_counts_once(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    monkeypatch.syspath_prepend(install(site=tmp_path / "again"))
    assert all_methods().keys() == {*BEFORE, "glider"}


def test_damaged_metadata_of_whichever_package_spare_ours(install: Install, tmp_path: Path) -> None:
    install()
    declare(tmp_path, "other", "1", "[console_scripts]\nother\n")
    with pytest.raises(
        SettingsError, match=r"^no method but ours can be found, because .* are damaged \(.*\); install it again$"
    ):
        find_method("glider")
    with pytest.warns(UserWarning, match="are damaged"):
        assert all_methods() == METHODS
    assert supplied_by("glider") == {}


def test_a_run_says_who_supplied_its_method_and_when_that_is_gone(install: Install, toy: Dataset, tmp_path: Path) -> None:
    site = install()
    entry = find_method("glider")
    task = Task(toy, "first", entry, Prototype(), Recipe(centred=True), "default", "fixed", 0)
    run = tmp_path / "run"
    row = run_in_folder(task, run, describe(task, "toy", "a command"), False, Watch()).row
    assert (row["method"], row["versions"]["my-wings"]) == ("glider", "1.2")
    assert json.loads((run / "result.json").read_text())["versions"] == row["versions"]
    assert evaluate(run, toy).row["H"] == row["H"]
    shutil.rmtree(site / "my_wings-1.2.dist-info")
    with pytest.raises(DataError, match=rf"^the run in {run} cannot be scored: there is no method 'glider'; there are eszsl"):
        evaluate(run, toy)


def test_a_benchmark_reuses_no_result_of_another_version(install: Install, toy_folder: Path) -> None:
    site = install()
    [choice, run] = expand(Grid(("glider",), (str(toy_folder),)), "")
    (site / "my_wings-1.2.dist-info").rename(site / "my_wings-1.3.dist-info")
    metadata = site / "my_wings-1.3.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.2", "1.3"))
    later = expand(Grid(("glider",), (str(toy_folder),)), "")
    assert [job.description["versions"]["my-wings"] for job in (choice, run, *later)] == ["1.2", "1.2", "1.3", "1.3"]
    assert {choice.id, run.id}.isdisjoint(job.id for job in later)


def test_a_fresh_process_lists_and_trains_the_example(toy_folder: Path, tmp_path: Path) -> None:
    """As its pyproject.toml declares it, beside a distribution that is broken."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    points = "\n".join(f"{name} = {value}" for name, value in project["entry-points"]["unseen.methods"].items())
    declare(tmp_path, project["name"], project["version"], f"[unseen.methods]\n{points}\n")
    shutil.copy(EXAMPLE / "own_method.py", tmp_path)
    declare(tmp_path, "broken", "3", "[unseen.methods]\nalchemy = no_such_module:ENTRY\n")
    settings = ["--set", "steps=4", "--set", "hidden=8", "--set", "batch_size=16"]
    commands = [
        ["methods", "--json"],
        [
            "train",
            str(toy_folder),
            "--method",
            "cvae",
            "--protocol",
            "fixed",
            *settings,
            "--out",
            str(tmp_path / "run"),
            "--json",
        ],
        ["evaluate", str(tmp_path / "run"), "--json"],
        ["methods"],
    ]
    program = (
        "import sys, json\nfrom unseen.cli import main\nsys.modules['jinja2'] = None  # no page\n"
        "for words in json.loads(sys.argv[1]):\n    sys.argv = ['unseen', *words]\n    main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    listed, row, again = (json.loads(line) for line in done.stdout.splitlines()[:3])
    assert [entry["name"] for entry in listed[: len(METHODS)]] == list(METHODS)
    [cvae] = [entry for entry in listed if entry["name"] == "cvae"]
    assert cvae == {
        "name": "cvae",
        "title": "conditional VAE",
        "kind": "generative",
        "presets": [],
        "presets_from": None,
        "presets_inferred": [],
        "supplied_by": {"own-method": "0.1"},
    }
    assert listed[0]["supplied_by"].keys() == {"unseen"}
    assert (row["method"], row["steps"], row["versions"]["own-method"]) == ("cvae", 4, "0.1")
    assert all(again[figure] == row[figure] for figure in ("T1", "U", "S", "H", "AUSUC"))
    assert ["cvae", "conditional", "VAE", "generative", "own-method", "0.1"] in map(str.split, done.stdout.splitlines())
    notes = [line for line in done.stderr.splitlines() if "alchemy" in line]
    assert notes[0].startswith("note: method 'alchemy' supplied by broken 3 cannot be loaded (ModuleNotFoundError: ")
