"""The flow of GSMFlow and DFCA as their specifications state it, with nothing shared between rows, for their tests and
benchmarks/speed.py: one first layer for [u, g], a condition for each row."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unseen.scaling import ScaledView

PARTS = {"feature.weight": "condition.weight", "visual.weight": "semantic.weight"}
"""Of the first layers that the methods keep in two parts: end of the one's name → of the other's, behind it."""


def second_part(name: str) -> str:
    """The name of the weight that stands behind this one in a joint layer; nothing if none does."""
    return next((name.removesuffix(one) + other for one, other in PARTS.items() if name.endswith(one)), "")


def joined(start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of a method's weights, with one first layer, named as its first part, where the method keeps two."""
    behind = {second_part(name) for name in start}
    whole = {
        n: torch.cat([v, start[second_part(n)]], dim=1) if second_part(n) else v for n, v in start.items() if n not in behind
    }
    return {name: value.detach().clone().requires_grad_() for name, value in whole.items()}


def parted(w: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `joined` was made of, by the names and shapes of `like`."""
    parts: dict[str, Tensor] = {}
    for name, value in w.items():
        if other := second_part(name):
            parts[name], parts[other] = value.detach().split([like[name].shape[1], like[other].shape[1]], dim=1)
        else:
            parts[name] = value.detach()
    return parts


class PlainFlow:
    """f and relative positioning, with a clamp of 1.

    Args:
        w: `joined` weights, which stay the caller's; `mapping` says what the names of the positioning's begin with.
        view: its seen classes give the anchors; its embeddings are as the method sees them.
        blocks: K.
    """

    def __init__(self, w: dict[str, Tensor], view: ScaledView, blocks: int, mapping: str) -> None:
        self.w, self.blocks, self.mapping = w, blocks, mapping
        seen = view.embeddings[view.seen]
        totals = torch.tensor([sum(float(a @ b / a.norm() / b.norm()) for b in seen) for a in seen])
        order = totals.argsort()
        self.anchors = seen[[int(order[0]), int(order[-1]), int(order[len(order) // 2])]]

    def condition(self, c: Tensor) -> Tensor:
        weight, bias = self.w[f"{self.mapping}.weight"], self.w[f"{self.mapping}.bias"]
        parts = [((c - self.anchors[m]) @ weight[m] + bias[m]).clamp(min=0) for m in range(3)]
        return parts[0] + parts[1] + parts[2]

    def subnetwork(self, name: str, u: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.cat([u, g], dim=1) @ self.w[f"{name}.feature.weight"].T + self.w[f"{name}.condition.bias"]
        out = torch.where(h > 0, h, 0.2 * h) @ self.w[f"{name}.out.weight"].T + self.w[f"{name}.out.bias"]
        half = out.shape[1] // 2
        return 0.636 * torch.atan(out[:, :half]), out[:, half:]

    def forward(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        total, cut = torch.zeros(len(x), dtype=x.dtype), x.shape[1] // 2
        for k in range(self.blocks):
            s, t = self.subnetwork(f"flow.blocks.{k}.first", x[:, cut:], g)
            v1, total = x[:, :cut] * s.exp() + t, total + s.sum(dim=1)
            s, t = self.subnetwork(f"flow.blocks.{k}.second", v1, g)
            x, total = torch.cat([v1, x[:, cut:] * s.exp() + t], dim=1), total + s.sum(dim=1)
        return x, total

    def inverse(self, z: Tensor, g: Tensor) -> Tensor:
        cut = z.shape[1] // 2
        for k in reversed(range(self.blocks)):
            s, t = self.subnetwork(f"flow.blocks.{k}.second", z[:, :cut], g)
            u2 = (z[:, cut:] - t) / s.exp()
            s, t = self.subnetwork(f"flow.blocks.{k}.first", u2, g)
            z = torch.cat([(z[:, :cut] - t) / s.exp(), u2], dim=1)
        return z


def class_means(view: ScaledView) -> Tensor:
    """(S, d) means of the rows of each seen class."""
    return torch.stack([view.features[view.labels == k].mean(dim=0) for k in view.seen])
