"""Models of timm and open_clip, small ones with random weights in a local file: loaded as a user's would be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

from unseen.data.collection import load_collection
from unseen.encoders.backbones import EncoderChoice
from unseen.errors import DataError, MissingDependency, RunError, SettingsError
from unseen.extraction import Shard, extract, merge

CLIP = "tiny-for-tests"
CLIP_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 48, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session", autouse=True)
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    """open_clip takes architectures from files, which is how a small one comes in."""
    import json

    path = tmp_path_factory.mktemp("configs") / f"{CLIP}.json"
    path.write_text(json.dumps(CLIP_CONFIG))
    open_clip.add_model_config(path)


@pytest.fixture(scope="session")
def timm_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of test_resnet with its classifier, as hubs keep them."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("timm") / "resnet.safetensors"
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def clip_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file({name: t.contiguous() for name, t in open_clip.create_model(CLIP).state_dict().items()}, path)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(70):
        path = folder / f"class {number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8).repeat(9, 0).repeat(9, 1)).save(path)
    return folder


def opened(pictures: Path, count: int = 4) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(pictures.rglob("*.png"))[:count]]


@torch.inference_mode()
def test_a_model_of_timm_is_what_timm_makes_of_it(timm_weights: Path, pictures: Path) -> None:
    """Its own preprocessing, and its features before the classifier."""
    model = timm.create_model("test_resnet", checkpoint_path=str(timm_weights)).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    stacked = torch.stack([transform(picture) for picture in opened(pictures)])
    expected = model.forward_head(model.forward_features(stacked), pre_logits=True)

    encoder = EncoderChoice("timm:test_resnet", timm_weights).build()
    prepared = np.stack([encoder.prepared(picture) for picture in opened(pictures)])
    np.testing.assert_array_equal(prepared, stacked)
    np.testing.assert_allclose(encoder.pooled(prepared), expected, rtol=1e-5, atol=1e-6)
    assert encoder.dimension == expected.shape[1]
    assert expected.std() > 1e-3


@torch.inference_mode()
def test_an_image_tower_is_what_open_clip_makes_of_it(clip_weights: Path, pictures: Path) -> None:
    model, _, transform = open_clip.create_model_and_transforms(CLIP, pretrained=str(clip_weights))
    stacked = torch.stack([transform(picture) for picture in opened(pictures)])
    expected = model.eval().encode_image(stacked)

    encoder = EncoderChoice(f"open_clip:{CLIP}", clip_weights).build()
    prepared = np.stack([encoder.prepared(picture) for picture in opened(pictures)])
    np.testing.assert_array_equal(prepared, stacked)
    np.testing.assert_allclose(encoder.pooled(prepared), expected, rtol=1e-5, atol=1e-6)
    assert encoder.dimension == 24
    assert "Normalize(mean=" in encoder.description


@torch.inference_mode()
def test_a_local_file_is_prepared_for_as_the_published_weights(
    clip_weights: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file does not say that the model wants its pictures squashed, or its GELU quick; open_clip's table does."""
    said = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bilinear", "resize_mode": "squash"}
    table = {"a": said, "b": said, "quick": said | {"quick_gelu": True}}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda model: list(table))
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: table[tag])
    encoder = EncoderChoice(f"open_clip:{CLIP}", clip_weights).build()
    [picture] = opened(pictures, 1)
    squashed = np.asarray(picture.resize((48, 48), Image.Resampling.BILINEAR), np.float32).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(encoder.prepared(picture), (squashed - 0.5) / 0.25, atol=1e-5)
    quick = EncoderChoice(f"open_clip:{CLIP}:quick", clip_weights).build()
    stacked = encoder.prepared(picture)[None]
    assert not np.allclose(encoder.pooled(stacked), quick.pooled(stacked), atol=1e-6)

    table["b"] = said | {"resize_mode": "shortest"}
    assert "do not all want their pictures alike" in refusal(f"open_clip:{CLIP}", clip_weights)
    EncoderChoice(f"open_clip:{CLIP}:b", clip_weights).build()


@pytest.mark.parametrize("kind", ["timm", "open_clip"])
def test_shards_and_threads_change_no_bit(
    kind: str, timm_weights: Path, clip_weights: Path, pictures: Path, tmp_path: Path
) -> None:
    choice = {
        "timm": EncoderChoice("timm:test_resnet", timm_weights),
        "open_clip": EncoderChoice(f"open_clip:{CLIP}", clip_weights),
    }
    before = torch.get_num_threads()
    for threads in (1, 3):
        extract(pictures, tmp_path / str(threads), choice[kind], threads=threads)
    for index in (0, 1):
        extract(pictures, tmp_path / f"shard {index}", choice[kind], shard=Shard(index, 2), threads=2)
    merge([tmp_path / "shard 1", tmp_path / "shard 0"], tmp_path / "merged")
    assert torch.get_num_threads() == before
    whole = load_collection(tmp_path / "1")
    assert len(whole.labels) == 70
    assert len(np.unique(whole.features, axis=0)) == 70
    for name in ("3", "merged"):
        assert (tmp_path / name / "features.safetensors").read_bytes() == (tmp_path / "1" / "features.safetensors").read_bytes()
        assert (tmp_path / name / "features.json").read_bytes() == (tmp_path / "1" / "features.json").read_bytes()


