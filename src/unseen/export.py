"""A fitted classifier as one ONNX graph: raw features, or pictures, in; scores and probabilities of named classes out.

The graph is scaler ∘ represent ∘ scores − γ ∘ softmax over the temperature. A representation is calculated in single precision,
as torch does; scaling and what follows the representation in double. A graph is run before it is kept: answers that differ from
torch's by more than `TOLERANCE` are a reason to write nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.calibration import Calibration
from unseen.encoders.images import CROPPED, FEATURES, ImageEncoder, graph_bytes
from unseen.errors import RunError, SettingsError
from unseen.evaluation.protocol import versions
from unseen.fitted import Fitted
from unseen.gate import GatedScores
from unseen.graph import IR_VERSION, OPSET, Graph, imported
from unseen.inference import FORMAT, VERSION
from unseen.linear import LinearScores
from unseen.methods.base import RepresentsInGraph
from unseen.scaling import FeatureScaler
from unseen.storage import write_atomically

TOLERANCE = 1e-5
NORM = "scores: largest difference in a row over the largest absolute score in it, or over 1; probabilities: largest difference"
"""Compared with torch's representation and scores. Of linear scores the product is taken in double there too: at a cold
temperature the rounding of torch's own product would be larger than what is looked for."""
RANDOM_ROWS = 64
REAL_ROWS = 1024
"""At most so many are compared, evenly spread."""
RANDOM_PICTURES = 3


@dataclass(frozen=True)
class Parity:
    """How far the graph is from torch.

    Args:
        rows: compared; pictures: compared, where the backbone is in front.
        scores, probabilities: differences as `NORM` says.
    """

    rows: int
    pictures: int
    scores: float
    probabilities: float


