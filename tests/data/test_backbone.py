"""A backbone's own labels: read from packages that have them without importing these, or from the user's file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unseen.data.backbone import imagenet_names, names_from, saw_imagenet
from unseen.errors import DataError

BOMB = "raise RuntimeError('imported')\n"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for packages, before all others; timm and torchvision are not installed elsewhere, as far as the test knows."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("timm", "torchvision"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def make_timm(folder: Path) -> None:
    info = folder / "timm/data/_info"
    info.mkdir(parents=True)
    (folder / "timm/__init__.py").write_text(BOMB)
    (info / "imagenet_synsets.txt").write_text("n01\nn03\n")
    (info / "imagenet_synset_to_lemma.txt").write_text(
        "n01\ttench, Tinca tinca\nn02\tnot of the 1k\nn03\tgrocery store, market\n"
    )


def make_torchvision(folder: Path) -> None:
    (folder / "torchvision/models").mkdir(parents=True)
    (folder / "torchvision/__init__.py").write_text(BOMB)
    (folder / "torchvision/models/_meta.py").write_text(
        '"""Labels."""\n_IMAGENET_CATEGORIES = [\n    "hen",\n    "bell pepper",\n]\n'
    )


def test_no_package_has_them(packages: Path) -> None:
    assert imagenet_names() is None


def test_timm_has_them_with_synonyms(packages: Path) -> None:
    make_timm(packages)
    make_torchvision(packages)
    names = imagenet_names()
    assert names is not None
    assert "timm" in names.source
    assert names.among(["TINCA-tinca", "Market", "not of the 1k", "hen"]) == [
        ("TINCA-tinca", "Tinca tinca"),
        ("Market", "market"),
    ]
    assert "timm" not in sys.modules


def test_torchvision_has_them_where_timm_is_not_or_has_changed(packages: Path) -> None:
    make_torchvision(packages)
    for _ in range(2):
        names = imagenet_names()
        assert names is not None
        assert "torchvision" in names.source
        assert names.among(["Bell-Peppers", "bell", "hen"]) == [("Bell-Peppers", "bell pepper"), ("hen", "hen")]
        (packages / "timm").mkdir(exist_ok=True)
        (packages / "timm/__init__.py").write_text(BOMB)
    (packages / "torchvision/models/_meta.py").write_text("_IMAGENET_CATEGORIES = list(open('/etc/passwd'))\n")
    assert imagenet_names() is None


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
