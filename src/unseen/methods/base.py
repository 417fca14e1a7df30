"""The contract between a method and everything else, and the seeded streams that methods draw from.

A generative method answers three verbs, `step`, `sample` and `represent`, and may answer more: `prepare`, and two for a random
representation. A closed-form method answers `fit`, which returns its scores.
Nothing else about a method is known outside its file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from unseen.errors import SettingsError
from unseen.graph import Graph
from unseen.linear import LinearScores
from unseen.scaling import ScaledView, Scaling

Draw = Callable[[], tuple[Tensor, Tensor]]
"""Returns a fresh batch of real seen rows, x (B, d) and class ids y (B,), each time it is called."""


@dataclass(frozen=True)
class Clock:
    """Where training stands.

    Args:
        step: iterations done so far.
        steps_per_epoch: iterations that draw about as many rows as there are: ceil(n / batch).
    """

    step: int
    steps_per_epoch: int


@dataclass(frozen=True)
class Schedule:
    """How a method goes through the data.

    Args:
        batch_size: rows a draw.
        loops: passes over the data that the paper calls one epoch.
    """

    batch_size: int
    loops: int


@dataclass(frozen=True)
class Floats:
    """Numbers from `low` to `high`, both included; with `log`, spread evenly over their logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf or (self.log and self.low <= 0):
            raise SettingsError(f"{self} cannot be searched; give low < high, with log both above 0")

    def __contains__(self, value: object) -> bool:
        return type(value) in (int, float) and self.low <= cast(float, value) <= self.high


