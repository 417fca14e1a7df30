"""From what a user asked for to a task: where every setting comes from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unseen.data.dataset import Dataset
from unseen.errors import SettingsError
from unseen.evaluation.protocol import Task, check_protocol
from unseen.evaluation.selection import CHOSEN, KEPT
from unseen.methods import ClosedForm, Generative, find_method, with_settings
from unseen.presets import Preset, read_preset, shipped_preset
from unseen.recipe import Recipe


def build_task(
    data: Dataset,
    split: str | None,
    method_name: str,
    protocol: str,
    seed: int,
    settings: Mapping[str, str],
    preset: str | None,
    *,
    anew: bool = False,
) -> Task:
    """One task. Settings come from `preset`, else what `blind` chose earlier on this very split and came with the package, else
    the preset of the benchmark that the data are by their name, if they look like it, else defaults from the data's size;
    `settings` change them. Where `blind` chooses anew, how long it trains at most is the method's default, not what a preset
    chose elsewhere.

    Args:
        split: by name; None takes the first.
        settings: name → value as typed.
        preset: the name of a benchmark's preset, or a file.
        anew: `blind` shall choose even where a preset holds what it chose on this very split.

    Raises:
        SettingsError: a name or a value that does not exist, cannot work, or would change nothing with this method or protocol
            or beside another one. Settings of a final classifier that is not the one are let pass.
        DataError: the preset's file is damaged, or the method does not fit the data.
    """
    method = find_method(method_name)
    chosen_protocol = check_protocol(method, protocol)
    split = data.split(split).name
    own: tuple[Any, Recipe]
    if isinstance(method, ClosedForm):
        if method.refuse:
            method.refuse(data)
        own = method.hyperparameters(), method.recipe
    else:
        own = method.default(len(data.split(split).seen), data.features.shape[1], data.classes.embeddings.shape[1])
    selection = None
    kept: tuple[str, ...] = ()
    of_benchmarks = {} if isinstance(method, ClosedForm) else method.presets
    chosen = None
    if preset is not None and preset not in of_benchmarks:
        if not Path(preset).exists():
            raise SettingsError(f"'{preset}' is neither a preset of '{method_name}' ({', '.join(of_benchmarks)}) nor a file")
        chosen = read_preset(Path(preset))
    elif preset is None and protocol != "paper":
        chosen = shipped_preset(method_name, data, split)
    default_from = "default"
    if preset is None and chosen is None and isinstance(method, Generative):
        preset, default_from = _by_name(method, data)
    if chosen is not None:
        hyperparameters, recipe, settings_from = chosen.build(method), chosen.recipe, _folds_of(chosen, data, split)
        if protocol == "blind" and chosen.fits(data, split) and not settings and not anew:
            selection = chosen.selection
        elif protocol == "blind":
            recipe = replace(recipe, steps=own[1].steps, epochs=own[1].epochs)
    elif preset is not None:
        assert isinstance(method, Generative)
        hyperparameters, recipe = of_benchmarks[preset]
        settings_from = "inferred" if preset in method.inferred else method.presets_from
    else:
        (hyperparameters, recipe), settings_from = own, default_from
    if settings:
        hyperparameters, recipe = with_settings(hyperparameters, recipe, settings)
        _refuse_idle(method, protocol, settings)
        kept = _kept(method, protocol, settings)
        settings_from = f"user ({', '.join(sorted(settings))}), else {settings_from}"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = Task(data, split, method, hyperparameters, recipe, settings_from, chosen_protocol, seed, selection, device)
    return replace(task, kept=kept)


def _by_name(method: Generative, data: Dataset) -> tuple[str | None, str]:
    """The preset that the data get by their name alone, if any, and where settings come from without one. Data that have no
    more than the name in common with a benchmark get none, and whoever gave them the name is told."""
    name = data.name.lower()
    if name not in method.presets:
        return None, "default"
    misfit = method.made_for[name].misfit(data) if name in method.made_for else ""
    if not misfit:
        return name, "default"
    warnings.warn(
        f"preset '{name}' of {method.name} is for {misfit}, so data set '{data.name}' gets the defaults for its size; to take "
        f"it all the same, give --preset {name}",
        stacklevel=3,
    )
    return None, f"default (preset '{name}' is for {misfit})"


def _kept(method: Generative | ClosedForm, protocol: str, settings: Mapping[str, str]) -> tuple[str, ...]:
    """What `blind` would choose if it were not asked for. The gate is no candidate of the folds, so it is not among this."""
    if protocol != "blind" or isinstance(method, ClosedForm):
        return ()
    return tuple(name for name in KEPT if settings.get(name, "ood") != "ood")


def _folds_of(chosen: Preset, data: Dataset, split: str) -> str:
    """Which folds a preset was chosen on. Rows that train in one split of some data are tested in another, so what was searched
    there is, for this split, not chosen without test rows, and its result says so."""
    if chosen.fits(data, split):
        return "folds"
    same_rows = chosen.chosen_for.get("features") == data.features_fingerprint
    return "folds of another split" if same_rows else "folds of other data"


def _refuse_idle(method: Generative | ClosedForm, protocol: str, settings: Mapping[str, str]) -> None:
    """Refuse settings that would change nothing: those that the protocol decides, a generator's for a method without one, and
    those that another one goes before."""
    chosen, idle = {*CHOSEN} - {*KEPT}, set()
    if isinstance(method, ClosedForm):
        used = {"scaling", "centred", "gamma"}
        chosen = {"scaling", "gamma", *method.hyperparameters.GRID}
        idle = settings.keys() & vars(Recipe()).keys() - used - method.hyperparameters.GRID.keys()
    if idle:
        raise SettingsError(f"method '{method.name}' has no use for {', '.join(sorted(idle))}; leave it out")
    if protocol == "blind" and (twice := settings.keys() & chosen):
        raise SettingsError(f"blind chooses {', '.join(sorted(twice))} itself; leave it out, or give it with --protocol fixed")
    if protocol == "paper" and "gamma" in settings:
        raise SettingsError("paper measures without a γ, as published; leave gamma out, or give it with --protocol fixed")
    if isinstance(method, Generative):
        for named, other in (("epochs", "steps"), ("synthetic_ratio", "synthetic")):
            if named in settings and float(settings.get(other, 0)):
                raise SettingsError(f"{other} goes before {named}, which would change nothing; give one of the two")
