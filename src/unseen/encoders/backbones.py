"""Pictures to features by any image model of timm or image tower of open_clip, with the model's own preprocessing.

Both are optional and need torchvision. Weights come from the library's hub or from a local file, and from safetensors alone:
torch's own format can run what it says.
"""

from __future__ import annotations

import difflib
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from unseen.data import towers
from unseen.encoders.images import ImageEncoder, opened_rgb, shown
from unseen.encoders.pickles import no_pickles
from unseen.encoders.text import one_thread
from unseen.errors import DataError, MissingDependency, RunError, SettingsError
from unseen.storage import fingerprint, hash_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

BATCH_SIZE = 32


class PictureEncoder(Protocol):
    """What turns pictures into features. Bits depend on the batch's rows at most, and on no number of threads."""

    @property
    def name(self) -> str:
        """As the user asks for it."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a feature."""
        ...

    @property
    def description(self) -> str:
        """One sentence for a data set's provenance."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 that changes with the weights, the preprocessing or the pooling."""
        ...

    @property
    def batch_size(self) -> int:
        """Pictures run at once; where batches end is part of the result of some models."""
        ...

    def load(self) -> None:
        """Have the network ready."""
        ...

    def prepared(self, picture: Image | Path | str) -> NDArray[np.float32]:
        """One picture as the network wants it, (3, height, width); DataError where it cannot be used."""
        ...

    def pooled(self, stacked: NDArray[np.float32]) -> NDArray[np.float32]:
        """Prepared pictures → (n, dimension). Several threads may ask at a time."""
        ...


@dataclass(frozen=True)
class EncoderChoice:
    """What a user asked for, small enough to be sent to another machine.

    Args:
        name: `efficientnet-lite0`, `timm:NAME`, `open_clip:NAME` or `open_clip:NAME:TAG`.
        weights: a safetensors file; None takes those that the model's library knows.
        device: `cpu` or `cuda`.
    """

    name: str = ImageEncoder.name
    weights: Path | None = None
    device: str = "cpu"

    def build(self) -> PictureEncoder:
        """The encoder, with its weights in memory.

        Raises:
            SettingsError: there is no such encoder, or the weights are not for it.
            MissingDependency: its packages are not installed, or do not fit each other.
            RunError: its hub does not answer.
        """
        kind, colon, model = self.name.partition(":")
        if self.name == ImageEncoder.name:
            if self.weights is not None or self.device != "cpu":
                raise SettingsError(f"{self.name} has weights of its own and runs on the CPU; leave out --weights and --device")
            encoder: PictureEncoder = ImageEncoder(BATCH_SIZE, threads=1)
        elif colon and model and kind in ("timm", "open_clip"):
            if self.weights is not None:
                check_weights(self.weights)
            _check_device(self.device)
            with _backbones():
                network = _of_timm(model, self.weights) if kind == "timm" else _of_open_clip(model, self.weights)
            encoder = TorchEncoder(self.name, network, self.device)
        else:
            raise SettingsError(
                f"there is no encoder '{self.name}'; there are {ImageEncoder.name}, timm:NAME and open_clip:NAME"
            )
        encoder.load()
        return encoder


@dataclass(frozen=True)
class Network:
    """A model of a library, ready to run.

    Args:
        model: in evaluation mode, on the CPU.
        forward: (n, 3, height, width) → (n, d), of that model.
        transform: an RGB picture → (3, height, width).
        origin: library, version and where the weights are from; of timm the model, too.
        preparation: the transform in words.
        whole: the text-image model that it is the image tower of; blank where there is none.
    """

    model: torch.nn.Module
    forward: Callable[[torch.Tensor], torch.Tensor]
    transform: Callable[[Image], torch.Tensor]
    origin: str
    preparation: str
    whole: str = ""


