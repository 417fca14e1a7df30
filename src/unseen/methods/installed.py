"""Methods that other installed distributions supply. Such a distribution declares in its pyproject.toml

    [project.entry-points."unseen.methods"]
    my-method = "my_module:ENTRY"

where `ENTRY` is a `Generative` or a `ClosedForm` named `my-method`; every process of the environment finds it by that name.

Declarations are read from metadata: a stranger's module is imported only when its method is asked for, or all are listed. What
is wrong with one is a sentence that names its distribution, and ours never suffer from it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import EntryPoint, entry_points

from unseen.errors import SettingsError
from unseen.methods import METHODS, ClosedForm, Generative

GROUP = "unseen.methods"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What a method may be called: its name becomes part of names of folders."""


def declared() -> dict[str, list[EntryPoint]]:
    """Name → who declares it, by name; nothing is imported. Of several copies of a distribution the first on the path counts.

    Raises SettingsError when the metadata of some installed distribution, whichever, are damaged.
    """
    try:
        points = entry_points(group=GROUP)
    except Exception as error:
        raise SettingsError(
            "no method but ours can be found, because the entry points of some installed package are damaged "
            f"({_first_line(error)}); install it again"
        ) from error
    by_name: dict[str, list[EntryPoint]] = {}
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        by_name.setdefault(point.name, []).append(point)
    return by_name


def supplied_by(name: str) -> dict[str, str]:
    """Name and version of the distribution that supplies the method of this name; nothing for ours or where none does."""
    points = []
    if name not in METHODS:
        with suppress(SettingsError):  # no result is given up for want of a version
            points = declared().get(name, [])
    return dict(map(_distribution, points))


def load(name: str, points: list[EntryPoint]) -> Generative | ClosedForm:
    """The method that is declared under this name.

    Raises SettingsError when the name is taken or cannot be one, when the module cannot be imported, and when what it holds is
    no method of this name.
    """
    suppliers = " and by ".join(" ".join(_distribution(point)) for point in points)
    if name in METHODS:
        raise SettingsError(f"the method '{name}' supplied by {suppliers} is not used: one of ours has that name; rename it")
    if len(points) > 1:
        raise SettingsError(f"method '{name}' is supplied by {suppliers}; uninstall all but one of them")
    if not NAME.fullmatch(name):
        raise SettingsError(f"{suppliers} calls a method {name!r}; a name has letters, digits, '-', '_', '.' only; rename it")
    which = f"method '{name}' supplied by {suppliers}"
    try:
        entry = points[0].load()
    except (Exception, SystemExit) as error:  # a stranger's module may do anything
        cause = f"{type(error).__name__}: {_first_line(error)}"
        raise SettingsError(f"{which} cannot be loaded ({cause}); install another version of it or uninstall it") from error
    if not isinstance(entry, Generative | ClosedForm):
        kind = type(entry).__name__
        raise SettingsError(
            f"{which} is of type {kind} ({points[0].value}); name a Generative or a ClosedForm in its entry point"
        )
    if entry.name != name:
        raise SettingsError(f"{which} calls itself '{entry.name}'; give entry point and entry one name")
    return entry


def load_all() -> dict[str, Generative | ClosedForm]:
    """Every method that can be loaded, by name; a warning for every other."""
    methods = {}
    with _warning():
        for name, points in declared().items():
            with _warning():
                methods[name] = load(name, points)
    return methods


@contextmanager
def _warning() -> Iterator[None]:
    """What is wrong, as a warning."""
    try:
        yield
    except SettingsError as error:
        warnings.warn(str(error), stacklevel=2)


def _distribution(point: EntryPoint) -> tuple[str, str]:
    assert point.dist is not None  # it was found through one
    return str(point.dist.name), str(point.dist.version)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "no reason given")
