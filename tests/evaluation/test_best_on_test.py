"""The best of a paper run: the first of equals, kept whole, and never older than the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from unseen.errors import DataError
from unseen.evaluation.best_on_test import BestOnTest
from unseen.linear import LinearScores
from unseen.storage import read_arrays, write_arrays

CPU = torch.device("cpu")
SNAPSHOTS = (10, 20, 25)


class Walk:
    """A method whose only network is a number that changes in place, as weights do."""

    def __init__(self) -> None:
        self.at = torch.zeros(1)

    def state(self) -> dict[str, torch.Tensor]:
        return {"network.at": self.at, "stream.noise": torch.ones(3)}


def scores(value: float) -> LinearScores:
    return LinearScores(torch.full((2, 3), value), torch.tensor([value, -torch.inf]))


@pytest.fixture
def best() -> BestOnTest:
    best, walk = BestOnTest(), Walk()
    for step, s, t1 in ((10, 0.25, 0.7), (20, 0.5, 0.1), (20, 0.5, 0.7)):
        walk.at.fill_(step + best.evaluations)
        best.see_generalized(0.25, s, scores(step), step, walk)  # type: ignore[arg-type]
        best.see_conventional(t1, np.array([step, best.evaluations]))
        best.scored_to = step
    return best


def test_the_first_of_equals_stays_with_its_networks(best: BestOnTest) -> None:
    assert (best.H, best.step, best.T1, best.evaluations, best.scored_to) == (1 / 3, 20, 0.7, 6, 20)
    assert best.conventional is not None
    assert best.conventional.tolist() == [10, 1]
    assert best.last == {"U": 0.25, "S": 0.5, "H": 1 / 3, "T1": 0.7}
    assert {name: value.tolist() for name, value in best.networks.items()} == {"network.at": [22.0]}


def test_what_is_kept_comes_back_to_the_bit(best: BestOnTest, tmp_path: Path) -> None:
    best.save(tmp_path / "best")
    again = BestOnTest.resume(tmp_path / "best", tmp_path / "checkpoint", SNAPSHOTS, CPU)
    for name in ("H", "step", "T1", "evaluations", "scored_to", "last"):
        assert getattr(again, name) == getattr(best, name)
    assert again.generalized is not None
    assert best.generalized is not None
    assert torch.equal(again.generalized.weight, best.generalized.weight)
    assert torch.equal(again.generalized.bias, best.generalized.bias)
    assert again.networks.keys() == best.networks.keys()
    assert torch.equal(again.networks["network.at"], best.networks["network.at"])
    np.testing.assert_array_equal(again.conventional, best.conventional)
    assert again.conventional.dtype == best.conventional.dtype  # type: ignore[union-attr]


@pytest.mark.parametrize(("step", "fits"), [(9, True), (20, True), (24, True), (25, False)])
def test_it_may_be_ahead_of_the_checkpoint_but_not_behind(best: BestOnTest, tmp_path: Path, step: int, fits: bool) -> None:
    best.save(tmp_path / "best")
    write_arrays(tmp_path / "checkpoint", {"a": np.zeros(1)}, {"step": str(step)}, sealed=True)
    if fits:
        assert BestOnTest.resume(tmp_path / "best", tmp_path / "checkpoint", SNAPSHOTS, CPU).scored_to == 20
    else:
        with pytest.raises(DataError, match="does not hold what was scored up to step 25, where the checkpoint goes on"):
            BestOnTest.resume(tmp_path / "best", tmp_path / "checkpoint", SNAPSHOTS, CPU)
    (tmp_path / "best").unlink()
    if step < 10:
        assert BestOnTest.resume(tmp_path / "best", tmp_path / "checkpoint", SNAPSHOTS, CPU) == BestOnTest()
    else:
        with pytest.raises(DataError, match="does not hold what was scored"):
            BestOnTest.resume(tmp_path / "best", tmp_path / "checkpoint", SNAPSHOTS, CPU)


def test_a_foreign_or_damaged_file_is_a_sentence(best: BestOnTest, tmp_path: Path) -> None:
    path = tmp_path / "best"
    best.save(path)
    mapped, metadata = read_arrays(path)
    arrays = {name: np.array(array) for name, array in mapped.items()}
    figures = json.loads(metadata["best"])
    for changed, told in (
        ({k: v for k, v in arrays.items() if k != "weight"}, metadata),
        ({k: v for k, v in arrays.items() if k != "conventional"}, metadata),
        (arrays, {}),
        (arrays, {"best": "{"}),
        (arrays, {"best": "[]"}),
        (arrays, {"best": json.dumps({**figures, "wings": 2})}),
    ):
        path.unlink()
        write_arrays(path, changed, told)
        with pytest.raises(DataError, match="does not hold the best of a paper run; train into another folder"):
            BestOnTest.resume(path, tmp_path / "checkpoint", SNAPSHOTS, CPU)
