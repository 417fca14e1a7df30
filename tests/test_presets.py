"""Presets as files: whole round trips, and one sentence for every file that is not one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unseen import asking, presets
from unseen.asking import build_task
from unseen.data import Dataset, Provenance
from unseen.errors import DataError, SettingsError
from unseen.evaluation.selection import Selection
from unseen.methods import METHODS, Generative, find_method
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


def test_a_value_of_another_type_is_refused(tmp_path: Path, preset: Preset) -> None:
    write_preset(tmp_path / "p.json", replace(preset, hyperparameters={**preset.hyperparameters, "hidden": 2.5}))
    with pytest.raises(SettingsError, match=r"the preset's hidden=2.5 must be int for 'tfvaegan'; make it anew"):
        read_preset(tmp_path / "p.json").build(find_method("tfvaegan"))
    write_preset(tmp_path / "p.json", replace(preset, hyperparameters={**preset.hyperparameters, "sigma": 2}))
    assert read_preset(tmp_path / "p.json").build(find_method("tfvaegan")).sigma == 2.0  # whole, and a number


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
        changed = build_task(world, "main", method, "fixed", 0, {"lr": "0.01"}, "cub")
        assert changed.settings_from == f"user (lr), else {said}"


def test_the_preset_of_a_benchmark_without_a_script_says_inferred(world: Dataset) -> None:
    for method, preset, said in (
        ("gsmflow", "sun", "inferred"), ("gsmflow", "awa1-mm21", "inferred"), ("gsmflow", "awa2", "published"),
        ("dfca", "apy", "inferred"), ("dfca", "cub", "published"), ("clswgan", "awa2", "inferred"),
        ("tfvaegan", "awa1", "inferred"), ("fvaegan", "awa1", "inferred"),
    ):  # fmt: skip
        assert build_task(world, "main", method, "fixed", 0, {}, preset).settings_from == said


EPGN = "unknown; data.mat of E-PGN, 2048 values a picture"
PUBLIC = "unknown; res101.mat, 2048 values a picture"


@pytest.fixture(scope="module")
def named(tiny_world: World) -> Callable[..., Dataset]:
    """A few rows as long as a benchmark's, under this name, with class embeddings of this length."""
    worlds: dict[tuple[int, int], Dataset] = {}

    def make(name: str, a: int, features: str = PUBLIC, d: int = 2048) -> Dataset:
        if (d, a) not in worlds:
            worlds[d, a] = tiny_world(seen=4, unseen=2, rows=4, d=d, a=a)
        return replace(worlds[d, a], name=name, provenance=Provenance(feature_extractor=features))

    return make


@pytest.mark.parametrize(
    ("methods", "name", "length", "features"),
    [
        ("tfvaegan tfvaegan-transductive fvaegan clswgan cadavae bsegn sddn sdgzsl", "CUB", 312, PUBLIC),
        ("tfvaegan tfvaegan-transductive fvaegan clswgan bsegn sddn sdgzsl", "FLO", 1024, PUBLIC),
        ("tfvaegan tfvaegan-transductive fvaegan clswgan cadavae bsegn sddn sdgzsl gsmflow dfca", "AWA2", 85, PUBLIC),
        ("tfvaegan tfvaegan-transductive fvaegan clswgan cadavae bsegn sddn sdgzsl gsmflow dfca", "sun", 102, "unknown"),
        ("bsegn sddn sdgzsl gsmflow dfca", "APY", 64, PUBLIC),
        ("gsmflow dfca", "CUB", 1024, EPGN),
        ("gsmflow dfca", "FLO", 1024, f"{EPGN}; res101.mat, 2048 values a picture"),  # converted to the layout of xlsa17
        ("sddn sdgzsl", "CUB-sentence", 1024, EPGN),
        ("sddn sdgzsl", "flo-epgn", 1024, EPGN),
        ("gsmflow", "cub-mm21", 1024, EPGN),
        ("tfvaegan", "AWA2-finetuned", 85, PUBLIC),
    ],
)
def test_a_benchmarks_preset_is_taken_by_the_name_of_data_that_look_like_it(
    methods: str, name: str, length: int, features: str, named: Callable[..., Dataset]
) -> None:
    for entry in map(find_method, methods.split()):
        assert isinstance(entry, Generative)
        task = build_task(named(name, length, features), "main", entry.name, "fixed", 0, {}, None)
        assert (task.hyperparameters, task.recipe) == entry.presets[name.lower()], entry.name
        assert task.settings_from == ("inferred" if name.lower() in entry.inferred else entry.presets_from)


