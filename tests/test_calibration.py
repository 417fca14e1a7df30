"""What the folds' held-out rows say about trust: against brute force and numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from unseen import calibration as module
from unseen.calibration import (
    Calibration,
    HeldOutScores,
    balanced_weights,
    calibrate,
    choose_abstention,
    choose_flag_threshold,
    expected_calibration_error,
    explain,
    fit_temperature,
    softmax,
    subtract_gamma,
    thinned,
    unseen_mass,
    upper_bound,
)
from unseen.errors import DataError, SettingsError

SEEN = np.array([True, False, True, True, False])


def fold(seed: int, n: int = 60, temperature: float = 1.0) -> HeldOutScores:
    """Labels drawn from softmax(scores / temperature), so that temperature is the right one."""
    rng = np.random.default_rng(seed)
    scores = 3 * rng.normal(size=(n, len(SEEN)))
    labels = np.array([rng.choice(len(SEEN), p=p) for p in softmax(scores, temperature)])
    return HeldOutScores(scores, labels, SEEN, np.arange(n))


def test_gamma_is_subtracted_from_seen_classes_alone() -> None:
    scores = np.array([[1.0, 2.0, 3.0, 4.0, -np.inf]])
    assert subtract_gamma(scores, SEEN, 0.5).tolist() == [[0.5, 2.0, 2.5, 3.5, -np.inf]]


def test_softmax_by_hand() -> None:
    scores = np.array([[0.0, 2 * np.log(3), -np.inf]], np.float32)
    assert softmax(scores, 2.0) == pytest.approx(np.array([[0.25, 0.75, 0.0]]))
    assert softmax(np.array([[1e6, 0.0]])).tolist() == [[1.0, 0.0]]
    assert unseen_mass(np.array([[0.1, 0.2, 0.3, 0.15, 0.25]]), SEEN) == pytest.approx([0.45])


def test_each_kind_counts_half_and_each_class_within_it_alike() -> None:
    labels = np.array([0, 0, 0, 2, 1, 1])
    weights = balanced_weights(labels, ~SEEN[labels])
    assert weights == pytest.approx([1 / 12, 1 / 12, 1 / 12, 1 / 4, 1 / 4, 1 / 4])
    assert balanced_weights(labels[:4], ~SEEN[labels[:4]]).sum() == pytest.approx(1)


@pytest.mark.parametrize("factor", [0.05, 1.0, 40.0])
def test_no_other_temperature_makes_confidences_truer(factor: float) -> None:
    folds = [fold(seed) for seed in range(3)]
    scores = [factor * f.scores for f in folds]
    labels, weights = [f.labels for f in folds], [balanced_weights(f.labels, f.of_unseen) for f in folds]

    def loss(temperature: float) -> float:
        total = 0.0
        for s, y, w in zip(scores, labels, weights, strict=True):
            for row, label, weight in zip(s, y, w, strict=True):
                p = np.exp((row - row.max()) / temperature)
                total += weight * (p.max() / p.sum() - (row.argmax() == label)) ** 2
        return float(total)

    least = min(loss(temperature) for temperature in np.geomspace(1e-2, 1e2, 300))
    assert loss(fit_temperature(scores, labels, weights)) <= least + 1e-6


def test_the_temperature_that_labels_were_drawn_with_is_found_again() -> None:
    drawn = fold(0, n=20_000, temperature=2.5)
    weights = np.full(20_000, 1 / 20_000)
    assert fit_temperature([drawn.scores], [drawn.labels], [weights]) == pytest.approx(2.5, rel=0.05)


def test_a_class_that_is_never_taken_changes_no_temperature() -> None:
    one = fold(1)
    weights = np.full(60, 1 / 60)
    wider = np.concatenate([one.scores, np.full((60, 1), -np.inf)], axis=1)
    plain = fit_temperature([one.scores], [one.labels], [weights])
    assert fit_temperature([wider], [one.labels], [weights]) == pytest.approx(plain)


def test_one_row_far_out_does_not_make_every_answer_a_guess() -> None:
    """By likelihood it did: three hundred rows, and one whose wrong class is a thousand above its own."""
    drawn = fold(0, n=300, temperature=0.2)
    plain = fit_temperature([drawn.scores], [drawn.labels], [np.full(300, 1 / 300)])
    out = np.zeros((1, len(SEEN)))
    out[0, 1] = 1000.0
    scores, labels = np.concatenate([drawn.scores, out]), np.append(drawn.labels, 0)
    assert fit_temperature([scores], [labels], [np.full(301, 1 / 301)]) == pytest.approx(plain, rel=0.1)


def test_without_an_optimum_the_temperature_stays_within_its_bounds() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    weights = np.array([0.5, 0.5])
    assert fit_temperature([scores], [np.array([0, 1])], [weights]) == module.COLDEST
    assert fit_temperature([scores], [np.array([1, 0])], [weights]) == module.HOTTEST


def test_calibration_error_by_hand_and_by_force() -> None:
    confidence = np.array([0.1, 0.15, 0.95, 1.0])
    right = np.array([False, True, True, False])
    # Bins of a half: (0.5 − 0.125) ½ + |0.5 − 0.975| ½
    assert expected_calibration_error(confidence, right, bins=2) == pytest.approx(0.425)
    rng = np.random.default_rng(0)
    confidence, right = rng.random(200), rng.random(200) < 0.5
    weights = rng.random(200) / 100
    expected = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            share = weights[inside].sum()
            accuracy, mean = np.average([right[inside], confidence[inside]], axis=1, weights=weights[inside])
            expected += share * abs(accuracy - mean)
    assert expected_calibration_error(confidence, right, weights) == pytest.approx(expected)
    assert expected_calibration_error(np.array([0.0]), np.array([False])) == 0.0


def test_calibrating_mends_confidences_and_keeps_what_is_taken() -> None:
    folds = [fold(seed, n=400, temperature=4.0) for seed in range(3)]
    found = calibrate(folds, 0.7)
    scores = [f.without_gamma(0.7) for f in folds]
    right = np.concatenate([s.argmax(axis=1) == f.labels for s, f in zip(scores, folds, strict=True)])
    assert np.array_equal(found.right, right)
    assert found.weights.sum() == pytest.approx(1)
    assert found.weights[found.of_unseen].sum() == pytest.approx(0.5)
    raw = np.concatenate([softmax(s).max(axis=1) for s in scores])
    assert found.error < 0.1 < expected_calibration_error(raw, right, found.weights)
    again = Calibration.of(found.arrays())
    assert again.arrays().keys() == found.arrays().keys()
    assert all(np.array_equal(again.arrays()[name], array) for name, array in found.arrays().items())


def test_folds_of_one_kind_cannot_be_calibrated() -> None:
    one = fold(0)
    seen = SEEN[one.labels]
    with pytest.raises(DataError, match="one of the two kinds"):
        calibrate([HeldOutScores(one.scores[seen], one.labels[seen], SEEN, one.rows[seen])], 0.0)


def test_the_flag_threshold_has_the_best_balanced_accuracy() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        of_unseen = rng.random(40) < 0.3
        of_unseen[:2] = True, False
        mass = np.round(np.clip(rng.normal(0.4 + 0.2 * of_unseen, 0.2), 0, 1), 2)
        weights = rng.random(40)

        def balanced(threshold: float, mass: Any = mass, of_unseen: Any = of_unseen, weights: Any = weights) -> float:
            flagged = mass > threshold
            return float(
                np.average(flagged[of_unseen], weights=weights[of_unseen])
                + np.average(~flagged[~of_unseen], weights=weights[~of_unseen])
            )

        by_force = max(balanced(t) for t in np.linspace(-0.005, 1.005, 203))
        chosen = choose_flag_threshold(mass, of_unseen, weights)
        # The end of the interval before the first mass is 0; a mass of exactly 0 lies not above it.
        assert balanced(chosen) == pytest.approx(by_force)
    apart = choose_flag_threshold(np.array([0.2, 0.8]), np.array([False, True]), np.ones(2))
    assert apart == 0.5
    # At 0.3 one row of each kind changes sides, so all from 0.1 to 0.6 is equally good.
    cancelling = choose_flag_threshold(np.array([0.1, 0.3, 0.3, 0.6]), np.array([False, False, True, True]), np.ones(4))
    assert cancelling == pytest.approx(0.35)


def test_upper_bound_is_the_share_at_which_so_few_mistakes_are_that_unlikely() -> None:
    for wrong, answered in ((0, 10), (3, 40), (39, 40)):
        bound = upper_bound(wrong, answered, 0.95)
        assert binom.cdf(wrong, answered, bound) == pytest.approx(0.05)
    assert upper_bound(0, 0, 0.95) == upper_bound(4, 4, 0.95) == 1.0
    assert upper_bound(0, 100, 0.95) == pytest.approx(1 - 0.05 ** (1 / 100))


def test_thinning_keeps_all_of_the_smaller_kind() -> None:
    of_unseen = np.array([False] * 10 + [True] * 3)
    kept = thinned(of_unseen, 0)
    assert kept[-3:].tolist() == [10, 11, 12]
    assert len(kept) == len(set(kept.tolist())) == 6


def test_the_abstention_is_the_lowest_threshold_that_is_good_enough() -> None:
    rng = np.random.default_rng(5)
    confidence = rng.random(4000)
    right = rng.random(4000) < confidence
    of_unseen = np.arange(4000) % 2 == 0
    found = choose_abstention(confidence, right, of_unseen, 0.2)
    each = 1 - 0.05 / 41

    def bound(threshold: float) -> float:
        given = confidence >= threshold
        return upper_bound(int((~right[given]).sum()), int(given.sum()), each)

    good = [t for t in module.CONFIDENCES if bound(float(t)) <= 0.2]
    assert found.threshold == min(good) > 0
    assert found.bound == pytest.approx(bound(found.threshold))
    assert (found.answered, found.rows) == (int((confidence >= found.threshold).sum()), 4000)
    # The confidences are right: answers from c on are wrong in (1 − c)/2 of all cases.
    assert (1 - found.threshold) / 2 <= 0.2


def test_the_risk_is_exceeded_no_more_often_than_the_level_says() -> None:
    rng = np.random.default_rng(6)
    exceeded = 0
    for _ in range(200):
        confidence = rng.random(300)
        right = rng.random(300) < confidence
        try:
            found = choose_abstention(confidence, right, np.arange(300) < 150, 0.2, level=0.8)
        except DataError:
            continue
        exceeded += (1 - found.threshold) / 2 > 0.2  # the true share of wrong answers
    assert exceeded <= 40


def test_a_risk_out_of_reach_is_said_in_one_sentence() -> None:
    confidence, right = np.full(20, 0.9), np.ones(20, bool)
    with pytest.raises(
        DataError, match=r"0\.01 or below with 95% certainty; the least that 20 held-out rows can promise is 0\."
    ):
        choose_abstention(confidence, right, np.arange(20) < 10, 0.01)
    with pytest.raises(SettingsError, match="risk=0"):
        choose_abstention(confidence, right, np.arange(20) < 10, 0.0)


def test_a_row_that_several_folds_held_out_counts_once_for_the_bound() -> None:
    one = fold(2, n=300, temperature=0.3)
    once, thrice = calibrate([one], 0.0), calibrate([one, one, one], 0.0)
    assert thrice.abstention(0.5) == once.abstention(0.5)


def test_neighbours_by_brute_force() -> None:
    rng = np.random.default_rng(8)
    rows, prototypes = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(5, 4))
    found = explain(rows, prototypes, SEEN, count=2)
    for n, row in enumerate(rows):
        for ids, distances, kind in (
            (found.seen, found.seen_distances, [0, 2, 3]),
            (found.unseen, found.unseen_distances, [1, 4]),
        ):
            expected = sorted((float(np.linalg.norm(row - prototypes[c])), c) for c in kind)[:2]
            assert ids[n].tolist() == [c for _, c in expected]
            assert distances[n] == pytest.approx([d for d, _ in expected])


def test_a_class_without_rows_is_never_near_and_there_may_be_fewer_than_asked_for() -> None:
    prototypes = np.array([[0.0], [np.nan], [2.0], [3.0], [np.nan]])
    found = explain(np.array([[1.9]]), prototypes, SEEN, count=9)
    assert found.seen.tolist() == [[2, 3, 0]]
    assert found.unseen.shape == (1, 0)
