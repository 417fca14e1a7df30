"""Word vectors: looked up as the rules say, streamed, and every file that is none is told so."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from unseen import DataError
from unseen.encoders.word_vectors import WordVectors

GLOVE = "the 0 0 1\nred 3 0 4\nhot 1 0 0\ndog 0 2 0\nhot-dog 0 0 5\nDog 0 -1 0\n. . . 9 9 9\ndog 8 8 8\no'clock 1 1 0\n"


def vectors(folder: Path, content: str | bytes = GLOVE) -> WordVectors:
    path = folder / "vectors.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return WordVectors(path)


@pytest.mark.parametrize("header", ["", "9 3\n", "9 3 \r\n"])
def test_words_are_averaged_and_brought_to_length_one(tmp_path: Path, header: str) -> None:
    texts = ["red", "hot dog", "hot_dog", "Hot dog!", "hot-dog", "Dog", "DOG", "Red-hot", "o'clock", "red"]
    made = vectors(tmp_path, header + GLOVE).encode(texts)
    expected = [[3, 0, 4], [1, 2, 0], [1, 2, 0], [1, 2, 0], [0, 0, 1], [0, -1, 0], [0, 1, 0], [4, 0, 4], [1, 1, 0], [3, 0, 4]]
    np.testing.assert_allclose(made, [np.array(row) / np.linalg.norm(row) for row in expected], rtol=1e-6)
    assert made.dtype == np.float32


def test_all_names_that_lack_a_vector_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        vectors(tmp_path).encode(["hot dog", "hot cat", "hot-cow", "日本", "!!"])
    assert "no vector for words of 4 of 5 texts: 'hot cat' (cat), 'hot-cow' (hot-cow), '日本' (日本), '!!' (no word" in str(
        caught.value
    )
    with pytest.raises(DataError, match=r"of 30 of 30 texts.* and 20 more; rename"):
        vectors(tmp_path).encode([f"x{k}" for k in range(30)])


def test_the_fingerprint_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    one = vectors(tmp_path)
    before = one.fingerprint
    other = tmp_path / "other.txt"
    other.write_text(GLOVE)
    assert WordVectors(other).fingerprint == before
    assert vectors(tmp_path, GLOVE + "cat 1 1 1\n").fingerprint != before
    assert str(tmp_path) not in one.description


def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    line = b" 0.125" * 300
    with path.open("wb") as file:
        file.writelines(b"w%d%s\n" % (k, line) for k in range(10_000))
    assert path.stat().st_size > 18_000_000
    tracemalloc.start()
    made = WordVectors(path).encode(["w9999"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(made, 300**-0.5, rtol=1e-6)
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n", "line 1 of .* is not a word with its numbers"),
        (b"<html> <body> x\n", "line 1 of .* is not a word with 2 numbers"),
        (b"red 1 2\nblue 1\n", "line 2 of .* is not a word with 2 numbers"),
        (b"a 1 2\nb 1 2\nred 1 2 x\n", "line 3 of .* is not a word with 2 numbers"),
        (b"a 1 2\nb 1 2\nred 1\n", "line 3 of .* is not a word with 2 numbers"),
        (b"red 1 nan\n", "line 1 of .* holds NaN or infinity for 'red'"),
        (b"3000000 300\n</s> " + bytes(range(256)) * 8, "line 2 of .* is not a word with 300 numbers"),
        (b"\x1f\x8b" + b"\1" * 2**21, "has a line of 1,048,576 bytes or more"),
        (b"red 0 0\n", "are all zero or cancel out"),
        (b"9 99999999999999999999\nred 1\n", "line 2 of .* is not a word with 99999999999999999999 numbers"),
    ],
    ids=range(11),
)
def test_what_is_no_such_file_is_told(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        vectors(tmp_path, content).encode(["red"])


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for ask in (lambda v: v.encode(["a"]), lambda v: v.fingerprint):
        with pytest.raises(DataError, match=r"none\.txt' cannot be read \(No such file"):
            ask(WordVectors(tmp_path / "none.txt"))
