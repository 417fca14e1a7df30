"""How networks begin and how they step: initial weights, Adam, and a descent that reaches the named networks alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SLOPE = 0.2
"""Of every leaky ReLU."""
TINY = 1e-12


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Weights N(0, 0.02²), biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def adam(module: nn.Module, lr: float, beta1: float = 0.5) -> torch.optim.Optimizer:
    """Fused Adam with β = (beta1, 0.999); the lineage has 0.5, and 0.9 for encoders."""
    return torch.optim.Adam(module.parameters(), lr, (beta1, 0.999), fused=True)


def descend(loss: Tensor, *optimisers: torch.optim.Optimizer) -> None:
    """One step of each optimiser down this loss; parameters of other networks get no gradient and are left alone."""
    parameters = [p for optimiser in optimisers for group in optimiser.param_groups for p in group["params"]]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    for optimiser in optimisers:
        optimiser.step()
