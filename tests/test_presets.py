"""Presets as files: whole round trips, and one sentence for every file that is not one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unseen import presets
from unseen.asking import build_task
from unseen.data import Dataset
from unseen.errors import DataError, SettingsError
from unseen.evaluation.selection import Selection
from unseen.methods import Generative, find_method
from unseen.methods.class_gaussian import ClassGaussian
from unseen.methods.tfvaegan import Hyperparameters
from unseen.presets import Preset, identity, read_preset, shipped_preset, write_preset
from unseen.recipe import Recipe

World = Callable[..., Dataset]


@pytest.fixture(scope="module")
def world(tiny_world: World) -> Dataset:
    """Two splits of the same rows: `other` has another unseen class."""
    made = tiny_world()
    split = made.split("main")
    other = replace(split, name="other", test_seen=split.test_seen[1:])
    return replace(made, splits={"main": split, "other": other})


@pytest.fixture
def preset(world: Dataset) -> Preset:
    return Preset(
        method="tfvaegan",
        hyperparameters=vars(Hyperparameters(hidden=16, sigma=0.5)).copy(),
        recipe=Recipe(scaling="l2", steps=77, gamma=1.25, classifier="gaussian"),
        selection=Selection("3 folds", {"steps": 77, "gamma": 1.25}, 0.5, [{"steps": 77, "gamma": 1.25, "H": 0.5}]),
        chosen_for=identity(world, "main"),
        command="unseen train tiny --save-preset x.json",
    )


def test_round_trip(tmp_path: Path, preset: Preset) -> None:
    write_preset(tmp_path / "p.json", preset)
    again = read_preset(tmp_path / "p.json")
    assert again == preset
    assert again.build(find_method("tfvaegan")) == Hyperparameters(hidden=16, sigma=0.5)


def test_closed_form_round_trip(tmp_path: Path, preset: Preset) -> None:
    closed = replace(preset, method="class-gaussian", hyperparameters={"ridge": 3.0, "shrinkage": 0.6})
    write_preset(tmp_path / "p.json", closed)
    assert read_preset(tmp_path / "p.json").build(find_method("class-gaussian")) == ClassGaussian(3.0, 0.6)


def swapped_labels(world: Dataset) -> Dataset:
    """Two training rows of different seen classes change labels: features, embeddings and the split's rows stay."""
    train, labels = world.split("main").train, world.labels.copy()
    one, other = train[0], train[labels[train] != labels[train[0]]][0]
    labels[[one, other]] = labels[[other, one]]
    return replace(world, labels=labels)


def test_a_preset_fits_the_very_split_alone(world: Dataset, preset: Preset) -> None:
    assert preset.fits(world, "main")
    assert not preset.fits(world, "other")
    features = world.features.copy()
    features[0, 0] += 1
    assert not preset.fits(replace(world, features=features), "main")
    assert not preset.fits(swapped_labels(world), "main")
    table = replace(world.classes, embeddings=world.classes.embeddings + 1)
    assert not preset.fits(replace(world, classes=table), "main")


def test_a_preset_of_the_same_split_is_its_selection(tmp_path: Path, world: Dataset, preset: Preset) -> None:
    path = tmp_path / "p.json"
    write_preset(path, preset)
    task = build_task(world, "main", "tfvaegan", "blind", 0, {}, str(path))
    assert task.selection == preset.selection
    assert task.recipe == preset.recipe
    assert task.settings_from == "folds"


def test_on_another_split_or_with_other_settings_it_is_a_start(tmp_path: Path, world: Dataset, preset: Preset) -> None:
    path = tmp_path / "p.json"
    write_preset(path, preset)
    for split, protocol, settings in (("other", "blind", {}), ("main", "blind", {"lr": "0.01"}), ("main", "fixed", {})):
        task = build_task(world, split, "tfvaegan", protocol, 0, settings, str(path))
        assert task.selection is None
        if protocol == "fixed":
            assert task.recipe == preset.recipe
        assert task.hyperparameters.sigma == 0.5


def test_a_row_says_when_the_folds_were_of_another_split_or_other_data(tmp_path: Path, world: Dataset, preset: Preset) -> None:
    """What trains in one split is tested in another: settings that were searched there have seen something of these tests."""
    path = tmp_path / "p.json"
    write_preset(path, preset)

    def settings_from(data: Dataset, split: str, protocol: str = "blind", **settings: str) -> str:
        return build_task(data, split, "tfvaegan", protocol, 0, settings, str(path)).settings_from

    assert settings_from(world, "main", "fixed") == "folds"
    assert settings_from(world, "other") == "folds of another split"
    assert settings_from(world, "other", lr="0.01") == "user (lr), else folds of another split"
    assert settings_from(replace(world, features=world.features + 1), "other") == "folds of other data"


