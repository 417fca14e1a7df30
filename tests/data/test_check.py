"""The report: every fault planted is told with what to do, and a sound data set has nothing to act on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unseen.data import ClassTable, Dataset, Provenance, Split
from unseen.data.check import check_dataset
from unseen.data.known_splits import KnownSplit, codes_of
from unseen.errors import SettingsError

World = Callable[..., Dataset]


def test_a_sound_data_set_has_nothing_to_act_on(tiny_world: World) -> None:
    report = check_dataset(tiny_world(noise=0.3, seen=20, d=40), threshold=0.99, permutations=49)
    assert report.findings == ()
    assert report.signal is not None
    told = str(report)
    assert told.endswith("nothing to act on")
    figures = f"{100 * report.signal.accuracy:.0f} % against {100 * report.signal.by_chance:.0f} % by chance (p = 0.02, 49 perm"
    assert f"your class embeddings carry signal: {figures}" in told
    assert "24 classes with embeddings of length 6" in told
    assert "a seen class has 7 to 7 training rows, 7 in the middle" in told
    assert json.loads(json.dumps(report.facts, allow_nan=False))["signal"]["permutations"] == 49


def broken(world: Dataset) -> Dataset:
    """Duplicates across train and test, a seen class of two rows, an unseen one without any, and embeddings without sense."""
    split = world.split()
    labels, features = world.labels, world.features.copy()
    thin = int(split.seen[0])
    thin_rows = split.train[labels[split.train] == thin]
    absent = int(split.unseen[0])
    cut = replace(
        split,
        train=np.setdiff1d(split.train, thin_rows[2:]),
        test_seen=split.test_seen[labels[split.test_seen] != thin],
        test_unseen=split.test_unseen[labels[split.test_unseen] != absent],
    )
    features[cut.test_seen[0]] = features[cut.train[0]]
    features[cut.test_unseen[0]] = features[cut.train[1]] + np.float32(1e-4)
    embeddings = np.random.default_rng(9).normal(size=world.classes.embeddings.shape)
    paths = tuple(f"pictures/{row}\x1b[31m.png" for row in range(len(labels)))
    classes = replace(world.classes, embeddings=embeddings, descriptions=("a thing",) * len(world.classes))
    return replace(world, features=features, splits={"main": cut}, classes=classes, paths=paths)


def test_every_fault_is_told_with_what_to_do(tiny_world: World, tmp_path: Path) -> None:
    world = broken(tiny_world(seed=1, noise=0.3, d=40))
    split = world.split()
    first = world.classes.names[int(split.unseen[-1])]
    (tmp_path / "labels").write_text(f"hen\n{first.upper()}\n")
    report = check_dataset(world, permutations=19, backbone_classes=tmp_path / "labels")
    findings = "\n".join(report.findings)
    assert findings.count("\n") == len(report.findings) - 1
    for expected in (
        "1 test rows have exactly the features",
        "test rows are nearly like a training row",
        f"1 seen classes have fewer than 5 training rows ({world.classes.names[int(split.seen[0])]})",
        "1 seen classes have no test row",
        "1 unseen classes have no test row",
        f"1 unseen classes are among the labels that the backbone was trained with ({first})",
        "the embeddings do not predict features better than shuffled ones",
    ):
        assert expected in findings
    assert "your descriptions show no sign of signal" in report.signal_told
    told = str(report)
    assert "\x1b" not in told  # a file's name colours nobody's terminal
    assert "pictures/" in told
    facts = report.facts
    worst = facts["duplicates"]["worst"]
    assert worst[0]["test_row"] == split.test_seen[0]
    assert worst[0]["train_row"] == split.train[0]
    assert worst[0]["test"] == f"pictures/{split.test_seen[0]}\\x1b[31m.png"
    assert worst[0]["part"] == "test_seen"
    assert facts["in_backbone"]["names"] == [{"unseen": first, "label": first.upper()}]


def test_nothing_to_test_is_no_reason_to_stop(tiny: Dataset) -> None:
    split = Split.from_rows("s", tiny.labels, np.arange(6), np.array([], np.int64), np.array([], np.int64), np.array([2, 3]))
    report = check_dataset(replace(tiny, splits={"s": split}), permutations=0)
    assert report.duplicates.tested == 0
    assert [entry.by_features for entry in report.neighbours] == [(), ()]
    assert "2 unseen classes have no test row" in report.findings[-1]


def test_where_all_rows_are_alike_likeness_is_said_to_tell_nothing(tiny_world: World) -> None:
    report = check_dataset(tiny_world(noise=0.01), permutations=0)
    (finding,) = report.findings
    assert "raise --threshold" in finding


def test_closest_seen_classes_by_hand() -> None:
    """Seen: a (1, 0), b (0, 1), c (−1, −1), whose mean is 0. Unseen u (2, 1): cosines 2/√5, 1/√5 and −3/√10."""
    embeddings = np.array([[1.0, 0], [0, 1], [-1, -1], [2, 1], [0, -3]])
    labels = np.array([0, 1, 2, 0, 1, 2, 3, 3])
    features = np.array([[0, 2], [2, 0], [-2, -2], [0, 4], [4, 0], [-4, -4], [0, 5], [0, 7]], np.float16)
    split = Split.from_rows("s", labels, np.arange(6), np.array([], np.int64), np.array([6, 7]), unseen=np.array([3, 4]))
    world = Dataset("w", features, labels, ClassTable(("a", "b", "c", "u", "v"), embeddings), {"s": split})
    u, v = check_dataset(world, permutations=0).neighbours
    assert [(name, pytest.approx(cosine, abs=1e-4)) for name, cosine in (("a", 2 / 5**0.5), ("b", 1 / 5**0.5))] == list(
        u.by_embedding[:2]
    )
    assert u.by_features[0] == ("a", 1.0)  # (0, 6) and (0, 3): means of seen classes are (0, 3), (3, 0), (−3, −3)
    assert v.by_features == ()
    assert v.by_embedding[0][0] == "c"


def test_what_cannot_be_told_is_said(tiny_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(seen=4)
    report = check_dataset(world)
    assert report.signal is None
    assert report.signal_told.endswith(
        "cannot be told: 4 seen classes are too few to cut validation folds with 2 of them held out"
    )
    assert report.findings[-1].startswith(report.signal_told)
    assert "--protocol" not in str(report)
    assert "nothing to act on" not in str(report)
    assert report.backbone is None
    assert "--backbone-classes FILE" in report.backbone_told
    photographed = replace(world, provenance=Provenance(feature_extractor="x, ImageNet-1k"))
    told = check_dataset(photographed, permutations=0).backbone_told
    count = len(world.split().unseen)
    assert told == f"0 of {count} unseen classes are among its training labels (ImageNet-1k, as WordNet names its classes)"


def test_what_was_not_tested_is_not_said_to_be_well(tiny_world: World) -> None:
    report = check_dataset(tiny_world(noise=0.3, seen=20, d=40), threshold=0.99, permutations=0)
    assert report.findings == ()
    assert str(report).splitlines()[-1] == "nothing to act on, but whether the embeddings say anything was not tested"


def test_a_public_split_is_recognised_where_there_are_as_many_rows(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    known = (KnownSplit("TINY", "TINY of nowhere", codes_of(tiny.split(), 12)),)
    assert "differs from every known split" in check_dataset(tiny, permutations=0).facts["known_split"]
    assert "known split" not in str(check_dataset(tiny, permutations=0))
    monkeypatch.setattr("unseen.data.known_splits.known_splits", lambda: known)
    monkeypatch.setattr("unseen.data.check.known_splits", lambda: known)
    assert "\n  same indices as TINY of nowhere\n" in str(check_dataset(tiny, permutations=0))


def test_settings_that_cannot_work(tiny: Dataset) -> None:
    with pytest.raises(SettingsError, match=r"a cosine of 1\.5"):
        check_dataset(tiny, threshold=1.5)
    with pytest.raises(SettingsError, match="seed -1 is negative; give a whole number from 0"):
        check_dataset(tiny, seed=-1)
    with pytest.raises(SettingsError, match="-1 permutations"):
        check_dataset(tiny, permutations=-1)
    with pytest.raises(SettingsError, match="9 permutations are too few to tell anything"):
        check_dataset(tiny, permutations=9)
    with pytest.raises(SettingsError, match="has no split 'x'"):
        check_dataset(tiny, "x")


def test_a_terminal_is_told_nothing_but_text(tiny: Dataset) -> None:
    coloured = replace(tiny, provenance=Provenance(source="a\x1b[31m\nname: 3 rows"))
    assert "source: a [31m name: 3 rows" in str(coloured.describe()).splitlines()


def test_describe_counts_and_reads_no_feature(tiny: Dataset) -> None:
    described = replace(tiny, features=np.full((12, 5), np.nan, np.float16)).describe()
    (split,) = described.splits
    assert (split.seen, split.unseen, split.train, split.test_seen, split.test_unseen) == (2, 2, 4, 2, 6)
    assert split.rows_per_seen_class == (2, 2.0, 2)
    assert split.few_rows == ("ant", "bee")
    assert described.facts["groups"] == 2
    assert str(described).splitlines() == [
        "tiny: 12 rows of 5 features (float16), 4 classes in 2 groups with embeddings of length 3 and descriptions",
        "source: drawn",
        "feature extractor: none",
        "embedding source: none",
        "licence: none",
        "split only: 2 seen and 2 unseen classes, by group; 4 rows train, 2 test seen classes and 6 unseen ones",
        "  a seen class has 2 to 2 training rows, 2 in the middle",
        "  2 seen classes with fewer than 5 training rows: ant, bee",
    ]
