"""The example with features that are no pictures: its commands, as its page has them, recognise chords nobody has played."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from unseen import cli, open_dataset
from unseen.report import assemble

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "own_table"


def test_unseen_chords_are_recognised_from_their_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "write_report", lambda path, *_: path)  # drawing the page takes longer than all the rest
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    console = re.search(r"```console\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert console is not None
    first, *commands = console.group(1).splitlines()
    for out in ("runs/again", None):  # the second time as the page has it
        words = shlex.split(first)[1:]
        done = subprocess.run([sys.executable, *words[:1], out or words[1]], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    for name in ("chords.csv", "takes.csv"):
        assert Path("runs/again", name).read_bytes() == Path("runs/chords", name).read_bytes()
    for line in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        cli.main()
    data = open_dataset("runs/chords/data")
    table = data.classes
    assert (data.features.shape, table.embeddings.shape) == ((480, 36), (24, 12))
    assert table.names[0] == "C major"
    assert list(table.embeddings[0]) == [1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    assert (table.embeddings.sum(axis=1) == 3).all()
    row = json.loads(Path("runs/chords/run/result.json").read_text())
    assert (row["seen_classes"], row["unseen_classes"]) == (18, 6)
    assert row["embedding_source"].startswith("12 attributes as they are: ")
    assert row["T1"] > 0.75
    assert row["H"] > 0.65
    assert row["chance_T1"] == pytest.approx(1 / 6)


def test_mistakes_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, code, said in (((), 2, "usage: "), ((tmp_path / "file" / "below",), 1, "cannot write ")):
        words = [sys.executable, FOLDER / "make_tables.py", *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1
