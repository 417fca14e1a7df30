"""What the `paper` protocol keeps while it goes on: the best H and, apart, the best T1 of all epochs so far.

It stands in a file beside the checkpoint, so that a run that was stopped comes to the result it would have come to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unseen.data.dataset import Ids
from unseen.errors import DataError
from unseen.evaluation.metrics import harmonic_mean
from unseen.gate import Scores, scores_of
from unseen.methods.base import GenerativeMethod
from unseen.storage import read_arrays, write_arrays


@dataclass
class BestOnTest:
    """The best of what was scored on the test rows.

    Args:
        scored_to: the last step whose generator was scored.
        evaluations: how often the test rows were scored.
        H, step: the best H and the step it was found at; generalized: its classifier; networks: the method's state there.
        T1: the best T1; conventional: (n,) its predictions on the unseen test rows.
        last: what was scored last: U, S, H and T1 of the last epoch so far, which nothing was chosen by.
    """

    scored_to: int = 0
    evaluations: int = 0
    H: float = -1.0
    step: int = 0
    T1: float = -1.0
    generalized: Scores | None = None
    conventional: Ids | None = None
    networks: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)

    def see_generalized(self, u: float, s: float, scores: Scores, step: int, method: GenerativeMethod) -> None:
        """Count one scoring over all classes; the first of equals stays."""
        self.evaluations += 1
        h = harmonic_mean(s, u)
        self.last |= {"U": u, "S": s, "H": h}
        if h > self.H:
            self.H, self.step, self.generalized = h, step, scores
            self.networks = {name: value.clone() for name, value in method.state().items() if name.startswith("network.")}

    def see_conventional(self, t1: float, predicted: Ids) -> None:
        """Count one scoring over the unseen classes; the first of equals stays."""
        self.evaluations += 1
        self.last["T1"] = t1
        if t1 > self.T1:
            self.T1, self.conventional = t1, predicted

    def save(self, path: Path) -> None:
        """Write everything, sealed and whole or not at all."""
        assert self.generalized is not None
        assert self.conventional is not None
        tensors = {**self.generalized.tensors(), **self.networks}
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        figures = {name: getattr(self, name) for name in ("scored_to", "evaluations", "H", "step", "T1", "last")}
        write_arrays(path, {**arrays, "conventional": self.conventional}, {"best": json.dumps(figures)}, sealed=True)

    @staticmethod
    def resume(path: Path, checkpoint: Path, snapshots: tuple[int, ...], device: torch.device) -> BestOnTest:
        """What `save` wrote, or nothing yet.

        Args:
            checkpoint: where training goes on, if it is there.
            snapshots: the steps whose generators are scored.

        Raises DataError when the file is damaged, or older than the checkpoint: what training will pass over must be in it.
        """
        best = BestOnTest._load(path, device) if path.exists() else BestOnTest()
        goes_on = int(read_arrays(checkpoint)[1].get("step", 0)) if checkpoint.exists() else 0
        scored = max((step for step in snapshots if step <= goes_on), default=0)
        if best.scored_to < scored:
            raise DataError(
                f"{path} does not hold what was scored up to step {scored}, where the checkpoint goes on; "
                "restore it or train into another folder"
            )
        return best

    @staticmethod
    def _load(path: Path, device: torch.device) -> BestOnTest:
        arrays, metadata = read_arrays(path)
        try:
            best = BestOnTest(**json.loads(metadata["best"]))
            best.conventional = np.array(arrays["conventional"])
            tensors = {name: torch.tensor(array, device=device) for name, array in arrays.items() if name != "conventional"}
            best.networks = {name: tensors.pop(name) for name in list(tensors) if name.startswith("network.")}
            best.generalized = scores_of(tensors)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise DataError(f"{path} does not hold the best of a paper run; train into another folder") from error
        return best