@pytest.mark.parametrize(
    ("methods", "name", "length", "features", "misfit"),
    [
        ("gsmflow dfca", "CUB", 312, PUBLIC, "class embeddings of 1024 values, not of 312"),
        ("gsmflow dfca", "CUB", 1024, PUBLIC, "the features of E-PGN's data.mat, not others"),
        ("gsmflow dfca", "FLO", 1024, "unknown", "the features of E-PGN's data.mat, not others"),
        ("sddn sdgzsl tfvaegan", "FLO", 1024, EPGN, "features of the public split files, not those of E-PGN's data.mat"),
        ("sddn sdgzsl tfvaegan clswgan", "CUB", 1024, PUBLIC, "class embeddings of 312 values, not of 1024"),
        ("sddn sdgzsl", "flo-epgn", 1024, PUBLIC, "the features of E-PGN's data.mat, not others"),
        ("gsmflow", "flo-mm21", 1024, PUBLIC, "the features of E-PGN's data.mat, not others"),
        ("tfvaegan cadavae", "AWA1", 300, PUBLIC, "class embeddings of 85 values, not of 300"),
    ],
)
def test_the_name_alone_is_not_enough(
    methods: str, name: str, length: int, features: str, misfit: str, named: Callable[..., Dataset]
) -> None:
    """Defaults from the data's size instead, a sentence, and a word in every row; who asks for the preset gets it."""
    data = named(name, length, features)
    for entry in map(find_method, methods.split()):
        assert isinstance(entry, Generative)
        with pytest.warns(UserWarning, match=f"^preset '{name.lower()}' of ") as told:
            task = build_task(data, "main", entry.name, "fixed", 0, {}, None)
        assert [str(one.message) for one in told] == [
            f"preset '{name.lower()}' of {entry.name} is for {misfit}, so data set '{name}' gets the defaults for its size; "
            f"to take it all the same, give --preset {name.lower()}"
        ]
        assert (task.hyperparameters, task.recipe) == entry.default(4, 2048, length)
        assert task.settings_from == f"default (preset '{name.lower()}' is for {misfit})"
        asked = build_task(data, "main", entry.name, "fixed", 0, {}, name.lower())
        assert (asked.hyperparameters, asked.recipe) == entry.presets[name.lower()]
        assert "default" not in asked.settings_from


def test_features_of_another_length_are_of_another_network(named: Callable[..., Dataset]) -> None:
    with pytest.warns(UserWarning, match="'awa1' of tfvaegan is for features of 2048 values, not of 2000, so"):
        task = build_task(named("AWA1", 85, "bags of words", 2000), "main", "tfvaegan", "fixed", 0, {"lr": "0.01"}, None)
    assert task.settings_from == "user (lr), else default (preset 'awa1' is for features of 2048 values, not of 2000)"


def test_names_without_a_preset_and_presets_without_a_description_are_as_they_were(
    named: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of jobs hash where settings come from; and another package's method need not say what its presets are for."""
    for name in ("awa1-rgsift", "grocery", "emoji", "cubs"):
        for entry in METHODS.values():
            if isinstance(entry, Generative):
                task = build_task(named(name, 85), "main", entry.name, "fixed", 0, {}, None)
                assert (task.settings_from, task.hyperparameters) == ("default", entry.default(4, 2048, 85)[0])
    theirs = replace(METHODS["gsmflow"], made_for={})
    monkeypatch.setattr(asking, "find_method", lambda name: theirs)
    assert build_task(named("CUB", 312), "main", "gsmflow", "fixed", 0, {}, None).settings_from == "published"


def test_all_our_presets_say_what_they_are_for() -> None:
    """Those for E-PGN's features leave these as they are; all others scale theirs."""
    for entry in METHODS.values():
        if isinstance(entry, Generative):
            for name, (_, recipe) in entry.presets.items():
                assert entry.made_for[name].epgn == (recipe.scaling == "none"), (entry.name, name)


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
