"""From class embeddings to the conditions of a flow: positions relative to three anchor classes.

Reference: Z. Chen, Y. Luo, S. Wang, R. Qiu, J. Li, Z. Huang, "Mitigating Generation Shifts for Generalized Zero-Shot
Learning", ACM MM 2021.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ANCHORS = 3


def choose_anchors(embeddings: Tensor) -> Tensor:
    """(n, a) embeddings → (3, a): those of the most isolated, the most central and the median class.

    Classes are ordered by the sum of their cosine similarities to all n; the median is at place ⌊n/2⌋, from 0.
    """
    unit = F.normalize(embeddings.double(), dim=1)
    order = (unit @ unit.sum(dim=0)).argsort(stable=True)
    return embeddings[torch.stack([order[0], order[-1], order[len(order) // 2]])]


class RelativePositioning(nn.Module):
    """g(c) = Σₘ ReLU(Wₘ(c − vₘ) + bₘ) over three anchors vₘ; a → width, not below 0.

    The anchors are kept with the weights: classes that are added later are positioned against the anchors of training.

    Args:
        anchors: (3, a), from `choose_anchors`.
        width: length of a condition.
        generator: draws the initial weights, U(±1/√a) as in torch's linear layers.
    """

    anchors: Tensor

    def __init__(self, anchors: Tensor, width: int, generator: torch.Generator) -> None:
        super().__init__()
        a = anchors.shape[1]
        self.register_buffer("anchors", anchors.clone())
        self.weight = nn.Parameter(torch.empty(ANCHORS, a, width, device=anchors.device))
        self.bias = nn.Parameter(torch.empty(ANCHORS, 1, width, device=anchors.device))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(a**-0.5), a**-0.5, generator=generator)

    def forward(self, c: Tensor) -> Tensor:
        """(n, a) embeddings → (n, width) conditions."""
        return torch.baddbmm(self.bias, c - self.anchors[:, None], self.weight).relu().sum(dim=0)
