"""`unseen embed`, as typed: what it prints, what it leaves in the folder, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Said, unseen

from unseen.data.class_file import load_classes


def embed(*words: object) -> Said:
    """Type the command."""
    return unseen("embed", *words)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    path = tmp_path / "animals.csv"
    path.write_text("name,description,group,legs,mass\n[red]cow,moos,farm,4,700\nhen,clucks,farm,2,2\n")
    return path


def test_attributes_become_a_folder_that_can_be_loaded(animals: Path, tmp_path: Path) -> None:
    code, out, err = embed(animals, "--encoder", "attributes", "--out", tmp_path / "made")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "2 classes with embeddings of length 2",
        "made by: 2 attributes as they are: legs, mass",
        f"embeddings: {tmp_path / 'made'}",
    ]
    made = load_classes(tmp_path / "made")
    assert (made.table.names, made.table.groups) == (("[red]cow", "hen"), ("farm", "farm"))
    np.testing.assert_array_equal(made.table.embeddings, [[4, 700], [2, 2]])


@pytest.mark.filterwarnings("ignore:columns not used")
def test_prompts_and_vectors_as_typed(animals: Path, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("red 0 0 1\ncow 1 0 0\nhen 0 1 0\nfarm 0 0 2\n")
    typed = ("--encoder", f"vectors:{tmp_path / 'v.txt'}", "--prompt", "{name}", "--prompt", "{group} {name}")
    code, out, err = embed(animals, *typed, "--out", tmp_path / "made", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["classes"], said["embedding_length"], said["embeddings"]) == (2, 3, str(tmp_path / "made"))
    made = load_classes(tmp_path / "made")
    assert said["encoder"] == made.encoder
    assert said["source"] == made.source
    mean = np.array([0, 1, 0]) + np.array([0, 1, 2]) / 5**0.5
    np.testing.assert_allclose(made.table.embeddings[1], mean / np.linalg.norm(mean), rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--encoder", "best"), 2, "there is no encoder 'best'"),
        (("--prompt", "hello"), 2, "needs columns in braces"),
        (("--encoder", "vectors:nowhere.txt"), 1, "'nowhere.txt' cannot be read (No such file"),
        (("--encoder", "attributes", "--weights", "x"), 2, "leave out --prompt and --weights"),
    ],
)
@pytest.mark.filterwarnings("ignore:columns not used")
def test_mistakes_get_one_sentence_and_leave_nothing(
    animals: Path, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    got, out, err = embed(animals, *words, "--out", tmp_path / "made")
    [line] = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert (got, out) == (code, "")
    assert line.startswith("error: ")
    assert sentence in line
    assert not (tmp_path / "made").exists()


def test_other_embeddings_are_not_replaced(animals: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    assert embed(animals, "--encoder", "attributes", "--out", out)[0] == 0
    before = (out / "classes.json").read_bytes()
    assert embed(animals, "--encoder", "attributes", "--out", out)[0] == 0  # the same again
    animals.write_text(animals.read_text().replace("700", "701"))
    code, said, err = embed(animals, "--encoder", "attributes", "--out", out)
    assert (code, said) == (1, "")
    assert err == f"error: {out} holds other embeddings; choose another name or remove it, nothing was written\n"
    assert (out / "classes.json").read_bytes() == before


def test_a_folder_of_someone_elses_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    code, _, err = embed(tmp_path / "nowhere.csv", "--encoder", "attributes", "--out", tmp_path / "mine")  # told first
    assert code == 1
    assert "exists and holds something else" in err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
