"""A backbone's own labels: ImageNet's, which come with the package, or from the user's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from unseen.data.backbone import IMAGENET, imagenet_names, names_from, saw_imagenet
from unseen.errors import DataError


def test_imagenet_has_a_thousand_classes_with_synonyms() -> None:
    assert len(IMAGENET.read_text(encoding="utf-8").splitlines()) == 1000
    assert imagenet_names().among(["TINCA-tinca", "Granny Smiths", "market", "okapi", "Bell_Pepper"]) == [
        ("TINCA-tinca", "Tinca tinca"),
        ("Granny Smiths", "Granny Smith"),
        ("market", "market"),
        ("Bell_Pepper", "bell pepper"),
    ]


def test_a_file_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "labels.txt").write_text("red apple, apple\n\nglass\n", encoding="utf-8-sig")
    names = names_from(tmp_path / "labels.txt")
    assert names.among(["Apples", "red_apple", "glas", "pear"]) == [("Apples", "apple"), ("red_apple", "red apple")]
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    monkeypatch.setattr("unseen.storage.LONGEST_LIST", 20)
    for name, sentence in (("none", "cannot be read"), ("bytes", "not text in UTF-8"), ("labels.txt", "no list of names is")):
        with pytest.raises(DataError, match=sentence):
            names_from(tmp_path / name)


def test_which_encoders_saw_imagenet() -> None:
    assert saw_imagenet("EfficientNet-Lite0, ImageNet-1k, package …")
    assert saw_imagenet("timm vit_base_patch16_224.augreg_in1k")
    assert saw_imagenet("ResNet-101 of the benchmark")
    assert not saw_imagenet("open_clip ViT-B-32")
    assert not saw_imagenet("unknown")
