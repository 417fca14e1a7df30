"""A conditional normalising flow of two-sided affine couplings: x ↔ z given a condition g, with log |det ∂z/∂x|.

The coupling is that of RealNVP and Glow (Dinh et al., ICLR 2017; Kingma and Dhariwal, NeurIPS 2018), with the soft clamp of
Ardizzone et al. (2019). One block maps the halves (u₁, u₂) of a row to (v₁, v₂):

    (s_a, t_a) = N_a([u₂, g])     v₁ = u₁ ⊙ exp κ(s_a) + t_a
    (s_b, t_b) = N_b([v₁, g])     v₂ = u₂ ⊙ exp κ(s_b) + t_b          κ(s) = 0.636 c · atan(s / c)

The first layer of each N is W_u u + W_g g + b. W_u and W_g are two parameters, so W_g g + b is computed once for every *class*
(`terms`) and picked by row: the same function, without a matrix product per row. A slice of one parameter would not do as well:
its gradient is as large as the whole.

Symbols: d length of a row, G of a condition, H hidden width, B rows, K classes.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.errors import DataError
from unseen.nn.learning import SLOPE

CLAMP_SCALE = 0.636
"""Just below 2/π: |κ| stays below the clamp c."""

Terms = list[tuple[Tensor, Tensor]]
"""For every block what the condition adds to the hidden layers of N_a and of N_b, both (K, H)."""


class Subnetwork(nn.Module):
    """N: [u, g] → (s, t); known + G → H → 2 · changed, LeakyReLU between."""

    def __init__(self, known: int, changed: int, condition: int, hidden: int) -> None:
        super().__init__()
        self.feature = nn.Linear(known, hidden, bias=False)
        self.condition = nn.Linear(condition, hidden)
        self.out = nn.Linear(hidden, 2 * changed)

    def forward(self, u: Tensor, term: Tensor) -> tuple[Tensor, Tensor]:
        """(B, known) and the condition's term (B, H) → s, t, both (B, changed)."""
        s, t = self.out(F.leaky_relu(self.feature(u) + term, SLOPE)).chunk(2, dim=1)
        return s, t


class Coupling(nn.Module):
    """One block. Of an odd d the first half is the shorter one."""

    def __init__(self, d: int, condition: int, hidden: int, clamp: float) -> None:
        super().__init__()
        self.cut = d // 2
        self.clamp = clamp
        self.first = Subnetwork(d - self.cut, self.cut, condition, hidden)
        self.second = Subnetwork(self.cut, d - self.cut, condition, hidden)

    def forward(self, x: Tensor, terms: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """(B, d) and terms (B, H) each → (B, d), log-determinant (B,)."""
        u1, u2 = x[:, : self.cut], x[:, self.cut :]
        s, t = self.first(u2, terms[0])
        scale_1 = self._soft(s)
        v1 = u1 * scale_1.exp() + t
        s, t = self.second(v1, terms[1])
        scale_2 = self._soft(s)
        v2 = u2 * scale_2.exp() + t
        return torch.cat([v1, v2], dim=1), scale_1.sum(dim=1) + scale_2.sum(dim=1)

    def inverse(self, y: Tensor, terms: tuple[Tensor, Tensor]) -> Tensor:
        """What `forward` made y of."""
        v1, v2 = y[:, : self.cut], y[:, self.cut :]
        s, t = self.second(v1, terms[1])
        u2 = (v2 - t) * (-self._soft(s)).exp()
        s, t = self.first(u2, terms[0])
        u1 = (v1 - t) * (-self._soft(s)).exp()
        return torch.cat([u1, u2], dim=1)

    def _soft(self, s: Tensor) -> Tensor:
        return CLAMP_SCALE * self.clamp * torch.atan(s / self.clamp)


class ConditionalFlow(nn.Module):
    """Couplings in sequence. A condition enters as its `terms`; rows say which terms are whose.

    Args:
        d: length of a row, at least 2; condition: G; hidden: H; blocks: how many.
        clamp: c, bound of the log-scales of one block.
        permutations: draws a fixed permutation of the dimensions for every block but the first; None leaves each dimension in
            its half, as GSMFlow and DFCA have it.
    """

    orders: Tensor

    def __init__(
        self,
        d: int,
        condition: int,
        hidden: int,
        blocks: int,
        clamp: float = 1.0,
        permutations: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if d < 2:
            raise DataError(f"features of length {d} have no two halves to couple; a flow needs 2 dimensions or more")
        self.blocks = nn.ModuleList(Coupling(d, condition, hidden, clamp) for _ in range(blocks))
        self.permuted = permutations is not None
        if permutations is not None:
            drawn = [torch.randperm(d, generator=permutations, device=permutations.device) for _ in range(1, blocks)]
            self.register_buffer("orders", torch.stack([torch.arange(d, device=permutations.device), *drawn]))

    def terms(self, conditions: Tensor) -> Terms:
        """What K conditions (K, G) add to the hidden layers: computed once a class, however many rows it has."""
        return [(block.first.condition(conditions), block.second.condition(conditions)) for block in self._couplings()]

    def forward(self, x: Tensor, terms: Terms, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x → z.

        Args:
            x: (B, d).
            terms: of K conditions; rows: (B,) which of them is whose. None where every row has its own, in order.

        Returns:
            z (B, d) and log |det ∂z/∂x| (B,).
        """
        log_determinant = x.new_zeros(len(x))
        for number, (block, term) in enumerate(zip(self._couplings(), terms, strict=True)):
            if self.permuted:
                x = x[:, self.orders[number]]
            x, added = block(x, _of_rows(term, rows))
            log_determinant = log_determinant + added
        return x, log_determinant

    def inverse(self, z: Tensor, terms: Terms, rows: Tensor | None = None) -> Tensor:
        """z (B, d) → x (B, d), without log-determinant; arguments as those of `forward`."""
        for number, (block, term) in reversed(list(enumerate(zip(self._couplings(), terms, strict=True)))):
            z = block.inverse(z, _of_rows(term, rows))
            if self.permuted:
                z = z[:, self.orders[number].argsort()]
        return z

    def _couplings(self) -> list[Coupling]:
        return [cast(Coupling, block) for block in self.blocks]


def initialise(flow: ConditionalFlow, generator: torch.Generator, spread: float = 0.01) -> None:
    """Every weight and bias ~ N(0, spread²), biases included: the flow then begins near the identity."""
    for parameter in flow.parameters():
        nn.init.normal_(parameter, 0.0, spread, generator=generator)


def _of_rows(terms: tuple[Tensor, Tensor], rows: Tensor | None) -> tuple[Tensor, Tensor]:
    return terms if rows is None else (terms[0].index_select(0, rows), terms[1].index_select(0, rows))
