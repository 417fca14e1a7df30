"""Search spaces: every published value inside, nothing in them that changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from unseen.errors import SettingsError
from unseen.methods import METHODS, Generative
from unseen.methods.base import Choices, ClassStreams, Clock, Floats, Ints, PreparingMethod
from unseen.presets import SHIPPED, read_preset

every_generative = pytest.mark.parametrize(
    "entry", [m for m in METHODS.values() if isinstance(m, Generative)], ids=lambda m: m.name
)


@every_generative
def test_what_is_searched_exists(entry: Generative) -> None:
    assert entry.search
    assert entry.search.keys() <= {field.name for field in fields(entry.hyperparameters)}


@every_generative
def test_published_and_default_values_are_among_what_is_searched(entry: Generative) -> None:
    starts = [hyperparameters for hyperparameters, _ in entry.presets.values()]
    starts += [entry.default(classes, d, a)[0] for classes, d, a in ((8, 6, 4), (50, 1280, 384), (645, 2048, 102))]
    starts += [read_preset(path).build(entry) for path in SHIPPED.glob(f"*-{entry.name}.json")]
    for hyperparameters in starts:
        for name, tried in entry.search.items():
            assert getattr(hyperparameters, name) in tried, name


@every_generative
def test_no_setting_that_is_searched_is_idle(entry: Generative, small_world: Callable[..., Any]) -> None:
    """Each one changes what is learned or synthesised; one that did not would only blur the search."""
    view = small_world(unit_interval=False)
    if entry.transductive:
        view = replace(view, unlabelled=small_world(unit_interval=False, unseen_rows=True).features[len(view.labels) :])
    usual = entry.default(12, 24, 8)[0]
    # Narrow, and without a time in which some settings have no effect yet.
    narrow = {"hidden": 8, "batch_size": 16, "warm_up": 0, "cross_from": 0, "alignment_from": 0}
    usual = replace(usual, **{name: value for name, value in narrow.items() if hasattr(usual, name)})

    def made_of(settings: Any) -> bytes:
        method = entry.build(view, settings, 0)
        x, y = view.features, view.labels
        if isinstance(method, PreparingMethod):
            for step in range(method.preparation):
                method.prepare(lambda: (view.features[::4], view.labels[::4]), Clock(step, 2))
            x, y = torch.cat([x, method.extra_rows()[0]]), torch.cat([y, method.extra_rows()[1]])
        for step in range(8):  # both loops of two epochs
            method.step(lambda: (x[::4], y[::4]), Clock(step, 2))
        synthetic = method.sample(view.unseen, ClassStreams(0, view.names, view.device))
        networks = [tensor for name, tensor in method.state().items() if name.startswith("network.")]
        return b"".join(tensor.numpy().tobytes() for tensor in [synthetic, *networks])

    before = made_of(usual)
    assert made_of(usual) == before
    for name, tried in entry.search.items():
        others = tried.values if isinstance(tried, Choices) else (tried.low, tried.high)
        other = next(value for value in others if value != getattr(usual, name))
        assert made_of(replace(usual, **{name: other})) != before, name


def test_a_range_holds_its_ends_and_its_own_kind() -> None:
    assert all(value in Floats(0.5, 2) for value in (0.5, 1, 2.0))
    assert not any(value in Floats(0.5, 2) for value in (0.49, 2.01, float("nan"), True, "1", None))
    assert all(value in Ints(1, 3) for value in (1, 2, 3))
    assert not any(value in Ints(1, 3) for value in (0, 4, 2.0, True, "2"))
    assert "a" in Choices(("a", "b"))
    assert "c" not in Choices(("a", "b"))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Floats(2.0, 1.0),
        lambda: Floats(1.0, 1.0),
        lambda: Floats(0.0, 1.0, log=True),
        lambda: Floats(0.0, math.inf),
        lambda: Floats(math.nan, 1.0),
        lambda: Ints(2, 2),
        lambda: Choices(()),
        lambda: Choices((True, True)),
    ],
)
def test_a_range_that_holds_nothing_to_search_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(SettingsError, match="cannot be searched; give"):
        wrong()
