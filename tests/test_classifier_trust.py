"""What a classifier says of its answers: probabilities, flag and abstention from folds, neighbours, and pictures."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from classifiers import same, small
from numpy.typing import NDArray
from sklearn.base import clone

from unseen import DataError, SettingsError, ZeroShotClassifier, classifier, cli, seeing
from unseen.calibration import HeldOutScores, choose_abstention, choose_flag_threshold, softmax
from unseen.classifier import InputError
from unseen.encoders.images import ImageEncoder
from unseen.evaluation import selection
from unseen.evaluation.protocol import Task, Watch, chosen
from unseen.inference import OnnxClassifier
from unseen.methods.base import ClassStreams, stream_seed
from unseen.recipe import FEW
from unseen.storage import fingerprint, hash_of, read_arrays

rng = np.random.default_rng(1)
NAMES = sorted(f"kind {k:02d}" for k in range(16))
EMBEDDINGS = {name: rng.normal(size=5) for name in NAMES}
MAP = rng.normal(size=(5, 9))
SEEN, UNSEEN = NAMES[:12], NAMES[12:]
RISK = 0.2


def rows(y: list[str]) -> NDArray[np.float32]:
    means = np.array([EMBEDDINGS[name] for name in y]) @ MAP
    return (means + 1.2 * rng.normal(size=means.shape)).astype(np.float32)


def take(names: list[str]) -> dict[str, NDArray[np.float64]]:
    return {name: EMBEDDINGS[name] for name in names}


Y = [name for name in SEEN for _ in range(25)]
X = rows(Y)
ASKED = rows([name for name in NAMES for _ in range(8)])


@pytest.fixture(scope="module")
def told() -> list[tuple[Task, list[HeldOutScores]]]:
    """What folds said in the fit of `blind`."""
    return []


@pytest.fixture(scope="module")
def blind(told: list[tuple[Task, list[HeldOutScores]]]) -> ZeroShotClassifier:
    def overheard(task: Task, watch: Watch, held_out: float) -> Task:
        parts: list[HeldOutScores] = []
        told.append((task, parts))

        def on_choice(said: list[HeldOutScores]) -> None:
            parts.extend(said)
            assert watch.on_choice is not None
            watch.on_choice(said)

        return chosen(task, replace(watch, on_choice=on_choice), held_out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "chosen", overheard)
        return ZeroShotClassifier("class-gaussian", threads=1).fit(X, Y, take(NAMES[:-2]))


def surprise(folds: list[HeldOutScores], gamma: float, temperature: float) -> float:
    """How far confidences are from what came out, squared; in each fold each kind counts half, each of its classes alike."""
    found = 0.0
    for fold in folds:
        p = softmax(fold.scores - gamma * fold.seen, temperature)
        wrong = np.square(p.max(axis=1) - (p.argmax(axis=1) == fold.labels))
        of_classes = {c: wrong[fold.labels == c].mean() for c in np.unique(fold.labels)}
        for kind in (True, False):
            found += np.mean([value for c, value in of_classes.items() if fold.seen[c] == kind]) / 2 / len(folds)
    return found


def spread(fitted: ZeroShotClassifier) -> float:
    """By hand, of a closed-form method: the standard deviation of (max seen − max unseen) over the kept rows."""
    scores = fitted.fitted_.scores(torch.from_numpy(fitted._state.learned.rows.astype(np.float32))).double().numpy()
    seen = fitted.fitted_.seen
    return float((scores[:, seen].max(axis=1) - scores[:, ~seen].max(axis=1)).std(ddof=1))


# ----------------------------------------------------------------------------------------------------------- calibration


def test_temperature_and_thresholds_follow_from_what_folds_held_out(
    blind: ZeroShotClassifier, told: list[tuple[Task, list[HeldOutScores]]]
) -> None:
    """And from nothing else. No row can poison them that is not a training row: `fit` is handed no test row, its data set has
    none, and every row that a fold held out is one of X."""
    [(task, folds)] = told
    split = task.dataset.split(task.split)
    assert len(split.test_seen) == len(split.test_unseen) == 0
    assert all(fold.rows.max() < len(X) for fold in folds)
    found = blind.calibration_
    assert found is not None
    gamma = blind._state.learned.recipe.gamma
    assert found.gamma == gamma
    least = min(surprise(folds, gamma, temperature) for temperature in np.geomspace(1e-2, 1e2, 400))
    assert surprise(folds, gamma, found.temperature) <= least + 1e-6
    assert blind.fitted_.temperature == pytest.approx(found.temperature * spread(blind), rel=1e-5)
    assert blind.fitted_.gamma == pytest.approx(gamma * spread(blind), rel=1e-5)
    masses = [softmax(f.scores - gamma * f.seen, found.temperature)[:, ~f.seen].sum(axis=1) for f in folds]
    of_unseen = np.concatenate([fold.of_unseen for fold in folds])
    expected = choose_flag_threshold(np.concatenate(masses), of_unseen, found.weights)
    assert found.flag_threshold == pytest.approx(expected)


def test_the_temperature_is_scaled_with_every_change_of_classes(blind: ZeroShotClassifier) -> None:
    changing = copy.copy(blind)
    temperatures = [blind.fitted_.temperature]
    for change in (
        lambda: changing.add_classes(take(NAMES[-2:-1])),
        lambda: changing.update_classes({UNSEEN[0]: EMBEDDINGS[NAMES[-1]]}),
        lambda: changing.learn_examples(rows([UNSEEN[1]] * FEW), [UNSEEN[1]] * FEW),
        lambda: changing.remove_classes(UNSEEN[0]),
    ):
        change()
        assert changing.calibration_ is not None
        temperatures.append(changing.fitted_.temperature)
        if not len(changing._state.learned.examples):  # else the rows are more than those of the fit
            assert temperatures[-1] == pytest.approx(changing.calibration_.temperature * spread(changing), rel=1e-5)
    assert len(set(temperatures)) == 5
    whole = ZeroShotClassifier("class-gaussian", threads=1).fit(X, Y, take(NAMES))
    assert same(copy.copy(blind).add_classes(take(NAMES[-2:])), whole, ASKED)


def test_a_generative_method_is_calibrated_where_it_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "CLASSIFIERS", selection.CLASSIFIERS[-1:])
    monkeypatch.setattr(selection, "STEP_SHARES", (1.0,))
    monkeypatch.setattr(selection, "SYNTHETIC_RATIOS", (1.0,))
    asked = small(classifier_epochs=2, steps=3).set_params(protocol="blind")
    fitted = asked.fit(X[::5], Y[::5], take(NAMES[:-1]))
    assert fitted.calibration_ is not None
    learned = fitted._state.learned
    again, _ = replace(learned, calibration=None, recipe=replace(learned.recipe, gamma=1.0)).fit(torch.device("cpu"))
    assert fitted.fitted_.temperature == pytest.approx(fitted.calibration_.temperature * again.gamma)


@pytest.mark.parametrize("method", ["tfvaegan", "class-gaussian"])
def test_without_folds_nothing_is_calibrated(method: str) -> None:
    fitted = small(method).fit(X, Y, take(NAMES))
    assert fitted.calibration_ is None
    assert fitted.fitted_.temperature == 1
    answers = fitted.answers(ASKED)
    assert answers.never_seen.tolist() == [name in UNSEEN for name in answers.names]
    with pytest.raises(DataError, match="a risk is kept to by what folds held out") as error:
        fitted.answers(ASKED, risk=0.2)
    assert "\n" not in str(error.value)


def test_a_fit_tells_how_far_it_is_and_is_the_same_fit() -> None:
    phases: list[str] = []
    steps: list[tuple[str, int, int]] = []
    watch = Watch(
        on_phase=phases.append,
        on_progress=lambda progress: steps.append((phases[-1], progress.step, progress.steps)),
    )
    asked = small(classifier_epochs=2, steps=3).set_params(protocol="blind")
    watched = clone(asked).fit(X, Y, take(NAMES), watch)
    choosing = [phase for phase in phases if phase.startswith("choosing settings: ")]
    assert phases == [*choosing, "training on all seen rows", "synthesising and fitting the final classifier"]
    ends = [phase for phase, step, of in steps if step == of]
    assert ends == [phase for phase in phases if "fold " in phase or phase.startswith("training")], "each told of its last step"
    assert same(watched, clone(asked).fit(X, Y, take(NAMES)), ASKED)


def test_where_all_classes_are_on_one_side_there_is_no_unit(blind: ZeroShotClassifier) -> None:
    alone = ZeroShotClassifier("class-gaussian", threads=1).fit(X, Y, take(SEEN))
    assert alone.calibration_ is None
    assert (alone.fitted_.temperature, alone.fitted_.gamma) == (1, 0)
    assert not alone.answers(ASKED).never_seen.any()
    with pytest.raises(DataError, match="of both seen and unseen"):
        alone.answers(ASKED, risk=0.2)
    assert same(alone.add_classes(take(UNSEEN[:2])), blind, ASKED), "what folds said was kept"


# --------------------------------------------------------------------------------------------------------------- answers


def test_answers_say_what_the_other_verbs_say(blind: ZeroShotClassifier) -> None:
    answers = blind.answers(ASKED)
    assert np.array_equal(answers.scores, blind.decision_function(ASKED))
    assert np.array_equal(answers.probabilities, blind.predict_proba(ASKED))
    assert answers.names == blind.predict(ASKED).tolist()
    assert answers.confidence == pytest.approx(answers.probabilities.max(axis=1))
    assert answers.unseen_mass == pytest.approx(answers.probabilities[:, np.isin(blind.classes_, UNSEEN)].sum(axis=1))
    assert blind.calibration_ is not None
    assert answers.never_seen.tolist() == (answers.unseen_mass > blind.calibration_.flag_threshold).tolist()
    assert 0 < answers.never_seen.mean() < 1


@pytest.mark.parametrize("method", ["class-gaussian", "tfvaegan"])
@pytest.mark.parametrize("value", [3e38, -3e38])
def test_a_row_that_is_too_large_to_be_scored_is_refused_by_its_number(method: str, value: float) -> None:
    """Not NaN, which a program would take for an answer; also by the number of a row that is not looked at first."""
    known = small(method, scaling="whitened").fit(X / 100, Y, EMBEDDINGS)
    rows = np.tile(X[:1] / 100, (600, 1))
    column = known.fitted_.scaler.features.matrix[:, 0]
    rows[599] = value * np.sign(column)  # so that nothing cancels in a product with it
    for verb in (known.predict, known.decision_function, known.predict_proba, known.answers):
        with pytest.raises(InputError, match=r"^row 599 is too large to be scored; check how it was made$") as error:
            verb(rows)
        assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    assert np.abs(column).sum() > 2  # so that scaling makes more of it than float32 holds
    with pytest.raises(InputError, match=r"^row 599 is too large"):
        known.explain(rows)
    assert np.isfinite(known.predict_proba(rows[:599])).all()


def test_no_class_is_named_where_the_risk_would_be_exceeded(blind: ZeroShotClassifier) -> None:
    answers, found = blind.answers(ASKED, risk=RISK), blind.calibration_
    assert found is not None
    _, once = np.unique(found.rows, return_index=True)
    expected = choose_abstention(found.confidence[once], found.right[once], found.of_unseen[once], RISK)
    assert [name is None for name in answers.names] == (answers.confidence < expected.threshold).tolist()
    assert 0 < sum(name is None for name in answers.names) < len(ASKED)
    assert np.array_equal(answers.probabilities, blind.predict_proba(ASKED)), "only the names are held back"
    with pytest.raises(DataError, match="no confidence keeps the share of wrong answers"):
        blind.answers(ASKED, risk=1e-6)
    with pytest.raises(SettingsError, match="risk=2"):
        blind.answers(ASKED, risk=2)


# --------------------------------------------------------------------------------------------------------------- explain


@pytest.mark.parametrize("classifier", ["softmax", "gaussian"])
def test_neighbours_are_means_of_real_and_of_synthetic_rows(classifier: str) -> None:
    """By brute force, after a class came and another got some rows; a tenth of ASKED is looked at."""
    fitted = small(classifier=classifier, classifier_epochs=2).fit(X, Y, take(NAMES[:-1])).add_classes(take(NAMES[-1:]))
    few = rows([UNSEEN[0]] * 5)
    fitted.learn_examples(few, [UNSEEN[0]] * 5)
    learned, method = fitted._state.learned, fitted.fitted_.method
    assert method is not None
    streams = ClassStreams(stream_seed(learned.seed, "synthesis"), learned.names, torch.device("cpu"))

    def mean(x: Any) -> NDArray[np.float64]:
        return method.represent(torch.as_tensor(np.asarray(x, np.float32))).double().numpy().mean(axis=0)

    means = {name: mean(learned.rows[np.array(Y) == name]) for name in SEEN}
    for k in range(12, 16):
        means[NAMES[k]] = mean(method.sample(torch.full((learned.recipe.synthetic,), k), streams))
    share = 5 / (5 + 3)
    means[UNSEEN[0]] = (1 - share) * means[UNSEEN[0]] + share * mean(learned.scaler.features(few).astype(np.float16))
    found = fitted.explain(ASKED[::10], count=2)
    for n, row in enumerate(fitted.fitted_.represent(ASKED[::10]).double().numpy()):
        for side, labels, distances in (
            (SEEN, found.seen, found.seen_distances),
            (UNSEEN, found.unseen, found.unseen_distances),
        ):
            expected = sorted((float(np.linalg.norm(row - means[name])), name) for name in side)[:2]
            assert labels[n].tolist() == [name for _, name in expected]
            assert distances[n] == pytest.approx([distance for distance, _ in expected], rel=1e-4)


def test_a_class_without_any_row_is_near_to_nothing(blind: ZeroShotClassifier) -> None:
    found = blind.explain(ASKED[:3])
    assert found.seen.shape == (3, 3)
    assert found.unseen.shape == (3, 0)
    some = copy.copy(blind).learn_examples(ASKED[-1:], [UNSEEN[0]])
    assert some.explain(ASKED[-1:]).unseen.tolist() == [[UNSEEN[0]]]


# ------------------------------------------------------------------------------------------------- copies, folders, files


@pytest.mark.parametrize("method", ["class-gaussian", "tfvaegan", "cadavae"])
def test_a_copy_that_learns_leaves_the_original_as_it_was(method: str) -> None:
    original = small(method).fit(X, Y, take(NAMES[:-2]))
    state, scores = original._state, original.decision_function(ASKED)
    copied = copy.copy(original).add_classes(take(NAMES[-2:])).learn_examples(ASKED[:3], NAMES[-3:]).remove_classes(SEEN[0])
    assert original._state is state
    assert np.array_equal(original.decision_function(ASKED), scores)
    assert len(copied.classes_) == 15


@pytest.mark.parametrize("method", ["tfvaegan", "cadavae"])
@pytest.mark.parametrize("classifier", ["softmax", "gaussian"])
def test_what_is_kept_for_the_next_change_changes_no_bit(method: str, classifier: str) -> None:
    """Whatever came before, and where nothing was kept: after pickling."""
    settings = {"classifier": classifier, "classifier_epochs": 2, "gamma": 0.3}
    one = small(method, **settings).fit(X, Y, take(NAMES[:-2]))
    other = copy.copy(one)
    some = rows([UNSEEN[0]] * 3 + [SEEN[1]] * 2)
    y = [UNSEEN[0]] * 3 + [SEEN[1]] * 2
    one.learn_examples(some, y).add_classes(take(NAMES[-2:])).update_classes({UNSEEN[1]: np.ones(5)})
    other = pickle.loads(pickle.dumps(other))
    assert other._state.made is None
    other.add_classes(take(NAMES[-1:])).update_classes({UNSEEN[1]: np.ones(5)})
    other = pickle.loads(pickle.dumps(other))
    other.learn_examples(some[:4], y[:4]).add_classes(take(NAMES[-2:-1])).learn_examples(some[4:], y[4:])
    assert same(one, other, ASKED)


@pytest.mark.parametrize("inference_only", [False, True])
def test_what_folds_said_is_saved(inference_only: bool, blind: ZeroShotClassifier, tmp_path: Path) -> None:
    blind.save(tmp_path / "model", inference_only=inference_only)
    loaded = ZeroShotClassifier.load(tmp_path / "model")
    assert same(blind, loaded, ASKED)
    assert loaded.answers(ASKED, risk=RISK).names == blind.answers(ASKED, risk=RISK).names
    assert loaded.answers(ASKED).never_seen.tolist() == blind.answers(ASKED).never_seen.tolist()
    assert np.array_equal(loaded.explain(ASKED).seen, blind.explain(ASKED).seen)
    if not inference_only:
        more = take(NAMES[-2:])
        assert same(copy.copy(blind).add_classes(more), loaded.add_classes(more), ASKED)


def test_an_exported_model_answers_as_the_classifier(
    blind: ZeroShotClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blind.save(tmp_path / "model")
    command = ["unseen", "export", str(tmp_path / "model"), "--onnx", str(tmp_path / "m.onnx"), "--risk", str(RISK)]
    monkeypatch.setattr(sys, "argv", command)
    cli.main()
    assert "not calibrated" not in capsys.readouterr().err
    opened = OnnxClassifier(tmp_path / "m.onnx")
    assert blind.calibration_ is not None
    assert opened.flag_threshold == blind.calibration_.flag_threshold
    assert opened.temperature == blind.fitted_.temperature
    ours, theirs = blind.answers(ASKED, risk=RISK), opened.predict(ASKED)
    assert theirs.names == ours.names
    assert theirs.never_seen.tolist() == ours.never_seen.tolist()
    assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-5)


# -------------------------------------------------------------------------------------------------------------- pictures


class Squares:
    """An encoder of pictures, of nine numbers."""

    def __init__(self, mark: str = "a", dimension: int = 9) -> None:
        self.fingerprint, self.dimension = mark, dimension


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> dict[str, Squares]:
    """Name → what is built for it."""
    known = {"timm:squares": Squares(), "timm:other": Squares("b"), "timm:wide": Squares("c", 10)}

    class Choice:
        def __init__(self, name: str) -> None:
            self.name = name

        def build(self) -> Squares:
            return known[self.name]

    monkeypatch.setattr(seeing, "EncoderChoice", Choice)
    seeing.built.cache_clear()
    return known


def test_who_turns_pictures_into_rows_is_said_and_saved(squares: dict[str, Squares], tmp_path: Path) -> None:
    fitted = small("class-gaussian").set_params(image_encoder="timm:squares").fit(X, Y, take(NAMES))
    assert fitted.picture_encoder() is squares["timm:squares"]
    assert pickle.loads(pickle.dumps(fitted)).picture_encoder() is squares["timm:squares"]
    fitted.save(tmp_path / "model")
    silent = ZeroShotClassifier.load(tmp_path / "model")
    assert silent.image_encoder is None, "a folder does not decide what is loaded"
    with pytest.raises(DataError, match="by 'timm:squares', which is not loaded because a folder says so; name it"):
        silent.picture_encoder()
    silent.save(tmp_path / "again")
    asked = ZeroShotClassifier.load(tmp_path / "again", image_encoder="timm:squares")
    assert asked.picture_encoder() is asked.picture_encoder() is squares["timm:squares"]
    with pytest.raises(DataError, match="by another encoder \\('timm:squares'\\) than timm:other; give that"):
        ZeroShotClassifier.load(tmp_path / "model", image_encoder="timm:other")


def test_pictures_that_cannot_be_answered_are_refused_in_one_sentence(squares: dict[str, Squares]) -> None:
    fitted = small("class-gaussian").fit(X, Y, take(NAMES))
    for name, said in ((None, "nothing says how pictures"), ("timm:wide", "makes 10 numbers of a picture"), (3, "not int")):
        with pytest.raises(DataError, match=said) as error:
            fitted.set_params(image_encoder=name).picture_encoder()
        assert "\n" not in str(error.value)


def test_ours_is_taken_by_itself_where_it_is_the_same(tmp_path: Path) -> None:
    fitted = small("class-gaussian").set_params(image_encoder=ImageEncoder.name).fit(X, Y, take(NAMES))
    fitted.save(tmp_path / "model")
    entry = json.loads((tmp_path / "model" / "model.json").read_text())
    assert entry["image_encoder"] == {"name": ImageEncoder.name, "fingerprint": ImageEncoder().fingerprint}
    assert ZeroShotClassifier.load(tmp_path / "model").image_encoder == ImageEncoder.name
    del entry["sha256"]
    entry["image_encoder"] = {"name": "timm:../../evil", "fingerprint": "0"}
    checksums = {name: fingerprint(array) for name, array in read_arrays(tmp_path / "model" / "model.safetensors")[0].items()}
    entry["sha256"] = {"arrays": checksums, "entries": hash_of([entry, checksums])}
    (tmp_path / "model" / "model.json").write_text(json.dumps(entry))
    assert ZeroShotClassifier.load(tmp_path / "model").image_encoder is None