@dataclass(frozen=True)
class Ints:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise SettingsError(f"{self} cannot be searched; give low < high")

    def __contains__(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """One of a few values that have no order."""

    values: tuple[bool | str, ...]

    def __post_init__(self) -> None:
        if len(set(self.values)) < 2:
            raise SettingsError(f"{self} cannot be searched; give two values or more")

    def __contains__(self, value: object) -> bool:
        return value in self.values


Range = Floats | Ints | Choices
"""What `unseen tune` tries for one hyper-parameter."""


class Streams:
    """Named random streams. Each is seeded from (seed, name), so one part's draws never shift another's."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.device = device
        self._generators: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._generators:
            self._generators[name] = torch.Generator(self.device).manual_seed(stream_seed(self.seed, name))
        return self._generators[name]

    def normal(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draws from N(0, 1)."""
        return torch.randn(*shape, generator=self[name], device=self.device, dtype=dtype)

    def uniform(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draws from U(0, 1)."""
        return torch.rand(*shape, generator=self[name], device=self.device, dtype=dtype)

    def state(self) -> dict[str, Tensor]:
        """Name → generator state, for a checkpoint."""
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was taken."""
        self._generators.clear()
        for name, value in state.items():
            self[name].set_state(value.to(torch.uint8).cpu())


class ClassStreams:
    """One stream for every class to synthesise, seeded from (seed, class name).

    Adding, removing or reordering classes leaves the draws of the others alone. All classes are still synthesised in one
    pass through the networks: only the noise is drawn class by class.
    """

    def __init__(self, seed: int, names: tuple[str, ...], device: torch.device) -> None:
        self._streams = Streams(seed, device)
        self._names = names

    def normal(self, class_ids: Tensor, width: int) -> Tensor:
        """(n, width) draws from N(0, 1); the rows of each class come, in order, from that class's stream."""
        out = torch.empty(len(class_ids), width, device=class_ids.device)
        for class_id in torch.unique(class_ids).tolist():
            rows = (class_ids == class_id).nonzero(as_tuple=True)[0]
            out[rows] = self._streams.normal(f"class {self._names[class_id]}", len(rows), width)
        return out


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed for this name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little") >> 1


class GenerativeMethod(Protocol):
    """A method that learns to synthesise features of classes from their embeddings.

    Everything it has learned, optimisers and controllers included, is reachable through `state` and `load_state`; entries
    whose names begin with `network.` are enough to sample and represent.

    Args:
        batch_size: rows a draw.
        loops: passes over the data that the paper calls one epoch.
        uses_unseen_embeddings: training looks at the embeddings of unseen classes, with these settings.
    """

    batch_size: int
    loops: int
    uses_unseen_embeddings: bool

    def step(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """One training iteration, all its sub-updates in the order of the paper. Returns device scalars to log, one or more."""
        ...

    def sample(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, d) synthetic features, without gradient."""
        ...

    def represent(self, x: Tensor) -> Tensor:
        """(n, d) features → (n, d') what the final classifier sees: label-free, row by row, without gradient."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Name → tensor: all that a checkpoint needs."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was taken."""
        ...


@runtime_checkable
class PreparingMethod(GenerativeMethod, Protocol):
    """A generative method with the optional verb: something is learned, or made of the training rows, before the first `step`.

    A preparation is a number of steps too, so what holds for training holds for it: it is logged, stopped, resumed from the
    same checkpoint and, once done, not done again.

    Args:
        preparation: how many steps, with these settings and this view; 0 for none.
    """

    preparation: int

    def prepare(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        """One step of the preparation; `clock.step` counts them from 0. Returns device scalars to log."""
        ...

    def extra_rows(self) -> tuple[Tensor, Tensor]:
        """Rows (m, d) and class ids (m,) that the preparation made; m may be 0.

        `step` draws from real and extra rows as if they were one data set. Nothing else sees them: an epoch is counted in
        real rows, and the final classifier is fitted on real and synthetic ones.
        """
        ...


@runtime_checkable
class SamplesRepresented(GenerativeMethod, Protocol):
    """A generative method with the optional verbs of one whose representation is random: the final classifier is fitted on
    draws of it, real and synthetic, and asked about `represent`, which is its mean.

    `sample` is still answered, for whoever wants to look at features.
    """

    def sample_represented(self, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n,) class ids → (n, d') synthetic rows as the final classifier sees them, without gradient."""
        ...

    def represent_for_fitting(self, x: Tensor, class_ids: Tensor, streams: ClassStreams) -> Tensor:
        """(n, d) real features → (n, d'). The class ids (n,) choose the streams and nothing else."""
        ...


@runtime_checkable
class ScoresAlone(Protocol):
    """Optional: a part of the method classifies by itself, and a result row says how well, as a diagnosis."""

    def alone(self) -> tuple[Callable[[Tensor], Tensor], LinearScores] | None:
        """A map (n, d) → (n, k), and the scores of all C classes in its values; None where the part is switched off."""
        ...


@runtime_checkable
class RepresentsInGraph(GenerativeMethod, Protocol):
    """Optional: a method whose `represent` can be written as an ONNX graph, so that what was trained can be exported."""

    def represent_in_graph(self, graph: Graph, x: str) -> str:
        """Add to the graph what makes of the value `x`, (n, d) float32, what `represent` makes of it; returns its name."""
        ...


class ClosedFormMethod(Protocol):
    """A method that is solved, not trained. `GRID` and `SCALINGS` are what the `blind` protocol tries."""

    SCALINGS: ClassVar[tuple[Scaling, ...]]
    GRID: ClassVar[dict[str, tuple[float, ...]]]

    def fit(self, view: ScaledView) -> LinearScores:
        """Learn from the seen training rows and the class embeddings; returns the scores of all C classes."""
        ...


@runtime_checkable
class FitsTogether(Protocol):
    """A closed-form method with the optional verb: what its settings have in common is computed once for all of a grid."""

    @staticmethod
    def fit_all(view: ScaledView, solvers: Sequence[Any]) -> list[LinearScores]:
        """`fit` of each solver, in their order."""
        ...


def above_0(**settings: float) -> None:
    """Raise SettingsError unless each of these is a finite number above 0."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise SettingsError(f"{name}={value} cannot work; give a finite number above 0")


def optimiser_state(optimisers: Mapping[str, torch.optim.Optimizer]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that the optimisers remember, by name."""
    for name, optimiser in optimisers.items():
        for index, remembered in optimiser.state_dict()["state"].items():
            yield from ((f"{name}.{index}.{key}", value) for key, value in remembered.items())


def load_optimiser_state(optimisers: Mapping[str, torch.optim.Optimizer], state: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_state` named."""
    for name, optimiser in optimisers.items():
        remembered: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith(f"{name}."):
                index, entry = key.removeprefix(f"{name}.").split(".")
                remembered.setdefault(int(index), {})[entry] = value.clone()  # the optimiser would write to it
        optimiser.load_state_dict({**optimiser.state_dict(), "state": remembered})


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
