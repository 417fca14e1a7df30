"""Every figure against a number computed another way: by hand, by looping over γ, or by resampling rows one by one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unseen.data.dataset import Dataset
from unseen.evaluation.metrics import (
    Decisions,
    SeenUnseenCurve,
    choose_gamma,
    class_weights,
    harmonic_mean,
    interval_of_difference,
    interval_of_h,
    per_class_accuracy,
)
from unseen.evaluation.predictor import spread_of_margin

SEEN, UNSEEN = np.array([0, 2]), np.array([1, 3])


def of_scores(scores: np.ndarray) -> Decisions:
    return Decisions.from_scores(np.asarray(scores, np.float32), SEEN, UNSEEN)


# ------------------------------------------------------------------------------------------------ by hand


def test_best_classes_and_margin_by_hand() -> None:
    decisions = of_scores([[1.0, 4.0, 3.0, 2.0], [5.0, -1.0, 0.0, 0.5]])
    assert decisions.best_seen.tolist() == [2, 0]
    assert decisions.best_unseen.tolist() == [1, 3]
    assert decisions.margin.tolist() == [-1.0, 4.5]
    assert decisions.predict().tolist() == [1, 0]
    assert decisions.predict(-1.5).tolist() == [2, 0]
    assert decisions.predict(4.5).tolist() == [1, 3]  # a margin equal to γ is not above it


def test_per_class_accuracy_differs_from_overall_accuracy() -> None:
    labels, predicted = np.array([0] * 9 + [1]), np.array([0] * 10)
    assert (labels == predicted).mean() == 0.9
    assert per_class_accuracy(labels, predicted) == pytest.approx(0.5)


def test_u_s_h_t1_by_hand() -> None:
    # class 0: 2 of 3 right, class 2: 0 of 1 → S 1/3; class 1: 1 of 2, class 3: 1 of 1 → U 3/4
    assert per_class_accuracy(np.array([0, 0, 0, 2]), np.array([0, 1, 0, 0])) == pytest.approx(1 / 3)
    assert per_class_accuracy(np.array([1, 1, 3]), np.array([1, 3, 3])) == pytest.approx(3 / 4)
    assert harmonic_mean(1 / 3, 3 / 4) == pytest.approx(6 / 13)


def test_h_is_zero_where_either_is() -> None:
    assert harmonic_mean(0.0, 0.0) == 0.0
    assert harmonic_mean(0.9, 0.0) == 0.0
    assert harmonic_mean(0.0, 0.9) == 0.0


def test_absent_class_has_no_weight() -> None:
    weights = class_weights(np.array([5, 5, 9]))
    assert weights.tolist() == [0.25, 0.25, 0.5]
    assert per_class_accuracy(np.array([5, 5, 9]), np.array([5, 5, 5])) == 0.5


def test_absent_class_is_warned_about_by_name(tiny_world: Callable[..., Dataset]) -> None:
    world = tiny_world()
    split = world.split("main")
    gone = int(split.unseen[1])
    thinned = replace(split, test_unseen=split.test_unseen[world.labels[split.test_unseen] != gone])
    world = replace(world, splits={"main": thinned})
    with pytest.warns(UserWarning, match=f"1 unseen classes have no test row .*: {world.classes.names[gone]}$"):
        rows = world.test_rows("main")
    assert np.isfinite(per_class_accuracy(rows.unseen_labels, rows.unseen_labels))


def test_ausuc_by_hand() -> None:
    # Seen rows have margins 3 (right) and 1 (right), unseen rows 2 (right once unseen) and 0 (right).
    seen = Decisions(np.array([0, 2]), np.array([1, 1]), np.array([3.0, 1.0]))
    unseen = Decisions(np.array([0, 0]), np.array([1, 3]), np.array([2.0, 0.0]))
    curve = SeenUnseenCurve.of(seen, np.array([0, 2]), unseen, np.array([1, 3]))
    assert curve.gamma.tolist() == [-np.inf, 0.0, 1.0, 2.0, 3.0]
    assert curve.seen.tolist() == [1.0, 1.0, 0.5, 0.5, 0.0]
    assert curve.unseen.tolist() == [0.0, 0.5, 0.5, 1.0, 1.0]
    assert curve.area == 0.5 * 0.5 + 0.5 * 1.0


def test_tied_margins_move_together() -> None:
    seen = Decisions(np.array([0]), np.array([1]), np.array([1.0]))
    unseen = Decisions(np.array([0]), np.array([1]), np.array([1.0]))
    curve = SeenUnseenCurve.of(seen, np.array([0]), unseen, np.array([1]))
    assert curve.area == 0.5  # one diagonal from (S, U) = (1, 0) to (0, 1)


# ------------------------------------------------------------------------------------- against brute force

scores_of = hnp.arrays(np.float32, (6, 4), elements=st.integers(-3, 3).map(float))
labels_of = st.lists(st.sampled_from([0, 2]), min_size=6, max_size=6)
unseen_labels_of = st.lists(st.sampled_from([1, 3]), min_size=6, max_size=6)


def brute_force(scores: np.ndarray, labels: np.ndarray, gamma: float) -> float:
    """Per-class accuracy with γ subtracted from seen columns, looping over classes; a tie goes to the unseen class."""
    shifted = scores.astype(np.float64).copy()
    shifted[:, SEEN] -= gamma
    order = np.concatenate([UNSEEN, SEEN])
    predicted = order[shifted[:, order].argmax(axis=1)]
    return float(np.mean([(predicted[labels == c] == c).mean() for c in np.unique(labels)]))


@settings(max_examples=150, deadline=None)
@given(scores_of, scores_of, labels_of, unseen_labels_of)
def test_curve_equals_brute_force_at_every_gamma(
    a: np.ndarray, b: np.ndarray, seen_list: list[int], unseen_list: list[int]
) -> None:
    seen_labels, unseen_labels = np.array(seen_list), np.array(unseen_list)
    on_seen, on_unseen = of_scores(a), of_scores(b)
    curve = SeenUnseenCurve.of(on_seen, seen_labels, on_unseen, unseen_labels)
    points = []
    for gamma in [-100.0, *np.arange(-7, 7.5, 0.5)]:  # integer scores: every margin is an integer from −6 to 6
        expected = brute_force(a, seen_labels, gamma), brute_force(b, unseen_labels, gamma)
        assert curve.at(gamma) == pytest.approx(expected)
        predicted = (
            per_class_accuracy(seen_labels, on_seen.predict(gamma)),
            per_class_accuracy(unseen_labels, on_unseen.predict(gamma)),
        )
        assert predicted == pytest.approx(expected)
        points.append(expected)
    area = sum((s - t) * (u + v) / 2 for (s, u), (t, v) in itertools.pairwise(points))
    assert curve.area == pytest.approx(area)
    assert -1e-12 <= curve.area <= 1 + 1e-12
    assert np.all(np.diff(curve.seen) <= 0)
    assert np.all(np.diff(curve.unseen) >= 0)
    assert curve.unseen[0] == 0
    assert curve.seen[-1] == pytest.approx(0)


shares = st.fractions(0, 1, max_denominator=1000).map(float)


@given(shares, shares)
def test_h_lies_between_its_parts(s: float, u: float) -> None:
    assert min(s, u) * (1 - 1e-9) <= harmonic_mean(s, u) <= max(s, u) * (1 + 1e-9)


def random_curve(rng: np.random.Generator, rows: int = 40) -> tuple[SeenUnseenCurve, float]:
    """A curve where seen rows lean to seen classes, and the spread of all its margins."""
    decisions = [
        Decisions(rng.choice(SEEN, rows), rng.choice(UNSEEN, rows), rng.normal(mean, 1.0, rows)) for mean in (1.5, 0.5)
    ]
    curve = SeenUnseenCurve.of(decisions[0], rng.choice(SEEN, rows), decisions[1], rng.choice(UNSEEN, rows))
    return curve, float(np.concatenate([d.margin for d in decisions]).std())


def test_one_row_has_no_spread_and_gamma_a_unit_all_the_same() -> None:
    """The deviation of one value is NaN, and 0 times it no γ."""
    sides = torch.tensor([0]), torch.tensor([1])
    assert 0.0 * spread_of_margin(lambda x: x, torch.tensor([[2.0, 1.0]]), *sides) == 0
    two = spread_of_margin(lambda x: x, torch.tensor([[2.0, 1.0], [5.0, 1.0]]), *sides)
    assert two == pytest.approx(np.std([1.0, 4.0], ddof=1))


@pytest.mark.parametrize("seed", range(8))
def test_chosen_gamma_beats_a_fine_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curves, spreads = zip(*(random_curve(rng) for _ in range(3)), strict=True)
    gamma, best = choose_gamma(list(curves), list(spreads))
    grid = np.linspace(-6, 6, 20_001)
    mean = np.mean([c.harmonic_mean_at(grid * s) for c, s in zip(curves, spreads, strict=True)], axis=0)
    assert best >= mean.max() - 1e-12
    reached = np.mean([c.harmonic_mean_at(gamma * s) for c, s in zip(curves, spreads, strict=True)])
    assert reached == pytest.approx(best)


def test_chosen_gamma_is_the_middle_of_the_best_range() -> None:
    # Every γ from 1 up to 3 is perfect.
    seen = Decisions(np.array([0]), np.array([1]), np.array([3.0]))
    unseen = Decisions(np.array([0]), np.array([1]), np.array([1.0]))
    curve = SeenUnseenCurve.of(seen, np.array([0]), unseen, np.array([1]))
    assert choose_gamma([curve], [1.0]) == (2.0, 1.0)


def test_chosen_gamma_does_not_change_when_one_fold_scales_its_scores() -> None:
    rng = np.random.default_rng(3)
    curves, spreads = map(list, zip(*(random_curve(rng) for _ in range(3)), strict=True))
    before = choose_gamma(curves, spreads)
    c = curves[1]
    curves[1], spreads[1] = SeenUnseenCurve(c.gamma * 64, c.seen, c.unseen), spreads[1] * 64
    assert choose_gamma(curves, spreads) == pytest.approx(before)


def test_chosen_gamma_is_zero_where_no_gamma_helps() -> None:
    # Nothing unseen is ever right, so H is 0 everywhere and there is no reason to move any row.
    seen = Decisions(np.array([0]), np.array([1]), np.array([5.0]))
    unseen = Decisions(np.array([0]), np.array([1]), np.array([1.0]))
    curve = SeenUnseenCurve.of(seen, np.array([0]), unseen, np.array([3]))
    assert choose_gamma([curve], [1.0]) == (0.0, 0.0)


# ------------------------------------------------------------------------------------------------- intervals


def test_interval_of_h_covers_the_truth() -> None:
    # 20 classes of 30 rows on each side with known rates; about 95 % of intervals hold the true H.
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 30)
    rates = rng.uniform(0.2, 0.8, (2, 20))
    truth = harmonic_mean(rates[0].mean(), rates[1].mean())
    inside = 0
    for trial in range(100):
        seen_right, unseen_right = rng.random((2, 600)) < rates[:, labels]
        low, high = interval_of_h(labels, seen_right, labels, unseen_right, seed=trial)
        assert low < high
        inside += low <= truth <= high
    assert 88 <= inside <= 100


def test_interval_of_h_equals_resampling_rows() -> None:
    rng = np.random.default_rng(1)
    labels = np.array([0] * 5 + [1] * 40 + [2] * 15)
    seen_right, unseen_right = rng.random(60) < 0.7, rng.random(60) < 0.4
    members = [np.flatnonzero(labels == c) for c in range(3)]

    def one() -> float:
        s, u = (
            np.mean([right[rng.choice(rows, len(rows))].mean() for rows in members]) for right in (seen_right, unseen_right)
        )
        return harmonic_mean(float(s), float(u))

    expected = np.quantile([one() for _ in range(3000)], [0.025, 0.975])
    assert interval_of_h(labels, seen_right, labels, unseen_right) == pytest.approx(expected, abs=0.015)


def test_interval_of_difference_equals_resampling_rows_for_both_systems() -> None:
    rng = np.random.default_rng(2)
    labels = np.array([0] * 8 + [1] * 40 + [2] * 12)
    first = [rng.random(60) < 0.6, rng.random(60) < 0.5]
    second = [f ^ (rng.random(60) < 0.15) for f in first]  # mostly agrees with the first, so the pairing matters
    members = [np.flatnonzero(labels == c) for c in range(3)]

    def one() -> float:
        picked = [[rng.choice(rows, len(rows)) for rows in members] for _ in range(2)]
        h = [
            harmonic_mean(*(float(np.mean([system[k][rows].mean() for rows in picked[k]])) for k in range(2)))
            for system in (first, second)
        ]
        return h[0] - h[1]

    expected = np.quantile([one() for _ in range(3000)], [0.025, 0.975])
    pairs = [[first[k], second[k]] for k in range(2)]
    low, high = interval_of_difference(labels, pairs[0], labels, pairs[1])
    assert (low, high) == pytest.approx(expected, abs=0.015)
    alone = [interval_of_h(labels, system[0], labels, system[1]) for system in (first, second)]
    assert high - low < max(b - a for a, b in alone)


def test_interval_of_difference_of_a_system_with_itself_is_zero() -> None:
    right = np.random.default_rng(0).random(30) < 0.5
    labels = np.repeat([0, 1, 2], 10)
    assert interval_of_difference(labels, [right, right], labels, [right, right]) == (0.0, 0.0)
