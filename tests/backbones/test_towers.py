"""Pictures and words by the two towers of one small open_clip model, from the encoders to zero-shot prompting."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unseen.asking import build_task
from unseen.data import Dataset
from unseen.data.build import build_dataset
from unseen.data.collection import load_collection
from unseen.data.towers import of_one_model
from unseen.encoders import embed
from unseen.encoders.backbones import EncoderChoice
from unseen.encoders.foreign_text import OpenClipTextEncoder
from unseen.errors import DataError
from unseen.evaluation.protocol import run
from unseen.extraction import extract

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CLIP, LIKE_IT = "towers-for-tests", "more-towers-for-tests"
CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}
NAMES = [f"shade {number}" for number in range(8)]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights of two trainings of one architecture, which goes by two names."""
    folder = tmp_path_factory.mktemp("towers")
    for name in (CLIP, LIKE_IT):
        (folder / f"{name}.json").write_text(json.dumps(CONFIG))
        open_clip.add_model_config(folder / f"{name}.json")
    paths = folder / "first.safetensors", folder / "second.safetensors"
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        save_file({name: t.contiguous() for name, t in open_clip.create_model(CLIP).state_dict().items()}, path)
    return paths


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shades")
    rng = np.random.default_rng(1)
    for shade, name in enumerate(NAMES):
        (folder / name).mkdir()
        for number in range(6):
            noisy = rng.integers(0, 30, (32, 32, 3)) + 25 * shade
            Image.fromarray(noisy.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def built(pictures: Path, of_pictures: Path, of_words: Path, out: Path) -> Dataset:
    """What `unseen features`, `unseen embed` and `unseen data build` make."""
    extract(pictures, out, EncoderChoice(f"open_clip:{CLIP}", of_pictures))
    classes = embed(dict.fromkeys(NAMES, ""), f"open_clip:{CLIP}", ["a photo of a {name}"], weights=str(of_words))
    return build_dataset(load_collection(out), classes, split="random", unseen=("3",)).dataset


def test_prompting_takes_what_the_encoders_made_of_one_checkpoint(
    checkpoints: tuple[Path, Path], pictures: Path, tmp_path: Path
) -> None:
    data = built(pictures, checkpoints[0], checkpoints[0], tmp_path / "features")
    row = run(build_task(data, None, "prompting", "fixed", 0, {}, None)).row
    assert row["feature_extractor"].startswith(f"open_clip {CLIP}, SHA-256 of the tensors ")
    assert row["embedding_source"].startswith(f"open_clip {CLIP}, SHA-256 of the tensors ")


def test_prompting_refuses_two_checkpoints_of_one_architecture(
    checkpoints: tuple[Path, Path], pictures: Path, tmp_path: Path
) -> None:
    data = built(pictures, *checkpoints, tmp_path / "features")
    with pytest.raises(DataError, match=r"^prompting needs features and class embeddings of one text-image model") as caught:
        build_task(data, None, "prompting", "fixed", 0, {}, None)
    first, second = re.findall(rf"'open_clip {CLIP}, SHA-256 of the tensors ([0-9a-f]+)", str(caught.value))
    assert first != second


def test_towers_of_another_name_or_activation_are_of_another_model(
    checkpoints: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tensors make another network with another GELU, and maybe in another architecture."""
    path, _ = checkpoints
    words = OpenClipTextEncoder(CLIP, str(path)).description
    image = EncoderChoice(f"open_clip:{CLIP}", path).build().description
    assert of_one_model(image, words)
    assert not of_one_model(EncoderChoice(f"open_clip:{LIKE_IT}", path).build().description, words)

    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda model: ["quick"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: {"quick_gelu": True})
    quick = EncoderChoice(f"open_clip:{CLIP}:quick", path).build().description
    assert quick.startswith(f"open_clip {CLIP} with quick GELU, ")
    assert not of_one_model(quick, words)