def test_the_preset_of_a_method_that_is_re_created_does_not_say_published(world: Dataset) -> None:
    for method, said in (
        ("tfvaegan", "published"),
        ("cadavae", "published"),
        ("fvaegan", "published for TF-VAEGAN, which it is a part of"),
        ("clswgan", "published, as scripts of others repeat it"),
        ("bsegn", "inferred, but for what TF-VAEGAN published"),
        ("sddn", "inferred, but for what SDGZSL published"),
    ):
        assert build_task(world, "main", method, "fixed", 0, {}, "cub").settings_from == said
        renamed = replace(world, name="CUB")  # a benchmark's preset is taken by the name of the data
        assert build_task(renamed, "main", method, "fixed", 0, {}, None).settings_from == said
        changed = build_task(world, "main", method, "fixed", 0, {"lr": "0.01"}, "cub")
        assert changed.settings_from == f"user (lr), else {said}"


def test_the_preset_of_a_benchmark_without_a_script_says_inferred(world: Dataset) -> None:
    for method, preset, said in (
        ("gsmflow", "sun", "inferred"), ("gsmflow", "awa1-mm21", "inferred"), ("gsmflow", "awa2", "published"),
        ("dfca", "apy", "inferred"), ("dfca", "cub", "published"), ("clswgan", "awa2", "inferred"),
        ("tfvaegan", "awa1", "inferred"), ("fvaegan", "awa1", "inferred"),
    ):  # fmt: skip
        assert build_task(world, "main", method, "fixed", 0, {}, preset).settings_from == said


def test_blind_tries_the_methods_own_number_of_steps_wherever_it_starts(tmp_path: Path, world: Dataset, preset: Preset) -> None:
    """The steps of a preset are those it chose elsewhere, perhaps a quarter of what was tried: no budget to choose from."""
    path = tmp_path / "p.json"
    write_preset(path, preset)
    method = find_method("tfvaegan")
    assert isinstance(method, Generative)
    _, own = method.default(len(world.split("main").seen), world.features.shape[1], world.classes.embeddings.shape[1])
    assert own.steps != preset.recipe.steps
    for split, settings in (("other", {}), ("main", {"lr": "0.01"})):
        task = build_task(world, split, "tfvaegan", "blind", 0, settings, str(path))
        assert task.recipe == replace(preset.recipe, steps=own.steps, epochs=own.epochs)
    assert build_task(world, "other", "tfvaegan", "blind", 0, {"steps": "9"}, str(path)).recipe.steps == 9


def test_a_shipped_preset_is_found_by_its_split(
    tmp_path: Path, world: Dataset, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presets, "SHIPPED", tmp_path)
    assert shipped_preset("tfvaegan", world, "main") is None
    write_preset(tmp_path / "tiny-tfvaegan.json", preset)
    assert shipped_preset("tfvaegan", world, "main") == preset
    assert shipped_preset("fvaegan", world, "main") is None
    assert shipped_preset("tfvaegan", world, "other") is None
    assert build_task(world, "main", "tfvaegan", "blind", 0, {}, None).selection == preset.selection


def test_another_methods_preset_is_refused(preset: Preset) -> None:
    with pytest.raises(SettingsError, match="for method 'tfvaegan', not for 'eszsl'"):
        preset.build(find_method("eszsl"))
    with pytest.raises(SettingsError, match=r"does not fit this version of 'tfvaegan' .*wings.*; make it anew"):
        replace(preset, hyperparameters={"wings": 2}).build(find_method("tfvaegan"))


def change(entry: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with `path` (keys joined by dots) set; a value of None removes the key."""
    entry = json.loads(json.dumps(entry))
    *outer, last = path.split(".")
    inside = entry
    for key in outer:
        inside = inside[key]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    return entry


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", "unseen-run"),
        ("format", None),
        ("recipe", None),
        ("recipe", 5),
        ("recipe", "minmax"),
        ("recipe.wings", 2),
        ("recipe.scaling", "zscore"),
        ("recipe.steps", "many"),
        ("recipe.gamma", [1]),
        ("selection", None),
        ("selection", []),
        ("selection.objective", None),
        ("selection.wings", 2),
        ("selection.chosen", 5),
        ("selection.candidates", 5),
        ("hyperparameters", 5),
        ("hyperparameters", ["hidden"]),
        ("chosen_for", "main"),
        ("method", None),
        ("extra", 1),
    ],
)
def test_a_foreign_or_damaged_file_gets_one_sentence(tmp_path: Path, preset: Preset, path: str, value: Any) -> None:
    file = tmp_path / "p.json"
    write_preset(file, preset)
    file.write_text(json.dumps(change(json.loads(file.read_text()), path, value)))
    with pytest.raises(DataError, match=r"p\.json is not a preset of this version .*; make it anew") as caught:
        read_preset(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00\x01", '{"format": NaN}'])
def test_a_file_that_is_no_json_object_gets_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(DataError, match=r"p\.json"):
        read_preset(tmp_path / "p.json")
    with pytest.raises(DataError, match="does not exist"):
        read_preset(tmp_path / "absent.json")
