"""Initial weights and descents."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unseen.nn.learning import adam, descend, initialise


def test_weights_are_normal_and_biases_0() -> None:
    network = nn.Sequential(nn.Linear(200, 100), nn.Linear(100, 50, bias=False))
    initialise(network, torch.Generator().manual_seed(1))
    assert float(network[0].weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert float(network[1].weight.detach().mean()) == pytest.approx(0.0, abs=1e-3)
    assert not network[0].bias.any()
    again = nn.Sequential(nn.Linear(200, 100), nn.Linear(100, 50, bias=False))
    initialise(again, torch.Generator().manual_seed(1))
    assert torch.equal(network[1].weight, again[1].weight)


def test_a_descent_moves_its_own_networks_and_touches_no_other() -> None:
    first, second, third = (nn.Linear(3, 3) for _ in range(3))
    optimisers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in (first, third)]
    x = torch.randn(4, 3)
    loss = third(second(first(x))).square().sum()
    networks = (first, third)
    expected = [
        p.detach() - 0.1 * gradient
        for network in networks
        for p, gradient in zip(
            network.parameters(), torch.autograd.grad(loss, list(network.parameters()), retain_graph=True), strict=True
        )
    ]
    before = [p.detach().clone() for p in second.parameters()]
    descend(loss, *optimisers)
    moved = [p.detach() for network in networks for p in network.parameters()]
    assert all(torch.allclose(one, other) for one, other in zip(moved, expected, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(before, second.parameters(), strict=True))
    assert all(p.grad is None for p in second.parameters())


def test_adam_has_the_betas_of_the_lineage() -> None:
    assert adam(nn.Linear(1, 1), 0.1).param_groups[0]["betas"] == (0.5, 0.999)
    assert adam(nn.Linear(1, 1), 0.1, beta1=0.9).param_groups[0]["betas"] == (0.9, 0.999)
