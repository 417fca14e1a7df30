"""Rows as the final classifier sees them: one matrix, of which a part is made only when it is asked for if it is very large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import overload

import torch
from torch import Tensor

PART = 4096
"""Rows represented or scored together: bounds memory, not results."""
HELD_BYTES = 2**30
"""What represented rows may take together: bounds memory at the price of time, not results."""

Represent = Callable[[Tensor], Tensor]
"""(n, d) features → (n, d') what the classifier sees, row by row."""


class PartlyHeld:
    """A matrix (n, d') of represented rows, of which the last are not kept but made again whenever they are picked.

    Args:
        held: (k, d') rows as they are represented.
        others: (n − k, d) features of the rows that follow; represent: what makes d' numbers of d.
    """

    def __init__(self, held: Tensor, others: Tensor, represent: Represent) -> None:
        self.held, self.others, self.represent = held, others, represent
        self.shape = (len(held) + len(others), held.shape[1])
        self.device = held.device

    def __len__(self) -> int:
        return self.shape[0]

    @overload
    def __getitem__(self, rows: Tensor) -> Tensor: ...

    @overload
    def __getitem__(self, rows: slice) -> PartlyHeld: ...

    def __getitem__(self, rows: Tensor | slice) -> Tensor | PartlyHeld:
        """(m,) numbers of rows → (m, d'), or neighbouring rows → a matrix like this one."""
        if isinstance(rows, slice):
            (start, stop, _), k = rows.indices(len(self)), len(self.held)
            return PartlyHeld(self.held[start:stop], self.others[max(0, start - k) : max(0, stop - k)], self.represent)
        kept = rows < len(self.held)
        out = self.held.new_empty(len(rows), self.shape[1])
        out[kept] = self.held[rows[kept]]
        out[~kept] = self.represent(self.others[rows[~kept] - len(self.held)])
        return out


Rows = Tensor | PartlyHeld


def hold(represent: Represent, example: Tensor, parts: Iterable[Tensor], count: int) -> Rows:
    """Represented rows: all of them, or as many of the first as `HELD_BYTES` allow and the rest as features.

    Args:
        example: (1, d) any row; parts: (m, d) each, `count` rows together.
    """
    d, width = example.shape[1], represent(example).shape[1]
    room = count if width <= d else min(count, HELD_BYTES // (4 * width))
    held, others = (torch.empty(*shape, device=example.device) for shape in ((room, width), (count - room, d)))
    start = 0
    for part in chain.from_iterable(torch.split(part, PART) for part in parts):
        fitting = part[: max(0, room - start)]
        if len(fitting):
            held[start : start + len(fitting)] = represent(fitting)
        stop = start + len(part)
        others[max(0, start - room) : max(0, stop - room)] = part[len(fitting) :]
        start = stop
    return PartlyHeld(held, others, represent) if len(others) else held


def in_parts(x: Rows, count: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Of the first `count` rows, or of all, numbers (m,) and rows (m, d'), `PART` together."""
    numbers = torch.arange(len(x) if count is None else count, device=x.device)
    return ((part, x[part]) for part in torch.split(numbers, PART))
