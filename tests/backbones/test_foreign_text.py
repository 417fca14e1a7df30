"""Text models of sentence-transformers and open_clip, small ones with random weights in a local folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from unseen import DataError, SettingsError
from unseen.encoders import embed
from unseen.encoders.foreign_text import OpenClipTextEncoder, SentenceTransformerEncoder
from unseen.encoders.pickles import no_pickles
from unseen.storage import write_json

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "kite", "owl", "hoots", "at", "night", "glides", ".", "brown"]
TEXTS = ["red kite. glides", "owl", "owl hoots at night"]


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two narrow layers with mean pooling, as sentence-transformers saves it."""
    pytest.importorskip("sentence_transformers", reason="the extra 'sentences' is not installed")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(1)
    bare = tmp_path_factory.mktemp("bert")
    (bare / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **sizes)).save_pretrained(bare)
    BertTokenizerFast(str(bare / "vocab.txt")).save_pretrained(bare)
    folder = tmp_path_factory.mktemp("models") / "small bert"
    SentenceTransformer(modules=[Transformer(str(bare)), Pooling(16)], device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of one narrow layer a tower, as open_clip saves it."""
    open_clip = pytest.importorskip("open_clip", reason="the extra 'backbones' is not installed")
    towers = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    folder = tmp_path_factory.mktemp("models") / "small clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": towers, "preprocess_cfg": {}}))
    config = tmp_path_factory.mktemp("configs") / "small-for-words.json"
    config.write_text(json.dumps(towers))
    open_clip.add_model_config(config)
    torch.manual_seed(2)
    model = open_clip.create_model("small-for-words")
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def normed(rows: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(rows.double(), dim=1).numpy()


def test_a_sentence_transformer_is_what_the_library_makes_of_it(sentence_model: Path) -> None:
    from transformers import BertModel, BertTokenizerFast

    tokens = BertTokenizerFast.from_pretrained(str(sentence_model))(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        last = BertModel.from_pretrained(str(sentence_model)).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    encoder = SentenceTransformerEncoder(str(sentence_model))
    made = encoder.encode(TEXTS)
    np.testing.assert_allclose(made, normed((last * mask).sum(dim=1) / mask.sum(dim=1)), atol=1e-6)
    assert made.dtype == np.float32
    apart = np.concatenate([SentenceTransformerEncoder(str(sentence_model)).encode([text]) for text in TEXTS[::-1]])[::-1]
    np.testing.assert_array_equal(made, apart)
    assert encoder.description.startswith("small bert, sentence-transformers ")
    assert "SHA-256" in encoder.description


def test_a_sentence_transformers_fingerprint_follows_its_weights_and_words(sentence_model: Path, tmp_path: Path) -> None:
    original = SentenceTransformerEncoder(str(sentence_model)).fingerprint
    moved = shutil.copytree(sentence_model, tmp_path / "moved")
    assert SentenceTransformerEncoder(str(moved)).fingerprint == original
    weights = load_file(moved / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, moved / "model.safetensors", {"format": "pt"})
    assert SentenceTransformerEncoder(str(moved)).fingerprint != original
    words = shutil.copytree(sentence_model, tmp_path / "words")
    (words / "tokenizer.json").write_text((words / "tokenizer.json").read_text().replace('"kite"', '"kites"'))
    assert SentenceTransformerEncoder(str(words)).fingerprint != original


def test_sentence_transformers_that_cannot_be_loaded_get_one_sentence(
    sentence_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    empty, damaged, pickled = tmp_path / "empty", tmp_path / "damaged", tmp_path / "pickled"
    empty.mkdir()
    shutil.copytree(sentence_model, damaged)
    (damaged / "model.safetensors").write_bytes(b"no weights")
    shutil.copytree(sentence_model, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(load_file(sentence_model / "model.safetensors"), pickled / "pytorch_model.bin")
    for folder in (empty, damaged):
        with pytest.raises(DataError, match=r"the sentence-transformers model .* cannot be loaded \(") as caught:
            embed({"owl": "hoots"}, f"st:{folder}")
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"cannot be loaded \(.*safetensors"):
        embed({"owl": "hoots"}, f"st:{pickled}")
    assert caplog.records == []


def test_classes_are_embedded_by_either_library(sentence_model: Path, clip_folder: Path) -> None:
    classes = {"owl": ["hoots at night", "brown"], "red_kite": "glides"}
    for kind, folder, length in (("st", sentence_model, 16), ("open_clip", clip_folder, 12)):
        made, again = (embed(classes, f"{kind}:{folder}", ["{name}. {description}"]) for _ in range(2))
        assert made.table.embeddings.shape == (2, length)
        np.testing.assert_allclose(np.linalg.norm(made.table.embeddings, axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(made.table.embeddings, again.table.embeddings)
        assert made.encoder == again.encoder
        assert str(folder.parent) not in made.source


def test_a_tower_of_open_clip_is_what_the_library_makes_of_it(clip_folder: Path) -> None:
    import open_clip

    model = open_clip.create_model(f"local-dir:{clip_folder}").eval()
    with torch.inference_mode():
        expected = normed(model.encode_text(open_clip.get_tokenizer(f"local-dir:{clip_folder}")(TEXTS)))
    by_folder = OpenClipTextEncoder(str(clip_folder))
    by_name = OpenClipTextEncoder("small-for-words", str(clip_folder / "open_clip_model.safetensors"))
    np.testing.assert_allclose(by_folder.encode(TEXTS), expected, atol=1e-6)
    np.testing.assert_array_equal(by_name.encode(TEXTS), by_folder.encode(TEXTS))
    assert by_name.fingerprint == by_folder.fingerprint
    assert by_name.description.startswith("open_clip small-for-words, SHA-256 of the tensors ")
    assert "; text tower, open_clip_torch " in by_name.description
    assert by_name.description.endswith(", weights open_clip_model.safetensors; l2-normalised")


@pytest.mark.parametrize(
    ("model", "weights", "sentence"),
    [
        ("no-such-model", None, "open_clip knows no model 'no-such-model'"),
        ("small-for-words", None, "'small-for-words' needs weights; give --weights FILE"),
        ("ViT-B-32:mine", None, "'ViT-B-32' has no weights 'mine'; write open_clip:ViT-B-32:TAG with one of openai, "),
        ("small-for-words", "nowhere.safetensors", "--weights nowhere.safetensors is no file"),
        ("ViT-B-32:openai", "x.safetensors", "names weights already"),
        ("hf-hub:any/model", "x.safetensors", "has weights of its own"),
    ],
)
@pytest.mark.usefixtures("clip_folder")
def test_models_of_open_clip_that_cannot_be_meant_are_refused(model: str, weights: str | None, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        embed({"owl": "hoots"}, f"open_clip:{model}", weights=weights)


def test_weights_that_are_none_are_refused(clip_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pickled, damaged = tmp_path / "w.pt", tmp_path / "w.safetensors"
    torch.save({}, pickled)
    damaged.write_bytes(b"no weights")
    with pytest.raises(SettingsError, match=r"is not a \.safetensors file, and nothing else is read"):
        embed({"owl": "hoots"}, "open_clip:small-for-words", weights=str(pickled))
    with pytest.raises(DataError, match=r"'small-for-words' cannot be loaded \("):
        embed({"owl": "hoots"}, "open_clip:small-for-words", weights=str(damaged))
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(clip_folder / "open_clip_config.json", bare)
    with pytest.raises(DataError, match=r"bare has no open_clip_model\.safetensors; put"):  # never with random weights
        embed({"owl": "hoots"}, f"open_clip:{bare}")
    assert caplog.records == []


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "anything.pth"])
def test_pickled_weights_in_a_folder_of_open_clip_are_never_read(name: str, clip_folder: Path, tmp_path: Path) -> None:
    """Also not beside a safetensors file that open_clip likes less."""
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(clip_folder / "open_clip_config.json", folder)
    shutil.copy(clip_folder / "open_clip_model.safetensors", folder / "model.safetensors")
    (folder / name).write_bytes(b"a program")
    with pytest.raises(DataError, match=r"pickled has no open_clip_model\.safetensors; put the model's weights there"):
        embed({"owl": "hoots"}, f"open_clip:{folder}")
    shutil.copy(clip_folder / "open_clip_model.safetensors", folder)
    assert embed({"owl": "hoots"}, f"open_clip:{folder}").table.embeddings.shape == (1, 12)


def test_a_pickled_module_of_a_sentence_transformer_is_never_read(sentence_model: Path, tmp_path: Path) -> None:
    """A module other than the first, for which `use_safetensors` is not asked."""
    folder = shutil.copytree(sentence_model, tmp_path / "dense")
    (folder / "2_Dense").mkdir()
    write_json(folder / "2_Dense" / "config.json", {"in_features": 16, "out_features": 2, "bias": True})
    dense = {"linear.weight": torch.ones(2, 16), "linear.bias": torch.zeros(2)}
    torch.save(dense, folder / "2_Dense" / "pytorch_model.bin")
    modules = json.loads((folder / "modules.json").read_text())
    kind = "sentence_transformers.models.Dense"
    write_json(folder / "modules.json", [*modules, {"idx": len(modules), "name": "2", "path": "2_Dense", "type": kind}])
    with pytest.raises(DataError, match=r"2_Dense/pytorch_model\.bin are pickled, and nothing but") as caught:
        embed({"owl": "hoots"}, f"st:{folder}")
    assert "\n" not in str(caught.value)
    save_file(dense, folder / "2_Dense" / "model.safetensors")
    assert embed({"owl": "hoots"}, f"st:{folder}").table.embeddings.shape == (1, 2)


def test_torch_loads_no_pickle_meanwhile_and_as_ever_afterwards(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt")
    for module in (torch, torch.jit):
        with pytest.raises(DataError, match=r"w\.pt are pickled, and nothing but safetensors is read"), no_pickles():
            module.load(tmp_path / "w.pt")
    assert torch.load(tmp_path / "w.pt", weights_only=True)["w"].sum() == 2
