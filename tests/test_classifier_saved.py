"""Saved classifiers: the same bits in another process, further classes after loading, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from classifiers import BY_NAME, same, small
from numpy.typing import NDArray
from sklearn.base import clone

from unseen import DataError, RunError, ZeroShotClassifier, saved
from unseen.storage import fingerprint, hash_of, read_arrays, write_arrays

rng = np.random.default_rng(0)
NAMES = sorted(f"kind {k:02d}" for k in range(12))
EMBEDDINGS = {name: rng.normal(size=8) for name in NAMES}
SEEN, UNSEEN = NAMES[:8], NAMES[8:]
Y = np.repeat(SEEN, 6)
X = (np.array([EMBEDDINGS[name] for name in Y]) + 0.3 * rng.normal(size=(48, 8))).astype(np.float32)  # pictures and words alike
ASKED = rng.normal(size=(20, 8)).astype(np.float32)


def take(names: list[str]) -> dict[str, NDArray[np.float64]]:
    return {name: EMBEDDINGS[name] for name in names}


@pytest.fixture(scope="module")
def fitted() -> ZeroShotClassifier:
    return small(gamma=0.3).fit(X, Y, take(NAMES[:-1]))


@pytest.fixture(scope="module")
def model(fitted: ZeroShotClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted.save(folder)
    return folder


# ----------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("method", BY_NAME)
@pytest.mark.filterwarnings("ignore:training .* looks at the classes without rows")
def test_classes_added_after_loading_are_as_if_added_before(method: str, tmp_path: Path) -> None:
    before = small(method).fit(X, Y, take(NAMES[:-2]))
    before.save(tmp_path / "model")
    after = ZeroShotClassifier.load(tmp_path / "model")
    assert same(before, after, ASKED)
    extra = EMBEDDINGS[UNSEEN[0]] + np.zeros((3, 8))
    for classifier in (before, after):
        classifier.add_classes(take(NAMES[-2:])).learn_examples(extra, [UNSEEN[0]] * 3).remove_classes([SEEN[2], UNSEEN[1]])
    assert same(before, after, ASKED)
    after.save(tmp_path / "model")
    assert same(before, ZeroShotClassifier.load(tmp_path / "model"), ASKED)


@pytest.mark.parametrize("classifier", ["softmax", "ood"])
def test_every_final_classifier_can_be_saved(classifier: str, tmp_path: Path) -> None:
    before = small(classifier=classifier, classifier_epochs=2).fit(X, Y, take(NAMES))
    before.save(tmp_path / "model")
    assert same(before, ZeroShotClassifier.load(tmp_path / "model"), ASKED)


def test_a_fresh_process_predicts_the_same_bits(fitted: ZeroShotClassifier, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "asked.npy", ASKED)
    program = (
        "import sys, numpy as np, unseen\n"
        "loaded = unseen.ZeroShotClassifier.load(sys.argv[1])\n"
        "np.save(sys.argv[3], loaded.decision_function(np.load(sys.argv[2])))\n"
    )
    out = tmp_path / "scores.npy"
    subprocess.run([sys.executable, "-c", program, str(model), str(tmp_path / "asked.npy"), str(out)], check=True)
    assert np.array_equal(np.load(out), fitted.decision_function(ASKED))


def test_what_was_asked_for_comes_back(fitted: ZeroShotClassifier, model: Path) -> None:
    loaded = ZeroShotClassifier.load(model)
    expected = fitted.get_params() | {"settings": {name: str(value) for name, value in fitted.settings.items()}}
    assert loaded.get_params() == expected
    assert same(clone(loaded).fit(X, Y, take(NAMES[:-1])), fitted, ASKED)
    with pytest.raises(DataError, match="expecting 8 features"):
        loaded.predict(ASKED[:, :3])


@pytest.mark.parametrize("labels", [list(range(8)), ["b", "a", *"cdefgh"], [True, False], np.array(list("abcdefgh"), object)])
def test_labels_keep_their_kind(labels: Any, tmp_path: Path) -> None:
    y = np.repeat(np.asarray(labels), 6)
    frame = pd.DataFrame(X[: len(y)], columns=list("abcdefgh"))
    before = small("class-gaussian").fit(frame, y)
    before.save(tmp_path / "model")
    after = ZeroShotClassifier.load(tmp_path / "model")
    assert after.classes_.dtype == before.classes_.dtype
    assert np.array_equal(after.predict(frame), before.predict(frame))
    with pytest.raises(DataError, match="feature names should match"):
        after.predict(frame.rename(columns={"a": "z"}))
    with pytest.raises(DataError, match="fitted without `classes`"):
        after.add_classes({"okapi": np.ones(8)})


@pytest.mark.parametrize("size", [1e6, 1e-8, 1e-5])
def test_rows_that_float16_cannot_hold_stay_as_they_are(size: float, tmp_path: Path) -> None:
    """Too large, too small to be told from 0, or so small that few of its digits are left."""
    rows = (size * X).astype(np.float32)
    before = small("class-gaussian", scaling="none").fit(rows, Y, take(NAMES))
    before.save(tmp_path / "model")
    kept = read_arrays(tmp_path / "model" / "model.safetensors")[0]["rows"]
    assert kept.dtype == np.float32
    assert np.array_equal(kept, rows)
    after = ZeroShotClassifier.load(tmp_path / "model")
    assert np.array_equal(after.predict(rows), before.predict(rows))
    assert same(before.remove_classes(UNSEEN[:1]), after.remove_classes(UNSEEN[:1]), ASKED)


def test_rows_of_ordinary_size_are_kept_in_float16(tmp_path: Path) -> None:
    """Also where a value is tiny beside the others of its row, or a whole row is 0."""
    rows = X.copy()
    rows[0], rows[1, 0] = 0, 1e-8
    small("class-gaussian", scaling="none").fit(rows, Y, take(NAMES)).save(tmp_path / "model")
    kept = read_arrays(tmp_path / "model" / "model.safetensors")[0]["rows"]
    assert kept.dtype == np.float16
    assert np.array_equal(kept, rows.astype(np.float16))


@pytest.mark.parametrize("method", BY_NAME)
def test_a_model_for_inference_holds_no_rows_and_learns_nothing(method: str, tmp_path: Path) -> None:
    before = small(method).fit(X, Y, take(NAMES[:-1]))
    before.save(tmp_path / "model", inference_only=True)
    assert len(read_arrays(tmp_path / "model" / "model.safetensors")[0]["rows"]) == 0
    after = ZeroShotClassifier.load(tmp_path / "model")
    assert same(before, after, ASKED)
    changes: tuple[Callable[[], Any], ...] = (
        lambda: after.add_classes(take(NAMES[-1:])),
        lambda: after.remove_classes(UNSEEN[0]),
        lambda: after.update_classes({UNSEEN[0]: np.ones(8)}),
        lambda: after.learn_examples(X[:1], Y[:1]),
    )
    for change in changes:
        with pytest.raises(DataError, match="saved with inference_only=True, so it cannot") as error:
            change()
        assert "\n" not in str(error.value)
    after.save(tmp_path / "again")
    assert same(before, ZeroShotClassifier.load(tmp_path / "again"), ASKED)


def test_an_older_folder_that_does_not_say_what_training_looked_at_is_read(tmp_path: Path) -> None:
    small("sddn").fit(X, Y, take(NAMES[:-1])).save(tmp_path / "new")
    older = changed(tmp_path / "new", tmp_path / "old", lambda entry, _: entry.pop("used_unseen_embeddings"))
    known = ZeroShotClassifier.load(older)
    with pytest.warns(UserWarning, match="fit anew"):
        known.remove_classes(UNSEEN[:-1])


# --------------------------------------------------------------------------------------------------------------- refusals


def refused(folder: Path, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        ZeroShotClassifier.load(folder)
    assert "\n" not in str(error.value)


def changed(model: Path, folder: Path, change: Callable[[dict[str, Any], dict[str, NDArray[Any]]], None]) -> Path:
    """A copy of the model, changed, with checksums that are right: what someone could write who means harm."""
    shutil.copytree(model, folder)
    entry = json.loads((folder / "model.json").read_text())
    arrays = {name: np.array(array) for name, array in read_arrays(folder / "model.safetensors")[0].items()}
    del entry["sha256"]
    change(entry, arrays)
    checksums = {name: fingerprint(array) for name, array in arrays.items()}
    entry["sha256"] = {"arrays": checksums, "entries": hash_of([entry, checksums])}
    (folder / "model.json").write_text(json.dumps(entry))
    write_arrays(folder / "model.safetensors", arrays)
    return folder


def test_a_folder_that_is_no_model_is_refused(model: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "is not a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "does not exist")
    (tmp_path / "empty" / "model.json").write_text('{"format": "another"}')
    refused(tmp_path / "empty", "does not describe what unseen writes")
    newer = changed(model, tmp_path / "new", lambda entry, _: entry.update(version=3))
    refused(newer, "version 3 .* reads version 2; update unseen")
    older = changed(model, tmp_path / "old", lambda entry, _: entry.update(version=1))
    refused(older, "version 1 .* reads version 2; make it again with this program")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_every_damage_is_found(name: str, model: Path, tmp_path: Path) -> None:
    content = (model / name).read_bytes()
    for k, place in enumerate(np.linspace(0, len(content) - 2, 40).astype(int)):
        shutil.copytree(model, tmp_path / str(k))
        flipped = bytes([content[place] ^ 1])
        (tmp_path / str(k) / name).write_bytes(content[:place] + flipped + content[place + 1 :])
        refused(tmp_path / str(k), "restore|write it anew|does not|reads version|asks for")
    shutil.copytree(model, tmp_path / "short")
    (tmp_path / "short" / name).write_bytes(content[: len(content) // 2])
    refused(tmp_path / "short", "damaged")
    (tmp_path / "short" / name).unlink()
    refused(tmp_path / "short", "does not exist")


@pytest.mark.parametrize("name", ["weights.pkl", "model.py", "custom.pt", "more.json"])
def test_a_folder_with_any_other_file_is_refused(name: str, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(b"\x80\x04N.")
    refused(tmp_path / "model", "which no model of ours holds; nothing was read")


def test_nothing_that_an_entry_asks_for_is_done(model: Path, tmp_path: Path) -> None:
    """With checksums that are right. An encoder in the entries is not loaded: who loads the model names it."""
    changes: dict[str, Callable[[dict[str, Any], dict[str, NDArray[Any]]], None]] = {
        "asks for 'auto_map'": lambda entry, _: entry.update(auto_map="theirs.Method"),
        "there is no method 'os:system'": lambda entry, _: (
            entry.update(method="os:system"),
            entry["asked"].update(method="os:system"),
        )[0],
        "damaged": lambda entry, _: entry["hyperparameters"].update(trust_remote_code=True),
        "another constructor": lambda entry, _: entry["asked"].update(trust_remote_code=True),
        "not all of kind": lambda entry, _: entry["labels"]["values"].__setitem__(0, 7),
        "arrays do not fit": lambda _, arrays: arrays.update(labels=arrays["labels"] + 100),
        "do not fit together": lambda _, arrays: arrays.update(rows=arrays["rows"][:, :3]),
        "model in": lambda _, arrays: arrays.pop("scaler.centre"),
        "scores are no numbers": lambda _, arrays: arrays.update(
            {k: v * np.nan for k, v in arrays.items() if k.startswith("scores.")}
        ),
        "scores do not fit": lambda _, arrays: arrays.update({k: v[:3] for k, v in arrays.items() if k.startswith("scores.")}),
        "temperature": lambda entry, _: entry.update(temperature=0.0),
        "size mismatch": lambda entry, _: entry["hyperparameters"].update(hidden=17),
        "printable": lambda entry, _: entry["labels"]["values"].__setitem__(0, "\x1b[31m"),
        "NaN": lambda _, arrays: arrays.update(embeddings=np.full_like(arrays["embeddings"], np.nan)),
    }
    for k, (said, change) in enumerate(changes.items()):
        refused(changed(model, tmp_path / str(k), change), said)
    elsewhere = changed(model, tmp_path / "encoder", lambda entry, _: entry["asked"].update(encoder="vectors:/etc/passwd"))
    assert ZeroShotClassifier.load(elsewhere).encoder == "minilm"


def test_saving_replaces_a_model_of_ours_and_nothing_else(
    fitted: ZeroShotClassifier, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("…")
    with pytest.raises(DataError, match="holds something else"):
        fitted.save(tmp_path / "thesis")
    shutil.copytree(model, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(saved, "write_json", full)
        with pytest.raises(RunError, match="No space left"):
            fitted.save(tmp_path / "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "thesis"]
    fitted.save(tmp_path / "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before, "equal, to the byte"


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_what_is_no_plain_file_is_not_opened(name: str, fitted: ZeroShotClassifier, model: Path, tmp_path: Path) -> None:
    def link(path: Path) -> None:
        path.symlink_to(model / name)

    for k, (put, said) in enumerate({os.mkfifo: "is no plain file", os.mkdir: "is no plain file", link: "is a link"}.items()):
        shutil.copytree(model, tmp_path / str(k))
        (tmp_path / str(k) / name).unlink()
        put(tmp_path / str(k) / name)
        refused(tmp_path / str(k), f"{name} {said}, and was not opened")
        with pytest.raises(DataError, match=f"{name} {said}"):
            fitted.save(tmp_path / str(k))


def test_rows_are_not_lost_by_saving_a_model_without_any(fitted: ZeroShotClassifier, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "full")
    fitted.save(tmp_path / "bare", inference_only=True)
    bare = ZeroShotClassifier.load(tmp_path / "bare")
    with pytest.raises(DataError, match="this one has none; choose another name, or say inference_only=True"):
        bare.save(tmp_path / "full")
    assert {path.name: path.read_bytes() for path in (tmp_path / "full").iterdir()} == {
        path.name: path.read_bytes() for path in model.iterdir()
    }
    bare.save(tmp_path / "bare")
    bare.save(tmp_path / "full", inference_only=True)
    assert not len(ZeroShotClassifier.load(tmp_path / "full")._state.learned.rows)


def test_a_version_that_is_no_number_is_damage(model: Path, tmp_path: Path) -> None:
    for k, version in enumerate(("2", None, [2])):
        refused(
            changed(model, tmp_path / str(k), lambda entry, _, version=version: entry.update(version=version)), "is damaged"
        )
