"""The table of methods, and settings that are typed."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from math import ceil
from types import ModuleType

import pytest

from unseen.errors import SettingsError
from unseen.methods import METHODS, Generative, bsegn, find_method, sddn, tfvaegan, with_settings
from unseen.recipe import Recipe


def test_methods_are_found_by_the_name_they_are_entered_under() -> None:
    for name, entry in METHODS.items():
        assert entry.name == name
        assert find_method(name) is entry
    with pytest.raises(SettingsError, match=r"'tfvaegann'.*eszsl.*tfvaegan"):
        find_method("tfvaegann")


def test_settings_reach_their_owner() -> None:
    hyperparameters, recipe = tfvaegan.default(100, 512, 16)
    changed, changed_recipe = with_settings(
        hyperparameters, recipe, {"batch_size": "7", "steps": "12", "centred": "False", "classifier_lr": "1e-2"}
    )
    assert changed == replace(hyperparameters, batch_size=7)
    assert changed_recipe == replace(recipe, steps=12, centred=False, classifier_lr=0.01)


@pytest.mark.parametrize("method", [bsegn, sddn])
@pytest.mark.parametrize(("classes", "rows"), [(65, 2399), (176, 804), (491, 2237), (40, 23527)])
def test_a_warm_up_by_default_ends_before_training_does(method: ModuleType, classes: int, rows: int) -> None:
    """Grocery, emoji's demo and full0, AWA2: it counts epochs, which are many steps where rows are many."""
    hyperparameters, recipe = method.default(classes, 1280, 384)
    assert hyperparameters.warm_up * ceil(rows / hyperparameters.batch_size) < recipe.steps


@pytest.mark.parametrize(("named", "overriding"), [("epochs", "steps"), ("synthetic_ratio", "synthetic")])
def test_a_setting_is_not_idle_beside_the_one_that_goes_before_it(named: str, overriding: str) -> None:
    hyperparameters, recipe = tfvaegan.default(100, 512, 16)
    recipe = replace(recipe, steps=400, synthetic=50)
    _, changed = with_settings(hyperparameters, recipe, {named: "3"})
    assert (getattr(changed, named), getattr(changed, overriding)) == (3, 0)
    _, both = with_settings(hyperparameters, recipe, {named: "3", overriding: "7"})
    assert (getattr(both, named), getattr(both, overriding)) == (3, 7)


def test_settings_that_need_each_other_may_come_in_any_order() -> None:
    """TF-VAEGAN refuses beta=0 unless two others change with it."""
    needed = {"beta": "0", "transform": "false", "feedback_loops": "1"}
    for order in permutations(needed):
        changed, _ = with_settings(*tfvaegan.default(100, 512, 16), {name: needed[name] for name in order})
        assert (changed.beta, changed.transform, changed.feedback_loops) == (0, False, 1)


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("stepps", "3", r"no setting 'stepps'; there are .*\bsteps\b"),
        ("steps", "many", r"steps='many' is not a whole number"),
        ("steps", "1.5", r"steps='1.5' is not a whole number"),
        ("classifier_lr", "fast", r"classifier_lr='fast' is not a number"),
        ("centred", "yes", r"centred='yes' is not true or false"),
        ("scaling", "whitend", r"whitend"),
    ],
)
def test_a_wrong_setting_gets_one_sentence(setting: str, value: str, sentence: str) -> None:
    for name in METHODS:
        entry = METHODS[name]
        both = entry.default(100, 512, 16) if isinstance(entry, Generative) else (entry.hyperparameters(), Recipe())
        with pytest.raises(SettingsError, match=sentence) as caught:
            with_settings(*both, {setting: value})
        assert "\n" not in str(caught.value)
