"""Text encoders of other libraries, which are no dependency of ours: sentence-transformers, text towers of open_clip."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.data import towers
from unseen.encoders.backbones import check_weights, text_image_model
from unseen.encoders.pickles import no_pickles
from unseen.encoders.text import one_thread
from unseen.errors import DataError, MissingDependency, SettingsError
from unseen.storage import fingerprint, hash_of

CLIP_WEIGHTS = "open_clip_model.safetensors"
"""What open_clip takes first of all that lies in a folder."""


class SentenceTransformerEncoder:
    """Turn texts into embeddings by any model of sentence-transformers, on the CPU, l2-normalised.

    Every text is encoded by itself and with one thread, so its bits depend on nothing but the text, the machine and the
    versions. Weights are read from safetensors alone, and code that comes with a model is not run.

    Args:
        model: a name on the hub, or a folder that sentence-transformers saved.
    """

    def __init__(self, model: str) -> None:
        self.model = model

    @property
    def name(self) -> str:
        """The model's name on the hub, or that of its folder."""
        return _short(self.model)

    @cached_property
    def description(self) -> str:
        """One sentence for a data set's provenance."""
        packages = _versions("sentence-transformers", "transformers")
        return f"{self.name}, {packages}, weights SHA-256 {_hash_of_weights(self._loaded)}; l2-normalised"

    @property
    def fingerprint(self) -> str:
        """SHA-256 that changes with the weights, the tokeniser, the pooling or the versions; not with the folder's name."""
        model = self._loaded
        backend = getattr(model.tokenizer, "backend_tokenizer", None)
        tokeniser = backend.to_str() if backend is not None else repr(model.tokenizer)
        packages = _versions("sentence-transformers", "transformers")
        return hash_of([packages, _hash_of_weights(model), repr(model), model.max_seq_length, tokeniser])

    def encode(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """The embeddings of the texts, in their order: (n, d) float32, each row of length 1.

        Raises:
            DataError: the model cannot be loaded.
            MissingDependency: sentence-transformers is not installed.
        """
        model = self._loaded
        with one_thread():
            rows = [model.encode([text], batch_size=1, convert_to_numpy=True, show_progress_bar=False)[0] for text in texts]
        return _of_length_one(rows)

    @cached_property
    def _loaded(self) -> Any:
        library = _library("sentence_transformers", "sentence-transformers", "sentences")
        folder = Path(self.model).expanduser()
        try:
            source = str(folder) if folder.is_dir() else self.model
            with _quietly(), no_pickles():
                return library.SentenceTransformer(source, device="cpu", model_kwargs={"use_safetensors": True}).eval()
        except DataError:
            raise
        except Exception as error:  # of the library, the hub, the network, the disk
            raise DataError(
                f"the sentence-transformers model {self.model[:200]!r} cannot be loaded ({_cause(error)}); give its name on a "
                "hub that can be reached from here, or a folder with its configuration and its weights as safetensors"
            ) from error


class OpenClipTextEncoder:
    """Turn texts into embeddings by the text tower of any open_clip model, on the CPU, l2-normalised.

    Every text is encoded by itself and with one thread; texts are cut off where the model's tokeniser does, mostly at 77
    tokens.

    Args:
        model: `NAME:TAG`, a name that open_clip knows and the tag of its weights (`ViT-B-32:laion2b_s34b_b79k`), or `NAME`
            with a file of weights; `hf-hub:OWNER/NAME`; or a folder with `open_clip_config.json` and
            `open_clip_model.safetensors`.
        weights: a safetensors file, of a model by name.
    """

    def __init__(self, model: str, weights: str | None = None) -> None:
        self.model = model
        self.weights = weights

    @property
    def name(self) -> str:
        """The model's name with its tag, or that of its folder; and the name of the file of weights."""
        return _short(self.model) + (f", weights {_short(self.weights)}" if self.weights else "")

    @cached_property
    def description(self) -> str:
        """One sentence for a data set's provenance."""
        model, _ = self._loaded
        name, tag = self._name_and_tag
        weights = _short(self.weights) if self.weights else tag or "of its own"
        origin = f"{_versions('open_clip_torch')}, weights {weights}"
        return f"{text_image_model(name, model)}{towers.TEXT}, {origin}; l2-normalised"

    @property
    def _name_and_tag(self) -> tuple[str, str]:
        """The model's name as the image tower's encoder says it, or that of its folder; and the tag of its weights."""
        if self.model.startswith("hf-hub:") or Path(self.model).expanduser().is_dir():
            return _short(self.model), ""
        name, _, tag = self.model.partition(":")
        return name, tag

    @property
    def fingerprint(self) -> str:
        """SHA-256 that changes with the weights, the network, the tokeniser or the version; not with a file's name."""
        model, tokenizer = self._loaded
        tokeniser = [type(tokenizer).__name__, str(getattr(tokenizer, "context_length", ""))]
        return hash_of([_versions("open_clip_torch"), _hash_of_weights(model), repr(model), tokeniser])

    def encode(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """The embeddings of the texts, in their order: (n, d) float32, each row of length 1.

        Raises:
            SettingsError: the model has no weights of that name.
            DataError: the model cannot be loaded.
            MissingDependency: open_clip is not installed, or torchvision, which it needs, does not work.
        """
        import torch

        model, tokenizer = self._loaded
        with torch.inference_mode(), one_thread():
            rows = [model.encode_text(tokenizer([text]))[0].float().numpy() for text in texts]
        return _of_length_one(rows)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        library = _library("open_clip", "open_clip_torch", "backbones")
        name, weights = self._checked(library)
        try:
            with _quietly(), no_pickles():
                model = library.create_model(
                    name, pretrained=weights, precision="fp32", device="cpu", require_pretrained=True, weights_only=True
                )
                return model.eval(), library.get_tokenizer(name)
        except DataError:
            raise
        except Exception as error:  # of the library, the hub, the network, the disk
            raise DataError(
                f"the open_clip model {self.model[:200]!r} cannot be loaded ({_cause(error)}); give weights that can be "
                "reached from here, or a folder with open_clip_config.json and open_clip_model.safetensors"
            ) from error

    def _checked(self, library: ModuleType) -> tuple[str, str | None]:
        """Model and weights as open_clip takes them; SettingsError where it has no such model or nothing says which weights."""
        folder = Path(self.model).expanduser()
        if self.model.startswith("hf-hub:") or folder.is_dir():
            if self.weights is not None:
                raise SettingsError(f"the open_clip model {self.model[:200]!r} has weights of its own; leave out --weights")
            if folder.is_dir() and not (folder / CLIP_WEIGHTS).exists():
                raise DataError(f"{str(folder)[:200]} has no {CLIP_WEIGHTS}; put the model's weights there under this name")
            return f"local-dir:{folder}" if folder.is_dir() else self.model, None
        name, _, tag = self.model.partition(":")
        if name not in library.list_models():
            raise SettingsError(
                f"open_clip knows no model {name[:100]!r}; give one of `open_clip.list_models()`, hf-hub:OWNER/NAME or a "
                "folder with open_clip_config.json"
            )
        if self.weights is not None:
            if tag:
                raise SettingsError(f"'open_clip:{self.model[:200]}' names weights already; leave out --weights or the tag")
            check_weights(Path(self.weights))
            return name, self.weights
        if tag not in (tags := library.list_pretrained_tags_by_model(name)):
            what = f"has no weights {tag[:100]!r}" if tag else "needs weights"
            known = f"write open_clip:{name}:TAG with one of {', '.join(tags)}, or " if tags else ""
            raise SettingsError(f"the open_clip model {name!r} {what}; {known}give --weights FILE")
        return name, tag


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the log of others, who tell of every attempt to reach a hub; what went wrong is said once, in our sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _library(module: str, package: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] == module:
            raise MissingDependency(
                f"this encoder needs the package '{package}'; run: pip install 'unseen[{extra}]'"
            ) from error
        raise _broken(package, error) from error
    except Exception as error:  # a torchvision that was built for another torch raises what it likes
        raise _broken(package, error) from error


def _broken(package: str, error: Exception) -> MissingDependency:
    hint = ""
    if "torchvision" in str(error) or "torchvision" in repr(error.__cause__):
        hint = "; torchvision must be the one that was made for this torch"
    return MissingDependency(
        f"the package '{package}' is installed but does not work here ({_cause(error)}){hint}; install it again"
    )


def _versions(*packages: str) -> str:
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} of unknown version")
    return ", ".join(found)


def _hash_of_weights(model: Any) -> str:
    tensors = sorted(model.state_dict().items())
    return hash_of([[name, fingerprint(tensor.detach().float().cpu().numpy())] for name, tensor in tensors])


def _of_length_one(rows: list[NDArray[Any]]) -> NDArray[np.float32]:
    wide = np.stack(rows).astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    normed: NDArray[np.float32] = (wide / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return normed


def _short(source: str) -> str:
    """A name on the hub as it is, a place on this machine without its folders."""
    path = Path(source).expanduser()
    return path.resolve().name if path.exists() else source


def _cause(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