def test_the_fingerprint_is_of_the_weights(timm_weights: Path, tmp_path: Path) -> None:
    torch.manual_seed(9)
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "other.safetensors")
    (tmp_path / "moved.safetensors").write_bytes(timm_weights.read_bytes())
    first, moved, other = (
        EncoderChoice("timm:test_resnet", path).build().fingerprint
        for path in (timm_weights, tmp_path / "moved.safetensors", tmp_path / "other.safetensors")
    )
    assert first == moved != other


def refusal(name: str, weights: Path | None) -> str:
    with pytest.raises((SettingsError, DataError)) as refused:
        EncoderChoice(name, weights).build()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_weights_of_another_model_are_refused(timm_weights: Path, clip_weights: Path, tmp_path: Path) -> None:
    assert "are not those of timm:test_vit" in refusal("timm:test_vit", timm_weights)
    assert "are not those of timm:test_resnet" in refusal("timm:test_resnet", clip_weights)
    assert f"are not those of open_clip:{CLIP}" in refusal(f"open_clip:{CLIP}", timm_weights)
    (tmp_path / "cut.safetensors").write_bytes(timm_weights.read_bytes()[:1000])
    assert "is damaged or is not safetensors" in refusal("timm:test_resnet", tmp_path / "cut.safetensors")
    torch.save({}, tmp_path / "w.pth")
    assert "is not a .safetensors file" in refusal("timm:test_resnet", tmp_path / "w.pth")
    assert "is no file" in refusal("timm:test_resnet", tmp_path / "none.safetensors")


def test_names_that_are_none_are_refused_with_what_is_near() -> None:
    assert "did you mean test_resnet" in refusal("timm:test_resnett", None)
    assert "did you mean ViT-B-32" in refusal("open_clip:ViT-B32", None)
    assert "write open_clip:ViT-B-32:TAG with one of openai, laion400m_e31" in refusal("open_clip:ViT-B-32", None)
    assert "has no weights 'nonsense'" in refusal("open_clip:ViT-B-32:nonsense", None)


def test_a_hub_that_does_not_answer_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(*arguments: object, **more: object) -> None:
        raise OSError("We couldn't connect to the hub\nand so on")

    monkeypatch.setattr(timm, "create_model", no_answer)
    monkeypatch.setattr(open_clip, "create_model_and_transforms", no_answer)
    for name in ("timm:test_resnet", "open_clip:ViT-B-32:openai"):
        with pytest.raises(RunError, match=r"cannot be fetched from its hub \(We couldn't connect to the hub\); check"):
            EncoderChoice(name).build()


def test_what_a_hub_has_pickled_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """timm takes such a file where a hub has no safetensors."""
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "pytorch_model.bin")
    fetched = tmp_path / "pytorch_model.bin"
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: torch.load(fetched))
    with pytest.raises(DataError, match=r"pytorch_model\.bin are pickled, and nothing but safetensors is read"):
        EncoderChoice("timm:test_resnet").build()


def test_a_hub_without_its_weights_gives_no_random_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip would go on with what the configuration alone makes."""
    config = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": {}}
    monkeypatch.setattr(open_clip.factory, "_get_hf_config", lambda *_, **__: config)

    def no_weights(*arguments: object, **more: object) -> None:
        raise FileNotFoundError("no such file there")

    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", no_weights)
    with pytest.raises(RunError, match=r"the weights of open_clip:hf-hub:any/model cannot be fetched from its hub"):
        EncoderChoice("open_clip:hf-hub:any/model").build()


def test_a_picture_that_the_transform_cannot_take_is_left_out(
    timm_weights: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = EncoderChoice("timm:test_resnet", timm_weights).build()
    real = encoder._network.transform  # type: ignore[attr-defined]

    def transform(picture: Image.Image) -> torch.Tensor:
        if picture.size == (7, 7):
            raise RuntimeError("no memory\nleft")
        return real(picture)

    object.__setattr__(encoder._network, "transform", transform)  # type: ignore[attr-defined]
    Image.new("RGB", (7, 7)).save(tmp_path / "odd.png")
    with pytest.raises(DataError, match=r"odd\.png cannot be brought into the shape .* \(RuntimeError: no memory left\)"):
        encoder.prepared(tmp_path / "odd.png")
    assert encoder.prepared(sorted(pictures.rglob("*.png"))[0]).ndim == 3


def test_a_model_that_does_not_pool_is_refused(monkeypatch: pytest.MonkeyPatch, timm_weights: Path) -> None:
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0, global_pool="")
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: model)
    assert "choose a model that pools" in refusal("timm:test_resnet", timm_weights)


BROKEN = """
from unseen.encoders.backbones import EncoderChoice
from unseen.errors import MissingDependency
try:
    EncoderChoice("timm:test_resnet").build()
except MissingDependency as error:
    print(error)
"""


@pytest.mark.skipif("+cpu" not in torch.__version__, reason="torchvision works beside a torch with CUDA")
def test_a_torchvision_for_another_torch_is_one_sentence() -> None:
    """As it is here, without the operators that conftest.py declares."""
    done = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("the installed torchvision does not work with the installed torch (")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingDependency, match=r"open_clip.*'unseen\[backbones\]'"):
        EncoderChoice("open_clip:ViT-B-32:openai").build()
