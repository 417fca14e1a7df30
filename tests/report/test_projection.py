from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from unseen.errors import DataError
from unseen.report import Projection, project
from unseen.report.figures import own_share

NAMES = ("a", "b", "c", "d")


def _world(rows: int = 20, d: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Four well separated classes, of which the synthetic rows lie where the real ones do."""
    random = np.random.default_rng(3)
    middles = 10 * random.normal(size=(4, d))
    labels = np.repeat(np.arange(4), rows)
    return (
        middles[labels] + random.normal(size=(len(labels), d)),
        labels,
        middles[labels] + random.normal(size=(len(labels), d)),
        labels,
    )


def test_synthetic_rows_that_lie_on_real_ones_stay_there() -> None:
    real, labels, synthetic, made = _world()
    plane = project(real, labels, synthetic, made, seed=0, names=NAMES, method="m")
    assert plane.xy.shape == (160, 2)
    assert plane.synthetic.tolist() == [False] * 80 + [True] * 80
    assert plane.labels.tolist() == [*labels, *made]
    assert (plane.names, plane.method) == (NAMES, "m")
    assert own_share(plane) == 1.0


def test_synthetic_rows_of_the_wrong_class_do_not() -> None:
    real, labels, synthetic, made = _world()
    plane = project(real, labels, synthetic, (made + 1) % 4, seed=0, names=NAMES, method="m")
    assert own_share(plane) == 0.0


def test_same_seed_same_bits_whatever_the_number_of_threads() -> None:
    import sklearn.manifold  # noqa: F401  (threads can be limited only of what is loaded)

    random = np.random.default_rng(5)
    x, labels = random.normal(size=(150, 80)), np.arange(150) % 4
    planes = []
    for threads in (1, 2, 2):
        with threadpool_limits(limits=threads):
            planes.append(project(x, labels, x + 1, labels, seed=0, names=NAMES, method="m").xy.tobytes())
    assert planes[0] == planes[1] == planes[2]


def test_other_seed_draws_other_rows() -> None:
    world = _world()
    one, same, other = (project(*world, seed=seed, names=NAMES, method="m", rows=20).xy for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_rows_are_capped_evenly_over_classes() -> None:
    sizes = (3, 100, 50, 7)
    labels = np.repeat(np.arange(4), sizes)
    # The only feature tells the row, so that the plane tells which rows were kept.
    real = np.arange(160, dtype=np.float32)[:, None]
    plane = project(real, labels, real[:4], np.arange(4), seed=0, names=NAMES, method="m", rows=41)
    kept = plane.labels[~plane.synthetic]
    assert np.bincount(kept).tolist() == [3, 16, 15, 7]
    assert np.bincount(plane.labels[plane.synthetic]).tolist() == [1, 1, 1, 1]


def test_more_classes_than_rows_keep_one_row_each_as_far_as_they_reach() -> None:
    names = tuple(map(str, range(50)))
    labels = np.repeat(np.arange(50), 3)
    x = np.random.default_rng(0).normal(size=(150, 5))
    plane = project(x, labels, x, labels, seed=0, names=names, method="m", rows=20)
    assert np.bincount(plane.labels[~plane.synthetic]).tolist() == [1] * 20


def test_rows_chosen_for_one_class_do_not_depend_on_the_others() -> None:
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(40, 5)), np.repeat([0, 1], 20)
    twice = np.concatenate([x[20:], x[:20]])
    one = project(x, labels, x[:1], [0], seed=0, names=NAMES, method="m", rows=10)
    other = project(twice, np.repeat([1, 0], 20), x[:1], [0], seed=0, names=NAMES, method="m", rows=10)
    assert np.bincount(one.labels).tolist() == np.bincount(other.labels).tolist() == [6, 5]


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_few_rows_are_placed_by_their_principal_components(rows: int) -> None:
    x = np.random.default_rng(0).normal(size=(rows, 6))
    plane = project(x[1:], np.zeros(rows - 1, dtype=int), x[:1], [0], seed=0, names=NAMES, method="m").xy
    assert plane.shape == (rows, 2)
    assert np.isfinite(plane).all()
    assert np.allclose(plane.mean(axis=0), 0, atol=1e-6)


def test_equal_rows_fall_on_one_point() -> None:
    x = np.ones((30, 5))
    plane = project(x, np.zeros(30, dtype=int), x, np.zeros(30, dtype=int), seed=0, names=NAMES, method="m")
    assert not plane.xy.any()


def _break(**changes: object) -> Projection:
    x, y = np.random.default_rng(0).normal(size=(12, 5)), np.arange(12) % 4
    arguments = {"real": x, "real_labels": y, "synthetic": x, "synthetic_labels": y, **changes}
    return project(**arguments, seed=0, names=NAMES, method="m")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real_labels": np.arange(11) % 4}, "real features have shape"),
        ({"synthetic_labels": np.full(12, 4)}, "synthetic labels run from 4 to 4, but there are 4 class names"),
        ({"synthetic": np.full((12, 5), np.nan)}, "synthetic features hold NaN or infinity"),
        ({"synthetic": np.zeros((12, 6))}, "real features have 5 columns but synthetic ones 6"),
        (
            {"real": np.zeros((0, 5)), "real_labels": [], "synthetic": np.zeros((0, 5)), "synthetic_labels": []},
            "neither real nor synthetic",
        ),
    ],
)
def test_what_cannot_be_projected_is_said_in_one_sentence(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _break(**changes)
