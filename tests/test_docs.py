"""What the documents show is what the commands print, and the commands in them work."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from commands import unseen

from unseen import open_dataset

ROOT = Path(__file__).parents[1]


def load(path: str) -> ModuleType:
    """A script of the repository, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_shows_what_the_demo_printed() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = json.loads((ROOT / "docs" / "demo.json").read_text())
    assert [row["method"] for row in rows] == ["eszsl", "class-gaussian", "tfvaegan"]
    assert load("tools/readme.py").with_block(readme, rows) == readme


def test_readme_begins_with_the_two_commands() -> None:
    first = re.search(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert first is not None
    assert first.group(1) == "make demo\nmake test\n"


@pytest.mark.parametrize(
    ("script", "page"), [("benchmarks/comparison.py", "results.md"), ("benchmarks/fold_study.py", "tried.md")]
)
def test_results_pages_are_written_from_the_stored_rows(script: str, page: str, tmp_path: Path) -> None:
    load(script).write_page(tmp_path / page)
    assert (tmp_path / page).read_text() == (ROOT / "docs" / page).read_text()


def test_pages_of_words_and_the_table_of_runs_are_written_from_the_stored_rows(tmp_path: Path) -> None:
    script = load("benchmarks/comparison.py")
    readme = (ROOT / "README.md").read_text()
    (tmp_path / "README.md").write_text(re.sub(r"(<!-- results -->).*(<!-- /results -->)", r"\1\2", readme, flags=re.DOTALL))
    script.write_words(tmp_path, tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == readme
    (tmp_path / "README.md").unlink()
    script.write_table(tmp_path / "results.csv")
    assert sorted(page.name for page in tmp_path.iterdir()) == ["claims.md", "results.csv", "which-method.md"]
    for page in tmp_path.iterdir():
        assert page.read_text() == (ROOT / "docs" / page.name).read_text()


@pytest.mark.parametrize(("language", "file"), [("toml", "pyproject.toml"), ("python", "own_method.py")])
def test_the_how_to_shows_the_example_that_is_tested(language: str, file: str) -> None:
    page = (ROOT / "docs" / "how-to" / "add-a-method.md").read_text()
    assert f"\n```{language}\n{(ROOT / 'examples' / 'own_method' / file).read_text()}```\n" in page


def test_the_data_set_of_the_first_page_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python writes a data set, and the commands after it find in it what chance does not."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "index.md").read_text().partition("## With your own data")[2]
    code = re.search(r"```python\n(.*?)```\n\n```console\n(.*?)```", text, re.DOTALL)
    assert code is not None
    exec(compile(code.group(1), "docs/index.md", "exec"), {})
    said = [unseen(*shlex.split(line)[1:]) for line in code.group(2).splitlines()]
    assert "12 classes" in said[0].out
    for method in ("class-gaussian", "tfvaegan"):
        result = json.loads((tmp_path / "runs" / f"mine-first-{method}-blind-seed0" / "result.json").read_text())
        assert result["T1"] > result["chance_T1"], method


@pytest.mark.filterwarnings("ignore::UserWarning")  # what a format has no place for
def test_the_page_on_formats_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands, its Python and its two tables."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "how-to" / "formats.md").read_text()
    blocks = re.findall(r"^```(console|python|text)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks] == ["console", "text", "python", "text", "text"]
    assert "".join(unseen(*shlex.split(line)[1:]).out for line in blocks[0][1].splitlines()) == blocks[1][1]
    exec(compile(blocks[2][1], "docs/how-to/formats.md", "exec"), {})
    assert capsys.readouterr().out == blocks[3][1]
    (tmp_path / "tables").mkdir()
    names, _, *lines = blocks[4][1].splitlines()
    for k, name in enumerate(names.split()):
        (tmp_path / "tables" / name).write_text("\n".join(line.split()[k] for line in lines))
    assert [data.classes.names[i] for data in [open_dataset("tables")] for i in data.split().unseen] == ["cat"]
