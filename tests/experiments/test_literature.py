"""Published results: each with source and setting, none that nobody has read, and none beside runs in another setting."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat

from unseen.data import ClassTable, Dataset, Split
from unseen.experiments.literature import TABLE, beside, published, why_none

Row = dict[str, Any]
PLAIN = "ResNet-101, not fine-tuned"
AWA2, CUB, FLO, SUN = tomllib.loads(TABLE.read_text())["benchmark"]


def fingerprint_of(benchmark: Row, embedding: int = 0) -> str:
    return str(benchmark["embeddings"][embedding]["fingerprint"])


@pytest.fixture
def awa2(row: Callable[..., Row]) -> Row:
    """A run in the commonest setting, as the reader of .mat files describes it when it is told what the features are."""
    return row(
        dataset="AWA2",
        split="att_splits-07b6030c",
        split_hash=AWA2["split"],
        embeddings_hash=fingerprint_of(AWA2),
        feature_extractor=f"{PLAIN}; res101.mat, 2048 values a picture",
        embedding_source="att of att_splits.mat, 85 values a class, as stored",
    )


# --- the table itself


def test_every_row_has_a_source_and_a_setting_that_exists() -> None:
    benchmarks = {b["name"]: {e["name"] for e in b["embeddings"]} for b in (AWA2, CUB, FLO, SUN)}
    for row in published():
        assert row.source
        assert row.selection in {"best epoch on test", "validation split", "not stated by the source"}
        assert row.features == PLAIN or row.features.startswith("ResNet-101, fine-tuned (")
        assert row.embedding in benchmarks[row.dataset]
        assert 0 < row.U < 1
        assert 0 < row.S < 1
        assert row.T1 is None or 0 < row.T1 < 1
    settings = [(r.method, r.dataset, r.features, r.embedding) for r in published()]
    assert len(set(settings)) == len(settings)


def test_U_and_S_give_the_H_that_was_printed() -> None:
    """But for rounding to a decimal; this finds slips of the sources and of whoever copies them."""
    printed = [result["H"] for group in tomllib.loads(TABLE.read_text())["published"] for result in group["results"]]
    assert len(printed) == len(published())
    for row, H in zip(published(), printed, strict=True):
        assert abs(row.H - 2 * row.U * row.S / (row.U + row.S)) < 1e-12
        assert abs(100 * row.H - H) < 0.15, row


def test_only_cada_vae_and_eszsl_did_not_choose_on_test() -> None:
    assert {r.method for r in published() if r.selection != "best epoch on test"} == {
        "CADA-VAE",
        "ESZSL",
        "ESZSL, run by others",
    }


def test_nothing_unverified_is_in_it() -> None:
    methods = {row.method.casefold() for row in published()}
    for hearsay in ("bsegn", "sddn", "gsmflow", "cramer", "genzsl"):
        assert not any(hearsay in method for method in methods)
    assert "mem" not in TABLE.read_text().split()
    cells = {(row.method, row.dataset) for row in published()}
    assert not cells & {("FREE", "SUN"), ("CE-GZSL", "SUN"), ("DFCA", "AWA2"), ("DFCA, run by others", "SUN")}
    assert not any(row.method.startswith("DFCA") and row.features == PLAIN for row in published())
    assert ("SDGZSL", "AWA2", 0.865) not in {(row.method, row.dataset, row.S) for row in published()}


def test_figures_that_were_read_in_the_sources() -> None:
    found = {(r.method, r.dataset, r.embedding, r.features): (r.T1, r.U, r.S) for r in published()}
    assert found["TF-VAEGAN", "CUB", "312 attributes", PLAIN] == pytest.approx((0.649, 0.528, 0.647))
    assert found["CE-GZSL", "CUB", "1024-d sentence embeddings", PLAIN] == pytest.approx((0.775, 0.639, 0.668))
    assert found["ESZSL, run by others", "AWA2", "85 attributes", PLAIN] == pytest.approx((0.5482, 0.0404, 0.8884))
    corrected = next(r for r in published() if (r.method, r.dataset, r.S) == ("TF-VAEGAN", "FLO", 0.925))
    assert corrected.U == 0.695
    assert corrected.note.startswith("U corrected")


# --- beside a run


def test_a_run_in_the_same_setting_has_them_beside_it(awa2: Row) -> None:
    found = beside(awa2)
    assert {row.method for row in found} >= {"f-CLSWGAN", "CADA-VAE", "f-VAEGAN-D2", "TF-VAEGAN", "FREE", "SDGZSL", "CE-GZSL"}
    assert {(row.dataset, row.features, row.embedding) for row in found} == {("AWA2", PLAIN, "85 attributes")}
    assert [row.H for row in found] == sorted((row.H for row in found), reverse=True)
    assert why_none(awa2) is None


def test_the_folder_may_have_any_name_and_the_features_any_case(awa2: Row) -> None:
    other = awa2 | {"dataset": "animals", "feature_extractor": "resnet-101,  NOT fine-tuned"}
    assert beside(other) == beside(awa2)


def test_fine_tuned_features_meet_those_of_the_same_files_alone(awa2: Row) -> None:
    found = beside(awa2 | {"feature_extractor": "ResNet-101, fine-tuned (TF-VAEGAN's files)"})
    assert [row.method for row in found] == ["TF-VAEGAN"]
    assert {row.method for row in beside(awa2 | {"feature_extractor": "ResNet-101, fine-tuned (ZeroDiff's files)"})} == {
        "ZeroDiff",
        "DFCA, run by others",
    }


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (
            {"feature_extractor": "unknown; res101.mat, 2048 values a picture"},
            r"features called \"ResNet-101, not fine-tuned\" or",
        ),
        ({"feature_extractor": "ResNet-101, fine-tuned"}, r"its own \(ResNet-101, fine-tuned\) are not known to be"),
        ({"feature_extractor": "ResNet-101, fine-tuned (files not named)"}, r"not known to be"),
        ({"feature_extractor": f"{PLAIN}; reduced, 512 values a picture"}, r"512 values a picture\) are not known"),
        ({"feature_extractor": f"a {PLAIN}"}, r"not known to be"),
        ({"feature_extractor": f"{PLAIN} but pooled otherwise"}, r"not known to be"),
        ({"embeddings_hash": "0" * 64}, r"they are with 85 attributes, which its class embedding"),
        ({"split_hash": "0" * 64}, r"they are on another split of AWA2, by its fingerprint"),
    ],
)
def test_another_or_an_unknown_setting_has_none_and_says_why(change: Row, because: str, awa2: Row) -> None:
    other = awa2 | change
    assert beside(other) == []
    assert re.search(because, why_none(other) or "")


def test_of_other_data_there_is_nothing_to_say(row: Callable[..., Row]) -> None:
    assert beside(row()) == []
    assert why_none(row()) is None


def test_sentences_and_attributes_of_cub_are_kept_apart(awa2: Row) -> None:
    cub = awa2 | {"dataset": "CUB", "split_hash": CUB["split"], "embeddings_hash": "unknown"}
    attributes = beside(cub | {"embedding_source": "att of att_splits.mat, 312 values a class, as stored"})
    sentences = beside(cub | {"embeddings_hash": fingerprint_of(CUB, 1), "embedding_source": "312 attributes"})
    assert {row.embedding for row in attributes} == {"312 attributes"}
    assert {row.embedding for row in sentences} == {"1024-d sentence embeddings"}
    assert "CE-GZSL" in {row.method for row in sentences}
    assert beside(cub | {"embedding_source": "att of sent_splits.mat, 1024 values a class, as stored"}) == []
    named = beside(cub | {"embedding_source": "312 attributes; l2-normalised"})
    assert named == attributes


def test_fingerprints_are_those_of_the_real_split_files(shared_data: Path) -> None:
    labels = {
        "AWA2": "xlsa17-splits/AWA2/labels.npy",
        "CUB": "xlsa17-splits/CUB/labels_reconstructed_allclasses_order.npy",
        "SUN": "xlsa17-splits/SUN/labels_reconstructed.npy",
        "FLO": "xlsa17-splits/FLO/labels_reconstructed.npy",
    }
    for benchmark in (AWA2, CUB, FLO, SUN):
        (file,) = (shared_data / "xlsa17-splits" / benchmark["name"]).glob("*.mat")
        table = loadmat(file)
        of_rows = np.load(shared_data / labels[benchmark["name"]]).ravel().astype(np.int64) - 1
        rows = (table[key].ravel().astype(np.int64) - 1 for key in ("trainval_loc", "test_seen_loc", "test_unseen_loc"))
        split = Split.from_rows("", of_rows, *rows)
        embeddings = np.ascontiguousarray(table["att"].T)
        names = tuple(map(str, range(len(embeddings))))
        data = Dataset(benchmark["name"], np.zeros((1, 1)), of_rows, ClassTable(names, embeddings), {"": split})
        assert split.fingerprint == benchmark["split"]
        assert data.embeddings_fingerprint in {entry.get("fingerprint") for entry in benchmark["embeddings"]}
