"""Data sets from NumPy and pandas: what goes in comes out, mapped files are not copied, and each misfit gets its sentence."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unseen.data import ClassTable, Dataset, Provenance, Split
from unseen.data.class_file import Classes, save_classes
from unseen.errors import DataError, SettingsError, UnseenError

NAMES = ("ant", "bee", "cat", "dog", "elk")
EMBEDDINGS = np.random.default_rng(0).normal(size=(5, 3))
TABLE = ClassTable(NAMES, EMBEDDINGS)
LABELS = np.repeat(np.arange(5), 4)
FEATURES = np.random.default_rng(1).random((20, 6))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_arrays_stay_what_they_are(kind: type) -> None:
    given = FEATURES.astype(kind)
    for y in (LABELS, [NAMES[i] for i in LABELS], np.array(NAMES)[LABELS], pd.Series(pd.Categorical.from_codes(LABELS, NAMES))):
        data = Dataset.from_arrays(given, y, TABLE, seed=4)
        assert data.features is given
        np.testing.assert_array_equal(data.labels, LABELS)
        assert list(data.splits) == ["random0"]
        assert len(data.split().unseen) == 1


def test_whole_numbers_become_float32() -> None:
    for whole in (np.arange(120).reshape(20, 6) * 1001, pd.DataFrame(np.arange(120).reshape(20, 6) * 1001)):
        data = Dataset.from_arrays(whole, LABELS, TABLE)
        assert data.features.dtype == np.float32
        assert data.features[19, 5] == 119 * 1001  # which float16 does not hold


def test_a_mapped_file_is_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", FEATURES.astype(np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    data = Dataset.from_arrays(mapped, LABELS, TABLE)
    assert data.features is mapped


def test_classes_in_every_way(tmp_path: Path) -> None:
    save_classes(Classes(TABLE, "an encoder"), tmp_path / "made")
    (tmp_path / "a.csv").write_text(
        "name,x,y,z\n" + "".join(f"{n},{e[0]!r},{e[1]!r},{e[2]!r}\n" for n, e in zip(NAMES, EMBEDDINGS.tolist(), strict=True))
    )
    frame = pd.DataFrame(EMBEDDINGS, index=list(NAMES), columns=["x", "y", "z"])
    frame["group"] = ["small", "small", "big", "big", "big"]
    ways: list[Any] = [
        TABLE,
        Classes(TABLE, "s"),
        tmp_path / "made",
        str(tmp_path / "a.csv"),
        dict(zip(NAMES, EMBEDDINGS.tolist(), strict=True)),
        frame,
    ]
    for way in ways:
        data = Dataset.from_arrays(FEATURES, LABELS, way)
        assert data.classes.names == NAMES
        np.testing.assert_array_equal(data.classes.embeddings, EMBEDDINGS)
    assert data.classes.groups == ("small", "small", "big", "big", "big")
    assert Dataset.from_arrays(FEATURES, LABELS, tmp_path / "made").provenance.embedding_source == "an encoder"


def test_descriptions_are_embedded_by_the_packaged_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    from unseen.encoders.text import TextEncoder

    asked: list[str] = []

    def encode(self: TextEncoder, texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return EMBEDDINGS.astype(np.float32)

    monkeypatch.setattr(TextEncoder, "encode", encode)
    texts = {"ant": "small", "bee": "", "cat": "soft", "dog": "loud", "elk": "large"}
    data = Dataset.from_arrays(FEATURES, LABELS, texts)
    assert asked == ["ant. small", "bee", "cat. soft", "dog. loud", "elk. large"]
    assert data.classes.descriptions == tuple(texts.values())
    assert data.provenance.embedding_source.startswith("all-MiniLM-L6-v2")


def test_pandas_rows_have_to_belong_together() -> None:
    x = pd.DataFrame(FEATURES, index=np.arange(100, 120)).assign(count=1)
    y = pd.Series(np.array(NAMES)[LABELS], index=np.arange(100, 120))
    data = Dataset.from_arrays(x, y, TABLE)
    np.testing.assert_array_equal(data.features, np.column_stack([FEATURES, np.ones(20)]))
    with pytest.raises(DataError, match=r"different indexes.*y\.loc\[X\.index\]"):
        Dataset.from_arrays(x, y.sort_values(ascending=False), TABLE)


def test_a_missing_text_of_a_frame_is_no_text() -> None:
    frame = pd.DataFrame(EMBEDDINGS, index=list(NAMES)).assign(description=["small", None, np.nan, pd.NA, "large"])
    assert Dataset.from_arrays(FEATURES, LABELS, frame).classes.descriptions == ("small", "", "", "", "large")


def test_own_splits_and_paths_and_provenance(tmp_path: Path) -> None:
    own = Split.from_rows("mine", LABELS, np.arange(0, 12, 2), np.arange(1, 12, 2), np.arange(12, 20))
    told = Provenance(source="a field trip", licence="CC0")
    paths = [f"{row}.jpg" for row in range(20)]
    data = Dataset.from_arrays(FEATURES, LABELS, TABLE, splits=[own], paths=paths, provenance=told, name="insects")
    assert data.splits == {"mine": own}
    assert (data.name, data.provenance, data.paths) == ("insects", told, tuple(paths))
    data.save(tmp_path / "x")
    assert Dataset.load(tmp_path / "x").paths == tuple(paths)
    with pytest.raises(DataError, match="row 19 has label 'fox', which is no class"):
        Dataset.from_arrays(FEATURES, [*np.array(NAMES)[LABELS[:-1]], "fox"], TABLE, splits=[own])


def test_splits_as_asked_for_in_python() -> None:
    assert len(Dataset.from_arrays(FEATURES, LABELS, TABLE, unseen=2).split().unseen) == 2
    assert len(Dataset.from_arrays(FEATURES, LABELS, TABLE, unseen=0.4).split().unseen) == 2
    named = Dataset.from_arrays(FEATURES, LABELS, TABLE, split="list", unseen=["elk", "bee"])
    assert named.split("list").unseen.tolist() == [1, 4]
    rollout = Dataset.from_arrays(FEATURES, LABELS, TABLE, split="rollout", unseen=["elk", "bee", "ant"])
    assert [s.unseen.tolist() for s in rollout.splits.values()] == [[4], [1, 4], [0, 1, 4]]


def test_notes_are_warnings() -> None:
    with pytest.warns(UserWarning, match="1 classes have no row of features: 'elk'"):
        Dataset.from_arrays(FEATURES[:16], LABELS[:16], TABLE)


@pytest.mark.parametrize(
    ("x", "y", "classes", "sentence"),
    [
        (FEATURES, LABELS[:-1], TABLE, "20 rows of features but 19 labels"),
        (FEATURES[0], LABELS, TABLE, r"shape \(6,\)"),
        (FEATURES.astype(complex), LABELS, TABLE, "dtype complex128"),
        (pd.DataFrame(FEATURES).assign(word="x"), LABELS, TABLE, "something else than numbers"),
        (np.where(FEATURES > 0.99, np.nan, FEATURES) * np.nan, LABELS, TABLE, "features hold nan in row 0, column 0"),
        (FEATURES, LABELS + 1, TABLE, "row 16 has label 5, but there are 5 classes"),
        (FEATURES, LABELS.astype(float), TABLE, "y has dtype float64"),
        (FEATURES, LABELS[:, None], TABLE, r"y has shape \(20, 1\)"),
        (FEATURES, [None, *np.array(NAMES)[LABELS[1:]]], TABLE, "row 0 has None"),
        (FEATURES, ["ox", *np.array(NAMES)[LABELS[1:]]], TABLE, "no class is named: 'ox'"),
        (FEATURES, LABELS, EMBEDDINGS, "classes are given as ndarray"),
        (FEATURES, LABELS, {"a": [1, 2], "b": [1]}, "not numbers of one length"),
        (FEATURES, LABELS, ClassTable(("a", "A"), np.eye(2)), "same name once case"),
        (FEATURES, LABELS, "nowhere.csv", "does not exist"),
    ],
)
def test_every_misfit_gets_one_sentence(x: Any, y: Any, classes: Any, sentence: str) -> None:
    with warnings.catch_warnings(), pytest.raises(UnseenError, match=sentence) as told:
        Dataset.from_arrays(x, y, classes)
    assert "--" not in str(told.value)  # no option of a command


def test_a_negative_seed_is_a_sentence() -> None:
    with pytest.raises(SettingsError, match="seed -1 is negative"):
        Dataset.from_arrays(FEATURES, LABELS, TABLE, seed=-1)


def test_a_folder_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an encoder that answers a picture's mean colour; the real one is tested where it is."""
    from PIL import Image

    from unseen.encoders.images import ImageEncoder

    def colour(self: ImageEncoder, stacked: np.ndarray) -> np.ndarray:
        return np.tile(128 * stacked.mean(axis=(2, 3)) + 127, (1, 427))[:, :1280]

    monkeypatch.setattr(ImageEncoder, "load", lambda self: None)
    monkeypatch.setattr(ImageEncoder, "pooled", colour)
    for i, name in enumerate(NAMES):
        (tmp_path / "zoo" / name / "deep").mkdir(parents=True)
        for k, place in enumerate(("a.PNG", "b.jpg", "deep/c.webp")):
            Image.new("RGB", (4, 4), (40 * i, 60 * k, 0)).save(tmp_path / "zoo" / name / place)
        (tmp_path / "zoo" / name / "notes.txt").write_text("no picture")
        (tmp_path / "zoo" / name / ".hidden.png").write_text("no picture")
    with pytest.warns(UserWarning, match="left out") as told:
        data = Dataset.from_folder(tmp_path / "zoo", TABLE, seed=1)
    said = [str(warning.message) for warning in told]  # of each of five classes the notes and what is hidden
    assert len(said) == 6
    assert said[-1] == "left out: 5 more; `unseen features` keeps the whole list, in skipped.csv"
    assert data.name == "zoo"
    assert data.paths == tuple(f"{name}/{place}" for name in NAMES for place in ("a.PNG", "b.jpg", "deep/c.webp"))
    assert data.labels.tolist() == np.repeat(np.arange(5), 3).tolist()
    np.testing.assert_allclose(data.features[3, :3], [40, 0, 0], atol=2)
    assert data.provenance.feature_extractor == ImageEncoder.description
    for folder, sentence in (("none", "cannot be opened"), ("zoo/ant/deep", "no picture")):
        with warnings.catch_warnings(), pytest.raises(DataError, match=sentence):
            Dataset.from_folder(tmp_path / folder, TABLE)