class TorchEncoder:
    """Features by a network of torch. On a CPU each batch runs on the thread that asks, so their number changes no bit."""

    batch_size = BATCH_SIZE

    def __init__(self, name: str, network: Network, device: str) -> None:
        self.name = name
        self._network = network
        self._device = device
        self._turn: Any = threading.Lock() if device != "cpu" else nullcontext()
        network.model.to(device)

    def load(self) -> None:
        """Find out how long a feature is, by running one black picture."""
        _ = self.dimension

    @cached_property
    def dimension(self) -> int:
        """Length of a feature; SettingsError where the model gives no single one a picture."""
        from PIL import Image

        features = self.pooled(self.prepared(Image.new("RGB", (256, 256)))[None])
        if features.ndim != 2 or features.shape[1] < 1:
            raise SettingsError(
                f"{self.name} gives features of shape {features.shape[1:]} a picture; choose a model that pools"
            )
        return int(features.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 that changes with the weights, the preprocessing or the pooling."""
        return hash_of([self.name, self._network.preparation, self._weights, self.dimension])

    @cached_property
    def _weights(self) -> str:
        return hash_of_tensors(self._network.model)

    @cached_property
    def description(self) -> str:
        """One sentence for a data set's provenance."""
        network = self._network
        origin = f"{network.origin}, SHA-256 of the tensors {self._weights}"
        if network.whole:
            origin = f"{text_image_model(network.whole, network.model)}{towers.IMAGE}, {network.origin}"
        what = f"pooled {self.dimension}-d, not normalised; torch on {self._device}"
        return f"{origin}; on white, RGB, {network.preparation}; {what}"

    def prepared(self, picture: Image | Path | str) -> NDArray[np.float32]:
        """One picture as the network wants it; DataError where it cannot be used."""
        rgb = opened_rgb(picture)
        try:
            return cast(NDArray[np.float32], self._network.transform(rgb).numpy())
        except Exception as error:  # of torchvision, of memory: one picture, and not the end of a million
            where = "" if not isinstance(picture, str | Path) else f" {shown(picture)}"
            cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DataError(
                f"picture{where} cannot be brought into the shape that {self.name} wants ({cause}); leave it out"
            ) from error

    def pooled(self, stacked: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of prepared pictures. On a GPU one batch at a time, while others are prepared."""
        import torch

        with self._turn, torch.inference_mode():
            features = self._network.forward(torch.from_numpy(stacked).to(self._device))
            return cast(NDArray[np.float32], features.float().cpu().numpy())


def _of_timm(name: str, weights: Path | None) -> Network:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    if not name.startswith(("hf-hub:", "hf_hub:")) and not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    with _hub(f"timm:{name}"), one_thread():
        model: Any = timm.create_model(name, pretrained=weights is None, num_classes=0)
    if weights is not None:
        classifier = model.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
        state = {name: tensor for name, tensor in _read(weights).items() if not name.startswith(heads or "\0")}
        _fill(model, state, f"timm:{name}", weights)
    model.eval().requires_grad_(False)
    config = resolve_model_data_config(model)
    tag = model.pretrained_cfg.get("tag") or "default"
    origin = f"timm {timm.__version__} {name}, weights {weights.name if weights else tag}"
    transform = create_transform(**config, is_training=False)
    preparation = "timm's evaluation transform " + ", ".join(f"{key} {config[key]}" for key in sorted(config))
    return Network(model, cast(Callable[["torch.Tensor"], "torch.Tensor"], model), transform, origin, preparation)


def _of_open_clip(name: str, weights: Path | None) -> Network:
    import open_clip

    hosted = name.startswith("hf-hub:")
    model_name, _, tag = (name, "", "") if hosted else name.partition(":")
    if not hosted:
        if model_name not in open_clip.list_models():
            raise _unknown("open_clip", model_name, open_clip.list_models())
        tags = open_clip.list_pretrained_tags_by_model(model_name)
        if tag not in tags and (weights is None or tag):
            what = f"has no weights '{tag}'" if tag else "has several sets of weights"
            hint = "" if tag else ", or give --weights FILE"
            raise SettingsError(
                f"open_clip:{model_name} {what}; write open_clip:{model_name}:TAG with one of {', '.join(tags) or 'none'}{hint}"
            )
    pretrained = str(weights) if weights is not None else tag or None
    published = _published(model_name, tag) if weights is not None and not hosted else {}
    with _hub(f"open_clip:{name}") if weights is None else _fitting(f"open_clip:{name}", weights), one_thread():
        # Without require_pretrained, a hub that gives the configuration and not the weights would leave random ones.
        model, _, transform = open_clip.create_model_and_transforms(
            model_name, pretrained=pretrained, require_pretrained=True, weights_only=True, **published
        )
    model.eval().requires_grad_(False)
    source = weights.name if weights else tag or "of the hub"
    origin = f"open_clip {open_clip.__version__}, weights {source}"
    preparation = " ".join(str(transform).split())
    return Network(model, model.encode_image, transform, origin, preparation, whole=model_name)


def text_image_model(name: str, model: torch.nn.Module) -> str:
    """A model of open_clip in words that are the same for both of its towers, and others for any other model.

    The GELU is said because the tensors do not tell it, and a local file may be loaded with either.
    """
    quick = " with quick GELU" if any(type(module).__name__ == "QuickGELU" for module in model.modules()) else ""
    return f"open_clip {name}{quick}, SHA-256 of the tensors {hash_of_tensors(model)}"


def hash_of_tensors(model: torch.nn.Module) -> str:
    """SHA-256 of all that a model has learnt, in the order of the tensors' names."""
    state = model.state_dict()
    return fingerprint(*(state[name].float().cpu().numpy() for name in sorted(state)))


def _published(model: str, tag: str) -> dict[str, Any]:
    """How the published weights of a model want their pictures, and with which GELU they go: a local file does not say.

    Raises SettingsError where they differ, so that the user has to say which of them the file is like.
    """
    import open_clip

    tags = [tag] if tag else open_clip.list_pretrained_tags_by_model(model)
    keys = {
        "mean": "image_mean",
        "std": "image_std",
        "interpolation": "image_interpolation",
        "resize_mode": "image_resize_mode",
    }
    found = []
    for each in tags:
        about = open_clip.get_pretrained_cfg(model, each)
        wanted = {argument: about[key] for key, argument in keys.items() if about.get(key) is not None}
        found.append(wanted | ({"force_quick_gelu": True} if tag and about.get("quick_gelu") else {}))
    if any(wanted != found[0] for wanted in found):
        raise SettingsError(
            f"the weights of open_clip:{model} do not all want their pictures alike; write open_clip:{model}:TAG with the "
            f"one of {', '.join(tags)} that your file is, or was made from"
        )
    return found[0] if found else {}


def _check_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda needs a GPU that torch can use, and there is none; leave it out")


def check_weights(path: Path) -> None:
    """SettingsError unless it is a file of tensors that can hold nothing else."""
    if not path.is_file():
        raise SettingsError(f"--weights {path} is no file; check the path")
    if path.suffix != ".safetensors":
        raise SettingsError(
            f"--weights {path} is not a .safetensors file, and nothing else is read, as it could hold a program; convert it "
            "where you trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors')"
        )


def _read(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged or is not safetensors ({error}); download it again") from error


def _fill(model: torch.nn.Module, state: dict[str, Any], name: str, path: Path) -> None:
    """Every tensor of the model, from the file; SettingsError unless it has exactly these."""
    with _fitting(name, path):
        found = model.load_state_dict(state, strict=False)
    if found.missing_keys or found.unexpected_keys:
        how = f"they lack {found.missing_keys[0]}" if found.missing_keys else f"they also hold {found.unexpected_keys[0]}"
        raise SettingsError(f"the weights in {path} are not those of {name}: {how}; name the model that they belong to")


@contextmanager
def _fitting(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"the weights in {path} are not those of {name} ({cause}); name the model that they belong to"
        ) from error


@contextmanager
def _hub(name: str) -> Iterator[None]:
    try:
        with no_pickles():
            yield
    except DataError:
        raise
    except Exception as error:  # each hub's client has its own kinds
        cause = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise RunError(
            f"the weights of {name} cannot be fetched from its hub ({cause}); check the connection, or give a "
            "local file by --weights"
        ) from error


def _unknown(library: str, name: str, known: list[str]) -> SettingsError:
    close = difflib.get_close_matches(name, known, 3)
    hint = f"; did you mean {', '.join(close)}?" if close else f"; list them by {library}.list_models()"
    return SettingsError(f"{library} has no model '{name[:100]}'{hint}")


@contextmanager
def _backbones() -> Iterator[None]:
    """What is wrong with the installation in one sentence. A torchvision made for another torch cannot be imported."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    except Exception as error:
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise MissingDependency(
            f"the installed torchvision does not work with the installed torch ({cause}); install the two as they belong "
            "together, from the same index"
        ) from error
    try:
        yield
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    except ImportError as error:
        raise MissingDependency(
            f"a package of the backbones cannot be imported ({error}); install 'unseen[backbones]' anew"
        ) from error


def _missing(error: ModuleNotFoundError) -> MissingDependency:
    return MissingDependency(
        f"models of timm and open_clip need the package '{error.name}'; run: pip install 'unseen[backbones]'"
    )