def export_onnx(
    fitted: Fitted,
    path: Path | str,
    encoder: ImageEncoder | None = None,
    *,
    rows: NDArray[np.floating] | None = None,
    method: str = "",
    transductive: bool = False,
    calibration: Calibration | None = None,
    risk: float | None = None,
) -> Parity:
    """Write a fitted classifier as ONNX, atomically, after it was compared with torch on random and real rows.

    Inputs and outputs, n open: `features` (n, d) float32 raw, or with the backbone in front `pictures` (n, 224, 224, 3) uint8,
    RGB as `unseen.encoders.images.cropped` makes them; `scores` (n, C) float64 with γ subtracted, and `probabilities` (n, C)
    float64. Metadata say class names, which were seen, γ, temperature, thresholds, versions, whether the method is
    transductive, and how near the graph is to torch.

    Args:
        path: of the file.
        encoder: the packaged backbone, to be put in front.
        rows: (n, d) real raw features to compare on, beside random ones.
        method: its name, for the metadata.
        transductive: whether it was trained on unlabelled test rows, for the metadata: figures on these are no inductive ones.
        calibration: from folds, for the thresholds in the metadata.
        risk: share of wrong answers to keep to by not answering; needs a calibration.

    Raises:
        SettingsError: the method does not say how it represents, or the backbone is another one or of another width.
        DataError: no confidence keeps to the risk.
        RunError: the graph differs from torch by more than `TOLERANCE`, or the file cannot be written.
        MissingDependency: onnx or onnxruntime is not installed.
    """
    width = len(fitted.scaler.features.centre)
    if encoder is not None and (not isinstance(encoder, ImageEncoder) or width != FEATURES):
        raise SettingsError(
            f"only efficientnet-lite0, with its {FEATURES} features, can be put in front, and this classifier takes {width}"
            f"{'' if isinstance(encoder, ImageEncoder) else ' of another backbone'}; export without it"
        )
    if risk is not None and calibration is None:
        raise SettingsError("a risk is kept to by what folds held out, and this classifier has no such rows; leave it out")
    abstention = calibration.abstention(risk) if calibration is not None and risk is not None else None
    head = head_graph(fitted)
    compared = random_rows(fitted.scaler.features, RANDOM_ROWS)
    if rows is not None and len(rows):
        step = -(-len(rows) // REAL_ROWS)
        compared = np.concatenate([compared, np.asarray(rows[::step], np.float32)])
    differences = [_differences(fitted, compared, _run(head, {"features": compared}))]
    model, shown = head, 0
    if encoder is not None:
        model, shown = with_backbone(head), RANDOM_PICTURES
        pictures = np.random.default_rng(0).integers(0, 256, (shown, CROPPED, CROPPED, 3), np.uint8)
        differences.append(_differences(fitted, encoder.pooled(_prepared(pictures)), _run(model, {"pictures": pictures})))
    parity = Parity(len(compared), shown, *(max(column) for column in zip(*differences, strict=True)))
    if not max(parity.scores, parity.probabilities) <= TOLERANCE:  # NaN too
        raise RunError(
            f"the graph differs from torch by {parity.scores:.1e} in scores and {parity.probabilities:.1e} in probabilities, "
            f"where {TOLERANCE:g} is allowed; nothing was written, so go on using the classifier itself"
        )
    metadata: dict[str, object] = {
        "names": fitted.names,
        "seen": fitted.seen.tolist(),
        "gamma": fitted.gamma,
        "temperature": fitted.temperature,
        "calibrated": calibration is not None,
        "flag_threshold": calibration.flag_threshold if calibration is not None else None,
        "calibration_error": calibration.error if calibration is not None else None,
        "abstention": asdict(abstention) if abstention is not None else None,
        "method": method,
        "transductive": transductive,
        "encoder": ImageEncoder.description if encoder is not None else None,
        "versions": versions(method) | {"onnx": imported("onnx").__version__},
        "parity": asdict(parity) | {"norm": NORM, "tolerance": TOLERANCE},
    }
    told = {name: json.dumps(value, ensure_ascii=False, allow_nan=False) for name, value in metadata.items()}
    imported("onnx.helper").set_model_props(model, {"format": FORMAT, "format_version": str(VERSION), **told})
    data = model.SerializeToString()
    write_atomically(Path(path).expanduser(), lambda temporary: _write(temporary, data))
    return parity


# -------------------------------------------------------------------------------------------------------------- graphs


def head_graph(fitted: Fitted) -> Any:
    """The model from `features` (n, d) to `scores` and `probabilities`, without metadata."""
    graph = Graph()
    types = graph.onnx.TensorProto
    u = graph.singled(_scaled(graph, fitted.scaler.features))
    if fitted.method is not None:
        if not isinstance(fitted.method, RepresentsInGraph):
            raise SettingsError(
                f"{type(fitted.method).__name__} does not say how it represents rows in a graph (represent_in_graph), so it "
                "cannot be exported; use the classifier itself"
            )
        u = fitted.method.represent_in_graph(graph, u)
    scores = _gated(graph, u, fitted.scores) if isinstance(fitted.scores, GatedScores) else _linear(graph, u, fitted.scores)
    decided = graph.node("Sub", scores, graph.constant(fitted.gamma * fitted.seen.astype(np.float64)))
    graph.named(decided, "scores")
    heated = graph.node("Div", decided, graph.constant(np.array(fitted.temperature, np.float64)))
    graph.named(graph.node("Softmax", heated, axis=1), "probabilities")
    classes = (types.DOUBLE, ("n", len(fitted.names)))
    return graph.model(
        "classifier",
        {"features": (types.FLOAT, ("n", len(fitted.scaler.features.centre)))},
        {"scores": classes, "probabilities": classes},
    )


def _scaled(graph: Graph, scaler: FeatureScaler) -> str:
    x = graph.doubled("features")
    if scaler.kind == "l2":
        x = graph.unit_rows(x, np.array(1e-12))
    x = graph.node("Sub", x, graph.constant(scaler.centre))
    return graph.node("Mul" if scaler.matrix.ndim == 1 else "MatMul", x, graph.constant(scaler.matrix))


def _linear(graph: Graph, u: str, scores: LinearScores) -> str:
    """In double precision: scores of a discriminant are large, and their differences small."""
    return graph.node(
        "Gemm", graph.doubled(u), graph.constant(scores.weight.double()), graph.constant(scores.bias.double()), transB=1
    )


def _gated(graph: Graph, u: str, scores: GatedScores) -> str:
    """As `GatedScores` says: each expert's scores, the best of them at the margin or at 0, in the columns of its classes."""
    detector, summed = scores.detector, graph.constant(np.array([1], np.int64))
    h = graph.relu(graph.linear(graph.relu(graph.linear(u, detector.first)), detector.second))
    log_p = graph.node("LogSoftmax", graph.doubled(graph.linear(h, detector.third)), axis=1)
    negative = graph.node("ReduceSum", graph.node("Mul", graph.node("Exp", log_p), log_p), summed, keepdims=1)
    margin = graph.node("Add", negative, graph.constant(scores.threshold.double()))
    parts = []
    for expert, best in zip(scores.experts, (margin, None), strict=True):
        own = _linear(graph, u, expert)
        own = graph.node("Sub", own, graph.node("ReduceMax", own, axes=[1], keepdims=1))
        parts.append(own if best is None else graph.node("Add", own, best))
    nothing = graph.node("Mul", margin, graph.constant(np.array(0.0)))
    parts.append(graph.node("Sub", nothing, graph.constant(np.array(np.inf))))  # for classes that neither expert knows
    known = [ids.cpu().numpy() for ids in scores.class_ids]
    place = np.full(scores.width, len(known[0]) + len(known[1]), np.int64)
    for start, ids in ((0, known[0]), (len(known[0]), known[1])):
        place[ids] = start + np.arange(len(ids))
    return graph.node("Gather", graph.side_by_side(parts), graph.constant(place), axis=1)


def with_backbone(head: Any) -> Any:
    """The packaged backbone and what its pictures need, in front of a head."""
    onnx = imported("onnx")
    graph = Graph()
    types = graph.onnx.TensorProto
    x = graph.node("Transpose", graph.singled("pictures"), perm=[0, 3, 1, 2])
    x = graph.node("Sub", x, graph.constant(np.array(127, np.float32)))
    graph.named(graph.node("Div", x, graph.constant(np.array(128, np.float32))), "prepared")
    front = graph.model(
        "pictures",
        {"pictures": (types.UINT8, ("n", CROPPED, CROPPED, 3))},
        {"prepared": (types.FLOAT, ("n", 3, CROPPED, CROPPED))},
    )
    backbone = onnx.load_from_string(graph_bytes())
    merge = imported("onnx.compose").merge_models
    seeing = merge(front, backbone, [("prepared", "pictures")], prefix2="backbone.")
    whole = merge(seeing, head, [("backbone.features", "features")], prefix2="head.")
    outputs = {f"head.{name}": name for name in ("scores", "probabilities")}
    for node in whole.graph.node:
        node.output[:] = [outputs.get(name, name) for name in node.output]
    for value in whole.graph.output:
        value.name = outputs[value.name]
    assert (whole.opset_import[0].version, whole.ir_version) == (OPSET, IR_VERSION)
    onnx.checker.check_model(whole)
    return whole


# -------------------------------------------------------------------------------------------------------------- parity


def random_rows(scaler: FeatureScaler, count: int) -> NDArray[np.float32]:
    """(count, d) rows that are about normal when they are scaled, and a row of zeros as the last."""
    rows = unscaled(scaler, np.random.default_rng(0).normal(size=(count, len(scaler.centre))))
    rows[-1] = 0
    return rows


def unscaled(scaler: FeatureScaler, rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """(n, d) raw rows of which scaling makes these; of what it forgets (a length, a constant column) one that is possible."""
    z: NDArray[np.float64] = rows.astype(np.float64)
    if scaler.matrix.ndim == 1:
        z = np.divide(z, scaler.matrix, out=np.zeros_like(z), where=scaler.matrix != 0)
    else:
        z = np.linalg.solve(scaler.matrix.T, z.T).T.astype(np.float64)
    raw: NDArray[np.float32] = (z + scaler.centre).astype(np.float32)
    return raw


def _prepared(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(((pictures.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2))


def _run(model: Any, inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float64]]:
    runtime = imported("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float64]] = session.run(["scores", "probabilities"], inputs)
    return found


def _differences(fitted: Fitted, features: NDArray[np.float32], found: list[NDArray[np.float64]]) -> tuple[float, float]:
    """Largest differences of scores and of probabilities, as `NORM` says; infinite where other classes are never taken."""
    scores = _decided(fitted, features)
    probabilities = fitted.probabilities(scores)
    finite = np.isfinite(scores)
    if not np.array_equal(finite, np.isfinite(found[0])):
        return float("inf"), float("inf")
    size = np.where(finite, np.abs(scores), 0.0).max(axis=1, keepdims=True)
    apart = np.abs(np.where(finite, found[0], 0.0) - np.where(finite, scores, 0.0)) / np.maximum(1.0, size)
    return float(apart.max()), float(np.abs(found[1] - probabilities).max())


def _decided(fitted: Fitted, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """As `Fitted.decide`, with linear scores in double precision."""
    if not isinstance(fitted.scores, LinearScores):
        return fitted.decide(features)
    exact = LinearScores(fitted.scores.weight.double(), fitted.scores.bias.double())
    scores: NDArray[np.float64] = exact(fitted.represent(features).double()).cpu().numpy()
    return scores - fitted.gamma * fitted.seen


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
