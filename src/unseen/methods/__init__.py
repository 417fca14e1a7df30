"""The methods by name: ours, written by hand, and those that other installed distributions supply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from unseen.data.dataset import Dataset
from unseen.errors import SettingsError
from unseen.methods import bsegn, cadavae, clswgan, dfca, gsmflow, sddn, sdgzsl, tfvaegan, tfvaegan_transductive
from unseen.methods.base import ClosedFormMethod, GenerativeMethod, Range, Schedule
from unseen.methods.benchmarks import EPGN, PUBLIC, Benchmark
from unseen.methods.class_gaussian import ClassGaussian
from unseen.methods.eszsl import ESZSL
from unseen.methods.prompting import Prompting, refuse_two_spaces
from unseen.methods.prototype import Prototype
from unseen.recipe import Recipe
from unseen.scaling import SCALINGS, ScaledView, Scaling


@dataclass(frozen=True)
class Generative:
    """A method that is trained and then synthesises.

    Args:
        name: what the user types; title: what a table may say.
        hyperparameters: a dataclass; made from a preset's values by name.
        build: (view, hyper-parameters, seed) → the method, untrained.
        schedule: hyper-parameters → batch size and loops of the method that `build` makes of them.
        default: (seen classes, d, a) → hyper-parameters and recipe for data without a preset.
        presets: hyper-parameters and recipes by benchmark.
        made_for: preset → what the data look like that it is for. By the name of a data set alone it is taken for such data
            only, and a preset that is not among these for any data of its name.
        presets_from: where these come from, as a result says it: `published` by the method's own authors, or else.
        inferred: names of those presets that nobody published.
        scalings: at most three; `blind` tries all of them.
        ablations: rows of an ablation table below the whole method: name → hyper-parameters that it changes.
        search: hyper-parameter → what `unseen tune` tries.
        transductive: training is handed the features of the unseen test rows too, and every result says so.
    """

    name: str
    title: str
    hyperparameters: type[Any]
    build: Callable[[ScaledView, Any, int], GenerativeMethod]
    schedule: Callable[[Any], Schedule]
    default: Callable[[int, int, int], tuple[Any, Recipe]]
    presets: Mapping[str, tuple[Any, Recipe]]
    scalings: tuple[Scaling, ...] = SCALINGS
    ablations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    search: Mapping[str, Range] = field(default_factory=dict)
    transductive: bool = False
    presets_from: str = "published"
    inferred: tuple[str, ...] = ()
    made_for: Mapping[str, Benchmark] = field(default_factory=dict)


@dataclass(frozen=True)
class ClosedForm:
    """A method that is solved in one formula.

    Args:
        name: what the user types; title: what a table may say.
        hyperparameters: the solver, a dataclass of them.
        recipe: scaling and centring to begin with; `blind` tries all scalings of the solver.
        refuse: raises DataError for a data set that the method does not fit; None where it fits all. A method that does not fit
            all is not among `all` methods of a benchmark.
    """

    name: str
    title: str
    hyperparameters: type[ClosedFormMethod]
    recipe: Recipe = field(default_factory=lambda: Recipe(centred=True))
    refuse: Callable[[Dataset], None] | None = None


def _schedule(hyperparameters: tfvaegan.Hyperparameters) -> Schedule:
    return Schedule(hyperparameters.batch_size, hyperparameters.feedback_loops)


def _one_loop(hyperparameters: bsegn.Hyperparameters | sddn.Hyperparameters) -> Schedule:
    return Schedule(hyperparameters.batch_size, loops=1)


METHODS: Mapping[str, Generative | ClosedForm] = {
    entry.name: entry
    for entry in (
        ClosedForm("eszsl", "ESZSL", ESZSL),
        ClosedForm("class-gaussian", "class-Gaussian", ClassGaussian),
        ClosedForm("prototype", "nearest prototype", Prototype),
        ClosedForm("prompting", "zero-shot prompting", Prompting, Recipe(scaling="l2"), refuse_two_spaces),
        Generative(
            "clswgan",
            "f-CLSWGAN",
            clswgan.Hyperparameters,
            clswgan.CLSWGAN,
            _one_loop,
            clswgan.default,
            clswgan.PRESETS,
            scalings=clswgan.SCALINGS,
            ablations=clswgan.ABLATIONS,
            search=clswgan.SEARCH,
            presets_from=clswgan.PRESETS_FROM,
            inferred=clswgan.INFERRED,
            made_for=PUBLIC,
        ),
        Generative(
            "cadavae",
            "CADA-VAE",
            cadavae.Hyperparameters,
            cadavae.CADAVAE,
            _one_loop,
            cadavae.default,
            cadavae.PRESETS,
            scalings=cadavae.SCALINGS,
            ablations=cadavae.ABLATIONS,
            search=cadavae.SEARCH,
            made_for=PUBLIC,
        ),
        Generative(
            "fvaegan",
            "f-VAEGAN-D2 (inductive)",
            tfvaegan.Hyperparameters,
            tfvaegan.TFVAEGAN,
            _schedule,
            tfvaegan.default_fvaegan,
            {name: (tfvaegan.without_decoder(h), recipe) for name, (h, recipe) in tfvaegan.PRESETS.items()},
            search=tfvaegan.SEARCH_FVAEGAN,
            presets_from="published for TF-VAEGAN, which it is a part of",
            inferred=tfvaegan.INFERRED,
            made_for=tfvaegan.MADE_FOR,
        ),
        Generative(
            "tfvaegan",
            "TF-VAEGAN",
            tfvaegan.Hyperparameters,
            tfvaegan.TFVAEGAN,
            _schedule,
            tfvaegan.default,
            tfvaegan.PRESETS,
            ablations=tfvaegan.ABLATIONS,
            search=tfvaegan.SEARCH,
            inferred=tfvaegan.INFERRED,
            made_for=tfvaegan.MADE_FOR,
        ),
        Generative(
            "tfvaegan-transductive",
            "TF-VAEGAN (transductive: trains on the unseen test rows, without labels)",
            tfvaegan_transductive.Hyperparameters,
            tfvaegan_transductive.TransductiveTFVAEGAN,
            _schedule,
            tfvaegan_transductive.default,
            tfvaegan_transductive.PRESETS,
            ablations=tfvaegan_transductive.ABLATIONS,
            search=tfvaegan_transductive.SEARCH,
            transductive=True,
            inferred=tfvaegan.INFERRED,
            made_for=tfvaegan.MADE_FOR,
        ),
        Generative(
            "gsmflow",
            "GSMFlow",
            gsmflow.Hyperparameters,
            gsmflow.GSMFlow,
            _one_loop,
            gsmflow.default,
            gsmflow.PRESETS,
            scalings=("minmax", "whitened"),
            inferred=gsmflow.INFERRED,
            ablations=gsmflow.ABLATIONS,
            search=gsmflow.SEARCH,
            made_for=gsmflow.MADE_FOR,
        ),
        Generative(
            "dfca",
            "DFCA",
            dfca.Hyperparameters,
            dfca.DFCA,
            _one_loop,
            dfca.default,
            dfca.PRESETS,
            scalings=("minmax", "whitened"),
            inferred=dfca.INFERRED,
            ablations=dfca.ABLATIONS,
            search=dfca.SEARCH,
            made_for=EPGN,
        ),
        Generative(
            "sdgzsl",
            "SDGZSL",
            sddn.Hyperparameters,
            sddn.SDDN,
            _one_loop,
            sdgzsl.default,
            sdgzsl.PRESETS,
            scalings=sddn.SCALINGS,
            ablations=sdgzsl.ABLATIONS,
            search=sdgzsl.SEARCH,
            made_for=sddn.MADE_FOR,
        ),
        Generative(
            "bsegn",
            "BSeGN (re-created from its abstract)",
            bsegn.Hyperparameters,
            bsegn.BSeGN,
            _one_loop,
            bsegn.default,
            bsegn.PRESETS,
            scalings=bsegn.SCALINGS,
            ablations=bsegn.ABLATIONS,
            search=bsegn.SEARCH,
            presets_from="inferred, but for what TF-VAEGAN published",
            made_for=PUBLIC,
        ),
        Generative(
            "sddn",
            "SDDN (re-created from its abstract)",
            sddn.Hyperparameters,
            sddn.SDDN,
            _one_loop,
            sddn.default,
            sddn.PRESETS,
            scalings=sddn.SCALINGS,
            ablations=sddn.ABLATIONS,
            search=sddn.SEARCH,
            presets_from="inferred, but for what SDGZSL published",
            made_for=sddn.MADE_FOR,
        ),
    )
}


def all_methods() -> dict[str, Generative | ClosedForm]:
    """Ours in the order of the table, then those of other distributions by name; warns about those that cannot be used."""
    from unseen.methods import installed  # imports this module

    return {**METHODS, **installed.load_all()}


def find_method(name: str) -> Generative | ClosedForm:
    """The method of this name, ours or another distribution's.

    Raises SettingsError, listing the names, when there is none, and when a distribution's cannot be used.
    """
    if name in METHODS:
        return METHODS[name]
    from unseen.methods import installed  # imports this module

    declared = installed.declared()
    if name not in declared:
        raise SettingsError(f"there is no method '{name}'; there are {', '.join(dict.fromkeys((*METHODS, *declared)))}")
    return installed.load(name, declared[name])


def with_settings(hyperparameters: Any, recipe: Recipe, settings: Mapping[str, str]) -> tuple[Any, Recipe]:
    """Replace fields by the user's `name=value` pairs, each turned into the type that its field has.

    Raises SettingsError for a name that is no field, listing those that are, and for a value of another type.
    """
    known = {**vars(recipe), **vars(hyperparameters)}
    for name in settings:
        if name not in known:
            raise SettingsError(f"there is no setting '{name}'; there are {', '.join(sorted(known))}")
    changed: dict[str, Any] = {name: _parse(name, text, known[name]) for name, text in settings.items()}
    for named, overriding in (("epochs", "steps"), ("synthetic_ratio", "synthetic")):
        if named in changed:  # else the setting that goes before it would make it idle
            changed.setdefault(overriding, 0)
    # All at once: some settings are only valid together.
    return (
        replace(hyperparameters, **{name: value for name, value in changed.items() if name in vars(hyperparameters)}),
        replace(recipe, **{name: value for name, value in changed.items() if name not in vars(hyperparameters)}),
    )


def _parse(name: str, text: str, current: object) -> object:
    try:
        if isinstance(current, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(current, int | float):
            return type(current)(text)
        return text
    except (ValueError, KeyError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(current)]
        raise SettingsError(f"setting {name}={text!r} is not {kind}; give for example {name}={current}") from None
